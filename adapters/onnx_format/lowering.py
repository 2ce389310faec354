"""Nodes written out in the view as ordinary operators with stored weights, and given back when a file is saved.

* A call of a function that the file defines becomes the operators of the function. What the function stores is one
  weight, however often it is called.
* The bodies of If, Loop, Scan and SequenceMap stand among the other operators (see `bodies`).
* A recurrent node of two directions becomes two of one, and loses initial states of zeros (see `recurrent`).
* An operator of onnxruntime that holds the weights of several layers becomes one for each (see `fused`).
* A linear model that holds its weights in attributes (`HELD`) becomes a Gemm with stored weights and, behind it, the
  same operator with the identity for weights: what it makes of the scores - labels, ties, a post transform - stays as
  the runtime has it.

Saving starts from the file as it was. A node whose parts are what they were is left as it is, with the new values in
its attributes or in the function's constants; if a merge changed the wiring inside of one, the file is written out.

Chosen: lowering, so that whatever feeds, draws, verifies, aligns, resizes or repairs weights needs to know nothing of
it. Refused: attributes as weights of the operator itself - a session cannot be fed with an attribute, and each of those
steps would have to ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_nodes_and_values
from onnx_ir.passes.common import InlinePass

from mal_graph.graph import Array, LayerGraph, Node, free_name

from . import bodies, fused, recurrent
from .document import REGION, OnnxDocument, Region, mark_as_part
from .recurrent import with_halves_joined
from .walking import nodes_of

SHARED, STORED_IN = "mal_graph.shared", "mal_graph.stored_in"
OWN = ("", "ai.onnx")
FIRST_GEMM = 7  # the opset from which on Gemm broadcasts its third input by itself; 11 where there may be none
LATEST_GEMM = 13


@dataclass(frozen=True)
class Held:
    """The attributes in which an operator holds a weight (units, features) and a bias (units), row by row.

    Attributes:
        units: the attribute that tells the number of units; the length of the bias if "".
        is_product: whether it is nothing but the product where it has no post transform.
    """

    weight: str
    bias: str
    units: str = ""
    is_product: bool = False


HELD: Mapping[tuple[str, str], Held] = {
    ("ai.onnx.ml", "LinearClassifier"): Held("coefficients", "intercepts"),
    ("ai.onnx.ml", "LinearRegressor"): Held("coefficients", "intercepts", "targets", is_product=True),
}


def lowered_model(model: ir.Model) -> ir.Model:
    """A copy of a model with what can be written out written out, each part marked; the model itself where there is
    nothing of the kind."""
    if not any(is_lowered(node, model) for node in nodes_of(model.graph)):
        return model
    lowered = with_functions_inlined(model)
    bodies.show(lowered)
    join_shared(lowered)
    taken = names_of(lowered.graph)
    for node in list(lowered.graph):
        held = HELD.get((node.domain, node.op_type))
        if held is not None:
            write_out(lowered, node, held, taken)
        elif recurrent.is_shown_otherwise(node):
            recurrent.show(lowered, node)
        elif fused.is_fused(node):
            fused.show(lowered, node)
    return lowered


def is_lowered(node: ir.Node, model: ir.Model) -> bool:
    """Whether the view may show a node as others."""
    is_held = node.op_identifier() in model.functions or (node.domain, node.op_type) in HELD
    is_written_apart = recurrent.is_shown_otherwise(node) or fused.is_fused(node)
    return is_held or is_written_apart or bodies.is_shown(node, model)


def with_functions_inlined(model: ir.Model) -> ir.Model:
    """A marked copy of a model, its functions inlined unless one cannot be."""
    try:
        lowered = marked_clone(model)
        InlinePass(lambda function: is_of_opsets(function, model))(lowered)
    except (ValueError, ir.passes.PassError):  # what the runtime may still take: the calls stay
        lowered = marked_clone(model)
    for node in nodes_of(lowered.graph):
        place = node.metadata_props.pop(REGION, None)
        if place is not None:
            node.meta[REGION] = int(place)
    return lowered


def is_of_opsets(function: ir.Function, model: ir.Model) -> bool:
    """Whether the operators of a function mean the same in the main graph."""
    imports = model.opset_imports
    return all(imports.get(domain, version) == version for domain, version in function.opset_imports.items())


def marked_clone(model: ir.Model) -> ir.Model:
    """A copy whose nodes say what they stand for: the place of the node in the main graph, or in a function."""
    clone = model.clone()
    for place, node in enumerate(clone.graph):
        node.metadata_props[REGION] = str(place)  # inlining hands it on to the function's operators
    for key, function in clone.functions.items():
        for place, node in enumerate(function):
            if node.op_type == "Constant" and not any(value.is_ref() for value in node.attributes.values()):
                node.meta[SHARED] = (key, place)
    return clone


def join_shared(model: ir.Model) -> None:
    """Let all calls of a function read the same constants."""
    first: dict[Any, ir.Node] = {}
    for node in list(model.graph):
        known = first.setdefault(node.meta.get(SHARED), node) if SHARED in node.meta else node
        if known is not node and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(known.outputs[0])
            model.graph.remove(node, safe=True)


def names_of(graph: ir.Graph) -> set[str]:
    """The names of all tensors of a graph."""
    made = {value.name or "" for each in graph for value in each.outputs}
    return made | {value.name or "" for value in graph.inputs} | set(graph.initializers)


def write_out(model: ir.Model, node: ir.Node, held: Held, taken: set[str]) -> None:
    """Put the product in front of an operator that holds its weights in attributes; its names are not among those
    taken, and are added."""
    opset = model.opset_imports.setdefault("", LATEST_GEMM)
    weight, bias = matrix_of(node, held), floats_of(node, held.bias)
    x = node.inputs[0]
    if weight is None or x is None or (x.shape is not None and len(x.shape) != 2) or opset < FIRST_GEMM:
        return
    is_written_out = np.array_equal(weight, np.eye(len(weight))) and not bias.any()
    if is_written_out or (not len(bias) and opset < 11):
        return
    parts = product_of(node, x, {held.weight: weight, held.bias: bias}, taken)
    product = parts[-1].outputs[0]
    transform = node.attributes.get("post_transform")
    if held.is_product and (transform is None or transform.as_string() == "NONE"):
        replace_nodes_and_values(model.graph, node, [node], parts, node.outputs, [product])
        return
    model.graph.insert_before(node, parts)
    node.replace_input_with(0, product)
    node.name = f"{node.name or product.name}/scores"
    node.attributes[held.weight] = ir.AttrFloat32s(held.weight, np.eye(len(weight)).ravel().tolist())
    if len(bias):
        node.attributes[held.bias] = ir.AttrFloat32s(held.bias, [0.0] * len(weight))


def matrix_of(node: ir.Node, held: Held) -> Array | None:
    """The weight that attributes hold, one row per unit; None where they do not fit together."""
    values, bias = floats_of(node, held.weight), floats_of(node, held.bias)
    told = node.attributes.get(held.units) if held.units else None
    units = len(bias) if not held.units else 1 if told is None else told.as_int()
    is_whole = units > 0 and len(values) > 0 and len(values) % units == 0 and len(bias) in (0, units)
    return values.reshape(units, -1) if is_whole and len(node.inputs) == 1 else None


def floats_of(node: ir.Node, name: str) -> Array:
    attribute = node.attributes.get(name)
    return np.array([] if attribute is None else attribute.as_floats(), np.float32)


def product_of(node: ir.Node, x: ir.Value, values: Mapping[str, Array], taken: set[str]) -> list[ir.Node]:
    """x times the weight, plus the bias if there is one, for `node`: it computes in float32, whatever x is."""
    called = next(out.name for out in node.outputs if out.name)
    parts: list[ir.Node] = []

    def add(op: str, name: str, inputs: list[ir.Value], attributes: dict[str, Any]) -> ir.Value:
        name = free_name(taken, name)
        part = ir.node(op, inputs, attributes, name=(node.name or called) if op == "Gemm" else name)
        part.outputs[0].name = name
        mark_as_part(part, node)
        parts.append(part)
        return part.outputs[0]

    stored = []
    for key, array in values.items():
        if len(array):
            stored.append(add("Constant", f"{called}/{key}", [], {"value": ir.tensor(array)}))
            parts[-1].meta[STORED_IN] = key
    if x.dtype != ir.DataType.FLOAT:
        x = add("Cast", f"{called}/x", [x], {"to": int(ir.DataType.FLOAT)})
    add("Gemm", f"{called}/product", [x, *stored], {"transB": 1})
    return parts


def region_places(model: ir.Model) -> dict[int, ir.Node]:
    """The nodes of the main graph that the view may show otherwise, by place: those with bodies may call functions."""
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return {
        place: node
        for place, node in enumerate(model.graph)
        if is_lowered(node, model) or any(attribute.type in kinds for attribute in node.attributes.values())
    }


def given_back(graph: LayerGraph) -> LayerGraph | None:
    """The view with the nodes of the file in place of what stands for them; None where that is not what it was."""
    document: OnnxDocument = graph.source
    own = {value.name for value in document.model.graph.initializers.values()}
    own |= {out.name for node in document.model.graph for out in node.outputs}
    own |= bodies.stored_inside(document.model).keys()
    held = {name for region in document.regions for name in region.attributes}
    held |= {name for region in document.regions for _, names in region.halves.values() for name in names}
    if graph.edited - own - held - document.shared.keys():
        return None
    current = {out: node for node in graph.nodes for out in node.outputs if out}
    nodes = list(graph.nodes)
    for region in document.regions:
        node = node_of(region, current, graph)
        if node is None:
            return None
        if region.parts:
            nodes[nodes.index(current[first_output(region.parts[0])])] = node
        gone = {first_output(part) for part in region.parts[1:]}
        nodes = [each for each in nodes if each is node or first_output(each) not in gone]
    graph = with_halves_joined(graph, document.regions)
    made = {out for node in nodes for out in node.outputs} | {value.name for value in graph.inputs} | own
    if any(name and name not in made and name not in graph.weights for node in nodes for name in node.inputs):
        return None
    return replace(graph, nodes=tuple(nodes))


def node_of(region: Region, current: Mapping[str, Node], graph: LayerGraph) -> Node | None:
    """The node that a region stands for, reading what the region reads now; None if anything inside has changed."""
    read: dict[str, str] = {name: name for part in region.parts for name in part.outputs}
    for part in region.parts:
        now = current.get(first_output(part))
        if now is None or now.attributes is not part.attributes or len(now.inputs) != len(part.inputs):
            return None
        if any(read.setdefault(old, new) != new for old, new in zip(part.inputs, now.inputs, strict=True)):
            return None
    if any(old != new and old not in region.node.inputs for old, new in read.items()):
        return None
    if any(graph.weights[name].shape[0] != units for name, units in region.units.items()):
        return None
    changed = {
        key: graph.weights[name].read().astype(np.float32).ravel().tolist()
        for name, key in region.attributes.items()
        if name in graph.edited
    }
    inputs = tuple(read.get(name, name) for name in region.node.inputs)
    return replace(region.node, inputs=inputs, attributes={**region.node.attributes, **changed})


def first_output(node: Node) -> str:
    return next(out for out in node.outputs if out)
