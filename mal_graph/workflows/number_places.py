"""The donor with its numbers where the base holds them, in ways that no order of units tells.

Each group of a convolution, each block of a block-diagonal matrix and each channel of a diagonal state space may order
its units by itself, where the axes of what is stored have one order for all. Of a copy of the base the numbers say
where they belong, and a run says whether they may stand there.

Chosen: a last resort, for copies that orders of units do not put in place. Refused: to put every copy in order so, for
orders of units are what people read, and are found in any donor; and to look for orders inside each block of any donor,
which took 2.5 times as long and found nothing that a merge gained from.
"""

import numpy as np

from mal_graph.graph import Array, LayerGraph, Weight
from mal_graph.matching import Signatures
from mal_graph.merging import Plan, merge
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroups
from mal_graph.workflows.both_models import KEEPS
from mal_graph.workflows.copies import Placed, compare_parts, in_base_places, is_symmetric

APART = 4.0  # times how far the sorted numbers are from each other: rounding leaves numbers in their order, or nearly


def is_copy_out_of_place(base: LayerGraph, donor: LayerGraph, planned: Plan) -> bool:
    """Whether a donor holds the base's numbers, but not in the base's places once its units are in the orders of a
    plan, or a plan keeps some of the base's in their stead."""
    if not in_base_places(base, donor):
        return False
    if planned.skipped or planned.dropped:
        return True
    end = merge(planned.at(1.0))
    pairs = ((weight, end.weights[name]) for name, weight in base.weights.items() if name in end.weights)
    return not all(own.shape == put.shape and stand_there(own.read(), put.read()) for own, put in pairs if own.is_float)


def stand_there(own: Array, theirs: Array) -> bool:
    """Whether numbers that are the same but for rounding stand in the same places."""
    a, b = (np.asarray(values, np.float64) for values in (own, theirs))
    least = float(np.linalg.norm(np.sort(a, axis=None) - np.sort(b, axis=None)))
    return float(np.linalg.norm(a - b)) <= max(APART * least, KEEPS * float(np.linalg.norm(a)))


def with_numbers_in_place(
    base: LayerGraph, donor: LayerGraph, groups: AxisGroups, paired: Signatures, runner: Runner
) -> tuple[LayerGraph, tuple[str, ...]]:
    """A copy of the base with every number where the base holds it, and the names of the tensors that this changes; the
    donor itself where numbers left the part of an axis that they belong to.

    Args:
        groups: the donor's.
        paired: which of its inputs and outputs is which of the base's.
    """
    placed = in_base_places(base, donor)
    pairs = [(base.weights[one.own.tensor], donor.weights[one.here.tensor], one) for one in placed]
    if not all(one.here.tensor == one.source and is_in_parts(own, theirs, one, groups) for own, theirs, one in pairs):
        return donor, ()
    away = (
        (own, theirs, one)
        for own, theirs, one in pairs
        if not stand_there(one.own.canonical(own.read()), one.here.canonical(theirs.read()))
    )
    put = {theirs.name: in_places(own, theirs, one) for own, theirs, one in away}
    changed = donor.with_weights(put)
    if not put or not is_symmetric(base, donor, changed, groups, paired, runner):
        return donor, ()
    return changed, tuple(put)


def is_in_parts(base: Weight, donor: Weight, placed: Placed, groups: AxisGroups) -> bool:
    """Whether each part of each axis holds the same numbers in both models."""
    compared = compare_parts(base, donor, placed, groups)
    return all(one.order is not None and (one.order == np.arange(len(one.parts))).all() for one in compared)


def in_places(base: Weight, donor: Weight, placed: Placed) -> Array:
    """The donor's numbers, each where the base holds the one that has as many smaller ones."""
    own, theirs = placed.own.canonical(base.read()), placed.here.canonical(donor.read())
    values = np.empty(own.size, theirs.dtype)
    values[np.argsort(own, axis=None, kind="stable")] = np.sort(theirs, axis=None)
    return placed.here.stored(values.reshape(theirs.shape), donor.shape)
