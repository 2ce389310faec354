"""Values that are computed when they are first read, and kept from then on: small ones in memory, large ones in a file.

A tensor that a method makes as a whole is read several times: by checks, by scores, and when it is written. Chosen: a
file of the system's temporary folder, without a name, which goes with the last who reads it. Refused: memory, where the
result of a large merge would stay whole.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap
from tempfile import gettempdir, mkstemp
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np

from mal_graph.boxes import MOST, Array, Box, Boxed, BoxesOf, ReadBox, contiguous_boxes
from mal_graph.errors import FileError

LARGE = 1 << 20  # bytes from which values are kept in a file


class Shelf:
    """A file that holds the values of many tensors."""

    def __init__(self) -> None:
        self.handle: int | None = None
        self.end = 0
        self.lock = Lock()

    def kept(self, values: Array) -> Array:
        """The same values, mapped from the file where they are large. Raises FileError."""
        if values.nbytes < LARGE:
            return values
        start = self.write(BoxesOf(values), contiguous_boxes(values.shape, MOST), values.dtype)
        return self.take(start, values.shape, values.dtype)

    def put(self, values: Boxed, shape: Sequence[int], dtype: np.dtype[Any]) -> int:
        """Write values box by box; where they begin. Raises FileError."""
        return self.write(values.open(), contiguous_boxes(shape, values.most), dtype)

    def write(self, read_box: ReadBox, boxes: Iterable[Box], dtype: np.dtype[Any]) -> int:
        """Write boxes of values one behind the other; where they begin. Raises FileError."""
        with self.lock:
            start = place = -(-self.end // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY
            try:
                for box in boxes:
                    content = np.ascontiguousarray(read_box(box), dtype).tobytes()
                    place += write_at(self.opened(), content, place)
            except OSError as error:
                raise FileError(
                    f"cannot keep merged values in {gettempdir()}: {error.strerror}; make room, or name another folder "
                    "with TMPDIR"
                ) from None
            self.end = place
            return start

    def opened(self) -> int:
        """The file, which has no name any more. Raises OSError."""
        if self.handle is None:
            self.handle, path = mkstemp(prefix="mal_graph-")
            os.unlink(path)
            finalize(self, os.close, self.handle)
        return self.handle

    def take(self, start: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Values as they were put there, mapped: they take memory while they are read."""
        mapped = mmap(self.opened(), prod(shape) * dtype.itemsize, access=ACCESS_READ, offset=start)
        return np.frombuffer(mapped, dtype).reshape(shape)


def write_at(handle: int, content: bytes, place: int) -> int:
    """Write all of something at a place in a file; how much that is. Raises OSError."""
    written = 0
    while written < len(content):
        written += os.pwrite(handle, content[written:], place + written)
    return written


@dataclass(repr=False, eq=False)
class Once(Boxed):
    """Values that are computed once.

    Attributes:
        values: what computes them.
        shape, dtype: of them.
        shelf: where large ones are kept.
    """

    values: Boxed
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shelf: Shelf
    known: Array | int | None = None
    lock: Any = field(default_factory=Lock)

    def __call__(self) -> Array:
        """All values."""
        with self.lock:
            if self.known is None:
                is_large = prod(self.shape) * self.dtype.itemsize >= LARGE
                self.known = self.shelf.put(self.values, self.shape, self.dtype) if is_large else self.values()
        known = self.known
        return self.shelf.take(known, self.shape, self.dtype) if isinstance(known, int) else known

    def open(self) -> ReadBox:
        """What gives the values of a box."""
        return BoxesOf(self())
