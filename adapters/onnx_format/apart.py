"""The process that opens, checks and runs what a stranger's file holds, where limits are in force."""

import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mal_graph.errors import UsageError
from mal_graph.limits import Limits, limits_in_force

if TYPE_CHECKING:
    from .child import Child


def child_in_force() -> "Child | None":
    """The process that the limits in force ask for; None where models run in this one. Raises UsageError."""
    limits = limits_in_force()
    return None if limits.in_process else child_within(limits)


class Library(Protocol):
    """What onnx itself makes of a file."""

    def check(self, path: Path) -> None:
        """Have the checker look at a file. Raises RunError or LimitError."""
        ...

    def convert(self, name: str, content: bytes, version: int) -> bytes:
        """A serialized model in another version of the standard operators. Raises RunError or LimitError."""
        ...


def library_in_force() -> Library:
    """onnx in the process that the limits in force ask for, or in this one. Raises UsageError."""
    child = child_in_force()
    if child is not None:
        return child
    from . import libraries  # most runs of a command need none

    return libraries


@lru_cache(maxsize=1)
def child_within(limits: Limits) -> "Child":
    """A process that keeps within limits; the last one is kept. Raises UsageError where there is none."""
    if sys.platform != "linux":
        raise UsageError("models are run in a process of their own on Linux only: give `in_process`")
    from .child import Child  # it uses what only Linux has

    return Child(limits)
