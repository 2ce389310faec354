"""The main job, end to end: base and donors in, one merged model and an honest account of it out."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.config import AlignOptions, Data, MergeConfig, configured, shows_options
from mal_graph.errors import GateFailed, UsageError
from mal_graph.evaluation import Scores
from mal_graph.graph import LayerGraph
from mal_graph.matching import Alignment, Match, assign_units
from mal_graph.merging import Accounts, Plan, combine_accounts
from mal_graph.protocols import Check, Runner
from mal_graph.symmetry import AxisGroups, Network
from mal_graph.workflows.baselines import scored_arms
from mal_graph.workflows.checks import check_calibration, check_inputs, checks_of
from mal_graph.workflows.models import Model, Progress, arrays_of, free_path, open_models, prepared, silent, with_arrays
from mal_graph.workflows.relations import nothing_to_align
from mal_graph.workflows.results import Result
from mal_graph.workflows.steps import Known, Merged, compared, merged_into
from mal_graph.workflows.verdict import Verdict, judge


@dataclass(frozen=True, repr=False)
class Assembly(Result):
    """The result of `assemble`.

    Attributes:
        graph: the merged model.
        base: the base as given.
        merged: one entry per donor, in order.
        shares: how much of the result's float parameters each model contributes, base first.
        checks: what was checked of the result.
        scores: the merge and its baselines, where data was given.
        config: every option.
        unscored: why a donor has no score, by its name in the table.
        data_notes: what of the data was not taken literally.
    """

    graph: LayerGraph
    base: LayerGraph
    merged: tuple[Merged, ...]
    shares: tuple[float, ...]
    checks: tuple[Check, ...]
    scores: tuple[Scores, ...] = ()
    config: MergeConfig = field(default_factory=MergeConfig)
    unscored: Mapping[str, str] = field(default_factory=dict)
    data_notes: tuple[str, ...] = ()

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

    @property
    def accounts(self) -> Accounts:
        """What became of every float parameter of the base."""
        return combine_accounts(self.base, [(step.donor.name, step.plan) for step in self.merged])

    @property
    def verdict(self) -> Verdict | None:
        """How the result stands to the base, the best baseline and the ensemble; None without scores."""
        return judge(self.scores, self.merged, self.config) if self.scores else None

    @property
    def nothing_to_align(self) -> tuple[str, ...]:
        """The donors that have nothing in common with the base that an alignment could find, a sentence each."""
        return tuple(filter(None, map(nothing_to_align, self.merged)))

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> "Assembly":
        """Write the model and check the file as a stranger would: the format's checker, then the runtime.

        Returns:
            the assembly with the checks on the file.

        Raises:
            FileError: the file exists and `overwrite` is false, or it cannot be written.
            GateFailed: a check failed; nothing was written.
        """
        written = write_assembly(self, free_path(path, overwrite))
        if not written.passed:
            failed = "; ".join(f"{check.name} {check}" for check in written.failures)
            raise GateFailed(f"{path} is not written: {failed}; try a smaller `lam` or other `layers`")
        return written


@np.errstate(all="ignore")
def write_assembly(assembly: Assembly, path: Path) -> Assembly:
    """Save a result unless a check fails, those on the written file included.

    Returns:
        the assembly with the checks on the file; nothing is in place unless all `passed`.
    """
    if not assembly.passed:
        return assembly
    adapter = registry.writer_for(str(path))
    checks: list[Check] = []

    def accept(written: Path) -> None:
        checks[:] = excused(adapter.check(written), adapter, assembly.base)
        if any(check.failed for check in checks):
            raise GateFailed(f"{written.name} is not sound")

    with suppress(GateFailed):  # the checks say it
        adapter.save(assembly.graph, path, accept)
    return replace(assembly, checks=(*assembly.checks, *checks))


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


@shows_options("align")
def align(
    base: LayerGraph,
    donor: LayerGraph,
    match: Match,
    base_groups: AxisGroups,
    donor_groups: AxisGroups,
    *,
    config: AlignOptions | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Alignment:
    """Assign the donor's units to the base's, along the tensors of their matched layers.

    Args:
        base, donor, match: two models and the layers that correspond to each other.
        base_groups, donor_groups: their axis groups; unverified ones are used only while they are candidates.
        config, options: see below.

    Returns:
        an order for every pair of groups that matched layers induce (see `Alignment`).

    Raises:
        DataError: the calibration inputs do not fit a model, or are too few.
        UsageError: an option is refused, or asks for calibration inputs and there are none.
    """
    settings = with_arrays(configured("align", config, options))
    check_calibration(base, [donor], settings)
    networks = Network(base, base_groups), Network(donor, donor_groups)
    return assign_units(*compared(*networks, match, settings, runner or registry.runner()))


@shows_options("assemble")
def assemble(
    base: Model,
    donors: Model | Sequence[Model],
    *,
    config: MergeConfig | None = None,
    data: Data | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Assembly:
    """Merge donors into a base, one after the other: W <- (1 - lam) W + lam B.

    Args:
        base: gives the graph, the signature and the names. A path, an `onnx.ModelProto`, a `LayerGraph` or a torch
            module, as is each donor.
        donors: one model or several; each is matched with and aligned to the result so far.
        config, options: every option as one value, or as keywords; see below.
        data: inputs and `labels`, by name or as an .npz path; the merge and its baselines are then scored.
        progress: called with what is done, how much of it, of how much.

    Returns:
        the merged model with everything that was found and checked on the way; nothing is written.

    Raises:
        MatchError: inputs do not fit, no layer corresponds to another, or nothing can be merged.
        DataError: the data or the calibration inputs do not fit.
        UsageError: an option is refused.
    """
    settings = with_arrays(configured("assemble", config, options))
    arrays = arrays_of(data)
    several = list(donors) if isinstance(donors, list | tuple) else [donors]
    check_donors(several, settings)
    examples = settings.calibrate if arrays is None else arrays
    first, *others = open_models([base, *several], settings, examples)
    return assemble_graphs(first, others, settings, arrays, progress or silent, runner or registry.runner())


def check_donors(donors: Sequence[Model], config: MergeConfig) -> None:
    """Raise UsageError where there is no donor, or a pair list for several."""
    if not donors:
        raise UsageError("no donor given: name at least one model to merge into the base")
    if config.matches is not None and len(donors) > 1:
        raise UsageError("a pair list belongs to one donor: merge the donors one by one")


@np.errstate(all="ignore")  # what overflows is found, and said, by the check for finite outputs
def assemble_graphs(
    base: LayerGraph,
    donors: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
) -> Assembly:
    """Merge loaded donors into a loaded base, check the result, and score it beside its baselines."""
    for donor in donors:
        check_inputs(base, donor, config.pair)
    check_calibration(base, donors, config)
    data, notes = prepared(base, data, config)
    known: Known = []
    current, steps = base, []
    for donor in donors:
        step, current = merged_into(current, donor, config, runner, progress, known)
        steps.append(step)
    result = current if any(step.changes_the_base for step in steps) else base
    checks = checks_of(base, result, steps, runner)
    scores: tuple[Scores, ...] = ()
    unscored: dict[str, str] = {}
    if data is not None:
        scores, unscored = scored_arms(base, steps, result, config, data, runner, progress)
    return Assembly(
        result,
        base,
        tuple(steps),
        shares(result, [step.plan for step in steps]),
        checks,
        scores,
        config,
        unscored,
        notes,
    )


def shares(result: LayerGraph, plans: Sequence[Plan]) -> tuple[float, ...]:
    """What each model contributes to the float parameters of a result, base first: a tensor that is merged counts with
    its lambda, one that is kept is the base's."""
    sizes = {name: weight.size for name, weight in result.weights.items() if weight.is_float}
    whole = np.zeros(len(plans) + 1)
    parts = {name: np.eye(1, len(whole))[0] for name in sizes}
    for place, plan in enumerate(plans, 1):
        for step in (step for step in plan.steps if step.tensor in parts):
            parts[step.tensor] = parts[step.tensor] * (1 - step.lam)
            parts[step.tensor][place] = step.lam
    for name, size in sizes.items():
        whole += size * parts[name]
    return tuple((whole / max(1, sum(sizes.values()))).tolist()) if sizes else (1.0, *[0.0] * len(plans))
