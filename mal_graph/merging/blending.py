"""Carrying out a plan: the merged values of every tensor, computed when they are read.

What entries without a partner become is said by the table in `unmatched`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mal_graph.graph import Array, LayerGraph, Weight, weight_of
from mal_graph.matching import AxisPair, Orders, TensorPair, is_whole, match_positions, take_positions
from mal_graph.merging.planning import Ends, Plan, Step, matched_mask
from mal_graph.merging.unmatched import UnmatchedRule, fading_entries, find_rule, given_entries, outer


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
    return replace(plan.base.weights[step.tensor], read=partial(merged_tensor, plan, step))


def merged_tensor(plan: Plan, step: Step) -> Array:
    """One tensor of the result, in the base's layout and type."""
    weight = plan.base.weights[step.tensor]
    stored = weight.read()
    a = step.pair.base.canonical(stored)
    merged = blend(a, step.pair, step.axes, plan.alignment.orders, step.lam, find_rule(plan.unmatched))
    result = step.pair.base.stored(merged, weight.shape).astype(weight.dtype, copy=False)
    result = np.ascontiguousarray(result).reshape(result.shape)  # which would give a scalar an axis
    result.flags.writeable = False
    return result


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
    mine = a.astype(np.float64 if a.dtype == np.float64 else np.float32)
    masks = [matched_mask(axis, orders) for axis in axes]
    theirs = pair.stored_form(in_base_order(pair.merged_values(), axes, orders, mine.shape)).astype(mine.dtype)
    merged = np.where(mine != theirs, interpolate(mine, theirs, lam), mine)
    if not all(mask.all() for mask in masks) or any(axis.added.size for axis in axes):
        both = outer(masks, mine.shape)
        merged = np.where(both, merged, mine)
        merged = np.where(both & given_entries(rule, pair, axes, mine.shape), theirs, merged)
        fading = fading_entries(rule, pair, axes, orders, masks, mine.shape)
        if fading.any():
            merged = np.where(fading, interpolate(mine, absent_values(pair, mine), lam), merged)
    # What did not change keeps its bits, in the stored type too.
    return np.where(merged == mine, a, merged.astype(a.dtype))


def absent_values(pair: TensorPair, like: Array) -> Array:
    """What a tensor holds for units that are not there. Behind a BatchNorm that stays the base's, it is the effective
    weight that fades."""
    if pair.restore is None:
        return np.full_like(like, pair.base.absent_value)
    return pair.stored_form(np.zeros_like(like)).astype(like.dtype)


def interpolate(a: Array, b: Array, lam: float) -> Array:
    """(1 - lam) a + lam b; a copy at both ends, where computing would turn infinities into NaN."""
    if lam in (0.0, 1.0):
        return b if lam else a
    moved: Array = a + a.dtype.type(lam) * (b - a)
    return moved


def in_base_order(values: Array, axes: Sequence[AxisPair], orders: Orders, shape: tuple[int, ...]) -> Array:
    """Donor values on the base's units, zero where a unit has no partner."""
    for place, axis in enumerate(axes):
        if is_whole(axis):
            continue
        positions = match_positions(axis, orders)
        assert positions is not None  # an alignment has every order
        partners = np.full(shape[place], -1)
        partners[positions[0]] = positions[1]
        values = take_positions(values, partners, place)
    return values
