"""The donors of a zoo before they are looked into: each once, with why it is not used if it is not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from mal_graph.config import ZooConfig
from mal_graph.errors import FileError, MalGraphError, MatchError, MemoryLimitError, UsageError
from mal_graph.graph import LayerGraph
from mal_graph.remote_files import is_remote, listed
from mal_graph.workflows.checkpoint import digest_of_file, fingerprint
from mal_graph.workflows.checks import check_inputs
from mal_graph.workflows.job_memory import refuse_too_large
from mal_graph.workflows.models import Arrays, Model, is_module, open_models
from mal_graph.workflows.zoo_memory import zoo_needs

SUFFIX = ".onnx"


@dataclass(frozen=True)
class Entry:
    """A donor before it is looked into: what to load, a digest of it, and why it is not used at all."""

    name: str
    model: Model
    digest: str
    reason: str = ""


def entries_of(
    base: LayerGraph, donors: str | Path | Iterable[Model], config: ZooConfig, data: Arrays | None
) -> Iterator[Entry]:
    """Every donor once, with why it is not used if it is not. Raises FileError."""
    seen = {fingerprint(base): "the base"}
    for name, model in named(donors):
        try:
            _, graph = open_models([base, str(model) if isinstance(model, Path) else model], config, data)
            digest_of_model = fingerprint(graph)
        except MalGraphError as error:
            yield Entry(name, model, digest_of_file(Path(str(model))), str(error))
            continue
        reason = (
            f"the same model as {seen[digest_of_model]}"
            if digest_of_model in seen
            else misfit(base, graph.named(name), config, has_data=data is not None)
        )
        seen.setdefault(digest_of_model, name)
        yield Entry(name, graph if is_module(model) else model, digest_of_model, reason)


def named(donors: str | Path | Iterable[Model]) -> Iterator[tuple[str, Model]]:
    """Every donor, of a folder or given one by one, with what reports call it. Raises FileError."""
    if isinstance(donors, str | Path):
        yield from ((Path(file).name, file) for file in files_in(donors))
        return
    for model in donors:
        yield getattr(model, "name", model if isinstance(model, str) else type(model).__name__), model


def misfit(base: LayerGraph, donor: LayerGraph, config: ZooConfig, *, has_data: bool) -> str:
    """Why a donor does not take what the base takes, or takes more memory than there is; "" if it fits."""
    try:
        check_inputs(base, donor, config.pair)
        refuse_too_large(zoo_needs(base, donor, config, has_data=has_data), config)
    except (MatchError, UsageError, MemoryLimitError) as error:
        return str(error)
    return ""


def files_in(folder: str | PathLike[str]) -> list[str]:
    """The .onnx files of a folder, or of one at an address, by name. Raises FileError."""
    if is_remote(folder):
        files = listed(str(folder), SUFFIX)
    else:
        files = names_in(Path(folder))
    if not files:
        raise FileError(f"the zoo {folder} holds no .onnx file: name a folder of models to merge")
    return files


def names_in(folder: Path) -> list[str]:
    """The same of a folder of this machine."""
    try:
        return sorted(str(path) for path in folder.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())
    except OSError as error:
        raise FileError(f"cannot read the zoo {folder}: {error.strerror}; name a folder of .onnx files") from None
