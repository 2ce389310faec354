"""Grouping: the interchangeable units of a network as axis groups, and where they lie."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.graph import LayerGraph
from mal_graph.network import (
    MASK_ROLE,
    Layer,
    Parameter,
    Probe,
    find_layers,
    find_masks,
    find_parameters,
    probe,
)
from mal_graph.operators import GroupState, Pin, Row, SizeConstant
from mal_graph.registry import Model
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Member, Role, Side, Traces, all_positions
from mal_graph.symmetry.interchangeable import Class, Owner, Units
from mal_graph.symmetry.tracing import Axis, trace_labels

Roles = Mapping[Axis, Role]


def axis_groups(graph: Model, probed: Probe | None = None, table: Mapping[str, Row] | None = None) -> AxisGroups:
    """Find the axis groups of a graph.

    Args:
        graph: the network, as a graph, a path or a document.
        probed: shapes and values from a run; measured here if left out.
        table: operator rows, the built-in ones if left out.

    Returns:
        groups that are candidates, pinned, frozen or rigid; `verify` turns candidates into verified ones.

    Raises:
        RunError: the model cannot be run to measure shapes.
    """
    graph = registry.as_graph(graph)
    probed = probed or probe(graph)
    parameters = find_parameters(graph, table)
    layers, roles = find_layers(graph, table, parameters), roles_of(graph, parameters)
    tracing = trace_labels(graph, probed, parameters, roles.keys(), table)
    units = Units(tracing.wiring, tracing.owners)
    groups = tuple(group for group, _ in group_units(units, roles, layers) if group.is_usable or holds_floats(group))
    return AxisGroups(groups, tuple(parameters), layers, probed, tracing.unknown)


def holds_floats(group: AxisGroup) -> bool:
    """Whether not all that moves are masks."""
    return any(member.role.slot != MASK_ROLE for member in group.members)


def find_traces(graph: LayerGraph, groups: AxisGroups, table: Mapping[str, Row] | None = None) -> Traces:
    """Find the groups of a graph once more, and keep where their units lie."""
    roles = roles_of(graph, groups.parameters)
    tracing = trace_labels(graph, groups.probed, groups.parameters, roles.keys(), table)
    units = Units(tracing.wiring, tracing.owners)
    parts = {group.name: parts for group, parts in group_units(units, roles, groups.layers)}
    return Traces(tracing.labels, units.component, parts, tracing.wiring.places, tracing.wiring.spread)


def roles_of(graph: LayerGraph, parameters: Sequence[Parameter]) -> Roles:
    """What each stored axis is to the operator that applies it first."""
    roles: dict[Axis, Role] = {}
    for parameter in parameters:
        op = graph.nodes[parameter.node].op
        for place, axis in enumerate(parameter.axes):
            if axis is None:
                continue
            side = (Side.OUT, Side.IN, Side.TAP)[min(place, 2)] if parameter.is_weight else Side.UNIT
            roles.setdefault((parameter.tensor, axis), Role(op, parameter.role, side))
    for mask in find_masks(graph):
        role = Role(graph.nodes[mask.node].op, MASK_ROLE, Side.UNIT)
        roles.update({(mask.tensor, axis): role for axis in mask.axes if axis is not None})
    return roles


@dataclass(frozen=True)
class Grouped:
    """A class of units as a group.

    Attributes:
        group: the group, without what depends on other groups.
        blocks: the units that enclose those of the group.
        parts: what moves with each unit, shape (units, parts).
    """

    group: AxisGroup
    blocks: tuple[int, ...]
    parts: NDArray[np.int64]


def group_units(units: Units, roles: Roles, layers: Sequence[Layer]) -> Iterator[tuple[AxisGroup, NDArray[np.int64]]]:
    """The classes of units as groups, each with what moves with its units, shape (units, parts)."""
    names = Names(layers)
    grouped = [group_class(alike, units.owners, roles, names) for alike in sorted(units.classes(), key=first_entry)]
    group_of, number_in = np.full(units.count, -1), np.zeros(units.count, np.int64)  # of units that hold others
    for number, one in enumerate(grouped):
        if one.group.is_usable and one.parts.shape[1] > 1:
            group_of[one.parts[:, 0]], number_in[one.parts[:, 0]] = number, np.arange(len(one.parts))
    held = sizes_held(units)
    is_held = np.zeros(units.count, bool)
    is_held[list(held)] = True
    for one in grouped:
        if one.group.is_usable:
            around = next((block for block in one.blocks if group_of[block] >= 0), None)
            inside = None if around is None else (grouped[group_of[around]].group.name, int(number_in[around]))
            held_parts = one.parts[is_held[one.parts]].tolist()
            constants = (constant for part in held_parts for constant in held[part])
            yield replace(one.group, inside=inside, sized_by=sizes_of(constants, inside is not None)), one.parts
        else:
            yield one.group, one.parts


def sizes_of(constants: Iterable[SizeConstant], is_inside: bool) -> tuple[SizeConstant, ...]:
    """Each constant once; the number of blocks does not follow what is inside one."""
    return tuple(dict.fromkeys(constant for constant in constants if not (is_inside and constant.is_block_count)))


class Names:
    """Names for groups: the layer that produces the units, else the first axis; numbered where several have one."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layer_of = {p.tensor: layer.name for layer in layers for p in layer.parameters if p.is_weight}
        self.times: dict[str, int] = {}
        self.taken: set[str] = set()

    def name(self, members: Sequence[Member]) -> str:
        """A name that no group before has."""
        producer = next((m.tensor for m in members if m.produces and m.tensor in self.layer_of), None)
        name = f"{members[0].tensor}[{members[0].axis}]" if producer is None else self.layer_of[producer]
        number = self.times.get(name, 0) + 1
        while (numbered := name if number == 1 else f"{name}#{number}") in self.taken:
            number += 1  # a layer may be called so
        self.times[name] = number
        self.taken.add(numbered)
        return numbered


def group_class(units: Class, owners: Sequence[Owner], roles: Roles, names: Names) -> Grouped:
    """A class of units as a group, in the order of their first positions: the order that a reader sees in the file."""
    order = np.argsort(units.columns[:, 0, 1], kind="stable")
    members = tuple(members_of(units.columns[order], owners, roles))
    pin = units.pin or Pin(GroupState.CANDIDATE, "")
    if units.is_rigid:
        pin = Pin(GroupState.RIGID, "no two of its units are interchangeable")
    group = AxisGroup(
        name=names.name(members),
        units=len(units.parts),
        members=members,
        state=pin.state,
        reason=pin.reason,
        unknown_op=pin.unknown_op,
        statistic=units.statistic,
    )
    return Grouped(group, units.blocks, units.parts[order])


def sizes_held(units: Units) -> dict[int, list[SizeConstant]]:
    """By unit the constants that hold the size of an axis on which it lies."""
    held: dict[int, list[SizeConstant]] = {}
    for constant, atoms in units.wiring.sized_by:
        for unit in np.unique(units.component[atoms]).tolist():
            held.setdefault(unit, []).append(constant)
    return held


def first_entry(units: Class) -> tuple[int, int, int]:
    """Sorts classes by the axes and positions they lie on, what encloses others before them."""
    owner, position = min(map(tuple, units.columns[0].tolist()))
    return owner, position, -units.columns.shape[1]


def members_of(columns: NDArray[np.int64], owners: Sequence[Owner], roles: Roles) -> Iterator[Member]:
    """Columns of (owner, position) pairs, gathered by the weight axis they lie on."""
    index = columns[0, :, 0]
    ends = [*(np.flatnonzero(index[1:] != index[:-1]) + 1).tolist(), len(index)]
    runs: dict[int, list[NDArray[np.int64]]] = {}
    for start, end in pairwise([0, *ends]):
        runs.setdefault(int(index[start]), []).append(columns[:, start:end, 1])
    for owner, positions in runs.items():
        name, axis, _, _ = owners[owner]
        held = np.concatenate(positions, axis=1) if positions[1:] else positions[0]
        # As they lie in the first unit, so that they correspond to those of a wider network.
        held, plain = held[:, np.argsort(held[0], kind="stable")], all_positions(len(held))
        yield Member(name, axis, roles[name, axis], plain if np.array_equal(held, plain) else held)
