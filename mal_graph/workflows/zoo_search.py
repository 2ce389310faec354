"""Iterative assembly: what a folder of donors has to give, merged into a base step by step behind a gate.

Donor after donor, in the order of their names, is opened, matched, verified and aligned with the model so far. The
matcher then proposes a short list of candidates, from the whole donor to single layers (see `candidates`); each is
scored at a few lambdas out of one session on the deciding part of the data.
The best is merged if it passes the gate (see `AcceptanceRule`), is better than the model so far, and better than all
that the same donor gives with its weights shuffled: a base that is too sure of itself gains from almost any change. A
donor gives at most one step. The reporting part is read once, at the end. With calibration inputs every candidate, of
shuffled donors too, is repaired before it is scored.

Without data nothing can be scored: donors are merged where their layers are like the base's, at the smallest lambda.

Source: the iterative assembly of Model Assembly Learning (arXiv:2503.21657), of which neither the rule that selects
layers nor the order of donors is known. Chosen: one decision for each donor, with the orders of the whole donor for all
of its candidates. Refused: every subset of layers - exponentially many, with a gate that ever more pass by luck.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.config import FileOptions, MergeConfig, ZooConfig, configured, shows_options
from mal_graph.errors import MalGraphError, MatchError, ShapeError, UsageError
from mal_graph.evaluation import AcceptanceRule, HeldOut, Scores, predict, read_labels, split_holdout
from mal_graph.graph import LayerGraph
from mal_graph.matching import assign_as_given
from mal_graph.memory_bound import return_freed
from mal_graph.merging import merge
from mal_graph.option import Data
from mal_graph.protocols import Runner
from mal_graph.version import version
from mal_graph.workflows.assembly import Assembly, shares
from mal_graph.workflows.baselines import scored_arms
from mal_graph.workflows.checkpoint import (
    ACCEPTED,
    REFUSED,
    SKIPPED,
    Checkpoint,
    Kept,
    Outcome,
    Tried,
    digest,
    fingerprint,
    read_checkpoint,
    write_checkpoint,
)
from mal_graph.workflows.checks import check_calibration, checks_of
from mal_graph.workflows.meaning_texts import Meaning
from mal_graph.workflows.meanings import find_meanings
from mal_graph.workflows.models import (
    Arrays,
    Model,
    Progress,
    arrays_of,
    load,
    open_models,
    prepared,
    silent,
    with_arrays,
)
from mal_graph.workflows.provenance import Origin
from mal_graph.workflows.results import Result
from mal_graph.workflows.steps import (
    Known,
    Merged,
    Strategy,
    compared_at_zero,
    merge_step,
    narrowed,
    shuffled,
    verified_groups,
    with_repair,
)
from mal_graph.workflows.sweeping import checked_lambdas
from mal_graph.workflows.zoo_candidates import Terms, alike, best_candidate, figures, scored_candidates
from mal_graph.workflows.zoo_donors import Entry, entries_of


@dataclass(frozen=True, repr=False)
class Zoo(Result):
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


@dataclass(frozen=True, repr=False)
class SoFar(Brief):
    """The model that accepted steps have made, and its scores on the deciding part."""

    graph: LayerGraph
    steps: tuple[Merged, ...]
    best: Scores | None


@shows_options("zoo")
@np.errstate(all="ignore")  # a merge that overflows has a loss that says so
def zoo(
    base: Model,
    donors: str | Path | Iterable[Model],
    data: Data | None = None,
    *,
    config: MergeConfig | None = None,
    restart: bool = False,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Zoo:
    """Merge into a base what a zoo of donors has to give, as far as held-out data say that it helps.

    Args:
        base: gives the graph, the signature and the names.
        donors: a folder, of which all .onnx files are taken in the order of their names; or models in any order. Files
            are opened one at a time; what cannot be merged is skipped, with the reason in the result.
        data: inputs and `labels` that no model was trained on, by name or as an .npz path; without labels the base's
            classes serve; without data the structure alone decides.
        config, options: every option as one value, or as keywords; see below. Where the file of `checkpoint` is there,
            the search goes on from it, to an equal result. With `calibrate` every candidate, baseline and accepted
            model is repaired before it is scored. Without `report_data` half of `data` is reported and decides nothing.
        restart: start anew where the checkpoint is of another search.
        progress: called with what is done, how much of it, of how much.

    Raises:
        FileError: there is no such folder, it holds no .onnx file, or the checkpoint is of another search.
        MatchError: none of the donors can be merged into the base.
        DataError: the data or the calibration inputs do not fit the base, or are too few.
        MemoryLimitError: a donor would take more memory than there is.
        UsageError: an option is refused.
    """
    settings: ZooConfig = with_arrays(configured("zoo", config, options)).replaced(lam=1.0)
    lambdas, given = checked_lambdas(settings.lambdas)[1:], arrays_of(data)  # 0 is the model so far
    if given is None and settings.report_data is not None:
        raise UsageError("there are data to report on and none to decide by: give both, or those to decide by alone")
    (graph,) = open_models([base], settings, settings.calibrate if given is None else given)
    check_calibration(graph, [], settings)
    arrays, notes = prepared(graph, given, settings)
    reported, more = prepared(graph, settings.report_data, settings)
    settings = settings.replaced(report_data=reported)
    terms, best = terms_of_search(graph, arrays, settings, lambdas, progress or silent, runner or registry.runner())
    entries = tuple(entries_of(graph, donors, settings, arrays))
    checkpoint = Checkpoint(inputs_of(graph, entries, arrays, terms))
    if settings.checkpoint is not None:
        checkpoint = read_checkpoint(Path(settings.checkpoint), checkpoint.inputs, restart)
    result, checkpoint = decide_on_all(SoFar(graph, (), best), entries, checkpoint, settings.checkpoint, terms)
    if all(outcome.verdict == SKIPPED for outcome in checkpoint.outcomes):
        raise MatchError(none_of(graph, checkpoint.outcomes))
    models = (graph, *(step.donor for step in result.steps))
    kept = tuple(outcome.kept for outcome in checkpoint.outcomes if outcome.kept is not None)
    assembly = replace(
        assemble_result(graph, result, terms),
        meanings=tuple(meanings_of(graph, entries, given, terms)),
        data_notes=tuple(dict.fromkeys((*notes, *more))),
        origin=Origin("zoo", models, settings, given, kept),
    )
    return Zoo(assembly, checkpoint.outcomes, terms, result.best)


def meanings_of(base: LayerGraph, entries: Sequence[Entry], data: Arrays | None, terms: Terms) -> Iterator[Meaning]:
    """What is to be said of each donor beside the base, whatever became of it; one is open at a time."""
    for entry in (entry for entry in entries if not entry.reason):
        return_freed()
        yield from find_meanings((base, opened(entry)), terms.config, data, terms.runner, terms.progress)


def opened(entry: Entry) -> LayerGraph:
    """A donor's graph."""
    return entry.model if isinstance(entry.model, LayerGraph) else load(str(entry.model)).named(entry.name)


def terms_of_search(
    base: LayerGraph,
    data: Arrays | None,
    config: ZooConfig,
    lambdas: tuple[float, ...],
    progress: Progress,
    runner: Runner,
) -> tuple[Terms, Scores | None]:
    """What the search goes by, and the base's scores on the deciding part; the data are checked before the work."""
    terms = Terms(config, lambdas, None, None, runner, progress)
    if data is None:
        return terms, None
    held = split_holdout(
        base,
        data,
        config.report_data,
        seed=config.seed,
        score_output=config.score_output,
        output_kind=config.output_kind,
        runner=runner,
    )
    best, _ = (scored(base, part, held, terms) for part in (held.deciding, held.reporting))
    if not np.isfinite(best.loss):
        raise MatchError(f"the loss of {base.name} on the data is {best.loss}: no merge can be held against it")
    return replace(terms, held=held, gate=AcceptanceRule(best, config.eps)), best


def decide_on_all(
    so_far: SoFar, entries: Sequence[Entry], checkpoint: Checkpoint, state: str | Path | None, terms: Terms
) -> tuple[SoFar, Checkpoint]:
    """Decide on every donor; what the checkpoint holds is done again as it was decided."""
    known: Known = []
    verified_groups(so_far.graph, terms.config, terms.runner, terms.progress, known)
    for place, entry in enumerate(entries):
        terms.progress("donors", place, len(entries))
        return_freed()  # of the donor before, which an allocator would keep
        known = [one for one in known if one.graph.nodes is so_far.graph.nodes]  # no donor comes twice
        if place < len(checkpoint.outcomes):
            so_far = replay(so_far, entry, checkpoint.outcomes[place], terms, known)
            continue
        outcome, so_far = decide(so_far, entry, terms, known)
        checkpoint = checkpoint.with_outcome(outcome)
        if state is not None and any(other.verdict != SKIPPED for other in checkpoint.outcomes):
            write_checkpoint(Path(state), checkpoint)
    terms.progress("donors", len(entries), len(entries))
    return so_far, checkpoint


def inputs_of(
    base: LayerGraph,
    entries: Sequence[Entry],
    data: Arrays | None,
    terms: Terms,
) -> dict[str, str]:
    """Digests of everything that decides the course of a search, by what it is."""
    config = terms.config
    plain = config.model_dump(exclude={*config.data_options(), *FileOptions.model_fields, "lam", "checkpoint"})
    return {
        "base": fingerprint(base),
        "data": digest("", (data or {}).items()),
        "reporting data": digest("", (config.report_data or {}).items()),
        "set of calibration inputs": digest("", (config.calibrate or {}).items()),
        "set of options": digest(repr((version(), plain)), (config.inputs or {}).items()),
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


def decide(so_far: SoFar, entry: Entry, terms: Terms, known: Known) -> tuple[Outcome, SoFar]:
    """What becomes of one donor, and the model with it."""
    if entry.reason:
        return Outcome(entry.name, SKIPPED, entry.reason), so_far
    try:
        return try_donor(so_far, entry, terms, known)
    except UsageError:
        raise
    except MalGraphError as error:  # the base ran and was scored before, so it is the donor's
        return Outcome(entry.name, SKIPPED, str(error)), so_far


def try_donor(so_far: SoFar, entry: Entry, terms: Terms, known: Known) -> tuple[Outcome, SoFar]:
    """The best of one donor, and the model with it if it is accepted. Raises MalGraphError where none can be merged."""
    step = align_donor(so_far, entry, terms, known)
    tried: tuple[Tried, ...] = ()
    if terms.gate is None or so_far.best is None:
        choice = alike(step, terms)
    else:
        tried = tuple(scored_candidates(step, entry, terms))
        choice = best_candidate(tried, terms.gate, so_far.best)
    if isinstance(choice, str):
        return Outcome(entry.name, REFUSED, choice, tried), so_far
    merged = merge_candidate(so_far, step, choice, terms)
    if reason := rejection_reason(merged, so_far, terms):
        return Outcome(entry.name, REFUSED, f"{choice.name} at lambda {choice.lam:g}: {reason}", tried), so_far
    if merged.best is not None:
        choice = replace(choice, loss=merged.best.loss, metric=merged.best.metric)
        control = lowest_control(so_far, entry, step, merged.best.loss, terms, known)
        if control is not None and not merged.best.loss < control:
            reason = f"its loss falls to {merged.best.loss:.4f}, but with shuffled weights to {control:.4f}"
            return Outcome(entry.name, REFUSED, f"{choice.name} at lambda {choice.lam:g}: {reason}", tried), so_far
        choice = replace(choice, control=control)
    choice = choice.with_orders(step.ungrown.alignment.orders)
    return Outcome(entry.name, ACCEPTED, reason_to_accept(choice, so_far.best), tried, choice), merged


def replay(so_far: SoFar, entry: Entry, outcome: Outcome, terms: Terms, known: Known) -> SoFar:
    """The model after a donor that was decided on before."""
    if outcome.kept is None:
        return so_far
    kept = partial(assign_as_given, orders=outcome.kept.read_orders())
    try:
        step = align_donor(so_far, entry, terms, known, kept)
    except ShapeError as error:
        error.add_note(f"while merging {entry.name} as the state says it was; remove the state to start anew")
        raise
    merged = merge_candidate(so_far, step, outcome.kept, terms, is_scored=False)
    if so_far.best is None or outcome.kept.loss is None or outcome.kept.metric is None:
        return merged
    return replace(merged, best=replace(so_far.best, loss=outcome.kept.loss, metric=outcome.kept.metric))


def align_donor(so_far: SoFar, entry: Entry, terms: Terms, known: Known, strategy: Strategy | None = None) -> Merged:
    """The whole donor, matched, verified and aligned with the model so far."""
    donor = opened(entry)
    return merge_step(so_far.graph, donor, terms.config, terms.runner, terms.progress, known, strategy)


def merge_candidate(so_far: SoFar, step: Merged, choice: Kept, terms: Terms, *, is_scored: bool = True) -> SoFar:
    """The model with what was chosen of a donor. Its tensors are computed once: the next donors read them often."""
    part = narrowed(step, choice.layers, choice.lam, terms.config, terms.runner)
    graph, repair = with_repair(merge(part.plan), part.plan, step.donor, terms.config, terms.runner)
    part = replace(part, repair=repair)
    moved = {name: w.read() for name, w in graph.weights.items() if w is not part.plan.base.weights.get(name)}
    graph = graph.with_weights(moved)
    best = scored(graph, terms.held.deciding, terms.held, terms) if is_scored and terms.held is not None else None
    return SoFar(graph, (*so_far.steps, compared_at_zero(part, so_far.graph, terms.runner)), best)


def lowest_control(so_far: SoFar, entry: Entry, step: Merged, loss: float, terms: Terms, known: Known) -> float | None:
    """The lowest loss that the donor gives with its weights shuffled, at any candidate and lambda that pass the gate;
    no further ones are tried once `loss` is not below it."""
    assert terms.gate is not None  # there is a loss
    losses: list[float] = []
    for number in range(1, terms.config.controls + 1):
        donor = shuffled(step.donor, terms.config.seed + number).named(f"{entry.name} shuffled")
        control = replace(entry, name=donor.name, model=donor)
        try:
            tried = tuple(scored_candidates(align_donor(so_far, control, terms, known), control, terms))
        except MatchError:  # it has nothing to give in this order
            continue
        losses += [p.loss for one in tried for p in one.points if terms.gate.passes(p) and np.isfinite(p.loss)]
        if losses and not loss < min(losses):
            break
    return min(losses, default=None)


def rejection_reason(merged: SoFar, so_far: SoFar, terms: Terms) -> str:
    """Why a merged model is not kept: a check that it fails, or figures that are not those of its candidate."""
    for check in checks_of(so_far.graph, merged.graph, merged.steps[-1:], terms.runner):
        if check.failed:
            return f"check {check.name} {check}"
    if terms.gate and merged.best and so_far.best and not terms.gate.prefers(merged.best, so_far.best):
        return f"once merged it has {figures(merged.best.loss, merged.best.metric, so_far.best)}"
    return ""


def scored(graph: LayerGraph, part: Arrays, held: HeldOut, terms: Terms) -> Scores:
    """A model on one part of the data."""
    config = terms.config
    prediction = predict(
        graph, part, score_output=config.score_output, output_kind=config.output_kind, runner=terms.runner
    )
    return held.metric(prediction, read_labels(part), graph.name)


def reason_to_accept(choice: Kept, best: Scores | None) -> str:
    if best is None or choice.loss is None or choice.metric is None:
        return "its layers are like the base's; nothing was scored"
    return figures(choice.loss, choice.metric, best)


def repeat_zoo(
    graphs: Sequence[LayerGraph],
    kept: Sequence[Kept],
    config: ZooConfig,
    data: Arrays | None,
    progress: Progress,
    runner: Runner,
) -> Assembly:
    """The model that a search made, from what it kept: the base, and in order the donors that were accepted. Nothing is
    scored. Raises ShapeError where the orders are not of these models."""
    base, *donors = graphs
    config = with_arrays(config).replaced(lam=1.0)
    terms = Terms(config, (), None, None, runner, progress)
    known: Known = []
    so_far = SoFar(base, (), None)
    for donor, one in zip(donors, kept, strict=True):
        entry = Entry(donor.name, donor, "")
        so_far = replay(so_far, entry, Outcome(donor.name, ACCEPTED, "", (), one), terms, known)
    result = assemble_result(base, so_far, terms)
    return replace(result, origin=Origin("zoo", tuple(graphs), config, data, tuple(kept)))


# --- the result -------------------------------------------------------------------------------------------------


def assemble_result(base: LayerGraph, so_far: SoFar, terms: Terms) -> Assembly:
    """The result with its checks, and its scores on the reporting part beside every control."""
    if not so_far.steps:
        return Assembly(graph=base, base=base, merged=(), shares=(1.0,), checks=(), config=terms.config)
    checks = checks_of(base, so_far.graph, so_far.steps, terms.runner)
    arms: tuple[Scores, ...] = ()
    unscored: dict[str, str] = {}
    if terms.held is not None:
        report, metric = terms.held.reporting, terms.held.metric
        arms, unscored = scored_arms(
            base, so_far.steps, so_far.graph, terms.config, report, terms.runner, terms.progress, metric
        )
    parts = shares(so_far.graph, [step.plan for step in so_far.steps])
    return Assembly(
        graph=so_far.graph,
        base=base,
        merged=so_far.steps,
        shares=parts,
        checks=checks,
        scores=arms,
        config=terms.config,
        unscored=unscored,
    )


__all__ = ["Zoo", "zoo"]
