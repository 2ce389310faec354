"""The rows of the picture: one common order of two models."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ladder.ladders import random_ladder, random_model, twice

from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role, RungEntry
from mal_graph.ladder.rows import Row, find_rows, increasing

SEEDS = st.integers(0, 2**31)


def positions(rows, side):
    return {row[side]: at for at, row in enumerate(rows) if row[side] is not None}


@given(SEEDS)
def test_every_place_stands_in_one_row_behind_what_it_reads(seed):
    ladder = random_ladder(seed)
    rows = find_rows(ladder)
    for side, (_, model) in enumerate(ladder.sides()):
        held = [row[side] for row in rows if row[side] is not None]
        assert sorted(held) == list(range(len(model.places)))
        at = positions(rows, side)
        assert all(at[source] < at[i] for i, place in enumerate(model.places) for source in place.reads)


@given(SEEDS)
def test_two_layers_share_a_row_only_as_partners(seed):
    ladder = random_ladder(seed)
    pairs = {(rung.base, rung.donor) for rung in ladder.rungs}
    for row in find_rows(ladder):
        if row.base is not None and row.donor is not None:
            roles = [model.places[place].role for (_, model), place in zip(ladder.sides(), row, strict=True)]
            assert roles[0] == roles[1]
            assert roles[0] is not Role.LAYER or row in pairs


@given(SEEDS)
def test_a_model_beside_itself_shares_every_row(seed):
    model = random_model(np.random.default_rng(seed), 12)
    assert all(row.base == row.donor for row in find_rows(twice(model)))


@given(st.lists(st.integers(0, 20), max_size=9, unique=True))
def test_as_many_pairs_as_can_share_a_row(values):
    chain = increasing(values)
    taken = [values[i] for i in chain]
    assert taken == sorted(taken)
    assert chain == sorted(chain)
    best = next(
        size
        for size in range(len(values), -1, -1)
        if any(list(some) == sorted(some) for some in combinations(values, size))
    )
    assert len(chain) == best


def branches(order, kind="Concat", is_ordered=True):
    """An input, two layers that read it, and what reads both in an order."""
    layers = [PlaceEntry(name=f"l{i}", role=Role.LAYER, kind="conv", reads=[0]) for i in (1, 2)]
    join = PlaceEntry(name="j", role=Role.JOIN, kind=kind, reads=list(order), is_ordered=is_ordered)
    return ModelEntry(name="m", places=[PlaceEntry(name="x", role=Role.INPUT, kind="input"), *layers, join])


@pytest.mark.parametrize(("is_ordered", "shared"), [(True, 1), (False, 2)])
def test_exchanged_branches_cross_where_their_order_matters(is_ordered, shared):
    rungs = [RungEntry(base=i, donor=i, score=0.9, relation="equal", reason="alike") for i in (1, 2)]
    base, donor = branches((1, 2), is_ordered=is_ordered), branches((2, 1), is_ordered=is_ordered)
    rows = find_rows(LadderEntry(base=base, donor=donor, rungs=rungs))
    assert sum(row in [(1, 1), (2, 2)] for row in rows) == shared


def test_one_model_has_one_place_a_row():
    model = random_model(np.random.default_rng(0), 5)
    assert find_rows(LadderEntry(base=model)) == [Row(i, None) for i in find_order(model)]


def find_order(model):
    return [row.base for row in find_rows(LadderEntry(base=model))]
