"""Which tensors of several models are averaged: what their outputs hold, or what these are chosen by.

An output of floats is averaged as it is. Before one that holds a decision (class numbers, the highest scores, maps of
scores) lies a tensor of floats that decides it; that one is averaged, and the rest is computed of the mean. So is an
output that is made of another averaged one without any weight, such as the probabilities beside the logits.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mal_graph.compression.classes import Classes, ClassNames, Scoring, joined, scoring_of
from mal_graph.compression.decisions import Followed, follow
from mal_graph.errors import MatchError
from mal_graph.evaluation import OutputKind, read_output_kind
from mal_graph.graph import LayerGraph, Node, is_mergeable
from mal_graph.label_lists import Names
from mal_graph.matching import listed_names
from mal_graph.operators import row_of


@dataclass(frozen=True)
class Member:
    """A model of an average, and how it calls what the base has.

    Attributes:
        inputs, outputs: its name for each input and output of the base.
        types: numpy's name of the type of each of its tensors, "" where it is no plain tensor.
        shapes: of each of its tensors, on the same inputs as those of the base.
        names: what it calls its classes.
    """

    graph: LayerGraph
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    names: ClassNames = field(default_factory=ClassNames)

    @cached_property
    def followed(self) -> Followed:
        """What becomes of its parameters."""
        return follow(self.graph, is_float=self.is_float)

    @property
    def learned(self) -> frozenset[int]:
        """The indices of the nodes with parameters."""
        return self.followed.learned

    def can_be_averaged(self, tensor: str) -> bool:
        """Whether a tensor holds numbers, and nothing that was decided."""
        return self.is_float(tensor) and tensor not in self.followed.decided

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor holds numbers that can be averaged: one in a body is made as often as that runs."""
        dtype = "" if tensor in self.graph.inner else self.types.get(tensor, "")
        return bool(dtype) and dtype != "object" and is_mergeable(np.dtype(dtype))


@dataclass(frozen=True)
class Averaged:
    """A tensor that is averaged.

    Attributes:
        tensors: its name in each member.
        kind: what the mean holds.
        finishing: for each member the node whose operator brings it to that kind; None where it is of that kind.
        classes: what it scores, where all members name it.
    """

    tensors: tuple[str, ...]
    kind: OutputKind
    finishing: tuple[Node | None, ...]
    classes: Classes | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the tensors are averaged as they are."""
        is_in_order = self.classes is None or all(map(self.classes.is_in_order, range(len(self.tensors))))
        return is_in_order and not any(self.finishing)

    def of_member(self, member: int) -> "Averaged":
        """The mean of one member alone."""
        classes = None if self.classes is None else self.classes.of_member(member)
        return Averaged((self.tensors[member],), self.kind, (self.finishing[member],), classes)


@dataclass(frozen=True)
class Outputs:
    """How the outputs of an average come about.

    Attributes:
        averaged: the tensors that are averaged.
        behind: names of the base's nodes that compute the other outputs from these.
    """

    averaged: tuple[Averaged, ...]
    behind: frozenset[str]

    @property
    def classes(self) -> list[Classes]:
        """The classes of all scores whose classes have names."""
        return [one.classes for one in self.averaged if one.classes is not None]

    @property
    def are_wider(self) -> bool:
        """Whether there are classes that the base does not have."""
        return any(one.is_wider for one in self.classes)


def find_averaged(
    members: Sequence[Member], *, joins_classes: bool = False, kinds: Mapping[str, OutputKind] | None = None
) -> Outputs:
    """What is averaged, the base first.

    Args:
        joins_classes: whether classes that the base lacks are added; else they are refused.
        kinds: what tensors of the base, and what corresponds to them, hold, where the user says so.

    Raises:
        MatchError: an output cannot be averaged.
    """
    base = members[0]
    averaged: dict[str, Averaged] = {}
    behind: set[int] = set()
    place = base.graph.producer
    for value in sorted(base.graph.outputs, key=lambda value: place.get(value.name, -1)):
        own = deciding(base, value.name)
        nodes = between(base.graph, value.name, averaged.keys(), base.learned)
        if nodes is not None:
            behind |= nodes
            continue
        if own is None:
            raise cannot(base, value.name, "it holds what was decided, and no tensor of floats decides it alone")
        averaged[own] = pair_up(members, own, value.name, joins_classes, (kinds or {}).get(own))
        behind |= between(base.graph, value.name, {own}, base.learned) or set()
    averaged = {name: one for name, one in averaged.items() if place.get(name, -1) not in behind}  # made of others
    one_scores = any(one.classes is not None for one in averaged.values())
    if not one_scores and (joins_classes or any(member.names.given for member in members)):
        output = base.graph.outputs[0].name
        raise cannot(base, output, "no output has an axis with one place for each of the classes that are named")
    return Outputs(tuple(averaged.values()), frozenset(base.graph.nodes[index].name for index in behind))


def pair_up(members: Sequence[Member], own: str, output: str, joins_classes: bool, told: OutputKind | None) -> Averaged:
    """The tensor of every member that is averaged for an output. Raises MatchError."""
    base, *others = members
    tensors = [own]
    for other in others:
        theirs = deciding(other, other.outputs[output]) if output in other.outputs else None
        if theirs is None:
            raise cannot(base, output, f"{other.graph.name} has nothing that corresponds to it")
        tensors.append(theirs)
    names = names_of_classes(members, tensors, output, joins_classes=joins_classes)
    axis = class_axis(members, tensors, names, output)
    kinds = [read_output_kind(member.graph, tensor) for member, tensor in zip(members, tensors, strict=True)]
    kinds = [told] * len(kinds) if told is not None and len(set(kinds)) == 1 else kinds
    finals = [final_of(member.graph, tensor) for member, tensor in zip(members, tensors, strict=True)]
    kind = kinds[0]
    finishing: list[Node | None] = [None] * len(members)
    if len(set(kinds)) > 1:
        for member, own_kind, final in zip(members, kinds, finals, strict=True):
            if own_kind == "probabilities" and final is None:
                name = member.graph.name
                raise cannot(base, output, f"{name} gives probabilities of another form than logits can get")
        if kind == "probabilities":
            finishing = [finals[0] if own_kind == "logits" else None for own_kind in kinds]
        else:
            tensors = [tensor if node is None else node.inputs[0] for tensor, node in zip(tensors, finals, strict=True)]
    if axis is None:
        return Averaged(tuple(tensors), kind, tuple(finishing))
    scorings = {
        scoring_of(member.graph, tensor, are_logits=kind == "logits")
        for member, tensor, node in zip(members, tensors, finishing, strict=True)
        if node is None
    }
    scoring = scorings.pop() if len(scorings) == 1 else Scoring.EACH
    return Averaged(tuple(tensors), kind, tuple(finishing), Classes(axis, *joined(names), scoring))


def names_of_classes(
    members: Sequence[Member], tensors: Sequence[str], output: str, *, joins_classes: bool
) -> list[Names]:
    """What each member calls the classes of its scores; [] where they are taken to be the same without that.

    Raises:
        MatchError: it is not known what to make of them.
    """
    base, *_ = members
    lists = [member.names.of_scores(shape_of(member, tensor)) for member, tensor in zip(members, tensors, strict=True)]
    are_mixed = len({bool(member.names.told) for member in members if not member.names.given}) > 1
    if not joins_classes and (are_mixed or not all(lists)):  # numbers in one graph may be words in another's notes
        return []
    for member, own in zip(members, lists, strict=True):
        if not own:
            why = f"{member.graph.name} does not say what its classes are called: name them"
            raise cannot(base, output, f"{why} with `labels_of`, a file for each model, the base first")
        if len(own) > 1 and len(set(lists)) > 1:
            told = " and ".join(f"[{listed_names(one)}]" for one in own[:2])
            raise cannot(
                base, output, f"{member.graph.name} names classes {told}: say with `labels_of` which are meant"
            )
    for member, own in zip(members, lists, strict=True):
        if are_mixed and set(own[0]).isdisjoint(lists[0][0]):
            told = f"classes are {listed_names(lists[0][0])} in the base, and {listed_names(own[0])} in "
            raise cannot(base, output, f"{told}{member.graph.name}: say with `labels_of` which are the same")
        if not joins_classes and sorted(own[0]) != sorted(lists[0][0]):
            told = f"its classes are {listed_names(lists[0][0])}, those of {member.graph.name} {listed_names(own[0])}"
            raise cannot(base, output, f"{told}; `labels`=union joins them")
    return [] if len(lists[0]) > 1 else [one for (one,) in lists]


def class_axis(members: Sequence[Member], tensors: Sequence[str], names: Sequence[Names], output: str) -> int | None:
    """The axis along which the named classes lie; None where nothing depends on it.

    Raises:
        MatchError: the shapes differ elsewhere, no axis has a place for each class, or several have.
    """
    base, *others = members
    shapes = [shape_of(member, tensor) for member, tensor in zip(members, tensors, strict=True)]
    axes = [
        axis
        for axis in range(1, len(shapes[0]))
        if names and all(fits(shapes[0], shape, axis, len(own)) for shape, own in zip(shapes, names, strict=True))
    ]
    if len(axes) == 1:
        return axes[0]
    if len(set(names)) < 2 and len(set(shapes)) == 1:
        return None
    if axes:
        why = f"several axes of {list(shapes[0])} have a place for each class"
        raise cannot(base, output, f"{why}: try inputs of other sizes, with `input_shapes`")
    for member, shape, own in zip(members, shapes, names or [()] * len(members), strict=True):
        if own and len(own) not in shape[1:]:
            why = f"{member.graph.name} has {len(own)} classes by name, and scores of shape {list(shape)}"
            raise cannot(base, output, f"{why}: export it with a score for each class")
    pairs = zip(others, shapes[1:], strict=True)
    other, shape = next((one for one in pairs if one[1] != shapes[0]), (others[0], shapes[1]))
    hint = "; where it scores other classes, `labels`=union joins them" if len(shape) == len(shapes[0]) else ""
    raise cannot(base, output, f"its shape is {list(shapes[0])}, in {other.graph.name} {list(shape)}{hint}")


def fits(base: Sequence[int], shape: Sequence[int], axis: int, classes: int) -> bool:
    """Whether scores have so many classes along an axis, and are like the base's otherwise."""
    return (
        len(shape) == len(base)
        and shape[axis] == classes
        and all(mine == theirs for other, (mine, theirs) in enumerate(zip(base, shape, strict=True)) if other != axis)
    )


def shape_of(member: Member, tensor: str) -> tuple[int, ...]:
    return tuple(member.shapes.get(tensor, ()))


def final_of(graph: LayerGraph, tensor: str) -> Node | None:
    """The node that makes a tensor of probabilities, of logits of the same shape; None where none does at once."""
    node = graph.nodes[graph.producer[tensor]] if tensor in graph.producer else None
    row = None if node is None else row_of(node)
    return node if node is not None and row is not None and row.gives_probabilities(node) else None


def deciding(member: Member, output: str) -> str | None:
    """The tensor of floats that decides an output alone: itself, or the last one before what was decided; None where
    there are several, or a layer stands between."""
    graph, waiting = member.graph, {output}
    while len(waiting) > 1 or not all(map(member.can_be_averaged, waiting)):
        last = max(waiting, key=lambda name: graph.producer.get(name, -1))
        index = graph.producer.get(last)
        if index is None or index in member.learned:
            return None
        waiting.remove(last)
        waiting.update(name for name in graph.nodes[index].reads if name not in graph.weights)
    return next(iter(waiting), None)


def between(graph: LayerGraph, tensor: str, starts: Collection[str], learned: Collection[int]) -> set[int] | None:
    """The nodes that make a tensor of some others, where nothing else and no learned weight has a part in it; None
    where something has."""
    nodes: set[int] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in starts or name in graph.weights or not name:
            continue
        index = graph.producer.get(name)
        if index is None or index in learned:
            return None
        if index not in nodes:
            nodes.add(index)
            waiting += [*graph.nodes[index].inputs, *graph.nodes[index].captures]
    return nodes


def cannot(base: Member, output: str, why: str) -> MatchError:
    floats = [value.name for value in base.graph.outputs if value.name != output and base.is_float(value.name)]
    others = f"; {', '.join(map(repr, floats))} can" if floats else ""
    return MatchError(f"output {output!r} of {base.graph.name} cannot be averaged: {why}{others}")
