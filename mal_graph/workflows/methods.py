"""The ways to a result: one table, by the name of `method`; merge methods are one more way, whatever their number."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from mal_graph import registry
from mal_graph.config import MergeConfig, configured, shows_options
from mal_graph.errors import UsageError
from mal_graph.graph import LayerGraph
from mal_graph.matching import assign_in_order
from mal_graph.option import Data
from mal_graph.protocols import Runner
from mal_graph.workflows.assembly import assemble_graphs
from mal_graph.workflows.choosing import MEAN, Trial, choose, union_at_budget
from mal_graph.workflows.donor_order import in_order_of_content
from mal_graph.workflows.job_memory import refuse_short_memory
from mal_graph.workflows.joint import open_joint
from mal_graph.workflows.meanings import find_meanings
from mal_graph.workflows.models import Model, Progress, arrays_of, open_models, prepare, prepared, silent, with_arrays
from mal_graph.workflows.provenance import Origin
from mal_graph.workflows.stacking import check_needs, merge_by_method
from mal_graph.workflows.steps import Known
from mal_graph.workflows.timing import with_speeds
from mal_graph.workflows.unions import Union
from mal_graph.workflows.writing import Written, check_shards


class Way(Protocol):
    """Makes one model of several, the base first."""

    def __call__(
        self,
        graphs: Sequence[LayerGraph],
        config: MergeConfig,
        data: Mapping[str, Any] | None,
        progress: Progress,
        runner: Runner,
        /,
    ) -> Written: ...


def average_graphs(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
) -> Written:
    """Blend weights in stored order, half and half unless the options say otherwise."""
    if not config.is_changed("lam"):
        config = config.replaced(lam=MEAN)
    return assemble_graphs(graphs, config, data, progress, runner, assign_in_order)


WITHOUT_FOLD = {
    "budget": "`fold` says what is merged, and `budget` what is taken away",
    "keep": "with `fold` every model stays whole, and `keep` is for thinned ones",
    "labels": "with `fold` the last layers are merged, and with `labels` their classes stay apart",
    "labels_of": "with `fold` the last layers are merged as they are, and `labels_of` is for outputs",
}


def unite(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
) -> Written:
    """Thinned models side by side; with `fold` whole ones, of which units that are alike are merged."""
    if config.fold is None:
        return unite_graphs(graphs, config, data, progress, runner)
    for name, why in WITHOUT_FOLD.items():
        if config.is_changed(name):
            raise UsageError(f"{why}: give one of them")
    return assemble_graphs(graphs, config.replaced(lam=MEAN, width="grow"), data, progress, runner)


@np.errstate(all="ignore")  # what overflows is found, and said, by the check for finite outputs
def unite_graphs(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
) -> Union:
    """Thin loaded models, the base first, and make one network of them.

    Raises:
        MatchError: the models do not fit each other, or an output cannot be averaged.
        UsageError, DataError, UnsupportedModel: as for `compress`.
    """
    known: Known = []
    joint = open_joint(graphs, config, runner, progress, known)
    arrays, notes = prepared(joint.ensemble, data, config)
    return union_at_budget(Trial(graphs, joint, config, None, arrays, notes, progress, runner, known))


WAYS: Mapping[str, Way] = {
    "auto": choose,
    "mal": assemble_graphs,
    "average": average_graphs,
    "union": unite,
}


def compares(config: MergeConfig) -> bool:
    """Whether the way that the options name compares its result with others by cost and score."""
    return config.method in ("auto", "union") and config.fold is None


def make_model(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
    ancestor: LayerGraph | None = None,
) -> Written:
    """One model of several by the way that the options name. Raises as `assemble`.

    Args:
        ancestor: the model that all were tuned from, for a merge method that needs one.
    """
    if config.any_order:
        graphs, config = in_order_of_content(graphs, config)
    check_shards(graphs[0], config)
    several = graphs if ancestor is None else [*graphs, ancestor]
    refuse_short_memory(several, config, has_data=data is not None)
    if data is not None:
        prepare(graphs[0], data, config)  # what does not fit is refused before the work
    if config.method in WAYS:
        result = WAYS[config.method](graphs, config, data, progress, runner)
    else:
        result = merge_by_method(graphs, ancestor, config, data, progress, runner)
    job = "compress" if len(graphs) == 1 else "assemble"
    meanings = find_meanings(graphs, config, data, runner, progress)
    result = replace(result, meanings=meanings, origin=Origin(job, tuple(graphs), config, data, ancestor=ancestor))
    return with_speeds(result, graphs, config, progress, runner)


@shows_options("assemble")
def assemble(
    base: Model,
    donors: Model | Sequence[Model],
    *,
    ancestor: Model | None = None,
    config: MergeConfig | None = None,
    data: Data | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Written:
    """Merge donors into a base, one after the other: W <- (1 - lam) W + lam B; or all at once by a merge method.

    Args:
        base: gives the graph, the signature and the names. A path, an `onnx.ModelProto`, a `LayerGraph` or a torch
            module, as is each donor.
        donors: one model or several; each is matched with and aligned to the result so far, or to the base by a merge
            method.
        ancestor: the model that all were tuned from, for a merge method that needs one; it may be the base itself.
        config, options: every option as one value, or as keywords; see below.
        data: inputs and `labels`, by name or as an .npz path; the merge and its baselines are then scored.
        progress: called with what is done, how much of it, of how much.

    Returns:
        the merged model with everything that was found and checked on the way; nothing is written.

    Raises:
        MatchError: inputs do not fit, no layer corresponds to another, or nothing can be merged.
        DataError: the data or the calibration inputs do not fit.
        UsageError: an option is refused.
    """
    settings = with_arrays(configured("assemble", config, options))
    arrays = arrays_of(data)
    several = list(donors) if isinstance(donors, list | tuple) else [donors]
    check_donors(several, settings, has_ancestor=ancestor is not None)
    examples = settings.calibrate if arrays is None else arrays
    named = [base, *several, *([] if ancestor is None else [ancestor])]
    graphs = open_models(named, settings, examples)
    own = None if ancestor is None else graphs.pop()
    return make_model(graphs, settings, arrays, progress or silent, runner or registry.runner(), own)


@shows_options("compress")
def compress(
    model: Model,
    *,
    config: MergeConfig | None = None,
    data: Data | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Union:
    """Thin one model to a budget of multiplications; the units that stay take over what they can from those that go.

    Args:
        model: a path, an `onnx.ModelProto`, a `LayerGraph` or a torch module.
        config, options: every option as one value, or as keywords; see below.
        data: inputs and `labels`, by name or as an .npz path; the result and the model are then scored, beside what
            other budgets give.
        progress: called with what is done, how much of it, of how much.

    Raises:
        UsageError: an option is refused, or the budget is smaller than what cannot be taken away.
        DataError: the data or the calibration inputs do not fit.
    """
    settings, arrays = with_arrays(configured("compress", config, options)), arrays_of(data)
    graphs = open_models([model], settings, settings.calibrate if arrays is None else arrays)
    made = make_model(graphs, settings, arrays, progress or silent, runner or registry.runner())
    assert isinstance(made, Union)  # the one way of `CompressConfig`
    return made


def check_donors(donors: Sequence[Model], config: MergeConfig, *, has_ancestor: bool = False) -> None:
    """Raise UsageError where there is no donor, or options do not go with the models; before any of them is loaded."""
    if not donors:
        raise UsageError("no donor given: name at least one model to merge into the base")
    if config.method not in WAYS:
        check_needs(config, len(donors), has_ancestor=has_ancestor)
    elif has_ancestor:
        raise UsageError(
            f"`ancestor` is for a merge method such as ties, and `method` is {config.method}: leave it out, or give "
            "another `method`"
        )
    if config.method in WAYS and config.calibrate_of is not None:
        raise UsageError(
            f"`calibrate_of` is for a merge method that measures activations, such as regmean, and `method` is "
            f"{config.method}: leave it out, or give another `method`"
        )
    if config.matches is not None and len(donors) > 1:
        raise UsageError("a pair list belongs to one donor: merge the donors one by one")
    if config.labels_of and len(config.labels_of) != 1 + len(donors):
        raise UsageError(
            f"`labels_of` is given {len(config.labels_of)} times for {1 + len(donors)} models: give it once for each, "
            "the base first, and - for a model that says itself what its classes are called"
        )
