"""Results that are models: checked, and written completely or not at all."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mal_graph import registry
from mal_graph.config import FileOptions, MergeConfig
from mal_graph.errors import GateFailed
from mal_graph.graph import LayerGraph
from mal_graph.memory_budget import budgeted
from mal_graph.protocols import Check
from mal_graph.shards import refuse_small_shards
from mal_graph.source_files import SourceFile
from mal_graph.workflows.guarding import Choice
from mal_graph.workflows.meaning_texts import Meaning
from mal_graph.workflows.models import free_path
from mal_graph.workflows.pareto import ParetoEntry
from mal_graph.workflows.provenance import Orders, Origin, provenance_of, with_provenance
from mal_graph.workflows.results import Result
from mal_graph.workflows.speeds import Speeds
from mal_graph.workflows.verdict import Verdict

W = TypeVar("W", bound="Written")


@dataclass(frozen=True, repr=False, kw_only=True)
class Written(Result, ABC):
    """A result that is a model.

    Attributes:
        graph: the model.
        base: the base as given.
        checks: what was checked of the model.
        origin: what it is made of, by which its file says how it was made; None for what was made by hand.
        meanings: what inputs and outputs of the donors do not mean what the base's do, and what else they tell alone.
        speeds: how fast it is beside the models it is made of, where that was to be measured.
        choice: which way was taken, where that was left open.
        pareto: what it was compared with, by cost and score, the result among them; () where nothing was compared.
    """

    graph: LayerGraph
    base: LayerGraph
    checks: tuple[Check, ...]
    choice: Choice | None = None
    pareto: tuple[ParetoEntry, ...] = ()
    meanings: tuple[Meaning, ...] = ()
    speeds: Speeds | None = None
    origin: Origin | None = None

    @property
    @abstractmethod
    def verdict(self) -> Verdict | None:
        """How the model stands to the base; None where nothing was measured."""

    @property
    @abstractmethod
    def nothing_to_align(self) -> tuple[str, ...]:
        """The donors that have nothing in common with the base that an alignment could find, a sentence each."""

    @property
    def orders(self) -> tuple[Orders, ...]:
        """For each donor and pair of groups the donor unit on each base unit, where units were aligned."""
        return ()

    @property
    def passed(self) -> bool:
        """Whether no check failed; one that could not be made is no failure."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.failed)

    def check(self, name: str) -> Check | None:
        """What was found of one thing; None if it was not asked."""
        return next((check for check in self.checks if check.name == name), None)

    def save(self: W, path: str | PathLike[str], *, overwrite: bool = False) -> W:
        """Write the model and check the file as a stranger would: the format's checker, then the runtime.

        Returns:
            the result with the checks on the file.

        Raises:
            FileError: the file exists and `overwrite` is false, or it cannot be written.
            GateFailed: a check failed; nothing was written.
        """
        written = write_result(self, free_path(path, overwrite), overwrite=overwrite)
        if not written.passed:
            failed = "; ".join(f"{check.name} {check}" for check in written.failures)
            raise GateFailed(f"{path} is not written: {failed}; try other options")
        return written


@np.errstate(all="ignore")
def write_result(result: W, path: Path, *, overwrite: bool = False) -> W:
    """Save a result unless a check fails, those on the written file included.

    Returns:
        the result with the checks on the file; nothing is in place unless all `passed`.

    Raises:
        FileError: it cannot be written, or a model that it is made of is not the one any more that was opened.
        MemoryLimitError: it would take more memory than there is for it.
    """
    if not result.passed:
        return result
    config = MergeConfig() if result.origin is None else result.origin.config
    sources = () if result.origin is None else [file for model in result.origin.sources for file in model.files]
    with budgeted(config.max_memory):
        graph = with_origin(result)
        checks = write_checked(graph, path, result.base, sources, overwrite=overwrite, config=config)
    return replace(result, checks=(*result.checks, *checks))


def write_checked(
    graph: LayerGraph,
    path: Path,
    base: LayerGraph,
    sources: Sequence[SourceFile],
    *,
    overwrite: bool,
    config: FileOptions,
) -> list[Check]:
    """Write a model unless a check on the written file fails; the checks.

    Args:
        base: what its own file does not pass either is no fault of the model.
        sources: the files that weights are read from.
        config: how it is written.

    Raises:
        UsageError: a weight is larger than a data file may be.
        FileError: it cannot be written, or one of the files is not the one any more that was opened.
    """
    adapter = registry.writer_for(str(path))
    checks: list[Check] = []

    def accept(written: Path) -> None:
        for file in sources:  # weights are read from them until the last one is written
            file.refuse_changed()
        checks[:] = excused(adapter.check(written), adapter, base)
        if any(check.failed for check in checks):
            raise GateFailed(f"{written.name} is not sound")

    with suppress(GateFailed):  # the checks say it
        adapter.save(graph, path, accept, overwrite=overwrite, shard_size=config.shard_size, resume=config.resume)
    return checks


def check_shards(graph: LayerGraph, config: FileOptions) -> None:
    """Raise UsageError, before any work, where a weight of the base is larger than a data file may be."""
    refuse_small_shards(graph.name, {name: held.nbytes for name, held in graph.weights.items()}, config.shard_size)


def with_origin(result: Written) -> LayerGraph:
    """The model of a result, which says how it was made. Raises FileError."""
    if result.origin is None:
        return result.graph
    way = "" if result.choice is None else result.choice.taken
    return with_provenance(result.graph, provenance_of(result.origin, way, result.orders))


def excused(checks: Sequence[Check], adapter: Any, base: LayerGraph) -> list[Check]:
    """Checks on a file; what the base's own file does not pass either is no fault of the merge."""
    own = Path(base.name)
    if all(check.passed for check in checks) or not own.is_file():
        return list(checks)
    before = {check.name: check for check in adapter.check(own) if not check.passed}
    return [
        Check(check.name, None, f"the base does not pass it either: {before[check.name].detail}")
        if check.name in before
        else check
        for check in checks
    ]
