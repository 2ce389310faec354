"""Stacks: stored tensors that hold a matrix for each of several blocks, such as one for each expert or for each head.

The units that such a tensor produces, or those that it consumes, lie along two of its axes: (experts, in, out) holds
the hidden units of all experts, each expert its own. In the view it is one matrix, (in, experts x out), which operators
cut and turn into what the source stores. So what is known of heads - that units lie in blocks, and may be in another
order in each - holds for experts too. When the view is written, the tensor is what it was, with the new values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, Stack, Weight, free_name, taken_names, weight_of
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
    found = find_stacks(graph) if graph.opsets.get("", 1) >= RESHAPES_BY_INPUT else {}
    if not found:
        return graph
    taken = taken_names(graph)
    weights, stacks, shown = dict(graph.weights), dict(graph.stacks), dict[str, str]()
    before: dict[int, list[Node]] = {}  # what stands before the first reader of a stack
    for name, together in found.items():
        flat, sizes, nodes, stack = flat_stack(graph.weights[name], together, taken)
        weights.update({name: flat, sizes.name: sizes})
        stacks[name], shown[name] = stack, stack.tensor
        first = min((index for index, _ in graph.consumers[name]), default=0)
        before.setdefault(first, []).extend(nodes)
    shown_nodes = [
        one for index, node in enumerate(graph.nodes) for one in (*before.get(index, ()), reading(node, shown))
    ]
    return replace(graph, nodes=tuple(shown_nodes), weights=weights, stacks=stacks)


def flat_stack(
    weight: Weight, together: frozenset[Axes], taken: set[str]
) -> tuple[Weight, Weight, tuple[Node, ...], Stack]:
    """A weight with some of its axes as one, the lengths of what these were, the operators that cut them, and how it is
    stored. Their names are not among those taken, and are added."""
    runs = runs_of(len(weight.shape), together)
    order = [axis for run in runs for axis in run]
    flat = tuple(prod(weight.shape[axis] for axis in run) for run in runs)
    sizes = np.array([weight.shape[axis] for axis in order], np.int64)
    held, out = (free_name(taken, f"{weight.name}/{part}") for part in ("sizes", "blocks"))
    nodes = [Node(out, "Reshape", (weight.name, held), (out,))]
    if order != sorted(order):
        turned = free_name(taken, f"{weight.name}/turned")
        nodes.append(Node(turned, "Transpose", (out,), (turned,), {"perm": np.argsort(order).tolist()}))
    shown = replace(weight, shape=flat, read=partial(read_flat, weight, order, flat))
    return shown, weight_of(held, sizes), tuple(nodes), Stack(nodes[-1].outputs[0], weight, tuple(order))


def with_stacks_stored(graph: LayerGraph) -> LayerGraph:
    """The graph with its stacks as the source stores them."""
    weights, held, made, stored = dict(graph.weights), set[str](), set[str](), dict[str, str]()
    for name, stack in graph.stacks.items():
        if name not in graph.weights or stack.tensor not in graph.producer:
            continue
        between = nodes_between(graph, name, stack.tensor)
        (lengths,) = (node.inputs[1] for node in between if len(node.inputs) > 1)  # those that the stack has by now
        if name in graph.edited:
            weights[name] = stored_stack(graph.weights[name], stack, tuple(graph.weights[lengths].read().tolist()))
        else:
            weights[name] = stack.weight
        held.add(lengths)
        made |= {node.outputs[0] for node in between}
        stored[stack.tensor] = name
    if not graph.stacks:
        return graph
    nodes = tuple(reading(node, stored) for node in graph.nodes if node.outputs[0] not in made)
    gone = held - {name for node in nodes for name in node.reads}
    weights = {name: weight for name, weight in weights.items() if name not in gone}
    return replace(graph, nodes=nodes, weights=weights, edited=graph.edited - gone, stacks={})


def runs_of(rank: int, together: frozenset[Axes]) -> list[Axes]:
    """The axes of a tensor in the order of the view, those that are one in it side by side."""
    run = {axis: axes for axes in together for axis in axes}
    return list(dict.fromkeys(run.get(axis, (axis,)) for axis in range(rank)))


def reading(node: Node, names: Mapping[str, str]) -> Node:
    """A node that reads other tensors in place of some; the node itself where it reads none of these."""
    if names.keys().isdisjoint(node.inputs):
        return node
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def read_flat(weight: Weight, order: Sequence[int], shape: tuple[int, ...]) -> Array:
    """The values of a stack as the view shows it."""
    values = weight.read().transpose(order).reshape(shape)
    values.flags.writeable = False
    return values


def stored_stack(flat: Weight, stack: Stack, sizes: tuple[int, ...]) -> Weight:
    """A matrix as the source stores it, where its axes have other lengths by now."""
    shape = tuple(sizes[stack.order.index(axis)] for axis in range(len(sizes)))
    return replace(stack.weight, shape=shape, read=partial(read_stack, flat, sizes, stack.order))


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
