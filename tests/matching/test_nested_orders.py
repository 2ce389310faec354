"""Orders of units inside others and across each other: against every order there is, on small tables."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph.errors import ShapeError
from mal_graph.matching.axis_pairs import AxisPair, Block
from mal_graph.matching.nested_orders import Nests, extend_orders
from mal_graph.matching.orders import is_whole, score_at_random, score_order

PLAIN = Nests((-1,), ((3, 2),), (None,))
NESTED = Nests((-1, 0), ((2, 3), (6, 6)), (None, None))  # 2 units of 3 in the base, 3 of 2 in the donor
TWO_INSIDE = Nests((-1, 0, 0), ((2, 2), (4, 6), (6, 4)), (None, None, None))
DEEP = Nests((-1, 0, 1), ((2, 2), (4, 4), (8, 8)), (None, None, None))
CROSSED = Nests((-1, -1, -1), ((2, 3), (3, 2), (6, 6)), (None, None, (0, 1)))
CROSSED_INSIDE = Nests((-1, 0, 0, 0), ((2, 2), (4, 4), (6, 6), (12, 12)), (None, None, None, (1, 2)))
ALL = {
    "plain": PLAIN,
    "nested": NESTED,
    "two inside": TWO_INSIDE,
    "deep": DEEP,
    "crossed": CROSSED,
    "crossed inside": CROSSED_INSIDE,
}
EXACT = ("plain", "nested", "two inside", "deep")  # where nothing lies across


def orders_of(mine, theirs):
    """Every order of so many units that leaves none of the shorter side out."""
    places = [*range(theirs), *[-1] * max(0, mine - theirs)]
    return [np.array(order) for order in set(permutations(places, mine))]


def every_order(nests):
    """All orders that there are: one of every pair, inside every unit of the one around it."""

    def extended(known, pair):
        if pair == len(nests.within):
            yield tuple(known)
            return
        mine, theirs = nests.sizes(pair)
        if nests.grids[pair] is not None:
            choices = [nests.met(pair, known, 0)]
        elif nests.within[pair] < 0:
            choices = orders_of(mine, theirs)
        else:
            outer = known[nests.within[pair]]
            rows = product(orders_of(mine, theirs), repeat=int((outer >= 0).sum()))
            choices = [placed_in(outer, row, mine, theirs) for row in rows]
        for order in choices:
            yield from extended([*known, order], pair + 1)

    yield from extended([], 0)


def placed_in(outer, rows, mine, theirs):
    order = np.full((len(outer), mine), -1)
    for unit, row in zip(np.flatnonzero(outer >= 0), rows, strict=True):
        order[unit] = np.where(row >= 0, row + outer[unit] * theirs, -1)
    return order.ravel()


def drawn_tables(nests, seed):
    rng = np.random.default_rng(seed)
    return {pair: rng.standard_normal(units) for pair, units in enumerate(nests.units)}


def worth(tables, orders):
    return sum(score_order(table, orders[pair]) for pair, table in tables.items())


def solved(nests, tables):
    orders = {}
    for root, bundle in nests.bundles.items():
        orders |= nests.solve(root, {pair: tables[pair] for pair in bundle})
    return orders


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_orders_of_units_inside_others_are_the_best_there_are(name, seed):
    nests = ALL[name]
    tables = drawn_tables(nests, seed)
    best = max(worth(tables, orders) for orders in every_order(nests))
    assert worth(tables, solved(nests, tables)) == pytest.approx(best)


@pytest.mark.parametrize("name", ["crossed", "crossed inside"])
def test_the_orders_of_units_across_each_other_are_mostly_the_best_there_are(name):
    nests, reached = ALL[name], []
    for seed in range(20):
        tables = drawn_tables(nests, seed)
        every = sorted(worth(tables, orders) for orders in every_order(nests))
        found = worth(tables, solved(nests, tables))
        assert every[int(0.9 * len(every))] <= found <= every[-1] + 1e-9
        reached.append(found >= every[-1] - 1e-9)
    assert np.mean(reached) >= 0.7


@pytest.mark.parametrize("name", list(ALL))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_orders_that_are_raised_never_lose(name, seed):
    nests, tables = ALL[name], drawn_tables(ALL[name], seed)
    start = nests.drawn(np.random.default_rng(seed))
    for root, bundle in nests.bundles.items():
        own = {pair: tables[pair] for pair in bundle}
        assert worth(own, nests.solve(root, own, start)) >= worth(own, start) - 1e-9


@pytest.mark.parametrize("name", list(ALL))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_orders_are_among_those_there_are(name, seed):
    nests = ALL[name]
    every = {tuple(map(bytes, orders)) for orders in every_order(nests)}
    found = solved(nests, drawn_tables(nests, seed))
    for orders in (nests.identity(), nests.drawn(np.random.default_rng(seed)), [found[i] for i in sorted(found)]):
        assert tuple(map(bytes, orders)) in every


@pytest.mark.parametrize("name", list(ALL))
def test_the_mean_over_all_random_orders_is_what_the_table_says(name):
    nests, tables = ALL[name], drawn_tables(ALL[name], 1)
    drawn = [nests.drawn(np.random.default_rng(seed)) for seed in range(4000)]
    for pair, table in tables.items():
        mean = np.mean([score_order(table, orders[pair]) for orders in drawn])
        assert mean == pytest.approx(score_at_random(table, nests.spread(pair)), abs=0.15)


@pytest.mark.parametrize("name", list(ALL))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_completed_orders_are_permutations_that_keep_together_what_is_together(name, seed):
    nests = ALL[name]
    orders = nests.drawn(np.random.default_rng(seed))
    whole = nests.completed(orders)
    for pair, (own, full) in enumerate(zip(orders, whole, strict=True)):
        assert sorted(full) == list(range(nests.units[pair][1]))
        assert nests.grids[pair] or nests.within[pair] >= 0 or list(own[own >= 0]) == list(full[: (own >= 0).sum()])
        if nests.within[pair] >= 0:
            blocks = full.reshape(len(whole[nests.within[pair]]), -1) // nests.sizes(pair)[1]
            assert (blocks == whole[nests.within[pair]][:, None]).all()


def test_added_units_get_what_found_no_place():
    before = Nests((-1, 0), ((2, 3), (4, 9)), (None, None))
    after = Nests((-1, 0), ((3, 3), (9, 9)), (None, None))
    orders = (np.array([2, 0]), np.array([8, 6, 1, 0]))
    outer, inner = extend_orders(before, orders, after)
    assert outer.tolist() == [2, 0, 1]
    assert inner.tolist() == [8, 6, 7, 1, 0, 2, 3, 4, 5]


def test_added_units_of_places_follow_both_orders():
    before = Nests((-1, -1, -1), ((1, 2), (1, 2), (1, 4)), (None, None, (0, 1)))
    after = Nests((-1, -1, -1), ((2, 2), (2, 2), (4, 4)), (None, None, (0, 1)))
    first, second, met = extend_orders(before, (np.array([1]), np.array([0]), np.array([2])), after)
    assert (first.tolist(), second.tolist(), met.tolist()) == ([1, 0], [0, 1], [2, 3, 0, 1])


def test_scores_that_are_no_numbers_are_refused():
    tables = {0: np.zeros((2, 3)), 1: np.full((6, 6), np.nan)}
    with pytest.raises(ShapeError, match="not finite"):
        NESTED.solve(0, tables)


def test_an_axis_is_whole_where_one_block_of_fixed_places_covers_it():
    every, turned = np.arange(4)[:, None], np.arange(4)[::-1, None]
    halves = (Block(-1, every[:2], every[:2]), Block(-1, every[2:], every[2:]))
    assert is_whole(AxisPair(4, (Block(-1, every, every),)))
    for blocks in (
        halves,
        (),
        (Block(0, every, every),),
        (Block(-1, every, turned),),
        (Block(-1, every[:2], every[:2]),),
    ):
        assert not is_whole(AxisPair(4, blocks))
    assert not is_whole(AxisPair(4, (Block(-1, every, every),), donor_size=5))
