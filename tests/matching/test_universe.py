"""Several models aligned at once: orders agree along every way, and no pair of models is forgotten."""

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from builders import correspondence_of, mlp, narrower, permuted_copy, wider
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mal_graph.matching import align_in_rounds, align_in_universe, assign_at_random, assign_units
from mal_graph.matching.orders import is_assignment
from mal_graph.matching.universe import best_step, open_universe
from mal_graph.symmetry import axis_groups

WAYS = {"universe": align_in_universe, "rounds": align_in_rounds}
BOTH = ["universe", pytest.param("rounds", marks=pytest.mark.slow)]
few = settings(max_examples=2, deadline=None, phases=[Phase.reuse, Phase.generate])


def apart(graph, seed, size):
    """The graph with noise of so many deviations on every weight."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    noise = {name: size * array.std() * rng.standard_normal(array.shape) for name, array in weights.items()}
    return graph.with_weights({name: (array + noise[name]).astype(array.dtype) for name, array in weights.items()})


def models_of(base, seed, size, count=3):
    """Copies of a base with noise, each in an order of its own; what puts it back is the inverse of that order."""
    made = [permuted_copy(apart(base, seed + i, size), axis_groups(base), seed + i) for i in range(1, count + 1)]
    return [graph for graph, _ in made], [orders for _, orders in made]


def aligned(base, donors):
    return [assign_units(correspondence_of(base, donor)) for donor in donors]


def value_of(settled):
    return settled.universe.value(settled.universe.shares(settled.slots))


def begun(alignments):
    universe = open_universe(alignments)
    return universe.value(universe.shares(universe.begun()))


def of_other_widths(seed):
    base = mlp((4, 6, 5, 3), seed)
    groups = axis_groups(base)
    donors = [
        narrower(apart(base, seed + 1, 1.0), groups, seed)[0],
        wider(apart(base, seed + 2, 1.0), groups, seed)[0],
        permuted_copy(apart(base, seed + 3, 1.0), groups, seed)[0],
    ]
    return aligned(base, donors)


@pytest.mark.parametrize("way", BOTH)
@given(seed=st.integers(0, 99))
@few
def test_orders_composed_along_any_way_lead_back_to_where_they_began(way, seed):
    settled = WAYS[way](of_other_widths(seed))
    universe = settled.universe
    models = range(1 + len(universe.alignments))
    assert len(universe.free) == 2
    for group in universe.free:
        widths = [universe.units[model, group] for model in models]
        assert universe.slots[group] == max(widths) > min(widths)
        for cycle in (way for length in (2, 3, 4) for way in permutations(models, length)):
            units = np.arange(widths[cycle[0]])
            for first, second in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
                order = settled.order(first, second, group)
                assert is_assignment(order, (widths[first], widths[second]))
                units = np.where(units >= 0, order[units], -1)
            known = units >= 0
            assert np.array_equal(units[known], np.flatnonzero(known))
            if min(widths[model] for model in cycle) == universe.slots[group]:
                assert known.all()


def test_orders_that_were_found_pair_by_pair_do_not_agree():
    """The law can fail: of three models that have little in common each pair is aligned in its own way."""
    models = [mlp((6, 16, 4), seed) for seed in range(3)]
    orders = [
        aligned(first, [second])[0].orders[0] for first, second in zip(models, (*models[1:], models[0]), strict=True)
    ]
    assert not np.array_equal(orders[2][orders[1][orders[0]]], np.arange(16))


@pytest.mark.parametrize("way", BOTH)
@given(seed=st.integers(0, 99))
@few
def test_what_is_raised_is_never_below_the_orders_with_the_base(way, seed):
    base = mlp((6, 8, 4), seed)
    donors, _ = models_of(base, seed, 1.5)
    alignments = aligned(base, donors)
    settled = WAYS[way](alignments)
    again = [replace(one, orders=orders) for one, orders in zip(alignments, settled.orders, strict=True)]
    assert begun(again) == pytest.approx(value_of(settled), rel=1e-9)  # float64, another order of sums
    assert value_of(settled) >= begun(alignments)


@pytest.mark.parametrize("way", BOTH)
def test_models_with_little_in_common_with_the_base_gain_by_each_other(way):
    base = mlp((6, 24, 4), 0)
    alignments = aligned(base, models_of(base, 5, 2.0, count=4)[0])
    assert value_of(WAYS[way](alignments)) > 1.02 * begun(alignments)


@pytest.mark.parametrize("way", BOTH)
def test_planted_orders_are_found_again_from_random_ones(way):
    """All donors but the first begin in random order; a few units may be left in a local optimum."""
    base = mlp((6, 10, 4))
    donors, planted = models_of(base, 3, 0.3)
    true = aligned(base, donors)
    alignments = [true[0], *(assign_at_random(one.correspondence, seed=place) for place, one in enumerate(true[1:]))]
    settled = WAYS[way](alignments)
    found = [
        orders[pairs[place]] == known[group]
        for place, (orders, known) in enumerate(zip(settled.orders, planted, strict=True))
        for group, pairs in settled.universe.free.items()
    ]
    assert np.concatenate(found).mean() >= 0.9
    assert value_of(settled) >= 0.9 * begun(true) > 2 * begun(alignments)


# --- the value ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99))
@few
def test_the_value_is_the_sum_over_all_pairs_of_models(seed):
    base = mlp((4, 5, 3), seed)
    donors, _ = models_of(base, seed, 1.0, count=2)
    universe = open_universe(aligned(base, donors))
    (group,) = universe.free
    slots = {(model, group): np.random.default_rng((seed, model)).permutation(5) for model in range(3)}
    placed = []
    for model, graph in enumerate((base, *donors)):
        to = np.argsort(slots[model, group])
        weights = [weight.read().astype(np.float64) for weight in graph.weights.values()]
        first, second = (w for w in weights if w.ndim == 2)
        biases = [w for w in weights if w.ndim == 1]
        placed.append(np.concatenate([first[to].ravel(), second[:, to].ravel(), biases[0][to]]))
    expected = sum(float(a @ b) for a, b in combinations(placed, 2))
    assert universe.value(universe.shares(slots)) == pytest.approx(expected, rel=1e-9)  # float64


@given(seed=st.integers(0, 99))
@few
def test_slopes_are_those_of_the_value(seed):
    alignments = of_other_widths(seed)
    universe, rng = open_universe(alignments), np.random.default_rng(seed)
    shares = {key: rng.random(own.shape) for key, own in universe.shares(universe.begun()).items()}
    slopes = universe.slopes(shares)
    for key, own in shares.items():
        move = rng.standard_normal(own.shape)
        ends = [universe.value({**shares, key: own + side * 1e-4 * move}) for side in (1, -1)]
        rise = (slopes[key] * move).sum()
        assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(rise, rel=1e-5, abs=1e-5 * abs(slopes[key]).sum())  # a cubic
        np.testing.assert_allclose(universe.slope(key, shares), slopes[key], rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 99))
@few
def test_the_best_step_is_no_worse_than_any_on_a_grid(seed):
    universe, rng = open_universe(of_other_widths(seed)), np.random.default_rng(seed)
    shares = universe.shares(universe.begun())
    ends = {key: rng.permutation(own) for key, own in shares.items()}

    def at(step):
        return universe.value({key: (1 - step) * own + step * ends[key] for key, own in shares.items()})

    best = at(best_step(universe, shares, ends))
    assert best >= max(map(at, np.linspace(0, 1, 21))) - 1e-8 * abs(best)
