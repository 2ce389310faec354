"""Where two matched layers read settings that differ: what nobody learned is the base's, and what differs is said.

A setting belongs to the layer that applies it, or to those that read what it makes a difference to; where nothing reads
that any more, to those in front of it. Scales of scores are compared by their product, for one number may be written as
two, and as a factor or a divisor.

One setting goes along with lambda: the scale that the length of a head gives, where the donor's heads have another
length. Heads that grow into the donor's need its scale, and kept ones theirs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from math import prod
from typing import NamedTuple

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.layer_matching import LayerPair, Match
from mal_graph.matching.tensor_pairs import StoredValues, TensorPair
from mal_graph.network import (
    NEGLIGIBLE,
    Layer,
    SettingKind,
    Unlearned,
    UnlearnedUse,
    find_applied,
    find_unlearned,
    is_root_of_length,
    layers_behind,
)

SAME = 1e-5  # relative; what is left of a number by the ways in which exporters compute it
SAME_IN_HALF = 1e-2


class Read(NamedTuple):
    """A setting where a layer reads it, with its values."""

    setting: Unlearned
    use: UnlearnedUse
    values: Array

    @property
    def is_number(self) -> bool:
        return self.values.size == 1

    @property
    def is_scale(self) -> bool:
        return self.setting.kind is SettingKind.SCALE

    @property
    def called(self) -> str:
        return f"{self.setting.kind} {self.setting.tensor}"

    @property
    def factor(self) -> float:
        """What the first entry multiplies by."""
        value = float(self.values.ravel()[0])
        return 1.0 / value if self.use.divides else value


def compare_settings(
    base: LayerGraph, donor: LayerGraph, match: Match
) -> tuple[dict[str, list[str]], dict[str, list[TensorPair]]]:
    """In what the settings that two matched layers read differ, and the scales that go along with lambda, both by name
    of the base's layer."""
    mine, theirs = (read_by_layers(graph, layers) for graph, layers in ((base, match.base), (donor, match.donor)))
    lines: dict[str, list[str]] = {}
    along: dict[str, list[TensorPair]] = {}
    for layers in match.pairs:
        own, others = mine.get(layers.base.name, []), theirs.get(layers.donor.name, [])
        if go_by_length(layers, scales_of(own), scales_of(others)):
            along[layers.base.name] = pair_scales((base, donor), layers, scales_of(own), scales_of(others))
            own, others = ([read for read in side if not read.is_scale] for side in (own, others))
        if said := list(compare(own, others)):
            lines[layers.base.name] = said
    return lines, along


def scales_of(reads: Iterable[Read]) -> list[Read]:
    return [read for read in reads if read.is_scale]


def go_by_length(layers: LayerPair, mine: Sequence[Read], theirs: Sequence[Read]) -> bool:
    """Whether the scales of two layers are those of heads of other lengths."""
    if layers.base.in_out[0] == layers.donor.in_out[0] or not mine or not is_another_scale(mine, theirs):
        return False
    alike = [[(read.use.node.op, read.values.shape) for read in side] for side in (mine, theirs)]
    return alike[0] == alike[1] and all(read.is_number and is_root_of_length(read.values) for read in (*mine, *theirs))


def pair_scales(
    graphs: tuple[LayerGraph, LayerGraph], layers: LayerPair, mine: Sequence[Read], theirs: Sequence[Read]
) -> list[TensorPair]:
    """The scales of two layers as tensors that are merged, each once."""
    applied = [{p.tensor: p for p in reversed(find_applied(graph))} for graph in graphs]
    pairs = {}
    for own, other in zip(mine, theirs, strict=True):
        a, b = applied[0][own.setting.tensor], applied[1][other.setting.tensor]
        reads = StoredValues(graphs[0], a), StoredValues(graphs[1], b)
        pairs[a.tensor] = TensorPair(layers, a, b, *reads)
    return list(pairs.values())


def read_by_layers(graph: LayerGraph, layers: Sequence[Layer]) -> Mapping[str, list[Read]]:
    """The settings that each layer reads, in order, by its name."""
    layer_of = {index: layer.name for layer in layers for index in layer.nodes}
    unlearned = find_unlearned(graph)
    reads: dict[str, list[Read]] = {}
    for setting in unlearned.values():
        values = graph.weights[setting.tensor].read()
        for use in setting.uses:
            for layer in layers_of_use(graph, use, layer_of):
                reads.setdefault(layer, []).append(Read(setting, use, values))
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    return {layer: sorted(own, key=lambda read: order[read.use.node.name]) for layer, own in reads.items()}


def layers_of_use(graph: LayerGraph, use: UnlearnedUse, layer_of: Mapping[int, str]) -> list[str]:
    """The layer that applies a setting, or those behind it, or else those in front."""
    index = graph.producer[use.effect]
    if index in layer_of:
        return [layer_of[index]]
    behind = dict.fromkeys(layers_behind(graph, use.effect, layer_of))
    return list(behind or dict.fromkeys(layers_in_front(graph, use.effect, layer_of)))


def layers_in_front(graph: LayerGraph, name: str, layer_of: Mapping[int, str]) -> Iterator[str]:
    """The last layers that a tensor is made by."""
    index = graph.producer.get(name)
    if index is None:
        return
    if index in layer_of:
        yield layer_of[index]
    else:
        for one in graph.nodes[index].inputs:
            yield from layers_in_front(graph, one, layer_of)


def compare(mine: Iterable[Read], theirs: Iterable[Read]) -> Iterator[str]:
    """In what the settings of two layers differ, kind by kind."""
    own, others = list(mine), list(theirs)
    for kind in dict.fromkeys(read.setting.kind for read in (*own, *others)):
        sides = [[read for read in side if read.setting.kind is kind] for side in (own, others)]
        yield from COMPARED.get(kind, compare_in_order)(*sides)


def compare_scales(mine: Sequence[Read], theirs: Sequence[Read]) -> Iterator[str]:
    """Scales of scores, all of them together."""
    if is_another_scale(mine, theirs):
        a, b = total_scale(mine), total_scale(theirs)
        yield f"its {SettingKind.SCALE} is {a:g}, the donor's {b:g}: the base's is kept"


def is_another_scale(mine: Sequence[Read], theirs: Sequence[Read]) -> bool:
    """Whether scores are scaled otherwise in one of two layers."""
    return not np.isclose(total_scale(mine), total_scale(theirs), rtol=tolerance(*mine, *theirs), atol=0)


def total_scale(reads: Iterable[Read]) -> float:
    """What scores are multiplied by in all."""
    return prod(read.factor for read in reads)


def compare_numbers(mine: Sequence[Read], theirs: Sequence[Read]) -> Iterator[str]:
    """Numbers of operators, where both layers have as many of one kind; others are compared as operators."""
    for op in dict.fromkeys(read.use.node.op for read in mine):
        sides = [[read for read in side if read.use.node.op == op] for side in (mine, theirs)]
        if len(sides[0]) == len(sides[1]):
            yield from compare_in_order(*sides)


def compare_in_order(mine: Sequence[Read], theirs: Sequence[Read]) -> Iterator[str]:
    """Settings of one kind in the order in which they are applied."""
    for own, other in zip_longest(mine, theirs):
        if own is None:
            yield f"the donor has a {other.called} that the base has not"
        elif other is None:
            yield f"its {own.called} has no counterpart in the donor: it is kept"
        elif line := difference(own, other):
            yield line


COMPARED = {SettingKind.SCALE: compare_scales, SettingKind.NUMBER: compare_numbers}


def difference(own: Read, other: Read) -> str:
    """In what two settings of one kind differ; "" if they do not."""
    a, b = (comparable(read) for read in (own, other))
    if a.shape != b.shape:
        return f"its {own.called} has another shape than the donor's, {own.values.shape}: the base's is kept"
    differs = ~np.isclose(a, b, rtol=tolerance(own, other), atol=0, equal_nan=True)
    if not differs.any():
        return ""
    if own.is_number:
        return f"its {own.called} is {a.item():g}, the donor's {b.item():g}: the base's is kept"
    return f"its {own.called} differs from the donor's at {differs.sum()} of {a.size} places: the base's is kept"


def comparable(read: Read) -> Array:
    """The values without axes of length 1; what takes a score out does so however low it is."""
    values = np.squeeze(read.values.astype(np.float64))
    return np.maximum(values, NEGLIGIBLE) if read.setting.kind is SettingKind.MASK else values


def tolerance(*reads: Read) -> float:
    """What two equal settings may differ by, relative, as they are stored."""
    return SAME_IN_HALF if any(read.values.dtype.itemsize < 4 for read in reads) else SAME
