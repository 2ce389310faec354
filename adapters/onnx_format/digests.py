"""Digests of tensors, and of the data files that hold them.

Chosen: one digest of each tensor, of which those of the files that hold it are made, so that no byte is read or
digested twice. Refused: a digest of a data file from its first byte to its last, which takes as long again.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 2**20  # bytes that are read at once


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


def digest_of(data_type: int, dims: Sequence[int]) -> Any:
    """The beginning of the SHA-256 of a tensor: its type and shape; the bytes of its values follow."""
    return hashlib.sha256(repr((data_type, tuple(map(int, dims)))).encode())


def digest_in(file: BinaryIO, data_type: int, dims: Sequence[int], offset: int, length: int) -> str:
    """The SHA-256 of a tensor whose values lie in a file."""
    digest = digest_of(data_type, dims)
    for piece in pieces_between(file, offset, offset + length):
        digest.update(piece)
    return str(digest.hexdigest())


def data_digest(path: Path, tensors: Iterable[Written]) -> str:
    """SHA-256 of the digests of the tensors in a data file, with their places, and of the bytes that belong to none."""
    digest, end = hashlib.sha256(), 0
    with path.open("rb") as file:
        for held in (*sorted(set(tensors)), Written(path.stat().st_size, 0, "")):
            digest.update(f"{held.offset} {held.length} {held.digest}\n".encode())
            for piece in pieces_between(file, end, held.offset):
                digest.update(piece)
            end = max(end, held.offset + held.length)
    return digest.hexdigest()


def pieces_between(file: BinaryIO, first: int, end: int) -> Iterator[bytes]:
    """The bytes of a file between two places, in pieces."""
    file.seek(first)
    while first < end and (piece := file.read(min(end - first, PIECE))):
        first += len(piece)
        yield piece
