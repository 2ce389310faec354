"""What ATen's operators are in ONNX's vocabulary, as torch.export leaves them: before any decomposition.

Every function gets the site and the arguments in the order of the operator's schema. Sources: ATen's schemas, and the
ONNX operator specification. What stands here but in ONNX's operators of a later opset is written out.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch

from mal_graph.errors import UnsupportedModel

from .lowering import Number, Site, Size, Wire, lowers, numpy_type

Several = tuple[str, ...]
Ints = Sequence[int]
LARGEST = 2**62  # stands for "to the end" in a slice


# --- elementwise ------------------------------------------------------------------------------------------------

UNARY = {
    **{
        op.lower(): op
        for op in (
            *("Relu", "Sigmoid", "Tanh", "Mish", "HardSwish"),
            *("Abs", "Neg", "Sign", "Floor", "Ceil", "Reciprocal", "Sqrt", "Exp", "Log", "Erf"),
            *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "IsNaN", "IsInf"),
        )
    },
    "round.default": "Round",
    "logical_not": "Not",
    "linalg_det": "Det",
}


def unary(op: str, at: Site, x: Wire) -> str:
    """An operator of one tensor."""
    given = at.as_type(x, at.dtype) if at.dtype.is_floating_point else x
    return at.op(op, given)


for packet, onnx_op in UNARY.items():
    lowers(packet)(partial(unary, onnx_op))


@lowers("bitwise_not")
def bitwise_not(at: Site, x: Wire) -> str:
    return at.op("Not" if x.dtype == torch.bool else "BitwiseNot", x)


@lowers("relu6")
def relu6(at: Site, x: Wire) -> str:
    return clamp(at, x, 0, 6)


@lowers("rsqrt")
def rsqrt(at: Site, x: Wire) -> str:
    return at.op("Reciprocal", at.op("Sqrt", x))


@lowers("square")
def square(at: Site, x: Wire) -> str:
    return at.op("Mul", x, x)


@lowers("log1p")
def log1p(at: Site, x: Wire) -> str:
    return at.op("Log", at.op("Add", x, at.number(1)))


@lowers("expm1")
def expm1(at: Site, x: Wire) -> str:
    return at.op("Sub", at.op("Exp", x), at.number(1))


@lowers("silu")
def silu(at: Site, x: Wire) -> str:
    return at.op("Mul", x, at.op("Sigmoid", x))


@lowers("log_sigmoid")
def log_sigmoid(at: Site, x: Wire) -> str:
    return at.op("Neg", at.op("Softplus", at.op("Neg", x)))


@lowers("gelu")
def gelu(at: Site, x: Wire, *, approximate: str = "none") -> str:
    return at.op("Gelu", x, approximate=approximate)


@lowers("leaky_relu")
def leaky_relu(at: Site, x: Wire, slope: float) -> str:
    return at.op("LeakyRelu", x, alpha=float(slope))


@lowers("elu")
def elu(at: Site, x: Wire, alpha: float, scale: float, input_scale: float) -> str:
    if input_scale != 1:
        raise UnsupportedModel(f"elu with input_scale {input_scale}")
    if scale != 1:
        return at.op("Selu", x, alpha=float(alpha), gamma=float(scale))
    return at.op("Elu", x, alpha=float(alpha))


@lowers("selu")
def selu(at: Site, x: Wire) -> str:
    return at.op("Selu", x)


@lowers("celu")
def celu(at: Site, x: Wire, alpha: float) -> str:
    return at.op("Celu", x, alpha=float(alpha))


@lowers("hardsigmoid")
def hardsigmoid(at: Site, x: Wire) -> str:
    return at.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@lowers("hardtanh")
def hardtanh(at: Site, x: Wire, low: Number, high: Number) -> str:
    return clamp(at, x, low, high)


@lowers("softplus")
def softplus(at: Site, x: Wire, beta: float, threshold: float) -> str:
    """`threshold` only spares torch the exponential where the result is the input."""
    if beta == 1:
        return at.op("Softplus", x)
    scaled = at.op("Softplus", at.op("Mul", x, at.number(beta)))
    return at.op("Div", scaled, at.number(beta))


@lowers("hardshrink")
def hardshrink(at: Site, x: Wire, bound: float) -> str:
    return at.op("Shrink", x, lambd=float(bound), bias=0.0)


@lowers("softshrink")
def softshrink(at: Site, x: Wire, bound: float) -> str:
    return at.op("Shrink", x, lambd=float(bound), bias=float(bound))


@lowers("threshold")
def threshold(at: Site, x: Wire, bound: Number, value: Number) -> str:
    return at.op("Where", at.op("Greater", x, at.number(bound)), x, at.number(value))


@lowers("prelu")
def prelu(at: Site, x: Wire, slope: Wire) -> str:
    if slope.rank == 0 or slope.side(0) == 1 or x.rank <= 2:
        return at.op("PRelu", x, slope)
    return at.op("PRelu", x, at.unsqueeze(slope, range(1, x.rank - 1)))


@lowers("clamp", "clip")
def clamp(at: Site, x: Wire, low: Any = None, high: Any = None) -> str:
    found: Wire | str = at.as_type(x, at.dtype)
    if isinstance(low, Wire) or isinstance(high, Wire):
        for op, bound in (("Max", low), ("Min", high)):
            found = found if bound is None else at.op(op, found, at.as_type(bound, at.dtype))
        return str(found)
    return at.op("Clip", found, *(None if bound is None else at.number(bound) for bound in (low, high)))


@lowers("clamp_min")
def clamp_min(at: Site, x: Wire, low: Any) -> str:
    return clamp(at, x, low)


@lowers("clamp_max")
def clamp_max(at: Site, x: Wire, high: Any) -> str:
    return clamp(at, x, None, high)


def arithmetic(op: str, at: Site, a: Wire | Number, b: Wire | Number, alpha: Number = 1) -> str:
    """Both operands in the type of the result; the second times `alpha`."""
    second = at.as_type(b, at.dtype)
    if alpha != 1:
        second = at.op("Mul", second, at.number(alpha))
    return at.op(op, at.as_type(a, at.dtype), second)


for packet, onnx_op in {"add": "Add", "sub": "Sub", "mul": "Mul", "maximum": "Max", "minimum": "Min"}.items():
    lowers(packet)(partial(arithmetic, onnx_op))
lowers("max.other")(partial(arithmetic, "Max"))
lowers("min.other")(partial(arithmetic, "Min"))


@lowers("rsub")
def rsub(at: Site, a: Wire | Number, b: Wire | Number, alpha: Number = 1) -> str:
    return arithmetic("Sub", at, b, a, alpha)


@lowers("div", "divide", "true_divide")
def div(at: Site, a: Wire | Number, b: Wire | Number, *, rounding_mode: str | None = None) -> str:
    if rounding_mode is None or at.dtype.is_floating_point:
        found = arithmetic("Div", at, a, b)
        if rounding_mode == "floor":
            return at.op("Floor", found)
        return (
            found if rounding_mode is None else at.op("Mul", at.op("Floor", at.op("Abs", found)), at.op("Sign", found))
        )
    return arithmetic("Div", at, a, b) if rounding_mode == "trunc" else floor_divide(at, a, b)


@lowers("floor_divide")
def floor_divide(at: Site, a: Wire | Number, b: Wire | Number) -> str:
    if at.dtype.is_floating_point:
        return at.op("Floor", arithmetic("Div", at, a, b))
    exact = at.op("Div", at.as_type(a, torch.float64), at.as_type(b, torch.float64))
    return at.cast(at.op("Floor", exact), at.dtype)


@lowers("remainder")
def remainder(at: Site, a: Wire | Number, b: Wire | Number) -> str:
    """The sign is the divisor's; of floats, ONNX's Mod only knows the dividend's."""
    if not at.dtype.is_floating_point:
        return arithmetic("Mod", at, a, b)
    x, y = at.as_type(a, at.dtype), at.as_type(b, at.dtype)
    return at.op("Sub", x, at.op("Mul", at.op("Floor", at.op("Div", x, y)), y))


@lowers("fmod")
def fmod(at: Site, a: Wire | Number, b: Wire | Number) -> str:
    return at.op("Mod", at.as_type(a, at.dtype), at.as_type(b, at.dtype), fmod=1)


@lowers("pow")
def power(at: Site, a: Wire | Number, b: Wire | Number) -> str:
    if isinstance(a, Wire) and b == 2:
        return at.op("Mul", at.as_type(a, at.dtype), at.as_type(a, at.dtype))
    return arithmetic("Pow", at, a, b)


@lowers("addcmul")
def addcmul(at: Site, x: Wire, a: Wire, b: Wire, *, value: Number = 1) -> str:
    product = at.op("Mul", a, b)
    return at.op("Add", x, product if value == 1 else at.op("Mul", product, at.number(value)))


@lowers("addcdiv")
def addcdiv(at: Site, x: Wire, a: Wire, b: Wire, *, value: Number = 1) -> str:
    quotient = at.op("Div", a, b)
    return at.op("Add", x, quotient if value == 1 else at.op("Mul", quotient, at.number(value)))


@lowers("lerp")
def lerp(at: Site, x: Wire, end: Wire, weight: Wire | Number) -> str:
    return at.op("Add", x, at.op("Mul", at.op("Sub", end, x), at.as_type(weight, at.dtype)))


def comparison(op: str, at: Site, a: Wire | Number, b: Wire | Number) -> str:
    """Both operands in the type they are compared in."""
    kind = common_type(a, b)
    return at.op(op, at.as_type(a, kind), at.as_type(b, kind))


def common_type(*operands: Wire | Number) -> torch.dtype:
    wires = [value.dtype for value in operands if isinstance(value, Wire)]
    kind = reduce(torch.promote_types, wires) if wires else torch.int64
    if any(isinstance(value, float) for value in operands) and not kind.is_floating_point:
        return torch.get_default_dtype()
    return torch.int64 if kind == torch.bool and any(type(value) is int for value in operands) else kind


for packet, onnx_op in {
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}.items():
    lowers(packet)(partial(comparison, onnx_op))


@lowers("ne")
def ne(at: Site, a: Wire | Number, b: Wire | Number) -> str:
    return at.op("Not", comparison("Equal", at, a, b))


def logical(op: str, at: Site, a: Wire | Number, b: Wire | Number) -> str:
    return at.op(op, at.as_type(a, torch.bool), at.as_type(b, torch.bool))


def bitwise(op: str, at: Site, a: Wire | Number, b: Wire | Number) -> str:
    if at.dtype == torch.bool:
        return logical(op, at, a, b)
    return at.op(f"Bitwise{op}", at.as_type(a, at.dtype), at.as_type(b, at.dtype))


for packet, onnx_op in {"and": "And", "or": "Or", "xor": "Xor"}.items():
    lowers(f"logical_{packet}")(partial(logical, onnx_op))
    lowers(f"bitwise_{packet}", f"__{packet}__")(partial(bitwise, onnx_op))


@lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(at: Site, choice: Wire, a: Wire | Number, b: Wire | Number) -> str:
    return at.op("Where", at.as_type(choice, torch.bool), at.as_type(a, at.dtype), at.as_type(b, at.dtype))


@lowers("masked_fill")
def masked_fill(at: Site, x: Wire, mask: Wire, value: Wire | Number) -> str:
    return at.op("Where", mask, at.as_type(value, at.dtype), x)


# --- what changes no value --------------------------------------------------------------------------------------


@lowers("contiguous", "clone", "alias", "detach", "lift_fresh_copy", "positive", "resolve_conj", "resolve_neg")
def same(at: Site, x: Wire, *unused: Any, **also_unused: Any) -> str:
    """What evaluation leaves as it is."""
    return x.name


@lowers("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(at: Site, x: Wire, share: float, training: bool) -> str:
    check_dropout(share if training else 0.0)
    return x.name


def check_dropout(share: float) -> None:
    """Refuse what is dropped at random even in evaluation: a merge could not be compared with anything."""
    if share > 0:
        raise UnsupportedModel(f"it drops {share:.0%} at random in evaluation mode too: pass training=self.training")


@lowers("to", "type_as", "_to_copy")
def to(at: Site, x: Wire, *unused: Any, **also_unused: Any) -> str:
    return at.as_type(x, at.dtype)


# --- contractions -----------------------------------------------------------------------------------------------


@lowers("linear")
def linear(at: Site, x: Wire, weight: Wire, bias: Wire | None = None) -> str:
    if x.rank == 2:
        return at.op("Gemm", x, weight, bias, transB=1)
    product = at.op("MatMul", x, at.transpose(weight, (1, 0)) if weight.rank == 2 else weight)
    return product if bias is None else at.op("Add", product, bias)


@lowers("matmul", "mm", "bmm", "mv", "dot")
def matmul(at: Site, a: Wire, b: Wire) -> str:
    return at.op("MatMul", a, b)


@lowers("addmm")
def addmm(at: Site, x: Wire, a: Wire, b: Wire, *, beta: Number = 1, alpha: Number = 1) -> str:
    return at.op("Gemm", a, b, x, alpha=float(alpha), beta=float(beta))


@lowers("baddbmm")
def baddbmm(at: Site, x: Wire, a: Wire, b: Wire, *, beta: Number = 1, alpha: Number = 1) -> str:
    product = at.op("MatMul", a, b)
    product = product if alpha == 1 else at.op("Mul", product, at.number(alpha))
    return at.op("Add", x if beta == 1 else at.op("Mul", x, at.number(beta)), product)


@lowers("einsum")
def einsum(at: Site, equation: str, operands: Sequence[Wire], *, path: Any = None) -> str:
    return at.op("Einsum", *operands, equation=equation)


def batched(at: Site, x: Wire, spatial: int, run: Callable[[Wire | str], Any]) -> Any:
    """Run an operator that needs an axis of samples on a tensor that may lack it."""
    if x.rank == spatial + 2:
        return run(x)
    found = run(at.unsqueeze(x, [0]))
    return tuple(at.squeeze(name, [0]) for name in found) if isinstance(found, tuple) else at.squeeze(found, [0])


def spread(values: Any, count: int) -> list[int]:
    """A setting given once for all axes, or for each."""
    found = [values] if isinstance(values, int) else list(values)
    return [int(value) for value in (found * count if len(found) == 1 else found)]


@lowers("conv1d", "conv2d", "conv3d")
def conv(
    at: Site,
    x: Wire,
    weight: Wire,
    bias: Wire | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    spatial = weight.rank - 2
    kernel = [weight.side(axis) for axis in range(2, weight.rank)]
    steps = spread(dilation, spatial)
    if padding == "same":  # what is left over goes to the end
        total = [step * (size - 1) for step, size in zip(steps, kernel, strict=True)]
        pads = [size // 2 for size in total] + [size - size // 2 for size in total]
    else:
        pads = spread(0 if padding == "valid" else padding, spatial) * 2

    def run(given: Wire | str) -> str:
        return at.op(
            "Conv",
            given,
            weight,
            bias,
            kernel_shape=kernel,
            strides=spread(stride, spatial),
            pads=pads,
            dilations=steps,
            group=groups,
        )

    found: str = batched(at, x, spatial, run)
    return found


@lowers("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    at: Site,
    x: Wire,
    weight: Wire,
    bias: Wire | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str:
    spatial = weight.rank - 2

    def run(given: Wire | str) -> str:
        return at.op(
            "ConvTranspose",
            given,
            weight,
            bias,
            kernel_shape=[weight.side(axis) for axis in range(2, weight.rank)],
            strides=spread(stride, spatial),
            pads=spread(padding, spatial) * 2,
            output_padding=spread(output_padding, spatial),
            dilations=spread(dilation, spatial),
            group=groups,
        )

    found: str = batched(at, x, spatial, run)
    return found


@lowers("convolution")
def convolution(
    at: Site,
    x: Wire,
    weight: Wire,
    bias: Wire | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> str:
    if transposed:
        return conv_transpose(at, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(at, x, weight, bias, stride, padding, dilation, groups)


@lowers("scaled_dot_product_attention")
def attention(
    at: Site,
    query: Wire,
    key: Wire,
    value: Wire,
    mask: Wire | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> str:
    """softmax(Q K^T / sqrt(d) + mask) V, written out; with fewer heads of keys than of queries, each serves several."""
    check_dropout(dropout)
    if enable_gqa:
        times = query.side(-3) // key.side(-3)
        keys, values = (repeated(at, x.name, x.shape, x.rank - 3, times) for x in (key, value))
    else:
        keys, values = key.name, value.name
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    factor = float(scale) if scale is not None else query.side(-1) ** -0.5
    scores = at.op("Mul", at.op("MatMul", query, at.transpose(keys, order)), at.number(factor, query.dtype))
    if is_causal:
        size = at.op("Concat", at.size(query.shape[-2]), at.size(key.shape[-2]), axis=0)
        kept = at.op("Trilu", at.cast(at.op("Expand", at.constant(1), size), torch.bool), upper=0)
        scores = at.op("Where", kept, scores, at.number(float("-inf"), query.dtype))
    if mask is not None and mask.dtype == torch.bool:
        scores = at.op("Where", mask, scores, at.number(float("-inf"), query.dtype))
    elif mask is not None:
        scores = at.op("Add", scores, mask)
    return at.op("MatMul", at.op("Softmax", scores, axis=-1), values)


# --- normalisation ----------------------------------------------------------------------------------------------


def per_unit(at: Site, given: Wire | None, value: float, like: Wire, shape: Sequence[Size]) -> Wire | str:
    """A vector of the module, or the constant that stands for none."""
    if given is not None:
        return given
    sizes = [size for size in shape if isinstance(size, int)]
    return at.constant(np.full(sizes, value), numpy_type(like.dtype))


@lowers("batch_norm")
def batch_norm(
    at: Site,
    x: Wire,
    weight: Wire | None,
    bias: Wire | None,
    mean: Wire | None,
    variance: Wire | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> str:
    if training or mean is None or variance is None:
        return batch_statistics(at, x, weight, bias, eps)
    units = [x.shape[1]]
    return at.op(
        "BatchNormalization",
        x,
        per_unit(at, weight, 1.0, x, units),
        per_unit(at, bias, 0.0, x, units),
        mean,
        variance,
        epsilon=float(eps),
    )


@lowers("_native_batch_norm_legit_no_training")
def native_batch_norm(
    at: Site, x: Wire, weight: Wire | None, bias: Wire | None, mean: Wire, variance: Wire, momentum: float, eps: float
) -> Several:
    found = batch_norm(at, x, weight, bias, mean, variance, False, momentum, eps)
    return (found, found, found)  # the statistics it also gives are empty


def batch_statistics(at: Site, x: Wire, weight: Wire | None, bias: Wire | None, eps: float) -> str:
    """A BatchNorm that keeps no statistics takes those of the batch."""
    axes = at.constant([axis for axis in range(x.rank) if axis != 1])
    centred = at.op("Sub", x, at.op("ReduceMean", x, axes, keepdims=1))
    power_ = at.op("ReduceMean", at.op("Mul", centred, centred), axes, keepdims=1)
    found = at.op("Div", centred, at.op("Sqrt", at.op("Add", power_, at.number(eps))))
    behind = range(1, x.rank - 1)
    for op, vector in (("Mul", weight), ("Add", bias)):
        if vector is not None:
            found = at.op(op, found, at.unsqueeze(vector, behind) if behind else vector)
    return found


@lowers("instance_norm")
def instance_norm(
    at: Site,
    x: Wire,
    weight: Wire | None,
    bias: Wire | None,
    mean: Wire | None,
    variance: Wire | None,
    by_sample: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> str:
    if not by_sample:
        return batch_norm(at, x, weight, bias, mean, variance, False, momentum, eps)
    scale, shift = (per_unit(at, given, value, x, [x.shape[1]]) for given, value in ((weight, 1.0), (bias, 0.0)))
    return at.op("InstanceNormalization", x, scale, shift, epsilon=float(eps))


@lowers("group_norm")
def group_norm(
    at: Site,
    x: Wire,
    groups: int,
    weight: Wire | None = None,
    bias: Wire | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> str:
    scale, shift = (per_unit(at, given, value, x, [x.shape[1]]) for given, value in ((weight, 1.0), (bias, 0.0)))
    return at.op("GroupNormalization", x, scale, shift, num_groups=groups, epsilon=float(eps))


@lowers("layer_norm")
def layer_norm(
    at: Site,
    x: Wire,
    shape: Ints,
    weight: Wire | None = None,
    bias: Wire | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> str:
    scale = per_unit(at, weight, 1.0, x, shape)
    return at.op("LayerNormalization", x, scale, bias, axis=-len(shape), epsilon=float(eps))


@lowers("rms_norm")
def rms_norm(at: Site, x: Wire, shape: Ints, weight: Wire | None = None, eps: float | None = None) -> str:
    """RMSNormalization is of opset 23."""
    floor = torch.finfo(x.dtype).eps if eps is None else eps
    axes = at.constant(list(range(-len(shape), 0)))
    mean = at.op("ReduceMean", at.op("Mul", x, x), axes, keepdims=1)
    found = at.op("Div", x, at.op("Sqrt", at.op("Add", mean, at.number(floor))))
    return found if weight is None else at.op("Mul", found, weight)


@lowers("softmax", "_softmax")
def softmax(at: Site, x: Wire, axis: int, *unused: Any) -> str:
    return at.op("Softmax", at.as_type(x, at.dtype), axis=axis)


@lowers("log_softmax", "_log_softmax")
def log_softmax(at: Site, x: Wire, axis: int, *unused: Any) -> str:
    return at.op("LogSoftmax", at.as_type(x, at.dtype), axis=axis)


@lowers("linalg_vector_norm", "norm")
def vector_norm(
    at: Site, x: Wire, order: Any = 2, axes: Any = None, keep: bool = False, *, dtype: torch.dtype | None = None
) -> str:
    found = {1: "ReduceL1", 2: "ReduceL2"}.get(2 if order is None else order)
    if found is None:
        raise UnsupportedModel(f"a norm of order {order}")
    return reduction(found, at, x, axes, keep)


# --- reductions -------------------------------------------------------------------------------------------------


def reduction(op: str, at: Site, x: Wire, axes: Any = None, keep: bool = False, *, dtype: Any = None) -> str:
    """Over some axes, or all of them if none are named; no axes of a scalar."""
    chosen = [] if axes is None else spread(axes, 1)
    given = at.as_type(x, at.dtype)
    if x.rank == 0:
        return given
    return at.op(op, given, *([at.constant(chosen)] if chosen else []), keepdims=int(keep))


for packet, onnx_op in {
    "mean": "ReduceMean",
    "sum": "ReduceSum",
    "amax": "ReduceMax",
    "amin": "ReduceMin",
    "logsumexp": "ReduceLogSumExp",
    "prod": "ReduceProd",
}.items():
    lowers(packet)(partial(reduction, onnx_op))
lowers("max.default")(partial(reduction, "ReduceMax"))
lowers("min.default")(partial(reduction, "ReduceMin"))


@lowers("any", "all")
def any_or_all(at: Site, x: Wire, axes: Any = None, keep: bool = False) -> str:
    op = "ReduceMax" if "any" in str(at.node.target) else "ReduceMin"
    chosen = [] if axes is None else [at.constant(spread(axes, 1))]
    counted = at.cast(at.as_type(x, torch.bool), torch.int32)
    return at.cast(at.op(op, counted, *chosen, keepdims=int(keep)), torch.bool)


def extreme(op: str, arg: str, at: Site, x: Wire, axis: int, keep: bool = False) -> Several:
    """The values and where they are."""
    values = at.op(op, x, at.constant([axis]), keepdims=int(keep))
    return values, at.op(arg, x, axis=axis, keepdims=int(keep))


lowers("max.dim")(partial(extreme, "ReduceMax", "ArgMax"))
lowers("min.dim")(partial(extreme, "ReduceMin", "ArgMin"))


def place_of_extreme(op: str, at: Site, x: Wire, axis: int | None = None, keep: bool = False) -> str:
    if axis is None:
        return at.squeeze(at.op(op, at.op("Reshape", x, at.constant([-1])), axis=0, keepdims=0), [])
    return at.op(op, x, axis=axis, keepdims=int(keep))


lowers("argmax")(partial(place_of_extreme, "ArgMax"))
lowers("argmin")(partial(place_of_extreme, "ArgMin"))


@lowers("var.correction", "var.dim", "var.default")
def var(at: Site, x: Wire, axes: Any = None, *options: Any, **named_options: Any) -> str:
    return spread_of(at, x, axes, *options, **named_options)[0]


@lowers("std.correction", "std.dim", "std.default")
def std(at: Site, x: Wire, axes: Any = None, *options: Any, **named_options: Any) -> str:
    return at.op("Sqrt", spread_of(at, x, axes, *options, **named_options)[0])


@lowers("var_mean.correction", "var_mean.dim")
def var_mean(at: Site, x: Wire, axes: Any = None, *options: Any, **named_options: Any) -> Several:
    return spread_of(at, x, axes, *options, **named_options)


def spread_of(at: Site, x: Wire, axes: Any = None, *options: Any, **named_options: Any) -> Several:
    """Variance and mean; of `n` values torch divides by `n - correction`. Of the overloads, the older ones say
    `unbiased, keepdim`."""
    if isinstance(axes, bool):  # var.default: unbiased alone
        axes, options = None, (axes,)
    correction = named_options.get("correction", options[0] if options else 1)
    keep = named_options.get("keepdim", options[1] if len(options) > 1 else False)
    correction = 1 if correction is None else int(correction)
    chosen = list(range(x.rank)) if axes is None else [axis % x.rank for axis in spread(axes, 1)]
    along = at.constant(chosen)
    mean = at.op("ReduceMean", x, along, keepdims=1)
    centred = at.op("Sub", x, mean)
    power_ = at.op("ReduceMean", at.op("Mul", centred, centred), along, keepdims=int(keep))
    if correction:
        count = prod(x.side(axis) for axis in chosen)
        power_ = at.op("Mul", power_, at.number(count / (count - correction), x.dtype))
    return power_, mean if keep else at.squeeze(mean, chosen)


@lowers("cumsum")
def cumsum(at: Site, x: Wire, axis: int, *, dtype: Any = None) -> str:
    return at.op("CumSum", at.as_type(x, at.dtype), at.constant(axis))


@lowers("diff")
def diff(at: Site, x: Wire, n: int = 1, axis: int = -1, before: Wire | None = None, after: Wire | None = None) -> str:
    if n != 1:
        raise UnsupportedModel(f"a difference of order {n}")
    parts = [part for part in (before, x, after) if part is not None]
    whole = parts[0].name if len(parts) == 1 else at.op("Concat", *parts, axis=axis)
    later, sooner = at.slice(whole, axis, 1, LARGEST), at.slice(whole, axis, 0, -1)
    return at.op("Xor", later, sooner) if x.dtype == torch.bool else at.op("Sub", later, sooner)


@lowers("topk")
def topk(at: Site, x: Wire, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> Several:
    return at.ops("TopK", 2, x, at.constant([k]), axis=axis, largest=int(largest), sorted=int(ordered))


@lowers("sort.default", "sort.stable")
def sort(
    at: Site, x: Wire, *options: Any, dim: int | None = None, descending: bool | None = None, **rest: Any
) -> Several:
    axis = dim if dim is not None else next((o for o in options if type(o) is int), -1)
    down = descending if descending is not None else next((o for o in options[1:] if isinstance(o, bool)), False)
    return at.ops("TopK", 2, x, at.constant([x.side(axis)]), axis=axis, largest=int(down), sorted=1)


# --- pooling ----------------------------------------------------------------------------------------------------


@lowers("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    at: Site, x: Wire, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> str:
    return pooled(at, x, "MaxPool", kernel, stride, padding, ceil, dilations=dilation)


@lowers("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(at: Site, x: Wire, *settings: Any) -> Several:
    return (max_pool(at, x, *settings),)


@lowers("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    at: Site,
    x: Wire,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> str:
    found = pooled(at, x, "AveragePool", kernel, stride, padding, ceil, count_include_pad=int(count_include_pad))
    if divisor is None:
        return found
    return at.op("Mul", found, at.number(prod(spread(kernel, spatial_rank(at))) / divisor))


def spatial_rank(at: Site) -> int:
    """How many axes a pooling operator slides over, by its name."""
    return next(rank for rank in (1, 2, 3) if f"pool{rank}d" in str(at.node.target))


def pooled(
    at: Site, x: Wire, op: str, kernel: Any, stride: Any, padding: Any, ceil: bool, dilations: Any = None, **more: Any
) -> str:
    spatial = spatial_rank(at)
    sizes = spread(kernel, spatial)

    def run(given: Wire | str) -> str:
        return at.op(
            op,
            given,
            kernel_shape=sizes,
            strides=spread(stride, spatial) if stride not in (None, []) else sizes,
            pads=spread(padding, spatial) * 2,
            ceil_mode=int(ceil),
            dilations=None if dilations is None else spread(dilations, spatial),
            **more,
        )

    found: str = batched(at, x, spatial, run)
    return found


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(at: Site, x: Wire, sizes: Any) -> str:
    return adaptive(at, x, sizes, "ReduceMean", "AveragePool", "GlobalAveragePool")


@lowers("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(at: Site, x: Wire, sizes: Any) -> Several:
    return (adaptive(at, x, sizes, "ReduceMax", "MaxPool", "GlobalMaxPool"),)


def adaptive(at: Site, x: Wire, sizes: Any, reducer: str, pool: str, whole: str) -> str:
    """Windows of equal size where the lengths allow it; else axis by axis each window by itself, which may overlap:
    a mean over a box is the mean of means, a maximum the maximum of maxima."""
    spatial = spatial_rank(at)
    wanted = spread(sizes, spatial)
    axes = list(range(x.rank - spatial, x.rank))
    if all(size == 1 for size in wanted) and x.rank == spatial + 2:
        return at.op(whole, x)
    lengths = [x.side(axis) for axis in axes]
    if x.rank == spatial + 2 and all(length % size == 0 for length, size in zip(lengths, wanted, strict=True)):
        kernel = [length // size for length, size in zip(lengths, wanted, strict=True)]
        return at.op(pool, x, kernel_shape=kernel, strides=kernel)
    found: Wire | str = x
    for axis, length, size in zip(axes, lengths, wanted, strict=True):
        windows = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        along = at.constant([axis])
        if length != size:
            parts = [at.op(reducer, at.slice(found, axis, *window), along, keepdims=1) for window in windows]
            found = at.op("Concat", *parts, axis=axis)
    return found if isinstance(found, str) else at.op("Identity", found)


# --- shape ------------------------------------------------------------------------------------------------------


@lowers("view.default", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as")
def reshape(at: Site, x: Wire, *unused: Any) -> str:
    return x.name if same_shape(x.shape, at.shape) else at.reshape(x, at.shape)


def same_shape(a: Sequence[Size], b: Sequence[Size]) -> bool:
    """Whether two shapes are known to be equal."""
    return len(a) == len(b) and all(str(x) == str(y) for x, y in zip(a, b, strict=True))


@lowers("squeeze")
def squeeze(at: Site, x: Wire, axes: Any = None) -> str:
    chosen = range(x.rank) if axes is None else [axis % x.rank for axis in spread(axes, 1)]
    gone = [axis for axis in chosen if is_one(x.shape[axis])]
    return at.squeeze(x, gone) if gone else x.name


@lowers("unsqueeze")
def unsqueeze(at: Site, x: Wire, axis: int) -> str:
    return at.unsqueeze(x, [axis])


@lowers("permute")
def permute(at: Site, x: Wire, order: Ints) -> str:
    return at.transpose(x, [axis % x.rank for axis in order])


@lowers("transpose", "swapaxes", "swapdims")
def transpose(at: Site, x: Wire, a: int, b: int) -> str:
    order = list(range(x.rank))
    if order:
        order[a], order[b] = order[b], order[a]
    return at.transpose(x, order)


@lowers("t", "numpy_T", "mT", "adjoint")
def turned(at: Site, x: Wire) -> str:
    order = list(range(x.rank))
    return at.transpose(x, order[::-1] if "numpy_T" in str(at.node.target) else [*order[:-2], *order[-2:][::-1]])


@lowers("movedim")
def movedim(at: Site, x: Wire, source: Any, target: Any) -> str:
    places = dict(zip([t % x.rank for t in spread(target, 1)], [s % x.rank for s in spread(source, 1)], strict=True))
    left = iter([axis for axis in range(x.rank) if axis not in places.values()])
    return at.transpose(x, [places[axis] if axis in places else next(left) for axis in range(x.rank)])


@lowers("expand", "expand_as", "broadcast_to")
def expand(at: Site, x: Wire, *unused: Any, **also_unused: Any) -> str:
    return x.name if same_shape(x.shape, at.shape) else at.op("Expand", x, at.sizes(at.shape))


@lowers("repeat", "tile")
def repeat(at: Site, x: Wire, times: Sequence[Size]) -> str:
    more = len(times) - x.rank
    given: Wire | str = at.unsqueeze(x, range(more)) if more > 0 else x
    return at.op("Tile", given, at.sizes([*[1] * -more, *times]))


@lowers("repeat_interleave.self_int")
def repeat_interleave(at: Site, x: Wire, times: int, axis: int | None = None, *, output_size: Any = None) -> str:
    if axis is None:
        raise UnsupportedModel("repeat_interleave without an axis")
    return repeated(at, x.name, x.shape, axis % x.rank, times)


def repeated(at: Site, x: str, shape: Sequence[Size], axis: int, times: int) -> str:
    """Each index of an axis several times in a row."""
    wide = [*shape[: axis + 1], times, *shape[axis + 1 :]]
    more = at.op("Expand", at.unsqueeze(x, [axis + 1]), at.sizes(wide))
    size = shape[axis]
    return at.reshape(more, [*shape[:axis], size * times, *shape[axis + 1 :]])


@lowers("cat", "concat")
def cat(at: Site, parts: Sequence[Wire], axis: int = 0) -> str:
    kept = [part for part in parts if not (part.rank == 1 and part.shape[0] == 0 and at.made.ndim != 1)]
    return at.op("Concat", *(at.as_type(part, at.dtype) for part in kept), axis=axis)


@lowers("stack")
def stack(at: Site, parts: Sequence[Wire], axis: int = 0) -> str:
    return at.op("Concat", *(at.unsqueeze(at.as_type(part, at.dtype), [axis]) for part in parts), axis=axis)


@lowers("split", "chunk", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(at: Site, x: Wire, sizes: Any, axis: int = 0) -> Several:
    lengths = [part.shape[axis] for part in at.made]
    if len(lengths) == 1:
        return (at.op("Identity", x),)
    return at.ops("Split", len(lengths), x, at.sizes(lengths), axis=axis)


@lowers("unbind")
def unbind(at: Site, x: Wire, axis: int = 0) -> Several:
    parts = at.ops("Split", len(at.made), x, at.constant([1] * len(at.made)), axis=axis)
    return tuple(at.squeeze(part, [axis]) for part in parts)


@lowers("select")
def select(at: Site, x: Wire, axis: int, index: Size) -> str:
    place = at.constant(index) if isinstance(index, int) else at.squeeze(at.size(index), [0])
    return at.op("Gather", x, place, axis=axis)


@lowers("slice")
def slice_(at: Site, x: Wire, axis: int = 0, start: Size | None = None, end: Size | None = None, step: int = 1) -> str:
    if same_shape(x.shape, at.shape) and step == 1:
        return x.name
    return at.slice(x, axis, 0 if start is None else start, LARGEST if end is None else at_most(end), step)


def at_most(end: Size) -> Size:
    return min(end, LARGEST) if isinstance(end, int) else end


@lowers("narrow")
def narrow(at: Site, x: Wire, axis: int, start: Size, length: Size) -> str:
    return at.slice(x, axis, start, start + length)


@lowers("index_select")
def index_select(at: Site, x: Wire, axis: int, index: Wire) -> str:
    return at.op("Gather", x, index, axis=axis)


@lowers("index")
def index(at: Site, x: Wire, indices: Sequence[Wire | None]) -> str:
    """Indices on one axis are a Gather. Indices on the first few axes together name elements."""
    given = [axis for axis, found in enumerate(indices) if found is not None]
    found = [indices[axis] for axis in given]
    if any(wire is not None and wire.dtype == torch.bool for wire in found):
        raise UnsupportedModel("indexing by a mask makes a tensor of unknown length")
    if len(given) == 1:
        return at.op("Gather", x, found[0], axis=given[0])
    if given != list(range(len(given))):
        raise UnsupportedModel("indexing along several axes that are not the first")
    shape = broadcast([wire.shape for wire in found if wire is not None])
    wide = [at.unsqueeze(at.op("Expand", wire, at.sizes(shape)), [-1]) for wire in found]
    return at.op("GatherND", x, at.op("Concat", *wide, axis=-1))


def broadcast(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """The shape that indices have together."""
    rank = max(map(len, shapes))
    wide = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(next((size for size in sizes if not is_one(size)), 1) for sizes in zip(*wide, strict=True))


def is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


@lowers("gather")
def gather(at: Site, x: Wire, axis: int, index: Wire, *, sparse_grad: bool = False) -> str:
    return at.op("GatherElements", x, index, axis=axis)


@lowers("embedding")
def embedding(at: Site, table: Wire, index: Wire, *unused: Any) -> str:
    return at.op("Gather", table, index)


@lowers("roll")
def roll(at: Site, x: Wire, shifts: Any, axes: Any = ()) -> str:
    if not len(spread(axes, 1)):
        raise UnsupportedModel("a roll over all axes together")
    found: Wire | str = x
    for shift, axis in zip(spread(shifts, 1), spread(axes, 1), strict=True):
        cut = -shift % x.side(axis)
        if cut:
            found = at.op("Concat", at.slice(found, axis, cut, LARGEST), at.slice(found, axis, 0, cut), axis=axis)
    return found if isinstance(found, str) else at.op("Identity", found)


@lowers("flip")
def flip(at: Site, x: Wire, axes: Ints) -> str:
    count = len(axes)
    bounds = [at.constant(values) for values in ([-1] * count, [-LARGEST] * count, list(axes), [-1] * count)]
    return at.op("Slice", x, *bounds)


@lowers("pad", "constant_pad_nd")
def pad(at: Site, x: Wire, pads: Sequence[Size], mode: Any = "constant", value: Number | None = None) -> str:
    """torch names the last axes first, (before, after) for each."""
    if not isinstance(mode, str):  # constant_pad_nd has no mode
        mode, value = "constant", mode
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)][::-1]
    pairs = [(0, 0)] * (x.rank - len(pairs)) + pairs
    widths = at.sizes([before for before, _ in pairs] + [after for _, after in pairs])
    modes = {"replicate": "edge", "circular": "wrap"}
    filling = [at.number(value)] if mode == "constant" and value else []
    return at.op("Pad", x, widths, *filling, mode=modes.get(mode, mode))


@lowers("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(at: Site, x: Wire, pads: Sequence[Size]) -> str:
    return pad(at, x, pads, "reflect")


@lowers("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(at: Site, x: Wire, pads: Sequence[Size]) -> str:
    return pad(at, x, pads, "replicate")


@lowers("pixel_shuffle")
def pixel_shuffle(at: Site, x: Wire, factor: int) -> str:
    return at.op("DepthToSpace", x, blocksize=factor, mode="CRD")


@lowers("pixel_unshuffle")
def pixel_unshuffle(at: Site, x: Wire, factor: int) -> str:
    """ONNX's SpaceToDepth puts the places before the channels, torch behind them."""
    n, c, h, w = x.shape
    split_ = at.reshape(x, [n, c, h // factor, factor, w // factor, factor])
    return at.reshape(at.transpose(split_, (0, 1, 3, 5, 2, 4)), at.shape)


@lowers("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(at: Site, x: Wire, groups: int) -> str:
    n, *rest = x.shape
    split_ = at.reshape(x, [n, groups, x.side(1) // groups, *rest[1:]])
    return at.reshape(at.transpose(split_, (0, 2, 1, *range(3, x.rank + 1))), at.shape)


@lowers("tril", "triu")
def triangle(at: Site, x: Wire, diagonal: int = 0) -> str:
    return at.op("Trilu", x, at.constant(diagonal), upper=int("triu" in str(at.node.target)))


@lowers("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def upsample_nearest(at: Site, x: Wire, sizes: Any, scales: Any) -> str:
    return resized(at, x, sizes, scales, mode="nearest", where="asymmetric", nearest_mode="floor")


@lowers("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def upsample_linear(at: Site, x: Wire, sizes: Any, corners: bool, scales: Any) -> str:
    return resized(at, x, sizes, scales, mode="linear", where="align_corners" if corners else "half_pixel")


@lowers("upsample_bicubic2d.vec")
def upsample_cubic(at: Site, x: Wire, sizes: Any, corners: bool, scales: Any) -> str:
    where_ = "align_corners" if corners else "half_pixel"
    return resized(at, x, sizes, scales, mode="cubic", where=where_, cubic_coeff_a=-0.75)


def resized(at: Site, x: Wire, sizes: Any, scales: Any, *, mode: str, where: str, **more: Any) -> str:
    """By the sizes wanted, or by factors where these were given."""
    if sizes is None:
        factors = at.constant([1.0] * (x.rank - len(scales)) + [float(scale) for scale in scales], np.float32)
        target: tuple[str | None, ...] = (None, factors)
    else:
        target = (None, None, at.sizes(at.shape))
    return at.op("Resize", x, *target, mode=mode, coordinate_transformation_mode=where, **more)


@lowers("grid_sampler", "grid_sampler_2d")
def grid_sampler(at: Site, x: Wire, grid: Wire, mode: int, padding: int, corners: bool) -> str:
    modes, paddings = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")
    return at.op("GridSample", x, grid, mode=modes[mode], padding_mode=paddings[padding], align_corners=int(corners))


# --- made from sizes --------------------------------------------------------------------------------------------


def filled(at: Site, value: Number) -> str:
    """A tensor of the result's shape that holds one value."""
    sizes = [size for size in at.shape if isinstance(size, int)]
    if len(sizes) == len(at.shape):
        return at.constant(np.broadcast_to(np.asarray(value, numpy_type(at.dtype)), sizes), numpy_type(at.dtype))
    return at.op("Expand", at.number(value), at.sizes(at.shape))


@lowers("zeros", "zeros_like", "new_zeros")
def zeros(at: Site, *unused: Any, **also_unused: Any) -> str:
    return filled(at, 0)


@lowers("ones", "ones_like", "new_ones")
def ones(at: Site, *unused: Any, **also_unused: Any) -> str:
    return filled(at, 1)


@lowers("full", "full_like", "new_full")
def full(at: Site, like: Any, *values: Any, **unused: Any) -> str:
    return filled(at, values[-1])


@lowers("fill")
def fill(at: Site, x: Wire, value: Wire | Number) -> str:
    return at.op("Expand", at.as_type(value, at.dtype), at.sizes(at.shape))


@lowers("scalar_tensor")
def scalar_tensor(at: Site, value: Number, **unused: Any) -> str:
    return at.number(value)


@lowers("arange")
def arange(at: Site, *bounds: Any, **unused: Any) -> str:
    start, end, step = {1: (0, bounds[0], 1), 2: (*bounds, 1), 3: bounds}[len(bounds)]
    if all(isinstance(bound, int | float) for bound in (start, end, step)):
        kind = numpy_type(at.dtype)
        return at.constant(np.arange(start, end, step).astype(kind), kind)
    return at.op("Range", *(at.number(bound) for bound in (start, end, step)))


@lowers("select_scatter")
def select_scatter(at: Site, x: Wire, source: Wire, axis: int, index: int) -> str:
    place = index % x.side(axis)
    parts = [(0, place), (place + 1, x.side(axis))]
    before, after = (at.slice(x, axis, a, b) for a, b in parts)
    return at.op("Concat", before, at.unsqueeze(source, [axis]), after, axis=axis)


@lowers("slice_scatter")
def slice_scatter(
    at: Site, x: Wire, source: Wire, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> str:
    if same_shape(source.shape, x.shape):
        return source.name
    if step != 1:
        raise UnsupportedModel("writing into every n-th index")
    size = x.side(axis)
    first, last, _ = slice(start, end).indices(size)
    bounds = [0, first, last, size]
    kept = [at.slice(x, axis, a, b) if i != 1 else source for i, (a, b) in enumerate(pairwise(bounds)) if b > a]
    return at.op("Concat", *kept, axis=axis)


@lowers("copy")
def copy(at: Site, x: Wire, source: Wire, *unused: Any) -> str:
    found = at.as_type(source, at.dtype)
    return found if same_shape(source.shape, at.shape) else at.op("Expand", found, at.sizes(at.shape))
