"""Axis groups: which axes of which weights must move together, found by running a network on label arrays.

Weights get fresh atoms, the axis rules of the operators collect what ties them (see `labels`), and units that may trade
places form a group (see `units`). Groups may nest: the channels of one group of a grouped convolution lie inside a unit
of the group of its groups.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph, Node
from mal_graph.network import Parameter, Probe, find_parameters, probe
from mal_graph.operators import (
    ROWS,
    Call,
    GroupState,
    Label,
    Pin,
    Row,
    SizeConstant,
    Statistic,
    Wiring,
    explain_missing,
    pinned_label,
    row_of,
)
from mal_graph.symmetry.interchangeable import Class, Owner, Units

UNREAD = Pin(GroupState.PINNED, "nothing reads it at the sizes of the probe run")

Family = tuple[object, ...]


class Side(StrEnum):
    """What an axis is to the operator that applies the tensor."""

    OUT = "out"  # of a contraction's weight: the units that it produces
    IN = "in"  # the units that it consumes
    TAP = "tap"  # its window
    UNIT = "unit"  # of any other tensor: the units it is applied to


@dataclass(frozen=True)
class Role:
    """What an axis of a stored tensor is to the operator that applies it.

    Attributes:
        op: the operator.
        slot: what the tensor is there: "weight", "bias", "scale"...
        side: what the axis is.
    """

    op: str
    slot: str
    side: Side

    def __str__(self) -> str:
        return f"{self.op}.{self.slot} {self.side}"


@dataclass(frozen=True)
class Member:
    """One axis of one weight in a group.

    Attributes:
        tensor, axis: the stored tensor and its axis.
        role: what the axis is to the operator.
        positions: indices on the axis that move with each unit, shape (units, k).
    """

    tensor: str
    axis: int
    role: Role
    positions: NDArray[np.int64] = field(compare=False)

    @property
    def consumes(self) -> bool:
        """Whether the operator sums over the units of the axis."""
        return self.role.side is Side.IN

    @property
    def produces(self) -> bool:
        """Whether the operator makes the units of the axis."""
        return self.role.side is Side.OUT

    @property
    def is_plain(self) -> bool:
        """Whether unit u is index u."""
        units, k = self.positions.shape
        return k == 1 and bool((self.positions[:, 0] == np.arange(units)).all())


@dataclass(frozen=True)
class AxisGroup:
    """Weight axes whose units are interchangeable, if they move together.

    Attributes:
        name: tensor and axis of its first member.
        units: how many.
        members: every axis that moves.
        state: a candidate until verified, then verified or unverified; or pinned, frozen or rigid from the start.
        reason: why it is in that state.
        unknown_op: the operator without a row that freezes it, "" if none does.
        inside: name and unit of the enclosing group of a nested one.
        statistic: what an operator takes over the units (None if none does), so that a live unit without a partner
            changes the others.
        sized_by: the constants and attributes that hold its size, and must follow when it is resized.
        deviation: how much the outputs moved in the verification, relative to the largest, with every unit permuted.
        control: the same with one member left out, the median over the members tried.
        inert: members whose absence never showed.
        added: how many of its last units were added by widening.
    """

    name: str
    units: int
    members: tuple[Member, ...]
    state: GroupState
    reason: str = ""
    unknown_op: str = ""
    inside: tuple[str, int] | None = None
    statistic: Statistic | None = None
    sized_by: tuple[SizeConstant, ...] = ()
    deviation: float | None = None
    control: float | None = None
    inert: tuple[str, ...] = ()
    added: int = 0

    @property
    def is_usable(self) -> bool:
        """Whether its units may be permuted."""
        return self.state in (GroupState.VERIFIED, GroupState.CANDIDATE)


def family(group: AxisGroup) -> Family | None:
    """What the groups inside the units of one group have in common: one of them shows what leaving out a member does,
    for the verification of the outer group lets them trade places."""
    if group.inside is None:
        return None
    return (group.inside[0], group.units, *((m.tensor, m.axis, m.positions.shape) for m in group.members))


@dataclass(frozen=True)
class AxisGroups:
    """The groups of one graph, with the parameters they were found on.

    Attributes:
        groups: of every state, in the order of the graph.
        parameters: every application of a weight.
        probed: the run that gave shapes and values.
        unknown: node names by operator without a rule.
    """

    groups: tuple[AxisGroup, ...]
    parameters: tuple[Parameter, ...]
    probed: Probe
    unknown: Mapping[str, tuple[str, ...]]

    @cached_property
    def on_axis(self) -> Mapping[tuple[str, int], tuple[tuple[int, Member], ...]]:
        """For each (tensor, axis) the groups that lie on it, as (index of the group, member)."""
        found: dict[tuple[str, int], list[tuple[int, Member]]] = {}
        for index, group in enumerate(self.groups):
            for member in group.members:
                found.setdefault((member.tensor, member.axis), []).append((index, member))
        return {key: tuple(value) for key, value in found.items()}

    def with_states(self, changed: Mapping[int, tuple[GroupState, str]]) -> "AxisGroups":
        """The same groups, some in another state for another reason."""
        groups = [
            replace(group, state=changed[i][0], reason=changed[i][1]) if i in changed else group
            for i, group in enumerate(self.groups)
        ]
        return replace(self, groups=tuple(groups))

    def usable(self) -> list[int]:
        return [i for i, group in enumerate(self.groups) if group.is_usable]


def axis_groups(graph: LayerGraph, probed: Probe | None = None, table: Mapping[str, Row] | None = None) -> AxisGroups:
    """Find the axis groups of a graph.

    Args:
        graph: the network.
        probed: shapes and values from a run; measured here if left out.
        table: operator rows, the built-in ones if left out.

    Returns:
        groups that are candidates, pinned, frozen or rigid; `verify` turns candidates into verified ones.

    Raises:
        RunError: the model cannot be run to measure shapes.
    """
    probed = probed or probe(graph)
    found = find_parameters(graph, table)
    described = roles(graph, found, table)
    weighted = {parameter.node for parameter in found if parameter.is_weight}
    solved, _, unknown = traced(graph, probed, ROWS if table is None else table, described, weighted)
    groups = tuple(group for group, _ in grouped(solved, described))
    return AxisGroups(groups, tuple(found), probed, unknown)


@dataclass(frozen=True)
class Traces:
    """What is at every place of a network, once its groups are found.

    Attributes:
        labels: by tensor.
        unit: the unit of each atom.
        parts: by name of the group what moves with each of its units; shape (units, parts).
    """

    labels: Mapping[str, Label]
    unit: NDArray[np.int64]
    parts: Mapping[str, NDArray[np.int64]]


def find_traces(graph: LayerGraph, groups: AxisGroups, table: Mapping[str, Row] | None = None) -> Traces:
    """Find the groups of a graph once more, and keep where their units lie."""
    described = roles(graph, groups.parameters, table)
    weighted = {parameter.node for parameter in groups.parameters if parameter.is_weight}
    solved, labels, _ = traced(graph, groups.probed, ROWS if table is None else table, described, weighted)
    return Traces(labels, solved.component, {group.name: parts for group, parts in grouped(solved, described)})


def traced(
    graph: LayerGraph,
    probed: Probe,
    table: Mapping[str, Row],
    described: Collection[tuple[str, int]],
    weighted: Collection[int],
) -> tuple[Units, dict[str, Label], dict[str, tuple[str, ...]]]:
    """Run the graph on labels.

    Args:
        described: the axes of weights that are in use, as (tensor, axis).
        weighted: the contractions of which one side is a weight, as indices of nodes.

    Returns:
        the units on these axes, labels by tensor, and nodes without a rule by operator.
    """
    wiring = Wiring()
    labels: dict[str, Label] = {}
    owners: list[Owner] = []
    unknown: dict[str, list[str]] = {}
    for value in graph.inputs:
        labels[value.name] = pinned_label(
            probed.shapes.get(value.name, ()), Pin(GroupState.PINNED, f"axes of model input {value.name!r}")
        )
    in_use = [tensor for tensor, _ in described]  # producers first, so that they name groups
    for name in dict.fromkeys([*in_use, *graph.weights]):
        weight = graph.weights[name]
        if weight.scope or not weight.is_float:
            labels[name] = pinned_label(weight.shape, Pin(GroupState.PINNED, "integer data"))
            continue
        start = wiring.count
        labels[name] = wiring.fresh_label(weight.shape)
        for axis, size in enumerate(weight.shape):
            if size > 1:
                owners += [(name, axis, start, size)] if (name, axis) in described else []
                start += size
    for index, node in enumerate(graph.nodes):
        row, opset = row_of(node, table), graph.opsets.get(node.op.rpartition(".")[0], 1)
        if row is None and node.op not in unknown:
            unknown[node.op] = []
        if row is None:
            unknown[node.op].append(node.name)
        for name, label in zip(node.outputs, outputs_of(node, row, wiring, labels, probed, opset), strict=False):
            labels[name] = label
            if row is not None and row.is_linear and index not in weighted:
                mark_product(node, row, wiring, labels)
            for constant in row.size_constants_of(node) if row is not None else ():
                wiring.mark_size(label, constant)
    for value in graph.outputs:
        wiring.pin_label(labels[value.name], Pin(GroupState.PINNED, f"axes of model output {value.name!r}"))
    pin_unread(wiring, [labels[name] for node in graph.nodes for name in node.outputs if name in labels], owners)
    return Units(wiring, owners), labels, {op: tuple(names) for op, names in unknown.items()}


def mark_product(node: Node, row: Row, wiring: Wiring, labels: Mapping[str, Label]) -> None:
    """Note that a contraction sums over units whose weights are computed, such as keys, and need not be zero for one
    that is not there."""
    for slot, name in enumerate(node.inputs):
        axes = row.weight_axes(slot, node, len(labels[name].shape)) if name in labels else None
        if axes is not None:
            wiring.mark_statistic(labels[name], (axes[1],), Statistic(node.op, node.name))
            return


def pin_unread(wiring: Wiring, computed: Iterable[Label], owners: Iterable[Owner]) -> None:
    """Pin what no operator reads, such as the rows of a table of places behind the last place of the probe run: no run
    of this size tells what they are, and one of another size reads them."""
    is_read = np.zeros(wiring.count, bool)
    for atoms in (
        *(part for label in computed for part in label.parts),
        *(side for tie in wiring.ties for side in tie),
        *(pinned.atoms for pinned in wiring.pins),
        *(atoms for belonging in wiring.blocks for atoms in belonging),
        *wiring.readings,
    ):
        is_read[atoms] = True
    for _, _, start, size in owners:
        unread = start + np.flatnonzero(~is_read[start : start + size])
        if len(unread):
            wiring.pin(unread, UNREAD)


def outputs_of(
    node: Node, row: Row | None, wiring: Wiring, labels: Mapping[str, Label], probed: Probe, opset: int
) -> list[Label]:
    call = Call(
        node,
        wiring,
        [labels.get(name) if name else None for name in node.inputs],
        [probed.shapes.get(name, ()) if name else () for name in node.outputs],
        [probed.values.get(name) for name in node.inputs],
        opset,
    )
    if row is None:
        captured = [labels[name] for name in node.captures if name in labels]
        call = replace(call, inputs=[*call.inputs, *captured])
        return call.freeze(explain_missing(node.op), unknown_op=node.op)
    unmeasured = [name for name in (*node.inputs, *node.outputs) if name and name not in probed.shapes]
    if unmeasured and not row.reads_shape_only and not row.is_sequence:
        return call.freeze(f"the shape of {unmeasured[0]!r} could not be measured")
    try:
        return list(row.rule(call))
    except (ValueError, IndexError, KeyError) as error:
        raise RunError(f"the axis rule of {call.name} failed on shapes {call.outputs}: {error}") from error


def roles(
    graph: LayerGraph, found: Sequence[Parameter], table: Mapping[str, Row] | None
) -> dict[tuple[str, int], Role]:
    """What each stored axis is to the operator that applies it."""
    described: dict[tuple[str, int], Role] = {}
    for parameter in found:
        op = graph.nodes[parameter.node].op
        for place, axis in enumerate(parameter.axes):
            if axis is None:
                continue
            side = (Side.OUT, Side.IN, Side.TAP)[min(place, 2)] if parameter.is_weight else Side.UNIT
            described.setdefault((parameter.tensor, axis), Role(op, parameter.role, side))
    return described


def grouped(solved: Units, described: Mapping[tuple[str, int], Role]) -> Iterator[tuple[AxisGroup, NDArray[np.int64]]]:
    """The classes of units as groups, each with what moves with its units, shape (units, parts)."""
    names: dict[str, int] = {}
    group_of, number_in = np.full(solved.count, -1), np.zeros(solved.count, np.int64)  # of units that hold others
    waiting: list[tuple[AxisGroup, Class, NDArray[np.int64]]] = []
    for found in sorted(solved.classes(), key=first_entry):
        # Units in the order of their first positions: the order a reader sees in the file.
        order = np.argsort(found.columns[:, 0, 1], kind="stable")
        members = tuple(members_of(found.columns[order], solved.owners, described))
        name = f"{members[0].tensor}[{members[0].axis}]"
        names[name] = names.get(name, 0) + 1
        pin = found.pin or Pin(GroupState.CANDIDATE, "")
        if found.is_rigid:
            pin = Pin(GroupState.RIGID, "no two of its units are interchangeable")
        group = AxisGroup(
            name=name if names[name] == 1 else f"{name}#{names[name]}",
            units=len(found.parts),
            members=members,
            state=pin.state,
            reason=pin.reason,
            unknown_op=pin.unknown_op,
            statistic=found.statistic,
        )
        parts = found.parts[order]
        if group.is_usable and parts.shape[1] > 1:
            group_of[parts[:, 0]], number_in[parts[:, 0]] = len(waiting), np.arange(len(parts))
        waiting.append((group, found, parts))
    held: dict[int, list[SizeConstant]] = {}
    for constant, atoms in solved.wiring.sized_by:
        for unit in np.unique(solved.component[atoms]).tolist():
            held.setdefault(unit, []).append(constant)
    is_held = np.zeros(solved.count, bool)
    is_held[list(held)] = True
    for group, found, parts in waiting:
        around = next((block for block in found.blocks if group_of[block] >= 0), None)
        inside = None if around is None else (waiting[group_of[around]][0].name, int(number_in[around]))
        holding = found.parts[is_held[found.parts]].tolist()
        constants = dict.fromkeys(constant for part in holding for constant in held[part])
        # The number of blocks does not follow what is inside one.
        sized_by = tuple(constant for constant in constants if not (inside and constant.is_block_count))
        yield replace(group, inside=inside, sized_by=sized_by) if group.is_usable else group, parts


def first_entry(found: Class) -> tuple[int, int, int]:
    """Sorts classes by the axes and positions they lie on, what encloses others before them."""
    owner, position = min(map(tuple, found.columns[0].tolist()))
    return owner, position, -found.columns.shape[1]


def members_of(
    columns: NDArray[np.int64], owners: Sequence[Owner], described: Mapping[tuple[str, int], Role]
) -> Iterator[Member]:
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
        yield Member(name, axis, described[name, axis], held[:, np.argsort(held[0], kind="stable")])
