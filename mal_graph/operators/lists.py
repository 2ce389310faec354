"""Lists of tensors, which ONNX calls sequences: the label of a list is that of its elements.

Followed is what has as many elements in every run, taken by places that are stored. What a list meets elsewhere - a
loop that carries it, an output of the model - freezes what it holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call
from mal_graph.operators.layout import concat, part_lengths
from mal_graph.operators.row import Row, X, setting


def list_of(elements: Sequence[Label]) -> list[Label]:
    return [Label((), elements=tuple(elements))]


def split_to_list(call: Call) -> list[Label]:
    """Consecutive runs of one axis."""
    label = call.label(0)
    if not label.shape:  # it was not measured
        return unknown(call)
    axis = call.node.attribute("axis", 0) % len(label.shape)
    lengths = lengths_of_parts(call, label.shape[axis])
    if lengths is None:
        return call.freeze(f"{call.name} has lengths that are computed at run time")
    ends = np.cumsum([0, *lengths])
    parts = [call.wiring.take(label, axis, np.arange(a, b), call.name) for a, b in pairwise(ends)]
    if not call.given(1) and not call.node.attribute("keepdims", 1):
        parts = [call.wiring.reshape(part, (*part.shape[:axis], *part.shape[axis + 1 :]), call.name) for part in parts]
    return list_of(parts)


def lengths_of_parts(call: Call, size: int) -> tuple[int, ...] | None:
    """The lengths of the parts of a split axis of `size`; None if they are computed at run time."""
    lengths = call.ints(1, "") if call.given(1) else (1,)
    if lengths is None or (call.given(1) and call.label(1).shape != ()):
        return lengths
    return tuple(min(lengths[0], size - start) for start in range(0, size, lengths[0]))


def listed(call: Call) -> list[Label]:
    """The inputs as they are."""
    return list_of([call.label(slot) for slot in range(len(call.inputs))])


def inserted(call: Call) -> list[Label]:
    """One more element, the last one if no place is given."""
    elements, place = call.label(0).elements, place_in(call, 2)
    if elements is None or place is None:
        return unknown(call)
    longer = list(elements)
    longer.insert(place[0] if place else len(elements), call.label(1))
    return list_of(longer)


def erased(call: Call) -> list[Label]:
    """One element less, the last one if no place is given."""
    elements, place = call.label(0).elements, place_in(call, 1)
    if elements is None or place is None:
        return unknown(call)
    left = list(elements)
    del left[place[0] if place else -1]
    return list_of(left)


def element_at(call: Call) -> list[Label]:
    """One element."""
    elements, place = call.label(0).elements, place_in(call, 1)
    if elements is None or not place or elements[place[0]].shape != call.outputs[0]:
        return unknown(call)
    return [elements[place[0]]]


def concat_list(call: Call) -> list[Label]:
    """The elements end to end along one axis, or stacked along a new one."""
    elements = call.label(0).elements
    if not elements or not call.outputs[0]:  # the shape of the result was not measured
        return unknown(call)
    rank = len(call.outputs[0])
    axis, laid = int(call.node.attribute("axis", 0)) % rank, list(elements)
    if call.node.attribute("new_axis", 0):
        laid = [call.wiring.reshape(one, (*one.shape[:axis], 1, *one.shape[axis:]), call.name) for one in laid]
    if {len(one.shape) for one in laid} != {rank} or sum(one.shape[axis] for one in laid) != call.outputs[0][axis]:
        return unknown(call)
    same = {id(element): str(place) for place, element in reversed(list(enumerate(elements)))}
    names = tuple(same[id(element)] for element in elements)
    node = replace(call.node, inputs=names, attributes={**call.node.attributes, "axis": axis})
    return concat(replace(call, node=node, inputs=laid))


def place_in(call: Call, slot: int) -> tuple[int, ...] | None:
    """The place that an input tells, empty where it is not given; None if it is computed at run time."""
    return call.ints(slot, "") if call.given(slot) else ()


def unknown(call: Call) -> list[Label]:
    return call.freeze(f"{call.name} works on a list of tensors that is made at run time")


def counted(call: Call) -> list[Label]:
    """A number, whatever the elements hold."""
    return [Label(())]


PLACE = setting("position")
ROWS: Mapping[str, Row] = {
    "SplitToSequence": Row(
        split_to_list,
        slots=(X, setting("split")),
        size_constants={"split": part_lengths},
        is_sequence=True,
    ),
    "SequenceConstruct": Row(listed, is_sequence=True),
    "SequenceEmpty": Row(listed, is_sequence=True),
    "SequenceInsert": Row(inserted, slots=(X, X, PLACE), is_sequence=True),
    "SequenceErase": Row(erased, slots=(X, PLACE), is_sequence=True),
    "SequenceAt": Row(element_at, slots=(X, PLACE), is_sequence=True),
    "SequenceLength": Row(counted, is_sequence=True),
    "ConcatFromSequence": Row(concat_list, adds=True, joins=True, is_sequence=True),
}
