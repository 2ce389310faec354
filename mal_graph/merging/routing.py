"""A result that gives each sample weights of its own: its router is a part of it.

For each sample the network runs twice. In the first run a router looks at what a merged layer reads, as the mean over
all places; the weights it gives to the models say how much of each one's expert is added to every tensor of the second
run. What the router sees and what it gives is computed as it is in the result, when it is fitted and judged too.

Statistics that a norm has measured are averaged by the same weights, which then sum to one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.errors import DataError, MatchError
from mal_graph.evaluation import Stream, data_slot, find_batches, find_weight_inputs
from mal_graph.graph import LayerGraph, Value, Weight
from mal_graph.merging.experts import Packed, pack
from mal_graph.merging.gates import GATES, Evidence, Write
from mal_graph.merging.input_moments import Inputs
from mal_graph.merging.per_sample import PerSample, SamplePlaces, find_places
from mal_graph.merging.stacking import (
    LearnedWeights,
    Routed,
    Stacking,
    first_layer,
    first_step,
    in_float,
    refuse_settings_of_nothing,
    stack_merge,
)
from mal_graph.methods import Gate, MergeMethod, Routing, find_method, resolve
from mal_graph.network import Parameter
from mal_graph.operators import summed_axis
from mal_graph.protocols import Runner

FLOAT = np.dtype(np.float32)
LEAST_STRENGTH = 1e-6  # of the strongest direction that a model has learned; what is less is rounding
MOST_FITTED = 1024  # inputs of each model that a router is made of


@dataclass(frozen=True, repr=False)
class Feature(Brief):
    """What a router looks at.

    Attributes:
        weight: the tensor that is multiplied with it.
        parameter: where that is applied.
        tensor: where it lies.
        axis, rank: the axis of the units, and how many axes there are.
    """

    weight: str
    parameter: Parameter
    tensor: str
    axis: int
    rank: int

    @property
    def units(self) -> int:
        """How many there are."""
        return self.parameter.shape[1]


@dataclass(frozen=True, repr=False)
class Routable(Brief):
    """A stacking whose method routes.

    Attributes:
        stacking: what becomes of the tensors.
        inputs: of each model that is merged, by its number, arrays by the base's names; {} for a router without.
        runner: runs the models.
    """

    stacking: Stacking
    inputs: Mapping[int, Inputs]
    runner: Runner

    @property
    def method(self) -> MergeMethod:
        return self.stacking.method

    @property
    def routing(self) -> Routing:
        """How weights are given."""
        assert self.method.routing is not None
        return self.method.routing

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The parameters of the method that are for all tensors."""
        own = [setting for setting in self.stacking.settings if not setting.where]
        return resolve(self.method, own, self.stacking.numbers, (), 0.0)

    @np.errstate(all="ignore")  # what overflows is found, and said
    def made(self) -> tuple[LayerGraph, Routed]:
        """The result, and what it routes. Raises as `route`."""
        if not self.experts:
            return self.shared, Routed((), f"all models have learned the same: {self.method.name} needs no router")
        told = ""
        if self.routing.takes_inputs:
            right = self.told_right()
            told = f"; it gives most to the model whose inputs they are for {right:.0%} of inputs it was not fitted on"
        graph = self.with_gate(self.gate(self.features()))
        count, size = len(self.experts), sum(one.nbytes for several in self.experts.values() for one in several)
        whole = sum(self.stacking.base.weights[name].nbytes for name in self.experts) * len(self.stacking.numbers)
        packed = f"{count} tensors have experts, which take {size / whole:.0%} of their size"
        return graph, Routed(tuple(self.experts), f"{self.method.name} put in a router{told}; {packed}")

    # --- what the result is made of -----------------------------------------------------------------------------------

    @cached_property
    def shared(self) -> LayerGraph:
        """What all samples share: the result where no model has a weight."""
        nothing = np.zeros(1 + len(self.stacking.plans))
        names = {first_layer(steps).name for steps in self.stacking.tensors.values()}
        return stack_merge(replace(self.stacking, learned=LearnedWeights(dict.fromkeys(names, nothing))))

    @cached_property
    def first(self) -> LayerGraph:
        """What the first run is of."""
        if not self.routing.first:
            return self.shared
        return stack_merge(replace(self.stacking, method=find_method(self.routing.first), settings=()))

    @cached_property
    def experts(self) -> Mapping[str, tuple[Packed, ...]]:
        """By tensor what the expert of each model that is merged adds; without those to which none adds anything."""
        experts = {}
        for tensor in self.stacking.tensors:
            own, added = self.stacking.values_of(tensor), dict[int, Array]()
            for number, values in zip(own.numbers, own.added(), strict=True):
                if not np.isfinite(values).all():
                    raise MatchError(
                        f"{self.method.name} gives numbers without end for {tensor!r}: give other parameters"
                    )
                added[number] = values
            if any(values.any() for values in added.values()):
                weight = own.weight
                empty = np.zeros(weight.shape)
                kind = in_float(np.zeros((), weight.dtype)).dtype
                experts[tensor] = tuple(pack(added.get(number, empty), kind) for number in self.stacking.numbers)
        return experts

    @cached_property
    def places(self) -> SamplePlaces:
        """Where the base holds samples. Raises MatchError or RunError."""
        probed = self.stacking.plans[0].alignment.correspondence.base.probe
        return find_places(self.stacking.base, probed, self.runner)

    @cached_property
    def feature(self) -> Feature:
        """What a router looks at: what the last layer reads, of those that have most directions where these are what it
        goes by. Raises MatchError."""
        base, shapes = self.stacking.base, self.stacking.plans[0].alignment.correspondence.base.probe.shapes
        found: dict[tuple[int, int], Feature] = {}
        for tensor, steps in self.stacking.tensors.items():
            weight = first_step(steps).pair.base
            for one in find_weight_inputs(base, weight) if weight.is_weight else ():
                shape, units = shapes.get(one.tensor, ()), weight.shape[1]
                if one.blocks > 1 or prod(weight.shape[2:]) > 1 or len(shape) < 2:
                    continue
                axis = 1 if one.window is not None else summed_axis(one.node, data_slot(one.parameter), len(shape))
                if shape[axis % len(shape)] == units:
                    directions = min(weight.shape[0], units) if self.routing.gate is Gate.DIRECTIONS else 0
                    place = directions, base.producer[one.node.outputs[0]]
                    found[place] = Feature(tensor, one.parameter, one.tensor, axis % len(shape), len(shape))
        if not found:
            raise MatchError(
                f"{self.method.name} finds no linear layer of {base.name} that is merged and shows what it reads: give "
                "a `method` without a router"
            )
        return found[max(found)]

    # --- the router ---------------------------------------------------------------------------------------------------

    def gate(self, features: Sequence[Array]) -> Write:
        """The router of what the inputs of each model become."""
        directions = self.directions() if not self.routing.takes_inputs else ()
        return GATES[self.routing.gate](Evidence(features, directions, self.values))

    def directions(self) -> list[Array]:
        """What each model has learned of what the router looks at: directions of its expert there, as rows."""
        own, feature = self.stacking.values_of(self.feature.weight), self.feature
        found = {number: np.zeros((0, feature.units)) for number in self.stacking.numbers}
        for number, values in zip(own.numbers, own.added(), strict=True):
            matrix = own.parameter.canonical(values).reshape(-1, feature.units)
            _, strengths, rows = np.linalg.svd(matrix, full_matrices=False)
            found[number] = rows[strengths > LEAST_STRENGTH * strengths.max(initial=0)]
        return list(found.values())

    def features(self, which: slice = slice(MOST_FITTED)) -> list[Array]:
        """What some inputs of each model become in the first run, each of shape (samples, units)."""
        return self.run_each(self.router(None), which) if self.routing.takes_inputs else []

    def told_right(self) -> float:
        """For what share of inputs a router made of every other one gives most to the model whose they are."""
        gate = self.gate(self.features(slice(0, MOST_FITTED, 2)))
        given = self.run_each(self.router(gate), slice(1, MOST_FITTED, 2))
        return float(np.mean([(own.argmax(axis=1) == place).mean() for place, own in enumerate(given)]))

    def run_each(self, graph: LayerGraph, which: slice) -> list[Array]:
        """What a network of one output gives on some inputs of each model. Raises DataError or RunError."""
        (output,), each = [value.name for value in graph.outputs], []
        for number in self.stacking.numbers:
            stream = Stream(graph, self.inputs[number], self.runner, [output])
            chosen = np.arange(stream.samples)[which]
            batches = find_batches([(stream, [output])])
            parts = [chosen[(chosen >= batch.start) & (chosen < batch.stop)] for batch in batches]
            values = np.concatenate([stream.read(part, [output])[output] for part in parts if len(part)])
            if not np.isfinite(values).all():
                raise DataError(
                    f"{self.method.name} gives numbers without end in its first run on inputs that its router is made "
                    "of: give other parameters, or other inputs"
                )
            each.append(values)
        return each

    def first_run(self) -> tuple[PerSample, dict[str, str], str]:
        """A network with the first run, what its inputs are called, and what a router looks at there."""
        body, feature = PerSample(self.stacking.base, self.places), self.feature
        known = body.begin()
        seen = body.put(self.first, "first", [feature.tensor], known)[feature.tensor]
        if feature.axis < feature.rank - 1:
            order = [axis for axis in range(feature.rank) if axis != feature.axis]
            seen = body.add("router/last", "Transpose", (seen,), perm=[*order, feature.axis])
        rows = body.add("router/rows", "Reshape", (seen, body.store("router/units", np.array([-1, feature.units]))))
        kind = self.stacking.base.weights[feature.weight].dtype
        return body, known, body.along("router/seen", "ReduceMean", body.in_type("router/cast", rows, kind, FLOAT), 0)

    def router(self, gate: Write | None) -> LayerGraph:
        """A network that gives the weights of a router, shape (samples, models); without one, what it would look at."""
        body, _, seen = self.first_run()
        width = self.feature.units if gate is None else len(self.stacking.numbers)
        value = Value("router", FLOAT.name, (None, width))
        return body.finished({value.name: seen if gate is None else gate(body, seen)}, [value])

    def with_gate(self, gate: Write) -> LayerGraph:
        """The result with a router."""
        body, known, seen = self.first_run()
        weights = gate(body, seen)
        total = body.add("router/total", "MatMul", (weights, body.store("router/ones", ones(self.stacking.numbers))))
        shares = body.add("router/shares", "Div", (weights, total))
        for tensor, several in self.experts.items():
            is_statistic = self.stacking.values_of(tensor).rule.is_statistic
            known[tensor] = add_experts(body, self.shared.weights[tensor], several, shares if is_statistic else weights)
        outputs = self.stacking.base.outputs
        names = body.put(self.shared, "second", [value.name for value in outputs], known)
        return body.finished({value.name: names[value.name] for value in outputs}, outputs)


def ones(numbers: Sequence[int]) -> Array:
    """What sums up the weights of some models."""
    return np.ones((len(numbers), 1), np.float32)


def add_experts(body: PerSample, shared: Weight, experts: Sequence[Packed], weights: str) -> str:
    """What a tensor is for one sample: what is shared, and the expert of each model times its weight."""
    name, kind = shared.name, in_float(np.zeros((), shared.dtype)).dtype
    rows = [one.write(body, f"experts/{number}/{name}") for number, one in enumerate(experts)]
    table = body.prepare(f"experts/{name}", "Concat", rows, axis=0)  # (models, numbers)
    own = body.in_type(f"shared/{name}", body.keep(shared, "second"), shared.dtype, kind, outside=True)
    share = body.in_type(f"weights/{name}", weights, FLOAT, kind)
    summed = body.add(f"summed/{name}", "MatMul", (share, table))
    shape = body.store(f"shape/{name}", np.array(shared.shape, np.int64))
    whole = body.add(f"whole/{name}", "Add", (own, body.add(f"added/{name}", "Reshape", (summed, shape))))
    return body.in_type(f"own/{name}", whole, kind, shared.dtype)


def route(stacking: Stacking, inputs: Mapping[int, Inputs], runner: Runner) -> tuple[LayerGraph, Stacking]:
    """The result of a method that routes, and the stacking with what is to be said of it.

    Args:
        inputs: of each model that is merged, by its number, arrays by the base's names; {} for a router without.

    Raises:
        UsageError: as `stack_merge`.
        MatchError: the base cannot run samples one at a time, or shows a router nothing.
        DataError, RunError: a model does not run on its inputs, or gives numbers without end.
    """
    refuse_settings_of_nothing(stacking)
    graph, routed = Routable(stacking, inputs, runner).made()
    return graph, replace(stacking, routed=routed)
