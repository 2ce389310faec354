"""The operator table: one row says everything any step needs to know of an operator.

An operator without a row freezes every axis it touches, with the reason. No other module asks for an operator by name.
Rules follow ONNX up to opset 26; sources per operator: the ONNX operator specification.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

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


@dataclass(frozen=True)
class Slot:
    """One input of an operator.

    Attributes:
        name: how the field calls it.
        draw: how a proof draws it at random: "weight", "shift", "scale" or "variance"; "" for activations.
        setting: it steers the operator and is never a parameter (target shapes, clip bounds).
        out_axis, in_axis: of a weight, the axes that make and that consume units; functions of (node, rank).
    """

    name: str
    draw: str = ""
    setting: bool = False
    axes: Callable[[Node, int], tuple[int, int]] | None = None

    @property
    def pad(self) -> float:
        """The value of a unit that is not there: it contributes nothing and divides by one."""
        return 1.0 if self.draw == "variance" else 0.0


@dataclass(frozen=True)
class Row:
    """What is known of an operator.

    Attributes:
        rule: maps the labels of its inputs to those of its outputs, tying and fixing on the way.
        part: its part in a layer: "contraction" starts one, "passes" stays inside one, "alone" does neither, "shape"
            reads no values at all.
        moves: the output holds the first input's values, only arranged or stored otherwise.
        kind: how layers started by it are called, the same for operators that mean the same.
        slots: its inputs; the last one repeats for variadic operators.
        zero: what it makes of a zero unit: "silent" (0), "live" (another finite value), "unsafe" (may be infinite,
            or changes other units).
        widths: inputs and attributes that hold a width and must follow when an axis grows.
        channel: the axis of its output that holds the units.
        commutes: the order of its operands does not matter.
        squashes: it saturates, so that a proof must read the tensor before it where it ends the model.
        is_probability: what it gives is read as a probability where it ends the model.
    """

    rule: Rule
    part: str = "passes"
    moves: bool = False
    kind: str = ""
    slots: tuple[Slot, ...] = (Slot("x"),)
    zero: str = "silent"
    widths: tuple[str, ...] = ()
    squashes: bool = False
    is_probability: bool = False
    commutes: bool = False
    channel: int = 1

    def slot(self, index: int) -> Slot:
        return self.slots[min(index, len(self.slots) - 1)]


# --- axis rules -------------------------------------------------------------------------------------------------


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


# --- rows -------------------------------------------------------------------------------------------------------


def linear_axes(node: Node, rank: int) -> tuple[int, int]:
    return (0, 1) if node.attribute("transB", 0) else (1, 0)


X = Slot("x")
SHIFT = Slot("shift", "shift")
SCALE = Slot("scale", "scale")
BIAS = Slot("bias", "shift")


def setting(name: str) -> Slot:
    return Slot(name, setting=True)


def _weight(axes: Callable[[Node, int], tuple[int, int]]) -> Slot:
    return Slot("weight", "weight", axes=axes)


def _elementwise(*slots: Slot, zero: str = "silent", commutes: bool = False) -> Row:
    return Row(elementwise, slots=slots or (X,), zero=zero, commutes=commutes)


def _activation(zero: str = "silent") -> Row:
    return Row(unary, slots=(X, setting("bound")), zero=zero)


ROWS: Mapping[str, Row] = {
    # contractions with a weight
    "Gemm": Row(gemm, "contraction", kind="linear", slots=(X, _weight(linear_axes), BIAS), channel=-1),
    "MatMul": Row(
        matmul,
        "contraction",
        kind="linear",
        slots=(_weight(lambda node, rank: (rank - 2, rank - 1)), _weight(lambda node, rank: (rank - 1, rank - 2))),
    ),
    "Conv": Row(
        conv, "contraction", kind="conv", slots=(X, _weight(lambda node, rank: (0, 1)), BIAS), widths=("group",)
    ),
    "ConvTranspose": Row(
        conv_transpose,
        "contraction",
        kind="conv_transpose",
        slots=(X, _weight(lambda node, rank: (1, 0)), BIAS),
        widths=("group",),
    ),
    # elementwise with two or more operands
    **dict.fromkeys(["Add", "Sum"], _elementwise(SHIFT, commutes=True)),
    **dict.fromkeys(["Sub", "Mean"], _elementwise(Slot("term", "shift"))),
    **dict.fromkeys(["Max", "Min"], _elementwise(SHIFT, zero="live", commutes=True)),
    "Mul": _elementwise(SCALE, commutes=True),
    "Div": _elementwise(SCALE, zero="unsafe"),
    "PRelu": _elementwise(X, Slot("slope", "scale")),
    "Pow": _elementwise(X, Slot("exponent", "scale"), zero="live"),
    **dict.fromkeys(["Mod", "BitShift"], _elementwise(X, zero="unsafe")),
    **dict.fromkeys(
        ["Where", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"],
        _elementwise(X, zero="live"),
    ),
    # activations and other maps of one operand
    **dict.fromkeys(
        [
            "Relu",
            "LeakyRelu",
            "Elu",
            "Selu",
            "Celu",
            "Gelu",
            "Mish",
            "HardSwish",
            "Swish",
            "ThresholdedRelu",
            "Shrink",
            "Softsign",
            "Tanh",
            "Erf",
            "Sin",
            "Asin",
            "Atan",
            "Sinh",
            "Asinh",
            "Atanh",
            "Tan",
            "Abs",
            "Neg",
            "Sign",
            "Sqrt",
            "Floor",
            "Ceil",
            "Round",
            "IsNaN",
            "IsInf",
        ],
        _activation(),
    ),
    **dict.fromkeys(["HardSigmoid", "Exp", "Cos", "Cosh", "Acos", "Softplus", "Not", "Clip"], _activation("live")),
    "Sigmoid": replace(_activation("live"), squashes=True, is_probability=True),
    **dict.fromkeys(["Log", "Reciprocal", "Acosh"], _activation("unsafe")),
    **dict.fromkeys(["Identity", "Cast"], Row(unary, moves=True)),
    "CastLike": Row(unary, moves=True, slots=(X, setting("type"))),
    "Dropout": Row(unary, moves=True, slots=(X, setting("ratio"), setting("training"))),
    # normalisation
    "BatchNormalization": Row(
        channel_norm,
        slots=(X, SCALE, SHIFT, Slot("mean", "shift"), Slot("variance", "variance")),
    ),
    "InstanceNormalization": Row(channel_norm, slots=(X, SCALE, SHIFT)),
    **dict.fromkeys(
        ["LayerNormalization", "RMSNormalization", "com.microsoft.SimplifiedLayerNormalization"],
        Row(layer_norm, slots=(X, SCALE, SHIFT), zero="unsafe"),
    ),
    "Softmax": Row(softmax, zero="unsafe", squashes=True, is_probability=True),
    "LogSoftmax": Row(softmax, zero="unsafe", squashes=True),
    # pooling and reductions
    **dict.fromkeys(
        ["AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], Row(pool)
    ),
    **dict.fromkeys(
        [
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
        ],
        Row(reduce, slots=(X, setting("axes")), zero="unsafe"),
    ),
    # shape
    "Reshape": Row(reshape, moves=True, slots=(X, setting("shape")), widths=("shape",)),
    "Flatten": Row(reshape, moves=True),
    **dict.fromkeys(["Squeeze", "Unsqueeze"], Row(reshape, moves=True, slots=(X, setting("axes")))),
    "Transpose": Row(transpose, moves=True),
    "Concat": Row(concat),
    "Split": Row(split, slots=(X, setting("split")), widths=("split",)),
    "Slice": Row(slice_, slots=(X, setting("bound")), widths=("starts", "ends")),
    "Gather": Row(
        gather, "alone", kind="table", slots=(Slot("table", "weight"), setting("indices")), widths=("indices",)
    ),
    "Expand": Row(expand, slots=(X, setting("shape")), widths=("shape",)),
    "Pad": Row(pad, slots=(X, setting("pads")), widths=("pads",)),
    **dict.fromkeys(["Resize", "Upsample"], Row(resize, slots=(X, setting("scales")), widths=("sizes",))),
    **dict.fromkeys(["Shape", "Size"], Row(shape_only, "shape")),
    "ConstantOfShape": Row(filled, "alone", slots=(setting("shape"),), widths=("shape",)),
}


def row_of(node: Node, table: Mapping[str, Row] | None = None) -> Row | None:
    """The row of a node's operator; None where nothing is known of it."""
    return (ROWS if table is None else table).get(node.op)


def weight_axes(row: Row, slot: int, node: Node, rank: int) -> tuple[int, int] | None:
    """(out axis, in axis) of a contraction's weight of the given rank; None for anything else."""
    axes: Any = row.slot(slot).axes
    return None if axes is None or rank < 2 else axes(node, rank)


def reshape_target(node: Node, shape: Sequence[int], given: Sequence[int] | None) -> tuple[int, ...] | None:
    """The shape that a row with the `reshape` rule gives a tensor of `shape`, from its constant argument."""
    size = int(np.prod(shape))
    if node.op == "Flatten":
        cut = node.attribute("axis", 1)
        return (int(np.prod(shape[:cut])), int(np.prod(shape[cut:])))
    if node.op == "Unsqueeze" and given is not None:
        rank = len(shape) + len(given)
        new = {axis % rank for axis in given}
        old = iter(shape)
        return tuple(1 if axis in new else next(old) for axis in range(rank))
    if node.op == "Squeeze":
        gone = range(len(shape)) if given is None else [axis % len(shape) for axis in given]
        return tuple(dim for axis, dim in enumerate(shape) if not (axis in gone and dim == 1))
    if given is None:
        return None
    target = [shape[i] if dim == 0 and not node.attribute("allowzero", 0) else dim for i, dim in enumerate(given)]
    known = int(np.prod([dim for dim in target if dim != -1]))
    return tuple(size // known if dim == -1 and known else dim for dim in target)


def cast_to_float32(node: Node) -> Node:
    """The node, with a cast to another float type made a cast to float32."""
    if node.op == "Cast" and node.attribute("to") in (10, 11, 16):  # float16, double, bfloat16 in ONNX's numbering
        return replace(node, attributes={**node.attributes, "to": 1})
    return node


def norm_epsilon(node: Node) -> float:
    """What a BatchNormalization adds to the variance."""
    return float(node.attribute("epsilon", 1e-5))


def bias_slot(node: Node) -> int | None:
    """The input where the operator takes an optional bias that the node does not have."""
    row = ROWS.get(node.op)
    slots = [] if row is None or row.part != "contraction" else [i for i, slot in enumerate(row.slots) if slot is BIAS]
    free = [i for i in slots if i >= len(node.inputs) or not node.inputs[i]]
    return free[0] if free else None
