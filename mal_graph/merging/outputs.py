"""How far the outputs of one graph are from those of another."""

from collections.abc import Mapping

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.network import fed_weights
from mal_graph.protocols import Runner


def run_outputs(graph: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
    """The outputs of a graph by name. Raises RunError."""
    fed = fed_weights(graph)
    return runner.open(graph, variable=list(fed)).run(inputs, fed)


def compare_outputs(a: LayerGraph, b: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> float:
    """How far the outputs of `a` are from those of `b`, relative to the largest of each. Raises RunError."""
    return largest_deviation(run_outputs(a, inputs, runner), run_outputs(b, inputs, runner))


def largest_deviation(outputs: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Over all outputs, each relative to its largest value."""
    return max((deviation(outputs[name], y) for name, y in expected.items()), default=0.0)


def deviation(values: Array, expected: Array) -> float:
    """The largest difference, relative to the largest value; infinite where one is not finite and the other is."""
    if values.dtype.kind != "f" or values.shape != expected.shape:
        return 0.0 if np.array_equal(values, expected) else np.inf
    if np.array_equal(values, expected, equal_nan=True):
        return 0.0
    scale = float(np.max(np.abs(expected), initial=0.0))
    moved = float(np.max(np.abs(values.astype(np.float64) - expected), initial=0.0))
    return moved / scale if np.isfinite(moved) and scale else np.inf
