"""Tensors of two matched layers that correspond to each other, with their values in canonical form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mal_graph.brief import Brief
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.layer_matching import LayerPair
from mal_graph.network import Layer, Parameter
from mal_graph.operators import ParameterKind

Read = Callable[[], Array]
Restore = Callable[[Array], Array]


@dataclass(frozen=True, repr=False)
class TensorPair(Brief):
    """A tensor of a base layer and what corresponds to it in the donor layer, in the base's canonical form.

    It counts as a term in the objective of the assignment, and is merged in one step of the plan.

    Attributes:
        layers: the two layers.
        base: the base's parameter, which the merge writes.
        donor: the donor's parameter whose axes the donor's values have; the same number of axes as `base`.
        base_values, donor_values: what is compared, canonical, float32.
        incoming: the donor's values that are merged, the compared ones if None.
        lead: on every axis of a window the base's taps before the donor's first; empty where the windows are equal.
        misfit: why the donor's is no counterpart, as where its window does not lie in the base's; "" if it is one.
        restore: turns incoming values, already in the base's order, into the form the base stores; None where they are.
            Takes and gives an array of the base's canonical shape.
    """

    layers: LayerPair
    base: Parameter
    donor: Parameter
    base_values: Read
    donor_values: Read
    incoming: Read | None = None
    restore: Restore | None = None
    lead: tuple[int, ...] = ()
    misfit: str = ""

    @property
    def layer(self) -> str:
        """Name of the base's layer."""
        return self.layers.base.name

    @property
    def is_weight(self) -> bool:
        return self.base.is_weight

    @property
    def is_compared(self) -> bool:
        """Whether it counts in the objective: weights and biases do. Scales, means and variances only move along: all
        positive, they would draw every unit to the donor's largest."""
        return self.base.kind is ParameterKind.WEIGHT or self.base.is_bias or len(self.base.shape) > 1

    def stored_form(self, values: Array) -> Array:
        """Donor values in the base's order, as the base stores them: before its BatchNorm and its factor."""
        restored = values if self.restore is None else self.restore(values)
        return restored if self.base.factor == 1.0 else restored / restored.dtype.type(self.base.factor)

    def merged_values(self) -> Array:
        """The donor's values that enter the merge, before they are ordered and restored."""
        return (self.incoming or self.donor_values)()


def read_values(graph: LayerGraph, parameter: Parameter) -> Array:
    """A parameter's values as they take effect, in canonical form and float32 (float64 stays)."""
    stored = graph.weights[parameter.tensor].read()
    kept = stored if stored.dtype == np.float64 else stored.astype(np.float32, copy=False)
    values = parameter.canonical(kept)
    return values if parameter.factor == 1.0 else values * values.dtype.type(parameter.factor)


def row_vector(weight: Parameter) -> Parameter:
    """A vector over the output units of a weight, as a parameter: it borrows the weight's first axis."""
    return Parameter(
        weight.tensor, weight.node, weight.slot, "bias", ParameterKind.SHIFT, weight.axes[:1], weight.shape[:1]
    )


def by_role(layer: Layer) -> Mapping[str, Parameter]:
    return {parameter.role: parameter for parameter in reversed(layer.applied)}
