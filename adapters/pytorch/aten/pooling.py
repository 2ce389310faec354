"""Windows that are averaged, or of which the largest value is taken."""

from collections.abc import Sequence
from math import prod
from typing import Any

from ..lowering import Site, Wire, lowers
from .arguments import Several, per_axis, run_batched


@lowers("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    at: Site, x: Wire, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> str:
    return pool_windows(at, x, "MaxPool", kernel, stride, padding, ceil, dilations=dilation)


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
    average = pool_windows(
        at, x, "AveragePool", kernel, stride, padding, ceil, count_include_pad=int(count_include_pad)
    )
    if divisor is None:
        return average
    return at.op("Mul", average, at.number(prod(per_axis(kernel, spatial_rank(at))) / divisor))


def spatial_rank(at: Site) -> int:
    """How many axes a pooling operator slides over, by its name."""
    return next(rank for rank in (1, 2, 3) if f"pool{rank}d" in str(at.node.target))


def pool_windows(
    at: Site, x: Wire, op: str, kernel: Any, stride: Any, padding: Any, ceil: bool, dilations: Any = None, **more: Any
) -> str:
    spatial = spatial_rank(at)
    sizes = per_axis(kernel, spatial)

    def run(given: Wire | str) -> str:
        return at.op(
            op,
            given,
            kernel_shape=sizes,
            strides=per_axis(stride, spatial) if stride not in (None, []) else sizes,
            pads=per_axis(padding, spatial) * 2,
            ceil_mode=int(ceil),
            dilations=None if dilations is None else per_axis(dilations, spatial),
            **more,
        )

    result: str = run_batched(at, x, spatial, run)
    return result


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(at: Site, x: Wire, sizes: Any) -> str:
    return pool_adaptively(at, x, sizes, "ReduceMean", "AveragePool", "GlobalAveragePool")


@lowers("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(at: Site, x: Wire, sizes: Any) -> Several:
    return (pool_adaptively(at, x, sizes, "ReduceMax", "MaxPool", "GlobalMaxPool"),)


def pool_adaptively(at: Site, x: Wire, sizes: Any, reducer: str, pool: str, whole: str) -> str:
    """Windows of equal size where the lengths allow it; else each by itself."""
    spatial = spatial_rank(at)
    wanted = per_axis(sizes, spatial)
    if x.rank != spatial + 2:
        return pool_each(at, x, wanted, reducer)
    if all(size == 1 for size in wanted):
        return at.op(whole, x)
    lengths = [x.side(axis) for axis in range(2, x.rank)]
    if any(length % size for length, size in zip(lengths, wanted, strict=True)):
        return pool_each(at, x, wanted, reducer)
    kernel = [length // size for length, size in zip(lengths, wanted, strict=True)]
    return at.op(pool, x, kernel_shape=kernel, strides=kernel)


def pool_each(at: Site, x: Wire, wanted: Sequence[int], reducer: str) -> str:
    """Axis by axis each window by itself, which may overlap: a mean over a box is the mean of means, a maximum the
    maximum of maxima."""
    result: Wire | str = x
    for axis, size in zip(range(x.rank - len(wanted), x.rank), wanted, strict=True):
        length = x.side(axis)
        along = at.constant([axis])
        if length != size:
            windows = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
            parts = [at.op(reducer, at.slice(result, axis, *window), along, keepdims=1) for window in windows]
            result = at.op("Concat", *parts, axis=axis)
    return result if isinstance(result, str) else at.op("Identity", result)
