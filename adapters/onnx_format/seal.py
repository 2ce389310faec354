"""Seals on ONNX files: notes with digests of the whole file, of every stored tensor and of the data beside it.

Chosen: the digest of the whole file is one of its bytes, with zeros where it stands itself, so that no bit of the file
is left out, whatever it means. Refused: a digest of what was parsed - two files that mean the same may differ, and what
a parser skips would not count.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from mal_graph.errors import MalGraphError
from mal_graph.seals import (
    DAMAGED,
    LENGTH,
    OWN,
    PROVENANCE,
    ZEROS,
    Sealed,
    differing,
    has_own_digest,
    pieces_with_digest,
    read_digests,
)

from . import guard, places
from .digests import Written, data_digest, digest_in, digest_of

TENSORS, DIGEST = OWN + "tensors", OWN + "digest"
MARK = DIGEST.encode() + bytes([0x12, LENGTH])  # what protobuf writes before the digest: its key, then tag and length
Range = tuple[str, int, int]  # a data file, and where in it the values of a tensor begin and how many bytes they have


def has_provenance(proto: onnx.ModelProto) -> bool:
    """Whether a model says how it was made."""
    return any(note.key == PROVENANCE for note in proto.metadata_props)


def sealed_pieces(proto: onnx.ModelProto, folder: Path, written: Mapping[Range, str]) -> tuple[bytes | memoryview, ...]:
    """The content of a model's file with a seal, in pieces. The model is changed.

    Args:
        proto: the model; its data lie in `folder`.
        written: digests of tensors that were taken while they were written.

    Raises:
        FileError: something in the model looks like a seal.
    """
    tensors = tensor_digests(proto, folder, written)
    stored = {"data": data_digests(proto, folder, tensors), "tensors": tensors}
    proto.metadata_props.add(key=TENSORS, value=json.dumps(stored, separators=(",", ":")))
    proto.metadata_props.add(key=DIGEST, value=ZEROS.decode())
    return pieces_with_digest(proto.SerializeToString(), MARK, proto.graph.name)


def read_seal(path: Path) -> Sealed:
    """What a sealed file says of itself, and what of it is not as it was written.

    Raises:
        FileError: it has no seal, or cannot be read.
        UnsupportedModel: it is sound, but no model that can be looked into.
    """
    path = guard.checked_path(path)
    if has_own_digest(path.read_bytes(), MARK, path):
        return looked_into(guard.check_file(path), path)
    try:
        sealed = looked_into(guard.check_file(path), path)
    except MalGraphError as error:
        return Sealed("", "", (), (f"it is damaged: {error}",))
    return Sealed(
        sealed.provenance,
        sealed.graph,
        sealed.tensors,
        sealed.changed or (DAMAGED,),
    )


def looked_into(proto: onnx.ModelProto, path: Path) -> Sealed:
    """The parts of a sealed model, compared with what was noted of them. Raises FileError."""
    notes = {note.key: note.value for note in proto.metadata_props}
    noted = read_digests(notes.get(TENSORS, ""), path)
    tensors = tensor_digests(proto, path.parent)
    data = data_digests(proto, path.parent, tensors)
    changed = [
        f"the data file {name!r} is not as it was written" for name in data if noted.data.get(name) != data[name]
    ]
    changed += differing(noted, tensors)
    return Sealed(notes.get(PROVENANCE, ""), graph_digest(proto), tuple(tensors), tuple(changed))


def data_digests(proto: onnx.ModelProto, folder: Path, tensors: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The digest of every data file of a model, by its name, from those of its tensors."""
    held: dict[str, list[Written]] = {}
    for (_, tensor), (_, digest) in zip(places.Parsed(proto).tensors, tensors, strict=True):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            name, offset, length = range_of(tensor, folder)
            held.setdefault(name, []).append(Written(offset, length, digest))
    return {name: data_digest(folder / name, held[name]) for name in sorted(held)}


def tensor_digests(
    proto: onnx.ModelProto, folder: Path, known: Mapping[Range, str] | None = None
) -> list[tuple[str, str]]:
    """SHA-256 of every stored tensor with its type and shape, each with where it is stored; some are known."""
    return [
        (place, (known or {}).get(range_of(tensor, folder)) or tensor_digest(tensor, folder))
        for place, tensor in places.Parsed(proto).tensors
    ]


def tensor_digest(tensor: onnx.TensorProto, folder: Path) -> str:
    """SHA-256 of the values of a tensor as they are stored, with its type and shape."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        digest = digest_of(tensor.data_type, tensor.dims)
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        for field in ("name", "doc_string", "metadata_props"):
            bare.ClearField(field)
        digest.update(bare.SerializeToString(deterministic=True))
        return str(digest.hexdigest())
    name, offset, length = range_of(tensor, folder)
    with (folder / name).open("rb") as file:
        return digest_in(file, tensor.data_type, tensor.dims, offset, length)


def range_of(tensor: onnx.TensorProto, folder: Path) -> Range:
    """The data file of a tensor, and where its values begin there and how long they are; "" where they are in the model
    itself."""
    where = {one.key: one.value for one in tensor.external_data}
    name, offset = where.get("location", ""), int(where.get("offset", 0))
    left = (folder / name).stat().st_size - offset if name and "length" not in where else 0
    return name, offset, int(where.get("length", left))


def graph_digest(proto: onnx.ModelProto) -> str:
    """SHA-256 of all of a model but its tensors and the notes of this package; the model is emptied of them."""
    for _, tensor in list(places.Parsed(proto).tensors):
        tensor.Clear()
    kept = [(note.key, note.value) for note in proto.metadata_props if not note.key.startswith(OWN)]
    proto.ClearField("metadata_props")
    for key, value in kept:
        proto.metadata_props.add(key=key, value=value)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
