"""Raising orders: pair after pair is solved with the others fixed, until none gains."""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any

from mal_graph.matching.objective import Objective
from mal_graph.matching.orders import Order, Orders
from mal_graph.matching.starts import TOLERANCE, largest, put, score_all


def ascend(
    objective: Objective, start: Sequence[Order | None], least: float = -inf
) -> tuple[Orders, tuple[float, ...]]:
    """Solve pair after pair, each again when a neighbour changed, until none gains; given up where the first pass leads
    to less than `least`. Pairs that have no order yet are left without."""
    orders: list[Any] = list(start)
    history = [objective.value(start)]
    waiting = deque(root for root in objective.nests.bundles if orders[root] is not None)
    raised = set(waiting)
    while waiting:
        gained = 0.0
        for _ in range(len(waiting)):  # one pass
            root = waiting.popleft()
            gain = improve(objective, root, orders)
            gained += gain
            if gain:
                waiting.extend(sorted((objective.neighbours[root] & raised) - set(waiting)))
        history.append(history[-1] + gained)
        if len(history) == 2 and history[-1] < least:
            break
    return tuple(orders), tuple(history)


def improve(objective: Objective, root: int, orders: list[Order]) -> float:
    """Put the best orders of one pair and of what is inside it in place, if they gain more than rounding; what they
    gain, else 0."""
    tables = objective.tables(root, orders)
    new = objective.solve(root, tables, orders)
    gain = score_all(tables, new) - score_all(tables, orders)
    if gain <= TOLERANCE * largest(tables) * sum(map(len, new.values())):
        return 0.0
    if objective.is_coupled(root):  # it stands on two axes of one tensor, where the score is only a linearisation
        before, trial = objective.value(orders), list(orders)
        put(new, trial)
        gain = objective.value(trial) - before
        if gain <= TOLERANCE * abs(before):
            return 0.0
    put(new, orders)
    return gain
