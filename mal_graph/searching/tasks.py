"""What workers do: align a donor, score a candidate. Functions of plain values, with a plain value as the result.

What a donor or candidate is to blame for comes back as a `Failure`; what is wrong with the worker itself is raised. A
worker that takes longer than it may ends itself, as if it had crashed.
"""

import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock, Timer

from mal_graph import registry
from mal_graph.errors import MalGraphError, UsageError
from mal_graph.limits import limited
from mal_graph.memory_bound import return_freed
from mal_graph.searching.aligned_donors import BiasSlot, align_once, read_description
from mal_graph.searching.bench import Bench, Located, Setup
from mal_graph.searching.candidates import Candidate, Figure
from mal_graph.searching.search_memory import refuse_large_donor
from mal_graph.workflows import load, versions_used

TOO_LONG = 17  # the exit code of a worker whose time is up

ONE_AT_A_TIME = Lock()  # the threads of a worker share its sessions


@dataclass(frozen=True)
class Failure:
    """Why there is no result."""

    reason: str


@dataclass(frozen=True)
class Aligned:
    """Where an aligned donor lies, and the biases that the base is given for it."""

    path: str
    slots: tuple[BiasSlot, ...]


@dataclass(frozen=True)
class AlignTask:
    """Align one donor: the `Setup` as bytes, and the path of the donor."""

    setup: bytes
    donor: str


@dataclass(frozen=True)
class ScoreTask:
    """Score one candidate: the `Setup` as bytes, where its donors lie, by which part of the data, whether the loss of
    every sample is wanted, and the one that it must not be surely worse than."""

    setup: bytes
    candidate: Candidate
    paths: tuple[str, ...]
    part: str
    with_samples: bool = False
    rival: Located | None = None


def align_donor(task: AlignTask) -> Aligned | Failure:
    """A donor aligned, now or before. Raises UsageError where the worker is another version."""
    with opened(task.setup) as bench:
        setup = bench.setup
        return_freed()  # of the donor before, which an allocator would keep
        try:
            donor = load(task.donor)
            refuse_large_donor(bench.base, donor, setup.config)
            path = align_once(bench.base, donor, setup.config, Path(setup.folder), registry.runner(), bench.known)
        except MalGraphError as error:
            return Failure(str(error))
        description = read_description(path)
        return Failure(f"{path} is gone") if description is None else Aligned(str(path), description.slots)


def score_candidate(task: ScoreTask) -> tuple[Figure, ...] | Failure:
    """How a candidate does on each set of data. Raises UsageError where the worker is another version."""
    with opened(task.setup) as bench:
        try:
            return bench.scored(task.candidate, task.paths, task.part, with_samples=task.with_samples, rival=task.rival)
        except MalGraphError as error:
            return Failure(str(error))


@contextmanager
def opened(packed: bytes) -> Iterator[Bench]:
    """The bench of a task, in a worker that is fit for it. Raises UsageError."""
    with ONE_AT_A_TIME:
        setup = setup_of(packed)
        with limited(setup.limits), ended_in_time(setup):
            yield bench_of(packed)


@lru_cache(1)
def setup_of(packed: bytes) -> Setup:
    """Kept for the tasks that follow, where this process is fit for it. Raises UsageError."""
    setup: Setup = pickle.loads(packed)
    refuse_other_versions(setup.versions)
    return setup


@lru_cache(1)
def bench_of(packed: bytes) -> Bench:
    """Kept for the tasks that follow."""
    return Bench(setup_of(packed))


def refuse_other_versions(wanted: Mapping[str, str]) -> None:
    """Raise UsageError where this process works with other versions: its figures would be others."""
    mine = versions_used()
    other = [name for name in wanted if mine.get(name) != wanted[name]]
    if other:
        name = other[0]
        raise UsageError(
            f"a worker has {name} {mine.get(name, 'not at all')} and the search {wanted[name]}: install the same "
            "versions for both, and start the worker again"
        )


@contextmanager
def ended_in_time(setup: Setup) -> Iterator[None]:
    """End this process where a task takes longer than it may, unless it is the one that searches."""
    seconds = setup.config.task_timeout
    if seconds is None or os.getpid() == setup.process:
        yield
        return
    watch = Timer(seconds, os._exit, (TOO_LONG,))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
