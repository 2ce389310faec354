"""Operators of onnxruntime that hold the weights of several layers, as the view shows them: one operator for each.

Its Attention multiplies with the weights of queries, keys and values by itself; in the view a MatMul does, and
MultiHeadAttention reads what it gives. Its EmbedLayerNormalization looks up in up to three tables, adds, and
normalises. Saving puts them together again (see `lowering`).

Chosen: lowering, so that a packed weight is followed, matched and calibrated as any other. Refused: a contraction that
gives something else than the units of its weight - whatever measures, rescales or aligns units reads them off the
output.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_nodes_and_values

from .document import mark_as_part

MICROSOFT = "com.microsoft"
HANDED_ON = ("num_heads", "scale", "mask_filter_value", "unidirectional")  # to MultiHeadAttention, which has them too
NOT_FOLLOWED = ("do_rotary", "past_present_share_buffer")
MASK_RANKS = (2, 3)  # of masks that mean the same to both operators, whatever the number of samples
SIZES_AS_INPUT = 13  # the opset from which on Split and ReduceSum take an input instead of an attribute
NORM_EPSILON = 1e-12
KINDS = {  # of the attributes that are read here; no checker knows them
    **dict.fromkeys(("num_heads", "unidirectional", *NOT_FOLLOWED), ir.AttributeType.INT),
    **dict.fromkeys(("scale", "mask_filter_value", "epsilon"), ir.AttributeType.FLOAT),
    "qkv_hidden_sizes": ir.AttributeType.INTS,
}

Inputs = list[ir.Value | None]


def is_fused(node: ir.Node) -> bool:
    """Whether the view shows a node as several."""
    check = CHECKS.get((node.domain, node.op_type))
    return check is not None and has_sound_attributes(node) and check(node)


def has_sound_attributes(node: ir.Node) -> bool:
    """Whether attributes have the types that they are read in."""
    return all(KINDS.get(name, held.type) is held.type for name, held in node.attributes.items())


def show(model: ir.Model, node: ir.Node) -> None:
    """Put what the view shows in place of a node."""
    parts = Parts(model, node)
    made = WRITERS[node.op_type](parts, node)
    read = {number: out for number, out in enumerate(node.outputs) if out.uses() or out.is_graph_output()}
    new = [made[number] for number in read]
    replace_nodes_and_values(model.graph, node, [node], parts.nodes, list(read.values()), new)


class Parts:
    """The nodes that stand for one of the file."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.opset = model.opset_imports.setdefault("", SIZES_AS_INPUT)
        self.node, self.nodes = node, list[ir.Node]()
        self.called = node.name or next(out.name for out in node.outputs if out.name)
        self.taken = {value.name for each in model.graph for value in each.outputs}
        self.taken |= {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}

    def add(self, op: str, name: str, inputs: Inputs, outputs: int = 1, domain: str = "", **attributes: Any) -> ir.Node:
        """A node; one without a name of its own is called as the node of the file."""
        called = f"{self.called}/{name}" if name else self.called
        made = ir.node(op, inputs, attributes, domain=domain, num_outputs=outputs, name=called)
        for number, out in enumerate(made.outputs):
            out.name = self.unused(f"{self.called}/{name or 'product'}{f'.{number}' if outputs > 1 else ''}")
        mark_as_part(made, self.node)
        made.metadata_props.update(self.node.metadata_props)
        self.nodes.append(made)
        return made

    def value(self, op: str, name: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """What a node with one output gives."""
        return self.add(op, name, list(inputs), **attributes).outputs[0]

    def constant(self, name: str, *values: int) -> ir.Value:
        """Stored integers."""
        return self.value("Constant", name, value=ir.tensor(np.array(values, np.int64)))

    def unused(self, name: str) -> str:
        """The name, changed if the graph has it."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def with_sizes(self, attribute: str, *values: int) -> tuple[Inputs, Mapping[str, Any]]:
        """Integers as the input, or as the attribute, that the opset has for them."""
        if self.opset < SIZES_AS_INPUT:
            return [], {attribute: list(values)}
        return [self.constant(attribute, *values)], {}


def given(node: ir.Node, slot: int) -> ir.Value | None:
    """An input, None if the node has none there."""
    return node.inputs[slot] if slot < len(node.inputs) else None


def number(node: ir.Node, name: str, usual: float) -> float:
    """An attribute that is a number."""
    return float(node.attributes[name].value) if name in node.attributes else usual


def rank_of(value: ir.Value) -> int | None:
    """How many axes a tensor has, None if nothing tells."""
    while value.shape is None:
        producer = value.producer()
        source = producer.inputs[0] if producer is not None and producer.op_type in ("Cast", "Identity") else None
        if source is None:
            return None
        value = source
    return len(value.shape)


# --- attention --------------------------------------------------------------------------------------------------------


def is_plain_attention(node: ir.Node) -> bool:
    """Whether an Attention has no past, and what it takes means the same to MultiHeadAttention."""
    weight, mask = given(node, 1), given(node, 3)
    has_past = given(node, 4) is not None or any(out.name for out in node.outputs[1:])
    is_known = mask is None or rank_of(mask) in MASK_RANKS
    if has_past or not is_known or weight is None or any(number(node, name, 0) for name in NOT_FOLLOWED):
        return False
    return len(widths_of(node, weight)) == 3


def widths_of(node: ir.Node, weight: ir.Value) -> list[int]:
    """How many units queries, keys and values have in all; [] if nothing tells."""
    if "qkv_hidden_sizes" in node.attributes:
        return list(node.attributes["qkv_hidden_sizes"].as_ints())
    size = None if weight.shape is None or len(weight.shape) != 2 else weight.shape[1]
    return [size // 3] * 3 if isinstance(size, int) else []


def write_attention(parts: Parts, node: ir.Node) -> list[ir.Value]:
    """The product with the packed weight, the bias, and what attends to it head by head."""
    x, weight, bias = node.inputs[0], node.inputs[1], given(node, 2)
    assert weight is not None  # it was looked at
    packed = parts.value("MatMul", "", x, weight)
    if bias is not None:
        packed = parts.value("Add", "bias", packed, bias)
    sizes, told = parts.with_sizes("split", *widths_of(node, weight))
    three = parts.add("Split", "three", [packed, *sizes], 3, axis=2, **told).outputs
    attributes = {name: node.attributes[name].value for name in HANDED_ON if name in node.attributes}
    masks = [given(node, 3), given(node, 5)]
    return [parts.value("MultiHeadAttention", "heads", *three, None, *masks, domain=MICROSOFT, **attributes)]


# --- embedding --------------------------------------------------------------------------------------------------------


def is_plain_embedding(node: ir.Node) -> bool:
    """Whether an EmbedLayerNormalization tells nothing of a mask."""
    return not any(out.uses() or out.is_graph_output() for out in node.outputs[1:2])


def write_embedding(parts: Parts, node: ir.Node) -> list[ir.Value]:
    """Rows of words, of places and of segments, their sum, and the sum normalised."""
    ids, segments, words, places, kinds, gamma, beta, _, at = (given(node, slot) for slot in range(9))
    total = parts.value("Gather", "words", words, ids, axis=0)
    total = parts.value("Add", "sum", total, rows_of_places(parts, ids, places, at))
    if segments is not None and kinds is not None:
        kind = parts.value("Gather", "segments", kinds, segments, axis=0)
        total = parts.value("Add", "total", total, kind)
    epsilon = number(node, "epsilon", NORM_EPSILON)
    out = parts.value("LayerNormalization", "norm", total, gamma, beta, axis=-1, epsilon=epsilon)
    return [out, total, total]  # nothing reads the second one


def rows_of_places(parts: Parts, ids: ir.Value | None, table: ir.Value | None, at: ir.Value | None) -> ir.Value:
    """The rows of the table of places: those that are told, or the first ones, as many as there are ids."""
    if at is not None:
        return parts.value("Gather", "places", table, at, axis=0)
    zero, one, two = (parts.constant(name, value) for name, value in (("zero", 0), ("one", 1), ("two", 2)))
    length = parts.value("Slice", "length", parts.value("Shape", "shape", ids), one, two)
    return parts.value("Slice", "places", table, zero, length, zero)


CHECKS: Mapping[tuple[str, str], Callable[[ir.Node], bool]] = {
    (MICROSOFT, "Attention"): is_plain_attention,
    (MICROSOFT, "EmbedLayerNormalization"): is_plain_embedding,
}
WRITERS: Mapping[str, Callable[[Parts, ir.Node], list[ir.Value]]] = {
    "Attention": write_attention,
    "EmbedLayerNormalization": write_embedding,
}
