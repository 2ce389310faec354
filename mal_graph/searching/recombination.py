"""Recombination of modules: which stage is of which models, for a low loss and for little that is changed."""

from collections.abc import Sequence

import numpy as np

from mal_graph.searching.candidates import Candidate
from mal_graph.searching.method import Proposals, Space, search_method
from mal_graph.searching.proposals import Proposer, short_list


@search_method(
    "recombination",
    source="arXiv:2602.06552",
    weighs_size=True,
    deviations=(
        "the modules are the stages, and what lies between two of them is of both: a network as a file has no other "
        "parts in common with all networks",
        "one network results, and no router puts modules together by the input: size is what has to be kept beside the "
        "base, the share of its numbers that change",
        "candidates are scored themselves, without a surrogate: they are cheap here",
        "of many donors those are taken that do best alone",
    ),
)
def recombination(space: Space) -> Proposals:
    """At every stage a set of donors that are merged in evenly, or none: NSGA-II lowers losses and size."""
    donors = yield from short_list(space)
    genes = {f"{place} {stage}": (0, 1) for place in range(len(donors)) for stage in range(space.stages)}
    proposer = Proposer(genes, "nsga2", space.seed, space.sets + 1, is_whole=True)
    while True:
        trials = yield [recombined(space, donors, genome) for genome in proposer.ask(space.batch)]
        proposer.tell([(*trial.losses, space.size(trial.candidate)) if trial.figures else () for trial in trials])


def recombined(space: Space, donors: Sequence[str], genome: Sequence[float]) -> Candidate:
    """The merge of all models that a genome names for each stage, with equal weights."""
    rows = space.most * np.reshape(genome, (len(donors), space.stages))
    return space.candidate(dict(zip(donors, rows.tolist(), strict=True)))
