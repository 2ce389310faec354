"""Kinds of units: what two trainings left alike says which units may correspond to each other.

Nothing in one file says that the decay rates of the heads of a retention are not learned: they are a tensor of one
number for each head, as a bias is. Two files do. What one training learns is not what another learns; so what holds the
same numbers in both, were it in another order, was set. Units correspond to each other only where it holds the same for
both: then it is merged with itself, and never averaged, whatever else fits.

A tensor that was learned and holds the same in both nevertheless, as one that stayed frozen in two fine-tunes of one
model, says the truth as well: which units are which.

Chosen: a condition on what is assigned, so that units for which it holds the same are still aligned, and those of a
copy are found where they were moved to. Refused: to pin such units, for a copy with permuted heads would be kept then.
Left out are the weights of contractions: in binary and quantised networks their few values may agree by chance.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array
from mal_graph.matching.axis_pairs import AxisPair, Index, unit_rows
from mal_graph.matching.orders import Order, is_whole
from mal_graph.matching.tensor_pairs import TensorPair

SAME = 1e-6  # relative: what exporters that compute one number may differ by
LARGEST = 1 << 22  # numbers of a tensor that is looked at


class Kinds(NamedTuple):
    """The kind of each unit of a pair of groups, in the base and in the donor."""

    base: Index
    donor: Index

    @property
    def differ(self) -> NDArray[np.bool_]:
        """Which units are of two kinds, shape (base units, donor units)."""
        differ: NDArray[np.bool_] = self.base[:, None] != self.donor
        return differ


def find_kinds(tensors: Iterable[tuple[TensorPair, Sequence[AxisPair]]]) -> dict[int, Kinds]:
    """The kinds of units that numbers left alike tell apart, by index of the pair of groups."""
    kinds: dict[int, Kinds] = {}
    for tensor, axes in tensors:
        moving = [(place, block) for place, axis in enumerate(axes) for block in axis.blocks if block.pair >= 0]
        values = numbered(tensor) if moving and is_looked_at(tensor) else None
        if values is None:
            continue
        for place, block in moving:
            base, donor = unit_rows(values[0], place, block.base), unit_rows(values[1], place, block.donor)
            if not all(is_whole(axis) for other, axis in enumerate(axes) if other != place):
                base, donor = np.sort(base, axis=1), np.sort(donor, axis=1)  # over units with an order of their own
            told = tell_kinds(base, donor, kinds.get(block.pair))
            if told is not None:
                kinds[block.pair] = told
    return kinds


def is_looked_at(tensor: TensorPair) -> bool:
    """Whether a tensor is looked at: no weight, nothing that would take long, and nothing without a number."""
    return not tensor.is_weight and all(0 < np.prod(one.shape) <= LARGEST for one in (tensor.base, tensor.donor))


def numbered(tensor: TensorPair) -> tuple[Array, Array] | None:
    """A number for each value of base and donor, the same for what is the same but for rounding; None where the values
    of two equally large tensors are clearly others."""
    sides = [read().astype(np.float64) for read in (tensor.base_values, tensor.donor_values)]
    base, donor = sides
    ends = [np.array([side.min(), side.max()]) for side in sides]
    if base.size == donor.size and not is_same(*ends).all():
        return None
    values = np.concatenate([side.ravel() for side in sides])
    order = np.argsort(values)
    numbers = np.zeros(len(values), np.int64)
    numbers[order[1:]] = np.cumsum(~is_same(values[order[:-1]], values[order[1:]]))
    return numbers[: base.size].reshape(base.shape), numbers[base.size :].reshape(donor.shape)


def is_same(one: Array, other: Array) -> NDArray[np.bool_]:
    """Whether numbers are the same but for rounding."""
    same: NDArray[np.bool_] = np.abs(other - one) <= SAME * np.abs(other)
    return same


def tell_kinds(base: Array, donor: Array, known: Kinds | None) -> Kinds | None:
    """The kinds of units by what one more tensor holds for them, shape (units, features); None where it tells none
    apart, or some unit has no counterpart of its kind."""
    if base.shape[1] != donor.shape[1]:
        return None
    rows = np.concatenate([base, donor])
    before = np.zeros(len(rows), np.int64) if known is None else np.concatenate(known)
    kinds = np.unique(np.column_stack([before, rows]), axis=0, return_inverse=True)[1].ravel()
    told = Kinds(kinds[: len(base)], kinds[len(base) :])
    counts = [np.bincount(side, minlength=len(rows)) for side in told]
    few, many = counts if len(base) <= len(donor) else reversed(counts)
    return told if np.count_nonzero(few) > 1 and (few <= many).all() else None


def keep_apart(kinds: Mapping[int, Kinds], orders: Sequence[Order]) -> bool:
    """Whether orders put no units of two kinds on each other."""
    for pair, own in kinds.items():
        rows = np.flatnonzero(orders[pair] >= 0)
        if (own.base[rows] != own.donor[orders[pair][rows]]).any():
            return False
    return True
