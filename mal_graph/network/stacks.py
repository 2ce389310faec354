"""Stacks: stored tensors that hold a matrix for each of several blocks, such as one for each expert or for each head.

The units that such a tensor produces, or those that it consumes, lie along two of its axes: (experts, in, out) holds
the hidden units of all experts, each expert its own. In the view it is one matrix, (in, experts x out), which operators
cut and turn into what the source stores. So what is known of heads - that units lie in blocks, and may be in another
order in each - holds for experts too. When the view is written, the tensor is what it was, with the new values.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, Stack, Weight, unused_name, weight_of
from mal_graph.network.stack_search import Axes, find_stacks
from mal_graph.network.stored_splits import with_parts_apart, with_parts_together

RESHAPES_BY_INPUT = 5  # the opset from which Reshape takes its shape as an input


def as_viewed(graph: LayerGraph) -> LayerGraph:
    """The view of a graph with its weights as its source stores them."""
    return with_stacks_flat(with_parts_apart(graph))


def as_stored(graph: LayerGraph) -> LayerGraph:
    """A view with its weights as its source stores them."""
    return with_parts_together(with_stacks_stored(graph))


def with_stacks_flat(graph: LayerGraph) -> LayerGraph:
    """The view with one matrix for each stack."""
    if graph.opsets.get("", 1) < RESHAPES_BY_INPUT:
        return graph
    for name, together in find_stacks(graph).items():
        graph = with_flat(graph, graph.weights[name], together)
    return graph


def with_stacks_stored(graph: LayerGraph) -> LayerGraph:
    """The graph with its stacks as the source stores them."""
    for name, stack in graph.stacks.items():
        if name in graph.weights and stack.tensor in graph.producer:
            graph = with_stack(graph, name, stack)
    return replace(graph, stacks={}) if graph.stacks else graph


def with_flat(graph: LayerGraph, weight: Weight, together: frozenset[Axes]) -> LayerGraph:
    """The view with some axes of a weight as one, and the operators that cut them."""
    runs = runs_of(len(weight.shape), together)
    order = [axis for run in runs for axis in run]
    flat = tuple(prod(weight.shape[axis] for axis in run) for run in runs)
    sizes = np.array([weight.shape[axis] for axis in order], np.int64)
    first = min((index for index, _ in graph.consumers[weight.name]), default=0)
    held, out = (unused_name(graph, f"{weight.name}/{part}") for part in ("sizes", "blocks"))
    nodes = [Node(out, "Reshape", (weight.name, held), (out,))]
    if order != sorted(order):
        turned = unused_name(graph, f"{weight.name}/turned")
        nodes.append(Node(turned, "Transpose", (out,), (turned,), {"perm": np.argsort(order).tolist()}))
    tensor = nodes[-1].outputs[0]
    readers = [reading(node, weight.name, tensor) for node in graph.nodes]
    shown = replace(weight, shape=flat, read=partial(read_flat, weight, order, flat))
    return replace(
        graph,
        nodes=(*readers[:first], *nodes, *readers[first:]),
        weights={**graph.weights, weight.name: shown, held: weight_of(held, sizes)},
        stacks={**graph.stacks, weight.name: Stack(tensor, weight, tuple(order))},
    )


def runs_of(rank: int, together: frozenset[Axes]) -> list[Axes]:
    """The axes of a tensor in the order of the view, those that are one in it side by side."""
    run = {axis: axes for axes in together for axis in axes}
    return list(dict.fromkeys(run.get(axis, (axis,)) for axis in range(rank)))


def reading(node: Node, old: str, new: str) -> Node:
    """A node that reads one tensor in place of another."""
    if old not in node.inputs:
        return node
    return replace(node, inputs=tuple(new if name == old else name for name in node.inputs))


def read_flat(weight: Weight, order: Sequence[int], shape: tuple[int, ...]) -> Array:
    """The values of a stack as the view shows it."""
    values = weight.read().transpose(order).reshape(shape)
    values.flags.writeable = False
    return values


def with_stack(graph: LayerGraph, name: str, stack: Stack) -> LayerGraph:
    """The graph with one stack as the source stores it."""
    between = nodes_between(graph, name, stack.tensor)
    (held,) = (node.inputs[1] for node in between if len(node.inputs) > 1)  # the lengths that the stack has by now
    sizes = tuple(graph.weights[held].read().tolist())
    stored = stack.weight
    if name in graph.edited:
        shape = tuple(sizes[stack.order.index(axis)] for axis in range(len(sizes)))
        stored = replace(stored, shape=shape, read=partial(read_stack, graph.weights[name], sizes, stack.order))
    made = {node.outputs[0] for node in between}
    nodes = tuple(reading(node, stack.tensor, name) for node in graph.nodes if node.outputs[0] not in made)
    gone = {held} - {read for node in nodes for read in node.reads}
    weights = {other: weight for other, weight in graph.weights.items() if other not in gone}
    return replace(graph, nodes=nodes, weights={**weights, name: stored}, edited=graph.edited - gone)


def nodes_between(graph: LayerGraph, name: str, tensor: str) -> list[Node]:
    """The operators that lead from a weight to a tensor."""
    between: list[Node] = []
    while tensor != name:
        between.append(graph.nodes[graph.producer[tensor]])
        tensor = between[-1].inputs[0]
    return between


def read_stack(weight: Weight, sizes: tuple[int, ...], order: Sequence[int]) -> Array:
    """The values of a stack as the source stores it."""
    values = weight.read().reshape(sizes).transpose(np.argsort(order))
    values.flags.writeable = False
    return values
