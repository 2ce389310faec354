"""Which pairs of axis groups the matched layers induce, and how the axes of their tensors correspond to each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mal_graph.boxes import each_box
from mal_graph.brief import Brief
from mal_graph.matching.axis_pairs import AxisPair, GroupPair
from mal_graph.matching.canonical import pair_tensors
from mal_graph.matching.group_pairing import GroupPairing, Refusal
from mal_graph.matching.layer_matching import Match
from mal_graph.matching.nested_orders import Nests
from mal_graph.matching.nested_pairs import Assigned
from mal_graph.matching.signatures import Signatures, batched_inputs, pair_signatures
from mal_graph.matching.tensor_pairs import StoredValues, TensorPair
from mal_graph.matching.unit_kinds import Kinds, find_kinds
from mal_graph.network import IntegerUse, Parameter, integer_use, masks_of_layers
from mal_graph.symmetry import Network, PositionNames


@dataclass(frozen=True, repr=False)
class Correspondence(Brief):
    """What of two networks corresponds to each other, down to the positions on the axes of their tensors.

    Attributes:
        base, donor: the two networks.
        match: their layers' partners.
        pairs: the pairs of groups, in the order in which the base's layers induce them.
        assigned: what each pair assigns in the base and in the donor.
        tensors: the tensors that matched layers have in common, each with one AxisPair per canonical axis of the base's
            parameter.
        refused: why a pair of layers is not merged, by name of the base's layer.
        dropped: tensors of merged layers that could not be merged, with the reason, by name of the base's layer.
        unpaired: what one of two matched layers holds without a counterpart, by name of the base's layer.
        inside: the donor's group, by index of a base group that lies inside paired units.
        masks: the masks of matched layers, as `tensors`.
        is_ordered: whether frozen axes of equal length were taken as ordered alike.
        signatures: which input and output of the donor is which of the base's.
        kinds: by index of a pair what kinds of units there are; only units of one kind correspond.
    """

    base: Network
    donor: Network
    match: Match
    pairs: tuple[GroupPair, ...]
    assigned: tuple[tuple[Assigned, Assigned], ...]
    tensors: tuple[tuple[TensorPair, tuple[AxisPair, ...]], ...]
    refused: Mapping[str, str]
    dropped: Mapping[str, tuple[str, ...]]
    unpaired: Mapping[str, Sequence[str]]
    inside: Mapping[int, int]
    masks: tuple[tuple[TensorPair, tuple[AxisPair, ...]], ...] = ()
    is_ordered: bool = False
    signatures: Signatures = field(default_factory=Signatures)
    kinds: Mapping[int, Kinds] = field(default_factory=dict)

    @cached_property
    def units(self) -> tuple[tuple[int, int], ...]:
        """(base units, donor units) of each pair; inside others those of all of them."""
        return tuple((mine.group.units, theirs.group.units) for mine, theirs in self.assigned)

    @cached_property
    def nests(self) -> Nests:
        """Which pairs lie inside which."""
        return Nests(tuple(one.within for one in self.pairs), self.units, tuple(one.grid for one in self.pairs))

    def without(self, refused: Mapping[str, str]) -> "Correspondence":
        """The same without some layers, by name of the base's and with the reason why they are not merged."""
        kept = [
            tuple((pair, axes) for pair, axes in pairs if pair.layer not in refused)
            for pairs in (self.tensors, self.masks)
        ]
        return replace(self, tensors=kept[0], masks=kept[1], refused={**self.refused, **refused})


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

    tensors, unpaired = pair_tensors(base.graph, donor.graph, match)
    pairing = GroupPairing(base.groups, donor.groups, tensors, names, assume_ordered)
    for tensor in tensors:
        if tensor.is_weight:
            pairing.induce_by_producers(tensor)
    with_axes, refused, dropped = pair_axes(pairing, tensors, match)
    masks, others_masked = pair_masks(pairing, base, donor, match)
    refused = {**others_masked, **refused}
    merged = tuple((tensor, axes) for tensor, axes in with_axes if tensor.layer not in refused)
    return Correspondence(
        base,
        donor,
        match,
        tuple(pairing.nested.pairs),
        pairing.nested.assigned(),
        merged,
        refused,
        dropped,
        unpaired,
        {**pairing.inside, **pairing.nested.held()},
        tuple((mask, axes) for mask, axes in masks if mask.layer not in refused),
        assume_ordered,
        signatures,
        find_kinds(merged),
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
            reads = StoredValues(base.graph, a), StoredValues(donor.graph, b)
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
        parts = read.in_any_order() if isinstance(read, StoredValues) else each_box(read, parameter.shape)
        if not all(np.isfinite(values).all() for values in parts):
            raise Refusal(f"{parameter.role} {parameter.tensor} of the {side} holds NaN or infinity")
