"""Greedy assembly: donor after donor."""

from collections.abc import Iterator

from mal_graph.searching.candidates import Candidate
from mal_graph.searching.method import Proposals, Space, search_method

LEVELS = (1.0, 0.5, 0.25, 0.1)  # of the largest weight


@search_method(
    "greedy",
    source="arXiv:2503.21657",
    races=True,
    deviations=(
        "what decides is the loss on data, and the order is that of the donors' names: of the paper neither the rule "
        "that selects layers nor the order of donors is known",
    ),
)
def greedy(space: Space) -> Proposals:
    """Donor after donor: of each the weights that lower the loss most, beside those of the donors before it.

    What a donor can give lies in its first layers (guidelines of the paper): it is tried evenly over the depth, and
    fading towards the last layer. A donor gives at most one step.
    """
    best = space.base
    for donor in space.donors:
        trials = yield [Candidate.of({**best.candidate.by_donor, donor: row}) for row in rows(space)]
        best = space.best(trials, best)


def rows(space: Space) -> Iterator[tuple[float, ...]]:
    """The weights that are tried of a donor."""
    for level in LEVELS:
        yield space.even(level * space.most)
        if space.stages > 1:
            last = space.stages - 1
            yield tuple(level * space.most * (last - stage) / last for stage in range(space.stages))
