"""Repair: the means and deviations of a merged model's units brought to what they should be.

Averaged weights give activations that vary too little (Jordan et al. 2023, arXiv:2211.08403). So, on calibration
inputs, of every unit of a merged layer the mean and deviation are measured in base, donor and result. The goal is what
the table in `merge` makes of the first two, as of any value of a unit; the affine map that leads to it becomes part of
the layer's weight and bias. A BatchNormalization whose statistics were merged needs no goal: its own scale and shift
say it, once its statistics are measured anew.

What is measured depends on what was repaired before, so this goes level by level: layers with equally many repaired
ones before them are measured together, in one pass over the samples, all passes in one session, at any lambda.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mal_graph.evaluation.activation_statistics import Moments, Place, Stream, measured
from mal_graph.graph import Array, LayerGraph, unused_name, weight_of
from mal_graph.matching.canonical import Norm, Term, by_role, by_row, foldable_norm, row_vector
from mal_graph.merging.blending import Plan, Step, blended
from mal_graph.network import Layer, Parameter, find_layers, find_parameters
from mal_graph.operators import bias_slot, row_of, unit_axis
from mal_graph.protocols import Runner

Passes = Callable[[int, int], None]  # passes done, of how many


@dataclass(frozen=True)
class Goal:
    """What the units of a layer are brought to.

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
            merged_like_bias(self.step, plan, mine, theirs)
            for mine, theirs in ((self.base.mean, self.donor.mean), (self.base.sd, self.donor.sd))
        )
        return mean, sd


@dataclass(frozen=True)
class Site:
    """A place where a model is repaired.

    Attributes:
        layer: what it is called.
        node: index of the operator whose parameters are set.
        place: where its units are measured.
        scaled: parameters that are multiplied, unit by unit.
        shift: the parameter that takes what is left of the mean; None where there is none.
        statistics: mean and variance of a BatchNormalization, which are set to what is measured; no other is then.
        goal: what the units are brought to; None for statistics.
    """

    layer: str
    node: int
    place: Place
    scaled: tuple[Parameter, ...] = ()
    shift: Parameter | None = None
    statistics: tuple[Parameter, ...] = ()
    goal: Goal | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(dict.fromkeys((*self.scaled, *([self.shift] if self.shift else []), *self.statistics)))

    def repaired(self, weights: Mapping[str, Array], found: Moments, plan: Plan) -> dict[str, Array]:
        """New values of the parameters, from those that were measured with."""
        if self.goal is None:
            new = dict(zip(self.statistics, (found.mean, found.variance), strict=True))
        else:
            mean, sd = self.goal.at(plan)
            factor = np.where(found.sd > 0, sd / np.where(found.sd > 0, found.sd, 1), 1.0)
            new = {p: p.canonical(weights[p.tensor].astype(np.float64)) for p in self.parameters}
            new = {p: values * by_row(factor, values) if p in self.scaled else values for p, values in new.items()}
            if self.shift is not None:
                moved = (mean - factor * found.mean) / self.shift.factor
                new[self.shift] = new[self.shift] + moved.reshape(new[self.shift].shape)
        return {
            p.tensor: np.ascontiguousarray(p.stored(values, weights[p.tensor].shape), weights[p.tensor].dtype)
            for p, values in new.items()
        }


@dataclass(frozen=True)
class Repair:
    """What was repaired.

    Attributes:
        samples: how many calibration samples were used.
        rescaled: names of the layers that were brought to their goals.
        reset: names of the BatchNormalizations whose statistics were measured anew.
        left: why a merged layer is as merged, by its name.
    """

    samples: int
    rescaled: tuple[str, ...]
    reset: tuple[str, ...]
    left: Mapping[str, str]


def repaired(
    graph: LayerGraph,
    plan: Plan,
    donor: LayerGraph,
    arrays: Mapping[str, Array],
    runner: Runner,
    progress: Passes | None = None,
) -> tuple[LayerGraph, Repair]:
    """A merged model with the means and deviations of its units as they should be.

    Args:
        graph: what `merge` made of the plan; or the plan's base, to see what repair does alone.
        plan, donor: what was merged.
        arrays: unlabelled inputs.

    Raises:
        DataError: the arrays do not fit a model.
        RunError: a model does not run on them.
    """
    found = Repairs(graph, plan, donor, arrays, runner)
    return found.graph.with_weights(found.weights_of(plan, {}, progress)), found.done


class Repairs:
    """The repairs of one merge at any lambda: base and donor are measured once, and one session measures the merge.

    Attributes:
        graph: the model with a place for every shift.
        weights: what differs from lambda to lambda, as the model holds it.
        done: what is repaired.
    """

    def __init__(
        self,
        graph: LayerGraph,
        plan: Plan,
        donor: LayerGraph,
        arrays: Mapping[str, Array],
        runner: Runner,
        variable: Sequence[str] = (),
    ) -> None:
        """Arguments and errors as for `repaired`; weights named in `variable` are given to `weights_of`."""
        self.plan, self.graph = plan, with_shifts(graph, plan)
        targets, left = rescalings(self.graph, plan, donor)
        sites = [*with_goals(targets, left, plan, donor, arrays, runner), *resets(self.graph, plan, left)]
        self.levels = by_level(self.graph, sites)
        names = dict.fromkeys([*variable, *(p.tensor for site in sites for p in site.parameters)])
        self.stream = Stream(self.graph, arrays, runner, [site.place.tensor for site in sites], list(names))
        self.weights = {name: self.stream.fed[name] for name in names}
        rescaled = tuple(site.layer for site in sites if not site.statistics)
        reset = tuple(site.layer for site in sites if site.statistics)
        self.done = Repair(self.stream.samples, rescaled, reset, left)

    def weights_of(self, plan: Plan, moved: Mapping[str, Array], progress: Passes | None = None) -> dict[str, Array]:
        """The weights of the plan at some lambda, repaired, from what is merged there."""
        weights = {**self.weights, **moved}
        for done, level in enumerate(self.levels):
            found = measured(self.stream, [site.place for site in level], weights)
            for site in level:
                weights.update(site.repaired(weights, found[site.place], plan))
            if progress is not None:
                progress(done + 1, len(self.levels))
        return weights


def with_shifts(graph: LayerGraph, plan: Plan) -> LayerGraph:
    """The graph with a zero bias for every merged layer that lacks one and can take it."""
    found = {layer.name: layer for layer in find_layers(graph)}
    for step in weight_steps(plan):
        layer = found[step.pair.base.name]
        assert layer.weight is not None
        node = graph.nodes[graph.producer[plan.base.nodes[layer.weight.node].outputs[0]]]
        slot = bias_slot(node)
        has_shift = "bias" in by_role(layer) or foldable_norm(graph, layer) is not None
        if slot is None or has_shift or layer.weight.blocks > 1:
            continue
        zeros = np.zeros(layer.weight.units, graph.weights[layer.weight.tensor].dtype)
        name = unused_name(graph, f"{node.outputs[0]}.bias")
        graph = graph.with_inserted(weight_of(name, zeros), node.outputs[0], slot)
    return graph


def weight_steps(plan: Plan) -> list[Step]:
    """What is merged of contractions' weights; at lambda 0 nothing is."""
    return [step for step in plan.steps if step.term.is_weight and step.lam]


@dataclass(frozen=True)
class Target:
    """A site without its goals, with the donor's place that it corresponds to, and what says which units do."""

    site: Site
    donor: Place
    step: Step
    units: tuple[int, int]


def rescalings(graph: LayerGraph, plan: Plan, donor: LayerGraph) -> tuple[list[Target], dict[str, str]]:
    """The merged layers that are brought to goals, and why others are not, by name."""
    found, targets, left = {layer.name: layer for layer in find_layers(graph)}, [], {}
    applied = [parameter.tensor for parameter in find_parameters(graph)]
    for step in weight_steps(plan):
        layer, other = found[step.pair.base.name], step.pair.donor
        assert layer.weight is not None
        if other.weight is None:
            left[layer.name] = "its partner has no weight of its own"
            continue
        norm, others = foldable_norm(graph, layer), foldable_norm(donor, other)
        if norm is not None and others is not None:
            continue  # its statistics were merged, and are measured anew
        site, why = site_of(graph, layer, norm)
        theirs = output_of(donor, other, others)
        shared = next((p.tensor for p in site.parameters if applied.count(p.tensor) > 1), "") if site else ""
        if site is None or theirs is None or shared:
            left[layer.name] = f"{shared} is shared with another layer" if shared else why or "the donor's is no sum"
            continue
        targets.append(Target(site, theirs, step, (layer.weight.shape[0], other.weight.shape[0])))
    return targets, left


def site_of(graph: LayerGraph, layer: Layer, norm: Norm | None) -> tuple[Site | None, str]:
    """Where a layer is measured and what of it can be set; or why it is left."""
    place, weight, bias = output_of(graph, layer, norm), layer.weight, by_role(layer).get("bias")
    assert weight is not None
    if place is None:
        return None, "its activation is built into its operator"
    if weight.blocks > 1:
        return None, "each row of its weight makes several units"
    if norm is not None:
        return Site(layer.name, norm.scale.node, place, (norm.scale, norm.shift), norm.shift), ""
    if bias is None:
        return Site(layer.name, weight.node, place, (weight,)), ""
    if bias.shape != weight.shape[:1] and np.prod(bias.shape) != weight.shape[0]:
        return None, "its bias differs from place to place"
    if bias.node != weight.node and len(graph.consumers[graph.nodes[weight.node].outputs[0]]) > 1:
        return None, "it is read before its bias is added"
    return Site(layer.name, weight.node, place, (weight, bias), bias), ""


def output_of(graph: LayerGraph, layer: Layer, norm: Norm | None) -> Place | None:
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


def with_goals(
    targets: Sequence[Target],
    left: dict[str, str],
    plan: Plan,
    donor: LayerGraph,
    arrays: Mapping[str, Array],
    runner: Runner,
) -> Iterator[Site]:
    """The sites with their goals, measured in base and donor; what cannot be is added to `left`."""
    if not targets:
        return
    places = ([target.site.place for target in targets], [target.donor for target in targets])
    base, other = (
        measured(Stream(graph, arrays, runner, [place.tensor for place in here]), here)
        for graph, here in zip((plan.base, donor), places, strict=True)
    )
    for target in targets:
        mine, theirs = base[target.site.place], other[target.donor]
        if (mine.mean.shape, theirs.mean.shape) != ((target.units[0],), (target.units[1],)):
            left[target.site.layer] = "its units do not lie on one axis of its output"
            continue
        yield replace(target.site, goal=Goal(target.step, mine, theirs))


def merged_like_bias(step: Step, plan: Plan, mine: Array, theirs: Array) -> Array:
    """A value of every unit, merged like a bias of the layer."""
    term = Term(step.pair, row_vector(step.term.base), row_vector(step.term.donor), lambda: mine, lambda: theirs)
    return blended(mine, term, step.axes[:1], plan.alignment.orders, plan.lam_of[step.tensor], plan.unmatched)


def resets(graph: LayerGraph, plan: Plan, left: dict[str, str]) -> Iterator[Site]:
    """The BatchNormalizations whose statistics were merged; why one cannot be measured anew is added to `left`."""
    merged = {step.tensor for step in plan.steps if step.lam}
    applied = find_parameters(graph)
    tensors = [parameter.tensor for parameter in applied]
    found: dict[int, dict[str, Parameter]] = {}
    for parameter in applied:
        found.setdefault(parameter.node, {})[parameter.role] = parameter
    for index, own in found.items():
        node = graph.nodes[index]
        row = row_of(node)
        if (
            row is None
            or not row.is_batch_norm
            or not {"mean", "variance"} <= set(own)
            or own["variance"].tensor not in merged
        ):
            continue
        statistics = (own["mean"], own["variance"])
        shared = next((p.tensor for p in statistics if tensors.count(p.tensor) > 1), "")
        if shared:
            left[node.name] = f"{shared} is shared with another layer"
        elif row.has_stored_statistics(node):  # then the statistics are those of the batch anyway
            yield Site(node.name, index, Place(node.inputs[0], row.channel), statistics=statistics)


def by_level(graph: LayerGraph, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites by how many others lie before them on the longest way."""
    at = {site.node: site for site in sites}
    depth: dict[str, int] = {}
    levels: dict[int, list[Site]] = {}
    for index, node in enumerate(graph.nodes):
        before = max((depth.get(name, 0) for name in (*node.inputs, *node.captures)), default=0)
        if index in at:
            levels.setdefault(before, []).append(at[index])
        depth.update(dict.fromkeys(node.outputs, before + (index in at)))
    return [levels[level] for level in sorted(levels)]
