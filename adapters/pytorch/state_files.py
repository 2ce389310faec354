"""The weights of a module in files: one, or several of at most a size with an index that lists them.

Several files cannot be exchanged in one step. Chosen: they are written under names that hold their digest, which an
index names once all are there; then they get the names that other loaders know, and the index is exchanged for one that
names these. At every moment the index that is there lists a complete model: the old one, or the new one. Refused: the
last names at once - those of the model before are the same, and a kill would leave a mixture.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save, save_file
from torch import Tensor

from mal_graph.atomic_write import (
    NO_LINKS,
    appeared,
    data_beside,
    flush,
    flush_folder,
    holds,
    locked,
    make_folder,
    mode_of,
    remove_unnamed,
    write_whole,
)
from mal_graph.errors import FileError
from mal_graph.seals import pieces_with_digest
from mal_graph.shards import index_of, refuse_small_shards, shard_name, shards_of

from .seal import INDEX_MARK, index_note, sealed_pieces, tensor_digests

FORMAT = {"format": "pt"}  # by which other loaders know whose tensors these are
Accept = Callable[[Path], None]


def write_state(
    state: Mapping[str, Tensor],
    path: Path,
    accept: Accept | None = None,
    *,
    overwrite: bool = True,
    provenance: str = "",
    shard_size: int | None = None,
) -> None:
    """Write a state dict as a safetensors file, or as several of at most so many bytes of tensors where one has not
    room for all, completely or not at all; under a seal where it is told how it was made. Raises FileError, and
    UsageError where a tensor is larger than a file may be.

    Tied tensors are written under every name.
    """
    refuse_small_shards(path.name, {key: tensor.nbytes for key, tensor in state.items()}, shard_size)
    shards = shards_of([tensor.nbytes for tensor in state.values()], shard_size)
    keys = list(state)
    try:
        if len(shards) > 1:
            groups = [{key: state[key] for key in keys[held]} for held in shards]
            write_shards(groups, path, accept, overwrite=overwrite, provenance=provenance)
        else:
            write_one(state, path, accept, overwrite=overwrite, provenance=provenance)
    except SafetensorError as error:
        raise FileError(f"cannot write {path}: {error}; choose another folder") from None


def write_one(
    state: Mapping[str, Tensor], path: Path, accept: Accept | None, *, overwrite: bool, provenance: str
) -> None:
    """Write all tensors to one file; one that was in several files goes. Raises FileError or SafetensorError."""
    own = copied(state)

    def write(draft: Path) -> None:
        if provenance:
            with draft.open("wb") as file:
                file.writelines(sealed_pieces(own, provenance))
        else:
            save_file(own, draft)

    write_whole(path, write, partial(accept_alone, index_of(path), accept, overwrite), overwrite=overwrite)
    remove_shards(index_of(path))


def write_shards(
    groups: list[dict[str, Tensor]], path: Path, accept: Accept | None, *, overwrite: bool, provenance: str
) -> None:
    """Write tensors to a file for each group, and an index; one file that held all goes. Raises FileError."""
    index, written = index_of(path), Written(groups, path, provenance)
    write_whole(index, written.write, partial(accept_alone, path, accept, overwrite), overwrite=overwrite)
    written.give_names(index)
    path.unlink(missing_ok=True)  # which loaders would take before an index


def accept_alone(other: Path, accept: Accept | None, overwrite: bool, draft: Path) -> None:
    """Accept a draft where nothing has appeared in the meantime that loaders take for the same model. Raises
    FileError."""
    if other.exists() and not overwrite:
        raise appeared(other)
    if accept is not None:
        accept(draft)


def remove_shards(index: Path) -> None:
    """Remove an index and the files that it lists."""
    listed = [name for name in data_beside(index) if holds(index, name)]
    index.unlink(missing_ok=True)
    remove_unnamed(index, listed)


class Written:
    """Tensors that are written to several files.

    Attributes:
        groups: the tensors of each file.
        path: the file that would hold them all.
        provenance: how they were made; "" where nobody says it.
        names: what each file is called at first, by its digest, and what at last.
    """

    def __init__(self, groups: list[dict[str, Tensor]], path: Path, provenance: str) -> None:
        self.groups, self.path, self.provenance = groups, path, provenance
        self.digests: list[str] = []
        self.tensors: list[tuple[str, str]] = []
        self.names: list[tuple[str, str]] = []

    def write(self, draft: Path) -> None:
        """Write the files beside a draft, and the index that lists them. Raises OSError or SafetensorError."""
        for number, group in enumerate(self.groups):
            content = save(copied(group), FORMAT)
            draft.with_name(f"{number}").write_bytes(content)
            self.digests.append(hashlib.sha256(content).hexdigest())
        if self.provenance:
            self.tensors = tensor_digests({key: value for group in self.groups for key, value in group.items()})
        whole, count = hashlib.sha256("".join(self.digests).encode()).hexdigest(), len(self.groups)
        for number in range(count):
            names = (shard_name(self.path, number + 1, count, told) for told in (whole, ""))
            self.names.append((next(names), next(names)))
            os.replace(draft.with_name(f"{number}"), draft.with_name(self.names[-1][0]))
        draft.write_bytes(self.index([first for first, _ in self.names]))

    def index(self, names: Iterable[str]) -> bytes:
        """The index, where the files have these names. Raises FileError."""
        names = list(names)
        metadata: dict[str, Any] = {"total_size": sum(t.nbytes for group in self.groups for t in group.values())}
        if self.provenance:
            metadata |= index_note(self.provenance, dict(zip(names, self.digests, strict=True)), self.tensors)
        listed = {key: name for name, group in zip(names, self.groups, strict=True) for key in group}
        text = json.dumps({"metadata": metadata, "weight_map": listed}, indent=2, sort_keys=True) + "\n"
        if not self.provenance:
            return text.encode()
        return b"".join(pieces_with_digest(text.encode(), INDEX_MARK, "the index"))

    def give_names(self, index: Path) -> None:
        """Give the files their last names, and the index with them: where the system has links, nobody has written the
        model anew meanwhile, and no other index lists files of these names. Raises FileError."""
        first = self.index([first for first, _ in self.names])
        with locked(index.parent):
            if index.read_bytes() == first and not self.are_taken(index):
                try:
                    self.link(index)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise FileError(
                            f"{index} is written, but its files have no last names: {error.strerror}; free space and "
                            "write it again"
                        ) from None

    def are_taken(self, index: Path) -> bool:
        """Whether another index lists a file under one of the last names."""
        others = [file for file in index.parent.iterdir() if file.suffix == index.suffix and file != index]
        return any(holds(file, last) for file in others for _, last in self.names)

    def link(self, index: Path) -> None:
        """Let files have their last names too, then the index name these, then the first names go. Raises OSError."""
        folder, draft = index.parent, make_folder(index)
        try:
            for old, new in self.names:
                (folder / new).unlink(missing_ok=True)
                os.link(folder / old, folder / new)
            flush_folder(folder)
            (draft / index.name).write_bytes(self.index([last for _, last in self.names]))
            os.chmod(draft / index.name, mode_of(index))
            flush(draft / index.name, os.O_RDWR)
            os.replace(draft / index.name, index)
            flush_folder(folder)
            remove_unnamed(index, [old for old, _ in self.names])
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in memory of their own, as they are stored."""
    return {key: tensor.detach().cpu().clone().contiguous() for key, tensor in state.items()}
