"""Weights that a file stores in parts, which a Concat joins: in the view they are one tensor.

Nothing but the storage cuts them there, and another file cuts them elsewhere or not at all. When the view is written,
the Concat and the parts are there again, with the values of the joined tensor; one that grew has what is new of it in
its last part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mal_graph.graph import Array, Joined, LayerGraph, Node, Weight


def with_parts_joined(graph: LayerGraph) -> LayerGraph:
    """The view with one weight for each Concat of stored float tensors that nothing else reads."""
    joined: dict[str, Joined] = {}
    weights, nodes = dict(graph.weights), []
    for node in graph.nodes:
        if not is_join(graph, node, weights):
            nodes.append(node)
            continue
        stored = Joined(node, tuple(weights.pop(name) for name in node.inputs))
        joined[node.outputs[0]] = stored
        weights[node.outputs[0]] = joined_weight(stored)
    return replace(graph, nodes=tuple(nodes), weights=weights, joined=joined) if joined else graph


def is_join(graph: LayerGraph, node: Node, weights: Mapping[str, Weight]) -> bool:
    """Whether a node lays stored float tensors end to end, and is all that reads them."""
    if node.op != "Concat" or len(node.inputs) < 2 or not all(name in weights for name in node.inputs):
        return False
    if node.outputs[0] in graph.output_names:
        return False
    read_here = all(len(graph.consumers[name]) == 1 and name not in graph.output_names for name in node.inputs)
    return read_here and all(weights[name].is_float and weights[name].shape for name in node.inputs)


def axis_of(stored: Joined) -> int:
    """The axis along which the parts lie."""
    return int(stored.node.attribute("axis", 1)) % len(stored.parts[0].shape)


def joined_weight(stored: Joined) -> Weight:
    """A handle on the whole tensor."""
    first, axis = stored.parts[0], axis_of(stored)
    shape = (*first.shape[:axis], sum(part.shape[axis] for part in stored.parts), *first.shape[axis + 1 :])
    return Weight(stored.node.outputs[0], shape, first.dtype, partial(read_joined, stored.parts, axis))


def read_joined(parts: Sequence[Weight], axis: int) -> Array:
    """The values of all parts."""
    values = np.concatenate([part.read() for part in parts], axis)
    values.flags.writeable = False
    return values


def with_parts(graph: LayerGraph) -> LayerGraph:
    """The graph with the parts that the file stores, and what joins them."""
    if not graph.joined:
        return graph
    weights, edited = dict(graph.weights), set(graph.edited)
    for name, stored in reversed(list(graph.joined.items())):  # a part may be joined itself
        whole = weights.pop(name)
        parts = list(cut(whole, stored)) if name in edited else stored.parts
        weights.update({part.name: part for part in parts})
        edited |= {part.name for part in parts} if name in edited else set()
    left = {name: stored.node for name, stored in graph.joined.items()}
    nodes = [one for node in graph.nodes for one in (*joins_before(node, left), node)]
    return replace(
        graph,
        nodes=(*nodes, *left.values()),
        weights=weights,
        edited=frozenset(edited - graph.joined.keys()),
        joined={},
    )


def joins_before(node: Node, left: dict[str, Node]) -> list[Node]:
    """The operators that lay end to end what a node is the first to read, taken out of those that are left."""
    joins, waiting = list[Node](), node.reads
    while waiting:
        join = left.pop(waiting.pop(), None)
        if join is not None:
            joins.append(join)
            waiting += join.reads
    return joins[::-1]  # each is read by one operator alone


def cut(whole: Weight, stored: Joined) -> Iterator[Weight]:
    """The parts of a joined tensor, each as long as it was; the last one has the rest."""
    axis = axis_of(stored)
    ends = np.cumsum([0, *(part.shape[axis] for part in stored.parts)])
    ends[-1] = whole.shape[axis]
    for part, start, end in zip(stored.parts, ends, ends[1:], strict=False):
        shape = (*whole.shape[:axis], int(end - start), *whole.shape[axis + 1 :])
        yield replace(part, shape=shape, read=partial(read_part, whole, axis, int(start), int(end)))


def read_part(whole: Weight, axis: int, start: int, end: int) -> Array:
    """A stretch of a tensor along an axis."""
    return whole.read()[(slice(None),) * axis + (slice(start, end),)]
