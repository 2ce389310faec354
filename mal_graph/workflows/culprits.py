"""Which layers keep a merge at lambda 1 from being the donor, found front to back on what each layer gives.

The donor's units are put into the base's order first, so that both models can be compared entry by entry. The first
layer that deviates though its inputs agree is a culprit; the search goes on behind it with the donor's values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, unused_name, weight_of
from mal_graph.merging import Plan, merge
from mal_graph.network import Layer, data_inputs
from mal_graph.operators import row_of
from mal_graph.symmetry import deviation
from mal_graph.workflows.both_models import KEEPS, TOLD_APART, Models, Run
from mal_graph.workflows.planted import shuffled_graph


@dataclass(frozen=True)
class Place:
    """What two matched layers read of others and give to others, each tensor by its name in the base and in the donor.

    Attributes:
        layer: name of the base's layer.
        is_kept: whether it keeps the base's weights, and need not give what the donor's does.
    """

    layer: str
    is_kept: bool
    read: tuple[tuple[str, str], ...]
    given: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Search:
    """What was found.

    Attributes:
        compared: how many merged layers were compared with the donor's.
        told: in how many of them the base's weights give something else than the donor's, where they read the same or
            other merged layers: the rest would have given the same without a merge.
        culprits: by name of a merged layer that gives what the donor's does not, though it reads the same, how far off.
        beside: the first layer that reads what the donor's does not, though all layers before it agree; "" if none.
        apart: how far the outputs are from the donor's, with the donor's values behind culprits and kept layers.
    """

    compared: int = 0
    told: int = 0
    culprits: Mapping[str, float] = field(default_factory=dict)
    beside: str = ""
    apart: float = np.inf

    @property
    def is_through(self) -> bool:
        """Whether all that deviates was found."""
        return self.compared > 0 and not self.beside and self.apart <= KEEPS


def find_culprits(plan: Plan, run: Run, models: Models) -> Search:
    """Compare a merge at lambda 1 with the donor, layer by layer. Raises RunError."""
    donor, places = donor_in_base_order(plan), list(find_places(plan))
    if donor is None or plan.match.unmatched_base or len(places) < len(plan.match.pairs):
        return Search()  # what some layer gives cannot be compared, so that nothing can be said of those behind it
    theirs = models.read(donor, models.as_donor_inputs(run.inputs), [name for p in places for _, name in ends(p)])
    places = [
        place for place in places if theirs.keys() >= {name for _, name in ends(place)}
    ]  # branches that are taken
    end, culprits = merge(plan.at(1.0)), dict[str, float]()
    given = {own: theirs[other] for place in places if place.is_kept for own, other in place.given}
    merged = [place for place in places if not place.is_kept]
    while True:
        read = [name for place in places for name, _ in ends(place)]
        outputs = [value.name for value in end.outputs]
        mine = models.read(with_values(end, given), run.inputs, [*read, *outputs])
        if not mine.keys() >= set(read):
            raise RunError(f"{plan.base.name} takes other branches than {donor.name}")
        place = next((p for p in merged if any(is_off(mine[own], theirs[other]) for own, other in p.given)), None)
        if place is None:
            apart = deviation({name: mine[name] for name in run.donor}, run.donor)
            unmerged = models.read(with_values(plan.base, given), run.inputs, read)
            return Search(len(merged), count_told(merged, unmerged, theirs), culprits, apart=apart)
        if not all(holds_the_same(mine[own], theirs[other]) for own, other in place.read):
            return Search(len(merged), culprits=culprits, beside=place.layer)
        both = {own: (mine[own], theirs[other]) for own, other in place.given}
        culprits[place.layer] = max(off(*pair) for pair in both.values())
        if any(a.shape != b.shape for a, b in both.values()):
            return Search(len(merged), culprits=culprits)  # its values cannot be put into the base
        given |= {name: other for name, (_, other) in both.items()}


def count_told(places: Iterable[Place], base: Mapping[str, Array], donor: Mapping[str, Array]) -> int:
    """At how many places base and donor give what differs far enough for a comparison to say anything."""
    known = [[(base[own], donor[other]) for own, other in place.given if own in base] for place in places]
    return sum(any(is_off(own, other, TOLD_APART) for own, other in pairs) for pairs in known)


def donor_in_base_order(plan: Plan) -> LayerGraph | None:
    """The donor with its units in the orders used; None where a group has several."""
    moves = plan.alignment.donor_moves().values()
    if any(len(turns) > 1 for turns in moves):
        return None
    return shuffled_graph(plan.donor, [move for turns in moves for move in turns[0]])


def find_places(plan: Plan) -> Iterator[Place]:
    """Where matched layers read and give, in the order of the base's."""
    base, donor = plan.base, plan.donor.graph
    kept = {*plan.skipped, *plan.dropped}
    for pair in plan.match.pairs:
        sides = (base, pair.base), (donor, pair.donor)
        read, given = (paired(*(list(names(*side)) for side in sides)) for names in (read_tensors, given_tensors))
        if given:
            yield Place(pair.base.name, pair.base.name in kept, read, given)


def paired(own: Sequence[str], others: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Tensors of two layers, in their order; none where one has more of them."""
    return tuple(zip(own, others, strict=True)) if len(own) == len(others) else ()


def given_tensors(graph: LayerGraph, layer: Layer) -> Iterator[str]:
    """The tensors of a layer that others read, or the model gives."""
    inside = set(layer.nodes)
    for name in (name for index in layer.nodes for name in graph.nodes[index].outputs if name):
        is_read = any(index not in inside for index, _ in graph.consumers.get(name, ()))
        if is_read or name in graph.output_names:
            yield name


def read_tensors(graph: LayerGraph, layer: Layer) -> Iterator[str]:
    """The computed tensors that a layer reads of others."""
    inside = set(layer.nodes)
    named = [name for index in layer.nodes for name in data_inputs(graph.nodes[index], row_of(graph.nodes[index]))]
    inputs = {value.name for value in graph.inputs}
    for name in dict.fromkeys(named):
        if name in inputs or graph.producer.get(name, layer.nodes[0]) not in inside:
            yield name


def ends(place: Place) -> tuple[tuple[str, str], ...]:
    """All tensors of a place."""
    return (*place.read, *place.given)


def with_values(graph: LayerGraph, values: Mapping[str, Array]) -> LayerGraph:
    """The graph with stored values in the place of what computes some tensors."""
    renamed = {name: unused_name(graph, name) for name in values}
    nodes = tuple(
        replace(node, outputs=tuple(renamed.get(name, name) for name in node.outputs)) for node in graph.nodes
    )
    stored = {name: weight_of(name, array) for name, array in values.items()}
    return replace(graph, nodes=nodes, weights={**graph.weights, **stored})


def is_off(own: Array, other: Array, least: float = KEEPS) -> bool:
    """Whether two tensors differ: entry by entry where their shapes are equal, in the numbers they hold elsewhere."""
    return off(own, other) > least if own.shape == other.shape else not holds_the_same(own, other)


def holds_the_same(own: Array, other: Array) -> bool:
    """Whether two tensors hold the same numbers, in whatever order."""
    if off(own, other) <= KEEPS:
        return True
    return own.size == other.size and off(np.sort(own, axis=None), np.sort(other, axis=None)) <= KEEPS


def off(own: Array, other: Array) -> float:
    """How far a tensor is from what it should be."""
    return deviation({"": own}, {"": other})
