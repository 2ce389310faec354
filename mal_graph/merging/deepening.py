"""Depth: layers in the base, which leave its function as it is, where the donor has some without a partner.

A residual block of the donor's comes to stand beside the base's stream, its branch ending in zeros (see
`residual_blocks`). Where matching has taken layers of several such blocks for those of one, they are given to one of
them first, so that whole blocks are left. Of the donor's tensors in a branch those that do not end it are taken as they
are: nothing else could be merged with them, and what they make reaches the stream through the end, which goes with
lambda.

An identity layer stands behind an activation f that does nothing the second time, f(f(x)) = f(x), as ReLU and Clip do:
a contraction with the identity as its weight, then the same activation again. What follows another activation (GELU,
tanh) has no such layer, for it would change the function; the donor's layer is then left, and listed with the reason.

Chosen: layers and blocks one after the other, where the donor has them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mal_graph.brief import Brief
from mal_graph.errors import MatchError
from mal_graph.graph import Array, LayerGraph, Node, unused_name, weight_of
from mal_graph.matching import Match, by_role, find_foldable_norm, find_layer_edges, match_layers
from mal_graph.merging.residual_blocks import Block, NoPlace, find_blocks, with_block
from mal_graph.network import Layer, find_layers
from mal_graph.operators import Misfit, Span, bias_slot, groups_of, row_of, spans_of
from mal_graph.symmetry import Network


@dataclass(frozen=True, repr=False)
class Deepened(Brief):
    """A base with more layers.

    Attributes:
        base: the graph.
        match: its layers' partners, the new ones paired; what could not be placed is listed with the reason.
        added: names of the new layers.
        given: stored tensors of new layers that are the donor's whatever lambda.
    """

    base: LayerGraph
    match: Match
    added: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()


def deepen(base: LayerGraph, donor: Network, match: Match, *, is_fixed: bool = False) -> Deepened:
    """Give the base a layer for each layer of the donor without a partner, wherever it computes the same.

    Args:
        match: of the two, as they are.
        is_fixed: leave the partners as they are.
    """
    blocks = find_blocks(donor.graph, match.donor)
    match = match if is_fixed else free_whole_blocks(base, donor.graph, match, blocks)
    made = Deepening(base, {pair.donor.name: pair.base.name for pair in match.pairs})
    made.add_blocks(donor, blocks)
    made.add_identities(donor.graph, match)
    left = {name: match.unmatched_donor[name] for name in made.reasons if name not in made.partner}
    said = {
        name: f"{why}; nothing that leaves the base as it is can stand for it: {made.reasons[name]}"
        for name, why in left.items()
    }
    if made.added:
        rematched = match_layers(made.base, donor.graph, [(mine, other) for other, mine in made.partner.items()])
        match = replace(rematched, unmatched_base=match.unmatched_base)
    match = replace(match, unmatched_donor=said)
    return Deepened(made.base, match, tuple(made.added.values()), frozenset(made.given))


@dataclass
class Deepening:
    """A base while it is given layers.

    Attributes:
        base: the graph so far.
        partner: names of the base's layers by those of the donor's.
        added: those of them that are new.
        given: stored tensors of new layers that are the donor's whatever lambda.
        reasons: why nothing can stand for a layer of the donor, by its name.
    """

    base: LayerGraph
    partner: dict[str, str]
    added: dict[str, str] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)

    def add_blocks(self, donor: Network, blocks: Sequence[Block]) -> None:
        """Every residual block of which no layer has a partner."""
        for block in [block for block in blocks if not self.partner.keys() & set(block.layers)]:
            try:
                self.base, names, inside = with_block(self.base, donor, blocks, block, self.partner)
            except NoPlace as reason:
                self.reasons.update(dict.fromkeys(block.layers, str(reason)))
                continue
            self.added |= names
            self.partner |= names
            self.given |= inside

    def add_identities(self, donor: LayerGraph, match: Match) -> None:
        """A layer that passes on what it takes, for every other layer without a partner."""
        theirs = {layer.name: layer for layer in match.donor}
        before: dict[str, list[str]] = {}
        for source, target in find_layer_edges(donor, match.donor):
            before.setdefault(target, []).append(source)
        for lone in match.unmatched_donor:
            if lone in self.partner:
                continue
            try:
                after = place_of(before.get(lone, []), self.partner)
                self.base, name = with_identity(self.base, donor, theirs[lone], after)
            except NoPlace as reason:
                self.reasons.setdefault(lone, str(reason))
                continue
            self.partner[lone] = self.added[lone] = name


def free_whole_blocks(base: LayerGraph, donor: LayerGraph, match: Match, blocks: Collection[Block]) -> Match:
    """The match with as many pairs, in which the layers of residual blocks have partners together, or have none."""
    without: set[str] = set()
    reasons = match.unmatched_donor
    for block in blocks:
        alone = match.unmatched_donor.keys() & set(block.layers)
        if not alone:
            continue
        if len(alone) < len(block.layers):
            try:
                other = match_layers(base, donor, without={*without, *block.layers})
            except MatchError:  # nothing else corresponds
                continue
            if len(other.pairs) < len(match.pairs):
                continue
            match = other
        without |= set(block.layers)
    lone = [layer.name for layer in match.donor if layer.name in without]
    said = {name: reasons.get(name, "its residual block corresponds to none of the base's") for name in lone}
    return replace(match, unmatched_donor={**match.unmatched_donor, **said})


def place_of(before: list[str], partner: dict[str, str]) -> str:
    """The base's layer that an identity layer has to follow. Raises NoPlace."""
    if len(before) != 1:
        raise NoPlace("it follows the input" if not before else f"it follows {len(before)} layers")
    if before[0] not in partner:
        raise NoPlace("the layer before it has no partner either")
    return partner[before[0]]


def with_identity(base: LayerGraph, donor: LayerGraph, layer: Layer, after: str) -> tuple[LayerGraph, str]:
    """The base with an identity layer in the form of the donor's behind one of its own, and its name.

    Raises NoPlace.
    """
    before = next(own for own in find_layers(base) if own.name == after)
    if layer.weight is None or before.weight is None or layer.kind != before.kind:
        raise NoPlace(f"it is of kind {layer.kind}, and follows {after} of kind {before.kind}")
    contraction, index = base.nodes[before.weight.node], last_activation(base, before)
    row, activation = row_of(contraction), base.nodes[index]
    if row is None or not row.is_linear or before.weight.slot != 1:
        raise NoPlace(f"layer {after} does not multiply what it is given by its weight alone")
    source, units = activation.outputs[0], before.weight.shape[0]
    if source in base.output_names:
        raise NoPlace(f"what layer {after} gives is an output of the model")
    attributes, values = identity(donor, layer, units)
    axes = row.weight_axes(1, replace(contraction, attributes=attributes), values.ndim)
    dtype = base.weights[before.weight.tensor].dtype
    name = unused_name(base, f"{source}.identity")
    stored = [weight_of(f"{name}.weight", (values.swapaxes(0, 1) if axes == (1, 0) else values).astype(dtype))]
    node = Node(name, contraction.op, (source, stored[0].name), (f"{name}.contracted",), attributes)
    slot = bias_slot(node)
    if slot is not None and has_bias(donor, layer):
        stored.append(weight_of(f"{name}.bias", np.zeros(units, dtype)))
        node = node.with_input(slot, stored[1].name)
    again = replace(
        activation,
        name=f"{name}.activation",
        inputs=(node.outputs[0], *activation.inputs[1:]),
        outputs=(f"{name}.output",),
    )
    return base.with_nodes_behind(index, [node, again], stored), name


def has_bias(graph: LayerGraph, layer: Layer) -> bool:
    return "bias" in by_role(layer) or find_foldable_norm(graph, layer) is not None


def last_activation(graph: LayerGraph, layer: Layer) -> int:
    """The last activation that does nothing the second time and that all of a layer's signal passes, its units where
    the contraction put them. Raises NoPlace."""
    last, met = None, []
    for place, index in enumerate(layer.nodes[1:], 1):
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        if row is None or not row.keeps_axes:
            break
        inside = layer.nodes[: place + 1]
        given = [out for before in inside[:-1] for out in graph.nodes[before].outputs]
        consumers = {i for out in given for i, _ in graph.consumers.get(out, ())}
        met.append(node.op)
        if row.is_idempotent and consumers <= set(inside):
            last = index
    if last is None:
        raise NoPlace(
            f"layer {layer.name} has no activation that does nothing the second time (found {', '.join(met) or 'none'})"
        )
    return last


def identity(donor: LayerGraph, layer: Layer, units: int) -> tuple[dict[str, object], Array]:
    """Attributes and canonical weight of a contraction in the form of the donor's that gives what it takes.

    Raises NoPlace.
    """
    assert layer.weight is not None  # told by the kind
    taps, node = layer.weight.shape[2:], donor.nodes[layer.weight.node]
    if not taps:
        return {}, np.eye(units)
    spans = same_size_spans(node, taps)
    is_depthwise = groups_of(node) > 1
    if is_depthwise and layer.weight.shape[1] > 1:
        raise NoPlace("it is a grouped convolution")
    values = np.zeros((units, 1 if is_depthwise else units, *taps))
    centre = tuple(span.before // (span.dilation or 1) for span in spans)
    at_centre = np.moveaxis(values, (0, 1), (-2, -1))[centre]
    at_centre[:] = 1.0 if is_depthwise else np.eye(units)
    attributes = {
        "kernel_shape": tuple(taps),
        "pads": (*(span.before for span in spans), *(span.after for span in spans)),
        "dilations": tuple(span.dilation or 1 for span in spans),
        "strides": (1,) * len(taps),
        "group": units if is_depthwise else 1,
    }
    return attributes, values


def same_size_spans(node: Node, taps: Sequence[int]) -> Sequence[Span]:
    """Where a window stands that gives a map of the size that it takes. Raises NoPlace."""
    try:
        spans = spans_of(node, taps)
    except Misfit as reason:
        raise NoPlace(str(reason)) from None
    for span in spans:
        step = span.dilation or 1
        if span.stride != 1 or span.before + span.after != step * (span.taps - 1) or span.before % step:
            raise NoPlace("its window does not give a map of the size that it takes")
    return spans
