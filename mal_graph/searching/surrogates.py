"""Losses as quadratic functions of the donors' weights, and the front of what these say is best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from mal_graph.searching.candidates import Candidate, Trial
from mal_graph.searching.method import Proposals, Space, in_batches, search_method
from mal_graph.searching.proposals import short_list

Vector = NDArray[np.float64]

DESIGN = 0.6  # of the trials that surrogates are fitted to before they are believed
STARTS = 4  # of each descent on a surrogate


@dataclass(frozen=True)
class Quadratic:
    """The function c + g x + x H x / 2 of weights."""

    constant: float
    gradient: Vector
    hessian: Vector

    def __call__(self, x: Vector) -> float:
        return float(self.constant + self.gradient @ x + x @ self.hessian @ x / 2)

    def slope(self, x: Vector) -> Vector:
        return np.asarray(self.gradient + self.hessian @ x)


def fit_quadratic(points: Vector, values: Vector) -> Quadratic:
    """The quadratic function nearest to values at points, shape (points, weights), in the least squares; of equally
    near ones that with the smallest coefficients."""
    count, weights = points.shape
    rows, columns = np.triu_indices(weights)
    terms = np.hstack([np.ones((count, 1)), points, points[:, rows] * points[:, columns]])
    found: Vector = np.asarray(np.linalg.lstsq(terms, values, rcond=None)[0], np.float64)
    hessian = np.zeros((weights, weights))
    hessian[rows, columns] = found[1 + weights :]
    return Quadratic(float(found[0]), found[1 : 1 + weights], hessian + hessian.T)


def coefficients(weights: int) -> int:
    """How many numbers say what a quadratic function is."""
    return (weights + 1) * (weights + 2) // 2


def weights_for(trials: int) -> int:
    """How many weights may vary where so many trials say what a quadratic function is; at least 1."""
    return max((n for n in range(1, trials + 1) if coefficients(n) <= DESIGN * trials), default=1)


@search_method(
    "map",
    source="arXiv:2406.07529",
    deviations=(
        "losses are fitted, by quadratic functions: the paper fits accuracies, by a sigmoid of one, and losses have no "
        "upper end",
        "the front of the surrogates are the lowest points of weighted sums, found by descent: the paper evolves it by "
        "NSGA-III",
        "what the surrogates call best is scored, and they are fitted again: the paper trusts the first fit",
        "of many donors those are taken that do best alone: a fit takes as many trials as it has coefficients",
    ),
)
def map_front(space: Space) -> Proposals:
    """Quadratic surrogates of the losses, fitted to random merges, and the front that they promise, scored."""
    from scipy.stats import qmc  # which takes half a second to load

    donors = yield from short_list(space, weights_for(space.trials))
    drawn = qmc.LatinHypercube(len(donors), rng=np.random.default_rng(space.seed))
    design = drawn.random(max(coefficients(len(donors)), int(DESIGN * space.trials))) * space.most
    trials = yield from in_batches(space, [candidate_at(space, donors, point) for point in design])
    rng = np.random.default_rng((space.seed, len(trials)))
    while surrogates := fit_losses(donors, trials):
        front = promised_front(surrogates, len(donors), space.most, space.batch, rng)
        trials += yield [candidate_at(space, donors, point) for point in front]


def fit_losses(donors: Sequence[str], trials: Sequence[Trial]) -> list[Quadratic]:
    """A surrogate for each loss; none where nothing could be scored."""
    scored = [trial for trial in trials if np.isfinite(trial.loss)]
    points = np.array([weights_of(donors, trial.candidate) for trial in scored])
    return [fit_quadratic(points, np.array(losses)) for losses in zip(*(t.losses for t in scored), strict=True)]


def promised_front(
    surrogates: Sequence[Quadratic], weights: int, most: float, count: int, rng: np.random.Generator
) -> list[Vector]:
    """The lowest points of weighted sums of surrogates, from the first alone to the last alone; of one surrogate its
    lowest point, and random points near it.

    Args:
        surrogates: one or two.
        weights, most: how many weights there are, and the largest.
        count: how many points are wanted.
    """
    if len(surrogates) == 1:
        lowest = lowest_point(surrogates, np.ones(1), weights, most, rng)
        near = [np.clip(lowest + 0.1 * most * rng.standard_normal(weights), 0, most) for _ in range(count - 1)]
        return [lowest, *near]
    shares = [np.array([1 - share, share]) for share in np.linspace(0, 1, max(2, count))]
    return [lowest_point(surrogates, share, weights, most, rng) for share in shares]


def lowest_point(
    surrogates: Sequence[Quadratic], shares: Vector, weights: int, most: float, rng: np.random.Generator
) -> Vector:
    """The lowest point of a weighted sum of surrogates that was found from some random starts."""
    pairs = list(zip(shares, surrogates, strict=True))

    def value(x: Vector) -> float:
        return float(sum(share * one(x) for share, one in pairs))

    def slope(x: Vector) -> Vector:
        return np.asarray(sum(share * one.slope(x) for share, one in pairs))

    starts = rng.random((STARTS, weights)) * most
    ends = [minimize(value, start, jac=slope, bounds=[(0.0, most)] * weights, method="L-BFGS-B") for start in starts]
    return np.asarray(min(ends, key=lambda end: float(end.fun)).x)


def candidate_at(space: Space, donors: Sequence[str], point: Vector) -> Candidate:
    """The merge with one weight for each donor."""
    return Candidate.of({donor: space.even(float(weight)) for donor, weight in zip(donors, point, strict=True)})


def weights_of(donors: Sequence[str], candidate: Candidate) -> list[float]:
    """The one weight of each donor."""
    return [candidate.by_donor.get(donor, (0.0,))[0] for donor in donors]
