"""Scores of a model on labelled arrays: cross-entropy and accuracy, or mean squared error and R2.

`evaluate` is `score(predict(...))`. Integer labels mean classification, float labels regression. A prediction holds
log-probabilities (a single unit becomes two classes) or values, in float64, so that models of different form can be
averaged by `ensemble` and scored alike.

Chosen: logits or probabilities are told apart by the operator that ends the graph. Refused: by the values - a trained
network whose logits happen to lie in [0, 1] would be scored wrongly without a word.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, get_args
from zipfile import is_zipfile

import numpy as np
from ml_dtypes import finfo
from scipy.special import log_softmax, logsumexp

from mal_graph.errors import DataError, UsageError
from mal_graph.graph import MERGEABLE_TYPES, Array, LayerGraph, Value
from mal_graph.operators import row_of
from mal_graph.protocols import Runner
from mal_graph.registry import runner as default_runner

ScoreKind = Literal["logits", "probabilities", "values"]

LABELS = "labels"
MAX_BATCH = 256
MAX_BATCH_ELEMENTS = 2**22  # of one input, so that a batch of large images stays a few megabytes
PROBABILITY_SLACK = 1e-3  # how far outside [0, 1] half-precision probabilities may lie


@dataclass(frozen=True)
class Prediction:
    """What a model says of every sample.

    Attributes:
        values: float64; log-probabilities, shape (labels, classes), or the values, shape (samples, features).
        output: the model output they were read from.
        scores: what that output holds; "values" makes this a regression.
    """

    values: Array
    output: str
    scores: ScoreKind


@dataclass(frozen=True)
class Scores:
    """One row of a comparison: how well the model called `arm` does; `loss` may be nan."""

    arm: str
    loss: float
    metric: float
    metric_name: Literal["accuracy", "R2", "agreement"]
    loss_name: Literal["cross-entropy", "mean squared error", "mean entropy"]
    samples: int
    output: str
    scores: ScoreKind


Judge = Callable[[Prediction, Array, str], Scores]  # (a prediction, the labels, the name of the arm)


def evaluate(
    graph: LayerGraph,
    data: Mapping[str, Array],
    *,
    arm: str | None = None,
    output: str | None = None,
    scores: ScoreKind | None = None,
    runner: Runner | None = None,
) -> Scores:
    """Loss and metric of `graph` on `data`, which holds its inputs and `labels`.

    Args:
        arm: what to call the model in the result; its name if absent.
        output: the output to score, where several fit the labels.
        scores: what that output holds, where the graph does not tell; "values" makes integer labels regression targets.

    Raises:
        DataError: the data do not fit the model.
        RunError: the model cannot run.
    """
    prediction = predict(graph, data, output=output, scores=scores, runner=runner)
    return score(prediction, labels_in(data), arm or graph.name)


def predict(
    graph: LayerGraph,
    data: Mapping[str, Array],
    *,
    output: str | None = None,
    scores: ScoreKind | None = None,
    runner: Runner | None = None,
) -> Prediction:
    """Log-probabilities or values of every sample in `data`; arguments and errors as for `evaluate`."""
    return Predictor(graph, data, output=output, scores=scores, runner=runner).predict()


class Predictor:
    """One session of a model, to be asked about the same data several times, with other weights each time."""

    def __init__(
        self,
        graph: LayerGraph,
        data: Mapping[str, Array],
        *,
        output: str | None = None,
        scores: ScoreKind | None = None,
        runner: Runner | None = None,
        variable: Sequence[str] = (),
    ) -> None:
        """Arguments and errors as for `evaluate`; weights named in `variable` are given to every prediction."""
        self.graph = graph
        self.labels = labels_in(data)
        self.is_regression = regression_wanted(self.labels, scores)
        self.inputs = match_inputs(graph, data)
        self.scores = scores
        if output is not None and output not in graph.output_names:
            names = ", ".join(sorted(graph.output_names))
            raise DataError(f"{graph.name} has no output {output!r}: take one of {names}")
        self.output = output
        self.session = (runner or default_runner()).open(graph, optimize=True, variable=variable)

    def predict(self, weights: Mapping[str, Array] | None = None) -> Prediction:
        """What the model says of every sample."""
        name, values = self.run(weights)
        if self.is_regression:
            return Prediction(values.reshape(len(values), -1).astype(np.float64), name, "values")
        kind = self.scores or scores_of(self.graph, name)
        return Prediction(log_probabilities(class_rows(values, self.labels), kind, name), name, kind)

    def run(self, weights: Mapping[str, Array] | None) -> tuple[str, Array]:
        """The output that fits the labels, and its values for every sample, batch by batch."""
        session, labels = self.session, self.labels
        names = [value.name for value in self.graph.outputs if session.types.get(value.name) != ""]
        first, *rest = batches(self.graph, self.inputs, len(labels))
        wanted = [self.output] if self.output else names
        values = session.run({key: array[first] for key, array in self.inputs.items()}, weights, wanted)
        name = choose_output(self.graph, values, labels[first], labels, self.is_regression)
        parts = [values[name]]
        for batch in rest:
            fed = {key: array[batch] for key, array in self.inputs.items()}
            parts.append(session.run(fed, weights, [name])[name])
        return name, np.concatenate(parts)[: len(labels)]


def ensemble(predictions: Sequence[Prediction]) -> Prediction:
    """The mean probability of every class, or the mean value, over models asked about the same samples.

    Raises:
        DataError: there is none, or they differ in shape or task.
    """
    if not predictions:
        raise DataError("an ensemble needs at least one prediction, found none")
    described = {(p.scores == "values", p.values.shape) for p in predictions}
    if len(described) > 1:
        found = ", ".join(f"{p.output!r} {p.values.shape} {p.scores}" for p in predictions)
        raise DataError(f"an ensemble needs predictions of one shape and kind, found {found}")
    stack = np.stack([p.values for p in predictions])  # (models, rows, classes or features)
    name = " + ".join(dict.fromkeys(p.output for p in predictions))
    if predictions[0].scores == "values":
        return Prediction(stack.mean(axis=0), name, "values")
    with np.errstate(all="ignore"):
        return Prediction(np.asarray(logsumexp(stack, axis=0)) - np.log(len(stack)), name, "probabilities")


def score(prediction: Prediction, labels: Array, arm: str) -> Scores:
    """Loss and metric of a prediction; a sample predicted as nan counts as wrong and makes the loss nan.

    Raises:
        DataError: the labels are of another number or kind than the predictions, or name a class that is not there.
    """
    labels = labels_in({LABELS: labels})
    regression_wanted(labels, prediction.scores)
    if prediction.scores == "values":
        loss, metric = regression_scores(prediction, labels)
        return Scores(arm, loss, metric, "R2", "mean squared error", len(labels), prediction.output, "values")
    loss, metric = class_scores(prediction, labels)
    return Scores(arm, loss, metric, "accuracy", "cross-entropy", len(labels), prediction.output, prediction.scores)


def agreement(prediction: Prediction, classes: Array, arm: str) -> Scores:
    """How often a prediction names the given classes, those of another model, and its mean entropy in nats as loss."""
    _, share = class_scores(prediction, classes)
    likely = np.exp(prediction.values)
    terms = np.where(likely > 0, likely * prediction.values, 0.0)  # 0 log 0 is 0
    entropy = np.where(np.isnan(likely).any(axis=1), np.nan, 0.0 - terms.sum(axis=1))
    found = float(entropy.mean())
    return Scores(arm, found, share, "agreement", "mean entropy", classes.size, prediction.output, prediction.scores)


def class_scores(prediction: Prediction, labels: Array) -> tuple[float, float]:
    """Mean cross-entropy in nats, and accuracy."""
    rows, classes = prediction.values.shape
    if labels.size != rows:
        raise DataError(f"output {prediction.output!r} gives {rows} predictions, but there are {labels.size} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels run from {low} to {high}, but output {prediction.output!r} knows classes 0 to {classes - 1}: "
            "number the classes from 0, in the model's order"
        )
    index = labels.reshape(-1).astype(np.int64)
    right = prediction.values[np.arange(rows), index]  # log-probability of the true class
    hits = (prediction.values.argmax(axis=1) == index) & ~np.isnan(prediction.values).any(axis=1)
    return float(0.0 - right.mean()), float(hits.mean())


def regression_scores(prediction: Prediction, labels: Array) -> tuple[float, float]:
    """Mean squared error, and R2 averaged over features; a constant target gives 1 if it is met exactly, else 0."""
    target = labels.reshape(len(labels), -1).astype(np.float64)
    if target.shape != prediction.values.shape:
        raise DataError(
            f"output {prediction.output!r} gives values of shape {prediction.values.shape}, "
            f"but the labels have shape {target.shape}"
        )
    with np.errstate(all="ignore"):
        squares = (prediction.values - target) ** 2
        residual, total = squares.sum(axis=0), ((target - target.mean(axis=0)) ** 2).sum(axis=0)
        r2 = np.where(total > 0, 1 - residual / total, np.where(residual == 0, 1.0, 0.0))
    r2 = np.where(np.isnan(residual) | np.isnan(total) | (len(target) < 2), np.nan, r2)
    return float(squares.mean()), float(r2.mean())


# --- data ---


def read_npz(path: str | Path) -> dict[str, Array]:
    """Every array of an .npz file, never unpickling anything. Raises DataError."""
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"no data file at {path}: give an .npz file with one array per model input, and `labels` where it is scored"
        )
    arrays: dict[str, Array] = {}
    if not is_zipfile(path):  # numpy calls any file it does not know a pickle
        raise DataError(f"{path} is not an .npz file: write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds pickled objects, which are not loaded: save plain arrays with numpy.savez"
            ) from None
        raise DataError(f"{path} is a broken .npz file: write it again with numpy.savez") from None
    if not arrays:
        raise DataError(f"{path} holds no arrays: save one array per model input and `labels` with numpy.savez")
    return arrays


def labels_in(data: Mapping[str, Array]) -> Array:
    """The labels: integers for classes, floats for values; (samples, 1) becomes (samples,). Raises DataError."""
    advice = "add an array `labels`, integers for classes or floats for values"
    if LABELS not in data:
        raise DataError(f"the data hold no labels, only {listed(data)}: {advice}")
    labels = np.asarray(data[LABELS])
    if labels.dtype.kind not in "biu" and labels.dtype.name not in MERGEABLE_TYPES:
        raise DataError(f"the labels are of type {labels.dtype}: {advice}")
    if labels.size == 0 or labels.ndim == 0:
        raise DataError(f"the labels have shape {labels.shape}, so there is no sample to score: {advice}")
    return labels.reshape(core(labels.shape))


def regression_wanted(labels: Array, scores: ScoreKind | None) -> bool:
    """Whether the labels are values to meet, by their type unless `scores` says it."""
    if scores is None:
        return labels.dtype.kind not in "biu"
    if scores not in get_args(ScoreKind):
        raise UsageError(f"scores={scores!r} is not a kind of score: take one of {', '.join(get_args(ScoreKind))}")
    if scores != "values" and labels.dtype.kind not in "biu":
        raise DataError(f"{scores} need integer labels, found {labels.dtype}: store class numbers as int64")
    return scores == "values"


def match_inputs(graph: LayerGraph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The array for every model input, in the input's own type.

    Arrays go to the inputs of their name. What is left, without `labels`, is given out by position if it all fits, else
    wherever just one array fits an input in type and shape. Rounding float64 to float32 is allowed; any other cast must
    be lossless.

    Raises:
        DataError: an input stays without an array, a cast would lose something, or the numbers of samples differ.
    """
    by_name = {value.name: value.name for value in graph.inputs if value.name in arrays}
    unnamed = [value for value in graph.inputs if value.name not in by_name]
    spare = [name for name in arrays if name not in by_name and name != LABELS]
    chosen = by_name | pair_inputs(unnamed, {name: arrays[name] for name in spare})
    if any(v.name not in chosen or not fits_input(v, arrays[chosen[v.name]]) for v in graph.inputs):
        raise DataError(
            f"the data do not fit the inputs of {graph.name}: it takes {', '.join(map(input_text, graph.inputs))}; "
            f"found {listed(arrays)}; give arrays of these names, types and shapes, samples along the first axis"
        )
    lengths = {name: len(arrays[name]) for name in (*chosen.values(), *([LABELS] if LABELS in arrays else []))}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise DataError(f"the arrays differ in their number of samples (first axis): {found}")
    return {value.name: cast(arrays[chosen[value.name]], value) for value in graph.inputs}


def pair_inputs(inputs: Sequence[Value], arrays: Mapping[str, Array]) -> dict[str, str]:
    """Array name by input name: by position if all fit, else where just one fits; {} if neither says it."""
    for is_exact in (True, False):
        fitting = {v.name: [n for n, a in arrays.items() if fits_input(v, a, is_exact)] for v in inputs}
        by_position = dict(zip(fitting, arrays, strict=False))
        if len(arrays) == len(inputs) and all(by_position[name] in fitting[name] for name in fitting):
            return by_position
        only = {name: found[0] for name, found in fitting.items() if len(found) == 1}
        if len(set(only.values())) == len(inputs):
            return only
    return {}


def fits_input(value: Value, array: Array, is_exact: bool = False) -> bool:
    """Whether an array suits an input but for its number of samples; `is_exact` asks for the very type."""
    if array.ndim == 0 or (value.shape is not None and len(value.shape) != array.ndim):
        return False
    lengths = zip((value.shape or ())[1:], array.shape[1:], strict=False)
    if any(isinstance(want, int) and want > 0 and want != have for want, have in lengths):
        return False
    if value.dtype in ("", array.dtype.name):
        return True
    return not is_exact and is_castable(array.dtype, value.dtype)


def is_castable(found: np.dtype[np.generic], wanted: str) -> bool:
    """Whether values of the one type can be meant as the other: floats and text never stand for integers."""
    if wanted == "object":
        return found.kind in "UT"
    if wanted in MERGEABLE_TYPES:
        return found.kind in "biu" or found.name in MERGEABLE_TYPES
    return found.kind in "biu" and np.dtype(wanted).kind in "biu"


def cast(array: Array, value: Value) -> Array:
    """The array in the input's type. Raises DataError if integers would change or floats overflow."""
    if value.dtype in ("", array.dtype.name):
        return array
    with np.errstate(all="ignore"):
        result = array.astype(value.dtype)
        if array.dtype.kind in "biu":  # the sign tells -1 from the largest unsigned integer
            is_same = np.array_equal(result.astype(array.dtype), array) and np.array_equal(result < 0, array < 0)
        elif value.dtype in MERGEABLE_TYPES:
            is_same = np.array_equal(np.isfinite(result), np.isfinite(array))
        else:
            is_same = True
    if not is_same:
        raise DataError(
            f"the array for input {value.name!r} is {array.dtype} and has values that {value.dtype} cannot hold"
        )
    return result


# --- running ---


def batches(graph: LayerGraph, inputs: Mapping[str, Array], samples: int) -> list[Array]:
    """Sample indices to run together; a fixed batch is filled up by repeating the last sample."""
    fixed = {value.shape[0] for value in graph.inputs if value.shape and isinstance(value.shape[0], int)} - {0}
    if len(fixed) > 1:
        raise DataError(
            f"{graph.name} fixes the first axes of its inputs at different lengths, {sorted(fixed, key=str)}: "
            "they cannot all count samples; export it with one batch axis"
        )
    if fixed:
        size = int(fixed.pop() or 1)
        return [np.minimum(np.arange(i, i + size), samples - 1) for i in range(0, samples, size)]
    largest = max((prod(array.shape[1:]) for array in inputs.values()), default=1)
    size = max(1, min(MAX_BATCH, MAX_BATCH_ELEMENTS // max(largest, 1)))
    return [np.arange(i, min(i + size, samples)) for i in range(0, samples, size)]


def choose_output(
    graph: LayerGraph, values: Mapping[str, Array], batch: Array, labels: Array, is_regression: bool
) -> str:
    """The one output whose shape fits the labels of its batch. Raises DataError if none or several do."""
    floats = {name: array for name, array in values.items() if array.dtype.name in MERGEABLE_TYPES}
    if is_regression:
        fitting = [name for name, array in floats.items() if core(array.shape) == core(batch.shape)]
    else:
        classes = {name: class_count(array.shape, batch.shape) for name, array in floats.items()}
        fitting = [name for name, count in classes.items() if count]
        fitting = [name for name in fitting if classes[name] > int(labels.max())] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"outputs {' and '.join(map(repr, fitting))} of {graph.name} all fit the labels: name one with "
            "`score_output`"
        )
    raise DataError(
        f"no output of {graph.name} fits the labels, {labels.dtype} {labels.shape}, read as "
        f"{'values' if is_regression else 'class numbers'}: a batch of {len(batch)} gives {listed(values)}; "
        "integer labels go with an output (samples, classes) or (samples, 1), float labels with one of their own shape"
    )


# --- reading outputs ---


def core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing axes of length 1; the first axis always stays."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def class_axis(shape: tuple[int, ...], labels: tuple[int, ...]) -> int | None:
    """The axis of an output that counts classes: 1, or the last, whichever leaves the labels' shape."""
    for axis in (1, len(shape) - 1):
        if 0 < axis < len(shape) and core(shape[:axis] + shape[axis + 1 :]) == core(labels):
            return axis
    return None


def class_count(shape: tuple[int, ...], labels: tuple[int, ...]) -> int:
    """How many classes an output of this shape tells apart, 0 if it does not fit the labels."""
    if core(shape) == core(labels):
        return 2
    axis = class_axis(shape, labels)
    return 0 if axis is None else max(shape[axis], 2)


def class_rows(values: Array, labels: Array) -> Array:
    """An output as rows, shape (labels, classes), in the order of the flattened labels."""
    axis = None if core(values.shape) == core(labels.shape) else class_axis(values.shape, labels.shape)
    if axis is None:  # one unit a label
        return values.reshape(-1, 1)
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])


def scores_of(graph: LayerGraph, output: str) -> ScoreKind:
    """What an output holds, by the operator that made it; log-probabilities count as logits: softmax keeps them."""
    while output in graph.producer:
        node = graph.nodes[graph.producer[output]]
        row = row_of(node)
        if row is not None and row.is_probability:
            return "probabilities"
        if row is None or not row.moves:
            return "logits"
        output = node.inputs[0]
    return "logits"


def log_probabilities(rows: Array, kind: ScoreKind, output: str) -> Array:
    """Log-probabilities in float64, shape (rows, classes); one unit becomes the two classes no and yes.

    A probability that was rounded to 0 or 1 is taken as the nearest one that its type tells from it, so that one wrong
    sample does not make the loss infinite.

    Raises:
        DataError: probabilities lie outside [0, 1].
    """
    limits = finfo(rows.dtype)  # type: ignore[no-untyped-call]  # ml_dtypes has no types
    rows = rows.astype(np.float64)
    if kind == "probabilities":
        if np.any(rows < -PROBABILITY_SLACK) or np.any(rows > 1 + PROBABILITY_SLACK):
            raise DataError(
                f"output {output!r} runs from {np.nanmin(rows):.4g} to {np.nanmax(rows):.4g}, "
                "so it holds no probabilities: try `output_kind`=logits"
            )
        if rows.shape[1] == 1:
            rows = np.concatenate([np.maximum(1 - rows, float(limits.epsneg)), rows], axis=1)
        rows = np.log(np.clip(rows, float(limits.smallest_subnormal), 1.0))
    elif rows.shape[1] == 1:
        rows = np.concatenate([np.zeros_like(rows), rows], axis=1)  # softmax of (0, z) is sigmoid of z
    with np.errstate(all="ignore"):
        return np.asarray(log_softmax(rows, axis=1))  # normalises probabilities that do not quite sum to 1


# --- texts ---


def listed(arrays: Mapping[str, Array]) -> str:
    """The arrays in words, such as `'image' float32 (300, 1, 8, 8)`."""
    return ", ".join(f"{name!r} {array.dtype} {array.shape}" for name, array in arrays.items()) or "nothing"


def input_text(value: Value) -> str:
    """A model input in words, dynamic axes by name."""
    if value.shape is None:
        return f"{value.name!r} {value.dtype} (any shape)"
    axes = ", ".join(str(axis or "?") for axis in value.shape)
    return f"{value.name!r} {value.dtype} ({axes}{',' if len(value.shape) == 1 else ''})"
