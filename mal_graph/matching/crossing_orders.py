"""Orders of units that lie across each other: solved in turn, each by the scores of the places where they meet.

Where rows and columns of one table are to be ordered at once no fast method is exact. One order is found first, each
two of its units being worth the best that the other could make of them, then each in turn until none gains. It is
started with every order that is cheap to find first, and the best result kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.matching.orders import Order, ScoreTable, best_value, match_units, score_order

CHEAP = 1024  # pairs of units that are each worth an assignment of their own
ROUNDS = 20  # of all orders in turn; they cannot cycle, but for rounding
GAIN = 1e-9  # relative


@dataclass(frozen=True)
class Linked:
    """Pairs of groups that lie across each other.

    Attributes:
        sizes: (base units, donor units) by pair.
        grids: by pair of places the two that meet in them; none where there is only one pair.
    """

    sizes: Mapping[int, tuple[int, int]]
    grids: Mapping[int, tuple[int, int]]

    def table(self, grid: int, first: int, tables: Mapping[int, ScoreTable]) -> ScoreTable:
        """The scores of places, shape (units of one pair, units of the other, the same of the donor)."""
        one, other = self.grids[grid]
        (rows, their_rows), (columns, their_columns) = self.sizes[one], self.sizes[other]
        cells: ScoreTable = tables[grid].reshape(rows, columns, their_rows, their_columns)
        return cells if first == one else cells.transpose(1, 0, 3, 2)

    def scores(self, pair: int, orders: Mapping[int, Order], tables: Mapping[int, ScoreTable]) -> ScoreTable:
        """What the units of one pair gain from each other with the others in these orders; those that have none yet
        stand where it is best for every two units."""
        total = tables[pair]
        for grid, (one, other) in self.grids.items():
            if pair in (one, other):
                cells = self.table(grid, pair, tables)
                known = orders.get(other if pair == one else one)
                total = total + (best_across(cells) if known is None else along(cells, known))
        return total

    def worth(self, orders: Mapping[int, Order], tables: Mapping[int, ScoreTable]) -> float:
        """What orders are worth together."""
        own = sum(score_order(tables[pair], orders[pair]) for pair in self.sizes)
        met = 0.0
        for grid, (one, other) in self.grids.items():
            met += score_order(along(self.table(grid, one, tables), orders[other]), orders[one])
        return own + met


def along(cells: ScoreTable, order: Order) -> ScoreTable:
    """The scores of places, summed over the columns that an order puts on each other."""
    columns = np.flatnonzero(order >= 0)
    summed: ScoreTable = cells[:, columns, :, order[columns]].sum(axis=0)
    return summed


def best_across(cells: ScoreTable) -> ScoreTable:
    """What every two rows are worth with their columns in the best order for them."""
    worth = np.zeros((cells.shape[0], cells.shape[2]))
    for row, other in np.ndindex(*worth.shape):
        worth[row, other] = best_value(cells[row, :, other])
    return worth


def best_worth(linked: Linked, tables: Mapping[int, ScoreTable]) -> float:
    """What the best orders that are found are worth."""
    if len(linked.sizes) == 1:
        return best_value(next(iter(tables.values())))
    return linked.worth(assign_linked(linked, tables), tables)


def assign_linked(
    linked: Linked, tables: Mapping[int, ScoreTable], start: Mapping[int, Order] | None = None
) -> dict[int, Order]:
    """Orders of pairs that lie across each other; the best one where there is only one pair.

    Args:
        tables: what each unit of the base gains from each of the donor, by pair, and by pair of places.
        start: orders to raise; without them they are found.
    """
    pairs = list(linked.sizes)
    if len(pairs) == 1:
        return {pairs[0]: match_units(tables[pairs[0]])}
    if start is not None:
        return raise_orders(linked, tables, dict(start))
    cheap = sorted(pairs, key=lambda pair: np.prod(linked.sizes[pair]))
    first = [pair for pair in cheap if np.prod(linked.sizes[pair]) <= CHEAP] or cheap[:1]
    found = [find_orders(linked, tables, [pair, *(other for other in cheap if other != pair)]) for pair in first]
    return max(found, key=lambda orders: linked.worth(orders, tables))


def find_orders(linked: Linked, tables: Mapping[int, ScoreTable], sequence: Sequence[int]) -> dict[int, Order]:
    """Orders found one after the other, and then raised."""
    orders: dict[int, Order] = {}
    for pair in sequence:
        orders[pair] = match_units(linked.scores(pair, orders, tables))
    return raise_orders(linked, tables, orders)


def raise_orders(linked: Linked, tables: Mapping[int, ScoreTable], orders: dict[int, Order]) -> dict[int, Order]:
    """Orders solved in turn until none gains."""
    for _ in range(ROUNDS):
        gained = 0.0
        for pair in linked.sizes:
            table = linked.scores(pair, orders, tables)
            new = match_units(table)
            gain = score_order(table, new) - score_order(table, orders[pair])
            if gain > GAIN * float(np.abs(table).max(initial=0.0)):
                orders[pair], gained = new, gained + gain
        if not gained:
            break
    return orders
