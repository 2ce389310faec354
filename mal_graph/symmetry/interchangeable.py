"""Units: what moves as one, and which units may trade places.

A unit is a connected component of the ties that the axis rules collect (see `operators.wiring`). Two units are
interchangeable if they touch the same axes of the same tensors the same number of times, enter the same sums and lie in
the same blocks; where they have several positions on one axis, these correspond to each other by what each is tied to.
A block is itself a unit: it moves with all that belongs to it, so two blocks are interchangeable if what belongs to one
corresponds, in order, to what belongs to the other, and every other block it belongs to is the same.

This finds the automorphisms of the wiring that exchange whole units in order. Refused: a general search for graph
automorphisms, which finds mirror images and rotations of irregular wirings too, at a cost no one can bound.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mal_graph.operators import Belonging, Pin, Statistic, Wiring
from mal_graph.symmetry.joins import Join, find_joins
from mal_graph.symmetry.links import (
    MIXER,
    Flags,
    Hashes,
    Ints,
    Links,
    begins,
    distinct,
    how_many,
    joined,
    mixed,
    numbered,
    rank,
)

Owner = tuple[str, int, int, int]  # tensor, axis, first atom, length

ITSELF = -1
WITHIN = -2


@dataclass(frozen=True)
class Class:
    """Units that may trade places, or that stay for the same reason.

    Attributes:
        parts: the units, first in each row, with all that moves with them; what they have alike stands in the same
            order in each. Shape (units, parts).
        columns: for each unit the (owner, position) pairs that move with it, in an order common to all;
            shape (units, entries, 2).
        pin: why they stay; None if they move.
        is_rigid: no unit is like another.
        blocks: the blocks that all of them belong to.
        statistic: the one that an operator takes over them, None if none does.
    """

    parts: Ints
    columns: Ints
    pin: Pin | None
    is_rigid: bool = False
    blocks: tuple[int, ...] = ()
    statistic: Statistic | None = None


def components(count: int, ties: Iterable[tuple[Ints, Ints]]) -> Ints:
    """The unit of each atom, numbered in the order of first atoms."""
    pairs = list(ties)
    left = np.concatenate([a for a, _ in pairs]) if pairs else np.zeros(0, np.int64)
    right = np.concatenate([b for _, b in pairs]) if pairs else np.zeros(0, np.int64)
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    return component.astype(np.int64)


def positions_of(owners: Sequence[Owner]) -> tuple[Ints, Ints, Ints]:
    """Every position on some axes: the number of the owner, the index on its axis, and the atom there."""
    start, size = np.array([owner[2:] for owner in owners], np.int64).reshape(-1, 2).T
    owner = np.repeat(np.arange(len(owners)), size)
    position = rank(owner)
    return owner, position, start[owner] + position


def united(wiring: Wiring, owners: Sequence[Owner], *, with_joins: bool = False) -> tuple[Ints, Links]:
    """The unit of each atom and the links between units, once what must move together is tied.

    Args:
        with_joins: whether blocks count that no axis has atoms for (see `joins`): they get new ones. Copies that
            nothing reads do not count then.
    """
    component = components(wiring.count, wiring.ties)
    blocks = wiring.used_blocks() if with_joins else wiring.blocks
    on_axis = np.zeros(wiring.count, np.uint64)
    owner, _, atom = positions_of(owners)
    on_axis[atom] = mixed(owner)
    component, links = forced_together(component, blocks, on_axis)
    if with_joins:
        is_held = np.zeros(int(component.max(initial=-1)) + 1, bool)
        is_held[component[np.concatenate([component[:0], *(atoms for atoms, _ in wiring.pins)])]] = True
        more, count = blocks_of(find_joins(links, is_held), component)
        if count:
            component = np.concatenate([component, len(is_held) + np.arange(count)])
            on_axis = np.concatenate([on_axis, np.zeros(count, np.uint64)])
            component, links = forced_together(component, [*blocks, *more], on_axis)
            links = with_nested(links)  # twice, for a join lies within what the blocks that it holds lie in
    return component, with_nested(links)


def forced_together(component: Ints, blocks: Sequence[Belonging], on_axis: Hashes) -> tuple[Ints, Links]:
    """The unit of each atom and the links between units, once those that can only move together are one.

    Args:
        on_axis: a number per atom for the stored axis it lies on, 0 for none.
    """
    while True:
        links = linked(component, blocks)
        axes = np.zeros(int(component.max(initial=-1)) + 1, np.uint64)
        np.add.at(axes, component, on_axis)
        more = forced_ties(with_inherited(links), axes)
        if not len(more[0]):
            return component, links
        component = components(len(axes), [more])[component]


def blocks_of(joins: Iterable[Join], component: Ints) -> tuple[list[Belonging], int]:
    """What belongs to the blocks of joins, which have new atoms, and how many these are."""
    _, atom = np.unique(component, return_index=True)  # one of each unit
    belongings, start = [], len(component)
    for join in joins:
        for inner in (join.unit, join.one, join.other):
            unit, whole = distinct(inner, join.whole)
            belongings.append(Belonging(atom[unit], start + whole, whole))
        start += int(join.whole.max()) + 1
    return belongings, start - len(component)


def linked(component: Ints, blocks: Sequence[Belonging]) -> Links:
    """The links that belongings make, without those of a unit to itself."""
    axis = np.repeat(np.arange(len(blocks)), [len(belonging.atoms) for belonging in blocks])
    unit, block, place = (
        np.concatenate([np.zeros(0, np.int64), *(belonging[column] for belonging in blocks)]) for column in range(3)
    )
    unit, block = component[unit], component[block]
    order = np.lexsort((place, block, axis))
    new_place, new_block = (begins(*(c[order] for c in columns)) for columns in ((axis, block, place), (axis, block)))
    number = np.cumsum(new_place)
    which = np.empty_like(number)  # of the places of its block on the axis
    which[order] = number - number[np.maximum.accumulate(np.where(new_block, np.arange(len(order)), 0))]
    axis = axis * (int(which.max(initial=0)) + 1) + which
    kept = np.lexsort((unit, axis))
    kept = kept[unit[kept] != block[kept]]
    axis, unit, block = axis[kept], unit[kept], block[kept]
    new = np.flatnonzero(begins(axis, unit, block))
    return Links(axis[new], unit[new], block[new], np.diff(new, append=len(axis)))


def forced_ties(links: Links, axes: Hashes) -> tuple[Ints, Ints]:
    """Pairs of units that can only move together: blocks that hold the same units, and a block and the only unit in it
    that lies on certain axes (`axes`: a number per unit for the axes it lies on)."""
    axis, block, unit = distinct(links.axis, links.block, links.unit)
    only = (how_many(axis, block, axes[unit]) == 1) & (how_many(axis, unit) == 1)
    new = np.flatnonzero(begins(axis, block))
    content = np.add.reduceat(mixed(10, unit), new) if len(new) else np.zeros(0, np.uint64)
    axis_of, blocks = axis[new], block[new]
    alone = how_many(axis_of, content) == 1  # no other block on the axis holds the same
    content, blocks = content[alone], blocks[alone]
    order = np.argsort(content, kind="stable")
    content, blocks = content[order], blocks[order]
    same = (content[1:] == content[:-1]) & (blocks[1:] != blocks[:-1])
    return np.concatenate([block[only], blocks[1:][same]]), np.concatenate([unit[only], blocks[:-1][same]])


def with_inherited(links: Links) -> Links:
    """The links, and those of units to the blocks that their blocks belong to, where they have none to these: copies
    of copies belong to what the first ones are copies of."""
    order = np.lexsort((links.axis, links.unit))
    row, up = joined(links.block, links.unit[order])
    up = order[up]
    count = int(max(links.unit.max(initial=0), links.block.max(initial=0))) + 1
    pair, known = links.unit[row] * count + links.block[up], links.unit * count + links.block
    new = ~np.isin(pair, known) & (links.unit[row] != links.block[up])
    row, up = row[new], up[new]
    above = int(links.axis.max(initial=-1)) + 1
    axis, unit, block = distinct(above * (1 + links.axis[row]) + links.axis[up], links.unit[row], links.block[up])
    added = Links(axis, unit, block, np.ones_like(axis))
    return Links(*(np.concatenate(columns) for columns in zip(links, added, strict=True)))


def with_nested(links: Links) -> Links:
    """The links, and those of blocks whose units all belong to one larger block: they belong to it as well."""
    inherited = with_inherited(links)
    unit, block = distinct(inherited.unit, inherited.block)
    count = int(max(unit.max(initial=0), block.max(initial=0))) + 1
    size = np.bincount(block, minlength=count)
    row, other = joined(unit, unit)
    pair, shared = np.unique(block[row] * count + block[other], return_counts=True)
    inner, outer = np.divmod(pair, count)
    around = (shared == size[inner]) & (inner != outer)
    inner, outer = inner[around], outer[around]
    place = rank(inner)
    new = (size[outer] > size[inner]) & ~np.isin(inner * count + outer, links.unit * count + links.block)
    inner, outer, place = inner[new], outer[new], place[new]
    order = np.lexsort((inner, place))
    axis = int(links.axis.max(initial=-1)) + 1 + place[order]
    added = Links(axis, inner[order], outer[order], np.ones_like(axis))
    return Links(*(np.concatenate(columns) for columns in zip(links, added, strict=True)))


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


@dataclass
class Units:
    """The units of a wiring that lie on the axes of `owners`, with all that tells them apart."""

    wiring: Wiring
    owners: Sequence[Owner]
    component: Ints = field(init=False)
    links: Links = field(init=False)

    def __post_init__(self) -> None:
        self.component, self.links = united(self.wiring, self.owners, with_joins=True)

    @cached_property
    def count(self) -> int:
        """How many units there are."""
        return int(self.component.max(initial=-1)) + 1

    @cached_property
    def places(self) -> Places:
        """Every position on an axis in use; several of one unit on one axis in the order of what each is for."""
        owner, position, atom = positions_of(self.owners)
        unit = self.component[atom]
        order = np.lexsort((position, self.purpose[atom], owner, unit))
        ends = np.searchsorted(unit[order], np.arange(self.count + 1))
        return Places(owner[order], position[order], unit[order], ends)

    @cached_property
    def purpose(self) -> Ints:
        """Per atom a number that is the same for atoms that stand on the same sides of the same ties."""
        hashes = np.zeros(len(self.component), np.uint64)
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
        uneven = np.zeros(int(self.links.axis.max(initial=-1)) + 1, bool)
        uneven[self.links.axis[self.links.times > 1]] = True
        rows = uneven[self.links.axis]
        axis, unit, _, times = (column[rows] for column in self.links)
        np.add.at(hashes, unit, mixed(5, axis, rank(axis, unit), times))
        for unit, number, first, second in self.ties_within:
            np.add.at(hashes, unit, mixed(3, number, first, second))
        return numbered(hashes + mixed(4, self.pin_number))

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
        order = np.lexsort((np.arange(len(self.component)), self.purpose, self.component))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.searchsorted(self.component[order], self.component[order])
        ties = []
        for number, (a, b) in enumerate(self.wiring.ties):
            a, b = a[spread[self.component[a]]], b[spread[self.component[b]]]
            ties.append((self.component[a], np.full(len(a), number), rank[a], rank[b]))
        return ties

    @cached_property
    def pin_number(self) -> Ints:
        """Per unit the number of the pin that holds it, -1 for none: the strongest one, of equally strong ones the
        first. What holds a unit that stays must stay itself."""
        strength, chosen = np.zeros(self.count, np.int64), np.full(self.count, -1)
        first: dict[Pin, int] = {}
        for number, (atoms, pin) in enumerate(self.wiring.pins):
            units, own = self.component[atoms], pin.strength
            units = units[strength[units] < own]
            strength[units], chosen[units] = own, first.setdefault(pin, number)
        while True:
            weaker = np.flatnonzero(strength[self.links.block] < strength[self.links.unit])[::-1]  # the first outweighs
            if not len(weaker):
                return chosen
            units, blocks = self.links.unit[weaker], self.links.block[weaker]
            strength[blocks], chosen[blocks] = strength[units], chosen[units]

    def pin_of(self, unit: int) -> Pin | None:
        """The pin that holds a unit, None if none does."""
        number = self.pin_number[unit]
        return None if number < 0 else self.wiring.pins[number].pin

    @cached_property
    def statistics(self) -> Mapping[int, list[tuple[Statistic, frozenset[int]]]]:
        """Per unit the operators that take a statistic over it, each with the blocks it takes one for."""
        taken: dict[int, list[tuple[Statistic, frozenset[int]]]] = {}
        for atoms, blocks, statistic in self.wiring.statistics:
            kept = frozenset(np.unique(self.component[blocks]).tolist())
            for unit in np.unique(self.component[atoms]).tolist():
                taken.setdefault(unit, []).append((statistic, kept))
        return taken

    def statistic_of(self, unit: int, below: Sequence[int]) -> Statistic | None:
        """A statistic that one more such unit would change; what is taken for each block does not change
        with the number of blocks."""
        moved = {unit, *below}
        for part in (unit, *below):
            for statistic, kept in self.statistics.get(part, ()):
                if not moved & kept:
                    return statistic
        return None

    @cached_property
    def by_unit(self) -> Links:
        """The links ordered by unit, then by axis and place."""
        order = np.argsort(self.links.unit, kind="stable")
        return Links(*(column[order] for column in self.links))

    @cached_property
    def is_free(self) -> Flags:
        """Which units no pin holds."""
        free: Flags = self.pin_number < 0
        return free

    @cached_property
    def held(self) -> tuple[Ints, Ints]:
        """Free blocks, each with every unit that moves with it, those within others too; ordered by block."""
        block, unit = distinct(self.links.block, self.links.unit)
        block, unit = block[self.is_free[block]], unit[self.is_free[block]]
        above, below = block, unit
        while True:
            row, inner = joined(below, block)
            apart = above[row] != unit[inner]
            more = distinct(np.concatenate([above, above[row][apart]]), np.concatenate([below, unit[inner][apart]]))
            if len(more[0]) == len(above):
                return above, below
            above, below = more

    @cached_property
    def arranged(self) -> tuple[Ints, Ints, Hashes]:
        """What moves with each free block, in an order that is the same for interchangeable blocks: the blocks, the
        units, and per unit of the network a hash of how it sees all that it holds, as a block: the kind of each part
        and what else that belongs to."""
        block, part = self.held
        kind, place = self.kind[part], self.by_unit.place
        row, link = joined(part, self.by_unit.unit)
        outer = self.by_unit.block[link]
        pair = block * self.count + part
        at = np.searchsorted(pair, block[row] * self.count + outer)
        at = np.minimum(at, len(pair) - 1) if len(pair) else at
        is_within = pair[at] == block[row] * self.count + outer

        def seen(places: Ints | int) -> Hashes:
            """A hash of each part as its block sees it, with numbers for the blocks that lie within this one."""
            blocks = np.where(outer == block[row], ITSELF, np.where(is_within, places, outer))
            links = np.zeros(len(part), np.uint64)
            np.add.at(links, row, mixed(6, self.by_unit.axis[link], place[link], blocks))
            return mixed(7, kind, links)

        order = np.lexsort((part, numbered(seen(WITHIN)), kind, block))
        number = np.empty_like(order)
        number[order] = rank(block[order])
        profile = np.zeros(self.count, np.uint64)
        np.add.at(profile, block, mixed(8, number, seen(WITHIN - number[at])))
        return block[order], part[order], profile

    @cached_property
    def nature(self) -> Hashes:
        """A hash per unit, equal for interchangeable ones: of its kind, and of a free one the blocks it belongs to and
        what it holds."""
        links = np.zeros(self.count, np.uint64)
        np.add.at(links, self.links.unit, mixed(6, self.links.axis, self.links.place, self.links.block))
        _, _, profile = self.arranged
        return mixed(9, self.kind, np.where(self.is_free, mixed(links, profile), 0))

    def classes(self) -> Iterator[Class]:
        """Units that are alike, with all that they hold; the others by kind."""
        block, part, _ = self.arranged
        start = np.searchsorted(block, np.arange(self.count + 1))
        has_places = np.diff(self.places.ends) > 0
        chosen = np.flatnonzero(has_places | (np.diff(start) > 0))
        chosen = chosen[np.argsort(self.nature[chosen], kind="stable")]
        ends = [*np.flatnonzero(begins(self.nature[chosen])).tolist(), len(chosen)]
        alone, moving = np.zeros(self.count, bool), np.zeros(self.count, bool)
        for first, last in pairwise(ends):
            units = chosen[first:last]
            held = start[units[0] + 1] - start[units[0]]
            if last - first > 1 or not self.is_free[units[0]]:
                moving[units] = self.is_free[units[0]]
                yield from self.class_of(np.column_stack([units, part[start[units][:, None] + np.arange(held)]]))
            else:
                alone[units] = has_places[units]
        alone[part[moving[block]]] = False  # these move with a block that does
        rigid = np.flatnonzero(alone)
        rigid = rigid[np.argsort(self.kind[rigid], kind="stable")]
        for rows in np.split(rigid, np.flatnonzero(begins(self.kind[rigid]))[1:]) if len(rigid) else ():
            yield from self.class_of(rows[:, None], is_rigid=True)

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
        around = slice(*np.searchsorted(self.by_unit.unit, [first, first + 1]))
        blocks = tuple(dict.fromkeys(self.by_unit.block[around].tolist()))
        yield Class(parts, columns, self.pin_of(first), is_rigid, blocks, self.statistic_of(first, order))
