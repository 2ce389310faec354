"""`mal-graph match` and `mal-graph diagram`: what corresponds to what, and pictures of it."""

import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mal_graph import registry
from mal_graph.cli.factories import open_named_models
from mal_graph.cli.options import FORMATS, OUTPUT, Base, Force, Model, Shown, Weights
from mal_graph.cli.output import emit, log, progress_bars
from mal_graph.cli.results import emit_candidates, emit_document
from mal_graph.cli.targets import IMAGES, checked_target, given, input_files
from mal_graph.errors import UsageError

if TYPE_CHECKING:
    from mal_graph.ladder import LadderEntry

PICTURES = ("html", *IMAGES)
PICTURE = "Picture"
COLLAPSES = ("none", "blocks", "modules")  # as in ladder.Collapse, which must not be loaded for --help
RADIUS = 3

PictureFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write a picture here: .html, .svg or .png.",
        rich_help_panel=OUTPUT,
    ),
]
MatchFile = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write the result here: a picture as .html, .svg or .png; else the form of --format, or JSON.",
        rich_help_panel=OUTPUT,
    ),
]
Opens = Annotated[bool, typer.Option("--open", help="Show the picture in a browser.", rich_help_panel=OUTPUT)]
Collapsed = Annotated[
    str | None,
    typer.Option(
        "--collapse",
        metavar="|".join(COLLAPSES),
        help="What the picture folds at first. [default: repeated blocks, where there are over 40 rows]",
        autocompletion=lambda: list(COLLAPSES),
        rich_help_panel=PICTURE,
    ),
]
Focus = Annotated[
    str | None,
    typer.Option("--focus", metavar="LAYER", help="Draw what is around a layer alone.", rich_help_panel=PICTURE),
]
Radius = Annotated[
    int,
    typer.Option(
        "--radius", min=0, metavar="NUMBER", help="How many steps from it are drawn.", rich_help_panel=PICTURE
    ),
]


def match(
    base: Base,
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The model whose layers are looked up.")],
    output: MatchFile = None,
    opens: Opens = False,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="LAYER", help="Show a layer's candidates.")
    ] = None,
    align: Annotated[
        bool,
        typer.Option("--align", help="Verify the axis groups and assign units too.", rich_help_panel=PICTURE),
    ] = False,
    collapse: Collapsed = None,
    focus: Focus = None,
    radius: Radius = RADIUS,
    force: Force = False,
    weights: Weights = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Show which layer of BASE corresponds to which layer of DONOR, and why."""
    from mal_graph.config import configured
    from mal_graph.network import dequantised
    from mal_graph.reporting import dot, match_document, mermaid, model_explorer
    from mal_graph.workflows import compare_models, with_arrays

    if explain is not None and (output is not None or opens or shown.format_ not in FORMATS):
        raise UsageError("--explain lists the candidates of one layer, as text or json on stdout: give it alone")
    files = given(base, donor, *(weights or ()), *input_files("match", options))
    target = picture_target(output, files, force, opens)
    is_picture = target is not None and kind_of(target) in PICTURES
    refuse_without_picture(is_picture, align=align, collapse=collapse, focus=focus)
    if target is not None and shown.format_ == "text" and kind_of(target) not in (*PICTURES, "json"):
        raise UsageError(
            f"cannot tell what to write to {output}: its name must end in .html, .svg, .png or .json, or --format tell"
        )
    check_collapse(collapse)
    config = with_arrays(configured("match", None, options))
    with progress_bars(shown.quiet) as progress:
        a, b = open_named_models([base, donor], weights, config, None, shown.verbose, progress)
        b = dequantised(b, registry.runner())
        if explain is not None:
            emit_candidates(a, b, explain, shown.format_)
            return
        compared = compare_models(a, b, config, registry.runner(), progress, has_groups=is_picture, is_aligned=align)
    for warning in compared.warnings:
        log(f"warning: {warning}", shown.quiet)
    document = match_document(compared, config.pair)
    ladder = document.ladder
    forms: dict[str, Callable[[], str]] = {
        "mermaid": lambda: mermaid(ladder),
        "dot": lambda: dot(ladder),
        "model-explorer": lambda: model_explorer(a, b, compared.match),
    }
    drawn = forms.get(shown.format_, document.json_text)()
    if target is not None and is_picture:
        write_picture(target, ladder, collapse, focus, radius, force)
    elif target is not None:
        from mal_graph.atomic_write import write_text

        write_text(target, drawn + "\n", overwrite=force)
    told(target, opens, shown)
    if shown.format_ == "text":
        emit_document(document, "text", shown.verbose)
    elif target is None or is_picture:
        emit(drawn)


def diagram(
    model: Model,
    output: PictureFile = None,
    opens: Opens = False,
    collapse: Collapsed = None,
    focus: Focus = None,
    radius: Radius = RADIUS,
    force: Force = False,
    weights: Weights = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Draw the layers of one MODEL, with its axis groups, verified by running it."""
    from mal_graph.config import configured
    from mal_graph.ladder import LadderEntry, model_entry
    from mal_graph.reporting import inspect_document
    from mal_graph.workflows import inspect_groups, with_arrays

    files = given(model, *(weights or ()), *input_files("inspect", options))
    path = f"{Path(model).stem}.html" if output is None and not opens else output
    target = picture_target(path, files, force, opens)
    if target is None or kind_of(target) not in PICTURES:
        raise UsageError(f"cannot draw {path}: its name must end in .html, .svg or .png")
    check_collapse(collapse)
    config = with_arrays(configured("inspect", None, options))
    with progress_bars(shown.quiet) as progress:
        (graph,) = open_named_models([model], weights, config, None, shown.verbose, progress)
        groups, warning = inspect_groups(graph, config, progress)
    if warning:
        log(f"warning: {warning}", shown.quiet)
    write_picture(target, LadderEntry(base=model_entry(graph, groups)), collapse, focus, radius, force)
    told(target, opens, shown)
    emit_document(inspect_document(graph, groups, {}), shown.format_, shown.verbose)


def kind_of(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()


def picture_target(path: str | None, files: list[str], force: bool, opens: bool) -> Path | None:
    """Where the result goes; a file of the system's for temporary ones where it is only shown. Raises FileError."""
    if path is None:
        return Path(tempfile.mkdtemp(prefix="mal-graph-")) / "picture.html" if opens else None
    target = checked_target(path, files, force)
    if kind_of(target) == "png":
        from mal_graph.ladder import load_figure

        load_figure()
    if opens and kind_of(target) not in PICTURES:
        raise UsageError(f"cannot open {path} as a picture: its name must end in .html, .svg or .png")
    return target


def refuse_without_picture(is_picture: bool, **options: object) -> None:
    """Raise UsageError for options of a picture where there is none."""
    for name, value in options.items():
        if value and not is_picture:
            raise UsageError(
                f"--{name} is of a picture: name one with -o, ending in .html, .svg or .png, or give --open"
            )


def check_collapse(collapse: str | None) -> None:
    """Raise UsageError where that is none of the ways."""
    if collapse is not None and collapse not in COLLAPSES:
        raise UsageError(f"--collapse is {collapse!r}: choose one of {', '.join(COLLAPSES)}")


def write_picture(
    target: Path, ladder: "LadderEntry", collapse: str | None, focus: str | None, radius: int, force: bool
) -> None:
    """Write a picture in the form that the file's name ends in. Raises UsageError."""
    from mal_graph.atomic_write import write_bytes, write_text
    from mal_graph.ladder import Collapse, draw_ladder, page_text, png_bytes, svg_text, take_around

    folded = None if collapse is None else Collapse(collapse)
    if focus is not None:
        ladder = take_around(ladder, focus, radius)
    match kind_of(target):
        case "html":
            write_text(target, page_text(ladder, folded), overwrite=force)
        case "svg":
            write_text(target, svg_text(draw_ladder(ladder, folded)), overwrite=force)
        case _:
            write_bytes(target, png_bytes(draw_ladder(ladder, folded)), overwrite=force)


def told(target: Path | None, opens: bool, shown: Shown) -> None:
    """Say what was written, and open it where that is wanted."""
    if target is None:
        return
    log(f"wrote {target}", shown.quiet)
    if opens and not webbrowser.open(target.absolute().as_uri()):
        log(f"note: no browser could be started; open {target} in one", shown.quiet)
