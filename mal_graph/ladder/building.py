"""The picture's data, made from graphs, their match and their axis groups."""

from collections.abc import Iterable, Iterator, Mapping

from mal_graph.graph import LayerGraph, Node
from mal_graph.ladder.entries import (
    AxisMark,
    GroupMark,
    LadderEntry,
    ModelEntry,
    PlaceEntry,
    Role,
    RungEntry,
    RunnerUpEntry,
)
from mal_graph.ladder.units import COARSE, FINE, MANY_PAIRS, compare_units
from mal_graph.matching import Alignment, LayerPair, Match, describe_window, link_layers
from mal_graph.network import Layer, find_layers
from mal_graph.operators import GroupState
from mal_graph.symmetry import AxisGroup, AxisGroups
from mal_graph.workflows import Comparison


def ladder_of(
    base: LayerGraph,
    donor: LayerGraph,
    match: Match,
    groups: AxisGroups | None = None,
    donor_groups: AxisGroups | None = None,
    alignment: Alignment | None = None,
) -> LadderEntry:
    """Two models and the pairs of their layers; with their axis groups and units, where these were looked for."""
    mine = model_entry(base, groups, match.base, match.unmatched_base)
    theirs = model_entry(donor, donor_groups, match.donor, match.unmatched_donor)
    at, other = places_of(mine), places_of(theirs)
    rungs = [rung_entry(pair, at[pair.base.name], other[pair.donor.name]) for pair in match.pairs]
    ladder = LadderEntry(base=mine, donor=theirs, rungs=rungs)
    if groups is not None and donor_groups is not None:
        pair_groups(ladder, group_pairs(ladder, alignment))
    if alignment is not None:
        add_units(ladder, alignment)
    return ladder


def ladder_of_comparison(compared: Comparison) -> LadderEntry:
    """The picture of two models that were compared."""
    sides = (compared.base, compared.donor, compared.match)
    return ladder_of(*sides, compared.groups, compared.donor_groups, compared.alignment)


def group_pairs(ladder: LadderEntry, alignment: Alignment | None) -> Iterator[tuple[int, int]]:
    """Which group of the base belongs to which of the donor: as the alignment has it, or else as matched layers
    produce them."""
    if alignment is not None:
        yield from ((pair.base, pair.donor) for pair in alignment.correspondence.pairs)
        return
    assert ladder.donor is not None
    for rung in ladder.rungs:
        mine, theirs = ladder.base.places[rung.base].axes, ladder.donor.places[rung.donor].axes
        if mine and theirs and len(mine[0].groups) == len(theirs[0].groups):
            yield from zip(mine[0].groups, theirs[0].groups, strict=True)


def pair_groups(ladder: LadderEntry, pairs: Iterable[tuple[int, int]]) -> None:
    """Note on every group which of the other model moves with it."""
    assert ladder.donor is not None
    for a, b in dict.fromkeys(pairs):
        ladder.base.groups[a].partners.append(b)
        ladder.donor.groups[b].partners.append(a)


def add_units(ladder: LadderEntry, alignment: Alignment) -> None:
    """Add to every pair of layers whose weights were compared what the assignment found."""
    tensors = reversed(alignment.correspondence.tensors)  # of several weights of a layer the first tells
    weights = {tensor.layer: (tensor, axes) for tensor, axes in tensors if tensor.is_weight}
    size = COARSE if len(ladder.rungs) > MANY_PAIRS else FINE
    for rung in ladder.rungs:
        name = ladder.base.places[rung.base].name
        if name in weights:
            rung.units = compare_units(*weights[name], alignment.orders, size)


def places_of(model: ModelEntry) -> dict[str, int]:
    """Where each layer stands, by name."""
    return {place.name: index for index, place in enumerate(model.places) if place.role is Role.LAYER}


def model_entry(
    graph: LayerGraph,
    groups: AxisGroups | None = None,
    layers: Iterable[Layer] | None = None,
    notes: Mapping[str, str] | None = None,
) -> ModelEntry:
    """One model; `notes` are of layers, by name."""
    by_start = {layer.start: layer for layer in (find_layers(graph) if layers is None else layers)}
    links = link_layers(graph)
    places = [place_entry(graph, start, by_start.get(start), groups, notes or {}) for start in links.starts]
    for place, sources, is_ordered in zip(places, links.reads, links.ordered, strict=True):
        place.reads = list(dict.fromkeys(source.place for source in sources))
        place.is_ordered = is_ordered and len(place.reads) > 1
    for value, source in zip(graph.outputs, links.outputs, strict=True):
        reads = [] if source is None else [source]
        places.append(PlaceEntry(name=value.name, role=Role.OUTPUT, kind="output", reads=reads))
    marks = [] if groups is None else [group_mark(group) for group in groups.groups]
    return ModelEntry(name=graph.name, places=places, groups=marks)


def group_mark(group: AxisGroup) -> GroupMark:
    is_candidate = group.state is GroupState.CANDIDATE
    return GroupMark(
        name=group.name,
        units=group.units,
        state=GroupState.UNVERIFIED if is_candidate else group.state,
        reason=group.reason or ("not verified" if is_candidate else ""),
        deviation=group.deviation,
        control=group.control,
    )


def place_entry(
    graph: LayerGraph, start: int, layer: Layer | None, groups: AxisGroups | None, notes: Mapping[str, str]
) -> PlaceEntry:
    if layer is not None:
        return layer_entry(graph, layer, groups, notes.get(layer.name, ""))
    if start < 0:
        value = graph.inputs[-1 - start]
        return PlaceEntry(name=value.name, role=Role.INPUT, kind="input")
    node = graph.nodes[start]
    return PlaceEntry(
        name=node.name,
        role=Role.JOIN,
        kind=node.op.rpartition("::")[2],
        path=path_of(node, node.name),
    )


def layer_entry(graph: LayerGraph, layer: Layer, groups: AxisGroups | None, note: str) -> PlaceEntry:
    leading = layer.leading
    at = layer.start if leading is None else leading.node  # it may start at a join before its module
    taps = describe_window(graph, layer)
    return PlaceEntry(
        name=layer.name,
        role=Role.LAYER,
        kind=layer.kind,
        path=path_of(graph.nodes[at] if at >= 0 else None, layer.name),
        units=layer.in_out,
        window="x".join(map(str, taps[0])) if taps and isinstance(taps[0], tuple) else "",
        shape=[] if leading is None else list(leading.shape),
        parameters=sum(graph.weights[parameter.tensor].size for parameter in layer.parameters),
        axes=[] if groups is None else list(axis_marks(layer, groups)),
        note=note,
    )


def axis_marks(layer: Layer, groups: AxisGroups) -> Iterator[AxisMark]:
    """The axes of a layer's tensors that lie in a group."""
    for parameter in layer.applied:
        ways = ("out", "in") if parameter.is_weight else ("out",)
        for place, axis in enumerate(parameter.axes):
            on = [] if axis is None else [index for index, _ in groups.on_axis.get((parameter.tensor, axis), ())]
            if axis is not None and on:
                way = ways[place] if place < len(ways) else ""
                yield AxisMark(tensor=parameter.tensor, axis=axis, groups=list(dict.fromkeys(on)), units=way)


def path_of(node: Node | None, name: str) -> list[str]:
    """The modules that a place was exported from, outermost first, without what repeats the one before."""
    if node is not None and node.scope:
        return node.scope.split(".")
    if "/" not in name:
        return name.split(".")[:-1]
    path: list[str] = []
    before = ""
    for part in name.strip("/").split("/")[:-1]:
        path += part.removeprefix(f"{before}.").split(".")
        before = part
    return path


def rung_entry(pair: LayerPair, base: int, donor: int) -> RungEntry:
    other = pair.runner_up
    return RungEntry(
        base=base,
        donor=donor,
        score=pair.score,
        relation=pair.relation,
        reason=pair.reason,
        parts=dict(pair.parts),
        runner_up=None if other is None else RunnerUpEntry(donor=other.donor, score=other.score, reason=other.reason),
        differences=list(dict.fromkeys(f"{one.what}: {one.meaning}" for one in pair.differences)),
    )
