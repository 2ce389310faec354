"""Which layers and joins of a network read which: the network that layers are matched in.

A place is an origin (see `network.layers`): a layer, a join of several signals or a model input.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mal_graph.graph import LayerGraph, once_per_graph
from mal_graph.matching.bits import members
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


@once_per_graph
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
    network = find_network(graph, layers)
    return [
        (layers[source].name, layers[target].name)
        for target in network.layer_at.values()
        for source in members(network.before[target], len(layers))
    ]


def turn_around(reads: Sequence[Sequence[Reading]]) -> list[list[Reading]]:
    """What each place feeds, from what each one reads."""
    feeds: list[list[Reading]] = [[] for _ in reads]
    for target, sources in enumerate(reads):
        for one in sources:
            feeds[one.place].append(one._replace(place=target))
    return feeds


@dataclass(frozen=True)
class LayerNetwork:
    """How the layers of a graph follow each other. Sets of layers are bits, see `bits`.

    Attributes:
        reads, feeds: the places that each place reads, and those that read it.
        layer_at: the layer at each place that is one, in topological order.
        place_of: the place of each layer.
        before, after: the layers that each layer reads, and those that read it, joins seen through.
        ancestors, descendants: all layers that each layer is computed from, and all that are computed from it.
        heights: the longest path from each layer to an output, in layers.
    """

    reads: list[list[int]]
    feeds: list[list[int]]
    layer_at: Mapping[int, int]
    place_of: list[int]
    before: list[int]
    after: list[int]
    ancestors: list[int]
    descendants: list[int]
    heights: list[int]


def find_network(graph: LayerGraph, layers: Sequence[Layer]) -> LayerNetwork:
    """How the layers of a graph follow each other."""
    starts, readings, *_ = link_layers(graph)
    reads = [[one.place for one in near] for near in readings]
    feeds = [[one.place for one in near] for near in turn_around(readings)]
    place_at = {start: place for place, start in enumerate(starts)}
    place_of = [place_at[layer.start] for layer in layers]
    layer_at = {place: i for i, place in sorted(enumerate(place_of), key=lambda one: one[1])}
    forward = range(len(starts))
    before, ancestors = (spread(reads, forward, layer_at) for spread in (see_through, see_all))
    after, descendants = (spread(feeds, forward[::-1], layer_at) for spread in (see_through, see_all))
    sets = before, after, ancestors, descendants, measure_heights(feeds, layer_at)
    return LayerNetwork(reads, feeds, layer_at, place_of, *([one[place] for place in place_of] for one in sets))


def see_through(links: Sequence[Sequence[int]], order: Iterable[int], layer_at: Mapping[int, int]) -> list[int]:
    """The first layers along the links from each place; in `order` each place comes behind what it is linked with."""
    seen = [0] * len(links)
    for place in order:
        for other in links[place]:
            seen[place] |= 1 << layer_at[other] if other in layer_at else seen[other]
    return seen


def see_all(links: Sequence[Sequence[int]], order: Iterable[int], layer_at: Mapping[int, int]) -> list[int]:
    """All layers along the links from each place; in `order` each place comes behind what it is linked with."""
    seen = [0] * len(links)
    for place in order:
        for other in links[place]:
            seen[place] |= seen[other] | (1 << layer_at[other] if other in layer_at else 0)
    return seen


def measure_heights(feeds: Sequence[Sequence[int]], layers: Collection[int]) -> list[int]:
    """How many layers the longest path from each place passes."""
    heights = [0] * len(feeds)
    for place in reversed(range(len(feeds))):  # topological order: successors come later
        heights[place] = max((heights[target] + (target in layers) for target in feeds[place]), default=0)
    return heights


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
