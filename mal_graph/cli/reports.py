"""`mal-graph report`: a report that was written as JSON, shown again in any form; and the forms of all documents."""

import json
from typing import Annotated, Any

import typer

from mal_graph.cli.options import OUTPUT, Force, Shown
from mal_graph.cli.output import emit, log
from mal_graph.cli.results import emit_document
from mal_graph.cli.targets import checked_target, refuse_other_kinds
from mal_graph.errors import FileError, UsageError
from mal_graph.text_files import read_text

PAGES = ("html", "md")


def report(
    source: Annotated[
        str | None, typer.Argument(metavar="REPORT.json", help="What --report or --format json wrote.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it here, as .html or .md.", rich_help_panel=OUTPUT),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="NAME", help="Print the JSON schema of a document, such as assemble."),
    ] = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Show a report again: as text, or as a page of HTML or Markdown, the same that --report writes."""
    from rich.errors import ConsoleError

    from mal_graph.reporting import read_report, rendered, schema_of

    if schema is not None:
        if source is not None or output is not None:
            raise UsageError("--schema prints the form of a document on stdout: give it alone")
        emit(json.dumps(schema_of(schema), indent=2))
        return
    if source is None:
        raise UsageError("no report given: name a JSON file that --report wrote")
    target = None if output is None else checked_target(output, [source], force)
    refuse_other_kinds(target, PAGES)
    text = read_source(source)
    try:
        if target is None:
            emit_document(read_report(text, source), shown.format_, shown.verbose)
            return
        page = rendered(text, target.suffix.removeprefix("."), source)
    except (ArithmeticError, AttributeError, ConsoleError, LookupError, TypeError, ValueError) as error:
        raise FileError(f"{source} is damaged: what it holds does not fit together ({error!r})") from None
    from mal_graph.atomic_write import write_text

    write_text(target, page, overwrite=force)
    log(f"wrote {target}", shown.quiet)


def read_source(path: str) -> str:
    """A file of text. Raises FileError."""
    try:
        return read_text(path)
    except (OSError, ValueError) as error:  # ValueError: bytes that are no text, or a NUL character in the name
        raise FileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
