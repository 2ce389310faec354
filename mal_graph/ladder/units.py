"""What an assignment found for two layers, unit by unit: how alike their rows are before and after it."""

import base64
from collections.abc import Sequence

import numpy as np

from mal_graph.boxes import Array, take_box
from mal_graph.ladder.entries import HeatMap, UnitsEntry
from mal_graph.matching import AxisPair, Orders, TensorPair, match_positions
from mal_graph.merging import in_base_order

FINE, COARSE = 64, 8  # units of a heat map on an edge
MANY_PAIRS = 200  # with more, every heat map is coarse
STEPS = 127


def compare_units(tensor: TensorPair, axes: Sequence[AxisPair], orders: Orders, size: int) -> UnitsEntry:
    """Compare the rows of two weights, one row a base unit, in the orders of an alignment.

    Args:
        tensor, axes: the weights of two layers, and how their axes correspond.
        orders: the donor unit on each base unit, for every pair of groups.
        size: units of the heat map on an edge, at most; they are spread evenly over the base's.
    """
    base = tensor.base_values()
    theirs = tensor.donor_values()
    mine, after = rows_of(base), rows_of(take_box(theirs, in_base_order(axes, orders)))
    before = rows_of(cut_to(theirs, base.shape))
    positions = match_positions(axes[0], orders)
    assert positions is not None  # an alignment has every order
    paired = np.unique(positions[0])
    norms = np.linalg.norm(mine, axis=1), np.linalg.norm(after, axis=1)
    cosines = np.einsum("ij,ij->i", mine[paired], after[paired]) / positive(norms[0] * norms[1])[paired]
    shown = np.unique(np.linspace(0, len(mine) - 1, min(size, len(mine))).astype(int))
    table = cosine_table(mine[shown], after[shown])
    others = table[~np.eye(len(shown), dtype=bool)]
    return UnitsEntry(
        units=(base.shape[0], theirs.shape[0]),
        assigned=len(paired),
        cosine=median(cosines),
        random=median(others),
        norm_ratio=median((norms[1] / positive(norms[0]))[paired]),
        heat=HeatMap(size=len(shown), before=as_text(cosine_table(mine[shown], before[shown])), after=as_text(table)),
    )


def rows_of(values: Array) -> Array:
    return values.reshape(len(values), -1)


def cut_to(values: Array, shape: Sequence[int]) -> Array:
    """Values in stored order, cut or filled with zeros to a shape."""
    fitted = np.zeros(shape, values.dtype)
    common = tuple(slice(min(a, b)) for a, b in zip(values.shape, shape, strict=True))
    fitted[common] = values[common]
    return fitted


def cosine_table(mine: Array, theirs: Array) -> Array:
    """Cosines of every two rows; 0 where one is zero."""
    norms = np.outer(np.linalg.norm(mine, axis=1), np.linalg.norm(theirs, axis=1))
    table: Array = mine @ theirs.T / positive(norms)
    return table


def positive(values: Array) -> Array:
    """The same with 1 where it is 0, to divide by."""
    return np.where(values > 0, values, 1.0)


def median(values: Array) -> float:
    return round(float(np.median(values)), 4) if len(values) else 0.0


def as_text(table: Array) -> str:
    """Numbers from -1 to 1 as signed bytes in base64."""
    steps = np.nan_to_num(np.round(np.clip(table, -1, 1) * STEPS)).astype(np.int8)
    return base64.b64encode(steps.tobytes()).decode()
