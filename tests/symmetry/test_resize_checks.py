"""What added units do: the statements, and the compensations that the operator table names."""

from dataclasses import replace

import numpy as np
import pytest
from body_nets import MAPPING, SKIPPING
from builders import Net, cnn, load, mlp, run

from mal_graph.operators import GroupState
from mal_graph.operators import table as ops
from mal_graph.symmetry import ACCEPT, axis_groups, check_resizes, verify
from mal_graph.symmetry.resize_checks import compensation


def statements(graph):
    """The padding of every verified group of a graph, by units of the group."""
    groups = verify(graph, axis_groups(graph))
    found = check_resizes(graph, groups)
    return [(groups.groups[i], found[groups.groups[i].name]) for i in groups.usable()]


@pytest.mark.parametrize("graph", [mlp(), mlp(style="matmul"), cnn(), cnn(concat=True, head="flatten")])
def test_added_units_of_plain_networks_are_not_read_and_stay_silent(graph):
    found = statements(graph)
    assert found
    for group, padding in found:
        assert max(padding.not_read, padding.silent, padding.sliced) <= ACCEPT, group.name
        assert padding.holds
        assert padding.statement == "not read; silent; sliced"


@pytest.mark.parametrize("kind", [SKIPPING, MAPPING], ids=lambda kind: kind.name)
def test_units_of_bodies_have_a_statement_whatever_branches_no_run_reached(kind):
    graph = load(kind.make(kind.drawn(0)))
    groups = axis_groups(graph)
    judged = verify(graph, groups)
    found = check_resizes(graph, judged)
    assert found.keys() == {group.name for group in judged.groups if group.state is GroupState.VERIFIED}


def normed(op, **attributes):
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    if op == "LayerNormalization":
        x = net.op(op, x, net.weight(8, scale=1.0), net.weight(8), **attributes)
    else:
        x = net.op("Mul", x, net.op(op, x, net.constant([1]), keepdims=1))
    return net.graph(net.linear(x, 8, 4))


@pytest.mark.parametrize("op", ["LayerNormalization", "ReduceMean", "ReduceSum"])
def test_units_under_a_statistic_are_read_even_where_their_consumers_are_zero(op):
    ((group, padding),) = statements(normed(op))
    assert padding.not_read > 1e-3
    assert group.statistic.op == op
    assert "not read: no" in padding.statement
    assert compensation(group) in padding.statement


def test_a_sigmoid_of_nothing_is_a_half_so_that_a_zero_unit_is_not_silent():
    net = Net(0)
    x = net.op("Sigmoid", net.linear(net.input("x", ("N", 5)), 5, 8))
    ((_, padding),) = statements(net.graph(net.linear(x, 8, 4)))
    assert padding.not_read <= ACCEPT < padding.silent


def test_channels_inside_a_group_norm_are_read_and_whole_groups_are_not():
    net = Net(0, opset=21)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 8)
    x = net.op("GroupNormalization", x, net.weight(8, scale=1.0), net.weight(8), num_groups=4)
    found = statements(net.graph(net.conv(net.op("Relu", x), 8, 4)))
    for group, padding in found:
        assert (padding.not_read > 1e-3) == (group.inside is not None)
        assert ("only whole groups may be added" in padding.statement) == (group.inside is not None)
        follows = [
            constant
            for constant in group.sized_by
            if (constant.name, constant.op) == ("num_groups", "GroupNormalization")
        ]
        assert len(follows) == (group.inside is None)


def test_groups_that_are_resized_together_have_one_statement():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    x = net.op("Relu", net.conv(x, 6, 6, group=2))
    found = statements(net.graph(net.conv(x, 6, 4)))
    inner = [padding for group, padding in found if group.inside is not None]
    assert len(inner) == 2
    assert all(padding.holds for _, padding in found)
    assert inner[0] is inner[1], "both halves of the grouped convolution"


def test_a_width_that_nothing_expresses_is_kept():
    """Ones for every channel are made of a single one at run time: their number is in no axis of the network."""
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    ones = net.op("Expand", net.constant(np.ones((1, 1), np.float32)), net.constant([1, 8]))
    ((_, padding),) = statements(net.graph(net.linear(net.op("Mul", x, ones), 8, 4)))
    assert padding.statement.startswith("keeps its width: at another width onnxruntime refuses ")
    assert "ONNXRuntimeError" not in padding.statement
    assert not padding.holds


def test_units_that_show_in_no_way_verify_nothing(monkeypatch):
    graph = mlp()
    monkeypatch.setattr("mal_graph.symmetry.trial.Trial.deviation", lambda trial, changed: 0.0)
    for _, padding in statements(graph):
        assert padding.statement == "not tested: live units would not show either (0e+00)"
        assert not padding.holds


def test_what_is_not_tested_in_its_time_says_so():
    graph = cnn()
    groups = verify(graph, axis_groups(graph))
    found = check_resizes(graph, groups, timeout=0.0)
    assert len(found) == len(groups.usable())
    assert all(padding.statement.startswith("not tested: ") and not padding.holds for padding in found.values())
    assert any("time was up" in padding.reason for padding in found.values())


def test_a_wrong_width_in_the_table_keeps_the_width(monkeypatch):
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    x = net.op("Flatten", net.op("Conv", x, net.weight(6, 1, 3, 3), group=6))
    graph = net.graph(net.linear(x, 24, 4))
    assert [padding.holds for _, padding in statements(graph)] == [True]
    row = replace(ops.ROWS["Conv"], size_constants={})
    monkeypatch.setattr(ops, "ROWS", {**ops.ROWS, "Conv": row})
    monkeypatch.setattr("mal_graph.symmetry.resizing.row_of", lambda node: ops.ROWS.get(node.op))
    assert [padding.holds for _, padding in statements(graph)] == [False]


def test_what_cannot_be_tested_says_so():
    net = Net(0)
    table = net.op("ReduceMean", net.weight(7, 4, scale=1.0), net.constant([0]), keepdims=0)
    graph = net.graph(net.linear(net.op("Mul", net.linear(net.input("x", ("N", 3)), 3, 4), table), 4, 2))
    alone = [padding for group, padding in statements(graph) if len(group.members) == 1]
    assert [padding.statement for padding in alone] == [
        "not tested: its weights do not tell what produces its units and what consumes them"
    ]


def test_the_constants_that_hold_a_width_are_listed():
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6)
    x = net.op("Reshape", x, net.constant([0, 2, 3, 4, 4]))
    x = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 1, 3, 4]), net.constant([0, 6, 4, 4]))
    graph = net.graph(net.conv(net.op("Conv", x, net.weight(6, 1, 3, 3), group=6), 6, 4))
    (group,) = [group for group in axis_groups(graph).groups if group.is_usable]
    assert tuple(map(str, group.sized_by)) == (
        "shape of Reshape 'Reshape_1'",
        "shape of Reshape 'Reshape_3'",
        "group of Conv 'Conv_4'",
    )


# --- compensations ----------------------------------------------------------------------------------------------

C, M = 6, 9


def widened(values, fill=0.0):
    return np.concatenate([values, np.full((len(values), M - C), fill, values.dtype)], axis=1)


def scaled_norm(op, x, scale, epsilon, domain=""):
    net = Net(0, opset=23)
    y = net.op(op, net.input("x", ("N", x.shape[1])), net.constant(scale), epsilon=epsilon, axis=-1, domain=domain)
    (found,) = run(net.graph(y), {"x": x}, "reference")
    return found


@pytest.mark.parametrize("op", ["RMSNormalization", "LayerNormalization"])
def test_a_norm_over_more_units_is_exact_with_its_compensation(op):
    """Scale times sqrt(C/M), epsilon times C/M; a LayerNorm of what has no mean over the units."""
    rng = np.random.default_rng(0)
    x, scale = rng.standard_normal((4, C)), rng.standard_normal(C)
    if op == "LayerNormalization":
        x -= x.mean(axis=1, keepdims=True)
    grown = np.concatenate([scale * np.sqrt(C / M), np.zeros(M - C)])
    expected = scaled_norm(op, x, scale, 1e-2)
    found = scaled_norm(op, widened(x), grown, 1e-2 * C / M)
    assert np.abs(found[:, :C] - expected).max() <= 1e-6
    plain = scaled_norm(op, widened(x), np.concatenate([scale, np.zeros(M - C)]), 1e-2)
    assert np.abs(plain[:, :C] - expected).max() > 1e-2, "without it the function changes"


@pytest.mark.parametrize(
    ("op", "fill", "factor"),
    [
        ("ReduceMean", 0.0, M / C),
        ("ReduceSum", 0.0, 1.0),
        ("ReduceL1", 0.0, 1.0),
        ("ReduceL2", 0.0, 1.0),
        ("ReduceSumSquare", 0.0, 1.0),
        ("ReduceLogSum", 0.0, 1.0),
        ("ReduceProd", 1.0, 1.0),
        ("ReduceLogSumExp", -1e30, 1.0),
    ],
)
def test_a_reduction_over_more_units_is_exact_with_its_compensation(op, fill, factor):
    x = np.random.default_rng(0).uniform(0.5, 1.5, (4, C)).astype(np.float32)

    def reduced(values):
        net = Net(0)
        y = net.op(op, net.input("x", ("N", values.shape[1])), net.constant([1]), keepdims=1)
        (found,) = run(net.graph(y), {"x": values}, "onnxruntime")
        return found

    assert np.allclose(factor * reduced(widened(x, fill)), reduced(x), rtol=1e-5)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_over_more_units_is_exact_where_they_are_never_chosen(op):
    x = np.random.default_rng(0).standard_normal((4, C)).astype(np.float32)

    def chosen(values):
        net = Net(0)
        y = net.op(op, net.input("x", ("N", values.shape[1])), axis=1)
        (found,) = run(net.graph(y), {"x": values}, "onnxruntime")
        return found

    assert np.allclose(chosen(widened(x, -1e30))[:, :C], chosen(x), rtol=1e-6)


def test_a_statistic_that_nothing_compensates_says_to_keep_the_width():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    x = net.op("Mul", x, net.op("ReduceMax", x, net.constant([1]), keepdims=1))
    graph = net.graph(net.linear(x, 8, 4))
    (group,) = [group for group in axis_groups(graph).groups if group.is_usable]
    assert compensation(group).endswith("keep the width, no compensation is exact")
    assert compensation(replace(group, statistic=None)) == ""
