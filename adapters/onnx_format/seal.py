"""Seals on ONNX files: notes with digests of the whole file, of every stored tensor and of the data beside it.

Chosen: the digest of the whole file is one of its bytes, with zeros where it stands itself, so that no bit of the file
is left out, whatever it means. Refused: a digest of what was parsed - two files that mean the same may differ, and what
a parser skips would not count.
"""

import hashlib
import json
from collections.abc import Iterator
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

TENSORS, DIGEST = OWN + "tensors", OWN + "digest"
MARK = DIGEST.encode() + bytes([0x12, LENGTH])  # what protobuf writes before the digest: its key, then tag and length


def has_provenance(proto: onnx.ModelProto) -> bool:
    """Whether a model says how it was made."""
    return any(note.key == PROVENANCE for note in proto.metadata_props)


def sealed_pieces(proto: onnx.ModelProto, folder: Path) -> tuple[bytes | memoryview, ...]:
    """The content of a model's file with a seal, in pieces; its data lie in `folder`. The model is changed.

    Raises:
        FileError: something in the model looks like a seal.
    """
    stored = {"data": data_digests(proto, folder), "tensors": tensor_digests(proto, folder)}
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
    data, tensors = data_digests(proto, path.parent), tensor_digests(proto, path.parent)
    changed = [
        f"the data file {name!r} is not as it was written" for name in data if noted.data.get(name) != data[name]
    ]
    changed += differing(noted, tensors)
    return Sealed(notes.get(PROVENANCE, ""), graph_digest(proto), tuple(tensors), tuple(changed))


def data_digests(proto: onnx.ModelProto, folder: Path) -> dict[str, str]:
    """SHA-256 of every data file of a model, by its name."""
    names = {
        one.value for _, tensor in places.Parsed(proto).tensors for one in tensor.external_data if one.key == "location"
    }
    return {name: file_digest(folder / name) for name in sorted(names)}


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_digests(proto: onnx.ModelProto, folder: Path) -> list[tuple[str, str]]:
    """SHA-256 of every stored tensor with its type and shape, each with where it is stored."""
    return [(place, tensor_digest(tensor, folder)) for place, tensor in places.Parsed(proto).tensors]


def tensor_digest(tensor: onnx.TensorProto, folder: Path) -> str:
    """SHA-256 of the values of a tensor as they are stored, with its type and shape."""
    digest = hashlib.sha256(repr((tensor.data_type, tuple(tensor.dims))).encode())
    for piece in stored_pieces(tensor, folder):
        digest.update(piece)
    return digest.hexdigest()


def stored_pieces(tensor: onnx.TensorProto, folder: Path) -> Iterator[bytes]:
    """The stored values of a tensor, in pieces."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        for field in ("name", "doc_string", "metadata_props"):
            bare.ClearField(field)
        yield bare.SerializeToString(deterministic=True)
        return
    where = {one.key: one.value for one in tensor.external_data}
    with (folder / where["location"]).open("rb") as file:
        file.seek(int(where.get("offset", 0)))
        left = int(where["length"]) if "length" in where else -1
        while left and (piece := file.read(min(left, 2**20) if left > 0 else 2**20)):
            left -= len(piece) if left > 0 else 0
            yield piece


def graph_digest(proto: onnx.ModelProto) -> str:
    """SHA-256 of all of a model but its tensors and the notes of this package; the model is emptied of them."""
    for _, tensor in list(places.Parsed(proto).tensors):
        tensor.Clear()
    kept = [(note.key, note.value) for note in proto.metadata_props if not note.key.startswith(OWN)]
    proto.ClearField("metadata_props")
    for key, value in kept:
        proto.metadata_props.add(key=key, value=value)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
