"""Which units say most of what is read: a greedy order in which any number of the first can stay.

Of units with covariance G that readers multiply by W, the one is next whose part explains most of what the readers get:
j = argmax |(G W)_j|^2 / G_jj, and then its part is taken out of G: a pivoted Cholesky decomposition, weighted by the
readers. The units are scaled to unit deviation before, so that positive factors on them change nothing.

Source: the pivoted decomposition behind interpolative decompositions, as used on layers by Chee et al. 2022
(arXiv:2108.00065).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mal_graph.compression.moments import refuse_overflow
from mal_graph.graph import Array

FLAT = 1e-10  # of a unit's variance: what is left below this is rounding
TINY = float(np.finfo(float).tiny)
TIES = 1e-9  # gains closer than this share of the largest are equal: the unit that says more, then the first, is next


@dataclass(frozen=True)
class Ranking:
    """The units of coupled groups in the order in which they stay.

    Attributes:
        order: numbers of the units, the most telling first, shape (units, groups).
        explained: what share of what is read the first so many units explain, shape (units + 1,), from 0 to 1.
    """

    order: NDArray[np.int64]
    explained: Array

    def kept(self, count: int) -> NDArray[np.int64]:
        """The first units of each group, in stored order, shape (count, groups)."""
        return np.sort(self.order[:count], axis=0)


@dataclass(frozen=True)
class Read:
    """The same units at one place where they are read.

    A unit may have several cells there, which vary by themselves and go together: a head as many as it has units.

    Attributes:
        covariance: shape (cells, cells).
        coefficients: what they are multiplied by, shape (cells, targets).
        units: the unit that each cell belongs to, counted through all groups, shape (cells,).
    """

    covariance: Array
    coefficients: Array
    units: NDArray[np.int64]


def rank_units(places: Sequence[Sequence[Read]], groups: int, units: int) -> Ranking:
    """Order the units of coupled groups by how much of what is read at some places they explain; every place counts
    alike. One unit of each group is taken at a time: in every group the one that explains most of what is left.

    Args:
        places: each of one part or of several that are read apart, such as the blocks of a grouped convolution.

    Raises:
        DataError: what is read overflows.
    """
    left_at = Places(places, groups * units)
    order = np.zeros((units, groups), np.int64)
    explained = [0.0]
    left = np.ones((groups, units), bool)
    first = np.arange(groups) * units
    for step in range(units):
        shapes = left_at.gains.reshape(groups, units), left_at.sizes.reshape(groups, units)
        chosen = np.array([best_of(*own) for own in zip(*shapes, left, strict=True)])
        order[step] = chosen
        left[np.arange(groups), chosen] = False
        explained.append(explained[-1] + left_at.take(first + chosen))
    return Ranking(order, np.array(explained))


class Places:
    """What is left to explain at all places. A step touches only the parts where what it takes is read: a depthwise
    convolution has as many as it has channels."""

    def __init__(self, places: Sequence[Sequence[Read]], units: int) -> None:
        self.units = units
        parts = [[Elimination(part) for part in place] for place in places]
        energies = [sum(part.energy for part in place) for place in parts]
        sizes = [sum(part.sizes.sum() for part in place) for place in parts]
        counted = zip(parts, energies, sizes, strict=True)
        live = [(part, energy, size) for place, energy, size in counted if energy > 0 for part in place]
        self.parts = [part for part, *_ in live]
        self.energies = [energy for _, energy, _ in live]
        ends = np.cumsum([0, *(len(part.units) for part in self.parts)])
        self.spans = [slice(*pair) for pair in itertools.pairwise(ends.tolist())]
        self.columns = np.concatenate([np.zeros(0, np.int64), *(part.units for part in self.parts)])
        self.shares = np.concatenate([np.zeros(0), *(part.gains / energy for part, energy, _ in live)])
        self.sizes = self.by_unit(
            np.concatenate([np.zeros(0), *(part.sizes / max(size, TINY) for part, _, size in live)])
        )
        self.reading: dict[int, list[int]] = {}
        for index, part in enumerate(self.parts):
            for unit in part.units.tolist():
                self.reading.setdefault(unit, []).append(index)

    def by_unit(self, values: Array) -> Array:
        """Sums over all parts of one value for each of their units."""
        return np.bincount(self.columns, values, self.units)

    @property
    def gains(self) -> Array:
        """How much each unit explains of what is left, in shares of a place, summed over these."""
        return self.by_unit(self.shares)

    def take(self, units: NDArray[np.int64]) -> float:
        """Take out what some units explain; how much that is, in the same way."""
        taken = 0.0
        for index in sorted({part for unit in units.tolist() for part in self.reading.get(unit, ())}):
            part, energy = self.parts[index], self.energies[index]
            taken += part.take(np.flatnonzero(np.isin(part.units, units))) / energy
            self.shares[self.spans[index]] = part.gains / energy
        return taken


def best_of(gains: Array, sizes: Array, left: NDArray[np.bool_]) -> int:
    """The unit with the largest gain; of equal ones the one whose own coefficients are largest, then the first."""
    gains = np.where(left, gains, -1.0)
    best = gains.max()
    level = np.flatnonzero(left & (gains >= best - TIES * max(best, FLAT)))
    return int(level[np.argmax(sizes[level])]) if len(level) > 1 else int(level[0])


class Elimination:
    """What is left to explain where some units are read together.

    The matrices stay as they are, and what is taken out of them is kept as factors: a step then reads a part of them
    once, where taking it out would read and write all of both.

    Attributes:
        units: those that are read, in order; all else counts them by their place here.
        energy: what was read at first.
        sizes: of the coefficients of each unit.
    """

    def __init__(self, place: Read) -> None:
        sd = np.sqrt(np.maximum(np.diag(place.covariance), 0))
        scale = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0.0)
        coefficients = narrowed(place.coefficients * sd[:, None])
        cells = len(sd)
        self.units, own = np.unique(place.units, return_inverse=True)
        self.cells, self.is_cell = table_of(own, len(self.units))
        self.covariance = place.covariance * np.outer(scale, scale)
        refuse_overflow(self.covariance)
        self.read = self.covariance @ coefficients  # (cells, targets)
        self.left = self.within(self.covariance[self.cells[:, :, None], self.cells[:, None]])  # of each unit's variance
        rows = np.where(self.is_cell[:, :, None], self.read[self.cells], 0)
        self.squares = rows @ rows.swapaxes(1, 2)  # of what is read of what is left of it
        self.energy = float((coefficients * self.read).sum())
        self.sizes = np.bincount(own, (coefficients**2).sum(axis=1), len(self.units))
        refuse_overflow(self.squares)
        self.parts = np.zeros((cells, cells))  # what of each cell was taken out, step by step
        self.rows = np.zeros((cells, coefficients.shape[1]))  # what was read of what was taken
        self.pivots = np.zeros(cells)
        self.steps = 0

    def within(self, values: Array) -> Array:
        """Products of cells within each unit, shape (units, cells, cells), zero where a unit has fewer."""
        return np.where(self.is_cell[:, :, None] & self.is_cell[:, None], values, 0.0)

    @property
    def gains(self) -> Array:
        """What each unit explains of what is left."""
        if self.cells.shape[1] == 1:
            left, squares = self.left[:, 0, 0], self.squares[:, 0, 0]
            is_live = left > FLAT
            return np.asarray(np.where(is_live, squares / np.where(is_live, left, 1.0), 0.0))
        values, vectors = np.linalg.eigh(self.left)
        is_live = values > FLAT
        squares = (vectors * (self.squares @ vectors)).sum(axis=1)
        explained = np.where(is_live, squares / np.where(is_live, values, 1.0), 0.0)
        return np.asarray(np.maximum(explained.sum(axis=1), 0.0))

    def take(self, chosen: NDArray[np.int64]) -> float:
        """Take out what some units explain; how much that is."""
        own = self.cells[chosen][self.is_cell[chosen]]
        before = slice(0, self.steps)
        parts, rows, pivots = self.parts[:, before], self.rows[before], self.pivots[before]
        across = self.covariance[:, own] - parts @ (pivots[:, None] * parts[own].T)
        values, vectors = np.linalg.eigh(across[own])
        values, vectors = values[values > FLAT], vectors[:, values > FLAT]
        if len(values) == 0:
            return 0.0
        part = across @ vectors / values  # (cells, pivots)
        row = vectors.T @ (self.read[own] - parts[own] @ rows)
        cross = self.read @ row.T - parts @ (rows @ row.T)
        taken, crossing = part[self.cells], cross[self.cells]  # (units, cells, pivots)
        mixed = taken @ crossing.swapaxes(1, 2)
        more = taken @ (row @ row.T) @ taken.swapaxes(1, 2)
        self.squares = self.within(self.squares - mixed - mixed.swapaxes(1, 2) + more)
        self.left = self.within(self.left - (taken * values) @ taken.swapaxes(1, 2))
        self.left[chosen] = self.squares[chosen] = 0.0
        new = slice(self.steps, self.steps + len(values))
        self.parts[:, new], self.rows[new], self.pivots[new] = part, row, values
        self.steps += len(values)
        return float(((row**2).sum(axis=1) / values).sum())


def table_of(units: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The cells of each unit, shape (units, most cells of one), and which of these entries are cells."""
    held = np.bincount(units, minlength=count)
    is_cell = np.arange(max(1, held.max(initial=0))) < held[:, None]
    cells = np.zeros(is_cell.shape, np.int64)
    cells[is_cell] = np.argsort(units, kind="stable")
    return cells, is_cell


def narrowed(coefficients: Array) -> Array:
    """Coefficients with the same inner products, and no more targets than units."""
    units, targets = coefficients.shape
    if targets <= units:
        return coefficients
    products = coefficients @ coefficients.T
    refuse_overflow(products)
    values, vectors = np.linalg.eigh(products)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))
