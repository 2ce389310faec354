"""What a written model says of itself: how it was made, and digests of all that it holds.

A file holds the digest of all its bytes, with zeros where that digest stands itself, behind a mark that is there once:
no bit is left out, whatever it means. A seal shows that a file is as it was written. It does not show who wrote it:
whoever can write a file can seal it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mal_graph.errors import FileError

OWN = "mal_graph."  # how the notes on a model begin that this package writes; they are no part of a loaded graph
PROVENANCE = OWN + "provenance"  # the note that says how a model was made; a graph that has it is sealed when written


LENGTH = 64  # of a SHA-256 in hexadecimal digits
ZEROS = b"0" * LENGTH
FORGED = "it holds the mark of a seal more than once"


@dataclass(frozen=True)
class Sealed:
    """A sealed file as it is now.

    Attributes:
        provenance: the note that says how it was made.
        graph: SHA-256 of all but the tensors and the notes of this package.
        tensors: SHA-256 of every stored tensor with its type and shape, each with where it is stored, in their order.
        changed: what is not as it was written, a sentence each; () where all is.
    """

    provenance: str
    graph: str
    tensors: tuple[tuple[str, str], ...]
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Digests:
    """What a seal notes: SHA-256 by the name of a data file, and by the place of a tensor."""

    data: dict[str, str]
    tensors: list[tuple[str, str]]


DIGESTS = TypeAdapter(Digests)


def read_digests(text: str, path: Path) -> Digests:
    """What a seal notes, from its JSON. Raises FileError."""
    try:
        return DIGESTS.validate_json(text)
    except ValidationError:
        raise FileError(
            f"cannot audit {path}: its note of digests is damaged; audit the file that was written"
        ) from None


def pieces_with_digest(content: bytes, mark: bytes, name: str) -> tuple[bytes | memoryview, ...]:
    """The content of a file with its digest in place of the zeros behind a mark, in pieces. Raises FileError where the
    mark is not there once."""
    if content.count(mark) != 1:
        raise FileError(f"cannot seal {name!r}: {FORGED}; take it out of its names and notes")
    place = content.index(mark) + len(mark)
    view = memoryview(content)
    return view[:place], hashlib.sha256(content).hexdigest().encode(), view[place + LENGTH :]


def has_own_digest(content: bytes, mark: bytes, path: Path) -> bool:
    """Whether a file holds the digest of its bytes behind a mark. Raises FileError where the mark is not there once."""
    if content.count(mark) != 1:
        fault = FORGED if mark in content else "it has no seal"
        raise FileError(
            f"cannot audit {path}: {fault}, so `mal-graph` did not write it as it is; audit the file that it wrote"
        )
    place = content.index(mark) + len(mark)
    digest = hashlib.sha256(content[:place])
    digest.update(ZEROS)
    digest.update(memoryview(content)[place + LENGTH :])
    return digest.hexdigest().encode() == content[place : place + LENGTH]


def differing(noted: Digests, tensors: list[tuple[str, str]]) -> list[str]:
    """Which tensors are not as they were noted, a sentence each."""
    changed = [
        f"{place} is not as it was written"
        for (place, old), (_, new) in zip(noted.tensors, tensors, strict=False)
        if old != new
    ]
    if len(noted.tensors) != len(tensors):
        changed.append(f"it stores {len(tensors)} tensors, and {len(noted.tensors)} were written")
    return changed


DAMAGED = "its graph, its notes or their order in the file are not as they were written"  # where no part tells more
