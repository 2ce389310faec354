"""Folding: of two networks side by side, the units that are alike are merged and the others stay apart.

A pair of units whose incoming weights have a cosine below the threshold is parted, and the base gets a unit of its own
for the donor's (see `widening`). With all pairs parted the result is the mean of both networks' outputs, with none
parted the plain merge on a widened base.

Source: partial merging, as ZipIt (arXiv:2305.03053) and PLeaS (arXiv:2407.02447) do it by layers; by units here.
"""

from dataclasses import replace

import numpy as np

from mal_graph.graph import Array
from mal_graph.merging.blending import merge
from mal_graph.merging.planning import Plan, plan_merge
from mal_graph.merging.widening import widen
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroup


def fold(plan: Plan, threshold: float, runner: Runner) -> Plan:
    """The plan, before the base grows, with the pairs of units parted whose cosine is below the threshold; groups of
    the base that cannot grow keep all their pairs."""
    end = merge(plan.at(1.0)).weights
    start = plan.base.weights
    correspondence = plan.alignment.correspondence
    groups = correspondence.base.groups.groups
    parted: list[Array] = []
    for pair, order in zip(correspondence.pairs, plan.alignment.orders, strict=True):
        if pair.within >= 0:  # they stay with the units that they are inside of, or go
            whole = np.repeat(parted[pair.within] >= 0, len(order) // len(parted[pair.within]))
            parted.append(np.where(whole, order, -1))
            continue
        cosines = unit_cosines(
            groups[pair.base], {name: (start[name].read(), end[name].read()) for name in tensors_of(groups[pair.base])}
        )
        parted.append(np.where(cosines >= threshold, order, -1))
    trial = replanned(plan, parted)
    kept = widen(trial, runner).growth.kept
    orders = [
        whole if correspondence.pairs[root].base in kept else part
        for root, whole, part in zip(correspondence.nests.roots, plan.alignment.orders, parted, strict=True)
    ]
    return replanned(plan, orders) if kept else trial


def replanned(plan: Plan, orders: list[Array]) -> Plan:
    """The same plan with other orders."""
    alignment = replace(plan.alignment, orders=tuple(orders))
    layers = {step.pair.layer for step in plan.steps}
    given = {step.tensor for step in plan.steps if step.is_given}
    return plan_merge(alignment, plan.lambdas, unmatched=plan.unmatched, layers=layers, given=given)


def tensors_of(group: AxisGroup) -> list[str]:
    """The stored tensors with an axis of what a group's units are made by."""
    return list(dict.fromkeys(member.tensor for member in group.members if not member.consumes))


def unit_cosines(group: AxisGroup, values: dict[str, tuple[Array, Array]]) -> Array:
    """The cosine of what makes each unit in two networks, shape (units,); 0 where one has nothing."""
    inner, mine, theirs = np.zeros((3, group.units))
    for member in group.members:
        if member.consumes:
            continue
        a, b = (
            np.moveaxis(array.astype(np.float64), member.axis, 0)[member.positions].reshape(group.units, -1)
            for array in values[member.tensor]
        )
        inner, mine, theirs = inner + (a * b).sum(1), mine + (a * a).sum(1), theirs + (b * b).sum(1)
    size = np.sqrt(mine * theirs)
    return np.asarray(np.where(size > 0, inner / np.where(size > 0, size, 1), 0.0))
