"""How the constants and attributes that hold a width follow when axes are resized.

A width function gets a node with the layouts of its axes, before and after, and what the constant or attribute holds;
it gives what it must hold. The table in `ops` says which input or attribute follows which function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mal_graph.errors import ShapeError
from mal_graph.graph import Array, Node

Ints = NDArray[np.int64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """What lies where on one resized axis.

    Attributes:
        size: the old length.
        old: for each new index the old one it stands for; for an index of an added unit, that of the last unit.
        added: for each new index 0, or the number of the added unit, counted from 1.
    """

    size: int
    old: Ints
    added: Ints

    def __len__(self) -> int:
        return len(self.old)

    @cached_property
    def is_kept(self) -> bool:
        """Whether the axis is as it was."""
        return len(self) == self.size and not self.added.any()

    @cached_property
    def index(self) -> dict[Pair, int]:
        """The new index of each (old, added)."""
        return {pair: i for i, pair in enumerate(self.pairs)}

    @property
    def pairs(self) -> list[Pair]:
        return list(zip(self.old.tolist(), self.added.tolist(), strict=True))

    def find(self, pairs: Sequence[Pair]) -> list[int]:
        """New indices. Raises ShapeError where one is gone."""
        try:
            return [self.index[pair] for pair in pairs]
        except KeyError:
            raise ShapeError("an index is gone that is still read") from None


def kept(size: int) -> Layout:
    """The layout of an axis that stays as it is."""
    return Layout(size, np.arange(size), np.zeros(size, np.int64))


@dataclass(frozen=True)
class Resized:
    """One node with the layouts of its inputs and outputs, one per axis, and what is known of its inputs' values.

    `held` is the name of the input or attribute asked for.
    """

    node: Node
    inputs: Sequence[Sequence[Layout]]
    outputs: Sequence[Sequence[Layout]]
    values: Sequence[Array | None]
    held: str

    @property
    def axis(self) -> int:
        return int(self.node.attribute("axis", 0)) % len(self.inputs[0])

    def ints(self, slot: int, attribute: str) -> list[int] | None:
        """Integers that older opsets hold in an attribute and newer ones in an input."""
        found = self.values[slot] if slot < len(self.values) else self.node.attribute(attribute)
        return None if found is None else [int(i) for i in np.ravel(found)]


SizeRule = Callable[[Resized, list[int]], list[int]]
Axes = Callable[[Resized], list[int]]


def output_sizes(call: Resized, held: list[int]) -> list[int]:
    """One entry per axis of the output; entries with a meaning of their own (0, -1, 1) stay."""
    sizes = [(axis.size, len(axis)) for axis in call.outputs[0]][-len(held) :]
    return [new if entry == old else entry for entry, (old, new) in zip(held, sizes, strict=True)]


def part_lengths(call: Resized, held: list[int]) -> list[int]:
    """The length of every part of a split axis; one number may be held for parts of equal length."""
    source = call.inputs[0][call.axis]
    if held and source.is_kept:
        return held
    sizes = held or [out[call.axis].size for out in call.outputs]
    if sum(sizes) < source.size:
        sizes = [min(held[0], source.size - start) for start in range(0, source.size, held[0])]
    part = np.repeat(np.arange(len(sizes)), sizes)
    return [int(count) for count in np.bincount(part[source.old], minlength=len(sizes))]


def slice_bounds(call: Resized, held: list[int]) -> list[int]:
    """Where a slice starts or ends on each axis; what does not change is left as it is."""
    starts, axes, steps = call.ints(1, "starts"), call.ints(3, "axes"), call.ints(4, "steps")
    found = list(held)
    for place, axis in enumerate(range(len(held)) if axes is None else axes):
        source, out = call.inputs[0][axis], call.outputs[0][axis]
        if source.is_kept and out.is_kept:
            continue
        step = 1 if steps is None else steps[place]
        start = 0 if starts is None else range(source.size)[slice(starts[place], None, step)].start
        taken = source.find([(start + old * step, added) for old, added in out.pairs])
        if step < 0 or taken != list(range(taken[0], taken[-1] + 1, step)):
            raise ShapeError("what is taken of the axis is no slice any more")
        found[place] = taken[0] if call.held == "starts" else taken[-1] + 1
    return found


def gathered(call: Resized, held: list[int]) -> list[int]:
    """The new places of what constant indices select."""
    source = call.inputs[0][call.axis]
    if len(call.outputs[0]) < len(call.inputs[0]):  # one index, whose axis is gone
        return held if source.is_kept else source.find([(held[0] % source.size, 0)])
    out = call.outputs[0][call.axis]
    if source.is_kept and out.is_kept:
        return held
    if out.size != len(held):
        raise ShapeError("its indices have several axes")
    return source.find([(held[old] % source.size, added) for old, added in out.pairs])


def conv_groups(call: Resized, held: list[int]) -> list[int]:
    """Groups of a convolution: the channels that come in, by those that one filter sees."""
    return [len(call.inputs[0][1]) // len(call.inputs[1][1])]


def transposed_conv_groups(call: Resized, held: list[int]) -> list[int]:
    """Groups of a transposed convolution: the channels it gives, by those of one group."""
    return [len(call.outputs[0][1]) // len(call.inputs[1][1])]


def norm_groups(call: Resized, held: list[int]) -> list[int]:
    """Groups of a GroupNormalization: all grow alike, or there are more or fewer of the same size."""
    channels = call.inputs[0][1]
    members = channels.size // held[0]
    inside = np.bincount(channels.old // members, minlength=held[0])
    return held if (inside == inside[0]).all() else [len(channels) // members]


COUNT_BLOCKS = (conv_groups, transposed_conv_groups, norm_groups)  # what they give is a number of blocks


def reduced_axes(call: Resized) -> list[int]:
    """The axes that a reduction goes over."""
    return call.ints(1, "axes") or list(range(len(call.inputs[0])))


def no_axes(call: Resized) -> list[int]:
    """Of a sum, nothing must be told how many there are."""
    return []


def normalised_axes(call: Resized) -> list[int]:
    """The axes that a norm over the last axes goes over."""
    rank = len(call.inputs[0])
    return list(range(int(call.node.attribute("axis", -1)) % rank, rank))


def ratio(call: Resized, axes: Sequence[int]) -> float:
    """By how much the number of entries grows that lie along some axes of the first input."""
    return float(np.prod([len(axis) / axis.size for axis in (call.inputs[0][i] for i in axes)]))
