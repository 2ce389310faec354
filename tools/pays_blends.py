"""How units of two networks become those of one, in numbers alone: the pairings and groupings of the rival methods.

Units of both are counted through: those of the base, then those of the donor. Labels say for each of them which unit of
the result it becomes, shape (both,). Written from what the papers say, not from their code.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mal_graph.graph import Array

AGAIN = 0.3  # what the similarity of zipped units is multiplied by: ZipIt's alpha
ROUNDS = 50  # of clustering, at most

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Likeness:
    """How alike the units of both models are, on the inputs.

    Attributes:
        correlation: of activations, shape (both, both); 0 for a unit that never varies.
        products: mean products of activations, shape (both, both).
        importance: attribution of each unit, shape (both,); it sums to one for each model.
    """

    correlation: Array
    products: Array
    importance: Array

    @property
    def units(self) -> int:
        """How many each model has."""
        return len(self.importance) // 2

    @property
    def squared_distances(self) -> Array:
        """Of the activations of the base's units from those of the donor's, shape (units, units)."""
        own, units = np.diag(self.products), self.units
        return np.asarray(own[:units, None] + own[None, units:] - 2 * self.products[:units, units:])


@dataclass(frozen=True)
class Blend:
    """What the units of the result are made of, and what stands for a unit where it is read.

    Attributes:
        made: weights of the mean that each unit of the result is, shape (result, both).
        read: 1 where a unit of the result stands for one of a model, shape (result, both).
    """

    made: Array
    read: Array

    @classmethod
    def of(cls, labels: Labels, count: int, weights: Array | None = None) -> "Blend":
        """Every unit of the result is the mean of those with its label."""
        read = (labels == np.arange(count)[:, None]).astype(np.float64)
        made = read if weights is None else read * weights
        return cls(made / np.maximum(made.sum(axis=1, keepdims=True), np.finfo(float).tiny), read)

    @classmethod
    def own(cls, units: int, side: int) -> "Blend":
        """The units of one model, as they are."""
        both = np.eye(2 * units)[side * units : (side + 1) * units]
        return cls(both, both)

    @property
    def units(self) -> int:
        """How many the result has."""
        return len(self.made)

    def part(self, side: int, *, is_read: bool) -> Array:
        """What concerns one model, shape (result, units)."""
        return np.split(self.read if is_read else self.made, 2, axis=1)[side]


def in_pairs(own: Labels, others: Labels, units: int) -> Labels:
    """Labels where some of the base's units are one with the donor's, and all others stand alone."""
    labels = np.full(2 * units, -1)
    labels[own] = labels[units + others] = np.arange(len(own))
    alone = labels < 0
    labels[alone] = len(own) + np.arange(alone.sum())
    return labels


def matched(likeness: Likeness, count: int) -> Blend:
    """PLeaS (arXiv:2407.02447): all units are assigned by correlation, and the least similar pairs are parted again."""
    units = likeness.units
    across = likeness.correlation[:units, units:]
    own, others = linear_sum_assignment(across, maximize=True)
    best = np.argsort(-across[own, others], kind="stable")[: 2 * units - count]
    return Blend.of(in_pairs(own[best], others[best], units), count)


def transported(likeness: Likeness, count: int) -> Blend:
    """Partial fusion (arXiv:2605.22350): which units are aggregated, and with which, is one partial assignment."""
    units = likeness.units
    own, others = assigned_in_part(likeness.squared_distances, 2 * units - count)
    return Blend.of(in_pairs(own, others, units), count)


def assigned_in_part(costs: Array, pairs: int) -> tuple[Labels, Labels]:
    """The cheapest so many pairs of rows and columns: a whole assignment with partners of no cost for all others, who
    may not meet each other."""
    units = len(costs)
    left = units - pairs
    whole = np.zeros((units + left, units + left))
    whole[:units, :units] = costs
    whole[units:, units:] = costs.sum() + 1
    rows, columns = linear_sum_assignment(whole)
    is_pair = (rows < units) & (columns < units)
    return rows[is_pair], columns[is_pair]


def zipped(likeness: Likeness, count: int, within: float) -> Blend:
    """ZipIt! (arXiv:2305.03053): the two most correlated groups of units become one until so many are left, across the
    models and, for a share of a model's units (ZipIt's beta), within them."""
    units = likeness.units
    similarity = likeness.correlation.copy()
    np.fill_diagonal(similarity, -np.inf)
    labels = np.arange(2 * units)
    is_of = np.arange(2 * units)[:, None] // units == np.arange(2)  # (groups, models): which have a part in it
    left = np.full(2, int(within * units))
    for _ in range(2 * units - count):
        for model in np.flatnonzero(left <= 0):
            pure = is_of[:, model] & ~is_of[:, 1 - model]
            similarity[np.ix_(pure, pure)] = -np.inf
        first, second = divmod(int(similarity.argmax()), 2 * units)
        together = is_of[first] | is_of[second]
        if not together.all():
            left -= together
        row = AGAIN * np.minimum(similarity[first], similarity[second])
        row[[first, second]] = -np.inf
        similarity[first], similarity[:, first] = row, row
        similarity[second], similarity[:, second] = -np.inf, -np.inf
        labels[labels == second], is_of[first] = first, together
    return Blend.of(np.unique(labels, return_inverse=True)[1], count)


def clustered(likeness: Likeness, count: int) -> Blend:
    """Neuron interpolation (arXiv:2507.00037): k-means of the activations, every unit counting by its attribution."""
    products, own = likeness.products, np.diag(likeness.products)
    weights = likeness.importance + 1e-6 / len(own)  # a unit without any must still have a place in a mean
    labels = nearest_to(first_centres(products, weights, count), products)
    for _ in range(ROUNDS):
        made = Blend.of(labels, count, weights).made
        cross = made @ products
        far = own - 2 * cross + np.sum(cross * made, axis=1)[:, None]
        far[made.sum(axis=1) == 0] = np.inf  # nobody is in it
        new = far.argmin(axis=0)
        if np.array_equal(new, labels):
            break
        labels = new
    return Blend.of(labels, count, weights)


def first_centres(products: Array, weights: Array, count: int) -> Labels:
    """Units to start from: the most important one, then always the one that is farthest from all before."""
    own = np.diag(products)
    chosen = [int(np.argmax(weights))]
    far = own + own[chosen[0]] - 2 * products[chosen[0]]
    for _ in range(count - 1):
        far[chosen] = -np.inf
        chosen.append(int(np.argmax(far)))
        far = np.minimum(far, own + own[chosen[-1]] - 2 * products[chosen[-1]])
    return np.array(chosen)


def nearest_to(centres: Labels, products: Array) -> Labels:
    """For each unit the nearest of some; these are their own."""
    own = np.diag(products)
    labels = (own[centres, None] + own - 2 * products[centres]).argmin(axis=0)
    labels[centres] = np.arange(len(centres))
    return labels
