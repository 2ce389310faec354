"""Which value of a model input looks up which entry of a table."""

import numpy as np

from mal_graph import registry
from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph, Node, Value
from mal_graph.operators import row_of
from mal_graph.symmetry.links import Ints


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
    found = run_on_values(graph, source, nodes, values)
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
        node = graph.nodes[graph.producer[name]] if name in graph.producer else None
        if node is None or node.outputs[0] != name or not acts_on_values(graph, node):
            return None
        if not is_arrangement(node):
            nodes.insert(0, node)
            limit = looked_up_in(graph, node) or limit
        name = node.inputs[live_slots(graph, node)[0]]
    return name, nodes, limit


def live_slots(graph: LayerGraph, node: Node) -> list[int]:
    """The inputs of a node that are not stored; of one that arranges values the first alone counts."""
    live = [slot for slot, name in enumerate(node.inputs) if name and name not in graph.weights]
    return live[:1] if is_arrangement(node) else live


def is_arrangement(node: Node) -> bool:
    """Whether a node leaves every value what it is; a cast may not."""
    row = row_of(node)
    return row is not None and row.moves and not row.by_element


def looked_up_in(graph: LayerGraph, node: Node) -> int:
    """The length of the stored vector in which a node looks up its values; 0 if it does no such thing."""
    row, table = row_of(node), graph.weights.get(node.inputs[0])
    is_lookup = row is not None and row.table_axis is not None and table is not None and len(table.shape) == 1
    return table.size if is_lookup and table is not None else 0


def acts_on_values(graph: LayerGraph, node: Node) -> bool:
    """Whether a node makes something of each value of one live input by itself."""
    row, live = row_of(node), live_slots(graph, node)
    if row is None or len(live) != 1:
        return False
    others = [graph.weights[name] for slot, name in enumerate(node.inputs) if name and slot not in live]
    is_alone = row.by_element and all(other.size == 1 for other in others)
    return is_alone or (is_arrangement(node) and live == [0]) or looked_up_in(graph, node) > 0


def run_on_values(graph: LayerGraph, source: str, nodes: list[Node], values: Ints) -> Ints | None:
    """What nodes make of each value of an input; None where they cannot be run."""
    declared = next(value for value in graph.inputs if value.name == source)
    chained, name = [], source
    for node in nodes:
        (slot,) = live_slots(graph, node)
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
