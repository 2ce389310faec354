"""Search of weights from losses alone: what is best is proposed by one of Optuna's samplers."""

from mal_graph.searching.method import Proposals, Space, search_method
from mal_graph.searching.proposals import Proposer, short_list


@search_method(
    "medsamix",
    source="arXiv:2508.11032",
    deviations=(
        "weights are proposed by a tree-structured Parzen estimator unless `sampler` names another one of Optuna's: "
        "any zero-order optimiser serves",
        "one merge method serves all layers, with weights that go in straight lines from stage to stage",
        "of many donors those are taken that do best alone: the paper merges a few",
    ),
)
def medsamix(space: Space) -> Proposals:
    """A weight for every donor at every stage, proposed by a sampler; of two sets of data both losses are lowered."""
    proposer = Proposer(space, (yield from short_list(space)))
    while True:
        proposer.tell((yield proposer.ask(space.batch)))
