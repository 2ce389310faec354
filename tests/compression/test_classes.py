"""Laws of scores whose classes are joined: what all models have is averaged, and no model's level counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from mal_graph.compression import Classes, Scoring
from mal_graph.compression.classes import joined

NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=6, unique=True).map(tuple)
PAIRS = st.tuples(NAMES, NAMES)
SEEDS = st.integers(0, 100)


def classes_of(lists, scoring=Scoring.LOGITS):
    return Classes(1, *joined(lists), scoring)


def scores_for(lists, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 2, (4, len(names))) for names in lists]


def mean(classes, scores):
    """What the written operators compute."""
    shares = [1 / len(scores)] * len(scores)
    total = np.zeros((len(scores[0]), len(classes.names)))
    terms = zip(classes.places, classes.factors(shares), classes.level_factors(shares), scores, strict=True)
    for places, factors, levels, own in terms:
        known = np.array(places) >= 0
        total += np.where(known, own[:, places], 0) * factors + logsumexp(own, axis=1, keepdims=True) * levels
    return total


@given(PAIRS, SEEDS)
def test_every_name_is_there_once_and_the_first_list_comes_first(lists, seed):
    names, places = joined(lists)
    assert sorted(names) == sorted(set(lists[0]) | set(lists[1]))
    assert names[: len(lists[0])] == lists[0]
    for own, where in zip(lists, places, strict=True):
        assert [name if place >= 0 else None for name, place in zip(names, where, strict=True)] == [
            name if name in own else None for name in names
        ]


@given(PAIRS, SEEDS, st.floats(-50, 50))
def test_the_level_of_a_model_s_logits_does_not_count(lists, seed, shift):
    classes, scores = classes_of(lists), scores_for(lists, seed)
    moved = mean(classes, [scores[0], scores[1] + shift])
    np.testing.assert_allclose(softmax(moved, 1), softmax(mean(classes, scores), 1), atol=1e-9)


@given(PAIRS, SEEDS)
def test_what_all_models_have_gets_the_mean_of_its_scores(lists, seed):
    for scoring in Scoring:
        classes, scores = classes_of(lists, scoring), scores_for(lists, seed)
        total = mean(classes, scores)
        for place, name in enumerate(classes.names):
            if all(name in own for own in lists):
                own = [each[:, one.index(name)] for each, one in zip(scores, lists, strict=True)]
                np.testing.assert_allclose(total[:, place], sum(own) / 2, rtol=1e-12)


@given(NAMES, SEEDS, st.randoms())
def test_with_the_same_classes_in_any_order_it_is_the_mean(names, seed, random):
    other = list(names)
    random.shuffle(other)
    for scoring in Scoring:
        classes, (a, b) = classes_of([names, tuple(other)], scoring), scores_for([names, names], seed)
        np.testing.assert_array_equal(classes.factors([0.5, 0.5]), np.full((2, len(names)), 0.5))
        assert not classes.level_factors([0.5, 0.5]).any()
        shuffled = b[:, [names.index(name) for name in other]]
        np.testing.assert_array_equal(mean(classes, [a, shuffled]), 0.5 * a + 0.5 * b)


@given(PAIRS, SEEDS)
def test_shares_give_the_mixture(lists, seed):
    classes, scores = classes_of(lists, Scoring.SHARES), [softmax(one, 1) for one in scores_for(lists, seed)]
    total = mean(classes, scores)
    np.testing.assert_allclose(total.sum(1), 1)
    logs = [classes.spread_out(np.log(one), number, is_sure=True) for number, one in enumerate(scores)]
    np.testing.assert_allclose(total, np.mean(np.exp(logs), axis=0), atol=1e-12)


@given(st.integers(2, 4), st.integers(2, 4), SEEDS)
def test_logits_without_a_class_in_common_give_the_mixture_too(mine, theirs, seed):
    lists = [tuple(f"a{i}" for i in range(mine)), tuple(f"b{i}" for i in range(theirs))]
    classes, scores = classes_of(lists), scores_for(lists, seed)
    mixture = np.concatenate([softmax(one, 1) / 2 for one in scores], axis=1)
    np.testing.assert_allclose(softmax(mean(classes, scores), 1), mixture, atol=1e-12)


@given(PAIRS, SEEDS)
def test_a_model_alone_never_prefers_a_class_that_it_does_not_know(lists, seed):
    classes, scores = classes_of(lists), scores_for(lists, seed)
    wide = classes.widened(scores[0], are_logits=True)
    np.testing.assert_array_equal(wide[:, : len(lists[0])], scores[0])
    assert (wide.max(axis=1) == scores[0].max(axis=1)).all()
    logs = scores[0] - logsumexp(scores[0], axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(classes.spread_out(logs, 0)), softmax(wide, 1), atol=1e-12)


def test_maps_of_scores_have_their_classes_on_any_axis():
    classes = Classes(1, *joined([("a", "b"), ("b", "c")]), Scoring.SHARES)
    maps = np.full((2, 2, 3, 3), 0.5)
    wide = classes.widened(maps, are_logits=False)
    assert wide.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(wide.sum(axis=1), 1)
    assert classes.along(np.arange(3), 4).shape == (3, 1, 1)


@pytest.mark.parametrize("scoring", Scoring)
def test_three_models_share_what_each_knows(scoring):
    lists = [("a", "b"), ("b", "c"), ("c", "a")]
    factors = classes_of(lists, scoring).factors([1 / 3] * 3)
    known = classes_of(lists, scoring).are_known
    expected = 1 / 3 if scoring is Scoring.SHARES else 1 / 2
    np.testing.assert_allclose(factors[known], expected, rtol=1e-15)  # one division in float64
