"""Scores of a model on labelled arrays: cross-entropy and accuracy, or mean squared error and R2.

`evaluate` is `score(predict(...))`. Integer labels mean classification, float labels regression. A prediction holds
log-probabilities (a single unit becomes two classes) or values, in float64, so that models of different form can be
averaged by `ensemble` and scored alike.

Chosen: logits or probabilities are told apart by the operator that ends the graph. Refused: by the values - a trained
network whose logits happen to lie in [0, 1] would be scored wrongly without a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from os import PathLike
from typing import Literal, Protocol, get_args

import numpy as np
from scipy.special import logsumexp

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.errors import DataError, MemoryLimitError, TimeLimitError, UsageError
from mal_graph.evaluation.data import (
    LABELS,
    Arrays,
    fixed_batches,
    list_batches,
    match_inputs,
    prepare_data,
    read_labels,
)
from mal_graph.evaluation.reading import (
    OutputKind,
    choose_output,
    class_rows,
    log_probabilities,
    read_output_kind,
)
from mal_graph.figure import Figure
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import find_sample_axes
from mal_graph.protocols import Runner
from mal_graph.registry import Model
from mal_graph.registry import runner as default_runner


@dataclass(frozen=True, repr=False)
class Prediction(Brief):
    """What a model says of every sample.

    Attributes:
        values: float64; log-probabilities, shape (labels, classes), or the values, shape (samples, features).
        output: the model output they were read from.
        output_kind: what that output holds; "values" makes this a regression.
    """

    values: Array
    output: str
    output_kind: OutputKind


@dataclass(frozen=True)
class Scores:
    """One row of a comparison: how well the model called `arm` does; `loss` may be nan."""

    arm: str
    loss: Figure
    metric: Figure
    metric_name: Literal["accuracy", "R2", "agreement"]
    loss_name: Literal["cross-entropy", "mean squared error", "mean entropy"]
    samples: int
    output: str
    scores: OutputKind


class Metric(Protocol):
    """How a prediction is scored against labels; the text is the name of the row in a table of scores."""

    def __call__(self, prediction: Prediction, labels: Array, arm: str, /) -> Scores: ...


def evaluate(
    graph: Model,
    data: str | PathLike[str] | Arrays,
    *,
    arm: str | None = None,
    score_output: str | None = None,
    output_kind: OutputKind | None = None,
    runner: Runner | None = None,
) -> Scores:
    """Loss and metric of `graph` on arrays or an .npz file with its inputs and `labels` (see `prepare_data`).

    Args:
        graph: the model, as a graph, a path or a document.
        arm: what to call the model in the result; its name if absent.
        score_output: the output to score, where several fit the labels.
        output_kind: what that output holds, where the graph does not tell; "values" makes integer labels regression
            targets.

    Raises:
        DataError: the data do not fit the model.
        RunError: the model cannot run.
    """
    graph = registry.as_graph(graph)
    arrays = prepare_data(graph, data, output_kind=output_kind).arrays
    prediction = predict(graph, arrays, score_output=score_output, output_kind=output_kind, runner=runner)
    return score(prediction, read_labels(arrays), arm or graph.name)


def predict(
    graph: LayerGraph,
    data: Arrays,
    *,
    score_output: str | None = None,
    output_kind: OutputKind | None = None,
    runner: Runner | None = None,
) -> Prediction:
    """Log-probabilities or values of every sample in `data`; arguments and errors as for `evaluate`."""
    return Predictor(graph, data, score_output=score_output, output_kind=output_kind, runner=runner).predict()


class Predictor:
    """One session of a model, to be asked about the same data several times, with other weights each time."""

    def __init__(
        self,
        graph: LayerGraph,
        data: Arrays,
        *,
        score_output: str | None = None,
        output_kind: OutputKind | None = None,
        runner: Runner | None = None,
        variable: Sequence[str] = (),
        threads: int | None = None,
    ) -> None:
        """Arguments and errors as for `evaluate`; weights named in `variable` are given to every prediction, and the
        session has so many `threads`, where that matters."""
        self.graph, self.axes = graph, find_sample_axes(graph)
        self.labels = read_labels(data)
        self.is_regression = wants_regression(self.labels, output_kind)
        self.inputs = match_inputs(graph, data)
        self.output_kind = output_kind
        if score_output is not None and score_output not in graph.output_names:
            names = ", ".join(sorted(graph.output_names))
            raise DataError(f"{graph.name} has no output {score_output!r}: take one of {names}")
        self.score_output = score_output
        self.most = inf  # samples that are run together
        opened = (runner or default_runner()).open(graph, optimize=True, variable=variable, threads=threads)
        self.session = opened

    def predict(self, weights: Mapping[str, Array] | None = None, stretch: range | None = None) -> Prediction:
        """What the model says of every sample, or of a stretch of them."""
        labels = self.labels if stretch is None else self.labels[stretch.start : stretch.stop]
        name, values = self.run(weights, labels, 0 if stretch is None else stretch.start)
        if self.is_regression:
            return Prediction(values.reshape(len(values), -1).astype(np.float64), name, "values")
        kind = self.output_kind or read_output_kind(self.graph, name)
        return Prediction(log_probabilities(class_rows(values, labels), kind, name), name, kind)

    def run(self, weights: Mapping[str, Array] | None, labels: Array, start: int) -> tuple[str, Array]:
        """The output that fits the labels, which begin at some sample, and its values for them, batch by batch."""
        session, own = self.session, self.axes.taken(self.inputs, slice(start, start + len(labels)))
        names = [value.name for value in self.graph.outputs if session.types.get(value.name) != ""]
        first, *rest = [start + batch for batch in list_batches(self.graph, own, len(labels))]
        wanted = [self.score_output] if self.score_output else names
        values = self.run_batch(first, weights, wanted)
        name = choose_output(self.graph, values, self.labels[first], self.labels, self.is_regression)
        parts = [values[name]]
        for batch in rest:
            parts.append(self.run_batch(batch, weights, [name])[name])
        return name, np.concatenate(parts)[: len(labels)]

    def run_batch(self, batch: Array, weights: Mapping[str, Array] | None, wanted: Sequence[str]) -> dict[str, Array]:
        """Some outputs for some samples, half by half where together they take more memory or time than they may."""
        if len(batch) <= self.most:
            try:
                return self.session.run(self.axes.taken(self.inputs, batch), weights, wanted)
            except (MemoryLimitError, TimeLimitError):
                if len(batch) == 1 or fixed_batches(self.graph):
                    raise
                self.most = len(batch) // 2
        halves = [self.run_batch(half, weights, wanted) for half in np.array_split(batch, 2)]
        return {
            name: np.concatenate([half[name] for half in halves]) if halves[0][name].ndim else halves[0][name]
            for name in wanted
        }


def ensemble(predictions: Sequence[Prediction]) -> Prediction:
    """The mean probability of every class, or the mean value, over models asked about the same samples.

    Raises:
        DataError: there is none, or they differ in shape or task.
    """
    if not predictions:
        raise DataError("an ensemble needs at least one prediction, found none")
    kinds = {(p.output_kind == "values", p.values.shape) for p in predictions}
    if len(kinds) > 1:
        listed = ", ".join(f"{p.output!r} {p.values.shape} {p.output_kind}" for p in predictions)
        raise DataError(f"an ensemble needs predictions of one shape and kind, found {listed}")
    stack = np.stack([p.values for p in predictions])  # (models, rows, classes or features)
    name = " + ".join(dict.fromkeys(p.output for p in predictions))
    if predictions[0].output_kind == "values":
        return Prediction(stack.mean(axis=0), name, "values")
    with np.errstate(all="ignore"):
        return Prediction(np.asarray(logsumexp(stack, axis=0)) - np.log(len(stack)), name, "probabilities")


def score(prediction: Prediction, labels: Array, arm: str) -> Scores:
    """Loss and metric of a prediction; a sample predicted as nan counts as wrong and makes the loss nan.

    Raises:
        DataError: the labels are of another number or kind than the predictions, or name a class that is not there.
    """
    labels = read_labels({LABELS: labels})
    wants_regression(labels, prediction.output_kind)
    if prediction.output_kind == "values":
        loss, metric = regression_scores(prediction, labels)
        return Scores(arm, loss, metric, "R2", "mean squared error", len(labels), prediction.output, "values")
    loss, metric = class_scores(prediction, labels)
    return Scores(
        arm, loss, metric, "accuracy", "cross-entropy", len(labels), prediction.output, prediction.output_kind
    )


def agreement(prediction: Prediction, classes: Array, arm: str) -> Scores:
    """How often a prediction names the given classes, those of another model, and its mean entropy in nats as loss."""
    _, share = class_scores(prediction, classes)
    likely = np.exp(prediction.values)
    terms = np.where(likely > 0, likely * prediction.values, 0.0)  # 0 log 0 is 0
    entropy = np.where(np.isnan(likely).any(axis=1), np.nan, 0.0 - terms.sum(axis=1))
    loss = float(entropy.mean())
    return Scores(
        arm, loss, share, "agreement", "mean entropy", classes.size, prediction.output, prediction.output_kind
    )


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


def sample_losses(prediction: Prediction, labels: Array) -> Array:
    """The loss of every sample, shape (labels,), float64; their mean is the loss that `score` gives.

    Args:
        prediction, labels: that `score` takes.
    """
    if prediction.output_kind == "values":
        target = labels.reshape(len(labels), -1).astype(np.float64)
        squares: Array = ((prediction.values - target) ** 2).mean(axis=1)
        return squares
    right: Array = prediction.values[np.arange(labels.size), labels.reshape(-1).astype(np.int64)]
    return 0.0 - right


def wants_regression(labels: Array, output_kind: OutputKind | None) -> bool:
    """Whether the labels are values to meet, by their type unless `output_kind` says it."""
    if output_kind is None:
        return labels.dtype.kind not in "biu"
    if output_kind not in get_args(OutputKind):
        kinds = ", ".join(get_args(OutputKind))
        raise UsageError(f"output_kind={output_kind!r} is not what an output can hold: take one of {kinds}")
    if output_kind != "values" and labels.dtype.kind not in "biu":
        raise DataError(f"{output_kind} need integer labels, found {labels.dtype}: store class numbers as int64")
    return output_kind == "values"
