"""How far outputs move, and how verdicts on many things at once are found by halves."""

from dataclasses import replace
from operator import add

import ml_dtypes
import numpy as np
import pytest
from builders import Net
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.symmetry import GroupState, axis_groups, deviation, judge_by_halves, open_trial, permute_weights, verify
from mal_graph.symmetry.moves import derangement
from mal_graph.symmetry.near import Near

ZERO, ONE = np.zeros(3, np.float32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("output", "expected", "moved"),
    [
        (ONE, ONE, 0.0),
        (ONE * 1.5, ONE, 0.5),
        (ONE, ONE * -2, 1.5),
        (ZERO, ZERO, 0.0),
        (-ZERO, ZERO, 0.0),
        (ZERO, ONE, 1.0),
        (1e-30 * ONE, ZERO, np.inf),
        (ONE[:2], ONE, np.inf),
        (ONE * np.nan, ONE, np.inf),
        (ONE * np.nan, ONE * np.nan, 0.0),
        (ONE * np.inf, ONE * np.inf, 0.0),
        (ONE, ONE * np.inf, np.inf),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0),
        (np.array([3]), np.array([3]), 0.0),
        (np.array([1000]), np.array([1001]), np.inf),
        (np.array([True]), np.array([False]), np.inf),
        (np.array(["a"], object), np.array(["a"], object), 0.0),
        (np.array(["a"], object), np.array(["b"], object), np.inf),
        (np.array([2], ml_dtypes.bfloat16), np.array([1], ml_dtypes.bfloat16), 1.0),
    ],
)
def test_the_deviation_of_an_output(output, expected, moved):
    assert deviation({"y": output}, {"y": expected}) == moved


def test_the_largest_deviation_counts_and_only_expected_outputs_do():
    outputs = {"a": ONE * 1.25, "b": ONE * 1.5, "c": ZERO}
    assert deviation(outputs, {"a": ONE, "b": ONE}) == 0.5
    assert deviation(outputs, {}) == 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_halving_finds_every_item_that_fails(fails):
    def judge(items):
        good = not any(fails[i] for i in items)
        return [(i, good) for i in items] if good or len(items) == 1 else None

    assert judge_by_halves(range(len(fails)), judge, add) == [(i, not fail) for i, fail in enumerate(fails)]


def gated(sign=1.0, threshold=0.0):
    """A layer of six units whose sum with factors shows in an output of its own, from a threshold on.

    Returns:
        the graph, and its groups with the factors left out of that of the six units.
    """
    net = Net(0)
    units = net.op("Relu", net.linear(net.input("x", ("N", 4)), 4, 6))
    weighed = net.op("ReduceMean", net.op("Mul", units, net.weight(6, name="factors")), keepdims=0)
    shown = net.op(
        "Relu",
        net.op("Sub", net.op("Mul", weighed, net.constant(np.float32(sign))), net.constant(np.float32(threshold))),
    )
    graph = net.graph(net.linear(units, 6, 3), shown)
    groups = axis_groups(graph)
    (index,) = groups.usable()
    group = groups.groups[index]
    wrong = replace(group, members=tuple(m for m in group.members if m.tensor != "factors"))
    assert len(wrong.members) == len(group.members) - 1
    return graph, replace(groups, groups=tuple(wrong if g is group else g for g in groups.groups)), index


def test_a_group_that_is_wrong_only_where_the_base_gives_zero_is_rejected():
    for sign in (1.0, -1.0):
        graph, groups, index = gated(sign, -1000.0)
        trial = open_trial(graph, groups)
        order = derangement(np.random.default_rng(0).permutation(6))  # as the verification draws it
        wrong = trial.run({**trial.weights, **permute_weights(trial.weights, [(groups.groups[index], order)])})
        (before, after) = (outputs[graph.outputs[1].name] - 1000 for outputs in (trial.outputs, wrong))
        if after > before:
            graph, groups, index = gated(sign, (before + after) / 2)
            assert open_trial(graph, groups).outputs[graph.outputs[1].name] == 0
            judged = verify(graph, groups).groups[index]
            assert (judged.state, judged.deviation) == (GroupState.FROZEN, np.inf)
            return
    pytest.fail("the wrong order never gives more than the right one")


def test_an_output_that_rounding_alone_moves_from_zero_decides_nothing(monkeypatch):
    graph, groups, index = gated()
    monkeypatch.setattr("mal_graph.symmetry.verification.verify_near", lambda *given, **options: Near())
    monkeypatch.setattr("mal_graph.symmetry.trial.Trial.noise", np.inf)
    monkeypatch.setattr("mal_graph.symmetry.verification.bisect_groups", lambda *given: {index: np.inf})
    monkeypatch.setattr("mal_graph.symmetry.verification.deviations_in_float64", lambda *given: {})
    assert verify(graph, groups).groups[index].state is GroupState.UNVERIFIED
