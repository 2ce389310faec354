"""Nets that mislead: one trap each, with the groups derived by hand, judged by running them in float64.

A trap gives its net and the groups it expects: for each the positions of its units on every axis, a number where unit
u is index u. What it says is fixed must be, and for the reason it gives.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, load, permuted_copy, run, stored
from onnx import helper, numpy_helper

from mal_graph.operators import ROWS, GroupState, Row, elementwise
from mal_graph.symmetry import axis_groups, permute_weights, verify

EXACT = 1e-9


@dataclass(frozen=True)
class Trap:
    """A net that misleads, its groups, and for axes that must stay a part of the reason."""

    build: Callable[[Net], object]
    groups: list[dict[str, object]]
    fixed: dict[str, str] = field(default_factory=dict)

    @property
    def graph(self):
        net = Net(0)
        made = self.build(net)
        return made if not isinstance(made, str | tuple) else net.graph(*([made] if isinstance(made, str) else made))


TRAPS: dict[str, Trap] = {}


def trap(*groups: dict[str, object], **fixed: str):
    """Register a builder under its name; `fixed` names axes as weight_axis."""

    def register(build: Callable[[Net], object]) -> Callable[[Net], object]:
        axes = {f"{name[:-2]}[{name[-1]}]": reason for name, reason in fixed.items()}
        TRAPS[build.__name__] = Trap(build, list(groups), axes)
        return build

    return register


def up(net, units=6, name="up"):
    """Units made of an input of three."""
    return linear(net, net.input("x", ("N", 3)) if not net.inputs else "x", 3, units, name)


def linear(net, x, units_in, units, name):
    return net.op("MatMul", x, net.weight(units_in, units, name=name))


def down(net, x, units=6, name="down"):
    return linear(net, x, units, 2, name)


def conv(net, x, units_in, units, name, **options):
    """A 1x1 convolution."""
    return net.op("Conv", x, net.weight(units, units_in, 1, 1, name=name), **options)


def image(net, units=6, size=4, name="up"):
    return conv(net, net.input("x", ("N", 3, size, size)) if not net.inputs else "x", 3, units, name)


def cut(net, x, start, end, step=1):
    return net.op("Slice", x, *[net.constant([v]) for v in (start, end, 1, step)])


def alone(*positions):
    return [[position] for position in positions]


# --- the order of an axis counts --------------------------------------------------------------------------------

PAIRS = [[0, 5], [1, 4], [2, 3]]


@trap({"up[1]": PAIRS, "down[0]": PAIRS})
def flip_added_to_itself(net):
    x = up(net)
    return down(net, net.op("Tanh", net.op("Add", x, cut(net, x, -1, -(2**62), -1))))


@trap({"up[1]": 6, "down[0]": alone(5, 4, 3, 2, 1, 0)})
def flip(net):
    return down(net, cut(net, up(net), -1, -(2**62), -1))


@trap(up_1="runs along the axis", down_0="runs along the axis")
def running_sum(net):
    return down(net, net.op("CumSum", up(net), net.constant(1)))


@trap(up_0="window over the channels", down_1="window over the channels")
def local_response_norm(net):
    return conv(net, net.op("LRN", image(net), size=3, alpha=1.0), 6, 2, "down")


@trap({"up[0]": 4, "wide[1]": 4, "wide[0]": alone(1, 2, 3, 4), "down[1]": alone(1, 2, 3, 4)})
def shortcut_of_zeros(net):
    """Option A of a ResNet: a stage that grows from 4 channels to 6."""
    x = net.op("Relu", image(net, 4))
    y = net.op("Pad", x, net.constant([0, 1, 0, 0, 0, 1, 0, 0]))
    return conv(net, net.op("Relu", net.op("Add", y, conv(net, x, 4, 6, "wide"))), 6, 2, "down")


@trap({"up[0]": 6, "down[1]": alone(0, 2, 4, 1, 3, 5)})
def channel_shuffle(net):
    x = net.op("Transpose", net.op("Reshape", image(net), net.constant([0, 2, 3, 4, 4])), perm=[0, 2, 1, 3, 4])
    return conv(net, net.op("Reshape", x, net.constant([0, 6, 4, 4])), 6, 2, "down")


def rolled(net, x, by):
    return net.op("Concat", cut(net, x, by, 6), cut(net, x, 0, by), axis=1)


@trap({"up[1]": 6, "down[0]": alone(4, 5, 0, 1, 2, 3)})
def roll(net):
    return down(net, rolled(net, up(net), 2))


@trap({"up[1]": alone(1, 2, 3, 4, 5), "down[0]": 5})
def roll_by_one(net):
    """Known limit: all six could trade places, but the one that is cut out alone stays."""
    return down(net, rolled(net, up(net), 1))


HALVES = [[0, 3], [1, 4], [2, 5]]


@trap({"up[1]": HALVES, "down[0]": HALVES})
def roll_by_half_added_to_itself(net):
    x = up(net)
    return down(net, net.op("Tanh", net.op("Add", net.op("Mul", x, x), rolled(net, x, 3))))


@trap(up_1="", down_0="")
def roll_by_one_added_to_itself(net):
    """A ring: it could be turned as a whole, for which groups have no form."""
    x = up(net)
    return down(net, net.op("Tanh", net.op("Add", net.op("Mul", x, x), rolled(net, x, 1))))


@trap(up_0="a window slides over", down_1="a window slides over")
def window_over_channels(net):
    x = image(net)
    y = net.op("Reshape", net.op("GlobalAveragePool", x), net.constant([0, 1, 6]))
    y = net.op("Conv", y, net.weight(1, 1, 3), pads=[1, 1])
    return conv(
        net, net.op("Mul", x, net.op("Sigmoid", net.op("Reshape", y, net.constant([0, 6, 1, 1])))), 6, 2, "down"
    )


# --- one weight in two places -----------------------------------------------------------------------------------


@trap({"a[1]": 5, "b[0]": 5}, {"b[1]": 4, "down[0]": 4})
def module_used_twice(net):
    weights = net.weight(3, 5, name="a"), net.weight(5, 4, name="b")
    branches = [
        net.op("MatMul", net.op("Relu", net.op("MatMul", net.input(name, ("N", 3)), weights[0])), weights[1])
        for name in "xy"
    ]
    return down(net, net.op("Tanh", net.op("Sub", *branches)), 4)


@trap({"table[1]": 5, "mix[0]": 5, "mix[1]": 5}, table_0="")
def embedding_tied_to_the_head(net):
    table = net.weight(7, 5, name="table")
    x = net.op("Gather", table, net.input("tokens", ("N", 4), "int64"))
    x = net.op("Add", x, linear(net, net.op("Tanh", x), 5, 5, "mix"))
    return net.op("MatMul", x, net.op("Transpose", table, perm=[1, 0]))


@trap({"w[1]": 5})
def weight_used_plain_and_transposed(net):
    """An autoencoder with tied weights."""
    w = net.weight(3, 5, name="w")
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 3)), w))
    return net.op("MatMul", x, net.op("Transpose", w, perm=[1, 0]))


@trap({"first[1]": 4, "w[0]": 4, "down[0]": 4}, {"w[1]": 4})
def square_weight_used_plain_and_transposed(net):
    """Its axes have one length and stay apart: the units between the uses are those of the second axis alone."""
    w = net.weight(4, 4, name="w")
    x = net.op("Tanh", net.op("MatMul", up(net, 4, "first"), w))
    return down(net, net.op("Tanh", net.op("MatMul", net.op("Add", x, x), net.op("Transpose", w, perm=[1, 0]))), 4)


@trap({"up[1]": 4, "a[0]": 4, "a[1]": 4, "down[0]": 4})
def one_initializer_under_two_names(net):
    """The second name is that of an Identity."""
    w = net.weight(4, 4, name="a")
    x = net.op("Tanh", net.op("MatMul", up(net, 4), w))
    return down(net, net.op("MatMul", x, net.op("Identity", w)), 4)


@trap({"a[1]": 4, "down[0]": 4}, {"copy[1]": 4, "last[0]": 4})
def equal_copies_of_one_weight(net):
    """Two initializers with the same values are two weights: each may move by itself."""
    x = up(net, 4, "a")
    net.weights["copy"] = net.weights["a"].copy()
    y = net.op("MatMul", "x", "copy")
    return net.op("Add", down(net, net.op("Tanh", x), 4), down(net, net.op("Sin", y), 4, "last"))


# --- where tensors come from and go to --------------------------------------------------------------------------


@trap({"up[1]": 6, "left[0]": 6, "right[0]": 6})
def two_outputs(net):
    x = net.op("Relu", up(net))
    return down(net, x, name="left"), down(net, x, name="right")


@trap({"b[1]": 4, "down[0]": 4}, a_1="model output", b_0="model output")
def hidden_layer_that_is_an_output(net):
    x = up(net, 6, "a")
    return x, down(net, net.op("Tanh", linear(net, x, 6, 4, "b")), 4)


@trap({"a[1]": 4, "down[0]": 4})
def weight_in_a_constant_node(net):
    values = net.rng.standard_normal((3, 4)).astype(np.float32)
    net.nodes.append(helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(values)))
    return down(net, net.op("Tanh", net.op("MatMul", net.input("x", ("N", 3)), "a")), 4)


@trap({"b[1]": 5, "down[0]": 5}, up_1="local.Half has no axis rule", b_0="local.Half has no axis rule")
def unknown_operator(net):
    x = net.op("Half", up(net), domain="local")
    proto = net.proto(down(net, net.op("Tanh", linear(net, x, 6, 5, "b")), 5))
    body = [helper.make_node("Add", ["v", "v"], ["w"])]  # of another opset, so that it stays a call
    proto.functions.append(helper.make_function("local", "Half", ["v"], ["w"], body, [helper.make_opsetid("", 19)]))
    return load(proto)


@trap({"up[1]": 6, "dead[0]": 6, "down[0]": 6}, {"dead[1]": 5})
def dead_branch(net):
    """What no output reads moves with what it reads, and changes nothing."""
    x = net.op("Tanh", up(net))
    linear(net, x, 6, 5, "dead")
    return down(net, x)


@trap({"up[0]": 4, "down[1]": 4}, scale_0="model input", mean_0="model input")
def norm_on_the_input(net):
    names = ("scale", "shift", "mean", "variance")
    vectors = [net.constant(net.rng.uniform(0.5, 2, 3).astype(np.float32), name) for name in names]
    x = net.op("BatchNormalization", net.input("x", ("N", 3, 4, 4)), *vectors)
    return conv(net, net.op("Relu", conv(net, x, 3, 4, "up")), 4, 2, "down")


@trap(up_1="by index")
def indices_from_another_input(net):
    x = up(net)
    return down(net, net.op("Gather", x, net.input("places", (6,), "int64"), axis=1))


@trap({"up[0]": 6, "down[1]": 6})
def shape_computed_at_run_time(net):
    """The target of the second reshape is the Shape of a tensor before, the first one's is put together of parts."""
    x = image(net)
    shape = net.op("Shape", x)
    parts = [net.op("Slice", shape, *[net.constant([v]) for v in bounds]) for bounds in ((0, 1, 0), (1, 2, 0))]
    y = net.op("Reshape", x, net.op("Concat", *parts, net.constant([-1]), axis=0))
    return conv(net, net.op("Reshape", net.op("Tanh", y), shape), 6, 2, "down")


# --- residual streams -------------------------------------------------------------------------------------------


@trap({"up[0]": 4, "wide[1]": 4, "skip[1]": 4}, {"wide[0]": 6, "skip[0]": 6, "down[1]": 6})
def residual_between_stages_with_a_projection(net):
    x = net.op("Relu", image(net, 4))
    y = net.op("Add", conv(net, x, 4, 6, "wide", strides=[2, 2]), conv(net, x, 4, 6, "skip", strides=[2, 2]))
    return conv(net, net.op("Relu", y), 6, 2, "down")


@trap({"up[0]": 4, "mid[1]": 4, "late[0]": 4, "down[1]": 4}, {"mid[0]": 5, "late[1]": 5})
def residual_between_stages_without_one(net):
    x = net.op("Relu", image(net, 4))
    y = conv(net, net.op("Relu", conv(net, x, 4, 5, "mid", strides=[2, 2])), 5, 4, "late")
    y = net.op("Add", net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), y)
    return conv(net, net.op("Relu", y), 4, 2, "down")


# --- sizes that coincide ----------------------------------------------------------------------------------------


@trap({"up[0]": 4, "each[0]": 4, "scale[0]": 4, "down[1]": 4}, {"down[0]": 4, "last[1]": 4})
def equal_sizes_everywhere(net):
    """Channels, groups, height, width and batch are all 4."""
    x = conv(net, net.input("x", (4, 4, 4, 4)), 4, 4, "up")
    x = net.op("Mul", conv(net, x, 1, 4, "each", group=4), net.weight(4, 1, 1, name="scale", scale=1.0))
    return conv(net, net.op("Tanh", conv(net, net.op("Tanh", x), 4, 4, "down")), 4, 4, "last")


@trap({"up[0]": 4, "down[1]": 4}, row_0="", row_1="")
def equal_sizes_and_a_weight_on_the_positions(net):
    x = conv(net, net.input("x", (4, 4, 4, 4)), 4, 4, "up")
    x = net.op("MatMul", net.op("Tanh", x), net.weight(4, 4, name="row"))
    return conv(net, x, 4, 4, "down")


# --- parts of an axis -------------------------------------------------------------------------------------------


@trap({"up[1]": [[0, 1], [2, 3], [4, 5]], "down[0]": 3})
def strided_slices_that_meet(net):
    x = up(net)
    return down(net, net.op("Mul", cut(net, x, 0, 6, 2), net.op("Sigmoid", cut(net, x, 1, 6, 2))), 3)


@trap({"up[1]": alone(0, 2, 4), "down[0]": 3}, {"up[1]": alone(1, 3, 5)})
def strided_slice(net):
    """What is not taken may move as well: nothing reads it."""
    return down(net, cut(net, up(net), 0, 6, 2), 3)


@trap({"up[1]": 4, "down[0]": [[0, 4], [1, 5], [2, 6], [3, 7]]})
def concat_with_itself(net):
    x = up(net, 4)
    return down(net, net.op("Concat", x, net.op("Tanh", x), axis=1), 8)


@trap({"up[1]": 2, "left[0]": 2}, {"up[1]": alone(2, 3, 4, 5), "right[0]": 4})
def split_into_unequal_parts(net):
    a, b = net.op("Split", up(net), net.constant([2, 4]), outputs=2, axis=1)
    return net.op("Add", down(net, net.op("Tanh", a), 2, "left"), down(net, net.op("Sin", b), 4, "right"))


# --- tensors that meet ------------------------------------------------------------------------------------------


@trap({"a[1]": 6, "b[1]": 6, "down[0]": 6})
def product_of_two_hidden_tensors(net):
    return down(net, net.op("Mul", up(net, 6, "a"), net.op("Sigmoid", up(net, 6, "b"))))


@trap({"up[1]": 6, "down[0]": 6})
def scalar_times(net):
    return down(net, net.op("Tanh", net.op("Mul", up(net), net.constant(np.array([0.7], np.float32), "gain"))))


@trap({"up[0]": 6, "down[1]": 6})
def softmax_over_channels(net):
    return conv(net, net.op("Softmax", image(net), axis=1), 6, 2, "down")


@trap({"a[1]": 5, "b[1]": 5}, down_0="model input")
def product_of_two_activations(net):
    """Scores over positions: the features vanish, what is left are positions."""
    x = net.input("x", ("N", 4, 3))
    a, b = linear(net, x, 3, 5, "a"), linear(net, x, 3, 5, "b")
    return down(net, net.op("MatMul", a, net.op("Transpose", b, perm=[0, 2, 1])), 4)


@trap({"up[0]": 6, "squeeze[1]": 6, "excite[0]": 6, "down[1]": 6}, {"squeeze[0]": 3, "excite[1]": 3})
def squeeze_and_excite(net):
    x = image(net)
    y = net.op("Relu", conv(net, net.op("GlobalAveragePool", x), 6, 3, "squeeze"))
    return conv(net, net.op("Mul", x, net.op("Sigmoid", conv(net, y, 3, 6, "excite"))), 6, 2, "down")


# --- tests ------------------------------------------------------------------------------------------------------

traps = pytest.mark.parametrize("name", list(TRAPS))


def shown(group):
    return {f"{m.tensor}[{m.axis}]": len(m.positions) if m.is_plain else m.positions.tolist() for m in group.members}


@traps
def test_the_groups_are_those_derived_by_hand(name):
    found = axis_groups(TRAPS[name].graph)
    usable = [shown(found.groups[i]) for i in found.usable()]
    assert all(group in usable for group in TRAPS[name].groups), usable
    assert len(usable) == len(TRAPS[name].groups), usable


@traps
def test_what_is_fixed_is_so_for_its_reason(name):
    found = axis_groups(TRAPS[name].graph)
    for axis, reason in TRAPS[name].fixed.items():
        tensor, _, number = axis.removesuffix("]").partition("[")
        groups = [found.groups[i] for i, _ in found.on_axis[tensor, int(number)]]
        assert not any(group.is_usable for group in groups)
        assert any(reason in group.reason for group in groups), [group.reason for group in groups]


@traps
def test_permuting_the_groups_keeps_the_outputs(name):
    graph = TRAPS[name].graph
    inputs = inputs_of(graph)
    copy, _ = permuted_copy(graph, axis_groups(graph))
    assert deviation(run(copy, inputs), run(graph, inputs)) <= EXACT


@traps
def test_leaving_out_any_member_moves_the_outputs(name):
    """So that the law above can fail, and no group lacks an axis or has one too many."""
    graph = TRAPS[name].graph
    groups, inputs, values = axis_groups(graph), inputs_of(graph), stored(graph)
    expected = run(graph, inputs)
    for group in (groups.groups[i] for i in groups.usable()):
        order = np.roll(np.arange(group.units), 1)
        read = [m for m in group.members if m.tensor != "dead"]
        for member in read if len(read) > 1 else ():
            others = replace(group, members=tuple(m for m in group.members if m is not member))
            moved = graph.with_weights(permute_weights(values, [(others, order)]))
            assert deviation(run(moved, inputs), expected) > 1e-6, f"{member.tensor}[{member.axis}]"


@pytest.mark.parametrize("name", TRAPS)
def test_the_verification_keeps_every_group_of_more_than_one_axis(name):
    """Of one axis alone nothing can be left out: the verification may keep it or not, but never rejects it."""
    graph = TRAPS[name].graph
    for group in verify(graph, axis_groups(graph)).groups:
        is_alone = {m.tensor for m in group.members} <= {"dead"} or len(group.members) == 1
        if group.state not in (GroupState.PINNED, GroupState.FROZEN, GroupState.RIGID):
            assert group.state is GroupState.VERIFIED or (is_alone and group.state is GroupState.UNVERIFIED), (
                group.reason
            )
        assert not group.reason.startswith("rejected")


@pytest.mark.parametrize(
    ("name", "op", "rule"),
    [
        ("running_sum", "CumSum", elementwise.unary),
        ("local_response_norm", "LRN", elementwise.unary),
        ("flip_added_to_itself", "Slice", elementwise.unary),
        ("indices_from_another_input", "Gather", elementwise.unary),
    ],
)
def test_a_wrong_operator_row_is_seen(name, op, rule):
    graph = TRAPS[name].graph
    inputs = inputs_of(graph)
    wrong = axis_groups(graph, table={**ROWS, op: Row(rule)})
    copy, _ = permuted_copy(graph, wrong)
    assert [shown(wrong.groups[i]) for i in wrong.usable()] != TRAPS[name].groups
    assert deviation(run(copy, inputs), run(graph, inputs)) > 1e-3
