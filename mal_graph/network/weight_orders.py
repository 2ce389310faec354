"""The order of axes in which a tensor stands in the weight that is computed of it, as one under a mask is.

A weight that is stored has a canonical form, (units out, units in, kernel...), whatever order of axes an operator wants
it in. What a weight is computed of - the numbers, a mask, a scale - has one too: that of the weight it becomes.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from mal_graph.graph import LayerGraph, Node, once_per_graph
from mal_graph.operators import Arranged, Row, arranged_axes, row_of

Reading = tuple[int, int]  # index of a node, and an input slot of it
Shapes = Mapping[str, tuple[int, ...]]


@once_per_graph
def find_weight_orders(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> Mapping[Reading, tuple[int, ...]]:
    """For each place where a tensor is read to compute a weight, its axes in the order in which they stand there."""
    shapes = constant_shapes(graph, table)
    orders: dict[Reading, tuple[int, ...]] = {}
    made: dict[str, tuple[int, ...]] = {}  # the order of the axes of a computed tensor, to its first reader
    for index, node in reversed(list(enumerate(graph.nodes))):
        if shapes.keys().isdisjoint(node.inputs):
            continue
        row = row_of(node, table)
        for slot, name in enumerate(node.inputs):
            order = None if row is None or name not in shapes else order_of(graph, node, row, slot, shapes, made)
            if order is not None:
                orders[index, slot] = made[name] = order
    return orders


def order_of(
    graph: LayerGraph, node: Node, row: Row, slot: int, shapes: Shapes, made: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """The axes of what a node reads in the order in which they stand in a weight; None where it becomes none."""
    shape, out = shapes[node.inputs[slot]], node.outputs[0]
    contracted = row.weight_axes(slot, node, len(shape))
    if contracted is not None:
        return (*contracted, *(axis for axis in range(len(shape)) if axis not in contracted))
    if out not in made or out not in shapes or row.slot(slot).setting:
        return None
    if row.by_element or row.keeps_axes:
        before = len(shapes[out]) - len(shape)  # axes are aligned from the last one on
        return tuple(axis - before for axis in made[out] if axis >= before)
    arranged = arrangement_of(graph, node, shape)
    assert arranged is not None  # else the shape of what it makes were not known
    return tuple(dict.fromkeys(source for axis in made[out] if (source := arranged.sources[axis]) is not None))


def constant_shapes(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> dict[str, tuple[int, ...]]:
    """The shapes of stored tensors, and of what is computed of these element by element or by moving their axes."""
    shapes = {name: weight.shape for name, weight in graph.weights.items() if not weight.scope}
    for node in graph.nodes:
        row = row_of(node, table)
        if row is None or not node.inputs or not shapes.keys() >= {name for name in node.inputs if name}:
            continue
        shape = made_shape(graph, node, row, [shapes[name] for name in node.inputs if name])
        if shape is not None and len(node.outputs) == 1:
            shapes[node.outputs[0]] = shape
    return shapes


def made_shape(graph: LayerGraph, node: Node, row: Row, given: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape of what a node makes of stored tensors; None where it does more than arithmetic or moving axes."""
    if row.moves and row.keeps_axes:
        return given[0]
    if row.moves:
        arranged = arrangement_of(graph, node, given[0])
        return None if arranged is None else arranged.shape
    with suppress(ValueError):  # they do not fit together, which running the model will say
        return np.broadcast_shapes(*given) if row.by_element else None
    return None


def arrangement_of(graph: LayerGraph, node: Node, shape: Sequence[int]) -> Arranged | None:
    """Where the axes of what a node makes by moving axes come from."""
    argument = node.inputs[1] if len(node.inputs) > 1 else ""
    if argument and argument not in graph.weights:
        return None
    return arranged_axes(node, shape, graph.weights[argument].read().ravel().tolist() if argument else None)
