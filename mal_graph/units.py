"""Units: what moves as one, and which units may trade places.

A unit is a connected component of the ties that the axis rules collect (see `labels`). Two units are interchangeable if
they touch the same axes of the same tensors the same number of times, enter the same sums and lie in the same blocks;
where they have several positions on one axis, these answer to each other by what each is tied to.
A block is itself a unit: it moves with all that belongs to it, so two blocks are interchangeable if what belongs to one
answers, in order, to what belongs to the other, and every other block it belongs to is the same.

This finds the automorphisms of the wiring that exchange whole units in order. Refused: a general search for graph
automorphisms, which finds mirror images and rotations of irregular wirings too, at a cost no one can bound.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mal_graph.labels import Fix, Wiring

Ints = NDArray[np.int64]
Owner = tuple[str, int, int, int]  # tensor, axis, first atom, length
Link = tuple[Ints, Ints]  # units, and for each a block it belongs to: the links of one axis of one tensor
Parents = tuple[tuple[int, tuple[int, ...]], ...]  # per link the blocks of one unit, in the order of its places
Key = tuple[object, ...]

ITSELF = -1
WITHIN = -2
MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Class:
    """Units that may trade places, or that stay for the same reason.

    Attributes:
        units: their numbers.
        columns: for each unit the (owner, position) pairs that move with it, in an order common to all;
            shape (units, entries, 2).
        fix: why they stay; None if they move.
        is_rigid: no unit is like another.
        blocks: the blocks that all of them belong to.
        statistic: the operator that takes a statistic over them, "" if none does.
    """

    units: tuple[int, ...]
    columns: Ints
    fix: Fix | None
    is_rigid: bool = False
    blocks: tuple[int, ...] = ()
    statistic: str = ""


def classes(wiring: Wiring, owners: Sequence[Owner]) -> Iterator[Class]:
    """The classes of the units of a wiring that lie on the axes of `owners`."""
    return Units(wiring, owners).classes()


def components(count: int, ties: Iterable[tuple[Ints, Ints]]) -> Ints:
    """The unit of each atom, numbered in the order of first atoms."""
    pairs = list(ties)
    left = np.concatenate([a for a, _ in pairs]) if pairs else np.zeros(0, np.int64)
    right = np.concatenate([b for _, b in pairs]) if pairs else np.zeros(0, np.int64)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    return component.astype(np.int64)


def united(wiring: Wiring) -> tuple[Ints, list[Link]]:
    """The unit of each atom and the links between units, once blocks that must move together are tied."""
    component = components(wiring.count, wiring.ties)
    while True:
        links = [distinct_links(component[atoms], component[blocks]) for atoms, blocks in wiring.blocks]
        more = list(forced_ties(links))
        if not more:
            return component, [*links, *nested_links(links)]
        a, b = np.array(more).T
        component = components(int(component.max()) + 1, [(a, b)])[component]


def distinct_links(units: Ints, blocks: Ints) -> Link:
    """Links without those of a unit to itself, ordered by unit and by place, each run of equal ones once."""
    apart = units != blocks
    units, blocks = units[apart], blocks[apart]
    order = np.argsort(units, kind="stable")
    units, blocks = units[order], blocks[order]
    new = np.ones(len(units), bool)
    new[1:] = (units[1:] != units[:-1]) | (blocks[1:] != blocks[:-1])
    return units[new], blocks[new]


def members_by_block(link: Link) -> dict[int, tuple[int, ...]]:
    """The units that belong to each block of one link."""
    units, blocks = link
    found: dict[int, set[int]] = {}
    for unit, block in zip(units.tolist(), blocks.tolist(), strict=True):
        found.setdefault(block, set()).add(unit)
    return {block: tuple(sorted(inside)) for block, inside in found.items()}


def forced_ties(links: Sequence[Link]) -> Iterator[tuple[int, int]]:
    """Blocks that hold the same units, and a block that is all of one unit: they can only move together."""
    known: dict[tuple[int, ...], int] = {}
    for link in links:
        blocks_of = dict(zip(*(a.tolist() for a in np.unique(link[0], return_counts=True)), strict=True))
        here: dict[tuple[int, ...], int] = {}
        for block, inside in members_by_block(link).items():
            if len(inside) == 1 and blocks_of[inside[0]] == 1:
                yield block, inside[0]
            elif known.get(inside, block) != block:
                yield block, known[inside]
            here.setdefault(inside, block)
        known = {**here, **known}


def nested_links(links: Sequence[Link]) -> Iterator[Link]:
    """A block whose units all belong to one larger block belongs to it as well."""
    inside: dict[int, set[int]] = {}
    around: dict[int, set[int]] = {}
    for units, blocks in links:
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


@dataclass
class Units:
    """The units of one wiring, with all that tells them apart."""

    wiring: Wiring
    owners: Sequence[Owner]
    component: Ints = field(init=False)
    links: list[Link] = field(init=False)

    def __post_init__(self) -> None:
        self.component, self.links = united(self.wiring)

    @cached_property
    def count(self) -> int:
        return int(self.component.max(initial=-1)) + 1

    @cached_property
    def entries(self) -> list[list[tuple[int, int]]]:
        """Per unit the (owner, position) pairs on it; several on one axis in the order of what each is for."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        for i, (_, _, start, size) in enumerate(self.owners):
            for position, unit in enumerate(self.component[start : start + size].tolist()):
                found[unit].append((i, position))
        for unit in self.spread(found):
            found[unit].sort(key=lambda entry: (entry[0], self.purpose[self.owners[entry[0]][2] + entry[1]], entry[1]))
        return found

    def spread(self, entries: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
        """The units with several positions on one axis."""
        return [unit for unit, found in enumerate(entries) if len({owner for owner, _ in found}) < len(found)]

    @cached_property
    def purpose(self) -> Ints:
        """Per atom a number that is the same for atoms that stand on the same sides of the same ties."""
        hashes = np.zeros(self.wiring.count, np.uint64)
        for number, sides in enumerate(self.wiring.ties):
            for side, atoms in enumerate(sides):
                hashes[atoms] = hashes[atoms] * MIXER + np.uint64(2 * number + side + 1)
        _, first, found = np.unique(hashes, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[found]

    @cached_property
    def ties_within(self) -> Mapping[int, bytes]:
        """Of units with several positions on one axis, which of their atoms are tied to which, in order of purpose."""
        spread = np.zeros(self.count, bool)
        spread[self.spread(self.entries)] = True
        chosen = [
            (t, a[keep], b[keep])
            for t, (a, b) in enumerate(self.wiring.ties)
            if (keep := spread[self.component[a]]).any()
        ]
        if not chosen:
            return {}
        order = np.lexsort((np.arange(self.wiring.count), self.purpose, self.component))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.searchsorted(self.component[order], self.component[order])
        tables = [np.stack([self.component[a], np.full(len(a), t), rank[a], rank[b]], 1) for t, a, b in chosen]
        rows = np.unique(np.concatenate(tables), axis=0)
        starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
        return {int(part[0, 0]): part[:, 1:].tobytes() for part in np.split(rows, starts[1:])}

    @cached_property
    def read(self) -> list[list[tuple[int, int]]]:
        """Per unit the operators that read it, each with how often."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.count)]
        for reading, atoms in enumerate(self.wiring.readings):
            for unit, times in zip(*np.unique(self.component[atoms], return_counts=True), strict=True):
                found[unit].append((reading, int(times)))
        return found

    @cached_property
    def parents(self) -> Mapping[int, Parents]:
        """The blocks of each unit that belongs to any."""
        found: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        for number, (units, blocks) in enumerate(self.links):
            starts = np.flatnonzero(np.diff(units, prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(units)], strict=True):
                found.setdefault(int(units[start]), []).append((number, tuple(blocks[start:end].tolist())))
        return {unit: tuple(rows) for unit, rows in found.items()}

    @cached_property
    def children(self) -> Mapping[int, tuple[int, ...]]:
        """The units of each block."""
        found: dict[int, set[int]] = {}
        for units, blocks in self.links:
            for unit, block in zip(units.tolist(), blocks.tolist(), strict=True):
                found.setdefault(block, set()).add(unit)
        return {block: tuple(sorted(inside)) for block, inside in found.items()}

    @cached_property
    def fixes(self) -> Mapping[int, Fix]:
        """Why each fixed unit is fixed: frozen outweighs pinned, the first reason is kept. What holds a unit that
        stays must stay itself."""
        found: dict[int, Fix] = {}
        waiting = [
            (unit, fix) for atoms, fix in self.wiring.fixes for unit in np.unique(self.component[atoms]).tolist()
        ]
        while waiting:
            raised = []
            for unit, fix in waiting:
                known = found.get(unit)
                if known is None or (known.state == "pinned" and fix.state == "frozen"):
                    found[unit] = fix
                    raised += [(block, fix) for _, blocks in self.parents.get(unit, ()) for block in blocks]
            waiting = raised
        return found

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

    @cached_property
    def own_keys(self) -> Mapping[int, Key]:
        return {
            unit: (
                tuple(i for i, _ in touched),
                self.fixes.get(unit),
                tuple(self.read[unit]),
                self.ties_within.get(unit, b""),
            )
            for unit, touched in enumerate(self.entries)
        }

    @cached_property
    def key_number(self) -> Mapping[int, int]:
        """The own keys of units, numbered in the order of first units."""
        numbers: dict[Key, int] = {}
        return {unit: numbers.setdefault(key, len(numbers)) for unit, key in self.own_keys.items()}

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

        order = sorted(inside, key=lambda part: (self.key_number[part], seen(part), part))
        place = {part: WITHIN - number for number, part in enumerate(order)}
        place[unit] = ITSELF
        profile = tuple(
            (
                self.key_number[part],
                tuple(
                    (link, tuple(place.get(block, block) for block in blocks)) for link, blocks in self.parents[part]
                ),
            )
            for part in order
        )
        return order, profile

    def classes(self) -> Iterator[Class]:
        """Classes in the order of their first units."""
        found: dict[Key, list[tuple[int, list[int]]]] = {}
        for unit in range(self.count):
            fix = self.fixes.get(unit)
            if unit in self.children and fix is None:
                order, profile = self.below(unit)
                key: Key = (self.own_keys[unit], self.parents.get(unit, ()), profile)
            elif self.entries[unit]:
                order, key = [], (self.own_keys[unit], self.parents.get(unit, ()) if fix is None else ())
            else:
                continue
            found.setdefault(key, []).append((unit, order))
        moving = {u for members in found.values() if len(members) > 1 for u, _ in members if u not in self.fixes}
        ready: dict[Key, Class] = {}
        for key, members in found.items():
            units = tuple(unit for unit, _ in members)
            if len(units) == 1 and units[0] not in self.fixes:
                if self.entries[units[0]] and not moving & self.around(units[0]):
                    rigid: Key = ("rigid", self.own_keys[units[0]])
                    before = ready[rigid].units if rigid in ready else ()
                    ready[rigid] = self.class_of([(unit, []) for unit in (*before, *units)], is_rigid=True)
            else:
                ready[key] = self.class_of(members)
        yield from (found for found in ready.values() if found.columns.size)

    def class_of(self, members: Sequence[tuple[int, list[int]]], is_rigid: bool = False) -> Class:
        """A class from its units, each with what moves with it."""
        units = tuple(unit for unit, _ in members)
        rows = [[entry for part in (unit, *order) for entry in self.entries[part]] for unit, order in members]
        blocks = tuple(dict.fromkeys(b for _, row in self.parents.get(units[0], ()) for b in row))
        statistic = self.statistic_of(*members[0])
        return Class(units, np.array(rows), self.fixes.get(units[0]), is_rigid, blocks, statistic)

    def around(self, unit: int) -> set[int]:
        """Every block that a unit lies in."""
        found: set[int] = set()
        waiting = [unit]
        while waiting:
            for _, blocks in self.parents.get(waiting.pop(), ()):
                waiting += [block for block in blocks if block not in found]
                found.update(blocks)
        return found
