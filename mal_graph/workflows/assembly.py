"""The main job, end to end: base and donors in, one merged model and an honest account of it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mal_graph import registry
from mal_graph.config import AlignOptions, MergeConfig, configured, shows_options
from mal_graph.evaluation import Scores
from mal_graph.graph import LayerGraph
from mal_graph.matching import Alignment, Match, assign_units
from mal_graph.merging import Accounts, Plan, Stacking, combine_accounts
from mal_graph.methods import Need
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups, Network
from mal_graph.workflows.baselines import Rebuild, scored_arms
from mal_graph.workflows.checks import check_calibration, check_inputs, checks_of
from mal_graph.workflows.models import Progress, prepare, with_arrays
from mal_graph.workflows.notes import notes_on
from mal_graph.workflows.provenance import Orders
from mal_graph.workflows.relations import ancestor_notes, nothing_to_align
from mal_graph.workflows.steps import Known, Merged, Strategy, compared, merged_into
from mal_graph.workflows.verdict import Verdict, judge, judge_choice
from mal_graph.workflows.writing import Written


@dataclass(frozen=True, repr=False, kw_only=True)
class Assembly(Written):
    """The result of `assemble`.

    Attributes:
        merged: one entry per donor, in order.
        shares: how much of the result's float parameters each model contributes, base first.
        scores: the merge and its baselines, where data was given.
        config: every option.
        unscored: why a donor has no score, by its name in the table.
        data_notes: what of the data was not taken literally.
        stacked: how tensors were made, where all models were merged at once by a merge method.
    """

    merged: tuple[Merged, ...]
    shares: tuple[float, ...]
    scores: tuple[Scores, ...] = ()
    config: MergeConfig = field(default_factory=MergeConfig)
    unscored: Mapping[str, str] = field(default_factory=dict)
    data_notes: tuple[str, ...] = ()
    stacked: Stacking | None = None

    @property
    def accounts(self) -> Accounts:
        """What became of every float parameter of the base."""
        return combine_accounts(self.base, [(step.donor.name, step.plan) for step in self.merged])

    @property
    def verdict(self) -> Verdict | None:
        """How the result stands to the base, the best baseline and the ensemble; without scores, whether it is expected
        to be worse than the base, where that was asked."""
        if self.scores:
            return judge(self.scores, self.merged, self.config)
        return None if self.choice is None else judge_choice(self.choice, has_inputs=self.config.calibrate is not None)

    @property
    def orders(self) -> tuple[Orders, ...]:
        """For each donor and pair of groups the donor unit on each base unit, before the base grew."""
        return tuple(step.ungrown.alignment.orders for step in self.merged)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the scores should know beside them, a sentence each."""
        stacked = self.stacked
        has_ancestor = stacked is not None and stacked.method.needs is Need.ANCESTOR
        own = [] if stacked is None or stacked.ancestor is None else ancestor_notes(stacked.ancestor)
        unseen = [] if stacked is None or not stacked.note else [stacked.note]
        return (*notes_on(self.merged, self.config, has_ancestor=has_ancestor), *own, *unseen)

    @property
    def peak_bytes(self) -> int:
        """Memory of the largest tensor that is merged, with all that it is made of."""
        if self.stacked is not None:
            return self.stacked.peak_bytes
        return max((step.plan.peak_bytes for step in self.merged), default=0)

    @property
    def nothing_to_align(self) -> tuple[str, ...]:
        """The donors that have nothing in common with the base that an alignment could find, a sentence each."""
        return tuple(filter(None, map(nothing_to_align, self.merged)))


@shows_options("align")
def align(
    base: LayerGraph,
    donor: LayerGraph,
    match: Match,
    base_groups: AxisGroups,
    donor_groups: AxisGroups,
    *,
    config: AlignOptions | None = None,
    runner: Runner | None = None,
    **options: Any,
) -> Alignment:
    """Assign the donor's units to the base's, along the tensors of their matched layers.

    Args:
        base, donor, match: two models and the layers that correspond to each other.
        base_groups, donor_groups: their axis groups; unverified ones are used only while they are candidates.
        config, options: see below.

    Returns:
        an order for every pair of groups that matched layers induce (see `Alignment`).

    Raises:
        DataError: the calibration inputs do not fit a model, or are too few.
        UsageError: an option is refused, or asks for calibration inputs and there are none.
    """
    settings = with_arrays(configured("align", config, options))
    check_calibration(base, [donor], settings)
    networks = Network(base, base_groups), Network(donor, donor_groups)
    return assign_units(*compared(*networks, match, settings, runner or registry.runner()))


@np.errstate(all="ignore")  # what overflows is found, and said, by the check for finite outputs
def assemble_graphs(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
    strategy: Strategy | None = None,
    known: Known | None = None,
) -> Assembly:
    """Merge loaded donors into a loaded base, which comes first, check the result, and score it beside its baselines.

    Args:
        strategy: how units are assigned; by the options if left out.
        known: groups that were verified before; those that are found now are added.
    """
    base, *donors = graphs
    for donor in donors:
        check_inputs(base, donor, config.pair)
    check_calibration(base, donors, config)
    known = [] if known is None else known
    current, steps = base, []
    for donor in donors:
        step, current = merged_into(current, donor, config, runner, progress, known, strategy)
        steps.append(step)
    result = current if any(step.changes_the_base for step in steps) else base
    assembly = Assembly(
        graph=result,
        base=base,
        merged=tuple(steps),
        shares=shares(result, [step.plan for step in steps]),
        checks=checks_of(base, result, steps, runner),
        config=config,
    )
    return assembly if data is None else with_scores(assembly, data, progress, runner)


@np.errstate(all="ignore")
def with_scores(
    assembly: Assembly, data: Mapping[str, Any], progress: Progress, runner: Runner, again: Rebuild | None = None
) -> Assembly:
    """A result scored beside its baselines, for which `again` makes it once more. Raises DataError where the data do
    not fit."""
    base, steps, config = assembly.base, assembly.merged, assembly.config
    arrays, notes = prepare(base, data, config)
    scores, unscored = scored_arms(base, steps, assembly.graph, config, arrays, runner, progress, again=again)
    return replace(assembly, scores=scores, unscored=unscored, data_notes=notes)


def shares(result: LayerGraph, plans: Sequence[Plan]) -> tuple[float, ...]:
    """What each model contributes to the float parameters of a result, base first: a tensor that is merged counts with
    its lambda, one that is kept is the base's."""
    sizes = {name: weight.size for name, weight in result.weights.items() if weight.is_float}
    whole = np.zeros(len(plans) + 1)
    parts = {name: np.eye(1, len(whole))[0] for name in sizes}
    for place, plan in enumerate(plans, 1):
        for step in (step for step in plan.steps if step.tensor in parts):
            parts[step.tensor] = parts[step.tensor] * (1 - step.lam)
            parts[step.tensor][place] = step.lam
    for name, size in sizes.items():
        whole += size * parts[name]
    return tuple((whole / max(1, sum(sizes.values()))).tolist()) if sizes else (1.0, *[0.0] * len(plans))
