"""Norms and softmax."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mal_graph.errors import UnsupportedModel

from ..lowering import Site, Size, Wire, lowers, numpy_type
from .arguments import Ints, Several
from .reductions import reduction


def per_unit(at: Site, given: Wire | None, value: float, like: Wire, shape: Sequence[Size]) -> Wire | str:
    """A vector of the module, or the constant that stands for none."""
    if given is not None:
        return given
    sizes = [size for size in shape if isinstance(size, int)]
    return at.constant(np.full(sizes, value), numpy_type(like.dtype))


def scale_and_shift(at: Site, x: Wire, weight: Wire | None, bias: Wire | None) -> tuple[Wire | str, Wire | str]:
    """One of each for every channel, which axis 1 holds."""
    channels = [x.shape[1]]
    return per_unit(at, weight, 1.0, x, channels), per_unit(at, bias, 0.0, x, channels)


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
    scale, shift = scale_and_shift(at, x, weight, bias)
    return at.op("BatchNormalization", x, scale, shift, mean, variance, epsilon=float(eps))


@lowers("_native_batch_norm_legit_no_training")
def native_batch_norm(
    at: Site, x: Wire, weight: Wire | None, bias: Wire | None, mean: Wire, variance: Wire, momentum: float, eps: float
) -> Several:
    result = batch_norm(at, x, weight, bias, mean, variance, False, momentum, eps)
    return (result, result, result)  # the statistics it also gives are empty


def batch_statistics(at: Site, x: Wire, weight: Wire | None, bias: Wire | None, eps: float) -> str:
    """A BatchNorm that keeps no statistics takes those of the batch."""
    axes = at.constant([axis for axis in range(x.rank) if axis != 1])
    centred = at.op("Sub", x, at.op("ReduceMean", x, axes, keepdims=1))
    power_ = at.op("ReduceMean", at.op("Mul", centred, centred), axes, keepdims=1)
    result = at.op("Div", centred, at.op("Sqrt", at.op("Add", power_, at.number(eps))))
    behind = range(1, x.rank - 1)
    for op, vector in (("Mul", weight), ("Add", bias)):
        if vector is not None:
            result = at.op(op, result, at.unsqueeze(vector, behind) if behind else vector)
    return result


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
    scale, shift = scale_and_shift(at, x, weight, bias)
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
    scale, shift = scale_and_shift(at, x, weight, bias)
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
    result = at.op("Div", x, at.op("Sqrt", at.op("Add", mean, at.number(floor))))
    return result if weight is None else at.op("Mul", result, weight)


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
    op = {1: "ReduceL1", 2: "ReduceL2"}.get(2 if order is None else order)
    if op is None:
        raise UnsupportedModel(f"a norm of order {order}")
    return reduction(op, at, x, axes, keep)


@lowers("_weight_norm_interface")
def weight_norm(at: Site, direction: Wire, gain: Wire, axis: int = 0) -> Several:
    """A weight as its length along all axes but one, and its direction (arXiv:1602.07868); and the lengths."""
    axes = at.constant([place for place in range(direction.rank) if place != axis % direction.rank])
    lengths = at.op("ReduceL2", direction, axes, keepdims=1)
    return at.op("Mul", direction, at.op("Div", gain, lengths)), lengths
