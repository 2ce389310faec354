"""What the classes are called that a layer scores, where the graph says it: two models score the same classes only if
they give them the same names in the same order.

Names stand in an attribute (a classifier's labels, the keys of its dictionaries of scores) or in a stored list of texts
or whole numbers in which the place of the largest score is looked up.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mal_graph.graph import LayerGraph, Node
from mal_graph.label_lists import LabelList, read_label_list
from mal_graph.matching.layer_matching import LayerPair, Match
from mal_graph.network import Layer, data_inputs
from mal_graph.operators import Row, row_of

SHOWN = 4  # names that a reason lists
NOTED = ("names", "id2label", "label2id", "labels", "classes", "class_names")  # keys that exporters write
ClassNames = Mapping[str, set[tuple[Any, ...]]]  # by name of the layer


def find_misnamed(base: LayerGraph, donor: LayerGraph, match: Match) -> dict[str, str]:
    """Why two matched layers do not score the same classes, by name of the base's layer."""
    names = find_class_names(base, match.base), find_class_names(donor, match.donor)
    reasons = ((pair.base.name, compare_names(pair, *names)) for pair in match.pairs)
    return {layer: reason for layer, reason in reasons if reason}


def compare_names(pair: LayerPair, base: ClassNames, donor: ClassNames) -> str:
    """Why two layers do not score the same classes; "" where they do, or one of them has no names."""
    mine, theirs = base.get(pair.base.name), donor.get(pair.donor.name)
    if not mine or not theirs or mine == theirs:
        return ""
    own, others = min(mine - theirs or mine, key=str), min(theirs - mine or theirs, key=str)
    how = "in another order" if sorted(map(str, own)) == sorted(map(str, others)) else "other ones"
    return f"its classes are {listed(own)}, the donor's {listed(others)}: {how}"


def listed(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:SHOWN]))
    return f"{shown}, ..." if len(names) > SHOWN else shown


def find_class_names(graph: LayerGraph, layers: Sequence[Layer]) -> ClassNames:
    """The names of the classes of each layer, as often as the graph gives them otherwise."""
    layer_of = {index: layer for layer in layers for index in layer.nodes}
    found: dict[str, set[tuple[Any, ...]]] = {}
    for node in graph.nodes:
        row = row_of(node)
        for scores, names in named_by(graph, node, row) if row is not None else ():
            for layer in layers_behind(graph, scores, layer_of):
                found.setdefault(layer.name, set()).add(names)
    return found


def names_in(graph: LayerGraph) -> set[tuple[Any, ...]]:
    """Every list of names that a graph gives its classes."""
    rows = ((node, row_of(node)) for node in graph.nodes)
    return {names for node, row in rows if row is not None for _, names in named_by(graph, node, row)}


def noted_names(graph: LayerGraph) -> dict[str, LabelList]:
    """What a model's notes on itself say of its classes, by the key of the note."""
    lists = {key: read_label_list(graph.metadata[key]) for key in NOTED if key in graph.metadata}
    return {key: listed for key, listed in lists.items() if listed is not None}


def named_by(graph: LayerGraph, node: Node, row: Row) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The tensors of scores that a node names the classes of, with the names."""
    for key in row.class_names:
        if held := node.attribute(key):
            yield node.inputs[0], tuple(map(as_text, held))
    table = graph.weights.get(node.inputs[0]) if row.table_axis is not None else None
    if table is not None and not table.is_float and not table.scope and node.inputs[1] not in graph.weights:
        yield node.inputs[1], tuple(map(as_text, table.read().ravel().tolist()))


def as_text(name: Any) -> Any:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def layers_behind(graph: LayerGraph, tensor: str, layer_of: Mapping[int, Layer]) -> Iterator[Layer]:
    """The last layers on the way to a tensor."""
    waiting, seen = [tensor], {tensor}
    while waiting:
        index = graph.producer.get(waiting.pop())
        if index is None:
            continue
        if index in layer_of:
            yield layer_of[index]
            continue
        node = graph.nodes[index]
        before = {name for name in data_inputs(node, row_of(node)) if name} - seen
        seen |= before
        waiting += sorted(before)
