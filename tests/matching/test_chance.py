"""An alignment is compared with one of random numbers: strangers have nothing to align, whatever is related has."""

from pathlib import Path

import numpy as np
import pytest
from builders import cnn, correspondence_of, mlp, network, noisy, permuted_copy, reseeded, vit
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.matching import assign_as_given, assign_units, chance, compare_with_chance
from mal_graph.matching.objective import Objective
from mal_graph.matching.starts import assign_forward

EXAMPLES = Path(__file__).parents[2] / "examples" / "01_first_merge"


def chance_of(base, donor):
    return compare_with_chance(assign_units(correspondence_of(base, donor)))


def example(name):
    return [mal_graph.load(EXAMPLES / f"{name}_{side}.onnx") for side in "ab"]


@pytest.mark.parametrize("name", ["mlp", "cnn", "twin"])
def test_networks_that_were_trained_apart_on_one_task_have_something_to_align(name):
    found = chance_of(*example(name))
    assert not found.has_nothing_to_align
    assert found.cosine > found.least > found.random


@settings(max_examples=15, derandomize=True, deadline=None)
@given(st.sampled_from(["mlp", "cnn", "twin"]), st.integers(0, 2**31))
def test_networks_of_random_weights_have_not(name, seed):
    base, donor = example(name)
    assert chance_of(reseeded(base, seed), reseeded(donor, seed + 1)).has_nothing_to_align


@pytest.mark.parametrize("name", ["mlp", "cnn", "twin"])
@pytest.mark.parametrize("seed", range(3))
def test_a_trained_network_and_random_weights_have_not(name, seed):
    base, donor = example(name)
    assert chance_of(base, reseeded(donor, seed)).has_nothing_to_align


@pytest.mark.parametrize("build", [mlp, cnn])
def test_a_copy_in_another_order_has(build):
    base = build(seed=0)
    copy, _ = permuted_copy(base, network(base).groups, seed=1)
    found = chance_of(base, copy)
    assert found.cosine == pytest.approx(1.0, abs=1e-4)
    assert not found.has_nothing_to_align


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("size", [0.1, 0.5, 1.0])
def test_a_fine_tune_has(build, size):
    base, rng = build(seed=0), np.random.default_rng(1)
    tuned = {
        name: (w.read() + size * w.read().std() * rng.standard_normal(w.shape)).astype(np.float32)
        for name, w in base.weights.items()
        if w.is_float
    }
    assert not chance_of(base, base.with_weights(tuned)).has_nothing_to_align


def test_other_widths_are_compared_by_what_is_matched():
    wide, narrow = mlp((32, 64, 48, 10), 0), mlp((32, 40, 48, 10), 1)
    assert chance_of(wide, narrow).has_nothing_to_align
    assert chance_of(narrow, wide).has_nothing_to_align


def test_a_good_pair_in_the_wrong_orders_has_nothing():
    """What is judged is the alignment, not what the models might have in common."""
    base, donor = example("twin")
    correspondence = correspondence_of(base, donor)
    wrong = tuple(np.roll(order, 1) for order in assign_units(correspondence).orders)
    assert compare_with_chance(assign_as_given(correspondence, wrong)).has_nothing_to_align


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["mlp", "cnn", "twin"])
@pytest.mark.parametrize("seed", range(3))
def test_many_numbers_are_judged_as_few_are(name, seed, monkeypatch):
    """Of many numbers the random ones are aligned no further than the verdict needs."""
    base, donor = example(name)
    pairs = (base, donor), (base, reseeded(donor, seed)), (reseeded(base, seed), reseeded(donor, seed + 1))
    few = [chance_of(*pair) for pair in pairs]
    monkeypatch.setattr(chance, "FEW_ENTRIES", 0)
    many = [chance_of(*pair) for pair in pairs]
    assert [one.has_nothing_to_align for one in many] == [one.has_nothing_to_align for one in few]
    assert [one.cosine for one in many] == [one.cosine for one in few]


@settings(max_examples=12, derandomize=True, deadline=None)
@given(st.sampled_from([mlp, cnn, vit]), st.integers(0, 2**31))
def test_a_bound_is_never_below_what_an_assignment_of_random_numbers_starts_with(build, seed):
    base = build()
    found = correspondence_of(base, reseeded(base, seed))
    objective = Objective(chance.shuffled(found, (seed,)))
    start, _ = chance.mean_cosine(objective, assign_forward(objective, 0))
    assert start <= chance.bound_of_start(objective)


@pytest.mark.parametrize("size", [0.1, 3.0])
def test_wide_networks_are_judged_by_a_bound_where_it_tells(size, monkeypatch):
    """A fine-tune is far above it without an assignment; what is nearer is judged by the assignment as ever."""
    base = mlp((512, 64, 48, 10))
    donor = noisy(base, size, 1)
    monkeypatch.setattr(chance, "FEW_ENTRIES", 0)
    assigned = chance_of(base, donor)
    monkeypatch.setattr(chance, "WIDE", 0)
    bounded = chance_of(base, donor)
    assert bounded.has_nothing_to_align == assigned.has_nothing_to_align
    assert (bounded.random > assigned.random) == (size < 1)


def test_the_figures_are_the_same_in_every_run():
    assert chance_of(*example("mlp")) == chance_of(*example("mlp"))


def test_models_without_units_to_assign_are_not_judged():
    assert chance_of(mlp((6, 4), 0), mlp((6, 4), 1)) is None
