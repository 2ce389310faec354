"""Searches: one function each, which proposes candidates and is told what was found of them.

    @search_method("greedy", source="arXiv:2503.21657")
    def greedy(space: Space) -> Proposals:
        \"\"\"One line that says what it does.\"\"\"
        trials = yield [Candidate.of({"donor.onnx": [0.5]})]

What it proposes at once is scored together, by however many workers; it is told in the order in which it was proposed.
A search is a function of the space and of what it is told, of nothing else: so it is resumed, and so 1 worker and 8
give the same model. Searches are found by entry points of the group `mal_graph.searches`, this package's too.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from inspect import getdoc
from typing import TypeVar

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.errors import UsageError
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


@dataclass(frozen=True, eq=False)
class SearchMethod:
    """A search, and what is said of it.

    Attributes:
        name: what `search` calls it.
        source: where it is published.
        function: makes its proposals.
        deviations: what is not as published, each with the reason.
        needs_samples: whether it is told the loss of every sample.
    """

    name: str
    source: str
    function: Callable[[Space], Proposals] = field(repr=False)
    deviations: tuple[str, ...] = ()
    needs_samples: bool = False

    def __call__(self, space: Space) -> Proposals:
        return self.function(space)

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (getdoc(self.function) or "").split("\n", 1)[0]


def search_method(
    name: str, *, source: str, deviations: tuple[str, ...] = (), needs_samples: bool = False
) -> Callable[[Callable[[Space], Proposals]], SearchMethod]:
    """Make a search of a function; arguments as for `SearchMethod`."""

    def decorate(function: Callable[[Space], Proposals]) -> SearchMethod:
        return SearchMethod(name, source, function, deviations, needs_samples)

    return decorate


def find_search(name: str) -> SearchMethod:
    """The search registered under `name`. Raises UsageError if there is none, or what is registered is none."""
    points = registry.searches()
    if name not in points:
        raise UsageError(f"no search is called {name!r}: choose one of {', '.join(points)}")
    try:
        made = points[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the search {name!r} cannot be loaded: {error}; reinstall the package of it") from None
    if not isinstance(made, SearchMethod) or made.name != name:
        raise UsageError(f"{points[name].value} is no search called {name!r}: register what @search_method makes")
    return made


def run_search(
    method: SearchMethod, space: Space, score: Callable[[Sequence[Candidate]], Sequence[Trial]]
) -> list[Trial]:
    """What a search finds, in the order in which it proposed it; it ends by itself, or with the last trial it has.

    Args:
        score: what becomes of candidates, in their order.
    """
    trials: list[Trial] = []
    proposals = method(space)
    told: Sequence[Trial] | None = None
    while len(trials) < space.trials:
        try:
            batch = next(proposals) if told is None else proposals.send(told)
        except StopIteration:
            break
        told = score(batch[: space.trials - len(trials)])
        trials += told
    proposals.close()
    return trials


def in_batches(space: Space, candidates: Sequence[Candidate]) -> Asking[list[Trial]]:
    """What is found of candidates, of which no more are proposed at once than a batch has."""
    trials: list[Trial] = []
    for start in range(0, len(candidates), space.batch):
        trials += yield candidates[start : start + space.batch]
    return trials
