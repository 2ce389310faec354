"""Alignment: which donor unit stands on which base unit.

Every pair of groups gets one rectangular assignment. The objective is the sum, over the tensors of matched layers, of
<A, P_out B P_in^T>, each axis with the assignment of its own pair; it is raised pair by pair, each a linear assignment
problem with the others fixed (Ainsworth et al. 2023, arXiv:2209.04836, section 3.2, made rectangular). That covers
Model Assembly Learning's size-compatible case (one assignment) and its size-incompatible case (two, alternating):
padding the smaller side with zeros changes neither the optimum nor the order, so nothing is padded here.

Scores of units from elsewhere, such as their activations, join as `Evidence`: a table for every pair, which does not
depend on the others. Both sums are divided by what they can reach, so that one number says how much each counts.

The time goes into the products that make up the scores, so no product is computed twice: the scores of every pair are
kept with the orders they belong to, and where orders of other pairs have changed since, what the units that moved
contributed is replaced (`Problem.scores`). The first sweep goes forward from the inputs and leaves out what depends on
orders not yet known; after it a pair is solved again only when a pair it shares a tensor with has changed. Refused: a
table for every tensor instead of every pair, which is simpler but takes the memory of the model many times over.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mal_graph.errors import ShapeError
from mal_graph.graph import Array
from mal_graph.matching.correspondence import AxisPair, Correspondence, Index

try:
    from lap import lapjvh as solve_fast  # several times faster than scipy, where it is installed
except ImportError:
    solve_fast = None  # type: ignore[assignment, unused-ignore]  # mypy sees either a function or nothing, as installed

TOLERANCE = 1e-7  # relative gain below which an update counts as rounding
HINT = 1e-3  # the weight of what only tells equal units apart
TIE = 1e-6  # relative: what a random decision between equal scores may cost
HALF = 0.5  # of what was found: what the identity must be worth to be raised too
NEAR = 0.5  # relative distance from which on units are nothing like copies
BLOCK = 1 << 14  # entries that are summed up at once, so that float32 is exact enough for any size
TINY = 500_000  # entries: a problem is started so often that no more are gone through each time
NARROW = 64  # features: tensors with fewer are multiplied together, so that the table is gone through once for them
STALE = 0.7  # of what a table sums up: where more of it has changed, it is summed up anew
MAX_STARTS = 48
MAX_VISITS = 20  # of each pair on the way to the nearest units; ascents need no bound, they cannot cycle
COPY = 1e-10  # squared distance, relative to the donor's tensor, up to which matched entries are copies
Order = NDArray[np.int64]
Orders = tuple[Order, ...]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What else than their weights says which units correspond to each other.

    Attributes:
        tables: per pair of groups, shape (base units, donor units); zero where nothing is known.
        bound: what all assigned scores can add up to.
        share: how much it counts, between 0 and 1; the weights count the rest.
    """

    tables: tuple[Scores, ...]
    bound: float
    share: float


@dataclass(frozen=True)
class Alignment:
    """The units of two models, assigned.

    Attributes:
        found: the correspondence of groups and tensors it is an alignment of.
        orders: per pair of groups an array of shape (base units,): the donor unit on each base unit, -1 for none.
        objective: the sum over all tensors, and over the evidence, if there is any.
        values: what each pair of groups contributes, given the others.
        random_values: the mean of the same over all random assignments.
        start: the start that led to the best objective: "forward", "nearest" or "identity"; "random" and "given" are of
            orders that were not assigned at all.
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


def align(found: Correspondence, evidence: Evidence | None = None) -> Alignment:
    """Assign the units of every pair of groups, by their weights and by what else is known.

    Starts, each raised until no update of a single pair gains, the best result kept:

    * forward from the inputs, each pair by the tensors whose other axes are already assigned;
    * nearest units, by distance instead of inner product, which finds donors whose units are copies of the base's;
      not for models that turn out to be nothing like copies, unless they are tiny, nor where there is evidence;
    * the identity, where the problem is tiny or the identity is worth half of what was found.

    Tiny problems are started several times, with equal scores decided at random (seeded).

    Returns:
        deterministic; the objective is never below the identity's.
    """
    problem = Problem(found, evidence)
    identity = tuple(cropped_identity(a, b) for a, b in found.units)
    floor = problem.objective(identity)
    starts: list[tuple[str, Orders]] = []
    known: set[tuple[bytes, ...]] = set()
    for seed in range(1 + problem.spare_starts):
        # Mostly of the same products.
        close, forward = None if evidence else problem.forward_by_distance(seed), problem.forward(seed)
        if close is not None and key_of(close) not in known:  # else it leads where it led before
            known.add(key_of(close))
            nearest = problem.nearest(close)
            if problem.is_copy(nearest) and (worth := problem.objective(nearest)) >= floor:
                # Nothing fits better than a unit's own copy, whatever the inner product says of longer rows.
                return described(problem, nearest, "nearest", (worth,))
            starts.append(("nearest", nearest))
        starts.append(("forward", forward))
    raised = [(name, *problem.ascended(orders)) for name, orders in distinct(starts)]
    if problem.spare_starts or floor > HALF * max(history[-1] for _, _, history in raised):
        raised.append(("identity", *problem.ascended(identity)))
    name, orders, history = max(raised, key=lambda found: found[2][-1])
    tried = tuple((start, passes) for start, _, passes in raised)
    return replace(described(problem, orders, name, history), starts=tried)


def distinct(starts: Sequence[tuple[str, Orders]]) -> list[tuple[str, Orders]]:
    """The starts without repetitions: where no scores are equal, every seed gives the same."""
    found = {key_of(orders): (name, orders) for name, orders in reversed(starts)}
    return list(reversed(found.values()))


def key_of(orders: Orders) -> tuple[bytes, ...]:
    return tuple(order.tobytes() for order in orders)


def described(problem: "Problem", orders: Orders, start: str, history: tuple[float, ...]) -> Alignment:
    """An alignment with its figures."""
    figures = [problem.figures(pair, orders) for pair in range(len(orders))]
    return Alignment(
        problem.found,
        orders,
        problem.objective(orders),
        tuple(worth for worth, _ in figures),
        tuple(random for _, random in figures),
        start,
        history,
    )


def identity_alignment(found: Correspondence, evidence: Evidence | None = None) -> Alignment:
    """Every unit on the unit with its own number: the control "plain average"."""
    problem = Problem(found, evidence)
    orders = tuple(cropped_identity(a, b) for a, b in found.units)
    return described(problem, orders, "identity", (problem.objective(orders),))


def given_alignment(found: Correspondence, orders: Orders, evidence: Evidence | None = None) -> Alignment:
    """Every unit where it was put before, by an alignment of the same pairs of groups. Raises ShapeError if it was of
    others."""
    lengths = [len(order) for order in orders]
    if lengths != [units for units, _ in found.units] or not all(map(is_assignment, orders, found.units)):
        raise ShapeError(
            f"cannot put units where they were: the {len(orders)} orders are not of these {len(found.units)} pairs of "
            "groups; align the models anew"
        )
    problem = Problem(found, evidence)
    return described(problem, orders, "given", (problem.objective(orders),))


def random_alignment(found: Correspondence, seed: int, evidence: Evidence | None = None) -> Alignment:
    """Every order drawn at random: the control "random permutation"."""
    rng = np.random.default_rng(seed)
    problem = Problem(found, evidence)
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
    order = np.full(units, -1, np.int64)
    best = score.argmax(axis=int(units <= others))
    if len(np.unique(best)) == len(best):  # where no two units of the shorter side want the same, that is the optimum
        order[best if units > others else slice(None)] = np.arange(others) if units > others else best
        return order
    if solve_fast is not None:
        _, rows, columns = solve_fast(-score, extend_cost=True)
    else:
        rows, columns = linear_sum_assignment(score, maximize=True)
    order[rows] = columns
    return order


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


Touch = tuple[int, int, int]  # index of a term, of one of its axes, of a block on that axis


@dataclass
class Table:
    """Summed inner products of the units of one pair, and what was assigned on the tensors' other axes for them."""

    scores: Scores
    under: dict[Touch, dict[int, Order]]


class Problem:
    """The objective over a correspondence, with the values it is computed from."""

    def __init__(self, found: Correspondence, evidence: Evidence | None = None) -> None:
        self.found = found
        self.evidence = evidence
        self.count = len(found.pairs)
        self.is_compared = [term.is_compared for term, _ in found.terms]
        self.touching: list[list[Touch]] = [[] for _ in range(self.count)]
        for t, (_, axes) in enumerate(found.terms):
            for place, axis in enumerate(axes):
                for b, block in enumerate(axis.blocks):
                    if block.pair >= 0:
                        self.touching[block.pair].append((t, place, b))
        self.tables: dict[int, Table] = {}

    @cached_property
    def values(self) -> list[tuple[Array, Array]]:
        return [(term.base_values(), term.donor_values()) for term, _ in self.found.terms]

    @cached_property
    def extra(self) -> tuple[Scores, ...]:
        """The evidence of every pair, in the scale of the weights' inner products; none if there is none."""
        known = self.evidence
        if known is None:
            return ()
        reach = sum(
            sqrt(squared(a) * squared(d)) for (a, d), is_in in zip(self.values, self.is_compared, strict=True) if is_in
        )
        factor = known.share / (1 - known.share) * (reach or 1.0) / (known.bound or 1.0)
        return tuple(factor * table for table in known.tables)

    @cached_property
    def neighbours(self) -> list[set[int]]:
        """Pairs that share a tensor; one that stands on two axes of a tensor is its own neighbour too."""
        found = [{pair} if self.is_coupled(pair) else set() for pair in range(self.count)]
        for _, axes in self.found.terms:
            here = {block.pair for axis in axes for block in axis.blocks if block.pair >= 0}
            for pair in here:
                found[pair] |= here - {pair}
        return found

    # --- scores ---

    def scores(self, pair: int, orders: Sequence[Order | None]) -> Scores:
        """What each base unit gains from each donor unit, shape (base units, donor units); read-only."""
        products = self.weight_scores(pair, orders)
        return products + self.extra[pair] if self.extra else products

    def weight_scores(self, pair: int, orders: Sequence[Order | None]) -> Scores:
        """The same by the weights alone.

        Tensors whose other axes hold an order that is not known yet are left out.
        """
        touches = [touch for touch in self.touching[pair] if self.is_compared[touch[0]]]
        under = {touch: other for touch in touches if (other := self.others(touch, orders)) is not None}
        table = self.tables.get(pair)
        if table is None or self.is_stale(table, under):
            table = self.tables[pair] = Table(np.zeros(self.found.units[pair]), {})
        new = {touch: others for touch, others in under.items() if touch not in table.under}
        if new:
            table.scores += self.products(new)
        for touch, before in table.under.items():
            self.update(table.scores, touch, before, under[touch])
        table.under = under
        return table.scores

    def others(self, touch: Touch, orders: Sequence[Order | None]) -> dict[int, Order] | None:
        """The donor position on each base position of a tensor's other axes, where they are not whole; None if that is
        not known yet."""
        found = {}
        for other, axis in enumerate(self.found.terms[touch[0]][1]):
            if other == touch[1] or is_whole(axis):
                continue
            positions = matched_positions(axis, orders)
            if positions is None:
                return None
            found[other] = np.full(axis.size, -1)
            found[other][positions[0]] = positions[1]
        return found

    def is_stale(self, table: Table, under: Mapping[Touch, Mapping[int, Order]]) -> bool:
        """Whether replacing what has changed would cost more than starting anew, or cannot be done."""
        changed = total = 0.0
        for touch, before in table.under.items():
            after = under.get(touch)
            if after is None:
                return True
            size = self.values[touch[0]][0].size
            total += size
            changed += sum(size * float(np.mean(before[i] != after[i])) for i in before)
        return changed > STALE * total

    def update(self, scores: Scores, touch: Touch, before: Mapping[int, Order], after: Mapping[int, Order]) -> None:
        """Replace the products of the units that stand elsewhere now, axis by axis."""
        now = dict(before)
        for other, order in after.items():
            changed = np.flatnonzero(now[other] != order)
            if changed.size:
                base, donor = cuts(now)
                base[other] = changed
                rows = self.rows(0, touch, base)
                new, old = (self.rows(1, touch, {**donor, other: placed[changed]}) for placed in (order, now[other]))
                scores += rows @ (new - old).T
            now[other] = order

    def products(self, under: Mapping[Touch, Mapping[int, Order]]) -> Array:
        """The inner products of the units' rows in some tensors, shape (base units, donor units)."""
        rows = [
            [self.rows(side, touch, cut) for side, cut in enumerate(cuts(others))] for touch, others in under.items()
        ]
        narrow = [pair for pair in rows if pair[0].shape[1] < NARROW]
        wide = [pair for pair in rows if pair[0].shape[1] >= NARROW]
        if narrow:
            wide.append([np.concatenate(side, axis=1) for side in zip(*narrow, strict=True)])
        (a, d), *others = wide
        total: Array = a @ d.T
        for a, d in others:
            total += a @ d.T
        return total

    def rows(self, side: int, touch: Touch, cut: Mapping[int, Index]) -> Array:
        """The rows of one tensor for the units of one block, shape (units, features), of the base (side 0) or the donor
        (1), with other axes cut to these positions."""
        t, place, b = touch
        values = self.values[t][side]
        for other, positions in cut.items():
            values = taken(values, positions, other)
        block = self.found.terms[t][1][place].blocks[b]
        return unit_rows(values, place, block.donor if side else block.base)

    def distances(self, pair: int, orders: Sequence[Order | None]) -> tuple[Scores, float, float]:
        """Minus half the squared distances of the base's units to the donor's, over all tensors, compared or not.

        Returns:
            the distances but for what every assignment pays: the squared lengths of a side of which every unit has a
            partner; half of what it pays; half the donor's squared lengths, summed.
        """
        touches = self.touching[pair]
        under = {touch: others for touch in touches if (others := self.others(touch, orders)) is not None}
        rest = {touch: others for touch, others in under.items() if not self.is_compared[touch[0]]}
        table = self.weight_scores(pair, orders)
        if rest:
            table = table + self.products(rest)
        a, d = (0.5 * self.squares(pair, side, under) for side in (0, 1))
        if len(a) > len(d):
            table = table - a[:, None]
        if len(a) < len(d):
            table = table - d
        paid = sum(float(side.sum()) for side in (a, d) if len(side) == min(len(a), len(d)))
        return table, paid, float(d.sum())

    def squares(self, pair: int, side: int, under: Mapping[Touch, Mapping[int, Order]]) -> Scores:
        """The squared lengths of the units' rows in some tensors."""
        total = np.zeros(self.found.units[pair][side])
        for (t, place, b), others in under.items():
            values = self.values[t][side]
            for other, positions in cuts(others)[side].items():
                values = taken(values, np.sort(positions), other)
            block = self.found.terms[t][1][place].blocks[b]
            total += unit_squares(values, place, block.donor if side else block.base)
        return total

    def figures(self, pair: int, orders: Orders) -> tuple[float, float]:
        """What a pair contributes, given the others, and the mean of that over all its random assignments."""
        table = self.scores(pair, orders)
        return value(table, orders[pair]), random_value(table)

    # --- starts ---

    @cached_property
    def size(self) -> int:
        """Entries of all tensors of both models."""
        return sum(a.size + d.size for a, d in self.values)

    @property
    def spare_starts(self) -> int:
        """How many more times the problem can be started for little."""
        return min(MAX_STARTS, TINY // max(1, self.size))

    def forward(self, seed: int) -> Orders:
        """Assign the pairs in the order of the base's layers, by what is assigned before them. With a seed, what is
        equal even so is decided at random."""
        rng = np.random.default_rng(seed)
        orders: list[Order | None] = [None] * self.count
        for pair in self.in_order(orders, compared=True):
            orders[pair] = match_units(with_ties_broken(self.scores(pair, orders), rng if seed else None))
        return tuple(order for order in orders if order is not None)

    def forward_by_distance(self, seed: int) -> Orders | None:
        """The same by distance; None where a large problem's units turn out to be nothing like copies.

        Units that this leaves equal (dead ones, twins) are told apart by the sorted entries of the tensors behind them,
        which do not depend on what is assigned there.
        """
        rng = np.random.default_rng(seed)
        orders: list[Order | None] = [None] * self.count
        distance = norm = 0.0
        for pair in self.in_order(orders, compared=False):
            table, paid, length = self.distances(pair, orders)
            hinted = table + HINT * self.sorted_scores(pair, orders) if has_ties(table) else table
            order = match_units(with_ties_broken(hinted, rng if seed else None))
            distance += paid - value(table, order)
            norm += length
            if not self.spare_starts and distance > NEAR * norm:
                return None
            orders[pair] = order
        return tuple(order for order in orders if order is not None)

    def in_order(self, orders: Sequence[Order | None], compared: bool) -> Iterator[int]:
        """Every pair, the first next that a tensor tells something about while `orders` is being filled."""
        waiting = list(range(self.count))
        while waiting:
            pair = next((p for p in waiting if self.is_ready(p, orders, compared)), waiting[0])
            waiting.remove(pair)
            yield pair

    def is_ready(self, pair: int, orders: Sequence[Order | None], compared: bool) -> bool:
        """Whether a tensor tells the units of a pair apart: one whose other axes are assigned; or evidence does."""
        return bool(compared and self.extra and self.extra[pair].any()) or any(
            (self.is_compared[t] or not compared)
            and all(
                block.pair < 0 or orders[block.pair] is not None
                for other, axis in enumerate(self.found.terms[t][1])
                if other != place
                for block in axis.blocks
            )
            for t, place, _ in self.touching[pair]
        )

    def sorted_scores(self, pair: int, orders: Sequence[Order | None]) -> Scores:
        """Minus the squared distances of the units' sorted entries, in the tensors whose other axes are not assigned
        yet and are equally long."""
        total = np.zeros(self.found.units[pair])
        for t, place, b in self.touching[pair]:
            block = self.found.terms[t][1][place].blocks[b]
            a, d = self.values[t]
            if self.others((t, place, b), orders) is None:
                mine, theirs = np.sort(unit_rows(a, place, block.base)), np.sort(unit_rows(d, place, block.donor))
                if mine.shape[1] == theirs.shape[1]:
                    total += minus_distances(mine, theirs)
        return total

    # --- updates ---

    def nearest(self, start: Orders) -> Orders:
        """Solve pair after pair for the least distance, each again when a neighbour changed. Units that the tensors
        before them do not tell apart (dead ones, twins) are told apart by those behind."""
        orders = list(start)
        waiting = deque(range(self.count))
        budget = MAX_VISITS * self.count
        while waiting and budget:
            budget -= 1
            pair = waiting.popleft()
            table, _, _ = self.distances(pair, orders)
            new = match_units(table)
            gained = value(table, new) - value(table, orders[pair])
            if gained > TOLERANCE * float(np.abs(table).max(initial=0.0)):
                orders[pair] = new
                waiting.extend(sorted(self.neighbours[pair] - set(waiting)))
        return tuple(orders)

    def ascended(self, start: Orders) -> tuple[Orders, tuple[float, ...]]:
        """Solve pair after pair, each again when a neighbour changed, until none gains."""
        orders = list(start)
        history = [self.objective(start)]
        waiting = deque(range(self.count))
        while waiting:
            gained = 0.0
            for _ in range(len(waiting)):  # one pass
                pair = waiting.popleft()
                gain = self.improve(pair, orders)
                gained += gain
                if gain:
                    waiting.extend(sorted(self.neighbours[pair] - set(waiting)))
            history.append(history[-1] + gained)
        return tuple(orders), tuple(history)

    def improve(self, pair: int, orders: list[Order]) -> float:
        """Put the best order of one pair in place, if it gains more than rounding; what it gains, else 0."""
        table = self.scores(pair, orders)
        new = match_units(table)
        gain = value(table, new) - value(table, orders[pair])
        if gain <= TOLERANCE * float(np.abs(table).max(initial=0.0)) * len(new):
            return 0.0
        if self.is_coupled(pair):  # it stands on two axes of one tensor, where the score is only a linearisation
            before = self.objective(orders)
            gain = self.objective([*orders[:pair], new, *orders[pair + 1 :]]) - before
            if gain <= TOLERANCE * abs(before):
                return 0.0
        orders[pair] = new
        return gain

    def is_coupled(self, pair: int) -> bool:
        """Whether one tensor has the pair on two axes."""
        places = {(t, place) for t, place, _ in self.touching[pair]}
        return len({t for t, _ in places}) < len(places)

    # --- the objective ---

    def objective(self, orders: Sequence[Order]) -> float:
        """The sum over all tensors of <A, P_out B P_in^T>, and over all pairs of the evidence."""
        products = sum(dot(*self.cut(t, orders)) for t in range(len(self.found.terms)) if self.is_compared[t])
        return products + sum(value(table, order) for table, order in zip(self.extra, orders, strict=False))

    def cut(self, t: int, orders: Sequence[Order]) -> tuple[Array, Array]:
        """The matched entries of one tensor of both models, in the same order."""
        a, d = self.values[t]
        for place, axis in enumerate(self.found.terms[t][1]):
            if is_whole(axis):
                continue
            positions = matched_positions(axis, orders)
            assert positions is not None  # every order is known here
            a, d = taken(a, positions[0], place), taken(d, positions[1], place)
        return a, d

    def is_copy(self, orders: Sequence[Order]) -> bool:
        """Whether the matched entries of every tensor are equal but for rounding."""
        cuts = (self.cut(t, orders) for t in range(len(self.found.terms)))
        return all(squared(a - d) <= COPY * squared(d) for a, d in cuts)


def is_whole(axis: AxisPair) -> bool:
    """Whether an axis corresponds position by position, end to end."""
    whole = len(axis.blocks) == 1 and axis.blocks[0].pair < 0 and len(axis.blocks[0].base) == axis.size
    return whole and axis.donor_size <= axis.size


def cuts(others: Mapping[int, Order]) -> tuple[dict[int, Index], dict[int, Index]]:
    """The matched positions of some axes, of the base and of the donor."""
    base = {other: np.flatnonzero(order >= 0) for other, order in others.items()}
    return base, {other: order[base[other]] for other, order in others.items()}


def taken(values: Array, positions: Index, place: int) -> Array:
    """The entries at these positions of an axis, in their order, zero at -1; the array itself where nothing changes."""
    if len(positions) == values.shape[place] and (positions == np.arange(len(positions))).all():
        return values
    found = values.take(positions, axis=place)
    none = positions < 0
    if none.any():
        np.moveaxis(found, place, 0)[none] = 0
    return found


def unit_rows(values: Array, place: int, positions: Index) -> Array:
    """The entries that belong to each unit, as rows, shape (units, features)."""
    return np.moveaxis(taken(values, positions.ravel(), place), place, 0).reshape(len(positions), -1)


def unit_squares(values: Array, place: int, positions: Index) -> Array:
    """The squared length of each unit's row."""
    axes = list(range(values.ndim))
    squares = np.einsum(values, axes, values, axes, [place])
    found: Scores = squares[positions].sum(axis=1, dtype=np.float64)
    return found


def has_ties(score: Scores) -> bool:
    """Whether some unit's best two scores are equal but for rounding."""
    if score.shape[1] < 2:
        return False
    best = score.max(axis=1)
    return bool(np.count_nonzero(score >= (best - TIE * np.abs(best).max())[:, None]) > len(score))


def with_ties_broken(score: Scores, rng: np.random.Generator | None) -> Scores:
    """The scores with equal ones told apart at random, if there is a generator."""
    if rng is None:
        return score
    return score + TIE * float(np.abs(score).max(initial=0.0)) * rng.random(score.shape)


def dot(a: Array, b: Array) -> float:
    """The inner product of two arrays."""
    a, b = np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel()
    return sum(float(np.dot(a[i : i + BLOCK], b[i : i + BLOCK])) for i in range(0, a.size, BLOCK))


def squared(a: Array) -> float:
    return dot(a, a)


def minus_distances(a: Array, b: Array) -> Scores:
    """Minus the squared distance of every two rows, shape (rows of a, rows of b)."""
    squares = [np.einsum("uf,uf->u", rows, rows, dtype=np.float64) for rows in (a, b)]
    found: Scores = 2.0 * (a @ b.T) - squares[0][:, None] - squares[1]
    return found


def as_permutation(order: Order, others: int) -> Order:
    """The order with -1 left out and the donor's unmatched units appended: a permutation of the donor's units."""
    used = order[order >= 0]
    return np.concatenate([used, np.setdiff1d(np.arange(others), used)])
