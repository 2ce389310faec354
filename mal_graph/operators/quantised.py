"""Integer arithmetic: the weights are data of fixed order, scales may be parameters."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call, Rule, mark_statistic
from mal_graph.operators.contractions import conv, matmul
from mal_graph.operators.elementwise import unary
from mal_graph.operators.row import SCALE, AtZero, LayerRole, ParameterKind, Row, Slot, X

ZERO_POINT = Slot("zero point", ParameterKind.SHIFT)


def quantize(call: Call) -> list[Label]:
    """Elementwise; scale and zero point move with the axis they are given along."""
    x = call.label(0)
    slots = [slot for slot in (1, 2) if call.given(slot) and not is_uniform(call, slot)]
    if call.node.attribute("block_size", 0) or any(len(call.label(slot).shape) > 1 for slot in slots):
        return call.freeze(f"{call.name} works on blocks of an axis")
    along = [lay_along(call, slot, call.node.attribute("axis", 1), len(x.shape)) for slot in slots]
    return [call.wiring.combine([x, *along], call.outputs[0])]


def is_uniform(call: Call, slot: int) -> bool:
    """Whether an input is known to hold one value only, so that its axes need not move with any other."""
    value = call.values[slot]
    return call.label(slot).shape == () or (value is not None and bool((value == value.flat[:1]).all()))


def lay_along(call: Call, slot: int, axis: int, rank: int) -> Label:
    """A vector, laid along one axis of a tensor of `rank`."""
    (size,) = call.label(slot).shape
    return call.wiring.reshape(call.label(slot), tuple(size if i == axis % rank else 1 for i in range(rank)), call.name)


def dynamic_quantize(call: Call) -> list[Label]:
    """Elementwise; one scale and zero point serve all axes."""
    mark_statistic(call, call.label(0), range(len(call.label(0).shape)))
    return [*unary(replace(call, outputs=call.outputs[:1])), *[Label(shape) for shape in call.outputs[1:]]]


def matmul_integer(call: Call) -> list[Label]:
    """As MatMul; the left zero point stands for rows, the right one for columns."""
    return [scaled_product(call, matmul(call.reading(0, 1))[0], rows=(2,), columns=(3,))]


def qlinear_matmul(call: Call) -> list[Label]:
    """As MatMul; scales and zero points of left and result stand for rows, those of the right for columns."""
    return [scaled_product(call, matmul(call.reading(0, 3))[0], rows=(1, 2, 6, 7), columns=(4, 5))]


def scaled_product(call: Call, product: Label, rows: Collection[int], columns: Collection[int]) -> Label:
    """A product with the scales and zero points that stand for its rows and columns."""
    factors = [product]
    for slot in (*rows, *columns):
        if call.given(slot) and not is_uniform(call, slot):
            label = call.label(slot)
            is_vector_of_rows = slot in rows and len(label.shape) == 1
            factors.append(call.wiring.reshape(label, (*label.shape, 1), call.name) if is_vector_of_rows else label)
    return call.wiring.combine(factors, call.outputs[0])


def conv_integer(call: Call) -> list[Label]:
    """As Conv; the weight's zero point moves with the output channels."""
    return scaled_channels(call, conv(call.reading(0, 1)), (3,))


def qlinear_conv(call: Call) -> list[Label]:
    """As Conv; scales and zero points of weight and result move with the output channels."""
    return scaled_channels(call, conv(call.reading(0, 3, 8)), (4, 5, 6, 7))


def scaled_channels(call: Call, out: Sequence[Label], slots: Sequence[int]) -> list[Label]:
    """The label of a convolution, tied to the vectors in some inputs that stand for its output channels."""
    shape = call.outputs[0]
    used = [slot for slot in slots if call.given(slot) and not is_uniform(call, slot)]
    return [call.wiring.combine([*out, *[lay_along(call, slot, 1, len(shape)) for slot in used]], shape)]


QLINEAR = (X, SCALE, ZERO_POINT, X, SCALE, ZERO_POINT, Slot("divisor", ParameterKind.VARIANCE), ZERO_POINT)


def integer_row(rule: Rule, kind: str, *slots: Slot) -> Row:
    """The row of an operator that contracts integers."""
    return Row(rule, LayerRole.ALONE, kind=kind, slots=slots, at_zero=AtZero.FINITE, reads_integers=True)


ROWS: Mapping[str, Row] = {
    "QuantizeLinear": Row(
        quantize, slots=(X, Slot("divisor", ParameterKind.VARIANCE), ZERO_POINT), at_zero=AtZero.FINITE, quantises=True
    ),
    "DequantizeLinear": Row(
        quantize, slots=(X, SCALE, ZERO_POINT), at_zero=AtZero.FINITE, reads_integers=True, quantises=True
    ),
    "DynamicQuantizeLinear": Row(dynamic_quantize, at_zero=AtZero.FINITE),
    "MatMulInteger": integer_row(matmul_integer, "linear_integer", X, X, ZERO_POINT),
    "ConvInteger": integer_row(conv_integer, "conv_integer", X, X, ZERO_POINT),
    "QLinearMatMul": integer_row(qlinear_matmul, "linear_integer", *QLINEAR),
    "QLinearConv": integer_row(qlinear_conv, "conv_integer", *QLINEAR, X),
}
