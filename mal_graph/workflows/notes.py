"""What a reader of a merge's scores should know, from the steps that made it."""

from collections.abc import Iterator, Sequence

import numpy as np

from mal_graph.config import MergeConfig
from mal_graph.evaluation import LABELS
from mal_graph.matching import count_dead_channels, find_foldable_norm
from mal_graph.operators import ParameterKind
from mal_graph.symmetry import AxisGroup
from mal_graph.workflows.relations import relations_of
from mal_graph.workflows.steps import Merged


def notes_on(steps: Sequence[Merged], config: MergeConfig, *, has_ancestor: bool = False) -> Iterator[str]:
    """One sentence for each thing that the scores do not show; none where nothing was merged.

    Args:
        has_ancestor: whether it is known what the models were tuned from.
    """
    if not any(step.plan.is_moving for step in steps):
        return
    for step in steps:
        yield from relations_of(step, has_ancestor=has_ancestor)
        if step.dequantised:
            yield (
                f"{step.dequantised} weights of {step.donor.name} are stored as integers: the floats that these stand "
                "for are merged"
            )
        if step.unlocked:
            yield (
                f"{step.donor.name} was locked: {len(step.unlocked)} tensors of its attention were turned, and are "
                "merged as they were before"
            )
        if step.branches_in_order:
            yield (
                f"{step.donor.name} has branches that are alike in another order than the base: "
                f"{len(step.branches_in_order)} tensors stand in the base's before anything else is compared, and "
                "orders are told of the donor after that"
            )
        if step.in_place:
            yield (
                f"{len(step.in_place)} tensors of {step.donor.name} hold the base's numbers in other places, in ways "
                "that no order of units tells: they stand in the base's before anything else is compared, and orders "
                "are told of the donor after that"
            )
    norms = unmeasured_norms(steps)
    if norms:
        yield (
            f"the statistics of {norms} BatchNormalizations are not measured again on data: "
            "expect the merged model, and the baselines made like it, to score far lower than they could; "
            "`calibrate` measures them"
        )
    if LABELS in (config.calibrate or {}):
        yield "the labels among the calibration inputs are not used"
    dead = sum(map(dead_in, steps))
    if dead:
        yield f"{dead} channels keep the base's weights: its BatchNormalization scales them to nothing"
    for step in steps:
        for group, count in lone_in_statistics(step):
            yield (
                f"{count} units of {group.name} have no partner in {step.donor.name} and fade whatever `unmatched` "
                f"says: {group.statistic} is taken over them"
            )


def unmeasured_norms(steps: Sequence[Merged]) -> int:
    """How many BatchNormalizations have statistics that were merged and not measured anew."""
    if any(step.repair is not None and step.repair.is_measured for step in steps):
        return 0
    return len({norm for step in steps for norm in merged_norms(step)})


def merged_norms(step: Merged) -> set[str]:
    """The BatchNormalizations of the base that stand in or behind a merged layer, by the tensor of their variance."""
    own = {s.tensor for s in step.plan.steps if s.pair.base.kind is ParameterKind.VARIANCE}
    behind = [find_foldable_norm(step.plan.base, pair.base) for pair in step.plan.merged_pairs]
    return own | {norm.variance.tensor for norm in behind if norm is not None}


def dead_in(step: Merged) -> int:
    """Channels of merged layers that the base's BatchNormalizations scale to nothing."""
    return sum(count_dead_channels(step.plan.base, step.donor, pair) for pair in step.plan.merged_pairs)


def lone_in_statistics(step: Merged) -> list[tuple[AxisGroup, int]]:
    """Groups under a sum, norm, mean or maximum of which units have no partner, with their number."""
    counts: dict[int, int] = {}
    aligned = step.plan.alignment
    for pair, order in zip(aligned.correspondence.pairs, aligned.orders, strict=True):
        lone = order < 0
        if pair.within >= 0:  # units inside one that has no partner itself are not missed
            outer = aligned.orders[pair.within]
            lone = lone & np.repeat(outer >= 0, len(order) // len(outer))
        count = int(lone.sum())
        if count and step.groups.groups[pair.base].statistic:
            counts[pair.base] = count
    return [(step.groups.groups[index], count) for index, count in counts.items()]
