"""One base layer merged with one donor layer at a time.

Source: Figure 1 of Model Assembly Learning (arXiv:2503.21657).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.config import MergeConfig, configured, shows_options
from mal_graph.errors import MatchError, UsageError
from mal_graph.evaluation import Predictor, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import assign_units, correspond, match_layers, pair_signatures
from mal_graph.merging import Plan, plan_merge
from mal_graph.network import dequantised, find_layers
from mal_graph.option import Data
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups, Network
from mal_graph.workflows.checks import check_inputs
from mal_graph.workflows.lambda_lines import unmeasured_line
from mal_graph.workflows.models import Model, Progress, arrays_of, open_models, prepared, silent, with_arrays
from mal_graph.workflows.results import Result
from mal_graph.workflows.steps import lambdas_of, verified_groups


@dataclass(frozen=True, repr=False)
class Grid(Result):
    """The result of `grid`.

    Attributes:
        base, donor: the models' names.
        base_layers, donor_layers: names, in order.
        lam: the merging factor.
        base_loss: the loss of the base.
        change: what is added to it by merging one layer with one, shape (base layers, donor layers); nan if not merged.
        reasons: why a pair is not merged, by its place.
    """

    base: str
    donor: str
    base_layers: tuple[str, ...]
    donor_layers: tuple[str, ...]
    lam: float
    base_loss: float
    change: Array
    reasons: Mapping[tuple[int, int], str]


@shows_options("grid")
@np.errstate(all="ignore")
def grid(
    base: Model,
    donor: Model,
    data: Data,
    *,
    config: MergeConfig | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Grid:
    """What the loss changes by where one base layer is merged with one donor layer, for every pair of layers.

    Each pair is aligned by its own tensors alone, in the base's frame: its neighbours are untouched. A bias of the
    donor that the base has no place for is left out. Arguments and errors as for `sweep`; pairs whose forms do not fit
    are left blank, with the reason.
    """
    settings: MergeConfig = with_arrays(configured("grid", config, options))
    if not isinstance(settings.lam, float | int):
        raise UsageError("`lam` has several values: a grid merges every pair of layers at one, give one number")
    given, report, runner = arrays_of(data), progress or silent, runner or registry.runner()
    first, second = open_models([base, donor], settings, given)
    check_inputs(first, second, settings.pair)
    second = dequantised(second, runner)
    arrays, _ = prepared(first, given or {}, settings)
    assert arrays is not None  # for none were not given
    groups = verified_groups(first, settings, runner, report, [])
    paired = pair_signatures(first, second, settings.pair)
    donor_groups = verified_groups(second, settings, runner, report, [], paired)
    stored = {p.tensor: first.weights[p.tensor].read() for layer in find_layers(first) for p in layer.parameters}
    predictor = Predictor(
        first,
        arrays,
        score_output=settings.score_output,
        output_kind=settings.output_kind,
        runner=runner,
        variable=list(stored),
    )
    base_loss = score(predictor.predict(stored), predictor.labels, first.name).loss
    mine, theirs = ([layer.name for layer in find_layers(graph) if layer.weight] for graph in (first, second))
    change, reasons = np.full((len(mine), len(theirs)), np.nan), {}
    for cell, (i, j) in enumerate(np.ndindex(change.shape)):
        names = mine[i], theirs[j]
        try:
            line = unmeasured_line(planned_pair(first, second, names, groups, donor_groups, settings), settings)
            moved = score(
                predictor.predict({**stored, **line.at(settings.lam)}), predictor.labels, " with ".join(names)
            )
            change[i, j] = moved.loss - base_loss
        except MatchError as error:
            reasons[i, j] = str(error)
        report("merging layer by layer", cell + 1, change.size)
    return Grid(first.name, second.name, tuple(mine), tuple(theirs), settings.lam, base_loss, change, reasons)


def planned_pair(
    base: LayerGraph,
    donor: LayerGraph,
    names: tuple[str, str],
    groups: AxisGroups,
    donor_groups: AxisGroups,
    config: MergeConfig,
) -> Plan:
    """The plan of merging one pair of layers alone. Raises MatchError with the reason why it cannot be."""
    match = match_layers(base, donor, [names])
    networks = Network(base, groups), Network(donor, donor_groups)
    alignment = assign_units(correspond(*networks, match, assume_ordered=config.assume_ordered, pair=config.pair))
    planned = plan_merge(alignment, lambdas_of(config), unmatched=config.unmatched)
    if not planned.steps:
        raise MatchError(planned.skipped.get(names[0], "the layers have no tensor in common"))
    return planned
