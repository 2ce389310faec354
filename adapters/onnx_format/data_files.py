"""The data files beside a model: its big weights, in one file or in several of at most a size."""

import hashlib
from functools import partial
from pathlib import Path

import onnx_ir as ir

from mal_graph.seals import PROVENANCE
from mal_graph.shards import shards_of

from .checkpoint import Checkpoint
from .digests import data_digest
from .document import stored_values
from .seal import Range
from .writing import write_tensors

EXTERNAL_TENSOR_FROM = 256  # bytes; smaller tensors stay in the model file


def big_weights(model: ir.Model) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    """The initializers that are worth a data file, each with its tensor; texts cannot lie there."""
    stored = [(value, value.const_value) for value in stored_values(model)]
    return [
        (value, tensor)
        for value, tensor in stored
        if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > EXTERNAL_TENSOR_FROM
    ]


def key_of(model: ir.Model, shard_size: int | None) -> str:
    """A digest of what the data of a model follow from: how it was made, and what tensors it has. "" where it does not
    say how it was made: then nobody knows what its values are before they are computed."""
    if PROVENANCE not in model.metadata_props:
        return ""
    tensors = [(value.name, tensor.dtype.value, tensor.shape.numpy()) for value, tensor in big_weights(model)]
    return hashlib.sha256(repr((model.metadata_props[PROVENANCE], tensors, shard_size)).encode()).hexdigest()


def move_out(model: ir.Model, draft: Path, shard_size: int | None) -> dict[Range, str]:
    """Write the big weights of a model to data files beside a draft, of at most so many bytes each; what is written
    there already is taken where it is what it was. Their digests, by where they lie. Raises OSError, and what reading a
    weight raises."""
    weights = big_weights(model)
    if not weights:
        return {}
    checkpoint = Checkpoint(draft, key_of(model, shard_size))
    places: list[Range] = []
    digests: list[str] = []
    for number, held in enumerate(shards_of([tensor.nbytes for _, tensor in weights], shard_size)):
        path, known = checkpoint.file(number), checkpoint.known.get(number, {})
        note = partial(checkpoint.note_tensor, number)
        written = write_tensors([tensor for _, tensor in weights[held]], path, known, note)
        name = checkpoint.finish(number, data_digest(path, written)).name
        places += [(name, tensor.offset, tensor.length) for tensor in written]
        digests += [tensor.digest for tensor in written]
    for (value, old), place in zip(weights, places, strict=True):
        value.const_value = ir.ExternalTensor(
            *place,
            old.dtype,
            shape=ir.Shape(old.shape.numpy()),
            name=value.name or "",
            doc_string=old.doc_string,
            metadata_props=dict(old.metadata_props),
            base_dir=draft.parent,
        )
    return dict(zip(places, digests, strict=True))
