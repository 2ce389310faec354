"""Generators: values made from sizes, settings or chance."""

from collections.abc import Mapping

from mal_graph.operators.axis_labels import Label, pinned_label
from mal_graph.operators.call import Call
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import AtZero, LayerRole, Row, setting

MADE = Pin(GroupState.PINNED, "values made without any weight")


def made(call: Call) -> list[Label]:
    """Values made from sizes and settings: pinned, and nothing else is touched."""
    return [pinned_label(shape, MADE) for shape in call.outputs]


def random(call: Call) -> list[Label]:
    """Draws for every element: everything freezes."""
    return call.freeze(f"{call.name} draws at random")


def shape_only(call: Call) -> list[Label]:
    """Reads a shape, never the values: nothing is touched."""
    return [pinned_label(shape, Pin(GroupState.PINNED, "a shape")) for shape in call.outputs]


def filled(call: Call) -> list[Label]:
    """Every element is the same."""
    return [Label(shape) for shape in call.outputs]


ROWS: Mapping[str, Row] = {
    **dict.fromkeys(["Shape", "Size"], Row(shape_only, LayerRole.SHAPE)),
    "ConstantOfShape": Row(filled, LayerRole.ALONE, slots=(setting("shape"),)),
    "Constant": Row(made, LayerRole.ALONE),
    "EyeLike": Row(made, LayerRole.SHAPE),
    **dict.fromkeys(
        ["Range", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"],
        Row(made, LayerRole.ALONE, slots=(setting("size"),), at_zero=AtZero.FINITE),
    ),
    **dict.fromkeys(["RandomNormal", "RandomUniform"], Row(made, LayerRole.ALONE, at_zero=AtZero.FINITE)),
    **dict.fromkeys(
        ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"],
        Row(random, LayerRole.ALONE, at_zero=AtZero.FINITE),
    ),
}
