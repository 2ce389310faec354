"""Tensors that cannot be averaged though they hold floats: what a network decided stands in them.

Behind a TopK, an ArgMax or a NonMaxSuppression of what was learned, the values themselves say which entries these are,
so that the same place holds another thing in every network; no layer behind it changes that. A float that was made of a
truth or a class number is a decision as well, until a layer makes something new of it.

The bodies that operators run stand among the other operators; functions are written out before. If a condition is
computed of what was learned, what an operator gives was made in one way in one network and in another way in the next,
as what a Where gives: it is a decision until a layer makes something new of it. How many rows a Loop collects is then
decided too, and no layer changes that.

Chosen: to walk through all again until what bodies give to their own next runs brings nothing new. Refused: to say that
whatever a body gives is decided, for a Loop of mere arithmetic is averaged, and so is an If that exporters write for a
shape.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from functools import cached_property, reduce
from operator import or_

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.operators import Row, carried_into, cast_type, control_of, outputs_of_run, row_of


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
        learned: the indices of the nodes that apply what was learned.
    """

    marks: Marks
    learned: frozenset[int]

    @cached_property
    def decided(self) -> frozenset[str]:
        """The tensors that hold what the network decided."""
        return frozenset(name for name, mark in self.marks.items() if mark & (Mark.CHOSEN | Mark.TOLD))


def follow(graph: LayerGraph, is_float: Callable[[str], bool] | None = None) -> Followed:
    """What becomes of learned numbers on the way through a graph.

    Args:
        is_float: whether what a node makes can be averaged; by its operator if None, and inside bodies, for nothing
            says it of tensors there.
    """
    runs = Runs(graph)
    while True:
        followed = walk(graph, runs, is_float)
        returned = runs.returned_by(followed.marks)
        if returned == runs.returned:
            return followed
        runs.returned = returned


def walk(graph: LayerGraph, runs: "Runs", is_float: Callable[[str], bool] | None) -> Followed:
    """What becomes of learned numbers on one way through a graph."""
    marks = {name: mark_of(weight) for name, weight in graph.weights.items()}
    learned = set()
    for index, node in enumerate(graph.nodes):
        if node.has_graphs:  # nobody knows what is inside: it goes on with what it scores highest, and learned to score
            applies, made = True, [Mark.COMPUTED | Mark.CHOSEN] * len(node.outputs)
        elif node.runs:
            applies, made = False, runs.behind(node, marks)
        elif node.body in runs.begins and runs.begins[node.body] is node:
            applies, made = runs.begun(node, marks)
        else:
            is_known = None if graph.inner.issuperset(filter(None, node.outputs)) else is_float
            applies, made = behind_operator(node, marks, is_known)
        if applies:
            learned.add(index)
        marks |= {name: mark for name, mark in zip(node.outputs, made, strict=True) if name}
    return Followed(marks, frozenset(learned))


@dataclass
class Runs:
    """The bodies of a graph.

    Attributes:
        begins: the nodes that give runs their inputs, by body.
        returned: what is known of what a run is given of the one before.
    """

    graph: LayerGraph
    returned: Marks = field(default_factory=dict)

    @cached_property
    def begins(self) -> Mapping[str, Node]:
        ends = {name: control_of(node).begin for node in self.graph.nodes for name in node.runs}
        return {node.body: node for node in self.graph.nodes if node.body and node.op == ends.get(node.body)}

    def begun(self, node: Node, marks: Marks) -> tuple[bool, list[Mark]]:
        """Whether runs begin with what was learned, and what is known of what they are given."""
        read = [marks.get(name, Mark.NOTHING) for name in node.inputs[: len(node.outputs)]]
        made = [
            as_computed(mark) | self.returned[name] if name in self.returned else mark
            for name, mark in zip(node.outputs, read, strict=True)
        ]
        return any(Mark.STORED in mark for mark in read), made

    def returned_by(self, marks: Marks) -> dict[str, Mark]:
        """What is known of what all bodies give to their next runs."""
        returned: dict[str, Mark] = {}
        for end in (node for node in self.graph.nodes if node.runs):
            given = outputs_of_run(end, 0)[control_of(end).conditions :]
            for name, back in zip(carried_into(end), given, strict=False):
                returned[name] = as_computed(marks.get(back, Mark.NOTHING)) | self.returned.get(name, Mark.NOTHING)
        return returned

    def behind(self, end: Node, marks: Marks) -> list[Mark]:
        """What is known of the outputs of an operator that runs bodies."""
        control, carried = control_of(end), len(carried_into(end))
        given = [outputs_of_run(end, place) for place in range(len(end.runs))]
        reads = self.begins[end.runs[0]].inputs if control.begin else end.inputs
        conditions = [name for own in given for name in own[: control.conditions]]
        steering = union(marks.get(name, Mark.NOTHING) for name in (*reads[: control.steering], *conditions))
        made = []
        for place in range(len(end.outputs)):
            mark = union(marks.get(own[place + control.conditions], Mark.NOTHING) for own in given)
            if Mark.COMPUTED in steering:
                is_row = control.conditions > 0 and place >= carried
                mark |= Mark.COMPUTED | (Mark.CHOSEN if is_row or Mark.CHOSEN in steering else Mark.TOLD)
            made.append(mark)
        return made


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


def as_computed(mark: Mark) -> Mark:
    """What is known of a tensor that starts as one that is marked so: no stored one any more after the first run."""
    return mark & ~Mark.STORED | Mark.COMPUTED if Mark.STORED in mark else mark


def union(marks: Iterable[Mark]) -> Mark:
    """What is known of any of some tensors."""
    return reduce(or_, marks, Mark.NOTHING)
