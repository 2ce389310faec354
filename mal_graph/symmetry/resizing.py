"""Resizing: the same network with more or fewer units in some of its groups.

Every tensor of the network is laid out anew from the labels that its groups were found with, so that one mechanism
serves concatenations, flattened channels, grouped convolutions and heads: the indices of an added unit stand behind
those of the last unit, wherever these are. What holds a width follows through the operator table. Where that expresses
a width wrongly, or not at all, the network must keep it: ShapeError where it shows here, other outputs where it does
not, so that whoever resizes a network compares its outputs.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from mal_graph.errors import ShapeError
from mal_graph.graph import Array, LayerGraph, Node, weight_of
from mal_graph.network import find_layers, find_parameters, find_root, probe_without_running
from mal_graph.operators import (
    Atoms,
    Compensation,
    Label,
    Layout,
    Resized,
    SizeRule,
    kept,
    part_lengths,
    ratio,
    row_of,
    slot_named,
    spans,
)
from mal_graph.symmetry.groups import AxisGroups, Family, Member, Traces, family

Flags = NDArray[np.bool_]
Layouts = Mapping[str, tuple[Layout, ...]]
Setting = int | tuple[int, ...] | None
Factors = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Resizing:
    """What changes when groups are resized.

    Attributes:
        layouts: the axes of every stored tensor that changes.
        attributes: by (name of a node, attribute) what it must hold, None where it must go.
        operands: by (name of a node, input slot) the constant that takes its place.
        factors: by (name of a node that takes a statistic over units, place) what must be multiplied there to keep its
            function while added units are zeros (see `Compensation`).
        computed: the axes of all other tensors that change.
    """

    layouts: Layouts
    attributes: Mapping[tuple[str, str], Setting] = field(default_factory=dict)
    operands: Mapping[tuple[str, int], Array] = field(default_factory=dict)
    factors: Factors = field(default_factory=dict)
    computed: Layouts = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Coupled groups that are resized alike. Flags are by unit of the network.

    Attributes:
        members: what moves with any unit of the groups.
        removed: what goes.
        last, before: what moves with the last unit of a group, and with the one before.
        added: how many units come in behind the last.
    """

    members: Flags
    removed: Flags
    last: Flags
    before: Flags
    added: int


def plan_resizing(
    graph: LayerGraph,
    groups: AxisGroups,
    found: Traces,
    units: Mapping[str, Sequence[int]],
    sets: Sequence[Collection[str]] | None = None,
) -> Resizing:
    """How a graph changes when groups get other units.

    Args:
        found: where the units of the groups lie.
        units: by name of the group the units it shall have: old ones by their number, in order, then added ones as
            `group.units`, `group.units + 1`... Coupled groups are resized alike (see `coupled`).
        sets: the coupled groups, found here if left out.

    Raises:
        ShapeError: a width cannot be expressed.
    """
    sets = find_coupled(groups, found) if sets is None else sets
    changes = [change_of(found, names, units) for names in sets if not units.keys().isdisjoint(names)]
    layouts = {name: laid_out(label, found.unit, changes, name) for name, label in found.labels.items()}
    attributes: dict[tuple[str, str], Setting] = {}
    operands: dict[tuple[str, int], Array] = {}
    factors: dict[tuple[str, str], float] = {}
    for node in graph.nodes:
        touched = [layouts[name] for name in (*node.inputs, *node.outputs) if name]
        if all(axis.is_kept for axes in touched for axis in axes):
            continue
        row = row_of(node)
        if row is not None and row.compensation is not None:
            factors.update(factors_of(resized_call(node, "", groups, layouts), row.compensation))
        for held, width in row.size_constants.items() if row is not None else ():
            call = resized_call(node, held, groups, layouts)
            slot = slot_named(node, held)
            if slot is not None and call.values[slot] is not None:
                new = followed(call, width, integers(call.values[slot]))
                operands.update(constants(graph, groups.probed.values, node, slot, new))
            elif held in node.attributes:
                attributes.update(attribute(call, width))
            elif width is part_lengths and len(set(part_lengths(call, []))) > 1:
                attributes[node.name, "num_outputs"] = None
                operands[node.name, 1] = np.array(part_lengths(call, []), np.int64)
    changed = {name: axes for name, axes in layouts.items() if not all(axis.is_kept for axis in axes)}
    stored = {name: axes for name, axes in changed.items() if name in graph.weights}
    computed = {name: axes for name, axes in changed.items() if name not in graph.weights}
    return Resizing(stored, attributes, operands, factors, computed)


def find_coupled(groups: AxisGroups, found: Traces) -> list[set[str]]:
    """Groups that can only be resized together, in the order of the first of each: they lie alike inside the units
    of another, or their last units share the indices of an axis, as under a channel shuffle."""
    usable = [group.name for group in groups.groups if group.is_usable]
    owner = np.full(int(found.unit.max(initial=0)) + 1, -1)
    is_last = np.zeros(len(owner), bool)
    for number in sorted(range(len(usable)), key=lambda number: -found.parts[usable[number]].shape[1]):
        parts = found.parts[usable[number]]  # the smallest groups come last: what they move is theirs
        owner[parts], is_last[parts], is_last[parts[-1]] = number, False, True
    links: nx.Graph[int] = nx.Graph()
    links.add_nodes_from(range(len(usable)))
    first: dict[Family, int] = {}
    for number, group in enumerate(group for group in groups.groups if group.is_usable):
        kind = family(group)
        links.add_edges_from([] if kind is None else [(first.setdefault(kind, number), number)])
    for label in found.labels.values():
        for part in label.parts:
            units = found.unit[part]
            for axis in spans(part) if len(spans(part)) > 1 else ():
                indices = np.flatnonzero(is_last[units].any(axis=tuple(a for a in range(part.ndim) if a != axis)))
                if len(indices) and is_last[units.take(indices, axis)].all():
                    rows = np.moveaxis(owner[units.take(indices, axis)], axis, 0).reshape(len(indices), -1)
                    links.add_edges_from({(int(row[0]), int(other)) for row in rows for other in row})
    return [{usable[number] for number in part} for part in nx.connected_components(links)]


def change_of(found: Traces, names: Collection[str], units: Mapping[str, Sequence[int]]) -> Change:
    """The change of coupled groups to the units wanted. Raises ShapeError if they are not to be resized alike."""
    asked = {name: tuple(units.get(name, range(len(found.parts[name])))) for name in names}
    if len(set(asked.values())) > 1:
        raise ShapeError(f"{', '.join(sorted(asked))} can only be resized alike")
    wanted, size = next(iter(asked.values())), len(found.parts[next(iter(names))])
    gone = sorted(set(range(size)) - set(wanted))

    def flags(rows: Sequence[int]) -> Flags:
        here = np.zeros(int(found.unit.max()) + 1, bool)
        for name in names:
            here[found.parts[name][list(rows)]] = True
        return here

    added = sum(unit >= size for unit in wanted)
    return Change(flags(range(size)), flags(gone), flags([size - 1]), flags([size - 2]), added)


def laid_out(label: Label, unit: NDArray[np.int64], changes: Sequence[Change], name: str) -> tuple[Layout, ...]:
    """The axes of a tensor, resized."""
    gone: dict[int, list[int]] = {}
    more: dict[int, list[tuple[int, int, int, int]]] = {}  # (anchor, place behind it, old index, number)
    for part in label.parts:
        here = unit[part]
        for change in changes:
            if not change.members[here].any():
                continue
            if change.removed[here].any():
                axis, indices = slab(part, change.removed[here], name)
                gone.setdefault(axis, []).extend(indices.tolist())
            if change.added:
                axis, last = slab(part, change.last[here], name)
                more.setdefault(axis, []).extend(inserted(part, here, change, axis, last, name))
    return tuple(
        layout(size, gone.get(axis, []), more.get(axis, [])) if axis in gone or axis in more else kept(size)
        for axis, size in enumerate(label.shape)
    )


def slab(part: Atoms, chosen: Flags, name: str) -> tuple[int, NDArray[np.int64]]:
    """The axis and the indices on it that some units fill, all along the other axes."""
    for axis in spans(part):
        indices = np.flatnonzero(chosen.any(axis=tuple(a for a in range(part.ndim) if a != axis)))
        if len(indices) and chosen.take(indices, axis).all():
            return axis, indices
    raise ShapeError(f"the units do not fill whole indices of an axis of {name!r}")


def inserted(
    part: Atoms, here: Atoms, change: Change, axis: int, last: NDArray[np.int64], name: str
) -> Iterator[tuple[int, int, int, int]]:
    """Where the indices of added units go: each as far from the last unit's as this is from the one before, and all
    behind the run of indices that it stands in."""
    across, before = slab(part, change.before[here], name)
    if across != axis or len(before) != len(last):
        raise ShapeError(f"the units do not lie alike on {name!r}")
    starts, ends = (last[flags] for flags in (np.diff(last, prepend=-2) > 1, np.diff(last, append=part.size + 2) > 1))
    for old, stride in zip(last.tolist(), (last - before).tolist(), strict=True):
        run = int(np.searchsorted(ends, old))
        if starts[run] == ends[run]:
            stride = 1
        elif stride < 1:
            raise ShapeError(f"the units lie in reverse on {name!r}")
        anchor = int(ends[run])
        yield from ((anchor, old + number * stride, old, number) for number in range(1, change.added + 1))


def layout(size: int, gone: Sequence[int], more: Sequence[tuple[int, int, int, int]]) -> Layout:
    """An axis without some indices and with others behind their anchors."""
    left = [(old, -1, old, 0) for old in sorted(set(range(size)) - set(gone))]
    entries = sorted([*left, *more])
    return Layout(size, np.array([e[2] for e in entries], np.int64), np.array([e[3] for e in entries], np.int64))


# --- what holds a width -----------------------------------------------------------------------------------------


def resized_call(node: Node, held: str, groups: AxisGroups, layouts: Layouts) -> Resized:
    return Resized(
        node,
        [layouts[name] if name else () for name in node.inputs],
        [layouts[name] if name else () for name in node.outputs],
        [groups.probed.values.get(name) for name in node.inputs],
        held,
    )


def factors_of(call: Resized, compensation: Compensation) -> Iterator[tuple[tuple[str, str], float]]:
    """What keeps a statistic over more or fewer units, by node and place."""
    widened = ratio(call, compensation.over(call))
    if widened != 1.0:
        yield from (((call.node.name, place), widened**power) for place, power in (compensation.powers or {}).items())


def attribute(call: Resized, width: SizeRule) -> Iterator[tuple[tuple[str, str], Setting]]:
    """The new value of an attribute, if it changes."""
    held = call.node.attributes[call.held]
    old = integers(held)
    new = followed(call, width, old)
    if new != old:
        yield (call.node.name, call.held), tuple(new) if np.ndim(held) else new[0]


def constants(
    graph: LayerGraph, known: Mapping[str, Array], node: Node, slot: int, new: list[int]
) -> Iterator[tuple[tuple[str, int], Array]]:
    """The constants that give an input `new` values. What a graph computes from sizes follows by itself."""
    name = node.inputs[slot]
    old = known[name]
    if new == integers(old):
        return
    if find_root(graph, name) is not None:
        yield (node.name, slot), np.reshape(np.array(new, old.dtype), old.shape if len(new) == old.size else -1)
    elif name in graph.producer and len(new) == old.size:
        maker = graph.nodes[graph.producer[name]]
        row, pieces = row_of(maker), [known.get(piece) for piece in maker.inputs]
        if row is not None and row.joins and all(piece is not None for piece in pieces):
            ends = np.cumsum([0, *(piece.size for piece in pieces if piece is not None)])
            for place, (start, end) in enumerate(pairwise(ends.tolist())):
                yield from constants(graph, known, maker, place, new[start:end])


def integers(values: object) -> list[int]:
    return [int(i) for i in np.ravel(np.asarray(values))]


def followed(call: Resized, width: SizeRule, old: list[int]) -> list[int]:
    """What a width function gives; its error names the node."""
    try:
        return width(call, old)
    except ShapeError as error:
        raise ShapeError(f"{call.node.title}: {error}") from None


# --- the resized network ----------------------------------------------------------------------------------------


def resize_graph(graph: LayerGraph, change: Resizing, pads: Mapping[str, float]) -> LayerGraph:
    """The graph with a change made: its weights are taken from the old ones when they are read, with the pad value
    (0 where `pads` names none) in what is added."""
    weights = []
    for name, axes in change.layouts.items():
        old = graph.weights[name]
        read = partial(spread_when_read, old.read, axes, pads.get(name, 0.0))
        weights.append(replace(old, shape=tuple(map(len, axes)), read=read))
    reader = {node.name: node.outputs[0] for node in graph.nodes}
    graph = graph.with_weights(weights)
    graph = replace(graph, nodes=tuple(with_attributes(node, change) for node in graph.nodes))
    for (node, slot), values in change.operands.items():
        graph = graph.with_inserted(weight_of(f"{reader[node]}/{slot}/resized", values), reader[node], slot)
    return graph


def resize_groups(
    groups: AxisGroups, change: Resizing, units: Mapping[str, Sequence[int]], graph: LayerGraph
) -> AxisGroups:
    """The groups of a resized graph: those of the old one, with the units they have there.

    Nothing is found or verified anew, and nothing was measured of `graph`. Groups inside added units are not listed.
    """
    grown = {
        name: len(wanted) - next(g.units for g in groups.groups if g.name == name) for name, wanted in units.items()
    }
    found = []
    for group in groups.groups:
        wanted = units.get(group.name, range(group.units))
        members = []
        for member in group.members:
            within = [
                (other, grown[groups.groups[g].name])
                for g, other in groups.on_axis[member.tensor, member.axis]
                if grown.get(groups.groups[g].name, 0) > 0 and groups.groups[g].name != group.name
            ]
            members.append(resized_member(member, wanted, change.layouts, within))
        added = group.added + sum(unit >= group.units for unit in wanted)
        found.append(replace(group, units=len(wanted), members=tuple(members), added=added))
    parameters = find_parameters(graph)
    layers = find_layers(graph, None, parameters)
    return AxisGroups(tuple(found), tuple(parameters), layers, probe_without_running(graph), groups.unknown)


def resize_traces(found: Traces, change: Resizing, graph: LayerGraph) -> Traces:
    """Where the units of the groups lie in a resized graph; an added one counts as the last, behind which it stands."""
    new = {name: Label(weight.shape) for name, weight in graph.weights.items() if name not in found.labels}
    labels = {**found.labels, **new}
    for name, axes in {**change.layouts, **change.computed}.items():
        parts = []
        for part in found.labels[name].parts:
            for axis in spans(part):
                part = part.take(axes[axis].old, axis)
            parts.append(part)
        labels[name] = replace(found.labels[name], shape=tuple(map(len, axes)), parts=tuple(parts))
    return replace(found, labels=labels)


def resized_member(
    member: Member, wanted: Sequence[int], layouts: Layouts, within: Sequence[tuple[Member, int]]
) -> Member:
    """Where the units of a group stand on a resized axis.

    Args:
        within: what got units on this axis too, and how many; those inside the member's units belong to these.
    """
    if member.tensor not in layouts:
        return member
    layout, size = layouts[member.tensor][member.axis], len(member.positions)
    positions = []
    for unit in wanted:
        old = member.positions[min(unit, size - 1)]
        here = layout.find([(place, max(0, unit - size + 1)) for place in old.tolist()])
        for other, more in within:
            if np.isin(other.positions, old).any(axis=1).sum() > 1:  # it lies inside the unit, not around it
                last = other.positions[-1][np.isin(other.positions[-1], old)].tolist()
                here += layout.find([(place, number) for place in last for number in range(1, more + 1)])
        positions.append(sorted(here) if within else here)
    return replace(member, positions=np.array(positions, np.int64).reshape(len(wanted), -1))


def with_attributes(node: Node, change: Resizing) -> Node:
    new = {name: value for (owner, name), value in change.attributes.items() if owner == node.name}
    left = {name: value for name, value in node.attributes.items() if name not in new}
    return replace(node, attributes={**left, **{name: v for name, v in new.items() if v is not None}}) if new else node


def spread_when_read(read: Callable[[], Array], axes: Sequence[Layout], pad: float) -> Array:
    return spread(read(), axes, pad)


def spread(values: Array, axes: Sequence[Layout], pad: float | None) -> Array:
    """A tensor on resized axes, with the pad value in what is added; what the last unit has there if it is None."""
    for axis, found in enumerate(axes):
        values = values.take(found.old, axis)
        if pad is not None and found.added.any():
            values = np.moveaxis(values, axis, 0)
            values[found.added > 0] = pad
            values = np.moveaxis(values, 0, axis)
    return values
