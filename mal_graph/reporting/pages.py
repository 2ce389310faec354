"""What stands where in the report of each kind of result: verdict first, then why, how good, what was done, evidence.

A page is made from the document alone, in the words that the command line uses, so that text, HTML, Markdown and JSON
say the same.
"""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any

from rich.table import Table

from mal_graph.evaluation import Scores
from mal_graph.reporting.charts import draw_pareto
from mal_graph.reporting.documents import AssembleDocument, MatchDocument, MergeDocument, ResultDocument, ZooDocument
from mal_graph.reporting.evidence import (
    account_pieces,
    evidence_pieces,
    file_name,
    layer_pieces,
    origin_pieces,
    partly_pieces,
    reason_pieces,
)
from mal_graph.reporting.inspection import InspectDocument
from mal_graph.reporting.model_pages import inspect_page, match_page
from mal_graph.reporting.pieces import Charts, Headline, Page, Piece, Sheet, bullets, folded, rows, sections
from mal_graph.reporting.reading import Report
from mal_graph.reporting.search_charts import draw_search
from mal_graph.reporting.search_documents import (
    SearchDocument,
    curse_line,
    finalist_table,
    front_of,
    part_table,
    taken_lines,
    trial_table,
)
from mal_graph.reporting.stacks import StackDocument, slice_lines
from mal_graph.reporting.sweep_documents import GridDocument, SweepDocument
from mal_graph.reporting.sweep_pages import grid_page, sweep_page
from mal_graph.reporting.tables import Lines, numbered
from mal_graph.reporting.text import (
    ALIGNED,
    aligned_table,
    check_lines,
    figures_of,
    gate_line,
    merged_line,
    outcome_lines,
    outcome_table,
    pareto_lines,
    repair_lines,
    score_lines,
    signature_lines,
    speed_lines,
    start_lines,
    tried_table,
    widened_lines,
)
from mal_graph.reporting.union_documents import UnionDocument, branch_table, class_lines, cost_lines, unit_lines

AS_THEY_ARE = "Blocks are taken as they are: compare the scores with those of the models"
UNJUDGED = "Nothing was scored: with `data` there is a verdict"
LOSS, METRIC = 1, 2  # columns of a table of scores


def page_of(document: Report) -> Page:
    """The report of a result, whatever it will be written as."""
    return PAGES[type(document)](document)


# --- one page for each kind ---------------------------------------------------------------------------------------


def assemble_page(document: AssembleDocument) -> Page:
    donors = " and ".join(map(file_name, document.donors))
    return Page(
        title=f"{donors} into {file_name(document.base)}",
        about=f"mal-graph assemble: {written(document)}",
        headline=headline(document),
        before=how_good(document),
        ladders=tuple(document.ladders),
        after=sections(
            ("What was merged", (merged_line(document), *layer_pieces(document.merged, document.ladders))),
            ("What was kept, and why", kept_pieces(document)),
            ("Widths and depth", bullets(widened_lines(document))),
            ("Checks and notes", note_pieces(document)),
            ("Verification", evidence_pieces(document.ladders)),
            ("Alignment", alignment_pieces(document)),
            ("Repair", bullets(repair_lines(document.repair))),
            ("Where it comes from", origin_pieces(document, document.config, document.output)),
        ),
    )


def zoo_page(document: ZooDocument) -> Page:
    loss, metric = figures_of(document)
    taken = (
        outcome_table(document.donors, loss, metric),
        *bullets(
            (*outcome_lines(document, loss), f"decided by {document.decided_by}", gate_line(document, loss, metric))
        ),
        *folded("Everything that was tried", rows(tried_table(document.donors, loss, metric))),
    )
    return Page(
        title=f"{len(document.donors)} donors into {file_name(document.base)}",
        about=f"mal-graph zoo: {written(document)}",
        headline=headline(document),
        before=(*how_good(document, "on samples that decided nothing"), *sections(("What was decided", taken))),
        ladders=tuple(document.ladders),
        after=sections(
            ("What was merged", layer_pieces(document.merged, document.ladders)),
            ("What was kept, and why", (*partly_pieces(document.merged), *account_pieces(document.accounts))),
            ("Checks and notes", note_pieces(document)),
            ("Verification", evidence_pieces(document.ladders)),
            ("Repair", bullets(repair_lines(document.repair))),
            ("Where it comes from", origin_pieces(document, document.config, document.output)),
        ),
    )


def search_page(document: SearchDocument) -> Page:
    taken = (
        *bullets(taken_lines(document)),
        part_table(document),
        *bullets([curse_line(document)]),
        *rows(finalist_table(document), "Finalists"),
    )
    course = (
        *(Charts(pictures) for pictures in [draw_search(document)] if pictures),
        *rows(trial_table(document, front_of(document)), "Pareto front"),
        *folded("Every candidate", rows(trial_table(document, document.trials))),
    )
    return Page(
        title=f"{len(document.donors)} donors into {file_name(document.base)}",
        about=f"mal-graph search: {written(document)}",
        headline=headline(document),
        before=(
            *how_good(document, "on samples that decided nothing"),
            *sections(("What was found", taken), ("The course of the search", course)),
        ),
        ladders=tuple(document.ladders),
        after=sections(
            ("What was merged", layer_pieces(document.merged, document.ladders)),
            ("What was kept, and why", (*partly_pieces(document.merged), *account_pieces(document.accounts))),
            ("Checks and notes", note_pieces(document)),
            ("Verification", evidence_pieces(document.ladders)),
            ("Where it comes from", origin_pieces(document, document.options, document.output)),
        ),
    )


def union_page(document: UnionDocument) -> Page:
    names = [file_name(name) for name in (document.base, *document.donors)]
    kept = (
        branch_table(document),
        *bullets(cost_lines(document)),
        *bullets(class_lines(document, verbose=False)),
        *folded("Units of every layer", bullets(unit_lines(document, verbose=True))),
    )
    return Page(
        title=f"{' and '.join(names)} as one" if document.donors else f"{names[0]}, compressed",
        about=f"mal-graph {'assemble' if document.donors else 'compress'}: {written(document)}",
        headline=headline(document),
        before=(*how_good(document), *sections(("What was kept of each model", kept))),
        ladders=tuple(document.ladders),
        after=sections(
            ("Checks and notes", note_pieces(document)),
            ("Where it comes from", origin_pieces(document, document.config, document.output)),
        ),
    )


def stack_page(document: StackDocument) -> Page:
    models = dict.fromkeys(file_name(one.model) for one in document.slices)
    parts = f"{document.blocks} blocks of {' and '.join(models)}, stacked"
    return Page(
        title=parts,
        about=f"mal-graph merge: {f'wrote {document.output}' if document.output else 'no model was written'}",
        headline=Headline(AS_THEY_ARE if document.scores else UNJUDGED),
        before=sections(
            ("What was stacked", plain(slice_lines(document))),
            ("Scores", score_pieces(document.scores, "")),
        ),
        ladders=(),
        after=sections(
            ("Checks", bullets(check_lines(document.checks))),
            ("Where it comes from", origin_pieces(document, None, document.output)),
        ),
    )


# --- in common ----------------------------------------------------------------------------------------------------


def written(document: ResultDocument) -> str:
    return f"wrote {document.output}" if document.output else "no model was written"


def headline(document: ResultDocument) -> Headline:
    verdict = document.verdict
    return Headline(UNJUDGED) if verdict is None else Headline(verdict.text, verdict.advice, verdict.is_worse)


def how_good(document: ResultDocument, which: str = "") -> tuple[Any, ...]:
    """What was chosen and why, scores, and what was compared by cost and speed."""
    choice = document.choice
    return sections(
        ("Warnings", bullets(map(str, document.warnings))),
        ("What was chosen", [] if choice is None else [f"{choice.taken}, for {choice.why}"]),
        ("Scores", score_pieces(document.scores, which)),
        ("Cost against score", pareto_pieces(document)),
        ("Speed", plain(speed_lines(document.speeds))),
    )


def plain(lines: Lines) -> Iterator[Piece]:
    """Lines of the command line, without the empty ones between them."""
    for line in lines:
        if isinstance(line, Table):
            yield line
        elif line.strip():
            yield line.strip()


def score_pieces(scores: Sequence[Scores], which: str) -> Iterator[Piece]:
    """The scores of the result and of all controls, with bars."""
    if not scores:
        return
    highest = max((one.loss for one in scores if isfinite(one.loss)), default=0.0) or 1.0
    losses = [one.loss / highest if isfinite(one.loss) else 0.0 for one in scores]
    metrics = [min(1.0, max(0.0, one.metric)) if isfinite(one.metric) else 0.0 for one in scores]
    for piece in plain(score_lines(scores, "model")):
        if isinstance(piece, Table):
            yield Sheet(piece, bars={LOSS: losses, METRIC: metrics})
        else:
            yield f"{piece}, {which}" if which else piece


def pareto_pieces(document: ResultDocument) -> Iterator[Piece]:
    if document.pareto:
        yield Charts((draw_pareto(document.pareto),))
    for piece in plain(pareto_lines(document.pareto)):
        yield numbered(piece) if isinstance(piece, Table) else piece


def kept_pieces(document: AssembleDocument) -> Iterator[Piece]:
    yield from reason_pieces("Layers that keep the base's weights", "base layer", document.skipped)
    yield from partly_pieces(document.merged)
    yield from reason_pieces("Layers of donors that are not used", "donor layer", document.unmatched_donor)
    yield from account_pieces(document.accounts)


def alignment_pieces(document: AssembleDocument) -> Iterator[Piece]:
    if document.alignment:
        inside = (ALIGNED, aligned_table(document), *bullets(start_lines(document)))
        yield from folded(f"{len(document.alignment)} pairs of groups", inside)


def note_pieces(document: MergeDocument | UnionDocument) -> Iterator[Piece]:
    yield from bullets((*check_lines(document.checks), *signature_lines(document.signatures), *document.notes))


PAGES: dict[type, Callable[[Any], Page]] = {
    AssembleDocument: assemble_page,
    ZooDocument: zoo_page,
    SearchDocument: search_page,
    UnionDocument: union_page,
    SweepDocument: sweep_page,
    GridDocument: grid_page,
    MatchDocument: match_page,
    InspectDocument: inspect_page,
    StackDocument: stack_page,
}
