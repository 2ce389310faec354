"""The best monotone pairing of the layers of two models, from the scores of every two layers.

The best monotone pairing of two canonical linear orders by dynamic programming (as the cross-layer alignment of Nguyen
et al. 2021, arXiv:2110.15538); then exchanges between parallel branches while they gain (see `exchanges`). Exact
pairing under a partial order is not attempted: it is NP-hard in general.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mal_graph.matching.layer_profile import Profile

MIN_SCORE = 0.35  # two layers less alike than this are never paired


class Scored(Protocol):
    """Scores of base layers and donor layers, as `LayerScores` computes them."""

    def at(self, i: ArrayLike, j: ArrayLike) -> NDArray[np.float64]: ...

    def rows(self, layers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]: ...


def pair_monotonely(a: Profile, b: Profile, scores: Scored) -> dict[int, int]:
    """The best pairing in which both linear orders agree, gaps on both sides, by dynamic programming. Of the table two
    bits an entry are kept: whether it pairs the two layers, and whether it leaves out the base's."""
    rows, columns = a.order, np.array(b.order, int)
    best = np.zeros(len(columns) + 1)
    pairs, skips = [], []
    for _, row in scores.rows(rows):
        gains = np.where(row >= MIN_SCORE, row, -np.inf)[columns]
        taken = best[:-1] + gains
        new = np.zeros(len(columns) + 1)
        new[1:] = np.maximum.accumulate(np.maximum(best[1:], taken))
        pairs.append(np.packbits(new[1:] == taken))
        skips.append(np.packbits(new[1:] == best[1:]))
        best = new
    chosen: dict[int, int] = {}
    i, j = len(rows), len(columns)
    while i and j:
        if is_set(pairs[i - 1], j - 1):
            i, j = i - 1, j - 1
            chosen[rows[i]] = int(columns[j])
        elif is_set(skips[i - 1], j - 1):
            i -= 1
        else:
            j -= 1
    return chosen


def is_set(packed: NDArray[np.uint8], place: int) -> bool:
    return bool(packed[place >> 3] >> (7 - (place & 7)) & 1)
