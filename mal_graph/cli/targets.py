"""Files a command may write, found out before any work is done."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mal_graph.cli.factories import is_factory
from mal_graph.errors import FileError, UsageError
from mal_graph.shards import INDEX, STATE, state_at, written_before
from mal_graph.source_files import SourceFile, all_opened

if TYPE_CHECKING:
    from mal_graph.graph import LayerGraph

IMAGES = ("svg", "png")
REPORTS = ("json", "html", "md")


def given(*paths: str | None) -> list[str]:
    """The files a command reads, none of which it may write."""
    return [path for path in paths if path is not None]


def weight_files(weights: Sequence[str] | None) -> list[str]:
    """The files that hold weights: those that an index lists stand behind it."""
    from mal_graph.atomic_write import written_files

    files: list[str] = []
    for path in weights or ():
        own = state_at(Path(path))
        has_index = own.name.endswith(INDEX) and own.is_file()
        files += map(str, written_files(own)) if has_index else [path]
    return files


def input_files(job: str, options: dict[str, Any]) -> list[str]:
    """The files that options name and that are read."""
    from mal_graph.config import options_of
    from mal_graph.option import option_of

    fields = options_of(job)
    values = [value for name, value in options.items() if name in fields and option_of(fields[name]).reads_file]
    several = [path for value in values for path in ([value] if isinstance(value, str) else value)]
    return [path for path in several if isinstance(path, str) and path != "-"]  # a recipe has read some of them


def digests_of(read: Mapping[str, SourceFile], graphs: Sequence["LayerGraph"]) -> dict[str, str]:
    """SHA-256 of the files that a command read, by path, with the data of its models. Raises FileError where one is not
    what it was when the command began."""
    data = {os.path.relpath(file.path): file for graph in graphs for file in graph.files[1:]}
    return {path: file.sha256() for path, file in {**read, **data}.items()}


def digests_of_written(path: Path) -> dict[str, str]:
    """SHA-256 of a model that was written and of its data, by path."""
    from mal_graph.atomic_write import written_files

    return digests_of(all_opened(map(str, written_files(path))), ())


def default_output(base: str, suffix: str) -> str:
    """`base.onnx` gives `base.merged.onnx` and `package:factory` gives `factory.merged.onnx`, in the current folder."""
    name = base.rpartition(":")[2] if is_factory(base) else Path(base).name
    return f"{name.removesuffix('.onnx')}.{suffix}.onnx"


def merged_target(
    output: str | None, base: str, sources: Sequence[str], force: bool, write: bool = True, suffix: str = "merged"
) -> Path:
    """Where the merged model goes. Raises FileError before any work is done."""
    path = default_output(base, suffix) if output is None else output
    if path.endswith(".safetensors") and not is_factory(base):
        raise FileError(f"cannot write {path}: {base} was not traced from a torch module; name an .onnx file")
    target = checked_target(path, sources, force, write)
    if path.endswith(STATE):
        refuse_shards(target, sources, force or not write)
    if not path.endswith((".onnx", ".safetensors")):
        raise FileError(
            f"cannot write {path}: a merged model is an .onnx file, or the .safetensors of a torch module; name one "
            "of these"
        )
    return target


def refuse_shards(target: Path, sources: Sequence[str], force: bool) -> None:
    """Raise FileError where weights in several files would be replaced that are read, or may not be replaced."""
    there = [file for file in written_before(target) if file != target]
    read = next((file for file in there if any(same_file(file, source) for source in sources)), None)
    if read is not None:
        raise FileError(f"cannot write {target}: {read.name}, which goes with it, is one of the inputs; name another")
    if there and not force:
        raise FileError(
            f"cannot write {target}: {there[0].name} exists, which goes with it; use --force to overwrite it, or name "
            "another file"
        )


def checked_target(path: str, sources: Sequence[str], force: bool, write: bool = True) -> Path:
    """A path that may be written. Raises FileError before any work is done."""
    target = Path(path)
    if any(same_file(path, source) for source in sources):
        raise FileError(f"cannot write {path}: it is one of the inputs; name another file")
    if not write:
        return target
    mode = mode_of(path)
    refuse_place(path, mode, force)
    folder = target.parent
    if path.endswith("/") or not folder.is_dir():
        missing = path if path.endswith("/") else folder
        raise FileError(f"cannot write {path}: there is no folder {missing}; create it first")
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write {path}: folder {folder} is read-only; choose another")
    return target


def mode_of(path: str) -> int:
    """The mode of what lies at a path; 0 where there is nothing. Raises FileError."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise FileError(f"cannot write {path}: {getattr(error, 'strerror', error)}; name another file") from None


def refuse_place(path: str, mode: int, force: bool) -> None:
    """Raise FileError where what lies at a path may not be replaced."""
    if not path or stat.S_ISDIR(mode):
        raise FileError(f"cannot write {path or repr('')}: it is a folder; name a file in it")
    if mode and not stat.S_ISREG(mode):
        raise FileError(f"cannot write {path}: it is not a regular file; name another one")
    if mode and not force:
        raise FileError(f"cannot write {path}: it exists; use --force to overwrite it, or name another file")


def checked_result(path: str, sources: Sequence[str], force: bool) -> Path:
    """A path that a sweep may be written to. Raises FileError or UsageError before any work is done."""
    target = checked_target(path, sources, force)
    kind = target.suffix.removeprefix(".")
    if kind not in (*REPORTS, "csv", *IMAGES):
        raise UsageError(f"cannot write a sweep to {path}: its name must end in .json, .html, .md, .csv, .svg or .png")
    if kind in IMAGES:
        refuse_without_figures()
    return target


def checked_plot(path: str, sources: Sequence[str], force: bool) -> Path:
    """A path that a plot may be written to. Raises FileError or UsageError before any work is done."""
    target = checked_target(path, sources, force)
    if target.suffix.removeprefix(".") not in IMAGES:
        raise UsageError(f"cannot write a plot to {path}: its name must end in .svg or .png")
    refuse_without_figures()
    return target


def report_targets(
    report: str | None, plot: str | None, model: Path, sources: Sequence[str], force: bool
) -> tuple[Path | None, Path | None]:
    """Where the report of a model and its plot go. Raises FileError or UsageError before any work is done."""
    plot_to = None if plot is None else checked_plot(plot, sources, force)
    return checked_report(report, [model, plot_to], "the model, the report and the plot", sources, force), plot_to


def checked_report(
    path: str | None, others: Sequence[Path | None], what: str, sources: Sequence[str], force: bool
) -> Path | None:
    """Where a report goes, which is none of the `others` that are written; `what` they all are. Raises FileError or
    UsageError before any work is done."""
    target = None if path is None else checked_target(path, sources, force)
    refuse_one_file([*others, target], what)
    refuse_other_kinds(target)
    return target


def checked_recipe(path: str | None, others: Sequence[Path | None], sources: Sequence[str], force: bool) -> Path | None:
    """Where a recipe goes, which is none of the `others` that are written. Raises FileError or UsageError before any
    work is done."""
    target = None if path is None else checked_target(path, sources, force)
    if target is not None and any(map(is_factory, sources)):
        raise UsageError(f"cannot write a recipe to {target}: it names files alone, and a module here is none")
    refuse_one_file([*others, target], "the model, the recipe and what else is written")
    if target is not None and target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"cannot write a recipe to {target}: its name must end in .yaml")
    return target


def refuse_other_kinds(report: Path | None, kinds: Sequence[str] = REPORTS) -> None:
    """Raise UsageError for a report of a form that there is not."""
    if report is not None and report.suffix.removeprefix(".") not in kinds:
        *first, last = (f".{kind}" for kind in kinds)
        raise UsageError(f"cannot write a report to {report}: its name must end in {', '.join(first)} or {last}")


def refuse_without_figures() -> None:
    """Raise UsageError where nothing can be drawn."""
    from mal_graph.reporting import new_figure

    new_figure(1, 1)


def refuse_one_file(paths: Sequence[Path | None], what: str) -> None:
    """Raise FileError where two of the files to write are one."""
    named = [os.path.realpath(path) for path in paths if path is not None]
    if len(set(named)) < len(named):
        raise FileError(f"cannot write {what} to one file: name another for each")


def same_file(a: str | Path, b: str | Path) -> bool:
    """Whether two paths lead to one file, through links too."""
    try:
        return os.path.realpath(a) == os.path.realpath(b) or os.path.samefile(a, b)
    except (OSError, ValueError):
        return False
