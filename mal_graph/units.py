"""Units: what moves as one, and which units may trade places.

A unit is a connected component of the ties that the axis rules collect (see `labels`). Two units are interchangeable if
they touch the same axes of the same tensors the same number of times, enter the same sums and lie in the same blocks;
where they have several positions on one axis, these answer to each other by what each is tied to.
A block is itself a unit: it moves with all that belongs to it, so two blocks are interchangeable if what belongs to one
answers, in order, to what belongs to the other, and every other block it belongs to is the same.

This finds the automorphisms of the wiring that exchange whole units in order. Refused: a general search for graph
automorphisms, which finds mirror images and rotations of irregular wirings too, at a cost no one can bound.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mal_graph.labels import Fix, Wiring

Ints = NDArray[np.int64]
Owner = tuple[str, int, int, int]  # tensor, axis, first atom, length
Parents = tuple[tuple[int, tuple[int, ...]], ...]  # per link the blocks of one unit, in the order of its places
Key = tuple[object, ...]
Moved = list[int]  # a unit, and what else moves with it


class Link(NamedTuple):
    """Units, for each a block it belongs to, and how often in a row: the links of one axis of one tensor."""

    units: Ints
    blocks: Ints
    times: Ints


ITSELF = -1
WITHIN = -2
MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Class:
    """Units that may trade places, or that stay for the same reason.

    Attributes:
        parts: the units, first in each row, with all that moves with them; what they have alike stands in the same
            order in each. Shape (units, parts).
        columns: for each unit the (owner, position) pairs that move with it, in an order common to all;
            shape (units, entries, 2).
        fix: why they stay; None if they move.
        is_rigid: no unit is like another.
        blocks: the blocks that all of them belong to.
        statistic: the operator that takes a statistic over them, "" if none does.
    """

    parts: Ints
    columns: Ints
    fix: Fix | None
    is_rigid: bool = False
    blocks: tuple[int, ...] = ()
    statistic: str = ""


def components(count: int, ties: Iterable[tuple[Ints, Ints]]) -> Ints:
    """The unit of each atom, numbered in the order of first atoms."""
    pairs = list(ties)
    left = np.concatenate([a for a, _ in pairs]) if pairs else np.zeros(0, np.int64)
    right = np.concatenate([b for _, b in pairs]) if pairs else np.zeros(0, np.int64)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    return component.astype(np.int64)


def united(wiring: Wiring, owners: Sequence[Owner]) -> tuple[Ints, list[Link]]:
    """The unit of each atom and the links between units, once what must move together is tied."""
    on_axis = np.zeros(wiring.count, np.uint64)
    for number, (_, _, start, size) in enumerate(owners):
        on_axis[start : start + size] = mixed(number)
    component = components(wiring.count, wiring.ties)
    while True:
        links = [
            link
            for atoms, blocks, places in wiring.blocks
            for link in links_by_place(component[atoms], component[blocks], places)
            if len(link.units)
        ]
        if not links:
            return component, []
        axes = np.zeros(int(component.max()) + 1, np.uint64)
        np.add.at(axes, component, on_axis)
        more = list(forced_ties(links, axes.tolist()))
        if not more:
            return component, [*links, *nested_links(links)]
        a, b = np.array(more).T
        component = components(len(axes), [(a, b)])[component]


def links_by_place(units: Ints, blocks: Ints, places: Ints) -> Iterator[Link]:
    """The links of one axis; those of blocks that lie in several places apart, by the first place, the second..."""
    count = int(places.max(initial=0)) + 1
    pairs, entry = np.unique(blocks * count + places, return_inverse=True)
    held = pairs // count
    rank = (np.arange(len(pairs)) - np.searchsorted(held, held))[entry]
    for number in range(int(rank.max(initial=-1)) + 1):
        yield distinct_links(units[rank == number], blocks[rank == number])


def distinct_links(units: Ints, blocks: Ints) -> Link:
    """Links without those of a unit to itself, ordered by unit and by place, each run of equal ones once."""
    apart = units != blocks
    units, blocks = units[apart], blocks[apart]
    order = np.argsort(units, kind="stable")
    units, blocks = units[order], blocks[order]
    new = np.ones(len(units), bool)
    new[1:] = (units[1:] != units[:-1]) | (blocks[1:] != blocks[:-1])
    return Link(units[new], blocks[new], np.diff(np.flatnonzero(new), append=len(new)))


def members_by_block(link: Link) -> dict[int, tuple[int, ...]]:
    """The units that belong to each block of one link."""
    found: dict[int, set[int]] = {}
    for unit, block in zip(link.units.tolist(), link.blocks.tolist(), strict=True):
        found.setdefault(block, set()).add(unit)
    return {block: tuple(sorted(inside)) for block, inside in found.items()}


def forced_ties(links: Sequence[Link], axes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of units that can only move together: blocks that hold the same units, and a block and the only unit in it
    that lies on certain axes (`axes`: a number per unit for the axes it lies on)."""
    known: dict[tuple[int, ...], int] = {}
    for link in links:
        blocks_of = dict(zip(*(a.tolist() for a in np.unique(link.units, return_counts=True)), strict=True))
        here = members_by_block(link)
        holders = Counter(here.values())
        for block, inside in here.items():
            alike = Counter(axes[unit] for unit in inside)
            for unit in inside:
                if alike[axes[unit]] == 1 and blocks_of[unit] == 1:
                    yield block, unit
            if holders[inside] == 1 and known.get(inside, block) != block:
                yield block, known[inside]
        for block, inside in here.items():
            if holders[inside] == 1:
                known.setdefault(inside, block)


def nested_links(links: Sequence[Link]) -> Iterator[Link]:
    """A block whose units all belong to one larger block belongs to it as well."""
    inside: dict[int, set[int]] = {}
    around: dict[int, set[int]] = {}
    for units, blocks, _ in links:
        for unit, block in zip(units.tolist(), blocks.tolist(), strict=True):
            inside.setdefault(block, set()).add(unit)
            around.setdefault(unit, set()).add(block)
    found: dict[int, list[tuple[int, int]]] = {}
    for block, held in inside.items():
        for place, larger in enumerate(sorted(set.intersection(*(around[unit] for unit in held)) - {block})):
            if len(inside[larger]) > len(held) and larger not in around.get(block, set()):
                found.setdefault(place, []).append((block, larger))
    for pairs in found.values():
        a, b = np.array(pairs).T
        yield distinct_links(a, b)


class Places(NamedTuple):
    """Positions on axes, ordered by unit.

    Attributes:
        owner, position, unit: the axis, the index on it, and the unit there.
        ends: where the places of each unit begin, and at the end where the last one's end.
    """

    owner: Ints
    position: Ints
    unit: Ints
    ends: Ints


def mixed(*columns: Ints | int) -> NDArray[np.uint64]:
    """A hash of each row; sums of such hashes differ for different multisets but by a chance of one in 2^64."""
    found = np.zeros(1, np.uint64)
    for column in columns:
        found = (found ^ np.asarray(column).astype(np.uint64)) * MIXER
        found = (found ^ (found >> np.uint64(29))) * MIXER
        found = found ^ (found >> np.uint64(32))
    return found


def numbered(hashes: NDArray[np.uint64]) -> Ints:
    """Numbers for hashes, in the order in which they first occur."""
    _, first, found = np.unique(hashes, return_index=True, return_inverse=True)
    order: Ints = np.argsort(np.argsort(first))
    numbers: Ints = order[found]
    return numbers


@dataclass
class Units:
    """The units of a wiring that lie on the axes of `owners`, with all that tells them apart."""

    wiring: Wiring
    owners: Sequence[Owner]
    component: Ints = field(init=False)
    links: list[Link] = field(init=False)

    def __post_init__(self) -> None:
        self.component, self.links = united(self.wiring, self.owners)

    @cached_property
    def count(self) -> int:
        return int(self.component.max(initial=-1)) + 1

    @cached_property
    def places(self) -> Places:
        """Every position on an axis in use; several of one unit on one axis in the order of what each is for."""
        sizes = [size for _, _, _, size in self.owners]
        owner = np.repeat(np.arange(len(sizes)), sizes)
        position = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, np.int64)
        atom = np.repeat([start for _, _, start, _ in self.owners], sizes).astype(np.int64) + position
        unit = self.component[atom]
        order = np.lexsort((position, self.purpose[atom], owner, unit))
        ends = np.searchsorted(unit[order], np.arange(self.count + 1))
        return Places(owner[order], position[order], unit[order], ends)

    @cached_property
    def purpose(self) -> Ints:
        """Per atom a number that is the same for atoms that stand on the same sides of the same ties."""
        hashes = np.zeros(self.wiring.count, np.uint64)
        for number, sides in enumerate(self.wiring.ties):
            for side, atoms in enumerate(sides):
                hashes[atoms] = hashes[atoms] * MIXER + np.uint64(2 * number + side + 1)
        return numbered(hashes)

    @cached_property
    def kind(self) -> Ints:
        """A number that is equal for units alike by themselves: the axes they touch, the operators that read them and
        how often, how often they lie in each of their blocks, why they are fixed, and, of several positions on one
        axis, which are tied to which."""
        hashes = np.zeros(self.count, np.uint64)
        np.add.at(hashes, self.places.unit, mixed(1, self.places.owner))
        if self.wiring.readings:
            lengths = [len(atoms) for atoms in self.wiring.readings]
            readers = np.repeat(np.arange(len(lengths)), lengths)
            np.add.at(hashes, self.component[np.concatenate(self.wiring.readings)], mixed(2, readers))
        for link, (units, _, times) in enumerate(self.links):
            if (times > 1).any():
                place = np.arange(len(units)) - np.searchsorted(units, units)
                np.add.at(hashes, units, mixed(5, link, place, times))
        for unit, number, first, second in self.ties_within:
            np.add.at(hashes, unit, mixed(3, number, first, second))
        return numbered(hashes + mixed(4, self.fix_number))

    @cached_property
    def kinds(self) -> list[int]:
        """The same as a list, where units are asked for one by one."""
        found: list[int] = self.kind.tolist()
        return found

    @cached_property
    def ties_within(self) -> list[tuple[Ints, Ints, Ints, Ints]]:
        """The ties of units with several positions on one axis: units, tie, and the ranks of its two atoms in the order
        of their purpose."""
        places = self.places
        twice = (places.unit[1:] == places.unit[:-1]) & (places.owner[1:] == places.owner[:-1])
        spread = np.zeros(self.count, bool)
        spread[places.unit[1:][twice]] = True
        if not spread.any():
            return []
        order = np.lexsort((np.arange(self.wiring.count), self.purpose, self.component))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.searchsorted(self.component[order], self.component[order])
        found = []
        for number, (a, b) in enumerate(self.wiring.ties):
            a, b = a[spread[self.component[a]]], b[spread[self.component[b]]]
            found.append((self.component[a], np.full(len(a), number), rank[a], rank[b]))
        return found

    @cached_property
    def parents(self) -> Mapping[int, Parents]:
        """The blocks of each unit that belongs to any."""
        found: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        for number, (units, blocks, _) in enumerate(self.links):
            starts = np.flatnonzero(np.diff(units, prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(units)], strict=True):
                found.setdefault(int(units[start]), []).append((number, tuple(blocks[start:end].tolist())))
        return {unit: tuple(rows) for unit, rows in found.items()}

    @cached_property
    def children(self) -> Mapping[int, tuple[int, ...]]:
        """The units of each block."""
        found: dict[int, set[int]] = {}
        for units, blocks, _ in self.links:
            for unit, block in zip(units.tolist(), blocks.tolist(), strict=True):
                found.setdefault(block, set()).add(unit)
        return {block: tuple(sorted(inside)) for block, inside in found.items()}

    @cached_property
    def fix_number(self) -> Ints:
        """Per unit the number of the fix that holds it, -1 for none: frozen outweighs pinned, the first reason is kept.
        What holds a unit that stays must stay itself."""
        strength, chosen = np.zeros(self.count, np.int64), np.full(self.count, -1)
        first: dict[Fix, int] = {}
        for number, (atoms, fix) in enumerate(self.wiring.fixes):
            units, own = self.component[atoms], 2 if fix.state == "frozen" else 1
            units = units[strength[units] < own]
            strength[units], chosen[units] = own, first.setdefault(fix, number)
        while True:
            before = strength.copy()
            for units, blocks, _ in self.links:
                weaker = strength[blocks] < strength[units]
                strength[blocks[weaker]], chosen[blocks[weaker]] = strength[units[weaker]], chosen[units[weaker]]
            if (before == strength).all():
                return chosen

    def fix_of(self, unit: int) -> Fix | None:
        number = self.fix_number[unit]
        return None if number < 0 else self.wiring.fixes[number].fix

    @cached_property
    def statistics(self) -> Mapping[int, list[tuple[str, frozenset[int]]]]:
        """Per unit the operators that take a statistic over it, each with the blocks it takes one for."""
        found: dict[int, list[tuple[str, frozenset[int]]]] = {}
        for atoms, blocks, reason in self.wiring.statistics:
            kept = frozenset(np.unique(self.component[blocks]).tolist())
            for unit in np.unique(self.component[atoms]).tolist():
                found.setdefault(unit, []).append((reason, kept))
        return found

    def statistic_of(self, unit: int, below: Sequence[int]) -> str:
        """An operator whose statistic one more such unit would change; what is taken for each block does not change
        with the number of blocks."""
        moved = {unit, *below}
        for part in (unit, *below):
            for reason, kept in self.statistics.get(part, ()):
                if not moved & kept:
                    return reason
        return ""

    def below(self, unit: int) -> tuple[list[int], tuple[object, ...]]:
        """All that moves with a block, in an order that is the same for interchangeable blocks, and how the block
        sees it: the kind of each part and what else that belongs to."""
        inside = {unit}
        waiting = list(self.children.get(unit, ()))
        while waiting:
            part = waiting.pop()
            if part not in inside:
                inside.add(part)
                waiting += self.children.get(part, ())
        inside.remove(unit)

        def seen(part: int) -> Parents:
            def relative(block: int) -> int:
                return ITSELF if block == unit else WITHIN if block in inside else block

            return tuple((link, tuple(map(relative, blocks))) for link, blocks in self.parents.get(part, ()))

        rows = sorted((self.kinds[part], seen(part), part) for part in inside)
        order = [part for _, _, part in rows]
        if not any(part in self.children for part in order):  # none lies within another
            return order, tuple((kind, parents) for kind, parents, _ in rows)
        place = {part: WITHIN - number for number, part in enumerate(order)}
        place[unit] = ITSELF
        profile = tuple(
            (
                self.kinds[part],
                tuple(
                    (link, tuple(place.get(block, block) for block in blocks)) for link, blocks in self.parents[part]
                ),
            )
            for part in order
        )
        return order, profile

    def classes(self) -> Iterator[Class]:
        """Units without blocks are alike by kind; blocks and what belongs to them are compared one by one."""
        fixed, has_places = self.fix_number >= 0, np.diff(self.places.ends) > 0
        structured = np.zeros(self.count, bool)
        structured[[*self.parents, *self.children]] = True
        structured &= ~fixed
        plain = np.flatnonzero(has_places & ~structured)
        plain = plain[np.argsort(self.kind[plain], kind="stable")]
        ends = [0, *(np.flatnonzero(np.diff(self.kind[plain])) + 1).tolist(), len(plain)]
        alike: dict[Key, list[Moved]] = {}
        for unit in np.flatnonzero(structured).tolist():
            order, profile = self.below(unit) if unit in self.children else ([], ())
            if has_places[unit] or order:
                alike.setdefault((self.kinds[unit], self.parents.get(unit, ()), profile), []).append([unit, *order])
        found = [*(plain[a:b, None] for a, b in pairwise(ends) if a < b), *map(np.array, alike.values())]
        moving = {row[0] for rows in alike.values() if len(rows) > 1 for row in rows}
        rigid: dict[int, list[Moved]] = {}
        for parts in found:
            unit = int(parts[0, 0])
            if len(parts) > 1 or fixed[unit]:
                yield from self.class_of(parts)
            elif has_places[unit] and not moving & self.around(unit):
                rigid.setdefault(self.kinds[unit], []).append([unit])
        for rows in rigid.values():
            yield from self.class_of(np.array(rows), is_rigid=True)

    def class_of(self, parts: Ints, is_rigid: bool = False) -> Iterator[Class]:
        """A class from its units, each with what moves with it; none of blocks that hold no weight."""
        first, *order = parts[0].tolist()
        ends = self.places.ends
        counts = (ends[parts[0] + 1] - ends[parts[0]]).tolist()
        if not any(counts):
            return
        spans = [ends[part][:, None] + np.arange(count) for part, count in zip(parts.T, counts, strict=True) if count]
        index = spans[0] if len(spans) == 1 else np.concatenate(spans, axis=1)
        columns = np.stack([self.places.owner[index], self.places.position[index]], axis=2)
        blocks = tuple(dict.fromkeys(b for _, row in self.parents.get(first, ()) for b in row))
        yield Class(parts, columns, self.fix_of(first), is_rigid, blocks, self.statistic_of(first, order))

    def around(self, unit: int) -> set[int]:
        """Every block that a unit lies in."""
        found: set[int] = set()
        waiting = [unit]
        while waiting:
            for _, blocks in self.parents.get(waiting.pop(), ()):
                waiting += [block for block in blocks if block not in found]
                found.update(blocks)
        return found
