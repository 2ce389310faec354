"""Weights shared out over data files of at most a size, in the order in which they are stored.

Chosen: a tensor lies in one file as a whole, as every reader of ONNX expects; a size that one alone exceeds is refused.
Refused: to let such a tensor make a larger file, as others do - the size is given where a file must not be larger.

The weights of a module in several files are called as all loaders of them expect: `m-00001-of-00002.safetensors` and so
on, and beside them an index, `m.safetensors.index.json`, which names the file of every tensor.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mal_graph.errors import UsageError

STATE, INDEX = ".safetensors", ".safetensors.index.json"  # how a file with the weights of a module ends, and an index
NUMBERED = re.compile(r"(\.[0-9a-f]{16})?-\d{5}-of-\d{5}\.safetensors")  # how files end that an index lists


def shards_of(sizes: Sequence[int], most: int | None) -> list[slice]:
    """Which tensors lie in each file, of their bytes and what a file may have; one file where this is None."""
    firsts, held = [0], 0
    for place, size in enumerate(sizes):
        if most is not None and held and held + size > most:
            firsts.append(place)
            held = 0
        held += size
    return [slice(*ends) for ends in zip(firsts, [*firsts[1:], len(sizes)], strict=True)]


def refuse_small_shards(model: str, sizes: Mapping[str, int], most: int | None) -> None:
    """Raise UsageError where a tensor has more bytes than a file may have.

    Args:
        model: how messages call the model that they are of.
        sizes: bytes by name of the tensor.
    """
    name = max(sizes, key=lambda name: sizes[name], default="")
    if most is not None and name and sizes[name] > most:
        raise UsageError(
            f"`shard_size` is {most:,} bytes, and weight {name!r} of {model} alone takes {sizes[name]:,}: give at "
            "least as many"
        )


def index_of(path: Path) -> Path:
    """The index that stands for a file of weights where these lie in several; an index is its own."""
    return path if path.name.endswith(INDEX) else path.with_name(f"{path.name.removesuffix(STATE)}{INDEX}")


def state_at(path: Path) -> Path:
    """Where the weights are that were written to a path: there, or in the files that the index beside it lists."""
    is_sharded = path.name.endswith(STATE) and not path.exists() and index_of(path).is_file()
    return index_of(path) if is_sharded else path


def shard_name(path: Path, number: int, count: int, digest: str = "") -> str:
    """What the file number `number` of `count` is called, from 1 on; with the digest of them all where it is to tell
    its content."""
    told = f".{digest[:16]}" if digest else ""
    return f"{path.name.removesuffix(INDEX).removesuffix(STATE)}{told}-{number:05}-of-{count:05}{STATE}"


def is_shard_of(name: str, index: str) -> bool:
    """Whether a file is called as one that an index of this name lists."""
    stem = index.removesuffix(INDEX)
    return index.endswith(INDEX) and name.startswith(stem) and NUMBERED.fullmatch(name[len(stem) :]) is not None


def written_before(path: Path) -> list[Path]:
    """The files that hold weights under the name of a path: one, an index, or what it may list."""
    if not path.name.endswith(STATE) or not path.parent.is_dir():
        return [path] if path.exists() else []
    index = index_of(path)
    shards = sorted(file for file in path.parent.iterdir() if is_shard_of(file.name, index.name))
    return [*(file for file in (path, index) if file.exists()), *shards]
