"""The operator table: one row says everything any step needs to know of an operator.

An operator without a row freezes every axis it touches, with the reason. No other module asks for an operator by name.
Rows follow ONNX up to opset 26; sources per operator: the ONNX operator specification.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mal_graph.graph import Node
from mal_graph.operators import axis_rules, size_rules
from mal_graph.operators.row import (
    AtZero,
    Compensation,
    Homogeneity,
    LayerRole,
    ParameterKind,
    Row,
    Slot,
    UnitAxis,
    WeightAxes,
)


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


def einsum_unit_axis(operand: int) -> UnitAxis:
    """The axis of the output with the letter of the operand's first axis of `einsum_axes`, counted from the end."""

    def unit_axis(node: Node, rank: int) -> int:
        weight_axes = einsum_axes(operand)(node, rank)
        assert weight_axes is not None  # only weights produce units
        ranks = einsum_ranks(einsum_terms(node), operand, rank)
        read, out = axis_rules.einsum_letters(node.attribute("equation", ""), ranks)
        return out.index(read[operand][weight_axes[0]]) - len(out)

    return unit_axis


def einsum_terms(node: Node) -> list[str]:
    return str(node.attribute("equation", "")).partition("->")[0].replace(" ", "").split(",")


def einsum_ranks(terms: Sequence[str], operand: int, rank: int) -> list[int]:
    return [rank if i == operand else len(term.replace("...", "")) for i, term in enumerate(terms)]


def row_axis(node: Node, rank: int) -> int:
    return -2


def column_axis(node: Node, rank: int) -> int:
    return -1


X = Slot("x")
SHIFT = Slot("shift", ParameterKind.SHIFT)
SCALE = Slot("scale", ParameterKind.SCALE)
BIAS = Slot("bias", ParameterKind.SHIFT)
ZERO_POINT = Slot("zero point", ParameterKind.SHIFT)


def setting(name: str) -> Slot:
    return Slot(name, setting=True)


def _weight(axes: WeightAxes, produces: UnitAxis | None = None) -> Slot:
    return Slot("weight", ParameterKind.WEIGHT, axes=axes, produces=produces)


def _elementwise(
    *slots: Slot, at_zero: AtZero = AtZero.ZERO, commutes: bool = False, homogeneity: Homogeneity = Homogeneity.NONE
) -> Row:
    return Row(axis_rules.elementwise, slots=slots or (X,), at_zero=at_zero, commutes=commutes, homogeneity=homogeneity)


def _activation(
    at_zero: AtZero = AtZero.ZERO, *, is_idempotent: bool = False, homogeneity: Homogeneity = Homogeneity.NONE
) -> Row:
    return Row(
        axis_rules.unary,
        slots=(X, setting("bound")),
        at_zero=at_zero,
        is_idempotent=is_idempotent,
        homogeneity=homogeneity,
    )


def _reduction(compensation: Compensation | None, homogeneity: Homogeneity = Homogeneity.NONE) -> Row:
    return Row(
        axis_rules.reduce,
        slots=(X, setting("axes")),
        at_zero=AtZero.UNSAFE,
        compensation=compensation,
        homogeneity=homogeneity,
    )


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
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="linear",
        slots=(X, replace(_weight(linear_axes), factor="alpha"), replace(BIAS, factor="beta")),
        channel=-1,
    ),
    "MatMul": Row(
        axis_rules.matmul,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="linear",
        slots=(
            _weight(lambda node, rank: (rank - 2, rank - 1), row_axis),
            _weight(lambda node, rank: (rank - 1, rank - 2), column_axis),
        ),
    ),
    "Einsum": Row(
        axis_rules.einsum,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="linear",
        slots=(_weight(einsum_axes(0), einsum_unit_axis(0)), _weight(einsum_axes(1), einsum_unit_axis(1))),
    ),
    "com.microsoft.FusedMatMul": Row(
        axis_rules.fused_matmul,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="linear",
        slots=(
            replace(_weight(fused_axes("A"), row_axis), factor="alpha"),
            replace(_weight(fused_axes("B"), column_axis), factor="alpha"),
        ),
    ),
    "com.microsoft.FusedGemm": Row(
        axis_rules.gemm,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="fused_linear",
        slots=(X, replace(_weight(linear_axes), factor="alpha"), replace(BIAS, factor="beta")),
        channel=-1,
        at_zero=AtZero.FINITE,
    ),
    "Conv": Row(
        axis_rules.conv,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="conv",
        has_window=True,
        pointwise="linear",
        slots=(X, _weight(conv_axes), BIAS),
        size_constants={"group": size_rules.conv_groups},
    ),
    "com.microsoft.FusedConv": Row(
        axis_rules.fused_conv,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="fused_conv",
        has_window=True,
        pointwise="fused_linear",
        slots=(X, _weight(conv_axes), BIAS, SHIFT),
        size_constants={"group": size_rules.conv_groups},
        at_zero=AtZero.FINITE,
    ),
    "DeformConv": Row(
        axis_rules.deform_conv,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="deform_conv",
        slots=(X, _weight(conv_axes), X, BIAS, X),
        size_constants={"group": size_rules.conv_groups},
    ),
    "ConvTranspose": Row(
        axis_rules.conv_transpose,
        LayerRole.CONTRACTION,
        compensation=SUMMED,
        kind="conv_transpose",
        has_window=True,
        pointwise="linear",
        slots=(X, _weight(lambda node, rank: (1, 0)), BIAS),
        size_constants={"group": size_rules.transposed_conv_groups},
    ),
    # integer arithmetic: the weights are data of fixed order, scales may be parameters
    "QuantizeLinear": Row(
        axis_rules.quantize, slots=(X, Slot("divisor", ParameterKind.VARIANCE), ZERO_POINT), at_zero=AtZero.FINITE
    ),
    "DequantizeLinear": Row(axis_rules.quantize, slots=(X, SCALE, ZERO_POINT), at_zero=AtZero.FINITE),
    "DynamicQuantizeLinear": Row(axis_rules.dynamic_quantize, at_zero=AtZero.FINITE),
    "MatMulInteger": Row(
        axis_rules.matmul_integer,
        LayerRole.ALONE,
        kind="linear_integer",
        slots=(X, X, ZERO_POINT),
        at_zero=AtZero.FINITE,
    ),
    "ConvInteger": Row(
        axis_rules.conv_integer, LayerRole.ALONE, kind="conv_integer", slots=(X, X, ZERO_POINT), at_zero=AtZero.FINITE
    ),
    "QLinearMatMul": Row(
        axis_rules.qlinear_matmul,
        LayerRole.ALONE,
        kind="linear_integer",
        slots=(X, SCALE, ZERO_POINT, X, SCALE, ZERO_POINT, Slot("divisor", ParameterKind.VARIANCE), ZERO_POINT),
        at_zero=AtZero.FINITE,
    ),
    "QLinearConv": Row(
        axis_rules.qlinear_conv,
        LayerRole.ALONE,
        kind="conv_integer",
        slots=(X, SCALE, ZERO_POINT, X, SCALE, ZERO_POINT, Slot("divisor", ParameterKind.VARIANCE), ZERO_POINT, X),
        at_zero=AtZero.FINITE,
    ),
    # elementwise with two or more operands
    **dict.fromkeys(["Add", "Sum"], _elementwise(SHIFT, commutes=True, homogeneity=Homogeneity.ALL)),
    **dict.fromkeys(["Sub", "Mean"], _elementwise(Slot("term", ParameterKind.SHIFT), homogeneity=Homogeneity.ALL)),
    **dict.fromkeys(
        ["Max", "Min"], _elementwise(SHIFT, at_zero=AtZero.FINITE, commutes=True, homogeneity=Homogeneity.ALL)
    ),
    "Mul": _elementwise(SCALE, commutes=True, homogeneity=Homogeneity.ONE),
    "Div": _elementwise(SCALE, at_zero=AtZero.UNSAFE, homogeneity=Homogeneity.ONE),
    "PRelu": _elementwise(X, Slot("slope", ParameterKind.SCALE), homogeneity=Homogeneity.ONE),
    "Pow": _elementwise(X, Slot("exponent", ParameterKind.SCALE), at_zero=AtZero.FINITE),
    "SwiGLU": _elementwise(X, SCALE),
    **dict.fromkeys(["com.microsoft.BiasGelu", "com.microsoft.FastGelu"], _elementwise(X, SHIFT)),
    **dict.fromkeys(["BitwiseAnd", "BitwiseOr", "BitwiseXor"], _elementwise(X, commutes=True)),
    **dict.fromkeys(["Mod", "BitShift"], _elementwise(X, at_zero=AtZero.UNSAFE)),
    **dict.fromkeys(
        ["Where", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"],
        _elementwise(X, at_zero=AtZero.FINITE),
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
        ["HardSigmoid", "Exp", "Cos", "Cosh", "Acos", "Softplus", "Not", "BitwiseNot"], _activation(AtZero.FINITE)
    ),
    **dict.fromkeys(["LeakyRelu", "Neg"], _activation(homogeneity=Homogeneity.ONE)),
    **dict.fromkeys(["Relu", "Abs"], _activation(is_idempotent=True, homogeneity=Homogeneity.ONE)),
    "ThresholdedRelu": _activation(is_idempotent=True),
    "Clip": _activation(AtZero.FINITE, is_idempotent=True),
    "Sigmoid": replace(_activation(AtZero.FINITE), squashes=True, is_probability=True),
    **dict.fromkeys(["Log", "Reciprocal", "Acosh"], _activation(AtZero.UNSAFE)),
    **dict.fromkeys(["Identity", "Cast"], Row(axis_rules.unary, moves=True, homogeneity=Homogeneity.ONE)),
    "CastLike": Row(axis_rules.unary, moves=True, slots=(X, setting("type")), homogeneity=Homogeneity.ONE),
    "BitCast": Row(axis_rules.bit_cast),
    "Dropout": Row(
        axis_rules.dropout, moves=True, slots=(X, setting("ratio"), setting("training")), homogeneity=Homogeneity.ONE
    ),
    # normalisation
    "BatchNormalization": Row(
        axis_rules.channel_norm,
        slots=(X, SCALE, SHIFT, Slot("mean", ParameterKind.SHIFT), Slot("variance", ParameterKind.VARIANCE)),
        homogeneity=Homogeneity.ONE,
    ),
    "InstanceNormalization": Row(axis_rules.instance_norm, slots=(X, SCALE, SHIFT), compensation=WHOLE_GROUPS),
    "GroupNormalization": Row(
        axis_rules.group_norm,
        slots=(X, SCALE, SHIFT),
        at_zero=AtZero.UNSAFE,
        compensation=WHOLE_GROUPS,
        size_constants={"num_groups": size_rules.norm_groups},
    ),
    "LayerNormalization": Row(
        axis_rules.layer_norm, slots=(X, SCALE, SHIFT), at_zero=AtZero.UNSAFE, compensation=CENTRED
    ),
    **dict.fromkeys(
        ["RMSNormalization", "SimplifiedLayerNormalization"],
        Row(axis_rules.layer_norm, slots=(X, SCALE, SHIFT), at_zero=AtZero.UNSAFE, compensation=RESCALED),
    ),
    "com.microsoft.SkipLayerNormalization": Row(
        axis_rules.skip_layer_norm,
        slots=(X, SHIFT, SCALE, SHIFT, SHIFT),
        at_zero=AtZero.UNSAFE,
        compensation=replace(CENTRED, powers=None),
    ),
    "com.microsoft.SkipSimplifiedLayerNormalization": Row(
        axis_rules.skip_layer_norm,
        slots=(X, SHIFT, SCALE, SHIFT),
        at_zero=AtZero.UNSAFE,
        compensation=RESCALED,
        epsilon=1e-12,
    ),
    "LpNormalization": Row(axis_rules.lp_norm, compensation=ADDS_NOTHING),
    "MeanVarianceNormalization": Row(axis_rules.mean_variance_norm, at_zero=AtZero.UNSAFE),
    "LRN": Row(axis_rules.local_norm, at_zero=AtZero.UNSAFE),
    "Softmax": Row(
        axis_rules.softmax, at_zero=AtZero.UNSAFE, compensation=NEVER_CHOSEN, squashes=True, is_probability=True
    ),
    "LogSoftmax": Row(axis_rules.softmax, at_zero=AtZero.UNSAFE, compensation=NEVER_CHOSEN, squashes=True),
    "Hardmax": Row(axis_rules.first_of_equals, at_zero=AtZero.UNSAFE),
    # the order of an axis counts
    "TopK": Row(axis_rules.top_k, slots=(X, setting("k")), at_zero=AtZero.UNSAFE),
    **dict.fromkeys(["ArgMax", "ArgMin"], Row(axis_rules.arg_extreme, at_zero=AtZero.UNSAFE)),
    **dict.fromkeys(
        ["CumSum", "CumProd"], Row(axis_rules.cumulative, slots=(X, setting("axis")), at_zero=AtZero.UNSAFE)
    ),
    "Trilu": Row(axis_rules.triangle, slots=(X, setting("diagonal"))),
    "Det": Row(axis_rules.determinant, at_zero=AtZero.UNSAFE),
    "ReverseSequence": Row(axis_rules.reverse_sequence, slots=(X, setting("lengths"))),
    "DFT": Row(axis_rules.fourier, slots=(X, setting("length"), setting("axis"))),
    "STFT": Row(
        axis_rules.short_fourier, slots=(X, setting("step"), Slot("window", ParameterKind.SCALE), setting("length"))
    ),
    # pooling and reductions
    **dict.fromkeys(
        ["AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"],
        Row(axis_rules.pool, homogeneity=Homogeneity.ONE),
    ),
    "RoiAlign": Row(axis_rules.roi_pool, slots=(X, X, setting("samples"))),
    "MaxRoiPool": Row(axis_rules.roi_pool, slots=(X, X)),
    "GridSample": Row(axis_rules.grid_sample, slots=(X, X)),
    "AffineGrid": Row(axis_rules.affine_grid, LayerRole.ALONE, slots=(X, setting("size")), at_zero=AtZero.FINITE),
    **dict.fromkeys(["ReduceSum", "ReduceL1", "ReduceL2"], _reduction(ADDS_NOTHING, homogeneity=Homogeneity.ONE)),
    **dict.fromkeys(["ReduceSumSquare", "ReduceLogSum"], _reduction(ADDS_NOTHING)),
    "ReduceMean": _reduction(AVERAGED, homogeneity=Homogeneity.ONE),
    "ReduceProd": _reduction(Compensation("1 instead of 0 in the new units")),
    "ReduceLogSumExp": _reduction(NEVER_CHOSEN),
    **dict.fromkeys(["ReduceMax", "ReduceMin"], _reduction(None, homogeneity=Homogeneity.ONE)),
    # shape
    "Reshape": Row(
        axis_rules.reshape,
        moves=True,
        slots=(X, setting("shape")),
        size_constants={"shape": size_rules.output_sizes},
        homogeneity=Homogeneity.ONE,
    ),
    "Flatten": Row(axis_rules.reshape, moves=True, homogeneity=Homogeneity.ONE),
    **dict.fromkeys(
        ["Squeeze", "Unsqueeze"],
        Row(axis_rules.reshape, moves=True, slots=(X, setting("axes")), homogeneity=Homogeneity.ONE),
    ),
    "Transpose": Row(axis_rules.transpose, moves=True, homogeneity=Homogeneity.ONE),
    "Concat": Row(axis_rules.concat, homogeneity=Homogeneity.ANY),
    "Split": Row(
        axis_rules.split,
        slots=(X, setting("split")),
        size_constants={"split": size_rules.part_lengths},
        homogeneity=Homogeneity.ONE,
    ),
    "SplitToSequence": Row(
        axis_rules.split_to_sequence,
        slots=(X, setting("split")),
        size_constants={"split": size_rules.part_lengths},
        is_sequence=True,
    ),
    "SequenceAt": Row(axis_rules.sequence_at, slots=(X, setting("position")), is_sequence=True),
    "Slice": Row(
        axis_rules.slice_,
        slots=(X, setting("starts"), setting("ends"), setting("axes")),
        size_constants={"starts": size_rules.slice_bounds, "ends": size_rules.slice_bounds},
        homogeneity=Homogeneity.ONE,
    ),
    "Gather": Row(
        axis_rules.gather,
        LayerRole.ALONE,
        kind="table",
        slots=(Slot("table", ParameterKind.WEIGHT), setting("indices")),
        size_constants={"indices": size_rules.gathered},
    ),
    "Expand": Row(axis_rules.expand, slots=(X, setting("shape")), size_constants={"shape": size_rules.output_sizes}),
    "Pad": Row(axis_rules.pad, slots=(X, setting("pads"))),
    "Tile": Row(axis_rules.tile, slots=(X, setting("repeats"))),
    "DepthToSpace": Row(axis_rules.depth_to_space),
    "SpaceToDepth": Row(axis_rules.space_to_depth),
    "CenterCropPad": Row(
        axis_rules.resize, slots=(X, setting("shape")), size_constants={"shape": size_rules.output_sizes}
    ),
    "Resize": Row(
        axis_rules.resize,
        slots=(X, setting("roi"), setting("scales"), setting("sizes")),
        size_constants={"sizes": size_rules.output_sizes},
        homogeneity=Homogeneity.ONE,
    ),
    "Upsample": Row(axis_rules.resize, slots=(X, setting("scales"))),
    **dict.fromkeys(["Shape", "Size"], Row(axis_rules.shape_only, LayerRole.SHAPE)),
    "ConstantOfShape": Row(axis_rules.filled, LayerRole.ALONE, slots=(setting("shape"),)),
    # elements found by index or by value
    "GatherElements": Row(axis_rules.addressed, LayerRole.ALONE, slots=(X, setting("indices"))),
    "GatherND": Row(axis_rules.gather_nd, LayerRole.ALONE, slots=(X, setting("indices"))),
    **dict.fromkeys(["ScatterElements", "ScatterND"], Row(axis_rules.addressed, slots=(X, setting("indices"), X))),
    "TensorScatter": Row(axis_rules.tensor_scatter, LayerRole.ALONE, slots=(X, X, setting("places"))),
    "Col2Im": Row(axis_rules.addressed, slots=(X, setting("shape"))),
    "MaxUnpool": Row(axis_rules.addressed, slots=(X, setting("indices"), setting("shape"))),
    "OneHot": Row(
        axis_rules.one_hot,
        LayerRole.ALONE,
        slots=(X, setting("depth"), setting("values")),
        at_zero=AtZero.FINITE,
    ),
    **dict.fromkeys(
        ["NonZero", "Unique", "Compress"],
        Row(axis_rules.chosen_by_value, LayerRole.ALONE, slots=(X, setting("choice"))),
    ),
    "NonMaxSuppression": Row(axis_rules.chosen_by_value, LayerRole.ALONE, slots=(X, X, setting("bound"))),
    # made from sizes, settings or chance
    "Constant": Row(axis_rules.made, LayerRole.ALONE),
    "EyeLike": Row(axis_rules.made, LayerRole.SHAPE),
    **dict.fromkeys(
        ["Range", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"],
        Row(axis_rules.made, LayerRole.ALONE, slots=(setting("size"),), at_zero=AtZero.FINITE),
    ),
    **dict.fromkeys(["RandomNormal", "RandomUniform"], Row(axis_rules.made, LayerRole.ALONE, at_zero=AtZero.FINITE)),
    **dict.fromkeys(
        ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"],
        Row(axis_rules.random, LayerRole.ALONE, at_zero=AtZero.FINITE),
    ),
    # losses
    "NegativeLogLikelihoodLoss": Row(
        axis_rules.loss, LayerRole.ALONE, slots=(X, setting("labels"), SCALE), at_zero=AtZero.FINITE
    ),
    "SoftmaxCrossEntropyLoss": Row(
        axis_rules.loss, LayerRole.ALONE, slots=(X, setting("labels"), SCALE), at_zero=AtZero.UNSAFE
    ),
}
ROWS: Mapping[str, Row] = {op: replace(row, since=SINCE.get(op)) for op, row in _ROWS.items()}


def row_of(node: Node, table: Mapping[str, Row] | None = None) -> Row | None:
    """The row of a node's operator; None where nothing is known of it."""
    return (ROWS if table is None else table).get(node.op)


def unit_axis(node: Node, slot: int, rank: int) -> int:
    """The axis of a contraction's output that holds the units which its weight, of the given rank, produces."""
    row = ROWS[node.op]
    produces = row.slot(slot).produces
    return row.channel if produces is None else produces(node, rank)


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
