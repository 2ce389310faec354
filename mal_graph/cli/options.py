"""Flags made from the fields of the configuration, and what commands have in common beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mal_graph.cli.output import log
from mal_graph.errors import UsageError
from mal_graph.option_names import COMMON

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

OUTPUT = "Output"
INTERRUPTED = 130

# A model is an ONNX file, or a torch module that a function makes, named as package.module:factory.
Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file, or package.module:factory.")]
Base = Annotated[str, typer.Argument(metavar="BASE", help="The model that gives the graph.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Weights (.safetensors, state dict) of a module; once for each.",
        rich_help_panel=COMMON,
    ),
]
LabelledData = Annotated[
    str,
    typer.Option("--data", metavar="FILE.npz", help="Inputs and labels to score on.", rich_help_panel=COMMON),
]
MaybeData = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE.npz", help="Inputs and labels to score on.", rich_help_panel=COMMON),
]
MergedFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="Merged file, .onnx or the .safetensors of a module. [default: BASE.merged.onnx here]",
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.", rich_help_panel=OUTPUT)]
ReportFile = Annotated[
    str | None,
    typer.Option(
        "--report", metavar="FILE", help="Write the report here: .json, .html or .md.", rich_help_panel=OUTPUT
    ),
]
PlotFile = Annotated[
    str | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw cost and score of what was compared, as an .svg or .png.",
        rich_help_panel=OUTPUT,
    ),
]
Ancestor = Annotated[
    str | None,
    typer.Option(
        "--ancestor",
        metavar="MODEL",
        help="What all models were tuned from, for a merge method that needs it; BASE itself may be.",
        rich_help_panel=COMMON,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be merged; write no model.", rich_help_panel=COMMON)
]
FailIfWorse = Annotated[
    bool,
    typer.Option(
        "--fail-if-worse",
        help="Exit code 1 if there is nothing to align, or with data if the result is worse than the base.",
        rich_help_panel=COMMON,
    ),
]


FORMATS = ("text", "json")


@dataclass(frozen=True)
class Shown:
    """How a command shows its result.

    Attributes:
        format_: of the result on stdout.
        verbose, quiet: whether to say more, or nothing but the result and errors.
        command: the words that were given.
    """

    format_: str
    verbose: bool
    quiet: bool
    command: tuple[str, ...] = ()


def shown_flags(formats: tuple[str, ...]) -> list[Parameter]:
    """The flags that make a `Shown`."""
    form = typer.Option(
        "--format",
        help="Form of the result on stdout.",
        metavar="|".join(formats),
        rich_help_panel=OUTPUT,
        autocompletion=lambda: list(formats),
    )
    verbose = typer.Option("--verbose", "-v", help="Say more.", rich_help_panel=OUTPUT)
    quiet = typer.Option(
        "--quiet", "-q", help="No progress and no log: the result and errors only.", rich_help_panel=OUTPUT
    )
    return [
        Parameter("format_", Parameter.KEYWORD_ONLY, default=formats[0], annotation=Annotated[str, form]),
        Parameter("verbose", Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, verbose]),
        Parameter("quiet", Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, quiet]),
    ]


def with_options(
    *jobs: str, formats: tuple[str, ...] = FORMATS
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of some jobs and those of `Shown`.

    The command gets the values that were given as `options`, by name, and how to show its result as `shown`. One that
    opens models runs them within limits.
    """
    from mal_graph.config import options_of
    from mal_graph.limits import Limits, limited
    from mal_graph.option import set_signature

    own_fields = {name: field for job in jobs for name, field in options_of(job).items()}
    fields = {**own_fields, **Limits.model_fields} if jobs else {}
    showing = shown_flags(formats)
    flags = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation(name, field))
        for name, field in fields.items()
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in signature(command).parameters.values() if p.name not in ("options", "shown")]

        @wraps(command)
        def run(**values: Any) -> None:
            options = {name: values.pop(name) for name in fields}
            given = {name: value for name, value in options.items() if value is not None}
            words = tuple(values.pop("context").obj or ())
            shown = Shown(**{flag.name: values.pop(flag.name) for flag in showing}, command=words)
            if shown.format_ not in formats:
                raise UsageError(f"--format is {shown.format_!r}: choose one of {', '.join(formats)}")
            limits = Limits(**{name: value for name, value in given.items() if name in Limits.model_fields})
            own_options = {name: value for name, value in given.items() if name in own_fields}
            try:
                with limited(limits):
                    command(**values, options=own_options, shown=shown)
            except KeyboardInterrupt:  # typer would end without a word
                log("interrupted: no file is left half written")
                raise typer.Exit(INTERRUPTED) from None

        context = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [*own, context, *showing, *flags]
        set_signature(run, signature(command).replace(parameters=parameters))
        run.__annotations__ = {p.name: p.annotation for p in parameters}  # both are read by typer
        return run

    return decorate


def annotation(name: str, field: "FieldInfo") -> Any:
    """The type and flag of one option. Values are texts, which the configuration reads and refuses in its own words."""
    from mal_graph.option import choices_of, option_of

    option, default = option_of(field), default_text(field)
    choices = () if option.known is not None else choices_of(field)
    kind = bool if field.annotation is bool else list[str] if option.is_repeated else str
    flag = flag_of(name, field)
    declared = f"{flag}/--no-{flag[2:]}" if field.annotation is bool and field.default else flag
    return Annotated[
        kind | None,  # None where the flag is not given
        typer.Option(
            declared,
            help=f"{option.help} [default: {default}]" if default else option.help,
            metavar="|".join(choices) or option.metavar or None,
            show_default=False,  # it is None, where the flag is not given
            rich_help_panel=option.panel,
            autocompletion=(lambda: list(choices_of(field))) if choices or option.known is not None else None,
        ),
    ]


def flag_of(name: str, field: "FieldInfo") -> str:
    from mal_graph.option import option_of

    return f"--{option_of(field).flag or name.replace('_', '-')}"


def default_text(field: "FieldInfo") -> str:
    """The default as it would be written, "" where it goes without saying."""
    value = field.default
    if isinstance(value, bool) or value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return f"{value[0]:g} to {value[-1]:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
