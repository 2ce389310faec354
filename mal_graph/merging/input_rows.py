"""What one model reads with a weight, as rows in the order of the base's weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from mal_graph.boxes import Array, Stretch
from mal_graph.brief import Brief
from mal_graph.evaluation import WeightInput, find_weight_inputs
from mal_graph.graph import LayerGraph
from mal_graph.matching import find_partners
from mal_graph.merging.planning import Plan, Step
from mal_graph.network import Parameter

Places = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class InputRows(Brief):
    """What a model multiplies with a weight.

    Attributes:
        inputs: wherever the weight is applied.
        blocks, columns: the model's block and column on each of the base's, -1 for none; None of the base itself.
    """

    inputs: tuple[WeightInput, ...]
    blocks: Places | None = None
    columns: Places | None = None

    @property
    def tensors(self) -> list[str]:
        """What it reads."""
        return [one.tensor for one in self.inputs]

    @property
    def size(self) -> int:
        """How many products its columns have with each other."""
        blocks = self.inputs[0].blocks if self.blocks is None else len(self.blocks)
        columns = self.inputs[0].features if self.columns is None else len(self.columns)
        return blocks * columns**2

    def rows(self, values: Mapping[str, Array]) -> Array | None:
        """What is read in a batch, shape (blocks, columns, samples and places), 0 where the model has none; None where
        it is no row for each column."""
        several = [one.rows(values[one.tensor]) for one in self.inputs]
        rows = [one for one in several if one is not None]
        if len(rows) < len(several):
            return None
        whole = np.concatenate(rows, axis=2)
        if self.blocks is None or self.columns is None:
            return whole
        placed = whole[self.blocks][:, self.columns]
        placed[self.blocks < 0] = 0
        placed[:, self.columns < 0] = 0
        return np.asarray(placed)


def rows_of_base(graph: LayerGraph, weight: Parameter) -> InputRows | None:
    """What the base reads with a weight; None where no tensor shows it."""
    inputs = find_weight_inputs(graph, weight)
    return InputRows(tuple(inputs)) if inputs else None


def rows_of_donor(plan: Plan, step: Step, base: InputRows) -> InputRows | None:
    """What a donor reads with its weight, in the base's order; None where no tensor shows it."""
    mine, theirs = step.pair.base, step.pair.donor
    inputs = [
        one
        for one in find_weight_inputs(plan.donor.graph, theirs)
        if one.features == prod(theirs.shape[1:]) and len(theirs.shape) == len(mine.shape)
    ]
    if not inputs:
        return None
    units, *others = (
        listed(find_partners(axis, plan.alignment.orders), length)
        for axis, length in zip(step.axes, mine.shape, strict=True)
    )
    blocks = units.reshape(base.inputs[0].blocks, -1).max(axis=1)  # all units of a block have partners in one
    size = theirs.shape[0] // inputs[0].blocks
    return InputRows(tuple(inputs), np.where(blocks < 0, -1, blocks // size), counted_through(others, theirs.shape[1:]))


def listed(partners: Stretch, length: int) -> Places:
    """The partner of every position."""
    return np.arange(length) if isinstance(partners, slice) else partners


def counted_through(partners: list[Places], shape: tuple[int, ...]) -> Places:
    """Partners on several axes, counted through all of them; -1 where one axis has none."""
    places = np.zeros((), np.int64)
    for own, length in zip(partners, shape, strict=True):
        there = places[..., None]
        places = np.where((there < 0) | (own < 0), -1, there * length + own)
    return places.ravel()
