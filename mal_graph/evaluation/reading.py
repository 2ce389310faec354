"""What the output of a model says: which output fits the labels, what it holds, and log-probabilities from it."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from ml_dtypes import finfo
from scipy.special import log_softmax

from mal_graph.errors import DataError
from mal_graph.evaluation.data import core_shape, list_arrays
from mal_graph.graph import MERGEABLE_TYPES, Array, LayerGraph
from mal_graph.operators import Homogeneity, control_of, outputs_of_run, row_of

OutputKind = Literal["logits", "probabilities", "values"]

PROBABILITY_SLACK = 1e-3  # how far outside [0, 1] half-precision probabilities may lie


def choose_output(
    graph: LayerGraph, values: Mapping[str, Array], batch: Array, labels: Array, is_regression: bool
) -> str:
    """The one output whose shape fits the labels of its batch. Raises DataError if none or several do."""
    floats = {name: array.shape for name, array in values.items() if array.dtype.name in MERGEABLE_TYPES}
    if is_regression:
        fitting = [name for name, shape in floats.items() if core_shape(shape) == core_shape(batch.shape)]
    else:
        fitting = outputs_with_classes(floats, batch, int(labels.max()))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"outputs {' and '.join(map(repr, fitting))} of {graph.name} all fit the labels: name one with "
            "`score_output`"
        )
    raise DataError(
        f"no output of {graph.name} fits the labels, {labels.dtype} {labels.shape}, read as "
        f"{'values' if is_regression else 'class numbers'}: a batch of {len(batch)} gives {list_arrays(values)}; "
        "integer labels go with an output (samples, classes) or (samples, 1), float labels with one of their own shape"
    )


def outputs_with_classes(shapes: Mapping[str, tuple[int, ...]], batch: Array, largest: int) -> list[str]:
    """The outputs that tell classes apart for every label of a batch; those that know the largest, if any does."""
    classes = {name: count for name, shape in shapes.items() if (count := class_count(shape, batch.shape))}
    return [name for name, count in classes.items() if count > largest] or list(classes)


def class_axis(shape: tuple[int, ...], labels: tuple[int, ...]) -> int | None:
    """The axis of an output that counts classes: 1, or the last, whichever leaves the labels' shape."""
    for axis in (1, len(shape) - 1):
        if 0 < axis < len(shape) and core_shape(shape[:axis] + shape[axis + 1 :]) == core_shape(labels):
            return axis
    return None


def class_count(shape: tuple[int, ...], labels: tuple[int, ...]) -> int:
    """How many classes an output of this shape tells apart, 0 if it does not fit the labels."""
    if core_shape(shape) == core_shape(labels):
        return 2
    axis = class_axis(shape, labels)
    return 0 if axis is None else max(shape[axis], 2)


def class_rows(values: Array, labels: Array) -> Array:
    """An output as rows, shape (labels, classes), in the order of the flattened labels."""
    axis = None if core_shape(values.shape) == core_shape(labels.shape) else class_axis(values.shape, labels.shape)
    if axis is None:  # one unit a label
        return values.reshape(-1, 1)
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])


def read_output_kind(graph: LayerGraph, output: str) -> OutputKind:
    """What an output holds, by the operator that made it; log-probabilities count as logits: softmax keeps them. A mean
    of probabilities is one. Of an operator with bodies, all have to give probabilities."""
    while output in graph.producer:
        node = graph.nodes[graph.producer[output]]
        row = row_of(node)
        if node.runs:
            place = control_of(node).conditions + node.outputs.index(output)
            given = {outputs_of_run(node, number)[place] for number in range(len(node.runs))}
            kinds = {read_output_kind(graph, name) for name in given}
            return "probabilities" if kinds == {"probabilities"} else "logits"
        if row is not None and row.gives_probabilities(node):
            return "probabilities"
        if row is not None and row.adds and row.by_element:
            factors = factors_of_probabilities(graph, output)
            # The shares of a mean that are stored in half precision sum to 1 as nearly as its probabilities do.
            is_mean = factors is not None and bool((np.abs(factors - 1) <= PROBABILITY_SLACK).all())
            return "probabilities" if is_mean else "logits"
        if row is None or not (row.moves or row.stays_between):
            return "logits"
        output = node.inputs[0]
    return "logits"


def factors_of_probabilities(graph: LayerGraph, tensor: str) -> Array | None:
    """What probabilities are multiplied by that sum up to a tensor, in all; None where it is no such sum."""
    node = graph.nodes[graph.producer[tensor]] if tensor in graph.producer else None
    row = None if node is None else row_of(node)
    if node is None or row is None:
        return None
    if row.gives_probabilities(node):
        return np.ones(1)
    read = [name for name in node.inputs if name and name not in graph.weights]
    if row.moves or row.selects or row.table_axis is not None:
        return factors_of_probabilities(graph, read[0]) if len(read) == 1 else None
    if not row.by_element or not row.commutes:
        return None
    factors = [factors_of_probabilities(graph, name) for name in read]
    known = [one for one in factors if one is not None]
    if len(known) < len(factors):
        return None
    if row.adds:
        return np.asarray(sum(known)) if len(read) == len(node.inputs) else None
    scales = [graph.weights[name].read() for name in node.inputs if name in graph.weights]
    is_scaled = row.homogeneity is Homogeneity.ONE and len(known) == len(scales) == 1
    return np.asarray(known[0] * scales[0].astype(np.float64)) if is_scaled else None


def log_probabilities(rows: Array, kind: OutputKind, output: str) -> Array:
    """Log-probabilities in float64, shape (rows, classes); one unit becomes the two classes no and yes.

    A probability that was rounded to 0 or 1 is taken as the nearest one that its type tells from it, so that one wrong
    sample does not make the loss infinite.

    Raises:
        DataError: probabilities lie outside [0, 1].
    """
    limits = finfo(rows.dtype)  # type: ignore[no-untyped-call]  # ml_dtypes types what finfo gives, not its argument
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
