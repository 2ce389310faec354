"""The pairs of groups that the tensors of matched layers induce, and how their axes correspond by them.

An axis is a row of blocks, one per group that lies on it (a concat has several). Producers decide first: the output
axes of two matched layers pair their groups. On an input axis every base group then takes a donor group it is paired
with; groups left over are paired in order where both sides have equally many, or nothing else corresponds.

Units that take other numbers of positions, such as the blocks of two grouped convolutions or the heads of two
attentions, correspond to each other by the groups inside them (see `nested_pairs`); where these cannot be assigned,
what they have in common corresponds in stored order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from mal_graph.matching.axis_pairs import NOWHERE, AxisPair, Block, Index
from mal_graph.matching.moving_groups import insides, members_on, moving_groups, share
from mal_graph.matching.named_positions import Misnamed, in_order_of_names, is_unique, pair_by_names
from mal_graph.matching.nested_pairs import NestedPairs
from mal_graph.matching.nesting import Axis
from mal_graph.matching.tensor_pairs import TensorPair
from mal_graph.network import Parameter
from mal_graph.operators import GroupState
from mal_graph.symmetry import AxisGroups, Member, Names, PositionNames, all_positions


class Refusal(Exception):
    """Two axes that do not correspond to each other; caught where the layer is listed as not merged."""


class GroupPairing:
    """Collects the pairs of groups, tensor by tensor."""

    def __init__(
        self,
        base: AxisGroups,
        donor: AxisGroups,
        tensors: Sequence[TensorPair],
        names: Callable[..., tuple[PositionNames, PositionNames]],
        assume_ordered: bool,
    ) -> None:
        self.base = base
        self.donor = donor
        self.names = names(is_fine=False)
        self.fine_names = cache(partial(names, is_fine=True))  # asked for where the others leave something open
        self.moving = {id(groups): moving_groups(groups) for groups in (base, donor)}
        self.on_axis = {id(groups): cache(partial(self.find_blocks, groups)) for groups in (base, donor)}
        self.nested = NestedPairs(base, donor, [self.moving[id(groups)] for groups in (base, donor)], tensors)
        self.free = {
            id(groups): self.moving[id(groups)] | self.nested.groups_across(side)
            for side, groups in enumerate((base, donor))
        }
        self.assume_ordered = assume_ordered
        self.inside: dict[int, int] = {}  # the donor's of each base group inside paired units

    def induce_by_producers(self, tensor: TensorPair) -> None:
        mine = self.free_blocks(self.base, tensor.base, 0)
        theirs = self.free_blocks(self.donor, tensor.donor, 0)
        if len(mine) == len(theirs):
            for (a, one), (b, other) in zip(mine, theirs, strict=True):
                if self.corresponding_positions((a, one), (b, other)) is not None:
                    self.nested.pair(a, b)

    def free_blocks(self, groups: AxisGroups, parameter: Parameter, place: int) -> list[tuple[int, Member]]:
        return [(g, m) for g, m in self.blocks(groups, parameter, place) if g in self.free[id(groups)]]

    def blocks(self, groups: AxisGroups, parameter: Parameter, place: int) -> tuple[tuple[int, Member], ...]:
        """The groups on a canonical axis, in the order in which they lie on it; of those that share positions the one
        that moves."""
        axis = parameter.axes[place]
        return self.on_axis[id(groups)](parameter.tensor, axis) if axis is not None else ()

    def find_blocks(self, groups: AxisGroups, tensor: str, axis: int) -> tuple[tuple[int, Member], ...]:
        members = groups.on_axis.get((tensor, axis), ())
        moving = self.moving[id(groups)]
        taken = [member.positions for g, member in members if g in moving]
        kept = [(g, m) for g, m in members if g in moving or not any(share(m.positions, other) for other in taken)]
        return tuple(sorted(kept, key=lambda item: int(item[1].positions.min())))

    def beside(self, groups: AxisGroups, parameter: Parameter, place: int) -> list[tuple[int, list[Index]]]:
        """The groups that stay for others that move on some of their positions, and where each of their units lies
        beside these."""
        is_free = np.ones(parameter.shape[place], bool)
        for _, member in self.blocks(groups, parameter, place):
            is_free[member.positions] = False
        beside = []
        for g, member in members_on(groups, parameter, place):
            if is_free[member.positions].any():
                beside.append((g, [row[is_free[row]] for row in member.positions]))
                is_free[member.positions] = False
        return beside

    def pairs_beside(
        self, mine: Sequence[tuple[int, list[Index]]], theirs: Sequence[tuple[int, list[Index]]], called: str
    ) -> Iterator[Block]:
        """Such positions correspond in stored order, unit by unit as far as both have units. Raises Refusal."""
        if len(mine) != len(theirs):
            raise Refusal(f"what lies beside the units on its {called} axis has no counterpart")
        for (a, own), (b, others) in zip(mine, theirs, strict=True):
            if {len(row) for row in own} != {len(row) for row in others} or len({len(row) for row in own}) > 1:
                raise Refusal(f"what lies beside the units on its {called} axis has no counterpart")
            self.inside[a] = b
            both = list(zip(own, others, strict=False))
            yield fixed(*(np.concatenate(side) for side in zip(*both, strict=True)))

    def axes_of(self, tensor: TensorPair) -> tuple[AxisPair, ...]:
        """The pairs of axes of one tensor. Raises Refusal."""
        if len(tensor.base.shape) != len(tensor.donor.shape):
            raise Refusal(f"its shape {tensor.base.shape} has another rank than the donor's {tensor.donor.shape}")
        if tensor.misfit:
            raise Refusal(tensor.misfit)
        return tuple(self.axis_pair(tensor, place) for place in range(len(tensor.base.shape)))

    def axis_pair(self, tensor: TensorPair, place: int) -> AxisPair:
        """How one axis of a tensor corresponds to the donor's. Raises Refusal."""
        mine, theirs = self.blocks(self.base, tensor.base, place), self.blocks(self.donor, tensor.donor, place)
        free = self.free_blocks(self.base, tensor.base, place), self.free_blocks(self.donor, tensor.donor, place)
        called = "input" if tensor.is_weight and place == 1 else "output" if tensor.is_weight else "unit"
        if not any(free):
            return self.fixed_axis_pair(tensor, place, mine, theirs, called)
        self.check_closed(mine, theirs, self.base, called, "base", False)
        self.check_closed(theirs, mine, self.donor, called, "donor", False)
        names = self.names_on(tensor, place)
        axes = axis_of(tensor.base, place), axis_of(tensor.donor, place)
        blocks = [*self.fixed_pairs(mine, theirs, names, called), *self.free_pairs(axes, *free, names, called)]
        blocks += self.pairs_beside(
            self.beside(self.base, tensor.base, place), self.beside(self.donor, tensor.donor, place), called
        )
        return self.with_roles(tensor.base, place, tuple(blocks))

    def names_on(self, tensor: TensorPair, place: int) -> tuple[Names, Names]:
        """The names of the positions of one axis in both models."""
        mine, theirs = names_of(tensor, place, self.names)
        if tensor.is_weight and place >= 2 and not (mine.any() and theirs.any()):
            return np.zeros_like(mine), np.zeros_like(theirs)  # taps that slide over a map of one place have no names
        return mine, theirs

    def fixed_axis_pair(
        self,
        tensor: TensorPair,
        place: int,
        mine: Sequence[tuple[int, Member]],
        theirs: Sequence[tuple[int, Member]],
        called: str,
    ) -> AxisPair:
        """An axis on which no units move corresponds position by position. Raises Refusal."""
        size, other = tensor.base.shape[place], tensor.donor.shape[place]
        self.check_closed(mine, theirs, self.base, called, "base", size == other)
        self.check_closed(theirs, mine, self.donor, called, "donor", size == other)
        if tensor.lead and place >= 2:
            return AxisPair(size, (Block(-1, tensor.lead[place - 2] + all_positions(other), all_positions(other)),))
        names = self.names_on(tensor, place)
        if names[0].any() and np.array_equal(*names) and not is_unique(names[0]):
            names = names_of(tensor, place, self.fine_names())
        try:
            named = pair_by_names(*names, is_table=tensor.base.is_table)
        except Misnamed as reason:
            why = f"{reason}" if size == other else self.other_length(mine, size, other)
            raise Refusal(f"its {called} axis {why}") from None
        if named is not None:
            return replace(self.with_roles(tensor.base, place, (fixed(*named),)), donor_size=other)
        if size == other:
            return AxisPair(size, (Block(-1, all_positions(size), all_positions(size)),))
        common = self.in_stored_order(mine, theirs)
        if common is None:
            raise Refusal(f"its {called} axis {self.other_length(mine, size, other)}")
        return replace(self.with_roles(tensor.base, place, (common,)), donor_size=other)

    def other_length(self, mine: Sequence[tuple[int, Member]], size: int, other: int) -> str:
        return f"is fixed ({why_fixed(mine, self.base)}) and {size} long, the donor's {other}"

    def with_roles(self, parameter: Parameter, place: int, blocks: tuple[Block, ...]) -> AxisPair:
        """The pair of axes, with what its base positions are but counterparts."""
        size = parameter.shape[place]
        lone = np.setdiff1d(np.arange(size), np.concatenate([NOWHERE, *(block.base.ravel() for block in blocks)]))
        statistic, statistic_inside, added, around = [NOWHERE], [NOWHERE], [NOWHERE], [NOWHERE]
        inside = self.nested.groups_inside(0)
        for g, member in members_on(self.base, parameter, place):
            group = self.base.groups[g]
            new = member.positions[group.units - group.added :].ravel()
            if g in self.free[id(self.base)] or g in inside:
                counted = statistic_inside if g in inside else statistic
                counted += [member.positions.ravel()] if group.statistic else []
                added.append(new)
                around += [new] if g not in inside else []
            elif group.is_usable:  # inside a unit, which may be without it
                statistic += [new, np.intersect1d(member.positions, lone)] if group.statistic else []
                added.append(new)
        # What lies in a unit that is new as a whole was never alive.
        old = np.setdiff1d(np.concatenate(statistic_inside), np.concatenate(around))
        return AxisPair(size, blocks, np.concatenate(statistic), old, np.concatenate(added))

    def in_stored_order(self, mine: Sequence[tuple[int, Member]], theirs: Sequence[tuple[int, Member]]) -> Block | None:
        """What two groups inside units have in common, such as the inputs of a filter in all blocks of two grouped
        convolutions; None if an axis holds anything else."""
        if len(mine) != 1 or len(theirs) != 1:
            return None
        (a, member), (b, other) = mine[0], theirs[0]
        own, others = self.base.groups[a], self.donor.groups[b]
        if not own.is_usable or not others.is_usable or member.positions.shape[1] != other.positions.shape[1]:
            return None
        self.inside[a] = b
        common = min(own.units, others.units)
        return fixed(member.positions[:common], other.positions[:common])

    def check_closed(
        self,
        mine: Sequence[tuple[int, Member]],
        others: Sequence[tuple[int, Member]],
        groups: AxisGroups,
        called: str,
        side: str,
        alike: bool,
    ) -> None:
        """Refuse frozen and unverified axes, unless there is but one order, or the user vouches that equal ones are
        ordered alike."""
        for g, member in mine:
            group = groups.groups[g]
            if (
                group.is_usable
                or group.state in (GroupState.PINNED, GroupState.RIGID)
                or (self.assume_ordered and alike)
            ):
                continue
            # A single unit, such as the place of a class token, that stands where the other model's does.
            if group.units > 1 or not any(np.array_equal(member.positions, other.positions) for _, other in others):
                raise Refusal(f"its {called} axis is {group.state} in the {side}: {group.reason}")

    def fixed_pairs(
        self,
        mine: Sequence[tuple[int, Member]],
        theirs: Sequence[tuple[int, Member]],
        names: tuple[Names, Names],
        called: str,
    ) -> Iterable[Block]:
        """Pinned stretches between free ones correspond by the names of their positions, in order where they have
        none."""
        left = [(g, m) for g, m in mine if g not in self.free[id(self.base)]]
        right = [(g, m) for g, m in theirs if g not in self.free[id(self.donor)]]
        sides = [np.concatenate([NOWHERE, *(m.positions.ravel() for _, m in members)]) for members in (left, right)]
        try:
            named = pair_by_names(names[0][sides[0]], names[1][sides[1]]) if all(map(len, sides)) else None
        except Misnamed as reason:
            raise Refusal(f"its {called} axis {reason}") from None
        if named is not None:
            yield fixed(sides[0][named[0]], sides[1][named[1]])
            return
        if [m.positions.shape for _, m in left] != [m.positions.shape for _, m in right]:
            why = why_fixed(left, self.base) if left else why_fixed(right, self.donor)
            raise Refusal(f"its {called} axis is fixed in one model alone ({why})")
        for (_, a), (_, b) in zip(left, right, strict=True):
            yield fixed(a.positions, b.positions)

    def free_pairs(
        self,
        axes: tuple[Axis, Axis],
        mine: Sequence[tuple[int, Member]],
        theirs: Sequence[tuple[int, Member]],
        names: tuple[Names, Names],
        called: str,
    ) -> list[Block]:
        rest = dict(theirs)
        chosen: list[tuple[int, Member, int]] = []
        without: list[tuple[int, Member]] = []
        for a, member in mine:
            partner = next((b for b in self.nested.partners.get(a, ()) if b in rest), None)
            if partner is None:
                without.append((a, member))
                continue
            chosen.append((a, member, partner))
            rest.pop(partner)
        # Layers before it may have other partners, or none: then this layer alone induces the pair.
        if len(without) == len(rest) or not chosen:
            chosen += [(a, m, b) for (a, m), b in zip(without, rest, strict=False)]
        if not chosen:
            raise Refusal(f"none of the units on its {called} axis has a counterpart in the donor layer")
        by_group = dict(theirs)
        blocks = []
        for a, member, b in chosen:
            for block in self.blocks_of(axes, (a, member), (b, by_group[b]), called):
                try:
                    base, donor = in_order_of_names((block.base, block.donor), names)
                except Misnamed as reason:
                    raise Refusal(f"each unit takes several positions of its {called} axis, which {reason}") from None
                blocks.append(replace(block, base=base, donor=donor))
        return blocks

    def blocks_of(
        self, axes: tuple[Axis, Axis], mine: tuple[int, Member], theirs: tuple[int, Member], called: str
    ) -> Iterator[Block]:
        """What corresponds on an axis of each model by one pair of groups, those inside their units and those across
        them. Raises Refusal."""
        number = self.nested.pair(mine[0], theirs[0])
        if self.nested.is_cut_otherwise(number, axes):
            raise Refusal(f"units lie across those of its {called} axis that lie otherwise in the donor")
        yield from self.nested.blocks(number, axes)
        sides = mine[1].positions, theirs[1].positions
        own = [self.nested.own_rows(side, number, axis) for side, axis in enumerate(axes)]
        left = [np.flatnonzero(np.isin(side[0], rows[0])) for side, rows in zip(sides, own, strict=True)]
        if not any(map(len, left)):
            return
        positions = self.corresponding_positions(mine, theirs, left)
        if positions is None:
            raise Refusal(f"each unit takes {len(left[0])} positions of its {called} axis, in the donor {len(left[1])}")
        if positions[0].size:
            yield Block(number, *positions)

    def corresponding_positions(
        self, mine: tuple[int, Member], theirs: tuple[int, Member], left: Sequence[Index] | None = None
    ) -> tuple[Index, Index] | None:
        """The positions of two members that correspond to each other, shape (units, k) each; None if no telling.

        Args:
            left: the columns of each that are looked at, all if left out.
        """
        a, b = mine[1].positions, theirs[1].positions
        looked_at = [range(side.shape[1]) for side in (a, b)] if left is None else [set(side.tolist()) for side in left]
        (inner, own), (others, other) = insides(self.base, *mine), insides(self.donor, *theirs)
        own, other = (
            {key: column for key, column in columns.items() if column in within}
            for columns, within in zip((own, other), looked_at, strict=True)
        )
        places = [{(number, place) for number, _, place in columns} for columns in (own, other)]
        if len(own) < len(looked_at[0]) or len(other) < len(looked_at[1]) or places[0] != places[1]:
            a, b = (columns_of(side, sorted(within)) for side, within in zip((a, b), looked_at, strict=True))
            return (a, b) if a.shape[1] == b.shape[1] else None
        self.inside.update(zip(inner, others, strict=True))
        both = [key for key in own if key in other]
        return columns_of(a, [own[key] for key in both]), columns_of(b, [other[key] for key in both])


def names_of(tensor: TensorPair, place: int, names: tuple[PositionNames, PositionNames]) -> tuple[Names, Names]:
    """What names say of the positions of one axis of a tensor in both models."""
    both = zip(names, (tensor.base, tensor.donor), strict=True)
    mine, theirs = (one.on(p.tensor, p.axes[place], p.shape[place]) for one, p in both)
    return mine, theirs


def why_fixed(members: Sequence[tuple[int, Member]], groups: AxisGroups) -> str:
    if not members:
        return "a single unit"
    return groups.groups[members[0][0]].reason or "it lies inside another group"


def columns_of(positions: Index, chosen: Sequence[int]) -> Index:
    """Columns of an array; itself where these are all of it."""
    return positions if [*chosen] == [*range(positions.shape[1])] else positions[:, [*chosen]]


def fixed(base: Index, donor: Index) -> Block:
    """Positions that correspond one to one."""
    return Block(-1, base.reshape(-1, 1), donor.reshape(-1, 1))


def axis_of(parameter: Parameter, place: int) -> Axis:
    """The stored axis that is at a place of the canonical form, on which groups lie."""
    axis = parameter.axes[place]
    assert axis is not None  # no group lies on an axis that is not stored
    return parameter.tensor, axis
