"""Changes of a graph that a merge needs before any tensor is computed."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from mal_graph.forms import by_role, foldable_norm
from mal_graph.graph import LayerGraph, weight_of
from mal_graph.layers import Layer, layers
from mal_graph.match import Match
from mal_graph.ops import bias_slot


def with_bias_slots(
    base: LayerGraph, donor: LayerGraph, match: Match, selected: Iterable[int] | None = None
) -> tuple[LayerGraph, Match]:
    """The base with a zero bias wherever a donor layer has one, alone or in its BatchNorm, and the base has none.

    Only operators with an optional bias input are given one; elsewhere the donor's bias is reported as not merged.
    The function of the base does not change.

    Args:
        selected: indices of the base layers that may be given one, all of them if left out.

    Returns:
        the graph, and the match with its layers read anew.
    """
    found = layers(base)  # the match may know slots that this graph lacks
    chosen = range(len(found)) if selected is None else set(selected)
    for pair in match.pairs:
        a, b = found[pair.base], match.donor[pair.donor]
        if pair.base not in chosen or a.weight is None or not needs_slot(base, donor, a, b):
            continue
        node = base.nodes[base.producer[base.nodes[a.weight.node].outputs[0]]]
        slot = bias_slot(node)
        if slot is None:
            continue
        dtype = base.weights[a.weight.tensor].dtype
        name = unused_name(base, f"{node.outputs[0]}.bias")
        zeros = weight_of(name, np.zeros(a.weight.shape[0], dtype))
        base = base.with_inserted(zeros, node.outputs[0], slot)
    return base, replace(match, base=layers(base))


def needs_slot(base: LayerGraph, donor: LayerGraph, a: Layer, b: Layer) -> bool:
    """Whether the donor layer has a bias, or a BatchNorm that gives it one, that the base layer has no tensor for."""
    if "bias" in by_role(a):
        return False
    if foldable_norm(base, a) is None:
        return "bias" in by_role(b) or foldable_norm(donor, b) is not None
    # The shift of a BatchNorm takes the bias of a donor without one; beside a BatchNorm of its own it stays a bias.
    return "bias" in by_role(b) and foldable_norm(donor, b) is not None


def unused_name(graph: LayerGraph, name: str) -> str:
    taken = {*graph.weights, *graph.producer, *(value.name for value in graph.inputs)}
    while name in taken:
        name += "_"
    return name
