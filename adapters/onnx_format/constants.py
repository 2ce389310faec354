"""Tensors that are stored once because their values are equal: in the view each reader has its own.

Exporters and simplifiers store equal tensors once: the zero biases of three layers are one tensor, and the ones of all
normalisations. Nothing but the storage ties those layers. So where all values of a tensor are the same, every further
reader of it reads a copy in the view, with a name of its own. When the view is written, the copies that still hold what
the stored tensor holds are that tensor again; the others become tensors of the file.

A tensor whose values differ is shared on purpose, such as the table of an embedding, and stays one.
"""

from dataclasses import replace

import numpy as np

from mal_graph.graph import LayerGraph, Node, Weight, with_copies

FIRST = 16  # entries that are compared before all are


def with_own_constants(graph: LayerGraph) -> LayerGraph:
    """The view with a copy of each float tensor of one value for every reader but the first."""
    equal = [name for name, weight in graph.weights.items() if is_shared(graph, name) and has_one_value(weight)]
    apart, copies = with_copies(graph, equal)
    return replace(apart, copies=copies) if copies else graph


def is_shared(graph: LayerGraph, name: str) -> bool:
    """Whether several inputs of operators read a stored tensor."""
    return sum(slot >= 0 for _, slot in graph.consumers.get(name, ())) > 1


def has_one_value(weight: Weight) -> bool:
    """Whether a stored float tensor has several entries, all of one value."""
    if weight.scope or not weight.is_float or weight.size < 2:
        return False
    values = weight.read()
    return all(bool((part == part.flat[0]).all()) for part in (values.ravel()[:FIRST], values))


def with_constants_shared(graph: LayerGraph) -> LayerGraph:
    """The graph without the copies that hold what the stored tensor holds."""
    equal = {copy: name for copy, name in graph.copies.items() if is_equal(graph, copy, name)}
    if not equal:
        return graph
    return replace(
        graph,
        nodes=tuple(reading(node, equal) for node in graph.nodes),
        weights={name: weight for name, weight in graph.weights.items() if name not in equal},
        edited=graph.edited - equal.keys(),
        copies={copy: name for copy, name in graph.copies.items() if copy not in equal},
    )


def reading(node: Node, names: dict[str, str]) -> Node:
    """The node with other names for what it reads; the node itself where it reads none of it."""
    if not any(name in names for name in node.inputs):
        return node
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def is_equal(graph: LayerGraph, copy: str, name: str) -> bool:
    """Whether a copy still holds what the stored tensor holds."""
    if not {copy, name} & graph.edited:
        return True
    own, stored = graph.weights[copy], graph.weights[name]
    return own.shape == stored.shape and np.array_equal(own.read(), stored.read())
