"""Weights proposed by Optuna: asked for several at once, and told what was found of them in the same order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mal_graph.errors import UsageError
from mal_graph.searching.candidates import Candidate, Trial
from mal_graph.searching.method import Asking, Space
from mal_graph.searching.record import load_optuna

SHORT_LIST = 8  # donors whose weights are searched together

# How each sampler is made of Optuna's module `samplers` and a seed.
SAMPLERS: Mapping[str, Callable[[Any, int], Any]] = {
    "tpe": lambda samplers, seed: samplers.TPESampler(seed=seed, multivariate=True),
    "cmaes": lambda samplers, seed: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "nsga2": lambda samplers, seed: samplers.NSGAIISampler(seed=seed, population_size=20),
    "gp": lambda samplers, seed: samplers.GPSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda samplers, seed: samplers.RandomSampler(seed=seed),
}
ONE_OBJECTIVE = ("cmaes",)


class Proposer:
    """Proposes the weights of some donors.

    Raises:
        UsageError: the sampler lowers one loss alone and there are two, or something that it needs is not installed.
    """

    def __init__(self, space: Space, donors: Sequence[str]) -> None:
        optuna = load_optuna()
        if space.sets > 1 and space.sampler in ONE_OBJECTIVE:
            raise UsageError(
                f"`sampler` {space.sampler} lowers one loss, and `second_data` gives two: give tpe or nsga2"
            )
        self.donors, self.stages = donors, space.stages
        self.failed = optuna.trial.TrialState.FAIL
        self.floats = {
            f"{place} {stage}": optuna.distributions.FloatDistribution(0.0, space.most)
            for place in range(len(donors))
            for stage in range(self.stages)
        }
        sampler = SAMPLERS[space.sampler](optuna.samplers, space.seed % 2**32)
        self.study = optuna.create_study(sampler=sampler, directions=["minimize"] * space.sets)
        self.asked: list[Any] = []

    def ask(self, count: int) -> list[Candidate]:
        """So many candidates, of which none is known when the others are proposed. Raises UsageError."""
        try:
            self.asked = [self.study.ask(self.floats) for _ in range(count)]
        except ImportError as error:
            raise UsageError(
                f"the sampler needs {error.name}, which is not installed: pip install {error.name}, or give another "
                "`sampler`"
            ) from None
        return [self.candidate(list(trial.params.values())) for trial in self.asked]

    def candidate(self, weights: Sequence[float]) -> Candidate:
        rows = np.reshape(weights, (len(self.donors), self.stages)).tolist()
        return Candidate.of(dict(zip(self.donors, rows, strict=True)))

    def tell(self, trials: Sequence[Trial]) -> None:
        """What was found of the candidates asked for last, in their order."""
        for asked, trial in zip(self.asked, trials, strict=False):
            if np.isfinite(trial.loss):
                self.study.tell(asked, list(trial.losses))
            else:
                self.study.tell(asked, state=self.failed)


def short_list(space: Space, most: int = SHORT_LIST) -> Asking[tuple[str, ...]]:
    """The donors whose weights are searched together: where they are many, those that do best alone at half of the
    largest weight, of as many as a quarter of the trials can score. In the order of their names."""
    if len(space.donors) <= most:
        return space.donors
    tried = space.donors[: max(most, space.trials // 4)]
    alone = yield [Candidate.of({donor: space.even(space.most / 2)}) for donor in tried]
    ranked = sorted(range(len(alone)), key=lambda place: alone[place].loss)[:most]
    return tuple(tried[place] for place in sorted(ranked))
