"""The command line: `mal-graph inspect | match | diagram | assemble | merge | methods | compress | evaluate | sweep |
zoo | search | report | audit | card`.

Results go to stdout, progress and log to stderr. Exit codes: 0 good, 1 a gate failed, 2 bad input or usage,
130 interrupted. A command loads what it works with when it runs: `--help` must not wait for numpy.
"""

import gc
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from mal_graph import registry
from mal_graph.cli.assembling import Job, run_job
from mal_graph.cli.audits import audit, card
from mal_graph.cli.commands import app, command
from mal_graph.cli.factories import open_named_models, told_warnings
from mal_graph.cli.flags import in_flags, refuse_broken_words, refuse_old_flags
from mal_graph.cli.options import (
    INTERRUPTED,
    OUTPUT,
    Ancestor,
    Base,
    DryRun,
    FailIfWorse,
    Force,
    LabelledData,
    MaybeData,
    MergedFile,
    Model,
    PlotFile,
    ReportFile,
    Shown,
    Weights,
)
from mal_graph.cli.output import captured_logs, emit, log, native_code_muted, progress_bars
from mal_graph.cli.pictures import diagram, match
from mal_graph.cli.recipes import merge, methods
from mal_graph.cli.reports import report
from mal_graph.cli.results import (
    GATE_FAILED,
    emit_document,
    emit_report,
    fail_if_refused,
    fail_where_worse,
    write_plot,
    write_result_file,
)
from mal_graph.cli.searches import search
from mal_graph.cli.targets import (
    IMAGES,
    checked_report,
    checked_result,
    checked_target,
    digests_of,
    digests_of_written,
    given,
    input_files,
    merged_target,
    report_targets,
    weight_files,
)
from mal_graph.errors import MalGraphError
from mal_graph.source_files import all_opened

if TYPE_CHECKING:
    from mal_graph.evaluation import Scores

GOOD, BAD_INPUT = 0, 2
MOST_HASHED = 2**31  # bytes: a file of more is no model, and takes minutes
BUG = "mal-graph failed in a way that it should not"


def print_version(wanted: bool) -> None:
    if wanted:
        from mal_graph.version import version

        emit(f"mal-graph {version()}")
        raise typer.Exit(GOOD)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Merge the weights of neural networks: two ONNX files or torch modules of any width and depth in, one out."""


@command("inspect")
def inspect(
    model: Model,
    verify_full: Annotated[bool, typer.Option(help="Leave out every member in turn, not one a role.")] = False,
    resize_checks: Annotated[
        bool, typer.Option(help="Test what added units would do, and list the sizes that must follow.")
    ] = False,
    weights: Weights = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Show a model's layers and axis groups, and verify the groups by running it."""
    from mal_graph.config import configured
    from mal_graph.reporting import inspect_document
    from mal_graph.symmetry import check_resizes
    from mal_graph.workflows import inspect_groups, with_arrays

    config = with_arrays(configured("inspect", None, options))
    with progress_bars(shown.quiet) as progress:
        (graph,) = open_named_models([model], weights, config, None, shown.verbose, progress)
        groups, warning = inspect_groups(graph, config, progress, is_full=verify_full)
        if warning:
            log(f"warning: {warning}", shown.quiet)
        checks = check_resizes(graph, groups, seed=config.seed, timeout=config.verify_timeout) if resize_checks else {}
    emit_document(inspect_document(graph, groups, checks), shown.format_, shown.verbose)


command("match", formats=("text", "json", "mermaid", "dot", "model-explorer"))(match)
command("inspect")(diagram)


@command("assemble")
def assemble(
    base: Base,
    donors: Annotated[list[str], typer.Argument(metavar="DONOR", help="Models merged into it, in order.")],
    output: MergedFile = None,
    ancestor: Ancestor = None,
    data: MaybeData = None,
    weights: Weights = None,
    fail_if_worse: FailIfWorse = False,
    dry_run: DryRun = False,
    report: ReportFile = None,
    plot: PlotFile = None,
    save_recipe: Annotated[
        str | None,
        typer.Option("--save-recipe", metavar="FILE.yaml", help="Write it as a recipe for `mal-graph merge`."),
    ] = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Merge the weights of DONORs into BASE and write one runnable ONNX file."""
    job = Job(base, donors, ancestor, data, weights or (), output, report, plot, save_recipe)
    run_job(replace(job, force=force, dry_run=dry_run, fail_if_worse=fail_if_worse), options, shown)


command("assemble")(merge)
command()(methods)


@command("compress")
def compress(
    model: Model,
    output: MergedFile = None,
    data: MaybeData = None,
    weights: Weights = None,
    fail_if_worse: FailIfWorse = False,
    report: ReportFile = None,
    plot: PlotFile = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Thin MODEL to a budget of multiplications; the units that stay take over what they can from those that go."""
    from mal_graph.config import configured
    from mal_graph.reporting import result_document
    from mal_graph.workflows import arrays_of, make_model, with_arrays, write_result

    files = given(model, data, *weight_files(weights), *input_files("compress", options))
    read = all_opened(files)
    target = merged_target(output, model, files, force, suffix="compressed")
    report_to, plot_to = report_targets(report, plot, target, files, force)
    config, arrays = with_arrays(configured("compress", None, options)), arrays_of(data)
    examples = config.calibrate if arrays is None else arrays
    with progress_bars(shown.quiet) as progress:
        graphs = open_named_models([model], weights, config, examples, shown.verbose, progress)
        result = make_model(graphs, config, arrays, progress, registry.runner())
    hashes = digests_of(read, graphs)
    result = write_result(result, target, overwrite=force)
    document = result_document(
        result,
        command=shown.command,
        hashes=hashes,
        output=str(target) if result.passed else None,
        written=digests_of_written(target) if result.passed else {},
    )
    write_plot(plot_to, result.pareto, shown, force)
    emit_report(document, report_to, shown, force)
    fail_if_refused(result)
    fail_where_worse(result, fail_if_worse)


@command("evaluate")
def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Models to score.")],
    data: LabelledData,
    weights: Weights = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Score models on labelled data: cross-entropy and accuracy, or squared error and R2."""
    from mal_graph.config import configured
    from mal_graph.evaluation import evaluate as score_model
    from mal_graph.evaluation import prepare_data
    from mal_graph.reporting import EvaluateDocument
    from mal_graph.workflows import arrays_of

    config, arrays = configured("evaluate", None, options), arrays_of(data) or {}
    scores: list[Scores] = []
    notes: dict[str, None] = {}
    with progress_bars(shown.quiet) as progress:
        graphs = open_named_models(models, weights, config, arrays, shown.verbose, progress)
        for done, (path, graph) in enumerate(zip(models, graphs, strict=True)):
            progress("scoring the models", done, len(models))
            kind = {"score_output": config.score_output, "output_kind": config.output_kind}
            scores.append(score_model(graph, arrays, arm=path, **kind))
            notes |= dict.fromkeys(prepare_data(graph, arrays, output_kind=config.output_kind).notes)
    emit_document(EvaluateDocument(scores=scores, notes=list(notes)), shown.format_, shown.verbose)


@command("sweep", "grid")
def sweep(
    base: Base,
    donor: Annotated[str, typer.Argument(metavar="DONOR", help="The model merged into it.")],
    data: LabelledData,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write a .json, .html, .md, .csv, .svg or .png; several may be given.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Merge one base layer with one donor layer at a time, at --lambda.")
    ] = False,
    weights: Weights = None,
    report: ReportFile = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Score the merge of DONOR into BASE along lambda, beside what plain and random merges give."""
    from mal_graph.config import configured
    from mal_graph.reporting import draw_curves, draw_heat_map, result_document
    from mal_graph.workflows import arrays_of, with_arrays
    from mal_graph.workflows import grid as map_layers
    from mal_graph.workflows import sweep as sweep_lambda

    job = "grid" if grid else "sweep"
    files = given(base, donor, data, *weight_files(weights), *input_files(job, options))
    read = all_opened(files)
    targets = [checked_result(path, files, force) for path in output or []]
    report_to = checked_report(report, targets, "the sweep and the report", files, force)
    config, arrays = with_arrays(configured(job, None, options)), arrays_of(data)
    with progress_bars(shown.quiet) as progress:
        a, b = open_named_models([base, donor], weights, config, arrays, shown.verbose, progress)
        if grid:
            cells = map_layers(a, b, arrays or {}, config=config, progress=progress)
            images = {kind: draw_heat_map(cells, kind) for kind in image_kinds(targets)}
        else:
            curves = sweep_lambda(a, b, arrays or {}, config=config, progress=progress)
            images = {kind: draw_curves(curves, kind) for kind in image_kinds(targets)}
    hashes = digests_of(read, [a, b])
    document = result_document(cells if grid else curves, command=shown.command, hashes=hashes)
    for target in targets:
        write_result_file(target, document, images, force)
        log(f"wrote {target}", shown.quiet)
    emit_report(document, report_to, shown, force)


@command("zoo")
def zoo(
    base: Base,
    folder: Annotated[str, typer.Argument(metavar="ZOO_DIR", help="A folder of .onnx files, taken by name.")],
    output: MergedFile = None,
    data: MaybeData = None,
    weights: Weights = None,
    fail_if_worse: FailIfWorse = False,
    report: ReportFile = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Merge into BASE what the models of ZOO_DIR have to give, as far as held-out data say that it helps.

    Half of --data decides, half is reported. Every decision is kept in a checkpoint: the same command, given again
    after an interruption, goes on from there; --force starts anew where the checkpoint is of another search.
    """
    from mal_graph.config import configured
    from mal_graph.reporting import result_document
    from mal_graph.workflows import arrays_of, files_in, with_arrays, write_result
    from mal_graph.workflows import zoo as search_zoo

    donors = files_in(folder)
    files = given(base, *donors, data, *weight_files(weights), *input_files("zoo", options))
    read = all_opened(files)
    target = merged_target(output, base, files, force)
    checkpoint = checked_target(options.get("checkpoint", f"{target}.zoo.json"), files, force=True)
    report_to = checked_report(report, [target, checkpoint], "the model, its checkpoint and the report", files, force)
    config = with_arrays(configured("zoo", None, {**options, "checkpoint": str(checkpoint)}))
    arrays = arrays_of(data)
    examples = config.calibrate if arrays is None else arrays
    try:
        with progress_bars(shown.quiet) as progress:
            (graph,) = open_named_models([base], weights, config, examples, shown.verbose, progress)
            with told_warnings():
                search = search_zoo(graph, folder, arrays, config=config, restart=force, progress=progress)
    except KeyboardInterrupt:
        kept = f"what was decided is in {checkpoint}; the same command goes on from there"
        log(f"interrupted: {kept if checkpoint.exists() else 'nothing was decided yet, and nothing was written'}")
        raise typer.Exit(INTERRUPTED) from None
    result = search.assembly
    read = {path: file for path, file in read.items() if path not in donors or file.size < MOST_HASHED}
    hashes = digests_of(read, [graph, *(step.donor for step in result.merged)])
    if result.merged:
        result = write_result(result, target, overwrite=force)
    is_written = bool(result.merged) and result.passed
    written: dict[str, Any] = {
        "output": str(target) if is_written else None,
        "written": digests_of_written(target) if is_written else {},
        "checkpoint": str(checkpoint),
    }
    search = replace(search, assembly=result)
    emit_report(result_document(search, command=shown.command, hashes=hashes, **written), report_to, shown, force)
    fail_if_refused(result)
    if not is_written:
        log(f"error: no merged model was written: no donor passed the gate, and {base} stays as it is")
        raise typer.Exit(GATE_FAILED)
    fail_where_worse(result, fail_if_worse)


command("search")(search)
command()(report)
command("audit")(audit)
command()(card)


# --- in common ----------------------------------------------------------------------------------------------------


def image_kinds(targets: Sequence[Path]) -> set[str]:
    return {target.suffix[1:] for target in targets} & set(IMAGES)


# --- running ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default on this process's arguments, and return its exit code.

    Every error a user can cause becomes one sentence on stderr and exit code 2. So does an error of our own: `-v`
    shows where it comes from.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        refuse_old_flags(words)
        refuse_broken_words(words)
        with native_code_muted(), captured_logs(is_verbose(words)), stopped_gently(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of numbers without end, which checks find and name
            code = app(words, prog_name="mal-graph", standalone_mode=False, obj=("mal-graph", *words))
        return code if isinstance(code, int) else GOOD
    except TyperException as error:
        if error.format_message():  # without words the help was printed, and there is nothing to add
            log(f"error: {usage_sentence(error)}")
    except KeyboardInterrupt:  # before or after the command itself
        log("interrupted: no file is left half written")
        return INTERRUPTED
    except MalGraphError as error:
        log("error: " + in_flags("; ".join([str(error), *getattr(error, "__notes__", [])])))
    except MemoryError as error:
        log(f"error: there is not enough memory ({error or 'none is left'}); give smaller models, inputs or data")
    except RecursionError:
        log("error: a model has operators, bodies or tensors one inside the other without end; export it flatter")
    except OSError as error:
        log(f"error: {error}; check the path, its permissions and the space left")
    except Exception as error:
        if is_verbose(words):
            traceback.print_exc()
        log(f"error: {BUG} ({type(error).__name__}: {error}); please report it; -v shows where")
    finally:
        gc.unfreeze()  # what was loaded
    return BAD_INPUT


def is_verbose(words: Sequence[str]) -> bool:
    return bool({"-v", "--verbose"} & set(words))


@contextmanager
def stopped_gently() -> Iterator[None]:
    """Let a command that is asked to end, as by a shutdown, end as an interrupted one: drafts are removed."""
    if threading.current_thread() is not threading.main_thread():  # others may not ask for signals
        yield
        return
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(name, signal.default_int_handler) for name in names if is_default(name)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def is_default(name: signal.Signals) -> bool:
    """Whether nobody has asked for a signal, or for leaving it alone, as nohup does."""
    return signal.getsignal(name) is signal.SIG_DFL


def usage_sentence(error: Any) -> str:
    """What is wrong with the words of a command, in one sentence."""
    text = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; --help lists what there is"
