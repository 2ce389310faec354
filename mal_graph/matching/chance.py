"""Whether two models have anything to align: what their weights have in common once they are aligned, beside what
chance gives.

An assignment always finds something: of many units with as many partners to choose from, some point the same way. So
the donor is assigned once more with the entries of each of its tensors in random order, by the same method. Compared is
the mean cosine of aligned tensors, each counted with its entries: neither large values nor small tensors decide.

Chosen: the whole assignment on a shuffled donor, which for large models is raised only where its start leaves the
verdict open, and solved only where more than its start can reach does: the best partner of each unit, though several
take the same one. In what orders the axes of a shuffled tensor stand does not matter for that, for all are as likely.
Refused: an assignment of shuffled scores, which is cheaper - the scores of a pair are computed with the
orders of all others, and these were chosen so that they are high. Refused: a part of the groups, with the orders of the
others as they are - these were chosen for the models, so that random numbers fit worse than in the whole (up to 37 %
worse on 32 parts of 1 to 12 million numbers of a ResNet-50), and what has nothing in common seems to have.
"""

from dataclasses import dataclass, replace
from math import log, sqrt

import numpy as np

from mal_graph.boxes import Array, Boxed, BoxesOf, ReadBox
from mal_graph.matching.ascents import ascend
from mal_graph.matching.assignment import Alignment, assign_units
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.objective import Objective, dot, squared
from mal_graph.matching.orders import Orders
from mal_graph.matching.starts import assign_forward
from mal_graph.matching.tensor_pairs import Read
from mal_graph.shelves import Shelf

DRAWS = 3
FEW_ENTRIES = 1 << 20  # compared numbers up to which several draws are made; of more, one tells as much
CLEAR = 3.0  # times what must be exceeded: raising multiplied the start by 1.53 at most, on 17 architectures
WIDE = 3000  # units that take longer to assign than to multiply: 4,096 of random numbers take 25 seconds
SIGMAS = 3.0  # of the mean cosine of as many random numbers: what may be luck
FEWEST = 144  # numbers: of fewer, 0.25 more than chance gives may be luck, so that nothing is said
MARGIN = 0.05  # of what chance gives: what may be a better or worse local optimum


@dataclass(frozen=True)
class Chance:
    """How similar two models are once they are aligned.

    Attributes:
        cosine: the mean over all tensors that are compared, in the orders used.
        random: the mean of the same for a donor with its weights in random order, assigned by the same method, or a
            bound of that where the cosine is far above it.
        entries: how many numbers are compared.
    """

    cosine: float
    random: float
    entries: int

    @property
    def least(self) -> float:
        """What the cosine must exceed to be better than random."""
        return self.random + max(SIGMAS / sqrt(self.entries), MARGIN * self.random)

    @property
    def has_nothing_to_align(self) -> bool:
        """Whether the alignment is no better than that of random numbers, as far as there are enough to tell."""
        return self.entries >= FEWEST and self.cosine <= self.least


def compare_with_chance(alignment: Alignment, seed: int = 0) -> Chance | None:
    """How an alignment by weights compares with one of random numbers; None where there was nothing to assign."""
    correspondence = alignment.correspondence
    cosine, entries = mean_cosine(Objective(correspondence), alignment.orders)
    if not correspondence.pairs or not entries:
        return None
    if entries > FEW_ENTRIES:
        return compare_until_clear(correspondence, cosine, entries, seed)
    others = (shuffled(correspondence, (seed, draw)) for draw in range(DRAWS))
    random = [mean_cosine(Objective(one), assign_units(one).orders)[0] for one in others]
    return Chance(cosine, float(np.mean(random)), entries)


def compare_until_clear(correspondence: Correspondence, cosine: float, entries: int, seed: int) -> Chance:
    """The same of many numbers, with an assignment of random ones that is raised no further than the verdict needs.

    Raised it fits better: what is no better than its start is no better than chance. What is far better stays so.
    """
    objective = Objective(shuffled(correspondence, (seed, 0)))
    if is_bounded(objective) and cosine > CLEAR * likely_start(objective):
        bound = Chance(cosine, bound_of_start(objective), entries)
        if cosine > CLEAR * bound.least:
            return bound
    start = assign_forward(objective, 0)
    chance = Chance(cosine, mean_cosine(objective, start)[0], entries)
    if chance.has_nothing_to_align or cosine > CLEAR * chance.least:
        return chance
    raised, _ = ascend(objective, start)
    return replace(chance, random=mean_cosine(objective, raised)[0])


def is_bounded(objective: Objective) -> bool:
    """Whether units are many enough for a bound to take less than an assignment, and every order matches the same
    entries: none stand inside others, and there are as many of both models."""
    is_flat = len(objective.nests.bundles) == objective.count and all(a == d for a, d in objective.units)
    return is_flat and max(a for a, _ in objective.units) >= WIDE


def likely_start(objective: Objective) -> float:
    """About what a start makes of random numbers, by the largest of as many normal ones as there are units."""
    total, entries = 0.0, 0
    for (a, _), axes, is_compared in zip(objective.values, objective.axes, objective.is_compared, strict=True):
        units = [axis.size for axis in axes if any(block.pair >= 0 for block in axis.blocks)]
        total += sum(sqrt(2 * log(max(2, own)) * own * a.size) for own in [max(units, default=0)] if is_compared)
        entries += a.size if is_compared else 0
    return total / max(1, entries)


def bound_of_start(objective: Objective) -> float:
    """What a start makes of random numbers at most: each unit of the base on the donor's best, though others take it
    too, for each tensor by itself, on the axis where that is most.

    A start chooses one axis of a tensor by it, when the others are in order. In what order these stand is all the same
    for numbers in random order.
    """
    total, entries = 0.0, 0
    for t, is_compared in enumerate(objective.is_compared):
        a, d = objective.values[t]
        reach = sqrt(squared(a) * squared(d))
        if is_compared and reach:
            most = [best_on_axis(objective, t, place) for place in assigned_axes(objective, t)]
            total += a.size * max(most, default=dot(a, d)) / reach
            entries += a.size
    return total / max(1, entries)


def assigned_axes(objective: Objective, t: int) -> list[int]:
    """The axes of a tensor on which units are assigned."""
    return [place for place, axis in enumerate(objective.axes[t]) if any(block.pair >= 0 for block in axis.blocks)]


def best_on_axis(objective: Objective, t: int, place: int) -> float:
    """The inner products of the units on an axis with those that they fit best, summed."""
    worth = 0.0
    for b in range(len(objective.axes[t][place].blocks)):
        base, donor = (objective.rows(side, (t, place, b), {}) for side in (0, 1))
        worth += float((base @ donor.T).max(axis=1).sum(dtype=np.float64))
    return worth


def mean_cosine(objective: Objective, orders: Orders) -> tuple[float, int]:
    """The mean cosine of compared tensors over their matched entries, and how many these are."""
    total, entries = 0.0, 0
    for t, is_compared in enumerate(objective.is_compared):
        a, b = objective.cut(t, orders)
        reach = sqrt(squared(a) * squared(b))
        if is_compared and reach:
            total += a.size * dot(a, b) / reach
            entries += a.size
    return total / max(1, entries), entries


def shuffled(correspondence: Correspondence, seed: tuple[int, int]) -> Correspondence:
    """The same with the donor's values in random order, tensor by tensor."""
    shelf = Shelf()
    tensors = tuple(
        (replace(pair, donor_values=ShuffledValues(pair.donor_values, (*seed, number), shelf)), axes)
        for number, (pair, axes) in enumerate(correspondence.tensors)
    )
    return replace(correspondence, tensors=tensors)


@dataclass(frozen=True)
class ShuffledValues(Boxed):
    """Values in random order, of which large ones are kept in a file: there are as many as the donor has."""

    read: Read
    seed: tuple[int, ...]
    shelf: Shelf

    def __call__(self) -> Array:
        """All values. Raises FileError."""
        values = self.read()
        order = np.random.default_rng(self.seed).permutation(values.ravel())
        return self.shelf.kept(order.reshape(values.shape))

    @property
    def is_mapped(self) -> bool:
        """Whether they take no memory of this process: large ones do not."""
        return True

    def open(self) -> ReadBox:
        """What gives the values of a box."""
        return BoxesOf(self())
