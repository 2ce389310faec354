"""Resizing: a network with more or fewer units computes what it did, and everything that holds a width follows."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, run, stored
from resized_nets import (
    NETS,
    channel_shuffle,
    expanded,
    gathered,
    group_norm,
    grouped_upsampler,
    lopsided,
    sequence,
    sliced,
)

from mal_graph.errors import RunError, ShapeError
from mal_graph.operators import table
from mal_graph.symmetry import axis_groups, find_coupled, find_traces, plan_resizing, resize_graph, resize_groups

ADDED = 3


def change_every_set(graph, size):
    """A graph for each set of groups that can be resized, with `size(units)` instead of `units` in these."""
    groups = axis_groups(graph)
    found = find_traces(graph, groups)
    units = {group.name: group.units for group in groups.groups if group.is_usable and not group.statistic}
    for names in find_coupled(groups, found):
        if names <= units.keys():
            wanted = {name: size(units[name]) for name in names}
            yield wanted, resize_graph(graph, plan_resizing(graph, groups, found, wanted), {})


def settings(graph):
    """Everything in a graph that may hold a width, by node."""
    return {
        node.name: (
            dict(node.attributes),
            [graph.weights[name].read().tolist() for name in node.inputs if name in graph.weights],
        )
        for node in graph.nodes
    }


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_units_of_zeros_change_nothing(build):
    graph = build()
    inputs = inputs_of(graph)
    expected = run(graph, inputs, "onnxruntime")
    made = list(change_every_set(graph, lambda units: range(units + ADDED)))
    assert made
    for wanted, grown in made:
        assert deviation(run(grown, inputs, "onnxruntime"), expected) <= 1e-5, wanted
        assert sum(values.size for values in stored(grown).values()) > sum(v.size for v in stored(graph).values())


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_the_groups_of_the_larger_network_are_those_of_the_smaller_with_more_units(build):
    graph = build()
    before = {group.name: group for group in axis_groups(graph).groups}
    for wanted, grown in change_every_set(graph, lambda units: range(units + ADDED)):
        after = {group.name: group for group in axis_groups(grown).groups}
        assert after.keys() >= before.keys()
        inside = [group.inside is not None for name, group in after.items() if name not in before]
        assert all(inside), "new blocks have insides of their own"
        for name, group in ((name, after[name]) for name in before):
            assert group.state == before[name].state
            assert group.units == len(wanted.get(name, range(before[name].units)))
            assert [member.tensor for member in group.members] == [member.tensor for member in before[name].members]


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_the_groups_that_are_carried_over_are_those_that_are_found_anew(build):
    """Those inside an added unit apart, which are not carried over: what grows inside units belongs to them."""
    graph = build()
    groups = axis_groups(graph)
    for wanted, grown in change_every_set(graph, lambda units: range(units + ADDED)):
        change = plan_resizing(graph, groups, find_traces(graph, groups), wanted)
        anew = {group.name: group for group in axis_groups(grown).groups}
        for group in resize_groups(groups, change, wanted, grown).groups:
            for member, other in zip(group.members, anew[group.name].members, strict=True):
                assert (member.tensor, member.axis) == (other.tensor, other.axis)
                assert np.array_equal(np.sort(member.positions, axis=1), np.sort(other.positions, axis=1))


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_taking_the_added_units_away_gives_the_same_network_again(build):
    graph = build()
    for wanted, grown in change_every_set(graph, lambda units: range(units + ADDED)):
        groups = axis_groups(grown)
        back = {name: range(len(units) - ADDED) for name, units in wanted.items()}
        again = resize_graph(grown, plan_resizing(grown, groups, find_traces(grown, groups), back), {})
        for name, values in stored(graph).items():
            assert np.array_equal(again.weights[name].read(), values), name
        for name, (attributes, _) in settings(graph).items():
            implied = {"num_outputs"}  # where the sizes of the parts are given instead
            assert {k: v for k, v in settings(again)[name][0].items() if k not in implied} == {
                k: v for k, v in attributes.items() if k not in implied
            }
        inputs = inputs_of(graph)
        assert deviation(run(again, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")) <= 1e-5


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_taking_units_away_keeps_the_entries_of_the_others(build):
    graph = build()
    chosen = [0, *range(2, 99)]
    for wanted, smaller in change_every_set(graph, lambda units: [u for u in chosen if u < units]):
        groups = axis_groups(graph)
        gone = {}
        for member in (member for group in groups.groups if group.name in wanted for member in group.members):
            gone.setdefault(member.tensor, {}).setdefault(member.axis, []).extend(member.positions[1].ravel())
        assert gone
        run(smaller, inputs_of(graph), "onnxruntime")
        for tensor, axes in gone.items():
            values = graph.weights[tensor].read()
            for axis, indices in axes.items():
                values = np.delete(values, indices, axis)
            assert smaller.weights[tensor].shape == values.shape
            assert np.array_equal(smaller.weights[tensor].read(), values)


def test_targets_put_together_from_sizes_still_follow_the_sizes():
    """The constant in the target changes, not the target: another batch size runs, and gives what it gave."""
    graph = channel_shuffle(dynamic=True)
    x = np.random.default_rng(0).standard_normal((7, 3, 4, 4)).astype(np.float32)
    for _, grown in change_every_set(graph, lambda units: range(units + ADDED)):
        assert deviation(run(grown, {"x": x}), run(graph, {"x": x})) <= 1e-12


def test_added_units_stand_behind_the_last_of_every_run():
    graph = cnn(concat=True, head="flatten")
    groups = axis_groups(graph)
    found = find_traces(graph, groups)
    checked = 0
    for group in groups.groups:
        if group.is_usable:
            change = plan_resizing(graph, groups, found, {group.name: range(group.units + 1)})
            for member in group.members:
                layout = change.layouts[member.tensor][member.axis]
                places = np.flatnonzero(layout.added)
                assert sorted(layout.old[places]) == sorted(member.positions[-1].ravel())
                assert (np.diff(layout.old) >= 0).all() or len(member.positions[-1]) > 1
                checked += 1
    assert checked > 4


def test_groups_that_interleave_are_resized_alike():
    graph = channel_shuffle()
    groups = axis_groups(graph)
    found = find_traces(graph, groups)
    sets = [names for names in find_coupled(groups, found) if len(names) > 1]
    assert sets, "the halves of a grouped convolution are one set"
    alone = next(iter(sorted(sets[0])))
    units = next(group.units for group in groups.groups if group.name == alone)
    with pytest.raises(ShapeError, match="can only be resized alike"):
        plan_resizing(graph, groups, found, {alone: range(units + 1)})


@pytest.mark.parametrize(
    ("op", "build"),
    [
        ("Reshape", channel_shuffle),
        ("Conv", channel_shuffle),
        ("Split", lopsided),
        ("Slice", sliced),
        ("Gather", gathered),
        ("SplitToSequence", sequence),
        ("GroupNormalization", group_norm),
        ("ConvTranspose", grouped_upsampler),
        ("Resize", grouped_upsampler),
        ("Expand", expanded),
    ],
)
def test_without_its_width_in_the_table_the_law_fails(monkeypatch, op, build):
    graph = build()
    inputs = inputs_of(graph)
    expected = run(graph, inputs, "onnxruntime")
    row = replace(table.ROWS[op], size_constants={})
    monkeypatch.setattr(table, "ROWS", {**table.ROWS, op: row})
    monkeypatch.setattr("mal_graph.symmetry.resizing.row_of", lambda node: table.ROWS.get(node.op))
    moved = []
    for _, grown in change_every_set(graph, lambda units: range(units + ADDED)):
        try:
            moved.append(deviation(run(grown, inputs, "onnxruntime"), expected) > 1e-5)
        except RunError:
            moved.append(True)
    assert any(moved)


def test_a_width_that_cannot_be_expressed_is_named():
    """Every second channel of a slice that steps backwards: nothing to extend."""
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 6))
    x = net.op("Slice", x, net.constant([-1]), net.constant([-99]), net.constant([1]), net.constant([-1]))
    graph = net.graph(net.linear(x, 6, 2))
    groups = axis_groups(graph)
    (group,) = [group for group in groups.groups if group.is_usable]
    with pytest.raises(ShapeError, match=r"Slice 'Slice_\d+'|in reverse"):
        plan_resizing(graph, groups, find_traces(graph, groups), {group.name: range(7)})
