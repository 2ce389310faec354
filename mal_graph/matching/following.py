"""How many layers around two layers would follow each other in both models, were the two a pair.

The layers before and after one count where their partners are before and after the other. It is asked of one layer of a
model and of many of the other at once, in three ways, each closer and slower than the one before.
"""

import numpy as np
from numpy.typing import NDArray

from mal_graph.matching.bits import as_bits, as_mask, members
from mal_graph.matching.layer_profile import Profile

Layers = NDArray[np.int64]


class Following:
    """The layers of one model, as seen from a pairing with those of another.

    Attributes:
        mine, theirs: of each layer of either model the layers before it, and those after it, as bits.
        degrees: how many these are.
        partners: the partner of each layer of the first model, -1 for none; it changes while this is in use.
    """

    def __init__(self, one: Profile, other: Profile, partners: Layers) -> None:
        self.mine, self.theirs = ((side.network.before, side.network.after) for side in (one, other))
        self.degrees = [
            [np.array([bits.bit_count() for bits in way], int) for way in ways] for ways in (self.mine, self.theirs)
        ]
        self.partners = partners

    def by_degrees(self, x: int, others: Layers) -> Layers:
        """At most as many as both layers have on each side."""
        (before, after), (other_before, other_after) = self.degrees
        most: Layers = np.minimum(before[x], other_before[others]) + np.minimum(after[x], other_after[others])
        return most

    def by_neighbours(self, x: int, others: Layers) -> Layers:
        """The same; none for those that are no neighbours of the partner of a neighbour."""
        found = 0
        for near, back in zip(self.partners_around(x), self.theirs[::-1], strict=True):
            if len(near) > len(others):  # finding them takes longer than what it spares
                return self.by_degrees(x, others)
            for partner in near.tolist():
                found |= back[partner]
        return np.where(as_mask(found, len(self.degrees[1][0]))[others], self.by_degrees(x, others), 0)

    def by_count(self, x: int, others: Layers) -> Layers:
        """Exactly as many."""
        count = len(self.degrees[1][0])
        ends = [(way, as_bits(near, count)) for way, near in zip(self.theirs, self.partners_around(x), strict=True)]
        return np.array([sum((way[y] & near).bit_count() for way, near in ends) for y in others.tolist()], int)

    def partners_around(self, x: int) -> list[Layers]:
        """The partners of the layers before layer x, and of those after it."""
        around = [self.partners[members(way[x], len(self.partners))] for way in self.mine]
        return [near[near >= 0] for near in around]
