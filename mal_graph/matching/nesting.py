"""Groups of units that hold others, and groups of units that lie across each other.

The units inside the first head of an attention are a group, those inside the second another: as the heads may trade
places, these groups are alike, a family. Units that all heads have in common, such as those that a norm of head size
scales, lie across the heads: each is one place in all of them, and the places where they meet are a grid.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mal_graph.matching.axis_pairs import Index
from mal_graph.matching.moving_groups import share
from mal_graph.symmetry import AxisGroup, AxisGroups

Axis = tuple[str, int]
Positions = Mapping[Axis, Index]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Family:
    """A group inside the first unit of another, and its counterparts inside the others.

    Attributes:
        group: the one inside the first unit, by index.
        groups: all of them.
        columns: by axis which columns of the enclosing units' positions belong to each unit, shape (units, k).
        inside: what is inside its units.
    """

    group: int
    groups: frozenset[int]
    columns: Positions
    inside: "Inside"


@dataclass(frozen=True)
class Grid:
    """Two groups that lie across each other.

    Attributes:
        first, second: their indexes; the first ones are cut into places by the second.
        places: by axis where the two meet, shape (units of the first, units of the second, k): positions, or inside
            the units of another group columns of its positions.
    """

    first: int
    second: int
    places: Mapping[Axis, Index]


@dataclass(frozen=True)
class Inside:
    """What lies inside the units of a group and can be assigned.

    Attributes:
        families: groups that share no positions with each other but in grids.
        grids: where they lie across each other.
    """

    families: tuple[Family, ...] = ()
    grids: tuple[Grid, ...] = ()


@dataclass
class Choice:
    """What is chosen inside some units, while it is chosen."""

    columns: dict[int, Positions] = field(default_factory=dict)
    groups: dict[int, frozenset[int]] = field(default_factory=dict)
    grids: list[Grid] = field(default_factory=list)


def positions_of(group: AxisGroup) -> dict[Axis, Index]:
    """Where the units of a group lie, by axis."""
    return {(member.tensor, member.axis): member.positions for member in group.members}


def find_inside(groups: AxisGroups, index: int, taken: Sequence[Positions]) -> Inside:
    """What lies inside the units of a group and can be assigned, on no positions that are taken."""
    outer = positions_of(groups.groups[index])
    placed: dict[int, Positions] = {}
    for i in groups.usable():
        group = groups.groups[i]
        if group.inside is not None and group.units > 1 and i != index:
            own = positions_of(group)
            if own.keys() <= outer.keys() and not any(overlap(own, others) for others in taken):
                placed[i] = own
    return inside_units(groups, outer, is_listed(groups.groups[index]), placed) if placed else Inside()


def overlap(own: Positions, others: Positions) -> bool:
    """Whether some units share positions with others."""
    return any(axis in others and share(rows, others[axis]) for axis, rows in own.items())


def is_listed(group: AxisGroup) -> Flags:
    """Of which units of a group the groups inside are listed: not of those that were added by widening."""
    listed: Flags = np.arange(group.units) < group.units - group.added
    return listed


def inside_units(groups: AxisGroups, outer: Positions, listed: Flags, placed: Mapping[int, Positions]) -> Inside:
    """What can be assigned inside units: those first that hold others, that lie on more axes, that have more units.

    Args:
        outer: where the units lie.
        listed: of which of them the groups inside are listed.
        placed: what may lie there, by index of the group.
    """
    unit: Positions = first_unit(outer)
    here = {i: own for i, own in placed.items() if lies_in(own, unit)}
    alike, chosen = Counterparts(placed), Choice()
    for i in sorted(here, key=lambda i: weakness(here, i)):
        columns = {axis: columns_of(rows, unit[axis]) for axis, rows in here[i].items()}
        grids = find_grids(i, columns, chosen.columns)
        members = None if grids is None else alike.in_units(np.flatnonzero(listed), outer, columns)
        if grids is not None and members is not None:
            chosen.columns[i], chosen.groups[i] = columns, members
            chosen.grids += grids
    rest = {i: own for i, own in placed.items() if not any(i in members for members in chosen.groups.values())}
    families = []
    for i, taken in sorted(chosen.columns.items()):  # in an order that does not depend on how many units they have
        within: Positions = {axis: rows_inside(outer[axis], own) for axis, own in taken.items()}
        both = (listed[:, None] & is_listed(groups.groups[i])).ravel()
        inside = inside_units(groups, within, both, rest) if rest else Inside()
        families.append(Family(i, chosen.groups[i], taken, inside))
    return Inside(tuple(families), in_order(chosen.grids))


def weakness(here: Mapping[int, Positions], i: int) -> tuple[bool, int, int]:
    """Sorts groups, those first that are assigned before others."""
    first = first_unit(here[i])
    holds = any(lies_in(own, first) for other, own in here.items() if other != i)
    return not holds, -len(here[i]), -len(next(iter(here[i].values())))


def first_unit(outer: Positions) -> Positions:
    """Where the first unit lies, by axis."""
    return {axis: rows[0] for axis, rows in outer.items()}


def rows_inside(outer: Index, columns: Index) -> Index:
    """The positions of the units inside others, counted through, shape (units, k)."""
    return outer[:, columns].reshape(-1, columns.shape[-1])


def lies_in(own: Positions, unit: Positions) -> bool:
    """Whether all units lie inside one other, of which these are the positions."""
    return all(axis in unit and np.isin(rows, unit[axis]).all() for axis, rows in own.items())


def columns_of(rows: Index, unit: Index) -> Index:
    """At which places of a unit's positions some others stand."""
    order = np.argsort(unit)
    columns: Index = order[np.searchsorted(unit[order], rows)]
    return columns


class Counterparts:
    """Groups by where they lie."""

    def __init__(self, placed: Mapping[int, Positions]) -> None:
        self.placed = placed
        self.lying: dict[tuple[Axis, bytes], list[int]] = {}
        for i, own in placed.items():
            for axis, rows in own.items():
                self.lying.setdefault((axis, np.sort(rows, axis=None).tobytes()), []).append(i)

    def in_units(self, units: Index, outer: Positions, columns: Positions) -> frozenset[int] | None:
        """The groups that lie in some outer units as one does in the first; None where one has no such group."""
        found = []
        axis = next(iter(columns))
        for unit in units.tolist():
            expected = {name: outer[name][unit][own] for name, own in columns.items()}
            there = self.lying.get((axis, np.sort(expected[axis], axis=None).tobytes()), ())
            own = next((i for i in there if is_same(self.placed[i], expected)), None)
            if own is None:
                return None
            found.append(own)
        return frozenset(found)


def is_same(own: Positions, expected: Positions) -> bool:
    """Whether a group lies on these positions, unit by unit in one order on all axes."""
    if own.keys() != expected.keys():
        return False
    orders = []
    for axis, rows in expected.items():
        mine, theirs = (np.sort(side, axis=1) for side in (own[axis], rows))
        if mine.shape != theirs.shape:
            return False
        order = np.argsort(mine[:, 0])[np.argsort(np.argsort(theirs[:, 0]))]
        if not np.array_equal(mine[order], theirs):
            return False
        orders.append(order)
    return all(np.array_equal(order, orders[0]) for order in orders)


def find_grids(index: int, own: Positions, chosen: Mapping[int, Positions]) -> list[Grid] | None:
    """Where a group lies across others: [] where it shares no position with any, None where it shares some in another
    way."""
    places: dict[int, dict[Axis, Index]] = {}
    for axis, rows in own.items():
        met = [i for i, others in chosen.items() if axis in others and share(others[axis], rows)]
        if not met:
            continue
        table = full_table(chosen[met[0]][axis], rows) if len(met) == 1 else None
        if table is None:
            return None
        places.setdefault(met[0], {})[axis] = table
    return [Grid(first, index, tables) for first, tables in places.items()]


def find_crossing(groups: AxisGroups, moving: Collection[int]) -> tuple[Grid, ...]:
    """Where groups lie across those that move and can be assigned beside them."""
    chosen = {i: positions_of(groups.groups[i]) for i in moving}
    grids: list[Grid] = []
    lying = {g for i in moving for axis in chosen[i] for g, _ in groups.on_axis[axis]}
    free = [i for i in lying - set(moving) if groups.groups[i].is_usable and groups.groups[i].units > 1]
    for i in sorted(free, key=lambda i: (-len(groups.groups[i].members), -groups.groups[i].units, i)):
        own = positions_of(groups.groups[i])
        here = {j: chosen[j] for axis in own for j, _ in groups.on_axis[axis] if j in chosen}
        found = find_grids(i, own, here)
        if found:
            grids += found
            chosen[i] = own
    return in_order(grids)


def in_order(grids: Iterable[Grid]) -> tuple[Grid, ...]:
    """Grids in the order of their groups."""
    return tuple(sorted(grids, key=lambda grid: (grid.first, grid.second)))


def full_table(outer: Index, rows: Index) -> Index | None:
    """The positions that each outer unit and each of some others have in common, shape (outer units, units, k), in the
    same order for all outer units and for all of the others; None where they have not as many everywhere."""
    length = int(max(outer.max(), rows.max())) + 1
    where = np.full((4, length), -1)
    for place, units in ((0, outer), (2, rows)):
        where[place, units] = np.arange(len(units))[:, None]
        where[place + 1, units] = np.arange(units.shape[1])
    positions = rows.ravel()
    outer_unit, column, unit, other_column = where[:, positions]
    if (outer_unit < 0).any() or len(positions) % (len(outer) * len(rows)):
        return None
    order = np.lexsort((column, unit, outer_unit))
    shape = (len(outer), len(rows), len(positions) // (len(outer) * len(rows)))
    table, columns, others, own, around = (
        values[order].reshape(shape) for values in (positions, column, other_column, unit, outer_unit)
    )
    is_full = (around == np.arange(shape[0])[:, None, None]).all() and (own == np.arange(shape[1])[:, None]).all()
    is_even = (columns == columns[:1]).all() and (others == others[:, :1]).all()
    return table if is_full and is_even else None
