"""Held-out data in two parts, one that decides what is kept and one that is reported, and the rule that decides.

With labels the metric is accuracy (or R2) beside the loss. Without labels the base's own classes take their place: the
metric is agreement with them, and the loss is the mean entropy of the predictions. Agreement measures how little
changes, and entropy how sure a model is of it; neither says that it is right.

Chosen: the metric may not fall below the base's by more than eps, and of what passes the lower loss is better. Refused:
the higher metric is better - on a few hundred samples it knows too few values to tell candidates apart.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mal_graph.brief import Brief
from mal_graph.errors import DataError, UsageError
from mal_graph.evaluation.data import LABELS, Arrays, match_inputs, read_labels
from mal_graph.evaluation.reading import OutputKind
from mal_graph.evaluation.scores import Metric, Scores, agreement, predict, score, wants_regression
from mal_graph.graph import LayerGraph
from mal_graph.network import SampleAxes, find_sample_axes
from mal_graph.protocols import Runner

MIN_SAMPLES = 20  # in each of the two parts


@dataclass(frozen=True, repr=False)
class HeldOut(Brief):
    """Data that no model here was trained on.

    Attributes:
        deciding: inputs and labels that decide; half of the data, or all where the other part is given.
        reporting: inputs and labels that are scored once, at the end.
        is_labelled: whether the labels are the data's own; else they are the base's classes.
    """

    deciding: Arrays
    reporting: Arrays
    is_labelled: bool

    @property
    def metric(self) -> Metric:
        return score if self.is_labelled else agreement


class Figures(Protocol):
    """How well a model does; scores have these."""

    @property
    def loss(self) -> float: ...

    @property
    def metric(self) -> float: ...


@dataclass(frozen=True)
class AcceptanceRule:
    """What a model has to meet on the deciding part.

    Attributes:
        base: the base's scores.
        eps: by how much the metric may fall below the base's.
    """

    base: Scores
    eps: float

    def passes(self, figures: Figures) -> bool:
        return figures.metric >= self.base.metric - self.eps

    def prefers(self, figures: Figures, best: Figures) -> bool:
        """Whether a model passes and is better than the best so far; ties and nan are refused."""
        return self.passes(figures) and figures.loss < best.loss


def split_holdout(
    base: LayerGraph,
    data: Arrays,
    reported: Arrays | None = None,
    *,
    seed: int = 0,
    score_output: str | None = None,
    output_kind: OutputKind | None = None,
    runner: Runner | None = None,
) -> HeldOut:
    """The data in their two parts.

    Args:
        base: the model whose inputs they hold, and whose classes serve as labels where there are none.
        data: inputs and, if there are any, `labels`.
        reported: the reporting part; if left out, `data` is halved at random, class by class.
        seed: of the split.
        score_output, output_kind: as for `evaluate`.

    Raises:
        DataError: they do not fit the model, are not finite, too few, or only one part has labels.
    """
    given = [data] if reported is None else [data, reported]
    is_labelled = LABELS in data
    if any((LABELS in part) != is_labelled for part in given):
        raise DataError("only one of the two data files holds labels: give both with 'labels', or both without")
    parts = [check_part(base, part) for part in given]
    if not is_labelled:
        parts = [with_classes(base, part, score_output, output_kind, runner) for part in parts]
    deciding, reporting = parts if reported is not None else halve(parts[0], seed, find_sample_axes(base))
    for part, use in ((deciding, "decide by"), (reporting, "report on")):
        if len(part[LABELS]) < MIN_SAMPLES:
            more = f"give {2 * MIN_SAMPLES} or more, which are halved," if reported is None else "give more"
            raise DataError(
                f"there are {len(part[LABELS])} samples to {use}, and at least {MIN_SAMPLES} are needed: {more} "
                "and none that a model was trained on"
            )
    return HeldOut(deciding, reporting, is_labelled)


def check_part(base: LayerGraph, part: Arrays) -> Arrays:
    """The arrays by the base's inputs, and the labels. Raises DataError."""
    arrays = match_inputs(base, part)
    if LABELS in part:
        arrays[LABELS] = read_labels(part)
    for name, array in arrays.items():
        if array.dtype.kind not in "biuOUS" and not np.isfinite(array.astype(np.float64)).all():
            raise DataError(f"the array {name!r} of the data has entries that are not finite: remove these samples")
    return arrays


def with_classes(
    base: LayerGraph, part: Arrays, score_output: str | None, output_kind: OutputKind | None, runner: Runner | None
) -> Arrays:
    """The arrays with the classes that the base gives them as labels. Raises DataError where it gives none."""
    if output_kind is not None and wants_regression(np.zeros(1, np.int64), output_kind):
        raise UsageError("data without labels are judged by the classes that the base gives them, not by values")
    samples = find_sample_axes(base).count(part)
    blank = {**part, LABELS: np.zeros(samples, np.int64)}  # what says that an output (samples, classes) is wanted
    prediction = predict(base, blank, score_output=score_output, output_kind=output_kind, runner=runner)
    return {**part, LABELS: prediction.values.argmax(axis=1)}


def halve(part: Arrays, seed: int, axes: SampleAxes) -> tuple[Arrays, Arrays]:
    """Two disjoint halves drawn at random; of every class the one has at most one sample more than the other."""
    labels = part[LABELS]
    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim == 1 and labels.dtype.kind in "biu":
        order = order[np.argsort(labels[order], kind="stable")]
    return axes.taken(part, np.sort(order[::2])), axes.taken(part, np.sort(order[1::2]))
