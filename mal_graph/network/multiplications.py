"""What a network costs: the multiplications of its contractions, counted from the shapes of one run.

Additions, activations and normalisations are not counted, as in the MACs that papers give.
"""

from collections.abc import Mapping

from mal_graph.graph import LayerGraph
from mal_graph.operators import row_of

Shapes = Mapping[str, tuple[int, ...]]


def count_multiplications(graph: LayerGraph, shapes: Shapes) -> int:
    """How many multiplications a run takes; `shapes` holds those of every tensor in it."""
    return sum(multiplications_of(graph, shapes).values())


def multiplications_of(graph: LayerGraph, shapes: Shapes) -> dict[int, int]:
    """How many multiplications each contraction takes, by the index of its node. What is computed of stored tensors
    alone counts too, as a runtime may compute it in every run; a body counts once, and not at all if no run reached
    it."""
    counts = {}
    for index, node in enumerate(graph.nodes):
        row = row_of(node)
        is_measured = all(name in shapes for name in (*node.inputs, *node.outputs) if name)
        if row is not None and row.multiplications is not None and is_measured:
            inputs = [shapes[name] for name in node.inputs if name]
            counts[index] = row.multiplications(node, inputs, shapes[next(filter(None, node.outputs))])
    return counts
