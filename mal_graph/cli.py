"""The command line: `mal-graph inspect | match | assemble | evaluate`.

Results go to stdout, progress and log to stderr. Exit codes: 0 good, 1 a gate failed, 2 bad input or usage.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mal_graph import pipeline
from mal_graph.draw import dot, mermaid
from mal_graph.errors import FileError, MalGraphError, MatchError, UsageError
from mal_graph.evaluate import ScoreKind, read_npz
from mal_graph.evaluate import evaluate as evaluate_model
from mal_graph.graph import LayerGraph
from mal_graph.groups import axis_groups
from mal_graph.match import explain as explain_layer
from mal_graph.match import match_layers
from mal_graph.probe import probe
from mal_graph.prove import prove
from mal_graph.report import (
    AssembleForm,
    EvaluateForm,
    InspectForm,
    MatchForm,
    ScoreForm,
    assemble_form,
    inspect_form,
    match_form,
    score_form,
    sha256_of,
)

GOOD, GATE_FAILED, BAD_INPUT = 0, 1, 2

app = typer.Typer(
    help="Merge the weights of exported neural networks: two ONNX files of any width and depth in, one out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Forms of a result."""

    text = "text"
    json = "json"


class MatchFormat(StrEnum):
    """Forms of a match."""

    text = "text"
    json = "json"
    mermaid = "mermaid"
    dot = "dot"


class ScoreForms(StrEnum):
    """What a classifier's output holds."""

    logits = "logits"
    probabilities = "probabilities"


Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file.")]
Base = Annotated[str, typer.Argument(metavar="BASE", help="The ONNX file that gives the graph.")]
AsText = Annotated[Format, typer.Option("--format", help="Form of the result on stdout.")]
InputsFile = Annotated[str | None, typer.Option("--inputs", metavar="FILE.npz", help="Arrays for the probe runs.")]
InputShapes = Annotated[
    list[str] | None, typer.Option("--input-shape", metavar="NAME:1,3,64,64", help="Shape of a probe input.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")]
NoProve = Annotated[bool, typer.Option("--no-prove", help="Skip the proof; groups are reported as unproven.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, errors only.")]


@app.command()
def inspect(
    model: Model,
    format_: AsText = Format.text,
    full: Annotated[bool, typer.Option("--prove-full", help="Leave out every member in turn, not one a role.")] = False,
    inputs: InputsFile = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    no_prove: NoProve = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show a model's layers and axis groups, and prove the groups by running it."""
    graph = pipeline.load(model)
    with progress_bars(quiet) as report:
        probed = probe(graph, inputs=npz(inputs), input_shapes=shapes_of(input_shape), seed=seed)
        groups = axis_groups(graph, probed)
        if not no_prove:
            groups = prove(
                graph, groups, full=full, seed=seed, progress=lambda done, total: report("proving", done, total)
            )
    form = inspect_form(graph, groups)
    if format_ is Format.json:
        emit(form.json_text())
    else:
        print_inspection(form, verbose)


@app.command()
def match(
    base: Base,
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The ONNX file whose layers are looked up.")],
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write the result here.")] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="LAYER", help="Show a layer's candidates.")
    ] = None,
    matches: Annotated[str | None, typer.Option("--matches", metavar="FILE", help="Pairs to use instead.")] = None,
    format_: Annotated[MatchFormat, typer.Option("--format", help="Form of the result.")] = MatchFormat.text,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing FILE.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show which layer of BASE answers to which layer of DONOR, and why."""
    target = None if output is None else checked_target(output, [base, donor], force)
    a, b = pipeline.load(base), pipeline.load(donor)
    if explain is not None:
        print_candidates(a, b, explain, format_)
        return
    found = match_layers(a, b, read_pairs(matches))
    form = match_form(a, b, found)
    if format_ is MatchFormat.mermaid:
        drawn = mermaid(a, b, found)
    elif format_ is MatchFormat.dot:
        drawn = dot(a, b, found)
    else:
        drawn = form.json_text()
    if target is not None:
        write_text(target, drawn + "\n")
    if format_ is MatchFormat.text:
        print_match(form, verbose)
    elif target is None:
        emit(drawn)


@app.command()
def assemble(
    base: Base,
    donors: Annotated[list[str], typer.Argument(metavar="DONOR...", help="ONNX files merged into it, in order.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="Merged file; default BASE.merged.onnx here.")
    ] = None,
    lam: Annotated[float, typer.Option("--lambda", help="Merging factor: 0 is the base, 1 the donor.")] = 0.3,
    layers: Annotated[
        str | None,
        typer.Option("--layers", metavar="SELECTOR", help="Merge these only: a pattern, 0:5 or 0%:50%."),
    ] = None,
    pads: Annotated[str, typer.Option("--pads", help="Units without a partner: keep, fade or literal.")] = "keep",
    assume_ordered: Annotated[
        bool, typer.Option("--assume-ordered", help="Merge frozen axes as stored (models with a common ancestor).")
    ] = False,
    matches: Annotated[str | None, typer.Option("--matches", metavar="FILE", help="Pairs to use instead.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE.npz", help="Inputs and labels: score it.")] = None,
    report: Annotated[str | None, typer.Option("--report", metavar="FILE.json", help="Write the report here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be merged, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    format_: AsText = Format.text,
    inputs: InputsFile = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    no_prove: NoProve = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Merge the weights of DONORs into BASE and write one runnable ONNX file."""
    sources = [base, *donors]
    target = checked_target(output or default_output(base), sources, force, write=not dry_run)
    report_to = None if report is None else checked_target(report, [*sources, str(target)], force)
    arrays = npz(data)
    models = [pipeline.load(path) for path in sources]
    with progress_bars(quiet) as bars:
        result = pipeline.assemble(
            models[0],
            models[1:],
            data=arrays,
            progress=bars,
            lam=lam,
            pads=pads,
            layers=layers,
            matches=read_pairs(matches),
            assume_ordered=assume_ordered,
            proof=not no_prove,
            seed=seed,
            inputs=npz(inputs),
            input_shapes=shapes_of(input_shape),
        )
        if not dry_run:
            result = pipeline.write(result, target)
    hashes = {path: sha256_of(Path(path)) for path in sources}
    form = assemble_form(result, None if dry_run else target, hashes)
    if report_to is not None:
        write_text(report_to, form.json_text() + "\n")
    if format_ is Format.json:
        emit(form.json_text())
    else:
        print_assembly(form, verbose)
    if not result.passed:
        raise typer.Exit(GATE_FAILED)


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX files to score.")],
    data: Annotated[str, typer.Option("--data", metavar="FILE.npz", help="Inputs and labels.")],
    output: Annotated[str | None, typer.Option("--output", metavar="NAME", help="The output that fits labels.")] = None,
    scores: Annotated[ScoreForms | None, typer.Option("--scores", help="What the output holds.")] = None,
    format_: AsText = Format.text,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score models on labelled data: cross-entropy and accuracy, or squared error and R2."""
    arrays = read_npz(data)
    held: ScoreKind | None = None if scores is None else scores.value
    found = [evaluate_model(pipeline.load(path), arrays, arm=path, output=output, scores=held) for path in models]
    form = EvaluateForm(scores=[score_form(score) for score in found])
    if format_ is Format.json:
        emit(form.json_text())
        return
    for score in found:
        log(f"{score.arm}: output {score.output!r} read as {score.scores}", quiet)
    print_scores(form.scores, "model")


# --- input ------------------------------------------------------------------------------------------------------


def npz(path: str | None) -> dict[str, Any] | None:
    return None if path is None else read_npz(path)


def shapes_of(given: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """`name:1,3,64,64` as a shape by input name. Raises UsageError."""
    shapes = {}
    for text in given or []:
        name, _, dims = text.rpartition(":")
        try:
            shapes[name] = tuple(int(dim) for dim in dims.split(","))
        except ValueError:
            shapes[name] = ()
        if not name or not shapes[name] or min(shapes[name]) < 1:
            raise UsageError(f"--input-shape {text!r} is no shape: write NAME:1,3,64,64 with sizes from 1")
    return shapes or None


def read_pairs(path: str | None) -> tuple[tuple[str, str], ...] | None:
    """The pairs of a file that `match -o` wrote. Raises FileError or MatchError."""
    if path is None:
        return None
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        pairs = tuple((str(pair["base"]), str(pair["donor"])) for pair in document["pairs"])
    except OSError as error:
        raise FileError(f"cannot read the pairs in {path}: {error.strerror}; check the path") from None
    except (ValueError, KeyError, TypeError):
        raise FileError(
            f"cannot read the pairs in {path}: it is not the JSON that `mal-graph match -o FILE` writes"
        ) from None
    if not pairs:
        raise MatchError(f"{path} holds no pairs: add at least one entry to its list of pairs")
    return pairs


def default_output(base: str) -> str:
    """`base.onnx` gives `base.merged.onnx`, in the current folder."""
    name = Path(base).name
    return f"{name.removesuffix('.onnx')}.merged.onnx"


def checked_target(path: str, sources: list[str], force: bool, write: bool = True) -> Path:
    """A path that may be written. Raises FileError before any work is done."""
    target = Path(path)
    if any(same_file(target, Path(source)) for source in sources):
        raise FileError(f"cannot write {path}: it is one of the inputs; name another file with -o")
    if not write:
        return target
    if target.is_dir():
        raise FileError(f"cannot write {path}: it is a folder; name a file in it")
    if target.exists() and not force:
        raise FileError(f"cannot write {path}: it exists; use --force to overwrite it, or name another file")
    folder = target.parent
    if not folder.is_dir():
        raise FileError(f"cannot write {path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write {path}: folder {folder} is read-only; choose another")
    return target


def same_file(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FileError(f"cannot write {path}: {error.strerror}; choose another file") from None


# --- output -----------------------------------------------------------------------------------------------------


def console() -> Console:
    """stdout; as wide as its lines where nobody's terminal folds them."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def emit(text: str) -> None:
    """A result, as it is."""
    typer.echo(text)


def log(text: str, quiet: bool) -> None:
    if not quiet:
        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bars(quiet: bool) -> Iterator[pipeline.Progress]:
    """Progress on stderr, one bar for each thing that is done; nothing where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def table(*columns: str, title: str = "") -> Table:
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in ("units", "score", "loss", "accuracy", "R2", "metric", "parameters", "depth")
        made.add_column(column, justify="right" if right else "left", overflow="fold")
    return made


def print_inspection(form: InspectForm, verbose: bool) -> None:
    out = console()
    for side, values in (("input", form.inputs), ("output", form.outputs)):
        for value in values:
            out.print(f"{side:7} {value['name']}  {value['dtype']} {value['shape']}", markup=False)
    out.print("opset   " + ", ".join(f"{domain} {version}" for domain, version in form.opsets.items()), markup=False)
    out.print(f"{form.parameters:,} float parameters; {form.coverage:.1%} have a proven axis, ", end="")
    out.print(f"{form.coverage_full:.1%} are proven or pinned on every axis")
    layers = table("layer", "kind", "depth", "in group", "out group", title="\nlayers")
    for layer in form.layers:
        layers.add_row(layer.name, layer.kind, str(layer.depth), joined(layer.in_group), joined(layer.out_group))
    out.print(layers, markup=False)
    groups = table("group", "units", "state", "members", "deviation", "control", "reason", title="\naxis groups")
    for group in form.groups:
        if verbose or group.state != "pinned":
            inert = f" inert: {', '.join(group.inert)}" if group.inert else ""
            figures = [f"{figure:.1e}" if figure is not None else "" for figure in (group.deviation, group.control)]
            members = ", ".join(f"{m.tensor}[{m.axis}]" for m in group.members) if verbose else str(len(group.members))
            groups.add_row(group.name, str(group.units), group.state, members, *figures, group.reason + inert)
    out.print(groups, markup=False)
    pinned = sum(group.state == "pinned" for group in form.groups)
    if pinned and not verbose:
        out.print(f"and {pinned} pinned groups (inputs, outputs, kernel taps); -v lists them")
    for op, cost in form.unknown_ops.items():
        out.print(
            f"operator {op} has no axis rule: it freezes {cost['frozen_parameters']:,} parameters "
            f"(nodes {', '.join(cost['nodes'][:3])}{', ...' if len(cost['nodes']) > 3 else ''})",
            markup=False,
        )


def joined(group: str | list[str] | None) -> str:
    if group is None:
        return "-"
    return group if isinstance(group, str) else f"{group[0]} and {len(group) - 1} more"


def print_match(form: MatchForm, verbose: bool) -> None:
    out = console()
    pairs = table("base layer", "donor layer", "score", "in", "out", "relation", "reason")
    for pair in form.pairs:
        widths = [f"{a} : {b}" for a, b in (pair.widths["in"], pair.widths["out"])]
        pairs.add_row(pair.base, pair.donor, f"{pair.score:.2f}", *widths, pair.relation, pair.reason)
    out.print(pairs, markup=False)
    for side, layers in (("base", form.unmatched_base), ("donor", form.unmatched_donor)):
        for layer in layers:
            out.print(f"{side} layer {layer.layer} has no partner: {layer.reason}", markup=False)
    out.print(
        f"{len(form.pairs)} pairs, {form.matched_parameters:,} parameters of the base; "
        f"{len(form.unmatched_base)} layers of the base and {len(form.unmatched_donor)} of the donor are left"
    )


def print_candidates(base: LayerGraph, donor: LayerGraph, layer: str, format_: MatchFormat) -> None:
    found = explain_layer(base, donor, layer)
    if format_ is MatchFormat.json:
        listed = [{"donor": name, "score": score, "parts": parts} for name, score, parts in found]
        emit(json.dumps({"schema": "mal-graph/explain/1", "layer": layer, "candidates": listed}, indent=2))
        return
    if not found:
        emit(f"{donor.name} has no layer of the kind of {layer!r}")
        return
    rows = table("candidate", "score", *found[0][2], title=f"what {layer} could answer to")
    for name, score, parts in found:
        rows.add_row(name, f"{score:.3f}", *(f"{part:.2f}" for part in parts.values()))
    console().print(rows, markup=False)


def print_assembly(form: AssembleForm, verbose: bool) -> None:
    out = console()
    merged = table("merged layer", "with", "of", "relation", "matched")
    for layer in form.merged:
        merged.add_row(layer.base, layer.donor, layer.model, layer.relation, f"{layer.matched:.0%}")
    out.print(merged, markup=False)
    for layer in form.merged:
        for line in (*layer.dropped, *layer.missing):
            out.print(f"layer {layer.base}, not merged: {line}", markup=False)
    for skipped in form.skipped:
        out.print(f"layer {skipped.layer} keeps the base's weights: {skipped.reason}", markup=False)
    if verbose:
        aligned = table("base group", "donor group", "units", "assigned", "value", "random", title="\nalignment")
        for pair in form.alignment:
            figures = (f"{pair.value:.4g}", f"{pair.random:.4g}")
            aligned.add_row(
                pair.base_group, pair.donor_group, f"{pair.units[0]}:{pair.units[1]}", str(pair.assigned), *figures
            )
        out.print(aligned, markup=False)
    contributions = zip([form.base, *form.donors], form.shares, strict=True)
    out.print(
        f"{form.merged_parameters:,} parameters merged at lambda {form.lambda_:g}; shares: "
        + ", ".join(f"{name} {share:.1%}" for name, share in contributions),
        markup=False,
    )
    for name, verdict in form.checks.items():
        out.print(f"check {name}: {verdict}", markup=False)
    if form.scores:
        out.print()
        print_scores(form.scores, "arm")
    out.print(f"wrote {form.output}" if form.output else "dry run: nothing was written", markup=False)


def print_scores(scores: list[ScoreForm], what: str) -> None:
    rows = table(what, "loss", scores[0].metric_name, "samples")
    for score in scores:
        rows.add_row(score.arm, f"{score.loss:.4f}", f"{score.metric:.4f}", str(score.samples))
    console().print(rows, markup=False)


def main() -> None:
    """Run the command line; every error a user can cause becomes one sentence and exit code 2."""
    raise SystemExit(run(lambda: app(standalone_mode=True)))


def run(command: Callable[[], object]) -> int:
    try:
        command()
    except MalGraphError as error:
        log("error: " + "; ".join([str(error), *getattr(error, "__notes__", [])]), quiet=False)
        return BAD_INPUT
    except KeyboardInterrupt:
        log("stopped", quiet=False)
        return 130
    except BrokenPipeError:  # the reader of stdout left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    return GOOD
