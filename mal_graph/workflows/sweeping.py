"""Loss and metric along lambda, of the merge and of the controls that use the same data.

Between its ends a merge is a straight line: the ends are merged once, and every point is A + lambda (B - A), fed to one
session per arm as inputs. With calibration inputs every point of every arm is repaired, measured in one more session
per arm. Where operators hold numbers of their own that go with lambda (the epsilon of a norm over other widths) every
point has a session, which reads, optimises and packs the same weights again.

`grid` merges one base layer with one donor layer at a time, as in Figure 1 of Model Assembly Learning
(arXiv:2503.21657).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from mal_graph import registry
from mal_graph.errors import DataError, MatchError, UsageError
from mal_graph.evaluation import Metric, OutputKind, Predictor, Scores, read_labels, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import assign_at_random, assign_in_order, assign_units, correspond, match_layers
from mal_graph.merging import LayerLambdas, Plan, Repair, Repairs, check, merge, plan_merge
from mal_graph.network import find_layers
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups, Network
from mal_graph.workflows.assembly import (
    Merged,
    Options,
    Progress,
    check_calibration,
    check_inputs,
    merge_step,
    predicted_like,
    replanned,
    self_check_verdict,
    shuffled,
    verified_groups,
    with_repair,
)

LAMBDAS = tuple(round(0.05 * i, 2) for i in range(21))
EPS = 0.05
FAR = 0.4  # of its model's depth: how much deeper a donor layer stands than its base layer to be called out of place
SIGMAS = 2.0  # above the largest class: what a model at chance may reach by luck
ALIGNED, PLAIN, SHUFFLED, STRANGER = "aligned", "plain average", "random permutation", "random donor"
ALONE = "base, repaired"


@dataclass(frozen=True)
class Curve:
    """One arm along lambda.

    Attributes:
        arm: "aligned" or the control.
        points: the scores at every lambda; the first is the base.
        lam_star: the largest lambda up to which the loss is never more than eps above the base's.
        rise: the largest loss above the base's.
        barrier: the largest loss above the mean of both ends, where lambda 1 is the donor (repaired, if that is done);
            else None.
    """

    arm: str
    points: tuple[Scores, ...]
    lam_star: float
    rise: float
    barrier: float | None


@dataclass(frozen=True)
class Sweep:
    """The result of `sweep`.

    Attributes:
        base, donor: the models' names.
        lambdas: in rising order, from 0.
        eps: how much more loss than the base's is put up with.
        curves: "aligned" first, then the controls.
        donor_scores: the donor itself on the same data; None where it cannot be scored on them.
        unscored: why it cannot; "" where it can.
        findings: the failures that the figures show, with the figures.
        step, options: what the aligned arm merges, and what of it is repaired; how all arms are made.
    """

    base: str
    donor: str
    lambdas: tuple[float, ...]
    eps: float
    curves: tuple[Curve, ...]
    donor_scores: Scores | None
    unscored: str
    findings: tuple[str, ...]
    step: Merged
    options: Options


@dataclass(frozen=True)
class Grid:
    """The result of `grid`.

    Attributes:
        base, donor: the models' names.
        base_layers, donor_layers: names, in order.
        lam: the merging factor.
        base_loss: the loss of the base.
        change: what is added to it by merging one layer with one, shape (base layers, donor layers); nan if not merged.
        reasons: why a pair is not merged, by its place.
    """

    base: str
    donor: str
    base_layers: tuple[str, ...]
    donor_layers: tuple[str, ...]
    lam: float
    base_loss: float
    change: Array
    reasons: Mapping[tuple[int, int], str]


@np.errstate(all="ignore")  # a merge that overflows has a loss that says so
def sweep(
    base: LayerGraph,
    donor: LayerGraph,
    data: Mapping[str, Array],
    *,
    lambdas: Iterable[float] = LAMBDAS,
    eps: float = EPS,
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
    output: str | None = None,
    scores: OutputKind | None = None,
    calibrate: Mapping[str, Array] | None = None,
    match_by: str = "weights",
    repair: bool = True,
    rescale_invariant: bool = False,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> Sweep:
    """Score the merge of a donor into a base along lambda, beside plain average, random permutation and random donor.

    Args:
        base, donor: two models that take the same inputs.
        data: inputs and `labels`.
        lambdas: merging factors; 0 is added.
        eps: how much more loss than the base's counts as good still, in the loss's own unit.
        calibrate: unlabelled inputs; every arm is then repaired at every lambda but 0, and the base alone is one more.
        others: as for `assemble`.

    Raises:
        MatchError: inputs do not fit, no layer corresponds to another, or nothing can be merged.
        DataError: the data do not fit the base, or the calibration inputs a model.
        UsageError: an option makes no sense.
    """
    chosen = checked_lambdas(lambdas)
    if not eps >= 0.0:
        raise UsageError(f"eps is {eps}: give how much more loss than the base's is put up with, 0 or more")
    check(unmatched, width, depth)
    check_inputs(base, donor)
    options = Options(
        lambdas=LayerLambdas.of(1.0),
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
    check_calibration([base, donor], options)
    report = progress or (lambda what, done, total: None)
    runner = runner or registry.runner()
    step = merge_step(base, donor, options, runner, report, [])
    again = partial(replanned, base, step, options, runner=runner)
    along = partial(line_of, donor=donor, options=options, runner=runner)
    arms: dict[str, Callable[[], Along]] = {
        ALIGNED: lambda: along(step.plan),
        PLAIN: lambda: along(again(assign_in_order)),
        SHUFFLED: lambda: along(again(partial(assign_at_random, seed=seed))),
        STRANGER: lambda: along(again(assign_units, shuffle=True), donor=shuffled(donor, seed)),
    }
    if options.repair_inputs is not None:
        arms[ALONE] = lambda: along(step.plan, is_merged=False)
    curves = []
    for done, (arm, made) in enumerate(arms.items()):
        line = made()
        points = tuple(scored_along(line, chosen, arm, data, options, runner))
        if arm == ALIGNED:
            step = replace(step, repair=line.repair)
        curves.append(curve(arm, chosen, points, eps, is_whole(step) and arm not in (STRANGER, ALONE)))
        report("scoring the arms", done + 1, len(arms))
    own, unscored = donor_scores(base, donor, data, options, runner)
    found = findings(step, chosen, eps, curves, own or unscored, read_labels(data))
    return Sweep(base.name, donor.name, chosen, eps, tuple(curves), own, unscored, tuple(found), step, options)


# --- lambda -----------------------------------------------------------------------------------------------------


def lambdas_of(text: str) -> tuple[float, ...]:
    """Merging factors written as "0:1:0.05" (from, to, step; the end counts) or "0,0.1,0.5". Raises UsageError."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in (parts if len(parts) == 3 else text.split(","))]
    except ValueError:
        numbers = []
    if not numbers or not np.isfinite(numbers).all():
        raise UsageError(f"--lambdas {text!r} is no list of numbers: write 0:1:0.05 (from, to, step) or 0,0.1,0.5")
    if len(parts) != 3:
        return tuple(numbers)
    start, end, width = numbers
    if width <= 0 or end < start or (end - start) / width > 10_000:
        raise UsageError(f"--lambdas {text!r} has no points: write from, to and a positive step, as in 0:1:0.05")
    return tuple(round(start + i * width, 12) for i in range(int((end - start) / width + 1e-9) + 1))


def checked_lambdas(given: Iterable[float]) -> tuple[float, ...]:
    """Merging factors in rising order, from 0. Raises UsageError."""
    found = sorted({0.0, *map(float, given)})
    bad = [lam for lam in found if not 0.0 <= lam <= 1.0]
    if bad or len(found) == 1:
        what = f"{bad[0]:g} is among the lambdas" if bad else "there is no lambda above 0"
        raise UsageError(f"{what}: give merging factors from 0 (the base) to 1 (the donor)")
    return tuple(found)


# --- points -----------------------------------------------------------------------------------------------------


def scored_along(
    line: "Along",
    lambdas: Sequence[float],
    arm: str,
    data: Mapping[str, Array],
    options: Options,
    runner: Runner,
    metric: Metric = score,
) -> Iterator[Scores]:
    """The scores of one arm at every lambda, out of one session as long as the graph is the same."""
    asked: Predictor | None = None
    for lam in lambdas:
        graph = line.graph_at(lam)
        if asked is None or graph is not asked.graph:
            asked = Predictor(
                graph,
                data,
                score_output=options.output,
                output_kind=options.scores,
                runner=runner,
                variable=line.names,
            )
        yield metric(asked.predict(line.at(lam)), asked.labels, arm)


def line_of(planned: Plan, donor: LayerGraph, options: Options, runner: Runner, *, is_merged: bool = True) -> "Along":
    """A merge at any lambda, repaired if there is something to repair it on; without `is_merged` the base alone is."""
    if is_merged and any(a != b for a, b in planned.growth.settings.values()):
        return Points(planned, donor, options, runner)
    line = Line(planned, is_merged=is_merged)
    if options.repair_inputs is None:
        return line
    return RepairedLine(line, Repairs(line.start, planned, options.repair_inputs, runner, line.names))


class Along(Protocol):
    """A merge at any lambda.

    Attributes:
        names: the weights that `at` gives to the session of a point.
        repair: what was repaired, known once a point was asked for; None if nothing was to be.
    """

    @property
    def names(self) -> list[str]: ...

    @property
    def repair(self) -> Repair | None: ...

    def graph_at(self, lam: float) -> LayerGraph:
        """The model of a point; the same object wherever one session serves."""

    def at(self, lam: float) -> dict[str, Array]:
        """The weights of a point."""


class Line:
    """The tensors that a merge changes, at any lambda; the same arrays are filled again for every point.

    Without `is_merged` nothing changes: every point is the plan's base.
    """

    repair = None

    def __init__(self, planned: Plan, *, is_merged: bool = True) -> None:
        ends = [merge(planned.at(lam)) for lam in (0.0, 1.0)] if is_merged else [planned.base] * 2
        self.start, end = ends
        moved = [name for name, weight in end.weights.items() if weight is not self.start.weights[name]]
        self.ends = {name: (self.start.weights[name].read(), end.weights[name].read()) for name in moved}
        self.steps = {name: wide(b) - wide(a) for name, (a, b) in self.ends.items()}
        self.sums = {name: np.empty_like(step) for name, step in self.steps.items()}

    @property
    def names(self) -> list[str]:
        return list(self.ends)

    def graph_at(self, lam: float) -> LayerGraph:
        return self.start

    def at(self, lam: float) -> dict[str, Array]:
        """A + lambda (B - A) in the tensors' own types; the ends are copied, not computed."""
        if lam in (0.0, 1.0):
            return {name: ends[int(lam)] for name, ends in self.ends.items()}
        for name, (a, _) in self.ends.items():
            np.multiply(self.steps[name], self.steps[name].dtype.type(lam), out=self.sums[name])
            np.add(self.sums[name], a, out=self.sums[name])
        return {name: self.sums[name].astype(a.dtype, copy=False) for name, (a, _) in self.ends.items()}


class RepairedLine:
    """A line of which every point but that at lambda 0 is repaired."""

    def __init__(self, line: Line, repairs: Repairs) -> None:
        self.line, self.repairs, self.repair = line, repairs, repairs.done

    @property
    def names(self) -> list[str]:
        return list(self.repairs.weights)

    def graph_at(self, lam: float) -> LayerGraph:
        return self.repairs.graph

    def at(self, lam: float) -> dict[str, Array]:
        moved = self.line.at(lam)
        return self.repairs.weights_of(self.repairs.plan.at(lam), moved) if lam else {**self.repairs.weights, **moved}


class Points:
    """A merge in which operators hold numbers that go with lambda: every point is a model of its own."""

    def __init__(self, planned: Plan, donor: LayerGraph, options: Options, runner: Runner) -> None:
        self.planned, self.donor, self.options, self.runner = planned, donor, options, runner
        self.names: list[str] = []
        self.repair: Repair | None = None

    def graph_at(self, lam: float) -> LayerGraph:
        planned = self.planned.at(lam)
        graph, done = with_repair(merge(planned), planned, self.donor, self.options, self.runner)
        self.repair = done or self.repair
        return graph

    def at(self, lam: float) -> dict[str, Array]:
        return {}


def wide(values: Array) -> Array:
    """The values in the type they are computed in: float32, or float64 where they are stored so."""
    return values if values.dtype == np.float64 else values.astype(np.float32, copy=False)


def curve(arm: str, lambdas: Sequence[float], points: tuple[Scores, ...], eps: float, ends_at_donor: bool) -> Curve:
    """Lambda* and barriers of one arm: Delta(lam) = L(lam) - L(0); a loss that is nan counts as infinite.

    Source of the standard barrier: Ainsworth et al. 2023 (arXiv:2209.04836), Definition 2.2.
    """
    losses = np.array([np.inf if np.isnan(point.loss) else point.loss for point in points])
    too_much = np.flatnonzero(losses - losses[0] > eps)
    last = int(too_much[0]) - 1 if too_much.size else len(losses) - 1
    barrier = float(losses.max() - (losses[0] + losses[-1]) / 2) if ends_at_donor and lambdas[-1] == 1.0 else None
    return Curve(arm, points, lambdas[last], float(losses.max() - losses[0]), barrier)


def is_whole(step: Merged) -> bool:
    """Whether lambda 1 is the donor: two models of the same shape, everything merged."""
    planned = step.plan
    unpaired = step.ungrown.alignment.correspondence.unpaired
    left = (planned.skipped, planned.dropped, step.match.unmatched_donor, unpaired)
    return not any(left) and all(a == b for a, b in planned.alignment.correspondence.units)


def donor_scores(
    base: LayerGraph, donor: LayerGraph, data: Mapping[str, Array], options: Options, runner: Runner
) -> tuple[Scores | None, str]:
    """The donor on the base's data; or why it gives nothing that can be held against the base."""
    beside = predicted_like(None, base, data, options, runner)
    try:
        return score(predicted_like(beside, donor, data, options, runner), read_labels(data), "donor"), ""
    except DataError as error:
        return None, str(error)


# --- what the figures show --------------------------------------------------------------------------------------


def findings(
    step: Merged, lambdas: Sequence[float], eps: float, curves: Sequence[Curve], own: Scores | str, labels: Array
) -> Iterator[str]:
    """Failures in words, each with its evidence."""
    verdict = self_check_verdict([step])
    if verdict.startswith("failed"):
        yield f"the alignment is not sound: put in the orders used, {verdict.removeprefix('failed: ')}"
    aligned, *controls = curves
    means = {one.arm: mean_loss(one) for one in (aligned, *(c for c in controls if c.arm in (SHUFFLED, STRANGER)))}
    for arm in (SHUFFLED, STRANGER):
        if not means[ALIGNED] < means[arm]:
            yield (
                f"alignment no better than random: the mean loss over lambda > 0 is {means[ALIGNED]:.4g} aligned, "
                f"{means[arm]:.4g} with a {arm}"
            )
    for alone in (mean_loss(one) for one in controls if one.arm == ALONE):
        if not means[ALIGNED] < alone:
            yield (
                f"merging no better than repair alone: the mean loss over lambda > 0 is {means[ALIGNED]:.4g} aligned, "
                f"{alone:.4g} for the base with its own weights, repaired alike"
            )
    if aligned.lam_star < lambdas[-1]:
        beyond = lambdas.index(aligned.lam_star) + 1
        yield (
            f"lambda beyond lambda*: up to {aligned.lam_star:g} the loss stays within {eps:g} of the base's "
            f"{aligned.points[0].loss:.4g}, at {lambdas[beyond]:g} it is {aligned.points[beyond].loss:.4g}"
        )
        yield from out_of_place(step)
    if evidence := chance(own, labels):
        yield f"semantic mismatch of the data: {evidence}"


def mean_loss(found: Curve) -> float:
    return float(np.mean([point.loss for point in found.points[1:]]))


def out_of_place(step: Merged) -> Iterator[str]:
    """Deep donor layers that are merged into shallow base layers."""
    ends = [max((layer.depth for layer in side), default=0) or 1 for side in (step.match.base, step.match.donor)]
    for pair in step.plan.merged_pairs:
        a, b = pair.base, pair.donor
        places = a.depth / ends[0], b.depth / ends[1]
        if places[1] - places[0] > FAR:
            yield (
                f"deep donor layer in a shallow base layer: {b.name} stands at {places[1]:.0%} of the donor's depth, "
                f"{a.name} at {places[0]:.0%} of the base's"
            )


def chance(own: Scores | str, labels: Array) -> str:
    """That a donor does no better than a constant on the data, or has no scores; "" if it does."""
    if isinstance(own, str):
        return f"the donor gives nothing to be scored: {own}"
    if own.metric_name == "R2":
        return f"the donor's R2 on them is {own.metric:.3f}, that of a constant is 0" if not own.metric > 0 else ""
    largest = float(np.unique(labels, return_counts=True)[1].max() / labels.size)
    luck = SIGMAS * np.sqrt(largest * (1 - largest) / labels.size)
    if own.metric > largest + luck:
        return ""
    return f"the donor's accuracy on them is {own.metric:.3f}, that of their most frequent class {largest:.3f}"


# --- one layer with one layer -----------------------------------------------------------------------------------


@np.errstate(all="ignore")
def grid(
    base: LayerGraph,
    donor: LayerGraph,
    data: Mapping[str, Array],
    *,
    lam: float = 0.3,
    unmatched: str = "fade",
    assume_ordered: bool = False,
    verify: bool = True,
    verify_timeout: float | None = None,
    max_memory: int | None = None,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    output: str | None = None,
    scores: OutputKind | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> Grid:
    """What the loss changes by where one base layer is merged with one donor layer, for every pair of layers.

    Each pair is aligned by its own tensors alone, in the base's frame: its neighbours are untouched. A bias of the
    donor that the base has no place for is left out. Arguments and errors as for `sweep`; pairs whose forms do not fit
    are left blank, with the reason.
    """
    check(unmatched)
    check_inputs(base, donor)
    options = Options(
        lambdas=LayerLambdas.of(lam),
        unmatched=unmatched,
        assume_ordered=assume_ordered,
        verify=verify,
        verify_timeout=verify_timeout,
        max_memory=max_memory,
        seed=seed,
        inputs=inputs,
        input_shapes=input_shapes,
        output=output,
        scores=scores,
    )
    report = progress or (lambda what, done, total: None)
    runner = runner or registry.runner()
    groups, donor_groups = (
        verified_groups(graph, options, runner, partial(report, f"verifying {graph.name}"), [])
        for graph in (base, donor)
    )
    mine, theirs = ([layer.name for layer in find_layers(graph) if layer.weight] for graph in (base, donor))
    stored = {p.tensor: base.weights[p.tensor].read() for layer in find_layers(base) for p in layer.parameters}
    asked = Predictor(base, data, score_output=output, output_kind=scores, runner=runner, variable=list(stored))
    base_loss = score(asked.predict(stored), asked.labels, base.name).loss
    change, reasons = np.full((len(mine), len(theirs)), np.nan), {}
    for i, a in enumerate(mine):
        for j, b in enumerate(theirs):
            try:
                line = Line(planned_pair(base, donor, (a, b), groups, donor_groups, options))
                moved = score(asked.predict({**stored, **line.at(lam)}), asked.labels, f"{a} with {b}")
                change[i, j] = moved.loss - base_loss
            except MatchError as error:
                reasons[i, j] = str(error)
            report("merging layer by layer", i * len(theirs) + j + 1, change.size)
    return Grid(base.name, donor.name, tuple(mine), tuple(theirs), lam, base_loss, change, reasons)


def planned_pair(
    base: LayerGraph,
    donor: LayerGraph,
    names: tuple[str, str],
    groups: AxisGroups,
    donor_groups: AxisGroups,
    options: Options,
) -> Plan:
    """The plan of merging one pair of layers alone. Raises MatchError with the reason why it cannot be."""
    match = match_layers(base, donor, [names])
    networks = Network(base, groups), Network(donor, donor_groups)
    alignment = assign_units(correspond(*networks, match, assume_ordered=options.assume_ordered))
    planned = plan_merge(alignment, options.lambdas, unmatched=options.unmatched)
    if not planned.steps:
        raise MatchError(planned.skipped.get(names[0], "the layers have no tensor in common"))
    return planned


__all__ = ["Curve", "Grid", "Sweep", "grid", "lambdas_of", "sweep"]
