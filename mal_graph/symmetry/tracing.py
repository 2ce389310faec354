"""Tracing: a network run on axis labels, which tells what ties the axes of its weights."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph, Node, Weight, bodies_of
from mal_graph.network import (
    IntegerUse,
    Parameter,
    Probe,
    Unlearned,
    axes_that_stay,
    find_unlearned,
    integer_use,
    passing_bodies,
)
from mal_graph.operators import (
    ROWS,
    Call,
    GroupState,
    Label,
    Pin,
    Row,
    Statistic,
    Wiring,
    explain_missing,
    pinned_label,
    row_of,
)
from mal_graph.symmetry.arrangements import Arrangement, traced_back
from mal_graph.symmetry.choices import settle_choices
from mal_graph.symmetry.interchangeable import Owner
from mal_graph.symmetry.links import Ints

UNREAD = Pin(GroupState.PINNED, "nothing reads it at the sizes of the probe run")
Axis = tuple[str, int]  # a stored tensor and its axis


@dataclass(frozen=True)
class Tracing:
    """A network run on labels.

    Attributes:
        wiring: what ties the atoms.
        labels: by tensor.
        owners: the axes of weights that are in use, with their atoms.
        unknown: the names of the nodes without a row, by operator.
        told: the tensors that are outputs of the model, or become one by being moved or cast.
        bodies: the body that each node stands in.
        passing: the branches that pass on what all branches of the same If do.
    """

    wiring: Wiring = field(default_factory=Wiring)
    labels: dict[str, Label] = field(default_factory=dict)
    owners: list[Owner] = field(default_factory=list)
    unknown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    told: frozenset[str] = frozenset()
    bodies: Sequence[str] = ()
    passing: frozenset[str] = frozenset()


def trace_labels(
    graph: LayerGraph,
    probed: Probe,
    parameters: Collection[Parameter],
    axes: Collection[Axis],
    table: Mapping[str, Row] | None = None,
) -> Tracing:
    """Run a graph on labels.

    Args:
        parameters: every application of a weight.
        axes: the axes of weights that are in use.
    """
    tracing = replace(new_tracing(graph, Wiring()), told=told_tensors(graph, table))
    table = ROWS if table is None else table
    weighted = {parameter.node for parameter in parameters if parameter.is_weight}
    label_inputs(tracing, graph, probed)
    label_weights(tracing, graph, probed, axes)
    tie_copies(tracing, graph)
    for index, node in enumerate(graph.nodes):
        trace_node(tracing, graph, probed, index, row_of(node, table), is_weighted=index in weighted)
    for value in graph.outputs:
        pin = Pin(GroupState.PINNED, f"axes of model output {value.name!r}", is_contract=True)
        tracing.wiring.pin_label(tracing.labels[value.name], pin)
        if value.name in tracing.wiring.places:
            tracing.wiring.pin(tracing.wiring.places[value.name], pin)
        if tracing.wiring.alone:
            arranged = traced_back(graph, probed, value.name, table, {parameter.node for parameter in parameters})
            for atoms in () if arranged is None else told_atoms(tracing, arranged):
                tracing.wiring.pin(atoms, pin)
    settle_choices(tracing.wiring)
    computed = [tracing.labels[name] for node in graph.nodes for name in node.outputs if name in tracing.labels]
    pin_unread(tracing.wiring, computed, tracing.owners)
    return tracing


def told_atoms(tracing: Tracing, arranged: Arrangement) -> Iterator[Ints]:
    """The atoms of all that an output holds the entries of, those of units that were taken alone included."""
    starts = arranged.starts()
    for name, shape in arranged.sources.items():
        entries = arranged.entries - starts[name]
        entries = np.unique(entries[(entries >= 0) & (entries < np.prod(shape, dtype=np.int64))])
        label = tracing.labels.get(name)
        for part in () if label is None else label.parts:
            yield np.unique(np.broadcast_to(part, shape).ravel()[entries])


def told_tensors(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> frozenset[str]:
    """The tensors that are outputs of a graph, or become one by being moved or cast."""
    told = {value.name for value in graph.outputs}
    for node in reversed(graph.nodes):
        row = row_of(node, table)
        if row is not None and row.moves and node.outputs[0] in told:
            told.add(node.inputs[0])
    return frozenset(told)


def label_inputs(tracing: Tracing, graph: LayerGraph, probed: Probe) -> None:
    """Pin the axes of the model's inputs."""
    for value in graph.inputs:
        pin = Pin(GroupState.PINNED, f"axes of model input {value.name!r}", is_contract=True)
        tracing.labels[value.name] = pinned_label(probed.shapes.get(value.name, ()), pin)


def label_weights(tracing: Tracing, graph: LayerGraph, probed: Probe, axes: Collection[Axis]) -> None:
    """Give every weight, and every mask, fresh atoms; those that are in use come first, producers before consumers.
    What a setting tells apart stays where it is."""
    unlearned = find_unlearned(graph)
    for name in dict.fromkeys([*(tensor for tensor, _ in axes), *graph.weights]):
        weight = graph.weights[name]
        is_mask = (name, first_axis(weight)) in axes
        if weight.scope or not (weight.is_float or is_mask):
            tracing.labels[name] = stored_label(weight, integer_pin(graph, weight), name in probed.values)
            continue
        if name in unlearned:
            tracing.labels[name] = setting_label(weight, unlearned[name])
            continue
        start = tracing.wiring.count
        tracing.labels[name] = tracing.wiring.fresh_label(weight.shape)
        for axis, size in enumerate(weight.shape):
            if size > 1:
                tracing.owners.extend([(name, axis, start, size)] if (name, axis) in axes else [])
                start += size


def tie_copies(tracing: Tracing, graph: LayerGraph) -> None:
    """Tie the copies of each tensor that is shared on purpose along some of its axes."""
    copies: dict[str, list[str]] = {}
    for copy, name in graph.copies.items():
        copies.setdefault(name, []).append(copy)
    for name, axes in graph.tied.items():
        labels = [tracing.labels[one] for one in (name, *copies.get(name, ())) if one in graph.weights]
        for axis, (label, other) in product(axes, pairwise(labels)):
            if label.shape[axis] == other.shape[axis]:  # else the window of one layer was made larger
                tracing.wiring.tie(*(tracing.wiring.axis_label(one, axis) for one in (label, other)))


def setting_label(weight: Weight, setting: Unlearned) -> Label:
    """The label of a setting: what it tells apart on an axis has an order, what it treats alike has none."""
    return alike_label(weight, Pin(GroupState.PINNED, f"the {setting.kind} {weight.name!r} lies along it"))


def stored_label(weight: Weight, pin: Pin, is_small: bool) -> Label:
    """The label of a stored tensor that is no weight: what is frozen stays as a whole, small integers only where they
    differ."""
    return alike_label(weight, pin) if is_small and not pin.is_data else pinned_label(weight.shape, pin)


def alike_label(weight: Weight, pin: Pin) -> Label:
    """The label of a stored tensor that is pinned on the axes along which its values differ."""
    return Label(weight.shape, (), dict.fromkeys(axes_that_stay(weight.read()), pin))


def first_axis(weight: Weight) -> int:
    """The first axis longer than 1, 0 if there is none."""
    return next((axis for axis, size in enumerate(weight.shape) if size > 1), 0)


def integer_pin(graph: LayerGraph, weight: Weight) -> Pin:
    """The pin of a stored tensor that is not of floats: numbers of a weight freeze what they meet, sizes, indices and
    ids only have an order."""
    if integer_use(graph, weight) is IntegerUse.NUMBERS:
        return Pin(GroupState.FROZEN, f"{weight.name!r} beside it is stored as {weight.dtype.name}", is_data=True)
    return Pin(GroupState.PINNED, "integer data")


def new_tracing(graph: LayerGraph, wiring: Wiring) -> Tracing:
    """A tracing of a graph that has not begun."""
    return Tracing(wiring, bodies=bodies_of(graph.nodes), passing=passing_bodies(graph))


def trace_node(
    tracing: Tracing, graph: LayerGraph, probed: Probe, index: int, row: Row | None, *, is_weighted: bool
) -> None:
    """Run one node on labels; `is_weighted` if it is a contraction with a stored weight."""
    node, body = graph.nodes[index], tracing.bodies[index]
    if body in tracing.passing and probed.shapes.keys().isdisjoint(node.outputs):
        return  # see `without_passed`
    if row is None:
        tracing.unknown[node.op] = (*tracing.unknown.get(node.op, ()), node.name)
    asleep = next((probed.not_run[name] for name in (body, *node.runs) if name in probed.not_run), "")
    if asleep:
        outputs = call_of(tracing, graph, probed, node).pin_all(Pin(GroupState.UNVERIFIED, asleep))
    else:
        outputs = outputs_of(tracing, graph, probed, node, row)
    follow_places(tracing.wiring, node, row)
    for name, label in zip(node.outputs, outputs, strict=False):
        tracing.labels[name] = label
        if row is not None and row.is_linear and not is_weighted:
            mark_product(node, row, tracing.wiring, tracing.labels)
        for constant in row.size_constants_of(node) if row is not None else ():
            tracing.wiring.mark_size(label, constant)


def follow_places(wiring: Wiring, node: Node, row: Row | None) -> None:
    """Hand on what tensors tell of places of units; what reads such a place as a number freezes the units."""
    for slot, name in enumerate((*node.inputs, *node.captures)):
        places = wiring.places.get(name)
        if places is None or (row is not None and (row.reads_shape_only or row.slot(slot).reads_places)):
            continue
        if row is not None and row.passes_places and slot == 0:
            wiring.places.update(dict.fromkeys(node.outputs, places))
        else:
            wiring.pin(places, Pin(GroupState.FROZEN, f"{node.title} reads their places as numbers"))


def mark_product(node: Node, row: Row, wiring: Wiring, labels: Mapping[str, Label]) -> None:
    """Note that a contraction sums over units whose weights are computed, such as keys, and need not be zero for one
    that is not there."""
    for slot, name in enumerate(node.inputs):
        axes = row.weight_axes(slot, node, len(labels[name].shape)) if name in labels else None
        if axes is not None:
            wiring.mark_statistic(labels[name], (axes[1],), Statistic(node.op, node.name))
            return


def outputs_of(tracing: Tracing, graph: LayerGraph, probed: Probe, node: Node, row: Row | None) -> list[Label]:
    """The labels that the rule of a node gives; frozen ones where it has none, or its shapes are unknown."""
    call = call_of(tracing, graph, probed, node)
    if row is None:
        captured = [tracing.labels[name] for name in node.captures if name in tracing.labels]
        call = replace(call, inputs=[*call.inputs, *captured])
        return call.freeze(explain_missing(node.op), unknown_op=node.op)
    if any(name in tracing.passing for name in node.runs):
        call = without_passed(tracing, call)
    read = [name for name, label in zip(node.inputs, call.inputs, strict=True) if name and label is not None]
    seen = (name for name in (*read, *node.outputs) if name)
    unmeasured = next((name for name in seen if name not in probed.shapes and name not in probed.lists), None)
    if unmeasured is not None and not row.reads_shape_only:
        return call.freeze(f"the shape of {unmeasured!r} could not be measured")
    try:
        return list(row.rule(call))
    except (ValueError, IndexError, KeyError) as error:
        raise RunError(f"the axis rule of {call.name} failed on shapes {call.outputs}: {error}") from error


def without_passed(tracing: Tracing, call: Call) -> Call:
    """The call of a node without what a branch passes on in another form: where it is taken, all behind the node is of
    that form."""
    passed = {
        slot
        for place, name in enumerate(call.node.runs)
        for slot in range(1 + place * len(call.outputs), 1 + (place + 1) * len(call.outputs))
        if name in tracing.passing
    }
    labels = list(call.inputs)
    for slot in passed:
        label, shape = labels[slot], call.outputs[(slot - 1) % len(call.outputs)]
        labels[slot] = label if label is not None and label.shape == shape else None
    return replace(call, inputs=labels)


def call_of(tracing: Tracing, graph: LayerGraph, probed: Probe, node: Node) -> Call:
    """A node as its axis rule sees it."""
    return Call(
        node,
        tracing.wiring,
        inputs=[tracing.labels.get(name) if name else None for name in node.inputs],
        outputs=[probed.shapes.get(name, ()) if name else () for name in node.outputs],
        lists=[probed.lists.get(name) for name in node.outputs],
        values=[probed.values.get(name) for name in node.inputs],
        opset=graph.opsets.get(node.op.rpartition(".")[0], 1),
        stored=[name in graph.weights for name in node.inputs],
        told=[name in tracing.told for name in node.outputs],
    )


def pin_unread(wiring: Wiring, computed: Iterable[Label], owners: Iterable[Owner]) -> None:
    """Pin what no operator reads, such as the rows of a table of places behind the last place of the probe run: no run
    of this size tells what they are, and one of another size reads them."""
    is_read = np.zeros(wiring.count, bool)
    for atoms in (
        *(part for label in computed for part in label.parts),
        *(side for tie in wiring.ties for side in tie),
        *(pinned.atoms for pinned in wiring.pins),
        *(atoms for belonging in wiring.blocks for atoms in belonging),
        *wiring.readings,
    ):
        is_read[atoms] = True
    for _, _, start, size in owners:
        unread = start + np.flatnonzero(~is_read[start : start + size])
        if len(unread):
            wiring.pin(unread, UNREAD)
