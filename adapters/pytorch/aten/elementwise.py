"""Operators that treat every element alike, and those that change nothing."""

from functools import partial, reduce
from typing import Any

import torch

from mal_graph.errors import UnsupportedModel

from ..lowering import Number, Site, Wire, lowers
from .arguments import check_dropout

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
    result: Wire | str = at.as_type(x, at.dtype)
    if isinstance(low, Wire) or isinstance(high, Wire):
        for op, bound in (("Max", low), ("Min", high)):
            result = result if bound is None else at.op(op, result, at.as_type(bound, at.dtype))
        return str(result)
    return at.op("Clip", result, *(None if bound is None else at.number(bound) for bound in (low, high)))


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
    if not at.dtype.is_floating_point and rounding_mode is not None:
        return arithmetic("Div", at, a, b) if rounding_mode == "trunc" else floor_divide(at, a, b)
    quotient = arithmetic("Div", at, a, b)
    if rounding_mode is None:
        return quotient
    if rounding_mode == "floor":
        return at.op("Floor", quotient)
    return at.op("Mul", at.op("Floor", at.op("Abs", quotient)), at.op("Sign", quotient))


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


@lowers("contiguous", "clone", "alias", "detach", "lift_fresh_copy", "positive", "resolve_conj", "resolve_neg")
def same(at: Site, x: Wire, *unused: Any, **also_unused: Any) -> str:
    """What evaluation leaves as it is."""
    return x.name


@lowers("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(at: Site, x: Wire, share: float, training: bool) -> str:
    check_dropout(share if training else 0.0)
    return x.name


@lowers("to", "type_as", "_to_copy")
def to(at: Site, x: Wire, *unused: Any, **also_unused: Any) -> str:
    return at.as_type(x, at.dtype)
