"""Failures that the figures of a sweep show, in words, each with its evidence."""

from collections.abc import Iterator, Sequence

import numpy as np

from mal_graph.evaluation import Scores
from mal_graph.graph import Array
from mal_graph.workflows.checks import self_check_of
from mal_graph.workflows.curves import ALIGNED, ALONE, SHUFFLED, STRANGER, Curve
from mal_graph.workflows.steps import Merged

FAR = 0.4  # of its model's depth: how much deeper a donor layer stands than its base layer to be called out of place
SIGMAS = 2.0  # above the largest class: what a model at chance may reach by luck


def findings(
    step: Merged, lambdas: Sequence[float], eps: float, curves: Sequence[Curve], own: Scores | str, labels: Array
) -> Iterator[str]:
    """Failures in words, each with its evidence."""
    check = self_check_of([step])
    if check.failed:
        yield f"the alignment is not sound: put in the orders used, {check.detail}"
    aligned, *controls = curves
    means = {one.arm: mean_loss(one) for one in (aligned, *(c for c in controls if c.arm in (SHUFFLED, STRANGER)))}
    for arm in (SHUFFLED, STRANGER):
        if not means[ALIGNED] < means[arm]:
            yield (
                f"alignment no better than random: the mean loss over lambda > 0 is {means[ALIGNED]:.4g} aligned, "
                f"{means[arm]:.4g} with a {arm}"
            )
    for alone in (mean_loss(one) for one in controls if one.arm == ALONE):
        if not means[ALIGNED] < alone:
            yield (
                f"merging no better than repair alone: the mean loss over lambda > 0 is {means[ALIGNED]:.4g} aligned, "
                f"{alone:.4g} for the base with its own weights, repaired alike"
            )
    if aligned.lam_star < lambdas[-1]:
        beyond = lambdas.index(aligned.lam_star) + 1
        yield (
            f"lambda beyond lambda*: up to {aligned.lam_star:g} the loss stays within {eps:g} of the base's "
            f"{aligned.points[0].loss:.4g}, at {lambdas[beyond]:g} it is {aligned.points[beyond].loss:.4g}"
        )
        yield from out_of_place(step)
    if evidence := chance(own, labels):
        yield f"semantic mismatch of the data: {evidence}"


def mean_loss(curve: Curve) -> float:
    return float(np.mean([point.loss for point in curve.points[1:]]))


def out_of_place(step: Merged) -> Iterator[str]:
    """Deep donor layers that are merged into shallow base layers."""
    ends = [max((layer.depth for layer in side), default=0) or 1 for side in (step.match.base, step.match.donor)]
    for pair in step.plan.merged_pairs:
        a, b = pair.base, pair.donor
        places = a.depth / ends[0], b.depth / ends[1]
        if places[1] - places[0] > FAR:
            yield (
                f"deep donor layer in a shallow base layer: {b.name} stands at {places[1]:.0%} of the donor's depth, "
                f"{a.name} at {places[0]:.0%} of the base's"
            )


def chance(own: Scores | str, labels: Array) -> str:
    """That a donor does no better than a constant on the data, or has no scores; "" if it does."""
    if isinstance(own, str):
        return f"the donor gives nothing to be scored: {own}"
    if own.metric_name == "R2":
        return f"the donor's R2 on them is {own.metric:.3f}, that of a constant is 0" if not own.metric > 0 else ""
    largest = float(np.unique(labels, return_counts=True)[1].max() / labels.size)
    luck = SIGMAS * np.sqrt(largest * (1 - largest) / labels.size)
    if own.metric > largest + luck:
        return ""
    return f"the donor's accuracy on them is {own.metric:.3f}, that of their most frequent class {largest:.3f}"
