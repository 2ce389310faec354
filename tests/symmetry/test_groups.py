"""Axis groups of hand-made networks, against groups derived by hand."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from builders import Net, cnn, deviation, inputs_of, load, mlp, permuted_copy, run
from onnx import TensorProto, helper, numpy_helper

from mal_graph.errors import RunError
from mal_graph.graph import weight_of
from mal_graph.operators import ROWS, GroupState, Row
from mal_graph.operators.marks import SizeConstant
from mal_graph.symmetry import axis_groups
from mal_graph.symmetry.grouping import sizes_of
from mal_graph.symmetry.tracing import first_axis


def hidden(graph):
    """The groups that may be permuted: {tensor[axis]: positions}, plain ones as a count, in the order of the graph."""
    groups = axis_groups(graph)
    return [
        {
            f"{m.tensor}[{m.axis}]": len(m.positions) if m.is_plain else m.positions.tolist()
            for m in groups.groups[i].members
        }
        for i in groups.usable()
    ]


def states(graph):
    """State and reason of each weight axis, the first group on it."""
    groups = axis_groups(graph)
    return {
        f"{tensor}[{axis}]": (groups.groups[found[0][0]].state, groups.groups[found[0][0]].reason)
        for (tensor, axis), found in groups.on_axis.items()
    }


@pytest.fixture
def net():
    return Net(0)


def pointwise(net, x, units_in, units, name, **options):
    """A 1x1 convolution without bias whose weight has a name."""
    return net.op("Conv", x, net.weight(units, units_in, 1, 1, name=name), **options)


# --- the shapes of members --------------------------------------------------------------------------------------


def test_a_hidden_layer_is_one_group_of_out_bias_and_in():
    assert hidden(mlp((3, 5, 2))) == [{"w0[0]": 5, "w1[0]": 5, "w2[1]": 5}]


@pytest.mark.parametrize(
    ("style", "out_axis", "in_axis"), [("gemm", 0, 1), ("gemm_nt", 1, 0), ("matmul", 1, 0), ("transposed", 0, 1)]
)
def test_the_way_a_linear_layer_is_written_only_changes_the_axis(style, out_axis, in_axis):
    assert hidden(mlp((3, 5, 2), style=style)) == [{f"w0[{out_axis}]": 5, "w1[0]": 5, f"w2[{in_axis}]": 5}]


def test_a_channel_owns_its_positions_after_a_flatten(net):
    x = net.op("Conv", net.input("x", ("N", 3, 2, 2)), net.weight(4, 3, 1, 1, name="a"))
    graph = net.graph(net.op("Gemm", net.op("Flatten", x), net.weight(5, 16, name="fc"), transB=1))
    columns = [[4 * unit + position for position in range(4)] for unit in range(4)]
    assert hidden(graph) == [{"a[0]": 4, "fc[1]": columns}]


def test_a_channel_owns_strided_positions_after_a_flatten_of_channels_last(net):
    x = net.op("Conv", net.input("x", ("N", 3, 2, 2)), net.weight(4, 3, 1, 1, name="a"))
    x = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 3, 1]), net.constant([0, -1]))
    graph = net.graph(net.op("Gemm", x, net.weight(5, 16, name="fc"), transB=1))
    columns = [[unit + 4 * position for position in range(4)] for unit in range(4)]
    assert hidden(graph) == [{"a[0]": 4, "fc[1]": columns}]


def test_the_parts_of_a_concat_keep_their_offsets(net):
    x = net.input("x", ("N", 3, 2, 2))
    y = net.op("Concat", pointwise(net, x, 3, 3, "a"), pointwise(net, x, 3, 2, "b"), axis=1)
    graph = net.graph(pointwise(net, y, 5, 4, "c"))
    assert hidden(graph) == [{"a[0]": 3, "c[1]": 3}, {"b[0]": 2, "c[1]": [[3], [4]]}]


def test_a_tensor_concatenated_twice_owns_both_places(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 2, "a")
    graph = net.graph(pointwise(net, net.op("Concat", x, x, axis=1), 4, 4, "c"))
    outer, *copies = hidden(graph)
    assert outer == {"a[0]": 2, "c[1]": [[0, 2], [1, 3]]}
    assert copies == [{"c[1]": [[0], [2]]}, {"c[1]": [[1], [3]]}]


def alone(*positions):
    """Units of one position each, as `hidden` shows them."""
    return len(positions) if positions[0] == 0 else [[position] for position in positions]


def test_a_depthwise_convolution_moves_with_its_input(net):
    x = pointwise(net, net.input("x", ("N", 3, 4, 4)), 3, 4, "a")
    x = net.op("Conv", x, net.weight(4, 1, 3, 3, name="dw"), net.weight(4, name="bias"), group=4)
    graph = net.graph(pointwise(net, x, 4, 2, "b"))
    assert hidden(graph) == [{"a[0]": 4, "dw[0]": 4, "bias[0]": 4, "b[1]": 4}]


def test_the_filters_of_a_depthwise_channel_move_with_it_and_within_it(net):
    x = pointwise(net, net.input("x", ("N", 3, 4, 4)), 3, 4, "a")
    x = net.op("Conv", x, net.weight(8, 1, 3, 3, name="dw"), net.weight(8, name="bias"), group=4)
    graph = net.graph(pointwise(net, x, 8, 2, "b"))
    pairs = [[2 * unit, 2 * unit + 1] for unit in range(4)]
    within = [dict.fromkeys(("dw[0]", "bias[0]", "b[1]"), alone(*pair)) for pair in pairs]
    assert hidden(graph) == [{"a[0]": 4, "dw[0]": pairs, "bias[0]": pairs, "b[1]": pairs}, *within]
    assert [group.inside for group in axis_groups(graph).groups if group.inside] == [
        ("Conv_0", unit) for unit in range(4)
    ]


def test_a_grouped_convolution_has_blocks_their_inputs_and_the_outputs_of_each(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 6, "a")
    x = net.op("Conv", net.op("Relu", x), net.weight(4, 3, 1, 1, name="grouped"), group=2)
    graph = net.graph(pointwise(net, net.op("Relu", x), 4, 2, "b"))
    blocks = {"a[0]": [[0, 1, 2], [3, 4, 5]], "grouped[0]": [[0, 1], [2, 3]], "b[1]": [[0, 1], [2, 3]]}
    inputs = {"a[0]": [[0, 3], [1, 4], [2, 5]], "grouped[1]": 3}
    outputs = [dict.fromkeys(("grouped[0]", "b[1]"), alone(*pair)) for pair in ([0, 1], [2, 3])]
    assert hidden(graph) == [blocks, inputs, *outputs]


def test_a_grouped_transposed_convolution_shares_its_outputs_instead(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 4, "a")
    x = net.op("ConvTranspose", net.op("Relu", x), net.weight(4, 3, 1, 1, name="grouped"), group=2)
    graph = net.graph(pointwise(net, net.op("Relu", x), 6, 2, "b"))
    blocks = {"a[0]": [[0, 1], [2, 3]], "grouped[0]": [[0, 1], [2, 3]], "b[1]": [[0, 1, 2], [3, 4, 5]]}
    inputs = [dict.fromkeys(("a[0]", "grouped[0]"), alone(*pair)) for pair in ([0, 1], [2, 3])]
    outputs = {"grouped[1]": 3, "b[1]": [[0, 3], [1, 4], [2, 5]]}
    assert hidden(graph) == [blocks, inputs[0], inputs[1], outputs]


def test_a_group_normalisation_as_exporters_write_it_has_blocks_and_channels_in_them(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 4, "a")
    y = net.op("Reshape", x, net.constant([0, 2, -1]))
    y = net.op("InstanceNormalization", y, net.weight(2, name="one"), net.weight(2, name="zero"))
    y = net.op("Mul", net.op("Reshape", y, net.op("Shape", x)), net.weight(4, 1, 1, name="scale"))
    graph = net.graph(pointwise(net, net.op("Relu", y), 4, 2, "b"))
    pairs = [[0, 1], [2, 3]]
    blocks = {"a[0]": pairs, "one[0]": 2, "zero[0]": 2, "scale[0]": pairs, "b[1]": pairs}
    within = [dict.fromkeys(("a[0]", "scale[0]", "b[1]"), alone(*pair)) for pair in pairs]
    assert hidden(graph) == [blocks, *within]
    statistics = {group.inside is None: group.statistic for group in axis_groups(graph).groups if group.is_usable}
    assert statistics[True] is None, "one more block changes no other"
    assert statistics[False].op == "InstanceNormalization"


def test_heads_are_blocks_with_units_of_their_own(net):
    """Queries and keys of one head share an order, values and the rows they enter another."""
    x = net.input("x", ("N", 5, 3))

    def heads(name):
        y = net.op("MatMul", x, net.weight(3, 4, name=name))
        return net.op("Transpose", net.op("Reshape", y, net.constant([0, 0, 2, 2])), perm=[0, 2, 1, 3])

    queries, keys, values = map(heads, "qkv")
    scores = net.op("Softmax", net.op("MatMul", queries, net.op("Transpose", keys, perm=[0, 1, 3, 2])), axis=-1)
    y = net.op("Transpose", net.op("MatMul", scores, values), perm=[0, 2, 1, 3])
    graph = net.graph(net.op("MatMul", net.op("Reshape", y, net.constant([0, 0, 4])), net.weight(4, 2, name="out")))
    pairs = [[0, 1], [2, 3]]
    assert hidden(graph) == [
        {"q[1]": pairs, "k[1]": pairs, "v[1]": pairs, "out[0]": pairs},
        *[dict.fromkeys(("q[1]", "k[1]"), alone(*pair)) for pair in pairs],
        *[dict.fromkeys(("v[1]", "out[0]"), alone(*pair)) for pair in pairs],
    ]


def test_a_residual_stream_is_one_group_and_each_inner_width_another(net):
    def linear(x, units_in, units, name):
        return net.op("MatMul", x, net.weight(units_in, units, name=name))

    x = linear(net.input("x", ("N", 3)), 3, 4, "embed")
    for block in "12":
        x = net.op("Add", x, linear(net.op("Relu", linear(x, 4, 6, f"up{block}")), 6, 4, f"down{block}"))
    graph = net.graph(linear(x, 4, 2, "head"))
    stream = {"embed[1]": 4, "up1[0]": 4, "down1[1]": 4, "up2[0]": 4, "down2[1]": 4, "head[0]": 4}
    inner = [{f"up{block}[1]": 6, f"down{block}[0]": 6} for block in "12"]
    assert hidden(graph) == [stream, *inner]


def test_a_channel_shuffle_moves_positions(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 6, "a")
    x = net.op("Transpose", net.op("Reshape", x, net.constant([0, 2, 3, 2, 2])), perm=[0, 2, 1, 3, 4])
    graph = net.graph(pointwise(net, net.op("Reshape", x, net.constant([0, 6, 2, 2])), 6, 4, "b"))
    moved = [[2 * (unit % 3) + unit // 3] for unit in range(6)]  # unit (g, i) of (2, 3) comes to place (i, g)
    assert hidden(graph) == [{"a[0]": 6, "b[1]": moved}]


def test_two_halves_of_an_axis_that_gate_each_other_move_in_pairs(net):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 8, name="a"))
    x = net.op("Reshape", x, net.constant([0, 2, 4]))
    halves = [net.op("Gather", x, net.constant(i), axis=1) for i in range(2)]
    graph = net.graph(net.op("MatMul", net.op("Mul", *halves), net.weight(4, 2, name="b")))
    assert hidden(graph) == [{"a[1]": [[unit, unit + 4] for unit in range(4)], "b[0]": 4}]


def test_a_flip_keeps_pairs(net):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 6, name="a"))
    y = net.op("Slice", x, *[net.constant([v]) for v in (-1, -(2**62), 1, -1)])
    graph = net.graph(net.op("MatMul", net.op("Add", x, y), net.weight(6, 2, name="b")))
    pairs = [[unit, 5 - unit] for unit in range(3)]
    assert hidden(graph) == [{"a[1]": pairs, "b[0]": pairs}]


def test_channels_padded_in_a_shortcut_shift_the_rest_and_freeze_the_border(net):
    """Option A of a ResNet: zeros before and behind, then a sum."""
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 3, "a")
    y = net.op("Add", net.op("Pad", x, net.constant([0, 1, 0, 0, 0, 1, 0, 0])), pointwise(net, x, 3, 5, "b"))
    graph = net.graph(pointwise(net, y, 5, 4, "c"))
    inner = [[1], [2], [3]]
    assert hidden(graph) == [{"a[0]": 3, "b[0]": inner, "b[1]": 3, "c[1]": inner}]
    frozen = [group for group in axis_groups(graph).groups if group.state is GroupState.FROZEN]
    assert [group.members[0].positions.tolist() for group in frozen] == [[[0], [4]]]
    assert "pads the axis" in frozen[0].reason


# --- an order that is fixed by contract -------------------------------------------------------------------------


def told(net, op, x):
    """The number of a place along the last axis, as floats."""
    attributes = {"TopK": {}, "NonZero": {}}.get(op, {"axis": 1, "keepdims": 0})
    inputs = [net.constant([2])] if op == "TopK" else []
    y = net.op(op, x, *inputs, outputs=2 if op == "TopK" else 1, **attributes)
    return net.op("Cast", y[1] if op == "TopK" else y, to=TensorProto.FLOAT)


COUNTING = ("ArgMax", "ArgMin", "TopK", "NonZero")


@pytest.mark.parametrize("op", COUNTING)
def test_places_that_the_model_tells_are_pinned_and_not_frozen(net, op):
    x = net.op("Gemm", net.input("x", ("N", 4)), net.weight(5, 4, name="w"), transB=1)
    assert states(net.graph(told(net, op, x)))["w[0]"] == (
        GroupState.PINNED,
        f"places that {net.nodes[-2].op_type} '{net.nodes[-2].name}' tells of",
    )


@pytest.mark.parametrize("op", ["ArgMax", "TopK"])
def test_what_only_the_model_itself_looks_up_by_a_place_moves_with_the_units(net, op):
    x = net.op("Gemm", net.input("x", ("N", 4)), net.weight(5, 4, name="w"), transB=1)
    place = net.op("Cast", told(net, op, x), to=TensorProto.INT64)
    graph = net.graph(net.op("Gather", net.weight(5, 3, name="table"), place))
    assert hidden(graph) == [{"w[0]": 5, "table[0]": 5}]


@pytest.mark.parametrize("op", ["ArgMax", "TopK", "CumSum", "Hardmax"])
def test_an_output_of_the_model_is_in_order_whatever_reads_it(net, op):
    x = net.op("Gemm", net.input("x", ("N", 4)), net.weight(5, 4, name="w"), transB=1)
    y = net.op("Sigmoid", x)
    if op == "CumSum":
        z = net.op(op, y, net.constant(1))
    else:
        z = net.op("Hardmax", y, axis=1) if op == "Hardmax" else told(net, op, y)
    state, reason = states(net.graph(x, net.op("Neg", z)))["w[0]"]
    assert state is GroupState.PINNED
    assert reason == f"axes of model output '{x}'"


# --- where weights come from ------------------------------------------------------------------------------------


def test_weights_behind_constants_and_moving_operators_are_found(net):
    net.nodes.append(
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(np.ones((3, 4), np.float32)))
    )
    net.nodes.append(
        helper.make_node("ConstantOfShape", [net.constant([4])], ["b"], value=helper.make_tensor("v", 1, [1], [0.5]))
    )
    x = net.op("Add", net.op("MatMul", net.input("x", ("N", 3)), net.op("Identity", "a")), net.op("Identity", "b"))
    w = net.op("Transpose", net.op("Unsqueeze", net.weight(2, 4, name="c"), net.constant([0])), perm=[0, 2, 1])
    graph = net.graph(net.op("MatMul", x, net.op("Squeeze", w, net.constant([0]))))
    assert hidden(graph) == [{"a[1]": 4, "b[0]": 4, "c[1]": 4}]


def test_a_tied_weight_ties_its_own_axes(net):
    w = net.weight(3, 3, name="w")
    x = net.op("MatMul", net.input("x", ("N", 2)), net.weight(2, 3, name="first"))
    x = net.op("MatMul", net.op("Tanh", net.op("MatMul", x, w)), w)
    graph = net.graph(net.op("MatMul", x, net.weight(3, 2, name="last")))
    assert hidden(graph) == [{"first[1]": 3, "w[0]": 3, "w[1]": 3, "last[0]": 3}]


def test_a_module_used_twice_has_one_group(net):
    weights = net.weight(3, 5, name="a"), net.weight(5, 4, name="b"), net.weight(4, 1, name="c")
    branches = [
        net.op("MatMul", net.op("Relu", net.op("MatMul", net.input(n, ("N", 3)), weights[0])), weights[1]) for n in "xy"
    ]
    graph = net.graph(net.op("MatMul", net.op("Sub", *branches), weights[2]))
    assert hidden(graph) == [{"a[1]": 5, "b[0]": 5}, {"b[1]": 4, "c[0]": 4}]


def test_one_hidden_layer_feeds_two_outputs(net):
    x = net.op("Relu", net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 5, name="a")))
    graph = net.graph(*[net.op("MatMul", x, net.weight(5, 2, name=name)) for name in "bc"])
    assert hidden(graph) == [{"a[1]": 5, "b[0]": 5, "c[0]": 5}]


def test_a_hidden_layer_that_is_an_output_is_pinned(net):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 5, name="a"))
    graph = net.graph(x, net.op("MatMul", x, net.weight(5, 2, name="b")))
    assert hidden(graph) == []
    assert states(graph)["b[0]"] == (GroupState.PINNED, f"axes of model output {x!r}")


def test_looking_up_by_index_pins_the_entries_and_frees_the_rest(net):
    tokens = net.input("tokens", ("N", 4), "int64")
    x = net.op("Gather", net.weight(7, 5, name="table"), tokens)
    graph = net.graph(net.op("MatMul", x, net.weight(5, 2, name="b")))
    assert hidden(graph) == [{"table[1]": 5, "b[0]": 5}]
    assert states(graph)["table[0]"][0] == GroupState.PINNED


# --- sizes that mislead -----------------------------------------------------------------------------------------


def test_equal_sizes_everywhere_tie_nothing_that_is_not_tied(net):
    """Channels, height, width and batch are all 3."""
    x = net.conv(net.input("x", (3, 3, 3, 3)), 3, 3)
    x = net.op("Relu", net.norm(x, 3))
    graph = net.graph(net.conv(x, 3, 3))
    assert hidden(graph) == [{"w0[0]": 3, "w1[0]": 3, "bn2[0]": 3, "bn3[0]": 3, "bn4[0]": 3, "bn5[0]": 3, "w6[1]": 3}]


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_the_batch_size_does_not_matter(batch):
    net = Net(0)
    x = net.conv(net.input("x", (batch, 3, 4, 4)), 3, 3)
    graph = net.graph(net.conv(net.op("Relu", x), 3, 3))
    assert hidden(graph) == [{"w0[0]": 3, "w1[0]": 3, "w2[1]": 3}]


def test_a_single_channel_belongs_to_no_group(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 1, "a")
    x = pointwise(net, pointwise(net, x, 1, 1, "depthwise"), 1, 4, "b")
    graph = net.graph(pointwise(net, x, 4, 2, "c"))
    assert hidden(graph) == [{"b[0]": 4, "c[1]": 4}]


def test_an_axis_used_one_index_at_a_time_is_not_permuted(net):
    """The second picks unit 0 of what the first repeats: nothing may trade places with it."""
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="a"))
    x = net.op("Gather", net.op("Gather", x, net.constant([0, 3, 0]), axis=1), net.constant([0, 2, 0]), axis=1)
    graph = net.graph(net.op("MatMul", net.op("Reshape", x, net.constant([-1, 3])), net.weight(3, 2, name="b")))
    groups = axis_groups(graph)
    assert not any(groups.groups[i].is_usable for i, member in groups.on_axis["a", 1] if 0 in member.positions)


def test_a_flatten_and_back_frees_no_position(net):
    """A weight over the positions stays pinned although they went through one flat axis."""
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 4, "a")
    x = net.op("Reshape", net.op("Flatten", x), net.constant([-1, 4, 4]))
    x = net.op("MatMul", x, net.weight(4, 3, name="positions"))
    graph = net.graph(net.op("MatMul", net.weight(2, 4, name="b"), x))
    assert hidden(graph) == [{"a[0]": 4, "b[1]": 4}]
    assert states(graph)["positions[0]"][0] == GroupState.PINNED


@pytest.mark.parametrize("read", ["mean", "softmax", "product"])
def test_units_that_enter_a_sum_are_told_from_those_that_do_not(net, read):
    """The first two of five units make a gate for the whole signal, and no weight reads them apart."""
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 5, name="a"))
    part = net.op("Slice", x, net.constant([0]), net.constant([2]), net.constant([1]))
    if read == "mean":
        gate = net.op("ReduceMean", part, net.constant([1]))
    elif read == "softmax":
        gate = net.op("ReduceMax", net.op("Softmax", part, axis=-1), net.constant([1]))
    else:
        gate = net.op("Unsqueeze", part, net.constant([1]))
        gate = net.op("MatMul", gate, net.op("Transpose", gate, perm=[0, 2, 1]))
        gate = net.op("Reshape", gate, net.constant([-1, 1]))
    graph = net.graph(net.op("MatMul", net.op("Mul", x, gate), net.weight(5, 2, name="b")))
    assert hidden(graph) == [
        {"a[1]": 2, "b[0]": 2},
        {"a[1]": [[2], [3], [4]], "b[0]": [[2], [3], [4]]},
    ]


def test_filters_picked_by_place_out_of_every_depthwise_channel_move_in_all_of_them(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 4, "a")
    x = net.op("Conv", x, net.weight(8, 1, 1, 1, name="dw"), group=4)
    x = net.op("Transpose", net.op("Reshape", x, net.constant([0, 4, 2, 4])), perm=[0, 1, 3, 2])
    graph = net.graph(net.op("ReduceSum", net.op("MatMul", x, net.weight(2, 3, name="b")), net.constant([1])))
    assert {"dw[0]": [[0, 2, 4, 6], [1, 3, 5, 7]], "b[0]": 2} in hidden(graph)


# --- what cannot be said ----------------------------------------------------------------------------------------


def test_an_operator_without_a_rule_freezes_what_it_touches(net):
    x = pointwise(net, net.input("x", ("N", 3, 2, 2)), 3, 4, "a")
    x = net.op("Trilu", x, domain="com.microsoft")
    graph = net.graph(pointwise(net, net.op("Relu", pointwise(net, x, 4, 5, "b")), 5, 2, "c"))
    assert hidden(graph) == [{"b[0]": 5, "c[1]": 5}]
    for axis in ("a[0]", "b[1]"):
        state, reason = states(graph)[axis]
        assert state is GroupState.FROZEN
        assert reason.startswith("operator com.microsoft.Trilu has no axis rule: it stands beside an operator of ONNX")
    assert axis_groups(graph).unknown == {"com.microsoft.Trilu": (graph.nodes[1].name,)}


def test_an_operator_of_a_custom_domain_freezes_what_it_touches(net):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="a"))
    x = net.op("Half", x, domain="local")
    proto = net.proto(net.op("MatMul", x, net.weight(4, 2, name="b")))
    body = [helper.make_node("Add", ["v", "v"], ["w"])]  # of another opset, so that it stays a call
    proto.functions.append(helper.make_function("local", "Half", ["v"], ["w"], body, [helper.make_opsetid("", 19)]))
    graph = load(proto)
    assert hidden(graph) == []
    assert states(graph)["a[1]"] == (GroupState.FROZEN, "operator local.Half has no axis rule")


def test_the_indices_of_a_pool_freeze_its_channels(net):
    x = pointwise(net, net.input("x", ("N", 3, 4, 4)), 3, 4, "a")
    y, where = net.op("MaxPool", x, outputs=2, kernel_shape=[2, 2])
    proto = net.proto(pointwise(net, y, 4, 2, "b"))
    proto.graph.output.append(helper.make_tensor_value_info(where, TensorProto.INT64, ["N", 4, 3, 3]))
    onnx.checker.check_model(proto)
    assert hidden(load(proto)) == []


def test_a_bound_computed_at_run_time_freezes_the_axis(net):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="a"))
    end = net.op("Cast", net.op("ReduceMax", net.op("Abs", x), net.constant([0, 1]), keepdims=0), to=7)
    end = net.op("Add", net.op("Reshape", net.op("Min", end, net.constant(0)), net.constant([1])), net.constant([4]))
    y = net.op("Slice", x, net.constant([0]), end, net.constant([1]))
    graph = net.graph(net.op("MatMul", y, net.weight(4, 2, name="b")))
    assert states(graph)["a[1]"][0] == GroupState.FROZEN
    assert "computed at run time" in states(graph)["a[1]"][1]


def test_a_unit_unlike_all_others_is_rigid(net):
    """All four units feed one layer, the first two another, the very first a third."""
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="a"))
    parts = [net.op("Slice", x, net.constant([0]), net.constant([end]), net.constant([1])) for end in (4, 2, 1)]
    read = [net.op("MatMul", part, net.weight(n, 2)) for part, n in zip(parts, (4, 2, 1), strict=True)]
    groups = [g for g in axis_groups(net.graph(net.op("Sum", *read))).groups if g.name.startswith("MatMul_0")]
    found = [(group.state, group.members[0].positions.ravel().tolist()) for group in groups]
    assert found == [(GroupState.FROZEN, [0]), (GroupState.RIGID, [1]), (GroupState.CANDIDATE, [2, 3])]


def test_a_rule_that_does_not_fit_names_the_operator_and_the_shapes():
    def broken(call):
        raise ValueError("no such axis")

    with pytest.raises(RunError, match=r"axis rule of Relu 'Relu_1' failed on shapes .*no such axis"):
        axis_groups(mlp(), table={**ROWS, "Relu": Row(broken)})


# --- notes on groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["LayerNormalization", "Softmax", "ReduceMean", "Relu"])
def test_a_statistic_over_the_units_is_noted(net, op):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="a"))
    more = {"LayerNormalization": [net.weight(4)], "ReduceMean": [net.constant([1])]}.get(op, [])
    y = net.op(op, x, *more, **({"axis": -1} if op == "Softmax" else {}))
    graph = net.graph(net.op("MatMul", net.op("Add", x, y), net.weight(4, 2, name="b")))
    groups = axis_groups(graph)
    (index,) = groups.usable()
    assert bool(groups.groups[index].statistic) == (op != "Relu")


def test_roles_say_operator_slot_and_side():
    groups = axis_groups(cnn((4,), blocks=0))
    assert [str(member.role) for member in groups.groups[groups.usable()[0]].members] == [
        "Conv.weight out",
        "BatchNormalization.scale unit",
        "BatchNormalization.shift unit",
        "BatchNormalization.mean unit",
        "BatchNormalization.variance unit",
        "Gemm.weight in",
    ]


def test_every_index_of_every_weight_axis_lies_in_exactly_one_group():
    for graph in (mlp(), cnn(concat=True, head="flatten"), cnn(depthwise=True)):
        for (tensor, axis), found in axis_groups(graph).on_axis.items():
            places = np.concatenate([member.positions.ravel() for _, member in found])
            assert np.array_equal(np.sort(places), np.arange(graph.weights[tensor].shape[axis]))


def test_permuted_copy_changes_every_member():
    graph = cnn(head="flatten")
    groups = axis_groups(graph)
    copy, orders = permuted_copy(graph, groups)
    for i in orders:
        for member in groups.groups[i].members:
            assert not np.array_equal(copy.weights[member.tensor].read(), graph.weights[member.tensor].read())


def test_a_group_norm_over_a_concat_keeps_the_blocks_of_the_norm_before_it():
    """The second norm reads whole blocks of the first one's channels, at places that do not matter to it."""
    net = Net(0, opset=20)

    def norm(x, channels):
        shape = net.constant([0, 2, -1])
        ones, zeros = (net.constant(values) for values in (np.ones(2, np.float32), np.zeros(2, np.float32)))
        y = net.op("InstanceNormalization", net.op("Reshape", x, shape), ones, zeros)
        y = net.op("Reshape", y, net.constant([0, channels, 4, 4]))
        return net.op("Relu", net.op("Mul", y, net.weight(channels, 1, 1, scale=1.0)))

    first = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 8)
    second = net.conv(norm(first, 8), 8, 8)
    graph = net.graph(net.conv(norm(net.op("Concat", second, first, axis=1), 16), 16, 4))
    groups = axis_groups(graph)
    found = [(group.units, group.inside) for group in groups.groups if group.is_usable]
    outer = next(group.name for group in groups.groups if group.is_usable and group.units == 2)
    assert found == [(2, None), (4, (outer, 0)), (4, (outer, 1)), (8, None)]
    copy, _ = permuted_copy(graph, groups)
    assert deviation(run(copy, inputs_of(graph)), run(graph, inputs_of(graph))) < 1e-12


# --- names ------------------------------------------------------------------------------------------------------


def test_a_group_is_named_after_the_layer_that_produces_its_units():
    groups = axis_groups(mlp((3, 5, 2)))
    assert [(group.name, group.members[0].tensor) for group in groups.groups] == [
        ("Gemm_0", "w0"),
        ("w0[1]", "w0"),
        ("Gemm_2", "w2"),
    ]


def test_no_two_groups_have_one_name():
    for graph in (mlp(), cnn(concat=True, head="flatten"), cnn(depthwise=True)):
        names = [group.name for group in axis_groups(graph).groups]
        assert len(set(names)) == len(names)


def test_names_do_not_depend_on_the_values_of_the_weights():
    names = [[group.name for group in axis_groups(cnn(seed=seed)).groups] for seed in (0, 1)]
    assert names[0] == names[1]


def test_numbered_names_stay_apart_from_layers_that_are_called_so(net):
    """A depthwise layer, with a group of filters in each of three channels, before a layer named as the second."""
    x = pointwise(net, net.input("x", ("N", 3, 4, 4)), 3, 3, "a")
    x = net.op("Conv", x, net.weight(6, 1, 1, 1, name="dw"), group=3)
    graph = net.graph(pointwise(net, net.op("Relu", pointwise(net, x, 6, 4, "b")), 4, 2, "c"))
    nodes = [replace(node, name="Conv_1#2") if node.name == "Conv_2" else node for node in graph.nodes]
    names = [group.name for group in axis_groups(replace(graph, nodes=tuple(nodes))).groups]
    assert {"Conv_1", "Conv_1#2", "Conv_1#3"} <= set(names)
    assert len(set(names)) == len(names)


def test_the_number_of_blocks_does_not_follow_what_is_inside_one():
    count, width = SizeConstant("shape", "Reshape", "heads", is_block_count=True), SizeConstant("shape", "Reshape", "a")
    assert sizes_of([count, width, count, width], is_inside=False) == (count, width)
    assert sizes_of([count, width, count], is_inside=True) == (width,)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), 0), ((1, 2, 3), 1), ((1, 1), 0), ((), 0)])
def test_the_axis_of_a_mask_is_the_first_that_holds_more_than_one(shape, axis):
    assert first_axis(weight_of("mask", np.ones(shape, bool))) == axis
