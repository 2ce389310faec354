"""Sieves: which entries of task vectors stay, where that hangs on the tensor as a whole, told before boxes are made.

A method that thins task vectors is computed box by box once it is known which entries stay: what is held of a tensor
is a number, or a byte an entry, of each model, not all its values. Told exactly as of the whole tensor, bit for bit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mal_graph.boxes import MOST, Array, Box, take_box
from mal_graph.methods.stack import InBoxes, Mask, Stack, generators

Kept = Callable[[Stack, Box], Mask]  # of a box: the stack, and where it lies; of the shape of the stack's models
Sieve = Callable[[InBoxes, Mapping[str, Any]], Kept]  # of a tensor, by the parameters of the method

DIGIT = 16  # bits of a number that are looked at in one pass


def sieve_largest(tensor: InBoxes, values: Mapping[str, Any]) -> Kept:
    """The largest entries of each task vector, up to its share; all that are as large as the last of them."""
    least = least_kept(tensor, values["density"])

    def kept(stack: Stack, box: Box) -> Mask:
        return np.asarray(np.abs(stack.deltas) >= least.reshape(-1, *[1] * len(box)))

    return kept


def sieve_drawn(tensor: InBoxes, values: Mapping[str, Any]) -> Kept:
    """Entries drawn at random, up to the share of each model: of each a byte an entry is held."""
    masks: Mask = np.empty((len(tensor.numbers), *tensor.shape), bool)
    drawn = zip(masks.reshape(len(masks), -1), values["density"], generators(tensor.seed, tensor.numbers), strict=True)
    for mask, density, random in drawn:
        for start in range(0, len(mask), MOST):
            part = mask[start : start + MOST]
            np.less(random.random(len(part)), density, out=part)

    return lambda stack, box: take_box(masks, (slice(0, len(masks)), *box))


def least_kept(tensor: InBoxes, density: Array) -> Array:
    """The size of the smallest entry that each task vector keeps.

    Numbers of one sign are in order as their bits are: a few bits are counted in each pass over the tensor, the highest
    first, among those numbers alone that have the bits which are known already.
    """
    first = next(tensor.boxes())
    bits, count = first.models.dtype.itemsize * 8, first.count
    known: list[int] = [0] * count
    places: list[int] = []  # of the entry among those that have the known bits, the smallest first
    for shift in range(bits - DIGIT, -1, -DIGIT):
        counts, sizes = counted(tensor, known, shift)
        if not places:
            total = int(np.prod(tensor.shape))
            places = [total - max(1, int(float(own) * size)) for own, size in zip(density, sizes, strict=True)]
        for model in range(count):
            up_to = counts[model].cumsum()
            digit = int(np.searchsorted(up_to, places[model], side="right"))
            places[model] -= int(up_to[digit - 1]) if digit else 0
            known[model] = known[model] << DIGIT | digit
    return np.array(known, f"u{bits // 8}").view(first.models.dtype)


def counted(tensor: InBoxes, known: list[int], shift: int) -> tuple[Array, list[int]]:
    """How often each next digit is among the sizes whose higher digits are known, shape (models, digits), and how many
    entries each model has."""
    counts, sizes = np.zeros((len(known), 1 << DIGIT), np.int64), np.zeros(len(known), np.int64)
    for stack in tensor.boxes():
        sizes += stack.sizes()
        for model, delta in enumerate(stack.deltas):
            bits = np.abs(delta).ravel().view(f"u{delta.dtype.itemsize}")
            if shift + DIGIT < delta.dtype.itemsize * 8:
                bits = bits[bits >> (shift + DIGIT) == known[model]]
            digits = bits >> shift & ((1 << DIGIT) - 1)
            counts[model] += np.bincount(digits.astype(np.intp), minlength=1 << DIGIT)
    return counts, sizes.tolist()
