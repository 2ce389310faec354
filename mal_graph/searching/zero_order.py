"""Search of weights from losses alone: what is best is proposed by one of Optuna's samplers."""

from mal_graph.searching.method import Proposals, Space, search_method
from mal_graph.searching.proposals import Proposer, short_list, weight_genes, weighted


@search_method(
    "medsamix",
    source="arXiv:2508.11032",
    races=True,
    deviations=(
        "weights are proposed by a tree-structured Parzen estimator unless `sampler` names another one of Optuna's: "
        "any zero-order optimiser serves",
        "one merge method serves all layers, with weights that go in straight lines from stage to stage",
        "of many donors those are taken that do best alone: the paper merges a few",
    ),
)
def medsamix(space: Space) -> Proposals:
    """A weight for every donor at every stage, proposed by a sampler; of two sets of data both losses are lowered."""
    donors = yield from short_list(space)
    proposer = Proposer(weight_genes(space, donors), space.sampler, space.seed, space.sets)
    while True:
        trials = yield [weighted(space, donors, genes) for genes in proposer.ask(space.batch)]
        proposer.tell([trial.losses for trial in trials])
