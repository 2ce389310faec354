"""`mal-graph audit` and `mal-graph card`: what a written model says of itself, and whether it is true."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mal_graph.cli.factories import open_named_models
from mal_graph.cli.options import OUTPUT, Force, MaybeData, Shown, Weights
from mal_graph.cli.output import emit, log, progress_bars
from mal_graph.cli.reports import read_source
from mal_graph.cli.results import emit_document
from mal_graph.cli.targets import checked_target
from mal_graph.errors import UsageError

GATE_FAILED = 1
SealedFile = Annotated[str, typer.Argument(metavar="FILE", help="A model that mal-graph wrote.")]


def audit(
    model: SealedFile,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="With --from: the base and the donors that it was made of."),
    ] = None,
    has_sources: Annotated[
        bool, typer.Option("--from", help="Make it again of the models that follow, and compare bit for bit.")
    ] = False,
    data: MaybeData = None,
    weights: Weights = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Check that FILE is as it was written; with --from, that it is what the models give that it was made of."""
    from mal_graph.config import configured
    from mal_graph.reporting import audit_document
    from mal_graph.workflows import arrays_of, with_arrays
    from mal_graph.workflows import audit as audit_model

    if has_sources != bool(sources):
        raise UsageError(
            "--from is given without models: name the base and the donors behind it"
            if has_sources
            else f"{(sources or [''])[0]} stands behind the model: write --from before the models that it was made of"
        )
    with progress_bars(shown.quiet) as progress:
        config = with_arrays(configured("audit", None, options))
        graphs = open_named_models(sources or (), weights, config, arrays_of(data), shown.verbose, progress)
        result = audit_model(model, graphs, data=data, config=config, progress=progress)
    emit_document(audit_document(result), shown.format_, shown.verbose)
    if not result.passed:
        failed = "; ".join(f"{check.name} {check}" for check in result.checks if check.failed)
        log(f"error: {model} does not pass: {failed}; do not use it before you know why")
        raise typer.Exit(GATE_FAILED)


def card(
    model: SealedFile,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE.md", help="Write it here. [default: stdout]", rich_help_panel=OUTPUT
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="REPORT.json", help="The report of its run: the card shows its scores."),
    ] = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Write the card of FILE in Markdown: sources, licences, method, scores beside controls, limits."""
    from mal_graph.atomic_write import write_text, written_files
    from mal_graph.reporting import ResultDocument, card_text, read_report
    from mal_graph.source_files import opened
    from mal_graph.workflows import audit as audit_model
    from mal_graph.workflows import load

    files = [model, *([report] if report else [])]
    target = None if output is None else checked_target(output, files, force)
    if target is not None and target.suffix != ".md":
        raise UsageError(f"cannot write a card to {output}: its name must end in .md")
    document = None if report is None else read_report(read_source(report), report)
    if document is not None and not isinstance(document, ResultDocument):
        raise UsageError(f"{report} is no report of a model that was made: give what --report of assemble wrote")
    result = audit_model(model)
    sha256 = {file.path.name: file.sha256() for file in map(opened, written_files(Path(model))) if file is not None}
    text = card_text(result, load(model), sha256, document)
    if target is None:
        emit(text)
        return
    write_text(target, text, overwrite=force)
    log(f"wrote {target}", shown.quiet)
