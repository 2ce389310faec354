"""Which groups lie on an axis, which of them are assigned, and which lie inside the units of another."""

import numpy as np

from mal_graph.matching.axis_pairs import Index
from mal_graph.network import Parameter
from mal_graph.symmetry import AxisGroups, Member


def members_on(groups: AxisGroups, parameter: Parameter, place: int) -> tuple[tuple[int, Member], ...]:
    """The groups on a canonical axis."""
    axis = parameter.axes[place]
    return groups.on_axis.get((parameter.tensor, axis), ()) if axis is not None else ()


def insides(groups: AxisGroups, outer: int, member: Member) -> tuple[list[int], dict[tuple[int, int, int], int]]:
    """The usable groups that lie inside the first unit of a member, and for each (number of such a group, unit of it,
    place in that) the column of the member's positions that it has there."""
    first = member.positions[0]
    inner: list[int] = []
    columns: dict[tuple[int, int, int], int] = {}
    for g, other in groups.on_axis[member.tensor, member.axis]:
        here = np.isin(other.positions, first)
        if g == outer or not groups.groups[g].is_usable or not here.any(axis=1).all():
            continue
        rows = [np.flatnonzero(np.isin(first, row[flags])) for row, flags in zip(other.positions, here, strict=True)]
        here_columns = {
            (len(inner), unit, place): int(column)
            for unit, row in enumerate(rows)
            for place, column in enumerate(row.tolist())
        }
        if not set(here_columns.values()) & set(columns.values()):
            inner.append(g)
            columns |= here_columns
    return inner, columns


def moving_groups(groups: AxisGroups) -> frozenset[int]:
    """The usable groups whose units are assigned: of groups that share positions one that holds others, else the one
    that lies on the most axes, which are as many in a wider network, else the one with the most units. The others keep
    the order of the model: of an attention that turns queries and keys by the place the heads are assigned, and the
    frequencies in them correspond; of a grouped convolution the groups of channels, and the places in them."""
    usable = groups.usable()
    names = {groups.groups[i].name for i in usable}
    nested = {i for i in usable if (inside := groups.groups[i].inside) and inside[0] in names}
    holding = {inside[0] for i in nested if (inside := groups.groups[i].inside)}

    def weakness(i: int) -> tuple[bool, int, int]:
        """Sorts the groups, those first that are assigned before others."""
        group = groups.groups[i]
        return group.name not in holding, -len(group.members), -group.units

    moving: list[int] = []
    for i in sorted(usable, key=weakness):
        if i in nested:
            continue
        here = {
            (g, m.tensor, m.axis): m
            for member in groups.groups[i].members
            for g, m in groups.on_axis[member.tensor, member.axis]
        }
        own = {(m.tensor, m.axis): m.positions for m in groups.groups[i].members}
        if not any(g in moving and share(m.positions, own[tensor, axis]) for (g, tensor, axis), m in here.items()):
            moving.append(i)
    return frozenset(moving)


def share(a: Index, b: Index) -> bool:
    """Whether two sets of positions have any in common."""
    return bool(np.isin(a, b).any())
