"""Tensors that are stored once because their values are equal: in the view each reader has its own.

Exporters and simplifiers store equal tensors once: the zero biases of three layers are one tensor, and the ones of all
normalisations. Nothing but the storage ties those layers. So where the values of a tensor are the same along an axis,
every further reader of it reads a copy in the view, with a name of its own, and so does what arranges it on the way.
When the view is written, the copies that still hold what the stored tensor holds are that tensor again; the others
become tensors of the file.

Along the axes where its values differ a tensor is shared on purpose, such as the table of an embedding: there the
copies stay tied (`LayerGraph.tied`), and a tensor that differs along all of its axes stays one.
"""

from dataclasses import replace

import numpy as np

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.network import axes_that_stay, find_shared, with_copies

from .lowering import first_output

FIRST = 16  # indices of each axis that are compared before all are


def with_own_constants(graph: LayerGraph) -> LayerGraph:
    """The view with a copy of each float tensor that is the same along an axis for every reader but the first."""
    shared = (graph.weights[name] for name in find_shared(graph))
    differing = {weight.name: axes_that_differ(weight) for weight in shared if weight.is_float and not weight.scope}
    alike = {name: axes for name, axes in differing.items() if len(axes) < len(long_axes(graph.weights[name]))}
    apart, copies = with_copies(graph, alike)
    tied = {name: axes for name, axes in alike.items() if axes}
    return replace(apart, copies=copies, tied=tied) if copies else graph


def long_axes(weight: Weight) -> list[int]:
    """The axes of a tensor that have several indices."""
    return [axis for axis, size in enumerate(weight.shape) if size > 1]


def axes_that_differ(weight: Weight) -> tuple[int, ...]:
    """The axes along which the values of a stored tensor are not all the same."""
    values = weight.read()
    first = axes_that_stay(values[(slice(FIRST),) * values.ndim])
    return tuple(first if len(first) == len(long_axes(weight)) else axes_that_stay(values))


def with_constants_shared(graph: LayerGraph) -> LayerGraph:
    """The graph without the copies that hold what the stored tensor holds, and without what arranges these alone."""
    same = {copy: name for copy, name in graph.copies.items() if copy in graph.weights and is_equal(graph, copy, name)}
    if not same:
        return graph
    made: dict[str, Node] = {}
    for node in graph.nodes:
        out, now = first_output(node), reading(node, same)
        first = made.get(graph.copies.get(out, ""))
        if first is not None and (now.inputs, now.attributes) == (first.inputs, first.attributes):
            same[out] = graph.copies[out]
        else:
            made[out] = now
    return replace(
        graph,
        nodes=tuple(made.values()),
        weights={name: weight for name, weight in graph.weights.items() if name not in same},
        edited=graph.edited - same.keys(),
        copies={copy: name for copy, name in graph.copies.items() if copy not in same},
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
