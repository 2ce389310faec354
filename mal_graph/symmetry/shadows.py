"""Shadows: an operator run once more with one member of a group left out, on what the operator itself reads.

So a member is seen where it is read, whatever lies behind it, and no other one disturbs what it shows: the members of
all groups are left out in one run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.graph import Array, LayerGraph, Node, Weight
from mal_graph.symmetry.controls import control_members, redraw
from mal_graph.symmetry.groups import AxisGroup, Family, Member, family
from mal_graph.symmetry.moves import Order, index_of

Key = tuple[int, str, int]  # a group, and the tensor and axis of its member


def find_readers(graph: LayerGraph, live: AbstractSet[str], tensor: str) -> list[int]:
    """The operators where data meet a stored tensor, or what is computed of it and others like it; none where it cannot
    be replaced, for a body inside an operator reads it."""
    waiting, seen = [tensor], set()
    readers: set[int] = set()
    while waiting:
        for index, slot in graph.consumers.get(waiting.pop(), ()):
            outputs = graph.nodes[index].outputs
            if slot < 0:
                return []
            if not live.isdisjoint(outputs):
                readers.add(index)
            elif index not in seen:
                seen.add(index)
                waiting.extend(outputs)
    return sorted(readers)


@dataclass(frozen=True)
class Control:
    """A member of a group to be left out, and an operator that reads it.

    Attributes:
        group: the index of the group.
        is_alone: whether the group has no other member.
    """

    group: int
    member: Member
    is_alone: bool
    reader: int

    @property
    def key(self) -> Key:
        """What is left out."""
        return key_of(self.group, self.member)


def key_of(group: int, member: Member) -> Key:
    """A name for a member of a group."""
    return group, member.tensor, member.axis


def choose_members(groups: Sequence[AxisGroup], indices: Sequence[int], full: bool) -> dict[int, list[Member]]:
    """By index of the group the members to be left out: one of each role, or all; none of a group whose family has
    shown them."""
    known: set[Family] = set()
    chosen = {}
    for index in indices:
        kind = family(groups[index])
        if kind is None or kind not in known:
            chosen[index] = [members[0] for members in control_members(groups[index], full)]
        known |= set() if kind is None else {kind}
    return chosen


def find_controls(
    graph: LayerGraph, live: AbstractSet[str], groups: Sequence[AxisGroup], chosen: Mapping[int, Sequence[Member]]
) -> Iterator[Control]:
    """The controls of some groups; none for a member where nothing can be seen of it."""
    tensors = {member.tensor for members in chosen.values() for member in members}
    readers = {tensor: find_readers(graph, live, tensor) for tensor in tensors}
    for index, members in chosen.items():
        for member in members:
            is_alone = len(groups[index].members) == 1
            yield from (Control(index, member, is_alone, reader) for reader in readers[member.tensor])


@dataclass(frozen=True)
class Shadow:
    """Some operators once more, under other names, and with another tensor instead of one that is stored.

    Attributes:
        nodes: the operators.
        weight: the stored tensor under its other name.
        outputs: by name of a tensor that they give the one of its shadow.
    """

    nodes: tuple[Node, ...]
    weight: Weight
    outputs: Mapping[str, str]


def cast_shadow(nodes: Sequence[Node], weight: Weight, outputs: Iterable[str], stem: str) -> Shadow:
    """The shadow of some operators; all its names begin with the stem."""
    made = [name for node in nodes for name in node.outputs if name]
    names = {name: f"{stem}/{name}" for name in (weight.name, *made)}
    again = tuple(
        replace(
            node,
            inputs=tuple(names.get(name, name) for name in node.inputs),
            outputs=tuple(names.get(name, name) for name in node.outputs),
        )
        for node in nodes
    )
    return Shadow(again, replace(weight, name=names[weight.name]), {name: names[name] for name in outputs})


def batches(controls: Sequence[Control], graph: LayerGraph, limit: int) -> Iterator[list[Control]]:
    """Controls in sets whose tensors take about so many bytes."""
    batch: list[Control] = []
    held = 0
    for control in controls:
        size = 4 * graph.weights[control.member.tensor].size
        if batch and held + size > limit:
            yield batch
            batch, held = [], 0
        batch.append(control)
        held += size
    if batch:
        yield batch


def leave_out(values: Array, permuted: Array, moves: Sequence[tuple[AxisGroup, Order]], control: Control) -> Array:
    """A tensor that groups permuted, but for one member; it is changed there if its group has no other."""
    member = control.member
    if control.is_alone:
        return redraw(permuted, member)
    if [group.members for group, _ in moves] == [(member,)]:
        return values
    moving = [
        (other, order) for group, order in moves for other in group.members if other.axis == member.axis
    ]  # of this tensor alone
    size = permuted.shape[member.axis]
    back = np.argsort(index_of(size, moving))
    return permuted.take(back[index_of(size, [pair for pair in moving if pair[0] is not member])], member.axis)
