"""How much memory this process may take for what a file of a stranger unfolds to while it is read.

A few bytes may unfold to any number of objects, in formats whose parsers count nothing. Chosen: a bound that the system
holds (RLIMIT_DATA), within which allocations fail as they do where a machine has no more. Refused: counting by rules of
our own before parsing - each format would need one, and each would be another parser.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mal_graph.errors import MemoryLimitError
from mal_graph.limits import limits_in_force


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


@contextmanager
def memory_bounded(name: str | os.PathLike[str], held: int) -> Iterator[None]:
    """In it this process takes no more than a model may that holds so many bytes, beyond what it takes already.

    Nothing is bounded where limits are off, or where the system has no such bound.

    Args:
        name: how messages call what is read.
        held: its bytes.

    Raises:
        MemoryLimitError: it would have taken more.
    """
    limits, own = limits_in_force(), data_bytes(os.getpid())
    if limits.in_process or not own:
        yield
        return
    import resource  # not on every system, and the others tell nothing above

    most = limits.memory_for(held)
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (before, hard, own + most) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    except MemoryError:
        raise MemoryLimitError(
            f"cannot load {name}: it unfolds to more than {most >> 20:,} MiB in memory; leave it out, or give more "
            "with `max_memory`"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))
