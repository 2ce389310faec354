"""Moves: which unit takes the place of which, and what that makes of the stored tensors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Member

Order = NDArray[np.int64]
Moves = Mapping[int, Order]  # an order by index of the group

FEW = 8  # where one index in so many moves, copying is faster


def draw_moves(groups: AxisGroups, indices: Sequence[int], seed: int) -> tuple[Moves, Moves]:
    """Two orders for every group: a cycle through all its units, and an exchange of two."""
    rng = np.random.default_rng(seed)
    cycles = {i: rng.permutation(groups.groups[i].units) for i in indices}
    return {i: derangement(c) for i, c in cycles.items()}, {i: exchange(c) for i, c in cycles.items()}


def derangement(cycle: Order) -> Order:
    """The order that moves every unit to the next place of a cycle through all of them."""
    order = np.empty_like(cycle)
    order[cycle] = np.roll(cycle, 1)
    return order


def exchange(cycle: Order) -> Order:
    """The order that exchanges the first two units of a cycle and leaves the others."""
    order = np.arange(len(cycle))
    order[cycle[:2]] = cycle[1::-1]
    return order


def apart(indices: Sequence[int]) -> Iterator[list[int]]:
    """Sets of groups such that, of any two groups, one set has the first alone and one the second."""
    for bit in range((len(indices) - 1).bit_length()):
        for side in (0, 1):
            yield [index for place, index in enumerate(indices) if place >> bit & 1 == side]


def permute_weights(weights: Mapping[str, Array], moves: Sequence[tuple[AxisGroup, Order]]) -> dict[str, Array]:
    """The tensors that change when unit `order[u]` of each group takes the place of unit u. Each axis is taken once,
    however many groups lie on it."""
    axes = dict.fromkeys((member.tensor, member.axis) for group, _ in moves for member in group.members)
    here: dict[tuple[str, int], list[tuple[Member, Order]]] = {axis: [] for axis in axes}
    for group, order in moves:
        for member in group.members:
            here[member.tensor, member.axis].append((member, order))
    changed: dict[str, Array] = {}
    for (tensor, axis), moving in here.items():
        values = changed.get(tensor, weights[tensor])
        changed[tensor] = take(values, index_of(values.shape[axis], moving), axis)
    return changed


def moves_of_each(moves: Iterable[tuple[AxisGroup, Order]]) -> dict[str, list[tuple[AxisGroup, Order]]]:
    """What moves in each tensor: the groups, with their members there alone, and their orders."""
    own: dict[str, list[tuple[AxisGroup, Order]]] = {}
    for group, order in moves:
        for name in dict.fromkeys(member.tensor for member in group.members):
            here = replace(group, members=tuple(member for member in group.members if member.tensor == name))
            own.setdefault(name, []).append((here, order))
    return own


def permute_in_place(weights: dict[str, Array], moves: Iterable[tuple[AxisGroup, Order]]) -> None:
    """The same, with one tensor after the other replaced: no more than one is held twice."""
    for name, own in moves_of_each(moves).items():
        weights.update(permute_weights({name: weights[name]}, own))


def index_of(size: int, moving: Iterable[tuple[Member, Order]]) -> Order:
    """Which index of an axis comes to each of its places."""
    index = np.arange(size)
    for member, order in moving:
        index[member.positions] = index[member.positions[order]]
    return index


def take(values: Array, index: Order, axis: int) -> Array:
    """A tensor with the indices of one axis in another order; where few move, the others are copied as they lie."""
    moved = np.flatnonzero(index != np.arange(len(index)))
    if len(moved) > len(index) // FEW:
        return values.take(index, axis)
    changed = values.copy()
    np.moveaxis(changed, axis, 0)[moved] = np.moveaxis(values, axis, 0)[index[moved]]
    return changed
