"""Which stored tensors of two models hold the same numbers, in whatever order.

Compared are sums of powers, which no order changes and which take one pass. Two sums differ by chance about as much as
the root of what their terms' squares add up to; where numbers are the same but for rounding, by a thousandth of that,
however many they are. Refused: sorted numbers, whose distance shrinks with their count, so that of a million draws from
one distribution any two look alike.
"""

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array, Weight
from mal_graph.matching.orders import Order, match_units

Sums = NDArray[np.float64]  # (tensors, SUMS): of x, |x|, x^2, x^3, x^4, x^6
SUMS = 6
SQUARES = [2, 2, 4, 5]  # for each of the first four where the sum of its terms' squares stands
ROUNDED = 0.02  # of what chance makes; half the bits, 2^-9 in bfloat16, make a third of it at most
NOTHING_ALIKE = 1e9  # of numbers that are not finite


def sums_of(weight: Weight, axis: int | None = None) -> Sums:
    """The sums of a tensor, shape (1, SUMS), or those at each position of one of its axes, shape (positions, SUMS);
    read box by box."""
    read, total = weight.open(), np.zeros((1 if axis is None else weight.shape[axis], SUMS))
    for box in weight.boxes:
        total[slice(None) if axis is None else box[axis]] += sums_along(read(box), axis)
    return total


def sums_along(values: Array, axis: int | None) -> Sums:
    """The same of an array."""
    count = 1 if axis is None else values.shape[axis]
    x = np.moveaxis(np.asarray(values, np.float64), axis or 0, 0) if values.ndim else np.asarray(values, np.float64)
    x = x.reshape(count, -1)
    square = x * x
    cube = square * x
    powers = (x, np.abs(x), square, cube, square * square, cube * cube)
    return np.stack([power.sum(axis=1) for power in powers], axis=1)


def same_numbers(own: Sums, others: Sums) -> Order | None:
    """Which of some others holds the numbers of each; None where they do not hold the same ones.

    What holds the same in its own place stays there.
    """
    place = np.arange(len(own))
    away = np.flatnonzero(apart(own, others) > ROUNDED)
    if len(away):
        table = apart(own[away, None], others[None, away])
        place[away] = away[match_units(-table)]
        if (apart(own, others[place]) > ROUNDED).any():
            return None
    return place


def apart(a: Sums, b: Sums) -> NDArray[np.float64]:
    """How far sums are from each other, of what chance makes: the largest of each."""
    spread = np.sqrt((a + b)[..., SQUARES])
    with np.errstate(invalid="ignore"):
        far = np.abs((a - b)[..., : len(SQUARES)]) / np.maximum(spread, np.finfo(np.float64).tiny)
    furthest: NDArray[np.float64] = np.nan_to_num(far, nan=NOTHING_ALIKE, posinf=NOTHING_ALIKE).max(axis=-1)
    return furthest
