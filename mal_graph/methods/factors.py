"""Methods that the papers have for models of low rank, on task vectors of any rank; computed in float64.

Taps of a convolution count as columns; tensors that are no matrix have no rank.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.descent import descend
from mal_graph.methods.method import Need, merge_method
from mal_graph.methods.spectra import OTHERS, Scale, matrices, moved_by_mean
from mal_graph.methods.stack import Stack, Vector
from mal_graph.methods.task_vectors import total

Rebuilt = Annotated[Vector, Field(1.0, allow_inf_nan=False, description="what the task vector of a model is times")]


@merge_method(
    "rmm",
    source="arXiv:2510.14163",
    needs=Need.ANCESTOR,
    deviations=(
        "the paper keeps the bases and makes the model of one task of them when it is asked for: a model here holds "
        "one sum of tasks, which is that of one task where its weight is 1 and the others are 0",
        "rows are those of whole task vectors: in the paper they are those of the two factors of models of low rank",
    ),
)
def rmm(
    stack: Stack,
    *,
    weight: Rebuilt,
    bases: Annotated[float, Field(2.0, ge=1, le=1000, description="how many models are kept, of which all are made")],
) -> Array:
    """The sum of task vectors made again of a few: of each row those that all models are nearest to mixtures of."""
    if not stack.is_matrix or bases >= stack.count:
        return stack.moved(total(stack.deltas, weight))
    rows = matrices(stack).transpose(1, 0, 2)  # (rows, models, columns)
    u, s, v = np.linalg.svd(rows, full_matrices=False)
    kept = int(bases)
    mixed = (weight @ (u[:, :, :kept] * s[:, None, :kept]))[:, None]  # what of each base the sum has
    return stack.moved((mixed @ v[:, :kept])[:, 0].astype(stack.models.dtype))


@merge_method(
    "do_merging",
    source="arXiv:2505.15875",
    needs=Need.ANCESTOR,
    deviations=(
        OTHERS,
        "the two factors of a task vector are those of its singular vectors, of a share of the rank: the paper has "
        "those that LoRA trained",
        "that lengths and directions of columns are averaged, each over the models that have learned something there, "
        "and how many steps are taken how far is our choice: where we know the paper from does not say it",
    ),
)
def do_merging(
    stack: Stack,
    *,
    share: Annotated[float, Field(0.25, gt=0, le=1, description="of the rank that the factors of a model have")],
    steps: Annotated[float, Field(100.0, ge=0, le=10_000, description="how many steps of Adam are taken")],
    rate: Annotated[float, Field(0.01, ge=0, le=1, description="how far a number goes in a step, of a typical one")],
    stay: Annotated[float, Field(0.1, ge=0, allow_inf_nan=False, description="how strongly factors are drawn back")],
    lambda_: Scale,
) -> Array:
    """The mean length of each column of the task vectors, in the mean direction, once models are made orthogonal."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    u, s, v = np.linalg.svd(matrices(stack), full_matrices=False)
    rank = max(1, int(share * s.shape[1]))
    roots = np.sqrt(s[:, :rank])
    left, right = roots[:, :, None] * u[:, :, :rank].transpose(0, 2, 1), roots[:, :, None] * v[:, :rank]
    left, right = (turned_apart(factors, int(steps), rate, stay) for factors in (left, right))
    apart = left.transpose(0, 2, 1) @ right  # (models, rows, columns)
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    directions = apart / np.where(lengths > 0, lengths, 1.0)
    counts = np.maximum((lengths > 0).sum(axis=0), 1)
    merged = lengths.sum(axis=0) / counts * directions.sum(axis=0) / counts
    return stack.moved(merged.astype(stack.models.dtype), lambda_)


def turned_apart(factors: Array, steps: int, rate: float, stay: float) -> Array:
    """Factors of some models, shape (models, rank, features), with less in common: the squared products of rows of
    different ones go down, and the squared distances from where the rows began do not go up as much.

    All are divided by their typical number first, so that it does not matter how much was learned.
    """
    size = float(np.sqrt(np.mean(factors**2))) or 1.0
    start = factors / size
    scale = start[0].size

    def slope_at(point: Array, _: int) -> Array:
        own = point.transpose(0, 2, 1) @ point  # (models, features, features)
        others = own.sum(axis=0) - own
        return np.asarray(4 * (point @ others) / scale + 2 * stay * (point - start))

    return size * descend(start, slope_at, steps, rate)
