"""Products, convolutions and attention."""

from collections.abc import Sequence
from typing import Any

import torch

from ..lowering import Number, Site, Wire, lowers
from .arguments import Ints, check_dropout, per_axis, repeat_each, run_batched


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
    steps = per_axis(dilation, spatial)
    if padding == "same":  # what is left over goes to the end
        total = [step * (size - 1) for step, size in zip(steps, kernel, strict=True)]
        pads = [size // 2 for size in total] + [size - size // 2 for size in total]
    else:
        pads = per_axis(0 if padding == "valid" else padding, spatial) * 2

    def run(given: Wire | str) -> str:
        return at.op(
            "Conv",
            given,
            weight,
            bias,
            kernel_shape=kernel,
            strides=per_axis(stride, spatial),
            pads=pads,
            dilations=steps,
            group=groups,
        )

    result: str = run_batched(at, x, spatial, run)
    return result


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
            strides=per_axis(stride, spatial),
            pads=per_axis(padding, spatial) * 2,
            output_padding=per_axis(output_padding, spatial),
            dilations=per_axis(dilation, spatial),
            group=groups,
        )

    result: str = run_batched(at, x, spatial, run)
    return result


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
        keys, values = (repeat_each(at, x.name, x.shape, x.rank - 3, times) for x in (key, value))
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
