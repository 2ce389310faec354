"""`mal-graph merge`, which does what a recipe says, and `mal-graph methods`, which lists what recipes may name."""

from typing import Annotated, Any

import typer

from mal_graph.cli.assembling import Job, run_job
from mal_graph.cli.options import DryRun, FailIfWorse, Force, MaybeData, MergedFile, ReportFile, Shown, Weights
from mal_graph.cli.results import emit_document


def merge(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="What is merged, and how.")],
    output: MergedFile = None,
    data: MaybeData = None,
    weights: Weights = None,
    fail_if_worse: FailIfWorse = False,
    dry_run: DryRun = False,
    report: ReportFile = None,
    force: Force = False,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """Merge the models that RECIPE.yaml names as it says; flags beside it hold before what it says."""
    from mal_graph.workflows import read_recipe

    read = read_recipe(recipe)
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
        force=force,
        dry_run=dry_run,
        fail_if_worse=fail_if_worse,
    )
    run_job(job, both if both["parameters"] else {**own, **options}, shown)


def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One method alone.")] = None,
    *,
    options: dict[str, Any],
    shown: Shown,
) -> None:
    """List the merge methods that `--method` may name: where each is published, what it needs, its parameters."""
    from mal_graph.methods import all_methods, find_method
    from mal_graph.reporting import methods_document

    listed = all_methods() if name is None else [find_method(name)]
    emit_document(methods_document(listed), shown.format_, shown.verbose or name is not None)
