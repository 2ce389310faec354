"""Which units say most of what is read: a greedy order in which any number of the first can stay.

Of units with covariance G that readers multiply by W, the one is next whose part explains most of what the readers get:
j = argmax |(G W)_j|^2 / G_jj, and then its part is taken out of G: a pivoted Cholesky decomposition, weighted by the
readers. The units are scaled to unit deviation before, so that positive factors on them change nothing.

Source: the pivoted decomposition behind interpolative decompositions, as used on layers by Chee et al. 2022
(arXiv:2108.00065).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array

FLAT = 1e-10  # of a unit's variance: what is left below this is rounding
TIES = 1e-9  # gains closer than this share of the largest are equal: the unit that says more, then the first, is next


@dataclass(frozen=True)
class Ranking:
    """Units in the order in which they stay.

    Attributes:
        order: numbers of the units, the most telling first.
        explained: what share of what is read the first so many units explain, shape (units + 1,), from 0 to 1.
    """

    order: NDArray[np.int64]
    explained: Array

    def kept(self, count: int) -> list[int]:
        """The first units, in stored order."""
        return sorted(self.order[:count].tolist())


@dataclass(frozen=True)
class Read:
    """The same units at one place where they are read.

    Attributes:
        covariance: shape (units, units).
        coefficients: what they are multiplied by, shape (units, targets).
    """

    covariance: Array
    coefficients: Array


def rank_units(places: Sequence[Read]) -> Ranking:
    """Order units by how much of what is read at some places they explain; every place counts alike."""
    eliminations = [Elimination(place) for place in places]
    live = [one for one in eliminations if one.energy > 0]
    units = len(places[0].covariance)
    order: list[int] = []
    explained = [0.0]
    left = np.ones(units, bool)
    for _ in range(units):
        gains = sum((one.gains for one in live), np.zeros(units))
        sizes = sum((one.sizes for one in live), np.zeros(units))
        chosen = best_of(gains, sizes, left)
        order.append(chosen)
        explained.append(explained[-1] + float(gains[chosen]))
        left[chosen] = False
        for one in live:
            one.take(chosen)
    return Ranking(np.array(order, np.int64), np.array(explained))


def best_of(gains: Array, sizes: Array, left: NDArray[np.bool_]) -> int:
    """The unit with the largest gain; of equal ones the one whose own coefficients are largest, then the first."""
    gains = np.where(left, gains, -1.0)
    best = gains.max()
    level = np.flatnonzero(left & (gains >= best - TIES * max(best, FLAT)))
    return int(level[np.argmax(sizes[level])]) if len(level) > 1 else int(level[0])


class Elimination:
    """What is left to explain at one place.

    The matrices stay as they are, and what is taken out of them is kept as factors: a step then reads a part of them
    once, where taking it out would read and write all of both.

    Attributes:
        energy: what was read there at first.
        sizes: of the coefficients of each unit, as a share of all.
    """

    def __init__(self, place: Read) -> None:
        sd = np.sqrt(np.maximum(np.diag(place.covariance), 0))
        scale = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0.0)
        coefficients = narrowed(place.coefficients * sd[:, None])
        units = len(sd)
        self.covariance = place.covariance * np.outer(scale, scale)
        self.read = self.covariance @ coefficients  # (units, targets)
        self.left = np.diag(self.covariance).copy()  # of each unit's variance
        self.squares = (self.read**2).sum(axis=1)  # of what is read of what is left of it
        self.energy = float((coefficients * self.read).sum())
        own = (coefficients**2).sum(axis=1)
        self.sizes = own / max(own.sum(), np.finfo(float).tiny)
        self.parts = np.zeros((units, units))  # what of each unit was taken out, step by step
        self.rows = np.zeros((units, coefficients.shape[1]))  # what was read of the unit that was taken
        self.pivots = np.zeros(units)
        self.steps = 0

    @property
    def gains(self) -> Array:
        """What share of the energy each unit explains of what is left."""
        is_live = self.left > FLAT
        return np.where(is_live, self.squares / np.where(is_live, self.left, 1.0), 0.0) / self.energy

    def take(self, unit: int) -> None:
        """Take out what a unit explains."""
        pivot, step = float(self.left[unit]), self.steps
        if pivot <= FLAT:
            return
        parts, rows = self.parts[:, :step], self.rows[:step]
        own = parts[unit]
        part = (self.covariance[:, unit] - parts @ (own * self.pivots[:step])) / pivot
        row = self.read[unit] - own @ rows
        cross = self.read @ row - parts @ (rows @ row)
        self.squares = np.maximum(self.squares - 2 * part * cross + part**2 * (row @ row), 0.0)
        self.left = np.maximum(self.left - part**2 * pivot, 0.0)
        self.left[unit] = self.squares[unit] = 0.0
        self.parts[:, step], self.rows[step], self.pivots[step] = part, row, pivot
        self.steps += 1


def narrowed(coefficients: Array) -> Array:
    """Coefficients with the same inner products, and no more targets than units."""
    units, targets = coefficients.shape
    if targets <= units:
        return coefficients
    values, vectors = np.linalg.eigh(coefficients @ coefficients.T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))
