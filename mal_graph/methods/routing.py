"""Methods that route: how much of each model's expert a sample gets is told by a router, which is a part of the result.

A method says what is shared and what the experts are: what it makes rises evenly with the weight of each model, so that
with weights of 0 it is what all samples share, and what one weight adds to that is an expert (see `merging.routing`).
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.method import Gate, Need, Routing, merge_method
from mal_graph.methods.spectra import summed_parts
from mal_graph.methods.stack import Stack, Vector
from mal_graph.methods.task_vectors import signs_of, total

Expert = Annotated[
    Vector, Field(1.0, allow_inf_nan=False, description="what the expert of a model is times, beside what is routed")
]
Equal = Annotated[float, Field(0.0, ge=0, le=1, description="of the rank that an expert keeps; 0 for equal shares")]

LAST_LAYER = "what the router looks at is what the last merged layer reads, of which it takes the mean over all places"


@merge_method(
    "twin_merging",
    source="arXiv:2406.15479",
    needs=Need.ANCESTOR,
    routing=Routing(Gate.LINEAR),
    deviations=(
        LAST_LAYER,
        "the router is linear, and fitted until it is the best one: the authors train one of several layers",
        "an expert keeps a share of the rank of each matrix: the authors' code takes one rank for all of them",
    ),
)
def twin_merging(
    stack: Stack,
    *,
    weight: Expert,
    share: Annotated[float, Field(0.2, ge=0, le=1, description="of the rank that an expert keeps; 0 for equal shares")],
    lambda_: Annotated[float, Field(0.3, allow_inf_nan=False, description="what task vectors are times in the shared")],
) -> Array:
    """What models share, and an expert of low rank for what each of them knows beyond; a gate mixes the experts."""
    shared = stack.moved(total(stack.deltas, np.full(stack.count, lambda_)))
    return np.asarray(shared + experts(stack.models - shared, weight, share))


@merge_method(
    "mass",
    source="arXiv:2504.05342",
    needs=Need.ANCESTOR,
    routing=Routing(Gate.DIRECTIONS, first="tsv_m"),
    deviations=(
        "what the router looks at is what the last of those merged layers reads that have most directions, of which it "
        "takes the mean over all places: in the paper the layer is chosen",
        "directions of several chosen models are added as they are, without being made orthogonal to each other: no "
        "operator of ONNX finds singular vectors while the model runs",
        "models that have learned much the same are all kept",
    ),
)
def mass(
    stack: Stack,
    *,
    weight: Expert,
    share: Equal,
    threshold: Annotated[float, Field(0.2, ge=0, le=1, description="how sure of a model the router is to choose it")],
    most: Annotated[float, Field(3.0, ge=1, le=64, description="how many models are chosen for a sample at most")],
) -> Array:
    """The strongest directions of those models whose own directions what a sample makes of them lies along."""
    return np.asarray(stack.origin + experts(stack.deltas, weight, share))


@merge_method(
    "auto_switch",
    source="arXiv:2412.00054",
    needs=Need.ANCESTOR,
    routing=Routing(Gate.NEIGHBOURS),
    deviations=(
        LAST_LAYER,
        "signs take a byte each: in the paper they take a bit",
        "how many neighbours are asked, of how many inputs, is our choice",
    ),
)
def auto_switch(
    stack: Stack,
    *,
    weight: Expert,
    density: Annotated[Vector, Field(0.4, gt=0, le=1, description="the share of its task vector that a model keeps")],
    neighbours: Annotated[float, Field(10.0, ge=1, le=1000, description="how many of the nearest inputs are asked")],
    queries: Annotated[float, Field(100.0, ge=1, le=100_000, description="how many inputs of each model are kept")],
) -> Array:
    """Task vectors of signs of one size, as in t_switch, each times its share of the inputs nearest to a sample."""
    return stack.moved(total(signs_of(stack, density), weight))


def experts(apart: Array, weight: Vector, share: float) -> Array:
    """The sum of what models are apart from something, each at a share of its rank; vectors have no rank, and stay."""
    if apart.ndim <= 2:
        return np.asarray(total(apart, weight))
    return np.asarray(summed_parts(apart, weight, share), apart.dtype).reshape(apart.shape[1:])
