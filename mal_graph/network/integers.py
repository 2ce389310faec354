"""What stored integers and booleans are to a network: numbers of its weights, gates, or sizes, indices and ids.

A merge averages floats alone. Integers that are scaled to weights, and gates that choose which of them count, are part
of a layer all the same: they cannot stay behind when its units move. Sizes, indices, bounds and ids steer operators.
"""

from collections.abc import Iterator
from enum import StrEnum

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.network.parameters import find_root
from mal_graph.operators import Row, row_of

BOOL, WHOLE = 9, (2, 3, 4, 5, 6, 7, 12, 13, 21, 22)  # types in ONNX's numbering: booleans, and integers of any width

CHOICE = 3  # inputs of an operator that chooses between values, and so gives none of its booleans on


class IntegerUse(StrEnum):
    """What a stored tensor of integers or booleans is."""

    STEERS = "steers"  # sizes, indices, bounds, ids
    NUMBERS = "numbers"  # of a weight, once they are scaled
    GATE = "gate"  # says which entries of an activation count
    MASK = "mask"  # says which entries of a stored weight count


STRONGEST = (IntegerUse.NUMBERS, IntegerUse.MASK, IntegerUse.GATE)


def integer_use(graph: LayerGraph, weight: Weight) -> IntegerUse:
    """What a stored tensor that is not of floats is to the operators that read it."""
    if weight.size < 2 or weight.scope or weight.dtype.kind not in "biuV":
        return IntegerUse.STEERS
    uses = set(uses_of(graph, weight.name, is_told=weight.dtype.kind == "b"))
    return next((use for use in STRONGEST if use in uses), IntegerUse.STEERS)


def uses_of(graph: LayerGraph, name: str, *, is_told: bool) -> Iterator[IntegerUse]:
    """What a tensor of integers, or of booleans (`is_told`), is to its readers, behind those that move or select."""
    for index, slot in graph.consumers.get(name, ()):
        node = graph.nodes[index]
        row = row_of(node)
        if slot < 0 or row is None or row.slot(slot).setting or row.reads_shape_only:
            continue
        to = node.attribute("to") if row.moves else None
        if to is not None and is_told and to != BOOL:
            yield from (gate_of(graph, reader) for reader, _ in graph.consumers.get(node.outputs[0], ()))
        elif row.reads_integers or (to is not None and to not in (BOOL, *WHOLE)):
            yield IntegerUse.NUMBERS
        elif row.compares or row.selects:
            yield gate_of(graph, index)
            if len(node.inputs) < CHOICE:
                yield from uses_of(graph, node.outputs[0], is_told=True)
        elif slot == 0 and is_moved(row):
            yield from uses_of(graph, node.outputs[0], is_told=is_told or to == BOOL)


def gate_of(graph: LayerGraph, index: int) -> IntegerUse:
    """What booleans are to a node."""
    return IntegerUse.MASK if meets_weight(graph, graph.nodes[index]) else IntegerUse.GATE


def meets_weight(graph: LayerGraph, node: Node) -> bool:
    """Whether a node reads a stored tensor of floats that is no single number."""
    roots = [find_root(graph, name) for name in node.inputs]
    return any(root is not None and root.weight.is_float and root.weight.size > 1 for root in roots)


def is_moved(row: Row) -> bool:
    """Whether an operator gives entries of its first input out as they are."""
    return row.moves or (row.adds and not row.by_element) or row.table_axis is not None
