"""Methods on task vectors, entry by entry: what each model has learned since the ancestor, thinned, elected and added.

Thinning and electing vary apart from each other: each method says how task vectors are thinned, and whether the models
elect a sign for each entry. Where task vectors are added, a weight is 0.3 by default, as is usual for task arithmetic;
where they are averaged it is 1.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.method import Need, merge_method
from mal_graph.methods.sieves import sieve_drawn, sieve_largest
from mal_graph.methods.stack import Mask, Stack, Vector, spread_over

Weight = Annotated[Vector, Field(1.0, allow_inf_nan=False, description="what the task vector of a model is times")]
Part = Annotated[Vector, Field(0.3, allow_inf_nan=False, description="what the task vector of a model is times")]
Scale = Annotated[float, Field(1.0, allow_inf_nan=False, description="what the merged task vector is times")]
Density = Annotated[Vector, Field(0.5, gt=0, le=1, description="the share of its task vector that a model keeps")]
Normalize = Annotated[bool, Field(False, description="divide by the weights of the models that count in an entry")]
Mean = Annotated[bool, Field(True, description="divide by the weights of the models that agree")]

BY_TENSOR = "shares are of each tensor, not of the model as a whole: tensors are merged one at a time"
Thin = Callable[[Array, int, float, np.random.Generator, Mask | None], Array]  # the last: what stays, where it is told


@merge_method("task_arithmetic", source="arXiv:2212.04089", needs=Need.ANCESTOR, by_entry=True)
def task_arithmetic(
    stack: Stack,
    *,
    weight: Part,
    lambda_: Scale,
) -> Array:
    """The ancestor and the sum of all task vectors."""
    return stack.moved(total(stack.deltas, weight), lambda_)


@merge_method("ties", source="arXiv:2306.01708", needs=Need.ANCESTOR, deviations=(BY_TENSOR,), sieve=sieve_largest)
def ties(
    stack: Stack,
    *,
    weight: Weight,
    density: Annotated[Vector, Field(0.2, gt=0, le=1, description="the share of its task vector that a model keeps")],
    lambda_: Scale,
    normalize: Mean,
) -> Array:
    """The largest entries of each task vector, of which those count that have the sign that most of them have."""
    return stack.moved(elected(thinned(stack, largest, density), weight, normalize), lambda_)


@merge_method("dare_linear", source="arXiv:2311.03099", needs=Need.ANCESTOR, sieve=sieve_drawn)
def dare_linear(stack: Stack, *, weight: Part, density: Density, lambda_: Scale, normalize: Normalize) -> Array:
    """The sum of task vectors of which random entries are left out and the others enlarged."""
    return stack.moved(summed(thinned(stack, dropped, density), weight, normalize), lambda_)


@merge_method("dare_ties", source="arXiv:2311.03099", needs=Need.ANCESTOR, sieve=sieve_drawn)
def dare_ties(stack: Stack, *, weight: Part, density: Density, lambda_: Scale, normalize: Normalize) -> Array:
    """Task vectors of which random entries are left out and the others enlarged, then elected as in ties."""
    return stack.moved(elected(thinned(stack, dropped, density), weight, normalize), lambda_)


Epsilon = Annotated[
    float, Field(0.1, ge=0, le=1, description="how far the chance of an entry goes up and down with its rank")
]


@merge_method("della", source="arXiv:2406.11617", needs=Need.ANCESTOR)
def della(
    stack: Stack, *, weight: Weight, density: Density, epsilon: Epsilon, lambda_: Scale, normalize: Mean
) -> Array:
    """As dare_ties, where large entries of a row stay more often than small ones."""
    return stack.moved(elected(thinned(stack, ranked_drop(epsilon), density), weight, normalize), lambda_)


@merge_method("della_linear", source="arXiv:2406.11617", needs=Need.ANCESTOR)
def della_linear(
    stack: Stack, *, weight: Part, density: Density, epsilon: Epsilon, lambda_: Scale, normalize: Normalize
) -> Array:
    """As dare_linear, where large entries of a row stay more often than small ones."""
    return stack.moved(summed(thinned(stack, ranked_drop(epsilon), density), weight, normalize), lambda_)


Kept = Annotated[Vector, Field(0.9, gt=0, le=1, description="the share of its task vector that a model keeps")]
Outliers = Annotated[
    float, Field(0.01, ge=0, le=1, description="the share of the largest entries, which are left out as outliers")
]


@merge_method("breadcrumbs", source="arXiv:2312.06795", needs=Need.ANCESTOR)
def breadcrumbs(
    stack: Stack, *, weight: Part, density: Kept, gamma: Outliers, lambda_: Scale, normalize: Normalize
) -> Array:
    """The sum of task vectors without their largest and smallest entries."""
    return stack.moved(summed(thinned(stack, middle(gamma), density), weight, normalize), lambda_)


@merge_method(
    "breadcrumbs_ties", needs=Need.ANCESTOR, deviations=("published nowhere: breadcrumbs, elected as in ties",)
)
def breadcrumbs_ties(
    stack: Stack, *, weight: Part, density: Kept, gamma: Outliers, lambda_: Scale, normalize: Normalize
) -> Array:
    """Task vectors without their largest and smallest entries, then elected as in ties."""
    return stack.moved(elected(thinned(stack, middle(gamma), density), weight, normalize), lambda_)


@merge_method(
    "lines",
    source="arXiv:2410.17146",
    needs=Need.ANCESTOR,
    by_entry=True,
    deviations=(
        "alpha and beta are numbers that are given, and their defaults are ours: the paper derives alpha from the "
        "lengths of whole task vectors and tunes beta on data",
        "depth is counted in layers of the graph, not in blocks of a transformer",
    ),
)
def lines(
    stack: Stack,
    *,
    weight: Weight,
    alpha: Annotated[float, Field(0.2, allow_inf_nan=False, description="the scale of the first layer")],
    beta: Annotated[float, Field(0.3, allow_inf_nan=False, description="how much more the scale of the last layer is")],
) -> Array:
    """The sum of all task vectors, scaled on a line that rises over the depth."""
    return stack.moved(total(stack.deltas, weight), alpha + beta * stack.depth)


@merge_method(
    "pcb",
    source="arXiv:2410.02396",
    needs=Need.ANCESTOR,
    deviations=(BY_TENSOR, "the scales of the models are not searched by evolution, which takes data"),
)
def pcb(
    stack: Stack,
    *,
    ratio: Annotated[float, Field(0.1, gt=0, le=1, description="the share of entries in which models compete")],
    lambda_: Scale,
) -> Array:
    """Task vectors weighted, entry by entry, by how large they are and how well they go with those of the others."""
    deltas = stack.deltas.astype(np.float64)
    flat = deltas.reshape(stack.count, -1)
    own = np.exp(stack.count * between_ends(np.abs(flat)) ** 2)
    together = np.tanh(flat * flat.sum(axis=0))
    scores = own * together
    place = min(int(flat.shape[1] * (1 - ratio)), flat.shape[1] - 1)
    least = np.sort(scores, axis=1)[:, place, None]
    shares = between_ends(np.maximum(scores, least))
    weighed = shares.sum(axis=0)
    merged = (shares * flat).sum(axis=0) / np.where(weighed > 0, weighed, 1.0)
    return stack.moved(merged.astype(stack.models.dtype), lambda_)


@merge_method(
    "consensus",
    source="arXiv:2405.07813",
    needs=Need.ANCESTOR,
    by_entry=True,
    deviations=("one threshold for all models: the paper chooses one for each on data",),
)
def consensus(
    stack: Stack,
    *,
    threshold: Annotated[float, Field(0.4, ge=0, description="how large a task vector is beside what the others add")],
    least: Annotated[float, Field(2.0, ge=1, description="how many models an entry must matter to")],
    lambda_: Annotated[float, Field(0.3, allow_inf_nan=False, description="what the merged task vector is times")],
) -> Array:
    """The sum of all task vectors, in the entries that matter to several models (TALL masks)."""
    together = stack.deltas.sum(axis=0)
    size = np.abs(stack.deltas)
    matters = (size >= threshold * np.abs(together - stack.deltas)) & (size > 0)
    return stack.moved(np.where(matters.sum(axis=0) >= min(least, stack.count), together, 0), lambda_)


@merge_method(
    "t_switch",
    source="arXiv:2412.00054",
    needs=Need.ANCESTOR,
    deviations=(
        BY_TENSOR,
        "what size the signs have is not said where we know the paper from: it is that which keeps the length",
        "the paper switches task vectors on by task, or by what is near to a sample: here weights say how much",
    ),
)
def t_switch(
    stack: Stack,
    *,
    weight: Annotated[Vector, Field(1.0, ge=0, description="how much a model counts in the mean")],
    density: Annotated[Vector, Field(0.4, gt=0, le=1, description="the share of its task vector that a model keeps")],
) -> Array:
    """The mean of task vectors of which the largest entries stay as signs, all of one size, as long as they were."""
    return stack.moved(total(signs_of(stack, density), weight / weight.sum()))


def signs_of(stack: Stack, density: Vector) -> Array:
    """The signs of the largest entries of each task vector, all of the size that keeps its length."""
    kept = thinned(stack, largest, density)
    counts = np.maximum((kept != 0).reshape(stack.count, -1).sum(axis=1), 1)
    lengths = np.linalg.norm(stack.deltas.reshape(stack.count, -1).astype(np.float64), axis=1)
    return np.asarray(spread_over(lengths / np.sqrt(counts), kept) * np.sign(kept))


@merge_method(
    "widen",
    source="arXiv:2408.03092",
    needs=Need.ANCESTOR,
    deviations=(
        "a column is above the mean by its rank in its own model; vectors get the mean of the task vectors",
        "taps of a convolution count as columns: the paper has none",
    ),
)
def widen(
    stack: Stack,
    *,
    ratio: Annotated[float, Field(1.0, ge=0, description="how far above the mean of its model a column counts whole")],
) -> Array:
    """Task vectors, each column times how far its length and its direction went beside those of the other models."""
    if not stack.is_matrix:
        return stack.mean(np.ones(stack.count))
    shape = (stack.count, len(stack.origin), -1)
    own, origin = stack.models.astype(np.float64).reshape(shape), stack.origin.astype(np.float64).reshape(shape[1:])
    lengths, length = np.linalg.norm(own, axis=1), np.linalg.norm(origin, axis=0)
    sizes = lengths * length
    cosines = (own * origin).sum(axis=1) / np.where(sizes > 0, sizes, 1.0)
    turned = np.where(sizes > 0, 1 - cosines, 0.0)
    shares = [weighed_by_rank(moves, ratio) for moves in (np.abs(lengths - length), turned)]
    deltas = stack.deltas.reshape(shape)
    return stack.moved(((shares[0] + shares[1])[:, None] / 2 * deltas).sum(axis=0).astype(stack.models.dtype))


def weighed_by_rank(moves: Array, ratio: float) -> Array:
    """How much each column of each model counts, by the share of its model's columns that moved no further, shape
    (models, columns): all of it where that is so many times the mean."""
    ranks = np.stack([np.searchsorted(np.sort(row), row, side="right") / len(row) for row in moves])
    shares = np.exp(ranks) / np.exp(ranks).sum(axis=0)
    return np.where(ranks > ratio * ranks.mean(axis=1, keepdims=True), 1.0, shares)


# --- thinning -----------------------------------------------------------------------------------------------------


def thinned(stack: Stack, thin: Thin, density: Vector) -> Array:
    """The task vectors of a stack, each thinned to a share of the entries that its model has: an array of its own."""
    deltas: Array = stack.models - stack.origin
    each = [None] * stack.count if stack.kept is None else stack.kept
    for delta, size, share, random, kept in zip(deltas, stack.sizes(), density, stack.generators(), each, strict=True):
        delta[...] = thin(delta, size, float(share), random, kept)
    return deltas


def largest(
    delta: Array,
    size: int,
    density: float,
    random: np.random.Generator | None = None,
    kept: Mask | None = None,
) -> Array:
    """The largest entries; all that are as large as the last of them."""
    if density >= 1:
        return delta
    if kept is None:
        magnitudes = np.abs(delta)
        place = delta.size - max(1, int(density * size))
        kept = magnitudes >= np.partition(magnitudes.ravel(), place)[place]
    return np.where(kept, delta, 0)


def dropped(delta: Array, size: int, density: float, random: np.random.Generator, kept: Mask | None = None) -> Array:
    """Entries drawn at random, enlarged so that the mean over all draws is what it was."""
    if density >= 1:
        return delta
    kept = random.random(delta.shape) < density if kept is None else kept
    return np.where(kept, delta / delta.dtype.type(density), 0)


def ranked_drop(epsilon: float) -> Thin:
    """Entries drawn at random, the largest of a row with a chance of density + epsilon, the smallest with one of
    density - epsilon."""

    def drop(delta: Array, size: int, density: float, random: np.random.Generator, _: Mask | None) -> Array:
        rows = delta.reshape(len(delta), -1) if delta.ndim > 1 else delta.reshape(1, -1)
        ranks = np.abs(rows).argsort(axis=1, kind="stable").argsort(axis=1) / max(1, rows.shape[1] - 1)
        spread = min(epsilon, density / 2, 1 - density)  # no entry has no chance, and none has more than all
        chances = density - spread + 2 * spread * ranks
        kept = random.random(rows.shape) < chances
        return np.where(kept, rows / chances.astype(rows.dtype), 0).reshape(delta.shape)

    return drop


def middle(gamma: float) -> Thin:
    """The entries behind the largest ones, down to the share that is kept."""

    def keep(delta: Array, size: int, density: float, random: np.random.Generator, _: Mask | None) -> Array:
        first = int(gamma * size)
        last = min(delta.size, first + max(1, int(density * size)))
        kept: Mask = np.zeros(delta.size, bool)
        kept[np.argsort(-np.abs(delta.ravel()), kind="stable")[first:last]] = True
        return np.where(kept.reshape(delta.shape), delta, 0)

    return keep


# --- adding -------------------------------------------------------------------------------------------------------


def total(deltas: Array, weight: Vector) -> Array:
    """The weighted sum of task vectors."""
    result: Array = (spread_over(weight, deltas) * deltas).sum(axis=0)
    return result


def summed(deltas: Array, weight: Vector, normalize: bool) -> Array:
    """The weighted sum, or the mean over the models whose task vector is not 0 there."""
    return divided(total(deltas, weight), weight, deltas != 0) if normalize else total(deltas, weight)


def elected(deltas: Array, weight: Vector, normalize: bool) -> Array:
    """The sum, or the mean, of those entries that have the sign of the sum of all; the task vectors are used up.

    Model after model, for what is as large as a tensor is held as seldom as may be.
    """
    deltas *= spread_over(weight, deltas)
    sums = deltas.sum(axis=0)
    merged = np.zeros_like(sums)
    agree = np.stack([np.sign(delta) == np.sign(sums) for delta in deltas]) & (deltas != 0)
    for delta, counted in zip(deltas, agree, strict=True):
        np.add(merged, delta, out=merged, where=counted)
    return divided(merged, weight, agree) if normalize else merged


def divided(merged: Array, weight: Vector, counted: Mask) -> Array:
    """A sum by the weights of the models that count; as it is where these cancel."""
    weights = np.zeros_like(merged)
    for own, has in zip(weight.astype(merged.dtype), counted, strict=True):
        np.add(weights, own, out=weights, where=has)
    return np.asarray(np.divide(merged, weights, out=merged, where=np.abs(weights) > 1e-8))


def between_ends(values: Array) -> Array:
    """Each row moved and scaled to lie between 0 and 1; 0 where it is constant."""
    least = values.min(axis=1, keepdims=True)
    width = values.max(axis=1, keepdims=True) - least
    result: Array = (values - least) / np.where(width > 0, width, 1.0)
    return result
