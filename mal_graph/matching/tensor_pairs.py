"""Tensors of two matched layers that correspond to each other, with their values in canonical form."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from mal_graph.boxes import Array, Box, Boxed, ReadBox, contiguous_boxes, each_box, take_box
from mal_graph.brief import Brief
from mal_graph.graph import LayerGraph
from mal_graph.half_numbers import as_float32
from mal_graph.matching.layer_matching import LayerPair
from mal_graph.network import Layer, Parameter
from mal_graph.operators import ParameterKind

Read = Callable[[], Array]
Restore = Callable[[Array, Box], Array]


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
            Takes the values of a box of the base's canonical tensor, and that box; gives an array of the same shape.
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

    def stored_form(self, values: Array, box: Box) -> Array:
        """Donor values of a box, in the base's order, as the base stores them: before its BatchNorm and its factor."""
        restored = values if self.restore is None else self.restore(values, box)
        return restored if self.base.factor == 1.0 else restored / restored.dtype.type(self.base.factor)

    @property
    def merged_values(self) -> Read:
        """The donor's values that enter the merge, before they are ordered and restored."""
        return self.incoming or self.donor_values


@dataclass(frozen=True, repr=False)
class StoredValues(Boxed, Brief):
    """A parameter's values as they take effect, in canonical form and float32 (float64 stays)."""

    graph: LayerGraph
    parameter: Parameter

    def __call__(self) -> Array:
        """All values."""
        return self.in_effect(self.parameter.canonical(self.graph.weights[self.parameter.tensor].read()))

    def open(self) -> ReadBox:
        """What gives the values of a box."""
        weight = self.graph.weights[self.parameter.tensor]
        return partial(self.read_box, weight.open(), len(weight.shape))

    def read_box(self, read: ReadBox, rank: int, box: Box) -> Array:
        """The values of a box of the canonical form."""
        chosen = self.parameter.canonical(read(self.parameter.stored_box(box, rank)))
        # An axis that is canonical alone is chosen from here: a unit of it may have no partner.
        own = zip(self.parameter.axes, box, chosen.shape, strict=True)
        alone = tuple(stretch if axis is None else slice(0, length) for axis, stretch, length in own)
        return self.in_effect(take_box(chosen, alone))

    def in_any_order(self) -> Iterator[Array]:
        """All values, some at a time, as they lie in a file: rows of what is stored by columns read a page for each."""
        weight = self.graph.weights[self.parameter.tensor]
        if weight.size != prod(self.parameter.shape):  # others lie between them
            return each_box(self, self.parameter.shape)
        read = weight.open()
        return (self.in_effect(read(box)) for box in contiguous_boxes(weight.shape, self.most))

    def in_effect(self, canonical: Array) -> Array:
        """Values as the operator applies them."""
        values = canonical if canonical.dtype == np.float64 else as_float32(canonical)
        return values if self.parameter.factor == 1.0 else values * values.dtype.type(self.parameter.factor)


def read_values(graph: LayerGraph, parameter: Parameter) -> Array:
    """All of a parameter's values as they take effect (see `StoredValues`)."""
    return StoredValues(graph, parameter)()


def row_vector(weight: Parameter) -> Parameter:
    """A vector over the output units of a weight, as a parameter: it borrows the weight's first axis."""
    return Parameter(
        weight.tensor, weight.node, weight.slot, "bias", ParameterKind.SHIFT, weight.axes[:1], weight.shape[:1]
    )


def by_role(layer: Layer) -> Mapping[str, Parameter]:
    return {parameter.role: parameter for parameter in reversed(layer.applied)}
