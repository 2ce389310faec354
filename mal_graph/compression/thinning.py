"""A network with fewer units, of which those that stay take over what they can from those that go.

First every set of units is ranked by what the readers of its units get from each (see `selection`). Then units are
taken away, and from the inputs on the weights of every reader are fitted anew (see `recovery`), on what the units that
stay give in the network as it is by then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mal_graph.compression.fitting import Fitting, find_fits, with_places, with_zero_biases
from mal_graph.compression.moments import SecondMoments
from mal_graph.compression.readers import Reader, find_readers
from mal_graph.compression.selection import Ranking, Read, rank_units
from mal_graph.compression.staying import find_sets
from mal_graph.compression.unit_sets import Ints, UnitSet
from mal_graph.evaluation import Stream, stream_together
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import Parameter
from mal_graph.protocols import Runner
from mal_graph.symmetry import Network, permute_weights, plan_resizing, resize_graph

Kept = Mapping[int, Ints]  # by number of the set the units that stay, in order, shape (units, groups)


@dataclass(frozen=True, repr=False)
class Compressible:
    """A network that may lose units, and the inputs that show what each of them gives.

    Attributes:
        network: its groups are verified.
        inputs: unlabelled samples by input name.
        runner: runs it.
        weights: what takes the place of some stored tensors while activations are measured.
        by_tap: fit the coefficients of convolutions tap by tap: only where the inputs are real ones.
    """

    network: Network
    inputs: Mapping[str, Array]
    runner: Runner
    weights: Mapping[str, Array] = field(default_factory=dict)
    by_tap: bool = True

    @cached_property
    def all_sets(self) -> tuple[UnitSet, ...]:
        """Every set of coupled groups."""
        return find_sets(self.network, self.runner)

    @property
    def sets(self) -> tuple[UnitSet, ...]:
        """The sets whose units can go."""
        return tuple(one for one in self.all_sets if not one.reason)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Every reader of units that can go, in topological order."""
        return find_readers(self.network, self.all_sets)

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """By number of the set the order in which its units stay. Raises DataError or RunError."""
        places: dict[int, dict[Parameter, list[Read]]] = {one.number: {} for one in self.sets}
        for reader, covariance in zip(self.readers, self.covariances(), strict=True):
            stored = self.network.graph.weights[reader.parameter.tensor].read()
            coefficients = reader.coefficients(stored, covariance)
            for one in self.sets:
                units = reader.units_of(one)
                here = np.flatnonzero(units >= 0)
                if len(here):
                    part = Read(covariance[np.ix_(here, here)], coefficients[here], units[here])
                    places[one.number].setdefault(reader.parameter, []).append(part)
        read = {number: list(own.values()) for number, own in places.items()}
        return {one.number: rank_units(read[one.number], len(one.groups), one.units) for one in self.sets}

    def covariances(self) -> list[Array]:
        """Of the cells of every reader."""
        tensors = list(dict.fromkeys(reader.place[0] for reader in self.readers))
        if not tensors:
            return []
        moments = [SecondMoments.empty(len(reader.held), 0) for reader in self.readers]
        stream = Stream(self.network.graph, self.inputs, self.runner, tensors, list(self.weights))
        for (values,) in stream_together([(stream, tensors)], self.weights):
            for reader, sums in zip(self.readers, moments, strict=True):
                rows = reader.rows(values[reader.place[0]])
                sums.add(rows, np.zeros((0, rows.shape[1])))
        return [sums.covariances[0] for sums in moments]


def thin(model: Compressible, kept: Kept) -> LayerGraph:
    """The network with some units kept in each set, and what reads them fitted to it.

    Args:
        kept: the units that stay, by number of the set; sets that are left out keep all.

    Raises:
        ShapeError: a size cannot be expressed.
        DataError, RunError: the inputs do not fit, or the network does not run on them.
    """
    network, sets = model.network, {one.number: one for one in model.sets}
    before, weights = aligned(model, kept)
    alike = {number: own[:, 0].tolist() for number, own in kept.items()}
    units = {group.name: own for number, own in alike.items() for group in sets[number].groups}
    change = plan_resizing(before, network.groups, network.traces, units, network.coupled)
    fits = find_fits(before, model.readers, alike, change, by_tap=model.by_tap)
    graph = with_zero_biases(resize_graph(before, change, {}), fits)
    pair = Fitting(before, graph, change, weights, with_places(graph, fits))
    return graph.with_weights(pair.fitted(model.inputs, model.runner))


def aligned(model: Compressible, kept: Kept) -> tuple[LayerGraph, Mapping[str, Array]]:
    """The network with the units that stay at the same places in all groups of a set, and what is measured with.

    Coupled groups lose equally many units, at the same places; which of its units stand there each decides by itself.
    """
    graph, parts = model.network.graph, model.network.traces.parts
    moves = [
        (group, order_to(own[:, place], own[:, 0], group.units))
        for one in model.sets
        if (own := kept.get(one.number)) is not None
        for place, group in enumerate(one.groups)
        if (own[:, place] != own[:, 0]).any()
    ]
    moves.sort(key=lambda move: parts[move[0].name].shape[1])  # what lies in a unit moves before it
    tensors = dict.fromkeys(member.tensor for group, _ in moves for member in group.members)
    stored = {name: graph.weights[name].read() for name in tensors}
    measured = {name: model.weights.get(name, values) for name, values in stored.items()}
    moved = permute_weights(measured, moves) if model.weights else {}
    weights = {name: moved.get(name, values) for name, values in model.weights.items()}
    return graph.with_weights(permute_weights(stored, moves)), weights


def order_to(units: Ints, places: Ints, count: int) -> Ints:
    """The order of so many units in which some stand at certain places, and the others as they did."""
    order = np.full(count, -1)
    order[places] = units
    order[order < 0] = np.setdiff1d(np.arange(count), units)
    return order
