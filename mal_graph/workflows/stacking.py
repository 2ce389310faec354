"""The way of the merge methods: every donor aligned to the base, and each tensor made of those of all models at once.

Chosen: the steps of a merge of two, once for each donor and once for the ancestor, all with the base as it was; what is
verified, compared with its promises and kept there holds here too. Refused: donor after donor - methods that elect or
count must see all models, and the result would depend on their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mal_graph.boxes import each_box
from mal_graph.brief import Brief
from mal_graph.config import MergeConfig
from mal_graph.errors import MatchError, UsageError
from mal_graph.evaluation import calibration_inputs
from mal_graph.graph import LayerGraph
from mal_graph.matching import (
    IN_ORDER,
    Alignment,
    Correspondence,
    Evidence,
    Orders,
    align_in_rounds,
    align_in_universe,
    assign_as_given,
    assign_in_order,
    assign_relatives,
)
from mal_graph.merging import (
    MeasuredStacking,
    Plan,
    Stacking,
    check_learning,
    compare_outputs,
    learn,
    measure_norms,
    route,
    shares_of_plans,
    stack_merge,
    zipped,
)
from mal_graph.methods import Aligned, MergeMethod, Need, check_settings, find_method, resolve
from mal_graph.network import find_parameters
from mal_graph.protocols import Check, Runner
from mal_graph.symmetry import SAME_FUNCTION
from mal_graph.workflows.assembly import Assembly, with_scores
from mal_graph.workflows.checkpoint import fingerprint
from mal_graph.workflows.checks import check_calibration, check_inputs, checks_of
from mal_graph.workflows.models import Progress, arrays_by_model
from mal_graph.workflows.relations import refuse_stranger
from mal_graph.workflows.steps import (
    Known,
    Merged,
    Strategy,
    chance_of,
    merge_step,
    planned_again,
    replanned,
    with_places_for,
)

ALIKE = "equal_models"


def check_needs(config: MergeConfig, donors: int, *, has_ancestor: bool) -> None:
    """Raise UsageError where a merge method cannot do with what is given; before any model is loaded."""
    method = find_method(config.method)
    if method.needs is Need.ANCESTOR and not has_ancestor:
        raise UsageError(
            f"{method.name} merges what models have learned since they parted: give `ancestor`, the model that all "
            "were tuned from (it may be the base itself), or a method that needs none, such as linear"
        )
    if has_ancestor and method.needs is not Need.ANCESTOR:
        raise UsageError(f"`ancestor` is given, and {method.name} needs none: leave it out, or give another `method`")
    check_inputs_of_models(config, method, donors)
    if method.models is not None and donors + 1 != method.models:
        raise UsageError(
            f"{method.name} merges {method.models} models, the base and {method.models - 1} donor, and {donors} donors "
            "are given: merge fewer, or give another `method`, such as karcher"
        )


def check_inputs_of_models(config: MergeConfig, method: MergeMethod, donors: int) -> None:
    """Raise UsageError where inputs that a method measures activations on are missing, or are given for no use."""
    is_given = config.calibrate_of is not None
    if not method.takes_inputs and is_given:
        raise UsageError(
            f"`calibrate_of` is given, and {method.name} measures no activations: leave it out, or give another "
            "`method`, such as regmean"
        )
    if method.measures and not is_given and config.calibrate is None:
        shown = "give" if method.measured is None else "read"
        raise UsageError(
            f"{method.name} measures what layers {shown}: give unlabelled inputs with `calibrate`, or those of each "
            "model with `calibrate_of`"
        )
    if method.lesson is not None and not is_given and config.calibrate is None:
        raise UsageError(
            f"{method.name} learns how much each model counts by running the result: give unlabelled inputs with "
            "`calibrate`, or those of each model with `calibrate_of`"
        )
    if method.takes_inputs_of_each and not is_given:
        why = "has a router that tells the inputs of the models apart"
        if method.routing is None:
            why = "measures the result on the inputs of each model, and on the same ones it is the plain mean"
        raise UsageError(f"{method.name} {why}: give `calibrate_of` once for each model, the base first")
    given = len(arrays_by_model(config.calibrate_of)) if is_given else donors + 1
    if given != donors + 1:
        raise UsageError(
            f"`calibrate_of` is given {given} times for {donors + 1} models: give it once for each, the base first"
        )


@dataclass(frozen=True, repr=False)
class Frames(Brief):
    """All models in the base's frame.

    Attributes:
        base: the base with a place for what the others have.
        steps: how each donor corresponds to it, in order.
        ancestor: how the ancestor does; None without one, or where it is the base.
    """

    base: LayerGraph
    steps: tuple[Merged, ...]
    ancestor: Merged | None


@np.errstate(all="ignore")  # what overflows is found, and said, by the check for finite outputs
def merge_by_method(
    graphs: Sequence[LayerGraph],
    ancestor: LayerGraph | None,
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    progress: Progress,
    runner: Runner,
) -> Assembly:
    """Merge loaded donors and a loaded base, which comes first, by a merge method, check the result, and score it.

    Args:
        ancestor: the model that all were tuned from, where the method needs one.

    Raises:
        MatchError: nothing can be merged, a model is not finite, or a narrower donor cannot be brought into the frame.
        UsageError: a parameter is refused.
        DataError: as for `assemble`.
    """
    base, *donors = graphs
    method, is_from_base = find_method(config.method), ancestor is not None and is_same(ancestor, base)
    others = donors if ancestor is None or is_from_base else [*donors, ancestor]
    for other in others:
        check_inputs(base, other, config.pair)
    check_calibration(base, others, config)
    inputs = inputs_by_number(graphs, config)
    check_settings(method, config.parameters, range(int(is_from_base), len(graphs)))
    check_learning(method, base, config.score_output, config.output_kind)
    for graph in (base, *others):
        refuse_broken(graph)
    frames = in_one_frame(base, donors, None if is_from_base else ancestor, config, runner, progress)
    stacking = stacking_of(frames, method, config, is_from_base=is_from_base)
    merged, stacking = merged_stack(stacking, inputs, runner, config)
    checks = (*checks_of(base, merged, frames.steps, runner), *equal_models_check(frames, merged, method, runner))
    graph, steps = repaired(merged, with_shares(frames.steps, stacking), config, runner, stacking)
    assembly = Assembly(
        graph=graph,
        base=base,
        merged=tuple(replace(step, chance=chance_of(step, config, progress)) for step in steps),
        shares=stacking.shares,
        checks=checks,
        config=config,
        stacked=stacking,
    )
    again = partial(made_again, frames, stacking, config, inputs, runner=runner)
    return assembly if data is None else with_scores(assembly, data, progress, runner, again)


def inputs_by_number(graphs: Sequence[LayerGraph], config: MergeConfig) -> dict[int, Mapping[str, Any]]:
    """The inputs that activations are measured on, by the number of the model. Raises DataError."""
    if config.calibrate_of is None:
        return {} if config.calibrate is None else {number: config.calibrate for number in range(len(graphs))}
    base, each = graphs[0], arrays_by_model(config.calibrate_of)
    return {number: calibration_inputs(base, arrays) for number, arrays in enumerate(each)}


def merged_stack(
    stacking: Stacking,
    inputs: Mapping[int, Mapping[str, Any]],
    runner: Runner,
    config: MergeConfig,
    *,
    is_zipped: bool = True,
) -> tuple[LayerGraph, Stacking]:
    """The result of a method, and the stacking with what was measured, learned, routed or zipped for it. Raises
    DataError, RunError, MatchError, or UsageError where it is open what weights are learned on."""
    if stacking.method.aligned is Aligned.ZIPPED and is_zipped:
        stacking = zipped(stacking, inputs, runner)
    if stacking.method.routing is not None:
        return route(stacking, inputs, runner)
    if stacking.method.lesson is not None:
        stacking = learn(stacking, inputs, runner, config.score_output, config.output_kind)
    graph = stack_merge(stacking)
    if stacking.method.measured is None:
        return graph, stacking
    new = MeasuredStacking(stacking, inputs, runner).measured(graph)
    return graph.with_weights(new), replace(stacking, measured=tuple(new))


def is_same(a: LayerGraph, b: LayerGraph) -> bool:
    """Whether two models are one, from one file or two."""
    return a is b or fingerprint(a) == fingerprint(b)


def refuse_broken(graph: LayerGraph) -> None:
    """Raise MatchError where a number that was learned is none."""
    for name in dict.fromkeys(parameter.tensor for parameter in find_parameters(graph)):
        weight = graph.weights[name]
        if not all(np.isfinite(box).all() for box in each_box(weight.read, weight.shape)):
            raise MatchError(
                f"{graph.name} cannot be merged: its tensor {name!r} holds numbers that are infinite or none (NaN); "
                "leave this model out, or train it again"
            )


# --- the frame ----------------------------------------------------------------------------------------------------


def in_one_frame(
    base: LayerGraph,
    donors: Sequence[LayerGraph],
    ancestor: LayerGraph | None,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
) -> Frames:
    """Every donor, and the ancestor, aligned to the base. Raises MatchError."""
    others = [*donors, *([] if ancestor is None else [ancestor])]
    for other in others:
        base = with_places_for(base, other, config, runner)
    config = config.replaced(lam=1 / (1 + len(donors)))  # at which, and at others, promises are compared
    known: Known = []
    strategies: list[Strategy] = [assign_relatives] * len(others)
    if (method := find_method(config.method)).aligns_together:
        quick = config.replaced(compare=False)
        alone = [merge_step(base, other, quick, runner, progress, known, assign_relatives) for other in donors]
        strategies[: len(donors)] = together(method.aligned, [step.ungrown.alignment for step in alone], config.seed)
    steps = [
        in_frame(base, other, config, runner, progress, known, strategy)
        for other, strategy in zip(others, strategies, strict=True)
    ]
    own = None if ancestor is None else steps.pop()
    if own is not None:
        refuse_stranger(own.plan)
    whys = [{**kept_settings(step.plan), **({} if own is None else kept_without(own, step.plan))} for step in steps]
    kept = tuple(without_layers(step, why, config, runner) for step, why in zip(steps, whys, strict=True))
    if not any(step.plan.steps for step in kept):
        reasons = dict(pair for why in whys for pair in why.items())
        first = [f"layer {layer}: {why}" for layer, why in list(reasons.items())[:2]]
        raise MatchError(f"nothing can be merged: {'; '.join(first)}; give the model that all were tuned from")
    return Frames(base, kept, own)


def in_frame(
    base: LayerGraph,
    other: LayerGraph,
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known,
    strategy: Strategy = assign_relatives,
) -> Merged:
    """One model aligned to the base. Raises MatchError."""
    step = merge_step(base, other, config, runner, progress, known, strategy)
    refuse_compensation(step)
    return step


def together(aligned: Aligned, alignments: Sequence[Alignment], seed: int) -> list[Strategy]:
    """What aligns each donor to the base so that all models are aligned to each other."""
    if all(alignment.start == IN_ORDER for alignment in alignments):
        orders = [alignment.orders for alignment in alignments]
    elif aligned is Aligned.IN_UNIVERSE:
        orders = align_in_universe(alignments).orders
    else:
        orders = align_in_rounds(alignments, seed).orders
    return [partial(assign_again, alignment, own) for alignment, own in zip(alignments, orders, strict=True)]


def assign_again(
    alignment: Alignment, orders: Orders, correspondence: Correspondence, *, evidence: Evidence | None
) -> Alignment:
    """Units by these orders, without the layers that an alignment refused."""
    return assign_as_given(correspondence.without(alignment.correspondence.refused), orders, evidence)


def refuse_compensation(step: Merged) -> None:
    """Raise MatchError where a narrower donor needs other numbers in an operator than the base: one result has one."""
    growth = step.plan.growth
    if not growth.is_none:
        raise MatchError(
            f"{step.donor.name} has fewer units than the base where a norm or mean is taken over them: merge methods "
            "do not compensate that; make the narrowest model the base, or give `method` mal"
        )


def kept_settings(plan: Plan) -> dict[str, str]:
    """Why layers keep the base's weights: numbers of an operator's own that would have to go along with them."""
    nodes = {name for name, _ in plan.settings}
    layers = {step.pair.layer for step in plan.steps if plan.base.nodes[step.pair.base.node].name in nodes}
    return dict.fromkeys(layers, "its epsilon is not the donor's, and settings are not merged")


def kept_without(ancestor: Merged, plan: Plan) -> dict[str, str]:
    """Why layers keep the base's weights: the ancestor has no counterpart of all their numbers."""
    covered = {step.tensor: step.matched for step in ancestor.plan.steps}
    skipped = ancestor.plan.skipped
    kept: dict[str, str] = {}
    for step in plan.steps:
        layer = step.pair.layer
        if step.tensor not in covered:
            kept[layer] = (
                f"{ancestor.donor.name}, the ancestor, has none: {skipped.get(layer, 'no tensor is like its')}"
            )
        elif covered[step.tensor] < 1:
            kept[layer] = f"{ancestor.donor.name}, the ancestor, has fewer units there"
    return kept


def without_layers(step: Merged, kept: Mapping[str, str], config: MergeConfig, runner: Runner) -> Merged:
    """The same step with some more layers kept."""
    if not kept:
        return step
    chosen = None if step.selected is None else set(step.selected)
    ungrown, plan = planned_again(step.ungrown, config, chosen, (), runner, {**step.promises.kept, **kept})
    return replace(step, ungrown=ungrown, plan=plan, match=plan.match)


# --- the result ---------------------------------------------------------------------------------------------------


def stacking_of(frames: Frames, method: MergeMethod, config: MergeConfig, *, is_from_base: bool) -> Stacking:
    """How all tensors are made."""
    plans = tuple(step.plan for step in frames.steps)
    own = None if frames.ancestor is None else frames.ancestor.plan
    stacking = Stacking(frames.base, method, config.parameters, plans, own, is_from_base, config.seed)
    return with_shares_of_units(stacking)


def with_shares_of_units(stacking: Stacking) -> Stacking:
    """The same with the units of donors shared out, where its method does so. Raises UsageError."""
    if stacking.method.aligned is not Aligned.IN_SHARES:
        return replace(stacking, shares_of_units=())
    own = [setting for setting in stacking.settings if not setting.where]
    softness = resolve(stacking.method, own, stacking.numbers, (), 0.0)["softness"]
    return replace(stacking, shares_of_units=shares_of_plans(stacking.plans, softness))


def with_shares(steps: Sequence[Merged], stacking: Stacking) -> list[Merged]:
    """The steps with how much each donor counts as its lambda, which is what a report says of it."""
    shares = stacking.shares[1:]
    return [replace(step, plan=step.plan.at(share)) for step, share in zip(steps, shares, strict=True)]


def repaired(
    graph: LayerGraph, steps: Sequence[Merged], config: MergeConfig, runner: Runner, stacking: Stacking
) -> tuple[LayerGraph, list[Merged]]:
    """The result with statistics measured anew where there are inputs for that; the last step tells it. Those that
    differ from sample to sample stay."""
    if not config.repair or config.calibrate is None or (stacking.routed is not None and stacking.routed.experts):
        return graph, list(steps)
    graph, repair = measure_norms(graph, [step.plan for step in steps], config.calibrate, runner)
    return graph, [*steps[:-1], replace(steps[-1], repair=repair)]


def equal_models_check(frames: Frames, merged: LayerGraph, method: MergeMethod, runner: Runner) -> Iterator[Check]:
    """That models which all compute the base's function, the ancestor among them, give a model that does."""
    others = [*frames.steps, *([] if frames.ancestor is None else [frames.ancestor])]
    if not all(step.promises.of_equal_functions for step in others):
        return
    inputs = frames.steps[0].groups.probed.inputs
    moved = compare_outputs(merged, frames.base, inputs, runner)
    yield Check(ALIKE, moved <= SAME_FUNCTION, f"all models compute the same, and the result is off by {moved:.1e}")


def made_again(
    frames: Frames,
    stacking: Stacking,
    config: MergeConfig,
    inputs: Mapping[int, Mapping[str, Any]],
    strategy: Strategy | None,
    *,
    shuffle: bool = False,
    is_merged: bool = True,
    runner: Runner,
) -> LayerGraph:
    """The merge once more, with the same pairs of layers and other orders, or with shuffled donors; in stored order it
    is the plain average. Without `is_merged` the base is repaired alone."""
    plans = [replanned(frames.base, step, config, strategy, runner, shuffle=shuffle) for step in frames.steps]
    method, settings = stacking.method, stacking.settings
    if strategy is assign_in_order:
        method, settings = find_method("linear"), ()
    other = replace(
        stacking, plans=tuple(plans), method=method, settings=settings, learned=None, routed=None, zips=None
    )
    if is_merged:
        is_zipped = shuffle or strategy is None  # other orders would change nothing where units are zipped
        graph, other = merged_stack(with_shares_of_units(other), inputs, runner, config, is_zipped=is_zipped)
    else:
        graph = frames.base
    steps = [replace(step, plan=plan) for step, plan in zip(frames.steps, plans, strict=True)]
    return repaired(graph, steps, config, runner, other)[0]
