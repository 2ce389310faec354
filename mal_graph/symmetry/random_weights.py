"""Random weights of a network that are drawn where they are needed, so that they need not all be held at once.

Each tensor has a generator of its own, and what a calibration makes of it is noted: it is the same whenever it is
drawn.
"""

from collections.abc import Iterable, Mapping
from time import monotonic

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import find_applied, find_masks
from mal_graph.symmetry.random_copy import Gauged, Scaling, draw_uniform, drawn_weight


class RandomWeights:
    """The weights of a calibrated copy of a network.

    Attributes:
        names: of the tensors that are given to a run: those that are drawn, factors, and masks, which stay as they are.
    """

    def __init__(
        self, graph: LayerGraph, factors: Mapping[str, Array], seed: int, deadline: float | None = None
    ) -> None:
        self.graph, self.factors, self.seed, self.deadline = graph, factors, seed, deadline
        applied = [parameter for parameter in find_applied(graph) if graph.weights[parameter.tensor].size > 1]
        self.parameters = {parameter.tensor: parameter for parameter in reversed(applied)}
        self.numbers = {name: number for number, name in enumerate(sorted(self.parameters))}
        self.masks = {mask.tensor for mask in find_masks(graph)}
        self.names = self.parameters.keys() | self.masks | factors.keys()
        self.roots: dict[str, np.float32] = {}  # what each tensor is divided by
        self.offsets: dict[str, Array] = {}  # what is taken off before
        self.statistics: dict[str, Array] = {}

    def values(self, names: Iterable[str]) -> dict[str, Array]:
        """The values of those of some tensors that are given to a run. Raises RunError if the time is up."""
        return {name: self.value(name) for name in names if name in self.names}

    def value(self, name: str) -> Array:
        """The values of one tensor."""
        if self.deadline is not None and monotonic() >= self.deadline:
            raise RunError(f"{self.graph.name} was not through when its time was up")
        if name in self.masks:
            return self.graph.weights[name].read()
        if name in self.statistics:
            return self.statistics[name]
        if name in self.factors:
            return self.scaled(name, self.factors[name].copy())
        rng = np.random.default_rng((self.seed, self.numbers[name]))
        return self.scaled(name, drawn_weight(self.parameters[name], self.graph, rng, draw_uniform))

    def scaled(self, name: str, values: Array) -> Array:
        """Drawn values, changed in place, as the calibration wants them."""
        if name in self.offsets:
            values -= self.offsets[name]
        if name in self.roots:
            values /= self.roots[name]
        return values

    def calibrate(self, drawn: Mapping[str, Array], gauged: Gauged, measured: Mapping[str, Array]) -> dict[str, Array]:
        """Drawn weights, changed in place, as gauges want them; one that was calibrated before stays."""
        measured = {name: values for name, values in measured.items() if np.isfinite(values).all()}
        done = {*self.roots, *self.statistics}
        for scaling in gauged.scalings:
            if scaling.root in measured:
                self.note(scaling, measured)
        weights = {name: values if name in done else self.scaled(name, values) for name, values in drawn.items()}
        for statistic in gauged.statistics:
            name = statistic.parameter.tensor
            if statistic.tensor in measured and name in weights and name not in done:
                values = statistic.parameter.stored(measured[statistic.tensor], self.graph.weights[name].shape)
                self.statistics[name] = weights[name] = values
        return weights

    def note(self, scaling: Scaling, measured: Mapping[str, Array]) -> None:
        """Note what the weight and bias of one contraction are divided by, unless a user before it did."""
        offset = None if scaling.offset is None else measured.get(scaling.offset)
        for parameter in scaling.parameters:
            name = parameter.tensor
            if name in self.roots or name in self.masks or name not in self.names:
                continue
            self.roots[name] = np.float32(measured[scaling.root].ravel()[0])
            if offset is not None and parameter.is_bias:
                self.offsets[name] = parameter.stored(offset.ravel(), self.graph.weights[name].shape)
