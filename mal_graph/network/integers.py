"""What stored integers and booleans are to a network: numbers of its weights, gates, or sizes, indices and ids.

A merge averages floats alone. Integers that are scaled to weights, and gates that choose which of them count, are part
of a layer all the same: they cannot stay behind when its units move. Sizes, indices, bounds and ids steer operators.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.network.layers import Layer
from mal_graph.network.parameters import Parameter
from mal_graph.network.roots import find_root
from mal_graph.network.weight_orders import find_weight_orders
from mal_graph.operators import ParameterKind, row_of

MASK_ROLE = "mask"

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
        elif slot == 0 and row.arranges:
            yield from uses_of(graph, node.outputs[0], is_told=is_told or to == BOOL)


def gate_of(graph: LayerGraph, index: int) -> IntegerUse:
    """What booleans are to a node."""
    if not reaches_values(graph, index):
        return IntegerUse.STEERS
    return IntegerUse.MASK if meets_weight(graph, graph.nodes[index]) else IntegerUse.GATE


def reaches_values(graph: LayerGraph, index: int) -> bool:
    """Whether what a node gives, and what is computed of it, is ever more than a setting, such as the shape of
    something."""
    waiting, seen = list(graph.nodes[index].outputs), set[str]()
    while waiting:
        name = waiting.pop()
        if name in graph.output_names:
            return True
        for reader, slot in graph.consumers.get(name, ()):
            row = row_of(graph.nodes[reader])
            if slot < 0 or row is None:
                return True
            if not row.slot(slot).setting and not row.reads_shape_only:
                new = [out for out in graph.nodes[reader].outputs if out and out not in seen]
                waiting += new
                seen.update(new)
    return False


def meets_weight(graph: LayerGraph, node: Node) -> bool:
    """Whether a node reads a stored tensor of floats that is no single number."""
    roots = [find_root(graph, name) for name in node.inputs]
    return any(root is not None and root.weight.is_float and root.weight.size > 1 for root in roots)


def find_masks(graph: LayerGraph) -> list[Parameter]:
    """The stored booleans, and integers that are compared, which choose entries, each where it is read first."""
    masks, orders = [], find_weight_orders(graph)
    for name, weight in graph.weights.items():
        if not weight.is_float and integer_use(graph, weight) in (IntegerUse.MASK, IntegerUse.GATE):
            node, slot = graph.consumers[name][0]
            order = orders.get((node, slot), range(len(weight.shape)))
            axes = tuple(axis for axis in order if weight.shape[axis] > 1)
            shape = tuple(weight.shape[axis] for axis in axes)
            masks.append(Parameter(name, node, slot, MASK_ROLE, ParameterKind.SHIFT, axes, shape))
    return sorted(masks, key=lambda mask: (mask.node, mask.slot))


def masks_of_layers(graph: LayerGraph, layers: Iterable[Layer]) -> dict[str, list[Parameter]]:
    """The masks that work in each layer, by its name: in one of its operators, or in what is computed for one."""
    layer_of = {node: layer.name for layer in layers for node in layer.nodes}
    masks: dict[str, list[Parameter]] = {}
    for mask in find_masks(graph):
        for name in dict.fromkeys(layers_behind(graph, mask.tensor, layer_of)):
            masks.setdefault(name, []).append(mask)
    return masks


def layers_behind(graph: LayerGraph, name: str, layer_of: Mapping[int, str]) -> Iterator[str]:
    """The first layers that read a tensor, or what is computed of it."""
    for index, _ in graph.consumers.get(name, ()):
        if index in layer_of:
            yield layer_of[index]
        else:
            for out in graph.nodes[index].outputs:
                yield from layers_behind(graph, out, layer_of)
