"""Tensors written one behind the other in one pass: each is computed box by box, and every box is digested and written
while the next one is computed."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from mal_graph.boxes import Boxed
from mal_graph.graph import Weight
from mal_graph.limits import usable_cores
from mal_graph.memory_budget import Need

from .digests import Written, digest_in, digest_of
from .document import WEIGHT
from .sessions import threads_wanted
from .wire import write_at

WAITING = 4  # boxes that are computed and not yet written
COMPUTED = 8  # boxes, of one that is computed: both models', gathered by rows and by columns, blended, and masks
COPIES = 3  # of weights inside the model file: as they were read, as parts of a document, as its bytes
NUMBER = 4  # bytes; boxes are computed in float32

NOTHING: Mapping[int, Written] = MappingProxyType({})


def writing_need(name: str, tensors: Sequence[ir.TensorProtocol], has_data: bool) -> Need:
    """What writing a model holds at once.

    Args:
        name: how messages call the file.
        tensors: what is written.
        has_data: whether they are written to a data file; else the model file is made as a whole.
    """
    reads = [(tensor, weight.read) for tensor in tensors if (weight := tensor.meta.get(WEIGHT)) is not None]
    boxes = [min(tensor.nbytes, read.most * NUMBER) for tensor, read in reads if isinstance(read, Boxed)]
    whole = [tensor.nbytes for tensor, read in reads if not isinstance(read, Boxed)]
    held = {
        "boxes of weights": (WAITING + COMPUTED) * max(boxes, default=0),
        "the largest weight that is made as a whole": max(whole, default=0),
        "the model file as a whole": 0 if has_data else COPIES * sum(tensor.nbytes for tensor in tensors),
    }
    return Need(f"writing {name}", held)


def write_tensors(
    tensors: Sequence[ir.TensorProtocol],
    path: Path,
    known: Mapping[int, Written] = NOTHING,
    note: Callable[[Written], None] = lambda tensor: None,
) -> list[Written]:
    """Write the values of tensors to a file, end to end. Raises OSError, and what reading them raises.

    Args:
        known: what is said to lie in the file already, by where it begins: it is looked at, and kept if it does.
        note: is called with each tensor once it is written.
    """
    places: list[Written] = []

    def finish(offset: int, length: int, digest: Any) -> None:
        places.append(Written(offset, length, digest.hexdigest()))
        note(places[-1])

    end = 0
    with path.open("r+b" if path.exists() else "w+b") as file, in_turn() as do:
        for tensor in tensors:
            held, first = known.get(end), end
            if held is not None and lies_there(file, tensor, held):
                do(places.append, held)
                end += held.length
                continue
            digest = digest_of(tensor.dtype.value, tensor.shape.numpy())
            for piece in pieces_of(tensor):
                do(put, piece, digest, file.fileno(), end)
                end += piece.nbytes
            do(finish, first, end - first, digest)
        do(os.ftruncate, file.fileno(), end)
    return places


def lies_there(file: BinaryIO, tensor: ir.TensorProtocol, held: Written) -> bool:
    """Whether a tensor lies in a file as somebody noted. Raises OSError."""
    dims = tensor.shape.numpy()
    is_as_long = held.length == tensor.nbytes
    return is_as_long and digest_in(file, tensor.dtype.value, dims, held.offset, held.length) == held.digest


def put(piece: memoryview, digest: Any, handle: int, offset: int) -> None:
    """Digest and write a piece. Raises OSError."""
    digest.update(piece)
    write_at(handle, piece, offset)


@contextmanager
def in_turn() -> Iterator[Callable[..., None]]:
    """What does one thing after the other, on a second core where there is one. What these raise is raised here."""
    if min(usable_cores(), threads_wanted() or 2) < 2:
        yield lambda function, *arguments: function(*arguments)
        return
    waiting: deque[Future[None]] = deque()

    def do(function: Callable[..., None], *arguments: Any) -> None:
        waiting.append(second.submit(function, *arguments))
        if len(waiting) > WAITING:
            waiting.popleft().result()

    with ThreadPoolExecutor(1) as second:
        yield do
        while waiting:
            waiting.popleft().result()


def pieces_of(tensor: ir.TensorProtocol) -> Iterator[memoryview]:
    """The bytes of a tensor as files hold them, in pieces."""
    weight: Weight | None = tensor.meta.get(WEIGHT)
    if weight is None or weight.nbytes != tensor.nbytes:  # several values share a byte
        yield memoryview(tensor.tobytes())
        return
    read_box = weight.open()
    for box in weight.boxes:
        values = np.ascontiguousarray(read_box(box)).reshape(-1)
        yield values.view(np.uint8).data
