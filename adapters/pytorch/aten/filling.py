"""Tensors made from sizes."""

from typing import Any

import numpy as np

from ..lowering import Number, Site, Wire, lowers, numpy_type


def fill_shape(at: Site, value: Number) -> str:
    """A tensor of the result's shape that holds one value."""
    sizes = [size for size in at.shape if isinstance(size, int)]
    if len(sizes) == len(at.shape):
        return at.constant(np.broadcast_to(np.asarray(value, numpy_type(at.dtype)), sizes), numpy_type(at.dtype))
    return at.op("Expand", at.number(value), at.sizes(at.shape))


@lowers("zeros", "zeros_like", "new_zeros")
def zeros(at: Site, *unused: Any, **also_unused: Any) -> str:
    return fill_shape(at, 0)


@lowers("ones", "ones_like", "new_ones")
def ones(at: Site, *unused: Any, **also_unused: Any) -> str:
    return fill_shape(at, 1)


@lowers("full", "full_like", "new_full")
def full(at: Site, like: Any, *values: Any, **unused: Any) -> str:
    return fill_shape(at, values[-1])


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
