"""Seals on safetensors files: one note with the digest of the whole file, how it was made, and a digest per tensor.

Chosen: one note for all of it. Refused: one for each part - the library writes notes in an order that is another in
every run, and equal inputs must give equal bytes. Where the tensors lie in several files, the note is in their index,
with a digest of each file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from mal_graph.shards import INDEX, state_at
from mal_graph.text_files import read_text

from .factory import files_of

SEAL = OWN + "seal"
MARK = f'"{SEAL}":"'.encode()  # what stands before the digest in the header of a file
INDEX_MARK = f'"{SEAL}": "'.encode()  # the same in an index


class Note(NamedTuple):
    """What a seal holds behind the digest of the file: how it was made, and the digests of its tensors as JSON."""

    provenance: str
    digests: str


def sealed_pieces(state: Mapping[str, Tensor], provenance: str) -> tuple[bytes | memoryview, ...]:
    """The content of a file that holds a state and a seal, in pieces. Raises FileError."""
    digests = {"data": {}, "tensors": tensor_digests(state)}
    note = json.dumps(Note(provenance, json.dumps(digests)))
    return pieces_with_digest(save(dict(state), {SEAL: ZEROS.decode() + note}), MARK, "the state")


def index_note(provenance: str, files: Mapping[str, str], tensors: list[tuple[str, str]]) -> dict[str, str]:
    """The note of a seal on an index, by its key: how it was made, and digests of files and of tensors."""
    digests = {"data": files, "tensors": tensors}
    return {SEAL: ZEROS.decode() + json.dumps(Note(provenance, json.dumps(digests)))}


def read_seal(path: Path) -> Sealed:
    """What a sealed file says of itself, and what of it is not as it was written. Raises FileError."""
    path = state_at(path)
    has_index = path.name.endswith(INDEX)
    try:
        is_whole = has_own_digest(path.read_bytes(), INDEX_MARK if has_index else MARK, path)
        files = [path.with_name(name) for name in sorted(set(files_of(path).values()))] if has_index else [path]
        note = note_in(index_metadata(path) if has_index else metadata_of(path), path)
        noted, tensors = read_digests(note.digests, path), tensors_of(files)
        changed = changed_files(files, noted.data) if has_index else []
    except OSError as error:
        raise FileError(f"cannot audit {path}: {error.strerror or error}; check the path") from None
    except SafetensorError as error:
        raise FileError(f"cannot audit {path}: it is no safetensors file any more ({error})") from None
    changed += differing(noted, tensors)
    if not is_whole and not changed:
        changed = [DAMAGED]
    return Sealed(note.provenance, "", tuple(tensors), tuple(changed))


def metadata_of(path: Path) -> dict[str, str]:
    """The notes in a safetensors file. Raises OSError or SafetensorError."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def index_metadata(path: Path) -> dict[str, str]:
    """The notes in an index that was read before, as far as they are texts. Raises OSError."""
    held = json.loads(read_text(path)).get("metadata")
    return {key: text for key, text in held.items() if isinstance(text, str)} if isinstance(held, dict) else {}


def tensors_of(files: Sequence[Path]) -> list[tuple[str, str]]:
    """SHA-256 of every tensor in some files, by name. Raises OSError or SafetensorError."""
    digests: dict[str, str] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            names = file.keys()
            digests |= {name: tensor_digest(file.get_tensor(name)) for name in names}
    return [(f"tensor {name!r}", digests[name]) for name in sorted(digests)]


def changed_files(files: Sequence[Path], noted: Mapping[str, str]) -> list[str]:
    """Which files of several are not as they were noted, a sentence each. Raises OSError."""
    changed = [
        f"the file {path.name!r} is not as it was written" for path in files if sha256_of(path) != noted.get(path.name)
    ]
    return (
        changed
        if len(files) == len(noted)
        else [*changed, f"{len(noted)} files were written, and it lists {len(files)}"]
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
