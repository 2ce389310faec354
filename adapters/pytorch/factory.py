"""Modules named on a command line: `package.module:factory`, and the file their weights are in.

Only what the user names is imported, and no file is ever unpickled: weights come from safetensors, or from what
`torch.load(weights_only=True)` takes.
"""

import importlib
import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mal_graph.errors import FileError, MalGraphError, ShapeError, UsageError
from mal_graph.memory_bound import memory_bounded
from mal_graph.shards import INDEX, state_at
from mal_graph.text_files import read_text

INSIDE = ("state_dict", "model_state_dict", "model")  # where training scripts keep a state dict in a checkpoint
SHOWN = 3  # names in a message
MOST_TENSORS, MOST_PICKLED = 50_000, 2**21  # tensors of a file, and bytes that say where they lie
MOST_HEADER = 2**24  # bytes that list the tensors of a safetensors file; they unfold to 25 times as many
TOO_MANY = "more than any module has: give the state dict of the module alone"


def build_module(target: str, weights: Path | None = None) -> nn.Module:
    """The module that a factory makes, with the weights of a file.

    Args:
        target: `package.module:factory`; the current folder is looked in as well.
        weights: a `.safetensors` file, the index of several (`.safetensors.index.json`), or a state dict that torch
            saved.

    Raises:
        UsageError: there is no such factory, or it makes no module.
        FileError, ShapeError: the weights cannot be read, or are not those of the module.
    """
    module = call_factory(target)
    if weights is not None:
        load_state(module, read_weights(weights), target, weights)
    return module


def call_factory(target: str) -> nn.Module:
    """What the factory gives."""
    name, _, factory = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory_function = getattr(importlib.import_module(name), factory)
    except AttributeError:
        raise UsageError(f"cannot build {target}: {name} has no {factory!r}; check the name") from None
    except (Exception, SystemExit) as error:  # an import runs whatever the file holds
        raise UsageError(
            f"cannot build {target}: importing {name} failed: {one_line(error)}; check the name"
        ) from error
    try:
        module = factory_function()
    except MalGraphError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"cannot build {target}: it raised {one_line(error)}; name a function that needs no arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"cannot build {target}: it gave a {type(module).__name__}; it must give a torch.nn.Module")
    return module


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name; where it is not there, in those that the index beside it lists. Raises FileError
    or MemoryLimitError."""
    path = state_at(path)
    if path.exists() and not path.is_file():
        raise FileError(f"cannot read the weights in {path}: it is not a regular file; check the path")
    try:
        if path.name.endswith(INDEX):
            return read_shards(path)
        with memory_bounded(path, path.stat().st_size):
            if ".safetensors" in path.suffixes:
                refuse_long_header(path)
                return read_tensors(path)
            refuse_long_pickle(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (MalGraphError, MemoryError):
        raise
    except OSError as error:
        raise FileError(f"cannot read the weights in {path}: {error.strerror or error}; check the path") from None
    except SafetensorError as error:
        raise FileError(f"cannot read the weights in {path}: it is no safetensors file ({error})") from None
    except Exception as error:  # the unpickler and the archive's reader raise a dozen kinds for what is broken
        raise FileError(
            f"cannot read the weights in {path}: it is more than tensors, or broken ({one_line(error)}), and loading "
            "it could run any code; save model.state_dict() with safetensors.torch.save_file and give that file"
        ) from None
    return tensors_in(content, path)


def read_shards(path: Path) -> dict[str, Tensor]:
    """The tensors of several files, which an index lists by name. Raises FileError or OSError."""
    listed_in = files_of(path)
    missing = sorted(shard for shard in set(listed_in.values()) if not (path.parent / shard).is_file())
    if missing:
        raise FileError(
            f"cannot read the weights in {path}: it lists {listed(missing)}, not there; copy all of its files"
        )
    held = {shard: read_weights(path.parent / shard) for shard in sorted(set(listed_in.values()))}
    lost = [name for name, shard in listed_in.items() if name not in held[shard]]
    if lost:
        raise FileError(
            f"cannot read the weights in {path}: {listed_in[lost[0]]} does not hold {lost[0]}, so that it is of "
            "another model; copy index and files of one model"
        )
    return {name: held[shard][name] for name, shard in listed_in.items()}


def files_of(path: Path) -> dict[str, str]:
    """The file of each tensor by an index. Raises FileError or OSError."""
    try:
        shards = TypeAdapter(dict[str, str]).validate_python(json.loads(read_text(path))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError):  # pydantic's errors are ValueErrors
        raise FileError(
            f"cannot read the weights in {path}: it is no index of safetensors files, which has a weight_map of names "
            "and files; give the one that was saved beside them"
        ) from None
    outside = [shard for shard in shards.values() if Path(shard).name != shard or not shard.endswith(".safetensors")]
    if outside or not shards:
        what = f"lists {outside[0]!r}, which is no .safetensors file beside it" if outside else "lists nothing"
        raise FileError(f"cannot read the weights in {path}: it {what}; give the index that was saved beside the files")
    return shards


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file. Raises FileError, SafetensorError or OSError."""
    with safe_open(path, "pt") as file:
        names = file.keys()
        if len(names) > MOST_TENSORS:
            raise FileError(f"cannot read the weights in {path}: it holds {len(names):,} tensors, {TOO_MANY}")
        return {name: file.get_tensor(name) for name in names}


def refuse_long_header(path: Path) -> None:
    """Raise FileError where the list of a safetensors file is long: its reader ends the process where it is refused
    memory. Raises OSError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MOST_HEADER < length < path.stat().st_size:  # else it is no such file, which its reader tells
        raise FileError(f"cannot read the weights in {path}: {length:,} bytes of it list its tensors, {TOO_MANY}")


def refuse_long_pickle(path: Path) -> None:
    """Raise FileError where reading what a checkpoint pickles would take minutes. Raises OSError or BadZipFile."""
    if not is_zipfile(path):
        return
    with ZipFile(path) as archive:
        sizes = [member.file_size for member in archive.infolist() if member.filename.endswith("data.pkl")]
    if sum(sizes) > MOST_PICKLED:
        raise FileError(f"cannot read the weights in {path}: {sum(sizes):,} bytes of it are pickled, {TOO_MANY}")


def tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file holds: the whole of it, or what training scripts call it."""
    if isinstance(content, Mapping):
        for inside in (content, *(content[name] for name in INSIDE if name in content)):
            if isinstance(inside, Mapping) and inside and all(isinstance(value, Tensor) for value in inside.values()):
                return dict(inside)
    raise FileError(
        f"cannot read the weights in {path}: it holds a {type(content).__name__} and no state dict; "
        "save model.state_dict() and give that file"
    )


def load_state(module: nn.Module, weights: Mapping[str, Tensor], target: str, path: Path) -> None:
    """Load a state dict that must fit exactly, and hold numbers. Raises ShapeError or FileError."""
    own = module.state_dict()
    for what, names in (("lacks", own.keys() - weights.keys()), ("has more:", weights.keys() - own.keys())):
        if names:
            raise ShapeError(f"{path} does not fit {target}: it {what} {listed(names)}; give the weights of this class")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise ShapeError(
                f"{path} does not fit {target}: {name} has shape {list(weights[name].shape)}, the module "
                f"{list(value.shape)}; give the weights of this class"
            )
    learned = {name for name, _ in module.named_parameters()}
    for name, tensor in weights.items():  # what is not learned may be a mask of infinities
        if tensor.is_floating_point() and not is_sound(tensor, may_be_infinite=name not in learned):
            raise FileError(f"{path} cannot be used: {name} holds numbers that are not finite; give another checkpoint")
    module.load_state_dict(dict(weights))


def is_sound(tensor: Tensor, *, may_be_infinite: bool) -> bool:
    """Whether all of a tensor are numbers, and finite where they must be. Numbers of 8 bits are looked at as others:
    torch tells of some of their types nothing."""
    numbers = tensor.float() if tensor.element_size() == 1 else tensor
    return not bool(numbers.isnan().any() or (not may_be_infinite and numbers.isinf().any()))


def listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def one_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
