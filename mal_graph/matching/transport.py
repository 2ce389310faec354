"""Units assigned in shares: each unit of a model spreads over those of another, so that all count alike on both sides.

Where widths are equal and nothing is softened this is an assignment of whole units; where they are not, a unit of the
narrower model has parts of several of the other, and none is left without a partner.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import csr_array, eye_array, kron, vstack
from scipy.special import logsumexp

from mal_graph.brief import Brief
from mal_graph.errors import UsageError
from mal_graph.graph import Array
from mal_graph.matching.assignment import Alignment
from mal_graph.matching.axis_pairs import AxisPair, unit_rows
from mal_graph.matching.unit_kinds import Kinds

MOST_EXACT = 1 << 20  # pairs of units of which a linear program takes seconds
APART = 100  # times how much scores differ: what units of different kinds lose by standing on each other
MOST_ROUNDS, BALANCED = 2000, 1e-9  # of scaling, and how far off what units hold may be at the end


@dataclass(frozen=True, repr=False)
class Shares(Brief):
    """How the units of a donor stand on those of a base.

    Attributes:
        mean: for each base unit what it takes of each donor unit: rows that sum to one.
        spread: for each donor unit how it is spread over the base's: columns that sum to one.
    """

    mean: Array
    spread: Array


def shares_of(alignment: Alignment, softness: float) -> dict[int, Shares]:
    """By index of each pair of groups how its units are shared, those of one kind among each other; pairs inside
    others, or of whose kinds there are not alike many in both, keep the orders that they have and are left out.

    Args:
        softness: by how much units are mixed, as a share of how much the scores of pairs of units differ; 0 for no more
            than their numbers ask for.

    Raises:
        UsageError: an exact plan would take too long.
    """
    correspondence, shares = alignment.correspondence, dict[int, Shares]()
    for index, pair in enumerate(correspondence.pairs):
        kinds = correspondence.kinds.get(index)
        if pair.is_outermost and (kinds is None or are_alike_many(kinds)):
            scores = unit_scores(alignment, index, shares)
            if kinds is not None:
                scores = np.where(kinds.differ, scores.min() - APART * (np.ptp(scores) or 1.0), scores)
            plan = transport(scores, softness)
            shares[index] = Shares(plan / plan.sum(axis=1, keepdims=True), plan / plan.sum(axis=0, keepdims=True))
    return shares


def are_alike_many(kinds: Kinds) -> bool:
    """Whether each kind of units has the same share of all in the base and in the donor."""
    known = np.unique(np.concatenate(kinds))
    shares = [(side[:, None] == known).mean(axis=0) for side in kinds]
    return bool(np.allclose(*shares))


def unit_scores(alignment: Alignment, index: int, shares: Mapping[int, Shares]) -> Array:
    """Products of what makes the units of a pair, shape (base units, donor units); what that reads of pairs before it
    is shared out as these are, and stands as it was aligned elsewhere."""
    scores = np.zeros(alignment.correspondence.units[index])
    for tensor, axes in alignment.correspondence.tensors:
        made = [(0, axes[0])] if tensor.is_weight else list(enumerate(axes))
        for place, block in ((place, block) for place, axis in made for block in axis.blocks if block.pair == index):
            mine, theirs = (values().astype(np.float64) for values in (tensor.base_values, tensor.donor_values))
            for other, axis in enumerate(axes):
                if other != place:
                    own = axis_map(
                        axis, alignment, shares, gives=not (tensor.is_weight and other), donor=theirs.shape[other]
                    )
                    theirs = along(own, theirs, other)
            scores += unit_rows(mine, place, block.base) @ unit_rows(theirs, place, block.donor).T
    return scores


def along(own: Array, values: Array, place: int) -> Array:
    """Values with an axis replaced by what a matrix makes of it."""
    return np.asarray(np.moveaxis(np.tensordot(own, values, axes=(1, place)), 0, place))


def transport(scores: Array, softness: float) -> Array:
    """The plan with the largest sum of scores that has 1 / m in each row and 1 / n in each column, shape (m, n).

    As each unit counts alike, products of what units read and give order plans as the distances do.

    Source: Singh and Jaggi 2020, OTFusion (arXiv:1910.05653); Cuturi 2013 (arXiv:1306.0895) where it is softened.

    Raises:
        UsageError: an exact plan would take too long.
    """
    rows, columns = scores.shape
    spread = float(np.median(np.abs(scores - np.median(scores))))
    if not softness or not spread:
        return exact_plan(scores)
    logs = scores / (softness * spread)
    up = np.zeros(rows)
    for _ in range(MOST_ROUNDS):
        across = -np.log(columns) - logsumexp(logs + up[:, None], axis=0)
        before, up = up, -np.log(rows) - logsumexp(logs + across, axis=1)
        if np.abs(up - before).max() <= BALANCED:
            break
    return np.asarray(np.exp(logs + up[:, None] + across))


def exact_plan(scores: Array) -> Array:
    """The plan without softening. Raises UsageError where it would take too long."""
    rows, columns = scores.shape
    if rows == columns:
        plan = np.zeros(scores.shape)
        plan[linear_sum_assignment(scores, maximize=True)] = 1 / rows
        return plan
    if scores.size > MOST_EXACT:
        raise UsageError(
            f"layers of {rows} and {columns} units have no exact plan in short time: give a `softness` above 0, "
            "such as 0.05"
        )
    each_row = kron(eye_array(rows), csr_array(np.ones((1, columns))))
    each_column = kron(csr_array(np.ones((1, rows))), eye_array(columns))
    sums: Any = vstack([each_row, each_column])
    held = np.concatenate([np.full(rows, columns), np.full(columns, rows)])  # times both numbers, so that all are whole
    scale = float(np.abs(scores).max()) or 1.0
    found: Any = linprog(-scores.ravel() / scale, A_eq=sums, b_eq=held, method="highs")
    return np.asarray(np.maximum(found.x, 0).reshape(scores.shape) / (rows * columns))


def axis_map(axis: AxisPair, alignment: Alignment, shares: Mapping[int, Shares], *, gives: bool, donor: int) -> Array:
    """What each position of a base's axis takes of those of a donor's, shape (base positions, donor positions); a row
    of zeros where there is no counterpart.

    Args:
        gives: whether the tensor makes the units, or has one number for each; else it reads them.
        donor: the length of the donor's axis.
    """
    whole = np.zeros((axis.size, donor))
    for block in axis.blocks:
        own = shares.get(block.pair)
        if own is not None:
            part = own.mean if gives else own.spread
            for mine, theirs in zip(block.base.T, block.donor.T, strict=True):
                whole[np.ix_(mine, theirs)] = part
            continue
        order = np.arange(len(block.base)) if block.pair < 0 else alignment.orders[block.pair]
        known = np.flatnonzero(order >= 0)
        whole[block.base[known].ravel(), block.donor[order[known]].ravel()] = 1
    return whole
