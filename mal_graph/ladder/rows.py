"""One common order of two models: the rows of the picture.

Each model is put in an order of its own first, branch by branch: a place comes behind what it reads, and what an
operator reads in a certain order comes in that order, so that branches that are exchanged between the models cross.
Other operands of the donor come as they are stored, or in the base's order, whichever lets more pairs share a row. The
most pairs that can share one without crossing do (a longest increasing subsequence); the others are crossing lines.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role

MOST_COMPARED = 1 << 20  # entries of a comparison of what lies between two pairs


class Row(NamedTuple):
    """A place of the base, of the donor, or one of each."""

    base: int | None
    donor: int | None

    def at(self, side: int) -> int | None:
        """The place of the base (side 0) or the donor (1)."""
        return self[side]


class Pair(NamedTuple):
    """Two layers that correspond to each other."""

    base: int
    donor: int


def find_rows(ladder: LadderEntry) -> list[Row]:
    """The rows, from input to output."""
    mine = order_places(ladder.base, as_stored(ladder.base))
    if ladder.donor is None:
        return [Row(place, None) for place in mine]
    rank = {place: position for position, place in enumerate(mine)}
    orders = [order_places(ladder.donor, keys) for keys in (as_stored(ladder.donor), follow(ladder, rank))]
    theirs, shared = max(((order, share_rows(ladder, rank, order)) for order in orders), key=lambda both: len(both[1]))
    position = {place: at for at, place in enumerate(theirs)}
    rows: list[Row] = []
    here = there = 0
    for row in shared:
        stop, end = rank[row.base], position[row.donor]
        rows += between(ladder, mine[here:stop], theirs[there:end])
        rows.append(Row(*row))
        here, there = stop + 1, end + 1
    return [*rows, *between(ladder, mine[here:], theirs[there:])]


def share_rows(ladder: LadderEntry, rank: Mapping[int, int], theirs: Sequence[int]) -> list[Pair]:
    """The most pairs that do not cross, from top to bottom."""
    position = {place: at for at, place in enumerate(theirs)}
    pairs = sorted((Pair(rung.base, rung.donor) for rung in ladder.rungs), key=lambda pair: rank[pair.base])
    return [pairs[index] for index in increasing([position[pair.donor] for pair in pairs])]


def as_stored(model: ModelEntry) -> list[int]:
    """No operand before another."""
    return [0] * len(model.places)


def follow(ladder: LadderEntry, rank: Mapping[int, int]) -> list[int]:
    """For each place of the donor, how far down the base its partner lies, or that of what it reads."""
    assert ladder.donor is not None
    partner = {rung.donor: rung.base for rung in ladder.rungs}
    keys: list[int] = []
    for index, place in enumerate(ladder.donor.places):
        before = max((keys[source] for source in place.reads if source < index), default=-1)
        keys.append(rank[partner[index]] if index in partner else before)
    return keys


def order_places(model: ModelEntry, keys: Sequence[int]) -> list[int]:
    """The places, each behind what it reads, branch by branch; of operands in any order the smallest key first."""
    order: list[int] = []
    seen: set[int] = set()
    read = {source for place in model.places for source in place.reads}
    for end in (index for index in range(len(model.places)) if index not in read):
        waiting = [(end, False)]
        while waiting:
            index, is_read = waiting.pop()
            if is_read:
                order.append(index)
            elif index not in seen:
                seen.add(index)
                waiting.append((index, True))
                waiting += ((source, False) for source in reversed(operands(model.places[index], keys)))
    return order


def operands(place: PlaceEntry, keys: Sequence[int]) -> list[int]:
    return place.reads if place.is_ordered else sorted(place.reads, key=lambda source: keys[source])


def increasing(values: Sequence[int]) -> list[int]:
    """The indices of a longest increasing subsequence."""
    tails: list[int] = []  # the smallest end of a subsequence of each length
    ends: list[int] = []  # the indices of these
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect_left(tails, value)
        before.append(ends[length - 1] if length else -1)
        if length == len(tails):
            tails.append(value)
            ends.append(index)
        tails[length], ends[length] = value, index
    chain: list[int] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        chain.append(at)
        at = before[at]
    return chain[::-1]


def between(ladder: LadderEntry, mine: Sequence[int], theirs: Sequence[int]) -> list[Row]:
    """Rows of what lies between two pairs: inputs, joins and outputs of one kind share a row, in order."""
    if not ladder.donor or len(mine) * len(theirs) > MOST_COMPARED:
        return [*(Row(place, None) for place in mine), *(Row(None, place) for place in theirs)]
    own = [word(ladder.base.places[place], f"base {place}") for place in mine]
    others = [word(ladder.donor.places[place], f"donor {place}") for place in theirs]
    rows: list[Row] = []
    here = there = 0
    for a, b, size in SequenceMatcher(None, own, others, autojunk=False).get_matching_blocks():
        rows += (Row(place, None) for place in mine[here:a])
        rows += (Row(None, place) for place in theirs[there:b])
        rows += (Row(*both) for both in zip(mine[a : a + size], theirs[b : b + size], strict=True))
        here, there = a + size, b + size
    return rows


def word(place: PlaceEntry, own: str) -> tuple[str, str]:
    """What two places that share a row have in common; a layer shares one with its partner alone."""
    return (place.role, own if place.role is Role.LAYER else place.kind)
