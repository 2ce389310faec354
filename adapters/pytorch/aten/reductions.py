"""Operators over whole axes: sums, statistics, extremes, running sums and orders."""

from functools import partial
from math import prod
from typing import Any

import torch

from mal_graph.errors import UnsupportedModel

from ..lowering import Site, Wire, lowers
from .arguments import LARGEST, Several, per_axis


def reduction(op: str, at: Site, x: Wire, axes: Any = None, keep: bool = False, *, dtype: Any = None) -> str:
    """Over some axes, or all of them if none are named; no axes of a scalar."""
    chosen = [] if axes is None else per_axis(axes, 1)
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
    chosen = [] if axes is None else [at.constant(per_axis(axes, 1))]
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
    chosen = list(range(x.rank)) if axes is None else [axis % x.rank for axis in per_axis(axes, 1)]
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
