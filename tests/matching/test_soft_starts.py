"""Soft orders: what is likely of every unit, before any is decided on."""

import numpy as np
import pytest
from builders import cnn, correspondence_of, mlp, permuted_copy
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.matching import assign_units, assignment
from mal_graph.matching.objective import Objective
from mal_graph.matching.orders import match_units, random_order, score_order
from mal_graph.matching.soft_starts import (
    assign_softly,
    balanced,
    begin_forward,
    first_pairs,
    is_faint,
    soft_scores,
)
from mal_graph.symmetry import axis_groups

EVEN = (9, 96, 96, 96, 10)
WIDENING = (12, 32, 32, 32, 32, 160, 160, 10)  # the first four layers cost next to nothing
BRANCHED = correspondence_of(cnn((6, 8), 1, 0, concat=True), cnn((6, 7), 1, 1, concat=True))


def weak_copy(seed, correlation, widths=EVEN):
    """A network, and a shuffled copy of it mixed with another one."""
    base, other = mlp(widths, seed), mlp(widths, seed + 1000)
    copy, _ = permuted_copy(base, axis_groups(base), seed)
    shares = np.float32(correlation), np.float32(np.sqrt(1 - correlation**2))
    mixed = {
        name: shares[0] * weight.read() + shares[1] * other.weights[name].read()
        for name, weight in copy.weights.items()
        if weight.is_float
    }
    return correspondence_of(base, copy.with_weights(mixed))


@pytest.mark.parametrize("correlation", [0.35, 0.55])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("widths", [EVEN, WIDENING])
def test_a_weak_copy_is_found_that_deciding_on_the_way_misses(monkeypatch, seed, correlation, widths):
    """And where it is not found, no less is reached than without."""
    found = weak_copy(seed, correlation, widths)
    monkeypatch.setattr(assignment, "count_spare_starts", lambda objective: 0)  # as of a problem that is not tiny
    soft = assign_units(found)
    monkeypatch.setattr(assignment, "is_faint", lambda *arguments: False)
    monkeypatch.setattr(assignment, "begin_forward", lambda objective: ("forward", ()))
    hard = assign_units(found)
    assert {name for name, _ in hard.starts} <= {"forward", "nearest"}
    if correlation > 0.5:
        assert soft.start == "soft"
        assert soft.objective > 1.3 * hard.objective  # chance reaches .7 of the copy, see the figures of both
    else:
        assert soft.objective >= hard.objective


@given(st.integers(0, 10**6))
def test_shares_of_one_are_orders(seed):
    rng = np.random.default_rng(seed)
    objective = Objective(BRANCHED)
    orders = [random_order(*units, rng) for units in BRANCHED.units]
    shares = {}
    for pair, (order, units) in enumerate(zip(orders, BRANCHED.units, strict=True)):
        shares[pair] = np.zeros(units, np.float32)
        paired = order >= 0
        shares[pair][paired, order[paired]] = 1
    for pair in range(objective.count):
        expected = objective.scores(pair, orders)
        rounding = 1e-5 * np.abs(expected).max()  # of float32, summed in another order
        assert np.abs(soft_scores(objective, pair, shares) - expected).max() <= rounding


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 1e6]))
def test_shares_add_up_and_lead_to_the_same_assignment(units, others, seed, size):
    scores = size * np.random.default_rng(seed).standard_normal((units, others))
    shares, logarithms = balanced(scores)
    assert np.isfinite(logarithms).all()
    assert np.allclose(shares.sum(axis=1), min(units, others) / units, rtol=1e-5)  # float32
    assert shares.min() >= 0
    if units == others:
        best = score_order(scores, match_units(scores))
        assert score_order(scores, match_units(logarithms)) == pytest.approx(best, rel=1e-6, abs=1e-6 * size)


def test_what_fits_by_chance_is_faint_and_a_copy_is_not():
    for correlation, expected in ((0.0, True), (0.9, False)):
        found = weak_copy(3, correlation)
        assert is_faint(Objective(found), assign_units(found).orders) is expected


def test_the_first_pairs_tell_of_copies_only_and_never_lead_to_less():
    """A clear copy needs no soft start, and of two strangers none is begun with."""
    for correlation, expected in ((0.0, "forward"), (0.55, "soft"), (0.95, "forward")):
        objective = Objective(weak_copy(2, correlation, WIDENING))
        name, first = begin_forward(objective)
        assert name == expected
        assert [order is not None for order in first] == [True] * 4 + [False] * 2
        assert len(first_pairs(objective)) == 4


@pytest.mark.parametrize("widths", [EVEN, (12, 32, 32, 32, 160, 160, 10)])
def test_where_no_few_pairs_cost_little_all_are_looked_at(widths):
    objective = Objective(weak_copy(0, 0.5, widths))
    assert first_pairs(objective) == []
    assert begin_forward(objective) == ("forward", ())


def test_a_soft_start_is_an_assignment_of_every_pair():
    found = correspondence_of(cnn((6, 8), 1, 0), cnn((8, 6), 1, 1))
    orders = assign_softly(Objective(found))
    assert [(order >= 0).sum() for order in orders] == [min(pair) for pair in found.units]
