"""One node as its axis rule sees it, and what rules have in common.

A rule takes a `Call` and gives one label per output (see `axis_labels`). On the way it ties axes that must move
together and pins those that cannot move. Each family of operators holds its rules beside the rows that name them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.graph import Array, Node
from mal_graph.operators.axis_labels import Atoms, AxisLabel, Label, pinned_label
from mal_graph.operators.marks import GroupState, Pin, Statistic
from mal_graph.operators.wiring import Wiring

WINDOW = Pin(GroupState.PINNED, "positions a window slides over")
BATCH = Pin(GroupState.PINNED, "samples")
STEPS = Pin(GroupState.PINNED, "steps of a loop")


@dataclass(frozen=True)
class Call:
    """One node as its axis rule sees it: labels and shapes of the inputs, shapes of the outputs, known values. What is
    a list of tensors has no shape, but its elements have."""

    node: Node
    wiring: Wiring
    inputs: Sequence[Label | None]  # None where an optional input is absent
    outputs: Sequence[tuple[int, ...]]  # shapes
    values: Sequence[Array | None]  # of inputs that are small integer tensors or stored constants
    opset: int = 26  # of the operator's domain
    stored: Sequence[bool] = ()  # whether each input is a stored tensor
    told: Sequence[bool] = ()  # whether each output is one of the model's, moved or cast at most
    lists: Sequence[Sequence[tuple[int, ...]] | None] = ()  # of outputs that are lists, the shapes of their elements

    @property
    def name(self) -> str:
        """How messages call the node."""
        return self.node.title

    def label(self, slot: int) -> Label:
        """The label of an input that must be there."""
        label = self.inputs[slot]
        assert label is not None  # required inputs exist: the file was checked
        return label

    def given(self, slot: int) -> bool:
        """Whether an input is there."""
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def axis_labels(self, slot: int) -> list[AxisLabel]:
        """The labels of the axes of an input."""
        return self.wiring.axis_labels(self.label(slot))

    def is_stored(self, slot: int) -> bool:
        """Whether an input is a stored tensor."""
        return slot < len(self.stored) and self.stored[slot]

    def places(self, slot: int) -> Atoms | None:
        """The atoms of the axis on which the values of an input are places; None if they are no places of units."""
        return self.wiring.places.get(self.node.inputs[slot]) if self.given(slot) else None

    def tells(self, output: int) -> bool:
        """Whether an output is one of the model's."""
        return output < len(self.told) and self.told[output]

    def ints(self, slot: int, attribute: str) -> tuple[int, ...] | None:
        """Integers that older opsets hold in an attribute and newer ones in an input; None if absent or unknown."""
        if self.given(slot):
            value = self.values[slot]
            return None if value is None else tuple(int(i) for i in value.ravel())
        held = self.node.attribute(attribute)
        return None if held is None else tuple(int(i) for i in np.atleast_1d(held))

    def text(self, attribute: str, default: str) -> str:
        """An attribute that is a text."""
        held = self.node.attribute(attribute, default)
        return held.decode() if isinstance(held, bytes) else str(held)

    def reading(self, *slots: int) -> "Call":
        """The same call with these inputs only, in this order."""
        given = [slot if self.given(slot) else None for slot in slots]
        labels = [None if slot is None else self.inputs[slot] for slot in given]
        return replace(self, inputs=labels, values=[None if slot is None else self.values[slot] for slot in given])

    def freeze(self, reason: str, unknown_op: str = "") -> list[Label]:
        """Freeze every axis of every input and output."""
        return self.pin_all(Pin(GroupState.FROZEN, reason, unknown_op))

    def pin_all(self, pin: Pin) -> list[Label]:
        """Pin every axis of every input and output."""
        for label in self.inputs:
            if label is not None:
                self.wiring.pin_label(label, pin)
        return [pinned_label(shape, pin) for shape in self.outputs]


Rule = Callable[[Call], Sequence[Label]]


def pin_each(call: Call, axis_labels: Sequence[AxisLabel], pin: Pin) -> None:
    """Pin every atom of some axes."""
    for axis_label in axis_labels:
        if isinstance(axis_label, np.ndarray):
            call.wiring.pin(axis_label, pin)


def agreed(call: Call, labels: Sequence[Label], shape: Sequence[int], pin: Pin) -> Label | None:
    """The label of what is one tensor now and another one then; None where they have other numbers of axes. Axes of
    other lengths are pinned."""
    wiring = call.wiring
    if not labels or any(len(label.shape) != len(shape) for label in labels):
        return None
    lengths = zip(shape, *(label.shape for label in labels), strict=True)
    differing = [axis for axis, sizes in enumerate(lengths) if len(set(sizes)) > 1]
    for axis in differing:
        pin_each(call, [wiring.axis_label(label, axis) for label in labels], pin)
        labels = [wiring.without(label, axis) for label in labels]
    agreed = wiring.combine(labels, labels[0].shape)
    for axis in differing:
        agreed = wiring.with_axis_label(agreed, axis, pin, shape[axis])
    return agreed


def pin_axes(call: Call, label: Label, axes: Collection[int], pin: Pin) -> list[AxisLabel]:
    """The labels of the axes of a tensor, those of `axes` pinned."""
    axis_labels = call.wiring.axis_labels(label)
    chosen = {axis % len(axis_labels) for axis in axes}
    pin_each(call, [axis_labels[axis] for axis in chosen], pin)
    return [pin if axis in chosen else axis_label for axis, axis_label in enumerate(axis_labels)]


def pass_all_but(call: Call, axes: Collection[int], pin: Pin) -> list[Label]:
    """Every output has the axes of the first input, with `axes` pinned; the other inputs are settings."""
    x = call.label(0)
    chosen = sorted({axis % len(x.shape) for axis in axes})
    pin_each(call, [call.wiring.axis_label(x, axis) for axis in chosen], pin)
    return [with_pins(call, x, chosen, pin, shape) for shape in call.outputs]


def with_pins(call: Call, label: Label, axes: Sequence[int], pin: Pin, shape: Sequence[int]) -> Label:
    """A label with some axes pinned, of the lengths they have in `shape`."""
    for axis in axes:
        label = call.wiring.with_axis_label(label, axis, pin, shape[axis])
    return label


def mark_statistic(call: Call, label: Label, axes: Collection[int]) -> None:
    """Note that the node takes a statistic over some axes."""
    call.wiring.mark_statistic(label, axes, Statistic(call.node.op, call.node.name))


def drop_axes(call: Call, axes: Collection[int]) -> Label:
    """The first input's axes without some, which are dropped or stay with length 1."""
    label = call.wiring.without(call.label(0), *axes)
    return call.wiring.reshape(label, call.outputs[0], call.name)
