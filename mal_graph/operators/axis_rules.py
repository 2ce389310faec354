"""Axis rules: what an operator makes of the labels of its inputs (see `labels`).

A rule takes a `Call` and gives one label per output; on the way it ties axes that must move together and fixes those
that cannot move. The table in `ops` says which operator follows which rule.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mal_graph.graph import Array, Node
from mal_graph.operators.axis_labels import AxisLabel, GroupState, Label, Pin, Statistic, Wiring, fixed_label

KERNEL = Pin(GroupState.PINNED, "kernel taps")
WINDOW = Pin(GroupState.PINNED, "positions a window slides over")
MADE = Pin(GroupState.PINNED, "values made without any weight")


@dataclass(frozen=True)
class Call:
    """One node as its axis rule sees it: labels and shapes of the inputs, shapes of the outputs, known values."""

    node: Node
    wiring: Wiring
    inputs: Sequence[Label | None]  # None where an optional input is absent
    outputs: Sequence[tuple[int, ...]]  # shapes
    values: Sequence[Array | None]  # of inputs that are small integer tensors or stored constants
    opset: int = 26  # of the operator's domain

    @property
    def name(self) -> str:
        return self.node.title

    def label(self, slot: int) -> Label:
        label = self.inputs[slot]
        assert label is not None  # required inputs exist: the file was checked
        return label

    def given(self, slot: int) -> bool:
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def pieces(self, slot: int) -> list[AxisLabel]:
        return self.wiring.pieces(self.label(slot))

    def ints(self, slot: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that older opsets hold in an attribute and newer ones in an input; None if absent or unknown."""
        if self.given(slot):
            value = self.values[slot]
            return None if value is None else tuple(int(i) for i in value.ravel())
        found = self.node.attribute(attribute)
        return None if found is None else tuple(int(i) for i in np.atleast_1d(found))

    def text(self, attribute: str, default: str) -> str:
        found = self.node.attribute(attribute, default)
        return found.decode() if isinstance(found, bytes) else str(found)

    def reading(self, *slots: int) -> "Call":
        """The same call with these inputs only, in this order."""
        given = [slot if self.given(slot) else None for slot in slots]
        labels = [None if slot is None else self.inputs[slot] for slot in given]
        return replace(self, inputs=labels, values=[None if slot is None else self.values[slot] for slot in given])

    def freeze(self, reason: str, unknown_op: str = "") -> list[Label]:
        """Freeze every axis of every input and output."""
        fix = Pin(GroupState.FROZEN, reason, unknown_op)
        for label in self.inputs:
            if label is not None:
                self.wiring.fix_all(label, fix)
        return [fixed_label(shape, fix) for shape in self.outputs]


Rule = Callable[[Call], Sequence[Label]]


def elementwise(call: Call) -> list[Label]:
    """Broadcast; equal axes move together."""
    labels = [label for label in call.inputs if label is not None]
    return [call.wiring.combine(labels, shape) for shape in call.outputs]


def unary(call: Call) -> list[Label]:
    """Every output has the axes of the first input; the other inputs are settings."""
    return [call.wiring.combine([call.label(0)], shape) for shape in call.outputs]


def dropout(call: Call) -> list[Label]:
    """Passes its input on; in training it draws for every element."""
    training = call.ints(2, "") if call.given(2) else (0,)
    return unary(call) if training == (0,) else random(call)


def bit_cast(call: Call) -> list[Label]:
    """Elementwise as long as the elements keep their width."""
    if call.outputs[0] != call.label(0).shape:
        return call.freeze(f"{call.name} changes the width of its elements")
    return unary(call)


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


def gemm(call: Call) -> list[Label]:
    """As MatMul of two matrices, either of them transposed; a third input is added."""
    wiring = call.wiring
    a, b = call.pieces(0), call.pieces(1)
    rows, inner_a = reversed(a) if call.node.attribute("transA", 0) else a
    columns, inner_b = b if call.node.attribute("transB", 0) else reversed(b)
    wiring.contract(inner_a, inner_b)
    product = wiring.label_of(call.outputs[0], [rows, columns])
    shift = [call.label(2)] if call.given(2) else []
    return [wiring.combine([product, *shift], call.outputs[0])]


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
    for axis in range(len(out), len(letters)):
        joined = wiring.sum_away(joined, axis)
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
    before, dots, after = term.partition("...")
    places = range(rank - len(before) - len(after), 0, -1) if dots else ()
    return [*before, *(f"...{place}" for place in places), *after]


def lift(call: Call, label: Label, term: list[str], letters: Sequence[str]) -> Label:
    """An operand with one axis per letter of the whole equation. A diagonal cannot move: its letter is frozen."""
    wiring = call.wiring
    if len(set(term)) < len(term):
        diagonal = [axis for axis, letter in enumerate(term) if term.count(letter) > 1]
        pieces = held(call, label, diagonal, Pin(GroupState.FROZEN, f"{call.name} reads a diagonal"))
        first = [term.index(letter) for letter in dict.fromkeys(term)]
        label = wiring.label_of(tuple(label.shape[axis] for axis in first), [pieces[axis] for axis in first])
        term = [term[axis] for axis in first]
    sizes = dict(zip(term, label.shape, strict=True))
    label = wiring.transpose(label, sorted(range(len(term)), key=lambda axis: letters.index(term[axis])))
    return wiring.reshape(label, tuple(sizes.get(letter, 1) for letter in letters), call.name)


def conv(call: Call) -> list[Label]:
    """Input channels contract with weight axis 1; output channels are weight axis 0. Of a grouped convolution the
    groups move as wholes, and all of them read their inputs through the same weight axis 1."""
    wiring, groups = call.wiring, call.node.attribute("group", 1)
    x, w = call.pieces(0), call.pieces(1)
    pin_all(call, x[2:], WINDOW)
    pin_all(call, w[2:], KERNEL)
    inputs, outputs = in_groups(x[1], groups), in_groups(w[0], groups)
    wiring.tie(wiring.piece(inputs, 0), wiring.piece(outputs, 0))
    wiring.tie(wiring.piece(inputs, 1), w[1])
    wiring.read(x[1])
    return [spatial_output(call, x[0], w[0])]


def conv_transpose(call: Call) -> list[Label]:
    """As Conv, with the weight's first two axes exchanged: all groups write their outputs through weight axis 1."""
    wiring, groups = call.wiring, call.node.attribute("group", 1)
    x, w = call.pieces(0), call.pieces(1)
    per_group = call.label(1).shape[1]
    pin_all(call, x[2:], WINDOW)
    pin_all(call, w[2:], KERNEL)
    wiring.contract(x[1], w[0])
    outputs = wiring.label_of((groups, per_group), [wiring.piece(in_groups(x[1], groups), 0), w[1]])
    out = wiring.piece(wiring.reshape(outputs, (groups * per_group,), call.name), 0)
    return [spatial_output(call, x[0], out)]


def in_groups(piece: AxisLabel, groups: int) -> Label:
    """An axis cut into equal runs, as the label (runs, places in a run)."""
    if isinstance(piece, np.ndarray):
        return Label((groups, len(piece) // groups), (piece.reshape(groups, -1),))
    return Label((groups, 2), (), {0: piece, 1: piece} if piece else {})


def spatial_output(call: Call, batch: AxisLabel, out: AxisLabel) -> Label:
    """The label (N, C, positions...) of a convolution, its bias tied to the output channels."""
    shape = call.outputs[0]
    if call.given(2):
        out = call.wiring.tie(out, call.pieces(2)[0])
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
    places = [held(call, call.label(slot), range(1, len(shape)), WINDOW) for slot in (2, 4) if call.given(slot)]
    samples = [call.wiring.label_of(one, pieces) for pieces in places]
    return [call.wiring.combine([*out, *samples], shape)]


def quantize(call: Call) -> list[Label]:
    """Elementwise; scale and zero point move with the axis they are given along."""
    x = call.label(0)
    slots = [slot for slot in (1, 2) if call.given(slot) and not is_uniform(call, slot)]
    if call.node.attribute("block_size", 0) or any(len(call.label(slot).shape) > 1 for slot in slots):
        return call.freeze(f"{call.name} works on blocks of an axis")
    along = [vector_on(call, slot, call.node.attribute("axis", 1), len(x.shape)) for slot in slots]
    return [call.wiring.combine([x, *along], call.outputs[0])]


def is_uniform(call: Call, slot: int) -> bool:
    """Whether an input is known to hold one value only, so that its axes need not move with any other."""
    value = call.values[slot]
    return call.label(slot).shape == () or (value is not None and bool((value == value.flat[:1]).all()))


def vector_on(call: Call, slot: int, axis: int, rank: int) -> Label:
    """A vector, laid along one axis of a tensor of `rank`."""
    (size,) = call.label(slot).shape
    return call.wiring.reshape(call.label(slot), tuple(size if i == axis % rank else 1 for i in range(rank)), call.name)


def dynamic_quantize(call: Call) -> list[Label]:
    """Elementwise; one scale and zero point are found over all axes."""
    mark(call, call.label(0), range(len(call.label(0).shape)))
    return [*unary(replace(call, outputs=call.outputs[:1])), *[Label(shape) for shape in call.outputs[1:]]]


def matmul_integer(call: Call) -> list[Label]:
    """As MatMul; the left zero point stands for rows, the right one for columns."""
    return [scaled_product(call, matmul(call.reading(0, 1))[0], rows=(2,), columns=(3,))]


def qlinear_matmul(call: Call) -> list[Label]:
    """As MatMul; scales and zero points of left and result stand for rows, those of the right for columns."""
    return [scaled_product(call, matmul(call.reading(0, 3))[0], rows=(1, 2, 6, 7), columns=(4, 5))]


def scaled_product(call: Call, product: Label, rows: Collection[int], columns: Collection[int]) -> Label:
    found = [product]
    for slot in (*rows, *columns):
        if call.given(slot) and not is_uniform(call, slot):
            label = call.label(slot)
            is_vector_of_rows = slot in rows and len(label.shape) == 1
            found.append(call.wiring.reshape(label, (*label.shape, 1), call.name) if is_vector_of_rows else label)
    return call.wiring.combine(found, call.outputs[0])


def conv_integer(call: Call) -> list[Label]:
    """As Conv; the weight's zero point moves with the output channels."""
    return scaled_channels(call, conv(call.reading(0, 1)), (3,))


def qlinear_conv(call: Call) -> list[Label]:
    """As Conv; scales and zero points of weight and result move with the output channels."""
    return scaled_channels(call, conv(call.reading(0, 3, 8)), (4, 5, 6, 7))


def scaled_channels(call: Call, out: Sequence[Label], slots: Sequence[int]) -> list[Label]:
    shape = call.outputs[0]
    used = [slot for slot in slots if call.given(slot) and not is_uniform(call, slot)]
    return [call.wiring.combine([*out, *[vector_on(call, slot, 1, len(shape)) for slot in used]], shape)]


def pin_all(call: Call, pieces: Sequence[AxisLabel], fix: Pin) -> None:
    for piece in pieces:
        if isinstance(piece, np.ndarray):
            call.wiring.fix(piece, fix)


def held(call: Call, label: Label, axes: Collection[int], fix: Pin) -> list[AxisLabel]:
    """The pieces of a label, those of `axes` fixed."""
    pieces = call.wiring.pieces(label)
    chosen = {axis % len(pieces) for axis in axes}
    pin_all(call, [pieces[axis] for axis in chosen], fix)
    return [fix if axis in chosen else piece for axis, piece in enumerate(pieces)]


def all_but(call: Call, axes: Collection[int], fix: Pin) -> list[Label]:
    """Every output has the axes of the first input, with `axes` fixed; the other inputs are settings."""
    x = call.label(0)
    chosen = sorted({axis % len(x.shape) for axis in axes})
    pin_all(call, [call.wiring.piece(x, axis) for axis in chosen], fix)
    return [with_fixed(call, x, chosen, fix, shape) for shape in call.outputs]


def with_fixed(call: Call, label: Label, axes: Sequence[int], fix: Pin, shape: Sequence[int]) -> Label:
    """A label with some axes fixed, of the lengths they have in `shape`."""
    for axis in axes:
        label = call.wiring.with_piece(label, axis, fix, shape[axis])
    return label


def pool(call: Call) -> list[Label]:
    """Batch and channels pass; positions are fixed."""
    if any(call.node.outputs[1:]):
        return call.freeze(f"{call.name} gives indices into the whole tensor")
    return all_but(call, range(2, len(call.outputs[0])), WINDOW)


def channel_norm(call: Call) -> list[Label]:
    """Axis 1 moves with every per-channel vector; the other axes pass, also those that a statistic is taken over."""
    wiring, x = call.wiring, call.label(0)
    if call.node.attribute("training_mode", 0):
        mark(call, x, [axis for axis in range(len(x.shape)) if axis != 1])
    per_channel = [label for label in call.inputs[1:] if label is not None]
    vectors = [wiring.reshape(label, (*label.shape, *[1] * (len(x.shape) - 2)), call.name) for label in per_channel]
    out = wiring.combine([x, *vectors], call.outputs[0])
    of_channels = [wiring.label_of(shape, [wiring.piece(out, 1)] * len(shape)) for shape in call.outputs[1:]]
    return [out, *of_channels]


def group_norm(call: Call) -> list[Label]:
    """Groups of channels stay together, symmetric in the channels of each; scale and bias move with what they scale.

    Until opset 20 there is one scale and bias per group, later one per channel.
    """
    wiring, shape = call.wiring, call.outputs[0]
    groups = call.node.attribute("num_groups")
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    labels = [wiring.reshape(call.label(0), split, call.name)]
    for slot in (1, 2):
        vector = call.label(slot)
        places = (groups, vector.shape[0] // groups, *[1] * (len(shape) - 2))
        labels.append(wiring.reshape(vector, places, call.name))
    joined = wiring.combine(labels, split)
    mark(call, joined, range(2, len(split)))
    return [wiring.reshape(joined, shape, call.name)]


def instance_norm(call: Call) -> list[Label]:
    """As any norm over channels, with a statistic over the positions of each."""
    x = call.label(0)
    mark(call, x, range(2, len(x.shape)))
    return channel_norm(call)


def layer_norm(call: Call) -> list[Label]:
    """Symmetric in the normalised axes, each of which moves with its scale and bias."""
    rank = len(call.label(0).shape)
    return normalised(call, range(call.node.attribute("axis", -1) % rank, rank))


def skip_layer_norm(call: Call) -> list[Label]:
    """As LayerNormalization over the last axis, of a sum that is a fourth output."""
    return normalised(call, [len(call.label(0).shape) - 1])


def normalised(call: Call, axes: Collection[int]) -> list[Label]:
    """All inputs are joined by elements; outputs of statistics have length 1 along `axes`."""
    wiring = call.wiring
    out = wiring.combine([label for label in call.inputs if label is not None], call.outputs[0])
    mark(call, out, axes)
    pieces = wiring.pieces(out) if any(call.node.outputs[1:]) else []
    return [out, *[wiring.label_of(shape, pieces if shape else []) for shape in call.outputs[1:]]]


def softmax(call: Call) -> list[Label]:
    """Symmetric in its axis; before opset 13 in every axis from it on."""
    rank = len(call.label(0).shape)
    one = call.opset >= 13
    axis = call.node.attribute("axis", -1 if one else min(1, rank - 1)) % rank
    mark(call, call.label(0), [axis] if one else range(axis, rank))
    return unary(call)


def lp_norm(call: Call) -> list[Label]:
    """Symmetric in its axis."""
    mark(call, call.label(0), [call.node.attribute("axis", -1) % len(call.label(0).shape)])
    return unary(call)


def mean_variance_norm(call: Call) -> list[Label]:
    """Symmetric in the axes that mean and variance are taken over."""
    mark(call, call.label(0), [axis % len(call.label(0).shape) for axis in call.ints(1, "axes") or (0, 2, 3)])
    return unary(call)


def local_norm(call: Call) -> list[Label]:
    """A window slides over the channels; the other axes pass."""
    return all_but(call, [1], Pin(GroupState.FROZEN, f"{call.name} has a window over the channels"))


def first_of_equals(call: Call) -> list[Label]:
    """Where several are the largest the first one counts, so that their order matters."""
    return all_but(call, [call.node.attribute("axis", -1)], counting(call))


def counting(call: Call) -> Pin:
    return Pin(GroupState.FROZEN, f"{call.name} counts along the axis")


def top_k(call: Call) -> list[Label]:
    """Values and indices of the largest along one axis; the other axes pass."""
    return all_but(call, [call.node.attribute("axis", -1)], counting(call))


def arg_extreme(call: Call) -> list[Label]:
    """The index of the largest along one axis, which vanishes or stays with length 1."""
    axis = call.node.attribute("axis", 0) % len(call.label(0).shape)
    pin_all(call, [call.wiring.piece(call.label(0), axis)], counting(call))
    return [lacking(call, [axis])]


def cumulative(call: Call) -> list[Label]:
    """Every element depends on those before it along one axis; the other axes pass."""
    axes = call.ints(1, "axis")
    if axes is None:
        return call.freeze(f"{call.name} has an axis that is computed at run time")
    return all_but(call, axes, Pin(GroupState.FROZEN, f"{call.name} runs along the axis in order"))


def triangle(call: Call) -> list[Label]:
    """What is kept depends on the places along the last two axes; the others pass."""
    return all_but(call, [-2, -1], Pin(GroupState.FROZEN, f"{call.name} keeps a triangle"))


def determinant(call: Call) -> list[Label]:
    """The last two axes vanish; the others pass."""
    rank = len(call.label(0).shape)
    pin_all(call, call.pieces(0)[-2:], Pin(GroupState.FROZEN, f"{call.name} is signed by their order"))
    return [lacking(call, [rank - 2, rank - 1])]


def reverse_sequence(call: Call) -> list[Label]:
    """Each sample is turned round by a length of its own: batch and time are fixed, the other axes pass."""
    fix = Pin(GroupState.FROZEN, f"{call.name} turns the axis round")
    call.wiring.fix_all(call.label(1), fix)
    return all_but(call, [call.node.attribute("batch_axis", 1), call.node.attribute("time_axis", 0)], fix)


def fourier(call: Call) -> list[Label]:
    """The transformed axis and the pair of real and imaginary part are fixed; the other axes pass."""
    axes = call.ints(2, "axis")
    if call.given(2) and axes is None:
        return call.freeze(f"{call.name} has an axis that is computed at run time")
    axes = axes or (1, -2)  # the default of opset 17, and that of opset 20
    return all_but(call, [*axes, -1], Pin(GroupState.FROZEN, f"{call.name} transforms the axis"))


def short_fourier(call: Call) -> list[Label]:
    """A window slides over the signal; the batch passes."""
    if call.given(2):
        call.wiring.fix_all(call.label(2), WINDOW)
    batch = held(call, call.label(0), range(1, len(call.label(0).shape)), WINDOW)[0]
    return [call.wiring.label_of(shape, [batch, *[WINDOW] * (len(shape) - 1)]) for shape in call.outputs]


def mark(call: Call, label: Label, axes: Collection[int]) -> None:
    call.wiring.mark_statistic(label, axes, Statistic(call.node.op, call.node.name))


def reduce(call: Call) -> list[Label]:
    """Symmetric in the reduced axes, which vanish or stay with length 1."""
    label = call.label(0)
    axes = call.ints(1, "axes")
    if call.given(1) and axes is None:
        return call.freeze(f"{call.name} has axes that are computed at run time")
    if not axes:
        axes = () if call.node.attribute("noop_with_empty_axes", 0) else tuple(range(len(label.shape)))
    reduced = {axis % len(label.shape) for axis in axes}
    mark(call, label, sorted(reduced))
    return [lacking(call, reduced)]


def lacking(call: Call, axes: Collection[int]) -> Label:
    """The first input's axes without some, which are dropped or stay with length 1."""
    label = call.label(0)
    for axis in axes:
        label = call.wiring.without(label, axis)
    return call.wiring.reshape(label, call.outputs[0], call.name)


def reshape(call: Call) -> list[Label]:
    """Whatever the target, the probe measured the shape."""
    return [call.wiring.reshape(call.label(0), call.outputs[0], call.name)]


def transpose(call: Call) -> list[Label]:
    """numpy's transpose on the labels."""
    order = call.node.attribute("perm") or range(len(call.label(0).shape))[::-1]
    return [call.wiring.transpose(call.label(0), list(order))]


def concat(call: Call) -> list[Label]:
    """The inputs lie end to end along one axis; the other axes move together."""
    wiring, shape = call.wiring, call.outputs[0]
    axis = call.node.attribute("axis", 1) % len(shape)
    labels = [label for label in call.inputs if label is not None and label.shape[axis] > 0]
    ends = [wiring.piece(label, axis) for label in labels]
    sizes = [label.shape[axis] for label in labels]
    across = [wiring.without(label, axis) for label in labels]
    others = wiring.combine(across, (*shape[:axis], 1, *shape[axis + 1 :]))
    return [wiring.with_piece(others, axis, end_to_end(call, ends, sizes), shape[axis])]


def end_to_end(call: Call, pieces: Sequence[AxisLabel], sizes: Sequence[int]) -> AxisLabel:
    """Pieces laid end to end. What holds the same everywhere in one need not hold the same in the next."""
    if len(pieces) == 1:
        return pieces[0]
    named = [call.wiring.fresh(size) if piece is None else piece for piece, size in zip(pieces, sizes, strict=True)]
    for piece, atoms in zip(pieces, named, strict=True):
        if piece is None:
            call.wiring.read(atoms)
    return call.wiring.concat(named, sizes)


def split(call: Call) -> list[Label]:
    """Consecutive runs of one axis."""
    label = call.label(0)
    axis = call.node.attribute("axis", 0) % len(label.shape)
    ends = np.cumsum([0, *[shape[axis] for shape in call.outputs]])
    runs = [np.arange(a, b) for a, b in pairwise(ends)]
    return [call.wiring.take(label, axis, run, call.name) for run in runs]


def split_to_sequence(call: Call) -> list[Label]:
    """Consecutive runs of one axis, kept under the sequence's name until one is picked."""
    label, axis = call.label(0), call.node.attribute("axis", 0) % len(call.label(0).shape)
    lengths, size = call.ints(1, ""), label.shape[axis]
    if call.given(1) and lengths is None:
        return call.freeze(f"{call.name} has lengths that are computed at run time")
    if lengths is None or call.label(1).shape == ():
        length = 1 if lengths is None else lengths[0]
        lengths = tuple(min(length, size - start) for start in range(0, size, length))
    ends = np.cumsum([0, *lengths])
    parts = [call.wiring.take(label, axis, np.arange(a, b), call.name) for a, b in pairwise(ends)]
    if not call.given(1) and not call.node.attribute("keepdims", 1):
        parts = [call.wiring.reshape(part, (*part.shape[:axis], *part.shape[axis + 1 :]), call.name) for part in parts]
    call.wiring.sequences[call.node.outputs[0]] = parts
    return [Label(())]


def sequence_at(call: Call) -> list[Label]:
    """One part of a sequence that a split made."""
    parts, place = call.wiring.sequences.get(call.node.inputs[0]), call.ints(1, "")
    if parts is None or place is None or parts[place[0]].shape != call.outputs[0]:
        return call.freeze(f"{call.name} picks from a sequence that is made at run time")
    return [parts[place[0]]]


def slice_(call: Call) -> list[Label]:
    """numpy's slice on the labels, with constant bounds."""
    label = call.label(0)
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    axes, steps = call.ints(3, "axes"), call.ints(4, "steps")
    if starts is None or ends is None or (call.given(3) and axes is None) or (call.given(4) and steps is None):
        return call.freeze(f"{call.name} has bounds that are computed at run time")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = steps or (1,) * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = label.shape[axis]
        stop = None if step < 0 and end < -size else end
        taken = np.arange(size)[slice(start, stop, step)]
        if len(taken) < size or step < 0:
            label = call.wiring.take(label, axis % len(label.shape), taken, call.name)
    return [label]


def gather(call: Call) -> list[Label]:
    """Constant indices select; computed ones look up, and pin the axis they look into."""
    wiring, data, indices = call.wiring, call.label(0), call.label(1)
    axis = call.node.attribute("axis", 0) % len(data.shape)
    chosen, out = call.values[1], call.outputs[0]
    if chosen is not None:
        flat = chosen.ravel().astype(np.int64) % data.shape[axis]
        return [wiring.reshape(wiring.take(data, axis, flat, call.name), out, call.name)]
    pieces = wiring.pieces(data)
    pin_all(call, pieces[axis : axis + 1], Pin(GroupState.PINNED, f"entries that {call.name} looks up by index"))
    looked_up = wiring.pieces(indices)
    return [wiring.label_of(out, [*pieces[:axis], *looked_up, *pieces[axis + 1 :]])]


def gather_nd(call: Call) -> list[Label]:
    """The axes that the indices look into are pinned; those before them go with the indices', those behind stay."""
    wiring, data, indices = call.wiring, call.pieces(0), call.pieces(1)
    batch = call.node.attribute("batch_dims", 0)
    behind = batch + call.label(1).shape[-1]
    pin_all(call, data[batch:behind], Pin(GroupState.PINNED, f"entries that {call.name} looks up by index"))
    before = [wiring.tie(a, b) for a, b in zip(data[:batch], indices[:batch], strict=True)]
    return [wiring.label_of(call.outputs[0], [*before, *indices[batch:-1], *data[behind:]])]


def expand(call: Call) -> list[Label]:
    """Axes of length 1 are repeated, and hold the same everywhere."""
    return [call.wiring.combine([call.label(0)], call.outputs[0])]


def pad(call: Call) -> list[Label]:
    """Padded channels get fixed neighbours; what mirrors or repeats a channel axis freezes it."""
    wiring, label, out = call.wiring, call.label(0), call.outputs[0]
    rank = len(label.shape)
    widths, axes = call.ints(1, "pads"), call.ints(3, "axes")
    if widths is None:
        widths, axes = call.node.attribute("paddings"), None
    if widths is None or (call.given(3) and axes is None):
        return call.freeze(f"{call.name} has widths that are computed at run time")
    order = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    border = Pin(GroupState.FROZEN, f"{call.name} pads the axis")
    constant = call.node.attribute("mode", "constant") in ("constant", b"constant")
    pieces = wiring.pieces(label)
    for i, axis in enumerate(order):
        before, after = widths[i], widths[i + len(order)]
        if before == after == 0:
            continue
        piece = pieces[axis]
        if constant and min(before, after) >= 0:
            pieces[axis] = wiring.concat([border, piece, border], [before, label.shape[axis], after])
            continue
        if isinstance(piece, np.ndarray):
            wiring.fix(piece, border)
        pieces[axis] = border
    return [wiring.label_of(out, pieces)]


def resize(call: Call) -> list[Label]:
    """Axes that keep their length pass; resized ones are fixed."""
    if call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return call.freeze(f"{call.name} resizes a part of each axis")
    out = call.outputs[0]
    return all_but(call, [axis for axis, size in enumerate(call.label(0).shape) if out[axis] != size], WINDOW)


def tile(call: Call) -> list[Label]:
    """Copies end to end along each axis; an axis of length 1 holds the same everywhere."""
    label, repeats = call.label(0), call.ints(1, "repeats")
    if repeats is None:
        return call.freeze(f"{call.name} has repeats that are computed at run time")
    for axis, times in enumerate(repeats):
        if times != 1:
            laid = in_turn(copies(call, call.wiring.piece(label, axis), times), axis=0)
            label = call.wiring.with_piece(label, axis, laid, call.outputs[0][axis])
    return [label]


def copies(call: Call, piece: AxisLabel, times: int) -> list[AxisLabel]:
    """A piece several times over. Each copy has atoms of its own, tied to the first: what reads them may differ."""
    more = [call.wiring.fresh(len(piece)) if isinstance(piece, np.ndarray) else piece for _ in range(times - 1)]
    for other in more:
        call.wiring.tie(piece, other)
    return [piece, *more]


def in_turn(pieces: Sequence[AxisLabel], axis: int) -> AxisLabel:
    """Pieces of equal length as one: end to end (axis 0), or first all their first entries (axis 1)."""
    found = [piece for piece in pieces if isinstance(piece, np.ndarray)]
    return np.stack(found, axis).ravel() if found else pieces[0]


def depth_to_space(call: Call) -> list[Label]:
    """Each output channel is laid out from block * block input channels, which move as one; positions are fixed."""
    wiring, area = call.wiring, call.node.attribute("blocksize") ** 2
    batch, channels, *_ = held(call, call.label(0), (2, 3), WINDOW)
    if isinstance(channels, np.ndarray):
        by_place = channels.reshape(-1, area).T if call.text("mode", "DCR") == "CRD" else channels.reshape(area, -1)
        for place in by_place[1:]:
            wiring.tie(by_place[0], place)
        channels = by_place[0]
    return [wiring.label_of(call.outputs[0], [batch, channels, WINDOW, WINDOW])]


def space_to_depth(call: Call) -> list[Label]:
    """Each input channel is laid out as block * block output channels, which move as one; positions are fixed."""
    wiring, area = call.wiring, call.node.attribute("blocksize") ** 2
    batch, channels, *_ = held(call, call.label(0), (2, 3), WINDOW)
    channels = in_turn(copies(call, channels, area), axis=1 if call.text("mode", "DCR") == "CRD" else 0)
    # A single channel, or channels that are all alike, hold other positions in each place.
    return [wiring.label_of(call.outputs[0], [batch, WINDOW if channels is None else channels, WINDOW, WINDOW])]


def roi_pool(call: Call) -> list[Label]:
    """Channels pass; which sample and which positions are read is said by values."""
    for label in call.inputs[1:]:
        if label is not None:
            call.wiring.fix_all(label, WINDOW)
    return all_but(call, (0, 2, 3), WINDOW)


def grid_sample(call: Call) -> list[Label]:
    """Samples and channels pass; positions are fixed."""
    wiring, shape = call.wiring, call.outputs[0]
    batch, channels, *_ = held(call, call.label(0), range(2, len(shape)), WINDOW)
    grid = held(call, call.label(1), range(1, len(shape)), WINDOW)
    return [wiring.label_of(shape, [wiring.tie(batch, grid[0]), channels, *[WINDOW] * (len(shape) - 2)])]


def affine_grid(call: Call) -> list[Label]:
    """Samples pass; everything else is fixed."""
    batch = held(call, call.label(0), (1, 2), WINDOW)[0]
    return [call.wiring.label_of(shape, [batch, *[WINDOW] * (len(shape) - 1)]) for shape in call.outputs]


def one_hot(call: Call) -> list[Label]:
    """The axes of the indices pass; the new one is fixed."""
    fix, shape = Pin(GroupState.PINNED, f"classes that {call.name} counts off"), call.outputs[0]
    call.wiring.fix_all(call.label(2), fix)
    pieces = call.pieces(0)
    axis = call.node.attribute("axis", -1) % len(shape)
    return [call.wiring.label_of(shape, [*pieces[:axis], fix, *pieces[axis:]])]


def tensor_scatter(call: Call) -> list[Label]:
    """Samples and the axis written along are fixed; the other axes of cache and update move together."""
    wiring, axes = call.wiring, (0, call.node.attribute("axis", -2))
    fix = Pin(GroupState.FROZEN, f"{call.name} writes at places said by values")
    cache, update = (held(call, call.label(slot), axes, fix) for slot in (0, 1))
    if call.given(2):
        wiring.fix_all(call.label(2), fix)
    return [wiring.label_of(call.outputs[0], [wiring.tie(a, b) for a, b in zip(cache, update, strict=True)])]


def addressed(call: Call) -> list[Label]:
    """Indices name single elements: everything freezes."""
    return call.freeze(f"{call.name} finds elements by their place")


def chosen_by_value(call: Call) -> list[Label]:
    """What is kept, and how much, depends on values: everything freezes."""
    return call.freeze(f"{call.name} keeps what its values say")


def random(call: Call) -> list[Label]:
    """Draws for every element: everything freezes."""
    return call.freeze(f"{call.name} draws at random")


def loss(call: Call) -> list[Label]:
    """Compares classes with labels that are fixed: everything freezes."""
    return call.freeze(f"{call.name} reads classes by their number")


def made(call: Call) -> list[Label]:
    """Values made from sizes and settings: fixed, and nothing else is touched."""
    return [fixed_label(shape, MADE) for shape in call.outputs]


def shape_only(call: Call) -> list[Label]:
    """Reads a shape, never the values: nothing is touched."""
    return [fixed_label(shape, Pin(GroupState.PINNED, "a shape")) for shape in call.outputs]


def filled(call: Call) -> list[Label]:
    """Every element is the same."""
    return [Label(shape) for shape in call.outputs]
