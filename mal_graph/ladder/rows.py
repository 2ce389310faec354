"""One common order of two models: the rows of the picture.

Each model is put in an order of its own first, branch by branch: a place comes behind what it reads, and what an
operator reads in a certain order comes in that order, so that branches that are exchanged between the models cross.
Where the order of the operands does not matter, the donor follows the base. The most pairs that can share a row without
crossing do (a longest increasing subsequence); the others are drawn as crossing lines.
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


def find_rows(ladder: LadderEntry) -> list[Row]:
    """The rows, from input to output."""
    mine = order_places(ladder.base, range(len(ladder.base.places)))
    if ladder.donor is None:
        return [Row(place, None) for place in mine]
    rank = {place: position for position, place in enumerate(mine)}
    theirs = order_places(ladder.donor, follow(ladder, rank))
    partner = {rung.base: rung.donor for rung in ladder.rungs}
    position = {place: at for at, place in enumerate(theirs)}
    paired = [place for place in mine if place in partner]
    kept = increasing([position[partner[place]] for place in paired])
    rows: list[Row] = []
    here = there = 0
    for place in (paired[index] for index in kept):
        stop, end = rank[place], position[partner[place]]
        rows += between(ladder, mine[here:stop], theirs[there:end])
        rows.append(Row(place, partner[place]))
        here, there = stop + 1, end + 1
    return [*rows, *between(ladder, mine[here:], theirs[there:])]


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
    ends = [index for index, place in enumerate(model.places) if place.role is Role.OUTPUT]
    for end in (*ends, *range(len(model.places))):
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
