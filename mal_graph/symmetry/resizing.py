"""Resizing: the same network with more or fewer units in some of its groups.

Every tensor of the network is laid out anew from the labels that its groups were found with, so that one mechanism
serves concatenations, flattened channels, grouped convolutions and heads: the indices of an added unit stand behind
those of the last unit, wherever these are. Constants and attributes that hold a size follow through the operator table.
If a size cannot be expressed, resizing raises ShapeError. A wrong rule may go unnoticed here: callers must compare
outputs before and after.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.errors import ShapeError
from mal_graph.graph import Array, LayerGraph, Node, weight_of
from mal_graph.network import find_layers, find_parameters, find_root, probe_without_running
from mal_graph.operators import (
    Atoms,
    Compensation,
    Label,
    Layout,
    Resized,
    Row,
    SizeRule,
    kept,
    part_lengths,
    ratio,
    row_of,
    slot_named,
    spans,
    uneven_parts,
)
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Family, Member, Traces, family

Flags = NDArray[np.bool_]
Layouts = Mapping[str, tuple[Layout, ...]]
Setting = int | tuple[int, ...] | None
Factors = Mapping[tuple[str, str], float]


@dataclass(frozen=True, repr=False)
class Resizing(Brief):
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
    traces: Traces,
    units: Mapping[str, Sequence[int]],
    sets: Sequence[Collection[str]] | None = None,
) -> Resizing:
    """How a graph changes when groups get other units.

    Args:
        traces: where the units of the groups lie.
        units: by name of the group the units it shall have: old ones by their number, in order, then added ones as
            `group.units`, `group.units + 1`... Coupled groups are resized alike (see `find_coupled`).
        sets: the coupled groups, found here if left out.

    Raises:
        ShapeError: a size cannot be expressed.
    """
    sets = find_coupled(groups, traces) if sets is None else sets
    changes = [change_of(traces, names, units) for names in sets if not units.keys().isdisjoint(names)]
    labels = {**traces.labels, **traces.spread}
    layouts = {name: lay_out(label, traces.unit, changes, name) for name, label in labels.items()}
    changed = {name: axes for name, axes in layouts.items() if not all(axis.is_kept for axis in axes)}
    stored = {name: axes for name, axes in changed.items() if name in graph.weights}
    computed = {name: axes for name, axes in changed.items() if name not in graph.weights}
    followers = Followers()
    for node in graph.nodes:
        row = row_of(node)
        if row is not None and not changed.keys().isdisjoint((*node.inputs, *node.outputs)):
            if layouts.keys().isdisjoint(node.outputs) and row.size_constants_of(node):
                raise ShapeError(f"no run reached {node.title}, which holds a size")
            follow(followers, graph, groups.probed.values, resized_node(node, groups, layouts), row)
    return Resizing(stored, followers.attributes, followers.operands, followers.factors, computed)


def find_coupled(groups: AxisGroups, traces: Traces) -> list[set[str]]:
    """Groups that can only be resized together, in the order of the first of each: they lie alike inside the units
    of another, or their last units share the indices of an axis, as under a channel shuffle."""
    usable = [group for group in groups.groups if group.is_usable]
    links: nx.Graph[int] = nx.Graph()
    links.add_nodes_from(range(len(usable)))
    first: dict[Family, int] = {}
    for number, group in enumerate(usable):
        kind = family(group)
        links.add_edges_from([] if kind is None else [(first.setdefault(kind, number), number)])
    owner, is_last = owners_of_units(usable, traces)
    for label in traces.labels.values():
        for part in label.parts:
            links.add_edges_from(sharing_groups(traces.unit[part], owner, is_last))
    return [{usable[number].name for number in linked} for linked in nx.connected_components(links)]


def owners_of_units(usable: Sequence[AxisGroup], traces: Traces) -> tuple[NDArray[np.int64], Flags]:
    """By unit of the network the number of the group that moves it, -1 for none, and whether it moves with the last
    unit of that group."""
    owner = np.full(int(traces.unit.max(initial=0)) + 1, -1)
    is_last = np.zeros(len(owner), bool)
    moved = [traces.parts[group.name] for group in usable]
    for number in sorted(range(len(usable)), key=lambda number: -moved[number].shape[1]):
        parts = moved[number]  # the smallest groups come last: what they move is theirs
        owner[parts], is_last[parts], is_last[parts[-1]] = number, False, True
    return owner, is_last


def sharing_groups(units: Atoms, owner: NDArray[np.int64], is_last: Flags) -> Iterator[tuple[int, int]]:
    """Pairs of groups whose last units share the indices of an axis; `units` is an array of those of the network."""
    axes = spans(units)
    for axis in axes if len(axes) > 1 else ():
        indices = np.flatnonzero(is_last[units].any(axis=tuple(a for a in range(units.ndim) if a != axis)))
        if len(indices) and is_last[units.take(indices, axis)].all():
            rows = np.moveaxis(owner[units.take(indices, axis)], axis, 0).reshape(len(indices), -1)
            yield from {(int(row[0]), int(other)) for row in rows for other in row}


def change_of(traces: Traces, names: Collection[str], units: Mapping[str, Sequence[int]]) -> Change:
    """The change of coupled groups to the units wanted. Raises ShapeError if they are not to be resized alike."""
    asked = {name: tuple(units.get(name, range(len(traces.parts[name])))) for name in names}
    if len(set(asked.values())) > 1:
        raise ShapeError(f"{', '.join(sorted(asked))} can only be resized alike")
    wanted, size = next(iter(asked.values())), len(traces.parts[next(iter(names))])
    gone = sorted(set(range(size)) - set(wanted))

    def flags(rows: Sequence[int]) -> Flags:
        """What moves with these units of the groups."""
        here = np.zeros(int(traces.unit.max()) + 1, bool)
        for name in names:
            here[traces.parts[name][list(rows)]] = True
        return here

    added = sum(unit >= size for unit in wanted)
    return Change(flags(range(size)), flags(gone), flags([size - 1]), flags([size - 2]), added)


def lay_out(label: Label, unit: NDArray[np.int64], changes: Sequence[Change], name: str) -> tuple[Layout, ...]:
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


# --- what holds a size ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Followers:
    """What must follow the new sizes: attributes, operands and factors, as in `Resizing`."""

    attributes: dict[tuple[str, str], Setting] = field(default_factory=dict)
    operands: dict[tuple[str, int], Array] = field(default_factory=dict)
    factors: dict[tuple[str, str], float] = field(default_factory=dict)


def resized_node(node: Node, groups: AxisGroups, layouts: Layouts) -> Resized:
    """A node with the layouts of its axes and what is known of the values of its inputs."""
    return Resized(
        node,
        [layouts.get(name, ()) for name in node.inputs],  # what no run reached has none
        [layouts.get(name, ()) for name in node.outputs],
        [groups.probed.values.get(name) for name in node.inputs],
        "",
    )


def follow(followers: Followers, graph: LayerGraph, known: Mapping[str, Array], resized: Resized, row: Row) -> None:
    """Add what must follow at one node. Raises ShapeError if a size cannot be expressed."""
    if row.compensation is not None:
        followers.factors.update(factors_of(resized, row.compensation))
    for held, rule in row.size_constants.items():
        call = replace(resized, held=held)
        slot = slot_named(call.node, held)
        if slot is not None and call.values[slot] is not None:
            new = apply_rule(call, rule, integers(call.values[slot]))
            followers.operands.update(constants(graph, known, call.node, slot, new))
        elif held in call.node.attributes:
            followers.attributes.update(attribute(call, rule))
        elif rule is part_lengths and (uneven := uneven_parts(call)) is not None:
            followers.attributes[call.node.name, uneven.attribute] = None
            followers.operands[call.node.name, uneven.slot] = np.array(uneven.lengths, np.int64)


def factors_of(call: Resized, compensation: Compensation) -> Iterator[tuple[tuple[str, str], float]]:
    """What keeps a statistic over more or fewer units, by node and place."""
    widened = ratio(call, compensation.over(call))
    if widened != 1.0:
        yield from (((call.node.name, place), widened**power) for place, power in (compensation.powers or {}).items())


def attribute(call: Resized, rule: SizeRule) -> Iterator[tuple[tuple[str, str], Setting]]:
    """The new value of an attribute, if it changes."""
    held = call.node.attributes[call.held]
    old = integers(held)
    new = apply_rule(call, rule, old)
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
        producer = graph.nodes[graph.producer[name]]
        row, read = row_of(producer), [known.get(name) for name in producer.inputs]
        sizes = [values.size for values in read if values is not None]
        if row is not None and row.joins and len(sizes) == len(producer.inputs):
            for place, (start, end) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
                yield from constants(graph, known, producer, place, new[start:end])
        elif (passed := next((place for place, values in enumerate(read) if holds(values, old)), None)) is not None:
            yield from constants(graph, known, producer, passed, new)  # what exporters put in place of sizes of -1


def holds(values: Array | None, wanted: Array) -> bool:
    """Whether an operator that gives some sizes is given them."""
    return values is not None and np.array_equal(values, wanted)


def integers(values: object) -> list[int]:
    """Values as plain integers."""
    return [int(i) for i in np.ravel(np.asarray(values))]


def apply_rule(call: Resized, rule: SizeRule, old: list[int]) -> list[int]:
    """What a size rule gives; its error names the node."""
    try:
        return rule(call, old)
    except ShapeError as error:
        raise ShapeError(f"{call.node.title}: {error}") from None


# --- the resized network ----------------------------------------------------------------------------------------


def resize_graph(graph: LayerGraph, change: Resizing, absent_values: Mapping[str, float]) -> LayerGraph:
    """The graph with a change made: its weights are taken from the old ones when they are read. What is added
    holds the value of absent units, 0 where `absent_values` names none."""
    weights = []
    for name, axes in change.layouts.items():
        old = graph.weights[name]
        read = partial(spread_when_read, old.read, axes, absent_values.get(name, 0.0))
        weights.append(replace(old, shape=tuple(map(len, axes)), read=read))
    output_of = {node.name: node.outputs[0] for node in graph.nodes}
    graph = graph.with_weights(weights)
    graph = replace(graph, nodes=tuple(with_attributes(node, change) for node in graph.nodes))
    for (node, slot), values in change.operands.items():
        graph = graph.with_inserted(weight_of(f"{output_of[node]}/{slot}/resized", values), output_of[node], slot)
    return graph


def resize_groups(
    groups: AxisGroups, change: Resizing, units: Mapping[str, Sequence[int]], graph: LayerGraph
) -> AxisGroups:
    """The groups of a resized graph: those of the old one, with the units they have there.

    Nothing is found or verified anew, and nothing was measured of `graph`. Groups inside added units are not listed.
    """
    added = {
        name: len(wanted) - next(g.units for g in groups.groups if g.name == name) for name, wanted in units.items()
    }
    resized = []
    for group in groups.groups:
        wanted = units.get(group.name, range(group.units))
        members = []
        for member in group.members:
            within = [
                (other, added[groups.groups[g].name])
                for g, other in groups.on_axis[member.tensor, member.axis]
                if added.get(groups.groups[g].name, 0) > 0 and groups.groups[g].name != group.name
            ]
            members.append(resized_member(member, wanted, change.layouts, within))
        more = sum(unit >= group.units for unit in wanted)
        resized.append(replace(group, units=len(wanted), members=tuple(members), added=group.added + more))
    parameters = find_parameters(graph)
    layers = find_layers(graph, None, parameters)
    return AxisGroups(tuple(resized), tuple(parameters), layers, probe_without_running(graph), groups.unknown)


def resize_traces(traces: Traces, change: Resizing, graph: LayerGraph) -> Traces:
    """Where the units of the groups lie in a resized graph; an added one counts as the last, behind which it stands."""
    new = {name: Label(weight.shape) for name, weight in graph.weights.items() if name not in traces.labels}
    layouts = {**change.layouts, **change.computed}
    labels = {name: resized_label(label, layouts.get(name)) for name, label in traces.labels.items()}
    spread = {name: resized_label(label, layouts.get(name)) for name, label in traces.spread.items()}
    return replace(traces, labels={**labels, **new}, spread=spread)


def resized_label(label: Label, axes: Sequence[Layout] | None) -> Label:
    """The label of a tensor on its resized axes, if it has some."""
    if axes is None:
        return label
    parts = []
    for part in label.parts:
        for axis in spans(part):
            part = part.take(axes[axis].old, axis)
        parts.append(part)
    return replace(label, shape=tuple(map(len, axes)), parts=tuple(parts))


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
    length = 1 + max(int(m.positions.max()) for m in (member, *(other for other, _ in within)))
    owners = [(unit_at(other, length), len(other.positions) - 1, more) for other, more in within]
    positions = []
    for unit in wanted:
        old = member.positions[min(unit, size - 1)]
        here = layout.find([(place, max(0, unit - size + 1)) for place in old.tolist()])
        for owner, last, more in owners:
            units = owner[old]
            if (units[units >= 0] != units.max()).any():  # it lies inside the unit, not around it
                here += layout.find([(place, n) for place in old[units == last].tolist() for n in range(1, more + 1)])
        positions.append(sorted(here) if within else here)
    return replace(member, positions=np.array(positions, np.int64).reshape(len(wanted), -1))


def unit_at(member: Member, length: int) -> Array:
    """The unit of a member that stands at each position of an axis, -1 where none does."""
    unit = np.full(length, -1)
    unit[member.positions] = np.arange(len(member.positions))[:, None]
    return unit


def with_attributes(node: Node, change: Resizing) -> Node:
    """A node with its new attributes."""
    new = {name: value for (owner, name), value in change.attributes.items() if owner == node.name}
    left = {name: value for name, value in node.attributes.items() if name not in new}
    return replace(node, attributes={**left, **{name: v for name, v in new.items() if v is not None}}) if new else node


def spread_when_read(read: Callable[[], Array], axes: Sequence[Layout], absent: float) -> Array:
    """A tensor on resized axes, read when it is needed."""
    return spread(read(), axes, absent)


def spread(values: Array, axes: Sequence[Layout], absent: float | None) -> Array:
    """A tensor on resized axes. What is added holds the value of absent units, or what the last unit has if that is
    None."""
    for axis, layout in enumerate(axes):
        values = values.take(layout.old, axis)
        if absent is not None and layout.added.any():
            values = np.moveaxis(values, axis, 0)
            values[layout.added > 0] = absent
            values = np.moveaxis(values, 0, axis)
    return values
