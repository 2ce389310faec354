"""Moves: which unit takes the place of which, and what that makes of the stored tensors."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Member

Order = NDArray[np.int64]
Moves = Mapping[int, Order]  # an order by index of the group


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


def permute_weights(
    weights: Mapping[str, Array],
    moves: Sequence[tuple[AxisGroup, Order]],
    without: Member | None = None,
) -> dict[str, Array]:
    """The tensors that change when unit `order[u]` of each group takes the place of unit u; one member may stay.

    Each axis is taken once, however many groups lie on it.
    """
    indices: dict[str, dict[int, Order]] = {}  # by tensor and axis what takes each place
    for group, order in moves:
        for member in group.members:
            if member is not without:
                axes = indices.setdefault(member.tensor, {})
                index = axes.setdefault(member.axis, np.arange(weights[member.tensor].shape[member.axis]))
                index[member.positions] = index[member.positions[order]]
    changed = {}
    for tensor, axes in indices.items():
        values = weights[tensor]
        for axis, index in axes.items():
            values = values.take(index, axis=axis)
        changed[tensor] = values
    return changed
