"""Evolution whose fitness is an estimate: a few samples, and what item response theory makes of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mal_graph.searching.candidates import Candidate, Trial
from mal_graph.searching.item_response import Items, Vector, estimate_accuracy, fit_items
from mal_graph.searching.method import Proposals, Space, in_batches, search_method
from mal_graph.searching.proposals import Proposer, short_list, weight_genes, weighted

SHARE, LEAST = 0.2, 20  # of the samples that a candidate is scored by, and how many at least


@search_method(
    "merge3",
    source="arXiv:2502.10436",
    needs_samples=True,
    deviations=(
        "abilities have one dimension: the answers of a few donors do not tell more",
        "items are fitted to the base and to each donor merged into it: of other forms a donor is no candidate alone",
        "an answer is the probability of the right one, the exponential of minus the loss of a sample: so regression "
        "has one too, and a probability says more than right or wrong",
        "of each batch the one of the highest estimate is scored by all samples: only such a one can be the result",
        "of many donors those are taken that do best alone",
    ),
)
def merge3(space: Space) -> Proposals:
    """Weights of every donor at every stage, evolved by NSGA-II; how well a merge does on all samples is estimated from
    a few."""
    donors = yield from short_list(space)
    alone = [space.candidate({donor: space.even(space.most)}) for donor in donors]
    exams = exams_of([space.base, *(yield from in_batches(space, alone))])
    proposer = Proposer(weight_genes(space, donors), "nsga2", space.seed, space.sets)
    few, waiting = few_of(space.samples), dict[Candidate, tuple[float, ...]]()
    while True:
        batch = [weighted(space, donors, genes) for genes in proposer.ask(space.batch)]
        trials = yield [replace(one, samples=few) for one in batch]
        errors = [expected_errors(exams, trial) for trial in trials]
        proposer.tell(errors)
        waiting |= {one: own for one, own in zip(batch, errors, strict=True) if few and own}
        if waiting:
            best = min(waiting, key=lambda one: sum(waiting[one]))
            del waiting[best]
            yield [best]


def few_of(samples: int) -> int:
    """By how many samples a candidate is scored; 0 for all where they are no more than a few."""
    few = max(LEAST, int(SHARE * samples))
    return few if few < samples else 0


def exams_of(trials: Sequence[Trial]) -> list[Items]:
    """The samples of each set of data as items, from the answers of merges that were scored by all."""
    by_set = zip(*(answers_of(trial) for trial in trials if trial.is_whole), strict=True)
    return [fit_items(np.stack(answers))[0] for answers in by_set]


def answers_of(trial: Trial) -> list[Vector]:
    """The probability of the right answer to every sample of each set."""
    return [np.nan_to_num(np.exp(-np.array(one.each))) for one in trial.figures]


def expected_errors(exams: Sequence[Items], trial: Trial) -> tuple[float, ...]:
    """How much of each set of data is expected to be wrong, from answers to first samples; () of what failed."""
    pairs = zip(exams, answers_of(trial), strict=True) if trial.figures else ()
    return tuple(1 - estimate_accuracy(items, np.arange(len(answers)), answers) for items, answers in pairs)
