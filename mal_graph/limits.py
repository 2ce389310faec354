"""What a stranger's file may take: one place for every limit, and how models are run within them.

The command line runs models in a process of their own, within these limits; the library runs them in its own process
unless it is told otherwise: `with limited(Limits()): ...`.

Chosen: the limits in force stand beside the code that runs, as the runner does that they lead to. Refused: an argument
of every function between the command and the session - most only hand it on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from mal_graph import option_texts as texts
from mal_graph.option import Option, Options
from mal_graph.option_names import COMMON

LEAST_MEMORY = 64 * 2**20  # bytes that a process is given in any case: with less not even a session is made
MEMORY, MEMORY_FACTOR = 512 * 2**20, 4  # bytes, and times what the models hold
TRUSTED_BYTES = 2**33  # that a few bytes of a file may unfold to where there are no other limits
SECONDS, SECONDS_PER_BYTE = 8.0, 60.0 / 1e8


class Limits(Options):
    """What the models of one command may take.

    Attributes:
        MOST_CALLED: operators that the calls of a file's functions may unfold to.
        MOST_NAMED: names that are tried where functions unfold: of what is there n times, n squared halves.
        MOST_LETTERS: of the names of an operator and of all that it stands in: what looks at a file repeats them.
        MOST_NESTING: bodies inside each other.
        MOST_TRIPS: of a loop that no condition ends.
    """

    MOST_CALLED: ClassVar[int] = 100_000
    MOST_NAMED: ClassVar[int] = 20_000_000
    MOST_LETTERS: ClassVar[int] = 4096
    MOST_NESTING: ClassVar[int] = 16
    MOST_TRIPS: ClassVar[int] = 1_000_000

    timeout: Annotated[
        float | None,
        Field(gt=0.0),
        Option(
            "What one run of a model may take; else 8 seconds, and 60 more for each 100 MB.",
            COMMON,
            metavar="SECONDS",
            advice="give a time of more than 0 seconds",
        ),
    ] = None
    max_memory: Annotated[
        int | None,
        Field(ge=0),
        BeforeValidator(texts.bytes_of),
        Option(
            "What a step may take, as in 8GiB; else what is free, and running models 512 MiB or four times the models.",
            COMMON,
            metavar="SIZE",
        ),
    ] = None
    in_process: Annotated[
        bool, Option("Run models in this process and without limits: for files that you trust.", COMMON)
    ] = False

    def memory_for(self, held: int) -> int:
        """Bytes that may be taken by running models which hold so many bytes."""
        if self.max_memory is not None:
            return max(self.max_memory, LEAST_MEMORY)
        return max(MEMORY, MEMORY_FACTOR * held)

    @property
    def most_numbers(self) -> int:
        """How many numbers an array may have that is drawn: they are drawn in float64, and cast."""
        return (TRUSTED_BYTES if self.in_process else self.memory_for(0)) // 16

    def tensor_bytes(self, held: int) -> int:
        """Bytes that one tensor may have which a model makes that holds so many."""
        return max(TRUSTED_BYTES, held) if self.in_process else self.memory_for(held)

    def seconds_for(self, held: int) -> float:
        """Seconds that making ready or running a model may take which holds so many bytes."""
        return SECONDS + SECONDS_PER_BYTE * held if self.timeout is None else self.timeout


TRUSTED = Limits(in_process=True)
_in_force = [TRUSTED]


def limits_in_force() -> Limits:
    """The limits that hold now: those of the innermost `limited`."""
    return _in_force[-1]


@contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Models are run within these limits, by whoever runs them."""
    _in_force.append(limits)
    try:
        yield
    finally:
        _in_force.pop()


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
