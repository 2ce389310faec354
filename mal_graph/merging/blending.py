"""Carrying out a plan: the merged values of every tensor, computed box by box when they are read or written.

What entries without a partner become is said by the table in `unmatched`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mal_graph.boxes import Array, Box, Boxed, ReadBox, Stretch, open_values, read_whole, within
from mal_graph.graph import LayerGraph, Weight, weight_of
from mal_graph.half_numbers import as_float32, as_type
from mal_graph.matching import AxisPair, Orders, TensorPair, find_partners
from mal_graph.merging.planning import Ends, Plan, Step, matched_mask
from mal_graph.merging.unmatched import (
    AxisMarks,
    Mask,
    UnmatchedRule,
    fading_entries,
    find_rule,
    given_entries,
    mark_axis,
    outer,
)
from mal_graph.network import Parameter

TURNED = 8  # times as many numbers in a box where the donor stores rows as columns: all its rows are read for each


def merge(plan: Plan) -> LayerGraph:
    """The base with the planned tensors merged; values are computed when they are read.

    At lam = 0 this is the base itself, unless it was widened.
    """
    growth = plan.growth
    moved = [merged_weight(plan, step) for step in plan.steps if step.lam or growth.added]
    moved += [
        weight_of(name, np.array(between(ends, plan.mean_lam), plan.base.weights[name].dtype))
        for name, ends in growth.factors.items()
    ]
    graph = plan.base.with_weights(moved) if moved else plan.base
    return with_settings(graph, plan) if growth.settings or (plan.settings and plan.is_moving) else graph


def with_settings(graph: LayerGraph, plan: Plan) -> LayerGraph:
    """The graph with what operators hold of their own where the plan puts it, each with the factor of its weights."""
    held: dict[str, dict[str, Ends]] = {}
    for (name, setting), ends in plan.all_settings.items():
        held.setdefault(name, {})[setting] = ends
    nodes = []
    for node in graph.nodes:
        lam = next((plan.lam_of[tensor] for tensor in node.inputs if tensor in plan.lam_of), plan.mean_lam)
        new = {setting: between(ends, lam) for setting, ends in held.get(node.name, {}).items() if lam}
        nodes.append(replace(node, attributes={**node.attributes, **new}) if new else node)
    return replace(graph, nodes=tuple(nodes))


def between(ends: Ends, lam: float) -> float:
    """What a number that is one for the base and another for the donor is in the result."""
    return (1 - lam) * ends[0] + lam * ends[1]


def merged_weight(plan: Plan, step: Step) -> Weight:
    return replace(plan.base.weights[step.tensor], read=MergedValues(plan, step))


def outer_axis(parameter: Parameter) -> int:
    """The canonical axis whose positions lie furthest apart where a parameter is stored; -1 where it has none."""
    stored = {
        axis: place for place, axis in enumerate(parameter.axes) if axis is not None and parameter.shape[place] > 1
    }
    return stored[min(stored)] if stored else -1


@dataclass(frozen=True, repr=False)
class MergedValues(Boxed):
    """One tensor of the result, in the base's layout and type."""

    plan: Plan
    step: Step

    @property
    def most(self) -> int:
        """How many numbers a box has at best."""
        pair = self.step.pair
        return super().most * (TURNED if outer_axis(pair.base) != outer_axis(pair.donor) else 1)

    def __call__(self) -> Array:
        """All values."""
        weight = self.plan.base.weights[self.step.tensor]
        return read_whole(self, weight.shape, weight.dtype)

    def open(self) -> ReadBox:
        """What gives the values of a box."""
        plan, step = self.plan, self.step
        own, rule = plan.base.weights[step.tensor].open(), find_rule(plan.unmatched)
        blend = open_blend(step.pair, step.axes, plan.alignment.orders, step.lam, rule)
        parameter = step.pair.base

        def read_box(box: Box) -> Array:
            stored = own(box)
            merged = blend(parameter.canonical(stored), parameter.canonical_box(box))
            return parameter.stored(merged, stored.shape)

        return read_box


def blend(
    a: Array, pair: TensorPair, axes: Sequence[AxisPair], orders: Orders, lam: float, rule: UnmatchedRule
) -> Array:
    """The merged values of one canonical tensor; entries that do not change are copied, not computed.

    Args:
        a: the base's values, in canonical form.
        pair, axes, orders: what corresponds to them, and how.
        lam: the merging factor.
        rule: what becomes of entries without a partner.
    """
    return open_blend(pair, axes, orders, lam, rule)(a, tuple(slice(0, length) for length in a.shape))


def open_blend(pair: TensorPair, axes: Sequence[AxisPair], orders: Orders, lam: float, rule: UnmatchedRule) -> "Blend":
    """What `blend` does, for one box of a tensor at a time."""
    masks = [matched_mask(axis, orders) for axis in axes]
    is_plain = all(mask.all() for mask in masks) and not any(axis.added.size for axis in axes)
    marks = () if is_plain else tuple(mark_axis(axis, mask, orders) for axis, mask in zip(axes, masks, strict=True))
    return Blend(pair, lam, rule, open_values(pair.merged_values), in_base_order(axes, orders), marks)


@dataclass(frozen=True, repr=False)
class Blend:
    """What merges the values of a box, with all that the boxes of a tensor share.

    Attributes:
        pair, lam, rule: see `blend`.
        theirs: the donor's values.
        partners: the donor's positions on the base's.
        marks: of every axis; () where all entries are matched and none was added.
    """

    pair: TensorPair
    lam: float
    rule: UnmatchedRule
    theirs: ReadBox
    partners: Box
    marks: tuple[AxisMarks, ...]

    def __call__(self, a: Array, box: Box) -> Array:
        """The merged values of a box, of the base's there."""
        mine = a if a.dtype == np.float64 else as_float32(a)
        chosen = tuple(within(partners, stretch) for partners, stretch in zip(self.partners, box, strict=True))
        theirs = self.pair.stored_form(self.theirs(chosen), box).astype(mine.dtype, copy=False)
        merged = interpolate(mine, theirs, self.lam)
        if not self.marks and box:
            return with_kept_bits(merged, a, mine, theirs)
        merged = np.where(mine != theirs, merged, mine)
        if self.marks:
            merged = self.with_unmatched(merged, mine, theirs, box)
        # What did not change keeps its bits, in the stored type too.
        return np.where(merged == mine, a, as_type(merged, a.dtype))

    def present(self, box: Box) -> Mask | None:
        """Which entries of a box the donor has, those that fade into units that are not there among them; None where it
        has all."""
        if not self.marks:
            return None
        marks = [axis.within(stretch) for axis, stretch in zip(self.marks, box, strict=True)]
        return outer([axis.matched for axis in marks]) | fading_entries(self.rule, self.pair, marks)

    def with_unmatched(self, merged: Array, mine: Array, theirs: Array, box: Box) -> Array:
        """The merged values of a box with those that lack a partner as the rule has them."""
        marks = [axis.within(stretch) for axis, stretch in zip(self.marks, box, strict=True)]
        both = outer([axis.matched for axis in marks])
        merged = np.where(both, merged, mine)
        merged = np.where(both & given_entries(self.rule, self.pair, marks), theirs, merged)
        fading = fading_entries(self.rule, self.pair, marks)
        if fading.any():
            merged = np.where(fading, interpolate(mine, absent_values(self.pair, mine, box), self.lam), merged)
        return merged


def with_kept_bits(merged: Array, a: Array, mine: Array, theirs: Array) -> Array:
    """Merged values in the type of the base's `a`, whose bits stay where nothing changed. Computing keeps them anyway,
    but for infinities and the sign of zero: few are looked at again."""
    is_kept = np.isfinite(merged)
    is_kept &= merged != 0
    stored = as_type(merged, a.dtype)
    if is_kept.all():
        return stored
    order: Literal["C", "F"] = "F" if is_kept.flags.f_contiguous else "C"  # the one that copies nothing
    odd = np.unravel_index(np.flatnonzero(~is_kept.ravel(order)), merged.shape, order)
    own, new = mine[odd], np.where(mine[odd] != theirs[odd], merged[odd], mine[odd])
    if stored is mine or stored is theirs:
        stored = stored.copy()
    stored[odd] = np.where(new == own, a[odd], new.astype(a.dtype))
    return stored


def absent_values(pair: TensorPair, like: Array, box: Box) -> Array:
    """What a box of a tensor holds for units that are not there. Behind a BatchNorm that stays the base's, it is the
    effective weight that fades."""
    if pair.restore is None:
        return np.full_like(like, pair.base.absent_value)
    return pair.stored_form(np.zeros_like(like), box).astype(like.dtype)


def interpolate(a: Array, b: Array, lam: float) -> Array:
    """(1 - lam) a + lam b; a copy at both ends, where computing would turn infinities into NaN."""
    if lam in (0.0, 1.0):
        return b if lam else a
    moved: Array = np.asarray(b - a)
    moved *= a.dtype.type(lam)
    moved += a
    return moved


def in_base_order(axes: Sequence[AxisPair], orders: Orders) -> tuple[Stretch, ...]:
    """Where the donor's values lie that stand on the base's: -1 where a unit has no partner."""
    return tuple(find_partners(axis, orders) for axis in axes)
