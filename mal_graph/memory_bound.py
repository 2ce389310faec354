"""How much memory this process may take for what a file of a stranger unfolds to while it is read.

A few bytes may unfold to any number of objects, in formats whose parsers count nothing. Chosen: a look at what the
process takes, every few milliseconds from beside the reader, which ends in a MemoryError once it is too much. Refused:
counting by rules of our own before parsing - each format would need one, and each would be another parser; and the
system's bound (RLIMIT_DATA) alone - allocations that it fails end a process in native code that does not expect it, as
protobuf's objects for parts of a message. It stands around single calls that are known to take it well, and, far out,
around all the rest.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mal_graph.errors import MemoryLimitError
from mal_graph.limits import limits_in_force

BETWEEN_LOOKS = 0.005  # seconds
FAR = 6  # times what may be taken: a call that lists parts of 40 bytes makes objects of 180, with no look in between
SLACK = 512 * 2**20  # bytes that may be taken between two looks, on a busy machine too


def data_bytes(process: int) -> int:
    """The private memory of a process, as RLIMIT_DATA counts it; 0 where the system does not tell, or it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
        sizes = [line.split()[1] for line in lines if line.startswith("VmData:")]
        return int(sizes[0]) * 1024 if sizes else 0
    return 0


def return_freed() -> None:
    """Give the system back what was freed. The allocator of glibc keeps it else, as much of it as there once was in use
    between what still is; others have no such function, and return it by themselves or not at all."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


class Watch:
    """Looks at what this process takes, and once that is too much, raises a MemoryError in the thread that made it.

    Attributes:
        most: bytes that the process may take.
        is_over: whether it took more.
    """

    def __init__(self, most: int) -> None:
        self.most = data_bytes(os.getpid()) + most
        self.is_over = False
        self.watched = ctypes.c_ulong(threading.get_ident())
        self.ended = threading.Event()
        self.looking = threading.Thread(target=self.look, daemon=True)

    def start(self) -> None:
        self.looking.start()

    def look(self) -> None:
        while not self.ended.wait(BETWEEN_LOOKS):
            if data_bytes(os.getpid()) > self.most:
                self.is_over = True
                raise_in(self.watched, MemoryError)
                return

    def end(self) -> None:
        """No more is raised once this has returned."""
        self.ended.set()
        self.looking.join()
        if self.is_over:
            # Takes the place of the error, had that still to be raised. To take it back is not enough: the interpreter
            # goes on to look for it at every call, for ever where the opcodes of a call are traced (Python 3.11).
            with suppress(Ended):
                raise_in(self.watched, Ended)
                while True:
                    pass


class Ended(BaseException):
    """That a watch has ended."""


def raise_in(thread: ctypes.c_ulong, error: type[BaseException]) -> None:
    """Have a thread raise an error at its next step."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(error))


@contextmanager
def memory_bounded(name: str | os.PathLike[str], held: int) -> Iterator[None]:
    """In it this process takes no more than a model may that holds so many bytes, beyond what it takes already.

    Nothing is bounded where limits are off, or where the system does not tell what a process takes.

    Args:
        name: how messages call what is read.
        held: its bytes.

    Raises:
        MemoryLimitError: it would have taken more.
    """
    limits = limits_in_force()
    if limits.in_process or not data_bytes(os.getpid()):
        yield
        return
    most = limits.memory_for(held)
    watch = Watch(most)
    with allocations_bounded(FAR * most + SLACK):
        try:
            try:
                watch.start()
                yield
            finally:
                watch.end()
        except Exception as error:  # readers wrap whatever they meet
            if watch.is_over or isinstance(error, MemoryError):
                raise too_much(name, most) from None
            raise
    if watch.is_over:
        raise too_much(name, most)


@contextmanager
def call_bounded(name: str | os.PathLike[str], held: int) -> Iterator[None]:
    """The same for one native call that fails well where the system refuses it memory, by a MemoryError."""
    limits = limits_in_force()
    most = limits.memory_for(held)
    with nullcontext() if limits.in_process else allocations_bounded(most):
        try:
            yield
        except MemoryError:
            raise too_much(name, most) from None


@contextmanager
def allocations_bounded(most: int) -> Iterator[None]:
    """In it the system refuses this process more than so many bytes beyond what it takes already."""
    own = data_bytes(os.getpid())
    if not own:
        yield
        return
    import resource  # not on every system, and the others tell nothing above

    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (before, hard, min(own + most, sys.maxsize)) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def too_much(name: str | os.PathLike[str], most: int) -> MemoryLimitError:
    return MemoryLimitError(
        f"cannot load {name}: it unfolds to more than {most >> 20:,} MiB in memory; leave it out, or give more with "
        "`max_memory`"
    )
