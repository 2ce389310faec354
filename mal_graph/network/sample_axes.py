"""Which axes of a model's inputs hold samples.

Mostly the first one of every input. States of recurrent layers hold layers there and samples behind; and an input
without axes, such as a rate or a mode, is one value for all samples. So is one of a fixed length in front where others
hold any number of samples, such as a mask, a table, or a state that was exported for one sample.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mal_graph.graph import Array, LayerGraph, Value


@dataclass(frozen=True)
class SampleAxes:
    """Where arrays hold samples.

    Attributes:
        axes: by input; None where it is one value for all samples. Arrays of other names, such as labels, hold samples
            along their first axis.
    """

    axes: Mapping[str, int | None]

    def of(self, name: str) -> int | None:
        return self.axes.get(name, 0)

    def count(self, arrays: Mapping[str, Array]) -> int:
        """How many samples all arrays hold; 0 where none holds any."""
        return min(self.counts(arrays).values(), default=0)

    def counts(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """How many samples each array holds, those left out that are one value for all."""
        placed = {name: self.of(name) for name in arrays}
        return {name: arrays[name].shape[axis] for name, axis in placed.items() if axis is not None}

    def taken(self, arrays: Mapping[str, Array], which: slice | Array) -> dict[str, Array]:
        """Some samples of all arrays: a slice, numbers of samples, or a truth for each."""
        return {name: self.taken_of(name, array, which) for name, array in arrays.items()}

    def taken_of(self, name: str, array: Array, which: slice | Array) -> Array:
        axis = self.of(name)
        return array if axis is None else array[(slice(None),) * axis + (which,)]

    def joined(self, arrays: Mapping[str, Array], others: Mapping[str, Array]) -> dict[str, Array]:
        """The samples of both, one after the other; what is one value for all is that of the first."""
        axes = {name: self.of(name) for name in arrays}
        return {
            name: arrays[name] if axis is None else np.concatenate([arrays[name], others[name]], axis)
            for name, axis in axes.items()
        }

    def resized(self, name: str, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
        """A shape with so many samples."""
        axis = self.of(name)
        return shape if axis is None else (*shape[:axis], count, *shape[axis + 1 :])


def find_sample_axes(graph: LayerGraph) -> SampleAxes:
    """Where the inputs of a model hold samples.

    What stands as the first axis of an input - the name of a dynamic axis, or the length of a fixed one - tells them in
    other inputs: an input that has a fixed length in front and this further behind holds them there. Where the names
    tell nothing, this is the only axis whose length is open. What is found nowhere in an input whose length in front is
    fixed is held by others alone.
    """
    first = [value.shape[0] for value in graph.inputs if value.shape]
    known: set[int | str | None] = {dim for dim in first if not isinstance(dim, int)}
    known = known or set(first[:1])
    return SampleAxes({value.name: find_axis(value, known) for value in graph.inputs})


def find_axis(value: Value, known: Collection[int | str | None]) -> int | None:
    """Where one input holds samples, given what this axis is in others: a name, a length, or None where it is open."""
    shape = value.shape
    if shape == ():
        return None
    if shape is None or not isinstance(shape[0], int) or shape[0] in known:
        return 0
    named = [axis for axis, dim in enumerate(shape) if dim is not None and dim in known]
    unnamed = [axis for axis, dim in enumerate(shape) if dim is None and None in known]
    if named:
        return named[0]
    is_open = not all(isinstance(dim, int) for dim in known)
    return unnamed[0] if len(unnamed) == 1 else None if is_open else 0
