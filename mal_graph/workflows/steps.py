"""One donor merged into the model so far: match, verify, align, plan, check; and the same plan made again."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from mal_graph.brief import Brief
from mal_graph.config import AlignOptions, MergeConfig
from mal_graph.errors import MatchError
from mal_graph.graph import Array, LayerGraph, Weight
from mal_graph.matching import (
    SHARES,
    Alignment,
    Chance,
    Correspondence,
    Evidence,
    Match,
    Signatures,
    assign_as_given,
    assign_units,
    compare_activations,
    compare_with_chance,
    correspond,
    match_layers,
    pair_signatures,
    rescale,
)
from mal_graph.memory_budget import budgeted
from mal_graph.merging import (
    Deepened,
    LayerLambdas,
    Plan,
    Repair,
    Sessions,
    compare_outputs,
    deepen,
    expect_variances,
    fold,
    merge,
    plan_merge,
    repair,
    select_layers,
    widen,
    with_bias_slots,
    with_larger_windows,
)
from mal_graph.network import Layer, dequantised, probe
from mal_graph.protocols import Runner
from mal_graph.symmetry import (
    AxisGroups,
    Network,
    Trial,
    axis_groups,
    deviation,
    open_trial,
    permute_in_place,
    verdicts_from,
    verify,
)
from mal_graph.workflows.branch_orders import with_branches_in_order
from mal_graph.workflows.locks import without_locks
from mal_graph.workflows.models import Progress
from mal_graph.workflows.number_places import is_copy_out_of_place, with_numbers_in_place
from mal_graph.workflows.planted import planted_check
from mal_graph.workflows.promises import Promises, hold_to_promises, not_compared

Known = list[Network]  # with groups that were found, and verified where that was wanted
Windows = tuple[tuple[int, ...], tuple[int, ...]]  # taps before and after
T = TypeVar("T")


class Strategy(Protocol):
    """A way to assign units."""

    def __call__(self, correspondence: Correspondence, *, evidence: Evidence | None) -> Alignment: ...


@dataclass(frozen=True, repr=False)
class Merged(Brief):
    """One donor merged into what was there before.

    Attributes:
        donor: the donor.
        match: layers of the model so far and of the donor.
        groups, donor_groups: the axis groups of both.
        plan: what was done.
        ungrown: the plan before the base grew.
        self_check: how much the donor's outputs moved when its units were put in the orders used; None if unchecked.
        first: the match before the base was given layers.
        selected: names of the base's layers that were given a place for what the donor has; all of them if None.
        windows: what the windows of the base's layers were and are, where they grew, by name of the layer.
        added: names of the layers that the base was given.
        at_zero: how far the outputs at lambda 0 are from those of the model before; None where its shape is the same.
        repair: what was repaired; None if nothing was to be.
        promises: what the merge promised, and what was kept for it.
        chance: how the alignment compares with that of random numbers; None where that was not asked.
        dequantised: how many weights the donor stores as integers that stand for them.
        branches_in_order: the donor's tensors that came with their branches to other places (see `branch_orders`).
        in_place: the donor's tensors whose numbers were put where the base has them (see `number_places`).
        unlocked: the donor's tensors that were turned inside heads (see `locks`).
    """

    donor: LayerGraph
    match: Match
    groups: AxisGroups
    donor_groups: AxisGroups
    plan: Plan
    ungrown: Plan
    self_check: float | None
    first: Match
    selected: tuple[str, ...] | None = None
    windows: Mapping[str, Windows] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    at_zero: float | None = None
    repair: Repair | None = None
    promises: Promises = field(default_factory=Promises)
    chance: Chance | None = None
    dequantised: int = 0
    branches_in_order: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    unlocked: tuple[str, ...] = ()

    @property
    def signatures(self) -> Signatures:
        """Which input and output of the donor is which of the base's."""
        return self.plan.alignment.correspondence.signatures

    @property
    def changes_the_base(self) -> bool:
        """Whether the result is another model than the base: it grew, or some lambda is not 0."""
        is_reshaped = bool(self.plan.growth.added or self.windows or self.added)
        return is_reshaped or self.plan.is_moving


def merged_into(
    base: LayerGraph,
    donor: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known,
    strategy: Strategy | None = None,
) -> tuple[Merged, LayerGraph]:
    """Merge one donor: match, verify, align, plan, check, merge, repair."""
    step = merge_step(base, donor, config, runner, progress, known, strategy)
    result, repair = with_repair(merge(step.plan), step.plan, donor, config, runner, progress)
    return replace(step, repair=repair, chance=chance_of(step, config, progress)), result


def chance_of(step: Merged, config: MergeConfig, progress: Progress) -> Chance | None:
    """How an alignment by weights compares with that of random numbers, where merges are compared at all and the two
    models do not compute the same anyway."""
    if not config.compare or not step.plan.is_moving or SHARES[config.match_by] or step.promises.of_equal_functions:
        return None
    progress(f"aligning {step.donor.name} in random order", 0, 1)
    chance = compare_with_chance(step.ungrown.alignment, config.seed)
    progress(f"aligning {step.donor.name} in random order", 1, 1)
    return chance


def merge_step(
    base: LayerGraph,
    donor: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known,
    strategy: Strategy | None = None,
) -> Merged:
    """One donor matched, verified, aligned, planned and checked: all but the merging, which any lambda can share.

    A copy of the base whose numbers no order of units puts in place is put there first.
    """
    step = step_as_it_is(base, donor, config, runner, progress, known, strategy)
    if config.assume_ordered or config.matches is not None or not is_copy_out_of_place(base, step.donor, step.plan):
        return step
    in_place, moved = with_numbers_in_place(base, step.donor, step.donor_groups, step.signatures, runner)
    if not moved:
        return step
    again = step_as_it_is(base, in_place, config, runner, progress, known, strategy)
    return replace(again, in_place=moved, dequantised=step.dequantised, unlocked=step.unlocked)


def step_as_it_is(
    base: LayerGraph,
    donor: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known,
    strategy: Strategy | None,
) -> Merged:
    """The same of a donor whose numbers stand where they do."""
    strategy = strategy or assign_units
    stored, donor = donor, dequantised(donor, runner)
    paired = pair_signatures(base, donor, config.pair)
    donor_groups = verified_groups(donor, config, runner, progress, known, paired)
    donor, branches = with_branches_in_order(base, donor, donor_groups, paired, config, runner)
    donor, unlocked = without_locks(base, donor, donor_groups, runner)
    given, first = base, match_layers(base, paired.in_base_order(donor), config.matches, outputs=paired.known_outputs)
    deeper = deepened(base, paired.in_base_order(donor), donor_groups, first, config)
    selected = None if config.layers is None else select_layers(deeper.match.base, config.layers)
    base, match = prepared(deeper.base, donor, deeper.match, config, selected)
    windows = larger_windows(deeper.match.base, match.base)
    groups = verified_groups(base, config, runner, progress, known)
    progress(f"aligning {donor.name}", 0, 1)
    networks = Network(base, groups), Network(donor, donor_groups)
    ungrown = planned_merge(*networks, match, strategy, config, selected, deeper.given, runner)
    planned = widen(ungrown, runner, is_wider=config.width == "grow")
    progress(f"aligning {donor.name}", 1, 1)
    if not planned.steps:
        reasons = [f"{name}: {why}" for name, why in planned.skipped.items()]
        raise MatchError(
            f"nothing of {donor.name} can be merged into {base.name}: {'; '.join(reasons[:3])}"
            f"{f'; and {len(reasons) - 3} more' if len(reasons) > 3 else ''}; "
            "choose other `layers`, or `assume_ordered` if the models have a common ancestor"
        )
    promises = not_compared()
    if config.compare:
        replan = partial(planned_again, ungrown, config, selected, deeper.given, runner)
        sessions = Sessions(runner)
        promises = hold_to_promises(given, networks[0], planned, lambda kept: replan(kept)[1], sessions)
        promises = promises.with_check(planted_check(networks[1], sessions, config.seed))
        ungrown, planned = replan(promises.kept) if promises.kept else (ungrown, planned)
    moved = self_check(donor, donor_groups, planned.alignment, runner, config.seed) if config.verify else None
    step = Merged(
        donor=donor,
        match=planned.match,
        groups=groups,
        donor_groups=donor_groups,
        plan=planned,
        ungrown=ungrown,
        self_check=moved,
        first=first,
        selected=None if selected is None else tuple(selected),
        windows=windows,
        added=deeper.added,
        promises=promises,
        dequantised=len(donor.weights.keys() - stored.weights.keys()),
        branches_in_order=branches,
        unlocked=unlocked,
    )
    return compared_at_zero(step, given, runner)


def planned_again(
    ungrown: Plan,
    config: MergeConfig,
    layers: Collection[str] | None,
    given: Collection[str],
    runner: Runner,
    kept: Mapping[str, str],
) -> tuple[Plan, Plan]:
    """A plan with some layers kept, before and after the base grew for it."""
    ungrown = plan_merge(
        ungrown.alignment, ungrown.lambdas, unmatched=config.unmatched, layers=layers, given=given, kept=kept
    )
    return ungrown, widen(ungrown, runner, is_wider=config.width == "grow")


def lambdas_of(config: MergeConfig) -> LayerLambdas:
    """The merging factors that the options ask for."""
    return LayerLambdas.of(config.lam, dict(config.lam_for))


def repair_inputs(config: MergeConfig) -> Mapping[str, Array] | None:
    """What merged models are repaired on; None if they are not."""
    return config.calibrate if config.repair else None


def with_repair(
    graph: LayerGraph,
    planned: Plan,
    donor: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress | None = None,
) -> tuple[LayerGraph, Repair | None]:
    """A merged model repaired, by what is expected where there is nothing to measure it on; at lambda 0 it is what it
    was."""
    if not (config.repair and planned.is_moving):
        return graph, None
    inputs = repair_inputs(config)
    if inputs is None:
        return expect_variances(graph, planned)
    said = None if progress is None else partial(progress, f"repairing after {donor.name}")
    return repair(graph, planned, inputs, runner, said)


def compared_at_zero(step: Merged, base: LayerGraph, runner: Runner) -> Merged:
    """The step with its outputs at lambda 0 compared with those of the model before, where its shape changed."""
    if step.plan.growth.is_none and not (step.windows or step.added):
        return step
    at_zero = merge(step.plan.at(0.0))
    return replace(step, at_zero=compare_outputs(at_zero, base, step.groups.probed.inputs, runner))


def narrowed(step: Merged, layers: Iterable[str], lam: float, config: MergeConfig, runner: Runner) -> Merged:
    """One step with the same orders, for some of the layers of `ungrown` alone and another lambda."""
    whole = step.ungrown
    given = {own.tensor for own in whole.steps if own.is_given}
    lambdas = LayerLambdas.of(lam)
    kept = step.promises.kept
    ungrown = plan_merge(whole.alignment, lambdas, unmatched=config.unmatched, layers=layers, given=given, kept=kept)
    planned = widen(ungrown, runner, is_wider=config.width == "grow")
    return replace(step, match=planned.match, plan=planned, ungrown=ungrown)


def deepened(
    base: LayerGraph, donor: LayerGraph, donor_groups: AxisGroups, match: Match, config: MergeConfig
) -> Deepened:
    """The base with layers that leave its function as it is where the donor has more, if that is wanted."""
    if config.depth != "expand":
        return Deepened(base, match)
    return deepen(base, Network(donor, donor_groups), match, is_fixed=config.matches is not None)


def prepared(
    base: LayerGraph, donor: LayerGraph, match: Match, config: MergeConfig, selected: Collection[str] | None
) -> tuple[LayerGraph, Match]:
    """The base with a place for what the donor has: biases, and taps where it may grow."""
    if config.width == "grow":
        base, match = with_larger_windows(base, donor, match, selected)
    return with_bias_slots(base, donor, match, selected)


def with_places_for(base: LayerGraph, donor: LayerGraph, config: MergeConfig, runner: Runner) -> LayerGraph:
    """The base with a place for what a donor has, before the two are aligned. Raises MatchError."""
    donor = dequantised(donor, runner)
    paired = pair_signatures(base, donor, config.pair)
    match = match_layers(base, paired.in_base_order(donor), config.matches, outputs=paired.known_outputs)
    selected = None if config.layers is None else select_layers(match.base, config.layers)
    return prepared(base, donor, match, config, selected)[0]


def larger_windows(before: Sequence[Layer], after: Sequence[Layer]) -> dict[str, Windows]:
    """What the windows of layers were and are, where these differ, by name of the layer."""
    old, new = ({layer.name: layer.weight.shape[2:] for layer in side if layer.weight} for side in (before, after))
    return {name: (taps, new[name]) for name, taps in old.items() if taps != new[name]}


def planned_merge(
    base: Network,
    donor: Network,
    match: Match,
    strategy: Strategy,
    config: MergeConfig,
    selected: Collection[str] | None,
    given: Collection[str],
    runner: Runner,
) -> Plan:
    """Align, by weights and what the runner shows of activations, and plan. Raises MemoryLimitError."""
    correspondence, evidence = compared(base, donor, match, config, runner)
    with budgeted(config.max_memory):
        alignment = strategy(correspondence, evidence=evidence)
    planned = plan_merge(alignment, lambdas_of(config), unmatched=config.unmatched, layers=selected, given=given)
    return planned if config.fold is None else fold(planned, config.fold, runner)


def compared(
    base: Network, donor: Network, match: Match, config: AlignOptions, runner: Runner
) -> tuple[Correspondence, Evidence | None]:
    """What of both models corresponds to each other, at the scales wanted, and what their activations say of it."""
    correspondence = correspond(base, donor, match, assume_ordered=config.assume_ordered, pair=config.pair)
    if config.rescale_invariant:
        correspondence = rescale(correspondence)
    share = SHARES[config.match_by]
    if not share or config.calibrate is None:
        return correspondence, None
    return correspondence, compare_activations(correspondence, config.calibrate, runner, share)


def verified_groups(
    graph: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known,
    paired: Signatures | None = None,
) -> AxisGroups:
    """The groups of a graph, verified unless the user said otherwise; a graph of the same nodes is verified once, and
    so are graphs that differ in nothing that a verification uses.

    Args:
        paired: of a donor, which of its inputs is which of the base's, that arrays and shapes are given for.
    """
    for one in known:
        if one.graph.nodes is graph.nodes:
            return one.groups
    progress(f"probing {graph.name}", 0, 1)
    probed = probe(
        graph,
        runner,
        inputs=renamed(graph, config.inputs, paired),
        input_shapes=renamed(graph, config.input_shapes, paired),
        seed=config.seed,
        timeout=config.verify_timeout,
    )
    groups = axis_groups(graph, probed)
    progress(f"probing {graph.name}", 1, 1)
    if config.verify:
        shared = (verdicts_from(one, graph, groups) for one in known)
        groups = next(filter(None, shared), None) or verify(
            graph,
            groups,
            runner,
            seed=config.seed,
            progress=partial(progress, f"verifying {graph.name}"),
            timeout=config.verify_timeout,
            max_memory=config.max_memory,
        )
    known.append(Network(graph, groups))
    return groups


def renamed(graph: LayerGraph, given: Mapping[str, T] | None, paired: Signatures | None = None) -> dict[str, T] | None:
    """What was given for the base's inputs, by the names of a donor's; names that neither has go by their places."""
    if given is None:
        return None
    if paired is not None and set(given) <= set(paired.inputs):
        return paired.for_donor(given)
    names = [value.name for value in graph.inputs]
    if set(given) <= set(names) or len(given) != len(names):
        return dict(given)
    return dict(zip(names, given.values(), strict=True))


def self_check(donor: LayerGraph, groups: AxisGroups, alignment: Alignment, runner: Runner, seed: int) -> float:
    """How much a calibrated copy of the donor moves when its units are put in the orders that were used.

    Each order is completed to a permutation of its group; a group with several orders takes one per run.
    """
    waiting = alignment.donor_moves()
    if not waiting:
        return 0.0
    trial: Trial = open_trial(donor, groups, runner, seed=seed)
    worst, last = 0.0, max(map(len, waiting.values())) - 1
    for turn in range(last + 1):
        moves = [move for turns in waiting.values() for move in turns[min(turn, len(turns) - 1)]]
        weights = dict(trial.weights)
        if turn == last:
            trial = replace(trial, weights={})  # so that the copy is not held twice
        permute_in_place(weights, moves)
        worst = max(worst, deviation(trial.run(weights), trial.outputs))
    return worst


def replanned(
    base: LayerGraph,
    step: Merged,
    config: MergeConfig,
    strategy: Strategy | None,
    runner: Runner,
    *,
    shuffle: bool = False,
) -> Plan:
    """The plan of one step again, with the same pairs of layers and another alignment, or with a shuffled donor.

    Without a strategy the units stay where the step put them. Models are run on calibration inputs for
    `assign_units` alone.
    """
    match_by = config.match_by if strategy is assign_units else "weights"
    lambdas = step.plan.lambdas
    config = config.replaced(lam=lambdas.over_depth, lam_for=lambdas.by_selector, match_by=match_by)
    strategy = strategy or partial(assign_as_given, orders=step.ungrown.alignment.orders)
    donor = shuffled(step.donor, config.seed) if shuffle else step.donor
    deeper = deepened(base, step.signatures.in_base_order(donor), step.donor_groups, step.first, config)
    base, match = prepared(deeper.base, donor, deeper.match, config, step.selected)
    networks = Network(base, step.groups), Network(donor, step.donor_groups)
    chosen = {pair.base.name for pair in step.plan.merged_pairs}
    made = planned_merge(*networks, match, strategy, config, chosen, deeper.given, runner)
    return widen(made, runner, is_wider=config.width == "grow")


def shuffled(graph: LayerGraph, seed: int) -> LayerGraph:
    """The graph with the entries of every float tensor in random order: the control "random donor"."""
    floats = [w for w in graph.weights.values() if w.is_float and not w.scope and w.size > 1]
    return graph.with_weights(
        [replace(weight, read=partial(shuffled_values, weight, (seed, i))) for i, weight in enumerate(floats)]
    )


def shuffled_values(weight: Weight, seed: tuple[int, int]) -> Array:
    values = weight.read()
    order = np.random.default_rng(seed).permutation(values.size)
    shuffled_copy: Array = values.ravel()[order].reshape(values.shape)
    return shuffled_copy
