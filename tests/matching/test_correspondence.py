"""Which groups and axes correspond to each other, and what is refused with which words."""

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, network, run

from mal_graph.matching import assign_units, correspond, match_layers
from mal_graph.matching.moving_groups import moving_groups
from mal_graph.merging import LayerLambdas, merge, plan_merge
from mal_graph.operators import GroupState
from mal_graph.symmetry import Network, axis_groups


def between(base, donor, base_groups=None, pairs=None, **options):
    """The correspondence of two models."""
    groups = base_groups or axis_groups(base)
    return correspond(Network(base, groups), network(donor), match_layers(base, donor, pairs), **options)


def merged(base, donor, lam, unmatched="keep", **options):
    alignment = assign_units(between(base, donor, **options))
    return merge(plan_merge(alignment, LayerLambdas.of(lam), unmatched=unmatched))


def axes_by_tensor(found):
    return {term.base.tensor: axes for term, axes in found.tensors}


def deviates(a, b):
    inputs = inputs_of(a)
    return deviation(run(a, inputs), run(b, inputs))


# --- pairs of groups ---------------------------------------------------------------------------------------------


def test_every_hidden_layer_is_one_pair_of_groups():
    found = between(mlp((8, 16, 12, 5), 0), mlp((8, 10, 20, 5), 1))
    assert found.units == ((16, 10), (12, 20))
    assert not found.refused
    assert not found.dropped


def test_producer_and_consumer_share_the_pair():
    found = between(mlp((8, 16, 12, 5), 0), mlp((8, 10, 20, 5), 1))
    used = {
        tensor: [[block.pair for block in axis.blocks] for axis in axes]
        for tensor, axes in axes_by_tensor(found).items()
    }
    assert used == {
        "w0": [[0], [-1]],
        "w1": [[0]],
        "w2": [[1], [0]],
        "w3": [[1]],
        "w4": [[-1], [1]],
        "w5": [[-1]],
    }


def test_a_residual_stream_answers_to_every_stream_of_a_net_without_shortcuts():
    """One group of the base, two of the donor: each pair has its own order."""
    base, donor = cnn((6,), 2, 0, inner=8), cnn((6,), 2, 1, inner=8, residual=False)
    found = between(base, donor)
    partners = {}
    for pair in found.pairs:
        partners.setdefault(pair.base, []).append(pair.donor)
    assert sorted(map(len, partners.values())) == [1, 1, 3]
    assert not found.refused


def test_each_layer_reads_the_order_of_the_donor_group_before_it():
    """Where no unit is without a partner, shortcut or not, lambda 1 computes the donor if the graph allows it."""
    base, donor = cnn((6,), 2, 0, residual=False), cnn((6,), 2, 1, residual=False)
    assert deviates(merged(base, donor, 1.0), donor) <= 1e-6


# --- blocks of an axis -------------------------------------------------------------------------------------------


def branches(widths, seed):
    """Branches of these widths, concatenated and read by one convolution."""
    net = Net(seed)
    x = net.input("x", ("N", 3, 6, 6))
    parts = [net.op("Relu", net.conv(x, 3, width, 1 + 2 * (i % 2))) for i, width in enumerate(widths)]
    x = net.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    x = net.op("Relu", net.conv(x, sum(widths), 6, 1))
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))


def reader_axis(found, widths):
    """The input axis of the convolution behind the concatenation."""
    return next(axes[1] for term, axes in found.tensors if term.is_weight and term.base.shape[:2] == (6, sum(widths)))


def test_the_parts_of_a_concatenation_answer_to_each_other_part_by_part():
    found = between(branches((4, 7), 0), branches((5, 3), 1))
    axis = reader_axis(found, (4, 7))
    assert [block.base.ravel().tolist() for block in axis.blocks] == [list(range(4)), list(range(4, 11))]
    assert [block.donor.ravel().tolist() for block in axis.blocks] == [list(range(5)), list(range(5, 8))]
    assert deviates(merged(branches((4, 7), 0), branches((4, 7), 1), 1.0), branches((4, 7), 1)) <= 1e-6


def test_a_part_without_a_counterpart_keeps_its_columns():
    base, donor = branches((4, 7), 0), branches((5,), 1)
    found = between(base, donor)
    axis = reader_axis(found, (4, 7))
    assert [block.base.ravel().tolist() for block in axis.blocks] == [list(range(4))]
    reader = next(term.base.tensor for term, axes in found.tensors if axis in axes)
    before, after = base.weights[reader].read(), merged(base, donor, 0.5).weights[reader].read()
    assert np.array_equal(after[:, 4:], before[:, 4:])
    assert not np.array_equal(after[:, :4], before[:, :4])


def test_a_flattened_map_moves_whole_channels():
    base, donor = cnn((6,), 0, 0, bn=False, head="flatten", size=4), cnn((5,), 0, 1, bn=False, head="flatten", size=4)
    found = between(base, donor)
    block = axes_by_tensor(found)["w2"][1].blocks[0]
    assert block.base.shape == (6, 16)
    assert block.donor.shape == (5, 16)
    assert block.base[1].tolist() == list(range(16, 32))


def test_positions_that_feed_a_statistic_are_marked():
    net = Net(0)
    x = net.linear(net.input("x", ("N", 5)), 5, 6)
    graph = net.graph(net.linear(net.op("Softmax", x, axis=-1), 6, 4))
    axes = axes_by_tensor(between(graph, graph))
    assert axes["w0"][0].statistic.tolist() == list(range(6))
    assert axes["w0"][1].statistic.tolist() == []
    plain = axes_by_tensor(between(mlp((5, 6, 4)), mlp((5, 6, 4))))
    assert plain["w0"][0].statistic.tolist() == []


# --- refusals ----------------------------------------------------------------------------------------------------


def test_inputs_of_different_length_keep_the_first_layer():
    found = between(mlp((8, 16, 5), 0), mlp((7, 16, 5), 1))
    assert list(found.refused.values()) == [
        "its input axis is fixed (axes of model input 'x') and 8 long, the donor's 7"
    ]
    assert {term.layer for term, _ in found.tensors} == {"Gemm_2"}


def exposed(seed, shown):
    """A hidden layer that is also a model output, or is not."""
    net = Net(seed)
    hidden = net.op("Relu", net.linear(net.input("x", ("N", 6)), 6, 8))
    y = net.linear(hidden, 8, 4)
    return net.graph(y, hidden) if shown else net.graph(y)


@pytest.mark.parametrize(("base", "donor"), [(True, False), (False, True)])
def test_a_hidden_layer_that_is_an_output_on_one_side_is_refused_with_the_output(base, donor):
    found = between(exposed(0, base), exposed(1, donor))
    assert set(found.refused.values()) == {
        "its output axis is fixed in one model alone (axes of model output 'relu1')",
        "its input axis is fixed in one model alone (axes of model output 'relu1')",
    }


def test_hidden_layers_that_are_outputs_of_both_merge_in_order():
    base, donor = exposed(0, True), exposed(1, True)
    assert not between(base, donor).refused
    assert deviates(merged(base, donor, 1.0), donor) <= 1e-6


def test_an_unverified_group_is_refused_unless_the_user_vouches_for_it():
    base, donor = mlp((8, 16, 5), 0), mlp((8, 16, 5), 1)
    groups = axis_groups(base)
    doubtful = groups.with_states({groups.usable()[0]: (GroupState.UNVERIFIED, "no run settled it")})
    found = between(base, donor, doubtful)
    assert set(found.refused.values()) == {
        "its output axis is unverified in the base: no run settled it",
        "its input axis is unverified in the base: no run settled it",
    }
    assert not found.tensors


def cumulated(width, seed):
    net = Net(seed)
    x = net.op("CumSum", net.linear(net.input("x", ("N", 5)), 5, width), net.constant(1))
    return net.graph(net.linear(x, width, 4))


def test_frozen_axes_of_different_length_are_refused_whatever_the_user_says():
    found = between(cumulated(6, 0), cumulated(7, 1), assume_ordered=True)
    assert len(found.refused) == 2
    assert all(
        "frozen in the base: CumSum 'CumSum_1' runs along the axis in order" in why for why in found.refused.values()
    )


def test_frozen_axes_that_are_ordered_alike_take_no_part_in_the_assignment():
    found = between(cumulated(6, 0), cumulated(6, 1), assume_ordered=True)
    assert found.pairs == ()
    assert not found.refused
    assert deviates(merged(cumulated(6, 0), cumulated(6, 1), 1.0, assume_ordered=True), cumulated(6, 1)) <= 1e-6


def test_a_convolution_over_other_dimensions_is_refused():
    def net_of(dimensions, seed):
        net = Net(seed)
        x = net.op("Conv", net.input("x", ("N", 3, *[6] * dimensions)), net.weight(8, 3, *[3] * dimensions))
        return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x))), 8, 4))

    base, donor = net_of(2, 0), net_of(1, 1)
    found = between(base, donor, pairs=[("Conv_0", "Conv_0")])
    assert list(found.refused.values()) == ["its shape (8, 3, 3, 3) has another rank than the donor's (8, 3, 3)"]


def test_a_depthwise_layer_does_not_answer_to_a_full_one():
    def net_of(group, seed):
        net = Net(seed)
        x = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, 6))
        x = net.op("Relu", net.conv(x, 6, 6, group=group))
        return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))

    base, donor = net_of(6, 0), net_of(1, 1)
    names = [[layer.name for layer in match_layers(graph, graph).base] for graph in (base, donor)]
    found = between(base, donor, pairs=list(zip(*names, strict=True)))
    assert "none of the units on its input axis has a counterpart in the donor layer" in found.refused.values()


@pytest.mark.parametrize("side", ["base", "donor"])
def test_a_weight_with_nan_is_refused_and_named(side):
    graphs = {"base": mlp((8, 16, 5), 0), "donor": mlp((8, 16, 5), 1)}
    broken = graphs[side].weights["w2"].read().copy()
    broken[0, 0] = np.nan
    graphs[side] = graphs[side].with_weights({"w2": broken})
    found = between(graphs["base"], graphs["donor"])
    assert found.refused == {"Gemm_2": f"weight w2 of the {side} holds NaN or infinity"}


def test_a_bias_with_infinity_is_dropped_and_its_weight_merged():
    base = mlp((8, 16, 5), 0)
    donor = mlp((8, 16, 5), 1)
    donor = donor.with_weights({"w3": np.full(5, np.inf, np.float32)})
    found = between(base, donor)
    assert found.dropped == {"Gemm_2": ("bias w3: bias w3 of the donor holds NaN or infinity",)}
    assert "w2" in axes_by_tensor(found)
    assert "w3" not in axes_by_tensor(found)


@pytest.mark.parametrize(("slot", "role", "refuses"), [(1, "scale", True), (3, "mean", False), (4, "variance", True)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_batchnorm_with_infinity_is_named_and_the_rest_is_aligned(slot, role, refuses, value):
    """Scale and variance are part of the weight that is compared; a mean is dropped alone."""
    base, donor = cnn((6,), 1, 0), cnn((6,), 1, 1)
    norm = next(node for node in donor.nodes if node.op == "BatchNormalization")
    broken = donor.weights[norm.inputs[slot]].read().copy()
    broken[2] = value
    found = between(base, donor.with_weights({norm.inputs[slot]: broken}))
    told = list(found.refused.values()) + [line for lines in found.dropped.values() for line in lines]
    if role == "variance" and value == np.inf:
        refuses = False  # it divides the weight to nothing
    assert len(told) == 1
    assert told[0].endswith("of the donor holds NaN or infinity")
    assert ("weight w0" in told[0]) == refuses
    assert np.isfinite(assign_units(found).objective)


def test_a_map_that_a_unit_multiplies_by_position_is_dropped_where_the_sizes_differ():
    def scaled(size, seed):
        net = Net(seed)
        x = net.conv(net.input("x", ("N", 3, "H", "W")), 3, 6)
        x = net.op("Mul", x, net.weight(1, 6, size, size, scale=1.0))
        return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))

    found = between(scaled(4, 0), scaled(5, 1))
    lines = [line for lines in found.dropped.values() for line in lines] + list(found.refused.values())
    assert any("4 long, the donor's 5" in line for line in lines)


@pytest.mark.parametrize(("blocks", "size"), [(2, 3), (3, 2), (2, 4)])
def test_of_a_grouped_convolution_the_groups_of_channels_are_assigned(blocks, size):
    """The places in a group share their positions with the groups; which are more is no matter."""
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, blocks * size))
    x = net.op("Relu", net.conv(x, blocks * size, blocks, group=blocks))
    x = net.op("Flatten", net.op("GlobalAveragePool", net.conv(x, blocks, 5)))
    groups = axis_groups(net.graph(net.linear(x, 5, 4)))
    assigned = [groups.groups[g] for g in moving_groups(groups)]
    assert sorted(group.units for group in assigned) == sorted([blocks, 5])
