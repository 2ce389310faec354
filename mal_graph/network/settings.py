"""Stored float tensors that are no parameters: settings, which nobody learned, and what bodies and functions hold.

A learned tensor that a layer applies is a parameter (see `parameters`). Every other one stands here, with the reason,
so that each number of a file is spoken of. A further kind of tensor that operators apply though nobody learned it is
one more entry in the table of `unlearned`.
"""

from collections.abc import Collection, Iterator, Mapping

from mal_graph.graph import LayerGraph, Node
from mal_graph.network.unlearned import CAPTURE, Unlearned, find_unlearned
from mal_graph.operators import Row, row_of


def find_settings(
    graph: LayerGraph, applied: Collection[str], table: Mapping[str, Row] | None = None
) -> dict[str, str]:
    """Why stored float tensors are settings, by name.

    Args:
        graph: the network.
        applied: tensors that a layer applies, which are parameters.
    """
    settings, unlearned = {}, find_unlearned(graph, table)
    for name in outside_of_layers(graph, applied):
        if not why_inside(graph, name, table):
            told = unlearned.get(name)
            settings[name] = setting_reason(graph, name, table) if told is None else unlearned_reason(told)
    return settings


def find_inner(graph: LayerGraph, applied: Collection[str], table: Mapping[str, Row] | None = None) -> dict[str, str]:
    """Why stored float tensors stay what they are because bodies or functions alone read them, by name."""
    reasons = {name: why_inside(graph, name, table) for name in outside_of_layers(graph, applied)}
    return {name: why for name, why in reasons.items() if why}


def outside_of_layers(graph: LayerGraph, applied: Collection[str]) -> Iterator[str]:
    """The stored float tensors that are none of the parameters."""
    return (name for name, weight in graph.weights.items() if weight.is_float and name not in applied)


def unlearned_reason(setting: Unlearned) -> str:
    """Why a tensor that an operator applies is a setting."""
    return f"it is a {setting.kind}, which {setting.uses[0].node.title} applies and nobody learned"


def setting_reason(graph: LayerGraph, name: str, table: Mapping[str, Row] | None = None) -> str:
    """Why a stored tensor that no layer applies is a setting."""
    readers = list(find_readers(graph, name, table))
    for node, slot in readers:
        row = row_of(node, table)
        if row is not None and row.slot(slot).setting:
            return f"it steers {node.title}"
    return f"{readers[0][0].title} reads constants alone" if readers else "no operator computes with it"


def why_inside(graph: LayerGraph, name: str, table: Mapping[str, Row] | None = None) -> str:
    """The body or function that a stored tensor is read by; "" if it belongs to the main graph alone."""
    weight = graph.weights[name]
    if weight.scope:
        return f"it is stored inside {weight.scope.rstrip('/')}, and what a body or a function holds is not merged"
    for node, slot in find_readers(graph, name, table):
        if slot == CAPTURE:
            return f"it is read inside a body of {node.title}, and what a body reads is not merged"
    return ""


def find_readers(graph: LayerGraph, name: str, table: Mapping[str, Row] | None = None) -> Iterator[tuple[Node, int]]:
    """The operators that read the values of a tensor, with the input slot, behind those that only move them."""
    for index, slot in graph.consumers.get(name, ()):
        node = graph.nodes[index]
        row = row_of(node, table)
        if slot == 0 and row is not None and row.moves:
            yield from find_readers(graph, node.outputs[0], table)
        elif row is None or slot == CAPTURE or not row.reads_shape_only:
            yield node, slot
