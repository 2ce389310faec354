"""Models of scikit-learn as its exporter writes them: pairs trained on two halves of the same data merge in full."""

import importlib

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
