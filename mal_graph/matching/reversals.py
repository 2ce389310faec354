"""Which partners of a layer would reverse the order of layers that are paired already.

A pair reverses another one where one model computes the first from the second, and the other model the second from the
first. So a base layer may have no partner that is computed from a partner of what is computed from it, and none that
a partner of what it is computed from is computed from.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mal_graph.matching.layer_profile import Profile


class Barred:
    """The donor layers that lie beyond the partners of all that lies one way of a base layer, behind it or before it.

    They are kept for each place of the base's network, and found again where a partner changed and a place is asked
    for: a set is the union of those of the next places, as bits.
    """

    def __init__(
        self,
        links: Sequence[Sequence[int]],
        back: Sequence[Sequence[int]],
        layer_at: Mapping[int, int],
        beyond: Sequence[int],
        partners: NDArray[np.int64],
    ) -> None:
        """`links` lead one way from each place and `back` the other way; `beyond` are the donor layers that lie that
        way of each one; `partners` of the base layers change while this is in use, -1 for none."""
        self.links, self.back, self.layer_at, self.beyond, self.partners = links, back, layer_at, beyond, partners
        self.known = [0] * len(links)
        self.is_known = [False] * len(links)

    def of(self, place: int) -> int:
        """The donor layers that are barred for what stands at a place."""
        waiting = [place]
        while waiting:
            one = waiting[-1]
            unknown = [] if self.is_known[one] else [other for other in self.links[one] if not self.is_known[other]]
            if unknown:
                waiting += unknown
                continue
            waiting.pop()
            if not self.is_known[one]:
                self.known[one], self.is_known[one] = self.union(one), True
        return self.known[place]

    def union(self, place: int) -> int:
        """What is barred for a place, from what is known of the next ones."""
        bits = 0
        for other in self.links[place]:
            bits |= self.known[other]
            partner = self.partners[self.layer_at[other]] if other in self.layer_at else -1
            if partner >= 0:
                bits |= self.beyond[partner]
        return bits

    def forget(self, place: int) -> None:
        """Take what depends on the partner of the layer at a place as unknown."""
        waiting = list(self.back[place])
        while waiting:
            one = waiting.pop()
            if self.is_known[one]:
                self.is_known[one] = False
                waiting += self.back[one]


class Reversals:
    """The partners that each base layer may have without reversing the order of any pair.

    Args:
        a, b: what is known of the layers of both models.
        partners: the donor layer of each base layer, -1 for none; `changed` must be told of every change.
    """

    def __init__(self, a: Profile, b: Profile, partners: NDArray[np.int64]) -> None:
        ours, theirs = a.network, b.network
        self.places = ours.place_of
        self.behind = Barred(ours.feeds, ours.reads, ours.layer_at, theirs.descendants, partners)
        self.before = Barred(ours.reads, ours.feeds, ours.layer_at, theirs.ancestors, partners)

    def barred(self, i: int) -> int:
        """Which donor layers base layer i may not be paired with, as bits."""
        return self.behind.of(self.places[i]) | self.before.of(self.places[i])

    def changed(self, i: int) -> None:
        """Base layer i has another partner now."""
        self.behind.forget(self.places[i])
        self.before.forget(self.places[i])
