"""Whole models merged by what their layers read: the moments are those of the models, in the base's frame."""

import numpy as np
import onnx
import pytest
from builders import Net, cnn, correspondence_of, mlp, narrower, permuted_copy, vit
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import mal_graph
from mal_graph import registry
from mal_graph.matching import assign_units
from mal_graph.merging import LayerLambdas, MeasuredStacking, Stacking, input_moments, plan_merge
from mal_graph.methods import find_method
from mal_graph.parameter_settings import settings_of
from mal_graph.symmetry import axis_groups

METHODS = ["regmean", "regmean_plus_plus", "pleas"]
CLOSE = 2e-5  # float32 activations, and regressions on them
few = settings(max_examples=2, deadline=None, phases=[Phase.reuse, Phase.generate])


def tuned(graph, seed, size=0.3):
    """The graph after some training, so to say."""
    rng = np.random.default_rng(seed)
    weights = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    moves = {name: rng.uniform(1 - size, 1 + size, array.shape) for name, array in weights.items()}
    return graph.with_weights({name: (array * moves[name]).astype(array.dtype) for name, array in weights.items()})


def inputs_for(graph, count, seed=0, samples=40):
    """Unlabelled inputs for so many models, each scaled in its own way."""
    rng, (value,) = np.random.default_rng(seed), graph.inputs
    shape = (samples, *value.shape[1:])
    scales = rng.uniform(0.2, 2.0, (count, 1, *shape[1:]))
    return {
        number: {value.name: (scale * rng.standard_normal(shape)).astype(np.float32)}
        for number, scale in enumerate(scales)
    }


def measured(base, donors, method, inputs, given=()):
    plans = tuple(plan_merge(assign_units(correspondence_of(base, donor)), LayerLambdas.of(0.5)) for donor in donors)
    stacking = Stacking(base, find_method(method), settings_of(given), plans)
    return MeasuredStacking(stacking, inputs, registry.runner())


def merged(*given, **more):
    return values(measured(*given, **more).merged())


def values(graph):
    return {name: weight.read() for name, weight in graph.weights.items()}


def assert_close(mine, theirs):
    for name, array in theirs.items():
        np.testing.assert_allclose(mine[name], array, rtol=0, atol=CLOSE * max(np.abs(array).max(), 1e-6))


def dense(weights):
    """The matrices and biases of a perceptron, front to back."""
    return [w for w in weights.values() if w.ndim == 2], [w for w in weights.values() if w.ndim == 1]


def nearest(matrices, inputs):
    """Least squares on the inputs of all models, by numpy."""
    aims = np.hstack([matrix @ own for matrix, own in zip(matrices, inputs, strict=True)])
    return np.linalg.lstsq(np.hstack(inputs).T, aims.T, rcond=None)[0].T


@given(seed=st.integers(0, 99))
@few
def test_regmean_solves_each_layer_on_what_it_reads_in_each_model(seed):
    base = mlp((4, 6, 3), seed)
    models, inputs = [base, tuned(base, seed + 1)], inputs_for(base, 2, seed)
    result, _ = dense(merged(base, models[1:], "regmean", inputs, ["scaling=1"]))
    parts, x = [dense(values(model)) for model in models], [own["x"].T for own in inputs.values()]
    assert_close({0: result[0]}, {0: nearest([matrices[0] for matrices, _ in parts], x)})
    hidden = [np.maximum(w[0] @ one + b[0][:, None], 0) for (w, b), one in zip(parts, x, strict=True)]
    live = np.abs(np.hstack(hidden)).max(axis=1) > 0
    assert_close({1: result[1][:, live]}, {1: nearest([w[1][:, live] for w, _ in parts], [h[live] for h in hidden])})


@given(seed=st.integers(0, 99))
@few
def test_regmean_plus_plus_solves_it_on_what_the_layers_before_give_by_then(seed):
    base = mlp((4, 6, 3), seed)
    models, inputs = [base, tuned(base, seed + 1)], inputs_for(base, 2, seed)
    result, biases = dense(merged(base, models[1:], "regmean_plus_plus", inputs, ["scaling=1"]))
    hidden = [np.maximum(result[0] @ own["x"].T + biases[0][:, None], 0) for own in inputs.values()]
    live = np.abs(np.hstack(hidden)).max(axis=1) > 0
    second = [dense(values(model))[0][1][:, live] for model in models]
    assert_close({1: result[1][:, live]}, {1: nearest(second, [h[live] for h in hidden])})


CASES = {
    "mlp by MatMul": ("regmean", lambda: mlp((4, 6, 5, 3), style="matmul")),
    "flattened cnn": ("regmean", lambda: cnn((4,), head="flatten", concat=True, size=4)),
    "transformer": ("regmean", lambda: vit(blocks=1)),
    "cnn": ("regmean_plus_plus", lambda: cnn((4,), depthwise=True, size=4)),
    "convolutions": ("pleas", lambda: cnn((4, 6), blocks=0, size=4)),
}


SLOW = ("flattened cnn", "convolutions")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_a_permuted_donor_is_merged_as_it_was(case):
    method, net = CASES[case]
    base = net()
    donor = tuned(base, 1, 0.02)
    moved, inputs = permuted_copy(donor, axis_groups(base), 2)[0], inputs_for(base, 2)
    mine, theirs = (merged(base, [own], method, inputs) for own in (moved, donor))
    assert_close(mine, theirs)
    plain = merged(base, [donor], method, inputs, ["1:weight=0"])
    assert all(np.array_equal(plain[name], array) for name, array in values(base).items())
    contractions = [name for name, array in theirs.items() if array.ndim > 1 and array.dtype == np.float32]
    mean = {name: (array + values(donor)[name]) / 2 for name, array in values(base).items()}
    far = [name for name in contractions if not np.allclose(theirs[name], mean[name], rtol=1e-5)]
    assert len(far) >= len(contractions) - 2  # of pleas the first reads the same in all; positions are read by none


@pytest.mark.parametrize("method", METHODS)
def test_columns_that_a_narrower_donor_lacks_are_the_bases(method):
    base = mlp((4, 8, 3))
    thin, _ = narrower(tuned(base, 1, 0.02), axis_groups(base), 2)
    found = measured(base, [thin], method, inputs_for(base, 2))
    (order,) = found.stacking.plans[0].alignment.orders
    second = next(name for name, array in values(base).items() if array.shape == (3, 8))
    (rows,) = (found.reads[name][1] for name in found.reads if name == second)
    assert np.array_equal(np.flatnonzero(rows.columns < 0), np.flatnonzero(order < 0))
    result = values(found.merged())
    lacking = order < 0
    if method == "regmean":  # no input of the donor speaks for them, and they are solved with the others
        gap = np.abs(result[second][:, lacking] - values(base)[second][:, lacking]).max()
        assert gap < np.abs(values(base)[second]).max()
    assert np.isfinite(result[second]).all()


def test_few_weights_at_a_time_are_the_same_weights(monkeypatch):
    base = mlp((4, 6, 5, 3))
    donor, inputs = tuned(base, 1, 0.02), inputs_for(base, 2)
    whole = {method: merged(base, [donor], method, inputs) for method in METHODS}
    monkeypatch.setattr(input_moments, "MOST_BYTES", 1)
    for method in METHODS:
        part = merged(base, [donor], method, inputs)
        assert all(np.array_equal(part[name], array) for name, array in whole[method].items())


@pytest.mark.parametrize("ending", ["logits", "softmax"])
def test_fisher_of_a_last_layer_is_that_of_gradients_drawn_by_hand(ending):
    """The mean over all labels, each as likely as the model says, of the squares of the gradients."""
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ("N", 4)), 4, 6))
    logits = net.linear(x, 6, 3)
    base = net.graph(logits if ending == "logits" else net.op("Softmax", logits, axis=-1))
    donor = permuted_copy(tuned(base, 1), axis_groups(base), 2)[0]
    plain, inputs = tuned(base, 1), inputs_for(base, 2)
    result, biases = dense(merged(base, [donor], "fisher", inputs))
    sides = []
    for model, own in zip((base, plain), inputs.values(), strict=True):
        matrices, shifts = dense(values(model))
        hidden = np.maximum(own["x"] @ matrices[0].T + shifts[0], 0)
        scores = np.exp(hidden @ matrices[1].T + shifts[1])
        chances = scores / scores.sum(axis=1, keepdims=True)
        squares = np.zeros((3, 7))
        for sample, chance in zip(np.column_stack([hidden, np.ones(len(hidden))]), chances, strict=True):
            for label in range(3):
                squares += chance[label] * np.outer(chance - np.eye(3)[label], sample) ** 2
        sides.append((np.column_stack([matrices[1], shifts[1]]), squares / len(hidden)))
    for part, mine in ((slice(0, 6), result[1]), (6, biases[1])):
        shares = np.stack([own[:, part] / np.linalg.norm(own[:, part]) for _, own in sides])
        shares = np.maximum(shares, 1e-6)
        assert_close({0: mine}, {0: np.average([own[:, part] for own, _ in sides], axis=0, weights=shares)})
    np.testing.assert_allclose(result[0], (dense(values(base))[0][0] + dense(values(plain))[0][0]) / 2, rtol=1e-5)


def test_a_network_whose_last_layer_gives_no_classes_is_averaged_by_fisher():
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ("N", 4)), 4, 6))
    base = net.graph(net.op("Tanh", net.linear(x, 6, 3)))
    donor = tuned(base, 1)
    result = merged(base, [donor], "fisher", inputs_for(base, 2))
    for name, array in values(base).items():
        np.testing.assert_allclose(result[name], (array + values(donor)[name]) / 2, rtol=1e-5, atol=1e-6)


def test_weights_that_are_too_wide_or_read_in_no_way_that_shows_get_the_mean(monkeypatch):
    base = mlp((4, 6, 3))
    donor, inputs = tuned(base, 1), inputs_for(base, 2)
    monkeypatch.setattr(input_moments, "MOST_COLUMNS", 5)
    result = merged(base, [donor], "regmean", inputs)
    second = next(name for name, array in values(base).items() if array.shape == (3, 6))
    np.testing.assert_allclose(result[second], (values(base)[second] + values(donor)[second]) / 2, rtol=1e-6)
    net = Net()
    y = net.op("ConvTranspose", net.input("x", ("N", 3, 4, 4)), net.weight(3, 4, 2, 2), kernel_shape=[2, 2])
    turned = net.graph(net.op("Relu", y))
    assert not measured(turned, [tuned(turned, 1)], "regmean", inputs_for(turned, 2)).reads


def test_a_weight_that_is_applied_twice_is_solved_on_both_inputs():
    net = Net()
    x, weight = net.input("x", ("N", 4)), net.weight(4, 4)
    first = net.op("Relu", net.op("MatMul", x, weight))
    base = net.graph(net.op("MatMul", first, weight))
    found = measured(base, [tuned(base, 1)], "regmean", inputs_for(base, 2))
    assert [len(rows.tensors) for rows in found.reads[weight].values()] == [2, 2]
    assert np.isfinite(values(found.merged())[weight]).all()


@pytest.mark.parametrize("style", ["gemm", "matmul"])
def test_what_e_pmq_makes_onnxruntime_quantises_without_loss(style, tmp_path):
    base = mlp((4, 6, 3), 0, style)
    own = [{"x": arrays["x"]} for arrays in inputs_for(base, 2).values()]
    made = mal_graph.assemble(base, tuned(base, 1), method="e_pmq", calibrate_of=own, compare=False)
    paths = [tmp_path / name for name in ("merged.onnx", "small.onnx")]
    made.save(paths[0])
    quantize_dynamic(*paths, per_channel=True, weight_type=QuantType.QInt8)
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(paths[1]).graph.initializer}
    whole = {name.removesuffix("_quantized"): values for name, values in stored.items() if name.endswith("_quantized")}
    assert len(whole) == 2
    for name, values in whole.items():
        weight = made.graph.weights[name.removesuffix("_Transposed")].read()
        again = values * stored[f"{name}_scale"]
        np.testing.assert_allclose(again.T if "_Transposed" in name else again, weight, atol=1e-6)  # float32 rounds
