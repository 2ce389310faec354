"""How much memory a command may take, and the refusal of a step that would take more, before it starts.

Verification, alignment and writing estimate what they hold at once and draw on one budget: `max_memory`, or what the
machine has available. What a step keeps so as not to make it again counts as far as there is room for it.

Chosen: estimates, which are told before the work. Refused: a bound that the system holds on the whole process, as there
is on what is read (see `memory_bound`) - it would end the work in the middle, and tell no number.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from mal_graph.errors import MemoryLimitError
from mal_graph.limits import LEAST_MEMORY, limited, limits_in_force


@dataclass(frozen=True)
class Need:
    """What a step of a command holds at once.

    Attributes:
        step: how messages call it.
        least: bytes by what they are for, with nothing kept that can be made again.
        kept: bytes of what can be made again, if all of it is kept.
    """

    step: str
    least: Mapping[str, int]
    kept: int = 0

    @property
    def least_bytes(self) -> int:
        return sum(self.least.values())

    def explain(self, most: int) -> str:
        """Why there is not enough where it may take so many bytes: what it would take, and the least."""
        parts = ", ".join(f"{size_of(held)} for {what}" for what, held in self.least.items() if held)
        least = f"at least {size_of(self.least_bytes)} ({parts})"
        most_said = f"{size_of(self.least_bytes + self.kept)}, or {least}" if self.kept else least
        return f"{self.step} would take about {most_said}, and may take {size_of(most)}"


def size_of(count: int) -> str:
    """Bytes as messages have them."""
    return f"{count / 2**30:.2g} GiB" if count >= 2**30 else f"{-(-count // 2**20):,} MiB"


@contextmanager
def budgeted(most: int | None) -> Iterator[None]:
    """In it steps may take so many bytes; what they may already where None is given."""
    with limited(limits_in_force().replaced(max_memory=most)) if most is not None else nullcontext():
        yield


def memory_budget() -> int | None:
    """Bytes that a step may take which begins now; None where nothing was asked for and the system does not tell."""
    most = limits_in_force().max_memory
    return available_memory() if most is None else max(most, LEAST_MEMORY)


def room_for(need: Need) -> int:
    """Bytes that there are of what a step keeps. Raises MemoryLimitError where it cannot do with what there is."""
    most = memory_budget()
    if most is None:
        return need.kept
    if need.least_bytes > most:
        raise MemoryLimitError(f"{need.explain(most)}: give more with `max_memory`, or merge smaller models")
    return min(need.kept, most - need.least_bytes)


def available_memory() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not tell."""
    with suppress(OSError):  # Linux alone counts what its caches would give back
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        told = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        if told:
            return told[0]
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
