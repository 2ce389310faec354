"""Searches: one function each, which proposes candidates and is told what was found of them.

    @search_method("greedy", source="arXiv:2503.21657")
    def greedy(space: Space) -> Proposals:
        \"\"\"One line that says what it does.\"\"\"
        trials = yield [Candidate.of({"donor.onnx": [0.5]})]

What it proposes at once is scored together, by however many workers; it is told in the order in which it was proposed.
A search is a function of the space and of what it is told, of nothing else: so it is resumed, and so 1 worker and 8
give the same model. Searches are found by entry points of the group `mal_graph.searches`, this package's too.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getdoc
from typing import TypeVar

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.registry import blamed
from mal_graph.searching.candidates import Candidate, Trial

R = TypeVar("R")
Asking = Generator[Sequence[Candidate], Sequence[Trial], R]  # proposes, is told, and comes to something
Proposals = Asking[None]


@dataclass(frozen=True, repr=False)
class Space(Brief):
    """What is searched.

    Attributes:
        donors: by name, in order.
        stages: how many weights a donor has.
        most: the largest of them; the least is 0.
        base: what was found of the base.
        eps: how far a metric may fall below the base's.
        trials: how many candidates are scored in all.
        batch: how many are proposed at once where a search could propose any number.
        sampler: what proposes weights where a search leaves this open.
        seed: of random draws.
        layers: for each layer of the base its depth, from 0 to 1, and how many numbers were learned there.
        samples: how many there are to search by, of the smallest set of data.
    """

    donors: tuple[str, ...]
    stages: int
    most: float
    base: Trial
    eps: float
    trials: int
    batch: int
    sampler: str
    seed: int
    layers: tuple[tuple[float, int], ...]
    samples: int

    @property
    def sets(self) -> int:
        """How many sets of data there are."""
        return len(self.base.figures)

    def is_better(self, trial: Trial, best: Trial) -> bool:
        """Whether a candidate passes and has a lower loss than the best so far."""
        return trial.passes(self.base, self.eps) and trial.loss < best.loss

    def best(self, trials: Sequence[Trial], so_far: Trial) -> Trial:
        """The best of some candidates, the first of equals; what there was before where none is better."""
        passing = [trial for trial in trials if trial.passes(self.base, self.eps)]
        best = min(passing, key=lambda trial: trial.loss, default=so_far)
        return best if self.is_better(best, so_far) else so_far

    def even(self, weight: float) -> tuple[float, ...]:
        """The same weight in all stages."""
        return (weight,) * self.stages

    def candidate(self, rows: Mapping[str, Sequence[float]]) -> Candidate:
        """The merge with these weights, in the order of all donors: the sum of a mean depends on it."""
        return Candidate.of({donor: rows[donor] for donor in self.donors if donor in rows})

    def size(self, candidate: Candidate) -> float:
        """The share of the base's learned numbers that a candidate changes: what has to be kept beside the base."""
        places = np.linspace(0, 1, self.stages)
        changed = sum(
            count for depth, count in self.layers if any(np.interp(depth, places, row) for row in candidate.weights)
        )
        return changed / sum(count for _, count in self.layers)


@dataclass(frozen=True, eq=False)
class SearchMethod:
    """A search, and what is said of it.

    Attributes:
        name: what `search` calls it.
        source: where it is published.
        function: makes its proposals.
        deviations: what is not as published, each with the reason.
        needs_samples: whether it is told the loss of every sample.
        races: whether a candidate that is surely worse than the best so far need not be scored by all samples; of one
            set of data, for the best of two losses is not one.
        weighs_size: whether it trades the loss for how much of the base is changed, and the front is of these two.
    """

    name: str
    source: str
    function: Callable[[Space], Proposals] = field(repr=False)
    deviations: tuple[str, ...] = ()
    needs_samples: bool = False
    races: bool = False
    weighs_size: bool = False

    def __call__(self, space: Space) -> Proposals:
        return self.function(space)

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        first, *_ = (getdoc(self.function) or "").split("\n\n")
        return " ".join(first.split())


def search_method(
    name: str,
    *,
    source: str,
    deviations: tuple[str, ...] = (),
    needs_samples: bool = False,
    races: bool = False,
    weighs_size: bool = False,
) -> Callable[[Callable[[Space], Proposals]], SearchMethod]:
    """Make a search of a function; arguments as for `SearchMethod`."""

    def decorate(function: Callable[[Space], Proposals]) -> SearchMethod:
        return SearchMethod(name, source, function, deviations, needs_samples, races, weighs_size)

    return decorate


def find_search(name: str) -> SearchMethod:
    """The search registered under `name`. Raises UsageError if there is none, or what is registered is none."""
    return registry.decorated("search", registry.searches(), name, SearchMethod, "search_method")


def run_search(
    method: SearchMethod, space: Space, score: Callable[[Sequence[Candidate]], Sequence[Trial]]
) -> list[Trial]:
    """What a search finds, in the order in which it proposed it; it ends by itself, or with the last trial it has.

    Args:
        score: what becomes of candidates, in their order.

    Raises:
        UsageError: the search of another package fails, or proposes what cannot be scored.
    """
    trials: list[Trial] = []
    told: Sequence[Trial] | None = None
    with blamed(f"the search {method.name!r}", method.function.__module__):
        proposals = method(space)
    while len(trials) < space.trials:
        with blamed(f"the search {method.name!r}", method.function.__module__):
            try:
                batch = next(proposals) if told is None else proposals.send(told)
            except StopIteration:
                break
            refuse_odd(batch, space)
        told = score(batch[: space.trials - len(trials)])
        trials += told
    proposals.close()
    return trials


def refuse_odd(batch: Sequence[Candidate], space: Space) -> None:
    """Raise ValueError unless candidates can be scored; a search that proposes none would be asked for ever."""
    if not batch:
        raise ValueError("it proposed nothing, and did not end")
    for candidate in batch:
        if not isinstance(candidate, Candidate) or not set(candidate.donors) <= set(space.donors):
            raise ValueError(f"it proposed {str(candidate)[:60]}, which is no candidate of the donors")
        weights = [weight for row in candidate.weights for weight in row]
        if not all(0 <= weight <= space.most for weight in weights):
            raise ValueError(f"it proposed weights from {min(weights)} to {max(weights)}, of 0 to {space.most}")


def in_batches(space: Space, candidates: Sequence[Candidate]) -> Asking[list[Trial]]:
    """What is found of candidates, of which no more are proposed at once than a batch has."""
    trials: list[Trial] = []
    for start in range(0, len(candidates), space.batch):
        trials += yield candidates[start : start + space.batch]
    return trials
