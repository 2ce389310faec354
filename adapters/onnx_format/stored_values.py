"""The values of a stored tensor, read where they lie: whole, or box by box."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from weakref import finalize

import numpy as np
import onnx_ir as ir

from mal_graph.boxes import Array, Box, Boxed, BoxesOf, ReadBox, Stretch, take_box
from mal_graph.errors import FileError

from .mapped_pages import PAGES, release

FEW = 64  # values that are kept once they were read
LOOKED_THROUGH = 2**23  # bytes that are read at once where entries of all rows are taken
SHORT, LONG = 2**12, 2**16  # bytes of a row: shorter ones are mapped, and longer ones of which less than half is wanted
FILE = "mal_graph.file"  # note on a tensor of the file that it is mapped from


@dataclass(frozen=True)
class TensorValues(Boxed):
    """The values of a tensor, which stay where they are until they are read.

    Attributes:
        name: how messages call it.
        tensor: the tensor.
    """

    name: str
    tensor: ir.TensorProtocol

    def __call__(self) -> Array:
        """All values; of a mapped tensor as they lie in the file. Raises FileError."""
        return self.few if self.is_few else self.read()

    @cached_property
    def is_few(self) -> bool:
        """Whether there are so few values that to keep them takes less than to read them again."""
        return not self.is_mapped and self.tensor.size <= FEW

    @cached_property
    def few(self) -> Array:
        """All values, read once."""
        return self.read()

    def read(self) -> Array:
        """All values, as they lie where they are stored. Raises FileError."""
        with told(self.name):
            refuse_cut_off(self.tensor)
            values = np.asarray(tensor_values(self.tensor)).view()
            if isinstance(self.tensor, ir.ExternalTensor):
                PAGES.note(self.tensor)
        values.flags.writeable = False
        return values

    @property
    def is_mapped(self) -> bool:
        """Whether they are read where they lie in a file; what a model holds itself is copied."""
        return isinstance(self.tensor, ir.ExternalTensor)

    def open(self) -> ReadBox:
        """What gives the values of a box; of a tensor in a file it copies them and lets go of the file's pages, which
        would count as memory of this process. Raises FileError."""
        values = self()
        tensor = self.tensor
        if not isinstance(tensor, ir.ExternalTensor) or tensor.raw is None or values.nbytes != tensor.nbytes:
            return BoxesOf(values)  # what is unpacked lies in memory already
        return FileBoxes(self.name, tensor, values, end_of(tensor), reopened(tensor))


@dataclass(frozen=True, eq=False)
class FileBoxes:
    """The boxes of a tensor in a file.

    Chosen: calls that read, where whole rows or more are wanted; they take half as long as pages that are mapped and
    let go of again. Refused: these alone - a few numbers of each row are found sooner where they are mapped, and where
    the file has another content under its name by now, they are found there only.

    Attributes:
        name, tensor: see `TensorValues`.
        values: the tensor as it lies in the file, mapped.
        end: where it ends there; it takes longer to ask for than to look whether the file is as long.
        handle: the same file, open; None where it can only be mapped.
    """

    name: str
    tensor: ir.ExternalTensor
    values: Array
    end: int
    handle: int | None

    def __post_init__(self) -> None:
        if self.handle is not None:
            finalize(self, os.close, self.handle)

    def __call__(self, box: Box) -> Array:
        """The values of a box: a copy. Raises FileError."""
        with told(self.name):
            refuse_short_file(self.tensor, self.end)
            return self.taken(box) if box else self.values.copy()

    def taken(self, box: Box) -> Array:
        """The values of a box. Rows are taken first, unless other axes leave out more: then all rows are looked through
        for these, some at a time."""
        run = run_of(box, self.values.shape)
        if run is not None and self.handle is not None:
            return self.read(*run)
        rows, *others = (share(stretch, length) for stretch, length in zip(box, self.values.shape, strict=True))
        is_whole = self.reads_rows(min(others, default=1.0))
        copied = self.of_rows if is_whole else self.copied
        if rows <= min(others, default=1.0):
            return copied(box)
        length, *within_rows = self.values.shape
        step = max(1, LOOKED_THROUGH * length // max(1, self.values.nbytes))
        parts = [copied((slice(first, min(first + step, length)), *box[1:])) for first in range(0, length, step)]
        return take_box(np.concatenate(parts), (box[0], *(slice(None) for _ in within_rows)))

    def reads_rows(self, wanted: float) -> bool:
        """Whether rows are best read as a whole, of which such a share is wanted."""
        size = self.values.nbytes // max(1, len(self.values))
        return self.handle is not None and size >= SHORT and (size <= LONG or wanted >= 0.5)

    def of_rows(self, box: Box) -> Array:
        """The values of a box, taken from rows that are read as a whole."""
        rows, *others = box
        return take_box(self.read_rows(rows), (slice(None), *others))

    def read_rows(self, rows: Stretch) -> Array:
        """Whole rows, zero where a position is -1."""
        shape = self.values.shape
        if isinstance(rows, slice):
            return self.read(rows.start * prod(shape[1:]), (rows.stop - rows.start, *shape[1:]))
        chosen = np.empty((len(rows), *shape[1:]), self.values.dtype)
        size, start = chosen[:1].nbytes, self.tensor.offset or 0
        content = chosen.reshape(-1).view(np.uint8).data
        for place, row in enumerate(rows.tolist()):
            if row < 0:
                chosen[place] = 0
            else:
                self.fill(content[place * size : (place + 1) * size], start + row * size)
        return chosen

    def read(self, first: int, shape: tuple[int, ...]) -> Array:
        """Numbers that lie end to end, from a place on, in an array of a shape."""
        chosen = np.empty(shape, self.values.dtype)
        start = (self.tensor.offset or 0) + first * chosen.itemsize
        self.fill(chosen.reshape(-1).view(np.uint8).data, start)
        return chosen

    def fill(self, left: memoryview, offset: int) -> None:
        """Read what lies in the file at a place. Raises OSError, and ValueError where it is cut off."""
        while left:
            count = os.preadv(self.handle or 0, (left,), offset)
            if not count:
                refuse_short_file(self.tensor, self.end)
            offset, left = offset + count, left[count:]

    def copied(self, box: Box) -> Array:
        """The values of a box, mapped, whose pages are let go of."""
        chosen = take_box(self.values, box)
        if chosen.base is not None:  # it is a view of the file
            chosen = chosen.copy()
        release(self.tensor)
        return chosen


def run_of(box: Box, shape: Sequence[int]) -> tuple[int, tuple[int, ...]] | None:
    """Where the values of a box begin that lie end to end, and their shape; None where others lie between them."""
    first, inner, is_one, lengths = 0, 1, False, list[int]()
    for stretch, length in zip(reversed(box), reversed(shape), strict=True):
        if not isinstance(stretch, slice):
            return None
        start, stop, _ = stretch.indices(length)
        if is_one and stop - start != 1:
            return None
        is_one = is_one or stop - start < length
        first, inner = first + start * inner, inner * length
        lengths.insert(0, stop - start)
    return first, tuple(lengths)


def reopened(tensor: ir.ExternalTensor) -> int | None:
    """The file that a tensor is mapped from, open; None where that is not the one any more that has its name."""
    if FILE not in tensor.meta or not hasattr(os, "preadv"):
        return None
    try:
        handle = os.open(tensor.path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    if identity(os.fstat(handle)) == tensor.meta[FILE]:  # no other can have its number while it is mapped
        return handle
    os.close(handle)
    return None


def map_tensor(tensor: ir.ExternalTensor) -> None:
    """Map the values of a tensor, and note on it what file they lie in. Raises OSError or ValueError."""
    if tensor.raw is None:
        before = identity(os.stat(tensor.path))
        tensor.numpy()
        if identity(os.stat(tensor.path)) == before:  # else it may be either
            tensor.meta[FILE] = before


def identity(status: os.stat_result) -> tuple[int, int]:
    """What tells a file from all others that there are."""
    return status.st_dev, status.st_ino


def share(stretch: Stretch, length: int) -> float:
    """How much of an axis is read."""
    count = len(range(*stretch.indices(length))) if isinstance(stretch, slice) else len(stretch)
    return count / max(1, length)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Say which weight cannot be read. Raises FileError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read weight {name!r}: {error}; restore the file and load the model again") from None


def refuse_cut_off(tensor: ir.TensorProtocol) -> None:
    """Raise ValueError where the file that a tensor is mapped from has become too short for it."""
    if isinstance(tensor, ir.ExternalTensor):
        refuse_short_file(tensor, end_of(tensor))


def refuse_short_file(tensor: ir.ExternalTensor, end: int) -> None:
    """Raise ValueError where the file that a tensor is mapped from does not reach to its end any more: to read what is
    not there would end the process without a word."""
    size = end if tensor.raw is None else tensor.raw.size()
    if end > size:
        raise ValueError(f"{tensor.path} was cut off at {size} bytes, and it ends at byte {end}")


def end_of(tensor: ir.ExternalTensor) -> int:
    """Where a tensor ends in its file."""
    return (tensor.offset or 0) + tensor.nbytes


def tensor_values(tensor: ir.TensorProtocol) -> Array:
    """The values of a tensor, texts as objects."""
    if isinstance(tensor, ir.ExternalTensor):
        map_tensor(tensor)
    if not isinstance(tensor, ir.StringTensor):
        return tensor.numpy()
    return np.fromiter(tensor.string_data(), object, tensor.size).reshape(tensor.shape.numpy())
