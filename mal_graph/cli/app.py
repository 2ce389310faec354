"""The command line: `mal-graph inspect | match | assemble | evaluate | sweep | zoo`.

Results go to stdout, progress and log to stderr. Exit codes: 0 good, 1 a gate failed, 2 bad input or usage,
130 interrupted.
"""

import io
import json
import os
import re
import stat
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mal_graph import registry
from mal_graph.atomic_write import write_bytes, write_text
from mal_graph.cli.open_models import is_factory, opened
from mal_graph.errors import FileError, MalGraphError, MatchError, RunError, TraceWarning, UsageError
from mal_graph.evaluation import OutputKind, match_inputs, read_labels, read_npz
from mal_graph.evaluation import evaluate as evaluate_model
from mal_graph.graph import LayerGraph
from mal_graph.matching import explain_layer, match_layers
from mal_graph.network import probe, probe_without_running
from mal_graph.reporting import plots
from mal_graph.reporting.diagrams import dot, mermaid
from mal_graph.reporting.documents import (
    AssembleForm,
    EvaluateForm,
    GridForm,
    GroupForm,
    InspectForm,
    MatchForm,
    RepairForm,
    ScoreForm,
    SweepForm,
    ZooForm,
    assemble_form,
    grid_form,
    inspect_form,
    match_form,
    score_form,
    sha256_of,
    sweep_form,
    zoo_form,
)
from mal_graph.symmetry import axis_groups, check_resizes, verify
from mal_graph.workflows import assembly
from mal_graph.workflows.sweeping import EPS, lambdas_of
from mal_graph.workflows.sweeping import grid as sweep_grid
from mal_graph.workflows.sweeping import sweep as sweep_lambda
from mal_graph.workflows.zoo_search import CONTROLS, LAMBDAS, MIN_SCORE, files_in
from mal_graph.workflows.zoo_search import EPS as GATE_EPS
from mal_graph.workflows.zoo_search import zoo as assemble_zoo

GOOD, GATE_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
VERIFY_SECONDS = 600.0

app = typer.Typer(
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


# A model is an ONNX file, or a torch module that a function makes, named as package.module:factory.
Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file, or package.module:factory.")]
Base = Annotated[str, typer.Argument(metavar="BASE", help="The model that gives the graph.")]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="FILE", help="Weights (.safetensors, state dict) of a module; once for each."),
]
Matches = Annotated[
    str | None,
    typer.Option("--matches", metavar="FILE", help="Pairs of layers to use, as `match -o FILE` writes them."),
]
LayersOption = Annotated[
    str | None, typer.Option("--layers", metavar="SELECTOR", help="Merge these only: a pattern, 0:5 or 0%:50%.")
]
Pads = Annotated[str, typer.Option("--unmatched", help="Units without a partner: keep, fade or zero.")]
WidthOption = Annotated[str, typer.Option("--width", help="Where a donor is wider: base keeps the width, grow widens.")]
DepthOption = Annotated[
    str, typer.Option("--depth", help="Where a donor has more layers: match leaves them, expand adds some to the base.")
]
AssumeOrdered = Annotated[
    bool, typer.Option("--assume-ordered", help="Merge frozen axes as stored (models with a common ancestor).")
]
Calibrate = Annotated[
    str | None, typer.Option("--calibrate", metavar="FILE.npz", help="Unlabelled inputs: measure and repair on them.")
]
SignalOption = Annotated[
    str, typer.Option("--match-by", help="What says which units are alike: weights, activations or both.")
]
ScaleFree = Annotated[
    bool, typer.Option("--rescale-invariant", help="Compare units at unit size, where ReLU and the like leave it open.")
]
RepairOption = Annotated[
    bool, typer.Option("--repair/--no-repair", help="Whether to repair what was merged, with --calibrate.")
]
ScoreOutput = Annotated[
    str | None, typer.Option("--score-output", metavar="NAME", help="The output that fits the labels.")
]
ScoresOption = Annotated[ScoreForms | None, typer.Option("--scores", help="What that output holds.")]
AsText = Annotated[Format, typer.Option("--format", help="Form of the result on stdout.")]
InputsFile = Annotated[str | None, typer.Option("--inputs", metavar="FILE.npz", help="Arrays for the probe runs.")]
InputShapes = Annotated[
    list[str] | None, typer.Option("--input-shape", metavar="NAME:1,3,64,64", help="Shape of a probe input.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")]
Verify = Annotated[
    bool,
    typer.Option("--verify/--no-verify", help="Verify the axis groups by running the model, or leave them unverified."),
]
ProveTimeout = Annotated[
    float, typer.Option("--verify-timeout", metavar="SECONDS", min=0.0, help="What takes longer stays unverified.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option("--max-memory", metavar="SIZE", help="What a verification may take, as in 8GiB; else what is free."),
]
TraceInputs = Annotated[
    str | None, typer.Option("--inputs", metavar="FILE.npz", help="Arrays that a module is traced on.")
]
TraceShapes = Annotated[
    list[str] | None, typer.Option("--input-shape", metavar="NAME:1,3,64,64", help="Shape of an input to trace on.")
]
# Accepted by every verb, so that one set of flags serves all; nothing is run or drawn in these.
NoInputs = Annotated[str | None, typer.Option("--inputs", hidden=True)]
NoShapes = Annotated[list[str] | None, typer.Option("--input-shape", hidden=True)]
NoSeed = Annotated[int, typer.Option("--seed", min=0, hidden=True)]
NoProof = Annotated[bool, typer.Option("--verify/--no-verify", hidden=True)]
NoTimeout = Annotated[float, typer.Option("--verify-timeout", hidden=True)]
NoMemory = Annotated[str | None, typer.Option("--max-memory", hidden=True)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no log: the result and errors only.")]


def print_version(wanted: bool) -> None:
    if wanted:
        emit(f"mal-graph {registry.version()}")
        raise typer.Exit(GOOD)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Merge the weights of neural networks: two ONNX files or torch modules of any width and depth in, one out."""


@app.command()
def inspect(
    model: Model,
    format_: AsText = Format.text,
    full: Annotated[
        bool, typer.Option("--verify-full", help="Leave out every member in turn, not one a role.")
    ] = False,
    padding: Annotated[
        bool, typer.Option("--padding", help="Test what added units would do, and list the widths that must follow.")
    ] = False,
    weights: Weights = None,
    inputs: InputsFile = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    verification: Verify = True,
    verify_timeout: ProveTimeout = VERIFY_SECONDS,
    max_memory: MaxMemory = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show a model's layers and axis groups, and verify the groups by running it."""
    arrays, shapes, memory = npz(inputs), shapes_of(input_shape), bytes_of(max_memory)
    (graph,) = loaded([model], verbose, weights, inputs=arrays, shapes=shapes, seed=seed)
    with progress_bars(quiet) as report:
        try:
            probed = probe(graph, inputs=arrays, input_shapes=shapes, seed=seed, timeout=verify_timeout)
        except RunError as error:
            if arrays or shapes:
                raise
            log(f"warning: nothing can be said of its axes: {error}", quiet)
            probed = probe_without_running(graph)
        groups = axis_groups(graph, probed)
        if verification:
            groups = verify(
                graph,
                groups,
                full=full,
                seed=seed,
                progress=lambda done, total: report("verifying", done, total),
                timeout=verify_timeout,
                max_memory=memory,
            )
    form = inspect_form(
        graph, groups, check_resizes(graph, groups, seed=seed, timeout=verify_timeout) if padding else {}
    )
    if format_ is Format.json:
        emit(form.json_text())
    else:
        print_inspection(form, verbose)


@app.command()
def match(
    base: Base,
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The model whose layers are looked up.")],
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write the result here.")] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="LAYER", help="Show a layer's candidates.")
    ] = None,
    matches: Matches = None,
    format_: Annotated[MatchFormat, typer.Option("--format", help="Form of the result.")] = MatchFormat.text,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing FILE.")] = False,
    weights: Weights = None,
    inputs: TraceInputs = None,
    input_shape: TraceShapes = None,
    seed: Seed = 0,
    verification: NoProof = True,
    verify_timeout: NoTimeout = VERIFY_SECONDS,
    max_memory: NoMemory = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show which layer of BASE corresponds to which layer of DONOR, and why."""
    if explain is not None and (output is not None or format_ in (MatchFormat.mermaid, MatchFormat.dot)):
        raise UsageError("--explain lists the candidates of one layer, as text or json on stdout: give it alone")
    files = given(base, donor, matches, inputs, *(weights or ()))
    target = None if output is None else checked_target(output, files, force)
    pairs, shapes = read_pairs(matches), shapes_of(input_shape)
    a, b = loaded([base, donor], verbose, weights, inputs=npz(inputs), shapes=shapes, seed=seed)
    if explain is not None:
        print_candidates(a, b, explain, format_)
        return
    found = match_layers(a, b, pairs)
    form = match_form(a, b, found)
    if format_ is MatchFormat.mermaid:
        drawn = mermaid(a, b, found)
    elif format_ is MatchFormat.dot:
        drawn = dot(a, b, found)
    else:
        drawn = form.json_text()
    if target is not None:
        write_text(target, drawn + "\n")
        log(f"wrote {target}", quiet)
    if format_ is MatchFormat.text:
        print_match(form)
    elif target is None:
        emit(drawn)


@app.command()
def assemble(
    base: Base,
    donors: Annotated[list[str], typer.Argument(metavar="DONOR", help="Models merged into it, in order.")],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="Merged file, .onnx or the .safetensors of a module; default BASE.merged.onnx here.",
        ),
    ] = None,
    weights: Weights = None,
    lam: Annotated[
        str,
        typer.Option("--lambda", metavar="NUMBER", help="0 is the base, 1 the donor; 0.1,0.5 rises over the depth."),
    ] = "0.3",
    lam_for: Annotated[
        list[str] | None,
        typer.Option("--lambda-for", metavar="SELECTOR=NUMBER", help="The lambda of these layers; may be repeated."),
    ] = None,
    layers: LayersOption = None,
    unmatched: Pads = "fade",
    width: WidthOption = "base",
    depth: DepthOption = "match",
    assume_ordered: AssumeOrdered = False,
    matches: Matches = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE.npz", help="Inputs and labels: score it.")] = None,
    score_output: ScoreOutput = None,
    scores: ScoresOption = None,
    calibrate: Calibrate = None,
    match_by: SignalOption = "weights",
    rescale_invariant: ScaleFree = False,
    repair: RepairOption = True,
    report: Annotated[str | None, typer.Option("--report", metavar="FILE.json", help="Write the report here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be merged; write no model.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    format_: AsText = Format.text,
    inputs: InputsFile = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    verification: Verify = True,
    verify_timeout: ProveTimeout = VERIFY_SECONDS,
    max_memory: MaxMemory = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Merge the weights of DONORs into BASE and write one runnable ONNX file."""
    sources = [base, *donors]
    files = given(*sources, matches, data, calibrate, inputs, *(weights or ()))
    target = merged_target(output, base, files, force, write=not dry_run)
    report_to = None if report is None else checked_target(report, files, force)
    if report_to is not None and same_file(report_to, target):
        raise FileError(f"cannot write the report to {report}: the merged model goes there; name another file")
    arrays, probe_inputs, pairs, memory = npz(data), npz(inputs), read_pairs(matches), bytes_of(max_memory)
    shapes, unlabelled = shapes_of(input_shape), npz(calibrate)
    examples = unlabelled if arrays is None else arrays
    models = loaded(sources, verbose, weights, inputs=probe_inputs, shapes=shapes, data=examples, seed=seed)
    if arrays is not None:  # found out before the work, not after it
        read_labels(arrays)
        match_inputs(models[0], arrays)
    with progress_bars(quiet) as bars:
        result = assembly.assemble(
            models[0],
            models[1:],
            data=arrays,
            progress=bars,
            lam=lambda_over_depth(lam),
            lam_for=lambdas_by_selector(lam_for),
            unmatched=unmatched,
            width=width,
            depth=depth,
            layers=layers,
            matches=pairs,
            assume_ordered=assume_ordered,
            verify=verification,
            verify_timeout=verify_timeout,
            max_memory=memory,
            seed=seed,
            inputs=probe_inputs,
            input_shapes=shapes,
            output=score_output,
            scores=None if scores is None else scores.value,
            calibrate=unlabelled,
            match_by=match_by,
            repair=repair,
            rescale_invariant=rescale_invariant,
        )
    hashes = {path: sha256_of(Path(path)) for path in (*sources, *(weights or ())) if not is_factory(path)}
    if not dry_run:
        result = assembly.write(result, target)
    is_written = result.passed and not dry_run
    form = assemble_form(result, target if is_written else None, hashes)
    if report_to is not None:
        write_text(report_to, form.json_text() + "\n")
    if format_ is Format.json:
        emit(form.json_text())
    else:
        print_assembly(form, verbose)
    if not result.passed:
        failed = [f"{name} {verdict}" for name, verdict in result.checks.items() if verdict.startswith("failed")]
        log(
            f"error: no merged model was written: {'; '.join(failed)}; try a smaller --lambda or other --layers",
            quiet=False,
        )
        raise typer.Exit(GATE_FAILED)


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Models to score.")],
    data: Annotated[str, typer.Option("--data", metavar="FILE.npz", help="Inputs and labels.")],
    output: Annotated[str | None, typer.Option("--output", metavar="NAME", help="The output that fits labels.")] = None,
    scores: Annotated[ScoreForms | None, typer.Option("--scores", help="What the output holds.")] = None,
    format_: AsText = Format.text,
    weights: Weights = None,
    inputs: NoInputs = None,
    input_shape: NoShapes = None,
    seed: NoSeed = 0,
    verification: NoProof = True,
    verify_timeout: NoTimeout = VERIFY_SECONDS,
    max_memory: NoMemory = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score models on labelled data: cross-entropy and accuracy, or squared error and R2."""
    arrays = read_npz(data)
    held: OutputKind | None = None if scores is None else scores.value
    found = []
    graphs = loaded(models, verbose, weights, data=arrays)
    with progress_bars(quiet) as bars:
        for done, (path, graph) in enumerate(zip(models, graphs, strict=True)):
            bars("scoring the models", done, len(models))
            found.append(evaluate_model(graph, arrays, arm=path, score_output=output, output_kind=held))
    form = EvaluateForm(scores=[score_form(score) for score in found])
    if format_ is Format.json:
        emit(form.json_text())
        return
    for score in form.scores:
        emit(f"{score.arm}: output {score.output!r} is read as {score.scores}")
    emit("")
    print_scores(form.scores, "model")


@app.command()
def sweep(
    base: Base,
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The model merged into it.")],
    data: Annotated[str, typer.Option("--data", metavar="FILE.npz", help="Inputs and labels.")],
    lambdas: Annotated[
        str | None, typer.Option("--lambdas", metavar="0:1:0.05", help="From, to and step, or a list 0,0.1,0.5.")
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write a .json, .csv, .svg or .png; several may be given."),
    ] = None,
    eps: Annotated[float, typer.Option("--eps", help="How much more loss than the base's lambda* may cost.")] = EPS,
    grid: Annotated[
        bool, typer.Option("--grid", help="Merge one base layer with one donor layer at a time, at --lambda.")
    ] = False,
    lam: Annotated[float, typer.Option("--lambda", help="Merging factor of --grid.")] = 0.3,
    layers: LayersOption = None,
    unmatched: Pads = "fade",
    width: WidthOption = "base",
    depth: DepthOption = "match",
    assume_ordered: AssumeOrdered = False,
    matches: Matches = None,
    score_output: ScoreOutput = None,
    scores: ScoresOption = None,
    calibrate: Calibrate = None,
    match_by: SignalOption = "weights",
    rescale_invariant: ScaleFree = False,
    repair: RepairOption = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    format_: AsText = Format.text,
    weights: Weights = None,
    inputs: InputsFile = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    verification: Verify = True,
    verify_timeout: ProveTimeout = VERIFY_SECONDS,
    max_memory: MaxMemory = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score the merge of DONOR into BASE along lambda, beside what plain and random merges give."""
    if grid and (lambdas, layers, matches, width, depth) != (None, None, None, "base", "match"):
        raise UsageError(
            "--grid merges every layer with every layer at one --lambda: give no --lambdas, no selection, no growth"
        )
    if grid and (calibrate, match_by, rescale_invariant) != (None, "weights", False):
        raise UsageError(
            "--grid compares and merges weights as they are: give no --calibrate, --match-by, --rescale-invariant"
        )
    files = given(base, donor, matches, data, calibrate, inputs, *(weights or ()))
    targets = [checked_result(path, files, force) for path in output or []]
    chosen = lambdas_of("0:1:0.05" if lambdas is None else lambdas)
    arrays, probe_inputs, pairs, memory = read_npz(data), npz(inputs), read_pairs(matches), bytes_of(max_memory)
    shapes, unlabelled = shapes_of(input_shape), npz(calibrate)
    a, b = loaded([base, donor], verbose, weights, inputs=probe_inputs, shapes=shapes, data=arrays, seed=seed)
    match_inputs(a, arrays)  # found out before the work, not after it
    with progress_bars(quiet) as bars:
        options: dict[str, Any] = {
            "unmatched": unmatched,
            "assume_ordered": assume_ordered,
            "verify": verification,
            "verify_timeout": verify_timeout,
            "max_memory": memory,
            "seed": seed,
            "inputs": probe_inputs,
            "input_shapes": shapes,
            "output": score_output,
            "scores": None if scores is None else scores.value,
            "progress": bars,
        }
        if grid:
            cells = sweep_grid(a, b, arrays, lam=lam, **options)
            form: SweepForm | GridForm = grid_form(cells)
            drawn: Callable[[str], bytes] = partial(plots.heat_map, cells)
        else:
            options |= {"width": width, "depth": depth, "layers": layers, "matches": pairs}
            options |= {
                "calibrate": unlabelled,
                "match_by": match_by,
                "repair": repair,
                "rescale_invariant": rescale_invariant,
            }
            found = sweep_lambda(a, b, arrays, lambdas=chosen, eps=eps, **options)
            form, drawn = sweep_form(found), partial(plots.curves, found)
    for target in targets:
        write_result(target, form, drawn)
        log(f"wrote {target}", quiet)
    if format_ is Format.json:
        emit(form.json_text())
    elif isinstance(form, GridForm):
        print_grid(form, verbose)
    else:
        print_sweep(form)


@app.command()
def zoo(
    base: Base,
    folder: Annotated[str, typer.Argument(metavar="ZOO_DIR", help="A folder of .onnx files, taken by name.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE.npz", help="Held-out inputs and labels; half decides, half is reported."),
    ] = None,
    report_data: Annotated[
        str | None, typer.Option("--report-data", metavar="FILE.npz", help="Report on these; all of --data decides.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="OUT", help="Merged file; default BASE.merged.onnx here."),
    ] = None,
    lambdas: Annotated[
        str, typer.Option("--lambdas", metavar="LIST", help="Merging factors to try: a list, or from:to:step.")
    ] = ",".join(map(str, LAMBDAS)),
    eps: Annotated[
        float, typer.Option("--eps", help="How far accuracy, R2 or agreement may fall below the base's.")
    ] = GATE_EPS,
    min_score: Annotated[
        float, typer.Option("--min-score", help="Without data: what a pair of layers must score to be merged.")
    ] = MIN_SCORE,
    controls: Annotated[
        int, typer.Option("--controls", min=0, help="How many shuffled copies of a donor it has to be better than.")
    ] = CONTROLS,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="STATE.json", help="Keeps every decision; default OUT.zoo.json."),
    ] = None,
    unmatched: Pads = "fade",
    width: WidthOption = "base",
    depth: DepthOption = "match",
    assume_ordered: AssumeOrdered = False,
    score_output: ScoreOutput = None,
    scores: ScoresOption = None,
    calibrate: Calibrate = None,
    match_by: SignalOption = "weights",
    rescale_invariant: ScaleFree = False,
    repair: RepairOption = True,
    report: Annotated[str | None, typer.Option("--report", metavar="FILE.json", help="Write the report here.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite existing files, and a state of another search.")
    ] = False,
    format_: AsText = Format.text,
    weights: Weights = None,
    inputs: InputsFile = None,
    input_shape: InputShapes = None,
    seed: Seed = 0,
    verification: Verify = True,
    verify_timeout: ProveTimeout = VERIFY_SECONDS,
    max_memory: MaxMemory = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Merge into BASE what the models of ZOO_DIR have to give, as far as held-out data say that it helps.

    Every decision is kept in a state file: the same command, given again after an interruption, goes on from there.
    """
    donors = [str(path) for path in files_in(Path(folder))]
    files = given(base, *donors, data, report_data, calibrate, inputs, *(weights or ()))
    target = merged_target(output, base, files, force)
    state = checked_target(f"{target}.zoo.json" if resume is None else resume, files, force=True)
    report_to = None if report is None else checked_target(report, files, force)
    if len({os.path.realpath(path) for path in (target, state, report_to) if path}) < (3 if report_to else 2):
        raise FileError("cannot write the model, its state and the report to one file: name another for each")
    arrays, reported, probe_inputs, shapes = npz(data), npz(report_data), npz(inputs), shapes_of(input_shape)
    memory, factors, unlabelled = bytes_of(max_memory), lambdas_of(lambdas), npz(calibrate)
    examples = unlabelled if arrays is None else arrays
    (graph,) = loaded([base], verbose, weights, inputs=probe_inputs, shapes=shapes, data=examples, seed=seed)
    try:
        with progress_bars(quiet) as bars:
            found = assemble_zoo(
                graph,
                folder,
                arrays,
                report_data=reported,
                lambdas=factors,
                eps=eps,
                min_score=min_score,
                controls=controls,
                state=state,
                restart=force,
                unmatched=unmatched,
                width=width,
                depth=depth,
                assume_ordered=assume_ordered,
                verify=verification,
                verify_timeout=verify_timeout,
                max_memory=memory,
                seed=seed,
                inputs=probe_inputs,
                input_shapes=shapes,
                output=score_output,
                scores=None if scores is None else scores.value,
                calibrate=unlabelled,
                match_by=match_by,
                repair=repair,
                rescale_invariant=rescale_invariant,
                progress=bars,
            )
    except KeyboardInterrupt:
        log(f"interrupted: what was decided is in {state}; the same command goes on from there", quiet=False)
        raise typer.Exit(INTERRUPTED) from None
    result = found.assembly
    if result.merged:
        result = assembly.write(result, target)
    is_written = bool(result.merged) and result.passed
    hashes = {path: sha256_of(Path(path)) for path in files if not is_factory(path)}
    form = zoo_form(replace(found, assembly=result), target if is_written else None, state, hashes)
    if report_to is not None:
        write_text(report_to, form.json_text() + "\n")
    if format_ is Format.json:
        emit(form.json_text())
    else:
        print_zoo(form, verbose)
    if not is_written:
        failed = [f"{name} {verdict}" for name, verdict in result.checks.items() if verdict.startswith("failed")]
        why = "; ".join(failed) or f"no donor passed the gate, and {base} stays as it is"
        log(f"error: no merged model was written: {why}", quiet=False)
        raise typer.Exit(GATE_FAILED)


# --- input ------------------------------------------------------------------------------------------------------


def loaded(models: Sequence[str], verbose: bool, weights: Sequence[str] | None, **examples: Any) -> list[LayerGraph]:
    """The models a command names (see `sources.opened`); what tracing warns of goes to stderr as one line each."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TraceWarning)
        graphs = opened(models, weights or [], **examples)
    for warning in said:
        log(f"warning: {warning.message}", quiet=False)
    for path, graph in zip(models, graphs, strict=True):
        if verbose:
            size = sum(weight.size for weight in graph.weights.values() if weight.is_float)
            log(f"loaded {path}: {len(graph.nodes)} operators, {size:,} float parameters", quiet=False)
    return graphs


def given(*paths: str | None) -> list[str]:
    """The files a command reads, none of which it may write."""
    return [path for path in paths if path is not None]


def npz(path: str | None) -> dict[str, Any] | None:
    return None if path is None else read_npz(path)


def shapes_of(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """`name:1,3,64,64` as a shape by input name. Raises UsageError."""
    shapes = {}
    for text in texts or []:
        name, _, dims = text.rpartition(":")
        try:
            shapes[name] = tuple(int(dim) for dim in dims.split(","))
        except ValueError:
            shapes[name] = ()
        if not name or not shapes[name] or min(shapes[name]) < 1:
            raise UsageError(f"--input-shape {text!r} is no shape: write NAME:1,3,64,64 with sizes from 1")
    return shapes or None


def lambda_over_depth(text: str) -> float | list[float]:
    """A merging factor, or several over the depth of the base. Raises UsageError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--lambda {text!r} is no merging factor: write a number such as 0.3, or several over the depth of the "
            "base such as 0.1,0.3,0.5"
        ) from None
    return found if len(found) > 1 else found[0]


def lambdas_by_selector(texts: list[str] | None) -> dict[str, float]:
    """`SELECTOR=0.5` as merging factors by selector. Raises UsageError."""
    found = {}
    for text in texts or []:
        selector, _, number = text.rpartition("=")
        try:
            found[selector] = float(number)
        except ValueError:
            selector = ""
        if not selector:
            raise UsageError(f"--lambda-for {text!r} names no layers and number: write SELECTOR=0.5, as in 'conv*=0.5'")
    return found


def bytes_of(text: str | None) -> int | None:
    """`8GiB`, `500MB` or a number of bytes as bytes. Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(f"--max-memory {text!r} is no size: write a number of bytes, or 500MB, or 8GiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def read_pairs(path: str | None) -> tuple[tuple[str, str], ...] | None:
    """The pairs of a file that `match -o` wrote. Raises FileError or MatchError."""
    if path is None:
        return None
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        pairs = tuple((str(pair["base"]), str(pair["donor"])) for pair in document["pairs"])
    except OSError as error:
        raise FileError(f"cannot read the pairs in {path}: {error.strerror}; check the path") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FileError(
            f"cannot read the pairs in {path}: it is not the JSON that `mal-graph match -o FILE` writes"
        ) from None
    if not pairs:
        raise MatchError(f"{path} holds no pairs: add at least one entry to its list of pairs")
    return pairs


def default_output(base: str) -> str:
    """`base.onnx` gives `base.merged.onnx` and `package:factory` gives `factory.merged.onnx`, in the current folder."""
    name = base.rpartition(":")[2] if is_factory(base) else Path(base).name
    return f"{name.removesuffix('.onnx')}.merged.onnx"


def merged_target(output: str | None, base: str, sources: Sequence[str], force: bool, write: bool = True) -> Path:
    """Where the merged model goes. Raises FileError before any work is done."""
    path = default_output(base) if output is None else output
    if path.endswith(".safetensors") and not is_factory(base):
        raise FileError(f"cannot write {path}: {base} was not traced from a torch module; name an .onnx file")
    return checked_target(path, sources, force, write)


def checked_target(path: str, sources: Sequence[str], force: bool, write: bool = True) -> Path:
    """A path that may be written. Raises FileError before any work is done."""
    target = Path(path)
    if any(same_file(path, source) for source in sources):
        raise FileError(f"cannot write {path}: it is one of the inputs; name another file")
    if not write:
        return target
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = 0
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise FileError(f"cannot write {path}: {getattr(error, 'strerror', error)}; name another file") from None
    folder = target.parent
    if not path or stat.S_ISDIR(mode):
        raise FileError(f"cannot write {path or repr('')}: it is a folder; name a file in it")
    if mode and not stat.S_ISREG(mode):
        raise FileError(f"cannot write {path}: it is not a regular file; name another one")
    if mode and not force:
        raise FileError(f"cannot write {path}: it exists; use --force to overwrite it, or name another file")
    if path.endswith("/") or not folder.is_dir():
        missing = path if path.endswith("/") else folder
        raise FileError(f"cannot write {path}: there is no folder {missing}; create it first")
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write {path}: folder {folder} is read-only; choose another")
    if not mode and os.path.exists(f"{path}.data"):  # where big weights go; it may be those of an input
        raise FileError(f"cannot write {path}: {path}.data exists and belongs to another model; name another file")
    return target


def checked_result(path: str, sources: Sequence[str], force: bool) -> Path:
    """A path that a sweep may be written to. Raises FileError or UsageError before any work is done."""
    target = checked_target(path, sources, force)
    kind = target.suffix.removeprefix(".")
    if kind not in ("json", "csv", *plots.IMAGES):
        raise UsageError(f"cannot write a sweep to {path}: its name must end in .json, .csv, .svg or .png")
    if kind in plots.IMAGES:
        plots.new_figure(1, 1)
    return target


def write_result(path: Path, form: SweepForm | GridForm, drawn: Callable[[str], bytes]) -> None:
    """Write a sweep in the form that the file's name ends in."""
    kind = path.suffix.removeprefix(".")
    if kind in plots.IMAGES:
        write_bytes(path, drawn(kind))
    else:
        write_text(path, form.csv_text() if kind == "csv" else form.json_text() + "\n")


def same_file(a: str | Path, b: str | Path) -> bool:
    """Whether two paths lead to one file, through links too."""
    try:
        return os.path.realpath(a) == os.path.realpath(b) or os.path.samefile(a, b)
    except (OSError, ValueError):
        return False


# --- output -----------------------------------------------------------------------------------------------------


def emit(text: str) -> None:
    """A part of the result, on stdout. Nothing more is written once its reader has left, as `head` does."""
    try:
        typer.echo(printable(text))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log(text: str, quiet: bool) -> None:
    """A sentence on stderr, on one line."""
    if not quiet:
        typer.echo(printable(text.replace("\n", " ")), err=True)


def printable(text: str) -> str:
    """Without control characters, which a hostile name may carry to the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


@contextmanager
def progress_bars(quiet: bool) -> Iterator[assembly.Progress]:
    """Progress on stderr, one bar for each thing under way; nothing where stderr is no terminal."""
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *times)
    options: dict[str, Any] = {"transient": True, "speed_estimate_period": 3600.0}  # a step may take minutes
    hidden = quiet or not sys.stderr.isatty()  # rich's own test says yes wherever colours are forced
    with Progress(*columns, console=Console(stderr=True), disable=hidden, **options) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total)

        yield report


NUMBERS = {"lambda", "units", "score", "loss", "accuracy", "R2", "depth", "matched", "assigned", "value", "random"}
NUMBERS |= {"cross-entropy", "mean squared error", "mean entropy", "agreement", "metric", "shuffled"}


def table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in NUMBERS else "left", overflow="fold")
    return made


def emit_table(rows: Table) -> None:
    """A table, folded to the width of a terminal, else as wide as it is; rich lays out some thousand rows a second."""
    if sys.stdout.isatty():
        buffer = io.StringIO()
        width = Console().width
        Console(file=buffer, width=width, highlight=False, markup=False, emoji=False, color_system=None).print(rows)
        lines = buffer.getvalue().splitlines()
    else:
        columns = [
            [printable(str(cell).replace("\n", " ")) for cell in (column.header, *column.cells)]
            for column in rows.columns
        ]
        padded = [justified(cells, column.justify) for cells, column in zip(columns, rows.columns, strict=True)]
        lines = ["  ".join(cells) for cells in zip(*padded, strict=True)]
    emit("\n".join(line.rstrip() for line in lines))


def justified(cells: Sequence[str], side: str) -> list[str]:
    """Cells of one column, as wide as the widest, in places of a terminal."""
    width = max(map(cell_len, cells))
    blanks = [" " * (width - cell_len(cell)) for cell in cells]
    return [blank + cell if side == "right" else cell + blank for cell, blank in zip(cells, blanks, strict=True)]


def print_inspection(form: InspectForm, verbose: bool) -> None:
    for side, values in (("input", form.inputs), ("output", form.outputs)):
        for value in values:
            emit(f"{side:7} {value['name']} {value['dtype']} {shape_text(value['shape'])}")
    emit("opset   " + ", ".join(f"{domain} {version}" for domain, version in form.opsets.items()))
    emit(
        f"{form.parameters:,} float parameters; {form.coverage:.1%} have a verified axis, "
        f"{form.coverage_full:.1%} are verified or pinned on every axis"
    )
    emit("\nlayers")
    layers = table("layer", "kind", "depth", "in group", "out group")
    for layer in form.layers:
        layers.add_row(layer.name, layer.kind, str(layer.depth), joined(layer.in_group), joined(layer.out_group))
    emit_table(layers)
    emit("\naxis groups")
    groups = table("group", "units", "state", "members", "deviation", "control", "reason")
    for alike in families(form.groups, apart=verbose):
        group = alike[0]
        if verbose or group.state != "pinned":
            notes = [group.reason] if group.reason else []
            if group.inside:
                notes.append(f"inside {group.inside[0]}" + (f", unit {group.inside[1]}" if verbose else ""))
            if group.inert:
                notes.append(f"inert: {', '.join(group.inert)}")
            figures = [f"{figure:.1e}" if figure is not None else "" for figure in (group.deviation, group.control)]
            members = ", ".join(f"{m.tensor}[{m.axis}]" for m in group.members) if verbose else str(len(group.members))
            units = f"{len(alike)} x {group.units}" if len(alike) > 1 else str(group.units)
            groups.add_row(group.name, units, group.state, members, *figures, "; ".join(notes))
    emit_table(groups)
    if any(group.padding for group in form.groups):
        emit("\nunits added to a group")
        added = table("group", "what they do", "widths that must follow")
        for alike in families(form.groups, apart=verbose):
            if alike[0].padding is not None:
                added.add_row(alike[0].name, alike[0].padding, ", ".join(alike[0].widths))
        emit_table(added)
    pinned = sum(group.state == "pinned" for group in form.groups)
    if pinned and not verbose:
        emit(f"and {pinned} pinned groups (inputs, outputs, kernel taps); -v lists them")
    for op, cost in form.unknown_ops.items():
        nodes = ", ".join(cost["nodes"][:3]) + (", ..." if len(cost["nodes"]) > 3 else "")
        emit(f"operator {op} has no axis rule: it freezes {cost['frozen_parameters']:,} parameters (nodes {nodes})")


def families(groups: Sequence[GroupForm], apart: bool) -> list[list[GroupForm]]:
    """The groups, those that the units of one group hold alike together; each by itself if `apart`."""
    found: dict[tuple[object, ...], list[GroupForm]] = {}
    for group in groups:
        axes = tuple((member.tensor, member.axis) for member in group.members)
        alike = group.inside is not None and not apart
        key = (group.inside[0], group.units, group.state, axes) if alike and group.inside else (group.name,)
        found.setdefault(key, []).append(group)
    return list(found.values())


def shape_text(shape: Sequence[int | str | None] | None) -> str:
    return "of any shape" if shape is None else f"({', '.join(str(dim or '?') for dim in shape)})"


def joined(group: str | list[str] | None) -> str:
    if group is None:
        return "-"
    return group if isinstance(group, str) else f"{group[0]} and {len(group) - 1} more"


def print_match(form: MatchForm) -> None:
    pairs = table("base layer", "donor layer", "score", "in", "out", "relation", "reason")
    for pair in form.pairs:
        widths = [f"{a} : {b}" for a, b in (pair.widths["in"], pair.widths["out"])]
        pairs.add_row(pair.base, pair.donor, f"{pair.score:.2f}", *widths, pair.relation, pair.reason)
    emit_table(pairs)
    for side, layers in (("base", form.unmatched_base), ("donor", form.unmatched_donor)):
        for layer in layers:
            emit(f"{side} layer {layer.layer} has no partner: {layer.reason}")
    emit(
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
    emit(f"what layer {layer} could correspond to, best first; the parts of the score are between 0 and 1")
    rows = table("candidate", "score", *found[0][2])
    for name, score, parts in found:
        rows.add_row(name, f"{score:.3f}", *(f"{part:.2f}" for part in parts.values()))
    emit_table(rows)


def print_assembly(form: AssembleForm, verbose: bool) -> None:
    """What was merged, what not and why, and how good it is; the scores come last."""
    several = len({layer.factor for layer in form.merged}) > 1
    merged = table("merged layer", "with", "of", "relation", "matched", *(["lambda"] if several else []))
    for layer in form.merged:
        own = [f"{layer.factor:g}"] if several else []
        merged.add_row(layer.base, layer.donor, layer.model, layer.relation, f"{layer.matched:.0%}", *own)
    emit_table(merged)
    for layer in form.merged:
        for line in (*layer.dropped, *layer.missing):
            emit(f"layer {layer.base}, not merged: {line}")
    for skipped in form.skipped:
        emit(f"layer {skipped.layer} keeps the base's weights: {skipped.reason}")
    for unmatched in form.unmatched_donor:
        emit(f"donor layer {unmatched.layer} is not used: {unmatched.reason}")
    for group in form.grown:
        where = f" in each unit of {group.inside}" if group.inside else ""
        emit(f"group {group.group} grows from {group.units[0]} to {group.units[1]} units{where}")
    for name in form.added_layers:
        emit(f"layer {name} is added to the base, whose function it leaves as it is")
    for window in form.windows:
        old, new = ("x".join(map(str, taps)) for taps in window.taps)
        emit(f"layer {window.layer} grows from {old} to {new} taps")
    for kept in form.kept_widths:
        emit(f"group {kept.group} keeps its {kept.units} units, though {kept.donor} has others: {kept.reason}")
    print_repair(form.repair)
    if verbose:
        emit("\nalignment (the summed inner products of paired units, and of units paired at random)")
        aligned = table("base group", "donor group", "units", "assigned", "value", "random")
        for pair in form.alignment:
            figures = (f"{pair.value:.4g}", f"{pair.random:.4g}")
            units = f"{pair.units[0]}{f' + {pair.added}' if pair.added else ''} : {pair.units[1]}"
            aligned.add_row(pair.base_group, pair.donor_group, units, str(pair.assigned), *figures)
        emit_table(aligned)
        for start in form.starts:
            passes = " -> ".join(f"{objective:.6g}" for objective in start.objective)
            emit(f"start {start.start}: objective {passes}")
        emit("")
    contributions = zip([form.base, *form.donors], form.shares, strict=True)
    emit(
        f"{form.merged_parameters:,} parameters merged at {'a mean ' if several else ''}lambda {form.lambda_:g}; "
        "shares: " + ", ".join(f"{name} {share:.1%}" for name, share in contributions)
    )
    for name, verdict in form.checks.items():
        emit(f"check {name}: {verdict}")
    for note in form.notes:
        emit(f"note: {note}")
    emit(f"wrote {form.output}" if form.output else "no model was written")
    if form.scores:
        emit("")
        print_scores(form.scores, "arm")


def print_repair(repairs: Sequence[RepairForm]) -> None:
    for done in repairs:
        emit(
            f"repaired after {done.donor} on {done.samples} samples: {len(done.rescaled)} layers brought to "
            f"their goals, {len(done.reset)} BatchNormalizations measured anew"
        )
        for left in done.left:
            emit(f"layer {left.layer} is not repaired: {left.reason}")


def print_sweep(form: SweepForm) -> None:
    """Loss and metric of every arm at every lambda, what they amount to, and what is wrong."""
    emit(f"{form.donor} into {form.base}: {form.samples} samples; loss is {form.loss_name}, with {form.metric_name}")
    print_repair(form.repair)
    names = [curve.arm for curve in form.arms]
    rows = Table(box=None, pad_edge=False)
    for column in ("lambda", *names):
        rows.add_column(column, justify="right")
    for i, lam in enumerate(form.lambdas):
        rows.add_row(f"{lam:g}", *(f"{curve.loss[i]:.4f}  {curve.metric[i]:.4f}" for curve in form.arms))
    emit_table(rows)
    if form.donor_scores is not None:
        emit(f"the donor alone: loss {form.donor_scores.loss:.4f}, {form.metric_name} {form.donor_scores.metric:.4f}")
    else:
        emit(f"the donor alone has no score: {form.unscored}")
    emit("")
    emit(f"lambda*: up to where the loss is never more than {form.eps:g} above the base's")
    summary = table("arm", "lambda*", "largest rise", "barrier")
    for curve in form.arms:
        barrier = "-" if curve.barrier is None else f"{curve.barrier:.4f}"
        summary.add_row(curve.arm, f"{curve.lambda_star:g}", f"{curve.rise:.4f}", barrier)
    emit_table(summary)
    for finding in form.findings:
        emit(f"finding: {finding}")
    for note in form.notes:
        emit(f"note: {note}")


def print_zoo(form: ZooForm, verbose: bool) -> None:
    """What became of every donor and why, and how good the result is; the scores come last."""
    loss, metric = (form.gate.base.loss_name, form.gate.base.metric_name) if form.gate else ("loss", "metric")
    rows = table("donor", "", "merged", "lambda", loss, metric, "shuffled")
    for outcome in form.donors:
        kept = outcome.kept
        numbers = [] if kept is None else [f"{kept.factor:g}", *map(score_text, (kept.loss, kept.metric, kept.control))]
        rows.add_row(outcome.donor, outcome.verdict, "" if kept is None else kept.name, *numbers)
    emit_table(rows)
    for outcome in form.donors:
        if outcome.kept is None:
            emit(f"{outcome.donor} is {outcome.verdict}: {outcome.reason}")
    if any(outcome.kept and outcome.kept.control is not None for outcome in form.donors):
        emit(f'"shuffled" is the lowest {loss} of {form.controls} copies of the donor with shuffled weights')
    if verbose:
        emit("")
        tried = table("donor", "candidate", "lambda", loss, metric)
        for outcome in form.donors:
            for one in outcome.candidates:
                for p in one.points:
                    tried.add_row(outcome.donor, one.name, f"{p.factor:g}", *map(score_text, (p.loss, p.metric)))
        emit_table(tried)
    emit("")
    print_repair(form.repair)
    emit(f"decided by {form.decided_by}")
    if form.gate is None:
        emit(f"merged were layers that score {form.min_score:g} or more, at the smallest lambda")
    else:
        first, last = form.gate.base, form.gate.result
        emit(
            f"on the {form.gate.samples} samples that decided: {loss} {last.loss:.4f}, the base's {first.loss:.4f}; "
            f"{metric} {last.metric:.4f}, the base's {first.metric:.4f}, which may be missed by {form.gate.eps:g}"
        )
    for name, verdict in form.checks.items():
        emit(f"check {name}: {verdict}")
    for note in form.notes:
        emit(f"note: {note}")
    emit(f"wrote {form.output}" if form.output else "no model was written")
    if form.scores:
        emit("\non samples that decided nothing:")
        print_scores(form.scores, "arm")


def score_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def print_grid(form: GridForm, verbose: bool) -> None:
    """The change of the loss by base and donor layer."""
    emit(f"change of the loss, {form.base_loss:.4f} in the base, by merging one layer with one at {form.lambda_:g}")
    rows = Table(box=None, pad_edge=False)
    for column in ("base layer", *form.donor_layers):
        rows.add_column(column, justify="left" if column == "base layer" else "right", overflow="fold")
    blank = {(pair.base, pair.donor) for pair in form.blank}
    for name, line in zip(form.base_layers, form.change, strict=True):
        cells = zip(form.donor_layers, line, strict=True)
        rows.add_row(name, *("-" if (name, other) in blank else f"{change:+.4f}" for other, change in cells))
    emit_table(rows)
    for pair in form.blank if verbose else ():
        emit(f"{pair.base} with {pair.donor}: {pair.reason}")
    if form.blank and not verbose:
        emit(f"{len(form.blank)} pairs cannot be merged; -v says why")


def print_scores(scores: list[ScoreForm], what: str) -> None:
    emit(f"{scores[0].samples} samples; loss is {scores[0].loss_name}")
    rows = table(what, "loss", scores[0].metric_name)
    for score in scores:
        rows.add_row(score.arm, f"{score.loss:.4f}", f"{score.metric:.4f}")
    emit_table(rows)


# --- running ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default on this process's arguments, and return its exit code.

    Every error a user can cause becomes one sentence on stderr and exit code 2. So does an error of our own: `-v`
    shows where it comes from.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(words, prog_name="mal-graph")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else GOOD
    except MalGraphError as error:
        log("error: " + "; ".join([str(error), *getattr(error, "__notes__", [])]), quiet=False)
    except OSError as error:
        log(f"error: {error}; check the path, its permissions and the space left", quiet=False)
    except Exception as error:
        if {"-v", "--verbose"} & set(words):
            traceback.print_exc()
        log(f"error: {BUG} ({type(error).__name__}: {error}); please report it; -v shows where", quiet=False)
    return BAD_INPUT


BUG = "mal-graph failed in a way that it should not"
