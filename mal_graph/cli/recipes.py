"""`mal-graph merge`, which does what a recipe says, and `mal-graph methods`, which lists what recipes may name."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mal_graph.cli.assembling import Job, run_job
from mal_graph.cli.options import DryRun, FailIfWorse, Force, MaybeData, MergedFile, ReportFile, Shown, Weights
from mal_graph.cli.results import emit_document, emit_report
from mal_graph.cli.targets import digests_of, given, merged_target, report_targets
from mal_graph.errors import UsageError
from mal_graph.option_names import COMMON
from mal_graph.source_files import all_opened

if TYPE_CHECKING:
    from mal_graph.workflows import Recipe


def merge(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="What is merged, and how.")],
    output: MergedFile = None,
    data: MaybeData = None,
    weights: Weights = None,
    fail_if_worse: FailIfWorse = False,
    dry_run: DryRun = False,
    report: ReportFile = None,
    force: Force = False,
    from_mergekit: Annotated[
        bool, typer.Option("--from-mergekit", help="RECIPE.yaml was written for mergekit.", rich_help_panel=COMMON)
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME=FILE",
            help="Which file a model is that RECIPE.yaml names otherwise; once for each.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Merge the models that RECIPE.yaml names as it says; flags beside it hold before what it says."""
    from mal_graph.workflows import read_recipe

    read = read_recipe(recipe, from_mergekit=from_mergekit, models=files_by_name(model or (), recipe, from_mergekit))
    if read.slices:
        file_options = {name: value for name, value in options.items() if name in ("shard_size", "resume")}
        refuse_flags(recipe, [fail_if_worse, *(options.keys() - file_options)])
        run_stack(read, recipe, output, data or read.data, report, file_options, shown, force, dry_run)
        return
    own = {**read.options, "method": read.config.method}
    both = {**own, **options, "parameters": (*read.config.parameters, *options.get("parameters", ()))}
    job = Job(
        read.base,
        read.donors,
        read.ancestor,
        data or read.data,
        weights or (),
        output,
        report,
        source=recipe,
        dtype=read.dtype,
        blocks=read.blocks,
        force=force,
        dry_run=dry_run,
        fail_if_worse=fail_if_worse,
    )
    run_job(job, both if both["parameters"] else {**own, **options}, shown)


def files_by_name(given: Sequence[str], recipe: str, from_mergekit: bool) -> dict[str, str]:
    """The files that are named beside a recipe, as seen from its folder. Raises UsageError."""
    if given and not from_mergekit:
        raise UsageError(
            "--model is for recipes of mergekit: give --from-mergekit too, or write the file in the recipe"
        )
    files = {}
    for one in given:
        name, equals, path = one.rpartition("=")
        if not equals or not name or not path:
            raise UsageError(f"--model {one!r} names no file: write NAME=FILE, the name as it stands in the recipe")
        files[name] = os.path.relpath(path, os.path.dirname(recipe) or ".")
    return files


def run_stack(
    read: "Recipe",
    recipe: str,
    output: str | None,
    data: str | None,
    report: str | None,
    file_options: dict[str, Any],
    shown: Shown,
    force: bool,
    dry_run: bool,
) -> None:
    """Stack slices, and write the network and its report."""
    from mal_graph.reporting import stack_document
    from mal_graph.workflows import check_dtype, stack

    files = given(recipe, data, *(one.model for one in read.slices))
    opened = all_opened(files)
    target = merged_target(output, read.slices[0].model, files, force, write=not dry_run, suffix="stacked")
    report_to, _ = report_targets(report, None, target, files, force)
    result = stack(read.slices, data=data, **file_options)
    check_dtype(result.graph, read.dtype)
    written = result if dry_run else result.save(target, overwrite=force)
    hashes = digests_of(opened, [chain.graph for chain in result.chains])
    document = stack_document(written, command=shown.command, hashes=hashes, output=None if dry_run else str(target))
    emit_report(document, report_to, shown, force)


def refuse_flags(recipe: str, others: Sequence[Any]) -> None:
    """Raise UsageError where flags are given that mean nothing where slices are stacked."""
    if any(others):
        raise UsageError(
            f"{recipe} stacks slices, which takes none of these flags: leave out all but -o, --data, --report, "
            "--force, --shard-size, --resume"
        )


def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One method alone.")] = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """List the merge methods that `--method` may name: where each is published, what it needs, its parameters."""
    from mal_graph.merging import all_rules
    from mal_graph.methods import all_methods, find_method
    from mal_graph.reporting import methods_document

    document = methods_document(all_methods(), all_rules()) if name is None else methods_document([find_method(name)])
    emit_document(document, shown.format_, shown.verbose or name is not None)
