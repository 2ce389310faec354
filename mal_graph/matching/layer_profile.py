"""What the matcher knows of the layers of one model, all of it free of names."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.bits import members
from mal_graph.matching.context_hashes import hash_contexts, refine_fully, unfold
from mal_graph.matching.differences import Operations, find_in_front, find_operations
from mal_graph.matching.layer_links import LayerNetwork, Reading, find_network, link_layers, turn_around
from mal_graph.network import Layer, find_layers
from mal_graph.operators import dilations_of, groups_of, is_pointwise, row_of, strides_of

BLOCK = 2**16  # values of a weight that are gone through at once in float64


@dataclass(frozen=True)
class Profile:
    """What the matcher knows of the layers of one model, all of it free of names.

    Attributes:
        layers: the layers.
        network: how they follow each other.
        up, down: hashes of each layer with what is before and after it, at radius 0 to CONTEXT, then without limit.
        roles: hashes of each layer with all that is around it, layers told apart by their activations too; radii as for
            `up` and `down`.
        activations: the operators inside that are neither contraction, norm nor arrangement.
        windows: kernel sizes, strides, dilations and groups.
        meanings: what each layer may correspond to; two layers that have none in common are never paired.
        operations: the operators inside that say which function a layer is, with their settings.
        statistics: scale-free figures of each layer's weight, shape (layers, 2).
    """

    layers: tuple[Layer, ...]
    network: LayerNetwork
    up: tuple[tuple[str, ...], ...]
    down: tuple[tuple[str, ...], ...]
    roles: tuple[tuple[str, ...], ...]
    activations: tuple[frozenset[str], ...]
    windows: tuple[tuple[object, ...], ...]
    meanings: tuple[frozenset[tuple[object, ...]], ...]
    operations: tuple[Operations, ...]
    statistics: NDArray[np.float64]

    @cached_property
    def order(self) -> list[int]:
        """A linear order of the layers that no renaming or re-ordering of the file changes; branches alike keep theirs
        from layer to layer."""
        count = len(self.layers)
        rank = np.zeros(count, int)
        sizes = np.array([layer.in_out for layer in self.layers]).reshape(-1, 2)

        def key(i: int) -> tuple[object, ...]:
            layer = self.layers[i]
            return (
                -self.network.heights[i],
                self.up[i][-1],
                self.down[i][-1],
                self.roles[i][-1],
                np.sort(rank[members(self.network.before[i], count)]).tolist(),
                layer.in_out,
                sizes[members(self.network.descendants[i], count)].sum(axis=0).tolist(),
                tuple(self.statistics[i].tolist()),
            )

        at_depth: dict[int, list[int]] = {}
        for i, layer in enumerate(self.layers):
            at_depth.setdefault(layer.depth, []).append(i)
        order: list[int] = []
        for _, here in sorted(at_depth.items()):
            ranked = sorted(here, key=key) if len(here) > 1 else here
            rank[ranked] = range(len(order), len(order) + len(ranked))
            order += ranked
        return order

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """How deep each layer lies, from 0 to 1."""
        depths = [layer.depth for layer in self.layers]
        lengths = [depth + height for depth, height in zip(depths, self.network.heights, strict=True)]
        return np.array([x / length if length else 0.5 for x, length in zip(depths, lengths, strict=True)])


def profile_layers(graph: LayerGraph) -> Profile:
    """Describe every layer of a graph without using a name."""
    layers = find_layers(graph)
    windows = tuple(describe_window(graph, layer) for layer in layers)
    activated = tuple(find_activations(graph, layer) for layer in layers)
    in_front = find_in_front(graph, layers)
    starts, reads, *_ = link_layers(graph)
    feeds = turn_around(reads)
    place_of = {start: place for place, start in enumerate(starts)}
    own = [place_of[layer.start] for layer in layers]
    labels = [join_label(graph, start) for start in starts]
    finer = list(labels)
    for place, layer, taps, operators in zip(own, layers, windows, activated, strict=True):
        labels[place] = repr((layer.kind, taps))
        finer[place] = repr((labels[place], sorted(operators)))
    up, down = hash_both_ways(labels, reads, feeds)
    roles = hash_all_around(finer, reads, feeds)
    return Profile(
        layers,
        find_network(graph, layers),
        levels_at(own, up),
        levels_at(own, down),
        levels_at(own, roles),
        activated,
        windows,
        tuple(find_meanings(graph, layer, taps) for layer, taps in zip(layers, windows, strict=True)),
        tuple(find_operations(graph, layer, in_front.get(layer.name, ())) for layer in layers),
        np.array([measure_weight(graph, layer) for layer in layers]).reshape(len(layers), 2),
    )


def hash_both_ways(
    labels: Sequence[str], reads: Sequence[Sequence[Reading]], feeds: Sequence[Sequence[Reading]]
) -> list[list[Sequence[str]]]:
    """Hashes of every place with what is before it, and with what is after it, level by level."""
    order = range(len(labels))
    hashed = []
    for side, way in ((reads, order), (feeds, order[::-1])):
        links = [[(one.slot, one.place) for one in near] for near in side]
        hashed.append(hash_contexts(labels, links, unfold(labels, links, way)))
    return hashed


def hash_all_around(
    labels: Sequence[str], reads: Sequence[Sequence[Reading]], feeds: Sequence[Sequence[Reading]]
) -> list[Sequence[str]]:
    """Hashes of every place with what is before and after it, told apart by the ports too, level by level."""
    order = range(len(labels))
    before, after = ([[((one.slot, one.port), one.place) for one in near] for near in side] for side in (reads, feeds))
    ends = unfold(labels, before, order), unfold(labels, after, order[::-1])
    links = [
        [*(((-1, link), place) for link, place in one), *(((1, link), place) for link, place in other)]
        for one, other in zip(before, after, strict=True)
    ]
    return hash_contexts(labels, links, refine_fully([*map("".join, zip(*ends, strict=True))], links))


def levels_at(places: Sequence[int], levels: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """The hashes of some places at every level."""
    return tuple(tuple(level[place] for level in levels) for place in places)


def join_label(graph: LayerGraph, start: int) -> str:
    return f"input {start}" if start < 0 else graph.nodes[start].op


def describe_window(graph: LayerGraph, layer: Layer) -> tuple[object, ...]:
    """Kernel taps and how they move; empty for a layer that has none."""
    if layer.weight is None:
        return ()
    node = graph.nodes[layer.weight.node]
    taps = layer.weight.shape[2:]
    if not taps:
        return ()
    groups = groups_of(node)
    dense = "dense" if groups == 1 else "depthwise" if layer.weight.shape[1] == 1 else "grouped"
    return (tuple(taps), strides_of(node, len(taps)), dilations_of(node, len(taps)), dense)


def find_meanings(graph: LayerGraph, layer: Layer, window: tuple[object, ...]) -> frozenset[tuple[object, ...]]:
    """What a layer may correspond to: its kind, with a window its rank and whether it is dense, grouped or depthwise. A
    window of one tap that moves by one is a linear layer at every place as well."""
    if layer.weight is None or not window:
        return frozenset({(layer.kind,)})
    node = graph.nodes[layer.weight.node]
    row, taps, dense = row_of(node), layer.weight.shape[2:], window[-1]
    apart = () if row is None else tuple(node.attribute(name, usual) for name, usual in row.apart.items())
    meant: set[tuple[object, ...]] = {(layer.kind, len(taps), dense, *apart)}
    if row is not None and row.pointwise and dense == "dense" and is_pointwise(node, taps):
        meant.add((row.pointwise,))
    return frozenset(meant)


def find_activations(graph: LayerGraph, layer: Layer) -> frozenset[str]:
    """Operators inside a layer that shape its signal: no contraction, no arrangement, no parameters of their own."""
    with_parameters = {parameter.node for parameter in layer.parameters}
    shaping = set()
    for index in layer.nodes:
        row = row_of(graph.nodes[index])
        if index not in with_parameters and not (row is not None and row.moves):
            shaping.add(graph.nodes[index].op)
    return frozenset(shaping)


def measure_weight(graph: LayerGraph, layer: Layer) -> tuple[float, float]:
    """Scale-free figures of a layer's first tensor: mean |w| / rms w, and rms over rows of the mean, by rms w."""
    leading = layer.leading
    if leading is None:
        return 0.0, 0.0
    values = leading.canonical(graph.weights[leading.tensor].read())
    if not values.size:
        return 0.0, 0.0
    flat, rows = values.ravel(order="K"), values.reshape(values.shape[0] if values.ndim else 1, -1)
    root = float(np.sqrt(add_up(flat, np.square) / values.size))
    if not np.isfinite(root) or root == 0.0:
        return 0.0, 0.0
    step = max(1, BLOCK // rows.shape[1])
    blocks = (rows[start : start + step].astype(np.float64) for start in range(0, len(rows), step))
    means = np.concatenate([block.mean(axis=1) for block in blocks])
    return add_up(flat, np.abs) / values.size / root, float(np.sqrt(np.mean(means**2))) / root


def add_up(values: Array, of: np.ufunc) -> float:
    """The sum of a function of all values, in float64 but never of all at once: halved as numpy halves, so that the sum
    is the same to the last bit."""
    if len(values) <= BLOCK:
        return float(np.sum(of(values.astype(np.float64))))
    half = len(values) // 2
    half -= half % 8
    return add_up(values[:half], of) + add_up(values[half:], of)
