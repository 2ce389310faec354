"""Values read box by box, so that a tensor larger than the memory can be computed, checked and written.

A box is what some positions of every axis have in common: a stretch of them as a slice, or any positions in any order
as an array of indices, -1 where zero is to stand. Chosen: boxes of what fits into the cache of one core, which are as
fast as one pass over memory; whole tensors are made of the same boxes. Refused: whole tensors where they fit - a second
path whose numbers would have to agree with the first one's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Stretch = slice | NDArray[np.int64]
Box = tuple[Stretch, ...]
ReadBox = Callable[[Box], Array]

MOST = 2**17  # numbers in a box: 512 KiB of float32


class Boxed(ABC):
    """Values that can be read box by box. Called, they give all at once."""

    @abstractmethod
    def __call__(self) -> Array:
        """All values, read-only."""

    @property
    def most(self) -> int:
        """How many numbers a box of them has at best."""
        return MOST

    @property
    def is_mapped(self) -> bool:
        """Whether calling gives them where they lie in a file, so that they take no memory of this process."""
        return False

    @abstractmethod
    def open(self) -> ReadBox:
        """What gives the values of a box, as an array of the box's lengths; what all boxes need is read here once."""


def open_values(read: Callable[[], Array]) -> ReadBox:
    """What gives the values of a box, of anything that gives values; those that come whole are read here, whole."""
    return read.open() if isinstance(read, Boxed) else BoxesOf(read())


class BoxesOf:
    """The boxes of an array."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __call__(self, box: Box) -> Array:
        return take_box(self.values, box)


def take_box(values: Array, box: Box) -> Array:
    """The entries of an array in a box: a view where all axes are slices, else a copy, zero at -1."""
    slices: list[Any] = [stretch if isinstance(stretch, slice) else slice(None) for stretch in box]
    chosen = values[(*slices, ...)]  # an array even where it has no axis
    listed = [(axis, stretch) for axis, stretch in enumerate(box) if not isinstance(stretch, slice)]
    # What leaves most out comes first; of equals the outer axis, along which whole rows are copied.
    for axis, positions in sorted(listed, key=lambda one: len(one[1]) / max(1, chosen.shape[one[0]])):
        chosen = take_along(chosen, positions, axis)
    return zero_absent(chosen, box)


def take_along(values: Array, positions: NDArray[np.int64], axis: int) -> Array:
    """The entries at some positions of an axis: a copy."""
    if values.flags.c_contiguous:  # else `take` copies all of the array before
        return values.take(positions, axis=axis)
    before: tuple[Stretch, ...] = (slice(None),) * axis
    return np.asarray(values[(*before, positions)])


def zero_absent(values: Array, box: Box) -> Array:
    """The values of a box, which are written to, zero where a position is -1."""
    for axis, stretch in enumerate(box):
        if not isinstance(stretch, slice) and (stretch < 0).any():
            np.moveaxis(values, axis, 0)[stretch < 0] = 0
    return values


def within(outer: Stretch, inner: Stretch) -> Stretch:
    """Of the positions of an axis those at some places; where both are slices, the outer one begins at 0."""
    if isinstance(outer, slice):
        return inner
    return outer[inner] if isinstance(inner, slice) else np.where(inner < 0, -1, outer[inner])


def is_in_place(positions: NDArray[np.int64]) -> bool:
    """Whether positions are all of a stretch from 0 on, in order."""
    return bool((positions == np.arange(len(positions))).all())


def contiguous_boxes(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Boxes that lie end to end in the order in which a tensor of a shape is stored, with at most so many numbers each;
    none where it is empty."""
    place, inner = len(shape), 1
    while place and inner * shape[place - 1] <= most:
        place -= 1
        inner *= shape[place]
    whole = tuple(slice(0, length) for length in shape[place:])
    if not place:
        yield from [whole] if prod(shape) else ()
        return
    cut, step = shape[place - 1], max(1, most // max(1, inner))
    for index in product(*map(range, shape[: place - 1])):
        outer = tuple(slice(i, i + 1) for i in index)
        yield from ((*outer, slice(first, min(first + step, cut)), *whole) for first in range(0, cut, step))


def each_box(read: Callable[[], Array], shape: Sequence[int]) -> Iterator[Array]:
    """The values of a tensor of a shape, box by box; those that come whole, whole."""
    if not isinstance(read, Boxed):
        yield read()
        return
    read_box = read.open()
    yield from (read_box(box) for box in contiguous_boxes(shape, read.most))


def read_whole(read: Boxed, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """All values of a tensor, from its boxes; read-only."""
    values, read_box = np.empty(shape, dtype), read.open()
    for box in contiguous_boxes(shape, read.most):
        values[box] = read_box(box)
    values.flags.writeable = False
    return values
