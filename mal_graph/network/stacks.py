"""Stacks: stored tensors that hold a matrix for each of several blocks, such as one for each expert or for each head.

The units that such a tensor produces, or those that it consumes, lie along two of its axes: (experts, in, out) holds
the hidden units of all experts, each expert its own. In the view it is one matrix, (in, experts x out), which operators
cut and turn into what the source stores. So what is known of heads - that units lie in blocks, and may be in another
order in each - holds for experts too. When the view is written, the tensor is what it was, with the new values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import TypeGuard

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, Stack, Weight, unused_name, weight_of
from mal_graph.network.roots import Root, find_root
from mal_graph.operators import Spread, row_of

Axes = tuple[int, ...]
RESHAPES_BY_INPUT = 5  # the opset from which Reshape takes its shape as an input


def with_stacks_flat(graph: LayerGraph) -> LayerGraph:
    """The view with one matrix for each stack."""
    if graph.opsets.get("", 1) < RESHAPES_BY_INPUT:
        return graph
    for name, together in find_stacks(graph).items():
        graph = with_flat(graph, graph.weights[name], together)
    return graph


def as_stored(graph: LayerGraph) -> LayerGraph:
    """The graph with its stacks as the source stores them."""
    for name, stack in graph.stacks.items():
        if name in graph.weights and stack.tensor in graph.producer:
            graph = with_stack(graph, name, stack)
    return replace(graph, stacks={}) if graph.stacks else graph


# --- finding them -----------------------------------------------------------------------------------------------


@dataclass
class Together:
    """Which axes of stored tensors are one in the view, by tensor; empty where two readers do not agree."""

    axes: dict[str, frozenset[Axes]] = field(default_factory=dict)

    def note(self, root: Root, sets: Sequence[Sequence[int]]) -> None:
        """Note what a reader says: sets of axes of what it reads."""
        stored = [
            tuple(sorted(axis for place in one if (axis := root.axes[place]) is not None and root.shape[place] > 1))
            for one in sets
        ]
        together = frozenset(axes for axes in stored if len(axes) > 1)
        if self.axes.setdefault(root.weight.name, together) != together:
            self.axes[root.weight.name] = frozenset()


def find_stacks(graph: LayerGraph) -> dict[str, frozenset[Axes]]:
    """The stored tensors that are stacks, and the vectors added to what these make, each with the axes that are one."""
    together = Together()
    counts: dict[str, set[int]] = {}  # of the blocks of the stacks that a tensor was made by
    for node in graph.nodes:
        row = row_of(node)
        if row is not None and row.spread is not None:
            for slot, root in stacks_of(graph, node):
                spread = row.spread(node, slot, len(root.axes))
                if spread is not None:
                    number = prod(root.shape[axis] for axis in spread.blocks)
                    is_inner = number in counts.get(node.inputs[1 - slot], ())
                    note_stack(graph, node.outputs[0], root, spread, together, is_inner=is_inner)
                    lengths = {root.shape[axis] for axis in spread.produced}
                    counts.setdefault(node.outputs[0], set()).update({number, *lengths} - {1})
        elif row is not None and (row.is_sum or row.by_element or row.keeps_axes):
            known = set().union(*(counts.get(name, ()) for name in node.inputs))
            counts.update(dict.fromkeys(node.outputs, known))
    tied = {*graph.tied, *(copy for copy, of in graph.copies.items() if of in graph.tied)}
    captured = {name for node in graph.nodes for name in node.captures}
    return {name: axes for name, axes in together.axes.items() if axes and name not in tied | captured}


def note_stack(
    graph: LayerGraph, tensor: str, root: Root, spread: Spread, together: Together, *, is_inner: bool
) -> None:
    """Note the axes of a stack that makes a tensor. Its blocks hold units produced, each block its own; but where what
    comes in was made by a stack of as many blocks (`is_inner`), they hold units consumed."""
    produced = spread.produced if is_inner else [*spread.blocks, *spread.produced]
    together.note(root, [produced, [*spread.blocks, *spread.consumed] if is_inner else spread.consumed])
    note_beside(graph, tensor, [spread.made[axis] for axis in produced if axis in spread.made], together)


def stacks_of(graph: LayerGraph, node: Node) -> Iterator[tuple[int, Root]]:
    """The stored tensors of several matrices that a node reads, each with its slot, where the other is none."""
    roots = [find_root(graph, name) for name in node.inputs[:2]]
    for slot, root in enumerate(roots):
        if is_plain(root) and roots[1 - slot] is None and sum(size > 1 for size in root.shape) > 2:
            yield slot, root


def is_plain(root: Root | None) -> TypeGuard[Root]:
    """Whether a tensor is a stored one of floats, with the axes that it is stored with."""
    return root is not None and root.weight.is_float and not (root.weight.scope or root.is_mixed or root.is_cut)


def note_beside(graph: LayerGraph, tensor: str, made: Sequence[int], together: Together) -> None:
    """Note the axes of what is stored and combined with a tensor, element by element.

    Args:
        made: the axes of the tensor that hold units of blocks, counted from its end.
    """
    waiting, seen = [tensor], {tensor}
    while waiting:
        name = waiting.pop()
        for index, slot in graph.consumers.get(name, ()):
            node = graph.nodes[index]
            row = row_of(node)
            if slot < 0 or row is None or not row.by_element or node.outputs[0] in seen:
                continue
            seen.add(node.outputs[0])
            for root in (find_root(graph, other) for other in node.inputs if other != name):
                if is_plain(root):
                    rank = len(root.axes)
                    together.note(root, [[rank + axis for axis in made if -axis <= rank]])
            waiting.append(node.outputs[0])


# --- there and back ---------------------------------------------------------------------------------------------


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
