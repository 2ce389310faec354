"""Tensors written one behind the other in one pass: each is computed box by box, and every box is digested and written
while the next one is computed.

Chosen: one digest of each tensor, of which those of the files that hold it are made, so that no byte is read or
digested twice. Refused: a digest of a data file from its first byte to its last, which takes as long again.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from mal_graph.graph import Weight
from mal_graph.limits import usable_cores

from .document import WEIGHT
from .sessions import threads_wanted
from .wire import write_at

WAITING = 4  # boxes that are computed and not yet written


@dataclass(frozen=True, order=True)
class Written:
    """Where a tensor was written, and the SHA-256 of its values with its type and shape.

    Attributes:
        offset, length: in bytes.
        digest: in hexadecimal digits.
    """

    offset: int
    length: int
    digest: str


def write_tensors(tensors: Sequence[ir.TensorProtocol], path: Path) -> list[Written]:
    """Write the values of tensors to a new file, end to end. Raises OSError, and what reading them raises."""
    digests = [digest_of(tensor.dtype.value, tensor.shape.numpy()) for tensor in tensors]
    ends = [0]
    with path.open("wb") as file, in_turn() as do:
        for tensor, digest in zip(tensors, digests, strict=True):
            end = ends[-1]
            for piece in pieces_of(tensor):
                do(put, piece, digest, file.fileno(), end)
                end += piece.nbytes
            ends.append(end)
    return [
        Written(begin, end - begin, digest.hexdigest())
        for digest, (begin, end) in zip(digests, pairwise(ends), strict=True)
    ]


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


def digest_of(data_type: int, dims: Sequence[int]) -> Any:
    """The beginning of the SHA-256 of a tensor: its type and shape; the bytes of its values follow."""
    return hashlib.sha256(repr((data_type, tuple(map(int, dims)))).encode())


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
