"""How the axes of two tensors correspond to each other: as rows of blocks, one for each pair of groups."""

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.graph import Array

Index = NDArray[np.int64]
NOWHERE: Index = np.zeros(0, np.int64)


@dataclass(frozen=True)
class GroupPair:
    """An ordered pair (base group, donor group) whose units are assigned to each other, by index.

    Attributes:
        base, donor: the groups; of groups inside the units of others the ones inside the first units.
        within: the pair whose units hold these, by index; -1 if none does. The units of all of them are counted
            through: those inside the first unit, those inside the second...
        grid: two pairs whose units lie across each other, by index: the units are the places where these meet, and the
            two orders tell theirs. None if it has an order of its own.
    """

    base: int
    donor: int
    within: int = -1
    grid: tuple[int, int] | None = None

    @property
    def is_outermost(self) -> bool:
        """Whether its units are units of the network, neither inside others nor places where two meet."""
        return self.within < 0 and self.grid is None


@dataclass(frozen=True, repr=False)
class Block(Brief):
    """A stretch of an axis: the positions of one base group and of the donor group it is paired with.

    Attributes:
        pair: index of the pair of groups; -1 where the positions correspond one to one.
        base, donor: positions, shape (units, k).
        within: index of the pair inside whose units these are counted through; -1 for none.
    """

    pair: int
    base: Index
    donor: Index
    within: int = -1


@dataclass(frozen=True, repr=False)
class AxisPair(Brief):
    """How one axis of a base tensor corresponds to an axis of a donor tensor.

    Attributes:
        size: length of the base's axis.
        blocks: what corresponds; base positions in no block have no counterpart.
        statistic: base positions where a live unit without a partner is not allowed, for its group feeds a statistic.
        statistic_inside: the same of units inside others: where one of these has no partner, what is inside may stay.
        added: base positions of units that were added for the donor's.
        donor_size: length of the donor's axis where that may be longer, though all of the base's corresponds.
    """

    size: int
    blocks: tuple[Block, ...]
    statistic: Index = field(default_factory=lambda: NOWHERE)
    statistic_inside: Index = field(default_factory=lambda: NOWHERE)
    added: Index = field(default_factory=lambda: NOWHERE)
    donor_size: int = 0


def take_positions(values: Array, positions: Index, place: int) -> Array:
    """The entries at these positions of an axis, in their order, zero at -1; the array itself where nothing changes."""
    if len(positions) == values.shape[place] and (positions == np.arange(len(positions))).all():
        return values
    chosen = values.take(positions, axis=place)
    none = positions < 0
    if none.any():
        np.moveaxis(chosen, place, 0)[none] = 0
    return chosen


def unit_rows(values: Array, place: int, positions: Index) -> Array:
    """The entries that belong to each unit, as rows, shape (units, features)."""
    return np.moveaxis(take_positions(values, positions.ravel(), place), place, 0).reshape(len(positions), -1)


def summed_units(values: Array, place: int, positions: Index) -> Array:
    """The sum of all units' entries: the values with the positions of one unit on this axis."""
    chosen = take_positions(values, positions.ravel(), place)
    units, k = positions.shape
    before, behind = values.shape[:place], values.shape[place + 1 :]
    stacked = chosen.reshape(prod(before), units, k * prod(behind))
    total: Array = np.einsum("auf->af", stacked)  # three times faster than a sum over the second of several axes
    return total.reshape(*before, k, *behind)
