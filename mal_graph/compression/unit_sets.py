"""Which units hold what: an index of an axis may stand in a unit that lies inside another, and goes with either."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.operators import Atoms, Label
from mal_graph.symmetry import AxisGroup, Network

Ints = NDArray[np.int64]
Units = frozenset[tuple[int, ...]]  # (number of the set, number of the unit)


@dataclass(frozen=True, repr=False)
class UnitSet(Brief):
    """Units that can only be taken away together, one of each group at a time.

    Attributes:
        groups: the coupled axis groups; unit u of the set is unit u of each.
        number: its number among the sets of the network.
        reason: why its units have to stay; "" where they can go.
    """

    groups: tuple[AxisGroup, ...]
    number: int
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of its first group."""
        return self.groups[0].name

    @property
    def units(self) -> int:
        """How many units it has."""
        return self.groups[0].units

    @cached_property
    def consumed(self) -> frozenset[tuple[str, int]]:
        """The stored tensors and axes that sum over its units."""
        return frozenset((m.tensor, m.axis) for group in self.groups for m in group.members if m.consumes)


class Holders:
    """Which groups move each unit of a network, and so which sets each index of an axis goes with.

    Groups nest: the units of a head stand in it, and go with it.
    """

    def __init__(self, network: Network, sets: Sequence[UnitSet]) -> None:
        traces = network.traces
        moved = sorted(
            ((one.number, place, traces.parts[group.name]) for one in sets for place, group in enumerate(one.groups)),
            key=lambda each: -each[2].shape[1],
        )
        size = int(traces.unit.max(initial=0)) + 1
        depth = np.zeros(size, np.int64)
        levels: list[Ints] = []
        for number, place, parts in moved:
            for unit, own in enumerate(parts):
                for level in np.unique(depth[own]).tolist():
                    if level == len(levels):
                        levels.append(np.full((size, 3), -1))
                    levels[level][own[depth[own] == level]] = number, unit, place
                depth[own] += 1
        levels = levels or [np.full((size, 3), -1)]
        self.owner = np.stack(levels, 1)  # (units of the network, depth, set and unit and group)
        self.traces = traces

    def along(self, part: Atoms, axis: int) -> Ints:
        """What holds the entries of a part, shape (indices of the axis, others, depth, 3)."""
        owners = np.moveaxis(self.owner[self.traces.unit[part]], axis, 0)
        return owners.reshape(part.shape[axis], -1, *self.owner.shape[1:])

    def on_axis(self, label: Label, axis: int, *, by_group: bool = False) -> list[Units]:
        """By index of an axis the units that hold it whole.

        Args:
            by_group: tell units of coupled groups apart, by the number of the group in its set as a third.
        """
        part = label.part_on(axis)
        if part is None:
            return [frozenset()] * label.shape[axis]
        return held_by(self.along(part, axis)[..., : 3 if by_group else 2])

    def are_summed(self, label: Label, axis: int) -> set[int]:
        """The numbers of the sets whose units a sum along an axis brings together, with others or with what is none."""
        part = label.part_on(axis)
        if part is None:
            return set()
        owners = self.along(part, axis)
        varies = (owners != owners[:1]).any(axis=(0, 3))  # (others, depth)
        return set(np.unique(owners[:, varies, 0]).tolist()) - {-1}


def held_by(owners: Ints) -> list[Units]:
    """By index what holds all of its entries, from what holds each, shape (indices, entries, depth, 2 or 3)."""
    is_whole = (owners == owners[:, :1]).all(axis=(1, 3)) & (owners[:, 0, :, 0] >= 0)
    return [frozenset(map(tuple, row[whole].tolist())) for row, whole in zip(owners[:, 0], is_whole, strict=True)]
