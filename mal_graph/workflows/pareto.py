"""What a network costs against how good it is: the table of everything that was made, tried and given.

Better is what has the higher metric, or the same at a lower loss, as in a verdict; without scores, what is nearer to
the ensemble, to three digits. Differences that chance could make count as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan

from mal_graph.evaluation import Scores
from mal_graph.figure import Figure
from mal_graph.workflows.verdict import beats

DIGITS = 3


@dataclass(frozen=True)
class ParetoEntry:
    """One network of the table.

    Attributes:
        name: what it is.
        cost: its multiplications, as a multiple of the base's.
        error: how far its outputs are from the ensemble's, as in `Guard`.
        score: on the data that are reported, where there are any.
        deciding: on the data that a choice was made by, where there are any: not to be reported.
        is_result: whether it is what was made in the end.
        is_on_front: whether no other dominates it.
    """

    name: str
    cost: float
    error: Figure
    score: Scores | None = None
    deciding: Scores | None = None
    is_result: bool = False
    is_on_front: bool = False


def pareto_table(entries: Sequence[ParetoEntry], result: ParetoEntry) -> tuple[ParetoEntry, ...]:
    """Networks, of which `result` is one, by rising cost, with the result and the Pareto front marked."""
    marked = [
        replace(one, is_result=one is result, is_on_front=not any(dominates(other, one) for other in entries))
        for one in entries
    ]
    return tuple(sorted(marked, key=lambda one: one.cost))


def dominates(one: ParetoEntry, other: ParetoEntry) -> bool:
    """Whether a network is no dearer and no worse than another, and cheaper or better."""
    if one.cost > other.cost or is_better(other, one):
        return False
    return one.cost < other.cost or is_better(one, other)


def is_better(one: ParetoEntry, other: ParetoEntry) -> bool:
    """Whether a network does better than another, whatever they cost."""
    if one.score is not None and other.score is not None:
        return beats(one.score, other.score)
    if isnan(one.error) or isnan(other.error):
        return isnan(other.error) and not isnan(one.error)
    return round(one.error, DIGITS) < round(other.error, DIGITS)  # a base and a donor are equally far but for rounding
