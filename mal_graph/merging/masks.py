"""Masks of the layers to be merged: booleans are not averaged, so both models must have the same where units meet."""

import numpy as np

from mal_graph.matching import AxisPair, Correspondence, Orders, TensorPair, match_positions


def find_other_masks(correspondence: Correspondence, orders: Orders) -> dict[str, str]:
    """Why a layer of the base keeps its weights, by name, where a mask of its own is not the donor's."""
    return {
        pair.layer: f"its mask {pair.base.tensor} differs from the donor's in the orders used"
        for pair, axes in correspondence.masks
        if is_other(pair, axes, orders)
    }


def is_other(pair: TensorPair, axes: tuple[AxisPair, ...], orders: Orders) -> bool:
    """Whether two masks differ at the positions that correspond to each other."""
    positions = [match_positions(axis, orders) for axis in axes]
    mine, theirs = zip(*(both for both in positions if both is not None), strict=True)
    return not np.array_equal(pair.base_values()[np.ix_(*mine)], pair.donor_values()[np.ix_(*theirs)])
