"""How well a model would do on all samples, from its answers to some: item response theory.

A sample is an item with a discrimination a and a difficulty b, a model has an ability t, and its answer is right with
the probability 1 / (1 + exp(b - a t)). An answer may also be right in part, as far as a probability says. Items are
fitted to the answers of models that answered all; a new model's ability is fitted to its answers to a few, and says how
likely it is right on the rest.

Source: the two-parameter logistic model (Birnbaum 1968), and its use for merges in MERGE3 (arXiv:2502.10436). Chosen:
the most probable parameters under normal priors, without which a sample that all models get right has no difficulty;
the abilities of those who answered all have mean 0 and variance 1 by them. Refused: MERGE3's abilities of several
dimensions, for which the answers of a few donors are too few; in one dimension the ability of a merge, which the paper
looks for among the weighted sums of those of its models, may be any number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from mal_graph.errors import DataError

Vector = NDArray[np.float64]
Answers = NDArray[np.bool_] | Vector

SPREAD_A, SPREAD_B = 0.5, 2.0  # of the priors of log discriminations and of difficulties
STEPS, STILL = 50, 1e-10  # of the fit of one ability


@dataclass(frozen=True)
class Items:
    """What is known of samples.

    Attributes:
        discrimination: a, positive, shape (samples,).
        difficulty: b, shape (samples,).
    """

    discrimination: Vector
    difficulty: Vector

    def chances(self, ability: float) -> Vector:
        """How likely a model of this ability is right on each sample."""
        return np.asarray(expit(self.discrimination * ability - self.difficulty))

    def taken(self, samples: Sequence[int] | NDArray[np.int64]) -> "Items":
        """Some of the samples."""
        return Items(self.discrimination[samples], self.difficulty[samples])


def fit_items(answers: Answers) -> tuple[Items, Vector]:
    """The samples, and the abilities of the models that answered all of them.

    Args:
        answers: whether each model is right on each sample, or how far from 0 to 1, shape (models, samples).

    Raises:
        DataError: there is no model or no sample.
    """
    models, samples = answers.shape
    if not models or not samples:
        raise DataError(f"{models} models and {samples} samples tell nothing: give at least one of each")
    share = answers.mean(axis=1)
    centred = share - share.mean()
    ability = centred / (centred.std() or 1.0)  # those who are right more often are abler
    right = np.clip(answers.mean(axis=0), 0.5 / models, 1 - 0.5 / models)
    start = np.concatenate([ability, np.zeros(samples), np.log(1 - right) - np.log(right)])
    found = minimize(improbability, start, args=(answers,), jac=True, method="L-BFGS-B").x
    ability, log_a, difficulty = np.split(found, [models, models + samples])
    return Items(np.exp(log_a), difficulty), ability


def improbability(parameters: Vector, answers: Answers) -> tuple[float, Vector]:
    """Minus the logarithm of how probable abilities, log discriminations and difficulties are; and its slope."""
    models, samples = answers.shape
    ability, log_a, difficulty = np.split(parameters, [models, models + samples])
    a = np.exp(log_a)
    margins = np.outer(ability, a) - difficulty  # (models, samples)
    pull = answers - expit(margins)
    value = -(log_expit(-margins) + answers * margins).sum() + (ability**2).sum() / 2
    value += (log_a**2).sum() / (2 * SPREAD_A**2) + (difficulty**2).sum() / (2 * SPREAD_B**2)
    slope = np.concatenate(
        [
            ability - pull @ a,
            log_a / SPREAD_A**2 - a * (ability @ pull),
            difficulty / SPREAD_B**2 + pull.sum(axis=0),
        ]
    )
    return float(value), slope


def estimate_ability(items: Items, answers: Answers) -> float:
    """The most probable ability of a model that answered these samples so: by Newton's method, on a function that is
    convex."""
    ability = 0.0
    for _ in range(STEPS):
        chances = items.chances(ability)
        slope = ability - float(items.discrimination @ (answers - chances))
        bend = 1.0 + float(items.discrimination**2 @ (chances * (1 - chances)))
        step = float(np.clip(slope / bend, -1.0, 1.0))
        ability -= step
        if abs(step) < STILL:
            break
    return ability


def estimate_accuracy(items: Items, samples: NDArray[np.int64], answers: Answers) -> float:
    """The share of all samples that a model is expected to be right on, from its answers to some of them: these as they
    are, and the rest by its ability (p-IRT)."""
    chances = items.chances(estimate_ability(items.taken(samples), answers))
    chances[samples] = answers
    return float(chances.mean())
