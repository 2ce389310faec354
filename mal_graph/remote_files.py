"""Files at an address, as https://, s3:// or hf://: copied to this machine once, in ranges, and read there.

A copy is kept in the user's cache under what the server tells of the file (`fingerprint`), so that another content at
the same address is another copy; one that broke off goes on where it did.

Chosen: copies on disk, which are mapped like any other file. Refused: ranges read as they are needed - verification,
matching and merging read every tensor of a model several times.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from mal_graph.atomic_write import locked, write_whole
from mal_graph.errors import FileError, UsageError

CACHE = "MAL_GRAPH_CACHE"  # names the folder of copies
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z0-9+.-]+)*://")
PIECE = 1 << 24  # bytes that are asked for at once
TRIES = 3  # for each file
TELLING = ("etag", "e_tag", "md5", "checksum", "mtime", "last_modified", "lastmodified", "updated", "created", "commit")

Named = Callable[[Path], Iterable[str]]  # the files that a file says belong beside it, as paths from its folder


def is_remote(path: object) -> TypeGuard[str]:
    """Whether something is the address of a file rather than a path."""
    return isinstance(path, str) and ADDRESS.match(path) is not None


def local_copy(address: str, beside: Named | None = None) -> Path:
    """The copy of a file on this machine, in a folder with those that it says belong beside it.

    Raises:
        FileError: it cannot be reached, or broke off more than once.
        UsageError: what reads such addresses is not installed.
    """
    main = remote_at(address)
    name = PurePosixPath(address.partition("?")[0]).name or "model"
    alone = main.copied(cache_folder() / "files" / digest(main.key) / name)
    others = {other: remote_at(neighbour(address, other)) for other in (beside(alone) if beside else ())}
    if not others:
        return alone
    together = cache_folder() / "models" / digest(main.key, *(other.key for other in others.values()))
    for path, other in others.items():
        other.copied(together / path)
    if main.stamp is None or not (together / name).exists():
        write_whole(together / name, lambda draft: shutil.copyfile(alone, draft), overwrite=True)
    return together / name


def listed(address: str, suffix: str) -> list[str]:
    """The addresses of the files in a folder whose names end so, by name. Raises FileError or UsageError."""
    system, path = system_of(address)
    with told(address):
        found = sorted(entry["name"] for entry in system.ls(path, detail=True) if entry["type"] == "file")
    return [system.unstrip_protocol(name) for name in found if name.lower().endswith(suffix)]


# --- copies -------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where copies are kept: what MAL_GRAPH_CACHE names, else `mal_graph` in the user's cache."""
    named = os.environ.get(CACHE)
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mal_graph"


@dataclass(frozen=True)
class Remote:
    """A file at an address.

    Attributes:
        address: where.
        system, path: what reads it, and what that calls it.
        size: bytes; None where the server does not say.
        stamp: what tells its content from others at the address; None where the server says nothing that does.
    """

    address: str
    system: Any
    path: str
    size: int | None
    stamp: str | None

    @property
    def key(self) -> str:
        """Differs between addresses and, as far as that is known, between contents."""
        return f"{self.address} {self.stamp}"

    def copied(self, target: Path) -> Path:
        """The copy at a path, made if there is none. Raises FileError."""
        draft = target.with_name(f"{target.name}.part")
        with told(self.address):
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent):
                if self.stamp is None:  # what is there may be of another content
                    for old in (target, draft):
                        old.unlink(missing_ok=True)
                if not target.exists():
                    self.fetch(draft)
                    os.replace(draft, target)
        return target

    def fetch(self, draft: Path) -> None:
        """Write the file, on from where a draft ends, over a connection that may break. Raises what its system does."""
        for _ in range(TRIES - 1):
            with suppress(OSError):
                return self.append(draft)
        return self.append(draft)

    def append(self, draft: Path) -> None:
        """Write what a draft lacks; all of it where files come in one go. Raises what its system raises."""
        try:
            self.read_on(draft, PIECE)
        except ValueError:  # fsspec's word for a server that gives no ranges
            draft.unlink(missing_ok=True)
            self.read_on(draft, 0)

    def read_on(self, draft: Path, piece: int) -> None:
        """Write what lies behind the end of a draft, so many bytes at once; 0 for what comes in one go. Raises what its
        system raises."""
        source = self.system.open(self.path, "rb", block_size=piece, cache_type="none")
        with source, draft.open("ab") as file:
            if start := file.tell():
                source.seek(start)
            while content := source.read(PIECE):
                file.write(content)
                if self.size is not None and file.tell() > self.size:  # it may have no end
                    break
            if self.size is not None and (found := file.tell()) != self.size:
                raise OSError(f"{found} bytes of {self.size} came")


def remote_at(address: str) -> Remote:
    """What is at an address. Raises FileError or UsageError."""
    system, path = system_of(address)
    with told(address):
        info: Mapping[str, Any] = system.info(path)
        if (kind := info.get("type", "file")) != "file":  # a device, which may have no end, or a pipe
            raise OSError(f"it is a {'folder' if kind == 'directory' else 'device, a pipe or the like'}, not a file")
    size = info.get("size")
    return Remote(address, system, path, None if size is None else int(size), fingerprint(info))


def fingerprint(info: Mapping[str, Any]) -> str | None:
    """What tells the content of a file from others at its address; None where the server says nothing that does."""
    told = {key.lower().replace("-", "_"): str(value) for key, value in info.items() if value is not None}
    telling = {key: told[key] for key in TELLING if key in told}
    return json.dumps({**telling, "size": told.get("size")}, sort_keys=True) if telling else None


# --- addresses ----------------------------------------------------------------------------------------------------


def system_of(address: str) -> tuple[Any, str]:
    """What reads an address, and the path there. Raises FileError or UsageError."""
    try:
        import fsspec
    except ModuleNotFoundError:
        raise UsageError(f"reading {address} needs fsspec: pip install 'mal-graph[remote]', or give a file") from None
    with told(address):
        refuse_odd_archive(address)
        try:
            system, path = fsspec.core.url_to_fs(address)
        except ImportError as error:  # fsspec names the package that is missing
            why = " ".join(str(error).split())
            raise UsageError(
                f"cannot read {address}: {why}: pip install 'mal-graph[remote]', or what it names"
            ) from None
    return system, path


def refuse_odd_archive(address: str) -> None:
    """Raise OSError where an address is inside of something on this machine that is no file: it may have no end."""
    outermost = address.rpartition("::")[2] if "::" in address else ""
    path = outermost.removeprefix("file://").removeprefix("local://")
    if path and not is_remote(path) and not os.path.isfile(path):
        raise OSError(f"{path} is no file")


@contextmanager
def told(address: str) -> Iterator[None]:
    """Say which address cannot be read. Raises FileError."""
    try:
        yield
    except (FileError, UsageError):
        raise
    except Exception as error:  # every kind of server has errors of its own
        cause = beneath(error)
        why = "there is no such file" if isinstance(cause, FileNotFoundError) else " ".join(str(cause).split())
        raise FileError(
            f"cannot read {address}: {why[:200] or type(error).__name__}; check the address and the "
            "connection, and try again"
        ) from None


def beneath(error: BaseException) -> BaseException:
    """What made an error: where a server could not be reached, that, which some file systems tell as a missing file."""
    cause: BaseException | None = error
    while isinstance(cause, FileNotFoundError):
        cause = cause.__cause__
    return cause if isinstance(cause, OSError) else error


def neighbour(address: str, name: str) -> str:
    """The address of a file beside another one, with what a query gives the server to know. Raises FileError for one
    that is not below its folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or is_remote(name):
        raise FileError(f"cannot read {address}: it has data at {name!r}, which is no path inside its folder")
    own, mark, query = address.partition("?")
    return f"{own.rpartition('/')[0]}/{name}{mark}{query}"


def digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]
