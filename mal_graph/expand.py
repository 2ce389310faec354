"""Depth: identity layers in the base where the donor has layers that answer to none of its own.

An identity layer stands behind an activation f that does nothing the second time, f(f(x)) = f(x), as ReLU and Clip do:
a contraction with the identity as its weight, then the same activation again. The base's function does not change, and
the donor's layer has a partner with weights to be merged into. What follows another activation (GELU, tanh) has no such
layer, for it would change the function; the donor's layer is then left, and listed with the reason.

Chosen: layers one after the other, where the donor's layer stands. Refused: a branch of zeros beside a skip connection,
which would copy the donor's wiring into the base.
"""

from dataclasses import replace

import numpy as np

from mal_graph.forms import by_role, foldable_norm
from mal_graph.graph import Array, LayerGraph, Node, unused_name, weight_of
from mal_graph.layers import Layer, layers
from mal_graph.match import Match, layer_edges, match_layers
from mal_graph.ops import bias_slot, row_of, weight_axes
from mal_graph.windows import Misfit, spans_of


class NoPlace(Exception):
    """Why no identity layer can stand for a donor's; caught where the layer is listed as not used."""


def expanded(base: LayerGraph, donor: LayerGraph, match: Match) -> tuple[LayerGraph, Match, tuple[str, ...]]:
    """The base with an identity layer for each layer of the donor without a partner, wherever it computes the same.

    Returns:
        the graph, the match with these layers paired, and their names. What could not be placed is listed in the match
        with the reason.
    """
    partner = {pair.donor: match.base[pair.base].name for pair in match.pairs}
    before: dict[int, list[int]] = {}
    for source, target in layer_edges(donor, match.donor):
        before.setdefault(target, []).append(source)
    reasons: dict[int, str] = {}
    made: list[str] = []
    for j in match.unmatched_donor:
        try:
            base, partner[j] = with_identity(base, donor, match.donor[j], place_of(before.get(j, []), partner))
            made.append(partner[j])
        except NoPlace as reason:
            reasons[j] = f"{match.unmatched_donor[j]}; no identity layer can stand for it: {reason}"
    if made:
        found = match_layers(base, donor, [(name, match.donor[j].name) for j, name in partner.items()])
        match = replace(found, unmatched_base=match_reasons(found, match))
    return base, replace(match, unmatched_donor=reasons), tuple(made)


def match_reasons(found: Match, match: Match) -> dict[int, str]:
    """Why layers of the base have no partner, as the match before said it, under their new numbers."""
    index = {layer.name: i for i, layer in enumerate(found.base)}
    return {index[match.base[i].name]: why for i, why in match.unmatched_base.items()}


def place_of(before: list[int], partner: dict[int, str]) -> str:
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
    found = next(own for own in layers(base) if own.name == after)
    if layer.weight is None or found.weight is None or layer.kind != found.kind:
        raise NoPlace(f"it is of kind {layer.kind}, and follows {after} of kind {found.kind}")
    contraction, index = base.nodes[found.weight.node], last_activation(base, found)
    row, activation = row_of(contraction), base.nodes[index]
    if row is None or not row.is_linear or found.weight.slot != 1:
        raise NoPlace(f"layer {after} does not multiply what it is given by its weight alone")
    source, units = activation.outputs[0], found.weight.shape[0]
    if source in base.output_names:
        raise NoPlace(f"what layer {after} gives is an output of the model")
    attributes, values = identity(donor, layer, units)
    axes = weight_axes(row, 1, replace(contraction, attributes=attributes), values.ndim)
    dtype = base.weights[found.weight.tensor].dtype
    name = unused_name(base, f"{source}.identity")
    stored = [weight_of(f"{name}.weight", (values.swapaxes(0, 1) if axes == (1, 0) else values).astype(dtype))]
    node = Node(name, contraction.op, (source, stored[0].name), (f"{name}.contracted",), attributes)
    slot = bias_slot(node)
    if slot is not None and has_bias(donor, layer):
        stored.append(weight_of(f"{name}.bias", np.zeros(units, dtype)))
        node = replace(node, inputs=(*node.inputs, *[""] * (slot - 2), stored[1].name))
    again = replace(
        activation,
        name=f"{name}.activation",
        inputs=(node.outputs[0], *activation.inputs[1:]),
        outputs=(f"{name}.output",),
    )
    return base.with_nodes_behind(index, [node, again], stored), name


def has_bias(graph: LayerGraph, layer: Layer) -> bool:
    return "bias" in by_role(layer) or foldable_norm(graph, layer) is not None


def last_activation(graph: LayerGraph, layer: Layer) -> int:
    """The last activation that does nothing the second time and that all of a layer's signal passes, its units where
    the contraction put them. Raises NoPlace."""
    found, met = None, []
    for place, index in enumerate(layer.nodes[1:], 1):
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        if row is None or not row.keeps_axes:
            break
        inside = layer.nodes[: place + 1]
        readers = {i for before in inside[:-1] for out in graph.nodes[before].outputs for i, _ in graph.consumers[out]}
        met.append(node.op)
        if row.is_idempotent and readers <= set(inside):
            found = index
    if found is None:
        raise NoPlace(
            f"layer {layer.name} has no activation that does nothing the second time (found {', '.join(met) or 'none'})"
        )
    return found


def identity(donor: LayerGraph, layer: Layer, units: int) -> tuple[dict[str, object], Array]:
    """Attributes and canonical weight of a contraction in the form of the donor's that gives what it takes.

    Raises NoPlace.
    """
    assert layer.weight is not None  # told by the kind
    taps, node = layer.weight.shape[2:], donor.nodes[layer.weight.node]
    if not taps:
        return {}, np.eye(units)
    try:
        spans = spans_of(node, taps)
    except Misfit as reason:
        raise NoPlace(str(reason)) from None
    steps = [span.dilation or 1 for span in spans]
    for span, step in zip(spans, steps, strict=True):
        if span.stride != 1 or span.before + span.after != step * (span.taps - 1) or span.before % step:
            raise NoPlace("its window does not give a map of the size that it takes")
    groups = node.attribute("group", 1)
    if groups > 1 and layer.weight.shape[1] > 1:
        raise NoPlace("it is a grouped convolution")
    values = np.zeros((units, units if groups == 1 else 1, *taps))
    centre = [span.before // step for span, step in zip(spans, steps, strict=True)]
    at_centre = np.moveaxis(values, (0, 1), (-2, -1))[tuple(centre)]
    at_centre[:] = np.eye(units) if groups == 1 else 1.0
    pads = (*(span.before for span in spans), *(span.after for span in spans))
    attributes = {
        "kernel_shape": tuple(taps),
        "pads": pads,
        "dilations": tuple(steps),
        "strides": (1,) * len(taps),
        "group": 1 if groups == 1 else units,
    }
    return attributes, values
