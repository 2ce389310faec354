"""Normalisation: channels, groups or whole axes are divided by a statistic of their own."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call, mark_statistic, pass_all_but
from mal_graph.operators.elementwise import unary
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import (
    ADDS_NOTHING,
    NEVER_CHOSEN,
    SCALE,
    SHIFT,
    AtZero,
    Compensation,
    Homogeneity,
    ParameterKind,
    Row,
    Slot,
    X,
)
from mal_graph.operators.sizes import Resized


def channel_norm(call: Call) -> list[Label]:
    """Axis 1 moves with every per-channel vector; the other axes pass, also those that a statistic is taken over."""
    wiring, x = call.wiring, call.label(0)
    if call.node.attribute("training_mode", 0):
        mark_statistic(call, x, [axis for axis in range(len(x.shape)) if axis != 1])
    per_channel = [label for label in call.inputs[1:] if label is not None]
    vectors = [wiring.reshape(label, (*label.shape, *[1] * (len(x.shape) - 2)), call.name) for label in per_channel]
    out = wiring.combine([x, *vectors], call.outputs[0])
    of_channels = [wiring.label_of(shape, [wiring.axis_label(out, 1)] * len(shape)) for shape in call.outputs[1:]]
    return [out, *of_channels]


def group_norm(call: Call) -> list[Label]:
    """Groups of channels stay together, symmetric in the channels of each; scale and bias move with what they scale.

    Until opset 20 there is one scale and bias per group, later one per channel.
    """
    wiring, shape = call.wiring, call.outputs[0]
    groups = call.node.attribute("num_groups")
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    labels = [wiring.reshape(call.label(0), split, call.name)]
    for slot in (1, 2):
        vector = call.label(slot)
        places = (groups, vector.shape[0] // groups, *[1] * (len(shape) - 2))
        labels.append(wiring.reshape(vector, places, call.name))
    joined = wiring.combine(labels, split)
    mark_statistic(call, joined, range(2, len(split)))
    return [wiring.reshape(joined, shape, call.name)]


def instance_norm(call: Call) -> list[Label]:
    """As any norm over channels, with a statistic over the positions of each."""
    x = call.label(0)
    mark_statistic(call, x, range(2, len(x.shape)))
    return channel_norm(call)


def layer_norm(call: Call) -> list[Label]:
    """Symmetric in the normalised axes, each of which moves with its scale and bias."""
    rank = len(call.label(0).shape)
    return normalised(call, range(call.node.attribute("axis", -1) % rank, rank))


def skip_layer_norm(call: Call) -> list[Label]:
    """As LayerNormalization over the last axis, of a sum that is a fourth output."""
    return normalised(call, [len(call.label(0).shape) - 1])


def normalised(call: Call, axes: Collection[int]) -> list[Label]:
    """All inputs are joined by elements; outputs of statistics have length 1 along `axes`."""
    wiring = call.wiring
    out = wiring.combine([label for label in call.inputs if label is not None], call.outputs[0])
    mark_statistic(call, out, axes)
    axis_labels = wiring.axis_labels(out) if any(call.node.outputs[1:]) else []
    return [out, *[wiring.label_of(shape, axis_labels if shape else []) for shape in call.outputs[1:]]]


def softmax(call: Call) -> list[Label]:
    """Symmetric in its axis; before opset 13 in every axis from it on."""
    rank = len(call.label(0).shape)
    one = call.opset >= 13
    axis = call.node.attribute("axis", -1 if one else min(1, rank - 1)) % rank
    mark_statistic(call, call.label(0), [axis] if one else range(axis, rank))
    return unary(call)


def lp_norm(call: Call) -> list[Label]:
    """Symmetric in its axis."""
    mark_statistic(call, call.label(0), [call.node.attribute("axis", -1) % len(call.label(0).shape)])
    return unary(call)


def mean_variance_norm(call: Call) -> list[Label]:
    """Symmetric in the axes that mean and variance are taken over."""
    mark_statistic(call, call.label(0), [axis % len(call.label(0).shape) for axis in call.ints(1, "axes") or (0, 2, 3)])
    return unary(call)


def local_norm(call: Call) -> list[Label]:
    """A window slides over the channels; the other axes pass."""
    return pass_all_but(call, [1], Pin(GroupState.FROZEN, f"{call.name} has a window over the channels"))


def norm_groups(call: Resized, held: list[int]) -> list[int]:
    """Groups of a GroupNormalization: all are resized alike, or there are more or fewer of the same size."""
    channels = call.inputs[0][1]
    members = channels.size // held[0]
    inside = np.bincount(channels.old // members, minlength=held[0])
    return held if (inside == inside[0]).all() else [len(channels) // members]


def normalised_axes(call: Resized) -> list[int]:
    """The axes that a norm over the last axes goes over."""
    rank = len(call.inputs[0])
    return list(range(int(call.node.attribute("axis", -1)) % rank, rank))


RESCALED = Compensation("scale times sqrt(C/M), epsilon times C/M", {"scale": -0.5, "epsilon": -1.0}, normalised_axes)
CENTRED = replace(
    RESCALED, text=f"take the mean over the units off everything that writes them, {RESCALED.text}", is_centred=True
)
WHOLE_GROUPS = Compensation("only whole groups may be added")

ROWS: Mapping[str, Row] = {
    "BatchNormalization": Row(
        channel_norm,
        keeps_axes=True,
        slots=(X, SCALE, SHIFT, Slot("mean", ParameterKind.SHIFT), Slot("variance", ParameterKind.VARIANCE)),
        homogeneity=Homogeneity.ONE,
    ),
    "InstanceNormalization": Row(instance_norm, slots=(X, SCALE, SHIFT), compensation=WHOLE_GROUPS),
    "GroupNormalization": Row(
        group_norm,
        slots=(X, SCALE, SHIFT),
        at_zero=AtZero.UNSAFE,
        compensation=WHOLE_GROUPS,
        size_constants={"num_groups": norm_groups},
        block_counts=("num_groups",),
    ),
    "LayerNormalization": Row(layer_norm, slots=(X, SCALE, SHIFT), at_zero=AtZero.UNSAFE, compensation=CENTRED),
    **dict.fromkeys(
        ["RMSNormalization", "SimplifiedLayerNormalization"],
        Row(layer_norm, slots=(X, SCALE, SHIFT), at_zero=AtZero.UNSAFE, compensation=RESCALED),
    ),
    "com.microsoft.SkipLayerNormalization": Row(
        skip_layer_norm,
        slots=(X, SHIFT, SCALE, SHIFT, SHIFT),
        at_zero=AtZero.UNSAFE,
        compensation=replace(CENTRED, powers=None),
    ),
    "com.microsoft.SkipSimplifiedLayerNormalization": Row(
        skip_layer_norm,
        slots=(X, SHIFT, SCALE, SHIFT),
        at_zero=AtZero.UNSAFE,
        compensation=RESCALED,
        epsilon=1e-12,
    ),
    "LpNormalization": Row(lp_norm, compensation=ADDS_NOTHING),
    "MeanVarianceNormalization": Row(mean_variance_norm, at_zero=AtZero.UNSAFE),
    "LRN": Row(local_norm, at_zero=AtZero.UNSAFE),
    "Softmax": Row(
        softmax,
        at_zero=AtZero.UNSAFE,
        compensation=NEVER_CHOSEN,
        squashes=True,
        is_probability=True,
        shares_out=True,
    ),
    "LogSoftmax": Row(softmax, at_zero=AtZero.UNSAFE, compensation=NEVER_CHOSEN, squashes=True),
}
