"""What the units that stay take over from those that go, in closed form.

t are the units as they were, h those that stay, as they are now. R with t ~ R h + c is fitted by ridge regression
towards the selection itself, R = R0 + (t - R0 h) h' (h h' + r I)^-1, at unit deviation of the units that stay, and the
reader's coefficients become R' W. How strongly it is drawn to R0 is chosen on held-out samples, by what the reader
would get.

Source: the correction of interpolative decompositions (Chee et al. 2022, arXiv:2108.00065); ridge towards a prior.
"""

import numpy as np

from mal_graph.compression.moments import Halves, SecondMoments, refuse_overflow
from mal_graph.graph import Array

STRENGTHS = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)  # of the variance of a unit


class Ridge:
    """The regressions of all units on those that stay, at any strength.

    At a strength r it is R0 + A diag(1 / (l + r)) B, with the eigenvalues l of the units that stay.

    Attributes:
        prior: R0, which unit stands for which, shape (units, kept).
        values: l, shape (kept,).
        left, right: A and B, shapes (units, kept) and (kept, kept).
    """

    def __init__(self, moments: SecondMoments, prior: Array) -> None:
        hh, _, ht = moments.covariances  # h stays, t is all
        sd = np.sqrt(np.maximum(np.diag(hh), 0))
        scale = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0.0)
        correlations = hh * np.outer(scale, scale)
        refuse_overflow(correlations)
        values, vectors = np.linalg.eigh(correlations)
        self.prior, self.values = prior, np.maximum(values, 0)  # rounding makes some negative
        self.left, self.right = ((ht.T - prior @ hh) * scale) @ vectors, vectors.T * scale

    def at(self, strength: float) -> Array:
        """The regression at one strength, shape (units, kept)."""
        return np.asarray(self.prior + (self.left / (self.values + strength)) @ self.right)

    def errors(self, moments: SecondMoments, coefficients: Array) -> Array:
        """The variance of what readers miss on other samples, at each of `STRENGTHS`.

        With the regression as above it is a quadratic form in 1 / (l + r), so that all strengths take the products of
        one. What does not depend on the strength is left out.
        """
        hh, _, ht = moments.covariances
        read = coefficients.T @ self.left  # (targets, kept)
        linear = (self.right @ (hh @ (self.prior.T @ coefficients) - ht @ coefficients)).T  # (targets, kept)
        square = (read.T @ read) * (self.right @ hh @ self.right.T)
        shrunk = [1 / (self.values + strength) for strength in STRENGTHS]
        slope = (read * linear).sum(axis=0)
        return np.array([own @ square @ own + 2 * own @ slope for own in shrunk])


def recover(halves: Halves, prior: Array, coefficients: Array) -> tuple[Array, Array]:
    """How all units are made of those that stay, shape (units, kept), and what is left of each in the mean.

    Args:
        halves: moments of the units that stay and of all.
        prior: which unit stands for which, shape (units, kept).
        coefficients: what readers multiply the units by, shape (units, targets).
    """
    errors = sum((Ridge(own, prior).errors(other, coefficients) for own, other in halves.folds), np.zeros(()))
    whole = halves.whole
    fitted = Ridge(whole, prior).at(STRENGTHS[int(np.argmin(errors))])
    kept, units = whole.means
    return fitted, units - fitted @ kept
