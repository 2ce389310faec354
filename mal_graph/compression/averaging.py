"""Which tensors of several models are averaged: what their outputs hold, or what these are chosen by.

An output of floats is averaged as it is. Before one that holds a decision (class numbers, the highest scores, maps of
scores) lies a tensor of floats that decides it; that one is averaged, and the rest is computed of the mean. So is an
output that is made of another averaged one without any weight, such as the probabilities beside the logits.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mal_graph.compression.decisions import decided
from mal_graph.errors import MatchError
from mal_graph.evaluation import OutputKind, read_output_kind
from mal_graph.graph import LayerGraph, Node, is_mergeable
from mal_graph.matching import listed_names, names_in
from mal_graph.network import find_applied
from mal_graph.operators import row_of


@dataclass(frozen=True)
class Member:
    """A model of an average, and how it calls what the base has.

    Attributes:
        inputs, outputs: its name for each input and output of the base.
        types: numpy's name of the type of each of its tensors, "" where it is no plain tensor.
        shapes: of each of its tensors, on the same inputs as those of the base.
    """

    graph: LayerGraph
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @cached_property
    def learned(self) -> frozenset[int]:
        """The indices of the nodes with parameters."""
        return frozenset(parameter.node for parameter in find_applied(self.graph) if parameter.shape)

    @cached_property
    def decided(self) -> frozenset[str]:
        """The tensors that hold what it decided."""
        return decided(self.graph, self.learned, self.is_float)

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor holds numbers that can be averaged."""
        dtype = self.types.get(tensor, "")
        return bool(dtype) and dtype != "object" and is_mergeable(np.dtype(dtype))


@dataclass(frozen=True)
class Averaged:
    """A tensor that is averaged.

    Attributes:
        tensors: its name in each member.
        kind: what the mean holds.
        finishing: for each member the node whose operator brings it to that kind; None where it is of that kind.
        orders: for each member the axis of the classes and where it has those of the base, in their order; None where
            they are in that order already.
    """

    tensors: tuple[str, ...]
    kind: OutputKind
    finishing: tuple[Node | None, ...]
    orders: tuple[tuple[int, tuple[int, ...]] | None, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the tensors are averaged as they are."""
        return not any(self.finishing) and not any(self.orders)


@dataclass(frozen=True)
class Outputs:
    """How the outputs of an average come about.

    Attributes:
        averaged: the tensors that are averaged.
        behind: indices of the base's nodes that compute the other outputs from these.
    """

    averaged: tuple[Averaged, ...]
    behind: frozenset[int]


def find_averaged(members: Sequence[Member]) -> Outputs:
    """What is averaged, the base first.

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
        averaged[own] = pair_up(members, own, value.name)
        behind |= between(base.graph, value.name, {own}, base.learned) or set()
    both = next((name for name in averaged if place.get(name, -1) in behind), "")
    if both:
        title = base.graph.nodes[place[both]].title
        raise cannot(base, both, f"{title} gives it together with what has to be computed of the mean")
    return Outputs(tuple(averaged.values()), frozenset(behind))


def pair_up(members: Sequence[Member], own: str, output: str) -> Averaged:
    """The tensor of every member that is averaged for an output. Raises MatchError."""
    base, *others = members
    tensors = [own]
    for other in others:
        theirs = deciding(other, other.outputs[output]) if output in other.outputs else None
        if theirs is None:
            raise cannot(base, output, f"{other.graph.name} has nothing that corresponds to it")
        if other.shapes.get(theirs) != base.shapes.get(own):
            found, expected = (list(side.shapes.get(name, ())) for side, name in ((other, theirs), (base, own)))
            raise cannot(base, output, f"its shape is {expected}, in {other.graph.name} {found}")
        tensors.append(theirs)
    orders = tuple(class_order(base, member, own, output) for member in members)
    kinds = [read_output_kind(member.graph, tensor) for member, tensor in zip(members, tensors, strict=True)]
    if len(set(kinds)) == 1:
        return Averaged(tuple(tensors), kinds[0], (None,) * len(members), orders)
    finals = [final_of(member.graph, tensor) for member, tensor in zip(members, tensors, strict=True)]
    for member, kind, final in zip(members, kinds, finals, strict=True):
        if kind == "probabilities" and final is None:
            raise cannot(base, output, f"{member.graph.name} gives probabilities of another form than logits can get")
    if kinds[0] == "probabilities":
        finishing = tuple(finals[0] if kind == "logits" else None for kind in kinds)
        return Averaged(tuple(tensors), "probabilities", finishing, orders)
    logits = [tensor if node is None else node.inputs[0] for tensor, node in zip(tensors, finals, strict=True)]
    return Averaged(tuple(logits), "logits", (None,) * len(members), orders)


def class_order(base: Member, member: Member, tensor: str, output: str) -> tuple[int, tuple[int, ...]] | None:
    """The axis of the classes and where a member has the base's, where both name them and the orders differ.

    Raises:
        MatchError: they name other classes.
    """
    mine, theirs = names_in(base.graph), names_in(member.graph)
    if not mine or not theirs or mine == theirs:
        return None
    own, others = min(mine, key=str), min(theirs, key=str)
    axes = [axis for axis, size in enumerate(base.shapes.get(tensor, ())) if axis and size == len(own)]
    if len(mine) > 1 or len(theirs) > 1 or sorted(map(str, own)) != sorted(map(str, others)) or not axes:
        told = f"its classes are {listed_names(own)}, those of {member.graph.name} {listed_names(others)}"
        raise cannot(base, output, told)
    return axes[-1], tuple(others.index(name) for name in own)


def final_of(graph: LayerGraph, tensor: str) -> Node | None:
    """The node that makes a tensor of probabilities, of logits of the same shape; None where none does at once."""
    node = graph.nodes[graph.producer[tensor]] if tensor in graph.producer else None
    row = None if node is None else row_of(node)
    return node if node is not None and row is not None and row.gives_probabilities(node) else None


def deciding(member: Member, output: str) -> str | None:
    """The tensor of floats that decides an output alone: itself, or the last one before what was decided; None where
    there are several, or a layer stands between."""
    graph = member.graph
    while not member.is_float(output) or output in member.decided:
        if output not in graph.producer or graph.producer[output] in member.learned:
            return None
        read = graph.nodes[graph.producer[output]].inputs
        computed = [name for name in read if name and name not in graph.weights]
        if len(computed) != 1:
            return None
        output = computed[0]
    return output


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
