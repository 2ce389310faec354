"""How many units each set keeps, so that all networks together stay within a budget of multiplications.

From all units down: the next step is always the one that loses the least of what is read for a multiplication saved.
The steps do not depend on the budget, so that a smaller one keeps a part of what a larger one keeps. They are rounded
as far as that makes a run faster (`tools/bench_rounding.py`): where units are maps, and hardly elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mal_graph.compression.cost import Cost
from mal_graph.compression.selection import Ranking

STEPS = 24  # of a set
ROUND = 4  # units: what runtimes like; small convolutions of other numbers of channels take up to 1.5 times as long
BLOCKS = (16, 8)  # channels that its convolutions take at a time, which counts where there are many blocks of them
MANY = 8


@dataclass(frozen=True)
class Candidate:
    """A network that may lose units.

    Attributes:
        cost: what it costs, by how many units it keeps.
        rankings: by number of the set the order in which its units stay.
        weight: how much what it loses counts, beside what the other networks lose.
        is_whole: whether it keeps all.
    """

    cost: Cost
    rankings: Mapping[int, Ranking]
    weight: float = 1.0
    is_whole: bool = False

    @property
    def all_units(self) -> dict[int, int]:
        """With nothing taken away."""
        return {number: len(ranking.order) for number, ranking in self.rankings.items()}

    @property
    def fewest_units(self) -> dict[int, int]:
        """With all taken away that may be."""
        if self.is_whole:
            return self.all_units
        return {number: least(units) for number, units in self.all_units.items()}


def allocate(candidates: Sequence[Candidate], budget: float) -> list[dict[int, int]]:
    """How many units each set of each network keeps, within a budget of multiplications for all of them; as few as
    possible where the budget is below that."""
    kept = [candidate.all_units for candidate in candidates]
    total = sum(one.cost.total(own) for one, own in zip(candidates, kept, strict=True))
    steps = {
        (place, number): price(candidate, kept[place], number)
        for place, candidate in enumerate(candidates)
        for number in (() if candidate.is_whole else candidate.rankings)
    }
    while total > budget:
        open_steps = {key: step for key, step in steps.items() if step is not None}
        if not open_steps:
            break
        place, number = min(open_steps, key=lambda key: (open_steps[key].price, key))
        step = open_steps[place, number]
        kept[place][number] -= step.fewer
        total -= step.saved
        touched = {other for one in candidates[place].cost.contractions if number in one.sets for other in one.sets}
        for other in touched & candidates[place].rankings.keys() | {number}:
            steps[place, other] = price(candidates[place], kept[place], other)
    return kept


@dataclass(frozen=True)
class Step:
    """Some units of one set less, and what that saves and loses for each multiplication."""

    fewer: int
    saved: float
    price: float


def price(candidate: Candidate, kept: Mapping[int, int], number: int) -> Step | None:
    """The next step of a set; None where it has no units to lose."""
    ranking = candidate.rankings[number]
    now, units = kept[number], len(ranking.order)
    size = step_size(units, on_maps=number in candidate.cost.on_maps)
    target = max(least(units), (now - 1) // size * size)
    if target >= now:
        return None
    saved = candidate.cost.saved(kept, number, now - target)
    lost = float(ranking.explained[now] - ranking.explained[target]) * candidate.weight
    return Step(now - target, saved, max(0.0, lost) / max(saved, 1e-9))


def step_size(units: int, *, on_maps: bool) -> int:
    """How many units of a set go at a time, so that multiples of it stay: of maps always whole rounds."""
    size = max(1, units // STEPS)
    if not on_maps or units < 2 * ROUND:
        return size if size < ROUND else size - size % ROUND
    multiple = next((one for one in BLOCKS if units >= MANY * one), ROUND)
    return max(multiple, size - size % multiple)


def least(units: int) -> int:
    """How few units a set may keep."""
    return min(units, max(1, min(ROUND, units // 8)))
