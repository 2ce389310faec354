"""The operator table: one row says everything any step needs to know of an operator.

The rows stand with the rules they name, family by family. An operator without a row freezes every axis it touches, with
the reason that `unsupported` gives. No other package asks for an operator by name. Rows follow ONNX up to opset 26;
sources per operator: the ONNX operator specification.
"""

from collections.abc import Mapping
from dataclasses import replace

from mal_graph.graph import Node
from mal_graph.operators import (
    attention,
    bodies,
    classic,
    contractions,
    elementwise,
    generators,
    indexing,
    layout,
    lists,
    normalisation,
    ordering,
    pooling,
    quantised,
    recurrent,
    reductions,
)
from mal_graph.operators.row import Row
from mal_graph.operators.shaping import SHAPING

FAMILIES = (
    contractions,
    elementwise,
    normalisation,
    reductions,
    pooling,
    layout,
    lists,
    lists,
    indexing,
    ordering,
    generators,
    quantised,
    recurrent,
    attention,
    classic,
    bodies,
)

# Operators that blocks of layers are made of, by the opset from which on a node of them means the same in any.
SINCE: Mapping[str, int] = {
    **dict.fromkeys(["Conv", "ConvTranspose", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity"], 1),
    **dict.fromkeys(["MatMul", "Softplus", "Softsign", "Transpose"], 1),
    "Concat": 4,
    **dict.fromkeys(["Abs", "Elu", "Exp", "HardSigmoid", "LeakyRelu", "Log", "Neg", "Reciprocal", "Relu", "Selu"], 6),
    **dict.fromkeys(["Ceil", "Floor", "InstanceNormalization", "Sigmoid", "Sqrt", "Tanh", "Tile"], 6),
    **dict.fromkeys(["Add", "Div", "Mul", "PRelu", "Pow", "Sub"], 7),
    **dict.fromkeys(["Max", "Mean", "Min", "Sum"], 8),
    **dict.fromkeys(["Erf", "Where"], 9),
    **dict.fromkeys(["MaxPool", "Slice"], 10),
    **dict.fromkeys(["Clip", "DepthToSpace", "Gather", "Gemm"], 11),
    "Dropout": 12,
    **dict.fromkeys(["LogSoftmax", "ReduceSum", "Softmax", "Squeeze", "Unsqueeze"], 13),
    **dict.fromkeys(["BatchNormalization", "HardSwish", "Reshape"], 14),
    "LayerNormalization": 17,
    **dict.fromkeys(["Mish", "ReduceL2", "ReduceMax", "ReduceMean", "Split"], 18),
    "AveragePool": 19,
    "Gelu": 20,
    "GroupNormalization": 21,
    "RMSNormalization": 23,
}

ROWS: dict[str, Row] = {
    op: replace(row, since=SINCE.get(op), shaping=SHAPING.get(op, {}))
    for family in FAMILIES
    for op, row in family.ROWS.items()
}


def row_of(node: Node, table: Mapping[str, Row] | None = None) -> Row | None:
    """The row of a node's operator; None where nothing is known of it, or it holds graphs that are not looked into."""
    return None if node.has_graphs else (ROWS if table is None else table).get(node.op)


def unit_axis(node: Node, slot: int, rank: int) -> int:
    """The axis of a contraction's output that holds the units which its weight, of the given rank, produces."""
    row = ROWS[node.op]
    produces = row.slot(slot).produces
    return row.channel if produces is None else produces(node, rank)


def summed_axis(node: Node, slot: int, rank: int) -> int:
    """The axis that a contraction sums over, of an activation of the given rank in one of its inputs."""
    row = ROWS[node.op]
    if rank < 2:
        return 0
    axes = row.weight_axes(slot, node, rank)
    if axes is not None:
        return axes[1]
    return 0 if node.attribute("transA", 0) else row.channel % rank


def norm_epsilon(node: Node) -> float:
    """What a norm adds to the variance."""
    return float(node.attribute("epsilon", ROWS[node.op].epsilon))


def bias_slot(node: Node) -> int | None:
    """The input where a contraction takes an optional bias that the node does not have."""
    row = ROWS.get(node.op)
    if row is None or not row.is_contraction:
        return None
    slots = [i for i, slot in enumerate(row.slots) if slot.name == "bias" and slot.factor_of(node)]
    return next((i for i in slots if i >= len(node.inputs) or not node.inputs[i]), None)


def slot_named(node: Node, name: str) -> int | None:
    """The input of a node that its row calls `name`; None if the node is not given one."""
    row = ROWS.get(node.op)
    given = [slot for slot, tensor in enumerate(node.inputs) if tensor]
    return None if row is None else next((slot for slot in given if row.slot(slot).name == name), None)
