"""The commands by name: `--help` lists what each one does, and its flags are made when it is called.

Flags are made from the configuration, and the library that checks it takes longer to load than all else of `--help`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from mal_graph.cli.options import FORMATS, with_options

F = TypeVar("F", bound=Callable[..., None])


class Commands(TyperGroup):
    """The commands of `app`; one that is called gets its flags."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, flagged(name) if name and listed else None, rest


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DECLARED: dict[str, Callable[[], Callable[..., None]]] = {}  # what makes a command with all its flags, by name


def command(*jobs: str, formats: tuple[str, ...] = FORMATS) -> Callable[[F], F]:
    """Make a function a command of `app`, with the flags of some jobs (see `with_options`)."""

    def declare(function: F) -> F:
        DECLARED[function.__name__] = lambda: with_options(*jobs, formats=formats)(function)
        app.command(function.__name__, help=function.__doc__)(listed_only)
        return function

    return declare


def listed_only() -> None:
    """Stands for a command in the list of all."""


def flagged(name: str) -> Any:
    """A command with all its flags, as typer makes it."""
    alone = typer.Typer(add_completion=False)
    alone.command(name)(DECLARED[name]())
    return typer.main.get_command(alone)
