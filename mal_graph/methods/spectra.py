"""Methods on the singular values of task vectors; tensors that are no matrix get the mean of the task vectors.

Taps of a convolution count as columns. Computed in float64.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.method import Need, merge_method
from mal_graph.methods.stack import Stack, Vector

Scale = Annotated[float, Field(1.0, allow_inf_nan=False, description="what the merged task vector is times")]

OTHERS = "the scale is for matrices alone: vectors get the mean of the task vectors, whatever it is"


@merge_method("tsv_m", source="arXiv:2412.00081", needs=Need.ANCESTOR, deviations=(OTHERS,))
def tsv_m(stack: Stack, *, lambda_: Scale) -> Array:
    """The strongest directions of each task vector, made orthogonal to those of the others."""
    if not stack.is_matrix:
        return moved_by_mean(stack)
    parts = [np.linalg.svd(delta, full_matrices=False) for delta in matrices(stack)]
    rank = max(1, len(parts[0][1]) // stack.count)
    left = orthogonal(np.hstack([u[:, :rank] for u, _, _ in parts]))
    right = orthogonal(np.vstack([v[:rank] for _, _, v in parts]))
    strengths = np.concatenate([s[:rank] for _, s, _ in parts])
    return stack.moved(((left * strengths) @ right).astype(stack.models.dtype), lambda_)


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
    total = np.zeros(matrices(stack).shape[1:])
    for factor, delta in zip(weight, matrices(stack), strict=True):
        u, s, v = np.linalg.svd(delta, full_matrices=False)
        rank = max(1, int(len(s) * share) if share else len(s) // stack.count)
        total += factor * (u[:, :rank] * s[:rank]) @ v[:rank]
    return stack.moved(total.astype(stack.models.dtype))


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
    merged = deltas.sum(axis=0)
    mean, square = np.zeros((2, *merged.shape))
    for step in range(1, int(steps) + 1):
        slope = 2 * (merged @ gram - aim)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        merged -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return stack.moved(merged.astype(stack.models.dtype), lambda_)


@merge_method(
    "opcm",
    source="arXiv:2501.09522",
    needs=Need.ANCESTOR,
    deviations=("lengths are those of each tensor, not of whole task vectors: tensors are merged one at a time",),
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


def matrices(stack: Stack) -> Array:
    """The task vectors as matrices, shape (models, rows, columns), in float64."""
    return stack.deltas.reshape(stack.count, stack.deltas.shape[1], -1).astype(np.float64)


def moved_by_mean(stack: Stack) -> Array:
    """The ancestor, moved by the mean of the task vectors: the mean of the models."""
    return stack.mean(np.ones(stack.count))


def orthogonal(matrix: Array) -> Array:
    """The nearest matrix whose rows or columns are orthonormal (Procrustes)."""
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(u @ v)
