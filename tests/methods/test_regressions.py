"""Methods on activations: no other linear answer is nearer to what they promise, as numpy's least squares say."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mal_graph.methods import Stack, find_method

few = settings(max_examples=4, deadline=None, phases=[Phase.reuse, Phase.generate])
CLOSE = 1e-5  # float32 weights of a regression with a condition below a hundred


def assert_close(mine, theirs):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=CLOSE * np.abs(theirs).max())


def drawn(seed, count, rows, columns, samples=200):
    """Weights and inputs of some models, the inputs correlated."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((count, columns, columns)) + 2 * np.eye(columns)
    inputs = mixing @ rng.standard_normal((count, columns, samples))
    return rng.standard_normal((count, rows, columns)).astype(np.float32), inputs


def moments_of(inputs):
    return (inputs @ inputs.transpose(0, 2, 1) / inputs.shape[2])[:, None]


seeds = st.integers(0, 999)


@given(seed=seeds, count=st.integers(1, 4))
@few
def test_regmean_has_the_least_squares_over_the_joint_inputs_of_all_linear_answers(seed, count):
    weights, inputs = drawn(seed, count, 3, 5)
    merged = find_method("regmean")(Stack(weights, moments=moments_of(inputs)), scaling=1.0)
    aims = np.hstack([weight @ own for weight, own in zip(weights, inputs, strict=True)])
    best = np.linalg.lstsq(np.hstack(inputs).T, aims.T, rcond=None)[0].T
    assert_close(merged, best)
    assert count == 1 or np.abs(best - weights.mean(axis=0)).max() > 0.01  # the plain mean is another answer


@given(seed=seeds, count=st.integers(1, 4))
@few
def test_pleas_makes_the_mean_output_of_the_mean_input_as_near_as_it_can_be(seed, count):
    weights, inputs = drawn(seed, count, 3, 5)
    products = np.einsum("ias,jbs->ijab", inputs, inputs)[:, :, None] / inputs.shape[2]
    shares = np.linspace(1.0, 2.0, count)
    merged = find_method("pleas")(Stack(weights, moments=products), weight=shares)
    outputs = np.average(weights @ inputs, axis=0, weights=shares)
    best = np.linalg.lstsq(np.average(inputs, axis=0, weights=shares).T, outputs.T, rcond=None)[0].T
    assert_close(merged, best)


@pytest.mark.parametrize("scaling", [0.0, 0.5, 1.0])
def test_scaling_is_of_products_of_different_inputs(scaling):
    weights, inputs = drawn(0, 2, 3, 4)
    grams = moments_of(inputs)[:, 0]
    grams = scaling * grams + (1 - scaling) * np.stack([np.diag(np.diag(gram)) for gram in grams])
    best = sum(weight @ gram for weight, gram in zip(weights, grams, strict=True)) @ np.linalg.inv(grams.sum(axis=0))
    assert_close(find_method("regmean")(Stack(weights, moments=moments_of(inputs)), scaling=scaling), best)


@given(seed=seeds)
@few
def test_rows_that_are_read_apart_are_solved_apart(seed):
    weights, inputs = drawn(seed, 2, 6, 4)
    _, others = drawn(seed + 1, 2, 6, 4)
    both = np.concatenate([moments_of(inputs), moments_of(others)], axis=1)
    merged = find_method("regmean")(Stack(weights, moments=both))
    for rows, moments in ((slice(0, 3), both[:, :1]), (slice(3, 6), both[:, 1:])):
        assert np.array_equal(merged[rows], find_method("regmean")(Stack(weights[:, rows], moments=moments)))


@given(seed=seeds)
@few
def test_a_model_has_no_say_in_rows_that_it_lacks_nor_in_columns(seed):
    weights, inputs = drawn(seed, 3, 4, 5)
    inputs[2, 3:] = 0  # it lacks the last two columns, and the last row
    present = np.ones(weights.shape, bool)
    present[2, 3], present[2, :, 3:] = False, False
    merged = find_method("regmean")(Stack(weights, present=present, moments=moments_of(inputs)), scaling=1.0)
    changed = weights + 100 * ~present
    again = find_method("regmean")(Stack(changed, present=present, moments=moments_of(inputs)), scaling=1.0)
    assert_close(again, merged)
    two = find_method("regmean")(Stack(weights[:2], moments=moments_of(inputs[:2])), scaling=1.0)
    assert_close(merged[3], two[3])


def test_what_inputs_never_show_is_the_mean():
    weights, inputs = drawn(0, 2, 3, 5)
    inputs[:, 4] = 0
    merged = find_method("regmean")(Stack(weights, moments=moments_of(inputs)))
    assert_close(merged[:, 4], weights[:, :, 4].mean(axis=0))
    for name in ("regmean", "pleas", "regmean_plus_plus"):
        assert_close(find_method(name)(Stack(weights)), weights.mean(axis=0))


@given(seed=seeds)
@few
def test_fisher_weighs_each_entry_by_its_share_of_the_information(seed):
    weights, _ = drawn(seed, 3, 4, 5)
    information = np.random.default_rng(seed).random(weights.shape)
    shares = np.array([1.0, 2.0, 0.5])
    merged = find_method("fisher")(Stack(weights, fisher=information), weight=shares)
    scaled = shares[:, None, None] * np.stack([one / np.linalg.norm(one) for one in information])
    assert_close(merged, np.average(weights, axis=0, weights=scaled))
    information[1:, 0] = 0
    alone = find_method("fisher")(Stack(weights, fisher=information), floor=1e-12)
    assert_close(alone[0], weights[0, 0])
    present = np.ones(weights.shape, bool)
    present[0, 1] = False
    lacking = find_method("fisher")(Stack(weights, fisher=information, present=present))
    changed = weights + 100 * ~present
    assert_close(find_method("fisher")(Stack(changed, fisher=information, present=present)), lacking)


@given(seed=seeds, count=st.integers(1, 3), bits=st.integers(3, 8))
@few
def test_e_pmq_lies_on_a_grid_and_nearer_to_what_the_models_give_than_the_rounded_mean(seed, count, bits):
    weights, inputs = drawn(seed, count, 6, 12)
    merged = find_method("e_pmq")(Stack(weights, moments=moments_of(inputs)), bits=bits, strength=1e-3)
    steps = 2 ** (bits - 1) - 1
    scale = np.abs(merged).max(axis=1, keepdims=True) / steps  # as any tool finds it that takes the largest entry
    np.testing.assert_allclose(merged / scale, np.rint(merged / scale), atol=1e-3)
    mean = weights.mean(axis=0)
    grid = np.abs(mean).max(axis=1, keepdims=True) / steps

    def off(values):
        return sum(((values - own) @ each).var() for own, each in zip(weights, inputs, strict=True))

    assert off(merged) < off(np.rint(mean / grid) * grid)
