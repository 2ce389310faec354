"""Files written completely or not at all, whatever happens meanwhile: a kill, a power cut, another run.

A draft is written in a folder of its own beside the target, flushed to the disk and renamed. Chosen: a folder, not a
file with another name, because the draft then has the name of the target; a lock on it tells that its writer lives, so
that the next run removes what a killed one left.

A model and its data file cannot be exchanged in one step. Chosen: data under a name that holds their digest (see
`data_name`), which no other content can have, put in place before the model that names them; the data of the model that
was replaced go last. At every moment the model that is there finds the data that belong to it.

A draft may hold a checkpoint, beside the file that it is of: what of it is written already. A run that is asked to
resume takes such a draft over where its writer was killed, and leaves its own where it is stopped; any other run that
writes the same file removes it, and those that write other files leave it alone.
"""

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mal_graph.errors import FileError
from mal_graph.shards import is_shard_of, state_at

if sys.platform != "win32":
    import fcntl

DRAFT = ".mal-graph-"  # how the folders of drafts begin; a run that is killed leaves one
DATA = ".data"  # how the files end that are written beside others
CHECKPOINT = ".written"  # how what tells of a draft what is written already ends, behind the name of the file
DIGITS = 16  # of a digest in the name of a file
CHUNK = 2**20  # bytes that are looked through at once
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file in UTF-8, completely or not at all. Raises FileError."""
    write_bytes(path, text.encode(), overwrite=overwrite)


def write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file, completely or not at all. Raises FileError."""
    write_whole(path, lambda draft: draft.write_bytes(content), overwrite=overwrite)


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    accept: Callable[[Path], None] | None = None,
    *,
    overwrite: bool,
    resume: bool = False,
) -> None:
    """Write a file and the data that belong beside it, completely or not at all.

    Args:
        path: the file. One that is replaced leaves its permissions to the new one, and takes its data with it as far as
            they bear its name and no other file of its kind names them.
        write: writes the file to the path it is given, and may write others beside it: they come to stand beside
            `path` under their own names, which must tell their content (`data_name`).
        accept: is called with the file as written; what it raises leaves everything as it was.
        overwrite: whether a file at `path` may be replaced. Without it one that appears meanwhile is left alone.
        resume: whether `write` goes on with the draft that a killed run left, where that has a checkpoint.

    Raises:
        FileError: something cannot be written. What `write` and `accept` raise besides is passed on.
    """
    try:
        with draft_folder(path, resume) as folder:
            write(folder / path.name)
            if accept is not None:
                accept(folder / path.name)
            put_in_place(folder, path, overwrite)
    except OSError as error:
        advice = "free space and run again with `resume`" if resume else "free space or choose another folder"
        raise FileError(f"cannot write {path}: {error.strerror or error}; {advice}") from None


def data_name(name: str, digest: str) -> str:
    """What a data file beside the file `name` is called, by the digest of its content in hexadecimal digits."""
    return f"{name}.{digest[:DIGITS]}{DATA}"


def is_data_of(name: str, file: str) -> bool:
    """Whether a file is called as the data of the file `file` are."""
    return (name.startswith(f"{file}.") and name.endswith(DATA)) or is_shard_of(name, file)


# --- drafts -------------------------------------------------------------------------------------------------------


@contextmanager
def draft_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """A folder beside a file, for its draft, which is gone afterwards; those that killed runs left go as well. To
    resume, one of these is taken over, and stays where the system or the user stops the work. Raises FileError."""
    with ExitStack() as stack:
        with locked(path.parent):  # so that no other run takes the new folder for one that was left
            folder = take_over(path, stack) if resume else None
            remove_abandoned(path)
            if folder is None:
                folder = make_folder(path)
                stack.enter_context(locked(folder))
        is_kept = False
        try:
            yield folder
        except (OSError, KeyboardInterrupt):
            is_kept = resume and checkpoint_of(folder / path.name).is_file()
            raise
        finally:
            if not is_kept:
                shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed goes with the next run


def make_folder(path: Path) -> Path:
    """A new folder for the draft of a file. Raises FileError."""
    try:
        return Path(tempfile.mkdtemp(prefix=DRAFT, dir=path.parent))
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror} in folder {path.parent}; choose another folder"
        ) from None


def checkpoint_of(draft: Path) -> Path:
    """The file beside a draft that tells what is written already."""
    return draft.with_name(f"{draft.name}{CHECKPOINT}")


def take_over(path: Path, stack: ExitStack) -> Path | None:
    """A draft of a file with a checkpoint whose writer was killed or stopped, locked; None where there is none."""
    with suppress(OSError):  # a folder that cannot be read shows none
        for draft in sorted(path.parent.glob(f"{DRAFT}*")):
            is_ours = checkpoint_of(draft / path.name).is_file()
            if is_ours and stack.enter_context(locked(draft, wait=False)):
                return draft
    return None


def remove_abandoned(path: Path) -> None:
    """Remove the drafts beside a file whose writers were killed: nobody holds the lock on them any more. Those of other
    files stay where they have a checkpoint."""
    with suppress(OSError):  # a folder that cannot be read keeps them
        for draft in path.parent.glob(f"{DRAFT}*"):
            with locked(draft, wait=False) as is_abandoned:
                others = {file.name for file in draft.glob(f"*{CHECKPOINT}")} - {checkpoint_of(path).name}
                if is_abandoned and not others:
                    shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder, which ends with the process that holds it; whether it is held.

    It is not where another one holds it and is not waited for, and where the folder or its system has no such lock.
    """
    with ExitStack() as stack:
        is_held = False
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            if sys.platform != "win32":  # which has other locks
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_held = True
        yield is_held


# --- in place -----------------------------------------------------------------------------------------------------


def put_in_place(draft: Path, path: Path, overwrite: bool) -> None:
    """Move the files of a draft to where they belong: the data, then the file at `path`, then away with old data."""
    folder, own = path.parent, {path.name, checkpoint_of(path).name}
    beside = sorted(file.name for file in draft.iterdir() if file.name not in own)
    mode = mode_of(path if path.exists() else draft / path.name)
    for name in (*beside, path.name):
        if mode_of(draft / name) != mode:
            os.chmod(draft / name, mode)
        flush(draft / name, os.O_RDWR)
    with locked(folder):
        old = [name for name in data_beside(path) if holds(path, name) and name not in beside]
        new = [name for name in beside if not (folder / name).exists()]
        try:
            for name in beside:
                os.replace(draft / name, folder / name)
            if beside:
                flush_folder(folder)  # before a file that names them
            put_file(draft / path.name, path, overwrite)
        except BaseException:
            remove_unnamed(path, new)
            raise
        flush_folder(folder)
        remove_unnamed(path, old)


def put_file(draft: Path, path: Path, overwrite: bool) -> None:
    """Move one file in place. Raises FileError where one is there that may not be replaced."""
    if overwrite:
        os.replace(draft, path)
        return
    try:
        os.link(draft, path)  # unlike a rename it fails where there is a file
    except FileExistsError:
        raise appeared(path) from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if path.exists():  # the lock on the folder keeps other runs of this program out
            raise appeared(path) from None
        os.replace(draft, path)


def appeared(path: Path) -> FileError:
    return FileError(
        f"cannot write {path}: it was not there when the run began, and is now; use `overwrite`, or name another file"
    )


def data_beside(path: Path) -> list[str]:
    """The files beside a file that are called as its data are."""
    return sorted(file.name for file in path.parent.iterdir() if is_data_of(file.name, path.name))


def written_files(path: Path) -> list[Path]:
    """A file that was written here, and the data beside it that it names; of weights in several files their index."""
    path = state_at(path)
    return [path, *(path.with_name(name) for name in data_beside(path) if holds(path, name))]


def remove_unnamed(path: Path, names: Iterable[str]) -> None:
    """Remove those data files beside a file that neither it nor another of its kind there names any more."""
    for name in names:
        if not any(holds(file, name) for file in path.parent.iterdir() if file.suffix == path.suffix):
            with suppress(OSError):  # it stays, and nothing refers to it
                os.unlink(path.parent / name)


def holds(path: Path, name: str) -> bool:
    """Whether a file names another one, which stands in it as it is written; also where it cannot be read."""
    sought, seen = name.encode(), b""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                seen = seen[-len(sought) :] + chunk
                if sought in seen:
                    return True
    except OSError:
        return True
    return False


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def flush_folder(folder: Path) -> None:
    """Have the system write the names in a folder to the disk, where it can."""
    with suppress(OSError):  # not every system lets a folder be flushed
        flush(folder, os.O_RDONLY)


def flush(path: Path, mode: int) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
