"""Seals on safetensors files: one note with the digest of the whole file, how it was made, and a digest per tensor.

Chosen: one note for all of it. Refused: one for each part - the library writes notes in an order that is another in
every run, and equal inputs must give equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from mal_graph.errors import FileError
from mal_graph.seals import (
    DAMAGED,
    LENGTH,
    OWN,
    ZEROS,
    Sealed,
    differing,
    has_own_digest,
    pieces_with_digest,
    read_digests,
)

SEAL = OWN + "seal"
MARK = f'"{SEAL}":"'.encode()  # what stands before the digest in the header of a file


class Note(NamedTuple):
    """What a seal holds behind the digest of the file: how it was made, and the digests of its tensors as JSON."""

    provenance: str
    digests: str


def sealed_pieces(state: Mapping[str, Tensor], provenance: str) -> tuple[bytes | memoryview, ...]:
    """The content of a file that holds a state and a seal, in pieces. Raises FileError."""
    digests = {"data": {}, "tensors": tensor_digests(state)}
    note = json.dumps(Note(provenance, json.dumps(digests)))
    return pieces_with_digest(save(dict(state), {SEAL: ZEROS.decode() + note}), MARK, "the state")


def read_seal(path: Path) -> Sealed:
    """What a sealed file says of itself, and what of it is not as it was written. Raises FileError."""
    try:
        is_whole = has_own_digest(path.read_bytes(), MARK, path)
        with safe_open(path, "pt") as file:
            note = note_in(file.metadata() or {}, path)
            names = file.keys()
            tensors = tensor_digests({name: file.get_tensor(name) for name in names})
    except OSError as error:
        raise FileError(f"cannot audit {path}: {error.strerror or error}; check the path") from None
    except SafetensorError as error:
        raise FileError(f"cannot audit {path}: it is no safetensors file any more ({error})") from None
    changed = differing(read_digests(note.digests, path), tensors)
    if not is_whole and not changed:
        changed = [DAMAGED]
    return Sealed(note.provenance, "", tuple(tensors), tuple(changed))


def note_in(metadata: Mapping[str, str], path: Path) -> Note:
    """The note of a seal. Raises FileError."""
    try:
        note = Note(*json.loads(metadata.get(SEAL, "")[LENGTH:]))
    except (ValueError, TypeError, RecursionError):
        note = Note("", "")
    if not all(isinstance(text, str) for text in note):
        note = Note("", "")
    if not note.digests:
        raise FileError(f"cannot audit {path}: its seal is damaged; audit the file that was written")
    return note


def tensor_digests(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """SHA-256 of the values of every tensor as they are stored, with its type and shape, by name."""
    return [(f"tensor {name!r}", tensor_digest(state[name])) for name in sorted(state)]


def tensor_digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
    digest.update(tensor.detach().contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()
