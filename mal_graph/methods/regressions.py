"""Methods on what layers read: each weight is the best linear answer to the inputs of all models.

What it is best for are sums of squares, so that second moments of the inputs say all that counts. They are solved for
the distance from the weighted mean of the models: what the inputs never show stays that mean, and models that are equal
stay as they are; where something else is known beforehand, that takes the place of the mean. Biases and other tensors
get the mean, as do weights whose inputs no tensor shows. Solved in float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.linalg import cho_factor, cho_solve

from mal_graph.boxes import Array
from mal_graph.errors import DataError
from mal_graph.methods.means import Weight
from mal_graph.methods.method import Measured, Need, merge_method
from mal_graph.methods.stack import Mask, Stack, Vector, spread_over
from mal_graph.methods.task_vectors import total

RIDGE = 1e-9  # of the mean square of each column: what others say of it to eight digits is not drawn to the mean

Scaling = Annotated[float, Field(0.95, ge=0, le=1, description="what products of different inputs are times")]
Sides = Callable[[int, Vector], tuple[Array, Array]]  # of a block and shares: what each model is times, and their sum

PER_SAMPLE = "the inputs of a model count by its weight, not by how many there are"


@merge_method(
    "regmean",
    source="arXiv:2212.09849",
    needs=Need.ACTIVATIONS,
    measured=Measured.OWN,
    deviations=(PER_SAMPLE,),
)
def regmean(stack: Stack, *, weight: Weight, scaling: Scaling) -> Array:
    """The weights whose outputs are nearest to those of each model on its own inputs."""
    return nearest(stack, weight, scaling)


@merge_method(
    "regmean_plus_plus",
    source="arXiv:2508.03121",
    needs=Need.ACTIVATIONS,
    measured=Measured.MERGED,
    deviations=(PER_SAMPLE,),
)
def regmean_plus_plus(stack: Stack, *, weight: Weight, scaling: Scaling) -> Array:
    """As regmean, where inputs are what the layers before give that are merged already."""
    return nearest(stack, weight, scaling)


@merge_method(
    "pleas",
    source="arXiv:2407.02447",
    needs=Need.ACTIVATIONS,
    measured=Measured.TOGETHER,
    deviations=(
        "all units are merged, so that the result has the size of one model: the paper leaves some apart",
        "solved in closed form: the paper takes steps of Adam",
    ),
)
def pleas(stack: Stack, *, weight: Weight) -> Array:
    """The weights that make, of the mean of what the models read, the mean of what they give."""
    mean = stack.mean(weight)
    if stack.moments is None:
        return mean
    moments = stack.moments

    def sides(block: int, shares: Vector) -> tuple[Array, Array]:
        products = np.einsum("i,ijab->jab", shares, moments[:, :, block])  # of the mean with each model
        own: Array = shares[:, None, None] * products.transpose(0, 2, 1)
        return own, own.sum(axis=0)

    return regressed(stack, weight, mean, sides)


Strength = Annotated[
    float, Field(0.1, gt=0, allow_inf_nan=False, description="of what is known beforehand, beside a typical input")
]
Known = Annotated[float, Field(0.3, allow_inf_nan=False, description="what task vectors are times in what is known")]

ANCHOR = "what is known beforehand is task arithmetic: the paper takes results of WUDI and TSV-M too"
BY_HAND = (
    "the paper searches for the numbers of each module by Bayesian optimisation on labelled data: they are given here"
)


@merge_method(
    "bayesian",
    source="arXiv:2605.12843",
    needs=Need.ANCESTOR,
    measured=Measured.OWN,
    deviations=(PER_SAMPLE, ANCHOR, BY_HAND),
)
def bayesian(stack: Stack, *, weight: Weight, strength: Strength, lambda_: Known) -> Array:
    """The weights whose outputs are nearest to those of each model on its inputs, drawn to task arithmetic."""
    anchor = stack.moved(total(stack.deltas, np.full(stack.count, lambda_)))
    return anchor if stack.moments is None else drawn_to(stack, weight, strength, anchor, stack.moments)


@merge_method(
    "bayesian_data_free",
    source="arXiv:2605.12843",
    needs=Need.ANCESTOR,
    deviations=(
        "how the paper estimates what layers read we know from its abstract alone: here it is the products of the "
        "columns of each task vector, divided by their mean square",
        ANCHOR,
        BY_HAND,
    ),
)
def bayesian_data_free(stack: Stack, *, weight: Weight, strength: Strength, lambda_: Known) -> Array:
    """As bayesian, where task vectors tell what their models have read."""
    anchor = stack.moved(total(stack.deltas, np.full(stack.count, lambda_)))
    if not stack.is_matrix:
        return anchor
    rows = stack.deltas.reshape(stack.count, stack.deltas.shape[1], -1).astype(np.float64)
    sizes = (rows**2).sum(axis=(1, 2), keepdims=True) / rows.shape[2]
    moments = rows.transpose(0, 2, 1) @ rows / np.where(sizes > 0, sizes, 1.0)
    return drawn_to(stack, weight, strength, anchor, moments[:, None])


def drawn_to(stack: Stack, weight: Vector, strength: float, anchor: Array, moments: Array) -> Array:
    """The solution M of M (sum of G_i + s) = sum of W_i G_i + s A: a regression whose prior is around A.

    Args:
        strength: s as a share of the mean square of a column.
        anchor: A, shape (*tensor,).
        moments: G_i, shape (models, blocks, columns, columns).
    """

    def sides(block: int, shares: Vector) -> tuple[Array, Array]:
        own = shares[:, None, None] * moments[:, block]
        summed = own.sum(axis=0)
        known = strength * np.diagonal(summed).mean()
        return own, summed + known * np.eye(len(summed))

    return regressed(replace(stack, moments=moments), weight, anchor, sides)


def nearest(stack: Stack, weight: Vector, scaling: float) -> Array:
    """The weights whose outputs are nearest to those of each model on its inputs."""
    mean = stack.mean(weight)
    if stack.moments is None:
        return mean
    moments = stack.moments

    def sides(block: int, shares: Vector) -> tuple[Array, Array]:
        own = shares[:, None, None] * moments[:, block] * scaling
        places = np.arange(own.shape[1])
        own[:, places, places] = shares[:, None] * np.diagonal(moments[:, block], axis1=1, axis2=2)
        return own, own.sum(axis=0)

    return regressed(stack, weight, mean, sides)


def regressed(stack: Stack, weight: Vector, mean: Array, sides: Sides) -> Array:
    """The solution M of M (sum of S_i) = sum of W_i S_i, from the mean on; of each row over the models that have it.

    Args:
        mean: of the models, shape (*tensor,).
        sides: gives S_i of every model, shape (models, columns, columns), and their sum.

    Raises:
        DataError: what was measured is not finite.
    """
    assert stack.moments is not None
    blocks, columns = stack.moments.shape[-3:-1]
    centre = mean.reshape(blocks, -1, columns).astype(np.float64)
    gaps = stack.models.reshape(stack.count, *centre.shape) - centre
    merged = centre.copy()
    for block in range(blocks):
        for rows, has in rows_alike(stack, blocks, block):
            shares = weight * has
            if not shares.any() or not gaps[:, block, rows].any():
                continue
            own, total = sides(block, shares / shares.sum())
            if not np.isfinite(total).all():
                raise DataError(
                    "a model gives numbers without end on the inputs that activations are measured on: leave it out, "
                    "or give other inputs"
                )
            aim = np.einsum("irc,icd->rd", gaps[:, block, rows], own)
            merged[block, rows] += solved(total, aim)
    shaped: Array = merged.reshape(mean.shape).astype(mean.dtype)
    return np.where(merged.reshape(mean.shape) == centre.reshape(mean.shape), mean, shaped)


def rows_alike(stack: Stack, blocks: int, block: int) -> Iterator[tuple[Array, Mask]]:
    """Rows of one block that the same models have, and which models these are."""
    if stack.present is None:
        yield np.arange(len(stack.models[0]) // blocks), np.ones(stack.count, bool)
        return
    own = stack.present.reshape(stack.count, blocks, -1, stack.present[0].size // len(stack.present[0]))
    has: Mask = np.asarray(own.any(axis=3))
    kinds, which = np.unique(has[:, block].T, axis=0, return_inverse=True)
    for number, kind in enumerate(kinds):
        yield np.flatnonzero(which.ravel() == number), kind


def solved(total: Array, aim: Array) -> Array:
    """The rows that, times a symmetric matrix, are what is aimed at; columns that are always 0 get 0."""
    sizes = np.sqrt(np.diagonal(total))
    scale = np.where(sizes > 0, 1 / np.where(sizes > 0, sizes, 1), 0.0)
    correlations = total * np.outer(scale, scale) + RIDGE * np.eye(len(total))
    return np.asarray(cho_solve(cho_factor(correlations), (aim * scale).T).T * scale)


@merge_method(
    "fisher",
    source="arXiv:2111.09832",
    needs=Need.ACTIVATIONS,
    measured=Measured.OUTPUTS,
    deviations=(
        "where a model was not traced from a module, and has no gradients, the information is that of a last linear "
        "layer alone, and other tensors get the mean",
        "at most 256 inputs of each model are looked at, and of more than 16 classes as many are drawn",
        "it is divided by its length in each tensor, not in the model as a whole",
    ),
)
def fisher(
    stack: Stack,
    *,
    weight: Weight,
    floor: Annotated[float, Field(1e-6, gt=0, le=1, description="the least that an entry counts")],
) -> Array:
    """The mean of the models, each entry weighted by how much it says of the classes that its model gives."""
    mean = stack.mean(weight)
    if stack.fisher is None:
        return mean
    lengths = np.sqrt((stack.fisher.reshape(stack.count, -1) ** 2).sum(axis=1))
    shares = spread_over(weight / np.where(lengths > 0, lengths, 1.0), stack.fisher) * np.maximum(stack.fisher, 0)
    shares = np.maximum(shares, floor * spread_over(weight, stack.fisher))
    if stack.present is not None:
        shares = shares * stack.present
    total = shares.sum(axis=0)
    moved = (shares * (stack.models - mean)).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(moved == 0, mean, mean + moved), mean.dtype)
