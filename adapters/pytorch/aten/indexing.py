"""Operators that take some elements of a tensor, or write some."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from mal_graph.errors import UnsupportedModel

from ..lowering import Number, Site, Size, Wire, lowers
from .arguments import LARGEST, is_one, same_shape


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
    """Indices on one axis are a Gather. Indices on several axes side by side name elements."""
    given = [axis for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1:
        return at.op("Gather", x, whole(indices[given[0]]), axis=given[0])
    front = in_front(given, x.rank)
    named = at.op("GatherND", at.transpose(x, front), places(at, indices))
    return at.transpose(named, turned_back(front, given, len(at.shape) - x.rank + len(given)))


@lowers("index_put", "_unsafe_index_put")
def index_put(at: Site, x: Wire, indices: Sequence[Wire | None], values: Wire, accumulate: bool = False) -> str:
    given = [axis for axis, index in enumerate(indices) if index is not None]
    front = in_front(given, x.rank)
    shape = broadcast([wire.shape for wire in indices if wire is not None])
    kept = [x.shape[axis] for axis in range(x.rank) if axis not in given]
    wide = at.op("Expand", values, at.sizes((*kept[: given[0]], *shape, *kept[given[0] :])))
    back = turned_back(front, given, len(shape))
    rows = at.transpose(wide, [back.index(axis) for axis in range(len(back))])
    reduction = "add" if accumulate else None
    made = at.op("ScatterND", at.transpose(x, front), places(at, indices), rows, reduction=reduction)
    return at.transpose(made, [front.index(axis) for axis in range(x.rank)])


def whole(index: Wire | None) -> Wire:
    """An index that names elements by whole numbers."""
    if index is None or index.dtype == torch.bool:
        raise UnsupportedModel("indexing by a mask makes a tensor of unknown length")
    return index


def in_front(given: Sequence[int], rank: int) -> list[int]:
    """The order of axes with those that are indexed first."""
    if list(given) != list(range(given[0], given[-1] + 1)):
        raise UnsupportedModel("indexing along several axes that are not side by side")
    return [*given, *(axis for axis in range(rank) if axis not in given)]


def turned_back(front: Sequence[int], given: Sequence[int], rank: int) -> list[int]:
    """The order of axes that puts the `rank` axes of what was looked up where those that were indexed stood."""
    before, behind = given[0], len(front) - len(given) - given[0]
    kept = [rank + axis for axis in range(before + behind)]
    return [*kept[:before], *range(rank), *kept[before:]]


def places(at: Site, indices: Sequence[Wire | None]) -> str:
    """The indices of several axes beside each other on a last axis."""
    given = [whole(wire) for wire in indices if wire is not None]
    shape = broadcast([wire.shape for wire in given])
    wide = [at.unsqueeze(at.op("Expand", wire, at.sizes(shape)), [-1]) for wire in given]
    return at.op("Concat", *wide, axis=-1) if len(wide) > 1 else wide[0]


def broadcast(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """The shape that indices have together."""
    rank = max(map(len, shapes))
    wide = [(*[1] * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(next((size for size in sizes if not is_one(size)), 1) for sizes in zip(*wide, strict=True))


@lowers("gather")
def gather(at: Site, x: Wire, axis: int, index: Wire, *, sparse_grad: bool = False) -> str:
    return at.op("GatherElements", x, index, axis=axis)


@lowers("scatter.src")
def scatter(at: Site, x: Wire, axis: int, index: Wire, source: Wire) -> str:
    if not same_shape(source.shape, index.shape):
        raise UnsupportedModel("scattering a part of a tensor")
    return at.op("ScatterElements", x, index, source, axis=axis)


@lowers("scatter.value")
def scatter_value(at: Site, x: Wire, axis: int, index: Wire, value: Number) -> str:
    return at.op("ScatterElements", x, index, at.op("Expand", at.number(value), at.sizes(index.shape)), axis=axis)


@lowers("scatter_add")
def scatter_add(at: Site, x: Wire, axis: int, index: Wire, source: Wire) -> str:
    if not same_shape(source.shape, index.shape):
        raise UnsupportedModel("scattering a part of a tensor")
    return at.op("ScatterElements", x, index, source, axis=axis, reduction="add")


@lowers("embedding")
def embedding(at: Site, table: Wire, index: Wire, *unused: Any) -> str:
    return at.op("Gather", table, index)


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
