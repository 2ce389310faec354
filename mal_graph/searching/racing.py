"""Racing: a candidate that is surely worse than the best so far is not scored to the end.

After some samples, and again after twice as many, its losses are compared with the best's on the same samples. Source:
racing (Maron and Moore 1994) with paired tests, as F-Race has them (Birattari et al. 2002). Chosen: Student's test of
`gate`, with Bonferroni's correction for the number of looks at one candidate.
"""

from mal_graph.searching.candidates import Candidate, Trial
from mal_graph.searching.gate import Vector, upper_bound
from mal_graph.searching.method import Space

FIRST = 64  # samples before the first look: fewer say little, and running so many together costs little more


class Race:
    """The best so far, as what is proposed next is compared with it.

    Attributes:
        rival: what candidates are compared with; None where all are scored to the end.
    """

    def __init__(self, space: Space, *, is_on: bool) -> None:
        self.space, self.best = space, space.base
        self.rival: Candidate | None = space.base.candidate if is_on and space.sets == 1 else None

    def told(self, trials: list[Trial]) -> list[Trial]:
        """The same trials, of which the best is compared with from now on."""
        self.best = self.space.best(trials, self.best)
        self.rival = None if self.rival is None else self.best.candidate
        return trials


def looks(samples: int, batch: int = 1) -> list[int]:
    """After how many samples a candidate is looked at: some, each time twice as many, and all.

    Args:
        batch: how many samples are run together at least.
    """
    ends, end = [], -(-FIRST // batch) * batch
    while end < samples:
        ends.append(end)
        end *= 2
    return [*ends, samples]


def is_surely_worse(rises: Vector, confidence: float, times: int) -> bool:
    """Whether losses are above those of the best, at a confidence that holds for so many looks together.

    Args:
        rises: the loss of each sample less that of the best.
    """
    return upper_bound([-rises], 1 - (1 - confidence) / times) < 0
