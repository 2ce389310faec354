"""A network with fewer units, of which those that stay take over what they can from those that go.

First every set of units is ranked by what the readers of its units get from each (see `selection`). Then units are
taken away, and from the inputs on the weights of every reader are fitted anew (see `recovery`), on what the units that
stay give in the network as it is by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mal_graph.compression.fitting import Fitting, find_fits, with_places, with_zero_biases
from mal_graph.compression.moments import SecondMoments
from mal_graph.compression.readers import Ints, Reader, UnitSet, find_readers, find_sets
from mal_graph.compression.selection import Ranking, Read, rank_units
from mal_graph.evaluation import Stream, stream_together
from mal_graph.graph import Array, LayerGraph
from mal_graph.protocols import Runner
from mal_graph.symmetry import Network, plan_resizing, resize_graph

Kept = Mapping[int, Sequence[int]]  # units by number of their set


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
        return find_sets(self.network)

    @property
    def sets(self) -> tuple[UnitSet, ...]:
        """The sets whose units can go."""
        return tuple(one for one in self.all_sets if not one.reason)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Every reader of units that can go, in topological order."""
        return find_readers(self.network, self.sets)

    @cached_property
    def rankings(self) -> dict[int, Ranking]:
        """By number of the set the order in which its units stay. Raises DataError or RunError."""
        covariances = self.covariances()
        places: dict[int, list[Read]] = {one.number: [] for one in self.sets}
        units = {one.number: one.units for one in self.sets}
        for reader, blocks in zip(self.readers, covariances, strict=True):
            stored = self.network.graph.weights[reader.parameter.tensor].read()
            seen = [moments.covariances[0] for moments in blocks]
            for covariance, coefficients in zip(seen, reader.coefficients(stored, seen), strict=True):
                for number in np.unique(reader.units[:, 0]).tolist():
                    if number >= 0:
                        here = reader.units[:, 0] == number
                        own = reader.units[here, 1]
                        places[number].append(read_of(covariance, coefficients, here, own, units[number]))
        return {number: rank_units(reads) for number, reads in places.items()}

    def covariances(self) -> list[list[SecondMoments]]:
        """Second moments of the units of every reader, block by block."""
        tensors = list(dict.fromkeys(reader.place[0] for reader in self.readers))
        if not tensors:
            return []
        moments = [[SecondMoments.empty(len(reader.units), 0) for _ in reader.read] for reader in self.readers]
        stream = Stream(self.network.graph, self.inputs, self.runner, tensors, list(self.weights))
        for (values,) in stream_together([(stream, tensors)], self.weights):
            for reader, blocks in zip(self.readers, moments, strict=True):
                for block, rows in zip(blocks, reader.rows(values[reader.place[0]]), strict=True):
                    block.add(rows, np.zeros((0, rows.shape[1])))
        return moments


def read_of(covariance: Array, coefficients: Array, here: Array, own: Ints, units: int) -> Read:
    """What one reader gets of the units of one set; units that it does not read say nothing there."""
    whole, weights = np.zeros((units, units)), np.zeros((units, coefficients.shape[1]))
    whole[np.ix_(own, own)], weights[own] = covariance[np.ix_(here, here)], coefficients[here]
    return Read(whole, weights)


def thin(model: Compressible, kept: Kept) -> LayerGraph:
    """The network with some units kept in each set, and what reads them fitted to it.

    Args:
        kept: numbers of the units that stay, by number of the set; sets that are left out keep all.

    Raises:
        ShapeError: a size cannot be expressed.
        DataError, RunError: the inputs do not fit, or the network does not run on them.
    """
    network, sets = model.network, {one.number: one for one in model.sets}
    units = {group.name: sorted(own) for number, own in kept.items() for group in sets[number].groups}
    change = plan_resizing(network.graph, network.groups, network.traces, units, network.coupled)
    fits = find_fits(network.graph, model.readers, kept, change, by_tap=model.by_tap)
    graph = with_zero_biases(resize_graph(network.graph, change, {}), fits)
    pair = Fitting(network.graph, graph, change, model.weights, with_places(graph, fits))
    return graph.with_weights(pair.fitted(model.inputs, model.runner))
