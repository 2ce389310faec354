"""The gate: of merges that gain nothing it lets through no more than it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.evaluation import Prediction, sample_losses, score
from mal_graph.searching.candidates import Candidate, Figure, Trial
from mal_graph.searching.gate import highest_rise

DRAWS, FINALISTS = 400, 3


def trial(losses):
    return Trial(Candidate((), ()), (Figure(float(np.mean(losses)), 0.5, tuple(losses)),))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_of_finalists_that_gain_nothing_few_pass(confidence):
    """The share of draws in which one of them passes is no more than is said, but for what so many draws can tell."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(DRAWS):
        base = rng.exponential(1.0, 60)
        own = [np.abs(base + rng.normal(0, 0.3, 60)) for _ in range(FINALISTS)]
        own = [losses - losses.mean() + base.mean() + rng.normal(0, 0.3) / np.sqrt(60) for losses in own]
        passed += any(highest_rise(trial(one), trial(base), confidence, FINALISTS) < 0 for one in own)
    spread = np.sqrt(confidence * (1 - confidence) / DRAWS)
    assert passed / DRAWS < 1 - confidence + 3 * spread


def test_a_merge_that_is_better_on_every_sample_passes():
    base = np.random.default_rng(0).exponential(1.0, 60)
    assert highest_rise(trial(0.9 * base), trial(base), 0.95, FINALISTS) < 0
    assert highest_rise(trial(base), trial(base), 0.95, FINALISTS) == 0.0
    assert not highest_rise(trial(np.full(60, np.nan)), trial(base), 0.95, FINALISTS) < 0


@given(st.integers(0, 1000), st.booleans())
def test_the_mean_loss_of_samples_is_the_loss(seed, is_regression):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(7, 3))
    labels = rng.normal(size=(7, 3)) if is_regression else rng.integers(0, 3, 7)
    prediction = Prediction(values, "y", "values" if is_regression else "logits")
    assert np.isclose(sample_losses(prediction, labels).mean(), score(prediction, labels, "x").loss, rtol=1e-12)
