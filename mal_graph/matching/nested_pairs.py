"""Pairs of groups that lie inside the units of others or across them: paired where both models have alike ones.

Alike are groups that lie on the same axes of matched layers, with as many positions for each unit. What has no such
counterpart keeps its stored order everywhere: an order on some axes alone would change the function.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.matching.axis_pairs import Block, GroupPair, Index
from mal_graph.matching.nesting import (
    Axis,
    Grid,
    Inside,
    Positions,
    find_crossing,
    find_inside,
    positions_of,
    rows_inside,
)
from mal_graph.matching.tensor_pairs import TensorPair
from mal_graph.symmetry import AxisGroup, AxisGroups

Shape = Mapping[Axis, tuple[int, int]]  # by axis how many positions each unit has, and into how many places each is cut
Both = tuple[Positions, Positions]  # of the base and of the donor


@dataclass(frozen=True)
class Assigned:
    """What a pair of groups assigns in one model.

    Attributes:
        group: the units, those inside all outer ones as one group, without the positions of what is inside them.
        groups: the groups of the model that these are, by index.
    """

    group: AxisGroup
    groups: frozenset[int]


class NestedPairs:
    """The pairs of groups, with those inside their units and those across them.

    Attributes:
        pairs: all of them, those around others before these.
        partners: the donor's groups of each group of the base.
    """

    def __init__(
        self, base: AxisGroups, donor: AxisGroups, moving: Sequence[frozenset[int]], tensors: Iterable[TensorPair]
    ) -> None:
        self.sides = base, donor
        self.images: tuple[dict[Axis, set[Axis]], dict[Axis, set[Axis]]] = {}, {}
        for tensor in tensors:
            self.add_images(tensor)
        self.crossing = self.pair_crossing(*(find_crossing(*side) for side in zip(self.sides, moving, strict=True)))
        self.pairs: list[GroupPair] = []
        self.groups: list[tuple[frozenset[int], frozenset[int]]] = []  # those that each pair assigns, in both models
        self.lying: list[Both] = []  # where the units of each pair lie
        self.parts: list[list[int]] = []  # per pair those that lie inside its units, or where others lie across these
        self.number: dict[tuple[int, int], int] = {}
        self.partners: dict[int, list[int]] = {}
        for one, other in self.crossing:
            self.partners[one.second] = [other.second]

    def add_images(self, tensor: TensorPair) -> None:
        """Note which axes of the donor correspond to which of the base."""
        for axis, other in zip(tensor.base.axes, tensor.donor.axes, strict=False):
            if axis is not None and other is not None:
                own, theirs = (tensor.base.tensor, axis), (tensor.donor.tensor, other)
                self.images[0].setdefault(own, set()).add(theirs)
                self.images[1].setdefault(theirs, set()).add(own)

    def is_alike(self, mine: Shape, theirs: Shape) -> bool:
        """Whether two groups lie alike on all axes that correspond to each other, and on some."""
        sides = (mine, theirs, self.images[0]), (theirs, mine, self.images[1])
        told = [
            any(other.get(image) == shape for image in images[axis])
            for own, other, images in sides
            for axis, shape in own.items()
            if axis in images
        ]
        return bool(told) and all(told)

    def pair_alike(self, mine: Mapping[int, Shape], theirs: Mapping[int, Shape]) -> dict[int, int]:
        """The groups of the donor that are like those of the base, each taken once."""
        chosen: dict[int, int] = {}
        for own, shape in mine.items():
            left = (other for other in theirs if other not in chosen.values())
            partner = next((other for other in left if self.is_alike(shape, theirs[other])), None)
            if partner is not None:
                chosen[own] = partner
        return chosen

    def pair_crossing(self, mine: Sequence[Grid], theirs: Sequence[Grid]) -> list[tuple[Grid, Grid]]:
        """Where in both models groups lie across others."""
        shapes = [
            {grid.second: shape_of(positions_of(side.groups[grid.second]), grids, grid.second) for grid in grids}
            for side, grids in zip(self.sides, (mine, theirs), strict=True)
        ]
        partners = self.pair_alike(*shapes)
        return [
            (one, other)
            for one in mine
            for other in theirs
            if partners.get(one.second) == other.second and self.is_alike(shape_of(one.places), shape_of(other.places))
        ]

    def pair(self, a: int, b: int) -> int:
        """The index of a pair of groups, new or known; a new one comes with those inside its units and across them."""
        if (a, b) in self.number:
            return self.number[a, b]
        if b not in self.partners.setdefault(a, []):
            self.partners[a].append(b)
        mine, theirs = (positions_of(side.groups[g]) for side, g in zip(self.sides, (a, b), strict=True))
        number = self.number[a, b] = self.add(GroupPair(a, b), (mine, theirs), frozenset([a]), frozenset([b]))
        crossing = [both for both in self.crossing if (both[0].first, both[1].first) == (a, b)]
        inside = [
            find_inside(groups, g, [both[side].places for both in crossing])
            for side, (groups, g) in enumerate(zip(self.sides, (a, b), strict=True))
        ]
        self.add_inside(number, inside[0], inside[1])
        for one, other in crossing:
            factors = number, self.pair(one.second, other.second)
            self.add_places(-1, factors, (flat(one.places), flat(other.places)))
        return number

    def add(
        self, pair: GroupPair, lying: Both, mine: frozenset[int] = frozenset(), theirs: frozenset[int] = frozenset()
    ) -> int:
        """Add a pair that lies on some positions."""
        self.pairs.append(pair)
        self.groups.append((mine, theirs))
        self.lying.append(lying)
        self.parts.append([])
        return len(self.pairs) - 1

    def add_inside(self, outer: int, mine: Inside, theirs: Inside) -> None:
        """Add the pairs inside the units of one."""
        shapes = [
            {i: shape_of(family.columns, inside.grids, family.group) for i, family in enumerate(inside.families)}
            for inside in (mine, theirs)
        ]
        numbers: dict[tuple[int, int], int] = {}
        for i, j in self.pair_alike(*shapes).items():
            one, other = mine.families[i], theirs.families[j]
            lying = self.lying_inside(outer, (one.columns, other.columns))
            number = self.add(GroupPair(one.group, other.group, outer), lying, one.groups, other.groups)
            numbers[one.group, other.group] = number
            self.parts[outer].append(number)
            self.add_inside(number, one.inside, other.inside)
        for own in mine.grids:
            for other_grid in theirs.grids:
                factors = [
                    numbers.get((own.first, other_grid.first), -1),
                    numbers.get((own.second, other_grid.second), -1),
                ]
                if min(factors) >= 0:
                    places = self.lying_inside(outer, (flat(own.places), flat(other_grid.places)))
                    self.add_places(outer, (factors[0], factors[1]), places)

    def lying_inside(self, outer: int, columns: Both) -> Both:
        """Where units inside those of a pair lie, from the columns of their positions."""
        mine, theirs = (
            {axis: rows_inside(lying[axis], own) for axis, own in side.items()}
            for lying, side in zip(self.lying[outer], columns, strict=True)
        )
        return mine, theirs

    def add_places(self, outer: int, factors: tuple[int, int], lying: Both) -> None:
        """Add the pair of the places where two others meet."""
        first = self.pairs[factors[0]]
        number = self.add(GroupPair(first.base, first.donor, outer, factors), lying)
        for pair in (*factors, *([outer] if outer >= 0 else [])):
            self.parts[pair].append(number)

    def groups_inside(self, side: int) -> frozenset[int]:
        """The groups of one model that are assigned inside the units of others, or across them."""
        return self.groups_across(side).union(
            *(own[side] for pair, own in zip(self.pairs, self.groups, strict=True) if pair.within >= 0)
        )

    def held(self) -> dict[int, int]:
        """The donor's group of each of the base's that lies inside the units of others, or across them."""
        inside = {pair.base: pair.donor for pair in self.pairs if pair.within >= 0 and pair.grid is None}
        return {**inside, **{one.second: other.second for one, other in self.crossing}}

    def groups_across(self, side: int) -> frozenset[int]:
        """The groups of one model that are assigned across others."""
        return frozenset(both[side].second for both in self.crossing)

    def assigned(self) -> tuple[tuple[Assigned, Assigned], ...]:
        """What every pair assigns in both models."""
        return tuple((self.assigned_in(0, number), self.assigned_in(1, number)) for number in range(len(self.pairs)))

    def assigned_in(self, side: int, number: int) -> Assigned:
        """What a pair assigns in one model."""
        pair = self.pairs[number]
        group = self.sides[side].groups[pair.donor if side else pair.base]
        lying = self.lying[number][side]
        members = [
            replace(member, positions=rows)
            for member in group.members
            if (axis := (member.tensor, member.axis)) in lying and (rows := self.own_rows(side, number, axis)).size
        ]
        units = len(next(iter(lying.values())))
        return Assigned(replace(group, units=units, members=tuple(members)), self.groups[number][side])

    def own_rows(self, side: int, number: int, axis: Axis) -> Index:
        """Where the units of a pair lie on an axis but for what is inside them or where others lie across."""
        rows = self.lying[number][side][axis]
        held = [self.lying[part][side][axis].ravel() for part in self.parts[number] if axis in self.lying[part][side]]
        return np.delete(rows, np.flatnonzero(np.isin(rows[0], np.concatenate(held))), axis=1) if held else rows

    def blocks(self, number: int, axes: tuple[Axis, Axis]) -> Iterator[Block]:
        """What corresponds on an axis of each model by the pairs inside the units of one, and where others lie across
        them."""
        for part in self.parts[number]:
            pair = self.pairs[part]
            around = pair.within if pair.grid is None else pair.grid[0]
            if axes[0] in self.lying[part][0] and axes[1] in self.lying[part][1]:
                mine, theirs = (self.own_rows(side, part, axis) for side, axis in enumerate(axes))
                if mine.size and theirs.size:
                    yield Block(part, mine, theirs, around)
            if pair.grid is None:
                yield from self.blocks(part, axes)

    def is_cut_otherwise(self, number: int, axes: tuple[Axis, Axis]) -> bool:
        """Whether on an axis units lie across those of a pair which in the donor lie across others."""
        pair = self.pairs[number]
        return any(
            (axes[0] in one.places and one.first == pair.base)
            != (axes[1] in other.places and other.first == pair.donor)
            for one, other in self.crossing
        )


def flat(places: Positions) -> Positions:
    """Places as units, one row for each."""
    return {axis: own.reshape(-1, own.shape[2]) for axis, own in places.items()}


def shape_of(own: Positions, grids: Sequence[Grid] = (), group: int = -1) -> Shape:
    """How a group lies on its axes, where grids may cut its units into places."""
    cut = {
        axis: places.shape[2]
        for grid in grids
        if group in (grid.first, grid.second)
        for axis, places in grid.places.items()
    }
    return {axis: (rows.shape[-1] if axis not in cut else 0, cut.get(axis, 0)) for axis, rows in own.items()}
