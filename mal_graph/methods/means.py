"""Methods that need no ancestor, and Model Stock, whose ancestor is one more point of a mean.

Entries that not all models have are averaged over those that have them, whatever the method.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.method import Aligned, Need, merge_method
from mal_graph.methods.stack import Stack, Vector, mean_of, spread_over

Weight = Annotated[Vector, Field(1.0, ge=0, description="how much a model counts in the mean")]

NEARLY_PARALLEL = 0.9995  # cosine from which an arc is as good as a line, and easier to compute
PASSES, STILL = 100, 1e-10  # of the Karcher mean: the most, and the step from which it rests


@merge_method("linear", source="arXiv:2203.05482", by_entry=True)
def linear(stack: Stack, *, weight: Weight) -> Array:
    """The weighted mean of the models."""
    return stack.mean(weight)


KEPT_IN_ORDER = "models whose weights go together in stored order, as those of fine-tunes do, stay in it"


@merge_method(
    "c2m3",
    source="arXiv:2405.17897",
    by_entry=True,
    aligned=Aligned.IN_UNIVERSE,
    deviations=(
        "it begins with the orders of the base with each donor, not with the identity",
        "models may have other widths, and the universe is as wide as the widest: in the paper all have one",
        "units inside heads, and others that are not told alike by all models, stay aligned to the base",
        KEPT_IN_ORDER,
    ),
)
def c2m3(stack: Stack, *, weight: Weight) -> Array:
    """The weighted mean of models that are all aligned to each other, with orders that agree along every way."""
    return stack.mean(weight)


@merge_method(
    "merge_many",
    source="arXiv:2209.04836",
    by_entry=True,
    aligned=Aligned.IN_ROUNDS,
    deviations=("it begins with the orders of the base with each donor, not with those that are stored", KEPT_IN_ORDER),
)
def merge_many(stack: Stack, *, weight: Weight) -> Array:
    """The weighted mean of models of which each in turn was aligned to the sum of the others, until none moved."""
    return stack.mean(weight)


def shares_on_arc(values: Any, count: int) -> Vector:
    """The base and the one donor."""
    t = float(values["t"])
    return np.array([1 - t, t])


@merge_method(
    "ot_fusion",
    source="arXiv:1910.05653",
    aligned=Aligned.IN_SHARES,
    deviations=(
        "units are compared by all that makes them: those of a residual stream by all layers that add to it, which in "
        "the paper each have a plan of their own",
        "what reads a unit is shared out so that it reads as much as before: in the authors' code it reads less where "
        "the donor is wider",
        "units inside heads stand one on one",
    ),
)
def ot_fusion(
    stack: Stack,
    *,
    weight: Weight,
    softness: Annotated[
        float, Field(0.0, ge=0, le=10, description="how much units are mixed beyond what widths ask for")
    ],
) -> Array:
    """The weighted mean of models whose units are shared out over the base's by optimal transport."""
    return stack.mean(weight)


@merge_method(
    "zipit",
    source="arXiv:2305.03053",
    needs=Need.ACTIVATIONS,
    aligned=Aligned.ZIPPED,
    deviations=(
        "all layers are zipped: one result has one head, and two heads behind shared layers are what a union has",
        "units that a norm, sum or maximum is taken over, or along which activations are multiplied with each other, "
        "heads and what lies inside them stand one on one, as they were aligned: of two that give the same one would "
        "not do for both",
        "units that are equally alike, and those that never vary, go to where they are aligned",
        "models may have other widths: where units are left that may meet none, they go where they fit best",
    ),
)
def zipit(
    stack: Stack,
    *,
    weight: Weight,
    repeat: Annotated[
        float, Field(0.3, ge=0, le=1, description="what units that were merged before are alike by is times")
    ],
    within: Annotated[float, Field(0.125, ge=0, le=1, description="of the merges, those of two units of one model")],
) -> Array:
    """The weighted mean of models whose units were merged in pairs, also two of one model, if they give the same."""
    return stack.mean(weight)


@merge_method(
    "slerp",
    source="Shoemake 1985, doi:10.1145/325165.325242",
    models=2,
    shares_of=shares_on_arc,
    deviations=(
        "the arc is that of each tensor as a whole, as is the custom for networks: the paper turns quaternions",
    ),
)
def slerp(
    stack: Stack, *, t: Annotated[float, Field(0.5, ge=0, le=1, description="0 is the base, 1 the donor")]
) -> Array:
    """The point on the arc from the base to the donor."""
    line = stack.mean(np.array([1 - t, t]))
    first, second = (flat_shared(stack, one) for one in stack.models)
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    cosine = float(first @ second / (lengths[0] * lengths[1])) if all(lengths) else 1.0
    if abs(cosine) > NEARLY_PARALLEL or t in (0.0, 1.0):
        return line
    angle = np.arccos(cosine)
    parts = np.array([np.sin((1 - t) * angle), np.sin(t * angle)]) / np.sin(angle)
    return where_shared(stack, combine(stack.models, parts), line)


@merge_method(
    "karcher",
    source="Karcher 1977, doi:10.1002/cpa.3160300502",
    deviations=(
        "lengths of tensors are averaged on a line and their directions on the sphere: the paper has no lengths",
    ),
)
def karcher(stack: Stack, *, weight: Weight) -> Array:
    """The Karcher mean of the models on the sphere: of two models at equal lengths what slerp gives."""
    line, shares = stack.mean(weight), weight / weight.sum()
    flat = np.stack([flat_shared(stack, one) for one in stack.models])
    lengths = np.linalg.norm(flat, axis=1)
    if not lengths.all():  # a tensor of zeros has no direction
        return line
    directions = flat / lengths[:, None]
    centre = shares @ directions
    if np.linalg.norm(centre) < 1e-6:  # opposite directions have no mean
        return line
    centre /= np.linalg.norm(centre)
    if (directions @ centre).min() > NEARLY_PARALLEL:
        return line
    for _ in range(PASSES):
        step = shares @ logarithms(centre, directions)
        size = float(np.linalg.norm(step))
        if size < STILL:
            break
        centre = np.cos(size) * centre + np.sin(size) * step / size
        centre /= np.linalg.norm(centre)
    return where_shared(stack, float(shares @ lengths) * centre, line)


def logarithms(centre: Array, directions: Array) -> Array:
    """The steps on the sphere from a point to others, as tangents there, shape (models, features)."""
    cosines = np.clip(directions @ centre, -1.0, 1.0)
    across = directions - cosines[:, None] * centre
    lengths = np.linalg.norm(across, axis=1)
    angles = np.arccos(cosines) / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(angles[:, None] * across)


@merge_method(
    "model_stock",
    source="arXiv:2403.19522",
    needs=Need.ANCESTOR,
    deviations=(
        "the cosine is the mean over all pairs, and one below 0 counts as 0: models that pull apart are no reason to "
        "move behind the ancestor",
    ),
)
def model_stock(stack: Stack) -> Array:
    """The point between the ancestor and the mean that is nearest to the centre of all possible fine-tunes."""
    mean, count = stack.mean(np.ones(stack.count)), stack.count
    if count == 1:
        return mean
    flat = stack.deltas.reshape(count, -1).astype(np.float64)
    sizes = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(sizes > 0, sizes, 1.0)  # one that stayed where it was agrees with none
    cosine = min(max(float((unit @ unit.T)[np.triu_indices(count, 1)].mean()), 0.0), 1.0)
    share = count * cosine / ((count - 1) * cosine + 1)
    return mean_of(np.stack([stack.origin, mean]), np.array([1 - share, share]))


def flat_shared(stack: Stack, values: Array) -> Array:
    """The entries that all models have, as one vector in float64, the others 0."""
    shared = values if stack.shared is None else np.where(stack.shared, values, 0)
    return np.asarray(shared.ravel(), np.float64)


def where_shared(stack: Stack, values: Array, otherwise: Array) -> Array:
    """Values of the entries that all models have; others as a mean has them."""
    shaped = values.reshape(otherwise.shape).astype(otherwise.dtype)
    return shaped if stack.shared is None else np.where(stack.shared, shaped, otherwise)


def combine(values: Array, parts: Vector) -> Array:
    """The sum of tensors, each times a number."""
    combined: Array = (spread_over(parts, values) * values).sum(axis=0)
    return combined
