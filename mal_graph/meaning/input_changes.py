"""What may have to be done to inputs so that a donor reads them as it was trained to: the table of what is tried.

Numbers are brought from the range that they have to another one that trainings use, or multiplied by a power of two.
Channels, and features where they are few, are put in another order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations, permutations

import numpy as np

from mal_graph.graph import MERGEABLE_TYPES, Array

FEW = 4  # channels or features of which every order is tried
RANGES = ((0, 1), (0, 255), (-1, 1), (-0.5, 0.5), (-128, 127))
POWERS = (1, 2, 3, 4, 5, 6, 8, 10)  # of two, as factors and divisors
PHOTOGRAPHS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of ImageNet's channels in 0..1
COARSE = range(-8, 9, 2)  # powers of two, as factors, from which a search starts
PLACES = (0.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0)  # of the mean of the numbers, in deviations of what they become
FINE = (0.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0)  # powers of two and deviations, by which a search goes on
SAME = 1e-3  # of the range: a change that moves no number further is none


class Family(StrEnum):
    """What a change of inputs is of: two of one family do not go together."""

    CHANNELS = "channels"
    FEATURES = "features"
    NUMBERS = "numbers"


@dataclass(frozen=True, eq=False)
class InputChange:
    """A change of one input.

    Attributes:
        input: the base's name of it.
        family: what is changed.
        told: what is done, in words.
        axis, order: entry `order[i]` along the axis is put in place i; () where the order stays.
        factor, shift: what numbers are multiplied by, and what is added then; they broadcast to the input.
    """

    input: str
    family: Family
    told: str
    axis: int = 0
    order: tuple[int, ...] = ()
    factor: Array = field(default_factory=lambda: np.ones(()))
    shift: Array = field(default_factory=lambda: np.zeros(()))

    @property
    def reverses_channels(self) -> bool:
        """Whether it makes RGB of BGR, or what is like it."""
        return self.family is Family.CHANNELS and self.order == tuple(reversed(range(len(self.order))))

    def of(self, values: Array) -> Array:
        """The input changed, in its own type."""
        if self.order:
            return np.take(values, list(self.order), axis=self.axis)
        return np.asarray(values * self.factor + self.shift).astype(values.dtype)


def changes_of_input(name: str, values: Array) -> Iterator[InputChange]:
    """Every change of an input that is tried, well-known ones first."""
    yield from orders_of(name, values)
    if is_numeric(values):
        span = float(np.ptp(values))
        numbers = values.astype(np.float64)
        yield from (one for one in numbers_of(name, numbers) if np.abs(one.of(numbers) - numbers).max() > SAME * span)


def is_numeric(values: Array) -> bool:
    """Whether an input holds numbers that may be meant in another range."""
    return values.dtype.name in MERGEABLE_TYPES and values.ndim > 1 and float(np.ptp(values)) > 0


def orders_of(name: str, values: Array) -> Iterator[InputChange]:
    """Every order of few channels or features, the reversed one first."""
    for axis in channel_axes(values):
        length = values.shape[axis]
        if length <= FEW:
            stays = tuple(range(length))
            for order in dict.fromkeys((stays[::-1], *permutations(stays))):
                if order != stays:
                    yield reordered(name, values.ndim, axis, order)


def reordered(name: str, rank: int, axis: int, order: Sequence[int]) -> InputChange:
    """Channels, or features of a table, in another order."""
    family = Family.FEATURES if rank == 2 else Family.CHANNELS
    told = f"the {family} of input {name!r} (axis {axis}) in the order {', '.join(map(str, order))}"
    return InputChange(name, family, told, axis, tuple(order))


def channel_axes(values: Array) -> list[int]:
    """The axes that may hold channels, or the features of a table."""
    if values.ndim == 2:
        return [1] if values.shape[1] > 1 else []
    return [axis for axis in dict.fromkeys((1, values.ndim - 1)) if values.ndim > 2 and 1 < values.shape[axis] <= FEW]


def numbers_of(name: str, values: Array) -> Iterator[InputChange]:
    """Every other range, deviation and factor of the numbers."""
    every = tuple(range(values.ndim))
    low, high = (np.asarray(edge(values)) for edge in (np.min, np.max))
    span = high - low
    for start, end in RANGES:
        factor = (end - start) / span
        yield line(name, factor, start - low * factor, f"from {low:.3g}..{high:.3g} brought to {start:g}..{end:g}")
    yield line(name, 255 / span, -values.mean() * 255 / span, "less their mean, 255 wide")
    yield standard(name, values, every, "of mean 0 and deviation 1")
    rest = tuple(axis for axis in every if axis not in channel_axes(values)[:1])
    if len(rest) < values.ndim:
        yield standard(name, values, rest, "of mean 0 and deviation 1 in each channel")
        yield from edges_of_channels(name, values, rest)
    if (1, 3) in {(axis, values.shape[axis]) for axis in channel_axes(values) if values.ndim == 4}:
        yield from photographs(name, low, span)
    for start, end in RANGES:
        factor = (start - end) / span
        told = f"from {low:.3g}..{high:.3g} brought to {start:g}..{end:g}, the largest becoming the least"
        yield line(name, factor, end - low * factor, told)
    for power in POWERS:
        yield line(name, np.asarray(2.0**power), np.zeros(()), f"multiplied by {2**power}")
        yield line(name, np.asarray(2.0**-power), np.zeros(()), f"divided by {2**power}")


def edges_of_channels(name: str, values: Array, rest: tuple[int, ...]) -> Iterator[InputChange]:
    """The least and the largest number of each channel brought to the ends of a range."""
    low, high = values.min(axis=rest, keepdims=True), values.max(axis=rest, keepdims=True)
    for start, end in RANGES[:2]:
        factor = (end - start) / np.where(high > low, high - low, 1.0)
        yield line(name, factor[0], (start - low * factor)[0], f"brought to {start:g}..{end:g} in each channel")


def photographs(name: str, low: Array, span: Array) -> Iterator[InputChange]:
    """The numbers that are usual for photographs, applied and undone."""
    mean, deviation = (np.array(numbers).reshape(3, 1, 1) for numbers in PHOTOGRAPHS)
    factor = 1 / (span * deviation)
    yield line(name, factor, -low * factor - mean / deviation, "normalised with ImageNet's means and deviations")
    yield line(name, deviation, mean, "with ImageNet's means and deviations undone, in 0..1")
    yield line(name, 255 * deviation, 255 * mean, "with ImageNet's means and deviations undone, in 0..255")


def standard(name: str, values: Array, axes: tuple[int, ...], told: str) -> InputChange:
    """Numbers less their mean, over their deviation."""
    mean, deviation = values.mean(axis=axes, keepdims=True), values.std(axis=axes, keepdims=True)
    factor = 1 / np.where(deviation > 0, deviation, 1.0)
    return line(name, factor[0], -(mean * factor)[0], told)


def line(name: str, factor: Array, shift: Array, told: str) -> InputChange:
    factor, shift = np.asarray(factor), np.asarray(shift)
    return InputChange(name, Family.NUMBERS, f"the numbers of input {name!r} {told}", factor=factor, shift=shift)


def unchanged(name: str) -> InputChange:
    """The numbers of an input as they are."""
    return line(name, np.ones(()), np.zeros(()), "as they are")


def lines_near(values: Array, found: InputChange) -> Iterator[InputChange]:
    """Other factors and shifts than those that were found; a coarse net of them around numbers as they are."""
    mean, deviation = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    factor, shift = float(found.factor), float(found.shift)
    place = (shift / factor + mean) / deviation
    if (factor, shift) == (1.0, 0.0):
        grid = [(2.0**power, place) for power in COARSE for place in (mean / deviation, *PLACES)]
    else:
        grid = [(factor * 2.0**step, place + move) for step in FINE for move in FINE]
    for factor, place in grid:
        shift = factor * (place * deviation - mean)
        yield line(found.input, np.asarray(factor), np.asarray(shift), f"times {factor:.2g}, plus {shift:.2g} (about)")


def exchanges(found: InputChange) -> Iterator[InputChange]:
    """The features of a table with two of them in each other's place."""
    for a, b in combinations(range(len(found.order)), 2):
        order = list(found.order)
        order[a], order[b] = order[b], order[a]
        yield reordered(found.input, 2, 1, order)
