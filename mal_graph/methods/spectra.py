"""Methods on the singular values of task vectors; tensors that are no matrix get the mean of the task vectors.

Taps of a convolution count as columns. Computed in float64.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.descent import descend
from mal_graph.methods.method import Need, merge_method
from mal_graph.methods.stack import Stack, Vector
from mal_graph.methods.task_vectors import BY_TENSOR, elected, largest

Scale = Annotated[float, Field(1.0, allow_inf_nan=False, description="what the merged task vector is times")]

OTHERS = "the scale is for matrices alone: vectors get the mean of the task vectors, whatever it is"


@merge_method("tsv_m", source="arXiv:2412.00081", needs=Need.ANCESTOR, deviations=(OTHERS,))
def tsv_m(stack: Stack, *, lambda_: Scale) -> Array:
    """The strongest directions of each task vector, made orthogonal to those of the others."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    parts = strongest(stack)
    left = orthogonal(np.hstack([u for u, _, _ in parts]))
    right = orthogonal(np.vstack([v for _, _, v in parts]))
    strengths = np.concatenate([s for _, s, _ in parts])
    return stack.moved(((left * strengths) @ right).astype(stack.models.dtype), lambda_)


@merge_method(
    "dc_merge",
    source="arXiv:2603.06242",
    needs=Need.ANCESTOR,
    deviations=(
        OTHERS,
        "strengths are as they are unless `smooth` says how even they become: so it is in the authors' code for models "
        "that were tuned as a whole, and the paper evens them out",
        "a matrix with fewer rows or columns than there are models has no direction for each, and gets the mean",
    ),
)
def dc_merge(
    stack: Stack,
    *,
    density: Annotated[float, Field(0.001, gt=0, le=1, description="the share of entries in the shared space kept")],
    smooth: Annotated[float, Field(0.0, ge=0, le=1, description="how even strengths become: 1 is all as their mean")],
    lambda_: Scale,
) -> Array:
    """The strongest directions of each task vector, turned into one space that all share, and elected there."""
    if not stack.is_matrix or min(matrices(stack).shape[1:]) < stack.count:
        return moved_by_mean(stack)
    parts = strongest(stack)
    left = orthogonal(np.hstack([u for u, _, _ in parts]))
    right = orthogonal(np.vstack([v for _, _, v in parts]))
    evened = [(u * (s + smooth * (s.mean() - s))) @ v for u, s, v in parts]
    shared = np.stack([left.T @ one @ right.T for one in evened])
    kept = np.stack([largest(one, one.size, density) for one in shared])
    own = np.kron(np.eye(stack.count), np.ones((len(parts[0][1]),) * 2))  # directions of a model, with its own alone
    elect = elected(kept, np.ones(stack.count), normalize=True) * own
    return stack.moved((left @ elect @ right).astype(stack.models.dtype), lambda_)


@merge_method(
    "doge",
    source="arXiv:2501.01230",
    needs=Need.ANCESTOR,
    deviations=(
        BY_TENSOR,
        "vectors get the mean of the task vectors: in the authors' code they stay as the ancestor has them",
    ),
)
def doge(
    stack: Stack,
    *,
    steps: Annotated[float, Field(400.0, ge=0, le=10_000, description="how many steps of Adam are taken")],
    rate: Annotated[float, Field(1e-4, ge=0, allow_inf_nan=False, description="how far a number goes in a step")],
    parts: Annotated[float, Field(6.0, ge=1, allow_inf_nan=False, description="one in so many directions is shared")],
    density: Annotated[float, Field(0.3, gt=0, le=1, description="the share of its task vector that a model keeps")],
    lambda_: Annotated[float, Field(0.07, allow_inf_nan=False, description="how long each task vector becomes")],
) -> Array:
    """Task vectors of one length, all moved alike so that their sum differs less from each, but for what they share."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    deltas = matrices(stack)
    lengths = np.linalg.norm(deltas, axis=(1, 2))
    shares = np.where(lengths > 0, lambda_ / np.where(lengths > 0, lengths, 1.0), 0.0)[:, None, None]
    directions, _, _ = np.linalg.svd(np.hstack([u for u, _, _ in strongest(stack)]), full_matrices=False)
    shared = directions[:, : int(min(deltas.shape[1:]) / parts)]
    total, weight = (shares * deltas).sum(axis=0), float(shares.sum())

    def slope_at(move: Array, _: int) -> Array:
        apart = (deltas * (deltas - total - weight * move)).sum(axis=2, keepdims=True)
        slope = -2 * weight * (apart * deltas).sum(axis=0)
        return np.asarray(slope - shared @ (shared.T @ slope))

    move = descend(np.zeros_like(total), slope_at, int(steps), rate)
    moved = [np.where(largest(one, one.size, density) != 0, one + move, 0) for one in deltas]
    return stack.moved((shares * np.stack(moved)).sum(axis=0).astype(stack.models.dtype))


@merge_method(
    "tsv_c",
    source="arXiv:2412.00081",
    needs=Need.ANCESTOR,
    deviations=(
        "the paper keeps the directions of all tasks and takes those of one at a time: a model here holds one sum of "
        "them, which is that of one task where its weight is 1 and the others are 0",
        OTHERS,
    ),
)
def tsv_c(
    stack: Stack,
    *,
    weight: Annotated[Vector, Field(1.0, allow_inf_nan=False, description="what the task vector of a model is times")],
    share: Annotated[float, Field(0.0, ge=0, le=1, description="of the rank that a model keeps; 0 for equal shares")],
) -> Array:
    """The sum of the strongest directions of each task vector: experts compressed to their share of the rank."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    return stack.moved(summed_parts(stack.deltas, weight, share).astype(stack.models.dtype))


@merge_method("iso_c", source="arXiv:2502.04959", needs=Need.ANCESTOR, deviations=(OTHERS,))
def iso_c(stack: Stack, *, lambda_: Scale) -> Array:
    """The sum of the task vectors with all its directions equally strong."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    u, s, v = np.linalg.svd(matrices(stack).sum(axis=0), full_matrices=False)
    return stack.moved((s.mean() * (u @ v)).astype(stack.models.dtype), lambda_)


@merge_method("wudi", source="arXiv:2503.08099", needs=Need.ANCESTOR, deviations=(OTHERS,))
def wudi(
    stack: Stack,
    *,
    steps: Annotated[float, Field(300.0, ge=0, le=10_000, description="how many steps of Adam are taken")],
    rate: Annotated[float, Field(1e-5, ge=0, allow_inf_nan=False, description="how far a number goes in a step")],
    lambda_: Scale,
) -> Array:
    """The sum of the task vectors, moved so that it differs less from each on the inputs which that one has learned."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    deltas = matrices(stack)
    sizes = (deltas**2).sum(axis=(1, 2), keepdims=True)
    grams = deltas.transpose(0, 2, 1) @ deltas / np.where(sizes > 0, sizes, 1.0)  # (models, columns, columns)
    gram, aim = grams.sum(axis=0), (deltas @ grams).sum(axis=0)
    merged = descend(deltas.sum(axis=0), lambda point, _: 2 * (point @ gram - aim), int(steps), rate)
    return stack.moved(merged.astype(stack.models.dtype), lambda_)


@merge_method(
    "opcm",
    source="arXiv:2501.09522",
    needs=Need.ANCESTOR,
    deviations=(
        "lengths are those of each tensor, not of whole task vectors: tensors are merged one at a time",
        "the direction with which the share is reached is protected too, as the authors describe it: in their code it "
        "is not",
    ),
)
def opcm(
    stack: Stack,
    *,
    alpha: Annotated[float, Field(0.5, ge=0, le=1, description="the share of strength that what is there protects")],
) -> Array:
    """One task vector after the other, each without its part along the strongest directions of those before."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    deltas = [delta for delta in matrices(stack) if delta.any()]
    if not deltas:
        return stack.origin
    merged, scale, lengths = deltas[0], 1.0, [float(np.linalg.norm(deltas[0]))]
    for delta in deltas[1:]:
        lengths.append(float(np.linalg.norm(delta)))
        together = scale * merged + outside(delta, merged, alpha)
        scale = float(np.linalg.norm(together)) / float(np.mean(lengths)) or 1.0
        merged = together / scale
    return stack.moved(merged.astype(stack.models.dtype))


def outside(delta: Array, merged: Array, alpha: float) -> Array:
    """What of a task vector is not along the strongest directions of another, nor along pairs of its directions."""
    u, s, v = np.linalg.svd(merged)
    rank = int(np.searchsorted(np.cumsum(s) / s.sum(), alpha)) + 1
    projected = u.T @ delta @ v.T
    np.fill_diagonal(projected, 0)
    projected[:rank, :rank] = 0
    return np.asarray(u @ projected @ v)


def summed_parts(apart: Array, weight: Vector, share: float) -> Array:
    """The weighted sum of the strongest directions of some tensors, in float64, of the shape of one as a matrix.

    Args:
        apart: shape (models, rows, columns, ...).
        share: of the rank that each keeps; 0 for equal shares.
    """
    flat = apart.reshape(len(apart), apart.shape[1], -1).astype(np.float64)
    total = np.zeros(flat.shape[1:])
    for factor, one in zip(weight, flat, strict=True):
        u, s, v = np.linalg.svd(one, full_matrices=False)
        rank = max(1, int(len(s) * share) if share else len(s) // len(apart))
        total += factor * (u[:, :rank] * s[:rank]) @ v[:rank]
    return total


def matrices(stack: Stack) -> Array:
    """The task vectors as matrices, shape (models, rows, columns), in float64."""
    return stack.deltas.reshape(stack.count, stack.deltas.shape[1], -1).astype(np.float64)


def strongest(stack: Stack) -> list[tuple[Array, Array, Array]]:
    """The strongest directions of each task vector with their strengths, as `numpy.linalg.svd` gives them: of as many
    as there are, a share for each model."""
    parts = [np.linalg.svd(delta, full_matrices=False) for delta in matrices(stack)]
    rank = max(1, len(parts[0][1]) // stack.count)
    return [(u[:, :rank], s[:rank], v[:rank]) for u, s, v in parts]


def moved_by_mean(stack: Stack) -> Array:
    """The ancestor, moved by the mean of the task vectors: the mean of the models."""
    return stack.mean(np.ones(stack.count))


def orthogonal(matrix: Array) -> Array:
    """The nearest matrix whose rows or columns are orthonormal (Procrustes)."""
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(u @ v)
