"""Numbers that were taken from the training data to prepare the inputs of a layer, such as those of a scaler.

They are settings: kept as the base has them, and never averaged. Where the donor's differ, its layer reads other
inputs than the base's does, which is said of the layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mal_graph.graph import LayerGraph, Node
from mal_graph.matching.layer_matching import Match
from mal_graph.network import Layer, data_inputs
from mal_graph.operators import row_of

Prepared = Sequence[tuple[str, Mapping[str, Any]]]  # operator and attributes, the last one first


def find_other_settings(base: LayerGraph, donor: LayerGraph, match: Match) -> dict[str, list[str]]:
    """What prepares the inputs of two matched layers with other numbers, by name of the base's layer."""
    mine, theirs = (find_prepared(graph, layers) for graph, layers in ((base, match.base), (donor, match.donor)))
    found = {p.base.name: list(differences(mine[p.base.name], theirs[p.donor.name])) for p in match.pairs}
    return {layer: lines for layer, lines in found.items() if lines}


def differences(base: Prepared, donor: Prepared) -> Iterator[str]:
    """How the base's settings differ from the donor's."""
    if [op for op, _ in base] != [op for op, _ in donor]:
        ops = [", ".join(op for op, _ in reversed(side)) or "nothing" for side in (base, donor)]
        yield f"its inputs are prepared by {ops[0]}, the donor's by {ops[1]}: the base's are kept"
        return
    for (op, own), (_, others) in zip(base, donor, strict=True):
        keys = [key for key in sorted(own.keys() | others.keys()) if repr(own.get(key)) != repr(others.get(key))]
        if keys:  # compared as they are written: NaN stands for itself
            named = " and ".join(keys)
            yield f"{named} of the {op} that prepares its inputs differ from the donor's: the base's are kept"


def find_prepared(graph: LayerGraph, layers: Sequence[Layer]) -> dict[str, Prepared]:
    """What prepares the inputs of each layer, back to the layers before it."""
    inside = {index for layer in layers for index in layer.nodes}
    return {layer.name: list(prepared(graph, layer, inside)) for layer in layers}


def prepared(graph: LayerGraph, layer: Layer, inside: set[int]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    waiting = [name for index in layer.nodes for name in read_by(graph.nodes[index])]
    seen = set(waiting)
    while waiting:
        index = graph.producer.get(waiting.pop())
        if index is None or index in inside:
            continue
        node = graph.nodes[index]
        row = row_of(node)
        if row is not None and row.prepares:
            yield node.op, {key: held for key, held in node.attributes.items() if key in row.prepares}
        before = [name for name in read_by(node) if name not in seen]
        seen.update(before)
        waiting += before


def read_by(node: Node) -> list[str]:
    return [name for name in data_inputs(node, row_of(node)) if name]
