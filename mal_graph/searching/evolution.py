"""Evolution of coefficients: a strategy that learns which way they have to go."""

from mal_graph.searching.method import Proposals, Space, search_method
from mal_graph.searching.proposals import Proposer, short_list, weight_genes, weighted


@search_method(
    "evo_merging",
    source="arXiv:2509.12951",
    races=True,
    deviations=(
        "of the paper its abstract is known: a strategy without derivatives, sparse denoising, scaling by sign",
        "a coefficient that evolves below 0 leaves its donor out there: this denoises, and a mean has no negative "
        "weights that signs could scale",
        "whole donors are denoised, stage by stage: the paper drops single parameters, as `--method` ties or dare does",
        "of two sets of data the mean loss is lowered: the strategy has one objective",
        "of many donors those are taken that do best alone",
    ),
)
def evo_merging(space: Space) -> Proposals:
    """Coefficients of every donor at every stage, evolved by CMA-ES; those below 0 leave a donor out."""
    donors = yield from short_list(space)
    proposer = Proposer(weight_genes(space, donors, -space.most), "cmaes", space.seed, 1)
    while True:
        trials = yield [weighted(space, donors, genes) for genes in proposer.ask(space.batch)]
        proposer.tell([(trial.loss,) for trial in trials])
