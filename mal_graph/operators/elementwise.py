"""Elementwise operators, activations, casts and dropout: every element by itself."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mal_graph.graph import Node
from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call
from mal_graph.operators.control_flow import GIVEN_TYPES, MAP_RUN
from mal_graph.operators.generators import random
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import SCALE, SHIFT, AtZero, Homogeneity, ParameterKind, Row, Slot, X, setting


def elementwise(call: Call) -> list[Label]:
    """Broadcast; equal axes move together."""
    labels = [label for label in call.inputs if label is not None]
    return [call.wiring.combine(labels, shape) for shape in call.outputs]


def equal(call: Call) -> list[Label]:
    """Elementwise; what compares places of units with the number of each has these units on an axis of its own."""
    slot = next((slot for slot in (0, 1) if call.places(slot) is not None), None)
    if slot is None:
        return elementwise(call)
    places, numbers, shape = call.places(slot), call.values[1 - slot], call.outputs[0]
    assert places is not None  # it was asked for
    if numbers is None:
        call.wiring.pin(places, Pin(GroupState.FROZEN, f"{call.name} compares their places with what is computed"))
        return elementwise(call)
    label = call.wiring.combine([call.label(slot)], shape)
    long = [axis for axis, size in enumerate(numbers.shape) if size > 1]
    is_alone = len(long) == 1 and np.array_equal(numbers.ravel(), np.arange(len(places)))
    axis = len(shape) - numbers.ndim + long[0] if is_alone else 0
    if is_alone and label.part_on(axis) is None and axis not in label.pins:
        return [call.wiring.with_axis_label(label, axis, places, shape[axis])]
    call.wiring.pin(places, Pin(GroupState.PINNED, f"{call.name} compares their places with numbers"))
    return elementwise(call)


def unary(call: Call) -> list[Label]:
    """Every output has the axes of the first input, or is the same list; the other inputs are settings."""
    if call.label(0).elements is not None:
        return [call.label(0)]
    return [call.wiring.combine([call.label(0)], shape) for shape in call.outputs]


def dropout(call: Call) -> list[Label]:
    """Passes its input on; in training it draws for every element."""
    training = call.ints(2, "") if call.given(2) else (0,)
    return unary(call) if training == (0,) else random(call)


POSITIVE = replace(X, kind=ParameterKind.SCALE)  # what holds a number below zero would make no number of

FLOAT_TYPES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}  # in ONNX's numbering
TYPE_KEYS = {  # the attributes that say which type of numbers an operator gives
    "Cast": "to",
    "SequenceEmpty": "dtype",
    MAP_RUN: GIVEN_TYPES,
    **dict.fromkeys(["EyeLike", "Bernoulli", "RandomNormal", "RandomNormalLike"], "dtype"),
    **dict.fromkeys(["RandomUniform", "RandomUniformLike"], "dtype"),
}
VALUE_KEYS = {"ConstantOfShape": "value"}  # the attributes that hold numbers of what an operator gives


def bit_cast(call: Call) -> list[Label]:
    """Elementwise as long as the elements keep their width."""
    if call.outputs[0] != call.label(0).shape:
        return call.freeze(f"{call.name} changes the width of its elements")
    return unary(call)


def cast_to_float32(node: Node) -> Node:
    """The node, with another float type that it is to give made float32."""
    key = VALUE_KEYS.get(node.op, "")
    filled = node.attribute(key)
    if filled is not None:
        values = np.asarray(filled)
        is_other = values.dtype.name in FLOAT_TYPES.values()
        return replace(node, attributes={**node.attributes, key: values.astype(np.float32)}) if is_other else node
    key = TYPE_KEYS.get(node.op, "")
    told = node.attribute(key)
    if told is None:
        return node
    kinds = [1 if kind in FLOAT_TYPES else kind for kind in np.ravel(told).tolist()]
    return replace(node, attributes={**node.attributes, key: kinds if np.ndim(told) else kinds[0]})


def cast_number(dtype: np.dtype[np.generic]) -> int:
    """What a Cast to a float type is told."""
    return next(number for number, name in FLOAT_TYPES.items() if name == dtype.name)


def cast_type(node: Node) -> str:
    """The float type that a node casts to; "" for any other node."""
    return FLOAT_TYPES.get(node.attribute("to"), "") if node.op == "Cast" else ""


def pointwise_row(
    *slots: Slot,
    at_zero: AtZero = AtZero.ZERO,
    adds: bool = False,
    commutes: bool = False,
    homogeneity: Homogeneity = Homogeneity.NONE,
) -> Row:
    """The row of an operator that takes several operands element by element."""
    return Row(
        elementwise,
        keeps_axes=True,
        by_element=True,
        slots=slots,
        at_zero=at_zero,
        adds=adds,
        commutes=commutes,
        homogeneity=homogeneity,
    )


def activation_row(
    at_zero: AtZero = AtZero.ZERO,
    *,
    x: Slot = X,
    is_idempotent: bool = False,
    homogeneity: Homogeneity = Homogeneity.NONE,
) -> Row:
    """The row of an operator that maps every element by itself."""
    return Row(
        unary,
        keeps_axes=True,
        by_element=True,
        slots=(x, setting("bound")),
        at_zero=at_zero,
        is_idempotent=is_idempotent,
        homogeneity=homogeneity,
    )


ROWS: Mapping[str, Row] = {
    **dict.fromkeys(["Add", "Sum"], pointwise_row(SHIFT, adds=True, commutes=True, homogeneity=Homogeneity.ALL)),
    **dict.fromkeys(
        ["Sub", "Mean"], pointwise_row(Slot("term", ParameterKind.SHIFT), adds=True, homogeneity=Homogeneity.ALL)
    ),
    **dict.fromkeys(
        ["Max", "Min"], pointwise_row(SHIFT, at_zero=AtZero.FINITE, commutes=True, homogeneity=Homogeneity.ALL)
    ),
    "Mul": pointwise_row(SCALE, commutes=True, homogeneity=Homogeneity.ONE),
    "Div": replace(pointwise_row(SCALE, at_zero=AtZero.UNSAFE, homogeneity=Homogeneity.ONE), divides=True),
    "PRelu": pointwise_row(X, Slot("slope", ParameterKind.SCALE), homogeneity=Homogeneity.ONE),
    "Pow": pointwise_row(POSITIVE, Slot("exponent", ParameterKind.SCALE), at_zero=AtZero.FINITE),
    "SwiGLU": pointwise_row(X, SCALE),
    **dict.fromkeys(["com.microsoft.BiasGelu", "com.microsoft.FastGelu"], pointwise_row(X, SHIFT)),
    **dict.fromkeys(["BitwiseAnd", "BitwiseOr", "BitwiseXor"], pointwise_row(X, commutes=True)),
    **dict.fromkeys(["Mod", "BitShift"], pointwise_row(X, at_zero=AtZero.UNSAFE)),
    **dict.fromkeys(
        ["Where", "And", "Or", "Xor"],
        replace(pointwise_row(X, at_zero=AtZero.FINITE), selects=True),
    ),
    "Equal": replace(pointwise_row(replace(X, reads_places=True), at_zero=AtZero.FINITE), rule=equal, compares=True),
    **dict.fromkeys(
        ["Less", "LessOrEqual", "Greater", "GreaterOrEqual"],
        replace(pointwise_row(X, at_zero=AtZero.FINITE), compares=True),
    ),
    **dict.fromkeys(
        [
            "Elu",
            "Selu",
            "Celu",
            "Gelu",
            "Mish",
            "HardSwish",
            "Swish",
            "Shrink",
            "Softsign",
            "Tanh",
            "Erf",
            "Asin",
            "Atan",
            "Sinh",
            "Asinh",
            "Atanh",
            "Tan",
            "Sign",
            "Floor",
            "Ceil",
            "Round",
            "com.microsoft.Gelu",
            "com.microsoft.QuickGelu",
        ],
        activation_row(),
    ),
    **dict.fromkeys(["IsNaN", "IsInf"], replace(activation_row(), compares=True)),
    **dict.fromkeys(
        ["HardSigmoid", "Exp", "Cosh", "Acos", "Softplus", "Not", "BitwiseNot"], activation_row(AtZero.FINITE)
    ),
    "Sin": replace(activation_row(), reads_angles=True),
    "Cos": replace(activation_row(AtZero.FINITE), reads_angles=True),
    **dict.fromkeys(["LeakyRelu", "Neg"], activation_row(homogeneity=Homogeneity.ONE)),
    **dict.fromkeys(["Relu", "Abs"], activation_row(is_idempotent=True, homogeneity=Homogeneity.ONE)),
    "ThresholdedRelu": activation_row(is_idempotent=True),
    "Clip": replace(activation_row(AtZero.FINITE, is_idempotent=True), slots=(X, setting("min"), setting("max"))),
    "Sigmoid": replace(activation_row(AtZero.FINITE), squashes=True, is_probability=True),
    "Sqrt": activation_row(x=POSITIVE),
    **dict.fromkeys(["Log", "Reciprocal"], activation_row(AtZero.UNSAFE, x=POSITIVE)),
    "Acosh": activation_row(AtZero.UNSAFE),
    **dict.fromkeys(
        ["Identity", "Cast"], Row(unary, moves=True, keeps_axes=True, by_element=True, homogeneity=Homogeneity.ONE)
    ),
    "CastLike": Row(unary, moves=True, keeps_axes=True, slots=(X, setting("type")), homogeneity=Homogeneity.ONE),
    "BitCast": Row(bit_cast),
    "Dropout": Row(
        dropout,
        moves=True,
        keeps_axes=True,
        slots=(X, setting("ratio"), setting("training")),
        homogeneity=Homogeneity.ONE,
    ),
}
