"""Starts of the assignment: first orders, which are then raised.

* Forward from the inputs, each pair by the tensors whose other axes are already assigned.
* Nearest units, by distance instead of inner product, which finds donors whose units are copies of the base's.

What is equal even so is decided at random, where there is a seed.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mal_graph.graph import Array
from mal_graph.matching.axis_pairs import Index, take_positions
from mal_graph.matching.objective import Objective, Touch, cuts, squared
from mal_graph.matching.orders import Order, Orders, ScoreTable, score_order

TOLERANCE = 1e-7  # relative gain below which an update counts as rounding
HINT = 1e-3  # the weight of what only tells equal units apart
TIE = 1e-6  # relative: what a random decision between equal scores may cost
NEAR = 0.5  # relative distance from which on units are nothing like copies
TINY = 500_000  # entries: a problem is started so often that no more are gone through each time
MAX_STARTS = 48
MAX_VISITS = 20  # of each pair on the way to the nearest units; ascents need no bound, they cannot cycle
COPY = 1e-10  # squared distance, relative to the donor's tensor, up to which matched entries are copies


def count_spare_starts(objective: Objective) -> int:
    """How many more times a problem of this size can be started for little."""
    entries = sum(a.size + d.size for a, d in objective.values)
    return min(MAX_STARTS, TINY // max(1, entries))


def assign_forward(objective: Objective, seed: int, known: Sequence[Order | None] = ()) -> Orders:
    """Assign the pairs in the order of the base's layers, by what is assigned before them. With a seed, what is
    equal even so is decided at random.

    Args:
        known: the orders of the first pairs, if they are known already.
    """
    rng = np.random.default_rng(seed)
    orders: list[Order | None] = list(known) or [None] * objective.count
    for root in next_pairs(objective, orders, compared=True):
        tables = objective.tables(root, orders)
        broken = {pair: with_ties_broken(table, rng if seed else None) for pair, table in tables.items()}
        put(objective.solve(root, broken), orders)
    return tuple(order for order in orders if order is not None)


def assign_by_distance(objective: Objective, seed: int) -> Orders | None:
    """The same by distance; None where a large problem's units turn out to be nothing like copies.

    Units that this leaves equal (dead ones, twins) are told apart by the sorted entries of the tensors behind them,
    which do not depend on what is assigned there.
    """
    rng = np.random.default_rng(seed)
    orders: list[Order | None] = [None] * objective.count
    distance = norm = 0.0
    is_tiny = count_spare_starts(objective) > 0
    for root in next_pairs(objective, orders, compared=False):
        tables: dict[int, ScoreTable] = {}
        for pair in objective.nests.bundles[root]:
            tables[pair], paid, length = compare_distances(objective, pair, orders)
            distance += paid
            norm += length
        if not is_tiny and distance - sum(map(most_of, tables.values())) > NEAR * norm:
            return None  # before anything is assigned
        hinted = {
            pair: with_ties_broken(
                table + HINT * compare_sorted(objective, pair, orders) if has_ties(table) else table,
                rng if seed else None,
            )
            for pair, table in tables.items()
        }
        chosen = objective.solve(root, hinted)
        distance -= score_all(tables, chosen)
        if not is_tiny and distance > NEAR * norm:
            return None
        put(chosen, orders)
    return tuple(order for order in orders if order is not None)


def next_pairs(objective: Objective, orders: Sequence[Order | None], compared: bool) -> Iterator[int]:
    """Every outermost pair without an order, the first next that a tensor tells something about while `orders` is being
    filled."""
    waiting = [root for root in objective.nests.bundles if orders[root] is None]
    while waiting:
        root = next((root for root in waiting if is_ready(objective, root, orders, compared)), waiting[0])
        waiting.remove(root)
        yield root


def is_ready(objective: Objective, root: int, orders: Sequence[Order | None], compared: bool) -> bool:
    """Whether a tensor tells the units of a pair, or of one inside it, apart: one whose other axes are assigned; or
    evidence does."""
    bundle = objective.nests.bundles[root]
    if compared and objective.extra and any(objective.extra[pair].any() for pair in bundle):
        return True
    return any(
        (objective.is_compared[t] or not compared)
        and all(
            block.pair < 0 or orders[block.pair] is not None
            for other, axis in enumerate(objective.axes[t])
            if other != place
            for block in axis.blocks
        )
        for pair in bundle
        for t, place, _ in objective.touching[pair]
    )


def put(chosen: Mapping[int, Order], orders: list[Any]) -> None:
    """Put orders in their places in the list."""
    for pair, order in chosen.items():
        orders[pair] = order


def score_all(tables: Mapping[int, ScoreTable], orders: Mapping[int, Order] | Sequence[Order]) -> float:
    """What the orders of several pairs gain together."""
    return sum(score_order(table, orders[pair]) for pair, table in tables.items())


def assign_nearest(objective: Objective, start: Orders) -> Orders:
    """Solve pair after pair for the least distance, each again when a neighbour changed. Units that the tensors
    before them do not tell apart (dead ones, twins) are told apart by those behind."""
    orders = list(start)
    waiting = deque(objective.nests.bundles)
    budget = MAX_VISITS * objective.count
    while waiting and budget:
        budget -= 1
        root = waiting.popleft()
        tables = {pair: compare_distances(objective, pair, orders)[0] for pair in objective.nests.bundles[root]}
        new = objective.solve(root, tables, orders)
        if score_all(tables, new) - score_all(tables, orders) > TOLERANCE * largest(tables):
            put(new, orders)
            waiting.extend(sorted(objective.neighbours[root] - set(waiting)))
    return tuple(orders)


def is_copy(objective: Objective, orders: Sequence[Order]) -> bool:
    """Whether the matched entries of every tensor are equal but for rounding."""
    cuts = (objective.cut(t, orders) for t in range(len(objective.axes)))
    return all(squared(a - d) <= COPY * squared(d) for a, d in cuts)


def compare_distances(
    objective: Objective, pair: int, orders: Sequence[Order | None]
) -> tuple[ScoreTable, float, float]:
    """Minus half the squared distances of the base's units to the donor's, over all tensors, compared or not.

    Returns:
        the distances but for what every assignment pays: the squared lengths of a side of which every unit has a
        partner; half of what it pays; half the donor's squared lengths, summed.
    """
    table, *squares = compare_units(objective, pair, orders)
    a, d = (0.5 * side for side in squares)
    if len(a) > len(d):
        table = table - a[:, None]
    if len(a) < len(d):
        table = table - d
    paid = sum(float(side.sum()) for side in (a, d) if len(side) == min(len(a), len(d)))
    return table, paid, float(d.sum())


def compare_units(
    objective: Objective, pair: int, orders: Sequence[Order | None]
) -> tuple[ScoreTable, ScoreTable, ScoreTable]:
    """The inner products of the base's units with the donor's, over all tensors, compared or not, and the squared
    lengths of the units of either side."""
    touches = objective.touching[pair]
    under = {touch: others for touch in touches if (others := objective.others(touch, orders)) is not None}
    rest = {touch: others for touch, others in under.items() if not objective.is_compared[touch[0]]}
    table = objective.weight_scores(pair, orders)
    if rest:
        table = objective.products(rest, table.copy())
    a, d = (sum_squares(objective, pair, side, under) for side in (0, 1))
    return table, a, d


def most_of(table: ScoreTable) -> float:
    """No less than what the best assignment scores: the best of each unit of the shorter side."""
    units, others = table.shape
    return float(table.max(axis=int(units <= others), initial=-np.inf).sum(dtype=np.float64)) if table.size else 0.0


def largest(tables: Mapping[int, ScoreTable]) -> float:
    """The largest score of several pairs."""
    return max(float(np.abs(table).max(initial=0.0)) for table in tables.values())


def sum_squares(objective: Objective, pair: int, side: int, under: Mapping[Touch, Mapping[int, Order]]) -> ScoreTable:
    """The squared lengths of the units' rows in some tensors."""
    total = np.zeros(objective.units[pair][side])
    for (t, place, b), others in under.items():
        values = objective.values[t][side]
        for other, positions in cuts(others)[side].items():
            values = take_positions(values, np.sort(positions), other)
        block = objective.axes[t][place].blocks[b]
        total += unit_squares(values, place, block.donor if side else block.base)
    return total


def compare_sorted(objective: Objective, pair: int, orders: Sequence[Order | None]) -> ScoreTable:
    """Minus the squared distances of the units' sorted entries, in the tensors whose other axes are not assigned
    yet and are equally long."""
    total = np.zeros(objective.units[pair])
    for touch in objective.touching[pair]:
        if objective.others(touch, orders) is None:
            mine, theirs = (np.sort(objective.rows(side, touch, {})) for side in (0, 1))
            if mine.shape[1] == theirs.shape[1]:
                total += minus_distances(mine, theirs)
    return total


def unit_squares(values: Array, place: int, positions: Index) -> Array:
    """The squared length of each unit's row."""
    axes = list(range(values.ndim))
    squares = np.einsum(values, axes, values, axes, [place])
    lengths: ScoreTable = squares[positions].sum(axis=1, dtype=np.float64)
    return lengths


def minus_distances(a: Array, b: Array) -> ScoreTable:
    """Minus the squared distance of every two rows, shape (rows of a, rows of b)."""
    squares = [np.einsum("uf,uf->u", rows, rows, dtype=np.float64) for rows in (a, b)]
    distances: ScoreTable = 2.0 * (a @ b.T) - squares[0][:, None] - squares[1]
    return distances


def has_ties(score: ScoreTable) -> bool:
    """Whether some unit's best two scores are equal but for rounding."""
    if score.shape[1] < 2:
        return False
    best = score.max(axis=1)
    return bool(np.count_nonzero(score >= (best - TIE * np.abs(best).max())[:, None]) > len(score))


def with_ties_broken(score: ScoreTable, rng: np.random.Generator | None) -> ScoreTable:
    """The scores with equal ones told apart at random, if there is a generator."""
    if rng is None:
        return score
    return score + TIE * float(np.abs(score).max(initial=0.0)) * rng.random(score.shape)
