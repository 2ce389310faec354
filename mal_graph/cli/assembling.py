"""The job of `assemble` and `merge`: models in, one checked file and its report out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mal_graph import registry
from mal_graph.cli.factories import open_named_models
from mal_graph.cli.options import Shown
from mal_graph.cli.output import log, progress_bars
from mal_graph.cli.results import emit_report, fail_if_refused, fail_where_worse, is_worse, write_plot
from mal_graph.cli.targets import (
    checked_recipe,
    digests_of,
    digests_of_written,
    given,
    input_files,
    merged_target,
    report_targets,
    weight_files,
)
from mal_graph.errors import UsageError
from mal_graph.source_files import all_opened

if TYPE_CHECKING:
    from mal_graph.graph import LayerGraph
    from mal_graph.workflows import Written


@dataclass(frozen=True)
class Job:
    """What is to be merged and written, beside the options.

    Attributes:
        base, donors, ancestor: models as they were named.
        data, weights: files beside them.
        output, report, plot, recipe: what is to be written; the model by the name of the base if None.
        source: the recipe that says all this; None where words do.
        dtype: what a recipe says the numbers of the result are; None where it does not.
        blocks: how many equal blocks a recipe says that models have; None where it does not.
        force: whether existing files are overwritten.
        dry_run: whether no model is written.
        fail_if_worse: whether a result that is worse than the base is not written.
    """

    base: str
    donors: Sequence[str]
    ancestor: str | None = None
    data: str | None = None
    weights: Sequence[str] = ()
    output: str | None = None
    report: str | None = None
    plot: str | None = None
    recipe: str | None = None
    source: str | None = None
    dtype: str | None = None
    blocks: int | None = None
    force: bool = False
    dry_run: bool = False
    fail_if_worse: bool = False

    @property
    def models(self) -> list[str]:
        """All models, the ancestor last."""
        return [self.base, *self.donors, *given(self.ancestor)]

    def files(self, options: dict[str, Any]) -> list[str]:
        """The files that are read, none of which may be written."""
        return given(
            *self.models, self.data, self.source, *weight_files(self.weights), *input_files("assemble", options)
        )


def run_job(job: Job, options: dict[str, Any], shown: Shown) -> None:
    """Merge models, write the result and tell it; what cannot be done is refused before any work."""
    from mal_graph.config import configured
    from mal_graph.reporting import result_document
    from mal_graph.workflows import arrays_of, check_donors, compares, with_arrays, write_result

    files = job.files(options)
    read = all_opened(files)
    target = merged_target(job.output, job.base, files, job.force, write=not job.dry_run)
    report_to, plot_to = report_targets(job.report, job.plot, target, files, job.force)
    recipe_to = checked_recipe(job.recipe, [target, report_to, plot_to], files, job.force)
    if target.suffix == ".safetensors":  # it holds weights of the base's own class
        options.setdefault("method", "mal")
    chosen = configured("assemble", None, options)
    config, arrays = with_arrays(chosen), arrays_of(job.data)
    check_donors(job.donors, config, has_ancestor=job.ancestor is not None)
    if job.plot is not None and not compares(config):
        raise UsageError("--plot draws what `method` auto or union compares: leave it out, or give one of these")
    result, graphs = merged(job, config, arrays, shown)
    for line in result.nothing_to_align:
        log(f"note: {line}", shown.quiet)
    is_good = result.choice is None or result.choice.is_good or not is_worse(result)
    is_wanted = is_good or not job.fail_if_worse
    hashes = digests_of(read, graphs)
    if is_wanted and not job.dry_run:
        result = write_result(result, target, overwrite=job.force)
    is_written = result.passed and is_wanted and not job.dry_run
    document = result_document(
        result,
        command=shown.command,
        hashes=hashes,
        has_pictures=report_to is not None or shown.format_ != "text",
        output=str(target) if is_written else None,
        written=digests_of_written(target) if is_written else {},
    )
    write_plot(plot_to, result.pareto, shown, job.force)
    write_recipe(recipe_to, job, chosen)
    emit_report(document, report_to, shown, job.force)
    fail_if_refused(result)
    fail_where_worse(result, job.fail_if_worse)


def merged(job: Job, config: Any, arrays: Any, shown: Shown) -> "tuple[Written, list[LayerGraph]]":
    """The result of a job, and all models as they were opened."""
    from mal_graph.workflows import check_blocks, check_dtype, make_model

    examples = config.calibrate if arrays is None else arrays
    with progress_bars(shown.quiet) as progress:
        graphs = open_named_models(job.models, job.weights, config, examples, shown.verbose, progress)
        check_dtype(graphs[0], job.dtype)
        check_blocks(graphs, job.blocks)
        models, ancestor = graphs[: 1 + len(job.donors)], graphs[-1] if job.ancestor is not None else None
        return make_model(models, config, arrays, progress, registry.runner(), ancestor), graphs


def write_recipe(target: Path | None, job: Job, config: Any) -> None:
    """Write what was done as a recipe, where that is asked for."""
    from mal_graph.atomic_write import write_text
    from mal_graph.workflows import Recipe

    if target is not None:
        recipe = Recipe(job.base, tuple(job.donors), job.ancestor, job.data, config)
        write_text(target, recipe.text(target.parent), overwrite=job.force)
