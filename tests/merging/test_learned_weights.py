"""Weights that are learned by running the result: their slopes, what they reach, and which graphs they are for."""

import numpy as np
import pytest
from builders import cnn, correspondence_of, mlp, noisy, permuted_copy, vit
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph import registry
from mal_graph.errors import DataError, UsageError
from mal_graph.matching import assign_units
from mal_graph.merging import LayerLambdas, Stacking, learn, plan_merge, stack_merge
from mal_graph.merging.learned_weights import Learning
from mal_graph.methods import find_method
from mal_graph.parameter_settings import settings_of
from mal_graph.symmetry import axis_groups

LEARNING = ["adamerging", "expert_merging", "fw_merging"]
few = settings(max_examples=3, deadline=None)


def inputs_for(graph, models, samples=16):
    """Unlabelled inputs of each model, each from another place."""
    (value,), rng = graph.inputs, np.random.default_rng(1)
    shape = (samples, *value.shape[1:])
    return {number: {value.name: rng.normal(0.3 * number, 1, shape).astype(np.float32)} for number in models}


def stacking_of(base, donors, method, given=()):
    plans = tuple(plan_merge(assign_units(correspondence_of(base, donor)), LayerLambdas.of(0.5)) for donor in donors)
    return Stacking(base, find_method(method), settings_of(given), plans, is_from_base=True)


def learning(base, donors, method, given=(), kind="logits"):
    own = stacking_of(base, donors, method, given)
    return Learning(own, inputs_for(base, own.numbers), registry.runner(), base.outputs[0].name, kind)


def learned(base, donors, method, given=()):
    """The weights by layer, and the stacking that has them."""
    own = stacking_of(base, donors, method, given)
    made = learn(own, inputs_for(base, own.numbers), registry.runner())
    return np.stack(list(made.learned.of_layer.values())), made


@given(seed=st.integers(0, 99), models=st.integers(1, 3))
@few
def test_the_slope_of_a_linear_model_is_that_of_its_squares(seed, models):
    """W and b of each model are one donor's: what is lowered is a square of the weights, whose slope is known."""
    base = mlp((4, 3), seed)
    donors = [noisy(base, 0.5, seed + number) for number in range(1, models + 1)]
    own = learning(base, donors, "expert_merging", {"batch": 16}, "values")
    point = np.random.default_rng(seed).uniform(-0.5, 1, own.start().shape)
    moves = {}
    for number, arrays in own.inputs.items():
        outputs = [run_of(graph, arrays) for graph in (base, *donors)]
        moves[number] = np.stack([one - outputs[0] for one in outputs[1:]])
    slope = np.zeros(models)
    for number, each in moves.items():
        apart = np.tensordot(point[:, 0], each, 1) - each[number - 1]
        slope += 2 * (apart * each).mean(axis=(1, 2)) / models
    np.testing.assert_allclose(own.slope_at(point, 0).sum(axis=1), slope, rtol=0, atol=2e-3 * np.abs(slope).max())


def run_of(graph, arrays):
    (values,) = registry.runner().open(graph).run(arrays).values()
    return values.astype(np.float64)


@pytest.mark.parametrize("method", LEARNING)
def test_without_steps_it_is_task_arithmetic(method):
    base = mlp((4, 6, 3), 0)
    donors = [noisy(base, 0.3, seed) for seed in (1, 2)]
    own = {"weight": 0.4, "1:weight@w0": 0.7, "1:weight@w1": 0.7}  # weight and bias of the first layer
    _, made = learned(base, donors, method, {**own, "steps": 0, "by_layer": True})
    assert same(stack_merge(made), stack_merge(stacking_of(base, donors, "task_arithmetic", own)))


def same(mine, theirs):
    return all(np.array_equal(weight.read(), theirs.weights[name].read()) for name, weight in mine.weights.items())


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_model_that_alone_learned_something_is_taken_whole(by_layer):
    """What the result is nearest to on the inputs of both is half way: one model is the base still. On those of the
    other alone it would be all of it."""
    base = mlp((4, 6, 3), 0)
    donor = noisy(base, 0.3, 1)
    own = {"steps": 60, "rate": 0.05, "stay": 0, "weight": 0.2, "by_layer": by_layer}
    weights, made = learned(base, [donor], "expert_merging", own)
    assert np.abs(weights[:, 1] - 1).max() < 0.1  # steps of Adam swing around the end
    assert "the distance of the result from each model went from" in made.note


@pytest.mark.parametrize("method", LEARNING)
def test_what_is_to_be_lowered_is_lowered_and_the_same_in_every_run(method):
    base = mlp((4, 6, 3), 0)
    donors = [noisy(base, 0.3, seed) for seed in (1, 2)]
    given = {"steps": 20, "weight": 0.8 if method == "fw_merging" else 0.3, "rate": 0.1}
    weights, _ = learned(base, donors, method, given)
    own = learning(base, donors, method, given)
    start, end = own.start(), weights[:, 1:].T[:, : own.start().shape[1]]
    everything = own.drawn(256, (0, 0))
    assert own.loss(end, everything) < own.loss(start, everything)
    assert np.array_equal(learned(base, donors, method, given)[0], weights)


@pytest.mark.parametrize("net", ["mlp", "cnn", "vit"])
def test_permuted_donors_are_weighed_as_they_were(net):
    base = {"mlp": lambda: mlp((4, 6, 3), 0), "cnn": lambda: cnn((4,), blocks=0, size=4), "vit": vit}[net]()
    donors = [noisy(base, 0.1, seed) for seed in (1, 2)]
    moved = [permuted_copy(donor, axis_groups(base), seed)[0] for seed, donor in enumerate(donors)]
    slopes = []
    for several in (moved, donors):
        own = learning(base, several, "adamerging")
        slopes.append(own.slope_at(own.start(), 0))
    # float32 rounds the entropy to seven digits, and the slope is a difference over a fiftieth
    np.testing.assert_allclose(*slopes, rtol=0, atol=1e-3 * np.abs(slopes[1]).max())
    assert np.ptp(slopes[1]) > 1e-3


def test_outputs_without_end_are_told():
    base = mlp((4, 6, 3), 0)
    own = learning(base, [noisy(base, 0.3, 1)], "adamerging")
    with np.errstate(all="ignore"), pytest.raises(DataError, match="a model whose outputs are infinite or none"):
        own.loss(np.full_like(own.start(), 1e38), own.drawn(4, (0, 0)))


@pytest.mark.parametrize("method", LEARNING)
def test_models_that_learned_nothing_give_the_base_and_the_report_says_what_was_reached(method):
    base = mlp((4, 6, 3), 0)
    copies = [permuted_copy(base, axis_groups(base), seed)[0] for seed in (1, 2)]
    options = {"calibrate": inputs_for(base, [0])[0], "verify": False, "compare": False, "parameters": {"steps": 3}}
    result = mal_graph.assemble(base, copies, ancestor=base, method=method, **options)
    assert all(np.array_equal(own.read(), base.weights[name].read()) for name, own in result.graph.weights.items())
    assert any(f"{method} learned its weights: the " in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, "adamerging learns how much each model counts by running the result: give unlabelled inputs"),
        (
            {"output_kind": "values", "calibrate": 16},
            UsageError,
            "makes a model sure of its classes, and `output_kind`",
        ),
        ({"score_output": "z", "calibrate": 16}, UsageError, "`score_output` is 'z', and mlp has gemm2: name one"),
        ({"calibrate": 3}, DataError, "there are 3 calibration samples"),
    ],
)
def test_what_cannot_be_learned_on_is_refused(options, error, message):
    base = mlp((4, 6, 3), 0).named("mlp")
    donor = noisy(base, 0.3, 1)
    if samples := options.get("calibrate"):
        options = {**options, "calibrate": inputs_for(base, [0], samples)[0]}
    with pytest.raises(error, match=message):
        mal_graph.assemble(base, donor, ancestor=base, method="adamerging", verify=False, compare=False, **options)
