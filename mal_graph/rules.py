"""Axis rules: what an operator makes of the labels of its inputs (see `labels`).

A rule takes a `Call` and gives one label per output; on the way it ties axes that must move together and fixes those
that cannot move. The table in `ops` says which operator follows which rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mal_graph.graph import Array, Node
from mal_graph.labels import Fix, Label, Piece, Wiring, fixed_label

KERNEL = Fix("pinned", "kernel taps")
WINDOW = Fix("pinned", "positions a window slides over")


@dataclass(frozen=True)
class Call:
    """One node as its axis rule sees it: labels and shapes of the inputs, shapes of the outputs, known values."""

    node: Node
    wiring: Wiring
    inputs: Sequence[Label | None]  # None where an optional input is absent
    outputs: Sequence[tuple[int, ...]]  # shapes
    values: Sequence[Array | None]  # of inputs that are small integer tensors or stored constants

    @property
    def name(self) -> str:
        return f"{self.node.op} {self.node.name!r}"

    def label(self, slot: int) -> Label:
        label = self.inputs[slot]
        assert label is not None  # required inputs exist: the file was checked
        return label

    def given(self, slot: int) -> bool:
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def pieces(self, slot: int) -> list[Piece]:
        return self.wiring.pieces(self.label(slot), self.name)

    def ints(self, slot: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that older opsets hold in an attribute and newer ones in an input; None if absent or unknown."""
        if self.given(slot):
            value = self.values[slot]
            return None if value is None else tuple(int(i) for i in value.ravel())
        found = self.node.attribute(attribute)
        return None if found is None else tuple(int(i) for i in np.atleast_1d(found))

    def freeze(self, reason: str) -> list[Label]:
        """Freeze every axis of every input and output."""
        fix = Fix("frozen", reason)
        for label in self.inputs:
            if label is not None:
                self.wiring.fix_all(label, fix)
        return [fixed_label(shape, fix) for shape in self.outputs]


Rule = Callable[[Call], Sequence[Label]]


def elementwise(call: Call) -> list[Label]:
    """Broadcast; equal axes move together."""
    labels = [label for label in call.inputs if label is not None]
    return [call.wiring.combine(labels, shape, call.name) for shape in call.outputs]


def unary(call: Call) -> list[Label]:
    """Every output has the axes of the first input; the other inputs are settings."""
    return [call.wiring.combine([call.label(0)], shape, call.name) for shape in call.outputs]


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
    joined = wiring.combine([a, b], space, call.name)
    pieces = wiring.pieces(joined, call.name)
    wiring.read(pieces.pop(-2))  # the contracted axis vanishes
    label = wiring.label_of((*space[:-2], space[-1]), pieces)
    return [wiring.reshape(label, out, call.name) if label.shape != out else label]


def gemm(call: Call) -> list[Label]:
    wiring = call.wiring
    a, b = call.pieces(0), call.pieces(1)
    rows, inner_a = reversed(a) if call.node.attribute("transA", 0) else a
    columns, inner_b = b if call.node.attribute("transB", 0) else reversed(b)
    wiring.contract(inner_a, inner_b)
    product = wiring.label_of(call.outputs[0], [rows, columns])
    shift = [call.label(2)] if call.given(2) else []
    return [wiring.combine([product, *shift], call.outputs[0], call.name)]


def conv(call: Call) -> list[Label]:
    """Input channels contract with weight axis 1; output channels are weight axis 0. Depthwise: one unit each."""
    wiring, groups = call.wiring, call.node.attribute("group", 1)
    x, w = call.pieces(0), call.pieces(1)
    channels, weight = call.label(0).shape[1], call.label(1).shape
    pin_all(call, x[2:], WINDOW)
    pin_all(call, w[2:], KERNEL)
    if groups == 1:
        wiring.contract(x[1], w[1])
        out = w[0]
    elif groups == channels and weight[1] == 1:
        out = wiring.tie(repeated(x[1], weight[0] // channels), w[0])
    else:
        return call.freeze(f"{call.name} is a grouped convolution (group={groups}), which has no axis rule yet")
    return [spatial_output(call, x[0], out)]


def conv_transpose(call: Call) -> list[Label]:
    """As Conv, with the weight's first two axes exchanged."""
    wiring, groups = call.wiring, call.node.attribute("group", 1)
    x, w = call.pieces(0), call.pieces(1)
    channels, weight = call.label(0).shape[1], call.label(1).shape
    pin_all(call, x[2:], WINDOW)
    pin_all(call, w[2:], KERNEL)
    if groups == 1:
        wiring.contract(x[1], w[0])
        out = w[1]
    elif groups == channels:
        wiring.tie(x[1], w[0])
        pin_all(call, w[1:2], Fix("pinned", "filters of one depthwise channel"))
        out = repeated(x[1], weight[1])
    else:
        return call.freeze(f"{call.name} is a grouped convolution (group={groups}), which has no axis rule yet")
    return [spatial_output(call, x[0], out)]


def spatial_output(call: Call, batch: Piece, out: Piece) -> Label:
    """The label (N, C, positions...) of a convolution, its bias tied to the output channels."""
    shape = call.outputs[0]
    if call.given(2):
        out = call.wiring.tie(out, call.pieces(2)[0])
    return call.wiring.label_of(shape, [batch, out, *[WINDOW] * (len(shape) - 2)])


def pin_all(call: Call, pieces: Sequence[Piece], fix: Fix) -> None:
    for piece in pieces:
        if isinstance(piece, np.ndarray):
            call.wiring.fix(piece, fix)


def repeated(piece: Piece, times: int) -> Piece:
    return np.repeat(piece, times) if isinstance(piece, np.ndarray) else piece


def pool(call: Call) -> list[Label]:
    """Batch and channels pass; positions are fixed."""
    if any(call.node.outputs[1:]):
        return call.freeze(f"{call.name} gives indices into the whole tensor")
    x = call.pieces(0)
    pin_all(call, x[2:], WINDOW)
    return [call.wiring.label_of(shape, [*x[:2], *[WINDOW] * (len(shape) - 2)]) for shape in call.outputs]


def channel_norm(call: Call) -> list[Label]:
    """Axis 1 moves with every per-channel vector; the other axes pass."""
    wiring, x = call.wiring, call.label(0)
    per_channel = [label for label in call.inputs[1:] if label is not None]
    vectors = [wiring.reshape(label, (*label.shape, *[1] * (len(x.shape) - 2)), call.name) for label in per_channel]
    outputs = [wiring.combine([x, *vectors], call.outputs[0], call.name)]
    return [*outputs, *[fixed_label(shape, WINDOW) for shape in call.outputs[1:]]]


def layer_norm(call: Call) -> list[Label]:
    """Symmetric in the normalised axes, each of which moves with its scale and bias."""
    rank = len(call.label(0).shape)
    out = call.wiring.combine([label for label in call.inputs if label is not None], call.outputs[0], call.name)
    mark(call, out, range(call.node.attribute("axis", -1) % rank, rank))
    return [out, *[fixed_label(shape, WINDOW) for shape in call.outputs[1:]]]


def softmax(call: Call) -> list[Label]:
    """Symmetric in its axis; before opset 13 in every axis from it on."""
    rank = len(call.label(0).shape)
    mark(call, call.label(0), range(call.node.attribute("axis", 1 if rank > 1 else 0) % rank, rank))
    return unary(call)


def mark(call: Call, label: Label, axes: Sequence[int]) -> None:
    for axis in axes:
        call.wiring.mark_statistic(call.wiring.piece(label, axis, call.name), call.name)


def reduce(call: Call) -> list[Label]:
    """Symmetric in the reduced axes, which vanish or stay with length 1."""
    label, out = call.label(0), call.outputs[0]
    axes = call.ints(1, "axes")
    if call.given(1) and axes is None:
        return call.freeze(f"{call.name} has axes that are computed at run time")
    if not axes:
        axes = () if call.node.attribute("noop_with_empty_axes", 0) else tuple(range(len(label.shape)))
    reduced = {axis % len(label.shape) for axis in axes}
    mark(call, label, sorted(reduced))
    pieces = call.pieces(0)
    kept = tuple(1 if axis in reduced else size for axis, size in enumerate(label.shape))
    squeezed = call.wiring.label_of(kept, [None if axis in reduced else p for axis, p in enumerate(pieces)])
    return [call.wiring.reshape(squeezed, out, call.name)]


def reshape(call: Call) -> list[Label]:
    """Whatever the target, the probe measured the shape."""
    return [call.wiring.reshape(call.label(0), call.outputs[0], call.name)]


def transpose(call: Call) -> list[Label]:
    order = call.node.attribute("perm") or range(len(call.label(0).shape))[::-1]
    return [call.wiring.transpose(call.label(0), list(order))]


def concat(call: Call) -> list[Label]:
    """The inputs lie end to end along one axis; the other axes move together."""
    wiring, shape = call.wiring, call.outputs[0]
    axis = call.node.attribute("axis", 1) % len(shape)
    labels = [label for label in call.inputs if label is not None and label.shape[axis] > 0]
    ends = [wiring.piece(label, axis, call.name) for label in labels]
    sizes = [label.shape[axis] for label in labels]
    across = []
    for label in labels:
        pieces = wiring.pieces(label, call.name)
        across.append(
            wiring.label_of((*shape[:axis], 1, *shape[axis + 1 :]), [*pieces[:axis], None, *pieces[axis + 1 :]])
        )
    others = wiring.combine(across, (*shape[:axis], 1, *shape[axis + 1 :]), call.name)
    pieces = wiring.pieces(others, call.name)
    return [wiring.label_of(shape, [*pieces[:axis], end_to_end(call, ends, sizes), *pieces[axis + 1 :]])]


def end_to_end(call: Call, pieces: Sequence[Piece], sizes: Sequence[int]) -> Piece:
    return pieces[0] if len(pieces) == 1 else call.wiring.concat(pieces, sizes)


def split(call: Call) -> list[Label]:
    """Consecutive runs of one axis."""
    label = call.label(0)
    axis = call.node.attribute("axis", 0) % len(label.shape)
    ends = np.cumsum([0, *[shape[axis] for shape in call.outputs]])
    runs = [np.arange(a, b) for a, b in pairwise(ends)]
    return [call.wiring.take(label, axis, run, call.name) for run in runs]


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
    pieces = wiring.pieces(data, call.name)
    pin_all(call, pieces[axis : axis + 1], Fix("pinned", f"entries that {call.name} looks up by index"))
    looked_up = wiring.pieces(indices, call.name)
    return [wiring.label_of(out, [*pieces[:axis], *looked_up, *pieces[axis + 1 :]])]


def expand(call: Call) -> list[Label]:
    """Axes of length 1 are repeated, and hold the same everywhere."""
    return [call.wiring.combine([call.label(0)], call.outputs[0], call.name)]


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
    border = Fix("frozen", f"{call.name} pads the axis")
    constant = call.node.attribute("mode", "constant") in ("constant", b"constant")
    pieces = wiring.pieces(label, call.name)
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
    wiring, label, out = call.wiring, call.label(0), call.outputs[0]
    pieces = wiring.pieces(label, call.name)
    for axis, size in enumerate(label.shape):
        if out[axis] != size:
            pin_all(call, [pieces[axis]], WINDOW)
            pieces[axis] = WINDOW
    return [wiring.label_of(out, pieces)]


def shape_only(call: Call) -> list[Label]:
    """Reads a shape, never the values: nothing is touched."""
    return [fixed_label(shape, Fix("pinned", "a shape")) for shape in call.outputs]


def filled(call: Call) -> list[Label]:
    """Every element is the same."""
    return [Label(shape) for shape in call.outputs]
