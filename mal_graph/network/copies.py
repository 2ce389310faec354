"""A stored tensor that several operators read, stored once for each of them.

What only arranges the tensor on its way - an Identity, a Cast, a Reshape, an Expand - is done for each reader by
itself, so that every reader has a copy of its own at the end of a way of its own. Doing so never changes what a network
computes; it shows what holds its layers together beside the storage.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from mal_graph.graph import LayerGraph, Node, free_name, taken_names
from mal_graph.network.roots import data_dependent
from mal_graph.operators import row_of

Place = tuple[
    int, int
]  # of an operator: the index of what it is a copy of, and 0 for that itself, 1 for the first copy


def with_copies(graph: LayerGraph, names: Collection[str]) -> tuple[LayerGraph, dict[str, str]]:
    """The graph with a copy of some weights for every reader but the first.

    Args:
        names: the weights. What bodies read of them stays.

    Returns:
        the graph; and what each copy is one of, by its name: weights, and what operators make that arrange one.
    """
    if not names:
        return graph, {}
    parted = PartedGraph(graph)
    arranged = [out for out, name in find_arranged(graph).items() if name in names]
    for out in reversed(arranged):  # from the readers back, so that those of the last operator part the one before it
        parted.part_operator(out)
    weights = dict(graph.weights)
    for name in names:
        for copy in parted.part(name):
            weights[copy] = replace(weights[name], name=copy)
    return replace(graph, nodes=tuple(parted.nodes()), weights=weights), parted.copies


class PartedGraph:
    """The operators of a graph while their readers are given copies; each step takes as long as there are readers.

    Attributes:
        copies: what each copy is one of, by its name.
    """

    def __init__(self, graph: LayerGraph) -> None:
        self.graph = graph
        self.copies: dict[str, str] = {}
        self.taken = taken_names(graph)
        self.readers = {
            name: [((index, 0), slot) for index, slot in readers if slot >= 0]
            for name, readers in graph.consumers.items()
        }
        self.inputs: dict[Place, list[str]] = {}  # of what reads something else than in the graph
        self.behind: dict[int, list[Node]] = {}  # the copies of an operator

    def part(self, name: str) -> list[str]:
        """Give every reader of a tensor but the first a name of its own for it; these names, in the readers' order."""
        names = []
        for number, (place, slot) in enumerate(sorted(self.readers.get(name, ()))[1:], 2):
            copy = free_name(self.taken, f"{name} ({number})")
            self.copies[copy] = name
            self.inputs_at(place)[slot] = copy
            names.append(copy)
        return names

    def part_operator(self, out: str) -> None:
        """Have every reader of what an operator makes, but the first, read that of a copy of it."""
        index = self.graph.producer[out]
        node = replace(self.graph.nodes[index], inputs=tuple(self.inputs_at((index, 0))))
        self.behind[index] = [
            replace(node, name=f"{node.name} ({number})", outputs=(copy,))
            for number, copy in enumerate(self.part(out), 2)
        ]
        for number in range(1, len(self.behind[index]) + 1):
            for slot, name in enumerate(node.inputs):
                if name:
                    self.readers[name].append(((index, number), slot))

    def inputs_at(self, place: Place) -> list[str]:
        """What the operator at a place reads, to be changed."""
        if place not in self.inputs:
            index, number = place
            node = self.behind[index][number - 1] if number else self.graph.nodes[index]
            self.inputs[place] = list(node.inputs)
        return self.inputs[place]

    def nodes(self) -> Iterable[Node]:
        """All operators, the copies behind what they are copies of."""
        for index, node in enumerate(self.graph.nodes):
            for number, one in enumerate((node, *self.behind.get(index, ()))):
                read = self.inputs.get((index, number))
                yield one if read is None else replace(one, inputs=tuple(read))


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
        name = node.inputs[0] if node.inputs else ""
        if (name not in arranged and name not in graph.weights) or len(node.outputs) != 1 or node.outputs[0] in live:
            continue
        row = row_of(node)
        if row is not None and row.arranges:
            arranged[node.outputs[0]] = arranged.get(name, name)
    return arranged
