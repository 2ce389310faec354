"""Operators that place elements elsewhere: shapes, orders of axes, joins and parts, padding, resampling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mal_graph.errors import UnsupportedModel

from ..lowering import Number, Site, Size, Wire, lowers
from .arguments import LARGEST, Ints, Several, is_one, per_axis, repeat_each, same_shape


@lowers("view.default", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as")
def reshape(at: Site, x: Wire, *unused: Any) -> str:
    return x.name if same_shape(x.shape, at.shape) else at.reshape(x, at.shape)


@lowers("squeeze")
def squeeze(at: Site, x: Wire, axes: Any = None) -> str:
    chosen = range(x.rank) if axes is None else [axis % x.rank for axis in per_axis(axes, 1)]
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
def transpose_last(at: Site, x: Wire) -> str:
    order = list(range(x.rank))
    return at.transpose(x, order[::-1] if "numpy_T" in str(at.node.target) else [*order[:-2], *order[-2:][::-1]])


@lowers("movedim")
def movedim(at: Site, x: Wire, source: Any, target: Any) -> str:
    places = dict(
        zip([t % x.rank for t in per_axis(target, 1)], [s % x.rank for s in per_axis(source, 1)], strict=True)
    )
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
    return repeat_each(at, x.name, x.shape, axis % x.rank, times)


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


@lowers("roll")
def roll(at: Site, x: Wire, shifts: Any, axes: Any = ()) -> str:
    if not len(per_axis(axes, 1)):
        raise UnsupportedModel("a roll over all axes together")
    result: Wire | str = x
    for shift, axis in zip(per_axis(shifts, 1), per_axis(axes, 1), strict=True):
        cut = -shift % x.side(axis)
        if cut:
            result = at.op("Concat", at.slice(result, axis, cut, LARGEST), at.slice(result, axis, 0, cut), axis=axis)
    return result if isinstance(result, str) else at.op("Identity", result)


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
    return resample(at, x, sizes, scales, mode="nearest", where="asymmetric", nearest_mode="floor")


@lowers("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def upsample_linear(at: Site, x: Wire, sizes: Any, corners: bool, scales: Any) -> str:
    return resample(at, x, sizes, scales, mode="linear", where="align_corners" if corners else "half_pixel")


@lowers("upsample_bicubic2d.vec")
def upsample_cubic(at: Site, x: Wire, sizes: Any, corners: bool, scales: Any) -> str:
    where_ = "align_corners" if corners else "half_pixel"
    return resample(at, x, sizes, scales, mode="cubic", where=where_, cubic_coeff_a=-0.75)


def resample(at: Site, x: Wire, sizes: Any, scales: Any, *, mode: str, where: str, **more: Any) -> str:
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


@lowers("copy")
def copy(at: Site, x: Wire, source: Wire, *unused: Any) -> str:
    values = at.as_type(source, at.dtype)
    return values if same_shape(source.shape, at.shape) else at.op("Expand", values, at.sizes(at.shape))
