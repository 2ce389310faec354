"""Changes of a graph that a merge needs before any tensor is computed."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mal_graph.graph import Array, LayerGraph, Weight, unused_name, weight_of
from mal_graph.matching import Match, by_role, find_foldable_norm
from mal_graph.network import Layer, Parameter, find_layers
from mal_graph.operators import Misfit, bias_slot, cast_type, enlarged


def with_bias_slots(
    base: LayerGraph, donor: LayerGraph, match: Match, selected: Collection[str] | None = None
) -> tuple[LayerGraph, Match]:
    """The base with a zero bias wherever a donor layer has one, alone or in its BatchNorm, and the base has none.

    Only operators with an optional bias input are given one; elsewhere the donor's bias is reported as not merged.
    The function of the base does not change.

    Args:
        selected: names of the base layers that may be given one, all of them if left out.

    Returns:
        the graph, and the match with its layers read anew.
    """
    for pair in match.with_base(find_layers(base)).pairs:  # the match may know slots that this graph lacks
        a, b = pair.base, pair.donor
        if selected is not None and a.name not in selected:
            continue
        if a.weight is not None and needs_slot(base, donor, a, b):
            base = with_zero_bias(base, a.weight)
    return base, match.with_base(find_layers(base))


def with_zero_bias(graph: LayerGraph, weight: Parameter) -> LayerGraph:
    """The graph with a bias of zeros for a contraction; the graph itself where the operator has no slot for one."""
    node = graph.nodes[weight.node]
    slot = bias_slot(node)
    if slot is None:
        return graph
    zeros = np.zeros(weight.units, type_read(graph, node.inputs[weight.slot]))
    name = unused_name(graph, f"{node.outputs[0]}.bias")
    return graph.with_inserted(weight_of(name, zeros), node.outputs[0], slot)


def type_read(graph: LayerGraph, name: str) -> np.dtype[Any]:
    """The type in which an operator reads a stored tensor, behind those that move and cast it."""
    if name in graph.weights:
        return graph.weights[name].dtype
    node = graph.nodes[graph.producer[name]]
    return np.dtype(cast_type(node)) if cast_type(node) else type_read(graph, node.inputs[0])


def with_larger_windows(
    base: LayerGraph, donor: LayerGraph, match: Match, selected: Collection[str] | None = None
) -> tuple[LayerGraph, Match]:
    """The base with taps of zeros around its convolutions wherever the donor's windows reach further.

    A weight that several operators read keeps its window, and its layer is listed as not merged. The function of the
    base does not change.

    Args:
        selected: names of the base layers that may be enlarged, all of them if left out.

    Returns:
        the graph, and the match with its layers read anew.
    """
    for pair in match.with_base(find_layers(base)).pairs:
        mine, theirs = pair.base.weight, pair.donor.weight
        if selected is not None and pair.base.name not in selected:
            continue
        if mine is None or theirs is None or not is_private(base, mine):
            continue
        if mine.shape[2:] == theirs.shape[2:] or len(mine.shape) != len(theirs.shape):
            continue
        try:
            larger = enlarged(base.nodes[mine.node], mine.shape[2:], donor.nodes[theirs.node], theirs.shape[2:])
        except Misfit:  # listed where the tensors are compared
            continue
        if any(map(any, larger.more)):
            base = base.with_node(mine.node, larger.node).with_weights([with_more_taps(base, mine, larger.more)])
    return base, match.with_base(find_layers(base))


def is_private(graph: LayerGraph, weight: Parameter) -> bool:
    """Whether one operator alone reads a stored weight, and reads it as it is."""
    consumers = graph.consumers.get(weight.tensor, ())
    return consumers == ((weight.node, weight.slot),) and None not in weight.axes


def with_more_taps(graph: LayerGraph, weight: Parameter, more: Sequence[tuple[int, int]]) -> Weight:
    """The stored weight with taps of zeros in front and behind."""
    stored = graph.weights[weight.tensor]
    widths = [(0, 0)] * len(stored.shape)
    for axis, ends in zip(weight.axes[2:], more, strict=True):
        widths[axis if axis is not None else 0] = ends
    shape = tuple(size + sum(ends) for size, ends in zip(stored.shape, widths, strict=True))
    return replace(stored, shape=shape, read=partial(padded, stored.read, widths))


def padded(read: Callable[[], Array], widths: Sequence[tuple[int, int]]) -> Array:
    return np.pad(read(), widths)


def needs_slot(base: LayerGraph, donor: LayerGraph, a: Layer, b: Layer) -> bool:
    """Whether the donor layer has a bias, or a BatchNorm that gives it one, that the base layer has no tensor for."""
    if "bias" in by_role(a):
        return False
    if find_foldable_norm(base, a) is None:
        return "bias" in by_role(b) or find_foldable_norm(donor, b) is not None
    # The shift of a BatchNorm takes the bias of a donor without one; beside a BatchNorm of its own it stays a bias.
    return "bias" in by_role(b) and find_foldable_norm(donor, b) is not None
