"""Files written completely or not at all, also where a run is interrupted or another one writes the same file.

A draft is written in a folder of its own beside the target, flushed to the disk and renamed. Chosen: a folder, not a
file with another name, because the draft then has the name of the target, which a model with a data file of its own
states inside. A model and its data file cannot be exchanged in one step: the old model goes first and the new one
comes last, so that there may be no model for a moment, but never one with the data of another.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mal_graph.errors import FileError

if sys.platform != "win32":
    import fcntl

DRAFT = ".mal-graph-"  # how the folders of drafts begin; a run that is killed leaves one


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, completely or not at all. Raises FileError."""
    write_whole(path, lambda draft: draft.write_bytes(text.encode()))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all. Raises FileError."""
    write_whole(path, lambda draft: draft.write_bytes(content))


def write_whole(path: Path, write: Callable[[Path], object], accept: Callable[[Path], None] | None = None) -> None:
    """Write a file and what belongs beside it, completely or not at all.

    Args:
        path: the file; what is there is replaced.
        write: writes the file to the path it is given, and may write others beside it: they come to stand beside
            `path` under their own names.
        accept: is called with the file as written; what it raises leaves everything as it was.

    Raises:
        FileError: something cannot be written. What `write` and `accept` raise besides is passed on.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=DRAFT, dir=path.parent))
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror} in folder {path.parent}; choose another folder"
        ) from None
    try:
        write(folder / path.name)
        if accept is not None:
            accept(folder / path.name)
        put_in_place(folder, path)
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(draft: Path, path: Path) -> None:
    """Move the files of a draft to where they belong, the one at `path` last; all come back if one cannot follow."""
    beside = sorted(file.name for file in draft.iterdir() if file.name != path.name)
    for name in (*beside, path.name):
        flush(draft / name, os.O_RDWR)
    with locked(path.parent), undone_on_error() as undo:
        for name in (path.name, *beside) if beside else ():
            if (path.parent / name).exists():
                move(path.parent / name, draft / f"{name}.replaced", undo)
        for name in beside:
            move(draft / name, path.parent / name, undo)
        os.replace(draft / path.name, path)
    with suppress(OSError):  # not every system lets a folder be flushed
        flush(path.parent, os.O_RDONLY)


def move(source: Path, target: Path, undo: list[Callable[[], None]]) -> None:
    """Rename a file; noted first is how to take that back."""
    undo.append(lambda: put_back(target, source))
    os.replace(source, target)


def put_back(moved: Path, place: Path) -> None:
    with suppress(FileNotFoundError):  # it was stopped before it was moved
        os.replace(moved, place)


@contextmanager
def undone_on_error() -> Iterator[list[Callable[[], None]]]:
    """A list of what takes the steps of a block back, the last step first, if the block fails."""
    undo: list[Callable[[], None]] = []
    try:
        yield undo
    except BaseException:
        for step in reversed(undo):
            step()
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one run at a time puts files in place in a folder, where the system has such locks.

    The lock ends with the process that holds it, and is held for a few renames only.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # some network file systems have no locks, some folders may not be read
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            if sys.platform != "win32":  # which has other locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def flush(path: Path, mode: int) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
