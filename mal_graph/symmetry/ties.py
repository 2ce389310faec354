"""Groups that only a shared tensor holds together: its readers use the same units because they use the same numbers.

The groups are found again on a copy of the graph that stores each shared tensor once per use. Units that move alone
there are tied on purpose, as in the towers of a siamese network. Along an axis on which all its values are equal a
tensor ties nothing: an adapter gives each reader its own, and ties these along the others (see `LayerGraph.tied`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.graph import LayerGraph
from mal_graph.network import find_parameters, with_copies
from mal_graph.symmetry.grouping import axis_groups
from mal_graph.symmetry.groups import AxisGroup, AxisGroups


@dataclass(frozen=True)
class Tie:
    """A group that would fall apart if each use of a tensor had numbers of its own.

    Attributes:
        group: its name.
        tensors: the shared tensors on it.
        parts: into how many groups it would fall.
    """

    group: str
    tensors: tuple[str, ...]
    parts: int


def find_ties(graph: LayerGraph, groups: AxisGroups) -> tuple[Tie, ...]:
    """The usable groups that shared tensors alone hold together."""
    shared = shared_tensors(graph)
    concerned = [group for group in groups.groups if group.is_usable and shared & tensors_of(group)]
    if not concerned:
        return ()
    apart, stored = with_copies(graph, sorted(shared))
    shapes = {**groups.probed.shapes, **{copy: groups.probed.shapes[name] for copy, name in stored.items()}}
    found = axis_groups(replace(apart, tied={}), replace(groups.probed, shapes=shapes)).groups
    ties = []
    for group in concerned:
        parts = [other for other in found if is_part(other, group, stored)]
        if len(parts) > 1:
            ties.append(Tie(group.name, tuple(sorted(shared & tensors_of(group))), len(parts)))
    return tuple(ties)


def is_part(other: AxisGroup, group: AxisGroup, stored: Mapping[str, str]) -> bool:
    """Whether a group of the copy has the units of a group on one of its axes."""
    own = {(member.tensor, member.axis): member.positions for member in group.members}
    lying = ((own.get((stored.get(m.tensor, m.tensor), m.axis)), m.positions) for m in other.members)
    return any(mine is not None and np.array_equal(mine, theirs) for mine, theirs in lying)


def tensors_of(group: AxisGroup) -> set[str]:
    return {member.tensor for member in group.members}


def shared_tensors(graph: LayerGraph) -> set[str]:
    """The stored tensors that are applied at several places, but those of which each place has a copy that no axis
    ties."""
    copied = set(graph.copies.values())
    times = Counter(graph.copies.get(parameter.tensor, parameter.tensor) for parameter in find_parameters(graph))
    return {name for name, count in times.items() if count > 1 and (name in graph.tied or name not in copied)}
