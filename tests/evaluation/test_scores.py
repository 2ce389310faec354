"""Scores: what is read from the graph, how data are matched to it, and agreement with scikit-learn."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score

from mal_graph import registry
from mal_graph.errors import DataError, MemoryLimitError, TimeLimitError, UsageError
from mal_graph.evaluation import Prediction, ensemble, evaluate, match_inputs, predict, read_npz, score
from mal_graph.evaluation.reading import read_output_kind
from mal_graph_adapters.onnx_format.file import OnnxAdapter

FEATURES = 5
SAMPLES = 300  # more than one batch
DTYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(rng):
    return rng.normal(size=(SAMPLES, FEATURES)).astype(np.float32)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 3, SAMPLES)


@pytest.fixture
def build(tmp_path):
    """Saves nodes as a model with weights `w` and `b`, and loads it."""

    def make(nodes, outputs=("y",), units=3, inputs=(("x", "float32", ("N", FEATURES)),), name="model", **more):
        rng = np.random.default_rng(units)
        weights = {
            "w": rng.normal(size=(FEATURES, units)).astype(np.float32),
            "b": rng.normal(size=units).astype(np.float32),
        } | more
        graph = helper.make_graph(
            [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
            name,
            [helper.make_tensor_value_info(n, DTYPES[dtype], shape) for n, dtype, shape in inputs],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(array, n) for n, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return OnnxAdapter().load(path)

    return make


def linear(out="y", source="x"):
    return ("Gemm", [source, "w", "b"], [out], {})


def logits_of(graph, x):
    return x @ graph.weights["w"].read() + graph.weights["b"].read()


def softmax(z):
    z = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


# --- classification ---


def test_logits_are_scored_as_scikit_learn_scores_their_softmax(build, images, labels):
    graph = build([linear()])
    scores = evaluate(graph, {"x": images, "labels": labels})
    logits = logits_of(graph, images)
    assert scores.scores == "logits"
    assert (scores.arm, scores.output, scores.samples) == (graph.name, "y", SAMPLES)
    assert scores.loss == pytest.approx(log_loss(labels, softmax(logits)), rel=1e-5)
    assert scores.metric == accuracy_score(labels, logits.argmax(axis=1))
    assert (scores.metric_name, scores.loss_name) == ("accuracy", "cross-entropy")


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax", "Identity"])
def test_the_last_operator_does_not_change_the_scores(build, images, labels, last):
    data = {"x": images, "labels": labels}
    plain = evaluate(build([linear()]), data)
    ended = evaluate(build([linear("z"), (last, ["z"], ["y"], {})], name=last), data)
    assert ended.loss == pytest.approx(plain.loss, rel=1e-5)
    assert ended.metric == plain.metric


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        (["Softmax"], "probabilities"),
        (["Sigmoid", "Identity", "Flatten"], "probabilities"),
        (["Sigmoid", "ReduceMean"], "probabilities"),
        (["Sigmoid", "ReduceMax", "Identity"], "probabilities"),
        (["Sigmoid", "ReduceSum"], "logits"),
        (["ReduceMean"], "logits"),
        (["LogSoftmax"], "logits"),
        (["Softmax", "Relu"], "logits"),
        (["Identity"], "logits"),
    ],
)
def test_probabilities_are_told_from_logits_by_the_graph(build, ops, expected):
    nodes = [linear("t0"), *((op, [f"t{i}"], [f"t{i + 1}"], {}) for i, op in enumerate(ops))]
    graph = build(nodes, outputs=(f"t{len(ops)}",))
    assert read_output_kind(graph, f"t{len(ops)}") == expected


def test_the_kind_of_scores_can_be_overridden(build, images, labels):
    graph = build([linear("z"), ("Softmax", ["z"], ["p"], {}), ("Mul", ["p", "one"], ["y"], {})], one=np.float32([1]))
    data = {"x": images, "labels": labels}
    assert evaluate(graph, data).scores == "logits"
    scores = evaluate(graph, data, output_kind="probabilities")
    assert scores.loss == pytest.approx(log_loss(labels, softmax(logits_of(graph, images))), rel=1e-5)


def test_values_outside_0_to_1_are_refused_as_probabilities(build, images, labels):
    with pytest.raises(
        DataError, match=r"output 'y' runs from -.* to .*, so it holds no probabilities: try `output_kind`"
    ):
        evaluate(build([linear()]), {"x": images, "labels": labels}, output_kind="probabilities")


def test_an_unknown_kind_of_scores_is_refused(build, images, labels):
    with pytest.raises(UsageError, match="take one of logits, probabilities, values"):
        evaluate(build([linear()]), {"x": images, "labels": labels}, output_kind="percent")


@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("ends_in_sigmoid", [True, False])
def test_one_unit_means_binary(build, images, labels, ends_in_sigmoid, is_flat):
    nodes = [linear("a"), ("Sigmoid" if ends_in_sigmoid else "Identity", ["a"], ["c"], {})]
    nodes += [("Squeeze", ["c", "axes"], ["y"], {}) if is_flat else ("Identity", ["c"], ["y"], {})]
    graph = build(nodes, units=1, axes=np.array([1]))
    scores = evaluate(graph, {"x": images, "labels": labels % 2})
    yes = 1 / (1 + np.exp(-logits_of(graph, images)[:, 0].astype(np.float64)))
    assert scores.scores == ("probabilities" if ends_in_sigmoid else "logits")
    assert scores.loss == pytest.approx(log_loss(labels % 2, yes), rel=1e-5)
    assert scores.metric == accuracy_score(labels % 2, yes > 0.5)


def test_classes_may_lie_on_an_inner_axis(build, rng):
    graph = build(
        [("Conv", ["x", "k"], ["y"], {})],
        inputs=(("x", "float32", ("N", 2, 4, 4)),),
        k=rng.normal(size=(3, 2, 1, 1)).astype(np.float32),
    )
    pixels = rng.normal(size=(7, 2, 4, 4)).astype(np.float32)
    labels = rng.integers(0, 3, (7, 4, 4))
    scores = evaluate(graph, {"x": pixels, "labels": labels})
    logits = np.einsum("nchw,kc->nhwk", pixels, graph.weights["k"].read()[:, :, 0, 0]).reshape(-1, 3)
    assert scores.samples == 7
    assert scores.loss == pytest.approx(log_loss(labels.ravel(), softmax(logits)), rel=1e-5)
    assert scores.metric == accuracy_score(labels.ravel(), logits.argmax(axis=1))


def test_huge_logits_give_a_finite_loss(build, images, labels):
    graph = build([linear("z"), ("Mul", ["z", "big"], ["y"], {})], big=np.float32([1e6]))
    assert np.isfinite(evaluate(graph, {"x": images, "labels": labels}).loss)


@pytest.mark.parametrize(("op", "units"), [("Softmax", 3), ("Sigmoid", 1)])
def test_a_probability_rounded_to_zero_gives_a_finite_loss(build, images, labels, op, units):
    nodes = [linear("z"), ("Mul", ["z", "big"], ["m"], {}), (op, ["m"], ["y"], {})]
    graph = build(nodes, units=units, big=np.float32([1e6]))
    assert 10 < evaluate(graph, {"x": images, "labels": labels if units == 3 else labels % 2}).loss < 100


def test_a_nan_is_reported_and_counts_as_wrong(build, images, labels):
    graph = build([linear()])
    whole = predict(graph, {"x": images, "labels": labels})
    images[0] = np.nan
    scores = score(predict(graph, {"x": images, "labels": labels}), labels, "net")
    hits = whole.values.argmax(axis=1) == labels
    assert np.isnan(scores.loss)
    assert scores.metric == pytest.approx(hits[1:].sum() / SAMPLES)


@pytest.mark.parametrize(("shift", "found"), [(1, "1 to 3"), (-1, "-1 to 1")])
def test_labels_out_of_range_are_refused(build, images, labels, shift, found):
    with pytest.raises(DataError, match=rf"labels run from {found}, but output 'y' knows classes 0 to 2: number"):
        evaluate(build([linear()]), {"x": images, "labels": labels + shift})


# --- regression ---


@pytest.mark.parametrize("units", [1, 3])
def test_float_labels_mean_regression(build, images, rng, units):
    graph = build([linear()], units=units)
    values = logits_of(graph, images)
    target = values + rng.normal(size=values.shape)
    scores = evaluate(graph, {"x": images, "labels": target[:, 0] if units == 1 else target}, arm="base")
    assert (scores.arm, scores.scores, scores.metric_name, scores.loss_name) == (
        "base",
        "values",
        "R2",
        "mean squared error",
    )
    assert scores.loss == pytest.approx(mean_squared_error(target, values), rel=1e-5)
    assert scores.metric == pytest.approx(r2_score(target, values), rel=1e-5)


def test_a_constant_target_has_the_r2_of_scikit_learn():
    target, values = np.ones((4, 2)), np.ones((4, 2))
    values[0, 1] = 2
    assert score(Prediction(values, "y", "values"), target, "a").metric == r2_score(target, values)


def test_integer_labels_can_be_values(build, images, labels):
    graph = build([linear()], units=1)
    scores = evaluate(graph, {"x": images, "labels": labels}, output_kind="values")
    assert scores.metric == pytest.approx(r2_score(labels, logits_of(graph, images)[:, 0]), rel=1e-5)


def test_float_labels_for_a_classifier_are_explained(build, images, labels):
    data = {"x": images, "labels": labels.astype(float)}
    with pytest.raises(
        DataError, match=r"no output of .* fits the labels, float64 \(300,\), read as values: .*integer"
    ):
        evaluate(build([linear()]), data)
    with pytest.raises(DataError, match="logits need integer labels, found float64: store class numbers as int64"):
        evaluate(build([linear()]), data, output_kind="logits")


# --- outputs ---


def two_heads(build):
    return build([linear("main"), ("Neg", ["main"], ["aux"], {})], outputs=("main", "aux"))


def test_several_outputs_that_fit_are_named(build, images, labels):
    with pytest.raises(
        DataError, match=r"outputs 'main' and 'aux' of .* all fit the labels: name one with `score_output`"
    ):
        evaluate(two_heads(build), {"x": images, "labels": labels})


def test_an_output_can_be_chosen(build, images, labels):
    assert evaluate(two_heads(build), {"x": images, "labels": labels}, score_output="aux").output == "aux"


def test_an_absent_output_is_refused_with_the_ones_there_are(build, images, labels):
    with pytest.raises(DataError, match="has no output 'z': take one of aux, main"):
        evaluate(two_heads(build), {"x": images, "labels": labels}, score_output="z")


def test_an_output_that_does_not_fit_is_passed_over(build, images, labels):
    nodes = [linear(), ("ReduceMax", ["y"], ["top"], {"keepdims": 0}), ("ArgMax", ["y"], ["class"], {"axis": 1})]
    assert evaluate(build(nodes, outputs=("class", "top", "y")), {"x": images, "labels": labels}).output == "y"


# --- batches ---


@pytest.mark.parametrize("batch", [1, 7, 300, 512])
def test_a_fixed_batch_changes_nothing(build, images, labels, batch):
    """The reshape inside holds the model to its batch."""
    data = {"x": images, "labels": labels}
    nodes = [linear("z"), ("Reshape", ["z", "shape"], ["y"], {})]
    fixed = build(
        nodes, inputs=(("x", "float32", (batch, FEATURES)),), shape=np.array([batch, 3]), name=f"fixed{batch}"
    )
    free = predict(build([linear()]), data)
    assert np.allclose(predict(fixed, data).values, free.values, atol=1e-5)


# --- ensembles ---


@pytest.mark.parametrize("error", [MemoryLimitError, TimeLimitError])
def test_samples_that_take_too_much_together_are_run_in_parts(build, images, labels, error):
    """A runner that takes no more than five samples at once; and one that takes none."""
    graph = build([linear()])
    expected = evaluate(graph, {"x": images, "labels": labels})
    found = evaluate(graph, {"x": images, "labels": labels}, runner=Narrow(5, error))
    assert (found.metric, found.samples) == (expected.metric, expected.samples)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    with pytest.raises(error):
        evaluate(graph, {"x": images, "labels": labels}, runner=Narrow(0, error))


class Narrow:
    """A runner whose sessions take so many samples at once."""

    def __init__(self, most, error):
        self.most, self.error = most, error

    def open(self, *given, **how):
        session = registry.runner("onnxruntime").open(*given, **how)
        run = session.run

        def run_few(inputs, *more):
            if len(inputs["x"]) > self.most:
                raise self.error("too much")
            return run(inputs, *more)

        session.run = run_few
        return session


def test_an_ensemble_is_the_mean_probability(build, images, labels):
    data = {"x": images, "labels": labels}
    predictions = [predict(build([linear()]), data)]
    predictions += [predict(build([linear("z"), ("Neg", ["z"], ["y"], {})], name="other"), data)]
    together = ensemble(predictions)
    mean = np.mean([np.exp(p.values) for p in predictions], axis=0)
    assert np.allclose(np.exp(together.values), mean)
    scores = score(together, labels, "ensemble")
    assert scores.loss == pytest.approx(log_loss(labels, mean))
    assert (scores.arm, scores.scores) == ("ensemble", "probabilities")


def test_an_ensemble_of_one_is_that_one(build, images, labels):
    one = predict(build([linear()]), {"x": images, "labels": labels})
    assert np.allclose(ensemble([one]).values, one.values)


def test_an_ensemble_of_values_is_their_mean():
    members = [Prediction(np.full((2, 1), value), "y", "values") for value in (1.0, 4.0)]
    assert np.array_equal(ensemble(members).values, [[2.5], [2.5]])


def test_an_ensemble_of_different_tasks_is_refused():
    members = [Prediction(np.zeros((2, 3)), "y", "logits"), Prediction(np.zeros((2, 3)), "z", "values")]
    with pytest.raises(DataError, match=r"one shape and kind, found 'y' \(2, 3\) logits, 'z' \(2, 3\) values"):
        ensemble(members)
    with pytest.raises(DataError, match="at least one"):
        ensemble([])


# --- matching data to inputs ---

TWO = (("x", "float32", ("N", FEATURES)), ("ids", "int64", ("N", 2)))


def two_inputs(build, inputs=TWO):
    return build([linear(), ("Identity", ["ids"], ["out"], {})], inputs=inputs, outputs=("y", "out"))


def test_arrays_go_to_the_inputs_of_their_name(build, images, labels):
    ids = np.zeros((SAMPLES, 2), np.int64)
    matched = match_inputs(two_inputs(build), {"ids": ids, "labels": labels, "unused": ids, "x": images})
    assert matched["x"] is images
    assert matched["ids"] is ids
    assert list(matched) == ["x", "ids"]


def test_arrays_of_other_names_go_by_position(build, images, labels):
    same = (("x", "float32", ("N", FEATURES)), ("ids", "float32", ("N", FEATURES)))
    matched = match_inputs(two_inputs(build, same), {"first": images, "labels": labels, "second": -images})
    assert matched["x"] is images
    assert np.array_equal(matched["ids"], -images)


def test_arrays_of_other_names_go_by_shape_where_the_order_differs(build, images):
    ids = np.zeros((SAMPLES, 2), np.int32)
    matched = match_inputs(two_inputs(build), {"tokens": ids, "image": images, "weights": np.zeros((SAMPLES, 9))})
    assert matched["x"] is images
    assert matched["ids"].dtype == np.int64


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int64"])
def test_lossless_casts_and_float_rounding_are_done(build, images, dtype):
    array = np.abs(images * 50).astype(dtype)
    matched = match_inputs(build([linear()]), {"x": array})["x"]
    assert matched.dtype == np.float32
    assert np.array_equal(matched, array.astype(np.float32))


@pytest.mark.parametrize(
    ("inputs", "array"),
    [
        (("x", "float32", ("N", FEATURES)), np.full((2, FEATURES), 2**24 + 1)),
        (("x", "float32", ("N", FEATURES)), np.full((2, FEATURES), 1e300)),
        (("x", "int64", ("N", FEATURES)), np.full((2, FEATURES), 2**63, np.uint64)),
    ],
)
def test_casts_that_lose_something_are_refused(build, inputs, array):
    graph = build([("Identity", ["x"], ["y"], {})], inputs=[inputs])
    with pytest.raises(
        DataError, match=rf"array for input 'x' is {array.dtype} and has values that {inputs[1]} cannot"
    ):
        match_inputs(graph, {"x": array})


def test_a_mismatch_names_the_inputs_and_the_arrays(build, images, labels):
    with pytest.raises(
        DataError,
        match=r"takes 'x' float32 \(N, 5\), 'ids' int64 \(N, 2\); "
        r"found 'x' float32 \(300, 5\), 'labels' int64 \(300,\); give arrays of these names",
    ):
        match_inputs(two_inputs(build), {"x": images, "labels": labels})


@pytest.mark.parametrize("wrong", [np.zeros((3, 4)), np.zeros((3, FEATURES, 1)), np.array(1.0), np.full((3, 5), "a")])
def test_arrays_of_another_shape_or_type_are_refused(build, wrong):
    with pytest.raises(DataError, match="do not fit the inputs"):
        match_inputs(build([linear()]), {"x": wrong})


def test_arrays_of_different_length_are_refused(build, images, labels):
    with pytest.raises(DataError, match=r"number of samples: 'x' 300, 'labels' 299"):
        evaluate(build([linear()]), {"x": images, "labels": labels[:-1]})


def test_labels_are_asked_for(build, images):
    with pytest.raises(DataError, match=r"hold no labels, only 'x' float32 \(300, 5\): add an array 'labels'"):
        evaluate(build([linear()]), {"x": images})


@pytest.mark.parametrize("wrong", [np.zeros(0, int), np.array(1), np.array(["cat"])])
def test_labels_that_are_none_are_refused(build, images, wrong):
    with pytest.raises(DataError, match="integers for classes or floats for values"):
        evaluate(build([linear()]), {"x": images, "labels": wrong})


# --- files ---


def test_a_written_file_is_read_back(tmp_path, images, labels):
    np.savez(tmp_path / "data.npz", x=images, labels=labels)
    read = read_npz(tmp_path / "data.npz")
    assert list(read) == ["x", "labels"]
    assert np.array_equal(read["x"], images)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no data file at .*none\.npz: give an \.npz file"):
        read_npz(tmp_path / "none.npz")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"junk")
    np.save(tmp_path / "b.npy", np.zeros(3))
    for name in ("a.npz", "b.npy"):
        with pytest.raises(DataError, match=r"is not an \.npz file: write it with numpy\.savez"):
            read_npz(tmp_path / name)


def test_a_broken_file_is_refused(tmp_path, images):
    path = tmp_path / "data.npz"
    np.savez(path, x=images)
    whole = bytearray(path.read_bytes())
    whole[40:80] = bytes(40)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"is a broken \.npz file"):
        read_npz(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="holds pickled objects, which are not loaded"):
        read_npz(tmp_path / "data.npz")


def test_an_empty_file_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz")
    with pytest.raises(DataError, match="holds no arrays"):
        read_npz(tmp_path / "data.npz")
