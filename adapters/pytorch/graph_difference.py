"""Whether a module that was traced again gives the graph that it was rewritten for."""

from collections.abc import Mapping
from itertools import zip_longest

import numpy as np

from mal_graph.graph import LayerGraph, Node, Weight


def difference(graph: LayerGraph, other: LayerGraph) -> str:
    """Where two graphs differ, "" if they are equal but for the names of what lies between."""
    for node, twin in zip_longest(graph.nodes, other.nodes):
        if node is None or twin is None or node.op != twin.op:
            return f"{'nothing' if node is None else node.name} is {'nothing' if twin is None else twin.op}"
    names = dict(zip((v.name for v in graph.inputs), (v.name for v in other.inputs), strict=True))
    for node, twin in zip(graph.nodes, other.nodes, strict=True):
        why = input_difference(node, twin, graph, other, names) or attribute_difference(node, twin)
        if why:
            return why
        names.update(zip(node.outputs, twin.outputs, strict=True))
    wanted = [(names.get(value.name), value.shape) for value in graph.outputs]
    return "" if wanted == [(value.name, value.shape) for value in other.outputs] else "the outputs are others"


def input_difference(node: Node, twin: Node, graph: LayerGraph, other: LayerGraph, names: Mapping[str, str]) -> str:
    """How two operators differ in what they read; `names` are those of the second graph for tensors of the first."""
    if len(filled(node)) != len(filled(twin)):
        return f"{node.name} reads {len(filled(twin))} tensors instead of {len(filled(node))}"
    for slot, (name, its) in enumerate(zip(filled(node), filled(twin), strict=True)):
        if name in graph.weights and its in other.weights:
            if not is_equal(graph.weights[name], other.weights[its]):
                return f"{node.name} reads {shown(other.weights[its])} instead of {shown(graph.weights[name])}"
        elif names.get(name, name) != its:
            return f"{node.name} reads another tensor as input {slot}"
    return ""


def attribute_difference(node: Node, twin: Node) -> str:
    for key in node.attributes.keys() | twin.attributes.keys():
        if not np.array_equal(node.attribute(key), twin.attribute(key)):
            return f"{key} of {node.name} is {twin.attribute(key)} instead of {node.attribute(key)}"
    return ""


def filled(node: Node) -> tuple[str, ...]:
    """The inputs of an operator up to the last that is given."""
    count = max((slot + 1 for slot, name in enumerate(node.inputs) if name), default=0)
    return node.inputs[:count]


def is_equal(a: Weight, b: Weight) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.read().tobytes() == b.read().tobytes()


def shown(weight: Weight) -> str:
    if weight.size <= 8:
        return f"{weight.name} {weight.read().tolist()}"
    return f"{weight.name} of shape {list(weight.shape)}"
