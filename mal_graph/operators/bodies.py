"""Operators that run bodies, where these are shown among the other operators (see `control_flow`).

What is carried from one run of a body to the next has the same units in every run; what a Scan takes slice by slice,
and what a Loop or Scan collects, has steps along one more axis; the branches of an If give the same units; what a
SequenceMap is given and gives is a list of what one run takes and gives.

Chosen: nodes in front of a body and behind it, each with a rule. Refused: a graph of its own on labels for each body -
whatever draws, runs, aligns or merges weights would have to look into it.
"""

from collections.abc import Mapping, Sequence

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import STEPS, Call, agreed, pin_each
from mal_graph.operators.control_flow import LOOP_RUN, MAP_RUN, SCAN_RUN, control_of
from mal_graph.operators.lists import collected, each_of, list_of_any, lists_together
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import Row, X, setting

DIFFERS = Pin(GroupState.FROZEN, "its length differs between the branches that make it")
UNSEEN = Pin(GroupState.FROZEN, "it lies in a list that a loop carries, and that was never seen to hold anything")
GROWS = Pin(GroupState.PINNED, "its length changes from one run of a loop to the next")


def chosen(call: Call) -> list[Label]:
    """What any branch gives is what the operator gives; a branch that is left out has no label."""
    labels = []
    for place, shape in enumerate(call.outputs):
        given = [label for label in call.inputs[1 + place :: len(call.outputs)] if label is not None]
        is_list = any(label.elements is not None for label in given)
        label = lists_together(call, given, DIFFERS) if is_list else agreed(call, given, shape, DIFFERS)
        if label is None:
            return call.freeze(f"{call.name} gives another number of axes in each branch")
        labels.append(label)
    return labels


def begun_loop(call: Call) -> list[Label]:
    """The number of the run, whether there is one, and what is carried."""
    labels = [Label(shape) for shape in call.outputs[:2]]
    for slot, shape in enumerate(call.outputs[2:], 2):
        shapes = call.lists[slot]
        labels.append(carried(call, slot, shape) if shapes is None else carried_list(call, slot, shapes))
    return labels


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


def carried_list(call: Call, slot: int, shapes: Sequence[tuple[int, ...]]) -> Label:
    """Elements with units of their own, tied to those of what the first run takes, which may be empty.

    Args:
        shapes: of the elements when there first were any.
    """
    start = call.label(slot)
    if not shapes:
        call.wiring.pin_label(start, UNSEEN)
        return Label(())
    fresh = [list_of_any(call.wiring.fresh_label(shape)) for shape in dict.fromkeys(shapes)]
    return lists_together(call, [*fresh, start], GROWS)


def sliced(call: Call, slot: int, axis: int) -> Label:
    """An input without the axis that is gone through."""
    label = call.label(slot)
    axis %= len(label.shape)
    pin_each(call, [call.wiring.axis_label(label, axis)], STEPS)
    return call.wiring.reshape(call.wiring.without(label, axis), call.outputs[slot], call.name)


def begun_map(call: Call) -> list[Label]:
    """Any element of each list, and what is no list as it is."""
    given = [each_of(call, call.label(slot)) for slot in range(len(call.outputs))]
    labels = [
        agreed(call, [label if each is None else each], shape, STEPS)
        for label, each, shape in zip(call.inputs, given, call.outputs, strict=False)
        if label is not None
    ]
    known = [label for label in labels if label is not None]
    return known if len(known) == len(call.outputs) else call.freeze(f"{call.name} takes lists that are not known")


def ended_map(call: Call) -> list[Label]:
    """Lists of what every run gave."""
    return [list_of_any(call.label(place)) for place in range(len(call.outputs))]


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
        both = (call.label(width + place), given) if place < states else ()
        label: Label | None
        if any(one.elements is not None for one in both):
            label = lists_together(call, both, GROWS)
        elif both:
            label = agreed(call, both, shape if is_read else given.shape, GROWS)
        else:
            label = collected(call, given, shape, int(axes[place - states])) if is_read else given
        if label is None:
            return call.freeze(f"{call.name} carries a tensor whose axes change from run to run")
        labels.append(label if is_read else Label(()))
    return labels


ROWS: Mapping[str, Row] = {
    "If": Row(chosen, slots=(setting("condition"), X)),
    "Loop": Row(ended),
    "Scan": Row(ended),
    "SequenceMap": Row(ended_map),
    LOOP_RUN: Row(begun_loop, slots=(setting("count"), setting("condition"), X), repeats=True),
    SCAN_RUN: Row(begun_scan, repeats=True),
    MAP_RUN: Row(begun_map, repeats=True),
}
