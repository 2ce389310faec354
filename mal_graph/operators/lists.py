"""Lists of tensors, which ONNX calls sequences: the label of a list is that of its elements.

A list that has as many elements in every run, taken by places that are stored, has a label for each. Of any other one,
such as a loop makes, all elements have the same units: one label stands for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import STEPS, Call, agreed, pin_each
from mal_graph.operators.layout import concat, part_lengths
from mal_graph.operators.marks import GroupState, Pin
from mal_graph.operators.row import Row, X, setting
from mal_graph.operators.sizes import Resized

ELEMENTS = Pin(GroupState.PINNED, "its places are the elements of a list")
DIFFERS_IN_LIST = Pin(GroupState.FROZEN, "its length differs between the elements of a list")


def list_of(elements: Sequence[Label]) -> list[Label]:
    return [Label((), elements=tuple(elements))]


def list_of_any(element: Label) -> Label:
    """A list of any number of elements."""
    return Label((), elements=(element,), is_open=True)


def each_of(call: Call, label: Label) -> Label | None:
    """The label of any element of a list; None where they have other numbers of axes, or nothing is known of them."""
    if not label.elements or len(label.elements) == 1:
        return next(iter(label.elements or ()), None)
    return agreed(call, label.elements, label.elements[0].shape, DIFFERS_IN_LIST)


def lists_together(call: Call, lists: Sequence[Label], pin: Pin) -> Label:
    """The label of what is one list now and another one then. Axes of other lengths are pinned; where nothing is known
    of one list, all that the others hold is."""
    elements = [element for label in lists for element in label.elements or ()]
    if not elements and all(label.elements is not None for label in lists):
        return Label((), elements=())
    each = agreed(call, elements, elements[0].shape, pin) if elements else None
    if each is None or any(label.elements is None for label in lists):
        unknown(replace(call, inputs=lists))
        return Label(())
    return list_of_any(each)


def split_to_list(call: Call) -> list[Label]:
    """Consecutive runs of one axis, or its places one by one."""
    label = call.label(0)
    axis = call.node.attribute("axis", 0) % len(label.shape)
    if not call.given(1):
        return list_of(places_of(call, label, axis))
    lengths = lengths_of_parts(call, label.shape[axis])
    if lengths is None:
        return call.freeze(f"{call.name} has lengths that are computed at run time")
    ends = np.cumsum([0, *lengths])
    return list_of([call.wiring.take(label, axis, np.arange(a, b), call.name) for a, b in pairwise(ends)])


def places_of(call: Call, label: Label, axis: int) -> list[Label]:
    """Each place on an axis, which becomes a number in the list and stays: with it, or without it."""
    pin_each(call, [call.wiring.axis_label(label, axis)], ELEMENTS)
    place = call.wiring.without(label, axis)
    if not call.node.attribute("keepdims", 1):
        place = call.wiring.reshape(place, (*label.shape[:axis], *label.shape[axis + 1 :]), call.name)
    return [replace(place) for _ in range(label.shape[axis])]  # of one label for all they would be copies of each other


def lengths_of_parts(call: Call, size: int) -> tuple[int, ...] | None:
    """The lengths of the parts of a split axis of `size`; None if they are computed at run time."""
    lengths = call.ints(1, "")
    if lengths is None or call.label(1).shape != ():
        return lengths
    return tuple(min(lengths[0], size - start) for start in range(0, size, lengths[0]))


def list_lengths(call: Resized, held: list[int]) -> list[int]:
    """The lengths of the parts of a split axis; it stays where none are held."""
    return part_lengths(call, held) if held else held


def listed(call: Call) -> list[Label]:
    """The inputs as they are."""
    return list_of([call.label(slot) for slot in range(len(call.inputs))])


def inserted(call: Call) -> list[Label]:
    """One more element, the last one if no place is given."""
    label, place = call.label(0), place_in(call, 2)
    if label.is_open or label.elements is None or place is None:
        return [lists_together(call, [label, *list_of([call.label(1)])], DIFFERS_IN_LIST)]
    longer = list(label.elements)
    longer.insert(place[0] if place else len(longer), call.label(1))
    return list_of(longer)


def erased(call: Call) -> list[Label]:
    """One element less, the last one if no place is given."""
    label, place = call.label(0), place_in(call, 1)
    if label.is_open or not label.elements or place is None:
        return [lists_together(call, [label], DIFFERS_IN_LIST)]
    left = list(label.elements)
    del left[place[0] if place else -1]
    return list_of(left)


def element_at(call: Call) -> list[Label]:
    """One element."""
    label, place, shape = call.label(0), place_in(call, 1), call.outputs[0]
    is_told = bool(place and label.elements) and not label.is_open
    element = label.elements[place[0]] if is_told and label.elements and place else each_of(call, label)
    if element is None or (is_told and element.shape != shape):
        return unknown(call)
    fitting = agreed(call, [element], shape, DIFFERS_IN_LIST)
    return unknown(call) if fitting is None else [fitting]


def concat_list(call: Call) -> list[Label]:
    """The elements end to end along one axis, or stacked along a new one."""
    label, shape = call.label(0), call.outputs[0]
    axis, is_new = int(call.node.attribute("axis", 0)) % len(shape), bool(call.node.attribute("new_axis", 0))
    if label.is_open or not label.elements:
        each = each_of(call, label)
        laid = None if each is None else (collected if is_new else end_to_end)(call, each, shape, axis)
        return unknown(call) if laid is None else [laid]
    elements = list(label.elements)
    if is_new:
        elements = [call.wiring.reshape(one, (*one.shape[:axis], 1, *one.shape[axis:]), call.name) for one in elements]
    if {len(one.shape) for one in elements} != {len(shape)} or sum(one.shape[axis] for one in elements) != shape[axis]:
        return unknown(call)
    same = {id(element): str(place) for place, element in reversed(list(enumerate(label.elements)))}
    names = tuple(same[id(element)] for element in label.elements)
    node = replace(call.node, inputs=names, attributes={**call.node.attributes, "axis": axis})
    return concat(replace(call, node=node, inputs=elements))


def collected(call: Call, each: Label, shape: tuple[int, ...], axis: int) -> Label | None:
    """What every run gave, or any element of a list, along one more axis; None where these had other shapes."""
    axis %= len(shape)
    if (*shape[:axis], *shape[axis + 1 :]) != each.shape:
        return None
    label = call.wiring.reshape(each, (1, *each.shape), call.name)
    label = call.wiring.with_axis_label(label, 0, STEPS, shape[axis])
    order = list(range(1, len(shape)))
    return call.wiring.transpose(label, [*order[:axis], 0, *order[axis:]])


def end_to_end(call: Call, each: Label, shape: tuple[int, ...], axis: int) -> Label | None:
    """Any number of elements of a list end to end; None where these had other shapes across the axis."""
    if (*shape[:axis], *shape[axis + 1 :]) != (*each.shape[:axis], *each.shape[axis + 1 :]):
        return None
    pin_each(call, [call.wiring.axis_label(each, axis)], STEPS)
    return call.wiring.with_axis_label(each, axis, STEPS, shape[axis])


def place_in(call: Call, slot: int) -> tuple[int, ...] | None:
    """The place that an input tells, empty where it is not given; None if it is computed at run time."""
    return call.ints(slot, "") if call.given(slot) else ()


def unknown(call: Call) -> list[Label]:
    return call.freeze(f"{call.name} works on a list of tensors of which too little is known")


def counted(call: Call) -> list[Label]:
    """A number, whatever the elements hold."""
    return [Label(())]


PLACE = setting("position")
ROWS: Mapping[str, Row] = {
    "SplitToSequence": Row(split_to_list, slots=(X, setting("split")), size_constants={"split": list_lengths}),
    "SequenceConstruct": Row(listed),
    "SequenceEmpty": Row(listed),
    "SequenceInsert": Row(inserted, slots=(X, X, PLACE)),
    "SequenceErase": Row(erased, slots=(X, PLACE)),
    "SequenceAt": Row(element_at, slots=(X, PLACE)),
    "SequenceLength": Row(counted),
    "ConcatFromSequence": Row(concat_list, adds=True, joins=True),
}
