"""Which pairs of axis groups the matched layers induce, and how the axes of their tensors correspond to each other.

An axis is a row of blocks, one per group that lies on it (a concat has several). Producers decide first: the output
axes of two matched layers pair their groups. On an input axis every base group then takes a donor group it is paired
with; groups left over are paired in order where both sides have equally many, or nothing else corresponds.

Units that take other numbers of positions, such as the blocks of two grouped convolutions or the heads of two
attentions, correspond to each other by the groups inside them: what these have in common corresponds in stored order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np

from mal_graph.brief import Brief
from mal_graph.matching.axis_pairs import NOWHERE, AxisPair, Block, GroupPair, Index
from mal_graph.matching.canonical import pair_tensors
from mal_graph.matching.layer_matching import Match
from mal_graph.matching.moving_groups import insides, members_on, moving_groups, share
from mal_graph.matching.named_positions import Misnamed, in_order_of_names, is_unique, pair_by_names
from mal_graph.matching.signatures import Signatures, batched_inputs, pair_signatures
from mal_graph.matching.tensor_pairs import TensorPair, read_values
from mal_graph.network import IntegerUse, Parameter, integer_use, masks_of_layers
from mal_graph.operators import GroupState
from mal_graph.symmetry import AxisGroups, Member, Names, Network, PositionNames


@dataclass(frozen=True, repr=False)
class Correspondence(Brief):
    """What of two networks corresponds to each other, down to the positions on the axes of their tensors.

    Attributes:
        base, donor: the two networks.
        match: their layers' partners.
        pairs: the pairs of groups, in the order in which the base's layers induce them.
        units: (base units, donor units) of each pair.
        tensors: the tensors that matched layers have in common, each with one AxisPair per canonical axis of the base's
            parameter.
        refused: why a pair of layers is not merged, by name of the base's layer.
        dropped: tensors of merged layers that could not be merged, with the reason, by name of the base's layer.
        unpaired: what one of two matched layers holds without a counterpart, by name of the base's layer.
        inside: the donor's group, by index of a base group that lies inside paired units.
        masks: the masks of matched layers, as `tensors`.
        is_ordered: whether frozen axes of equal length were taken as ordered alike.
        signatures: which input and output of the donor is which of the base's.
    """

    base: Network
    donor: Network
    match: Match
    pairs: tuple[GroupPair, ...]
    units: tuple[tuple[int, int], ...]
    tensors: tuple[tuple[TensorPair, tuple[AxisPair, ...]], ...]
    refused: Mapping[str, str]
    dropped: Mapping[str, tuple[str, ...]]
    unpaired: Mapping[str, Sequence[str]]
    inside: Mapping[int, int]
    masks: tuple[tuple[TensorPair, tuple[AxisPair, ...]], ...] = ()
    is_ordered: bool = False
    signatures: Signatures = field(default_factory=Signatures)

    def without(self, refused: Mapping[str, str]) -> "Correspondence":
        """The same without some layers, by name of the base's and with the reason why they are not merged."""
        kept = [
            tuple((pair, axes) for pair, axes in pairs if pair.layer not in refused)
            for pairs in (self.tensors, self.masks)
        ]
        return replace(self, tensors=kept[0], masks=kept[1], refused={**self.refused, **refused})


class Refusal(Exception):
    """Two axes that do not correspond to each other; caught where the layer is listed as not merged."""


def correspond(
    base: Network,
    donor: Network,
    match: Match,
    *,
    assume_ordered: bool = False,
    pair: Iterable[tuple[str, str]] = (),
) -> Correspondence:
    """Pair the groups of two networks along the tensors of their matched layers.

    Args:
        base, donor: the networks; groups that are not verified are used only while they are candidates.
        match: the layers that correspond to each other.
        assume_ordered: take frozen axes of equal length as ordered alike, as in models with a common ancestor.
        pair: inputs and outputs of the base, each with the donor's, by name.

    Raises:
        MatchError: the inputs or outputs cannot be paired.
        UsageError: `pair` names what is not there.
    """
    signatures = pair_signatures(base.graph, donor.graph, pair)
    batched = batched_inputs(base.graph, donor.graph, signatures.inputs)
    donor_batched = [signatures.inputs[name] for name in batched]

    def names(*, is_fine: bool) -> tuple[PositionNames, PositionNames]:
        return (
            base.position_names(batched=batched, is_fine=is_fine),
            donor.position_names(signatures.called, donor_batched, is_fine=is_fine),
        )

    pairing = GroupPairing(base.groups, donor.groups, names, assume_ordered)
    tensors, unpaired = pair_tensors(base.graph, donor.graph, match)
    for tensor in tensors:
        if tensor.is_weight:
            pairing.induce_by_producers(tensor)
    with_axes, refused, dropped = pair_axes(pairing, tensors, match)
    masks, others_masked = pair_masks(pairing, base, donor, match)
    refused = {**others_masked, **refused}
    groups, others = base.groups.groups, donor.groups.groups
    return Correspondence(
        base,
        donor,
        match,
        tuple(pairing.pairs),
        tuple((groups[pair.base].units, others[pair.donor].units) for pair in pairing.pairs),
        tuple((tensor, axes) for tensor, axes in with_axes if tensor.layer not in refused),
        refused,
        dropped,
        unpaired,
        pairing.inside,
        tuple((mask, axes) for mask, axes in masks if mask.layer not in refused),
        assume_ordered,
        signatures,
    )


def pair_axes(
    pairing: "GroupPairing", tensors: Sequence[TensorPair], match: Match
) -> tuple[list[tuple[TensorPair, tuple[AxisPair, ...]]], dict[str, str], dict[str, tuple[str, ...]]]:
    """The tensors with their pairs of axes; why a layer is not merged, and which tensors of merged ones are not, by
    name of the base's layer."""
    with_axes: list[tuple[TensorPair, tuple[AxisPair, ...]]] = []
    refused: dict[str, str] = {}
    dropped: dict[str, tuple[str, ...]] = {}
    with_weight = {tensor.layer for tensor in tensors if tensor.is_weight}
    for tensor in tensors:
        if tensor.layer in refused:
            continue
        try:
            check_finite(tensor)
            with_axes.append((tensor, pairing.axes_of(tensor)))
        except Refusal as refusal:
            reason = "; ".join(filter(None, (str(refusal), tie_conflict(match, tensor, {}))))
            if tensor.is_weight or tensor.layer not in with_weight:
                refused[tensor.layer] = reason
            else:
                line = f"{tensor.base.role} {tensor.base.tensor}: {reason}"
                dropped[tensor.layer] = (*dropped.get(tensor.layer, ()), line)
    return with_axes, refused, dropped


def tie_conflict(match: Match, pair: TensorPair, skipped: Mapping[str, str]) -> str:
    """Why a shared tensor keeps the base's values: "" if all that read it correspond to those of one donor tensor."""
    consumers = [layer.name for layer in match.base if pair.base.tensor in layer.tied]
    partner = {layers.base.name: layers.donor for layers in match.pairs if layers.base.name not in skipped}
    for name in consumers:
        if name not in partner:
            return f"it is shared with layer {name}, which is not merged"
        theirs = partner[name]
        if pair.donor.tensor not in (*theirs.tied, *(p.tensor for p in theirs.parameters)):
            return f"it is shared with layer {name}, whose partner {theirs.name} has a tensor of its own"
    return ""


def pair_masks(
    pairing: "GroupPairing", base: Network, donor: Network, match: Match
) -> tuple[list[tuple[TensorPair, tuple[AxisPair, ...]]], dict[str, str]]:
    """The masks of matched layers, and why a layer is not merged for them, by name of the base's layer."""
    mine = masks_of_layers(base.graph, match.base)
    theirs = masks_of_layers(donor.graph, [pair.donor for pair in match.pairs])
    masks: list[tuple[TensorPair, tuple[AxisPair, ...]]] = []
    refused: dict[str, str] = {}
    for layers in match.pairs:
        own = [mask for mask in mine.get(layers.base.name, ()) if matters(base, mask)]
        others = [mask for mask in theirs.get(layers.donor.name, ()) if matters(donor, mask)]
        if len(own) != len(others):
            refused[layers.base.name] = f"it has {len(own)} stored masks, the donor's {len(others)}"
            continue
        for a, b in zip(own, others, strict=True):
            reads = partial(read_values, base.graph, a), partial(read_values, donor.graph, b)
            pair = TensorPair(layers, a, b, *reads)
            try:
                masks.append((pair, pairing.axes_of(pair)))
            except Refusal as reason:
                refused[layers.base.name] = f"mask {a.tensor}: {reason}"
    return masks, refused


def matters(network: Network, mask: Parameter) -> bool:
    """Whether a mask belongs to a weight or to units; one of places alone is a setting."""
    if integer_use(network.graph, network.graph.weights[mask.tensor]) is IntegerUse.MASK:
        return True
    groups = [
        g for axis in mask.axes if axis is not None for g, _ in network.groups.on_axis.get((mask.tensor, axis), ())
    ]
    return any(network.groups.groups[g].is_usable for g in groups)


def check_finite(tensor: TensorPair) -> None:
    """Refuse what no score or distance can be computed of."""
    for side, parameter, read in (
        ("base", tensor.base, tensor.base_values),
        ("donor", tensor.donor, tensor.donor_values),
    ):
        if not np.isfinite(read()).all():
            raise Refusal(f"{parameter.role} {parameter.tensor} of the {side} holds NaN or infinity")


class GroupPairing:
    """Collects the pairs of groups, tensor by tensor."""

    def __init__(
        self,
        base: AxisGroups,
        donor: AxisGroups,
        names: Callable[..., tuple[PositionNames, PositionNames]],
        assume_ordered: bool,
    ) -> None:
        self.base = base
        self.donor = donor
        self.names = names(is_fine=False)
        self.fine_names = cache(partial(names, is_fine=True))  # asked for where the others leave something open
        self.moving = {id(groups): moving_groups(groups) for groups in (base, donor)}
        self.assume_ordered = assume_ordered
        self.pairs: list[GroupPair] = []
        self.number: dict[tuple[int, int], int] = {}
        self.partners: dict[int, list[int]] = {}  # donor groups of each base group
        self.inside: dict[int, int] = {}  # the donor's of each base group inside paired units

    def pair(self, a: int, b: int) -> int:
        """The index of a pair of groups, new or known."""
        if (a, b) not in self.number:
            self.number[a, b] = len(self.pairs)
            self.pairs.append(GroupPair(a, b))
            self.partners.setdefault(a, []).append(b)
        return self.number[a, b]

    def induce_by_producers(self, tensor: TensorPair) -> None:
        mine = self.free_blocks(self.base, tensor.base, 0)
        theirs = self.free_blocks(self.donor, tensor.donor, 0)
        if len(mine) == len(theirs):
            for (a, one), (b, other) in zip(mine, theirs, strict=True):
                if self.corresponding_positions((a, one), (b, other)) is not None:
                    self.pair(a, b)

    def free_blocks(self, groups: AxisGroups, parameter: Parameter, place: int) -> list[tuple[int, Member]]:
        return [(g, m) for g, m in self.blocks(groups, parameter, place) if g in self.moving[id(groups)]]

    def blocks(self, groups: AxisGroups, parameter: Parameter, place: int) -> tuple[tuple[int, Member], ...]:
        """The groups on a canonical axis, in the order in which they lie on it; of those that share positions the one
        that moves."""
        members = members_on(groups, parameter, place)
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
            yield Block(-1, *(np.concatenate(side).reshape(-1, 1) for side in zip(*both, strict=True)))

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
        blocks = [*self.fixed_pairs(mine, theirs, names, called), *self.free_pairs(*free, names, called)]
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
            return AxisPair(size, (Block(-1, tensor.lead[place - 2] + column(other), column(other)),))
        names = self.names_on(tensor, place)
        if names[0].any() and np.array_equal(*names) and not is_unique(names[0]):
            names = names_of(tensor, place, self.fine_names())
        try:
            named = pair_by_names(*names, is_table=tensor.base.is_table)
        except Misnamed as reason:
            why = f"{reason}" if size == other else self.other_length(mine, size, other)
            raise Refusal(f"its {called} axis {why}") from None
        if named is not None:
            block = Block(-1, *(side.reshape(-1, 1) for side in named))
            return replace(self.with_roles(tensor.base, place, (block,)), donor_size=other)
        if size == other:
            return AxisPair(size, (Block(-1, column(size), column(size)),))
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
        statistic, added = [NOWHERE], [NOWHERE]
        for g, member in members_on(self.base, parameter, place):
            group = self.base.groups[g]
            new = member.positions[group.units - group.added :].ravel()
            if g in self.moving[id(self.base)]:
                statistic += [member.positions.ravel()] if group.statistic else []
                added.append(new)
            elif group.is_usable:  # inside a unit, which may be without it
                statistic += [new, np.intersect1d(member.positions, lone)] if group.statistic else []
                added.append(new)
        return AxisPair(size, blocks, np.concatenate(statistic), np.concatenate(added))

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
        return Block(-1, member.positions[:common].reshape(-1, 1), other.positions[:common].reshape(-1, 1))

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
        left = [(g, m) for g, m in mine if g not in self.moving[id(self.base)]]
        right = [(g, m) for g, m in theirs if g not in self.moving[id(self.donor)]]
        sides = [np.concatenate([NOWHERE, *(m.positions.ravel() for _, m in members)]) for members in (left, right)]
        try:
            named = pair_by_names(names[0][sides[0]], names[1][sides[1]]) if all(map(len, sides)) else None
        except Misnamed as reason:
            raise Refusal(f"its {called} axis {reason}") from None
        if named is not None:
            yield Block(-1, *(side[rows].reshape(-1, 1) for side, rows in zip(sides, named, strict=True)))
            return
        if [m.positions.shape for _, m in left] != [m.positions.shape for _, m in right]:
            why = why_fixed(left, self.base) if left else why_fixed(right, self.donor)
            raise Refusal(f"its {called} axis is fixed in one model alone ({why})")
        for (_, a), (_, b) in zip(left, right, strict=True):
            yield Block(-1, a.positions.reshape(-1, 1), b.positions.reshape(-1, 1))

    def free_pairs(
        self,
        mine: Sequence[tuple[int, Member]],
        theirs: Sequence[tuple[int, Member]],
        names: tuple[Names, Names],
        called: str,
    ) -> list[Block]:
        rest = dict(theirs)
        chosen: list[tuple[int, Member, int]] = []
        without: list[tuple[int, Member]] = []
        for a, member in mine:
            partner = next((b for b in self.partners.get(a, ()) if b in rest), None)
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
            positions = self.corresponding_positions((a, member), (b, by_group[b]))
            if positions is None:
                k, other = member.positions.shape[1], by_group[b].positions.shape[1]
                raise Refusal(f"each unit takes {k} positions of its {called} axis, in the donor {other}")
            try:
                ordered = in_order_of_names(positions, names)
            except Misnamed as reason:
                raise Refusal(f"each unit takes several positions of its {called} axis, which {reason}") from None
            blocks.append(Block(self.pair(a, b), *ordered))
        return blocks

    def corresponding_positions(
        self, mine: tuple[int, Member], theirs: tuple[int, Member]
    ) -> tuple[Index, Index] | None:
        """The positions of two members that correspond to each other, shape (units, k) each; None if no telling."""
        a, b = mine[1].positions, theirs[1].positions
        (inner, own), (others, other) = insides(self.base, *mine), insides(self.donor, *theirs)
        places = [{(number, place) for number, _, place in columns} for columns in (own, other)]
        if len(own) < a.shape[1] or len(other) < b.shape[1] or places[0] != places[1]:
            return (a, b) if a.shape[1] == b.shape[1] else None
        self.inside.update(zip(inner, others, strict=True))
        both = [key for key in own if key in other]
        return a[:, [own[key] for key in both]], b[:, [other[key] for key in both]]


def names_of(tensor: TensorPair, place: int, names: tuple[PositionNames, PositionNames]) -> tuple[Names, Names]:
    """What names say of the positions of one axis of a tensor in both models."""
    both = zip(names, (tensor.base, tensor.donor), strict=True)
    mine, theirs = (one.on(p.tensor, p.axes[place], p.shape[place]) for one, p in both)
    return mine, theirs


def why_fixed(members: Sequence[tuple[int, Member]], groups: AxisGroups) -> str:
    if not members:
        return "a single unit"
    return groups.groups[members[0][0]].reason or "it lies inside another group"


def column(size: int) -> Index:
    return np.arange(size).reshape(-1, 1)
