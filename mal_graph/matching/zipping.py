"""Units of several models zipped: those merged that go together best, be they of several models or of one.

Source: Stoica et al. 2024, ZipIt (arXiv:2305.03053), section 4: pairs are merged greedily by their correlation until as
many are left as the result has units.
"""

from collections.abc import Sequence

import numpy as np

from mal_graph.graph import Array
from mal_graph.matching.axis_pairs import Index

NEVER = -np.inf


def zip_units(similar: Array, sizes: Sequence[int], repeat: float, within: float) -> list[Index]:
    """Where the units of several models go; the result has as many as the base.

    Args:
        similar: how alike all units are, those of one model after those of another, shape (all units, all units).
        sizes: how many units each model has, the base first.
        repeat: what units that were merged before are alike by is times, from 0 to 1; at 0 no two of one model meet in
            a merged unit, as long as there are others.
        within: which share of the merges of a model may be of two units of its own.

    Returns:
        For each model the unit of the result that each of its units goes to. A unit of the result that holds one of the
        base's stands where the first of these does.
    """
    merges = sum(sizes[1:])
    zipper = Zipper(similar, sizes, repeat, int(within * (merges // len(sizes))))
    for _ in range(merges):
        zipper.merge(*zipper.nearest())
    return in_places(zipper.owner, sizes)


class Zipper:
    """Units on their way: some were merged, and are counted by the first of theirs.

    Args:
        similar, sizes, repeat: see `zip_units`.
        budget: how many merges of two units of its own each model has.
    """

    def __init__(self, similar: Array, sizes: Sequence[int], repeat: float, budget: int) -> None:
        self.repeat = repeat
        self.scores = np.array(similar, np.float64)
        np.fill_diagonal(self.scores, NEVER)
        model = np.repeat(np.arange(len(sizes)), sizes)
        self.owner = np.arange(len(model))  # the unit that each is counted by
        self.holds = model[:, None] == np.arange(len(sizes))  # of which models a merged unit has some
        self.budgets = np.full(len(sizes), budget)
        self.allowed = self.scores.copy()  # without the merges that may not be
        self.best, self.worth = np.zeros(len(model), np.int64), np.zeros(len(model))
        for number in range(len(sizes)):
            self.bar(number)
        self.rate(self.owner)

    def nearest(self) -> tuple[int, int]:
        """The two that are merged next, the one that stays first; where none may be, those that are most alike."""
        one = int(self.worth.argmax())
        other = int(self.best[one])
        if self.worth[one] == NEVER:
            one, other = divmod(int(self.scores.argmax()), len(self.scores))
        return min(one, other), max(one, other)

    def merge(self, one: int, other: int) -> None:
        """Two units as one: as alike to others as the one of them that is less so, times what repeated merges are."""
        is_within = self.holds[one].sum() == 1 and np.array_equal(self.holds[one], self.holds[other])
        both = np.minimum(self.scores[one], self.scores[other])
        both = both * self.repeat if self.repeat else both
        both[[one, other]] = NEVER
        self.holds[one] |= self.holds[other]
        self.owner[self.owner == other] = one
        meets = (self.holds & self.holds[one]).any(axis=1) & (self.repeat == 0)
        for scores, row in ((self.scores, both), (self.allowed, np.where(meets, NEVER, both))):
            scores[other] = scores[:, other] = NEVER
            scores[one] = scores[:, one] = row
        if is_within:
            model = int(self.holds[one].argmax())
            self.budgets[model] -= 1
            self.bar(model)
        self.rate(np.array([one, other]))

    def bar(self, model: int) -> None:
        """Keep units of one model apart, once it has no merges of its own left."""
        if self.budgets[model] <= 0:
            own = np.flatnonzero(self.holds[:, model] & (self.holds.sum(axis=1) == 1))
            self.allowed[np.ix_(own, own)] = NEVER

    def rate(self, moved: Index) -> None:
        """Find again what each is nearest to, where that may have changed."""
        stale = self.allowed[np.arange(len(self.best)), self.best] != self.worth
        changed = np.flatnonzero(stale | np.isin(self.best, moved) | np.isin(np.arange(len(self.best)), moved))
        self.best[changed] = self.allowed[changed].argmax(axis=1)
        self.worth[changed] = self.allowed[changed, self.best[changed]]
        for one in moved[:1]:
            nearer = self.allowed[:, one] > self.worth
            self.best[nearer], self.worth[nearer] = one, self.allowed[nearer, one]


def in_places(owner: Index, sizes: Sequence[int]) -> list[Index]:
    """For each model where its units go: merged ones with some of the base's stand where the first of these does, the
    others where there is room."""
    owners = np.unique(owner)
    places = np.where(owners < sizes[0], owners, -1)
    places[places < 0] = np.setdiff1d(np.arange(sizes[0]), places)
    return np.split(places[np.searchsorted(owners, owner)], np.cumsum(sizes)[:-1])
