"""Laws of copies: however a network repeats its units, copies of one may trade places, and units with as many copies.

Theory is counted by hand, and what is found is run.
"""

from collections import Counter

import numpy as np
import pytest
from attention_nets import Kind, attention_net
from builders import Net, deviation, inputs_of, load, permuted_copy, run
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.operators import Wiring
from mal_graph.symmetry import axis_groups, interchangeable, verify

UNITS = 6


def read(repeat, copies):
    """Units of a linear layer that are repeated, and a linear layer that reads the copies."""
    net = Net(0)
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 4)), net.weight(4, UNITS, name="up", scale=1.0)))
    return net.graph(net.op("MatMul", repeat(net, x), net.weight(copies, 3, name="down", scale=1.0)))


def gathered(indices):
    return read(lambda net, x: net.op("Gather", x, net.constant(list(indices)), axis=1), len(indices))


def described(graph):
    """The groups that may move: the places of each unit on every axis, and in which unit they lie."""
    groups = axis_groups(graph)
    usable = {group.name: group for group in groups.groups if group.is_usable}
    units = {
        name: [
            sorted((m.tensor, *sorted(m.positions[unit].tolist())) for m in group.members)
            for unit in range(group.units)
        ]
        for name, group in usable.items()
    }
    around = {name: group.inside and units[group.inside[0]][group.inside[1]] for name, group in usable.items()}
    return sorted((sorted(own), around[name]) for name, own in units.items())


def theory(indices):
    """Units with as many copies as others trade places with these; copies of one do so inside it, or where it is."""
    places = {unit: [place for place, index in enumerate(indices) if index == unit] for unit in range(UNITS)}
    units = {unit: sorted([("up", unit), *([("down", *held)] if held else [])]) for unit, held in places.items()}
    times = Counter(map(len, places.values()))
    groups = [
        (sorted(units[unit] for unit, held in places.items() if len(held) == count), None)
        for count, alike in times.items()
        if alike > 1
    ]
    for unit, held in places.items():
        if len(held) > 1:
            around = units[unit] if times[len(held)] > 1 else None
            groups.append((sorted([("down", place)] for place in held), around))
    return sorted(groups)


def far(graph, groups, seed=0):
    inputs = inputs_of(graph)
    return deviation(run(permuted_copy(graph, groups, seed)[0], inputs), run(graph, inputs))


@given(st.lists(st.integers(0, UNITS - 1), min_size=2, max_size=9))
def test_the_groups_around_copies_are_those_of_theory(indices):
    graph = gathered(indices)
    assert described(graph) == theory(indices)
    assert far(graph, axis_groups(graph)) < 1e-9


def expanded(*, is_in_turn):
    """Copies by an axis of their own, which a reshape mixes with that of the units."""

    def repeat(net, x):
        x = net.op("Unsqueeze", x, net.constant([2 if is_in_turn else 1]))
        x = net.op("Expand", x, net.constant([1, 1, 3] if is_in_turn else [1, 3, 1]))
        return net.op("Reshape", x, net.constant([-1, 3 * UNITS]))

    return repeat


END_TO_END = {
    "Tile": lambda net, x: net.op("Tile", x, net.constant([1, 3])),
    "Concat": lambda net, x: net.op("Concat", x, x, x, axis=1),
    "Expand": expanded(is_in_turn=False),
}


@pytest.mark.parametrize("form", END_TO_END)
def test_copies_end_to_end_are_the_same_in_every_form(form):
    assert described(read(END_TO_END[form], 3 * UNITS)) == theory([*range(UNITS)] * 3)


def test_copies_side_by_side_are_the_same_in_every_form():
    indices = np.repeat(np.arange(UNITS), 3)
    assert described(read(expanded(is_in_turn=True), 3 * UNITS)) == theory(indices.tolist())


def test_copies_of_copies_move_with_what_the_first_are_copies_of():
    """A known limit: of three copies of each unit, only the two that are copies of one copy trade places."""

    def repeat(net, x):
        twice = net.op("Concat", x, x, axis=1)
        return net.op("Gather", twice, net.constant([*range(2 * UNITS), *range(UNITS)]), axis=1)

    graph = read(repeat, 3 * UNITS)
    groups = verify(graph, axis_groups(graph))
    assert {group.units for group in groups.groups if group.is_usable} == {UNITS, 2}
    assert far(graph, groups) < 1e-9


def test_tensors_that_are_only_tied_are_no_copies():
    """The same units before and behind an activation may not trade places."""
    graph = read(lambda net, x: net.op("Concat", x, net.op("Exp", x), axis=1), 2 * UNITS)
    assert [len(units) for units, _ in described(graph)] == [UNITS]


GROUPED = attention_net(Kind(heads=6, shared=3), "written out")


def test_copies_that_belong_to_nothing_are_found_out(monkeypatch):
    graph = load(GROUPED)
    monkeypatch.setattr(
        Wiring, "copy_of", lambda wiring, _, shape, *places: wiring.fresh(np.prod(shape)).reshape(shape)
    )
    groups = axis_groups(graph)
    assert far(graph, groups) > 1e-3
    assert any("rejected by the verification" in group.reason for group in verify(graph, groups).groups)


def test_without_joins_nothing_holds_what_shares_a_head(monkeypatch):
    graph = load(GROUPED)
    assert 3 in [len(units) for units, around in described(graph) if around is None]
    monkeypatch.setattr(interchangeable, "find_joins", lambda *_: iter(()))
    assert 3 not in [len(units) for units, around in described(graph) if around is None]


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("heads", [(9, 3), (8, 4)], ids=["queries", "keys"])
@pytest.mark.parametrize("form", ["written out", "in groups"])
def test_more_heads_are_reached_exactly_where_keys_are_repeated(form, heads):
    base = load(attention_net(Kind(heads=6, shared=3), form))
    donor = load(attention_net(Kind(heads=heads[0], shared=heads[1]), form, seed=1))
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal", width="grow")
    inputs = inputs_of(donor)
    assert deviation(run(result.graph, inputs), run(donor, inputs)) < 1e-5
