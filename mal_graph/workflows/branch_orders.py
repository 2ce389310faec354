"""The donor with branches that are alike in the base's order: experts or heads that are modules of their own.

Such a branch may trade places with another one whole, if what tells them apart - the rows of a gate, the columns of
what reads them side by side - trades places as well. No axis of a stored tensor holds the branches, so no group of
units does. Of a copy of the base the numbers tell which tensor stands where: each goes to the place in which the base
holds the same ones, and so does each part of an axis whose places are fixed. What comes out is used where it computes
what the donor does, whatever the numbers are.

Chosen: copies. Refused: every donor, for branches that were trained apart have no partners that a few numbers could
tell.
"""

from dataclasses import replace

import numpy as np

from mal_graph.config import MergeConfig
from mal_graph.graph import Array, LayerGraph, Weight, weight_of
from mal_graph.matching import Signatures
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups
from mal_graph.workflows.copies import Placed, compare_parts, in_base_places, is_looked_up, is_symmetric


def with_branches_in_order(
    base: LayerGraph, donor: LayerGraph, groups: AxisGroups, paired: Signatures, config: MergeConfig, runner: Runner
) -> tuple[LayerGraph, tuple[str, ...]]:
    """The donor with its branches as they stand in the base, and the names of the tensors that this changes; the donor
    itself where nothing is to be moved, or the partners of layers are given.

    Args:
        groups: the donor's.
        paired: which of its inputs and outputs is which of the base's.
    """
    if config.assume_ordered or config.matches is not None:
        return donor, ()
    placed = in_base_places(base, donor)
    if all(one.here.tensor == one.source for one in placed):
        return donor, ()
    weights = {one.here.tensor: replace(donor.weights[one.source], name=one.here.tensor) for one in placed}
    moved = {one.here.tensor: weights[one.here.tensor] for one in placed if one.source != one.here.tensor}
    for one in placed:
        if is_looked_up(donor, one.here):  # which of its entries a run reads is chance
            continue
        values = parts_in_order(base.weights[one.own.tensor], weights[one.here.tensor], one, groups)
        if values is not None:
            moved[one.here.tensor] = weight_of(one.here.tensor, values)
    changed = donor.with_weights(moved.values())
    if not is_symmetric(base, donor, changed, groups, paired, runner):
        return donor, ()
    return changed, tuple(moved)


def parts_in_order(base: Weight, donor: Weight, placed: Placed, groups: AxisGroups) -> Array | None:
    """The donor's values with the parts of its axes where the base holds the same numbers; None where they stand there
    already, or nothing tells where they should."""
    values = None
    for axis, parts, order in compare_parts(base, donor, placed, groups):
        if order is None or (order == np.arange(len(parts))).all():
            continue
        index = np.arange(donor.shape[axis])
        for part, old in zip(parts, order, strict=True):
            index[part] = parts[old]
        values = (donor.read() if values is None else values).take(index, axis)
    return values
