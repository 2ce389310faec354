"""How much of a model its axis groups speak of."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import LayerGraph
from mal_graph.network import find_inner, find_settings
from mal_graph.operators import GroupState
from mal_graph.symmetry import AxisGroups

SETTLED = (GroupState.VERIFIED, GroupState.PINNED)
NOT_VERIFIED = "not verified"
NO_GROUP = "nothing is known of an axis"


@dataclass(frozen=True)
class Coverage:
    """How much of a model the groups speak of.

    Attributes:
        total: how many float numbers the model stores, inside bodies and functions too.
        settings: how many of them are no parameters.
        missing: how many parameters have a position on some axis that is neither verified nor fixed by contract, by
            reason, the most first.
    """

    total: int
    settings: int
    missing: Mapping[str, int]

    @property
    def parameters(self) -> int:
        return self.total - self.settings

    @property
    def share(self) -> float:
        """The share of the parameters of which every axis is verified or fixed by contract."""
        return 1.0 - sum(self.missing.values()) / self.parameters if self.parameters else 0.0


def coverage(graph: LayerGraph, groups: AxisGroups) -> Coverage:
    """How much of a model its groups speak of, counted by positions; an axis of length 1 needs no order."""
    applied = {parameter.tensor for parameter in groups.parameters if parameter.tensor not in graph.copies}
    missing: dict[str, int] = {}
    for name, why in find_inner(graph, applied).items():
        missing[why] = missing.get(why, 0) + graph.weights[name].size
    for name in sorted(applied):
        for why, count in missing_of(graph, groups, name).items():
            missing[why] = missing.get(why, 0) + count
    stored = {name: weight.size for name, weight in graph.weights.items() if weight.is_float}
    return Coverage(
        total=sum(size for name, size in stored.items() if name not in graph.copies),
        settings=sum(stored[name] for name in find_settings(graph, {*applied, *graph.copies})),
        missing=dict(sorted(missing.items(), key=lambda item: -item[1])),
    )


def missing_of(graph: LayerGraph, groups: AxisGroups, tensor: str) -> dict[str, int]:
    """How many positions of a tensor are not settled, each for the reason on its first axis that is not."""
    left = graph.weights[tensor].size
    missing: dict[str, int] = {}
    for axis, size in enumerate(graph.weights[tensor].shape):
        if size > 1 and left:
            reasons = unsettled(groups, tensor, axis, size)
            others = left // size  # positions on the other axes that are settled on all axes before
            for why, mask in reasons.items():
                missing[why] = missing.get(why, 0) + int(mask.sum()) * others
                left -= int(mask.sum()) * others
    return missing


def unsettled(groups: AxisGroups, tensor: str, axis: int, size: int) -> dict[str, NDArray[np.bool_]]:
    """The positions of an axis that are neither verified nor fixed by contract, by reason, each once."""
    on_axis = [(groups.groups[index], member) for index, member in groups.on_axis.get((tensor, axis), ())]
    open_ = np.ones(size, bool)
    for group, member in on_axis:
        if group.state in SETTLED:
            open_[member.positions.ravel()] = False
    reasons: dict[str, NDArray[np.bool_]] = {}
    for group, member in on_axis:
        here = np.zeros(size, bool)
        here[member.positions.ravel()] = True
        here &= open_
        if here.any():
            why = group.reason or NOT_VERIFIED
            reasons[why] = reasons.get(why, np.zeros(size, bool)) | here
            open_ &= ~here
    return {**reasons, NO_GROUP: open_} if open_.any() else reasons
