"""What the standard asks of an operator: its inputs, outputs and attributes, and the types of what is stored for it.

Chosen: the rule of onnx's checker for one operator, which onnxruntime applies too. It looks at bodies and at data in
other files as well, which are looked at elsewhere: it is shown small ones in their place.
"""

from collections.abc import Callable, Mapping
from functools import cache

import onnx
import onnx.checker
import onnx_ir as ir

from .size_bounds import stored_tensor

# What onnxruntime's optimiser writes into the standard's domain though the standard has it later, or not at all.
OF_ONNXRUNTIME = ("LayerNormalization", "SimplifiedLayerNormalization")
STANDARD = ("", "ai.onnx")
CHECKED = (*STANDARD, "ai.onnx.ml")  # domains of which onnx knows the operators
SMALL_GRAPH = onnx.GraphProto(name="body")
SMALL_TENSOR = onnx.TensorProto(name="tensor", data_type=onnx.TensorProto.FLOAT, dims=[0])


def operator_problem(ir_version: int, opsets: Mapping[str, int]) -> Callable[[onnx.NodeProto], str]:
    """What tells what the standard says against an operator in these opsets; "" where it says nothing."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = ir_version, dict(opsets)
    sound: set[tuple[str, int, int]] = set()  # operators without attributes, and how much they read and make

    def problem(node: onnx.NodeProto) -> str:
        form = node.op_type, len(node.input), len(node.output)
        if form in sound and is_bare(node):
            return ""
        if (
            node.domain not in CHECKED
            or is_of_onnxruntime(node, opsets)
            or any(each.ref_attr_name for each in node.attribute)
        ):
            return ""
        try:
            onnx.checker.check_node(with_small_parts(node), context)
        except onnx.checker.ValidationError as error:
            return " ".join(str(error).split())[:200].rstrip(".")
        if is_bare(node):
            sound.add(form)
        return ""

    return problem


def is_bare(node: onnx.NodeProto) -> bool:
    """Whether of a node of the standard only its operator and the number of its inputs and outputs can be wrong."""
    return not node.attribute and not node.domain and all(node.input) and all(node.output)


def is_of_onnxruntime(node: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
    """Whether a node is onnxruntime's own, in an opset that does not have it."""
    return node.op_type in OF_ONNXRUNTIME and not onnx.defs.has(node.op_type, opsets.get("", 1), "")


def with_small_parts(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node with a small graph for each of its bodies, and a small tensor for each that lies in another file."""
    if not any(is_large(attribute) for attribute in node.attribute):
        return node
    small = onnx.NodeProto(name=node.name, op_type=node.op_type, input=node.input, output=node.output)
    for attribute in node.attribute:
        made = small.attribute.add(name=attribute.name, type=attribute.type)
        if not is_large(attribute):
            made.CopyFrom(attribute)
        elif attribute.HasField("g"):
            made.g.CopyFrom(SMALL_GRAPH)
        elif attribute.graphs:
            made.graphs.extend(SMALL_GRAPH for _ in attribute.graphs)
        else:
            made.t.CopyFrom(SMALL_TENSOR)
    return small


def is_large(attribute: onnx.AttributeProto) -> bool:
    """Whether an attribute holds what is looked at elsewhere."""
    is_outside = attribute.t.data_location == onnx.TensorProto.EXTERNAL
    return attribute.HasField("g") or bool(attribute.graphs) or is_outside


def type_problem(node: ir.Node, version: int) -> str:
    """What is wrong with the type of a tensor that is stored for an operator; "" where nothing is."""
    if node.domain not in STANDARD:
        return ""
    taken = types_taken(node.op_type, version)
    for slot, value in enumerate(node.inputs if taken else ()):
        stored = stored_tensor(value)
        types = taken[min(slot, len(taken) - 1)]
        if stored is not None and types and (kind := f"tensor({stored.dtype.name.lower()})") not in types:
            name = "" if value is None else value.name
            return f"reads {name!r}, which is stored as {kind}, and takes {' or '.join(sorted(types)[:3])}"
    return ""


@cache
def types_taken(op_type: str, version: int) -> tuple[frozenset[str], ...]:
    """The types that an operator of the standard takes, by its inputs; () where it is not known."""
    if not onnx.defs.has(op_type, version, ""):
        return ()
    return tuple(frozenset(each.types) for each in onnx.defs.get_schema(op_type, version, "").inputs)
