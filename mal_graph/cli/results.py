"""Documents on stdout: as text in the words of the command line, or as JSON."""

import os
import sys
from typing import TYPE_CHECKING

import typer

from mal_graph.cli.flags import in_flags
from mal_graph.cli.output import emit, printable

if TYPE_CHECKING:
    from mal_graph.reporting import Document


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
        typer.secho(printable(last), fg="red" if last.startswith("verdict: worse") else "green")
    else:
        emit("\n".join(lines))


def terminal_width() -> int | None:
    """The columns of the terminal on stdout; None where it is none."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


def has_colours() -> bool:
    """Whether stdout is a terminal and nobody asked for plain text (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
