"""Merged values box by box: the same bits whatever the boxes are, and those of the formula for whole tensors."""

from dataclasses import replace
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from builders import cnn, mlp, narrower
from hypothesis import given
from hypothesis import strategies as st

from mal_graph import boxes
from mal_graph.boxes import contiguous_boxes
from mal_graph.matching import assign_at_random, correspond, match_layers
from mal_graph.merging import LayerLambdas, merge, plan_merge, widen, with_bias_slots
from mal_graph.registry import runner
from mal_graph.symmetry import Network, axis_groups

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ODD = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45]


def planned(base, donor, lam, unmatched, seed=0):
    base, match = with_bias_slots(base, donor, match_layers(base, donor))
    correspondence = correspond(Network(base, axis_groups(base)), Network(donor, axis_groups(donor)), match)
    return plan_merge(assign_at_random(correspondence, seed), LayerLambdas.of(lam), unmatched=unmatched)


def bits(array):
    return array.shape, array.dtype, np.ascontiguousarray(array).tobytes()


def in_boxes(weight, most):
    """The values of a weight, read in boxes of at most so many numbers."""
    read_box, values = weight.open(), np.empty(weight.shape, weight.dtype)
    for box in contiguous_boxes(weight.shape, most):
        values[box] = read_box(box)
    return values


def pairs():
    """Networks of other widths, with a BatchNorm on no, one or both sides, and one that grew."""
    yield mlp((5, 8, 7, 3), 0), mlp((5, 6, 9, 3), 1)
    plain, norm = (cnn((6, 5), 1, seed, bn=has_norm) for seed, has_norm in ((0, False), (1, True)))
    yield plain, norm
    yield norm, plain
    wide = cnn((8,), 1, 1)
    yield cnn((8,), 1, 0), narrower(wide, axis_groups(wide), 0)[0]


@pytest.mark.parametrize("number", range(4))
def test_the_size_of_the_boxes_changes_no_bit(number):
    base, donor = list(pairs())[number]
    made = planned(base, donor, 0.3, "fade")
    for plan in (made, replace(made, unmatched="zero"), widen(made, runner(), is_wider=True)):
        result = merge(plan)
        for name in result.edited:
            whole = bits(result.weights[name].read())
            assert all(bits(in_boxes(result.weights[name], most)) == whole for most in (5, 64))


def formula(a, b, lam):
    """What a tensor becomes whose entries all have a partner: what does not change keeps its bits."""
    wide = a.dtype if a.dtype == np.float64 else np.dtype(np.float32)
    mine, theirs = a.astype(wide), b.astype(wide)
    moved = theirs if lam == 1.0 else mine + wide.type(lam) * (theirs - mine)
    merged = np.where(mine != theirs, moved, mine)
    return np.where(merged == mine, a, merged.astype(a.dtype))


@cache
def small_plan(lam, seed):
    return planned(mlp((3, 4, 2), 0), mlp((3, 4, 2), 1), lam, "keep", seed)


@given(st.sampled_from(TYPES), st.sampled_from([0.1, 0.5, 1.0]), st.booleans(), st.integers(0, 10**6))
@np.errstate(all="ignore")
def test_values_are_those_of_the_formula_bit_for_bit(dtype, lam, has_odd, seed):
    plan, rng = small_plan(lam, seed % 3), np.random.default_rng(seed)
    base, donor = (
        graph.with_weights({name: drawn(w.shape, dtype, rng, has_odd) for name, w in graph.weights.items()})
        for graph in (plan.base, plan.donor.graph)
    )
    (order,) = plan.alignment.orders
    merged = merge(with_values(plan, base, donor))
    for name, index in {"w0": order, "w1": order, "w2": np.s_[:, order], "w3": np.s_[:]}.items():
        expected = formula(base.weights[name].read(), donor.weights[name].read()[index], lam)
        assert bits(merged.weights[name].read()) == bits(expected), name


def drawn(shape, dtype, rng, has_odd):
    values = rng.normal(size=shape)
    if has_odd:
        values = np.where(rng.random(shape) < 0.5, rng.choice(ODD, shape), values)
    return values.astype(dtype)


def with_values(plan, base, donor):
    """A plan with other numbers in both models, which it would not be made for where they hold infinities."""
    pairs = [replace(step.pair, donor_values=replace(step.pair.donor_values, graph=donor)) for step in plan.steps]
    steps = tuple(replace(step, pair=pair) for step, pair in zip(plan.steps, pairs, strict=True))
    return replace(plan, base=base, steps=steps)


def test_a_box_that_is_read_from_elsewhere_breaks_the_law(monkeypatch):
    """The mutation: the donor's entries of a box are those of the first one."""
    plan = planned(mlp((5, 8, 7, 3), 0), mlp((5, 8, 7, 3), 1), 0.3, "keep")
    weight = merge(plan).weights["w2"]
    whole = bits(weight.read())
    monkeypatch.setattr(
        "mal_graph.merging.blending.within",
        lambda outer, inner: boxes.within(outer, slice(0, inner.stop - inner.start)),
    )
    assert bits(in_boxes(weight, 7)) != whole
