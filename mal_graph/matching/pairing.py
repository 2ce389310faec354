"""The best monotone pairing of the layers of two models, from the scores of every two layers.

The best monotone pairing of two canonical linear orders by dynamic programming (as the cross-layer alignment of Nguyen
et al. 2021, arXiv:2110.15538); then exchanges between parallel branches while they gain, where layers that follow each
other in both models count too: of branches alike the layers of one correspond to the layers of one. Exact pairing under
a partial order is not attempted: it is NP-hard in general.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mal_graph.matching.layer_profile import Profile

MIN_SCORE = 0.35  # two layers less alike than this are never paired
FOLLOWS = 0.05  # what two layers add that follow each other in both models


def pair_monotonely(a: Profile, b: Profile, scores: NDArray[np.float64]) -> dict[int, int]:
    """The best pairing in which both linear orders agree, gaps on both sides, by dynamic programming."""
    rows, columns = a.order, b.order
    gains = np.where(scores >= MIN_SCORE, scores, -np.inf)[np.ix_(rows, columns)]
    best = np.zeros((len(rows) + 1, len(columns) + 1))
    for i in range(len(rows)):
        taken = best[i, :-1] + gains[i]
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], taken))
    chosen: dict[int, int] = {}
    i, j = len(rows), len(columns)
    while i and j:
        if best[i, j] == best[i - 1, j - 1] + gains[i - 1, j - 1]:
            i, j = i - 1, j - 1
            chosen[rows[i]] = columns[j]
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return chosen


def exchange_partners(a: Profile, b: Profile, scores: NDArray[np.float64], chosen: dict[int, int]) -> dict[int, int]:
    """The pairing after every exchange of partners and every addition that gains and reverses nothing."""
    chosen, holder = dict(chosen), {j: i for i, j in chosen.items()}
    reversed_by = count_reversals(a, b, chosen)
    order = np.array(b.order, int)
    improved = True
    while improved:
        improved = False
        for i in a.order:
            place = 0
            while (place := next_place(scores[i], reversed_by[i], order, place)) < len(order):
                j = int(order[place])
                place += 1
                moves = find_moves(chosen, holder, i, j)
                trial = None if chosen.get(i) == j else try_moves(a, b, scores, chosen, moves)
                if trial is not None:
                    reversed_by += count_reversals(a, b, {i: trial[i] for i in moves if i in trial})
                    reversed_by -= count_reversals(a, b, {i: chosen[i] for i in moves if i in chosen})
                    chosen, holder, improved = trial, {j: i for i, j in trial.items()}, True
    return chosen


def count_reversals(a: Profile, b: Profile, chosen: Mapping[int, int]) -> NDArray[np.float32]:
    """For every base and donor layer, the order of how many pairs the two would reverse as a pair."""
    rows, columns = list(chosen), list(chosen.values())
    before, behind = (side.reaches.astype(np.float32) for side in (a, b))  # counts up to 2^24 are exact
    counts: NDArray[np.float32] = before[:, rows] @ behind[columns] + before[rows].T @ behind[:, columns].T
    return counts


def next_place(
    scores: NDArray[np.float64], reversed_by: NDArray[np.float32], order: NDArray[np.int64], place: int
) -> int:
    """The place in the order, from `place` on, of the next partner that is alike enough and reverses nothing."""
    ahead = order[place:]
    good = np.flatnonzero((reversed_by[ahead] == 0) & (scores[ahead] >= MIN_SCORE))
    return place + int(good[0]) if good.size else len(order)


def try_moves(
    a: Profile, b: Profile, scores: NDArray[np.float64], chosen: Mapping[int, int], moves: Mapping[int, int]
) -> dict[int, int] | None:
    """The pairing with other partners for some layers; None if it gains nothing, or reverses an order."""
    if gain_of(a, b, scores, chosen, moves) <= 1e-9:
        return None
    trial = {i: partner for i, partner in {**chosen, **moves}.items() if partner >= 0}
    return trial if is_monotone(a, b, trial, [i for i in moves if i in trial]) else None


def find_moves(chosen: Mapping[int, int], holder: Mapping[int, int], i: int, j: int) -> dict[int, int]:
    """New partners where i is paired to j, -1 for none; whoever had j (its `holder`) takes i's old partner."""
    return {i: j, **({holder[j]: chosen.get(i, -1)} if j in holder else {})}


def gain_of(
    a: Profile, b: Profile, scores: NDArray[np.float64], chosen: Mapping[int, int], moves: Mapping[int, int]
) -> float:
    """What is won where some layers take other partners."""
    new = sum(scores[i, j] if scores[i, j] >= MIN_SCORE else -np.inf for i, j in moves.items() if j >= 0)
    old = sum(scores[i, chosen[i]] for i in moves if i in chosen)
    if new - old + FOLLOWS * sum(len(a.before[i]) + len(a.after[i]) for i in moves) <= 0:  # as all too often
        return -np.inf
    steps = {step for i in moves for step in (*((j, i) for j in a.before[i]), *((i, j) for j in a.after[i]))}
    before = sum(chosen.get(j, -1) in b.after[chosen[i]] for i, j in steps if i in chosen)
    partner = {i: moves.get(i, chosen.get(i, -1)) for step in steps for i in step}
    after = sum(partner[j] in b.after[partner[i]] for i, j in steps if partner[i] >= 0)
    return float(new - old) + FOLLOWS * (after - before)


def is_monotone(a: Profile, b: Profile, chosen: Mapping[int, int], touched: Iterable[int]) -> bool:
    """Whether no touched pair reverses the order of another pair."""
    rows = np.array(list(chosen))
    columns = np.array([chosen[i] for i in chosen])
    return not any(
        (a.reaches[i, rows] & b.reaches[columns, chosen[i]]).any()
        or (a.reaches[rows, i] & b.reaches[chosen[i], columns]).any()
        for i in touched
    )
