"""Orders: which donor unit stands on each base unit; the best one for a table of scores, and how one is read.

`order[i]` is the donor unit on base unit i, -1 where there is none.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mal_graph.boxes import Stretch, is_in_place
from mal_graph.errors import ShapeError
from mal_graph.matching.axis_pairs import NOWHERE, AxisPair, Index

Order = NDArray[np.int64]
Orders = tuple[Order, ...]
ScoreTable = NDArray[np.float64] | NDArray[np.float32]
Solver = Callable[..., Any]  # of the assignment problem: of costs, the cost of the best, its rows and its columns


def fast_solver() -> Solver | None:
    """The one of lap, several times faster than scipy's; None where it is not installed."""
    try:
        from lap import lapjvh
    except ImportError:
        return None
    solver: Solver = lapjvh
    return solver


solve_fast = fast_solver()


def match_units(score: ScoreTable) -> Order:
    """The assignment that maximises the summed score; the longer side keeps some without a partner.

    Args:
        score: shape (base units, donor units).

    Returns:
        order, shape (base units,): the donor unit on each base unit, -1 for none.

    Raises:
        ShapeError: a score is not finite.
    """
    units, others = score.shape
    check_finite([score])
    order = np.full(units, -1, np.int64)
    shorter = int(units <= others)  # the axis along which each unit of the shorter side has its scores
    largest = score.max(axis=shorter, keepdims=True)
    is_best = score == largest
    if np.count_nonzero(is_best) == min(units, others) == np.count_nonzero(is_best.any(axis=1 - shorter)):
        best = is_best.argmax(axis=shorter)  # no two units of the shorter side want the same: that is the optimum
        order[slice(None) if shorter else best] = best if shorter else np.arange(others)
        return order
    if solve_fast is not None:
        # What each falls short of its best has the same optimum, which is found in a third to a seventh of the time.
        # Only of the shorter side has each unit a partner.
        _, rows, columns = solve_fast(np.subtract(largest, score, dtype=np.float64), extend_cost=True)
    else:
        rows, columns = linear_sum_assignment(score, maximize=True)
    order[rows] = columns
    return order


def check_finite(scores: Iterable[ScoreTable]) -> None:
    """Raise ShapeError where a score is not finite."""
    if not all(np.isfinite(score).all() for score in scores):
        raise ShapeError("cannot assign units: their scores are not finite, so a weight holds NaN or infinity")


def best_value(score: ScoreTable) -> float:
    """What the best assignment is worth, of finite scores."""
    return float(score[linear_sum_assignment(score, maximize=True)].sum())


def is_assignment(order: Order, units: tuple[int, int]) -> bool:
    """Whether an order puts units of the donor on units of the base, none twice."""
    used = order[order != -1]
    return len(np.unique(used)) == len(used) and bool(np.isin(used, np.arange(units[1])).all())


def cropped_identity(units: int, others: int) -> Order:
    order = np.arange(units)
    order[others:] = -1
    return order


def random_order(units: int, others: int, rng: np.random.Generator) -> Order:
    """A random assignment that leaves no unit of the shorter side out."""
    order = np.full(units, -1, np.int64)
    count = min(units, others)
    order[rng.permutation(units)[:count]] = rng.permutation(others)[:count]
    return order


def score_order(score: ScoreTable, order: Order) -> float:
    rows = np.flatnonzero(order >= 0)
    return float(score[rows, order[rows]].sum(dtype=np.float64))


def score_at_random(score: ScoreTable, spread: int = 0) -> float:
    """The mean value of a random assignment: each entry is used with probability 1 / (longer side).

    Args:
        spread: what to take for the longer side, of units inside others.
    """
    return float(score.sum(dtype=np.float64) / (spread or max(score.shape)))


def match_positions(axis: AxisPair, orders: Sequence[Order | None]) -> tuple[Index, Index] | None:
    """Positions of the base and of the donor that stand on each other; None if an order is not known yet.

    The only place that reads an order: units without a partner are masked here.
    """
    base: list[Index] = []
    donor: list[Index] = []
    for block in axis.blocks:
        if block.pair < 0:
            base.append(block.base.ravel())
            donor.append(block.donor.ravel())
            continue
        order = orders[block.pair]
        if order is None:
            return None
        rows = np.flatnonzero(order >= 0)
        base.append(block.base[rows].ravel())
        donor.append(block.donor[order[rows]].ravel())
    return np.concatenate(base), np.concatenate(donor)


def find_partners(axis: AxisPair, orders: Orders) -> Stretch:
    """For every position of a base's axis the donor's, -1 for none; a slice where they correspond from end to end."""
    if is_whole(axis):
        return slice(0, axis.size)
    positions = match_positions(axis, orders)
    assert positions is not None  # an alignment has every order
    partners = np.full(axis.size, -1)
    partners[positions[0]] = positions[1]
    return slice(0, axis.size) if is_in_place(partners) else partners


def inside_lone_units(axis: AxisPair, orders: Orders) -> Index:
    """Base positions of an axis that lie inside units which have no partner themselves."""
    inside = [NOWHERE]
    for block in axis.blocks:
        if block.within >= 0:
            outer = orders[block.within]
            inside.append(block.base[np.repeat(outer < 0, len(block.base) // len(outer))].ravel())
    return np.concatenate(inside)


def as_permutation(order: Order, others: int) -> Order:
    """The order with -1 left out and the donor's unmatched units appended: a permutation of the donor's units."""
    used = order[order >= 0]
    return np.concatenate([used, np.setdiff1d(np.arange(others), used)])


def is_whole(axis: AxisPair) -> bool:
    """Whether an axis corresponds position by position, end to end."""
    if len(axis.blocks) != 1 or axis.blocks[0].pair >= 0 or axis.donor_size > axis.size:
        return False
    every = np.arange(axis.size)
    return all(np.array_equal(side.ravel(), every) for side in (axis.blocks[0].base, axis.blocks[0].donor))
