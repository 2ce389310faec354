"""A start of the assignment that does not decide on the way: forward from the inputs, with soft orders.

Where the units of a layer can hardly be told apart, deciding on each pair in turn is wrong so often that the layers
behind are compared with their inputs in a wrong order, and nothing leads back. A soft order keeps all that is likely:
it multiplies an axis of the donor by shares whose rows and columns add up (Sinkhorn and Knopp 1967; as in the soft
assignment of Gold and Rangarajan 1996). Every pair is assigned by the scores that it gets so.

Chosen: softly the first pairs only, where some cost little beside the rest. Two copies come out right there, and what
is behind follows by deciding on the way; strangers are told for a few hundredths of the work. Refused: all pairs
softly, after all others were raised - as dear as that once more, and what was found was the same.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from math import log, sqrt
from statistics import median

import numpy as np

from mal_graph.graph import Array
from mal_graph.matching.ascents import ascend
from mal_graph.matching.axis_pairs import AxisPair, take_positions, unit_rows
from mal_graph.matching.objective import Objective
from mal_graph.matching.orders import Order, ScoreTable
from mal_graph.matching.starts import next_pairs, put

CHEAP = 0.03  # of all products: what those of the first pairs may be
FEWEST = 4  # pairs that tell whether a soft start leads further
FAR = 1.2  # times what deciding on the way comes to: how much better softly assigned pairs must fit
CLOSE = 0.98  # times that: what they must reach in one pass to be raised further
SHARPNESS = 2.5  # of the shares: how many standard deviations of a score make e times the share
ROUNDS = 8  # of making rows and columns add up
LOWEST = -300.0  # logarithm of the least share of a best one: products of what is less are no numbers any more

Shares = Mapping[int, Array]  # of each pair whose units are known softly, shape (base units, donor units)


def begin_forward(objective: Objective) -> tuple[str, tuple[Order | None, ...]]:
    """Orders of the first pairs for a forward start, and its name: "soft" where units were assigned softly since that
    leads far above what deciding on the way does. No orders where there are no pairs that cost little.

    Where layers can hardly be told apart, the first pairs show it. Of two copies they come out right softly assigned,
    and all behind them then follows; of models that have nothing in common, softly assigned is not better.
    """
    first = first_pairs(objective)
    if not first:
        return "forward", ()
    hard: list[Order | None] = [None] * objective.count
    for root in first:
        put(objective.solve(root, objective.tables(root, hard)), hard)
    if not is_faint(objective, hard):
        return "forward", tuple(hard)
    soft = assign_softly(objective, len(first))
    reached = objective.value(hard)
    raised, history = ascend(objective, soft, least=CLOSE * reached)
    return ("soft", raised) if history[-1] >= FAR * reached else ("forward", tuple(hard))


def first_pairs(objective: Objective) -> list[int]:
    """The pairs that the forward start comes to first, as many as take a small share of all products; none where these
    are too few to tell anything, or groups lie inside others."""
    if has_nests(objective):
        return []
    orders: list[Order | None] = [None] * objective.count
    every = [np.zeros(0, np.int64)] * objective.count
    most, first = CHEAP * count_products(objective, every), list[int]()
    for root in next_pairs(objective, orders, compared=True):
        orders[root] = every[root]
        if count_products(objective, orders) > most:
            break
        first.append(root)
    return first if len(first) >= FEWEST else []


def count_products(objective: Objective, orders: Sequence[Order | None]) -> int:
    """How many multiplications the scores of all pairs take, by the tensors whose orders are known."""
    return sum(
        len(block.base) * objective.values[t][1].size
        for t, axes in enumerate(objective.axes)
        if objective.is_compared[t] and objective.is_known(t, orders)
        for axis in axes
        for block in axis.blocks
        if block.pair >= 0
    )


def assign_softly(objective: Objective, most: int | None = None) -> tuple[Order | None, ...]:
    """Assign the pairs, or the first few, in the order of the base's layers by what is known softly before them. Not
    where groups lie inside others, whose shares would have to be those of both."""
    orders: list[Order | None] = [None] * objective.count
    shares: dict[int, Array] = {}
    known: set[int] = set()
    for root in islice(next_pairs(objective, orders, compared=True), most):
        shares[root], logarithms = balanced(soft_scores(objective, root, shares))
        known.add(root)
        for pair in [pair for pair in shares if objective.neighbours[pair] <= known]:
            del shares[pair]  # nobody asks for them any more, and there are many pairs
        put(objective.solve(root, {root: logarithms}), orders)
    return tuple(orders)


def has_nests(objective: Objective) -> bool:
    """Whether groups lie inside the units of others, or across them."""
    return any(len(bundle) > 1 for bundle in objective.nests.bundles.values())


def soft_scores(objective: Objective, pair: int, shares: Shares) -> ScoreTable:
    """The scores of the units of a pair by the tensors whose other axes are known: an array of its own."""
    scores = np.zeros(objective.units[pair])
    for t, place, b in objective.touching[pair]:
        axes = objective.axes[t]
        known = all(
            block.pair < 0 or block.pair in shares
            for other, axis in enumerate(axes)
            if other != place
            for block in axis.blocks
        )
        if not objective.is_compared[t] or not known:
            continue
        a, d = objective.values[t]
        block = axes[place].blocks[b]
        d = take_positions(d, block.donor.ravel(), place)
        for other, axis in enumerate(axes):
            if other != place:
                d = softly_placed(d, other, axis, shares)
        own = np.arange(block.donor.size).reshape(block.donor.shape)
        scores += unit_rows(a, place, block.base) @ unit_rows(d, place, own).T
    if objective.extra:
        scores += objective.extra[pair]
    return scores


def softly_placed(values: Array, place: int, axis: AxisPair, shares: Shares) -> Array:
    """The donor's values with each entry of one axis replaced by those that may stand there, by their shares."""
    moved = np.moveaxis(values, place, 0)
    placed = np.zeros((axis.size, *moved.shape[1:]), np.float32)
    for block in axis.blocks:
        if block.pair < 0:
            placed[block.base.ravel()] = moved[block.donor.ravel()]
            continue
        taken = moved[block.donor.ravel()].reshape(len(block.donor), -1)
        made = shares[block.pair] @ taken
        placed[block.base.ravel()] = made.reshape(-1, *moved.shape[1:])
    return np.moveaxis(placed, 0, place)


def balanced(scores: ScoreTable) -> tuple[Array, ScoreTable]:
    """Shares of the units of either side in each other, and their logarithms, which take the place of the scores.

    The logarithms are the scores, stretched and less a number for each row and column, so that between sides of equal
    length the same assignment is best; it is found several times faster.
    """
    units, others = scores.shape
    spread = float(scores.std()) or 1.0
    logarithms = scores
    logarithms -= scores.max(axis=1, keepdims=True)
    logarithms *= SHARPNESS
    logarithms /= spread
    np.maximum(logarithms, LOWEST, out=logarithms)
    shares = np.exp(logarithms)
    rows, columns = np.ones(units), np.ones(others)
    for _ in range(ROUNDS):  # no unit is used up more than once
        columns = min(units, others) / others / (rows @ shares)
        rows = min(units, others) / units / (shares @ columns)
    logarithms += np.log(rows)[:, None]
    logarithms += np.log(columns)
    shares *= rows[:, None]
    shares *= columns
    return shares.astype(np.float32), logarithms


def is_faint(objective: Objective, orders: Sequence[Order | None]) -> bool:
    """Whether most pairs are assigned no better than chance allows: the best of n normal draws lies sqrt(2 ln n)
    deviations above their mean."""
    heights = []
    for pair, order in enumerate(orders):
        if order is None:
            continue
        table, rows = objective.scores(pair, orders), np.flatnonzero(order >= 0)
        spread, count = float(table.std()), max(table.shape)
        if spread and count > 1:
            chosen = float(table[rows, order[rows]].mean() - table.mean())
            heights.append(chosen / spread / sqrt(2 * log(count)))
    return bool(heights) and median(heights) < 1
