"""Which value of a model input looks up which entry of a table."""

import numpy as np

from mal_graph import registry
from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph, Node, Value
from mal_graph.operators import row_of
from mal_graph.symmetry.interchangeable import Ints


def looked_up_values(graph: LayerGraph, indices: str, entries: int) -> tuple[str, Ints, Ints] | None:
    """The values of a model input, and the entries of a table with `entries` rows that they look up.

    Follows what acts on each value by itself - arithmetic with stored numbers, casts, a lookup in a stored vector - by
    running it on every value there can be.

    Returns:
        the name of the input, its values and for each the entry; None where the indices are no function of the single
        values of one input.
    """
    path = path_of_values(graph, indices)
    if path is None:
        return None
    source, nodes, limit = path
    if not nodes:
        return source, np.arange(entries), np.arange(entries)
    values = np.arange(limit or 2 * entries)
    found = run_on_values(graph, source, nodes, indices, values)
    if found is None:
        return None
    inside = (found >= -entries) & (found < entries)
    return source, values[inside], found[inside] % entries


def path_of_values(graph: LayerGraph, name: str) -> tuple[str, list[Node], int] | None:
    """The input that a tensor is computed from value by value, the nodes between, and the length of the first vector
    that its values are looked up in (0 for none)."""
    nodes: list[Node] = []
    limit = 0
    inputs = {value.name for value in graph.inputs}
    while name not in inputs:
        if name not in graph.producer:
            return None
        node = graph.nodes[graph.producer[name]]
        row = row_of(node)
        live = [slot for slot, one in enumerate(node.inputs) if one and one not in graph.weights]
        if row is None or (not row.moves and len(live) != 1) or node.outputs[0] != name:
            return None
        slot = 0 if row.moves else live[0]
        others = [
            graph.weights[one] for place, one in enumerate(node.inputs) if one and place != slot and not row.moves
        ]
        if row.moves:
            nodes = [node, *nodes] if row.by_element else nodes  # a cast changes what the value is
        elif row.table_axis is not None and slot == 1 and len(others[0].shape) == 1:
            nodes.insert(0, node)
            limit = others[0].size
        elif row.by_element and all(other.size == 1 for other in others):
            nodes.insert(0, node)
        else:
            return None
        name = node.inputs[slot]
    return name, nodes, limit


def run_on_values(graph: LayerGraph, source: str, nodes: list[Node], read: str, values: Ints) -> Ints | None:
    """What nodes make of each value of an input; None where they cannot be run."""
    declared = next(value for value in graph.inputs if value.name == source)
    chained, name = [], source
    for node in nodes:
        slot = next(slot for slot, one in enumerate(node.inputs) if one and one not in graph.weights)
        inputs = tuple(name if place == slot else one for place, one in enumerate(node.inputs))
        chained.append(Node(node.name, node.op, inputs, node.outputs[:1], node.attributes))
        name = node.outputs[0]
    used = {one for node in chained for one in node.inputs}
    alone = LayerGraph(
        graph.name,
        tuple(chained),
        (Value(source, declared.dtype, (len(values),)),),
        (Value(name, "int64", (len(values),)),),
        {key: weight for key, weight in graph.weights.items() if key in used},
        graph.opsets,
    )
    try:
        session = registry.runner().open(alone)
        found = session.run({source: values.astype(declared.dtype)})[name]
    except RunError:
        return None
    return found.astype(np.int64).ravel() if found.size == len(values) else None
