"""How the axes of two tensors correspond to each other: as rows of blocks, one for each pair of groups."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief

Index = NDArray[np.int64]
NOWHERE: Index = np.zeros(0, np.int64)


@dataclass(frozen=True)
class GroupPair:
    """An ordered pair (base group, donor group) whose units are assigned to each other, by index."""

    base: int
    donor: int


@dataclass(frozen=True, repr=False)
class Block(Brief):
    """A stretch of an axis: the positions of one base group and of the donor group it is paired with.

    Attributes:
        pair: index of the pair of groups; -1 where the positions correspond one to one.
        base, donor: positions, shape (units, k).
    """

    pair: int
    base: Index
    donor: Index


@dataclass(frozen=True, repr=False)
class AxisPair(Brief):
    """How one axis of a base tensor corresponds to an axis of a donor tensor.

    Attributes:
        size: length of the base's axis.
        blocks: what corresponds; base positions in no block have no counterpart.
        statistic: base positions where a live unit without a partner is not allowed, for its group feeds a statistic.
        added: base positions of units that were added for the donor's.
        donor_size: length of the donor's axis where that may be longer, though all of the base's corresponds.
    """

    size: int
    blocks: tuple[Block, ...]
    statistic: Index = field(default_factory=lambda: NOWHERE)
    added: Index = field(default_factory=lambda: NOWHERE)
    donor_size: int = 0
