"""The oracle of the group study accepts right groups and finds each way of being wrong."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, cnn, inputs_of, run

from mal_graph import registry
from mal_graph.operators import GroupState
from mal_graph.symmetry import AxisGroup, Member, ResizeCheck, axis_groups, verify


@pytest.fixture(scope="module")
def graph():
    return cnn((6, 8), blocks=1, concat=True, depthwise=True)


@pytest.fixture(scope="module")
def groups(graph):
    return verify(graph, axis_groups(graph))


@pytest.fixture(scope="module")
def verified(groups):
    return [group for group in groups.groups if group.state is GroupState.VERIFIED]


def widest(verified: list[AxisGroup]) -> int:
    """The group with the most members: what it does not hold, no other does."""
    return max(range(len(verified)), key=lambda i: len(verified[i].members))


def heavy_member(group: AxisGroup) -> Member:
    return next(member for member in group.members if member.consumes)


def test_right_groups_are_accepted_and_every_control_shows(study, graph, groups, verified):
    verdict = study.judge(graph, groups, verified)
    assert len(verified) > 5
    assert verdict.wrong == ()
    assert verdict.deviation <= study.TOLERANCE
    assert verdict.power > study.POWER


def test_a_group_that_lacks_a_member_is_found_among_the_right_ones(study, graph, groups, verified):
    place = widest(verified)
    lacking = tuple(m for m in verified[place].members if m is not heavy_member(verified[place]))
    faulty = [replace(g, members=lacking) if i == place else g for i, g in enumerate(verified)]
    assert study.judge(graph, groups, faulty).wrong == (verified[place].name,)


def test_a_group_with_a_wrong_position_is_found(study, graph, groups, verified):
    place = widest(verified)
    member = heavy_member(verified[place])
    positions = member.positions.copy()
    positions[[0, 1]] = positions[[1, 0]]  # two units exchanged in one member only
    members = tuple(replace(m, positions=positions) if m is member else m for m in verified[place].members)
    faulty = [replace(g, members=members) if i == place else g for i, g in enumerate(verified)]
    assert study.judge(graph, groups, faulty).wrong == (verified[place].name,)


def test_two_groups_that_should_be_one_are_both_found(study, graph, groups, verified):
    place = widest(verified)
    half = len(verified[place].members) // 2
    parts = [
        replace(verified[place], name=n, members=verified[place].members[s])
        for n, s in (("first", slice(half)), ("second", slice(half, None)))
    ]
    others = [group for i, group in enumerate(verified) if i != place]
    assert set(study.judge(graph, groups, [*others, *parts]).wrong) == {"first", "second"}


def operators(seed: int = 0) -> list:
    """One net for each option of the operators that the evaluator has of its own."""

    def net_of(build):
        net = Net(seed)
        x = net.input("x", (2, 4, 11, 9))
        return net.graph(build(net, x))

    pool = {"kernel_shape": [3, 2], "strides": [2, 2]}
    nets = [
        lambda n, x: n.op("Conv", x, n.weight(6, 2, 3, 2), n.weight(6), group=2, strides=[2, 1], dilations=[1, 2]),
        lambda n, x: n.op("Conv", x, n.weight(6, 4, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
        lambda n, x: n.op("Conv", x, n.weight(6, 4, 3, 2), auto_pad="SAME_LOWER"),
        lambda n, x: n.op("Conv", x, n.weight(6, 4, 3, 2), auto_pad="VALID"),
        lambda n, x: n.op(
            "ConvTranspose", x, n.weight(4, 3, 3, 2), n.weight(6), group=2, strides=[2, 3], pads=[1, 0, 0, 1]
        ),
        lambda n, x: n.op(
            "ConvTranspose", x, n.weight(4, 3, 2, 2), dilations=[2, 1], strides=[3, 3], output_padding=[1, 2]
        ),
        lambda n, x: n.op("MaxPool", x, pads=[1, 0, 1, 1], **pool),
        lambda n, x: n.op("MaxPool", x, ceil_mode=1, dilations=[2, 1], **pool),
        lambda n, x: n.op("MaxPool", x, auto_pad="SAME_UPPER", **pool),
        lambda n, x: n.op("AveragePool", x, pads=[1, 0, 1, 1], **pool),
        lambda n, x: n.op("AveragePool", x, pads=[1, 0, 1, 1], count_include_pad=1, ceil_mode=1, **pool),
        lambda n, x: n.op("AveragePool", x, ceil_mode=1, **pool),
        lambda n, x: n.op("Erf", x),
    ]
    factor = np.array([1, 1, 2, 1.5], np.float32)
    for mode, place in (
        ("nearest", "half_pixel"),
        ("nearest", "asymmetric"),
        ("linear", "align_corners"),
        ("linear", "half_pixel"),
        ("linear", "pytorch_half_pixel"),
        ("cubic", "half_pixel"),
    ):
        nets.append(
            lambda n, x, m=mode, p=place: n.op(
                "Resize", x, "", n.constant(factor), mode=m, coordinate_transformation_mode=p
            )
        )
    nets.append(lambda n, x: n.op("Resize", x, "", "", n.constant([2, 4, 7, 18]), mode="linear"))
    return [net_of(build) for build in nets]


@pytest.mark.parametrize("net", operators(), ids=lambda net: f"{net.nodes[-1].op} {dict(net.nodes[-1].attributes)}")
def test_the_evaluator_agrees_with_the_runtime(study, net):
    inputs = inputs_of(net)
    exact = study.Exact(net)
    weights = {name: net.weights[name].read().astype(np.float64) for name in exact.weights}
    found = exact.run({name: array.astype(np.float64) for name, array in inputs.items()}, weights)
    assert study.largest_move(run(net, inputs, "onnxruntime"), found) < 1e-5


@pytest.mark.parametrize("axis", [None, 0, 2, -1])
def test_an_old_softmax_runs_over_all_axes_from_one_on(study, axis):
    net = Net(0, opset=11)
    old = net.graph(net.op("Softmax", net.input("x", (2, 4, 3, 1)), axis=axis))
    inputs = inputs_of(old)
    assert study.largest_move(run(old, inputs, "onnxruntime"), study.Exact(old).run(inputs, {})) < 1e-5


def test_reasons_are_counted_without_names_and_figures(study):
    first = study.short_reason("rejected by the verification: permuting it moves the outputs by 3.1e-04 of their size")
    assert first == study.short_reason(
        "rejected by the verification: permuting it moves the outputs by 9.9e-01 of their size"
    )
    assert study.short_reason("operator LRN has no axis rule") == "operator LRN has no axis rule"


def test_a_failure_is_a_row_of_the_table(study):
    rows = [study.Row("good", states={"verified": 3}, deviation=1e-15, power=0.1), study.Row("bad", error="crash: x")]
    assert "| bad | 0 | 0 | 0 | 0 | 0.000 |  | 0.0 | 0.0 | 0 | 0 | 0 | 0.0 | crash: x |" in study.table(rows)
    assert "groups verified: 3; right: 3; **wrong: 0**" in study.totals(rows)
    assert "1 failed" in study.totals(rows)


def test_the_runs_that_permute_several_groups_are_told_from_controls(study, graph):
    groups = axis_groups(graph)
    counting = study.Counting(registry.runner(), groups)
    verify(graph, groups, counting)
    # A cycle of each group, an exchange, and exchanges of each without those that it meets; one run leaves members out.
    most = 2 + 2 * (len(groups.usable()) - 1).bit_length()
    assert 2 <= counting.together <= most
    assert counting.runs <= most + 4


def test_a_wrong_group_costs_runs_that_permute_several(study, graph, groups, verified):
    place = groups.groups.index(verified[widest(verified)])
    lacking = tuple(m for m in groups.groups[place].members if m is not heavy_member(groups.groups[place]))
    waiting = [replace(g, state=GroupState.CANDIDATE) if g.state is GroupState.VERIFIED else g for g in groups.groups]
    waiting[place] = replace(waiting[place], members=lacking)
    faulty = replace(groups, groups=tuple(waiting))
    counting = study.Counting(registry.runner(), faulty)
    verify(graph, faulty, counting)
    assert 2 < counting.together <= study.RUNS_TOGETHER * 3 * np.log2(len(verified))


def test_groups_that_units_cannot_be_added_to_are_listed_by_what_was_found(study):
    rows = [study.Row("a", resized={study.HOLDS: 4, "not silent": 1}), study.Row("b", resized={"not silent": 2})]
    assert "7, of which 4 free" in study.totals(rows)
    assert "3 not silent: a 1, b 2" in study.totals(rows)


@pytest.mark.parametrize(
    ("padding", "kind"),
    [
        (ResizeCheck(0.0, 0.0, 0.0), "free"),
        (ResizeCheck(0.0, 0.5, 0.0), "not silent"),
        (ResizeCheck(0.5, 0.0, 0.5), "read, missed when taken away"),
        (ResizeCheck(0.5, 0.5, 0.0, compensation="Softmax 'n1': keep"), "needs a compensation: Softmax ..: keep"),
        (ResizeCheck(reason="keeps its width: Slice 'n2': no slice"), "keeps its width: Slice ..: no slice"),
    ],
)
def test_what_was_found_of_a_group_is_named_without_names(study, padding, kind):
    assert study.kind_of(padding) == kind
