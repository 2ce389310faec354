"""A stack: one tensor of several models, each in the base's frame, as a merge method takes it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mal_graph.boxes import Array
from mal_graph.brief import Brief

Mask = NDArray[np.bool_]
Vector = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Stack(Brief):
    """One tensor of several models: permuted, padded and in the canonical form of the base's.

    What a model lacks is not zero. It has no task vector there: it holds the ancestor's value; and without an ancestor
    it holds what the base does, and counts in no mean.

    Attributes:
        models: the values, float32 or float64, shape (models, *tensor); the first axis of a weight's tensor are the
            units that it produces, the second one those that it consumes.
        ancestor: the values of the model that all were tuned from, shape (*tensor,); None without one.
        present: which entries each model has, of the shape of `models`; None where all have all.
        numbers: which model each is: 0 for the base, 1 for the first donor...
        role: what the tensor is in its layer: "weight", "bias", "scale"...
        depth: of its layer, from 0 for the first to 1 for the last.
        seed: what random draws begin with.
        moments: of a weight, the mean products of what it is multiplied with in each model, in float64, shape (models,
            blocks, columns, columns): a column is an entry of all axes behind the first in a row, and the rows of the
            weight are read in as many blocks. Shape (models, models, blocks, columns, columns) where a method takes
            products of different models too. None where nothing shows it.
        fisher: how much each entry of each model says of its outputs, of the shape of `models`, in float64; None where
            that is not known.
        counts: how many units of each model stand on the one of the result that an entry is of, of the shape of
            `models`; None where that is one of each.
        mask: how much of the task vectors each entry takes, of the shape of a tensor; None where that was not learned.
        kept: which entries of the task vectors stay, of the shape of `models`, where the stack is a box of a tensor and
            a sieve told that by all of it; None where the method tells it by what is here.
    """

    models: Array
    ancestor: Array | None = None
    present: Mask | None = None
    numbers: tuple[int, ...] = ()
    role: str = "weight"
    depth: float = 0.0
    seed: tuple[int, ...] = (0,)
    moments: Array | None = None
    fisher: Array | None = None
    counts: Array | None = None
    mask: Array | None = None
    kept: Mask | None = None

    @property
    def origin(self) -> Array:
        """The ancestor's values, of a method that needs an ancestor."""
        assert self.ancestor is not None
        return self.ancestor

    @cached_property
    def deltas(self) -> Array:
        """The task vectors: each model less the ancestor; zero where it lacks the entry."""
        deltas: Array = self.models - self.origin
        return deltas

    @property
    def count(self) -> int:
        """How many models there are."""
        return len(self.models)

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor has rows and columns; behind them it may have taps."""
        return self.models.ndim > 2

    @cached_property
    def shared(self) -> Mask | None:
        """The entries that all models have; None where that is all of them."""
        return None if self.present is None else np.asarray(self.present.all(axis=0))

    def sizes(self) -> list[int]:
        """How many entries each model has."""
        if self.present is None:
            return [self.models[0].size] * self.count
        return [int(mask.sum()) for mask in self.present]

    def generators(self) -> Iterator[np.random.Generator]:
        """For each model the same random numbers in every run, whatever others there are."""
        yield from generators(self.seed, self.numbers or tuple(range(self.count)))

    def mean(self, weight: Vector) -> Array:
        """The mean of the models, weighted; of each entry over those that have it, as often as they have units."""
        if self.counts is None:
            return mean_of(self.models, weight, self.present)
        counting = self.counts * spread_over(weight, self.counts)
        total = counting.sum(axis=0)
        counting, total = (
            np.where(total > 0, counting, self.counts),
            np.where(total > 0, total, self.counts.sum(axis=0)),
        )
        return np.asarray((counting * self.models).sum(axis=0) / total, self.models.dtype)

    def moved(self, delta: Array, scale: float = 1.0) -> Array:
        """The ancestor, moved."""
        moved: Array = self.origin + self.models.dtype.type(scale) * delta.reshape(self.origin.shape)
        return moved


@dataclass(frozen=True, repr=False)
class InBoxes(Brief):
    """One tensor of several models that is read box by box, for what must be known of it as a whole.

    Attributes:
        shape: of the tensor.
        numbers, seed: see `Stack`.
        boxes: gives a stack of each box, one after the other, as often as it is called.
    """

    shape: tuple[int, ...]
    numbers: tuple[int, ...]
    seed: tuple[int, ...]
    boxes: Callable[[], Iterator[Stack]]


def generators(seed: tuple[int, ...], numbers: tuple[int, ...]) -> Iterator[np.random.Generator]:
    """For each model, by its number, random numbers of its own."""
    return (np.random.default_rng((*seed, number)) for number in numbers)


def mean_of(values: Array, weight: Vector, present: Mask | None = None) -> Array:
    """The weighted mean over the first axis, of each entry over those that are present.

    Where all weights of those are 0 they count alike. What is equal in all stays as it is, bit for bit, and so does
    what alone has a weight: the mean is taken of the distances to the heaviest.
    """
    if present is None:
        first = int(np.argmax(weight))
        shares = (weight / weight.sum()).astype(values.dtype)
        result: Array = values[first].copy()
        for share, one in zip(shares, values, strict=True):
            if share:
                result += share * (one - values[first])
        return result
    mean, total = masked_mean(values, weight, present)
    weightless = total <= 0
    if weightless.any():
        alike, _ = masked_mean(values, np.ones(len(values)), present)
        mean = np.where(weightless, alike, mean)
    return mean


def masked_mean(values: Array, weight: Vector, present: Mask) -> tuple[Array, Array]:
    """The same where the weights of those that are present are not all 0, and the sums of these weights.

    Model after model: an array of all entries of all models takes several times as long.
    """
    scaled = weight / (np.abs(weight).max() or 1.0)
    total, heaviest = np.zeros(values.shape[1:]), values[0].copy()
    for place in sorted(range(len(values)), key=lambda place: (weight[place], -place)):
        np.copyto(heaviest, values[place], where=present[place])  # the first of the heaviest comes last
    moved, step = np.zeros_like(heaviest), np.empty_like(heaviest)
    for own, one, has in zip(scaled, values, present, strict=True):
        np.add(total, own, out=total, where=has)
        np.subtract(one, heaviest, out=step)
        np.multiply(step, values.dtype.type(own), out=step)
        np.add(moved, step, out=moved, where=has)
    np.divide(moved, total, out=moved, where=total > 0, casting="same_kind")
    return heaviest + moved, total


def spread_over(weight: Vector, like: Array) -> Array:
    """One number for each model, in a form that multiplies a stack."""
    spread = weight.astype(like.dtype)
    return np.asarray(spread.reshape(-1, *[1] * (like.ndim - 1)))
