"""A stored tensor that several operators read, stored once for each of them.

What only arranges the tensor on its way - an Identity, a Cast, a Reshape, an Expand - is done for each reader by
itself, so that every reader has a copy of its own at the end of a way of its own. Doing so never changes what a network
computes; it shows what holds its layers together beside the storage.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from mal_graph.graph import LayerGraph, Node, unused_name
from mal_graph.network.roots import data_dependent
from mal_graph.operators import row_of


def with_copies(graph: LayerGraph, names: Collection[str]) -> tuple[LayerGraph, dict[str, str]]:
    """The graph with a copy of some weights for every reader but the first.

    Args:
        names: the weights. What bodies read of them stays.

    Returns:
        the graph; and what each copy is one of, by its name: weights, and what operators make that arrange one.
    """
    copies: dict[str, str] = {}
    arranged = [out for out, name in find_arranged(graph).items() if name in names]
    for out in reversed(arranged):  # from the readers back, so that those of the last operator part the one before it
        graph = with_node_apart(graph, out, copies)
    nodes, weights = list(graph.nodes), dict(graph.weights)
    for name in names:
        for number, (index, slot) in enumerate(readers(graph, name)[1:], 2):
            copy = unused_name(replace(graph, weights=weights), f"{name} ({number})")
            copies[copy], weights[copy] = name, replace(weights[name], name=copy)
            nodes[index] = nodes[index].with_input(slot, copy)
    return replace(graph, nodes=tuple(nodes), weights=weights), copies


def with_node_apart(graph: LayerGraph, out: str, copies: dict[str, str]) -> LayerGraph:
    """The graph with an operator of its own for every reader of a tensor but the first; adds what each makes to
    `copies`."""
    index, further = graph.producer[out], readers(graph, out)[1:]
    nodes, made = list(graph.nodes), list[Node]()
    for number, (reader, slot) in enumerate(further, 2):
        copy = unused_name(graph, f"{out} ({number})")
        copies[copy] = out
        made.append(replace(nodes[index], name=f"{nodes[index].name} ({number})", outputs=(copy,)))
        nodes[reader] = nodes[reader].with_input(slot, copy)
    return replace(graph, nodes=(*nodes[: index + 1], *made, *nodes[index + 1 :])) if made else graph


def find_shared(graph: LayerGraph) -> list[str]:
    """The weights that several inputs of operators read, as they are stored or arranged."""
    arranged = find_arranged(graph)
    times = Counter(
        arranged.get(name, name)
        for node in graph.nodes
        for slot, name in enumerate(node.inputs)
        if slot or node.outputs[0] not in arranged
    )
    return [name for name in graph.weights if times[name] > 1]


def find_arranged(graph: LayerGraph) -> dict[str, str]:
    """What operators make that only arrange a weight, in topological order, each with that weight."""
    live, arranged = data_dependent(graph), dict[str, str]()
    for node in graph.nodes:
        row, name = row_of(node), node.inputs[0] if node.inputs else ""
        is_alone = len(node.outputs) == 1 and node.outputs[0] not in live
        if row is not None and row.arranges and is_alone and (name in arranged or name in graph.weights):
            arranged[node.outputs[0]] = arranged.get(name, name)
    return arranged


def readers(graph: LayerGraph, name: str) -> list[tuple[int, int]]:
    """The node index and input slot of all that reads a tensor outside of bodies."""
    return [(index, slot) for index, slot in graph.consumers.get(name, ()) if slot >= 0]
