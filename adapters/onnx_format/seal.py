"""Seals on ONNX files: notes with digests of the whole file, of every stored tensor and of the data beside it.

Chosen: the digest of the whole file is one of its bytes, with zeros where it stands itself, so that no bit of the file
is left out, whatever it means. Refused: a digest of what was parsed - two files that mean the same may differ, and what
a parser skips would not count.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx

from mal_graph.errors import FileError, MalGraphError
from mal_graph.seals import OWN, PROVENANCE, Sealed

from . import guard, places
from .writing import Written, digest_of

TENSORS, DIGEST = OWN + "tensors", OWN + "digest"
LENGTH = 64  # of a SHA-256 in hexadecimal digits
MARK = DIGEST.encode() + bytes([0x12, LENGTH])  # what protobuf writes before the digest: its key, then tag and length
ZEROS = b"0" * LENGTH
PIECE = 2**20  # bytes that are read at once
Range = tuple[str, int, int]  # a data file, and where in it the values of a tensor begin and how many bytes they have
FORGED = "it holds the mark of a seal more than once"


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
    content = proto.SerializeToString()
    if content.count(MARK) != 1:
        raise FileError(f"cannot seal {proto.graph.name!r}: {FORGED}; take it out of its names and notes")
    place = content.index(MARK) + len(MARK)
    view = memoryview(content)
    return view[:place], hashlib.sha256(content).hexdigest().encode(), view[place + LENGTH :]


def read_seal(path: Path) -> Sealed:
    """What a sealed file says of itself, and what of it is not as it was written.

    Raises:
        FileError: it has no seal, or cannot be read.
        UnsupportedModel: it is sound, but no model that can be looked into.
    """
    path = guard.checked_path(path)
    content = path.read_bytes()
    if content.count(MARK) != 1:
        fault = FORGED if MARK in content else "it has no seal"
        raise FileError(
            f"cannot audit {path}: {fault}, so `mal-graph` did not write it as it is; audit the file that it wrote"
        )
    place = content.index(MARK) + len(MARK)
    digest = hashlib.sha256(content[:place])
    digest.update(ZEROS)
    digest.update(memoryview(content)[place + LENGTH :])
    if digest.hexdigest().encode() == content[place : place + LENGTH]:
        return looked_into(guard.check_file(path), path)
    try:
        sealed = looked_into(guard.check_file(path), path)
    except (MalGraphError, ValueError, LookupError, TypeError) as error:  # what an altered note may lead to
        return Sealed("", "", (), (f"it is damaged: {error}",))
    return Sealed(
        sealed.provenance,
        sealed.graph,
        sealed.tensors,
        sealed.changed or ("its graph, its notes or their order in the file are not as they were written",),
    )


def looked_into(proto: onnx.ModelProto, path: Path) -> Sealed:
    """The parts of a sealed model, compared with what was noted of them. Raises FileError."""
    notes = {note.key: note.value for note in proto.metadata_props}
    noted = json.loads(notes[TENSORS])
    tensors = tensor_digests(proto, path.parent)
    data = data_digests(proto, path.parent, tensors)
    changed = [
        f"the data file {name!r} is not as it was written" for name in data if noted["data"].get(name) != data[name]
    ]
    before = [(place, digest) for place, digest in noted["tensors"]]
    changed += [
        f"{place} is not as it was written"
        for (place, old), (_, new) in zip(before, tensors, strict=False)
        if old != new
    ]
    if len(before) != len(tensors):
        changed.append(f"it stores {len(tensors)} tensors, and {len(before)} were written")
    return Sealed(notes.get(PROVENANCE, ""), graph_digest(proto), tuple(tensors), tuple(changed))


def data_digests(proto: onnx.ModelProto, folder: Path, tensors: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The digest of every data file of a model, by its name, from those of its tensors."""
    held: dict[str, list[Written]] = {}
    for (_, tensor), (_, digest) in zip(places.tensors(proto), tensors, strict=True):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            name, offset, length = range_of(tensor, folder)
            held.setdefault(name, []).append(Written(offset, length, digest))
    return {name: data_digest(folder / name, held[name]) for name in sorted(held)}


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


def tensor_digests(
    proto: onnx.ModelProto, folder: Path, known: Mapping[Range, str] | None = None
) -> list[tuple[str, str]]:
    """SHA-256 of every stored tensor with its type and shape, each with where it is stored; some are known."""
    return [
        (place, (known or {}).get(range_of(tensor, folder)) or tensor_digest(tensor, folder))
        for place, tensor in places.tensors(proto)
    ]


def tensor_digest(tensor: onnx.TensorProto, folder: Path) -> str:
    """SHA-256 of the values of a tensor as they are stored, with its type and shape."""
    digest = digest_of(tensor.data_type, tensor.dims)
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        for field in ("name", "doc_string", "metadata_props"):
            bare.ClearField(field)
        digest.update(bare.SerializeToString(deterministic=True))
        return str(digest.hexdigest())
    name, offset, length = range_of(tensor, folder)
    with (folder / name).open("rb") as file:
        for piece in pieces_between(file, offset, offset + length):
            digest.update(piece)
    return str(digest.hexdigest())


def range_of(tensor: onnx.TensorProto, folder: Path) -> Range:
    """The data file of a tensor, and where its values begin there and how long they are; "" where they are in the model
    itself."""
    where = {one.key: one.value for one in tensor.external_data}
    name, offset = where.get("location", ""), int(where.get("offset", 0))
    left = (folder / name).stat().st_size - offset if name and "length" not in where else 0
    return name, offset, int(where.get("length", left))


def pieces_between(file: BinaryIO, first: int, end: int) -> Iterator[bytes]:
    """The bytes of a file between two places, in pieces."""
    file.seek(first)
    while first < end and (piece := file.read(min(end - first, PIECE))):
        first += len(piece)
        yield piece


def graph_digest(proto: onnx.ModelProto) -> str:
    """SHA-256 of all of a model but its tensors and the notes of this package; the model is emptied of them."""
    for _, tensor in list(places.tensors(proto)):
        tensor.Clear()
    kept = [(note.key, note.value) for note in proto.metadata_props if not note.key.startswith(OWN)]
    proto.ClearField("metadata_props")
    for key, value in kept:
        proto.metadata_props.add(key=key, value=value)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
