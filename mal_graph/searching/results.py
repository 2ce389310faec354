"""What a search found."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from mal_graph.config import SearchConfig
from mal_graph.searching.candidates import Trial, pareto_front
from mal_graph.searching.method import SearchMethod, Space
from mal_graph.workflows import Assembly, Result


@dataclass(frozen=True)
class Finalist:
    """One of the best candidates.

    Attributes:
        place: among all that were scored, in the order in which they were proposed.
        gate: what was found of it on samples that the search has not seen.
        reason: why it is not the result; "" where it is.
    """

    place: int
    gate: Trial
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Search(Result):
    """The result of `search`.

    Attributes:
        assembly: the merged model as `assemble` makes it, with the scores of every arm on the reporting part; the base
            where nothing passed the gate.
        method, config: what searched, and every option.
        trials: every candidate with what was found of it, in the order in which they were proposed.
        finalists: the best, by their losses on the gate.
        base: what was found of the base, by the name of the part of the data.
        reported: what was found of the result on the reporting part; None where it is the base.
        samples: how many there are in each part of each set of data.
        donors: the names of those that take part.
        refused: why a donor takes no part, by its name.
        space: what was searched.
    """

    assembly: Assembly
    method: SearchMethod
    config: SearchConfig
    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...]
    base: Mapping[str, Trial]
    reported: Trial | None
    samples: tuple[Mapping[str, int], ...]
    donors: tuple[str, ...]
    refused: Mapping[str, str]
    space: Space

    @property
    def winner(self) -> Finalist | None:
        """The candidate that the result is; None where it is the base."""
        return next((one for one in self.finalists if not one.reason), None)

    @property
    def front(self) -> tuple[int, ...]:
        """The places of candidates that no other beats in what they are compared by."""
        return tuple(pareto_front([self.objectives(trial) for trial in self.trials]))

    def objectives(self, trial: Trial) -> tuple[float, float]:
        """What a candidate is compared by, to be lowered: loss and size, where a search weighs them; the losses on two
        sets of data; of one set the loss and minus the metric."""
        if not trial.is_whole:
            return (inf, inf)
        if self.method.weighs_size:
            return (trial.loss, self.space.size(trial.candidate))
        first, *rest = trial.losses
        return (first, rest[0] if rest else -trial.figures[0].metric)

    @property
    def found(self) -> dict[str, Trial]:
        """What was found of the result, by the name of the part of the data; nothing where it is the base."""
        if self.winner is None or self.reported is None:
            return {}
        parts = self.trials[self.winner.place], self.winner.gate, self.reported
        return dict(zip(self.base, parts, strict=True))

    @property
    def untried(self) -> tuple[str, ...]:
        """The donors that no candidate holds."""
        tried = {donor for trial in self.trials for donor in trial.candidate.donors}
        return tuple(donor for donor in self.donors if donor not in tried)


def without_merge(base: Any, config: Any) -> Assembly:
    """The base, where nothing is merged."""
    return Assembly(graph=base, base=base, merged=(), shares=(1.0,), checks=(), config=config)
