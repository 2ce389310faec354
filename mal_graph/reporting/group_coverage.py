"""How much of a model its axis groups speak of."""

import numpy as np

from mal_graph.graph import LayerGraph
from mal_graph.operators import GroupState
from mal_graph.symmetry import AxisGroups


def coverage(graph: LayerGraph, groups: AxisGroups) -> tuple[int, float, float]:
    """How much of a model the groups speak of.

    Returns:
        the number of float parameters, the share with at least one verified axis, and the share of which every axis is
        verified or pinned; both counted by positions, an axis of length 1 being neither.
    """
    tensors = dict.fromkeys(parameter.tensor for parameter in groups.parameters)
    total, some, full = 0, 0.0, 0.0
    for name in tensors:
        weight = graph.weights[name]
        size = weight.size
        total += size
        shares = [axis_shares(groups, name, axis, n) for axis, n in enumerate(weight.shape) if n > 1]
        some += size * (1 - float(np.prod([1 - verified for verified, _ in shares])))
        full += size * float(np.prod([settled for _, settled in shares]))
    return (total, some / total, full / total) if total else (0, 0.0, 0.0)


def axis_shares(groups: AxisGroups, tensor: str, axis: int, size: int) -> tuple[float, float]:
    """The shares of an axis that are verified, and that are verified or pinned."""
    verified, pinned = np.zeros(size, bool), np.zeros(size, bool)
    for index, member in groups.on_axis.get((tensor, axis), ()):
        state = groups.groups[index].state
        if state in (GroupState.VERIFIED, GroupState.PINNED):
            (verified if state is GroupState.VERIFIED else pinned)[member.positions.ravel()] = True
    return float(verified.mean()), float((verified | pinned).mean())
