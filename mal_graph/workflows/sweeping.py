"""Loss and metric along lambda, of the merge and of the baselines that use the same data."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.config import MergeConfig, SweepConfig, configured, shows_options
from mal_graph.errors import DataError, UsageError
from mal_graph.evaluation import Scores, read_labels, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import assign_at_random, assign_in_order, assign_units, pair_signatures
from mal_graph.option import Data
from mal_graph.protocols import Check, Runner
from mal_graph.workflows.baselines import predicted_like
from mal_graph.workflows.checks import accounts_check, check_calibration, check_inputs, promise_checks
from mal_graph.workflows.curves import ALIGNED, ALONE, PLAIN, SHUFFLED, STRANGER, Curve, curve
from mal_graph.workflows.findings import findings
from mal_graph.workflows.lambda_lines import Along, line_of, scored_along
from mal_graph.workflows.meaning_texts import Meaning
from mal_graph.workflows.meanings import find_meanings
from mal_graph.workflows.models import Model, Progress, arrays_of, open_models, prepared, silent, with_arrays
from mal_graph.workflows.promises import is_whole
from mal_graph.workflows.results import Result
from mal_graph.workflows.steps import Merged, merge_step, repair_inputs, replanned, shuffled


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    """The result of `sweep`.

    Attributes:
        base, donor: the models' names.
        lambdas: in rising order, from 0.
        curves: "aligned" first, then the controls.
        donor_scores: the donor itself on the same data; None where it cannot be scored on them.
        unscored: why it cannot; "" where it can.
        findings: the failures that the figures show, with the figures.
        meanings: what inputs and outputs of the donor do not mean what the base's do.
        data_notes: what of the data was not taken literally.
        checks: what was checked of the aligned merge.
        step, config: what the aligned arm merges, and what of it is repaired; how all arms are made.
    """

    base: str
    donor: str
    lambdas: tuple[float, ...]
    curves: tuple[Curve, ...]
    donor_scores: Scores | None
    unscored: str
    findings: tuple[str, ...]
    meanings: tuple[Meaning, ...]
    data_notes: tuple[str, ...]
    checks: tuple[Check, ...]
    step: Merged
    config: SweepConfig


@shows_options("sweep")
@np.errstate(all="ignore")  # a merge that overflows has a loss that says so
def sweep(
    base: Model,
    donor: Model,
    data: Data,
    *,
    config: MergeConfig | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Sweep:
    """Score the merge of a donor into a base along lambda, beside plain average, random permutation and random donor.

    Args:
        base, donor: two models that take the same inputs, in any form that `assemble` takes.
        data: inputs and `labels`, by name or as an .npz path.
        config, options: every option as one value, or as keywords; see below. `lambdas` always has 0. With calibration
            inputs every arm is repaired at every lambda but 0, and the base alone is one more.
        progress: called with what is done, how much of it, of how much.

    Raises:
        MatchError: inputs do not fit, no layer corresponds to another, or nothing can be merged.
        DataError: the data do not fit the base, or the calibration inputs a model.
        UsageError: an option is refused.
    """
    settings: SweepConfig = with_arrays(configured("sweep", config, options)).replaced(lam=1.0)
    lambdas, given = checked_lambdas(settings.lambdas), arrays_of(data)
    report, runner = progress or silent, runner or registry.runner()
    first, second = open_models([base, donor], settings, given)
    check_inputs(first, second, settings.pair)
    check_calibration(first, [second], settings)
    arrays, notes = prepared(first, given or {}, settings)
    assert arrays is not None  # for none were not given
    step = merge_step(first, second, settings, runner, report, [])
    curves = []
    lines = lines_of(first, step, settings, runner)
    for done, (arm, make_line) in enumerate(lines.items()):
        line = make_line()
        points = tuple(scored_along(line, lambdas, arm, arrays, settings, runner))
        if arm == ALIGNED:
            step = replace(step, repair=line.repair)
        curves.append(curve(arm, lambdas, points, settings.eps, is_whole(step.plan) and arm not in (STRANGER, ALONE)))
        report("scoring the arms", done + 1, len(lines))
    own, unscored = donor_scores(first, second, arrays, settings, runner)
    shown = findings(step, lambdas, settings.eps, curves, own or unscored, read_labels(arrays))
    return Sweep(
        base=first.name,
        donor=second.name,
        lambdas=lambdas,
        curves=tuple(curves),
        donor_scores=own,
        unscored=unscored,
        findings=tuple(shown),
        meanings=find_meanings((first, second), settings, given, runner, report),
        data_notes=notes,
        checks=(accounts_check(first, [step]), *promise_checks([step])),
        step=step,
        config=settings,
    )


def lines_of(base: LayerGraph, step: Merged, config: MergeConfig, runner: Runner) -> dict[str, Callable[[], Along]]:
    """How each arm gives its model at any lambda, by the arm's name; each is made when it is asked for."""
    again = partial(replanned, base, step, config, runner=runner)
    along = partial(line_of, donor=step.donor, config=config, runner=runner)
    lines: dict[str, Callable[[], Along]] = {
        ALIGNED: lambda: along(step.plan),
        PLAIN: lambda: along(again(assign_in_order)),
        SHUFFLED: lambda: along(again(partial(assign_at_random, seed=config.seed))),
        STRANGER: lambda: along(again(assign_units, shuffle=True), donor=shuffled(step.donor, config.seed)),
    }
    if repair_inputs(config) is not None:
        lines[ALONE] = lambda: along(step.plan, is_merged=False)
    return lines


def checked_lambdas(given: Iterable[float]) -> tuple[float, ...]:
    """Merging factors in rising order, from 0. Raises UsageError."""
    lambdas = sorted({0.0, *map(float, given)})
    bad = [lam for lam in lambdas if not 0.0 <= lam <= 1.0]
    if bad or len(lambdas) == 1:
        what = f"{bad[0]:g} is among the `lambdas`" if bad else "there is none above 0 in `lambdas`"
        raise UsageError(f"{what}: give merging factors from 0 (the base) to 1 (the donor)")
    return tuple(lambdas)


def donor_scores(
    base: LayerGraph, donor: LayerGraph, data: Mapping[str, Array], config: MergeConfig, runner: Runner
) -> tuple[Scores | None, str]:
    """The donor on the base's data; or why it gives nothing that can be held against the base."""
    beside = predicted_like(None, base, data, config, runner)
    paired = pair_signatures(base, donor, config.pair)
    try:
        return score(predicted_like(beside, donor, data, config, runner, paired), read_labels(data), "donor"), ""
    except DataError as error:
        return None, str(error)
