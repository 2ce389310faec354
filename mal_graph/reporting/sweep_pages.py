"""What stands where in the report of a sweep: along lambda, and layer by layer."""

from collections.abc import Iterator
from math import isfinite, nan

from mal_graph.reporting.charts import draw_sweep
from mal_graph.reporting.evidence import evidence_pieces, file_name, origin_pieces
from mal_graph.reporting.pieces import Charts, Folded, Headline, Page, Piece, Sheet, bullets, rows, sections
from mal_graph.reporting.sweep_documents import GridDocument, SweepDocument
from mal_graph.reporting.tables import new_table
from mal_graph.reporting.text import (
    cell_table,
    check_lines,
    curve_table,
    donor_line,
    grid_title,
    point_table,
    repair_lines,
)


def sweep_page(document: SweepDocument) -> Page:
    """Curves first, with lambda* and barrier."""
    aligned, *others = document.curves
    rivals = [curve for curve in others if curve.lambda_star > aligned.lambda_star]
    beside = "; ".join(f"{curve.name} reaches {curve.lambda_star:g}" for curve in rivals)
    text = (
        f"lambda* is {aligned.lambda_star:g}: up to there the loss is never more than {document.config['eps']:g} above "
        f"the base's{f', but {beside}' if beside else ', and no control goes further'}"
    )
    return Page(
        title=f"{file_name(document.donor)} into {file_name(document.base)}, along lambda",
        about=f"mal-graph sweep: {document.samples} samples; loss is {document.loss_name}, with {document.metric_name}",
        headline=Headline(text),
        before=sections(
            ("Warnings", bullets(map(str, document.warnings))),
            ("Findings", bullets(document.findings)),
            ("Along lambda", curve_pieces(document)),
        ),
        ladders=tuple(document.ladders),
        after=sections(
            ("Checks and notes", bullets((*check_lines(document.checks), *document.notes))),
            ("Repair", bullets(repair_lines(document.repair))),
            ("Verification", evidence_pieces(document.ladders)),
            ("Where it comes from", origin_pieces(document, document.config, None)),
        ),
    )


def curve_pieces(document: SweepDocument) -> Iterator[Piece]:
    yield Charts(draw_sweep(document))
    yield curve_table(document)
    yield donor_line(document)
    title = f"Every point: {document.loss_name}, then {document.metric_name}"
    yield Folded(title, (point_table(document),))


def grid_page(document: GridDocument) -> Page:
    """A map of single layers."""
    changes = [
        (change, mine, theirs)
        for mine, line in zip(document.base_layers, document.change, strict=True)
        for theirs, change in zip(document.donor_layers, line, strict=True)
        if isfinite(change)
    ]
    text = f"{len(changes)} of {len(document.base_layers) * len(document.donor_layers)} pairs of layers can be merged"
    if changes:
        change, mine, theirs = min(changes)
        text += f"; the best, {mine} with {theirs}, changes the loss by {change:+.4f}"
    blank = new_table("base layer", "donor layer", "why they are not merged")
    for pair in document.blank:
        blank.add_row(pair.base, pair.donor, pair.reason)
    largest = max((abs(change) for change, _, _ in changes), default=0.0) or 1.0
    tints = [[change / largest if isfinite(change) else nan for change in line] for line in document.change]
    return Page(
        title=f"{file_name(document.donor)} into {file_name(document.base)}, layer by layer",
        about=f"mal-graph sweep --grid: {grid_title(document)}",
        headline=Headline(text),
        before=sections(("Change of the loss", (Sheet(cell_table(document), tints=tints),))),
        ladders=tuple(document.ladders),
        after=sections(
            ("Pairs that cannot be merged", rows(blank, "Reasons")),
            ("Where it comes from", origin_pieces(document, None, None)),
        ),
    )
