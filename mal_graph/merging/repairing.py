"""Repair: the merged model's units rescaled to the means and deviations that they should have (REPAIR).

Averaged weights give activations that vary too little (Jordan et al. 2023, arXiv:2211.08403). So, on calibration
inputs, mean and deviation of every unit of a merged layer are measured in base, donor and result. The target statistics
are what the table in `unmatched` makes of the first two, as of any value of a unit; the affine map that leads to them
becomes part of the layer's weight and bias. A BatchNormalization whose statistics were merged needs no target: its own
scale and shift are one, once its statistics are measured anew.

What is measured depends on what was repaired before, so this goes level by level: layers with equally many repaired
ones before them are measured together. What they gave is rescaled as they are, and the samples go on from there: no
operator is run twice, as long as memory holds what stands between two levels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mal_graph.evaluation import (
    Moments,
    Place,
    Stream,
    Walk,
    calibration_inputs,
    find_walk_batches,
    measure,
    measure_next,
)
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import BatchNorm, TensorPair, by_role, by_row, find_foldable_norm, row_vector
from mal_graph.merging.blending import blend
from mal_graph.merging.planning import Plan, Step
from mal_graph.merging.slots import with_zero_bias
from mal_graph.merging.unmatched import find_rule
from mal_graph.network import Layer, Parameter, find_layers, find_parameters
from mal_graph.operators import row_of, unit_axis
from mal_graph.protocols import Runner

IN_A_BODY = "it stands in a body, which runs for some inputs only, or several times"
Passes = Callable[[int, int], None]  # passes done, of how many


@dataclass(frozen=True)
class TargetStatistics:
    """The means and deviations that the units of a layer are to have.

    Attributes:
        step: how its weight is merged.
        base, donor: what its units do there.
    """

    step: Step
    base: Moments
    donor: Moments

    def at(self, plan: Plan) -> tuple[Array, Array]:
        """Mean and deviation of every unit, as the plan merges them."""
        mean, sd = (
            merge_like_bias(self.step, plan, mine, theirs)
            for mine, theirs in ((self.base.mean, self.donor.mean), (self.base.sd, self.donor.sd))
        )
        return mean, sd


@dataclass(frozen=True)
class Rescale:
    """What becomes of units: `factor * values + shift`, both of shape (units,)."""

    factor: Array
    shift: Array

    def of(self, values: Array, axis: int) -> Array:
        """Values of the units on one axis, in their type."""
        shape = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
        exact = np.result_type(values.dtype, np.float32)
        factor, shift = (part.astype(exact).reshape(shape) for part in (self.factor, self.shift))
        new: Array = (values * factor + shift).astype(values.dtype, copy=False)
        return new


@dataclass(frozen=True)
class RescaledLayer:
    """A layer or a BatchNormalization that is repaired.

    Attributes:
        layer: what it is called.
        node: index of the operator whose parameters are set.
        place: where its units are measured.
        scaled: parameters that are multiplied, unit by unit.
        shift: the parameter that takes what is left of the mean; None where there is none.
        statistics: mean and variance of a BatchNormalization, which are set to what is measured; no other is then.
        target: the statistics that the units are to have; None for a BatchNormalization.
    """

    layer: str
    node: int
    place: Place
    scaled: tuple[Parameter, ...] = ()
    shift: Parameter | None = None
    statistics: tuple[Parameter, ...] = ()
    target: TargetStatistics | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(dict.fromkeys((*self.scaled, *([self.shift] if self.shift else []), *self.statistics)))

    def find_rescale(self, measured: Moments, plan: Plan) -> Rescale | None:
        """What brings the units to the statistics that they are to have; constant ones keep their deviation, and those
        of a layer without a shift their share of the mean. None for a BatchNormalization."""
        if self.target is None:
            return None
        mean, sd = self.target.at(plan)
        varies = measured.sd > 0
        factor = np.where(varies, sd / np.where(varies, measured.sd, 1), 1.0)
        return Rescale(factor, mean - factor * measured.mean if self.shift is not None else np.zeros_like(factor))

    def repair(self, weights: Mapping[str, Array], measured: Moments, rescale: Rescale | None) -> dict[str, Array]:
        """New values of the parameters, from those that were measured with."""
        if rescale is None:
            new = dict(zip(self.statistics, (measured.mean, measured.variance), strict=True))
        else:
            new = self.rescaled(weights, rescale)
        return {
            p.tensor: np.ascontiguousarray(p.stored(values, weights[p.tensor].shape), weights[p.tensor].dtype)
            for p, values in new.items()
        }

    def rescaled(self, weights: Mapping[str, Array], rescale: Rescale) -> dict[Parameter, Array]:
        """The parameters, canonical, with which the units are rescaled."""
        new = {p: p.canonical(weights[p.tensor].astype(np.float64)) for p in self.parameters}
        for p in self.scaled:
            new[p] = new[p] * by_row(rescale.factor, new[p].shape)
        if self.shift is not None:
            new[self.shift] = new[self.shift] + (rescale.shift / self.shift.factor).reshape(new[self.shift].shape)
        return new


@dataclass(frozen=True)
class Repair:
    """What was repaired.

    Attributes:
        samples: how many calibration samples were used; 0 where nothing was measured (see `variances`).
        rescaled: names of the layers that have their target statistics now.
        reset: names of the BatchNormalizations whose statistics were measured anew; where nothing was measured, of the
            layers behind which one got the variance that is expected.
        left: why a merged layer is as merged, by its name.
    """

    samples: int
    rescaled: tuple[str, ...]
    reset: tuple[str, ...]
    left: Mapping[str, str]

    @property
    def is_measured(self) -> bool:
        """Whether it follows from what was measured on inputs."""
        return self.samples > 0


def repair(
    graph: LayerGraph, plan: Plan, arrays: Mapping[str, Array], runner: Runner, progress: Passes | None = None
) -> tuple[LayerGraph, Repair]:
    """Rescale the units of a merged model to the means and deviations that they should have.

    Args:
        graph: what `merge` made of the plan; or the plan's base, to see what repair does alone.
        plan: what was merged.
        arrays: unlabelled inputs.

    Raises:
        DataError: the arrays do not fit a model.
        RunError: a model does not run on them.
    """
    repairs = Repairs(graph, plan, arrays, runner)
    return repairs.graph.with_weights(repairs.weights_of(plan, {}, progress)), repairs.done


def measure_norms(
    graph: LayerGraph, plans: Sequence[Plan], arrays: Mapping[str, Array], runner: Runner
) -> tuple[LayerGraph, Repair | None]:
    """Measure the statistics of BatchNormalizations anew that were merged by some plans, and repair nothing else; None
    where there are none. Raises DataError or RunError."""
    left: dict[str, str] = {}
    resets = {layer.node: layer for plan in plans for layer in find_resets(graph, plan, left)}
    if not resets:
        return graph, None
    layers = list(resets.values())
    levels = Levels(graph, layers, arrays, runner)
    new = levels.repaired(plans[0], levels.weights)
    return graph.with_weights(new), Repair(levels.walk.samples, (), tuple(layer.layer for layer in layers), left)


class Levels:
    """The layers that are repaired, level by level, on samples that go through the model once.

    Attributes:
        walk: the samples on their way.
        weights: what is repaired, and what else the walk was told of, as the model holds it.
    """

    def __init__(
        self,
        graph: LayerGraph,
        layers: Sequence[RescaledLayer],
        arrays: Mapping[str, Array],
        runner: Runner,
        variable: Sequence[str] = (),
    ) -> None:
        """Weights named in `variable` are given to `repaired`. Raises DataError."""
        self.levels = by_level(graph, layers)
        names = list(dict.fromkeys([*variable, *(p.tensor for layer in layers for p in layer.parameters)]))
        self.walk = Walk(graph, arrays, runner, [[layer.place.tensor for layer in own] for own in self.levels], names)
        self.weights = {name: self.walk.fed[name] for name in names}
        self.batches: list[slice] = []

    def repaired(self, plan: Plan, weights: Mapping[str, Array], progress: Passes | None = None) -> dict[str, Array]:
        """The weights repaired, at the plan's lambda. Raises RunError."""
        new = dict(weights)
        self.batches = self.batches or find_walk_batches([self.walk])
        self.walk.begin()
        for done, level in enumerate(self.levels):
            moments = measure_next(self.walk, self.batches, [layer.place for layer in level], new)
            for layer in level:
                rescale = layer.find_rescale(moments[layer.place], plan)
                new |= layer.repair(new, moments[layer.place], rescale)
                if rescale is not None:
                    self.walk.change(layer.place.tensor, partial(rescale.of, axis=layer.place.axis))
            if progress is not None:
                progress(done + 1, len(self.levels))
        return new


class Repairs:
    """The repairs of one merge at any lambda: base and donor are measured once, and the merge in one set of sessions.

    Attributes:
        graph: the model with a place for every shift.
        weights: what differs from lambda to lambda, as the model holds it.
        done: what is repaired.
    """

    def __init__(
        self,
        graph: LayerGraph,
        plan: Plan,
        arrays: Mapping[str, Array],
        runner: Runner,
        variable: Sequence[str] = (),
    ) -> None:
        """Arguments and errors as for `repair`; weights named in `variable` are given to `weights_of`."""
        self.plan, self.graph = plan, with_shifts(graph, plan)
        rescalings, left = find_rescalings(self.graph, plan)
        layers = [*with_targets(rescalings, left, plan, arrays, runner), *find_resets(self.graph, plan, left)]
        self.levels = Levels(self.graph, layers, arrays, runner, variable)
        self.weights = self.levels.weights
        rescaled = tuple(layer.layer for layer in layers if not layer.statistics)
        reset = tuple(layer.layer for layer in layers if layer.statistics)
        self.done = Repair(self.levels.walk.samples, rescaled, reset, left)

    def weights_of(self, plan: Plan, moved: Mapping[str, Array], progress: Passes | None = None) -> dict[str, Array]:
        """The weights of the plan at some lambda, repaired, from what is merged there."""
        return self.levels.repaired(plan, {**self.weights, **moved}, progress)


def with_shifts(graph: LayerGraph, plan: Plan) -> LayerGraph:
    """The graph with a zero bias for every merged layer that lacks one and can take it."""
    layers = {layer.name: layer for layer in find_layers(graph)}
    for step in weight_steps(plan):
        layer = layers[step.pair.layer]
        assert layer.weight is not None
        has_shift = "bias" in by_role(layer) or find_foldable_norm(graph, layer) is not None
        is_measured = graph.inner.isdisjoint(graph.nodes[layer.weight.node].outputs)
        if not has_shift and is_measured and layer.weight.blocks == 1:
            graph = with_zero_bias(graph, layer.weight)
    return graph


def weight_steps(plan: Plan) -> list[Step]:
    """What is merged of contractions' weights; at lambda 0 nothing is."""
    return [step for step in plan.steps if step.pair.is_weight and step.lam]


@dataclass(frozen=True)
class Rescaling:
    """A layer to be rescaled, with the donor's place that it corresponds to, how its weight is merged, and how many
    units the base and the donor have there."""

    layer: RescaledLayer
    donor: Place
    step: Step
    units: tuple[int, int]


def find_rescalings(graph: LayerGraph, plan: Plan) -> tuple[list[Rescaling], dict[str, str]]:
    """The merged layers that get target statistics, and why others do not, by name."""
    layers = {layer.name: layer for layer in find_layers(graph)}
    applied = [parameter.tensor for parameter in find_parameters(graph)]
    rescalings: list[Rescaling] = []
    left: dict[str, str] = {}
    for step in weight_steps(plan):
        layer, other = layers[step.pair.layer], step.layers.donor
        assert layer.weight is not None
        if other.weight is None:
            left[layer.name] = "its partner has no weight of its own"
            continue
        norm, others = find_foldable_norm(graph, layer), find_foldable_norm(plan.donor.graph, other)
        if norm is not None and others is not None:
            continue  # its statistics were merged, and are measured anew
        rescaled = find_rescaled_layer(graph, layer, norm)
        theirs = output_of(plan.donor.graph, other, others)
        if isinstance(rescaled, str):
            left[layer.name] = rescaled
        elif shared := next((p.tensor for p in rescaled.parameters if applied.count(p.tensor) > 1), ""):
            left[layer.name] = f"{shared} is shared with another layer"
        elif theirs is None:
            left[layer.name] = "the donor's is no sum"
        elif rescaled.place.tensor in graph.inner or theirs.tensor in plan.donor.graph.inner:
            left[layer.name] = IN_A_BODY
        else:
            units = layer.weight.shape[0], other.weight.shape[0]
            rescalings.append(Rescaling(rescaled, theirs, step, units))
    return rescalings, left


def find_rescaled_layer(graph: LayerGraph, layer: Layer, norm: BatchNorm | None) -> RescaledLayer | str:
    """Where a layer is measured and what of it can be set; or why it is left."""
    place, weight, bias = output_of(graph, layer, norm), layer.weight, by_role(layer).get("bias")
    assert weight is not None
    if place is None:
        return "its activation is built into its operator"
    if weight.blocks > 1:
        return "each row of its weight makes several units"
    if norm is not None:
        return RescaledLayer(layer.name, norm.scale.node, place, (norm.scale, norm.shift), norm.shift)
    if bias is None:
        return RescaledLayer(layer.name, weight.node, place, (weight,))
    if bias.shape != weight.shape[:1] and np.prod(bias.shape) != weight.shape[0]:
        return "its bias differs from place to place"
    if bias.node != weight.node and len(graph.consumers[graph.nodes[weight.node].outputs[0]]) > 1:
        return "it is read before its bias is added"
    return RescaledLayer(layer.name, weight.node, place, (weight, bias), bias)


def output_of(graph: LayerGraph, layer: Layer, norm: BatchNorm | None) -> Place | None:
    """What a layer gives before its activation: behind its bias and its BatchNormalization; None where the activation
    is part of the operator."""
    assert layer.weight is not None
    node = graph.nodes[layer.weight.node]
    row = row_of(node)
    if row is None or not row.is_linear:
        return None
    bias = by_role(layer).get("bias")
    last = norm.shift.node if norm is not None else bias.node if bias is not None else layer.weight.node
    axis = unit_axis(node, layer.weight.slot, len(layer.weight.shape))
    return Place(graph.nodes[last].outputs[0], axis)


def with_targets(
    rescalings: Sequence[Rescaling],
    left: dict[str, str],
    plan: Plan,
    arrays: Mapping[str, Array],
    runner: Runner,
) -> Iterator[RescaledLayer]:
    """The layers with their target statistics, measured in base and donor; what cannot be is added to `left`."""
    if not rescalings:
        return
    places = ([one.layer.place for one in rescalings], [one.donor for one in rescalings])
    own = calibration_inputs(plan.base, arrays)
    given = own, plan.alignment.correspondence.signatures.for_donor(own)
    base, donor = (
        measure(Stream(graph, fed, runner, [place.tensor for place in here]), here)
        for graph, fed, here in zip((plan.base, plan.donor.graph), given, places, strict=True)
    )
    for one in rescalings:
        mine, theirs = base[one.layer.place], donor[one.donor]
        if (mine.mean.shape, theirs.mean.shape) != ((one.units[0],), (one.units[1],)):
            left[one.layer.layer] = "its units do not lie on one axis of its output"
            continue
        yield replace(one.layer, target=TargetStatistics(one.step, mine, theirs))


def merge_like_bias(step: Step, plan: Plan, mine: Array, theirs: Array) -> Array:
    """A value of every unit, merged like a bias of the layer."""
    rows = row_vector(step.pair.base), row_vector(step.pair.donor)
    pair = TensorPair(step.layers, *rows, lambda: mine, lambda: theirs)
    rule = find_rule(plan.unmatched)
    return blend(mine, pair, step.axes[:1], plan.alignment.orders, plan.lam_of[step.tensor], rule)


def find_resets(graph: LayerGraph, plan: Plan, left: dict[str, str]) -> Iterator[RescaledLayer]:
    """The BatchNormalizations whose statistics were merged; why one cannot be measured anew is added to `left`."""
    merged = {step.tensor for step in plan.steps if step.lam}
    applied = find_parameters(graph)
    tensors = [parameter.tensor for parameter in applied]
    by_node: dict[int, dict[str, Parameter]] = {}
    for parameter in applied:
        by_node.setdefault(parameter.node, {})[parameter.role] = parameter
    for index, own in by_node.items():
        node, row = graph.nodes[index], row_of(graph.nodes[index])
        if row is None or not row.is_batch_norm or not {"mean", "variance"} <= set(own):
            continue
        if own["variance"].tensor not in merged:
            continue
        statistics = (own["mean"], own["variance"])
        shared = next((p.tensor for p in statistics if tensors.count(p.tensor) > 1), "")
        if shared:
            left[node.name] = f"{shared} is shared with another layer"
        elif node.inputs[0] in graph.inner:
            left[node.name] = IN_A_BODY
        elif row.has_stored_statistics(node):  # else the statistics are those of the batch anyway
            yield RescaledLayer(node.name, index, Place(node.inputs[0], row.channel), statistics=statistics)


def by_level(graph: LayerGraph, layers: Sequence[RescaledLayer]) -> list[list[RescaledLayer]]:
    """The layers by how many others lie before them on the longest way."""
    at = {layer.node: layer for layer in layers}
    depth: dict[str, int] = {}
    levels: dict[int, list[RescaledLayer]] = {}
    for index, node in enumerate(graph.nodes):
        before = max((depth.get(name, 0) for name in (*node.inputs, *node.captures)), default=0)
        if index in at:
            levels.setdefault(before, []).append(at[index])
        depth.update(dict.fromkeys(node.outputs, before + (index in at)))
    return [levels[level] for level in sorted(levels)]
