"""Item response theory: abilities come back from simulated answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.stats import spearmanr

from mal_graph.errors import DataError
from mal_graph.searching.item_response import Items, estimate_ability, estimate_accuracy, fit_items, improbability


def simulated(models, samples, seed):
    """Items, abilities, and answers drawn from them."""
    rng = np.random.default_rng(seed)
    items = Items(np.exp(rng.normal(0, 0.4, samples)), rng.normal(0, 1.5, samples))
    abilities = rng.normal(0, 1, models)
    chances = np.stack([items.chances(ability) for ability in abilities])
    return items, abilities, rng.random(chances.shape) < chances


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_the_ability_behind_simulated_answers_comes_back(seed):
    """Up to the spread that a maximum of so many answers has: four standard errors, by the Fisher information."""
    items, abilities, answers = simulated(4, 1500, seed)
    for ability, own in zip(abilities, answers, strict=True):
        chances = items.chances(ability)
        information = 1 + float((items.discrimination**2 * chances * (1 - chances)).sum())
        shrunk = abs(ability) / information  # the prior pulls towards 0
        assert abs(estimate_ability(items, own) - ability) < 4 / np.sqrt(information) + shrunk


def test_fitted_items_rank_models_as_their_abilities_do():
    _, abilities, answers = simulated(30, 400, 0)
    items, fitted = fit_items(answers)
    assert spearmanr(fitted, abilities).statistic > 0.95
    again = [estimate_ability(items, own) for own in answers]
    assert spearmanr(again, abilities).statistic > 0.95


def test_a_few_answers_say_more_with_ability_than_alone():
    """Over many draws of a few samples the estimate is nearer to the accuracy on all than the share of these is."""
    _, _, answers = simulated(31, 400, 1)
    items, _ = fit_items(answers[:-1])
    accuracy, rng = answers[-1].mean(), np.random.default_rng(0)
    draws = [rng.choice(400, 20, replace=False) for _ in range(200)]
    estimated = [estimate_accuracy(items, some, answers[-1][some]) - accuracy for some in draws]
    counted = [answers[-1][some].mean() - accuracy for some in draws]
    assert np.square(estimated).mean() < 0.7 * np.square(counted).mean()


def test_all_samples_answered_leave_nothing_to_estimate():
    _, _, answers = simulated(5, 40, 2)
    items, _ = fit_items(answers)
    assert estimate_accuracy(items, np.arange(40), answers[0]) == answers[0].mean()


def test_the_slope_is_that_of_the_value():
    _, _, answers = simulated(3, 7, 3)
    at = np.random.default_rng(0).normal(size=3 + 2 * 7)
    error = check_grad(lambda x: improbability(x, answers)[0], lambda x: improbability(x, answers)[1], at)
    assert error < 1e-4  # of differences at steps of 1e-8


def test_no_answers_are_refused():
    with pytest.raises(DataError, match="0 models and 4 samples tell nothing"):
        fit_items(np.zeros((0, 4), bool))
