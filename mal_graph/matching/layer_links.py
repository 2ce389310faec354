"""Which layers and joins of a network read which: the network that layers are matched in.

A place is an origin (see `network.layers`): a layer, a join of several signals or a model input.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import LayerGraph
from mal_graph.network import Layer, Parameter, data_inputs, find_origins, find_parameters
from mal_graph.operators import row_of


class Reading(NamedTuple):
    """One origin read by another: at which place it stands, by which slot, and which of the tensors it gives; the slot
    is 0 where the operator does not care about the order of its operands."""

    slot: int
    port: int
    place: int


class Links(NamedTuple):
    """The network of origins, layers and joins alike.

    Attributes:
        starts: their starts in topological order.
        reads: what each one reads.
        outputs: the place of each output of the model; None for one that is constant.
        ordered: whether the order matters in which each one reads.
    """

    starts: list[int]
    reads: list[list[Reading]]
    outputs: list[int | None]
    ordered: list[bool]


def link_layers(graph: LayerGraph) -> Links:
    """The network that the layers of a graph lie in."""
    by_node: dict[int, list[Parameter]] = {}
    for parameter in find_parameters(graph):
        by_node.setdefault(parameter.node, []).append(parameter)
    origin, members = find_origins(graph, by_node)
    places = sorted({*members, *origin.values()}, key=lambda start: (start >= 0, start))
    place_of = {start: place for place, start in enumerate(places)}
    named: list[list[tuple[int, str]]] = []
    ordered: list[bool] = []
    for start in places:
        node = graph.nodes[start] if start >= 0 else None
        row = row_of(node) if node else None
        names = data_inputs(node, row) if node else []
        ordered.append(row is None or not row.commutes)
        named.append([(slot if ordered[-1] else 0, name) for slot, name in enumerate(names) if name in origin])
    ports: dict[int, list[str]] = {}
    for name in sorted({name for near in named for _, name in near}, key=lambda name: graph.producer.get(name, -1)):
        ports.setdefault(origin[name], []).append(name)
    reads = [
        [Reading(slot, ports[origin[name]].index(name), place_of[origin[name]]) for slot, name in near]
        for near in named
    ]
    outputs = [place_of[origin[value.name]] if value.name in origin else None for value in graph.outputs]
    return Links(places, reads, outputs, ordered)


def find_layer_edges(graph: LayerGraph, layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """Which layer's output the next layer reads, joins seen through, as pairs of names of layers."""
    places, reads, *_ = link_layers(graph)
    index = {layer.start: i for i, layer in enumerate(layers)}
    behind: list[set[int]] = []  # the layers that each place's output comes from
    edges: list[tuple[str, str]] = []
    for start, sources in zip(places, reads, strict=True):
        before = {i for one in sources for i in behind[one.place]}
        if start in index:
            edges += [(layers[i].name, layers[index[start]].name) for i in sorted(before)]
        behind.append({index[start]} if start in index else before)
    return edges


def turn_around(reads: Sequence[Sequence[Reading]]) -> list[list[Reading]]:
    """What each place feeds, from what each one reads."""
    feeds: list[list[Reading]] = [[] for _ in reads]
    for target, sources in enumerate(reads):
        for one in sources:
            feeds[one.place].append(one._replace(place=target))
    return feeds


def find_descendants(
    feeds: Sequence[Sequence[Reading]], layers: Collection[int]
) -> tuple[NDArray[np.bool_], list[int]]:
    """What each place reaches, and how many layers the longest path from it passes."""
    reaches = np.zeros((len(feeds), len(feeds)), bool)
    heights = [0] * len(feeds)
    for place in reversed(range(len(feeds))):  # topological order: successors come later
        for _, _, target in feeds[place]:
            reaches[place] |= reaches[target]
            reaches[place, target] = True
            heights[place] = max(heights[place], heights[target] + (target in layers))
    return reaches, heights


def find_outputs(graph: LayerGraph, layers: Sequence[Layer]) -> list[frozenset[str]]:
    """The outputs of the model that each layer leads to."""
    names = [value.name for value in graph.outputs]
    leads = {name: 1 << place for place, name in enumerate(names)}  # by tensor, one bit for each output
    for node in reversed(graph.nodes):
        own = 0
        for name in node.outputs:
            own |= leads.get(name, 0)
        for name in (*node.inputs, *node.captures):
            leads[name] = leads.get(name, 0) | own
    found = []
    for layer in layers:
        own = 0
        for name in (name for index in layer.nodes for name in graph.nodes[index].outputs):
            own |= leads.get(name, 0)
        found.append(frozenset(name for place, name in enumerate(names) if own >> place & 1))
    return found
