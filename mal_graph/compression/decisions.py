"""Tensors that cannot be averaged though they hold floats: what a network decided stands in them.

Behind a TopK, an ArgMax or a NonMaxSuppression of what was learned, the values themselves say which entries these are,
so that the same place holds another thing in every network; no layer behind it changes that. A float that was made of a
truth or a class number is a decision as well, until a layer makes something new of it.

The graphs that operators run are walked through like the network itself, with what their inputs and captures hold;
functions are written out before. If a condition is computed of what was learned, what an operator gives was made in one
way in one network and in another way in the next, as what a Where gives: it is a decision until a layer makes something
new of it. How many rows a Loop collects is then decided too, and no layer changes that.

Chosen: to walk a body again until what it gives to its own next run brings nothing new. Refused: to say that whatever a
body gives is decided, for a Loop of mere arithmetic is averaged, and so is an If that exporters write for a shape.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import cached_property, reduce
from operator import or_

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.operators import Row, cast_type, control_of, row_of


class Mark(Flag):
    """What is known of a tensor."""

    NOTHING = 0
    STORED = auto()  # it holds learned numbers as they are stored
    COMPUTED = auto()  # it is made of what was learned
    WHOLE = auto()  # it holds truths or whole numbers
    CHOSEN = auto()  # values say which entries it holds, or where these stand
    TOLD = auto()  # it is made of a truth or of a class number, and no layer came since


Marks = Mapping[str, Mark]


@dataclass(frozen=True)
class Followed:
    """A graph that was walked through.

    Attributes:
        marks: what is known of its tensors.
        learned: the indices of the nodes that apply what was learned, in graphs of their own too.
    """

    marks: Marks
    learned: frozenset[int]

    @cached_property
    def decided(self) -> frozenset[str]:
        """The tensors that hold what the network decided."""
        return frozenset(name for name, mark in self.marks.items() if mark & (Mark.CHOSEN | Mark.TOLD))


def follow(graph: LayerGraph, given: Marks | None = None, is_float: Callable[[str], bool] | None = None) -> Followed:
    """What becomes of learned numbers on the way through a graph.

    Args:
        given: what is known of the tensors that it is given; of the inputs of a model there is nothing to know.
        is_float: whether what a node makes can be averaged; by its operator if None, for nothing says it of tensors
            inside a body.
    """
    marks = {name: mark_of(weight) for name, weight in graph.weights.items()} | dict(given or {})
    learned = set()
    for index, node in enumerate(graph.nodes):
        applies, made = behind_bodies(node, marks) if node.bodies else behind_operator(node, marks, is_float)
        if applies:
            learned.add(index)
        marks |= {name: mark for name, mark in zip(node.outputs, made, strict=True) if name}
    return Followed(marks, frozenset(learned))


def mark_of(weight: Weight) -> Mark:
    """What is known of a stored tensor."""
    if not weight.is_float:
        return Mark.WHOLE
    return Mark.STORED if weight.size > 1 else Mark.NOTHING


def behind_operator(node: Node, marks: Marks, is_float: Callable[[str], bool] | None = None) -> tuple[bool, list[Mark]]:
    """Whether an operator applies what was learned, and what is known of its outputs; `is_float` as for `follow`."""
    row, read = row_of(node), union(marks.get(name, Mark.NOTHING) for name in node.reads)
    wholes = [
        (is_whole(node, place, marks) if is_float is None else not is_float(name)) if name else True
        for place, name in enumerate(node.outputs)
    ]
    kinds = [Mark.WHOLE if whole else Mark.NOTHING for whole in wholes]
    if row is not None and row.reads_shape_only:  # values that were computed have no part in it
        counted = Mark.CHOSEN | Mark.COMPUTED if Mark.CHOSEN in read else Mark.NOTHING
        return False, [counted | kind for kind in kinds]
    first = marks.get(node.inputs[0], Mark.NOTHING) if node.inputs else Mark.NOTHING
    if row is not None and row.moves and Mark.STORED in first:  # only passes a weight on
        return False, [Mark.STORED] * len(node.outputs)
    applies = any(
        Mark.STORED in marks.get(name, Mark.NOTHING) and (row is None or not row.slot(slot).setting)
        for slot, name in enumerate(node.inputs)
    )
    mark = read & (Mark.CHOSEN | Mark.COMPUTED)
    if row is not None and row.chooses and Mark.COMPUTED in read:
        mark |= Mark.CHOSEN
    if applies:
        mark |= Mark.COMPUTED
    elif Mark.TOLD in read or (tells(row, first) and not all(wholes)):
        mark |= Mark.TOLD
    return applies, [mark | kind for kind in kinds]


def tells(row: Row | None, first: Mark) -> bool:
    """Whether what an operator makes of its first input says what was decided: a truth or a whole number that was
    computed; integers that stand for floats are none of these."""
    stands_for_floats = row is None or row.quantises or row.reads_integers
    return not stands_for_floats and Mark.COMPUTED | Mark.WHOLE in first


def is_whole(node: Node, place: int, marks: Marks) -> bool:
    """Whether an output of an operator holds truths or whole numbers, as far as the operator and its inputs say."""
    row = row_of(node)
    if row is not None and row.moves and "to" in node.attributes:
        return not cast_type(node)
    if row is not None and (row.compares or row.reads_shape_only or (row.pools and place > 0)):
        return True
    read = [marks.get(name, Mark.NOTHING) for name in node.inputs if name]
    return bool(read) and all(Mark.WHOLE in mark for mark in read)


def behind_bodies(node: Node, marks: Marks) -> tuple[bool, list[Mark]]:
    """Whether anything that a node runs applies what was learned, and what is known of its outputs."""
    control = control_of(node)
    runs = [(body, run_of(node, body, marks)) for body in node.bodies]
    reads_stored = any(Mark.STORED in marks.get(name, Mark.NOTHING) for name in node.inputs)
    applies = reads_stored or any(run.learned for _, run in runs)
    if control.chooses:
        return applies, [Mark.COMPUTED | Mark.CHOSEN] * len(node.outputs)
    given = [[run.marks.get(value.name, Mark.NOTHING) for value in body.outputs] for body, run in runs]
    steering = union(marks.get(name, Mark.NOTHING) for name in node.inputs[: control.steering])
    steering |= union(mark for own in given for mark in own[: control.conditions])
    carried = min(len(control.carried(node, len(body.inputs))) for body in node.bodies)
    made = []
    for place in range(len(node.outputs)):
        mark = union(own[place + control.conditions] for own in given)
        if Mark.COMPUTED in steering:
            is_row = control.conditions > 0 and place >= carried
            mark |= Mark.COMPUTED | (Mark.CHOSEN if is_row or Mark.CHOSEN in steering else Mark.TOLD)
        made.append(mark)
    return applies, made


def run_of(node: Node, body: LayerGraph, marks: Marks) -> Followed:
    """A graph walked through as a node runs it, as often as that brings anything new."""
    control = control_of(node)
    carried = [body.inputs[place].name for place in control.carried(node, len(body.inputs))]
    returned = [value.name for value in body.outputs[control.conditions :]]
    given = {name: marks.get(name, Mark.NOTHING) for name in node.captures}
    shift = max(0, len(node.inputs) - len(body.inputs))  # the first Scan was told lengths before all else
    for value, name in zip(body.inputs, node.inputs[shift:], strict=False):
        given[value.name] = marks.get(name, Mark.NOTHING)
    given.update({name: as_computed(given.get(name, Mark.NOTHING)) for name in carried})
    while True:
        run = follow(body, given)
        pairs = zip(carried, returned, strict=False)
        again = {name: given[name] | as_computed(run.marks.get(back, Mark.NOTHING)) for name, back in pairs}
        if given | again == given:
            return run
        given |= again


def as_computed(mark: Mark) -> Mark:
    """What is known of a tensor that starts as one that is marked so: no stored one any more after the first run."""
    return mark & ~Mark.STORED | Mark.COMPUTED if Mark.STORED in mark else mark


def union(marks: Iterable[Mark]) -> Mark:
    """What is known of any of some tensors."""
    return reduce(or_, marks, Mark.NOTHING)
