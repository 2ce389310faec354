"""What contractions multiply with their stored weights: where it lies, and as rows in the order of the weight.

A row is a feature: one for each column of the weight in canonical form, all axes behind the first in a row. A
convolution reads patches; what is grouped reads a block of channels for each block of its outputs.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from mal_graph.brief import Brief
from mal_graph.evaluation.patches import find_patches
from mal_graph.graph import Array, LayerGraph, Node
from mal_graph.network import Parameter, find_parameters
from mal_graph.operators import Misfit, Row, Span, groups_of, row_of, spans_of, summed_axis


@dataclass(frozen=True, repr=False)
class WeightInput(Brief):
    """What one application of a weight reads.

    Attributes:
        parameter: the weight where it is applied.
        node: the operator.
        tensor: what it reads.
        blocks: of channels that are read apart.
        window: of a convolution; None without one.
    """

    parameter: Parameter
    node: Node
    tensor: str
    blocks: int = 1
    window: tuple[Span, ...] | None = None

    @property
    def features(self) -> int:
        """How many columns the weight has."""
        return prod(self.parameter.shape[1:])

    def rows(self, values: Array) -> Array | None:
        """What was read in a batch, shape (blocks, features, samples and places), in float64; None where the columns of
        the weight are not the units of one axis."""
        if self.window is not None:
            channels = np.array_split(values, self.blocks, axis=1)
            return np.stack([find_patches(own, self.window) for own in channels]).astype(np.float64)
        axis = summed_axis(self.node, data_slot(self.parameter), values.ndim)
        if values.shape[axis] != self.features:
            return None
        return np.moveaxis(values, axis, 0).reshape(1, self.features, -1).astype(np.float64)


def find_weight_inputs(graph: LayerGraph, weight: Parameter) -> list[WeightInput]:
    """What a weight is multiplied with, wherever it is applied as it is here; none where no tensor shows it."""
    alike = [
        own
        for own in find_parameters(graph)
        if own.tensor == weight.tensor and own.is_weight and own.axes == weight.axes and own.shape == weight.shape
    ]
    inputs = [find_weight_input(graph, own) for own in alike]
    return [one for one in inputs if one is not None]


def find_weight_input(graph: LayerGraph, weight: Parameter) -> WeightInput | None:
    """What one application of a weight reads; None where no tensor shows it as rows of the weight's order."""
    node = graph.nodes[weight.node]
    row, tensor = row_of(node), node.inputs[data_slot(weight)]
    if row is None or reads_state(node, weight) or tensor in graph.inner or None in weight.axes[:2]:
        return None
    if row.has_window:
        window = window_read(node, row, weight)
        return None if window is None else WeightInput(weight, node, tensor, groups_of(node), window)
    is_matrix = len(weight.shape) == 2 or row.has_state  # whose weight has an axis for directions
    return WeightInput(weight, node, tensor) if is_matrix and prod(weight.shape[2:]) == 1 else None


def window_read(node: Node, row: Row, weight: Parameter) -> tuple[Span, ...] | None:
    """The window of a convolution; None where it is not told, or each place that is read gives several."""
    if row.weight_axes(weight.slot, node, len(weight.shape)) != (0, 1):
        return None
    try:
        return tuple(spans_of(node, weight.shape[2:]))
    except Misfit:
        return None


def data_slot(parameter: Parameter) -> int:
    """The input of a contraction that its weight is multiplied with."""
    return 1 if parameter.slot == 0 else 0


def reads_state(node: Node, parameter: Parameter) -> bool:
    """Whether a weight reads units as a state which the operator carries from step to step."""
    row = row_of(node)
    return row is not None and row.slot(parameter.slot).reads_state


def find_levels(graph: LayerGraph, readers: set[int]) -> dict[str, int]:
    """For each tensor how many of some operators come before it at most."""
    level: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        before = max((level.get(name, 0) for name in (*node.inputs, *node.captures)), default=0)
        level.update(dict.fromkeys(node.outputs, before + (index in readers)))
    return {**dict.fromkeys((value.name for value in graph.inputs), 0), **level}
