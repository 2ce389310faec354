"""Alignment: which donor unit stands on which base unit.

Every pair of groups gets one rectangular assignment. The objective is the sum, over the tensors of matched layers, of
<A, P_out B P_in^T>, each axis with the assignment of its own pair; it is raised pair by pair, each a linear assignment
problem with the others fixed (Ainsworth et al. 2023, arXiv:2209.04836, section 3.2, made rectangular). That covers
Model Assembly Learning's size-compatible case (one assignment) and its size-incompatible case (two, alternating):
padding the smaller side with zeros changes neither the optimum nor the order, so nothing is padded here.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mal_graph.correspond import AxisPair, Correspondence, Index
from mal_graph.errors import ShapeError
from mal_graph.forms import Term
from mal_graph.graph import Array

try:
    from lap import lapjvh as solve_fast  # several times faster than scipy, where it is installed
except ImportError:
    solve_fast = None  # type: ignore[assignment, unused-ignore]  # mypy sees either a function or nothing, as installed

TOLERANCE = 1e-7  # relative gain below which an update counts as rounding
HINT = 1e-3  # the weight of what only tells equal units apart
TIE = 1e-6  # relative: what a random decision between equal scores may cost
NEAR = 0.5  # relative distance from which on units are nothing like copies
BLOCK = 1 << 20  # entries that are summed up at once
SMALL = 5_000_000  # entries up to which every start is tried
TINY = 500_000  # entries: a problem is started so often that no more are gone through each time
MAX_STARTS = 48
MAX_VISITS = 20  # of each pair on the way to the nearest units; ascents need no bound, they cannot cycle
COPY = 1e-10  # squared distance, relative to the donor, below which matched units are copies of each other
Order = NDArray[np.int64]
Orders = tuple[Order, ...]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """The units of two models, assigned.

    Attributes:
        found: the correspondence of groups and tensors it is an alignment of.
        orders: per pair of groups an array of shape (base units,): the donor unit on each base unit, -1 for none.
        objective: the sum over all tensors.
        values: what each pair of groups contributes, given the others.
        random_values: the mean of the same over all random assignments.
        start: the start that led to the best objective: "forward", "nearest" or "identity".
        history: the objective before the first and after each pass over the pairs that still change.
        starts: every start that was raised, with its history.
    """

    found: Correspondence
    orders: Orders
    objective: float
    values: tuple[float, ...]
    random_values: tuple[float, ...]
    start: str
    history: tuple[float, ...]
    starts: tuple[tuple[str, tuple[float, ...]], ...] = ()


def align(found: Correspondence) -> Alignment:
    """Assign the units of every pair of groups.

    Starts, each raised until no update of a single pair gains, the best result kept:

    * forward from the inputs, each pair by the tensors whose other axes are already assigned;
    * nearest units, by distance instead of inner product, which finds donors whose units are copies of the base's;
      not for large models that are nothing like copies;
    * the identity, where the problem is small or the identity is better than what was found.

    Small problems are started several times, with equal scores decided at random (seeded).

    Returns:
        deterministic; the objective is never below the identity's.
    """
    problem = Problem(found)
    identity = tuple(cropped_identity(a, b) for a, b in found.units)
    floor = problem.objective(identity)
    starts: list[tuple[str, Orders]] = []
    for seed in range(1 + problem.spare_starts):
        nearest = problem.forward(by_distance=True, seed=seed)
        if not problem.is_small and problem.distance(nearest) > NEAR:
            continue
        nearest = problem.nearest(nearest)
        if problem.distance(nearest) <= COPY and problem.objective(nearest) >= floor:
            # Nothing fits better than a unit's own copy, whatever the inner product says of longer rows.
            return described(problem, nearest, "nearest", (problem.objective(nearest),))
        starts.append(("nearest", nearest))
    starts += [("forward", problem.forward(by_distance=False, seed=seed)) for seed in range(1 + problem.spare_starts)]
    raised = [(name, *problem.ascended(orders)) for name, orders in distinct(starts)]
    if problem.is_small or floor > max(history[-1] for _, _, history in raised):
        raised.append(("identity", *problem.ascended(identity)))
    name, orders, history = max(raised, key=lambda found: found[2][-1])
    tried = tuple((start, passes) for start, _, passes in raised)
    return replace(described(problem, orders, name, history), starts=tried)


def distinct(starts: Sequence[tuple[str, Orders]]) -> list[tuple[str, Orders]]:
    """The starts without repetitions: where no scores are equal, every seed gives the same."""
    found = {tuple(order.tobytes() for order in orders): (name, orders) for name, orders in reversed(starts)}
    return list(reversed(found.values()))


def described(problem: "Problem", orders: Orders, start: str, history: tuple[float, ...]) -> Alignment:
    """An alignment with its figures."""
    tables = [problem.scores(pair, orders) for pair in range(len(orders))]
    return Alignment(
        problem.found,
        orders,
        problem.objective(orders),
        tuple(value(table, order) for table, order in zip(tables, orders, strict=True)),
        tuple(random_value(table) for table in tables),
        start,
        history,
    )


def identity_alignment(found: Correspondence) -> Alignment:
    """Every unit on the unit with its own number: the control "plain average"."""
    problem = Problem(found)
    orders = tuple(cropped_identity(a, b) for a, b in found.units)
    return described(problem, orders, "identity", (problem.objective(orders),))


def random_alignment(found: Correspondence, seed: int) -> Alignment:
    """Every order drawn at random: the control "random permutation"."""
    rng = np.random.default_rng(seed)
    problem = Problem(found)
    orders = tuple(random_order(a, b, rng) for a, b in found.units)
    return described(problem, orders, "random", (problem.objective(orders),))


def match_units(score: Scores) -> Order:
    """The assignment that maximises the summed score; the longer side keeps some without a partner.

    Args:
        score: shape (base units, donor units).

    Returns:
        order, shape (base units,): the donor unit on each base unit, -1 for none.

    Raises:
        ShapeError: a score is not finite.
    """
    units, others = score.shape
    if not np.isfinite(score).all():
        raise ShapeError("cannot assign units: their scores are not finite, so a weight holds NaN or infinity")
    best = score.argmax(axis=1)
    if units <= others and len(np.unique(best)) == units:
        return np.asarray(best, np.int64)  # a row-wise optimum that is an assignment is the optimum
    if solve_fast is not None:
        _, rows, columns = solve_fast(-score, extend_cost=True)
    else:
        rows, columns = linear_sum_assignment(score, maximize=True)
    order = np.full(units, -1, np.int64)
    order[rows] = columns
    return order


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


def value(score: Scores, order: Order) -> float:
    rows = np.flatnonzero(order >= 0)
    return float(score[rows, order[rows]].sum())


def random_value(score: Scores) -> float:
    """The mean value of a random assignment: each entry is used with probability 1 / (longer side)."""
    return float(score.sum() / max(score.shape))


def matched_positions(axis: AxisPair, orders: Sequence[Order | None]) -> tuple[Index, Index] | None:
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


class Problem:
    """The objective over a correspondence, with the values it is computed from."""

    def __init__(self, found: Correspondence) -> None:
        self.found = found
        self.count = len(found.pairs)
        self.is_compared = [term.is_compared for term, _ in found.terms]
        self.touching: list[list[tuple[int, int, int]]] = [[] for _ in range(self.count)]  # (term, axis, block)
        for t, (_, axes) in enumerate(found.terms):
            for place, axis in enumerate(axes):
                for b, block in enumerate(axis.blocks):
                    if block.pair >= 0:
                        self.touching[block.pair].append((t, place, b))

    @cached_property
    def values(self) -> list[tuple[Array, Array]]:
        return [(term.base_values(), term.donor_values()) for term, _ in self.found.terms]

    @cached_property
    def neighbours(self) -> list[set[int]]:
        """Pairs that share a tensor; one that stands on two axes of a tensor is its own neighbour too."""
        found = [{pair} if self.is_coupled(pair) else set() for pair in range(self.count)]
        for _, axes in self.found.terms:
            here = {block.pair for axis in axes for block in axis.blocks if block.pair >= 0}
            for pair in here:
                found[pair] |= here - {pair}
        return found

    def rows(self, touch: tuple[int, int, int], orders: Sequence[Order | None]) -> tuple[Array, Array] | None:
        """One tensor's rows for the units of one block, shapes (base units, f) and (donor units, f), with the other
        axes cut and ordered by what is assigned there; None if that is not known yet."""
        t, place, b = touch
        _, axes = self.found.terms[t]
        a, d = self.values[t]
        for other, axis in enumerate(axes):
            if other == place or is_whole(axis):
                continue
            positions = matched_positions(axis, orders)
            if positions is None:
                return None
            a, d = a.take(positions[0], axis=other), d.take(positions[1], axis=other)
        block = axes[place].blocks[b]
        return unit_rows(a, place, block.base), unit_rows(d, place, block.donor)

    def scores(self, pair: int, orders: Sequence[Order | None], by_distance: bool = False) -> Scores:
        """What each base unit gains from each donor unit, shape (base units, donor units)."""
        total = np.zeros(self.found.units[pair])
        for touch in self.touching[pair]:
            rows = self.rows(touch, orders) if by_distance or self.is_compared[touch[0]] else None
            if rows is None:
                continue
            a, d = rows
            if by_distance:
                total += minus_distances(a, d)
            else:
                total += a @ d.T
        return total

    @cached_property
    def size(self) -> int:
        """Entries of all tensors of both models."""
        return sum(a.size + d.size for a, d in self.values)

    @property
    def is_small(self) -> bool:
        """Whether every start can be afforded."""
        return self.size <= SMALL

    @property
    def spare_starts(self) -> int:
        """How many more times the problem can be started for little."""
        return min(MAX_STARTS, TINY // max(1, self.size))

    def forward(self, by_distance: bool, seed: int = 0) -> Orders:
        """Assign the pairs in the order of the base's layers, by what is assigned before them.

        By distance, units that this leaves equal (dead ones, twins) are told apart by the sorted entries of the
        tensors behind them, which do not depend on what is assigned there. With a seed, what is equal even so is
        decided at random.
        """
        rng = np.random.default_rng(seed)
        orders: list[Order | None] = [None] * self.count
        waiting = list(range(self.count))
        while waiting:
            ready = [p for p in waiting if any(self.is_ready(touch, orders, by_distance) for touch in self.touching[p])]
            pair = ready[0] if ready else waiting[0]
            table = self.scores(pair, orders, by_distance)
            if by_distance:
                table += HINT * self.sorted_scores(pair, orders)
            if seed:
                table += TIE * float(np.abs(table).max(initial=0.0)) * rng.random(table.shape)
            orders[pair] = match_units(table)
            waiting.remove(pair)
        return tuple(order for order in orders if order is not None)

    def sorted_scores(self, pair: int, orders: Sequence[Order | None]) -> Scores:
        """Minus the squared distances of the units' sorted entries, in the tensors whose other axes are not assigned
        yet and are equally long."""
        total = np.zeros(self.found.units[pair])
        for t, place, b in self.touching[pair]:
            block = self.found.terms[t][1][place].blocks[b]
            a, d = self.values[t]
            if self.rows((t, place, b), orders) is None:
                mine, theirs = np.sort(unit_rows(a, place, block.base)), np.sort(unit_rows(d, place, block.donor))
                if mine.shape[1] == theirs.shape[1]:
                    total += minus_distances(mine, theirs)
        return total

    def nearest(self, start: Orders) -> Orders:
        """Solve pair after pair for the least distance, each again when a neighbour changed. Units that the tensors
        before them do not tell apart (dead ones, twins) are told apart by those behind."""
        orders = list(start)
        waiting = deque(range(self.count))
        budget = MAX_VISITS * self.count
        while waiting and budget:
            budget -= 1
            pair = waiting.popleft()
            table = self.scores(pair, orders, by_distance=True)
            new = match_units(table)
            gained = value(table, new) - value(table, orders[pair])
            if gained > TOLERANCE * float(np.abs(table).max(initial=0.0)):
                orders[pair] = new
                waiting.extend(sorted(self.neighbours[pair] - set(waiting)))
        return tuple(orders)

    def is_ready(self, touch: tuple[int, int, int], orders: Sequence[Order | None], by_distance: bool) -> bool:
        """Whether a tensor can tell units apart while its other axes are assigned."""
        t, place, _ = touch
        _, axes = self.found.terms[t]
        return (by_distance or self.is_compared[t]) and all(
            block.pair < 0 or orders[block.pair] is not None
            for other, axis in enumerate(axes)
            if other != place
            for block in axis.blocks
        )

    def ascended(self, start: Orders) -> tuple[Orders, tuple[float, ...]]:
        """Solve pair after pair, each again when a neighbour changed, until none gains."""
        orders = list(start)
        history = [self.objective(start)]
        waiting = deque(range(self.count))
        while waiting:
            for _ in range(len(waiting)):  # one pass
                pair = waiting.popleft()
                if self.improve(pair, orders):
                    waiting.extend(sorted(self.neighbours[pair] - set(waiting)))
            history.append(self.objective(tuple(orders)))
        return tuple(orders), tuple(history)

    def improve(self, pair: int, orders: list[Order]) -> bool:
        """Put the best order of one pair in place, if it gains more than rounding."""
        table = self.scores(pair, orders)
        new = match_units(table)
        old_value = value(table, orders[pair])
        scale = float(np.abs(table).max(initial=0.0)) * len(orders[pair])
        if value(table, new) <= old_value + TOLERANCE * scale:
            return False
        trial = [*orders[:pair], new, *orders[pair + 1 :]]
        if self.is_coupled(pair):  # it stands on two axes of one tensor, where the score is only a linearisation
            before = self.objective(orders)
            if self.objective(trial) <= before + TOLERANCE * abs(before):
                return False
        orders[pair] = new
        return True

    def is_coupled(self, pair: int) -> bool:
        """Whether one tensor has the pair on two axes."""
        places = {(t, place) for t, place, _ in self.touching[pair]}
        return len({t for t, _ in places}) < len(places)

    def objective(self, orders: Sequence[Order]) -> float:
        """The sum over all tensors of <A, P_out B P_in^T>."""
        return sum(self.inner_product(t, orders) for t in range(len(self.found.terms)) if self.is_compared[t])

    def inner_product(self, t: int, orders: Sequence[Order]) -> float:
        return dot(*self.cut(t, orders))

    def cut(self, t: int, orders: Sequence[Order]) -> tuple[Array, Array]:
        """The matched entries of one tensor of both models, in the same order."""
        a, d = self.values[t]
        for place, axis in enumerate(self.found.terms[t][1]):
            if is_whole(axis):
                continue
            positions = matched_positions(axis, orders)
            assert positions is not None  # every order is known here
            a, d = a.take(positions[0], axis=place), d.take(positions[1], axis=place)
        return a, d

    def distance(self, orders: Sequence[Order]) -> float:
        """The squared distance of the matched entries of both models, relative to the donor's; 0 for copies, about 1
        or more for strangers."""
        distance = norm = 0.0
        for t in range(len(self.found.terms)):
            a, d = self.cut(t, orders)
            distance += dot(a - d, a - d)
            norm += dot(d, d)
        return distance / norm if norm else 0.0


def is_whole(axis: AxisPair) -> bool:
    """Whether an axis corresponds position by position, end to end."""
    return len(axis.blocks) == 1 and axis.blocks[0].pair < 0 and len(axis.blocks[0].base) == axis.size


def unit_rows(values: Array, place: int, positions: Index) -> Array:
    """The entries that belong to each unit, as rows, shape (units, features)."""
    moved = np.moveaxis(values, place, 0)
    return moved[positions.ravel()].reshape(len(positions), -1)


def dot(a: Array, b: Array) -> float:
    """The inner product of two arrays, summed up in blocks so that float32 is exact enough for any size."""
    a, b = np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel()
    blocks = range(0, a.size, BLOCK)
    return sum(float(np.dot(a[i : i + BLOCK].astype(np.float64), b[i : i + BLOCK])) for i in blocks)


def minus_distances(a: Array, b: Array) -> Scores:
    """Minus the squared distance of every two rows, shape (rows of a, rows of b)."""
    squares = [np.einsum("uf,uf->u", rows, rows, dtype=np.float64) for rows in (a, b)]
    found: Scores = 2.0 * (a @ b.T) - squares[0][:, None] - squares[1]
    return found


def as_permutation(order: Order, others: int) -> Order:
    """The order with -1 left out and the donor's unmatched units appended: a permutation of the donor's units."""
    used = order[order >= 0]
    return np.concatenate([used, np.setdiff1d(np.arange(others), used)])


def terms_by_layer(found: Correspondence) -> Mapping[int, list[tuple[Term, tuple[AxisPair, ...]]]]:
    """The terms of each pair of layers, by index of the pair in the match."""
    by_layer: dict[int, list[tuple[Term, tuple[AxisPair, ...]]]] = {}
    for term, axes in found.terms:
        by_layer.setdefault(term.pair, []).append((term, axes))
    return by_layer
