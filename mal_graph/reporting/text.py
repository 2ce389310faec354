"""Documents as text for people: what was done, what was not and why, how good it is; the verdict comes last.

Every `..._lines` function yields lines and tables; `text_of` lays them out. Text is made from the document alone, so
that what people read and what programs read is the same.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table

from mal_graph.evaluation import Scores
from mal_graph.plain_text import one_line
from mal_graph.protocols import Check
from mal_graph.reporting.accounting import accounts_lines
from mal_graph.reporting.audits import AuditDocument, audit_lines
from mal_graph.reporting.document import Document
from mal_graph.reporting.documents import (
    AssembleDocument,
    DifferenceEntry,
    EvaluateDocument,
    MatchDocument,
    MergeDocument,
    ReasonEntry,
    RepairEntry,
    ResultDocument,
    SignaturesEntry,
    ZooDocument,
)
from mal_graph.reporting.folding import match_table
from mal_graph.reporting.inspection import InspectDocument
from mal_graph.reporting.inspection_text import inspection_lines, shape_text
from mal_graph.reporting.method_lists import MethodsDocument, UsedMethodEntry, methods_lines
from mal_graph.reporting.search_documents import (
    SearchDocument,
    curse_line,
    figure_text,
    finalist_table,
    front_of,
    part_table,
    taken_lines,
    trial_table,
)
from mal_graph.reporting.stacks import StackDocument, slice_lines
from mal_graph.reporting.sweep_documents import GridDocument, SweepDocument
from mal_graph.reporting.tables import RESULT, Lines, new_table, numbers_table, table_text
from mal_graph.reporting.union_documents import UnionDocument, branch_table, class_lines, cost_lines, unit_lines
from mal_graph.workflows import MERGED, ParetoEntry, Speeds

ALIGNED = "the summed inner products of paired units, and of units paired at random"


def text_of(document: Document, *, verbose: bool = False, width: int | None = None) -> str:
    """A document as text.

    Args:
        document: any of this package.
        verbose: list what is summed up otherwise.
        width: of the terminal that tables are folded to; None leaves them as wide as they are.
    """
    lines = LINES[type(document)](document, verbose)
    return "\n".join(one_line(line) if isinstance(line, str) else table_text(line, width) for line in lines)


# --- match --------------------------------------------------------------------------------------------------------


def match_lines(document: MatchDocument, verbose: bool) -> Lines:
    table, hidden = match_table(document.ladder, verbose=verbose)
    yield table
    if hidden:
        yield f"{hidden} rows are folded into blocks that repeat (-v lists them)"
    yield from signature_lines([document.signatures])
    for pair in document.pairs:
        yield from difference_lines(pair.base, pair.differences)
    for side, layers in (("base", document.unmatched_base), ("donor", document.unmatched_donor)):
        yield from unmatched_lines(side, layers, verbose)
    yield f"{pairs_line(document)}{'' if verbose else '; -v says why'}"


def pairs_line(document: MatchDocument) -> str:
    """How many pairs there are, of which relation, and how much of the base they hold."""
    counts = Counter(pair.relation for pair in document.pairs)
    relations = ", ".join(f"{count} {relation}" for relation, count in counts.items())
    share = document.matched_parameters / max(1, document.parameters)
    held = f"{document.matched_parameters:,} parameters of the base{'' if share == 1 else f' ({share:.1%})'}"
    return f"{len(document.pairs)} pairs ({relations}), {held}"


def signature_lines(entries: Iterable[SignaturesEntry]) -> Iterator[str]:
    """Inputs and outputs that are not simply those of the same name and place."""
    for entry in entries:
        yield from entry.told
        if entry.unpaired:
            yield f"the two cannot be merged as they are: {entry.unpaired}"


def difference_lines(layer: str, differences: Sequence[DifferenceEntry]) -> Iterator[str]:
    """In what a layer is another function than the donor's, one line for each consequence."""
    for meaning in dict.fromkeys(difference.meaning for difference in differences):
        what = ", ".join(difference.what for difference in differences if difference.meaning == meaning)
        yield f"layer {layer}: {what}: {meaning}"


def unmatched_lines(side: str, layers: Sequence[ReasonEntry], verbose: bool) -> Iterator[str]:
    """Layers without a partner: each with its reason, or how many there are."""
    if verbose:
        for layer in layers:
            yield f"{side} layer {layer.layer} has no partner: {layer.reason}"
    elif layers:
        yield f"{len(layers)} {side} layers without a partner (-v lists them)"


# --- assemble -----------------------------------------------------------------------------------------------------


def assembly_lines(document: AssembleDocument, verbose: bool) -> Lines:
    several = document.method is None and len({layer.lam for layer in document.merged}) > 1
    yield merged_table(document, several)
    yield from signature_lines(document.signatures)
    yield from left_out_lines(document, verbose)
    yield from widened_lines(document)
    yield from repair_lines(document.repair)
    if verbose:
        yield from alignment_lines(document)
    yield merged_line(document)
    told = [*(layer.base for layer in document.merged), *(left.layer for left in document.skipped)]
    yield from accounts_lines(document.accounts, told, verbose)
    yield from end_lines(document)


def merged_line(document: AssembleDocument) -> str:
    """How much was merged, and what each model contributes."""
    mean = "a mean " if len({layer.lam for layer in document.merged}) > 1 else ""
    contributions = zip([document.base, *document.donors], document.shares, strict=True)
    way = f"at {mean}lambda {document.lam:g}" if document.method is None else f"by {way_of(document.method)}"
    return f"{document.merged_parameters:,} parameters merged {way}; shares: " + ", ".join(
        f"{name} {share:.1%}" for name, share in contributions
    )


def way_of(method: UsedMethodEntry) -> str:
    """A merge method as it was used."""
    source = f" ({method.source})" if method.source else ""
    given = f" with {', '.join(method.parameters)}" if method.parameters else ""
    return f"{method.name}{source}{given}{f' from {method.ancestor}' if method.ancestor else ''}"


def merged_table(document: MergeDocument, several: bool) -> Table:
    table = new_table("merged layer", "with", "of", "relation", "matched", *(["lambda"] if several else []))
    for layer in document.merged:
        own = [f"{layer.lam:g}"] if several else []
        table.add_row(layer.base, layer.donor, layer.model, layer.relation, f"{layer.matched:.0%}", *own)
    return table


def left_out_lines(document: AssembleDocument, verbose: bool) -> Iterator[str]:
    """What was not merged, and why."""
    for layer in document.merged:
        for line in (*layer.dropped, *layer.missing):
            yield f"layer {layer.base}, not merged: {line}"
        yield from difference_lines(layer.base, layer.differences)
    for skipped in document.skipped:
        yield f"layer {skipped.layer} keeps the base's weights: {skipped.reason}"
    if verbose or len(document.unmatched_donor) <= 3:
        for unused in document.unmatched_donor:
            yield f"donor layer {unused.layer} is not used: {unused.reason}"
    else:
        yield f"{len(document.unmatched_donor)} donor layers are not used (-v lists them)"


def widened_lines(document: AssembleDocument) -> Iterator[str]:
    """What of the base grew, and what keeps its width."""
    for group in document.widened:
        where = f" in each unit of {group.inside}" if group.inside else ""
        yield f"group {group.group} grows from {group.units[0]} to {group.units[1]} units{where}"
    for name in document.added_layers:
        yield f"layer {name} is added to the base, whose function it leaves as it is"
    for window in document.windows:
        old, new = ("x".join(map(str, taps)) for taps in window.taps)
        yield f"layer {window.layer} grows from {old} to {new} taps"
    for kept in document.kept_widths:
        yield f"group {kept.group} keeps its {kept.units} units, though {kept.donor} has others: {kept.reason}"


def alignment_lines(document: AssembleDocument) -> Lines:
    yield ""
    yield f"alignment ({ALIGNED})"
    yield aligned_table(document)
    yield from start_lines(document)
    yield ""


def aligned_table(document: AssembleDocument) -> Table:
    """The units of every pair of groups, and how well they fit."""
    aligned = new_table("base group", "donor group", "units", "assigned", "value", "random")
    for pair in document.alignment:
        figures = (f"{pair.value:.4g}", f"{pair.random:.4g}")
        units = f"{pair.units[0]}{f' + {pair.added}' if pair.added else ''} : {pair.units[1]}"
        aligned.add_row(pair.base_group, pair.donor_group, units, str(pair.assigned), *figures)
    return aligned


def start_lines(document: AssembleDocument) -> Iterator[str]:
    for start in document.starts:
        passes = " -> ".join(f"{objective:.6g}" for objective in start.objective)
        yield f"start {start.start}: objective {passes}"


def repair_lines(repairs: Iterable[RepairEntry]) -> Iterator[str]:
    for repair in repairs:
        if not repair.samples:
            yield (
                f"without inputs, {len(repair.reset)} BatchNormalizations behind what was blended with {repair.donor} "
                "have the variances that blended sums are expected to have"
            )
            continue
        yield (
            f"repaired after {repair.donor} on {repair.samples} samples: {len(repair.rescaled)} layers brought to "
            f"their targets, {len(repair.reset)} BatchNormalizations measured anew"
        )
        for left in repair.left:
            yield f"layer {left.layer} is not repaired: {left.reason}"


def union_lines(document: UnionDocument, verbose: bool) -> Lines:
    yield branch_table(document)
    yield from signature_lines(document.signatures)
    yield from unit_lines(document, verbose)
    yield from class_lines(document, verbose)
    yield from cost_lines(document)
    yield from end_lines(document)


def end_lines(document: ResultDocument) -> Lines:
    """Checks, notes, what was written, scores and the verdict: the end of every report of a model that was made."""
    yield from pareto_lines(document.pareto)
    if document.choice is not None:
        yield f"method: {document.choice.taken}, for {document.choice.why}"
    yield from speed_lines(document.speeds)
    yield from check_lines(document.checks)
    yield from (f"warning: {meaning}" for meaning in document.warnings)
    for note in document.notes:
        yield f"note: {note}"
    yield f"wrote {document.output}" if document.output else "no model was written"
    if document.scores:
        yield ""
        if isinstance(document, ZooDocument | SearchDocument):
            yield "on samples that decided nothing:"
        yield from score_lines(document.scores, "model")
    if document.verdict is not None:
        yield ""
        yield f"verdict: {document.verdict}"


def pareto_lines(entries: Sequence[ParetoEntry]) -> Lines:
    """Cost and score of everything that was made, tried and given."""
    if not entries:
        return
    scores = [one.score for one in entries if one.score is not None]
    figures = ("loss", scores[0].metric_name) if scores else ()
    decided = any(one.deciding is not None for one in entries)
    what = f"and score on {scores[0].samples} samples" if scores else "against how far the outputs are off"
    yield ""
    yield f"cost in multiplications {what}{' that decided nothing' if decided else ''}:"
    table = numbers_table("network", ("cost", "off by", *figures, "front"))
    for one in entries:
        score = ["-"] * len(figures) if one.score is None else [f"{one.score.loss:.4f}", f"{one.score.metric:.4f}"]
        name = f"{one.name} (the result)" if one.is_result else one.name
        cells = (name, f"{one.cost:.2f}x", f"{one.error:.2f}", *score, "*" if one.is_on_front else "")
        table.add_row(*cells, style=RESULT if one.is_result else None)
    yield table


def speed_lines(speeds: Speeds | None) -> Lines:
    """How long a run takes and how large a file is, where that was measured."""
    if speeds is None:
        return
    shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in speeds.inputs.items())
    several = f"{speeds.threads} thread{'s' * (speeds.threads > 1)}"
    yield ""
    yield f"speed: the median of {speeds.runs[0]} runs on 1 thread, and of {speeds.runs[1]} on {several}, on {shapes}"
    table = numbers_table("model", ("multiplications", "bytes", "1 thread", several))
    for one in speeds.models:
        table.add_row(
            one.name, f"{one.multiplications:,}", f"{one.bytes:,}", f"{one.ms:.3f} ms", f"{one.ms_all:.3f} ms"
        )
    yield table
    if speeds.left_out:
        yield f"the ensemble is not timed: {speeds.left_out}"


def check_lines(checks: Iterable[Check]) -> Iterator[str]:
    for check in checks:
        yield f"check {check.name}: {check}"


def score_lines(scores: Sequence[Scores], what: str) -> Lines:
    yield f"{scores[0].samples} samples; loss is {scores[0].loss_name}"
    yield score_table(scores, what)


def score_table(scores: Sequence[Scores], what: str) -> Table:
    table = new_table(what, "loss", scores[0].metric_name)
    for score in scores:
        style = RESULT if score.arm == MERGED else None
        table.add_row(score.arm, f"{score.loss:.4f}", f"{score.metric:.4f}", style=style)
    return table


def stack_lines(document: StackDocument, verbose: bool) -> Lines:
    yield from slice_lines(document)
    yield from check_lines(document.checks)
    if document.output is not None:
        yield f"wrote {document.output}"
    if document.scores:
        yield ""
        yield from score_lines(document.scores, "model")


# --- evaluate, sweep, grid, zoo -----------------------------------------------------------------------------------


def evaluation_lines(document: EvaluateDocument, verbose: bool) -> Lines:
    for score in document.scores:
        yield f"{score.arm}: output {score.output!r} is read as {score.scores}"
    for note in document.notes:
        yield f"note: {note}"
    yield ""
    yield from score_lines(document.scores, "model")


def sweep_lines(document: SweepDocument, verbose: bool) -> Lines:
    yield (
        f"{document.donor} into {document.base}: {document.samples} samples; loss is {document.loss_name}, "
        f"with {document.metric_name}"
    )
    yield from repair_lines(document.repair)
    yield point_table(document)
    yield donor_line(document)
    yield ""
    yield f"lambda*: up to where the loss is never more than {document.config['eps']:g} above the base's"
    yield curve_table(document)
    yield from check_lines(document.checks)
    for finding in document.findings:
        yield f"finding: {finding}"
    yield from (f"warning: {meaning}" for meaning in document.warnings)
    for note in document.notes:
        yield f"note: {note}"


def point_table(document: SweepDocument) -> Table:
    """Loss and metric of every arm at every lambda."""
    points = numbers_table("lambda", [curve.name for curve in document.curves])
    for i, lam in enumerate(document.lambdas):
        points.add_row(f"{lam:g}", *(f"{curve.loss[i]:.4f}  {curve.metric[i]:.4f}" for curve in document.curves))
    return points


def donor_line(document: SweepDocument) -> str:
    own = document.donor_scores
    if own is None:
        return f"the donor alone has no score: {document.unscored}"
    return f"the donor alone: loss {own.loss:.4f}, {document.metric_name} {own.metric:.4f}"


def curve_table(document: SweepDocument) -> Table:
    """What each arm amounts to; the aligned one comes first."""
    summary = new_table("curve", "lambda*", "largest rise", "barrier")
    for curve in document.curves:
        barrier = "-" if curve.barrier is None else f"{curve.barrier:.4f}"
        style = RESULT if curve is document.curves[0] else None
        summary.add_row(curve.name, f"{curve.lambda_star:g}", f"{curve.rise:.4f}", barrier, style=style)
    return summary


def grid_lines(document: GridDocument, verbose: bool) -> Lines:
    yield grid_title(document)
    yield cell_table(document)
    for pair in document.blank if verbose else ():
        yield f"{pair.base} with {pair.donor}: {pair.reason}"
    if document.blank and not verbose:
        yield f"{len(document.blank)} pairs cannot be merged; -v says why"


def grid_title(document: GridDocument) -> str:
    return (
        f"change of the loss, {document.base_loss:.4f} in the base, by merging one layer with one at {document.lam:g}"
    )


def cell_table(document: GridDocument) -> Table:
    """The change for every pair of layers."""
    cells = numbers_table("base layer", document.donor_layers)
    blank = {(pair.base, pair.donor) for pair in document.blank}
    for name, line in zip(document.base_layers, document.change, strict=True):
        changes = zip(document.donor_layers, line, strict=True)
        cells.add_row(name, *("-" if (name, other) in blank else f"{change:+.4f}" for other, change in changes))
    return cells


def zoo_lines(document: ZooDocument, verbose: bool) -> Lines:
    loss, metric = figures_of(document)
    yield outcome_table(document.donors, loss, metric)
    yield from outcome_lines(document, loss)
    if verbose:
        yield ""
        yield tried_table(document.donors, loss, metric)
    yield ""
    yield from repair_lines(document.repair)
    in_layers = () if verbose else [name for left in document.accounts.kept_why for name in left.layers]
    yield from accounts_lines(document.accounts, in_layers, verbose)
    yield f"decided by {document.decided_by}"
    yield gate_line(document, loss, metric)
    yield from end_lines(document)


def figures_of(document: ZooDocument) -> tuple[str, str]:
    """What loss and metric are."""
    return (document.gate.base.loss_name, document.gate.base.metric_name) if document.gate else ("loss", "metric")


def outcome_lines(document: ZooDocument, loss: str) -> Iterator[str]:
    """What became of donors that were not merged, and what the controls are."""
    for outcome in document.donors:
        if outcome["kept"] is None:
            yield f"{outcome['donor']} is {outcome['verdict']}: {outcome['reason']}"
    if any(outcome["kept"] and outcome["kept"]["control"] is not None for outcome in document.donors):
        copies = document.config["controls"]
        yield f'"shuffled" is the lowest {loss} of {copies} copies of the donor with shuffled weights'


def outcome_table(outcomes: Sequence[dict[str, Any]], loss: str, metric: str) -> Table:
    table = new_table("donor", "", "merged", "lambda", loss, metric, "shuffled")
    for outcome in outcomes:
        kept = outcome["kept"]
        figures = () if kept is None else (kept["loss"], kept["metric"], kept["control"])
        numbers = [] if kept is None else [f"{kept['lam']:g}", *map(figure_text, figures)]
        table.add_row(outcome["donor"], outcome["verdict"], "" if kept is None else kept["name"], *numbers)
    return table


def tried_table(outcomes: Sequence[dict[str, Any]], loss: str, metric: str) -> Table:
    table = new_table("donor", "candidate", "lambda", loss, metric)
    for outcome in outcomes:
        for candidate in outcome["tried"]:
            for point in candidate["points"]:
                figures = map(figure_text, (point["loss"], point["metric"]))
                table.add_row(outcome["donor"], candidate["name"], f"{point['lam']:g}", *figures)
    return table


def gate_line(document: ZooDocument, loss: str, metric: str) -> str:
    if document.gate is None:
        return f"merged were layers that score {document.config['min_score']:g} or more, at the smallest lambda"
    first, last = document.gate.base, document.gate.result
    return (
        f"on the {document.gate.samples} samples that decided: {loss} {last.loss:.4f}, the base's {first.loss:.4f}; "
        f"{metric} {last.metric:.4f}, the base's {first.metric:.4f}, which may be missed by {document.gate.eps:g}"
    )


def search_lines(document: SearchDocument, verbose: bool) -> Lines:
    yield from taken_lines(document)
    yield ""
    if verbose:
        yield trial_table(document, document.trials)
        yield ""
    yield "what no other candidate beats:"
    yield trial_table(document, front_of(document))
    yield ""
    if document.finalists:
        yield finalist_table(document)
        yield ""
    yield part_table(document)
    yield curse_line(document)
    yield from end_lines(document)


LINES: dict[type[Document], Callable[[Any, bool], Lines]] = {
    InspectDocument: inspection_lines,
    MatchDocument: match_lines,
    AssembleDocument: assembly_lines,
    EvaluateDocument: evaluation_lines,
    SweepDocument: sweep_lines,
    GridDocument: grid_lines,
    ZooDocument: zoo_lines,
    SearchDocument: search_lines,
    UnionDocument: union_lines,
    AuditDocument: audit_lines,
    MethodsDocument: methods_lines,
    StackDocument: stack_lines,
}
