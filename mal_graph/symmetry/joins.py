"""Blocks that no axis has atoms for: what two ways of cutting the same units into blocks leave whole.

Where several heads of queries read the same keys, a unit of the queries belongs to its head and to the unit of the keys
that it meets. Nothing in the network names what holds both: the head of the keys with all that read it. But what moves
whole heads to whole heads, and whole units of keys to whole units of keys, moves whole sets of blocks that hang
together to such sets: the finest blocks that hold those of both cuts (their *join*). Where one cut is finer than the
other, or all hangs together, there is nothing to add.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mal_graph.symmetry.links import Flags, Ints, Links, begins, distinct, how_many, joined, mixed, numbered


class Cuts(NamedTuple):
    """Ways of cutting units into blocks, one for each of the units that it cuts; ordered by unit.

    Attributes:
        unit, number, block: a unit, the number of the cut, and the block of the unit.
    """

    unit: Ints
    number: Ints
    block: Ints


class Join(NamedTuple):
    """Two cuts of the same units, a row for each unit.

    Attributes:
        unit: the units.
        one, other: the block of each in both cuts.
        whole: the number of the block of the join that holds both, counted from 0.
    """

    unit: Ints
    one: Ints
    other: Ints
    whole: Ints


def find_joins(links: Links, is_held: Flags) -> Iterator[Join]:
    """The joins of every two cuts that are coarser than both and leave more than one block, and those of twins.

    Args:
        is_held: which units are pinned.
    """
    stays = with_holders(links, is_held)
    yield from joins_of_twins(links, stays)
    cuts = cuts_of(links, stays)
    row, other = joined(cuts.unit, cuts.unit)
    apart = cuts.number[row] < cuts.number[other]
    row, other = row[apart], other[apart]
    if not len(row):
        return
    pair = cuts.number[row] * (int(cuts.number.max()) + 1) + cuts.number[other]
    order = np.argsort(pair, kind="stable")
    pair, row, other = pair[order], row[order], other[order]
    one, two, whole = hanging_together(np.cumsum(begins(pair)), cuts.block[row], cuts.block[other])
    for rows in np.split(np.arange(len(pair)), np.flatnonzero(begins(pair))[1:]):
        wholes, number = np.unique(whole[rows], return_inverse=True)
        if 1 < len(wholes) < min(len(np.unique(side[rows])) for side in (one, two)):
            yield Join(cuts.unit[row[rows]], cuts.block[row[rows]], cuts.block[other[rows]], number)


def joins_of_twins(links: Links, is_held: Flags) -> Iterator[Join]:
    """The joins of blocks of one axis that hold the same units, such as one head in every sample, where these lie on
    one axis with the heads."""
    axis, block, unit = distinct(links.axis, links.block, links.unit)
    rows = ~is_held[unit] & ~is_held[block]
    axis, block, unit = axis[rows], block[rows], unit[rows]
    if not len(axis):
        return
    new = begins(axis, block)
    content = np.add.reduceat(mixed(12, unit), np.flatnonzero(new))[np.cumsum(new) - 1]
    is_repeated = how_many(axis, unit) > 1
    for run in np.split(np.arange(len(axis)), np.flatnonzero(begins(axis))[1:]):
        if is_repeated[run].all():
            whole = numbered(content[run])
            if 1 < whole.max() + 1 < min(len(np.unique(column[run])) for column in (unit, block)):
                yield Join(unit[run], block[run], block[run], whole)


def with_holders(links: Links, is_held: Flags) -> Flags:
    """Which units are held, or hold one that is."""
    held = is_held.copy()
    while (new := held[links.unit] & ~held[links.block]).any():
        held[links.block[new]] = True
    return held


def cuts_of(links: Links, is_held: Flags) -> Cuts:
    """The ways in which units are cut into blocks, each once. What stays cuts nothing that moves."""
    axis, unit, block = distinct(links.axis, links.unit, links.block)
    rows = ~is_held[unit] & ~is_held[block] & (how_many(axis, unit) == 1)
    axis, unit, block = axis[rows], unit[rows], block[rows]
    if not len(axis):
        return Cuts(unit, axis, block)
    start = np.flatnonzero(begins(axis))
    _, first = np.unique(np.add.reduceat(mixed(11, unit, block), start), return_index=True)
    rows = np.isin(axis, axis[start[first]])
    return Cuts(*distinct(unit[rows], axis[rows], block[rows]))


def hanging_together(number: Ints, one: Ints, other: Ints) -> tuple[Ints, Ints, Ints]:
    """Blocks of pairs of cuts, `number` saying which, and what they hang together with.

    Returns:
        a number for each block of one and of the other cut, and one for all that hangs together with both.
    """
    count = int(max(one.max(), other.max())) + 1
    blocks, both = np.unique(np.stack([number * count + one, number * count + other]), return_inverse=True)
    left, right = both.reshape(2, -1)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(len(blocks), len(blocks)))
    _, whole = connected_components(links, directed=False)
    return left, right, whole[left].astype(np.int64)
