"""Contractions: operators that sum over units with a weight, and start a layer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from mal_graph.graph import Node
from mal_graph.operators.axis_labels import AxisLabel, Label
from mal_graph.operators.call import WINDOW, Call, pin_axes, pin_each
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import (
    BIAS,
    SHIFT,
    SUMMED,
    AtZero,
    LayerRole,
    ParameterKind,
    Row,
    Shape,
    Slot,
    Spread,
    UnitAxis,
    WeightAxes,
    X,
)
from mal_graph.operators.sizes import Resized

KERNEL = Pin(GroupState.PINNED, "kernel taps")


def gemm(call: Call) -> list[Label]:
    """As MatMul of two matrices, either of them transposed; a third input is added."""
    wiring = call.wiring
    a, b = call.axis_labels(0), call.axis_labels(1)
    rows, inner_a = reversed(a) if call.node.attribute("transA", 0) else a
    columns, inner_b = b if call.node.attribute("transB", 0) else reversed(b)
    wiring.contract(inner_a, inner_b)
    product = wiring.label_of(call.outputs[0], [rows, columns])
    shift = [call.label(2)] if call.given(2) else []
    return [wiring.combine([product, *shift], call.outputs[0])]


def matmul(call: Call) -> list[Label]:
    """Contract the last axis of the left with the last but one of the right; batch axes broadcast."""
    wiring, out = call.wiring, call.outputs[0]
    left, right = call.label(0), call.label(1)
    rows, columns = len(left.shape) > 1, len(right.shape) > 1
    a = left if rows else wiring.reshape(left, (1, *left.shape), call.name)
    b = right if columns else wiring.reshape(right, (*right.shape, 1), call.name)
    a = wiring.reshape(a, (*a.shape, 1), call.name)  # (..., M, K, 1)
    b = wiring.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]), call.name)  # (..., 1, K, N)
    space = np.broadcast_shapes(a.shape, b.shape)
    joined = wiring.combine([a, b], space)
    return [wiring.reshape(wiring.sum_away(joined, len(space) - 2), out, call.name)]


def fused_matmul(call: Call) -> list[Label]:
    """As MatMul, with either side transposed: its last two axes, or the first moved behind the other batch axes."""
    labels = [
        call.wiring.transpose(label, fused_order(call.node, side, len(label.shape)))
        for side, label in zip("AB", (call.label(0), call.label(1)), strict=True)
    ]
    return matmul(replace(call, inputs=labels))


def fused_order(node: Node, side: str, rank: int) -> list[int]:
    """The order of axes in which a FusedMatMul reads side "A" or "B"."""
    order = list(range(rank))
    if rank > 1 and node.attribute(f"transBatch{side}", 0):
        order = [*order[1:-1], 0, order[-1]]
    if rank > 1 and node.attribute(f"trans{side}", 0):
        order[-2:] = order[-1], order[-2]
    return order


def einsum(call: Call) -> list[Label]:
    """One axis per letter: the same letter is the same axis, and a letter that the output lacks is summed over."""
    wiring = call.wiring
    labels = [label for label in call.inputs if label is not None]
    terms, out = einsum_letters(call.text("equation", ""), [len(label.shape) for label in labels])
    letters = list(dict.fromkeys([*out, *(letter for term in terms for letter in term)]))
    lifted = [lift(call, label, term, letters) for label, term in zip(labels, terms, strict=True)]
    joined = wiring.combine(lifted, np.broadcast_shapes(*(label.shape for label in lifted)))
    joined = wiring.sum_away(joined, *range(len(out), len(letters)))
    return [wiring.reshape(joined, call.outputs[0], call.name)]


def einsum_letters(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The axes of each operand and of the output by letter; those of an ellipsis are numbered from the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [einsum_term(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    dots = max(([letter for letter in term if "." in letter] for term in terms), key=len)
    if arrow:
        return terms, einsum_term(right, len(right.replace("...", "")) + len(dots))
    used = [letter for term in terms for letter in term if "." not in letter]
    return terms, [*dots, *sorted(letter for letter in used if used.count(letter) == 1)]


def einsum_term(term: str, rank: int) -> list[str]:
    """The axes of one operand by letter; those of an ellipsis are numbered from the right."""
    before, dots, after = term.partition("...")
    places = range(rank - len(before) - len(after), 0, -1) if dots else ()
    return [*before, *(f"...{place}" for place in places), *after]


def lift(call: Call, label: Label, term: list[str], letters: Sequence[str]) -> Label:
    """An operand with one axis per letter of the whole equation. A diagonal cannot move: its letter is frozen."""
    wiring = call.wiring
    if len(set(term)) < len(term):
        diagonal = [axis for axis, letter in enumerate(term) if term.count(letter) > 1]
        axis_labels = pin_axes(call, label, diagonal, Pin(GroupState.FROZEN, f"{call.name} reads a diagonal"))
        first = [term.index(letter) for letter in dict.fromkeys(term)]
        label = wiring.label_of(tuple(label.shape[axis] for axis in first), [axis_labels[axis] for axis in first])
        term = [term[axis] for axis in first]
    sizes = dict(zip(term, label.shape, strict=True))
    label = wiring.transpose(label, sorted(range(len(term)), key=lambda axis: letters.index(term[axis])))
    return wiring.reshape(label, tuple(sizes.get(letter, 1) for letter in letters), call.name)


def conv(call: Call) -> list[Label]:
    """Input channels contract with weight axis 1; output channels are weight axis 0. Of a grouped convolution the
    groups move as wholes, and all of them read their inputs through the same weight axis 1."""
    wiring, groups = call.wiring, call.node.attribute("group", 1)
    x, w = call.axis_labels(0), call.axis_labels(1)
    pin_each(call, x[2:], WINDOW)
    pin_each(call, w[2:], KERNEL)
    inputs, outputs = in_groups(x[1], groups), in_groups(w[0], groups)
    wiring.tie(wiring.axis_label(inputs, 0), wiring.axis_label(outputs, 0))
    wiring.tie(wiring.axis_label(inputs, 1), w[1])
    wiring.read(x[1])
    return [spatial_output(call, x[0], w[0])]


def conv_transpose(call: Call) -> list[Label]:
    """As Conv, with the weight's first two axes exchanged: all groups write their outputs through weight axis 1."""
    wiring, groups = call.wiring, call.node.attribute("group", 1)
    x, w = call.axis_labels(0), call.axis_labels(1)
    per_group = call.label(1).shape[1]
    pin_each(call, x[2:], WINDOW)
    pin_each(call, w[2:], KERNEL)
    wiring.contract(x[1], w[0])
    outputs = wiring.label_of((groups, per_group), [wiring.axis_label(in_groups(x[1], groups), 0), w[1]])
    out = wiring.axis_label(wiring.reshape(outputs, (groups * per_group,), call.name), 0)
    return [spatial_output(call, x[0], out)]


def in_groups(axis_label: AxisLabel, groups: int) -> Label:
    """An axis cut into equal runs, as the label (runs, places in a run)."""
    if isinstance(axis_label, np.ndarray):
        return Label((groups, len(axis_label) // groups), (axis_label.reshape(groups, -1),))
    return Label((groups, 2), (), {0: axis_label, 1: axis_label} if axis_label else {})


def spatial_output(call: Call, batch: AxisLabel, out: AxisLabel) -> Label:
    """The label (N, C, positions...) of a convolution, its bias tied to the output channels."""
    shape = call.outputs[0]
    if call.given(2):
        out = call.wiring.tie(out, call.axis_labels(2)[0])
    return call.wiring.label_of(shape, [batch, out, *[WINDOW] * (len(shape) - 2)])


def fused_conv(call: Call) -> list[Label]:
    """As Conv; a fourth input is added to the output."""
    out = conv(call.reading(0, 1, 2))
    return [call.wiring.combine([*out, call.label(3)], call.outputs[0])] if call.given(3) else out


def deform_conv(call: Call) -> list[Label]:
    """As Conv; what moves the sampling places is the same for all channels and belongs to its own sample."""
    if call.node.attribute("group", 1) != 1 or call.node.attribute("offset_group", 1) != 1:
        return call.freeze(f"{call.name} samples each group of channels at places of its own")
    out, shape = conv(call.reading(0, 1, 3)), call.outputs[0]
    one = (shape[0], *[1] * (len(shape) - 1))
    places = [pin_axes(call, call.label(slot), range(1, len(shape)), WINDOW) for slot in (2, 4) if call.given(slot)]
    samples = [call.wiring.label_of(one, axis_labels) for axis_labels in places]
    return [call.wiring.combine([*out, *samples], shape)]


def linear_axes(node: Node, rank: int) -> tuple[int, int]:
    """The axes of a Gemm's weight."""
    return (0, 1) if node.attribute("transB", 0) else (1, 0)


def conv_axes(node: Node, rank: int) -> tuple[int, int]:
    """The axes of a convolution's weight."""
    return (0, 1)


def fused_axes(side: str) -> WeightAxes:
    """The axes of a FusedMatMul's weight on side "A" or "B"."""

    def axes(node: Node, rank: int) -> tuple[int, int]:
        *_, row, column = fused_order(node, side, rank)
        return (row, column) if side == "A" else (column, row)

    return axes


def einsum_axes(operand: int) -> WeightAxes:
    """Of two operands, the first axis that the other lacks and the output has, and the first that is summed with it."""

    def axes(node: Node, rank: int) -> tuple[int, int] | None:
        terms = einsum_terms(node)
        if len(terms) != 2:
            return None
        other = set(terms[1 - operand])
        read, out = einsum_letters(node.attribute("equation", ""), einsum_ranks(terms, operand, rank))
        produces = [axis for axis, letter in enumerate(read[operand]) if letter in out and letter not in other]
        consumes = [axis for axis, letter in enumerate(read[operand]) if letter not in out and letter in other]
        produces = [axis for axis in produces if "." not in read[operand][axis]]
        return (produces[0], consumes[0]) if produces and consumes else None

    return axes


def einsum_unit_axis(operand: int) -> UnitAxis:
    """The axis of the output with the letter of the operand's first axis of `einsum_axes`, counted from the end."""

    def unit_axis(node: Node, rank: int) -> int:
        weight_axes = einsum_axes(operand)(node, rank)
        assert weight_axes is not None  # only weights produce units
        ranks = einsum_ranks(einsum_terms(node), operand, rank)
        read, out = einsum_letters(node.attribute("equation", ""), ranks)
        return out.index(read[operand][weight_axes[0]]) - len(out)

    return unit_axis


def einsum_terms(node: Node) -> list[str]:
    """The letters of each operand, as they are written."""
    return str(node.attribute("equation", "")).partition("->")[0].replace(" ", "").split(",")


def einsum_ranks(terms: Sequence[str], operand: int, rank: int) -> list[int]:
    """The rank of each operand, where one operand has `rank`."""
    return [rank if i == operand else len(term.replace("...", "")) for i, term in enumerate(terms)]


def row_axis(node: Node, rank: int) -> int:
    """The axis of a product that comes from the left operand."""
    return -2


def column_axis(node: Node, rank: int) -> int:
    """The axis of a product that comes from the right operand."""
    return -1


def conv_groups(call: Resized, held: list[int]) -> list[int]:
    """Groups of a convolution: the channels that come in, by those that one filter sees."""
    return [len(call.inputs[0][1]) // len(call.inputs[1][1])]


def transposed_conv_groups(call: Resized, held: list[int]) -> list[int]:
    """Groups of a transposed convolution: the channels it gives, by those of one group."""
    return [len(call.outputs[0][1]) // len(call.inputs[1][1])]


def linear_products(node: Node, inputs: Sequence[Shape], output: Shape) -> int:
    """Every entry of a matrix product sums over one row of the left operand."""
    return prod(output) * inputs[0][-2 if node.attribute("transA", 0) else -1]


def conv_products(node: Node, inputs: Sequence[Shape], output: Shape) -> int:
    """Every entry that a convolution gives sums over one filter."""
    return prod(output) * prod(inputs[1][1:])


def transposed_conv_products(node: Node, inputs: Sequence[Shape], output: Shape) -> int:
    """Every entry that comes in is multiplied with all that the filters hold for it."""
    return prod(inputs[0]) * prod(inputs[1][1:])


def einsum_products(node: Node, inputs: Sequence[Shape], output: Shape) -> int:
    """One for each combination of letters, as if all operands were multiplied at once."""
    terms, _ = einsum_letters(node.attribute("equation", ""), [len(shape) for shape in inputs])
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values())


def matrix_spread(node: Node, slot: int, rank: int) -> Spread:
    """A MatMul takes a matrix for each place on the axes before the last two."""
    produced, consumed = (rank - 2, rank - 1) if slot == 0 else (rank - 1, rank - 2)
    blocks = list(range(rank - 2))
    made = {**{axis: axis - rank for axis in blocks}, produced: -2 if slot == 0 else -1}
    return Spread(blocks, [produced], [consumed], made)


def fused_spread(node: Node, slot: int, rank: int) -> Spread:
    """As of a MatMul, of which each side is read with its axes in another order."""
    order, read = fused_order(node, "AB"[slot], rank), matrix_spread(node, slot, rank)
    blocks, produced, consumed = ([order[axis] for axis in axes] for axes in read[:3])
    return Spread(blocks, produced, consumed, {order[axis]: place for axis, place in read.made.items()})


def einsum_spread(node: Node, slot: int, rank: int) -> Spread | None:
    """Of an Einsum's weight, letters of the output alone are units produced, those of the other operand alone units
    consumed, and those of both may be blocks."""
    terms = einsum_terms(node)
    if len(terms) != 2 or "..." in terms[slot] or len(set(terms[slot])) < len(terms[slot]):
        return None
    out = str(node.attribute("equation", "")).replace(" ", "").partition("->")[2]
    roles: dict[tuple[bool, bool], list[int]] = {}
    for axis, letter in enumerate(terms[slot]):
        roles.setdefault((letter in out, letter in terms[1 - slot]), []).append(axis)
    if (False, False) in roles or not {(True, False), (False, True)} <= roles.keys():
        return None
    behind = out.rpartition("...")[2]
    made = {axis: behind.index(letter) - len(behind) for axis, letter in enumerate(terms[slot]) if letter in behind}
    return Spread(roles.get((True, True), []), roles[True, False], roles[False, True], made)


def weight_slot(axes: WeightAxes, produces: UnitAxis | None = None) -> Slot:
    """The input for a weight that is contracted."""
    return Slot("weight", ParameterKind.WEIGHT, axes=axes, produces=produces)


ROWS: Mapping[str, Row] = {
    "Gemm": Row(
        gemm,
        LayerRole.CONTRACTION,
        multiplications=linear_products,
        compensation=SUMMED,
        kind="linear",
        slots=(X, replace(weight_slot(linear_axes), factor="alpha"), replace(BIAS, factor="beta")),
        channel=-1,
    ),
    "MatMul": Row(
        matmul,
        LayerRole.CONTRACTION,
        multiplications=linear_products,
        spread=matrix_spread,
        compensation=SUMMED,
        kind="linear",
        slots=(
            weight_slot(lambda node, rank: (rank - 2, rank - 1), row_axis),
            weight_slot(lambda node, rank: (rank - 1, rank - 2), column_axis),
        ),
    ),
    "Einsum": Row(
        einsum,
        LayerRole.CONTRACTION,
        multiplications=einsum_products,
        spread=einsum_spread,
        compensation=SUMMED,
        kind="linear",
        slots=(weight_slot(einsum_axes(0), einsum_unit_axis(0)), weight_slot(einsum_axes(1), einsum_unit_axis(1))),
    ),
    "com.microsoft.FusedMatMul": Row(
        fused_matmul,
        LayerRole.CONTRACTION,
        multiplications=linear_products,
        spread=fused_spread,
        compensation=SUMMED,
        kind="linear",
        slots=(
            replace(weight_slot(fused_axes("A"), row_axis), factor="alpha"),
            replace(weight_slot(fused_axes("B"), column_axis), factor="alpha"),
        ),
    ),
    "com.microsoft.FusedGemm": Row(
        gemm,
        LayerRole.CONTRACTION,
        multiplications=linear_products,
        compensation=SUMMED,
        kind="fused_linear",
        slots=(X, replace(weight_slot(linear_axes), factor="alpha"), replace(BIAS, factor="beta")),
        channel=-1,
        at_zero=AtZero.FINITE,
    ),
    "Conv": Row(
        conv,
        LayerRole.CONTRACTION,
        multiplications=conv_products,
        compensation=SUMMED,
        kind="conv",
        has_window=True,
        pointwise="linear",
        slots=(X, weight_slot(conv_axes), BIAS),
        size_constants={"group": conv_groups},
        block_counts=("group",),
    ),
    "com.microsoft.FusedConv": Row(
        fused_conv,
        LayerRole.CONTRACTION,
        multiplications=conv_products,
        compensation=SUMMED,
        kind="fused_conv",
        has_window=True,
        pointwise="fused_linear",
        slots=(X, weight_slot(conv_axes), BIAS, SHIFT),
        size_constants={"group": conv_groups},
        block_counts=("group",),
        at_zero=AtZero.FINITE,
    ),
    "DeformConv": Row(
        deform_conv,
        LayerRole.CONTRACTION,
        multiplications=conv_products,
        compensation=SUMMED,
        kind="deform_conv",
        slots=(X, weight_slot(conv_axes), X, BIAS, X),
        size_constants={"group": conv_groups},
        block_counts=("group",),
    ),
    "ConvTranspose": Row(
        conv_transpose,
        LayerRole.CONTRACTION,
        multiplications=transposed_conv_products,
        compensation=SUMMED,
        kind="conv_transpose",
        has_window=True,
        pointwise="linear",
        slots=(X, weight_slot(lambda node, rank: (1, 0)), BIAS),
        size_constants={"group": transposed_conv_groups},
        block_counts=("group",),
    ),
}
