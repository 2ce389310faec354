"""Racing: what is surely worse is not scored to the end, and nothing that is better is lost by it."""

from itertools import pairwise

import numpy as np
import pytest
from builders import Net
from hypothesis import given
from hypothesis import strategies as st

from mal_graph import registry
from mal_graph.evaluation import Predictor
from mal_graph.searching import Candidate, Figure, Trial, search
from mal_graph.searching.racing import FIRST, is_surely_worse, looks

DRAWS, SAMPLES = 400, 600


def test_what_is_no_worse_is_seldom_given_up():
    """However often it is looked at: the share is no more than is said, but for what so many draws can tell."""
    rng, confidence, ends = np.random.default_rng(0), 0.9, looks(SAMPLES)
    given_up = 0
    for _ in range(DRAWS):
        rises = rng.normal(0, 1, SAMPLES)
        given_up += any(is_surely_worse(rises[:end], confidence, len(ends)) for end in ends[:-1])
    spread = np.sqrt(confidence * (1 - confidence) / DRAWS)
    assert given_up / DRAWS < 1 - confidence + 3 * spread


def test_what_is_worse_on_every_sample_is_given_up_at_once():
    rises = np.random.default_rng(0).exponential(1.0, FIRST)
    assert is_surely_worse(rises, 0.99, 5)
    assert not is_surely_worse(-rises, 0.99, 5)
    assert not is_surely_worse(0 * rises, 0.99, 5)
    assert not is_surely_worse(np.nan * rises, 0.99, 5)
    assert not is_surely_worse(rises, 1.0, 5)


@given(st.integers(1, 5000), st.integers(1, 200))
def test_looks_end_with_all_samples_and_leave_no_batch_half_filled(samples, batch):
    ends = looks(samples, batch)
    assert ends[-1] == samples
    assert all(end % batch == 0 and end >= FIRST for end in ends[:-1])
    assert all(after > before for before, after in pairwise(ends))


@pytest.mark.parametrize("batch", ["N", 4])
def test_stretches_of_samples_together_are_all_of_them(batch):
    net = Net(0)
    graph = net.graph(net.linear(net.input("x", (batch, 6)), 6, 5))
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((30, 6)).astype(np.float32), "labels": rng.integers(0, 5, 30)}
    predictor = Predictor(graph, data, runner=registry.runner())
    parts = [predictor.predict(stretch=range(*ends)).values for ends in pairwise((0, 7, 20, 30))]
    # Rounding of float32 over six terms, for kernels of other batch sizes.
    assert np.allclose(np.concatenate(parts), predictor.predict().values, atol=1e-5)


def test_what_was_not_scored_to_the_end_is_no_result():
    base = Trial(Candidate((), ()), (Figure(1.0, 0.5),))
    assert Trial(Candidate((), ()), (Figure(0.5, 0.9),)).passes(base, 0.0)
    assert not Trial(Candidate((), ()), (Figure(0.5, 0.9, samples=64),)).passes(base, 0.0)


def test_a_race_loses_nothing_that_is_better(small_zoo):
    options = {"verify": False, "compare": False, "search": "coordinates", "trials": 40}
    raced, whole = (
        search(small_zoo.base, small_zoo.donors, small_zoo.data, prune=prune, **options) for prune in (0.99, 1)
    )
    assert all(trial.is_whole for trial in whole.trials)
    given_up = [place for place, trial in enumerate(raced.trials) if not trial.is_whole]
    assert given_up
    assert [trial.candidate for trial in raced.trials] == [trial.candidate for trial in whole.trials]
    for place, trial in enumerate(raced.trials):
        if place in given_up:
            assert trial.figures[0].samples == FIRST
            assert whole.trials[place].loss > min(one.loss for one in whole.trials[:place])
        else:
            assert trial.loss == pytest.approx(whole.trials[place].loss, rel=1e-6)  # kernels of other batch sizes
    assert raced.winner.place == whole.winner.place
