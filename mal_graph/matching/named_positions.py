"""Positions of two networks put beside each other by their names (see `symmetry.position_names`)."""

import numpy as np

from mal_graph.matching.axis_pairs import Index
from mal_graph.symmetry import Names


class Misnamed(Exception):
    """Positions that cannot be paired by their names; caught where the layer is listed as not merged."""


def pair_by_names(mine: Names, theirs: Names, *, is_table: bool = False) -> tuple[Index, Index] | None:
    """Positions of both networks that have the same name, in the order of the base's.

    Args:
        is_table: whether they are the entries of a table that is looked up: of one in which some have names, those
            without are never read, and what they hold says nothing.

    Returns:
        positions of the base and of the donor; those of a name that the other has not have no partner. None where
        neither has names, and where all are the same.

    Raises:
        Misnamed: only one network's positions have names, several share one, or none is the same.
    """
    if not mine.any() and not theirs.any():
        return None
    if np.array_equal(mine, theirs):
        read = np.flatnonzero(mine)
        return (read, read) if is_table and len(read) < len(mine) else None
    if not mine.all() or not theirs.all():
        raise Misnamed("is known by what it reads or gives in one model alone")
    if not is_unique(mine) or not is_unique(theirs):
        raise Misnamed("holds several positions that nothing tells apart, in another order than the donor's")
    _, own, others = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    if not len(own):
        raise Misnamed("stands for other indices of the inputs and outputs than the donor's")
    order = np.argsort(own)
    return own[order], others[order]


def in_order_of_names(positions: tuple[Index, Index], names: tuple[Names, Names]) -> tuple[Index, Index]:
    """The positions of the units of both networks, shape (units, k) each, in one order of their names.

    Raises:
        Misnamed: their names are not the same for all units of both.
    """
    mine, theirs = positions
    if mine.shape[1] < 2 or not (names[0][mine].any() or names[1][theirs].any()):
        return positions
    sorted_names = []
    ordered = []
    for side, own in zip((mine, theirs), names, strict=True):
        order = np.argsort(own[side], axis=1, kind="stable")
        ordered.append(np.take_along_axis(side, order, axis=1))
        sorted_names.append(own[ordered[-1]])
    first = sorted_names[0][:1]
    if any((one != first).any() for one in sorted_names):
        raise Misnamed("stand for other indices of the inputs and outputs than the donor's")
    if np.array_equal(names[0][mine[:1]], names[1][theirs[:1]]):
        return positions
    if not is_unique(first[0]):
        raise Misnamed("nothing tells apart, in another order than the donor's")
    return ordered[0], ordered[1]


def is_unique(names: Names) -> bool:
    """Whether no two positions have the same name."""
    return len(np.unique(names)) == len(names)
