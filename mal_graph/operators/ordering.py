"""Operators to which the order along an axis matters: extremes, running sums, triangles, transforms.

What gives the number of a place as an output of the model makes the order along the axis part of the contract. Anywhere
else the numbers are followed to what looks up units by them, such as experts by the choice of a router: that moves with
the units. What reads them as numbers freezes the axis.
"""

from collections.abc import Mapping

import numpy as np

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import WINDOW, Call, drop_axes, pass_all_but, pin_axes, pin_each, with_pins
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import AtZero, ParameterKind, Row, Slot, X, setting

RANKS = Pin(GroupState.PINNED, "ranks")


def first_of_equals(call: Call) -> list[Label]:
    """Where several are the largest the first one counts, so that their order matters."""
    return pass_all_but(call, [call.node.attribute("axis", -1)], counting_pin(call, 0))


def counting_pin(call: Call, output: int) -> Pin:
    """The pin of an axis along which places count; `output` is what says which place."""
    if call.tells(output):
        return Pin(GroupState.PINNED, f"places that {call.name} tells of", is_contract=True)
    return Pin(GroupState.FROZEN, f"{call.name} counts along the axis")


def top_k(call: Call) -> list[Label]:
    """Values and indices of the largest along one axis, in the order of their size; the other axes pass."""
    axis = call.node.attribute("axis", -1)
    tell_places(call, axis, 1)
    return [with_pins(call, call.label(0), [axis % len(shape)], RANKS, shape) for shape in call.outputs]


def arg_extreme(call: Call) -> list[Label]:
    """The index of the largest along one axis, which vanishes or stays with length 1."""
    axis = call.node.attribute("axis", 0) % len(call.label(0).shape)
    tell_places(call, axis, 0)
    return [drop_axes(call, [axis])]


def tell_places(call: Call, axis: int, output: int) -> None:
    """Note that an output tells places on an axis of the first input; one of the model's makes their order a part of
    its contract."""
    units = call.wiring.axis_label(call.label(0), axis % len(call.label(0).shape))
    if isinstance(units, np.ndarray) and not call.tells(output) and output < len(call.node.outputs):
        call.wiring.read(units)
        call.wiring.places[call.node.outputs[output]] = units
    else:
        pin_each(call, [units], counting_pin(call, output))


def cumulative(call: Call) -> list[Label]:
    """Every element depends on those before it along one axis; the other axes pass."""
    axes = call.ints(1, "axis")
    if axes is None:
        return call.freeze(f"{call.name} has an axis that is computed at run time")
    return pass_all_but(call, axes, Pin(GroupState.FROZEN, f"{call.name} runs along the axis in order"))


def triangle(call: Call) -> list[Label]:
    """What is kept depends on the places along the last two axes; the others pass."""
    return pass_all_but(call, [-2, -1], Pin(GroupState.FROZEN, f"{call.name} keeps a triangle"))


def determinant(call: Call) -> list[Label]:
    """The last two axes vanish; the others pass."""
    rank = len(call.label(0).shape)
    pin_each(call, call.axis_labels(0)[-2:], Pin(GroupState.FROZEN, f"{call.name} is signed by their order"))
    return [drop_axes(call, [rank - 2, rank - 1])]


def reverse_sequence(call: Call) -> list[Label]:
    """Each sample is turned round by a length of its own: batch and time are pinned, the other axes pass."""
    pin = Pin(GroupState.FROZEN, f"{call.name} turns the axis round")
    call.wiring.pin_label(call.label(1), pin)
    return pass_all_but(call, [call.node.attribute("batch_axis", 1), call.node.attribute("time_axis", 0)], pin)


def fourier(call: Call) -> list[Label]:
    """The transformed axis and the pair of real and imaginary part are pinned; the other axes pass."""
    axes = call.ints(2, "axis")
    if call.given(2) and axes is None:
        return call.freeze(f"{call.name} has an axis that is computed at run time")
    axes = axes or (1, -2)  # the default of opset 17, and that of opset 20
    return pass_all_but(call, [*axes, -1], Pin(GroupState.FROZEN, f"{call.name} transforms the axis"))


def short_fourier(call: Call) -> list[Label]:
    """A window slides over the signal; the batch passes."""
    if call.given(2):
        call.wiring.pin_label(call.label(2), WINDOW)
    batch = pin_axes(call, call.label(0), range(1, len(call.label(0).shape)), WINDOW)[0]
    return [call.wiring.label_of(shape, [batch, *[WINDOW] * (len(shape) - 1)]) for shape in call.outputs]


ROWS: Mapping[str, Row] = {
    "Hardmax": Row(first_of_equals, at_zero=AtZero.UNSAFE, chooses=True),
    "TopK": Row(top_k, slots=(X, setting("k")), at_zero=AtZero.UNSAFE, chooses=True),
    **dict.fromkeys(["ArgMax", "ArgMin"], Row(arg_extreme, at_zero=AtZero.UNSAFE, chooses=True)),
    **dict.fromkeys(["CumSum", "CumProd"], Row(cumulative, slots=(X, setting("axis")), at_zero=AtZero.UNSAFE)),
    "Trilu": Row(triangle, slots=(X, setting("diagonal"))),
    "Det": Row(determinant, at_zero=AtZero.UNSAFE),
    "ReverseSequence": Row(reverse_sequence, slots=(X, setting("lengths"))),
    "DFT": Row(fourier, slots=(X, setting("length"), setting("axis"))),
    "STFT": Row(short_fourier, slots=(X, setting("step"), Slot("window", ParameterKind.SCALE), setting("length"))),
}
