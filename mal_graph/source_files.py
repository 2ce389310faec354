"""The files that a run reads, as they were when they were opened.

Chosen: a stamp that is taken at the opening, and a digest at the end, of a file that still has this stamp: the digest
tells what was read in between, and a file of many gigabytes is read for it once, and only where it is wanted.
Refused: a digest at the opening - it says nothing of what is mapped and read later.
"""

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, stat_result
from pathlib import Path

from mal_graph.errors import FileError

Stamp = tuple[int, int, int, int]  # device, inode, size, time of the last change of the content in nanoseconds


@dataclass(frozen=True)
class SourceFile:
    """A regular file, as it was when it was opened."""

    path: Path
    stamp: Stamp

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stamp[2]

    def refuse_changed(self) -> None:
        """Raise FileError where the file is another one now, or is gone."""
        try:
            now = stamp_of(self.path.stat())
        except OSError as error:
            raise changed(self.path, error.strerror or str(error)) from None
        if now != self.stamp:
            raise changed(self.path, "it was replaced or written to")

    def sha256(self) -> str:
        """SHA-256 of the content in hexadecimal digits. Raises FileError where it is not what was opened any more."""
        self.refuse_changed()
        digest = digest_of(self)
        self.refuse_changed()
        return digest


def opened(path: str | PathLike[str]) -> SourceFile | None:
    """A file that is about to be read; None where there is no regular file, which is told when it is read."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL character
        return None
    return SourceFile(Path(path).absolute(), stamp_of(found)) if stat.S_ISREG(found.st_mode) else None


def all_opened(paths: Iterable[str]) -> dict[str, SourceFile]:
    """The regular files among some paths, by path."""
    files = {path: opened(path) for path in paths}
    return {path: file for path, file in files.items() if file is not None}


def stamp_of(found: stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4096)
def digest_of(file: SourceFile) -> str:
    """SHA-256 of what lies at the path of a file. Raises FileError."""
    try:
        with file.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {file.path}: {error.strerror or error}; check the path") from None


def changed(path: Path, why: str) -> FileError:
    return FileError(f"{path} is not what it was when the run began: {why}; run again and leave it alone meanwhile")
