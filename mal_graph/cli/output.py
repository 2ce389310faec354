"""What the command line writes: results on stdout, progress and log on stderr."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import typer

from mal_graph.plain_text import lines, one_line

Progress = Callable[[str, int, int], None]  # (what is done, how much of it, of how much)


def emit(text: str) -> None:
    """A part of the result, on stdout. Nothing more is written once its reader has left, as `head` does."""
    try:
        typer.echo(lines(text))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log(text: str, quiet: bool = False) -> None:
    """A sentence on stderr, on one line."""
    if not quiet:
        typer.echo(one_line(text.replace("\n", " ")), err=True)


class LogLines(logging.Handler):
    """What other packages log, as a sentence each where more is to be said."""

    def __init__(self, verbose: bool) -> None:
        super().__init__(logging.WARNING)
        self.verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        log(f"{record.levelname.lower()} of {record.name}: {record.getMessage()}", quiet=not self.verbose)


@contextmanager
def captured_logs(verbose: bool) -> Iterator[None]:
    """Tell what other packages log and warn of, with names in it, as a command tells its own: where more is to be said,
    for a fault that matters is found here and told once."""
    handler, root = LogLines(verbose), logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)


@contextmanager
def native_code_muted() -> Iterator[None]:
    """What native code writes to the process's own streams goes nowhere, and what Python writes goes on: libraries log
    the names and patterns of a file as they are, past all that Python can do about it."""
    with ExitStack() as streams:
        for name, handle in (("stdout", 1), ("stderr", 2)):
            if handle_of(getattr(sys, name)) == handle:
                streams.enter_context(stream_apart(name, handle))
        yield


@contextmanager
def stream_apart(name: str, handle: int) -> Iterator[None]:
    """A stream of Python under another handle, and the handle that it had leading nowhere."""
    before = getattr(sys, name)
    before.flush()
    own = os.dup(handle)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), handle)
    buffering = 1 if before.isatty() or name == "stderr" else -1  # by lines
    with open(own, "w", buffering, encoding=before.encoding, errors=before.errors) as apart:
        setattr(sys, name, apart)
        try:
            yield
        finally:
            setattr(sys, name, before)
            apart.flush()
            os.dup2(own, handle)


def handle_of(stream: Any) -> int | None:
    """The handle of a stream of the system; None where it is none, as in a notebook."""
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Progress]:
    """Progress on stderr, one bar for each thing under way; nothing where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():  # rich's own test says yes wherever colours are forced
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *times)
    options: dict[str, Any] = {"transient": True, "speed_estimate_period": 3600.0}  # a step may take minutes
    with Progress(*columns, console=Console(stderr=True), **options) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            what = one_line(what)
            name = what.partition(": ")[0]  # what comes behind may change on the way
            if name not in tasks:
                tasks[name] = bars.add_task(what, total=total)
            bars.update(tasks[name], description=what, completed=done, total=total, visible=done < total)

        yield report
