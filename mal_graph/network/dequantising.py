"""A donor's weights that are stored as integers, as the float weights they stand for.

Quantisers store a weight as integers and let the model scale them: by DequantizeLinear, by a Cast and a product, or as
indices of a few stored numbers. Nothing of that depends on the inputs, so a donor, which is read and never written, is
seen with one float weight in its place. What the model makes of activations stays: those are no weights.

Chosen: the operators themselves are run, one weight at a time, whenever it is read. Refused: the arithmetic of each
form written out again here, and all weights at once in memory, which would hold four times the file.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, Value, Weight, is_mergeable, weight_of
from mal_graph.operators import are_codes, row_of
from mal_graph.protocols import Runner

Made = Mapping[str, int]  # the node that makes each tensor of stored ones


def dequantised(graph: LayerGraph, runner: Runner) -> LayerGraph:
    """The graph with float weights in place of stored integers that make some; the graph itself where none do."""
    made = made_of_stored(graph)
    weights = {}
    for name in made:
        if name not in graph.output_names and is_weight(graph, made, name):
            weight = computed_weight(graph, made, name, runner)
            weights.update({} if weight is None else {name: weight})
    return with_computed(graph, made, weights) if weights else graph


def made_of_stored(graph: LayerGraph) -> dict[str, int]:
    """What is computed of stored tensors alone, by operators that scale or arrange numbers, with the node that does."""
    stored = {name for name, weight in graph.weights.items() if not weight.scope and weight.dtype.kind != "b"}
    made: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        given = [name for name in node.inputs if name]
        is_stored = bool(given) and all(name in stored or name in made for name in given)
        if is_stored and len(node.outputs) == 1 and not node.captures and makes_numbers(graph, node):
            made[node.outputs[0]] = index
    return made


def makes_numbers(graph: LayerGraph, node: Node) -> bool:
    """Whether an operator scales or arranges numbers, or picks them from a palette."""
    row = row_of(node)
    if row is None or row.compares or row.selects:
        return False
    return row.moves or row.by_element or row.joins or row.quantises or is_palette(graph, node)


def is_palette(graph: LayerGraph, node: Node) -> bool:
    """Whether a node picks a weight from a few stored numbers by stored indices."""
    row = row_of(node)
    if row is None or row.table_axis is None or any(name not in graph.weights for name in node.inputs):
        return False
    data, indices = (graph.weights[name] for name in node.inputs)
    return data.is_float and are_codes(data.shape, indices.shape)


def is_weight(graph: LayerGraph, made: Made, name: str) -> bool:
    """Whether what is computed of stored tensors is a weight made of integers, where nothing further is made of it.

    What is scaled as quantisers do is one for whatever reads it. Places and ids are cast and scaled as well, so that a
    mere product of integers has to be contracted or looked up.
    """
    nodes = [graph.nodes[index] for index in behind(graph, made, name)]
    readers = [graph.nodes[index] for index, _ in graph.consumers.get(name, ())]
    rows = [row_of(node) for node in readers if node.outputs[0] not in made]
    if any(is_quantiser(graph, node) for node in nodes):
        return bool(rows)
    is_applied = any(row is not None and (row.is_contraction or row.table_axis is not None) for row in rows)
    return is_applied and any(reads_integers(graph, node) for node in nodes)


def is_quantiser(graph: LayerGraph, node: Node) -> bool:
    """Whether a node stands between integers and numbers as nothing but a quantiser writes it."""
    row = row_of(node)
    return (row is not None and row.quantises) or is_palette(graph, node)


def reads_integers(graph: LayerGraph, node: Node) -> bool:
    """Whether a node reads stored integers as what it works on: several, where they are no setting."""
    row = row_of(node)
    given = [(slot, graph.weights[name]) for slot, name in enumerate(node.inputs) if name in graph.weights]
    return row is not None and any(
        not weight.is_float and weight.size > 1 and not row.slot(slot).setting for slot, weight in given
    )


def behind(graph: LayerGraph, made: Made, name: str) -> Iterator[int]:
    """The nodes that a computed tensor is made by, in no order."""
    waiting, seen = [name], set()
    while waiting:
        index = made.get(waiting.pop())
        if index is not None and index not in seen:
            seen.add(index)
            waiting.extend(graph.nodes[index].inputs)
            yield index


def computed_weight(graph: LayerGraph, made: Made, name: str, runner: Runner) -> Weight | None:
    """A handle on what is computed of stored tensors; None where that is no float weight, or cannot be run here.

    It is run once to learn its shape and type, which no file has to say.
    """
    nodes = tuple(graph.nodes[index] for index in sorted(behind(graph, made, name)))
    read = {given for node in nodes for given in node.inputs}
    weights = {given: weight for given, weight in graph.weights.items() if given in read}
    alone = LayerGraph(graph.name, nodes, (), (Value(name, "", None),), weights, graph.opsets)
    try:
        values = computed(alone, name, runner)
    except RunError:
        return None
    if not is_mergeable(values.dtype):
        return None
    return Weight(name, values.shape, values.dtype, partial(computed, alone, name, runner))


def computed(graph: LayerGraph, name: str, runner: Runner) -> Array:
    """What a graph without inputs makes, read-only. Raises RunError."""
    return weight_of(name, runner.open(graph, read=[name]).run({})[name]).read()


def with_computed(graph: LayerGraph, made: Made, weights: Mapping[str, Weight]) -> LayerGraph:
    """The graph with some computed tensors stored, without the operators and tensors that nothing reads any more."""
    nodes = [node for node in graph.nodes if node.outputs[0] not in weights]
    kept = without_unread(nodes, made, graph.output_names)
    read = {name for node in kept for name in (*node.inputs, *node.captures)} | graph.output_names
    stored = {name: weight for name, weight in graph.weights.items() if weight.scope or name in read}
    return replace(graph, nodes=tuple(kept), weights={**stored, **weights})


def without_unread(nodes: Sequence[Node], made: Made, outputs: Collection[str]) -> list[Node]:
    """Nodes in their order, without those of stored tensors that nothing reads."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if node.outputs[0] not in made or node.outputs[0] in read:
            read.update(node.inputs, node.captures)
            kept.append(node)
    return kept[::-1]
