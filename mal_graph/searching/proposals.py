"""Genes proposed by Optuna: asked for several times at once, and told what was found of them in the same order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mal_graph.errors import UsageError
from mal_graph.searching.candidates import Candidate
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
    """Proposes the genes that candidates are made of.

    Args:
        genes: from where to where each may be.
        sampler: the name of what proposes them.
        objectives: how many figures are lowered.
        is_whole: whether genes are whole numbers.

    Raises:
        UsageError: the sampler lowers one figure alone and there are more, or something that it needs is not installed.
    """

    def __init__(
        self,
        genes: Mapping[str, tuple[float, float]],
        sampler: str,
        seed: int,
        objectives: int,
        *,
        is_whole: bool = False,
    ) -> None:
        optuna = load_optuna()
        if objectives > 1 and sampler in ONE_OBJECTIVE:
            raise UsageError(f"`sampler` {sampler} lowers one loss, and `second_data` gives two: give tpe or nsga2")
        made = optuna.distributions.IntDistribution if is_whole else optuna.distributions.FloatDistribution
        self.failed = optuna.trial.TrialState.FAIL
        self.genes = {name: made(*ends) for name, ends in genes.items()}
        own = SAMPLERS[sampler](optuna.samplers, seed % 2**32)
        self.study = optuna.create_study(sampler=own, directions=["minimize"] * objectives)
        self.asked: list[Any] = []

    def ask(self, count: int) -> list[list[float]]:
        """The genes of so many candidates, of which none is known when the others are proposed. Raises UsageError."""
        try:
            self.asked = [self.study.ask(self.genes) for _ in range(count)]
        except ImportError as error:
            raise UsageError(
                f"the sampler needs {error.name}, which is not installed: pip install {error.name}, or give another "
                "`sampler`"
            ) from None
        return [list(trial.params.values()) for trial in self.asked]

    def tell(self, figures: Sequence[Sequence[float]]) -> None:
        """What was found of the genes asked for last, in their order; no figures, or infinite ones, of what failed."""
        for asked, own in zip(self.asked, figures, strict=False):
            if len(own) and np.isfinite(own).all():
                self.study.tell(asked, list(own))
            else:
                self.study.tell(asked, state=self.failed)


def weight_genes(space: Space, donors: Sequence[str], least: float = 0.0) -> dict[str, tuple[float, float]]:
    """A gene for the weight of each donor at each stage."""
    return {f"{place} {stage}": (least, space.most) for place in range(len(donors)) for stage in range(space.stages)}


def weighted(space: Space, donors: Sequence[str], genes: Sequence[float]) -> Candidate:
    """The merge with the weights that genes say; those below 0 count nothing."""
    rows = np.maximum(np.reshape(genes, (len(donors), space.stages)), 0.0).tolist()
    return space.candidate(dict(zip(donors, rows, strict=True)))


def short_list(space: Space, most: int = SHORT_LIST) -> Asking[tuple[str, ...]]:
    """The donors whose weights are searched together: where they are many, those that do best alone at half of the
    largest weight, of as many as a quarter of the trials can score. In the order of their names."""
    if len(space.donors) <= most:
        return space.donors
    tried = space.donors[: max(most, space.trials // 4)]
    alone = yield [Candidate.of({donor: space.even(space.most / 2)}) for donor in tried]
    ranked = sorted(range(len(alone)), key=lambda place: alone[place].loss)[:most]
    return tuple(tried[place] for place in sorted(ranked))
