"""How the units that a reader takes in vary together: second moments, summed up as the samples stream by.

Two halves of the samples are summed apart, so that what is fitted on one can be judged on the other. Nothing of size
samples x units is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.errors import DataError
from mal_graph.graph import Array


@dataclass
class SecondMoments:
    """Sums of products of the rows of one array with those of another, and of each by itself.

    Attributes:
        count: samples seen.
        x, y: summed rows, shapes (units,) and (others,).
        xx, yy, xy: summed products, shapes (units, units), (others, others) and (units, others).
        is_centred: whether the means are taken off.
    """

    count: int
    x: Array
    y: Array
    xx: Array
    yy: Array
    xy: Array
    is_centred: bool = True

    @classmethod
    def empty(cls, units: int, others: int, *, is_centred: bool = True) -> "SecondMoments":
        """Nothing seen of so many rows."""
        return cls(
            0,
            np.zeros(units),
            np.zeros(others),
            np.zeros((units, units)),
            np.zeros((others, others)),
            np.zeros((units, others)),
            is_centred,
        )

    def add(self, x: Array, y: Array) -> None:
        """Samples of both, shapes (units, samples) and (others, samples)."""
        self.count += x.shape[1]
        self.x += x.sum(axis=1, dtype=np.float64)
        self.y += y.sum(axis=1, dtype=np.float64)
        self.xx += x @ x.T
        self.yy += y @ y.T
        self.xy += x @ y.T

    def __add__(self, other: "SecondMoments") -> "SecondMoments":
        return SecondMoments(
            self.count + other.count,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.yy + other.yy,
            self.xy + other.xy,
            self.is_centred,
        )

    @property
    def covariances(self) -> tuple[Array, Array, Array]:
        """Of x, of y, and of x with y."""
        x, y = self.means
        return (
            self.xx / self.count - np.outer(x, x),
            self.yy / self.count - np.outer(y, y),
            self.xy / self.count - np.outer(x, y),
        )

    @property
    def means(self) -> tuple[Array, Array]:
        """Of x and of y; zeros where they are not taken off."""
        share = self.is_centred / self.count
        return self.x * share, self.y * share


@dataclass
class Halves:
    """Second moments of the samples at even and at odd places."""

    even: SecondMoments
    odd: SecondMoments

    @classmethod
    def empty(cls, units: int, others: int, *, is_centred: bool) -> "Halves":
        """Nothing seen of so many rows."""
        even, odd = (SecondMoments.empty(units, others, is_centred=is_centred) for _ in range(2))
        return cls(even, odd)

    @property
    def halves(self) -> Sequence[SecondMoments]:
        return self.even, self.odd

    @property
    def whole(self) -> SecondMoments:
        return self.even + self.odd

    @property
    def folds(self) -> Sequence[tuple[SecondMoments, SecondMoments]]:
        """What to fit on, and what to judge on."""
        return (self.even, self.odd), (self.odd, self.even)


def refuse_overflow(values: Array) -> None:
    """Raise DataError where not all are finite: no decomposition takes them."""
    if not np.isfinite(values).all():
        raise DataError("what its units give on the inputs overflows, or is no number: leave the model out")
