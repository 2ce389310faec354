"""What the units that stay take over from those that go, in closed form.

t are the units as they were, h those that stay, as they are now. R with t ~ R h + c is fitted by ridge regression
towards the selection itself, R = R0 + (t - R0 h) h' (h h' + r I)^-1, at unit deviation of the units that stay, and the
reader's coefficients become R' W. How strongly it is drawn to R0 is chosen on held-out samples, by what the reader
would get.

Source: the correction of interpolative decompositions (Chee et al. 2022, arXiv:2108.00065); ridge towards a prior.
"""

import numpy as np

from mal_graph.compression.moments import Halves, SecondMoments
from mal_graph.graph import Array

STRENGTHS = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)  # of the variance of a unit


class Ridge:
    """The regressions of all units on those that stay, at any strength.

    Attributes:
        prior: which unit stands for which, shape (units, kept).
    """

    def __init__(self, moments: SecondMoments, prior: Array) -> None:
        hh, _, ht = moments.covariances  # x stays, y is all
        sd = np.sqrt(np.maximum(np.diag(hh), 0))
        self.scale = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0.0)
        scaled = hh * np.outer(self.scale, self.scale)
        self.values, self.vectors = np.linalg.eigh(scaled)
        self.values = np.maximum(self.values, 0)
        self.prior = prior
        left = (ht.T - prior @ hh) * self.scale  # (units, kept)
        self.turned = left @ self.vectors

    def at(self, strength: float) -> Array:
        """The regression at one strength, shape (units, kept)."""
        return np.asarray(self.prior + (self.turned / (self.values + strength)) @ self.vectors.T * self.scale)


def recover(halves: Halves, prior: Array, coefficients: Array) -> tuple[Array, Array]:
    """How all units are made of those that stay, shape (units, kept), and what is left of each in the mean.

    Args:
        halves: moments of the units that stay and of all.
        prior: which unit stands for which, shape (units, kept).
        coefficients: what readers multiply the units by, shape (units, targets).
    """
    weights = coefficients @ coefficients.T
    errors = np.zeros(len(STRENGTHS))
    for own, other in halves.folds:
        ridge = Ridge(own, prior)
        errors += [held_out_error(ridge.at(strength), other, weights) for strength in STRENGTHS]
    whole = halves.whole
    fitted = Ridge(whole, prior).at(STRENGTHS[int(np.argmin(errors))])
    kept, units = whole.means
    return fitted, units - fitted @ kept


def held_out_error(fitted: Array, moments: SecondMoments, weights: Array) -> float:
    """The variance of what readers miss, on other samples."""
    hh, tt, ht = moments.covariances
    cross = fitted @ ht
    missed = tt - cross - cross.T + fitted @ hh @ fitted.T
    return float((missed * weights).sum())
