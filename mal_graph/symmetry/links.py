"""Units and the blocks they belong to, as rows of integers, and what is asked of such rows."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

MIXER = np.uint64(0x9E3779B97F4A7C15)


class Links(NamedTuple):
    """Units and the blocks they belong to, a row for each, ordered by axis, by unit, and by place in the unit.

    Attributes:
        axis: a number for the axis of a tensor that a row was found on; those of blocks that lie in several places
            have one number for the first places, one for the second...
        unit, block: what belongs to what.
        times: how often in a row.
    """

    axis: Ints
    unit: Ints
    block: Ints
    times: Ints

    @property
    def place(self) -> Ints:
        """Of each row its place among those of its unit on the axis."""
        return rank(self.axis, self.unit)


def begins(*columns: NDArray[np.generic]) -> Flags:
    """Which rows differ from the one before."""
    new = np.ones(len(columns[0]), bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new


def distinct(*columns: Ints) -> list[Ints]:
    """Each row once, in order."""
    order = np.lexsort(columns[::-1])
    columns = tuple(column[order] for column in columns)
    new = begins(*columns)
    return [column[new] for column in columns]


def how_many(*columns: NDArray[np.generic]) -> Ints:
    """For each row how many are equal to it."""
    _, which, counts = np.unique(mixed(*columns), return_inverse=True, return_counts=True)
    times: Ints = counts[which]
    return times


def rank(*columns: Ints) -> Ints:
    """Of each row its place in its run of equal rows."""
    at = np.arange(len(columns[0]))
    ranks: Ints = at - np.maximum.accumulate(np.where(begins(*columns), at, 0))
    return ranks


def joined(keys: Ints, ordered: Ints) -> tuple[Ints, Ints]:
    """Every pair of a row of `keys` and one of `ordered` that hold the same number."""
    start = np.searchsorted(ordered, keys)
    lengths = np.searchsorted(ordered, keys, side="right") - start
    row = np.repeat(np.arange(len(keys)), lengths)
    return row, start[row] + rank(row)


def mixed(*columns: NDArray[np.generic] | int) -> Hashes:
    """A hash of each row; sums of such hashes differ for different multisets but by a chance of one in 2^64."""
    hashes = np.zeros(1, np.uint64)
    for column in columns:
        hashes = (hashes ^ np.asarray(column).astype(np.uint64)) * MIXER
        hashes = (hashes ^ (hashes >> np.uint64(29))) * MIXER
        hashes = hashes ^ (hashes >> np.uint64(32))
    return hashes


def numbered(hashes: Hashes) -> Ints:
    """Numbers for hashes, in the order in which they first occur."""
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    order: Ints = np.argsort(np.argsort(first))
    numbers: Ints = order[which]
    return numbers
