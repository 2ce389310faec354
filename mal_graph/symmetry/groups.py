"""Axis groups: which axes of which weights must move together, found by running a network on axis labels.

Weights get fresh atoms, the axis rules of the operators collect what ties them (see `tracing`), and units that may
trade places form a group (see `interchangeable`, `grouping`). Groups may nest: the channels of one group of a grouped
convolution lie inside a unit of the group of its groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.network import Layer, Parameter, Probe
from mal_graph.operators import GroupState, Label, SizeConstant, Statistic

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


@lru_cache(maxsize=64)  # layers of a few widths make up a network, however many they are
def all_positions(size: int) -> NDArray[np.int64]:
    """Every position of an axis in order, shape (size, 1): one read-only array for all that ask."""
    positions = np.arange(size).reshape(-1, 1)
    positions.flags.writeable = False
    return positions


@dataclass(frozen=True, repr=False)
class Member(Brief):
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
        """Whether the operator produces the units of the axis."""
        return self.role.side is Side.OUT

    @property
    def is_plain(self) -> bool:
        """Whether unit u is index u."""
        units, k = self.positions.shape
        return k == 1 and bool((self.positions[:, 0] == np.arange(units)).all())


@dataclass(frozen=True, repr=False)
class AxisGroup(Brief):
    """Weight axes whose units are interchangeable, if they move together.

    Attributes:
        name: the layer that produces the units; tensor and axis of its first member where none does. Several of one
            name are numbered.
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


@dataclass(frozen=True, repr=False)
class AxisGroups(Brief):
    """The groups of one graph, with the parameters they were found on.

    Attributes:
        groups: of every state, in the order of the graph.
        parameters: every application of a weight.
        layers: the layers that own them.
        probed: the run that gave shapes and values.
        unknown: node names by operator without a rule.
    """

    groups: tuple[AxisGroup, ...]
    parameters: tuple[Parameter, ...]
    layers: tuple[Layer, ...]
    probed: Probe
    unknown: Mapping[str, tuple[str, ...]]

    @cached_property
    def on_axis(self) -> Mapping[tuple[str, int], tuple[tuple[int, Member], ...]]:
        """For each (tensor, axis) the groups that lie on it, as (index of the group, member)."""
        lying: dict[tuple[str, int], list[tuple[int, Member]]] = {}
        for index, group in enumerate(self.groups):
            for member in group.members:
                lying.setdefault((member.tensor, member.axis), []).append((index, member))
        return {key: tuple(value) for key, value in lying.items()}

    @cached_property
    def layer_of(self) -> Mapping[str, int]:
        """The number of the layer that owns a tensor, by the tensor's name."""
        return {parameter.tensor: i for i, layer in enumerate(self.layers) for parameter in layer.parameters}

    def with_states(self, changed: Mapping[int, tuple[GroupState, str]]) -> "AxisGroups":
        """The same groups, some in another state for another reason."""
        groups = [
            replace(group, state=changed[i][0], reason=changed[i][1]) if i in changed else group
            for i, group in enumerate(self.groups)
        ]
        return replace(self, groups=tuple(groups))

    def usable(self) -> list[int]:
        """The indices of the groups whose units may be permuted."""
        return [i for i, group in enumerate(self.groups) if group.is_usable]


@dataclass(frozen=True, repr=False)
class Traces(Brief):
    """What is at every place of a network, once its groups are found.

    Attributes:
        labels: by tensor.
        unit: the unit of each atom.
        parts: by name of the group what moves with each of its units; shape (units, parts).
        places: by tensor whose values are places of units the atoms of these.
        spread: labels in which what a tensor holds several times has atoms of its own, where a reshape tells it apart.
    """

    labels: Mapping[str, Label]
    unit: NDArray[np.int64]
    parts: Mapping[str, NDArray[np.int64]]
    places: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    spread: Mapping[str, Label] = field(default_factory=dict)
