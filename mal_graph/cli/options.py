"""Flags made from the fields of the configuration, and what commands have in common beside them."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from mal_graph.config import COMMON, choices_of, option_of, options_of

OUTPUT = "Output"

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
AsText = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Form of the result on stdout.", rich_help_panel=OUTPUT)
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
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no log: the result and errors only.", rich_help_panel=OUTPUT),
]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE.json", help="Write the report here.", rich_help_panel=OUTPUT),
]
FailIfWorse = Annotated[
    bool,
    typer.Option(
        "--fail-if-worse", help="With data: exit code 1 if the result is worse than the base.", rich_help_panel=COMMON
    ),
]


def with_options(*jobs: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of some jobs: it gets the values that were given as `options`."""
    fields = {name: field for job in jobs for name, field in options_of(job).items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in signature(command).parameters.values() if p.name != "options"]

        @wraps(command)
        def run(**values: Any) -> None:
            options = {name: values.pop(name) for name in fields}
            command(**values, options={name: value for name, value in options.items() if value is not None})

        flags = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation(name, field))
            for name, field in fields.items()
        ]
        run.__signature__ = signature(command).replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*own, *flags)}  # both are read by typer
        return run

    return decorate


def annotation(name: str, field: FieldInfo) -> Any:
    """The type and flag of one option. Values are texts, which the configuration reads and refuses in its own words."""
    option, choices, default = option_of(field), choices_of(field), default_text(field)
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
            autocompletion=(lambda: list(choices)) if choices else None,
        ),
    ]


def flag_of(name: str, field: FieldInfo) -> str:
    return f"--{option_of(field).flag or name.replace('_', '-')}"


def default_text(field: FieldInfo) -> str:
    """The default as it would be written, "" where it goes without saying."""
    value = field.default
    if isinstance(value, bool) or value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return f"{value[0]:g} to {value[-1]:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
