"""Other classes behind the scores of a network: the names in its operators, the stored lists in which it looks classes
up, and the notes in its metadata.

What depends on the classes otherwise cannot be computed of other ones: it is refused where it holds a number for each.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from mal_graph.errors import MatchError
from mal_graph.graph import LayerGraph, Node, Weight, weight_of
from mal_graph.label_lists import Form, LabelList, Names
from mal_graph.matching import noted_names
from mal_graph.operators import row_of

NOTE = "names"  # the key under which names are noted where there was no note


def relabelled(graph: LayerGraph, behind: Collection[str], old: Names, new: Names) -> LayerGraph:
    """A network with other classes behind its scores.

    Args:
        behind: names of the nodes that make something of the scores.
        old, new: the names of the classes.

    Raises:
        MatchError: a node cannot have these classes.
    """
    nodes, weights = list(graph.nodes), dict(graph.weights)
    for index, node in enumerate(graph.nodes):
        if node.name in behind:
            nodes[index] = renamed_node(graph, node, old, new)
            weights |= {weight.name: weight for weight in renamed_tables(graph, node, old, new)}
    notes = {key: listed for key, listed in noted_names(graph).items() if listed.names == old}
    notes = notes or {NOTE: LabelList(old, Form.JSON_NAMES)}
    metadata = {**graph.metadata, **{key: listed.text(new) for key, listed in notes.items()}}
    return replace(graph, nodes=tuple(nodes), weights=weights, metadata=metadata)


def renamed_node(graph: LayerGraph, node: Node, old: Names, new: Names) -> Node:
    """A node with other names. Raises MatchError."""
    row = row_of(node)
    if row is None:
        raise refused(graph, node, "nothing is known of it")
    if row.with_classes is not None:
        named = row.with_classes(node, new)
        if named is None:
            raise refused(graph, node, f"its classes are whole numbers, and {not_a_number(new)!r} is none")
        return named
    held = [key for key, value in node.attributes.items() if isinstance(value, list | tuple) and len(value) == len(old)]
    if held:
        raise refused(graph, node, f"its {held[0]} holds a value for each class")
    return node


def renamed_tables(graph: LayerGraph, node: Node, old: Names, new: Names) -> Iterator[Weight]:
    """The stored lists in which a node looks classes up, with other names. Raises MatchError."""
    row = row_of(node)
    for slot, name in enumerate(node.inputs):
        stored = graph.weights.get(name)
        is_setting = row is not None and bool(row.slot(slot).setting)  # such as a shape, which running it will check
        if stored is None or len(old) not in stored.shape or is_setting:
            continue
        is_table = row is not None and row.table_axis is not None and slot == 0 and stored.size == len(old)
        values = stored.read()
        if not is_table or tuple(map(as_name, values.ravel().tolist())) != old:
            raise refused(graph, node, f"{name!r} holds a value for each class")
        if values.dtype.kind in "iu" and not_a_number(new):
            raise refused(graph, node, f"its classes are whole numbers, and {not_a_number(new)!r} is none")
        shape = tuple(len(new) if length == len(old) else length for length in stored.shape)
        names = [int(each) for each in new] if values.dtype.kind in "iu" else list(new)
        yield weight_of(name, np.array(names, values.dtype).reshape(shape))


def as_name(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def not_a_number(names: Sequence[str]) -> str:
    """The first name that is no whole number; "" where all are."""
    return next((name for name in names if not name.removeprefix("-").isdecimal()), "")


def refused(graph: LayerGraph, node: Node, why: str) -> MatchError:
    return MatchError(
        f"{graph.name} cannot get the classes of other models: {node.title} behind its scores cannot follow, for "
        f"{why}; export it with the scores as the only output"
    )
