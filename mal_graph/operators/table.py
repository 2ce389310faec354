"""The operator table: one row says everything any step needs to know of an operator.

An operator without a row freezes every axis it touches, with the reason. No other module asks for an operator by name.
Rows follow ONNX up to opset 26; sources per operator: the ONNX operator specification.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mal_graph.graph import Node
from mal_graph.operators import axis_rules, size_rules
from mal_graph.operators.size_rules import Axes, Width

WeightAxes = Callable[[Node, int], tuple[int, int] | None]
UnitAxis = Callable[[Node, int], int]


@dataclass(frozen=True)
class Slot:
    """One input of an operator.

    Attributes:
        name: how the field calls it.
        draw: how a verification draws it at random: "weight", "shift", "scale" or "variance"; "" for activations.
        setting: it steers the operator and is never a parameter (target shapes, clip bounds).
        axes: of a weight, the axes that make and that consume units, from (node, rank); None where it has no such pair.
        factor: the attribute that multiplies it, if any.
        makes: of a weight, the axis of the output that holds the units it makes, from (node, rank of the weight); the
            operator's `channel` if None.
    """

    name: str
    draw: str = ""
    setting: bool = False
    axes: WeightAxes | None = None
    factor: str = ""
    makes: UnitAxis | None = None

    def factor_of(self, node: Node) -> float:
        """What the operator multiplies this input by."""
        return float(node.attribute(self.factor, 1.0)) if self.factor else 1.0

    @property
    def pad(self) -> float:
        """The value of a unit that is not there: it contributes nothing and divides by one."""
        return 1.0 if self.draw == "variance" else 0.0


@dataclass(frozen=True)
class Compensation:
    """What keeps the function of a statistic over C units when M - C zero units join them (measured to rounding).

    Attributes:
        text: how it is told.
        powers: by place - "output", an input or an attribute - the power of M/C that what is there is multiplied by;
            None where it is no such factor.
        over: the axes that the statistic is taken over.
        is_centred: it takes the mean over the units to be zero.
    """

    text: str
    powers: Mapping[str, float] | None = None
    over: Axes = size_rules.reduced_axes
    is_centred: bool = False


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
        compensation: what keeps the function when zero units join those it takes a statistic over; None where nothing
            does.
        epsilon: what it adds to a variance where no attribute says.
        widths: inputs and attributes that hold a width, and how they follow when an axis is resized (see `widths`).
        channel: the axis of its output that holds the units.
        commutes: the order of its operands does not matter.
        squashes: it saturates, so that a verification must read the tensor before it where it ends the model.
        is_probability: what it gives is read as a probability where it ends the model.
        is_idempotent: it does nothing the second time.
        pointwise: what a layer with one tap that moves by one is a kind of as well.
        has_window: the further axes of its weight are taps, placed by strides, pads and dilations.
        is_sequence: it takes or gives a sequence of tensors, which has no shape.
        scales: whether positive factors on units come out as they went in: where "one" operand has them (the first, or
            any that commutes), where "all" have them, or "any"; "" where they change something else.
        since: the opset from which on it has the same inputs, attributes and meaning; None where that is not told.
    """

    rule: axis_rules.Rule
    part: str = "passes"
    moves: bool = False
    kind: str = ""
    slots: tuple[Slot, ...] = (Slot("x"),)
    zero: str = "silent"
    compensation: Compensation | None = None
    epsilon: float = 1e-5
    widths: Mapping[str, Width] = field(default_factory=dict)
    squashes: bool = False
    is_probability: bool = False
    commutes: bool = False
    is_sequence: bool = False
    has_window: bool = False
    pointwise: str = ""
    is_idempotent: bool = False
    scales: str = ""
    channel: int = 1
    since: int | None = None

    @property
    def is_linear(self) -> bool:
        """Whether what it gives is linear in its weight, with no activation built in."""
        return self.part == "contraction" and self.zero == "silent"

    @property
    def is_sum(self) -> bool:
        """Whether what it makes of a unit is a sum of what is in that unit."""
        adds = self.rule is axis_rules.elementwise and self.scales == "all" and self.zero == "silent"
        return (
            adds
            or self.moves
            or self.rule in (axis_rules.concat, axis_rules.expand, axis_rules.slice_, axis_rules.split)
        )

    @property
    def keeps_axes(self) -> bool:
        """Whether its output has the axes of its input, with the units where they were."""
        return self.rule in (axis_rules.unary, axis_rules.elementwise, axis_rules.channel_norm, axis_rules.dropout)

    def is_alike(self, *opsets: int | None) -> bool:
        """Whether it is known to mean the same in some opsets."""
        return self.since is not None and all(opset is not None and opset >= self.since for opset in opsets)

    def slot(self, index: int) -> Slot:
        return self.slots[min(index, len(self.slots) - 1)]


def linear_axes(node: Node, rank: int) -> tuple[int, int]:
    return (0, 1) if node.attribute("transB", 0) else (1, 0)


def conv_axes(node: Node, rank: int) -> tuple[int, int]:
    return (0, 1)


def fused_axes(side: str) -> WeightAxes:
    """The axes of a FusedMatMul's weight on side "A" or "B"."""

    def axes(node: Node, rank: int) -> tuple[int, int]:
        *_, row, column = axis_rules.fused_order(node, side, rank)
        return (row, column) if side == "A" else (column, row)

    return axes


def einsum_axes(operand: int) -> WeightAxes:
    """Of two operands, the first axis that the other lacks and the output has, and the first that is summed with it."""

    def axes(node: Node, rank: int) -> tuple[int, int] | None:
        terms = einsum_terms(node)
        if len(terms) != 2:
            return None
        other = set(terms[1 - operand])
        read, out = axis_rules.einsum_letters(node.attribute("equation", ""), einsum_ranks(terms, operand, rank))
        makes = [axis for axis, letter in enumerate(read[operand]) if letter in out and letter not in other]
        takes = [axis for axis, letter in enumerate(read[operand]) if letter not in out and letter in other]
        makes = [axis for axis in makes if "." not in read[operand][axis]]
        return (makes[0], takes[0]) if makes and takes else None

    return axes


def einsum_makes(operand: int) -> UnitAxis:
    """The axis of the output with the letter of the operand's first axis of `einsum_axes`, counted from the end."""

    def makes(node: Node, rank: int) -> int:
        found = einsum_axes(operand)(node, rank)
        assert found is not None  # only weights make units
        ranks = einsum_ranks(einsum_terms(node), operand, rank)
        read, out = axis_rules.einsum_letters(node.attribute("equation", ""), ranks)
        return out.index(read[operand][found[0]]) - len(out)

    return makes


def einsum_terms(node: Node) -> list[str]:
    return str(node.attribute("equation", "")).partition("->")[0].replace(" ", "").split(",")


def einsum_ranks(terms: Sequence[str], operand: int, rank: int) -> list[int]:
    return [rank if i == operand else len(term.replace("...", "")) for i, term in enumerate(terms)]


def row_axis(node: Node, rank: int) -> int:
    return -2


def column_axis(node: Node, rank: int) -> int:
    return -1


X = Slot("x")
SHIFT = Slot("shift", "shift")
SCALE = Slot("scale", "scale")
BIAS = Slot("bias", "shift")
ZERO_POINT = Slot("zero point", "shift")


def setting(name: str) -> Slot:
    return Slot(name, setting=True)


def _weight(axes: WeightAxes, makes: UnitAxis | None = None) -> Slot:
    return Slot("weight", "weight", axes=axes, makes=makes)


def _elementwise(*slots: Slot, zero: str = "silent", commutes: bool = False, scales: str = "") -> Row:
    return Row(axis_rules.elementwise, slots=slots or (X,), zero=zero, commutes=commutes, scales=scales)


def _activation(zero: str = "silent", *, is_idempotent: bool = False, scales: str = "") -> Row:
    return Row(axis_rules.unary, slots=(X, setting("bound")), zero=zero, is_idempotent=is_idempotent, scales=scales)


def _reduction(compensation: Compensation | None, scales: str = "") -> Row:
    return Row(axis_rules.reduce, slots=(X, setting("axes")), zero="unsafe", compensation=compensation, scales=scales)


ADDS_NOTHING = Compensation("nothing to do, zeros add nothing", {})
SUMMED = replace(ADDS_NOTHING, over=size_rules.no_axes)
AVERAGED = Compensation("times M/C", {"output": 1.0})
RESCALED = Compensation(
    "scale times sqrt(C/M), epsilon times C/M", {"scale": -0.5, "epsilon": -1.0}, size_rules.normalised_axes
)
CENTRED = replace(
    RESCALED, text=f"take the mean over the units off everything that writes them, {RESCALED.text}", is_centred=True
)
NEVER_CHOSEN = Compensation("-1e30 instead of 0 in the new units")
WHOLE_GROUPS = Compensation("only whole groups may be added")

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

_ROWS: Mapping[str, Row] = {
    # contractions with a weight
    "Gemm": Row(
        axis_rules.gemm,
        "contraction",
        compensation=SUMMED,
        kind="linear",
        slots=(X, replace(_weight(linear_axes), factor="alpha"), replace(BIAS, factor="beta")),
        channel=-1,
    ),
    "MatMul": Row(
        axis_rules.matmul,
        "contraction",
        compensation=SUMMED,
        kind="linear",
        slots=(
            _weight(lambda node, rank: (rank - 2, rank - 1), row_axis),
            _weight(lambda node, rank: (rank - 1, rank - 2), column_axis),
        ),
    ),
    "Einsum": Row(
        axis_rules.einsum,
        "contraction",
        compensation=SUMMED,
        kind="linear",
        slots=(_weight(einsum_axes(0), einsum_makes(0)), _weight(einsum_axes(1), einsum_makes(1))),
    ),
    "com.microsoft.FusedMatMul": Row(
        axis_rules.fused_matmul,
        "contraction",
        compensation=SUMMED,
        kind="linear",
        slots=(
            replace(_weight(fused_axes("A"), row_axis), factor="alpha"),
            replace(_weight(fused_axes("B"), column_axis), factor="alpha"),
        ),
    ),
    "com.microsoft.FusedGemm": Row(
        axis_rules.gemm,
        "contraction",
        compensation=SUMMED,
        kind="fused_linear",
        slots=(X, replace(_weight(linear_axes), factor="alpha"), replace(BIAS, factor="beta")),
        channel=-1,
        zero="live",
    ),
    "Conv": Row(
        axis_rules.conv,
        "contraction",
        compensation=SUMMED,
        kind="conv",
        has_window=True,
        pointwise="linear",
        slots=(X, _weight(conv_axes), BIAS),
        widths={"group": size_rules.conv_groups},
    ),
    "com.microsoft.FusedConv": Row(
        axis_rules.fused_conv,
        "contraction",
        compensation=SUMMED,
        kind="fused_conv",
        has_window=True,
        pointwise="fused_linear",
        slots=(X, _weight(conv_axes), BIAS, SHIFT),
        widths={"group": size_rules.conv_groups},
        zero="live",
    ),
    "DeformConv": Row(
        axis_rules.deform_conv,
        "contraction",
        compensation=SUMMED,
        kind="deform_conv",
        slots=(X, _weight(conv_axes), X, BIAS, X),
        widths={"group": size_rules.conv_groups},
    ),
    "ConvTranspose": Row(
        axis_rules.conv_transpose,
        "contraction",
        compensation=SUMMED,
        kind="conv_transpose",
        has_window=True,
        pointwise="linear",
        slots=(X, _weight(lambda node, rank: (1, 0)), BIAS),
        widths={"group": size_rules.transposed_conv_groups},
    ),
    # integer arithmetic: the weights are data of fixed order, scales may be parameters
    "QuantizeLinear": Row(axis_rules.quantize, slots=(X, Slot("divisor", "variance"), ZERO_POINT), zero="live"),
    "DequantizeLinear": Row(axis_rules.quantize, slots=(X, SCALE, ZERO_POINT), zero="live"),
    "DynamicQuantizeLinear": Row(axis_rules.dynamic_quantize, zero="live"),
    "MatMulInteger": Row(
        axis_rules.matmul_integer, "alone", kind="linear_integer", slots=(X, X, ZERO_POINT), zero="live"
    ),
    "ConvInteger": Row(axis_rules.conv_integer, "alone", kind="conv_integer", slots=(X, X, ZERO_POINT), zero="live"),
    "QLinearMatMul": Row(
        axis_rules.qlinear_matmul,
        "alone",
        kind="linear_integer",
        slots=(X, SCALE, ZERO_POINT, X, SCALE, ZERO_POINT, Slot("divisor", "variance"), ZERO_POINT),
        zero="live",
    ),
    "QLinearConv": Row(
        axis_rules.qlinear_conv,
        "alone",
        kind="conv_integer",
        slots=(X, SCALE, ZERO_POINT, X, SCALE, ZERO_POINT, Slot("divisor", "variance"), ZERO_POINT, X),
        zero="live",
    ),
    # elementwise with two or more operands
    **dict.fromkeys(["Add", "Sum"], _elementwise(SHIFT, commutes=True, scales="all")),
    **dict.fromkeys(["Sub", "Mean"], _elementwise(Slot("term", "shift"), scales="all")),
    **dict.fromkeys(["Max", "Min"], _elementwise(SHIFT, zero="live", commutes=True, scales="all")),
    "Mul": _elementwise(SCALE, commutes=True, scales="one"),
    "Div": _elementwise(SCALE, zero="unsafe", scales="one"),
    "PRelu": _elementwise(X, Slot("slope", "scale"), scales="one"),
    "Pow": _elementwise(X, Slot("exponent", "scale"), zero="live"),
    "SwiGLU": _elementwise(X, SCALE),
    **dict.fromkeys(["com.microsoft.BiasGelu", "com.microsoft.FastGelu"], _elementwise(X, SHIFT)),
    **dict.fromkeys(["BitwiseAnd", "BitwiseOr", "BitwiseXor"], _elementwise(X, commutes=True)),
    **dict.fromkeys(["Mod", "BitShift"], _elementwise(X, zero="unsafe")),
    **dict.fromkeys(
        ["Where", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"],
        _elementwise(X, zero="live"),
    ),
    # activations and other maps of one operand
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
            "Sin",
            "Asin",
            "Atan",
            "Sinh",
            "Asinh",
            "Atanh",
            "Tan",
            "Sign",
            "Sqrt",
            "Floor",
            "Ceil",
            "Round",
            "IsNaN",
            "IsInf",
            "com.microsoft.Gelu",
            "com.microsoft.QuickGelu",
        ],
        _activation(),
    ),
    **dict.fromkeys(
        ["HardSigmoid", "Exp", "Cos", "Cosh", "Acos", "Softplus", "Not", "BitwiseNot"], _activation("live")
    ),
    **dict.fromkeys(["LeakyRelu", "Neg"], _activation(scales="one")),
    **dict.fromkeys(["Relu", "Abs"], _activation(is_idempotent=True, scales="one")),
    "ThresholdedRelu": _activation(is_idempotent=True),
    "Clip": _activation("live", is_idempotent=True),
    "Sigmoid": replace(_activation("live"), squashes=True, is_probability=True),
    **dict.fromkeys(["Log", "Reciprocal", "Acosh"], _activation("unsafe")),
    **dict.fromkeys(["Identity", "Cast"], Row(axis_rules.unary, moves=True, scales="one")),
    "CastLike": Row(axis_rules.unary, moves=True, slots=(X, setting("type")), scales="one"),
    "BitCast": Row(axis_rules.bit_cast),
    "Dropout": Row(axis_rules.dropout, moves=True, slots=(X, setting("ratio"), setting("training")), scales="one"),
    # normalisation
    "BatchNormalization": Row(
        axis_rules.channel_norm,
        slots=(X, SCALE, SHIFT, Slot("mean", "shift"), Slot("variance", "variance")),
        scales="one",
    ),
    "InstanceNormalization": Row(axis_rules.instance_norm, slots=(X, SCALE, SHIFT), compensation=WHOLE_GROUPS),
    "GroupNormalization": Row(
        axis_rules.group_norm,
        slots=(X, SCALE, SHIFT),
        zero="unsafe",
        compensation=WHOLE_GROUPS,
        widths={"num_groups": size_rules.norm_groups},
    ),
    "LayerNormalization": Row(axis_rules.layer_norm, slots=(X, SCALE, SHIFT), zero="unsafe", compensation=CENTRED),
    **dict.fromkeys(
        ["RMSNormalization", "SimplifiedLayerNormalization"],
        Row(axis_rules.layer_norm, slots=(X, SCALE, SHIFT), zero="unsafe", compensation=RESCALED),
    ),
    "com.microsoft.SkipLayerNormalization": Row(
        axis_rules.skip_layer_norm,
        slots=(X, SHIFT, SCALE, SHIFT, SHIFT),
        zero="unsafe",
        compensation=replace(CENTRED, powers=None),
    ),
    "com.microsoft.SkipSimplifiedLayerNormalization": Row(
        axis_rules.skip_layer_norm, slots=(X, SHIFT, SCALE, SHIFT), zero="unsafe", compensation=RESCALED, epsilon=1e-12
    ),
    "LpNormalization": Row(axis_rules.lp_norm, compensation=ADDS_NOTHING),
    "MeanVarianceNormalization": Row(axis_rules.mean_variance_norm, zero="unsafe"),
    "LRN": Row(axis_rules.local_norm, zero="unsafe"),
    "Softmax": Row(axis_rules.softmax, zero="unsafe", compensation=NEVER_CHOSEN, squashes=True, is_probability=True),
    "LogSoftmax": Row(axis_rules.softmax, zero="unsafe", compensation=NEVER_CHOSEN, squashes=True),
    "Hardmax": Row(axis_rules.first_of_equals, zero="unsafe"),
    # the order of an axis counts
    "TopK": Row(axis_rules.top_k, slots=(X, setting("k")), zero="unsafe"),
    **dict.fromkeys(["ArgMax", "ArgMin"], Row(axis_rules.arg_extreme, zero="unsafe")),
    **dict.fromkeys(["CumSum", "CumProd"], Row(axis_rules.cumulative, slots=(X, setting("axis")), zero="unsafe")),
    "Trilu": Row(axis_rules.triangle, slots=(X, setting("diagonal"))),
    "Det": Row(axis_rules.determinant, zero="unsafe"),
    "ReverseSequence": Row(axis_rules.reverse_sequence, slots=(X, setting("lengths"))),
    "DFT": Row(axis_rules.fourier, slots=(X, setting("length"), setting("axis"))),
    "STFT": Row(axis_rules.short_fourier, slots=(X, setting("step"), Slot("window", "scale"), setting("length"))),
    # pooling and reductions
    **dict.fromkeys(
        ["AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"],
        Row(axis_rules.pool, scales="one"),
    ),
    "RoiAlign": Row(axis_rules.roi_pool, slots=(X, X, setting("samples"))),
    "MaxRoiPool": Row(axis_rules.roi_pool, slots=(X, X)),
    "GridSample": Row(axis_rules.grid_sample, slots=(X, X)),
    "AffineGrid": Row(axis_rules.affine_grid, "alone", slots=(X, setting("size")), zero="live"),
    **dict.fromkeys(["ReduceSum", "ReduceL1", "ReduceL2"], _reduction(ADDS_NOTHING, scales="one")),
    **dict.fromkeys(["ReduceSumSquare", "ReduceLogSum"], _reduction(ADDS_NOTHING)),
    "ReduceMean": _reduction(AVERAGED, scales="one"),
    "ReduceProd": _reduction(Compensation("1 instead of 0 in the new units")),
    "ReduceLogSumExp": _reduction(NEVER_CHOSEN),
    **dict.fromkeys(["ReduceMax", "ReduceMin"], _reduction(None, scales="one")),
    # shape
    "Reshape": Row(
        axis_rules.reshape,
        moves=True,
        slots=(X, setting("shape")),
        widths={"shape": size_rules.output_sizes},
        scales="one",
    ),
    "Flatten": Row(axis_rules.reshape, moves=True, scales="one"),
    **dict.fromkeys(
        ["Squeeze", "Unsqueeze"], Row(axis_rules.reshape, moves=True, slots=(X, setting("axes")), scales="one")
    ),
    "Transpose": Row(axis_rules.transpose, moves=True, scales="one"),
    "Concat": Row(axis_rules.concat, scales="any"),
    "Split": Row(
        axis_rules.split, slots=(X, setting("split")), widths={"split": size_rules.part_lengths}, scales="one"
    ),
    "SplitToSequence": Row(
        axis_rules.split_to_sequence,
        slots=(X, setting("split")),
        widths={"split": size_rules.part_lengths},
        is_sequence=True,
    ),
    "SequenceAt": Row(axis_rules.sequence_at, slots=(X, setting("position")), is_sequence=True),
    "Slice": Row(
        axis_rules.slice_,
        slots=(X, setting("starts"), setting("ends"), setting("axes")),
        widths={"starts": size_rules.slice_bounds, "ends": size_rules.slice_bounds},
        scales="one",
    ),
    "Gather": Row(
        axis_rules.gather,
        "alone",
        kind="table",
        slots=(Slot("table", "weight"), setting("indices")),
        widths={"indices": size_rules.gathered},
    ),
    "Expand": Row(axis_rules.expand, slots=(X, setting("shape")), widths={"shape": size_rules.output_sizes}),
    "Pad": Row(axis_rules.pad, slots=(X, setting("pads"))),
    "Tile": Row(axis_rules.tile, slots=(X, setting("repeats"))),
    "DepthToSpace": Row(axis_rules.depth_to_space),
    "SpaceToDepth": Row(axis_rules.space_to_depth),
    "CenterCropPad": Row(axis_rules.resize, slots=(X, setting("shape")), widths={"shape": size_rules.output_sizes}),
    "Resize": Row(
        axis_rules.resize,
        slots=(X, setting("roi"), setting("scales"), setting("sizes")),
        widths={"sizes": size_rules.output_sizes},
        scales="one",
    ),
    "Upsample": Row(axis_rules.resize, slots=(X, setting("scales"))),
    **dict.fromkeys(["Shape", "Size"], Row(axis_rules.shape_only, "shape")),
    "ConstantOfShape": Row(axis_rules.filled, "alone", slots=(setting("shape"),)),
    # elements found by index or by value
    "GatherElements": Row(axis_rules.addressed, "alone", slots=(X, setting("indices"))),
    "GatherND": Row(axis_rules.gather_nd, "alone", slots=(X, setting("indices"))),
    **dict.fromkeys(["ScatterElements", "ScatterND"], Row(axis_rules.addressed, slots=(X, setting("indices"), X))),
    "TensorScatter": Row(axis_rules.tensor_scatter, "alone", slots=(X, X, setting("places"))),
    "Col2Im": Row(axis_rules.addressed, slots=(X, setting("shape"))),
    "MaxUnpool": Row(axis_rules.addressed, slots=(X, setting("indices"), setting("shape"))),
    "OneHot": Row(
        axis_rules.one_hot,
        "alone",
        slots=(X, setting("depth"), setting("values")),
        zero="live",
    ),
    **dict.fromkeys(
        ["NonZero", "Unique", "Compress"], Row(axis_rules.chosen_by_value, "alone", slots=(X, setting("choice")))
    ),
    "NonMaxSuppression": Row(axis_rules.chosen_by_value, "alone", slots=(X, X, setting("bound"))),
    # made from sizes, settings or chance
    "Constant": Row(axis_rules.made, "alone"),
    "EyeLike": Row(axis_rules.made, "shape"),
    **dict.fromkeys(
        ["Range", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"],
        Row(axis_rules.made, "alone", slots=(setting("size"),), zero="live"),
    ),
    **dict.fromkeys(["RandomNormal", "RandomUniform"], Row(axis_rules.made, "alone", zero="live")),
    **dict.fromkeys(
        ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"],
        Row(axis_rules.random, "alone", zero="live"),
    ),
    # losses
    "NegativeLogLikelihoodLoss": Row(axis_rules.loss, "alone", slots=(X, setting("labels"), SCALE), zero="live"),
    "SoftmaxCrossEntropyLoss": Row(axis_rules.loss, "alone", slots=(X, setting("labels"), SCALE), zero="unsafe"),
}
ROWS: Mapping[str, Row] = {op: replace(row, since=SINCE.get(op)) for op, row in _ROWS.items()}


def row_of(node: Node, table: Mapping[str, Row] | None = None) -> Row | None:
    """The row of a node's operator; None where nothing is known of it."""
    return (ROWS if table is None else table).get(node.op)


def weight_axes(row: Row, slot: int, node: Node, rank: int) -> tuple[int, int] | None:
    """(out axis, in axis) of a contraction's weight of the given rank; None for anything else."""
    axes: Any = row.slot(slot).axes
    return None if axes is None or rank < 2 else axes(node, rank)


def unit_axis(node: Node, slot: int, rank: int) -> int:
    """The axis of a contraction's output that holds the units which its weight, of the given rank, makes."""
    row = ROWS[node.op]
    makes = row.slot(slot).makes
    return row.channel if makes is None else makes(node, rank)


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
    """What a norm adds to the variance."""
    return float(node.attribute("epsilon", ROWS[node.op].epsilon))


def bias_slot(node: Node) -> int | None:
    """The input where the operator takes an optional bias that the node does not have."""
    row = ROWS.get(node.op)
    slots = (
        []
        if row is None or row.part != "contraction"
        else [i for i, slot in enumerate(row.slots) if slot.name == "bias" and slot.factor_of(node)]
    )
    free = [i for i in slots if i >= len(node.inputs) or not node.inputs[i]]
    return free[0] if free else None
