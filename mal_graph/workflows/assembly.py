"""The main job, end to end: base and donors in, one merged model and an honest account of it out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from mal_graph import registry
from mal_graph.errors import DataError, GateFailed, MatchError, UsageError
from mal_graph.evaluation.activation_statistics import calibration_inputs
from mal_graph.evaluation.scores import Judge, Prediction, ScoreKind, Scores, ensemble, labels_in, predict, score
from mal_graph.graph import Array, LayerGraph, Node, Value, Weight
from mal_graph.matching.activation_similarity import SHARES, activation_evidence, check_signal
from mal_graph.matching.canonical import Term, terms_of
from mal_graph.matching.correspondence import Correspondence, correspondence
from mal_graph.matching.layer_matching import Match, match_layers
from mal_graph.matching.rescaling import open_groups, rescale_invariant
from mal_graph.matching.unit_assignment import (
    Alignment,
    Evidence,
    as_permutation,
    given_alignment,
    identity_alignment,
    random_alignment,
)
from mal_graph.matching.unit_assignment import align as assign
from mal_graph.merging.blending import Plan, check, merge, plan
from mal_graph.merging.deepening import Expansion, expanded
from mal_graph.merging.repairing import Repair, repaired
from mal_graph.merging.slots import with_bias_slots, with_larger_windows
from mal_graph.merging.widening import apart, grown, outputs
from mal_graph.network import Layer, probe
from mal_graph.protocols import Runner
from mal_graph.symmetry import (
    ACCEPT,
    SAME_FUNCTION,
    AxisGroups,
    Trial,
    axis_groups,
    open_trial,
    permute_weights,
    verify,
)

Progress = Callable[[str, int, int], None]  # (what is done, how much of it, of how much)
Known = list[tuple[tuple[Node, ...], AxisGroups]]  # groups by the very nodes they were found on
Windows = tuple[tuple[int, ...], tuple[int, ...]]  # taps before and after
T = TypeVar("T")


class Strategy(Protocol):
    """A way to assign units."""

    def __call__(self, found: Correspondence, *, evidence: Evidence | None) -> Alignment: ...


@dataclass(frozen=True)
class Options:
    """How to merge; the names are those of the command line.

    Attributes:
        lam: merging factor, 0 is the base.
        gradient: merging factors over the depth of the base, with straight lines between; `lam` is then their mean.
        lam_for: selectors as in `layers`, and the merging factor of what each selects; the last one holds.
        unmatched: "keep", "fade" or "zero" (see `merge`).
        width: "base", or "grow" to widen the base where a donor is wider (see `grow`).
        depth: "match", or "expand" to give the base layers that change nothing where a donor has more (see `expand`).
        layers: which base layers to merge: a name pattern, "0:5" or "0%:50%"; all of them if None.
        matches: pairs of layer names that replace the matching, for a single donor.
        assume_ordered: merge frozen axes in stored order.
        verification: whether groups are verified; without it they are used unverified.
        verify_timeout, max_memory: seconds and bytes a verification may take; what it does not reach stays unverified.
        seed: of every random draw.
        inputs, input_shapes: for the probe runs.
        output, scores: which output the data's labels fit, and what it holds, where the graph does not tell.
        calibrate: unlabelled inputs to measure activations on.
        match_by: "weights", "activations" or "both": what says which units correspond to each other (see `signals`).
        repair: whether the merged model is repaired (see `repair`), where there is something to measure on.
        rescale_invariant: compare units at unit size where the network leaves their scale open (see `scales`).
    """

    lam: float = 0.3
    gradient: tuple[float, ...] = ()
    lam_for: tuple[tuple[str, float], ...] = ()
    unmatched: str = "fade"
    width: str = "base"
    depth: str = "match"
    layers: str | None = None
    matches: tuple[tuple[str, str], ...] | None = None
    assume_ordered: bool = False
    verify: bool = True
    verify_timeout: float | None = None
    max_memory: int | None = None
    seed: int = 0
    inputs: Mapping[str, Array] | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = None
    output: str | None = None
    scores: ScoreKind | None = None
    calibrate: Mapping[str, Array] | None = None
    match_by: str = "weights"
    repair: bool = True
    rescale_invariant: bool = False

    @property
    def repair_inputs(self) -> Mapping[str, Array] | None:
        """What merged models are repaired on; None if they are not."""
        return self.calibrate if self.repair else None


@dataclass(frozen=True)
class Merged:
    """One donor merged into what was there before.

    Attributes:
        donor: the donor.
        match: layers of the model so far and of the donor.
        groups, donor_groups: the axis groups of both.
        plan: what was done.
        ungrown: the plan before the base grew.
        missing: what one of two matched layers holds without a counterpart, by index of the pair of layers.
        self_check: how much the donor's outputs moved when its units were put in the orders used; None if unchecked.
        first: the match before the base was given layers.
        selected: the layers of the base that were given a place for what the donor has; all of them if None.
        windows: what the windows of the base's layers were and are, where they grew, by index of the layer.
        added: names of the layers that the base was given.
        at_zero: how far the outputs at lambda 0 are from those of the model before; None where its shape is the same.
        repair: what was repaired; None if nothing was to be.
    """

    donor: LayerGraph
    match: Match
    groups: AxisGroups
    donor_groups: AxisGroups
    plan: Plan
    ungrown: Plan
    missing: Mapping[int, list[str]]
    self_check: float | None
    first: Match
    selected: tuple[int, ...] | None = None
    windows: Mapping[int, Windows] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    at_zero: float | None = None
    repair: Repair | None = None


@dataclass(frozen=True)
class Assembly:
    """The result of `assemble`.

    Attributes:
        graph: the merged model.
        base: the base as given.
        merged: one entry per donor, in order.
        shares: how much of the result each model contributes where everything is matched, base first.
        checks: what was checked of the result, with "passed" or what was found.
        scores: the arms, where data was given.
        unscored: why a donor has no score there, by its arm.
    """

    graph: LayerGraph
    base: LayerGraph
    merged: tuple[Merged, ...]
    shares: tuple[float, ...]
    checks: Mapping[str, str]
    scores: tuple[Scores, ...] = ()
    options: Options = field(default_factory=Options)
    unscored: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not any(verdict.startswith("failed") for verdict in self.checks.values())


def load(model: object) -> LayerGraph:
    """The layer graph of a model: the path of an ONNX file. Raises FileError or UnsupportedModel."""
    return registry.adapter_for(model).load(model)


def trace(module: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> LayerGraph:
    """The layer graph of a torch module, as it computes in evaluation mode.

    Args:
        module: a `torch.nn.Module`, a `torch.fx.GraphModule` or a `torch.export.ExportedProgram`; it is not changed,
            and its weights are shared, not copied.
        example_inputs: a tensor, a tuple of arguments, or a dictionary of them by name; none for an ExportedProgram.
        dynamic_shapes: as for `torch.export.export`; by default the first axis of every input is dynamic where the
            module allows it.

    Raises:
        UnsupportedModel: it cannot be traced, or holds what has no counterpart here.
        DataError: it does not run on the example inputs.
        UsageError: torch is not installed.
    """
    return registry.tracer().trace(module, example_inputs, dynamic_shapes)


def to_module(graph: LayerGraph) -> Any:
    """A runnable `torch.fx.GraphModule` with the weights of a traced graph; it can be trained on.

    Where the graph has other widths or other numbers than were traced, the module's code gets them.

    Raises:
        UnsupportedModel: the graph was not traced from a module.
        ShapeError: the code cannot follow the graph.
    """
    return registry.tracer().to_module(graph)


def state_dict(graph: LayerGraph) -> dict[str, Any]:
    """The weights of a traced graph, for `load_state_dict` of the class that was traced.

    Raises:
        UnsupportedModel: the graph was not traced from a module, or has other shapes than it.
    """
    return registry.tracer().state_dict(graph)


def save(graph: LayerGraph, path: str | Path) -> None:
    """Write a graph, completely or not at all: as an ONNX file, or the weights of a traced module where the path ends
    in .safetensors. Raises FileError; ShapeError or UnsupportedModel where the module's class cannot take the weights.
    """
    registry.writer_for(str(path)).save(graph, Path(path))


@np.errstate(all="ignore")
def write(assembly: Assembly, path: str | Path) -> Assembly:
    """Save a result and check the file as a stranger would: the format's checker, then the runtime.

    Returns:
        the assembly with the verdicts on the file; nothing was written unless all `passed`.
    """
    if not assembly.passed:
        return assembly
    adapter = registry.writer_for(str(path))
    verdicts: dict[str, str] = {}

    def accept(written: Path) -> None:
        verdicts.update(adapter.check(written))
        if all(verdict == "passed" for verdict in verdicts.values()):
            return
        own = Path(assembly.base.name)  # what the base has of itself is no fault of the merge
        before = adapter.check(own) if own.is_file() else {}
        for name in [name for name, verdict in before.items() if verdict != "passed"]:
            verdicts[name] = f"not passed by the base either: {before[name]}"
        if any(verdict.startswith("failed") for verdict in verdicts.values()):
            raise GateFailed(f"{written.name} is not sound: {verdicts}")

    with suppress(GateFailed):  # the verdicts say it
        adapter.save(assembly.graph, Path(path), accept)
    return replace(assembly, checks={**assembly.checks, **verdicts})


def align(
    base: LayerGraph,
    donor: LayerGraph,
    match: Match,
    base_groups: AxisGroups,
    donor_groups: AxisGroups,
    *,
    assume_ordered: bool = False,
    calibrate: Mapping[str, Array] | None = None,
    match_by: str = "weights",
    rescale_invariant: bool = False,
    runner: Runner | None = None,
) -> Alignment:
    """Assign the donor's units to the base's, along the tensors of their matched layers.

    Args:
        base, donor, match: two models and the layers that correspond to each other.
        base_groups, donor_groups: their axis groups; unverified ones are used only while they are candidates.
        assume_ordered: take frozen axes of equal length as ordered alike, as in models with a common ancestor.
        calibrate: unlabelled inputs to run both models on, where `match_by` asks for activations.
        match_by: what says which units are alike: "weights", "activations" or "both" (see `signals`).
        rescale_invariant: compare units at unit size where the networks leave their scale open (see `scales`).

    Returns:
        an order for every pair of groups that matched layers induce (see `align.Alignment`).

    Raises:
        DataError: the calibration inputs do not fit a model, or are too few.
        UsageError: the match_by is unknown, or asks for calibration inputs and there are none.
    """
    options = Options(
        assume_ordered=assume_ordered, calibrate=calibrate, match_by=match_by, rescale_invariant=rescale_invariant
    )
    check_calibration([base, donor], options)
    terms, _ = terms_of(base, donor, match)
    sides = base, donor, match, base_groups, donor_groups
    found, evidence = compared(*sides, terms, options, runner or registry.runner())
    return assign(found, evidence)


@np.errstate(all="ignore")  # what overflows is found, and said, by the check for finite outputs
def assemble(
    base: LayerGraph,
    donors: LayerGraph | Sequence[LayerGraph],
    *,
    lam: float | Sequence[float] = 0.3,
    lam_for: Mapping[str, float] | None = None,
    unmatched: str = "fade",
    width: str = "base",
    depth: str = "match",
    layers: str | None = None,
    matches: Iterable[tuple[str, str]] | None = None,
    assume_ordered: bool = False,
    verify: bool = True,
    verify_timeout: float | None = None,
    max_memory: int | None = None,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    data: Mapping[str, Array] | None = None,
    output: str | None = None,
    scores: ScoreKind | None = None,
    calibrate: Mapping[str, Array] | None = None,
    match_by: str = "weights",
    repair: bool = True,
    rescale_invariant: bool = False,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> Assembly:
    """Merge donors into a base, one after the other: W <- (1 - lam) W + lam B.

    Args:
        base: gives the graph, the signature and the names.
        donors: each is matched with and aligned to the result so far.
        lam: merging factor, or several over the depth of the base, with straight lines between.
        lam_for: merging factors of what selectors select.
        unmatched, width, depth, layers, matches, assume_ordered, verify, seed, inputs, input_shapes, output, scores,
            calibrate, match_by, repair, rescale_invariant: see `Options`.
        data: inputs and `labels`; scores of every arm are then measured.
        progress: called with what is done, how much of it, of how much.

    Returns:
        the merged model with everything that was found and checked on the way; nothing is written.

    Raises:
        MatchError: inputs do not fit, no layer corresponds to another, or nothing can be merged.
        DataError: the data or the calibration inputs do not fit.
        UsageError: an option makes no sense.
    """
    several = tuple(lam) if isinstance(lam, Sequence) else ()
    if isinstance(lam, Sequence) and not several:
        raise UsageError("no lambda given: give a merging factor from 0 (the base) to 1 (the donor)")
    settings = Options(
        lam=sum(several) / len(several) if isinstance(lam, Sequence) else lam,
        gradient=several,
        lam_for=tuple((lam_for or {}).items()),
        unmatched=unmatched,
        width=width,
        depth=depth,
        layers=layers,
        matches=None if matches is None else tuple(matches),
        assume_ordered=assume_ordered,
        verify=verify,
        verify_timeout=verify_timeout,
        max_memory=max_memory,
        seed=seed,
        inputs=inputs,
        input_shapes=input_shapes,
        output=output,
        scores=scores,
        calibrate=calibrate,
        match_by=match_by,
        repair=repair,
        rescale_invariant=rescale_invariant,
    )
    found = [donors] if isinstance(donors, LayerGraph) else list(donors)
    if not found:
        raise UsageError("no donor given: name at least one model to merge into the base")
    for factor in (*several, settings.lam, *(lam_for or {}).values()):
        check(factor, unmatched, width, depth)
    if settings.matches is not None and len(found) > 1:
        raise UsageError("a pair list belongs to one donor: merge the donors one by one")
    report = progress or (lambda what, done, total: None)
    runner = runner or registry.runner()
    for donor in found:
        check_inputs(base, donor)
    check_calibration([base, *found], settings)
    known: Known = []
    current, steps = base, []
    for donor in found:
        step, current = merged_into(current, donor, settings, runner, report, known)
        steps.append(step)
    is_reshaped = any(step.plan.growth.added or step.windows or step.added for step in steps)
    is_moved = any(step.plan.factor(s) for step in steps for s in step.plan.steps)
    result = current if is_moved or is_reshaped else base
    checks = checked(result, steps, runner)
    arms: tuple[Scores, ...] = ()
    unscored: dict[str, str] = {}
    if data is not None:
        arms, unscored = scored_arms(base, steps, result, settings, data, runner, report)
    factors = [step.plan.mean_factor for step in steps]
    return Assembly(result, base, tuple(steps), shares(factors), checks, arms, settings, unscored)


def merged_into(
    base: LayerGraph,
    donor: LayerGraph,
    options: Options,
    runner: Runner,
    progress: Progress,
    known: Known,
) -> tuple[Merged, LayerGraph]:
    """Merge one donor: match, verify, align, plan, check, merge, repair."""
    step = merge_step(base, donor, options, runner, progress, known)
    result, repair = with_repair(merge(step.plan), step.plan, donor, options, runner, progress)
    return replace(step, repair=repair), result


def merge_step(
    base: LayerGraph,
    donor: LayerGraph,
    options: Options,
    runner: Runner,
    progress: Progress,
    known: Known,
    strategy: Strategy | None = None,
) -> Merged:
    """One donor matched, verified, aligned, planned and checked: all but the merging, which any lambda can share."""
    strategy = strategy or assign
    given, first = base, match_layers(base, donor, options.matches)
    donor_groups = verified_groups(donor, options, runner, partial(progress, f"verifying {donor.name}"), known)
    deeper = deepened(base, donor, donor_groups, first, options)
    selected = None if options.layers is None else selected_layers(deeper.match.base, options.layers)
    base, match = prepared(deeper.base, donor, deeper.match, options, selected)
    windows = larger_windows(deeper.match.base, match.base)
    groups = verified_groups(base, options, runner, partial(progress, f"verifying {base.name}"), known)
    progress(f"aligning {donor.name}", 0, 1)
    ungrown, missing = planned_merge(base, donor, match, groups, donor_groups, strategy, options, selected, runner)
    ungrown = replace(ungrown, given=deeper.given)
    planned = widened(ungrown, groups, donor, donor_groups, options, runner)
    progress(f"aligning {donor.name}", 1, 1)
    if not planned.steps:
        reasons = [f"{match.base[i].name}: {why}" for i, why in planned.skipped.items()]
        raise MatchError(
            f"nothing of {donor.name} can be merged into {base.name}: {'; '.join(reasons[:3])}"
            f"{f'; and {len(reasons) - 3} more' if len(reasons) > 3 else ''}; "
            "choose other layers, or --assume-ordered if the models have a common ancestor"
        )
    moved = self_check(donor, donor_groups, planned.alignment, runner, options.seed) if options.verify else None
    step = Merged(
        donor=donor,
        match=planned.match,
        groups=groups,
        donor_groups=donor_groups,
        plan=planned,
        ungrown=ungrown,
        missing=missing,
        self_check=moved,
        first=first,
        selected=None if selected is None else tuple(selected),
        windows=windows,
        added=deeper.added,
    )
    return compared_at_zero(step, given, runner)


def with_repair(
    graph: LayerGraph,
    planned: Plan,
    donor: LayerGraph,
    options: Options,
    runner: Runner,
    progress: Progress | None = None,
) -> tuple[LayerGraph, Repair | None]:
    """A merged model repaired, if there is something to repair it on; at lambda 0 it is what it was."""
    if options.repair_inputs is None or not any(map(planned.factor, planned.steps)):
        return graph, None
    said = None if progress is None else partial(progress, f"repairing after {donor.name}")
    return repaired(graph, planned, donor, options.repair_inputs, runner, said)


def compared_at_zero(step: Merged, base: LayerGraph, runner: Runner) -> Merged:
    """The step with its outputs at lambda 0 compared with those of the model before, where its shape changed."""
    if step.plan.growth.is_none and not (step.windows or step.added):
        return step
    at_zero = merge(step.plan.at(0.0))
    return replace(step, at_zero=apart(at_zero, base, step.groups.probed.inputs, runner))


def narrowed(step: Merged, layers: Iterable[int], lam: float, options: Options, runner: Runner) -> Merged:
    """One step with the same orders, for some of the layers of `ungrown` alone and another lambda."""
    whole = step.ungrown
    ungrown = plan(whole.base, whole.match, whole.alignment, lam, unmatched=options.unmatched, layers=layers)
    ungrown = replace(ungrown, given=whole.given)
    planned = widened(ungrown, step.groups, step.donor, step.donor_groups, options, runner)
    return replace(step, match=planned.match, plan=planned, ungrown=ungrown)


def deepened(
    base: LayerGraph, donor: LayerGraph, donor_groups: AxisGroups, match: Match, options: Options
) -> Expansion:
    """The base with layers that leave its function as it is where the donor has more, if that is wanted."""
    if options.depth != "expand":
        return Expansion(base, match)
    return expanded(base, donor, donor_groups, match, is_fixed=options.matches is not None)


def prepared(
    base: LayerGraph, donor: LayerGraph, match: Match, options: Options, selected: Iterable[int] | None
) -> tuple[LayerGraph, Match]:
    """The base with a place for what the donor has: biases, and taps where it may grow."""
    if options.width == "grow":
        base, match = with_larger_windows(base, donor, match, selected)
    return with_bias_slots(base, donor, match, selected)


def larger_windows(before: Sequence[Layer], after: Sequence[Layer]) -> dict[int, Windows]:
    """What the windows of layers were and are, where these differ, by index of the layer."""
    taps = [
        (tuple(layer.weight.shape[2:]) if layer.weight else () for layer in pair)
        for pair in zip(before, after, strict=True)
    ]
    return {index: (old, new) for index, (old, new) in enumerate(taps) if old != new}


def planned_merge(
    base: LayerGraph,
    donor: LayerGraph,
    match: Match,
    groups: AxisGroups,
    donor_groups: AxisGroups,
    strategy: Strategy,
    options: Options,
    selected: Iterable[int] | None,
    runner: Runner,
) -> tuple[Plan, dict[int, list[str]]]:
    """Align, by weights and what the runner shows of activations, and plan.

    Returns:
        the plan, and what one of two matched layers holds without a counterpart, by index of the pair.
    """
    terms, missing = terms_of(base, donor, match)
    found, evidence = compared(base, donor, match, groups, donor_groups, terms, options, runner)
    order = strategy(found, evidence=evidence)
    factors = factors_of(match.base, options)
    made = plan(base, match, order, options.lam, unmatched=options.unmatched, layers=selected, factors=factors)
    return made, missing


def compared(
    base: LayerGraph,
    donor: LayerGraph,
    match: Match,
    groups: AxisGroups,
    donor_groups: AxisGroups,
    terms: Sequence[Term],
    options: Options,
    runner: Runner,
) -> tuple[Correspondence, Evidence | None]:
    """What of both models corresponds to each other, at the scales wanted, and what their activations say of it."""
    found = correspondence(groups, donor_groups, terms, assume_ordered=options.assume_ordered)
    if options.rescale_invariant:
        found = rescale_invariant(found, open_groups(base, groups), open_groups(donor, donor_groups))
    share = SHARES[options.match_by]
    if not share or options.calibrate is None:
        return found, None
    return found, activation_evidence(found, base, donor, match, options.calibrate, runner, share)


def widened(
    planned: Plan,
    groups: AxisGroups,
    donor: LayerGraph,
    donor_groups: AxisGroups,
    options: Options,
    runner: Runner,
) -> Plan:
    """The plan on a wider base where that is wanted, with narrower statistics of the donor compensated."""
    is_wider = options.width == "grow"
    return grown(planned, groups, donor, donor_groups, runner, is_wider=is_wider, assume_ordered=options.assume_ordered)


def verified_groups(
    graph: LayerGraph,
    options: Options,
    runner: Runner,
    progress: Callable[[int, int], None],
    known: Known,
) -> AxisGroups:
    """The groups of a graph, verified unless the user said otherwise; a graph of the same nodes is verified once."""
    for nodes, groups in known:
        if nodes is graph.nodes:
            return groups
    probed = probe(
        graph,
        runner,
        inputs=renamed(graph, options.inputs),
        input_shapes=renamed(graph, options.input_shapes),
        seed=options.seed,
        timeout=options.verify_timeout,
    )
    groups = axis_groups(graph, probed)
    if options.verify:
        groups = verify(
            graph,
            groups,
            runner,
            seed=options.seed,
            progress=progress,
            timeout=options.verify_timeout,
            max_memory=options.max_memory,
        )
    known.append((graph.nodes, groups))
    return groups


def renamed(graph: LayerGraph, given: Mapping[str, T] | None) -> dict[str, T] | None:
    """What was given for the base's inputs, for a donor whose inputs have other names."""
    if given is None:
        return None
    names = [value.name for value in graph.inputs]
    if set(given) <= set(names) or len(given) != len(names):
        return dict(given)
    return dict(zip(names, given.values(), strict=True))


def self_check(donor: LayerGraph, groups: AxisGroups, alignment: Alignment, runner: Runner, seed: int) -> float:
    """How much a calibrated copy of the donor moves when its units are put in the orders that were used.

    Each order is completed to a permutation of its group; a group with several orders takes one per run.
    """
    waiting: dict[int, list[Array]] = {}
    for pair, order in zip(alignment.found.pairs, alignment.orders, strict=True):
        full = as_permutation(order, groups.groups[pair.donor].units)
        waiting.setdefault(pair.donor, []).append(full)
    if not waiting:
        return 0.0
    trial: Trial = open_trial(donor, groups, runner, seed=seed)
    worst = 0.0
    for turn in range(max(len(orders) for orders in waiting.values())):
        moves = [(groups.groups[g], orders[min(turn, len(orders) - 1)]) for g, orders in waiting.items()]
        worst = max(worst, trial.deviation(permute_weights(trial.weights, moves)))
    return worst


def checked(result: LayerGraph, steps: Sequence[Merged], runner: Runner) -> dict[str, str]:
    """What was checked of a result before it is written, with "passed" or what was found."""
    checks = {"finite": finite_on_probe(result, steps[0].groups, runner), "self_check": self_check_verdict(steps)}
    at_zero = [step.at_zero for step in steps if step.at_zero is not None]
    return {**checks, "lambda_0": lambda_0_verdict(max(at_zero))} if at_zero else checks


def self_check_verdict(steps: Sequence[Merged]) -> str:
    moved = [step.self_check for step in steps]
    if any(value is None for value in moved):
        return "not run: the groups are unverified (--no-verify)"
    worst = max(value for value in moved if value is not None)
    return "passed" if worst <= 10 * ACCEPT else f"failed: the donor's outputs move by {worst:.1e}"


def lambda_0_verdict(moved: float) -> str:
    return (
        "passed" if moved <= SAME_FUNCTION else f"failed: the outputs of the wider base move by {moved:.1e} at lambda 0"
    )


def finite_on_probe(graph: LayerGraph, groups: AxisGroups, runner: Runner) -> str:
    found = outputs(graph, groups.probed.inputs, runner)
    bad = [name for name, array in found.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    return "passed" if not bad else f"failed: output {bad[0]!r} is not finite on the probe inputs"


def check_inputs(base: LayerGraph, donor: LayerGraph) -> None:
    """Raise MatchError unless the donor takes what the base takes."""
    hint = "merge models that take the same inputs"
    if len(base.inputs) != len(donor.inputs):
        raise MatchError(
            f"the inputs of {donor.name} do not fit {base.name}: it has {len(donor.inputs)} "
            f"({listed(donor.inputs)}), the base {len(base.inputs)} ({listed(base.inputs)}); {hint}"
        )
    for a, b in zip(base.inputs, donor.inputs, strict=True):
        if a.dtype != b.dtype or not shapes_fit(a.shape, b.shape):
            raise MatchError(
                f"the inputs of {donor.name} do not fit {base.name}: it takes {described(b)}, "
                f"the base {described(a)}; {hint}"
            )


def check_calibration(models: Iterable[LayerGraph], options: Options) -> None:
    """Raise UsageError or DataError where calibration inputs are asked for and missing, or do not fit; before the work,
    not after it."""
    check_signal(options.match_by, options.calibrate)
    for graph in models:
        if options.calibrate is not None:
            calibration_inputs(graph, options.calibrate)


def shapes_fit(a: tuple[int | str | None, ...] | None, b: tuple[int | str | None, ...] | None) -> bool:
    """Whether two declared shapes allow the same arrays, the first axis (the batch) left aside."""
    if a is None or b is None:
        return True
    if len(a) != len(b):
        return False
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a[1:], b[1:], strict=True))


def described(value: Value) -> str:
    return f"{value.name!r} ({value.dtype}, shape {list(value.shape) if value.shape is not None else 'unknown'})"


def listed(values: Sequence[Value]) -> str:
    return ", ".join(map(described, values)) or "none"


def selected_layers(found: Sequence[Layer], selector: str) -> list[int]:
    """The layers a selector names: a pattern, an index range "0:5" (half-open) or depth fractions "0%:50%".

    Raises:
        UsageError: it is malformed or selects nothing.
    """
    chosen = [i for i, layer in enumerate(found) if selects(selector, i, layer, found)]
    if not chosen:
        names = ", ".join(layer.name for layer in found[:3])
        raise UsageError(
            f"the selector {selector!r} selects none of {len(found)} layers ({names}, ...): give a name pattern, "
            "an index range such as 0:5 or depths such as 0%:50%"
        )
    return chosen


def selects(selector: str, index: int, layer: Layer, found: Sequence[Layer]) -> bool:
    start, colon, end = selector.partition(":")
    if colon and all(bound.rstrip("%").replace(".", "", 1).isdecimal() or not bound for bound in (start, end)):
        if start.endswith("%") or end.endswith("%"):
            deepest = max(other.depth for other in found) + 1
            depth = 100 * layer.depth / deepest
            return float(start.rstrip("%") or 0) <= depth < float(end.rstrip("%") or 100)
        if "." not in selector:
            return int(start or 0) <= index < int(end or len(found))
    return fnmatchcase(layer.name, selector)


def factors_of(found: Sequence[Layer], options: Options) -> dict[int, float]:
    """The merging factors of layers that have their own, by index.

    Raises:
        UsageError: there are more factors than layers to give them to, or a selector selects nothing.
    """
    factors: dict[int, float] = {}
    if options.gradient:
        if len(options.gradient) > len(found):
            raise UsageError(
                f"{len(options.gradient)} lambdas are given for {len(found)} layers: give one, or a few that are "
                "spread over the depth of the base"
            )
        deepest = max(layer.depth for layer in found) or 1
        at = np.linspace(0, 1, len(options.gradient))
        factors = {i: float(np.interp(layer.depth / deepest, at, options.gradient)) for i, layer in enumerate(found)}
    for selector, lam in options.lam_for:
        factors |= dict.fromkeys(selected_layers(found, selector), lam)
    return factors


def shares(factors: Sequence[float]) -> tuple[float, ...]:
    """What each model contributes after W <- (1 - lam) W + lam B for every lam in turn, base first."""
    found = [1.0]
    for lam in factors:
        found = [*(share * (1 - lam) for share in found), lam]
    return tuple(found)


# --- the arms of a comparison -----------------------------------------------------------------------------------


def scored_arms(
    base: LayerGraph,
    steps: Sequence[Merged],
    result: LayerGraph,
    options: Options,
    data: Mapping[str, Array],
    runner: Runner,
    progress: Progress,
    judge: Judge = score,
) -> tuple[tuple[Scores, ...], dict[str, str]]:
    """Scores of the merged model beside every control that uses the same data: none, or the calibration inputs.

    Returns:
        the scores; and why a donor has none, by its arm. The ensemble is that of the models that have one.
    """
    labels = labels_in(data)
    again = partial(rebuilt, base, steps, options, runner=runner)
    models: dict[str, Callable[[], LayerGraph]] = {
        "merged": lambda: result,
        "plain average": lambda: again(identity_alignment),
        "random permutation": lambda: again(partial(random_alignment, seed=options.seed)),
        "random donor": lambda: again(assign, shuffle=True),
    }
    if any(step.repair for step in steps):
        models["base, repaired"] = lambda: again(None, is_merged=False)
    total = 2 + len(steps) + len(models)
    members = [predicted_like(None, base, data, options, runner)]
    found = [judge(members[0], labels, "base")]
    unscored: dict[str, str] = {}
    for index, step in enumerate(steps):
        arm = "donor" if len(steps) == 1 else f"donor {index + 1}"
        try:
            prediction = predicted_like(members[0], step.donor, data, options, runner)
        except DataError as error:
            unscored[arm] = str(error)
            continue
        members.append(prediction)
        found.append(judge(prediction, labels, arm))
        progress("scoring the arms", len(found), total)
    for arm, build in models.items():
        found.append(judge(predicted_like(None, build(), data, options, runner), labels, arm))
        progress("scoring the arms", len(found), total)
    if len(members) > 1:
        found.append(judge(ensemble(members), labels, "ensemble"))
    progress("scoring the arms", total, total)
    return tuple(found), unscored


def predicted_like(
    beside: Prediction | None, graph: LayerGraph, data: Mapping[str, Array], options: Options, runner: Runner
) -> Prediction:
    """What a model says of every sample; a donor in the terms of the base, whose prediction is `beside`.

    Raises:
        DataError: the data do not fit the model, or it tells other classes apart than the base.
    """
    output = options.output if beside is None or options.output in graph.output_names else None
    found = predict(graph, data, output=output, scores=options.scores, runner=runner)
    if beside is not None and found.values.shape != beside.values.shape:
        theirs, mine = found.values.shape[1], beside.values.shape[1]
        raise DataError(f"output {found.output!r} of {graph.name} tells {theirs} classes apart, the base's {mine}")
    return found


def rebuilt(
    base: LayerGraph,
    steps: Sequence[Merged],
    options: Options,
    strategy: Strategy | None,
    *,
    shuffle: bool = False,
    is_merged: bool = True,
    runner: Runner | None = None,
) -> LayerGraph:
    """The merge again, with the same pairs of layers and another alignment, or with shuffled donors; repaired like it.

    Without a strategy the units stay where the steps put them. Without `is_merged` the weights stay the base's and are
    repaired alone, towards the goals of the merge.
    """
    current, runner = base, runner or registry.runner()
    for step in steps:
        made = replanned(current, step, options, strategy, runner, shuffle=shuffle)
        donor = shuffled(step.donor, options.seed) if shuffle else step.donor
        current, _ = with_repair(merge(made) if is_merged else made.base, made, donor, options, runner)
    return current


def replanned(
    base: LayerGraph,
    step: Merged,
    options: Options,
    strategy: Strategy | None,
    runner: Runner,
    *,
    shuffle: bool = False,
) -> Plan:
    """The plan of one step again, with the same pairs of layers and another alignment, or with a shuffled donor.

    Without a strategy the units stay where the step put them. Models are run on calibration inputs for `assign` alone.
    """
    options = replace(options, lam=step.plan.lam, match_by=options.match_by if strategy is assign else "weights")
    strategy = strategy or partial(given_alignment, orders=step.ungrown.alignment.orders)
    donor = shuffled(step.donor, options.seed) if shuffle else step.donor
    deeper = deepened(base, donor, step.donor_groups, step.first, options)
    base, match = prepared(deeper.base, donor, deeper.match, options, step.selected)
    groups, theirs = step.groups, step.donor_groups
    chosen = {step.match.pairs[index].base for index in step.plan.merged_layers}
    made, _ = planned_merge(base, donor, match, groups, theirs, strategy, options, chosen, runner)
    return widened(replace(made, given=deeper.given), groups, donor, theirs, options, runner)


def shuffled(graph: LayerGraph, seed: int) -> LayerGraph:
    """The graph with the entries of every float tensor in random order: the control "random donor"."""
    floats = [w for w in graph.weights.values() if w.is_float and not w.scope and w.size > 1]
    return graph.with_weights(
        [replace(weight, read=partial(shuffled_values, weight, (seed, i))) for i, weight in enumerate(floats)]
    )


def shuffled_values(weight: Weight, seed: tuple[int, int]) -> Array:
    values = weight.read()
    order = np.random.default_rng(seed).permutation(values.size)
    shuffled_copy: Array = values.ravel()[order].reshape(values.shape)
    return shuffled_copy


__all__ = ["Assembly", "Merged", "Options", "align", "assemble", "load", "save", "write"]
