"""Documents on stdout: as text in the words of the command line, or as JSON; and in files."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mal_graph.cli.flags import in_flags
from mal_graph.cli.options import Shown
from mal_graph.cli.output import emit, log
from mal_graph.plain_text import one_line

if TYPE_CHECKING:
    from mal_graph.reporting import Document, Report
    from mal_graph.workflows import ParetoEntry, Written

GATE_FAILED = 1  # the exit code where a check or a gate failed


def emit_document(document: "Document", format_: str, verbose: bool = False) -> None:
    """A result in the form asked for; tables are folded to a terminal, and a verdict is coloured there."""
    from mal_graph.reporting import text_of

    if format_ == "json":
        emit(document.json_text())
        return
    lines = in_flags(text_of(document, verbose=verbose, width=terminal_width())).split("\n")
    last = lines[-1]
    if last.startswith("verdict: ") and has_colours():
        emit("\n".join(lines[:-1]))
        typer.secho(one_line(last), fg="red" if last.startswith("verdict: worse") else "green")
    else:
        emit("\n".join(lines))


def emit_report(document: "Report", report_to: Path | None, shown: Shown, force: bool) -> None:
    """A report of a model that was made, on stdout and in the file that was asked for."""
    if report_to is not None:
        write_result_file(report_to, document, {}, force)
    emit_document(document, shown.format_, shown.verbose)


def write_plot(plot_to: Path | None, pareto: "Sequence[ParetoEntry]", shown: Shown, force: bool) -> None:
    """Draw what was compared, where that is asked for."""
    from mal_graph.atomic_write import write_bytes
    from mal_graph.reporting import draw_pareto

    if plot_to is not None and pareto:
        write_bytes(plot_to, draw_pareto(pareto, plot_to.suffix[1:]), overwrite=force)
    elif plot_to is not None:
        log(f"note: {plot_to} is not written: nothing could be compared", shown.quiet)


def write_result_file(path: Path, document: "Report", images: Mapping[str, bytes], force: bool) -> None:
    """Write a report in the form that the file's name ends in; `images` are those that were drawn, by kind."""
    from mal_graph.atomic_write import write_bytes, write_text
    from mal_graph.reporting import GridDocument, SweepDocument, report_text

    kind = path.suffix.removeprefix(".")
    if kind in images:
        write_bytes(path, images[kind], overwrite=force)
    elif isinstance(document, SweepDocument | GridDocument) and kind == "csv":
        write_text(path, document.csv_text(), overwrite=force)
    else:
        write_text(path, report_text(document, kind), overwrite=force)


def emit_candidates(base: Any, donor: Any, layer: str, format_: str) -> None:
    """The donor layers that one base layer could correspond to, best first."""
    from mal_graph.matching import explain_layer
    from mal_graph.reporting import new_table, table_text

    candidates = explain_layer(base, donor, layer)
    if format_ == "json":
        listed = [{"donor": name, "score": score, "parts": parts} for name, score, parts in candidates]
        emit(json.dumps({"schema": "mal-graph/explain/1", "layer": layer, "candidates": listed}, indent=2))
        return
    if not candidates:
        emit(f"{one_line(donor.name)} has no layer of the kind of {layer!r}")
        return
    emit(f"what layer {one_line(layer)} could correspond to, best first; the parts of the score are between 0 and 1")
    rows = new_table("candidate", "score", *candidates[0][2])
    for name, score, parts in candidates:
        rows.add_row(name, f"{score:.3f}", *(f"{part:.2f}" for part in parts.values()))
    emit(table_text(rows))


def terminal_width() -> int | None:
    """The columns of the terminal on stdout; None where it is none."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


def has_colours() -> bool:
    """Whether stdout is a terminal and nobody asked for plain text (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def fail_where_worse(result: "Written", wanted: bool) -> None:
    """End with exit code 1 where the result is worse than the base, or nothing could be aligned, if that is wanted."""
    reasons = ["a donor has nothing to align with the base"] if result.nothing_to_align else []
    if is_worse(result):
        reasons.append("the result is worse than the base")
    if wanted and reasons:
        log(f"error: {' and '.join(reasons)} (--fail-if-worse)")
        raise typer.Exit(GATE_FAILED)


def is_worse(result: "Written") -> bool:
    """Whether the verdict is that the base is better."""
    return result.verdict is not None and result.verdict.is_worse


def fail_if_refused(result: "Written") -> None:
    """End with exit code 1 where a check failed, so that no model was written."""
    if not result.passed:
        failed = "; ".join(f"{check.name} {check}" for check in result.failures)
        log(f"error: no merged model was written: {failed}; try other options")
        raise typer.Exit(GATE_FAILED)
