"""Orders of units that hold others, and of units that lie across each other.

The units inside all outer ones are counted through. Two outer units are worth what they have in common themselves and
the best assignment of what is inside them; so an assignment of the outer ones by these values is the best of both.
Where units lie across each other, each place where two meet follows from both orders: these are solved in turn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mal_graph.matching.axis_pairs import NOWHERE
from mal_graph.matching.crossing_orders import Linked, assign_linked, best_worth
from mal_graph.matching.orders import (
    Order,
    Orders,
    ScoreTable,
    as_permutation,
    check_finite,
    cropped_identity,
    random_order,
)

Inner = Callable[[int, int], Order]  # of an outer unit of the base and one of the donor
Make = Callable[[int, int], Order]  # of the numbers of units


@dataclass(frozen=True)
class Nests:
    """Which pairs of groups lie inside the units of which, and which across each other.

    Attributes:
        within: per pair the one whose units hold its units, -1 if none does; before it in the list.
        units: per pair (base units, donor units), of all outer units together.
        grids: per pair the two whose units meet in its own, None if it has an order of its own; before it in the list.
    """

    within: tuple[int, ...]
    units: tuple[tuple[int, int], ...]
    grids: tuple[tuple[int, int] | None, ...]

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """Per pair the first of those that are assigned together with it."""
        roots = list(range(len(self.within)))
        for pair, outer in enumerate(self.within):
            for other in ({outer} - {-1}) | set(self.grids[pair] or ()):
                low, high = sorted((roots[pair], roots[other]))
                roots = [low if root == high else root for root in roots]
        return tuple(roots)

    @cached_property
    def bundles(self) -> Mapping[int, tuple[int, ...]]:
        """The pairs that are assigned together, by the first of them."""
        bundles: dict[int, tuple[int, ...]] = {}
        for pair, root in enumerate(self.roots):
            bundles[root] = (*bundles.get(root, ()), pair)
        return bundles

    @cached_property
    def held(self) -> Mapping[int, tuple[tuple[int, ...], ...]]:
        """By pair what lies inside its units, those together that lie across each other; by -1 what lies in none."""
        held: dict[int, list[set[int]]] = {}
        for pair, outer in enumerate(self.within):
            here = held.setdefault(outer, [])
            linked = {pair, *(self.grids[pair] or ())}
            met = [one for one in here if one & linked]
            held[outer] = [one for one in here if not one & linked] + [linked.union(*met)]
        return {outer: tuple(tuple(sorted(one)) for one in sorted(here, key=min)) for outer, here in held.items()}

    def outermost_of(self, pair: int) -> Iterator[int]:
        """The pairs of units of the network that those of a pair lie in."""
        grid = self.grids[pair]
        if grid is not None:
            for factor in grid:
                yield from self.outermost_of(factor)
        elif self.within[pair] >= 0:
            yield from self.outermost_of(self.within[pair])
        else:
            yield pair

    def sizes(self, pair: int) -> tuple[int, int]:
        """How many units each outer unit holds, in the base and in the donor."""
        outer = self.within[pair]
        if outer < 0:
            return self.units[pair]
        mine, theirs = (own // max(1, around) for own, around in zip(self.units[pair], self.units[outer], strict=True))
        return mine, theirs

    def spread(self, pair: int) -> int:
        """Among how many entries of a row of its table a random order chooses: the longer side, level by level."""
        grid, outer = self.grids[pair], self.within[pair]
        around = self.spread(outer) if outer >= 0 else 1
        if grid is None:
            return max(self.sizes(pair)) * around
        first, second = (max(self.sizes(factor)) for factor in grid)
        return first * second * around

    def made(self, make: Make) -> Orders:
        """Orders made level by level, from the numbers of units of base and donor."""
        orders: list[Order] = []
        for pair, outer in enumerate(self.within):
            sizes = self.sizes(pair)
            if self.grids[pair] is not None:
                orders.append(self.met(pair, orders, 0))
            elif outer < 0:
                orders.append(make(*sizes))
            else:
                orders.append(composed(orders[outer], anywhere(make, sizes), sizes))
        return tuple(orders)

    def identity(self) -> Orders:
        """Every unit on the one with its own number."""
        return self.made(cropped_identity)

    def drawn(self, rng: np.random.Generator) -> Orders:
        """Random orders that leave no unit of the shorter side out."""
        return self.made(lambda mine, theirs: random_order(mine, theirs, rng))

    def met(self, pair: int, orders: Sequence[Order] | Mapping[int, Order], side: int) -> Order:
        """The order of the places where two pairs meet, from theirs.

        Args:
            side: whose units the orders have entries for, the base's (0) or the donor's (1).
        """
        first, second = self.grids[pair] or (pair, pair)
        rows = orders[first].reshape(-1, self.sizes(first)[side], 1)
        columns = orders[second].reshape(len(rows), 1, -1)
        theirs = self.sizes(second)[1]
        return np.where((rows >= 0) & (columns >= 0), rows * theirs + columns % theirs, -1).ravel()

    def completed(self, orders: Sequence[Order]) -> Orders:
        """The orders as permutations of the donor's units, those without a partner behind the others."""
        whole: list[Order] = []
        for pair, outer in enumerate(self.within):
            if self.grids[pair] is not None:
                whole.append(self.met(pair, whole, 1))
            elif outer < 0:
                whole.append(as_permutation(orders[pair], self.units[pair][1]))
            else:
                whole.append(self.completed_inside(pair, orders, whole[outer]))
        return tuple(whole)

    def completed_inside(self, pair: int, orders: Sequence[Order], outer: Order) -> Order:
        """The same of one pair, where the outer units of the donor stand like this."""
        mine, theirs = self.sizes(pair)
        assigned, rows = orders[self.within[pair]], orders[pair].reshape(-1, mine)
        row_of = {int(other): row for other, row in zip(assigned, rows, strict=True) if other >= 0}

        def inner(_: int, other: int) -> Order:
            row = row_of.get(other, NOWHERE)
            return as_permutation(np.where(row >= 0, row - other * theirs, -1), theirs)

        return composed(outer, inner, (theirs, theirs))

    def solve(
        self, root: int, tables: Mapping[int, ScoreTable], known: Sequence[Order] | None = None
    ) -> dict[int, Order]:
        """The orders of the pairs that are assigned together, by the summed scores: the best ones where no units lie
        across each other.

        Args:
            root: the first of them.
            tables: what each unit of the base gains from each of the donor, by pair.
            known: orders of all pairs: units that lie across each other are raised from there.

        Raises:
            ShapeError: a score is not finite.
        """
        totals, bundle = dict(tables), self.bundles[root]
        check_finite(tables.values())
        outer = [pair for pair in bundle if pair in self.held]
        for pair in reversed(outer):
            for linked in self.held[pair]:
                totals[pair] = totals[pair] + self.worth_inside(linked, totals)
        orders: dict[int, Order] = {}
        for linked in self.held[-1]:
            if linked[0] == root:
                free = self.linked(linked)
                start = None if known is None else {pair: known[pair] for pair in free.sizes}
                orders |= assign_linked(free, {pair: totals[pair] for pair in linked}, start)
        for pair in outer:
            for linked in self.held[pair]:
                orders |= self.inside(linked, orders[pair], totals)
        return orders | {pair: self.met(pair, orders, 0) for pair in bundle if self.grids[pair] is not None}

    def linked(self, pairs: Sequence[int]) -> Linked:
        """Pairs that lie across each other, with the places where they meet."""
        return Linked(
            {pair: self.sizes(pair) for pair in pairs if self.grids[pair] is None},
            {pair: grid for pair in pairs if (grid := self.grids[pair]) is not None},
        )

    def cells(self, pair: int, table: ScoreTable) -> ScoreTable:
        """The table of a pair, shape (outer units, outer units, inner units, inner units) of base and donor."""
        mine, theirs = self.sizes(pair)
        cells: ScoreTable = table.reshape(-1, mine, table.shape[1] // theirs, theirs).swapaxes(1, 2)
        return cells

    def worth_inside(self, pairs: Sequence[int], tables: Mapping[int, ScoreTable]) -> ScoreTable:
        """What the best orders of some pairs inside every two outer units are worth."""
        cells = {pair: self.cells(pair, tables[pair]) for pair in pairs}
        shape, linked = cells[pairs[0]].shape[:2], self.linked(pairs)
        worth = np.zeros(shape)
        for unit, other in np.ndindex(*shape):
            worth[unit, other] = best_worth(linked, {pair: cell[unit, other] for pair, cell in cells.items()})
        return worth

    def inside(self, pairs: Sequence[int], outer: Order, tables: Mapping[int, ScoreTable]) -> dict[int, Order]:
        """The best orders of some pairs inside the outer units that meet."""
        cells = {pair: self.cells(pair, tables[pair]) for pair in pairs}
        linked, found = self.linked(pairs), {}
        for unit in np.flatnonzero(outer >= 0).tolist():
            here = {pair: cell[unit, outer[unit]] for pair, cell in cells.items()}
            found[unit] = assign_linked(linked, here)
        return {pair: composed(outer, found_in(found, pair), self.sizes(pair)) for pair in linked.sizes}


def composed(outer: Order, inner: Inner, sizes: tuple[int, int]) -> Order:
    """The order of units inside others, from that of these and one for every two that meet.

    Args:
        sizes: how many units an outer one holds, in the base and in the donor.
    """
    mine, theirs = sizes
    order = np.full((len(outer), mine), -1)
    for unit in np.flatnonzero(outer >= 0).tolist():
        other = int(outer[unit])
        own = inner(unit, other)
        order[unit] = np.where(own >= 0, own + other * theirs, -1)
    return order.ravel()


def anywhere(make: Make, sizes: tuple[int, int]) -> Inner:
    """The same way to an order wherever two outer units meet."""
    return lambda unit, other: make(*sizes)


def found_in(orders: Mapping[int, Mapping[int, Order]], pair: int) -> Inner:
    """The order of a pair that was found for each outer unit."""
    return lambda unit, other: orders[unit][pair]


def extend_orders(before: Nests, orders: Sequence[Order], after: Nests) -> Orders:
    """Orders on a base that has more units, with the donor's that found no place behind the others.

    Args:
        before, after: what lies inside what, with the base's units as they were and as they are; new ones stand last,
            inside every outer unit and behind these.
    """
    longer: list[Order] = []
    stood: list[Order] = []  # per unit of the wider base the one that it was, -1 for a new one
    for pair, outer in enumerate(before.within):
        (mine, theirs), (wider, _) = before.sizes(pair), after.sizes(pair)
        was = np.where(np.arange(wider) < mine, np.arange(wider), -1)
        if before.grids[pair] is not None:
            longer.append(after.met(pair, longer, 0))
            stood.append(NOWHERE)  # nothing lies inside a place
        elif outer < 0:
            longer.append(extend_order(orders[pair], theirs, wider - mine))
            stood.append(was)
        else:
            rows, around = orders[pair].reshape(-1, mine), stood[outer][:, None]
            known = {
                unit: np.where(rows[i] >= 0, rows[i] % theirs, -1) for unit, i in enumerate(stood[outer]) if i >= 0
            }
            longer.append(composed(longer[outer], lengthened(known, theirs, wider), (wider, theirs)))
            stood.append(np.where((around < 0) | (was < 0), -1, around * mine + was).ravel())
    return tuple(longer)


def lengthened(rows: Mapping[int, Order], theirs: int, length: int) -> Inner:
    """The orders inside outer units, none inside new ones, with the donor's units that found no place there behind."""

    def inner(unit: int, other: int) -> Order:
        row = rows.get(unit, NOWHERE)
        return extend_order(row, theirs, length - len(row))

    return inner


def extend_order(order: Order, others: int, added: int) -> Order:
    """An order with the donor's units that found no place behind it."""
    left = np.setdiff1d(np.arange(others), order)
    return np.concatenate([order, left[:added], np.full(max(0, added - len(left)), -1)])
