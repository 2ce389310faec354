"""The objective of the assignment: the sum, over the tensors of matched layers, of <A, P_out B P_in^T>.

The time goes into the products that make up the scores, so no product is computed twice: the scores of every pair are
kept with the orders they belong to, and where orders of other pairs have changed since, what the units that moved
contributed is replaced (`Objective.scores`). Refused: a table for every tensor instead of every pair, which is simpler
but takes the memory of the model many times over.

Scores of units from elsewhere, such as their activations, join as `Evidence`: a table for every pair, which does not
depend on the others. Both sums are divided by what they can reach, so that one number says how much each counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike
from scipy.linalg.blas import sgemm

from mal_graph.brief import Brief
from mal_graph.graph import Array
from mal_graph.matching.alignment_memory import alignment_need, is_mapped, score_type
from mal_graph.matching.axis_pairs import AxisPair, Index, summed_units, take_positions, unit_rows
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.orders import (
    Order,
    Orders,
    ScoreTable,
    is_whole,
    match_positions,
    score_order,
)
from mal_graph.matching.tensor_pairs import Read
from mal_graph.matching.unit_kinds import keep_apart
from mal_graph.memory_budget import room_for

NARROW = 64  # features: tensors with fewer are multiplied together, so that the table is gone through once for them
STALE = 0.7  # of what a table sums up: where more of it has changed, it is summed up anew
MOST_HELD = 1 << 29  # bytes of tables; those of VGG16, the largest of which are dear to make, take 300 MiB
BLOCK = 1 << 14  # entries that are summed up at once, so that float32 is exact enough for any size

Touch = tuple[int, int, int]  # index of a term, of one of its axes, of a block on that axis


@dataclass(frozen=True, repr=False)
class Evidence(Brief):
    """What else than their weights says which units correspond to each other.

    Attributes:
        tables: per pair of groups, shape (base units, donor units); zero where nothing is known.
        bound: what all assigned scores can add up to.
        share: how much it counts, between 0 and 1; the weights count the rest.
    """

    tables: tuple[ScoreTable, ...]
    bound: float
    share: float


@dataclass
class Table:
    """Summed inner products of the units of one pair, and what was assigned on the tensors' other axes for them."""

    scores: ScoreTable
    under: dict[Touch, dict[int, Order]]


class Values:
    """The values of the tensors of both models, by number: what lies in a file is read there each time, so that its
    pages can be let go of, and all else is kept once it was read."""

    def __init__(self, reads: Sequence[tuple[Read, Read]]) -> None:
        self.reads = reads
        self.kept = [(kept_values(base), kept_values(donor)) for base, donor in reads]

    def __getitem__(self, number: int) -> tuple[Array, Array]:
        """The values of a tensor of the base, and of the donor."""
        base, donor = (
            read() if kept is None else kept for read, kept in zip(self.reads[number], self.kept[number], strict=True)
        )
        return base, donor

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return map(self.__getitem__, range(len(self.reads)))


def kept_values(read: Read) -> Array | None:
    """What a reader gives; None where it lies in a file."""
    return None if is_mapped(read) else read()


class Objective:
    """The objective over a correspondence, with the values it is computed from.

    Raises:
        MemoryLimitError: it would take more memory than there is for it; as many tables are kept as there is room for.
    """

    def __init__(self, correspondence: Correspondence, evidence: Evidence | None = None) -> None:
        self.correspondence = correspondence
        self.evidence = evidence
        self.nests = correspondence.nests
        self.units = correspondence.units
        self.count = len(self.units)
        self.axes = [axes for _, axes in correspondence.tensors]
        self.is_compared = [tensor.is_compared for tensor, _ in correspondence.tensors]
        self.touching: list[list[Touch]] = [[] for _ in range(self.count)]
        for t, axes in enumerate(self.axes):
            for place, axis in enumerate(axes):
                for b, block in enumerate(axis.blocks):
                    if block.pair >= 0:
                        self.touching[block.pair].append((t, place, b))
        self.known: dict[int, Table] = {}  # what was asked for last stands last
        self.held = 0  # bytes of these
        self.most_held = room_for(alignment_need(correspondence, evidence is not None, MOST_HELD))

    @cached_property
    def values(self) -> "Values":
        return Values([(tensor.base_values, tensor.donor_values) for tensor, _ in self.correspondence.tensors])

    @cached_property
    def extra(self) -> tuple[ScoreTable, ...]:
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
    def neighbours(self) -> dict[int, set[int]]:
        """By outermost pair those that share a tensor with it or with what is inside it; one that stands on two axes of
        a tensor is its own neighbour too."""
        roots = self.nests.roots
        neighbours = {root: {root} if self.is_coupled(root) else set() for root in self.nests.bundles}
        for axes in self.axes:
            here = {roots[block.pair] for axis in axes for block in axis.blocks if block.pair >= 0}
            for root in here:
                neighbours[root] |= here - {root}
        return neighbours

    def scores(self, pair: int, orders: Sequence[Order | None]) -> ScoreTable:
        """What each base unit gains from each donor unit, shape (base units, donor units); read-only."""
        products = self.weight_scores(pair, orders)
        return products + self.extra[pair] if self.extra else products

    def weight_scores(self, pair: int, orders: Sequence[Order | None]) -> ScoreTable:
        """The same by the weights alone.

        Tensors whose other axes hold an order that is not known yet are left out.
        """
        touches = [touch for touch in self.touching[pair] if self.is_compared[touch[0]]]
        under = {touch: other for touch in touches if (other := self.others(touch, orders)) is not None}
        table = self.known.pop(pair, None)
        self.held -= 0 if table is None else table.scores.nbytes
        if table is None or self.is_stale(table, under):
            table = Table(np.zeros(self.units[pair], self.type_of(pair)), {})
        self.hold(pair, table)
        new = {touch: others for touch, others in under.items() if touch not in table.under}
        if new:
            self.products(new, table.scores)
        for touch, before in table.under.items():
            self.update(table.scores, touch, before, under[touch])
        table.under = under
        return table.scores

    def type_of(self, pair: int) -> DTypeLike:
        """The type of a pair's table: half the memory where rounding adds up to less than what counts as a gain."""
        is_double = any(self.values[t][0].dtype == np.float64 for t, _, _ in self.touching[pair])
        return score_type(*self.units[pair]) if not is_double else np.float64

    def hold(self, pair: int, table: Table) -> None:
        """Keep a table, and let go of those that were not asked for longest: they can be made anew."""
        self.known[pair] = table
        self.held += table.scores.nbytes
        while self.held > self.most_held and len(self.known) > 1:
            self.held -= self.known.pop(next(iter(self.known))).scores.nbytes

    def others(self, touch: Touch, orders: Sequence[Order | None]) -> dict[int, Order] | None:
        """The donor position on each base position of a tensor's other axes, where they are not whole; None if that is
        not known yet."""
        others = {}
        for other, axis in enumerate(self.axes[touch[0]]):
            if other == touch[1] or is_whole(axis):
                continue
            positions = match_positions(axis, orders)
            if positions is None:
                return None
            others[other] = np.full(axis.size, -1)
            others[other][positions[0]] = positions[1]
        return others

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

    def update(self, scores: ScoreTable, touch: Touch, before: Mapping[int, Order], after: Mapping[int, Order]) -> None:
        """Replace the products of the units that stand elsewhere now, axis by axis."""
        now = dict(before)
        for other, order in after.items():
            changed = np.flatnonzero(now[other] != order)
            if changed.size:
                base, donor = cuts(now)
                base[other] = changed
                rows = self.rows(0, touch, base)
                new, old = (self.rows(1, touch, {**donor, other: placed[changed]}) for placed in (order, now[other]))
                add_product(scores, rows, new - old)
            now[other] = order

    def products(self, under: Mapping[Touch, Mapping[int, Order]], total: Array) -> Array:
        """A table with the inner products of the units' rows in some tensors added, shape (base units, donor units)."""
        narrow: list[list[Array]] = []
        for touch, others in under.items():  # the rows of one tensor at a time
            rows = [self.rows(side, touch, cut) for side, cut in enumerate(cuts(others))]
            if rows[0].shape[1] < NARROW:
                narrow.append(rows)
            else:
                add_product(total, *rows)
        if narrow:
            add_product(total, *(np.concatenate(side, axis=1) for side in zip(*narrow, strict=True)))
        return total

    def rows(self, side: int, touch: Touch, cut: Mapping[int, Index]) -> Array:
        """The rows of one tensor for the units of one block, shape (units, features), of the base (side 0) or the donor
        (1), with other axes cut to these positions."""
        t, place, b = touch
        values = self.values[t][side]
        for other, positions in cut.items():
            values = take_positions(values, positions, other)
        block = self.axes[t][place].blocks[b]
        return unit_rows(values, place, block.donor if side else block.base)

    def solve(
        self, root: int, tables: Mapping[int, ScoreTable], known: Sequence[Order] | None = None
    ) -> dict[int, Order]:
        """The best orders of the pairs that are assigned together (see `Nests.solve`), with as few units of two kinds
        on each other as there can be."""
        kinds = {pair: own for pair, own in self.correspondence.kinds.items() if pair in tables}
        if kinds:
            reach = sum(2.0 * len(table) * float(np.abs(table).max(initial=0.0)) for table in tables.values())
            tables = {
                pair: table - (2.0 * reach or 1.0) * kinds[pair].differ if pair in kinds else table
                for pair, table in tables.items()
            }
        return self.nests.solve(root, tables, known)

    def is_allowed(self, orders: Orders) -> bool:
        """Whether no units of two kinds are on each other."""
        return keep_apart(self.correspondence.kinds, orders)

    def figures(self, orders: Orders) -> tuple[float, list[float], list[float]]:
        """The value of orders, what every pair contributes to it, given the others, and the mean of that over all its
        random assignments."""
        value, worth = 0.0, [0.0] * self.count
        for t, axes in enumerate(self.axes):
            if self.is_compared[t]:
                a, d = self.cut(t, orders)
                product = dot(a, d)
                value += product
                for place, axis in enumerate(axes):
                    shares = [product] if len(axis.blocks) == 1 else block_products(axis, orders, place, a, d)
                    for block, share in zip(axis.blocks, shares, strict=True):
                        if block.pair >= 0:
                            worth[block.pair] += share
        for pair, extra in enumerate(self.extra):
            own = score_order(extra, orders[pair])
            worth[pair] += own
            value += own
        return value, worth, [self.total(pair, orders) / self.nests.spread(pair) for pair in range(self.count)]

    def total(self, pair: int, orders: Orders) -> float:
        """The sum of all scores of a pair, without the products that make them up where these are not at hand."""
        touches = [touch for touch in self.touching[pair] if self.is_compared[touch[0]]]
        under = {touch: self.others(touch, orders) or {} for touch in touches}
        extra, table = float(self.extra[pair].sum()) if self.extra else 0.0, self.known.get(pair)
        if table is not None and is_same(table.under, under):
            return extra + float(table.scores.sum(dtype=np.float64))
        return extra + sum(dot(*(self.summed(side, touch, under[touch]) for side in (0, 1))) for touch in touches)

    def summed(self, side: int, touch: Touch, others: Mapping[int, Order]) -> Array:
        """The sum of the rows of the units of one block."""
        t, place, b = touch
        block = self.axes[t][place].blocks[b]
        values = summed_units(self.values[t][side], place, block.donor if side else block.base)
        for other, positions in cuts(others)[side].items():
            values = take_positions(values, positions, other)
        return values

    def tables(self, root: int, orders: Sequence[Order | None]) -> dict[int, ScoreTable]:
        """The scores of a pair and of those inside it."""
        return {pair: self.scores(pair, orders) for pair in self.nests.bundles[root]}

    def is_coupled(self, root: int) -> bool:
        """Whether one tensor has a pair, or what is inside it, on two axes."""
        places = {(t, place) for pair in self.nests.bundles[root] for t, place, _ in self.touching[pair]}
        return len({t for t, _ in places}) < len(places)

    def value(self, orders: Sequence[Order | None]) -> float:
        """The sum over all tensors of <A, P_out B P_in^T>, and over all pairs of the evidence; of those whose orders
        are known."""
        known = (t for t in range(len(self.axes)) if self.is_compared[t] and self.is_known(t, orders))
        products = sum(dot(*self.cut(t, orders)) for t in known)
        extra = zip(self.extra, orders, strict=False)
        return products + sum(score_order(table, order) for table, order in extra if order is not None)

    def is_known(self, t: int, orders: Sequence[Order | None]) -> bool:
        """Whether the orders on all axes of a tensor are known."""
        return all(block.pair < 0 or orders[block.pair] is not None for axis in self.axes[t] for block in axis.blocks)

    def cut(self, t: int, orders: Sequence[Order | None]) -> tuple[Array, Array]:
        """The matched entries of one tensor of both models, in the same order."""
        a, d = self.values[t]
        for place, axis in enumerate(self.axes[t]):
            if is_whole(axis):
                continue
            positions = match_positions(axis, orders)
            assert positions is not None  # every order of a tensor that is cut is known
            a, d = take_positions(a, positions[0], place), take_positions(d, positions[1], place)
        return a, d


def add_product(total: Array, a: Array, d: Array) -> None:
    """Add the inner products of some rows to a table, in its place."""
    is_single = total.dtype == a.dtype == d.dtype == np.float32
    if not (is_single and a.size and total.flags.c_contiguous):
        total += a @ d.T
        return
    # What is ordered by columns, as the library of numpy wants it, is the transpose of what is ordered by rows.
    by_rows = [rows.flags.c_contiguous for rows in (d, a)]
    first, second = (rows.T if is_by_rows else rows for rows, is_by_rows in zip((d, a), by_rows, strict=True))
    sgemm(1.0, first, second, beta=1.0, c=total.T, trans_a=by_rows[0], trans_b=not by_rows[1], overwrite_c=True)


def block_products(axis: AxisPair, orders: Orders, place: int, a: Array, d: Array) -> list[float]:
    """The inner product of the matched entries of a tensor, by block of one of its axes."""
    lengths = [match_positions(AxisPair(axis.size, (block,)), orders) for block in axis.blocks]
    ends = np.cumsum([len(both[0]) for both in lengths if both is not None])[:-1]
    return [dot(*both) for both in zip(np.split(a, ends, place), np.split(d, ends, place), strict=True)]


def is_same(one: Mapping[Touch, Mapping[int, Order]], other: Mapping[Touch, Mapping[int, Order]]) -> bool:
    """Whether the same was assigned on the tensors' other axes."""
    return one.keys() == other.keys() and all(
        own.keys() == other[touch].keys() and all(np.array_equal(own[place], other[touch][place]) for place in own)
        for touch, own in one.items()
    )


def cuts(others: Mapping[int, Order]) -> tuple[dict[int, Index], dict[int, Index]]:
    """The matched positions of some axes, of the base and of the donor."""
    base = {other: np.flatnonzero(order >= 0) for other, order in others.items()}
    return base, {other: order[base[other]] for other, order in others.items()}


def dot(a: Array, b: Array) -> float:
    """The inner product of two arrays."""
    a, b = np.ascontiguousarray(a).ravel(), np.ascontiguousarray(b).ravel()
    return sum(float(np.dot(a[i : i + BLOCK], b[i : i + BLOCK])) for i in range(0, a.size, BLOCK))


def squared(a: Array) -> float:
    return dot(a, a)
