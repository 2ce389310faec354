"""Whether two units of a group that give the same may be one: verified by running, as permutations are.

One unit stands for both if what reads it reads it as often as it read the two. That fails where a norm, sum or maximum
is taken over the units, and where two activations are multiplied along them, as queries and keys are.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array
from mal_graph.symmetry.groups import AxisGroup, Member
from mal_graph.symmetry.thresholds import ACCEPT
from mal_graph.symmetry.trial import Trial, Weights

Change = Callable[[Array, NDArray[np.int64], NDArray[np.int64]], None]  # of a tensor, its axis in front: in place


def may_be_one(trial: Trial, group: AxisGroup) -> bool:
    """Whether a model whose units are alike in pairs computes the same when one unit of each pair is read for both.
    Raises RunError."""
    if group.units < 2 or not all(member.tensor in trial.weights for member in group.members):
        return False
    once = {**trial.weights, **read_once(trial.weights, group)}
    return trial.at(twins(trial.weights, group)).deviation(once) <= ACCEPT


def twins(weights: Weights, group: AxisGroup) -> dict[str, Array]:
    """Every second unit made as the one before it, and read as it was."""

    def copy(values: Array, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        values[second] = values[first]

    return changed(weights, group, [member for member in group.members if not member.consumes], copy)


def read_once(weights: Weights, group: AxisGroup) -> dict[str, Array]:
    """Every second unit made as it was, and the one before it read for both."""

    def add(values: Array, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        values[first] += values[second]
        values[second] = 0

    return changed(weights, group, [member for member in group.members if member.consumes], add)


def changed(weights: Weights, group: AxisGroup, members: list[Member], change: Change) -> dict[str, Array]:
    """The tensors of some members, changed pair by pair along their axes."""
    new: dict[str, Array] = {}
    for member in members:
        values = np.moveaxis(new.setdefault(member.tensor, weights[member.tensor].copy()), member.axis, 0)
        paired = member.positions[: group.units // 2 * 2]
        change(values, paired[::2].ravel(), paired[1::2].ravel())
    return new
