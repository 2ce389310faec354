"""What two processes say to each other: messages as JSON, arrays in memory that both of them see.

Chosen: JSON, of which nothing that is read can be more than texts and numbers, as a process that ran a stranger's model
may say anything. Refused: pickles, which a reader runs; one message for each array, which costs a copy more.
"""

import fcntl
import json
import math
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from time import monotonic
from typing import TYPE_CHECKING, Any

import ml_dtypes  # noqa: F401  # numpy knows the names of its types then
import numpy as np

if TYPE_CHECKING:  # it loads networkx, which takes as long as the rest
    from mal_graph.graph import Array

LENGTH = struct.Struct("<Q")
ALIGNED = 64  # bytes; where an array begins
MOST_FILES = 2  # that come with one message
Placed = dict[str, Any]  # an array as a message holds it


class Link:
    """One end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, message: dict[str, Any], files: Sequence[int] = ()) -> None:
        """Send a message and open files beside it. Raises OSError where nobody listens."""
        text = json.dumps(message).encode()
        self.connection.settimeout(None)
        socket.send_fds(self.connection, [LENGTH.pack(len(text))], list(files))
        self.connection.sendall(text)

    def receive(self, until: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next message and the files beside it.

        Raises:
            TimeoutError: there is none when `time.monotonic()` reaches `until`.
            EOFError: the other end is closed.
        """
        self.wait(until)
        head, files, _, _ = socket.recv_fds(self.connection, LENGTH.size, MOST_FILES)
        head += self.read(LENGTH.size - len(head), until)
        (length,) = LENGTH.unpack(head)
        message: dict[str, Any] = json.loads(self.read(length, until))
        return message, files

    def read(self, count: int, until: float | None) -> bytes:
        """So many bytes. Raises TimeoutError or EOFError."""
        parts: list[bytes] = []
        while count:
            self.wait(until)
            parts.append(self.connection.recv(min(count, 1 << 20)))
            if not parts[-1]:
                raise EOFError("the other process has ended")
            count -= len(parts[-1])
        return b"".join(parts)

    def wait(self, until: float | None) -> None:
        """Have the next read end in time. Raises TimeoutError."""
        left = None if until is None else until - monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)


class Tray:
    """Memory that one process lays arrays in and another takes them from, used again for each message.

    Chosen: a file in memory, which is gone with the processes and counts neither as private memory of the one that
    looks into it nor against the size of /dev/shm. It cannot be made smaller: reading what is there does no harm,
    whatever the other process does. Refused: reading and writing by calls, at half the speed.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.map: mmap | None = None
        self.end = 0

    @classmethod
    def made(cls) -> "Tray":
        """A new one. Raises OSError."""
        handle = os.memfd_create("mal_graph", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(handle)

    def clear(self) -> None:
        """Begin a message: the memory is used again."""
        self.end = 0

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self.handle)

    def mapped(self, end: int) -> mmap:
        """The memory, so many bytes of it at least; views of an older map keep that. Raises OSError."""
        if self.map is None or len(self.map) < end:
            size = os.fstat(self.handle).st_size
            if size < end:
                size = max(end, 2 * size)
                os.ftruncate(self.handle, size)
            self.map = mmap(self.handle, size)
        return self.map

    def lay(self, arrays: Iterable[tuple[str, "Array"]]) -> dict[str, Placed]:
        """What a message says of arrays by name, whose values are laid behind those that lie here. Raises OSError."""
        return {name: self.packed(array) for name, array in arrays}

    def packed(self, value: Any) -> Placed:
        """An array, or what one object holds: texts, sequences, dictionaries, numbers."""
        if isinstance(value, np.ndarray) and value.dtype.kind not in "OSU":
            return self.placed(value)
        if isinstance(value, np.ndarray) and (value.ndim or isinstance(value[()], str | bytes)):
            return {"texts": [text_of(one) for one in value.ravel().tolist()], "shape": value.shape}
        if isinstance(value, np.ndarray):
            return {"whole": self.packed(value[()])}
        if isinstance(value, list | tuple):
            return {"list": [self.packed(one) for one in value]}
        if isinstance(value, dict):
            return {"map": [[plain(key), self.packed(one)] for key, one in value.items()]}
        return {"plain": plain(value)}

    def placed(self, array: "Array") -> Placed:
        """Where the values of an array lie."""
        offset = -(-self.end // ALIGNED) * ALIGNED
        placed = {"array": array.dtype.name, "shape": array.shape, "offset": offset}
        self.end = offset + array.nbytes
        if array.nbytes:
            np.copyto(self.viewed(placed), array)
        return placed

    def taken(self, placed: Placed, is_copy: bool) -> Any:
        """What `packed` put here: a copy, or a view that lasts until the next message. Raises OSError."""
        if "array" in placed:
            return self.viewed(placed).copy() if is_copy else self.viewed(placed)
        if "texts" in placed:
            texts = np.empty(len(placed["texts"]), object)
            texts[:] = placed["texts"]
            return texts.reshape(placed["shape"])
        if "whole" in placed:
            kept = np.empty((), object)
            kept[()] = self.taken(placed["whole"], is_copy)
            return kept
        if "list" in placed:
            return [self.taken(one, is_copy) for one in placed["list"]]
        if "map" in placed:
            return {key: self.taken(one, is_copy) for key, one in placed["map"]}
        return placed["plain"]

    def viewed(self, placed: Placed) -> "Array":
        """The values where they lie."""
        dtype, shape = np.dtype(placed["array"]), tuple(placed["shape"])
        end = placed["offset"] + dtype.itemsize * math.prod(shape)
        return np.ndarray(shape, dtype, self.mapped(end), placed["offset"]) if all(shape) else np.empty(shape, dtype)


def write_at(handle: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of it: one call ends at 2 GiB. Raises OSError."""
    left = memoryview(content)
    while left:
        count = os.pwrite(handle, left, offset)
        offset, left = offset + count, left[count:]


@contextmanager
def file_of(content: bytes) -> Iterator[int]:
    """An open file in memory that holds this. Raises OSError."""
    handle = os.memfd_create("mal_graph")
    try:
        write_at(handle, content, 0)
        yield handle
    finally:
        os.close(handle)


def text_of(value: Any) -> str:
    """A text, as numpy keeps it."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def plain(value: Any) -> Any:
    """A number or text of Python."""
    return value.item() if isinstance(value, np.generic) else value
