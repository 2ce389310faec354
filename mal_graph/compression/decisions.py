"""Tensors that cannot be averaged though they hold floats: what a network decided stands in them.

Behind a TopK, an ArgMax or a NonMaxSuppression of what was learned, the values themselves say which entries these are,
so that the same place holds another thing in every network; no layer behind it changes that. A float that was made of a
truth or a class number is a decision as well, until a layer makes something new of it.
"""

from collections.abc import Callable, Collection

from mal_graph.graph import LayerGraph, Node
from mal_graph.operators import row_of


def decided(graph: LayerGraph, learned: Collection[int], is_float: Callable[[str], bool]) -> frozenset[str]:
    """The tensors of a network that hold what it decided.

    Args:
        learned: the indices of nodes with parameters.
        is_float: whether a tensor holds numbers that can be averaged.
    """
    computed: set[str] = set()  # of what was learned
    chosen: set[str] = set()
    told: set[str] = set()
    for index, node in enumerate(graph.nodes):
        read = [name for name in (*node.inputs, *node.captures) if name]
        if index in learned or not computed.isdisjoint(read):
            computed.update(node.outputs)
        if not chosen.isdisjoint(read) or (chooses(node) and not computed.isdisjoint(read)):
            chosen.update(node.outputs)
        is_told = not told.isdisjoint(read) or tells(node, computed, is_float)
        if is_told and index not in learned:
            told.update(node.outputs)
    return frozenset(chosen | told)


def chooses(node: Node) -> bool:
    """Whether values say which entries an operator gives."""
    row = row_of(node)
    return row is not None and row.chooses


def tells(node: Node, computed: Collection[str], is_float: Callable[[str], bool]) -> bool:
    """Whether an operator makes floats of truths or whole numbers that were computed; integers that stand for floats
    are none of these."""
    row = row_of(node)
    if row is None or row.quantises or row.reads_integers or not node.inputs:
        return False
    first = node.inputs[0]
    return first in computed and not is_float(first) and any(is_float(name) for name in node.outputs if name)
