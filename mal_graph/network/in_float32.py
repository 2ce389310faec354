"""A graph in float32, to see what it computes without the rounding of its own type."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.operators import cast_to_float32

OTHERS = {"float16", "bfloat16", "float64"}


def graph_in_float32(graph: LayerGraph) -> LayerGraph:
    """The graph with half-precision and double weights, inputs and casts in float32."""
    if OTHERS.isdisjoint(types_of(graph)):
        return graph
    weights = {
        name: replace(weight, dtype=np.dtype(np.float32), read=partial(read_float32, weight.read))
        if weight.dtype.name in OTHERS
        else weight
        for name, weight in graph.weights.items()
    }
    inputs = tuple(replace(v, dtype="float32") if v.dtype in OTHERS else v for v in graph.inputs)
    nodes = tuple(cast_to_float32(node) for node in graph.nodes)
    return replace(graph, weights=weights, inputs=inputs, nodes=nodes)


def types_of(graph: LayerGraph) -> set[str]:
    """The types of what a graph stores and takes."""
    return {weight.dtype.name for weight in graph.weights.values()} | {value.dtype for value in graph.inputs}


def read_float32(read: Callable[[], Array]) -> Array:
    """Read a tensor as float32."""
    return read().astype(np.float32)
