"""Places of units that operators tell, and what looks up units by them."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, run

from mal_graph.operators import ROWS, GroupState
from mal_graph.symmetry import permute_weights
from mal_graph.symmetry.grouping import axis_groups
from mal_graph.symmetry.near import verify_near
from mal_graph.symmetry.networks import build_network
from mal_graph.symmetry.verification import verify

UNITS, WIDTH = 5, 4


def chosen(net: Net, form: str):
    """Scores of units, of which the best two are chosen, and what is made of the choice."""
    x = net.input("x", ("N", WIDTH))
    scores = net.op("Softmax", net.op("MatMul", x, net.weight(WIDTH, UNITS, name="scores")), axis=-1)
    values, places = net.op("TopK", scores, net.constant([2]), outputs=2, axis=-1)
    return FORMS[form](net, x, scores, values, places)


def by_scatter(net, x, scores, values, places):
    empty = net.op("Mul", scores, net.constant(np.float32(0)))
    kept = net.op("ScatterElements", empty, places, values, axis=-1)
    return net.op("MatMul", kept, net.weight(UNITS, 3, name="out"))


def by_lookup(net, x, scores, values, places):
    rows = net.op("Gather", net.weight(UNITS, 3, name="out"), places)
    return net.op("ReduceSum", net.op("Mul", rows, net.op("Unsqueeze", values, net.constant([2]))), net.constant([1]))


def by_one_hot(net, x, scores, values, places):
    kept = net.op("OneHot", places, net.constant(np.int64(UNITS)), net.constant(np.float32([0, 1])))
    kept = net.op("ReduceSum", net.op("Mul", kept, net.op("Unsqueeze", values, net.constant([2]))), net.constant([1]))
    return net.op("MatMul", net.op("Reshape", kept, net.constant([0, UNITS])), net.weight(UNITS, 3, name="out"))


def by_elements(net, x, scores, values, places):
    other = net.op("Sigmoid", net.op("MatMul", x, net.weight(WIDTH, UNITS, name="out")))
    return net.op("Mul", net.op("GatherElements", other, net.op("Identity", places), axis=1), values)


def by_best(net, x, scores, values, places):
    best = net.op("ArgMax", scores, axis=-1, keepdims=0)
    return net.op("Gather", net.weight(UNITS, 3, name="out"), net.op("Cast", best, to=6))


def by_number(net, x, scores, values, places):
    numbers = net.constant(np.arange(UNITS))
    kept = net.op("Cast", net.op("Equal", net.op("Unsqueeze", places, net.constant([2])), numbers), to=1)
    kept = net.op("ReduceSum", net.op("Mul", kept, net.op("Unsqueeze", values, net.constant([2]))), net.constant([1]))
    return net.op("MatMul", net.op("Reshape", kept, net.constant([0, UNITS])), net.weight(UNITS, 3, name="out"))


def by_one_number(net, x, scores, values, places):
    return net.op("Mul", net.op("Cast", net.op("Equal", places, net.constant(2)), to=1), values)


def as_numbers(net, x, scores, values, places):
    return net.op("Mul", net.op("Cast", places, to=1), values)


def moved_on(net, x, scores, values, places):
    """One further on than the place that is told."""
    next_place = net.op("Mod", net.op("Add", places, net.constant([1])), net.constant([UNITS]))
    return net.op("Gather", net.weight(UNITS, 3, name="out"), next_place)


FORMS = {
    "scatter": by_scatter,
    "lookup": by_lookup,
    "one hot": by_one_hot,
    "elements": by_elements,
    "best": by_best,
    "number": by_number,
    "one number": by_one_number,
    "numbers": as_numbers,
    "moved on": moved_on,
}
FOLLOWED = ["scatter", "lookup", "one hot", "elements", "best", "number"]


def chosen_units(groups):
    """The group of the units that are chosen from."""
    return next(group for group in groups.groups if ("scores", 1) in {(m.tensor, m.axis) for m in group.members})


@pytest.mark.parametrize("form", FOLLOWED)
def test_what_is_looked_up_moves_with_the_units_that_are_chosen(form):
    net = Net(0)
    graph = net.graph(chosen(net, form))
    group = chosen_units(build_network(graph).groups)
    assert group.state is GroupState.VERIFIED
    assert {member.tensor for member in group.members} == {"scores", "out"}
    values = {name: weight.read() for name, weight in graph.weights.items()}
    moved = graph.with_weights(permute_weights(values, [(group, np.random.default_rng(1).permutation(UNITS))]))
    inputs = inputs_of(graph, 3)
    assert deviation(run(moved, inputs), run(graph, inputs)) <= 1e-6


@pytest.mark.parametrize("form", ["numbers", "moved on"])
def test_places_that_are_read_as_numbers_freeze_the_units(form):
    net = Net(0)
    assert chosen_units(axis_groups(net.graph(chosen(net, form)))).state is GroupState.FROZEN


def test_places_that_are_compared_with_one_number_keep_the_units_in_their_order():
    net = Net(0)
    group = chosen_units(axis_groups(net.graph(chosen(net, "one number"))))
    assert (group.state, "compares" in group.reason) == (GroupState.PINNED, True)


def test_places_that_the_model_tells_are_a_part_of_its_contract():
    net = Net(0)
    scores = net.op("MatMul", net.input("x", ("N", WIDTH)), net.weight(WIDTH, UNITS, name="scores"))
    values, places = net.op("TopK", scores, net.constant([2]), outputs=2, axis=-1)
    first = net.op("Slice", places, net.constant([0]), net.constant([1]), net.constant([1]))
    group = chosen_units(axis_groups(net.graph(values, first)))
    assert (group.state, "output" in group.reason) == (GroupState.PINNED, True)


@pytest.mark.parametrize(("form", "op"), [("lookup", "Gather"), ("one hot", "OneHot"), ("scatter", "ScatterElements")])
def test_units_that_do_not_follow_their_places_are_rejected(form, op):
    """A mutation: what looks up by places ties nothing."""
    net = Net(0)
    graph = net.graph(chosen(net, form))

    def loose(call):
        return [call.wiring.fresh_label(shape) for shape in call.outputs]

    table = {**ROWS, op: replace(ROWS[op], rule=loose)}
    groups = verify(graph, axis_groups(graph, table=table), table=table)
    assert chosen_units(groups).state is not GroupState.VERIFIED


@pytest.mark.parametrize("form", ["one hot", "elements", "number"])
def test_places_are_followed_near_by(form):
    """The numbers of places are others when the units have moved, and are told. (Zeros that are written into look the
    same in any order, which only the outputs can judge.)"""
    net = Net(0)
    graph = net.graph(chosen(net, form))
    groups = axis_groups(graph)
    near = verify_near(graph, groups)
    assert not near.faults
    assert {groups.groups[index].name for index in near.verified} == {
        groups.groups[index].name for index in groups.usable()
    }
