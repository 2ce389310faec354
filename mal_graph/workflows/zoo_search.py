"""Iterative assembly: what a folder of donors has to give, merged into a base step by step behind a gate.

Donor after donor, in the order of their names, is opened, matched, verified and aligned with the model so far. The
matcher then proposes a short list of candidates, from the whole donor to single layers (see `candidates`); each is
scored at a few lambdas out of one session on the deciding part of the data. The best is merged if it passes the gate
(see `gate`), is better than the model so far, and better than all that the same donor gives with its weights shuffled:
a base that is too sure of itself gains from almost any change. A donor gives at most one step. The reporting part is
read once, at the end. With calibration inputs every candidate, of shuffled donors too, is repaired before it is scored.

Without data nothing can be scored: donors are merged where their layers are like the base's, at the smallest lambda.

Source: the iterative assembly of Model Assembly Learning (arXiv:2503.21657), of which neither the rule that selects
layers nor the order of donors is known. Chosen: one decision for each donor, with the orders of the whole donor for all
of its candidates. Refused: every subset of layers - exponentially many, with a gate that ever more pass by luck.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np

from mal_graph import registry
from mal_graph.errors import FileError, MalGraphError, MatchError, ShapeError, UsageError
from mal_graph.evaluation import Arrays, Gate, HeldOut, OutputKind, Scores, predict, read_labels, split_holdout
from mal_graph.graph import LayerGraph
from mal_graph.matching import SAME_PLACE, assign_as_given
from mal_graph.merging import LayerLambdas, check, merge
from mal_graph.protocols import Runner
from mal_graph.workflows.assembly import (
    Assembly,
    Known,
    Merged,
    Options,
    Progress,
    Strategy,
    check_calibration,
    check_inputs,
    checked,
    compared_at_zero,
    load,
    merge_step,
    narrowed,
    scored_arms,
    shares,
    shuffled,
    verified_groups,
    with_repair,
)
from mal_graph.workflows.checkpoint import (
    ACCEPTED,
    REFUSED,
    SKIPPED,
    Journal,
    Kept,
    Outcome,
    Point,
    Tried,
    digest,
    digest_of_file,
    fingerprint,
    read_journal,
    write_journal,
)
from mal_graph.workflows.sweeping import checked_lambdas, line_of, scored_along

CONTROLS = 3  # donors with shuffled weights that an accepted donor is held against
LAMBDAS = (0.05, 0.1, 0.2, 0.3, 0.5)
EPS = 0.0
PREFIXES = (0.25, 0.5, 0.75)  # of the depth
SINGLES = 4
MIN_SCORE = SAME_PLACE  # of a pair of layers that is merged without data


@dataclass(frozen=True)
class Entry:
    """A donor before it is looked into: what to load, a digest of it, and why it is not used at all."""

    name: str
    model: str | Path | LayerGraph
    digest: str
    reason: str = ""


@dataclass(frozen=True)
class Candidate:
    """Layers of a donor that are merged together, by their names in the base."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """What a search goes by: `held` and `gate` are None where there are no data."""

    options: Options
    lambdas: tuple[float, ...]
    min_score: float
    controls: int
    held: HeldOut | None
    gate: Gate | None
    runner: Runner
    progress: Progress

    @property
    def basis(self) -> str:
        """What decides."""
        if self.held is None:
            return "structure alone: nothing was scored, so nothing is known of the quality of the result"
        if not self.held.is_labelled:
            return "agreement with the base's own classes and entropy: there are no labels, so no accuracy is known"
        return "labels"


@dataclass(frozen=True)
class Zoo:
    """The result of `zoo`.

    Attributes:
        assembly: the merged model, the accepted steps, and the scores of every arm on the reporting part; without an
            accepted donor the base.
        outcomes: what became of each donor, in order.
        terms: what decided.
        best: the result on the deciding part; None without data.
    """

    assembly: Assembly
    outcomes: tuple[Outcome, ...]
    terms: Terms
    best: Scores | None


@dataclass(frozen=True)
class SoFar:
    """The model that accepted steps have made, and its scores on the deciding part."""

    graph: LayerGraph
    steps: tuple[Merged, ...]
    best: Scores | None


@np.errstate(all="ignore")  # a merge that overflows has a loss that says so
def zoo(
    base: LayerGraph,
    donors: str | Path | Iterable[str | Path | LayerGraph],
    data: Arrays | None = None,
    *,
    report_data: Arrays | None = None,
    lambdas: Iterable[float] = LAMBDAS,
    eps: float = EPS,
    min_score: float = MIN_SCORE,
    controls: int = CONTROLS,
    state: str | Path | None = None,
    restart: bool = False,
    unmatched: str = "fade",
    width: str = "base",
    depth: str = "match",
    assume_ordered: bool = False,
    verify: bool = True,
    verify_timeout: float | None = None,
    max_memory: int | None = None,
    seed: int = 0,
    inputs: Arrays | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    output: str | None = None,
    scores: OutputKind | None = None,
    calibrate: Arrays | None = None,
    match_by: str = "weights",
    repair: bool = True,
    rescale_invariant: bool = False,
    progress: Progress | None = None,
    runner: Runner | None = None,
) -> Zoo:
    """Merge into a base what a zoo of donors has to give, as far as held-out data say that it helps.

    Args:
        base: gives the graph, the signature and the names.
        donors: a folder, of which all .onnx files are taken in the order of their names; or models in any order. Files
            are opened one at a time; what cannot be merged is skipped, with the reason in the result.
        data: inputs and `labels` that no model was trained on; without labels the base's classes serve; without data
            the structure alone decides.
        report_data: what the result is scored on; by default half of `data`, which then decides nothing.
        lambdas: merging factors to try.
        eps: by how much the metric (accuracy, R2 or agreement) may fall below the base's on the deciding part.
        min_score: what a pair of layers has to score to be merged without data.
        controls: how many times a donor with shuffled weights has to do worse before the donor is accepted.
        state: a file that keeps every decision; if it is there, the search goes on from it, to an equal result.
        restart: start anew where that file is of another search.
        calibrate: unlabelled inputs; every candidate, control and accepted model is then repaired on them.
        others: as for `assemble`.

    Raises:
        FileError: there is no such folder, it holds no .onnx file, or `state` is of another search.
        MatchError: none of the donors can be merged into the base.
        DataError: the data or the calibration inputs do not fit the base, or are too few.
        UsageError: an option makes no sense.
    """
    if not eps >= 0.0:
        raise UsageError(f"eps is {eps}: give by how much the base's metric may be missed, 0 or more")
    if not 0.0 <= min_score <= 1.0:
        raise UsageError(f"the least score of a pair is {min_score}: give a number from 0 to 1")
    if controls < 0:
        raise UsageError(f"the number of controls is {controls}: give 0 or more")
    chosen = checked_lambdas(lambdas)[1:]  # 0 is the model so far
    check(unmatched, width, depth)
    options = Options(
        lambdas=LayerLambdas.of(1.0),
        unmatched=unmatched,
        width=width,
        depth=depth,
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
    check_calibration([base], options)
    runner = runner or registry.runner()
    held = None
    if data is not None:
        held = split_holdout(base, data, report_data, seed=seed, score_output=output, output_kind=scores, runner=runner)
    elif report_data is not None:
        raise UsageError("there are data to report on and none to decide by: give both, or those to decide by alone")
    report = progress or (lambda what, done, total: None)
    terms = Terms(options, chosen, min_score, controls, held, None, runner, report)
    best = None
    if held is not None:
        best, _ = (scored(base, part, held, terms) for part in (held.gate, held.report))  # found out before the work
        if not np.isfinite(best.loss):
            raise MatchError(f"the loss of {base.name} on the data is {best.loss}: no merge can be held against it")
        terms = replace(terms, gate=Gate(best, eps))
    entries = tuple(entries_of(base, donors))
    journal = Journal(inputs_of(base, entries, data, report_data, terms, eps))
    if state is not None:
        journal = read_journal(Path(state), journal.inputs, restart)
    found, journal = searched(SoFar(base, (), best), entries, journal, state, terms)
    if all(outcome.verdict == SKIPPED for outcome in journal.outcomes):
        raise MatchError(none_of(base, journal.outcomes))
    return Zoo(assembled(base, found, terms), journal.outcomes, terms, found.best)


def searched(
    found: SoFar, entries: Sequence[Entry], journal: Journal, state: str | Path | None, terms: Terms
) -> tuple[SoFar, Journal]:
    """Decide on every donor; what the journal holds is done again as it was decided."""
    known: Known = []
    verified_groups(found.graph, terms.options, terms.runner, partial(terms.progress, "verifying the base"), known)
    for place, entry in enumerate(entries):
        terms.progress("donors", place, len(entries))
        known = [pair for pair in known if pair[0] is found.graph.nodes]  # no donor comes twice
        if place < len(journal.outcomes):
            found = replayed(found, entry, journal.outcomes[place], terms, known)
            continue
        outcome, found = decided(found, entry, terms, known)
        journal = journal.with_outcome(outcome)
        if state is not None and any(other.verdict != SKIPPED for other in journal.outcomes):
            write_journal(Path(state), journal)
    terms.progress("donors", len(entries), len(entries))
    return found, journal


# --- donors -----------------------------------------------------------------------------------------------------


def entries_of(base: LayerGraph, donors: str | Path | Iterable[str | Path | LayerGraph]) -> Iterator[Entry]:
    """Every donor once, with why it is not used if it is not. Raises FileError."""
    seen = {fingerprint(base): "the base"}
    for model in files_in(Path(donors)) if isinstance(donors, str | Path) else donors:
        name = getattr(model, "name", model if isinstance(model, str) else type(model).__name__)
        try:
            graph = model if isinstance(model, LayerGraph) else load(str(model) if isinstance(model, Path) else model)
            found = fingerprint(graph)
        except MalGraphError as error:
            yield Entry(name, model, digest_of_file(Path(str(model))), str(error))
            continue
        reason = f"the same model as {seen[found]}" if found in seen else misfit(base, graph)
        seen.setdefault(found, name)
        yield Entry(name, model, found, reason)


def misfit(base: LayerGraph, donor: LayerGraph) -> str:
    """Why a donor does not take what the base takes; "" if it does."""
    try:
        check_inputs(base, donor)
    except MatchError as error:
        return str(error)
    return ""


def files_in(folder: Path) -> list[Path]:
    """The .onnx files of a folder by name. Raises FileError."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".onnx" and path.is_file())
    except OSError as error:
        raise FileError(f"cannot read the zoo {folder}: {error.strerror}; name a folder of .onnx files") from None
    if not found:
        raise FileError(f"the zoo {folder} holds no .onnx file: name a folder of models to merge")
    return found


def inputs_of(
    base: LayerGraph,
    entries: Sequence[Entry],
    data: Arrays | None,
    report_data: Arrays | None,
    terms: Terms,
    eps: float,
) -> dict[str, str]:
    """Digests of everything that decides the course of a search, by what it is."""
    options = terms.options
    own = (terms.lambdas, terms.min_score, terms.controls, eps)
    plain = [(f.name, getattr(options, f.name)) for f in fields(options) if f.name not in ("inputs", "calibrate")]
    return {
        "base": fingerprint(base),
        "data": digest("", (data or {}).items()),
        "reporting data": digest("", (report_data or {}).items()),
        "set of calibration inputs": digest("", (options.calibrate or {}).items()),
        "set of options": digest(repr((registry.version(), plain, own)), (options.inputs or {}).items()),
        **{f"donor {place} ({entry.name})": entry.digest for place, entry in enumerate(entries, 1)},
    }


def none_of(base: LayerGraph, outcomes: Sequence[Outcome]) -> str:
    """That no donor can be merged, with the first reasons."""
    if not outcomes:
        return f"there is no donor for {base.name}: name at least one model to merge into it"
    reasons = "; ".join(f"{outcome.donor}: {outcome.reason}" for outcome in outcomes[:3])
    more = f"; and {len(outcomes) - 3} more" if len(outcomes) > 3 else ""
    return f"none of {len(outcomes)} donors can be merged into {base.name}: {reasons}{more}"


# --- decisions --------------------------------------------------------------------------------------------------


def decided(found: SoFar, entry: Entry, terms: Terms, known: Known) -> tuple[Outcome, SoFar]:
    """What becomes of one donor, and the model with it."""
    if entry.reason:
        return Outcome(entry.name, SKIPPED, entry.reason), found
    try:
        return weighed(found, entry, terms, known)
    except UsageError:
        raise
    except MalGraphError as error:  # the base ran and was scored before, so it is the donor's
        return Outcome(entry.name, SKIPPED, str(error)), found


def weighed(found: SoFar, entry: Entry, terms: Terms, known: Known) -> tuple[Outcome, SoFar]:
    """The best of one donor, and the model with it if it is accepted. Raises MalGraphError where none can be merged."""
    step = aligned(found, entry, terms, known)
    tried: tuple[Tried, ...] = ()
    if terms.gate is None or found.best is None:
        choice = alike(step, terms)
    else:
        tried = tuple(scored_candidates(step, entry, terms))
        choice = preferred(tried, terms.gate, found.best)
    if isinstance(choice, str):
        return Outcome(entry.name, REFUSED, choice, tried), found
    merged = taken(found, step, choice, terms)
    if reason := objection(merged, found, terms):
        return Outcome(entry.name, REFUSED, f"{choice.name} at lambda {choice.lam:g}: {reason}", tried), found
    if merged.best is not None:
        choice = replace(choice, loss=merged.best.loss, metric=merged.best.metric)
        control = lowest_control(found, entry, step, merged.best.loss, terms, known)
        if control is not None and not merged.best.loss < control:
            reason = f"its loss falls to {merged.best.loss:.4f}, but with shuffled weights to {control:.4f}"
            return Outcome(entry.name, REFUSED, f"{choice.name} at lambda {choice.lam:g}: {reason}", tried), found
        choice = replace(choice, control=control)
    choice = choice.with_orders(step.ungrown.alignment.orders)
    return Outcome(entry.name, ACCEPTED, accepted_because(choice, found.best), tried, choice), merged


def replayed(found: SoFar, entry: Entry, outcome: Outcome, terms: Terms, known: Known) -> SoFar:
    """The model after a donor that was decided on before."""
    if outcome.kept is None:
        return found
    kept = partial(assign_as_given, orders=outcome.kept.read_orders())
    try:
        step = aligned(found, entry, terms, known, kept)
    except ShapeError as error:
        error.add_note(f"while merging {entry.name} as the state says it was; remove the state to start anew")
        raise
    merged = taken(found, step, outcome.kept, terms, is_scored=False)
    if found.best is None or outcome.kept.loss is None or outcome.kept.metric is None:
        return merged
    return replace(merged, best=replace(found.best, loss=outcome.kept.loss, metric=outcome.kept.metric))


def aligned(found: SoFar, entry: Entry, terms: Terms, known: Known, strategy: Strategy | None = None) -> Merged:
    """The whole donor, matched, verified and aligned with the model so far."""
    donor = entry.model if isinstance(entry.model, LayerGraph) else load(str(entry.model)).named(entry.name)
    return merge_step(found.graph, donor, terms.options, terms.runner, terms.progress, known, strategy)


def taken(found: SoFar, step: Merged, choice: Kept, terms: Terms, *, is_scored: bool = True) -> SoFar:
    """The model with what was chosen of a donor. Its tensors are computed once: the next donors read them often."""
    part = narrowed(step, choice.layers, choice.lam, terms.options, terms.runner)
    graph, repair = with_repair(merge(part.plan), part.plan, step.donor, terms.options, terms.runner)
    part = replace(part, repair=repair)
    moved = {name: w.read() for name, w in graph.weights.items() if w is not part.plan.base.weights.get(name)}
    graph = graph.with_weights(moved)
    best = scored(graph, terms.held.gate, terms.held, terms) if is_scored and terms.held is not None else None
    return SoFar(graph, (*found.steps, compared_at_zero(part, found.graph, terms.runner)), best)


def lowest_control(found: SoFar, entry: Entry, step: Merged, loss: float, terms: Terms, known: Known) -> float | None:
    """The lowest loss that the donor gives with its weights shuffled, at any candidate and lambda that pass the gate;
    no further ones are tried once `loss` is not below it."""
    assert terms.gate is not None  # there is a loss
    losses: list[float] = []
    for number in range(1, terms.controls + 1):
        donor = shuffled(step.donor, terms.options.seed + number).named(f"{entry.name} shuffled")
        control = replace(entry, name=donor.name, model=donor)
        try:
            tried = tuple(scored_candidates(aligned(found, control, terms, known), control, terms))
        except MatchError:  # it has nothing to give in this order
            continue
        losses += [p.loss for one in tried for p in one.points if terms.gate.passes(p) and np.isfinite(p.loss)]
        if losses and not loss < min(losses):
            break
    return min(losses, default=None)


def objection(merged: SoFar, found: SoFar, terms: Terms) -> str:
    """Why a merged model is not kept: a check that it fails, or figures that are not those of its candidate."""
    for name, verdict in checked(merged.graph, merged.steps[-1:], terms.runner).items():
        if verdict.startswith("failed"):
            return f"check {name} {verdict}"
    if terms.gate and merged.best and found.best and not terms.gate.prefers(merged.best, found.best):
        return f"once merged it has {figures(merged.best.loss, merged.best.metric, found.best)}"
    return ""


def scored(graph: LayerGraph, part: Arrays, held: HeldOut, terms: Terms) -> Scores:
    """A model on one part of the data."""
    options = terms.options
    found = predict(graph, part, score_output=options.output, output_kind=options.scores, runner=terms.runner)
    return held.metric(found, read_labels(part), graph.name)


# --- by figures -------------------------------------------------------------------------------------------------


def candidates(step: Merged) -> list[Candidate]:
    """What may be merged of a donor: all of its layers, the first quarter, half and three quarters of the depth, and
    single layers, those first that are most like the base's; no two the same. Fewer layers keep more of the base, and
    what a donor can give lies in its first layers (guidelines of the paper)."""
    whole = step.ungrown
    pairs = sorted(whole.merged_pairs, key=lambda pair: pair.base.depth)
    depths = sorted({pair.base.depth for pair in pairs})
    found = [Candidate("all layers", tuple(pair.base.name for pair in pairs))]
    for share in PREFIXES:
        last = depths[ceil(share * len(depths)) - 1]
        layers = tuple(pair.base.name for pair in pairs if pair.base.depth <= last)
        found.append(Candidate(f"the first {len(layers)} of {len(pairs)} layers", layers))
    for pair in sorted(pairs, key=lambda pair: -pair.score)[:SINGLES]:
        found.append(Candidate(f"layer {pair.base.name}", (pair.base.name,)))
    first: dict[frozenset[str], Candidate] = {}
    for one in found:
        first.setdefault(frozenset(one.layers), one)
    return list(first.values())


def scored_candidates(step: Merged, entry: Entry, terms: Terms) -> Iterator[Tried]:
    """Every candidate at every lambda, on the deciding part."""
    assert terms.held is not None  # told by the gate
    proposed = candidates(step)
    for place, candidate in enumerate(proposed):
        terms.progress(f"trying {entry.name}", place, len(proposed))
        planned = narrowed(step, candidate.layers, 1.0, terms.options, terms.runner).plan
        line = line_of(planned, step.donor, terms.options, terms.runner)
        along = scored_along(
            line, terms.lambdas, entry.name, terms.held.gate, terms.options, terms.runner, terms.held.metric
        )
        points = [Point(lam, one.loss, one.metric) for lam, one in zip(terms.lambdas, along, strict=True)]
        yield Tried(candidate.name, candidate.layers, tuple(points))
    terms.progress(f"trying {entry.name}", len(proposed), len(proposed))


def preferred(tried: Sequence[Tried], gate: Gate, best: Scores) -> Kept | str:
    """The candidate and lambda with the lowest loss of all that pass, the first of equals; or why there is none."""
    passing = [(one, p) for one in tried for p in one.points if gate.passes(p) and np.isfinite(p.loss)]
    if not passing:
        return (
            f"none of {len(tried)} candidates keeps the {best.metric_name} at the base's {gate.base.metric:.4f}"
            f"{f' less {gate.eps:g}' if gate.eps else ''}"
        )
    one, point = min(passing, key=lambda found: found[1].loss)
    if not gate.prefers(point, best):
        return (
            f"no candidate is better than the model so far: {one.name} at lambda {point.lam:g} comes closest with "
            f"{figures(point.loss, point.metric, best)}"
        )
    return Kept(one.name, one.layers, point.lam)


def figures(loss: float, metric: float, best: Scores) -> str:
    return (
        f"{best.loss_name} {loss:.4f} against {best.loss:.4f} and {best.metric_name} {metric:.4f} against "
        f"{best.metric:.4f}"
    )


def accepted_because(choice: Kept, best: Scores | None) -> str:
    if best is None or choice.loss is None or choice.metric is None:
        return "its layers are like the base's; nothing was scored"
    return figures(choice.loss, choice.metric, best)


# --- by structure -----------------------------------------------------------------------------------------------


def alike(step: Merged, terms: Terms) -> Kept | str:
    """The layers that are as much like the base's as is asked for, at the smallest lambda; or why there are none."""
    whole = step.ungrown
    pairs = whole.merged_pairs
    layers = tuple(pair.base.name for pair in pairs if pair.score >= terms.min_score)
    if not layers:
        closest = max(pair.score for pair in pairs)
        return f"no layer is enough like the base's: the closest scores {closest:.2f}, asked for is {terms.min_score:g}"
    return Kept(f"{len(layers)} of {len(pairs)} layers", layers, terms.lambdas[0])


# --- the result -------------------------------------------------------------------------------------------------


def assembled(base: LayerGraph, found: SoFar, terms: Terms) -> Assembly:
    """The result with its checks, and its scores on the reporting part beside every control."""
    if not found.steps:
        return Assembly(base, base, (), (1.0,), {}, options=terms.options)
    checks = checked(found.graph, found.steps, terms.runner)
    factors = [step.plan.mean_lam for step in found.steps]
    arms: tuple[Scores, ...] = ()
    unscored: dict[str, str] = {}
    if terms.held is not None:
        report, metric = terms.held.report, terms.held.metric
        arms, unscored = scored_arms(
            base, found.steps, found.graph, terms.options, report, terms.runner, terms.progress, metric
        )
    return Assembly(found.graph, base, found.steps, shares(factors), checks, arms, terms.options, unscored)


__all__ = ["Zoo", "zoo"]
