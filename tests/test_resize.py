"""Resizing: a network with more or fewer units computes what it did, and everything that holds a width follows."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, run, stored

from mal_graph import ops
from mal_graph.errors import RunError, ShapeError
from mal_graph.groups import axis_groups, traces
from mal_graph.resize import coupled, resized, resized_groups, resizing

ADDED = 3


def channel_shuffle(dynamic=False):
    """Grouped convolutions with a channel shuffle in between; its targets are constants or put together from sizes."""
    net = Net(0)
    x = net.input("x", ("N", 3, 4, 4))
    y = net.op("Relu", net.conv(x, 3, 6))

    def target(*sizes):
        if not dynamic:
            return net.constant([0, *sizes])
        batch = net.op("Gather", net.op("Shape", x), net.constant([0]))
        return net.op("Concat", batch, *[net.constant([size]) for size in sizes], axis=0)

    y = net.op("Reshape", net.op("Relu", net.conv(y, 6, 6, group=2)), target(2, 3, 4, 4))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), target(6, 4, 4))
    y = net.op("Relu", net.conv(y, 6, 6, group=6))
    return net.graph(net.conv(y, 6, 2, 1))


def split(sizes, opset=20):
    """One half of the channels gates the other."""
    net = Net(0, opset=opset)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    given = [net.constant([4, 4])] if sizes == "input" else []
    held = {"split": [4, 4]} if sizes == "attribute" else {"num_outputs": 2} if opset >= 18 and not given else {}
    a, b = net.op("Split", x, *given, outputs=2, axis=1, **held)
    return net.graph(net.linear(net.op("Add", net.op("Tanh", a), b), 4, 3))


def lopsided():
    """The second half of a split is used with other channels, so that the halves become unequal."""
    net = Net(0)
    x = net.input("x", ("N", 5))
    a, b = net.op("Split", net.op("Relu", net.linear(x, 5, 8)), outputs=2, axis=1, num_outputs=2)
    return net.graph(net.linear(a, 4, 3), net.linear(net.op("Tanh", b), 4, 3))


def sequence():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    parts = net.op("SplitToSequence", x, net.constant(4), axis=1)
    a, b = (net.op("SequenceAt", parts, net.constant(place)) for place in (0, 1))
    return net.graph(net.linear(a, 4, 3), net.linear(b, 4, 3))


def sliced(opset=20):
    net = Net(0, opset=opset)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    if opset < 10:
        parts = [net.op("Slice", x, starts=[a], ends=[b], axes=[1]) for a, b in ((0, 3), (3, 8))]
    else:
        bounds = [[net.constant([n]) for n in pair] for pair in ((0, 3), (3, 99))]
        parts = [net.op("Slice", x, *pair, net.constant([1])) for pair in bounds]
    return net.graph(net.linear(parts[0], 3, 2), net.linear(parts[1], 5, 2))


def gathered():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 6))
    return net.graph(net.linear(net.op("Gather", x, net.constant([5, 1, 3, -2, 0, 2]), axis=1), 6, 2))


def first_place():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 4, 5)), 5, 6, "matmul"))
    return net.graph(net.linear(net.op("Gather", x, net.constant(0), axis=1), 6, 2))


def pixel_shuffle():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 12))
    return net.graph(net.conv(net.op("DepthToSpace", x, blocksize=2, mode="CRD"), 3, 2))


def group_norm():
    net = Net(0, opset=21)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 8)
    x = net.op("GroupNormalization", x, net.weight(8, scale=1.0), net.weight(8), num_groups=4)
    return net.graph(net.conv(net.op("Relu", x), 8, 2))


def grouped_upsampler():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    x = net.op("ConvTranspose", x, net.weight(6, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 2], group=3)
    x = net.op("Resize", net.op("Relu", x), "", "", net.constant([3, 6, 4, 4]))
    return net.graph(net.conv(x, 6, 2))


def expanded():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 6))
    x = net.op("Expand", net.op("Unsqueeze", x, net.constant([1])), net.constant([3, 4, 6]))
    return net.graph(net.linear(net.op("ReduceMean", x, net.constant([1]), keepdims=0), 6, 2))


NETS = {
    "gemm": mlp,
    "matmul": lambda: mlp(style="matmul"),
    "transposed": lambda: mlp(style="transposed"),
    "concat": lambda: cnn(concat=True, head="flatten"),
    "shuffle": channel_shuffle,
    "shuffle, sizes from the input": lambda: channel_shuffle(dynamic=True),
    "split, sizes given": lambda: split("input"),
    "split, sizes in an attribute": lambda: split("attribute", opset=11),
    "split, old without sizes": lambda: split("", opset=13),
    "split": lambda: split(""),
    "split, unequal": lopsided,
    "sequence": sequence,
    "slice": sliced,
    "slice, bounds in attributes": lambda: sliced(opset=9),
    "gather": gathered,
    "one place": first_place,
    "pixel shuffle": pixel_shuffle,
    "group norm": group_norm,
    "transposed convolution, resize": grouped_upsampler,
    "expand": expanded,
}


def change_every_set(graph, size):
    """A graph for each set of groups that can be resized, with `size(units)` instead of `units` in these."""
    groups = axis_groups(graph)
    found = traces(graph, groups)
    units = {group.name: group.units for group in groups.groups if group.is_usable and not group.statistic}
    for names in coupled(groups, found):
        if names <= units.keys():
            wanted = {name: size(units[name]) for name in names}
            yield wanted, resized(graph, resizing(graph, groups, found, wanted), {})


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
        change = resizing(graph, groups, traces(graph, groups), wanted)
        anew = {group.name: group for group in axis_groups(grown).groups}
        for group in resized_groups(groups, change, wanted, grown).groups:
            for member, other in zip(group.members, anew[group.name].members, strict=True):
                assert (member.tensor, member.axis) == (other.tensor, other.axis)
                assert np.array_equal(np.sort(member.positions, axis=1), np.sort(other.positions, axis=1))


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_taking_the_added_units_away_gives_the_same_network_again(build):
    graph = build()
    for wanted, grown in change_every_set(graph, lambda units: range(units + ADDED)):
        groups = axis_groups(grown)
        back = {name: range(len(units) - ADDED) for name, units in wanted.items()}
        again = resized(grown, resizing(grown, groups, traces(grown, groups), back), {})
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
    found = traces(graph, groups)
    checked = 0
    for group in groups.groups:
        if group.is_usable:
            change = resizing(graph, groups, found, {group.name: range(group.units + 1)})
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
    found = traces(graph, groups)
    sets = [names for names in coupled(groups, found) if len(names) > 1]
    assert sets, "the halves of a grouped convolution are one set"
    alone = next(iter(sorted(sets[0])))
    units = next(group.units for group in groups.groups if group.name == alone)
    with pytest.raises(ShapeError, match="can only be resized alike"):
        resizing(graph, groups, found, {alone: range(units + 1)})


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
    row = replace(ops.ROWS[op], widths={})
    monkeypatch.setattr(ops, "ROWS", {**ops.ROWS, op: row})
    monkeypatch.setattr("mal_graph.resize.row_of", lambda node: ops.ROWS.get(node.op))
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
        resizing(graph, groups, traces(graph, groups), {group.name: range(7)})
