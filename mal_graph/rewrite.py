"""Changes of a graph that a merge needs before any tensor is computed."""

from dataclasses import replace

import numpy as np

from mal_graph.forms import by_role, foldable_norm
from mal_graph.graph import LayerGraph, weight_of
from mal_graph.layers import Layer, layers
from mal_graph.match import Match
from mal_graph.ops import bias_slot


def with_bias_slots(base: LayerGraph, donor: LayerGraph, match: Match) -> tuple[LayerGraph, Match]:
    """The base with a zero bias wherever a donor layer has one, alone or in its BatchNorm, and the base has none.

    Only operators with an optional bias input are given one; elsewhere the donor's bias is reported as not merged.
    The function of the base does not change.

    Returns:
        the graph, and the match with its layers read anew.
    """
    for pair in match.pairs:
        a, b = match.base[pair.base], match.donor[pair.donor]
        if a.weight is None or not shifts(donor, b) or shifts(base, a):
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


def shifts(graph: LayerGraph, layer: Layer) -> bool:
    """Whether a layer has a bias, or a BatchNorm that gives it one."""
    return "bias" in by_role(layer) or foldable_norm(graph, layer) is not None


def unused_name(graph: LayerGraph, name: str) -> str:
    taken = {*graph.weights, *graph.producer, *(value.name for value in graph.inputs)}
    while name in taken:
        name += "_"
    return name
