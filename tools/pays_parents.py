"""Two networks of one wiring and width, as the rival methods need them: the donor tensor by tensor in the base's place.

The donor's weights come into the base's graph by matching, alignment and a merge at lambda 1, which changes nothing but
the order of units. Whether its outputs are still the donor's is what shows that the two have one wiring. A BatchNorm
behind a contraction is made part of it in both, so that a blend of two networks has no statistics to blend.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from pays_blends import Likeness

from mal_graph.brief import Brief
from mal_graph.compression.staying import find_sets
from mal_graph.compression.unit_sets import UnitSet
from mal_graph.config import MergeConfig
from mal_graph.errors import MatchError
from mal_graph.evaluation import data_slot, find_patches
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import by_role, find_foldable_norm
from mal_graph.matching.batchnorm_folding import FoldedWeight, fold_bias
from mal_graph.merging.repairing import output_of
from mal_graph.network import Parameter, find_layers
from mal_graph.operators import Span, groups_of, row_of, spans_of, summed_axis
from mal_graph.protocols import Runner
from mal_graph.symmetry import AxisGroup, Member, Network
from mal_graph.workflows.models import silent
from mal_graph.workflows.sides import Side
from mal_graph.workflows.steps import merged_into

SAME = 1e-3  # of the largest output: a donor in the base's wiring gives this or less of another one


@dataclass(frozen=True, repr=False)
class Contraction(Brief):
    """A contraction with a stored weight, from what it reads to what it gives behind its bias.

    Attributes:
        weight, bias: its parameters; no bias where it has none.
        reads, gives: tensors.
        read_axis, axis: which of their axes are summed over, and hold its units.
        window: of a convolution.
    """

    weight: Parameter
    bias: Parameter | None
    reads: str
    gives: str
    read_axis: int
    axis: int
    window: Sequence[Span] | None

    def inputs(self, values: Array) -> Array:
        """What its coefficients are multiplied with, shape (features, samples x places)."""
        if self.window is not None:
            return find_patches(values, self.window)
        return np.moveaxis(values, self.read_axis, 0).reshape(values.shape[self.read_axis], -1)

    def outputs(self, values: Array) -> Array:
        """What its units give, shape (units, samples x places)."""
        return np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)

    def coefficients(self, graph: LayerGraph) -> tuple[Array, Array | None]:
        """As they act, shapes (units, features) and (units,)."""
        weight = self.weight.canonical(graph.weights[self.weight.tensor].read()).astype(np.float64)
        rows = weight.reshape(len(weight), -1) * self.weight.factor
        if self.bias is None:
            return rows, None
        bias = self.bias.canonical(graph.weights[self.bias.tensor].read()).astype(np.float64)
        return rows, bias.ravel() * self.bias.factor

    def changed(self, graph: LayerGraph, rows: Array, bias: Array | None) -> LayerGraph:
        """The network with other coefficients."""
        new = stored_anew(graph, {self.weight: rows / self.weight.factor})
        if self.bias is not None and bias is not None:
            new |= stored_anew(graph, {self.bias: bias / self.bias.factor})
        return graph.with_weights(new)


def stored_anew(graph: LayerGraph, values: Mapping[Parameter, Array]) -> dict[str, Array]:
    """Tensors that hold other values, which are canonical."""
    new = {}
    for parameter, own in values.items():
        old = graph.weights[parameter.tensor].read()
        stored = parameter.stored(own.reshape(parameter.shape), old.shape)
        new[parameter.tensor] = np.ascontiguousarray(stored, old.dtype)
    return new


def find_contractions(graph: LayerGraph, shapes: Mapping[str, Sequence[int]]) -> list[Contraction]:
    """The contractions whose coefficients can be set by what they read and give, in topological order.

    Args:
        shapes: of its tensors, whose ranks count alone.
    """
    layers = find_layers(graph)
    applied = [parameter.tensor for layer in layers for parameter in layer.applied]
    contractions = []
    for layer in layers:
        weight, norm = layer.weight, find_foldable_norm(graph, layer)
        if weight is None or applied.count(weight.tensor) > 1 or groups_of(graph.nodes[weight.node]) > 1:
            continue
        place = output_of(graph, layer, norm)
        bias = by_role(layer).get("bias") if norm is None else norm.shift
        if place is None or (bias is not None and bias.shape != weight.shape[:1]):
            continue
        node, row = graph.nodes[weight.node], row_of(graph.nodes[weight.node])
        slot = data_slot(weight)
        window = spans_of(node, weight.shape[2:]) if row is not None and row.has_window else None
        read = node.inputs[slot]
        summed = summed_axis(node, slot, len(shapes[read]))
        contractions.append(Contraction(weight, bias, read, place.tensor, summed, place.axis, window))
    return contractions


def without_norms(graph: LayerGraph) -> LayerGraph:
    """The same function with every BatchNorm behind a contraction made part of it: what is left adds a shift."""
    new: dict[Parameter, Array] = {}
    for layer in find_layers(graph):
        norm, bias = find_foldable_norm(graph, layer), by_role(layer).get("bias")
        if norm is None or layer.weight is None:
            continue
        new[layer.weight] = FoldedWeight(graph, layer.weight, norm)()
        new[norm.shift] = fold_bias(graph, bias, norm)
        new[norm.scale], new[norm.mean] = np.ones(norm.scale.shape), np.zeros(norm.mean.shape)
        new[norm.variance] = np.full(norm.variance.shape, 1 - norm.epsilon)
        if bias is not None:
            new[bias] = np.zeros(bias.shape)
    return graph.with_weights(stored_anew(graph, new))


def in_place_of(base: Side, donor: Side, inputs: Mapping[str, Array], runner: Runner, seed: int) -> LayerGraph:
    """The donor's function as weights of the base's graph. Raises MatchError where the two are not alike."""
    told = f"{donor.graph.name} is not of the wiring and widths of {base.graph.name}: the method blends equal layers"
    shapes = [sorted(weight.shape for weight in side.graph.weights.values()) for side in (base, donor)]
    if shapes[0] != shapes[1]:
        raise MatchError(told)
    config = MergeConfig(
        method="mal",
        lam=1.0,
        match_by="activations",
        calibrate=inputs,
        repair=False,
        compare=False,
        assume_ordered=True,
        seed=seed,
    )
    known = [Network(side.graph, side.network.groups) for side in (base, donor)]
    graph = merged_into(base.graph, donor.graph, config, runner, silent, known)[1]
    own, theirs = (
        runner.open(one, read=[name]).run(given, read=[name])[name]
        for one, name, given in (
            (graph, base.graph.outputs[0].name, inputs),
            (donor.graph, donor.paired.outputs[base.graph.outputs[0].name], donor.paired.for_donor(inputs)),
        )
    )
    far = float(np.abs(own - theirs).max() / np.abs(theirs).max())
    if far > SAME:
        raise MatchError(f"{told}, and in the base's place its outputs are {far:.2g} of the largest away")
    return graph


@dataclass(frozen=True, repr=False)
class Parents(Brief):
    """Both networks in the base's wiring, and what their units give on some inputs.

    Attributes:
        side: the base as it is.
        graphs: base and donor, without norms.
        inputs: unlabelled samples.
        runner: runs them.
        seen: what has been measured of groups, by name.
    """

    side: Side
    graphs: tuple[LayerGraph, LayerGraph]
    inputs: Mapping[str, Array]
    runner: Runner
    seen: dict[str, Likeness] = field(default_factory=dict)

    @classmethod
    def of(cls, sides: Sequence[Side], inputs: Mapping[str, Array], runner: Runner, seed: int) -> "Parents":
        """Raises MatchError where the two are not of one wiring and width."""
        base, donor = sides
        graph = in_place_of(base, donor, inputs, runner, seed)
        return cls(base, (without_norms(base.graph), without_norms(graph)), inputs, runner)

    @property
    def network(self) -> Network:
        return self.side.network

    @cached_property
    def sets(self) -> tuple[UnitSet, ...]:
        """Groups that have equally many units; those with a reason keep as many as they have."""
        sets = find_sets(self.network, self.runner)
        return tuple(
            replace(one, reason="each of its units holds others") if one.name in self.outer else one for one in sets
        )

    @cached_property
    def outer(self) -> set[str]:
        """The names of the groups that hold others."""
        return {group.inside[0] for group in self.network.groups.groups if group.inside is not None}

    @cached_property
    def contractions(self) -> list[Contraction]:
        return find_contractions(self.graphs[0], self.network.probe.shapes)

    @cached_property
    def groups(self) -> list[AxisGroup]:
        """The groups whose units are blended. Those that hold others stay in the order that they were aligned to."""
        return [group for one in self.sets for group in one.groups if group.name not in self.outer]

    @cached_property
    def values(self) -> list[Mapping[str, Array]]:
        """What the contractions of both read and give."""
        tensors = list(dict.fromkeys(name for layer in self.contractions for name in (layer.reads, layer.gives)))
        return [self.read(graph, tensors) for graph in self.graphs]

    def miss(self, graph: LayerGraph) -> float:
        """How far a network's outputs are from the mean of both, in the mean square."""
        name = graph.outputs[0].name
        whole = np.mean([self.read(parent, [name])[name] for parent in self.graphs], axis=0)
        return float(np.mean((self.read(graph, [name])[name] - whole) ** 2))

    def read(self, graph: LayerGraph, tensors: Sequence[str]) -> Mapping[str, Array]:
        """Tensors of a network on all samples."""
        return self.runner.open(graph, read=tensors, optimize=True).run(self.inputs, read=tensors)

    def likeness(self, group: AxisGroup) -> Likeness:
        """How alike the units of a group are, where they are read; where no weight reads them, where they are made."""
        if group.name not in self.seen:
            self.seen[group.name] = self.measured(group)
        return self.seen[group.name]

    def measured(self, group: AxisGroup) -> Likeness:
        places = [place for member in group.members for place in self.places_of(member)]
        consumed = [place for place in places if place[0].consumes]
        correlations, products, importances = [], [], []
        for member, tensor, axis, layer in consumed or places:
            rows = np.concatenate([rows_of(values[tensor], axis, member) for values in self.values])
            squares = np.mean(rows**2, axis=1, dtype=np.float64)
            products.append(rows @ rows.T / rows.shape[1])
            correlations.append(correlation_of(rows))
            importances.append(squares * np.concatenate([self.size(graph, layer, member) for graph in self.graphs]))
        scaled = [np.concatenate([own / max(own.sum(), 1e-30) for own in np.split(one, 2)]) for one in importances]
        return Likeness(*(np.mean(each, axis=0) for each in (correlations, products, scaled)))

    def places_of(self, member: Member) -> Iterator[tuple[Member, str, int, Contraction]]:
        """The tensor and axis where a contraction reads or gives what lies on a stored axis."""
        for layer in self.contractions:
            if layer.weight.tensor == member.tensor:
                place = (layer.reads, layer.read_axis) if member.consumes else (layer.gives, layer.axis)
                yield member, *place, layer

    def size(self, graph: LayerGraph, layer: Contraction, member: Member) -> Array:
        """Summed squares of the coefficients of each unit, shape (units,)."""
        stored = np.moveaxis(graph.weights[layer.weight.tensor].read(), member.axis, 0)[member.positions]
        return np.asarray((stored.astype(np.float64) ** 2).reshape(len(stored), -1).sum(axis=1))


def rows_of(values: Array, axis: int, member: Member) -> Array:
    """What the units of a group hold in a tensor, shape (units, samples)."""
    moved = np.moveaxis(values, axis, 0)
    return moved.reshape(len(moved), -1)[member.positions].reshape(len(member.positions), -1)


def correlation_of(rows: Array) -> Array:
    """Of the rows with each other; 0 for one that never varies."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    scaled = centred / np.where(size > 0, size, 1)
    return np.asarray(scaled @ scaled.T, np.float64)
