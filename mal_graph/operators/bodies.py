"""Operators that run bodies, where these are shown among the other operators (see `control_flow`).

What is carried from one run of a body to the next has the same units in every run; what a Scan takes slice by slice,
and what a Loop or Scan collects, has steps along one more axis; the branches of an If give the same units.

Chosen: nodes in front of a body and behind it, each with a rule. Refused: a graph of its own on labels for each body -
whatever draws, runs, aligns or merges weights would have to look into it.
"""

from collections.abc import Mapping, Sequence

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call, pin_each
from mal_graph.operators.control_flow import LOOP_RUN, SCAN_RUN, control_of
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import Row, X, setting

STEPS = Pin(GroupState.PINNED, "steps of a loop")
DIFFERS = Pin(GroupState.FROZEN, "its length differs between the branches that make it")
GROWS = Pin(GroupState.PINNED, "its length changes from one run of a loop to the next")


def chosen(call: Call) -> list[Label]:
    """What any branch gives is what the operator gives; a branch that is left out has no label."""
    labels = []
    for place, shape in enumerate(call.outputs):
        given = [label for label in call.inputs[1 + place :: len(call.outputs)] if label is not None]
        label = agreed(call, given, shape, DIFFERS)
        if label is None:
            return call.freeze(f"{call.name} gives another number of axes in each branch")
        labels.append(label)
    return labels


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


def begun_loop(call: Call) -> list[Label]:
    """The number of the run, whether there is one, and what is carried."""
    return [Label(shape) if slot < 2 else carried(call, slot, shape) for slot, shape in enumerate(call.outputs)]


def begun_scan(call: Call) -> list[Label]:
    """What is carried, then a slice of each tensor that is gone through."""
    count = int(call.node.attribute("num_scan_inputs", 0))
    first = len(call.outputs) - count
    axes = call.node.attribute("scan_input_axes") or [0] * count
    states = [carried(call, slot, call.outputs[slot]) for slot in range(first)]
    return [*states, *(sliced(call, first + place, int(axis)) for place, axis in enumerate(axes))]


def carried(call: Call, slot: int, shape: tuple[int, ...]) -> Label:
    """Units of its own, tied to those of what the first run takes: that may be zeros, which have none."""
    return call.wiring.combine([call.wiring.fresh_label(shape), call.label(slot)], shape)


def sliced(call: Call, slot: int, axis: int) -> Label:
    """An input without the axis that is gone through."""
    label = call.label(slot)
    axis %= len(label.shape)
    pin_each(call, [call.wiring.axis_label(label, axis)], STEPS)
    return call.wiring.reshape(call.wiring.without(label, axis), call.outputs[slot], call.name)


def ended(call: Call) -> list[Label]:
    """What is carried, as it went in and came out; then what all runs gave, one after the other."""
    conditions = control_of(call.node).conditions
    width = len(call.outputs) + conditions
    states = len(call.inputs) - width
    axes = call.node.attribute("scan_output_axes") or [0] * (len(call.outputs) - states)
    labels = []
    for place, shape in enumerate(call.outputs):
        given = call.label(conditions + place)
        is_read = bool(call.node.outputs[place])
        if place < states:
            both = call.label(width + place), given
            label = agreed(call, both, shape if is_read else given.shape, GROWS)
        else:
            label = collected(call, given, shape, int(axes[place - states])) if is_read else given
        if label is None:
            return call.freeze(f"{call.name} carries a tensor whose axes change from run to run")
        labels.append(label if is_read else Label(()))
    return labels


def collected(call: Call, given: Label, shape: tuple[int, ...], axis: int) -> Label | None:
    """What every run gave, along one more axis; None where the runs gave other shapes."""
    axis %= len(shape)
    if (*shape[:axis], *shape[axis + 1 :]) != given.shape:
        return None
    label = call.wiring.reshape(given, (1, *given.shape), call.name)
    label = call.wiring.with_axis_label(label, 0, STEPS, shape[axis])
    order = list(range(1, len(shape)))
    return call.wiring.transpose(label, [*order[:axis], 0, *order[axis:]])


ROWS: Mapping[str, Row] = {
    "If": Row(chosen, slots=(setting("condition"), X)),
    "Loop": Row(ended),
    "Scan": Row(ended),
    LOOP_RUN: Row(begun_loop, slots=(setting("count"), setting("condition"), X), repeats=True),
    SCAN_RUN: Row(begun_scan, repeats=True),
}
