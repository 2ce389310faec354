"""Repair without inputs: the variances that blended sums are expected to have, from the weights alone.

The sum of a unit of two networks varies less than the two sums do, unless these go together: with r their correlation,
((1-lam) s_a)^2 + (lam s_b)^2 + 2 lam (1-lam) r s_a s_b is its variance. A BatchNormalization with an average of both
variances divides by too much, layer after layer. So it gets that variance instead, where the cosine of the rows of both
weights, as far as it is positive, stands for the correlation. Means are averages as they are.

Of networks with a common ancestor the rows are nearly parallel, and averages are as good: those are left.

Source: REPAIR (Jordan et al. 2023, arXiv:2211.08403) measures these variances on data. Chosen: cosines of rows.
Refused: to measure on noise, which is a little better, for as many runs of three networks as they have
BatchNormalizations.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import find_foldable_norm
from mal_graph.merging.blending import merge
from mal_graph.merging.planning import Plan, Step, matched_mask
from mal_graph.merging.repairing import Passes, Repair, weight_steps
from mal_graph.network import find_layers

PARALLEL = 0.9  # a median cosine of rows from which averages are good enough


@dataclass(frozen=True)
class Blended:
    """A BatchNormalization behind a layer whose rows were blended.

    Attributes:
        name: of the layer.
        step: how the variance is merged.
        is_matched: which units have a partner, shape (units,).
        ends: the variances of base and donor, shape (units,).
        cosine: of the rows of both weights, from 0 to 1, shape (units,).
    """

    name: str
    step: Step
    is_matched: Array
    ends: tuple[Array, Array]
    cosine: Array

    @property
    def collapses(self) -> bool:
        """Whether an average of both variances is far from that of the blended sums."""
        return bool(np.median(self.cosine[self.is_matched]) < PARALLEL)

    def expected(self, lam: float, blended: Array) -> Array:
        """The variances at a merging factor; `blended` ones where a unit has no partner."""
        a, b = (np.sqrt(np.maximum(end, 0.0)) for end in self.ends)
        both = ((1 - lam) * a) ** 2 + (lam * b) ** 2 + 2 * lam * (1 - lam) * self.cosine * a * b
        return np.where(self.is_matched, both, blended)


class ExpectedVariances:
    """The variances of one merge at any lambda.

    Attributes:
        graph: the model that they belong to.
        weights: what differs from lambda to lambda, as the model holds it.
        done: what is repaired; nothing where no average is far from what is expected.
    """

    def __init__(self, graph: LayerGraph, plan: Plan, variable: Sequence[str] = ()) -> None:
        self.graph, self.plan = graph, plan
        self.norms = [norm for norm in blended_norms(plan) if norm.collapses]
        names = dict.fromkeys([*variable, *(norm.step.tensor for norm in self.norms)])
        self.weights = {name: graph.weights[name].read() for name in names}
        self.done = Repair(0, (), tuple(norm.name for norm in self.norms), {})

    def weights_of(self, plan: Plan, moved: Mapping[str, Array], progress: Passes | None = None) -> dict[str, Array]:
        """The weights of the plan at some lambda, with these variances, from what is merged there."""
        weights = {**self.weights, **moved}
        for norm in self.norms:
            parameter, stored = norm.step.pair.base, weights[norm.step.tensor]
            blended = parameter.canonical(stored).astype(np.float64)
            values = norm.expected(plan.lam_of[norm.step.tensor], blended)
            weights[norm.step.tensor] = np.ascontiguousarray(parameter.stored(values, stored.shape), stored.dtype)
        return weights


def expect_variances(graph: LayerGraph, plan: Plan) -> tuple[LayerGraph, Repair | None]:
    """A merged model with the variances that blended sums are expected to have, and what was repaired so; None where
    averages of variances are good enough.

    Args:
        graph: what `merge` made of the plan.
        plan: what was merged.
    """
    variances = ExpectedVariances(graph, plan)
    if not variances.norms:
        return graph, None
    return graph.with_weights(variances.weights_of(plan, {})), variances.done


def blended_norms(plan: Plan) -> Iterator[Blended]:
    """The BatchNormalizations of the base, right behind a merged layer, whose variance was merged with that of another
    one; those that several layers share are left out."""
    ends = tuple(merge(plan.at(lam)) for lam in (0.0, 1.0))
    layers = {layer.name: layer for layer in find_layers(plan.base)}
    by_tensor = {step.tensor: step for step in plan.steps}
    for step in weight_steps(plan):
        norm = find_foldable_norm(plan.base, layers[step.pair.layer])
        own = None if norm is None else by_tensor.get(norm.variance.tensor)
        if own is None or step.pair.base.blocks > 1 or len(plan.base.consumers[own.tensor]) > 1:
            continue
        a, b = (rows_of(graph, step) for graph in ends)
        size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = np.clip((a * b).sum(axis=1) / np.where(size > 0, size, 1.0), 0.0, 1.0)
        is_matched = matched_mask(own.axes[0], plan.alignment.orders) & (size > 0)
        if is_matched.any():
            variances = tuple(vector_of(graph, own) for graph in ends)
            yield Blended(step.pair.layer, own, is_matched, (variances[0], variances[1]), cosine)


def rows_of(graph: LayerGraph, step: Step) -> Array:
    """What a merged layer multiplies by for each unit, shape (units, features)."""
    values = step.pair.base.canonical(graph.weights[step.tensor].read())
    return np.asarray(values.reshape(len(values), -1), np.float64)


def vector_of(graph: LayerGraph, step: Step) -> Array:
    """A value of each unit, shape (units,)."""
    return np.asarray(step.pair.base.canonical(graph.weights[step.tensor].read()).ravel(), np.float64)
