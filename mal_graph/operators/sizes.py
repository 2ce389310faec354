"""How the constants and attributes that hold the size of an axis follow when it is resized.

A size rule gets a node with the layouts of its axes, before and after, and what the constant or attribute holds; it
gives what it must hold. The rows of the operators say which input or attribute follows which rule.
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
        """(old, added) of each new index."""
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
        """The axis of the first input that the node works along."""
        return int(self.node.attribute("axis", 0)) % len(self.inputs[0])

    def ints(self, slot: int, attribute: str) -> list[int] | None:
        """Integers that older opsets hold in an attribute and newer ones in an input."""
        held = self.values[slot] if slot < len(self.values) else self.node.attribute(attribute)
        return None if held is None else [int(i) for i in np.ravel(held)]


SizeRule = Callable[[Resized, list[int]], list[int]]

Axes = Callable[[Resized], list[int]]


def output_sizes(call: Resized, held: list[int]) -> list[int]:
    """One entry per axis of the output; entries with a meaning of their own (0, -1, 1) stay."""
    sizes = [(axis.size, len(axis)) for axis in call.outputs[0]][-len(held) :]
    return [new if entry == old else entry for entry, (old, new) in zip(held, sizes, strict=True)]


def reduced_axes(call: Resized) -> list[int]:
    """The axes that a reduction goes over."""
    return call.ints(1, "axes") or list(range(len(call.inputs[0])))


def no_axes(call: Resized) -> list[int]:
    """Of a sum, nothing must be told how many there are."""
    return []


def ratio(call: Resized, axes: Sequence[int]) -> float:
    """By how much the number of entries grows that lie along some axes of the first input."""
    return float(np.prod([len(axis) / axis.size for axis in (call.inputs[0][i] for i in axes)]))
