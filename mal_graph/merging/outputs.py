"""How far the outputs of one graph are from those of another."""

from collections.abc import Mapping

from mal_graph.graph import Array, LayerGraph
from mal_graph.network import fed_weights
from mal_graph.protocols import Runner
from mal_graph.symmetry import deviation


def run_outputs(graph: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
    """The outputs of a graph by name. Raises RunError."""
    fed = fed_weights(graph)
    return runner.open(graph, variable=list(fed)).run(inputs, fed)


def compare_outputs(a: LayerGraph, b: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> float:
    """How far the outputs of `a` are from those of `b`, relative to the largest of each. Raises RunError."""
    return deviation(run_outputs(a, inputs, runner), run_outputs(b, inputs, runner))
