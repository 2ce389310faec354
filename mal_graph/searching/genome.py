"""A genome for each cross of the best merge with a donor: how much of it, where, and how far to trust a diagnosis."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mal_graph.searching.candidates import Candidate, Trial
from mal_graph.searching.method import Asking, Proposals, Space, search_method
from mal_graph.searching.proposals import Proposer, short_list

Vector = NDArray[np.float64]

PROBE = 0.5  # of the largest weight: at which a donor is diagnosed


@search_method(
    "darwin",
    source="arXiv:2605.14386",
    races=True,
    deviations=(
        "of the 14 genes there are one for all, one for each stage, and the trust: files of any exporter do not tell "
        "attention from other components, and densities are parameters of the merge method",
        "a stage is diagnosed by how far the loss falls where the donor is merged in there alone: the paper probes the "
        "activations of language models",
        "the genes are proposed by one of Optuna's samplers: the abstract names no optimiser",
        "models of other forms are brought together by alignment, as in every search: the paper maps architectures",
        "of many donors those are taken that do best alone",
    ),
)
def darwin(space: Space) -> Proposals:
    """The best merge so far is crossed with donor after donor: each stage takes what a genome says, as far as it is
    trusted, and else what a diagnosis of the donor says."""
    donors = yield from short_list(space)
    best, crosses = space.base, 0
    while True:
        for donor in donors:
            importance = yield from diagnosed(space, best, donor)
            crosses += 1
            best = yield from crossed(space, best, donor, importance, crosses)


def diagnosed(space: Space, best: Trial, donor: str) -> Asking[Vector]:
    """How much each stage of a donor has to give to a merge, from 0 to 1: by how far the loss falls where it is merged
    in at this stage alone."""
    rows = np.diag(space.even(PROBE * space.most)).tolist()
    trials = yield [with_donor(space, best.candidate, donor, row) for row in rows]
    without = best.candidate.by_donor.get(donor, space.even(0.0))
    if any(without):  # it is compared with the merge that has nothing of the donor
        (start,) = yield [with_donor(space, best.candidate, donor, space.even(0.0))]
        best = start
    gains = np.array([max(0.0, best.loss - trial.loss) if np.isfinite(trial.loss) else 0.0 for trial in trials])
    return gains / gains.max() if np.isfinite(gains).all() and gains.any() else np.zeros(space.stages)


def crossed(space: Space, best: Trial, donor: str, importance: Vector, number: int) -> Asking[Trial]:
    """The best merge that evolves from the one so far and a donor; that one where none is better."""
    genes = {"all": (0.0, space.most), "trust": (0.0, 1.0), **{f"{s}": (0.0, 1.0) for s in range(space.stages)}}
    proposer = Proposer(genes, space.sampler, space.seed + number, space.sets)
    start = best.candidate
    for _ in range(rounds(space)):
        rows = [row_of_genome(genome, importance) for genome in proposer.ask(space.batch)]
        trials = yield [with_donor(space, start, donor, row) for row in rows]
        proposer.tell([trial.losses for trial in trials])
        best = space.best(trials, best)
    return best


def rounds(space: Space) -> int:
    """How many batches a cross has: a quarter of all trials for as many crosses as there are donors, at least one."""
    return max(1, space.trials // (4 * space.batch * min(len(space.donors), space.trials)))


def row_of_genome(genome: Sequence[float], importance: Vector) -> list[float]:
    """The weights of a donor: of what is diagnosed and what evolves, as much of each as the trust says."""
    most, trust, *stages = genome
    return [most * (trust * told + (1 - trust) * own) for told, own in zip(importance.tolist(), stages, strict=True)]


def with_donor(space: Space, candidate: Candidate, donor: str, row: Sequence[float]) -> Candidate:
    """A merge with other weights of one donor."""
    return space.candidate({**candidate.by_donor, donor: row})
