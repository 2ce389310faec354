"""Methods whose weights are learned: how much each model counts is found by what the result gives on unlabelled inputs.

The weights are few, one for each model or for each model and layer, so that their slopes can be told by running the
result; no gradients of the network are needed, and any graph that runs will do (see `merging.learned_weights`). A mask
has as many numbers as the network: it is learned by the network's gradients (see `merging.learned_masks`).
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mal_graph.boxes import Array
from mal_graph.methods.descent import descend
from mal_graph.methods.method import Aim, Learned, Lesson, Need, Slope, merge_method
from mal_graph.methods.stack import Stack, Vector
from mal_graph.methods.task_vectors import total

Start = Annotated[
    Vector, Field(0.3, allow_inf_nan=False, description="what the task vector of a model is times at first")
]
Little = Annotated[
    Vector, Field(0.1, allow_inf_nan=False, description="what the task vector of a model is times at first")
]
ByLayer = Annotated[bool, Field(True, description="learn a weight for each layer, not one for all")]
Steps = Annotated[float, Field(100.0, ge=0, le=10_000, description="how many steps are taken")]
Rate = Annotated[float, Field(0.01, ge=0, le=1, description="how far a weight goes in a step, about")]
Batch = Annotated[float, Field(16.0, ge=1, le=4096, description="inputs of each model that a step looks at")]

BY_RUNS = (
    "slopes are told by runs along at most 8 directions a step, drawn at random: the paper takes them from the network"
)
LEAST = float(np.finfo(np.float32).tiny)
FEWER = "100 steps of 0.01: the paper takes more and smaller ones"


def walk_down(start: Array, slope_at: Slope, values: Mapping[str, Any]) -> Array:
    """Steps of Adam, drawn back to where they began by `stay`."""
    stay = float(values.get("stay", 0.0))
    return descend(
        start,
        lambda point, step: slope_at(point, step) + stay * np.sign(point - start),
        int(values["steps"]),
        float(values["rate"]),
    )


def walk_to_models(start: Array, slope_at: Slope, values: Mapping[str, Any]) -> Array:
    """Steps towards the one model that promises most, each shorter than the one before (Frank and Wolfe 1956)."""
    point = start.copy()
    for step in range(int(values["steps"])):
        chosen = slope_at(point, step).argmin(axis=0)
        share = float(values["rate"]) * 2 / (step + 2)
        point += share * (np.eye(len(point))[:, chosen] - point)
    return point


@merge_method(
    "adamerging",
    source="arXiv:2310.02575",
    needs=Need.ANCESTOR,
    by_entry=True,
    lesson=Lesson(Aim.ENTROPY, walk_down),
    deviations=(BY_RUNS, FEWER),
)
def adamerging(stack: Stack, *, weight: Start, by_layer: ByLayer, steps: Steps, rate: Rate, batch: Batch) -> Array:
    """The sum of task vectors, each times what makes the result surest of its classes."""
    return stack.moved(total(stack.deltas, weight))


@merge_method(
    "expert_merging",
    source="arXiv:2509.25712",
    needs=Need.ANCESTOR,
    by_entry=True,
    lesson=Lesson(Aim.DISTANCE, walk_down),
    deviations=(
        BY_RUNS,
        FEWER,
        "outputs alone are compared: the paper compares what is between the layers too",
        "layers have one weight for each model: in the paper's second form important layers have several",
    ),
)
def expert_merging(
    stack: Stack,
    *,
    weight: Little,
    by_layer: ByLayer,
    steps: Steps,
    rate: Rate,
    batch: Batch,
    stay: Annotated[float, Field(0.1, ge=0, allow_inf_nan=False, description="how strongly weights are drawn back")],
) -> Array:
    """The sum of task vectors, each times what brings the result nearest to each model on that one's inputs."""
    return stack.moved(total(stack.deltas, weight))


@merge_method(
    "fw_merging",
    source="arXiv:2503.12649",
    needs=Need.ANCESTOR,
    by_entry=True,
    lesson=Lesson(Aim.DISTANCE, walk_to_models),
    deviations=(
        BY_RUNS,
        "what is lowered is the distance to what each model gives, which takes no labels: the authors' code takes them",
        "the model is chosen whose task vector lowers it most: the authors' code sums up cosines of tensors",
        "a step goes towards the model, as that of Frank and Wolfe does: the authors' code adds its task vector",
    ),
)
def fw_merging(
    stack: Stack,
    *,
    weight: Start,
    by_layer: Annotated[bool, Field(False, description="choose a model for each layer, not one for all")],
    steps: Annotated[float, Field(10.0, ge=0, le=10_000, description="how many steps are taken")],
    rate: Annotated[float, Field(0.1, ge=0, le=1, description="the share of its way that the first step goes")],
    batch: Annotated[float, Field(100.0, ge=1, le=4096, description="inputs of each model that a step looks at")],
) -> Array:
    """The sum of task vectors, moved again and again towards the model that brings the result nearest to all."""
    return stack.moved(total(stack.deltas, weight))


@merge_method(
    "concrete",
    source="arXiv:2312.06173",
    needs=Need.ANCESTOR,
    lesson=Lesson(Aim.ENTROPY, walk_down, Learned.MASKS),
    deviations=(
        "the mask is learned for weights that are given: the paper learns these too, in steps of their own before each",
        "of the drawn masks the result takes the mean: the paper draws one more",
        "the ancestor and the donors may be any graphs, the base is one traced from a module",
        FEWER,
    ),
)
def concrete(
    stack: Stack,
    *,
    weight: Start,
    steps: Steps,
    rate: Rate,
    batch: Batch,
    temperature: Annotated[float, Field(0.5, gt=0, le=10, description="how far drawn masks are from zeros and ones")],
) -> Array:
    """The sum of task vectors in a subspace that all share: of each entry as much as makes the result surest."""
    moved = total(stack.deltas, weight)
    return stack.moved(moved if stack.mask is None else masked(moved, stack.mask))


def masked(moved: Array, mask: Array) -> Array:
    """A move with as much of each entry as a mask says, which is 1 in the mean."""
    return np.asarray(moved * (mask / max(float(mask.mean()), LEAST)), moved.dtype)
