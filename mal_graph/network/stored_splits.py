"""Stored tensors that a Split cuts: in the view each part is a weight of its own.

One tensor holds the projections of a cross-attention, of which one reads another stream than the rest. Nothing but the
storage ties these streams. When the view is written, the parts are one tensor again, and the Split is back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, StoredSplit, Weight, unused_name, weight_of
from mal_graph.operators import row_of


def with_parts_apart(graph: LayerGraph) -> LayerGraph:
    """The view with a weight for each part of the stored tensors that nothing but a Split reads."""
    splits: dict[str, StoredSplit] = {}
    nodes, weights = [], dict(graph.weights)
    for node in graph.nodes:
        lengths = lengths_of(graph, node)
        if lengths is None:
            nodes.append(node)
            continue
        whole = weights.pop(node.inputs[0])
        splits[whole.name] = StoredSplit(node, whole)
        weights.update({part.name: part for part in parts_of(whole, node, lengths)})
    return replace(graph, nodes=tuple(nodes), weights=weights, splits=splits) if splits else graph


def lengths_of(graph: LayerGraph, node: Node) -> list[int] | None:
    """The lengths of the parts into which a node cuts a stored tensor of floats that it alone reads; None for any other
    node."""
    row, weight = row_of(node), graph.weights.get(node.inputs[0]) if node.inputs else None
    if row is None or row.slot(1).name != "split" or weight is None or not weight.is_float or weight.scope:
        return None
    is_shared = weight.name in graph.copies.values() or graph.copies.get(weight.name) in graph.tied
    if len(graph.consumers[weight.name]) > 1 or weight.name in graph.output_names or is_shared or "" in node.outputs:
        return None
    if any(len(graph.consumers.get(out, ())) == 0 or out in graph.output_names for out in node.outputs):
        return None
    if any(slot < 0 for out in node.outputs for _, slot in graph.consumers[out]):
        return None
    length = weight.shape[axis_of(node, weight)]
    if len(node.inputs) > 1 and node.inputs[1]:
        held = graph.weights.get(node.inputs[1])
        return None if held is None else [int(size) for size in held.read().ravel()]
    given = node.attribute("split")
    equal = [length // len(node.outputs)] * len(node.outputs)
    return list(given) if given else equal if sum(equal) == length else None


def axis_of(node: Node, weight: Weight) -> int:
    """The axis along which a Split cuts."""
    return int(node.attribute("axis", 0)) % len(weight.shape)


def parts_of(whole: Weight, node: Node, lengths: Sequence[int]) -> Iterator[Weight]:
    """The parts of a stored tensor, under the names that operators read them by."""
    axis = axis_of(node, whole)
    for name, (start, end) in zip(node.outputs, pairwise(np.cumsum([0, *lengths]).tolist()), strict=True):
        shape = (*whole.shape[:axis], end - start, *whole.shape[axis + 1 :])
        yield replace(whole, name=name, shape=shape, read=partial(read_part, whole, axis, start, end))


def read_part(whole: Weight, axis: int, start: int, end: int) -> Array:
    """A stretch of a tensor along an axis."""
    return whole.read()[(slice(None),) * axis + (slice(start, end),)]


def with_parts_together(graph: LayerGraph) -> LayerGraph:
    """The graph with the tensors that its source stores, and the Splits that cut them. Parts that do not fit together
    any more, as their streams have other widths, get names of their own: the Split stays in `splits`."""
    left: dict[str, StoredSplit] = {}
    for name, split in graph.splits.items():
        parts = [graph.weights[part] for part in split.node.outputs if part in graph.weights]
        if len(parts) < len(split.node.outputs):
            continue
        if len({across(part, axis_of(split.node, split.weight)) for part in parts}) == 1:
            graph = with_whole(graph, name, split)
        else:
            graph, left[name] = with_own_names(graph, parts), split
    return replace(graph, splits=left) if graph.splits else graph


def across(part: Weight, axis: int) -> tuple[int, ...]:
    """The lengths of all axes but one."""
    return (*part.shape[:axis], *part.shape[axis + 1 :])


def with_own_names(graph: LayerGraph, parts: Sequence[Weight]) -> LayerGraph:
    """The graph with other names for some weights."""
    names = {part.name: unused_name(graph, f"{part.name}/apart") for part in parts}
    nodes = (replace(node, inputs=tuple(names.get(name, name) for name in node.inputs)) for node in graph.nodes)
    weights = {names.get(name, name): replace(one, name=names.get(name, name)) for name, one in graph.weights.items()}
    return replace(graph, nodes=tuple(nodes), weights=weights, edited=graph.edited - names.keys() | set(names.values()))


def with_whole(graph: LayerGraph, name: str, split: StoredSplit) -> LayerGraph:
    """The graph with one tensor whole, and what cuts it."""
    parts = [graph.weights[part] for part in split.node.outputs]
    weights = {key: weight for key, weight in graph.weights.items() if key not in split.node.outputs}
    edited, node, whole = set(graph.edited) - set(split.node.outputs), split.node, split.weight
    if graph.edited & set(split.node.outputs):
        axis = axis_of(node, whole)
        lengths = [part.shape[axis] for part in parts]
        shape = (*parts[0].shape[:axis], sum(lengths), *parts[0].shape[axis + 1 :])
        whole = replace(whole, shape=shape, read=partial(read_whole, parts, axis))
        edited.add(name)
        node, held = with_lengths(graph, node, lengths)
        weights.update({weight.name: weight for weight in held})
    first = min(index for part in split.node.outputs for index, _ in graph.consumers[part])
    nodes = (*graph.nodes[:first], node, *graph.nodes[first:])
    return replace(graph, nodes=nodes, weights={**weights, name: whole}, edited=frozenset(edited))


def with_lengths(graph: LayerGraph, node: Node, lengths: Sequence[int]) -> tuple[Node, list[Weight]]:
    """A Split into parts of these lengths, and the tensor that says so where the node's own says others."""
    held = graph.weights.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if held is None:
        told = node.attribute("split") is not None
        return (replace(node, attributes={**node.attributes, "split": list(lengths)}) if told else node), []
    if held.read().ravel().tolist() == list(lengths):
        return node, []
    new = weight_of(unused_name(graph, f"{node.name}/lengths"), np.array(lengths, held.dtype))
    return node.with_input(1, new.name), [new]


def read_whole(parts: Sequence[Weight], axis: int) -> Array:
    """The values of all parts."""
    values = np.concatenate([part.read() for part in parts], axis)
    values.flags.writeable = False
    return values
