"""What will be done to every tensor of the base; nothing is computed yet."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.graph import LayerGraph
from mal_graph.matching import (
    Alignment,
    AxisPair,
    Correspondence,
    LayerPair,
    Match,
    Orders,
    TensorPair,
    match_positions,
    tie_conflict,
)
from mal_graph.merging.lambdas import LayerLambdas
from mal_graph.merging.masks import find_other_masks
from mal_graph.merging.unmatched import find_rule
from mal_graph.operators import norm_epsilon, row_of
from mal_graph.symmetry import Network

EPSILON = "epsilon"
Ends = tuple[float, float]  # what a number is for the base, and what for the donor


@dataclass(frozen=True, repr=False)
class Step(Brief):
    """What happens to one tensor of the base.

    Attributes:
        tensor: its name.
        matched: the share of its entries that have a donor entry.
        nbytes: how much is written.
        pair, axes: what is merged, and how its axes correspond.
        lam: its merging factor.
        is_given: whether it is the donor's at any lambda (see `deepening`).
    """

    tensor: str
    matched: float
    nbytes: int
    pair: TensorPair
    axes: tuple[AxisPair, ...]
    lam: float
    is_given: bool = False

    @property
    def layers(self) -> LayerPair:
        """The two layers whose tensors are merged, as they were when these were compared."""
        return self.pair.layers

    @property
    def size(self) -> int:
        """How many numbers are merged."""
        return prod(self.pair.base.shape)


@dataclass(frozen=True)
class Growth:
    """What was widened before a merge.

    Attributes:
        added: how many units, by index of the base's group.
        kept: why a group keeps its width though the donor's has more units, or what is taken over its units is not
            compensated though the donor's has fewer, by index.
        factors: by name of a constant that a statistic is multiplied by, what it is for the base and for the donor.
        settings: by (name of a node, attribute) what it holds for the base and for the donor.
    """

    added: Mapping[int, int] = field(default_factory=dict)
    kept: Mapping[int, str] = field(default_factory=dict)
    factors: Mapping[str, Ends] = field(default_factory=dict)
    settings: Mapping[tuple[str, str], Ends] = field(default_factory=dict)

    @property
    def is_none(self) -> bool:
        """Whether the base is as it was."""
        return not (self.added or self.factors or self.settings)


@dataclass(frozen=True, repr=False)
class Plan(Brief):
    """What will be done, tensor by tensor; nothing is computed yet.

    Attributes:
        base: the model that gives the graph.
        match, alignment: what the plan was made from.
        lambdas: the merging factors that were asked for; each step has its own.
        unmatched: what entries without a partner become: "keep", "fade" or "zero".
        steps: in the order of the base's layers.
        skipped: why a layer of the base keeps its weights, by its name.
        dropped: tensors of matched layers that keep the base's values, with reasons, by name of the layer.
        missing: what one of two matched layers holds without a counterpart, by name of the layer.
        settings: by (name of a node, attribute) what it holds for the base and for the donor, where they differ and the
            number goes along with the weights of its operator: the epsilon of a norm.
        growth: what of `base` was widened for this merge.
    """

    base: LayerGraph
    match: Match
    alignment: Alignment
    lambdas: LayerLambdas
    unmatched: str
    steps: tuple[Step, ...]
    skipped: Mapping[str, str]
    dropped: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[tuple[str, str], Ends] = field(default_factory=dict)
    growth: Growth = field(default_factory=Growth)

    @property
    def donor(self) -> Network:
        """The model whose values enter."""
        return self.alignment.correspondence.donor

    def at(self, lam: float) -> "Plan":
        """The same plan with one merging factor for all layers."""
        steps = tuple(step if step.is_given else replace(step, lam=lam) for step in self.steps)
        return replace(self, lambdas=LayerLambdas.of(lam), steps=steps)

    @property
    def all_settings(self) -> Mapping[tuple[str, str], Ends]:
        """Every number of an operator's own that goes with lambda; where the base grew, what it grew by decides."""
        return {**self.settings, **self.growth.settings}

    @property
    def is_moving(self) -> bool:
        """Whether anything is merged at all: at lambda 0 nothing is."""
        return any(step.lam for step in self.steps)

    @cached_property
    def lam_of(self) -> Mapping[str, float]:
        """The merging factor of each tensor that is merged."""
        return {step.tensor: step.lam for step in self.steps}

    @property
    def mean_lam(self) -> float:
        """Over all parameters that are merged."""
        sizes = [step.size for step in self.steps]
        if self.lambdas.is_uniform or not sum(sizes):
            return self.lambdas.mean
        return float(np.average([step.lam for step in self.steps], weights=sizes))

    @property
    def merged_pairs(self) -> list[LayerPair]:
        """The pairs of layers that are merged, as they are in `base`."""
        merged = {step.pair.layer for step in self.steps}
        return [pair for pair in self.match.pairs if pair.base.name in merged]

    @property
    def merged_parameters(self) -> int:
        """How many numbers of the file are merged; what several layers read of one tensor counts once."""
        return sum(step.size for step in self.steps if step.tensor not in self.base.copies)

    @property
    def peak_bytes(self) -> int:
        """Memory of the largest step: base, donor and result in float32."""
        return max((3 * 4 * step.size for step in self.steps), default=0)


def plan_merge(
    alignment: Alignment,
    lambdas: LayerLambdas,
    *,
    unmatched: str = "fade",
    layers: Iterable[str] | None = None,
    given: Collection[str] = (),
    kept: Mapping[str, str] | None = None,
) -> Plan:
    """Plan the merge of two networks whose units are assigned.

    Args:
        alignment: the assignment, with what it is of.
        lambdas: the merging factors of the base's layers.
        unmatched: what entries without a partner become: "keep", "fade" or "zero" (see `unmatched`).
        layers: names of the base layers to merge, all of them if left out.
        given: stored tensors that are the donor's whatever lambda, unless unmatched is "zero" (see `deepening`).
        kept: why a layer keeps the base's weights, by its name, where that was found out by running a merge.

    Raises:
        UsageError: `unmatched` is unknown, or the lambdas do not fit the layers.
    """
    rule, correspondence = find_rule(unmatched), alignment.correspondence
    base, match = correspondence.base.graph, correspondence.match
    lam_of = lambdas.of_layers(match.base)
    skipped = skipped_layers(correspondence, None if layers is None else set(layers))
    others = find_other_masks(correspondence, alignment.orders)
    skipped |= {layer: why for layer, why in others.items() if layer not in skipped}
    skipped |= kept or {}
    dropped = {layer: lines for layer, lines in correspondence.dropped.items() if layer not in skipped}
    steps = []
    for pair, axes in correspondence.tensors:
        if pair.layer in skipped:
            continue
        if shared := tie_conflict(match, pair, skipped):
            dropped[pair.layer] = (*dropped.get(pair.layer, ()), f"{pair.base.role} {pair.base.tensor}: {shared}")
            continue
        is_given = pair.base.tensor in given and rule.gives_added
        lam = 1.0 if is_given else lam_of[pair.layer]
        steps.append(plan_step(base, pair, axes, alignment.orders, lam, is_given=is_given))
    missing = correspondence.unpaired
    skipped |= layers_without_step(match, {step.tensor for step in steps}, skipped, dropped, missing)
    settings = interpolated_settings(base, correspondence.donor.graph, steps)
    return Plan(base, match, alignment, lambdas, unmatched, tuple(steps), skipped, dropped, missing, settings)


def skipped_layers(correspondence: Correspondence, selected: Collection[str] | None) -> dict[str, str]:
    """Why layers of the base keep their weights, by name."""
    names = [layers.base.name for layers in correspondence.match.pairs]
    reasons = dict(correspondence.refused)
    if selected is not None:
        reasons |= {name: "not selected" for name in names if name not in selected}
    paired = {name: reasons[name] for name in names if name in reasons}
    return {**correspondence.match.unmatched_base, **paired}


def interpolated_settings(base: LayerGraph, donor: LayerGraph, steps: Iterable[Step]) -> dict[tuple[str, str], Ends]:
    """The epsilons of norms whose scale is merged, where they differ. A BatchNorm keeps the base's, for the donor's
    variance takes in the difference."""
    settings = {}
    for pair in (step.pair for step in steps if step.pair.base.role == "scale"):
        nodes = base.nodes[pair.base.node], donor.nodes[pair.donor.node]
        rows = [row_of(node) for node in nodes]
        if all(row is not None and EPSILON in row.shaping and not row.is_batch_norm for row in rows):
            ends = norm_epsilon(nodes[0]), norm_epsilon(nodes[1])
            if ends[0] != ends[1]:
                settings[nodes[0].name, EPSILON] = ends
    return settings


def layers_without_step(
    match: Match,
    merged: Collection[str],
    skipped: Mapping[str, str],
    dropped: Mapping[str, Sequence[str]],
    missing: Mapping[str, Sequence[str]],
) -> dict[str, str]:
    """Why matched layers of which nothing is merged keep their weights, by name; those that own none too, unless what
    they share is merged.

    Args:
        match: the matched layers.
        merged: the tensors that have a step.
        skipped: why layers are not merged, as far as it is known.
        dropped, missing: what of a layer has no step, by name of the layer.
    """
    owner = {p.tensor: layer.name for layer in match.base for p in layer.parameters}
    reasons = {}
    for layer in (pair.base for pair in match.pairs):
        if layer.name in skipped or any(parameter.tensor in merged for parameter in layer.applied):
            continue
        shared = [f"it shares {name} with layer {owner[name]}, which keeps it" for name in layer.tied]
        said = [*dropped.get(layer.name, ()), *missing.get(layer.name, ()), *shared]
        reasons[layer.name] = "; ".join(said) or "the donor's layer has no tensor like those of its own"
    return reasons


def plan_step(
    base: LayerGraph, pair: TensorPair, axes: tuple[AxisPair, ...], orders: Orders, lam: float, *, is_given: bool
) -> Step:
    tensor = pair.base.tensor
    share = float(np.prod([matched_mask(axis, orders).mean() for axis in axes]))
    return Step(tensor, share, base.weights[tensor].nbytes, pair, axes, lam, is_given)


def matched_mask(axis: AxisPair, orders: Orders) -> NDArray[np.bool_]:
    """Which positions of an axis have a partner."""
    mask = np.zeros(axis.size, bool)
    positions = match_positions(axis, orders)
    assert positions is not None
    mask[positions[0]] = True
    return mask
