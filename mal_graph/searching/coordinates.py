"""Coordinate search: from the best merge so far, one weight at a time up and down."""

from collections.abc import Sequence

from mal_graph.searching.candidates import Candidate
from mal_graph.searching.method import Proposals, Space, in_batches, search_method
from mal_graph.searching.proposals import short_list

START, LEAST = 0.5, 0.02  # of the largest weight: where it begins, and the step at which it ends

Move = tuple[str, int, float]  # a donor, a stage, and by how much


@search_method(
    "coordinates",
    source="doi:10.1137/S003614450242889",
    races=True,
    deviations=(
        "after a round the single steps that lower the loss are taken together too, where that is better than the best "
        "of them: a round costs many trials, and one more is little",
        "of many donors those are taken that do best alone",
    ),
)
def coordinates(space: Space) -> Proposals:
    """A weight at a time, a step up and a step down: the best is taken, and where none is better the step is halved."""
    donors = yield from short_list(space)
    even = Candidate.of({donor: space.even(space.most / len(donors)) for donor in donors})
    best = space.best((yield [even]), space.base)
    step = START * space.most
    while step > LEAST * space.most:
        around = [
            (donor, stage, sign * step)
            for donor in donors
            for stage in range(space.stages)
            for sign in (1, -1)
            if moved(space, best.candidate, [(donor, stage, sign * step)]) != best.candidate
        ]
        found = yield from in_batches(space, [moved(space, best.candidate, [move]) for move in around])
        lower = [move for move, trial in zip(around, found, strict=False) if space.is_better(trial, best)]
        together = moved(space, best.candidate, lower)
        if len(lower) > 1:
            found += yield [together]
        after = space.best(found, best)
        step, best = step / 2 if after is best else step, after


def moved(space: Space, candidate: Candidate, moves: Sequence[Move]) -> Candidate:
    """A candidate with some weights changed, as far as they may."""
    rows = {donor: list(row) for donor, row in candidate.by_donor.items()}
    for donor, stage, step in moves:
        row = rows.setdefault(donor, list(space.even(0.0)))
        row[stage] = min(space.most, max(0.0, row[stage] + step))
    return space.candidate(rows)
