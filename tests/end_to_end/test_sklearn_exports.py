"""Models of scikit-learn as its exporter writes them: pairs trained on two halves of the same data merge in full."""

import importlib
import json

import numpy as np
import pytest

import mal_graph
from mal_graph_adapters.onnx_format.sessions import open_session

skl2onnx = pytest.importorskip("skl2onnx")  # which brings scikit-learn
datasets, impute, linear, neural, pipeline, preprocessing, svm = (
    importlib.import_module(f"sklearn.{name}")
    for name in ("datasets", "impute", "linear_model", "neural_network", "pipeline", "preprocessing", "svm")
)
# A few rounds of training are enough here, and some are cut short.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

NAMES = np.array(["barolo", "grignolino", "barbera"])
SMALL = {"hidden_layer_sizes": (12,), "max_iter": 40}
WINE, DIABETES = datasets.load_wine(return_X_y=True), datasets.load_diabetes(return_X_y=True)

KINDS = {  # steps in front, the model of a seed, its data
    "logistic regression": ([preprocessing.StandardScaler], lambda seed: linear.LogisticRegression(), WINE),
    "of two classes": (
        [impute.SimpleImputer, preprocessing.Normalizer],
        lambda seed: linear.LogisticRegression(),
        (WINE[0], WINE[1] > 0),
    ),
    "of named classes": (
        [preprocessing.MinMaxScaler],
        lambda seed: linear.LogisticRegression(),
        (WINE[0], NAMES[WINE[1]]),
    ),
    "linear regression": ([], lambda seed: linear.LinearRegression(), DIABETES),
    "ridge": (
        [preprocessing.StandardScaler],
        lambda seed: linear.Ridge(),
        (DIABETES[0], np.c_[DIABETES[1], -DIABETES[1]]),
    ),
    "support vectors": ([], lambda seed: svm.LinearSVC(random_state=seed), WINE),
    "perceptron": ([preprocessing.StandardScaler], lambda seed: neural.MLPClassifier(random_state=seed, **SMALL), WINE),
    "named perceptron": (
        [preprocessing.Normalizer],
        lambda seed: neural.MLPClassifier(random_state=seed, **SMALL),
        (WINE[0], NAMES[WINE[1]]),
    ),
    "regressing perceptron": (
        [impute.SimpleImputer],
        lambda seed: neural.MLPRegressor(random_state=seed, **SMALL),
        DIABETES,
    ),
}


def exported(kind, seed, folder, zipmap, share=None):
    """The file of a model trained on half of the data, behind steps that were fitted to `share`, or to all."""
    steps, make, (x, y) = KINDS[kind]
    x, half = x.astype(np.float32), slice(seed, None, 2)
    front = [(f"step{i}", step()) for i, step in enumerate(steps)]
    prepared = x
    for _, step in front:
        prepared = step.fit(prepared[share] if share else prepared).transform(prepared)
    model = make(seed).fit(prepared[half], y[half])
    options = (
        {id(model): {"zipmap": zipmap}} if hasattr(model, "classes_") and not isinstance(model, svm.LinearSVC) else None
    )
    whole = pipeline.Pipeline([*front, ("model", model)]) if front else model
    proto = skl2onnx.to_onnx(whole, x[:1], options=options)
    path = folder / f"{seed}.onnx"
    path.write_bytes(proto.SerializeToString())
    return path, {proto.graph.input[0].name: x[:40]}


def outputs(path, inputs):
    """What onnxruntime gives, dictionaries of scores as rows."""
    found = open_session(str(path)).run(None, inputs)
    return [np.array([list(row.values()) for row in value]) if isinstance(value, list) else value for value in found]


def assert_same(found, expected):
    for x, y in zip(found, expected, strict=True):
        if y.dtype.kind == "f":
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(y).max())
        else:
            assert np.array_equal(x, y)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_was_learned_is_merged(kind, zipmap, tmp_path):
    (base, inputs), (donor, _) = (exported(kind, seed, tmp_path, zipmap) for seed in (0, 1))
    for lam, end in ((0.0, base), (0.5, None), (1.0, donor)):
        result = mal_graph.assemble(base, donor, lam=lam).save(tmp_path / "merged.onnx", overwrite=True)
        correspondence = result.merged[0].plan.alignment.correspondence
        assert (dict(correspondence.refused), dict(correspondence.dropped), dict(correspondence.unpaired)) == (
            {},
            {},
            {},
        )
        if end is not None:
            assert_same(outputs(tmp_path / "merged.onnx", inputs), outputs(end, inputs))


def test_other_numbers_of_a_scaler_are_said_and_the_bases_kept(tmp_path):
    kind = "logistic regression"
    (base, inputs), (donor, _) = (exported(kind, s, tmp_path, False, slice(s, None, 2)) for s in (0, 1))
    result = mal_graph.assemble(base, donor, lam=1.0).save(tmp_path / "merged.onnx")
    (lines,) = result.merged[0].plan.alignment.correspondence.unpaired.values()
    assert lines == [
        "offset and scale of the ai.onnx.ml.Scaler that prepares its inputs differ from the donor's: "
        "the base's are kept"
    ]
    with pytest.raises(AssertionError):
        assert_same(outputs(tmp_path / "merged.onnx", inputs), outputs(donor, inputs))


DIGITS = datasets.load_digits(return_X_y=True)
WORDS = np.array(["zero", "one", "two", "three", "four", "five"])


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("kind", ["logistic regression", "perceptron"])
@pytest.mark.parametrize("names", [WORDS, np.arange(6) + 10], ids=["texts", "numbers"])
def test_classifiers_of_other_classes_are_joined_with_their_labels(names, kind, zipmap, tmp_path):
    x, y = DIGITS[0].astype(np.float32) / 16, DIGITS[1]
    for seed, known in enumerate(([0, 1, 2, 3], [5, 4, 3, 2])):
        rows = np.isin(y, known)
        model = KINDS[kind][1](seed).fit(x[rows], names[y[rows]])
        proto = skl2onnx.to_onnx(model, x[:1], options={id(model): {"zipmap": zipmap}})
        (tmp_path / f"{seed}.onnx").write_bytes(proto.SerializeToString())
    paths = [tmp_path / f"{seed}.onnx" for seed in (0, 1)]
    mal_graph.assemble(*paths, method="union", labels="union", budget="full").save(tmp_path / "u.onnx")
    x, y = x[y < 6], y[y < 6]
    label, scores = open_session(str(tmp_path / "u.onnx")).run(None, {"X": x})
    noted = json.loads(mal_graph.load(tmp_path / "u.onnx").metadata["names"])
    order = np.array([noted[str(place)] for place in range(6)])
    assert sorted(order) == sorted(map(str, names))
    assert np.array_equal(order[scores.argmax(axis=1)], label.astype(str))
    assert np.mean(label == names[y]) > 0.6


@pytest.mark.parametrize("zipmap", [True, False])
def test_two_classes_are_joined_with_three(zipmap, tmp_path):
    for seed, known in enumerate(([0, 1], [0, 1, 2])):
        rows = np.isin(WINE[1], known)
        model = linear.LogisticRegression(max_iter=50).fit(WINE[0][rows], NAMES[WINE[1][rows]])
        proto = skl2onnx.to_onnx(model, WINE[0][:1].astype(np.float32), options={id(model): {"zipmap": zipmap}})
        (tmp_path / f"{seed}.onnx").write_bytes(proto.SerializeToString())
    paths = [tmp_path / f"{seed}.onnx" for seed in (0, 1)]
    mal_graph.assemble(*paths, method="union", labels="union", budget="full").save(tmp_path / "u.onnx")
    label, scores = open_session(str(tmp_path / "u.onnx")).run(None, {"X": WINE[0].astype(np.float32)})
    assert scores.shape == (len(WINE[0]), 3)
    assert np.mean(label == NAMES[WINE[1]]) > 0.8
