"""The values of a stored tensor, read where they lie: whole, or box by box."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from mal_graph.boxes import Array, Box, Boxed, BoxesOf, ReadBox, Stretch, take_box
from mal_graph.errors import FileError

from .mapped_pages import PAGES, release

FEW = 64  # values that are kept once they were read
LOOKED_THROUGH = 2**23  # bytes that are mapped at once where entries of all rows are taken


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
        """What gives the values of a box; of a mapped tensor it copies them and lets go of the file's pages, which
        would count as memory of this process. Raises FileError."""
        values = self()
        tensor = self.tensor
        if not isinstance(tensor, ir.ExternalTensor) or tensor.raw is None or values.nbytes != tensor.nbytes:
            return BoxesOf(values)  # what is unpacked lies in memory already
        return MappedBoxes(self.name, tensor, values, end_of(tensor))


@dataclass(frozen=True)
class MappedBoxes:
    """The boxes of a mapped tensor.

    Attributes:
        name, tensor: see `TensorValues`.
        values: the tensor as it lies in the file.
        end: where it ends there; it takes longer to ask for than to look whether the file is as long.
    """

    name: str
    tensor: ir.ExternalTensor
    values: Array
    end: int

    def __call__(self, box: Box) -> Array:
        """The values of a box: a copy. Raises FileError."""
        with told(self.name):
            refuse_short_file(self.tensor, self.end)
            return self.taken(box) if box else self.values.copy()

    def taken(self, box: Box) -> Array:
        """The values of a box. Rows are taken first, unless other axes leave out more: then all rows are looked through
        for these, some at a time."""
        rows, *others = (share(stretch, length) for stretch, length in zip(box, self.values.shape, strict=True))
        if rows <= min(others, default=1.0):
            return self.copied(self.values, box)
        length, *within_rows = self.values.shape
        step = max(1, LOOKED_THROUGH * length // max(1, self.values.nbytes))
        parts = [
            self.copied(self.values[first : first + step], (slice(0, step), *box[1:]))
            for first in range(0, length, step)
        ]
        return take_box(np.concatenate(parts), (box[0], *(slice(None) for _ in within_rows)))

    def copied(self, values: Array, box: Box) -> Array:
        """The values of a box of some rows, whose pages are let go of."""
        chosen = take_box(values, box)
        if chosen.base is not None:  # it is a view of the file
            chosen = chosen.copy()
        release(self.tensor)
        return chosen


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
    if not isinstance(tensor, ir.StringTensor):
        return tensor.numpy()
    return np.fromiter(tensor.string_data(), object, tensor.size).reshape(tensor.shape.numpy())
