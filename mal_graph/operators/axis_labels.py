"""Axis labels: which indices of which tensor axes move together.

Every index of every hidden axis gets an integer, an *atom*. The label of a tensor says which atom each index of each
axis belongs to, as a few integer arrays that broadcast to the tensor's shape; the shape operators of a network then act
on labels through the numpy function of the same name. Weights start with fresh atoms on every axis, operators *tie* the
atoms that must move together (see `wiring`), and the connected components of the ties are the units (see the package
`symmetry`).

Chosen: arrays of atoms, because concat offsets, flattened C*H*W, channel shuffle, strided slices, grouped convolution
and attention heads all come out of one mechanism. Refused: axis expressions (sums of products), which fail on strides
that do not nest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mal_graph.operators.marks import Pin

Atoms = NDArray[np.int64]
AxisLabel = Atoms | Pin | None  # one axis: its atoms, its pin, or None where all its indices hold the same


@dataclass(frozen=True)
class Label:
    """The label of one tensor.

    Attributes:
        shape: the tensor's shape.
        parts: arrays of atoms, each with the tensor's rank and size 1 or full along every axis; no two vary along
            the same axis. An array that varies along two axes labels the product of both.
        pins: axes that may not be permuted. An axis in neither holds the same content at every index.
        elements: of a list of tensors, which has no axes of its own, their labels.
        is_open: whether there may be any number of them: the label of one stands for all.
    """

    shape: tuple[int, ...]
    parts: tuple[Atoms, ...] = ()
    pins: dict[int, Pin] = field(default_factory=dict)
    elements: tuple["Label", ...] | None = None
    is_open: bool = False

    def part_on(self, axis: int) -> Atoms | None:
        """The part that varies along an axis, None if none does."""
        return next((part for part in self.parts if part.shape[axis] > 1), None)


def pinned_label(shape: Sequence[int], pin: Pin) -> Label:
    """A label with every axis longer than 1 pinned."""
    return Label(tuple(shape), (), {axis: pin for axis, size in enumerate(shape) if size > 1})


def spans(part: Atoms) -> tuple[int, ...]:
    """The axes along which a part varies."""
    return tuple(axis for axis, size in enumerate(part.shape) if size > 1)


def on_axis(atoms: Atoms, axis: int, rank: int) -> Atoms:
    """Atoms laid along one axis of a tensor of `rank`."""
    return atoms.reshape([len(atoms) if i == axis else 1 for i in range(rank)])
