"""The folder of a search: its journal, the data in parts and the aligned donors, which workers read."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mal_graph.config import SearchConfig
from mal_graph.errors import FileError, MalGraphError, UsageError

JOURNAL = "study.journal"


@contextmanager
def folder_of(config: SearchConfig) -> Iterator[Path]:
    """The folder of a search; one that is gone afterwards where none is named. Raises UsageError or FileError."""
    if config.study is None:
        if config.resume and config.storage is None:
            raise UsageError("`resume` goes on with what is in a `study` folder: name the one of the search")
        with tempfile.TemporaryDirectory(prefix="mal-graph-") as folder:
            yield Path(folder)
        return
    path = Path(config.study)
    if config.resume and not path.is_dir():
        raise FileError(f"cannot go on with the study in {path}: there is no such folder; leave `resume` out")
    is_new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot use the folder {path}: {error.strerror}; name another `study`") from None
    try:
        yield path
    finally:
        if is_new and holds_nothing(path):  # it was refused before anything was found
            shutil.rmtree(path)


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty, but for a journal without a line."""
    return all(path.name == JOURNAL and not path.stat().st_size for path in folder.iterdir())


@contextmanager
def emptied_if_refused(folder: Path) -> Iterator[None]:
    """What is put into a folder in it is gone again where a search is refused."""
    before = set(folder.iterdir())
    try:
        yield
    except MalGraphError:
        for path in set(folder.iterdir()) - before:
            shutil.rmtree(path)
        raise
