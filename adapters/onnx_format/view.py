"""From an onnx-ir model to the layer graph that shows it, with its constants as weights."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from mal_graph.graph import Declared, LayerGraph, Node, Value, Weight
from mal_graph.network import as_viewed
from mal_graph.seals import OWN, PROVENANCE

from . import bodies
from .constants import with_own_constants
from .document import BODY, LOADED, MAP, REGION, RUNS, OnnxDocument, Region, captured, subgraphs
from .joined import with_parts_joined
from .lowering import SHARED, STORED_IN, lowered_model, region_places
from .recurrent import parts_by_region
from .stored_values import TensorValues
from .walking import node_bodies

NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # what torch's exporter notes on a node
NO_NOTES: Mapping[str, Any] = {}
MOST_SCOPES = 2**14  # letters of such a note: reading it takes a thousand times as many bytes
CONSTANT_FORMS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def layer_graph(model: ir.Model, path: Path) -> LayerGraph:
    """The view of a sorted onnx-ir model, with its constants as weights."""
    lowered = lowered_model(model)
    graph = lowered.graph
    weights = {name: weight for name, weight in initializers(graph, "")}
    constants: dict[str, ir.Node] = {}
    nodes: list[Node] = []
    parts: dict[int, list[Node]] = {}
    taken: dict[str, int] = {}
    for source in graph:
        for scope, body in subgraphs(source):
            weights.update(subgraph_weights(body, scope))
        constant = constant_weight(source, weights)
        if constant is not None:
            weights[constant.name] = constant
            constants[constant.name] = source
            continue
        nodes.append(view_of(source, taken, is_marked=lowered is not model))
        if lowered is not model:
            parts.setdefault(source.meta.get(REGION, -1), []).append(nodes[-1])
    for function in lowered.functions.values():
        called = ".".join(filter(None, function.identifier()))
        weights.update(inner_constants(function, f"{called}/"))
    document = OnnxDocument(path, model, lowered, constants, *written_out(model, lowered, constants, parts, weights))
    LOADED.add(document)
    view = LayerGraph(
        name=path.name,
        nodes=tuple(nodes),
        inputs=tuple(value_of(value) for value in graph.inputs if value.name not in graph.initializers),
        outputs=tuple(outputs_of(graph)),
        weights=weights,
        opsets=dict(lowered.opset_imports),
        source=document,
        metadata={key: note for key, note in model.metadata_props.items() if not key.startswith(OWN)},
        provenance=model.metadata_props.get(PROVENANCE, ""),
    )
    return as_viewed(with_own_constants(with_parts_joined(view)))


def written_out(
    model: ir.Model,
    lowered: ir.Model,
    constants: Mapping[str, ir.Node],
    parts: Mapping[int, list[Node]],
    weights: Mapping[str, Weight],
) -> tuple[tuple[Region, ...], dict[str, tuple[ir.OperatorIdentifier, int]]]:
    """The nodes that the view shows written out, and the constants inside functions that are weights of it."""
    if lowered is model:
        return (), {}
    stored: dict[int, dict[str, str]] = {}
    for name, node in constants.items():
        if STORED_IN in node.meta:
            stored.setdefault(node.meta[REGION], {})[name] = node.meta[STORED_IN]
    regions, halves = [], parts_by_region(lowered)
    for place, node in region_places(model).items():
        held = {} if bodies.is_shown(node, model) else stored.get(place, {})
        units = {name: weights[name].shape[0] for name in held}
        regions.append(Region(view_of(node, {}), tuple(parts.get(place, ())), held, units, halves.get(place, {})))
    return tuple(regions), {name: node.meta[SHARED] for name, node in constants.items() if SHARED in node.meta}


def view_of(node: ir.Node, taken: dict[str, int], *, is_marked: bool = True) -> Node:
    """A node of the view; `is_marked` where nodes may bear notes on bodies, which each takes memory to be asked for."""
    notes = node.meta if is_marked else NO_NOTES
    outputs = tuple(value.name or "" for value in node.outputs)
    name = node.name or next((out for out in outputs if out), node.op_type)
    has_graphs = any(True for _ in node_bodies(node))
    return Node(
        name=unused(name, taken),
        op=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}",
        inputs=tuple("" if value is None else value.name or "" for value in node.inputs),
        outputs=outputs,
        attributes={key: attribute.value for key, attribute in node.attributes.items()} if node.attributes else {},
        captures=tuple(dict.fromkeys(value.name or "" for value in captured(node))) if has_graphs else (),
        scope=scope_of(node),
        has_graphs=has_graphs,
        body=notes.get(BODY, ""),
        runs=notes.get(RUNS, ()),
    )


def unused(name: str, taken: dict[str, int]) -> str:
    """A name that is not taken yet, which is noted with how often it was wanted: files may give one to all nodes."""
    own = name
    while own in taken:
        own = f"{name}'{taken[name] if taken[name] > 1 else ''}"
        taken[name] += 1
    taken[own] = 1
    return own


def scope_of(node: ir.Node) -> str:
    """The module that torch's exporter says a node comes from; "" where it does not say, or names the whole model."""
    told = node.metadata_props.get(NAME_SCOPES) if node.metadata_props else None
    if told is None or len(told) > MOST_SCOPES:
        return ""
    try:  # a Python list: the modules from the outside in, then the operator
        scopes = ast.literal_eval(told)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    is_told = isinstance(scopes, list) and len(scopes) > 1
    return scopes[-2] if is_told and isinstance(scopes[-2], str) else ""


def value_of(value: ir.Value) -> Value:
    dtype = value.dtype.numpy().name if value.dtype is not None and value.dtype != ir.DataType.UNDEFINED else ""
    if value.shape is None:
        return Value(value.name or "", dtype, None)
    sizes = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    shape = tuple(None if isinstance(dim, int) and dim < 0 else dim for dim in sizes)  # -1: some exporters' "any"
    return Value(value.name or "", dtype, shape)


def outputs_of(graph: ir.Graph) -> Iterator[Value]:
    """The outputs of a model; of scores that are put into dictionaries the scores."""
    seen: set[str] = set()
    for value in graph.outputs:
        producer = value.producer()
        scores = (
            producer.inputs[0] if producer is not None and MAP in value.meta and len(producer.inputs) == 1 else None
        )
        shown = value_of(value) if scores is None else replace(value_of(scores), dtype="float32")
        if shown.name not in seen:
            yield shown
        seen.add(shown.name)


def initializers(graph: ir.Graph, scope: str) -> Iterator[tuple[str, Weight]]:
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield scope + name, handle(scope + name, value.const_value, scope)


def subgraph_weights(graph: ir.Graph, scope: str) -> Iterator[tuple[str, Weight]]:
    """Initializers and constants inside a subgraph: counted and listed, never merged."""
    yield from initializers(graph, scope)
    yield from inner_constants(graph, scope)


def inner_constants(graph: ir.Graph | ir.Function, scope: str) -> Iterator[tuple[str, Weight]]:
    """Constants inside a subgraph or a function, and what its own subgraphs hold."""
    for node in graph:
        for inner, body in subgraphs(node):
            yield from subgraph_weights(body, scope + inner)
        tensor = constant_tensor(node)
        if tensor is not None:
            name = f"{scope}{node.outputs[0].name}"
            yield name, handle(name, tensor, scope)


def handle(name: str, tensor: ir.TensorProtocol, scope: str = "") -> Weight:
    """A lazy handle: the values stay where they are until read."""
    return Weight(name, tuple(tensor.shape.numpy()), np.dtype(tensor.dtype.numpy()), TensorValues(name, tensor), scope)


def constant_weight(node: ir.Node, weights: Mapping[str, Weight]) -> Weight | None:
    """The weight that a Constant, or a ConstantOfShape with a stored shape, stands for."""
    name = node.outputs[0].name if node.outputs else ""
    if not name:
        return None
    if node.domain in ("", "ai.onnx") and node.op_type == "ConstantOfShape":
        return filled_weight(node, name, weights)
    tensor = constant_tensor(node)
    return None if tensor is None else replace(handle(name, tensor), declared=Declared.WRITTEN)


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor that a Constant holds in whatever form; None for any other node, and where a caller gives it."""
    if node.domain not in ("", "ai.onnx") or node.op_type != "Constant":
        return None
    if "value" in node.attributes and not node.attributes["value"].is_ref():
        return node.attributes["value"].as_tensor()
    for form, dtype in CONSTANT_FORMS.items():
        if form in node.attributes and not node.attributes[form].is_ref():
            return ir.tensor(np.asarray(node.attributes[form].value, dtype))
    return None


def filled_weight(node: ir.Node, name: str, weights: Mapping[str, Weight]) -> Weight | None:
    shape_name = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
    if shape_name is None or shape_name not in weights:
        return None
    shape = tuple(int(dim) for dim in weights[shape_name].read())
    value = node.attributes["value"].as_tensor().numpy().reshape(()) if "value" in node.attributes else np.float32(0)
    filled = np.broadcast_to(value, shape)  # no memory: one value seen through zero strides
    return Weight(name, shape, filled.dtype, lambda: filled)
