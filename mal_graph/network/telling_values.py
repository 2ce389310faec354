"""What the values of a stored tensor tell of it: signs that nothing learned shows by chance.

All are read in float64; what is compared is compared to what the stored type leaves of a number.
"""

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array

NEGLIGIBLE = -50.0  # a score this far below the others gets a share of 2e-22
UNLEARNED = -1e4  # what takes scores out, and logarithms of decays
LONGEST_HEAD = 4096
ROOTS = (1, -1, 2, -2, 4, -4)  # d, 1/d, sqrt(d), 1/sqrt(d), and a fourth root on queries and keys each
FEWEST_STEPS = 4  # places on a grid: three numbers may be evenly spaced by chance
FEWEST_FALLING = 6  # of which one order in 720 falls
MOST_ENTRIES = 1 << 20  # of a tensor that is looked at for a grid

Floats = NDArray[np.float64]


def as_floats(stored: Array) -> Floats:
    """The values in float64."""
    return stored.astype(np.float64)


def spacing(stored: Array) -> float:
    """What two values that were the same number may differ by, relative, once they are stored."""
    return 1e-2 if stored.dtype.itemsize < 4 else 1e-5


def has_one_value(stored: Array) -> bool:
    """Whether all entries are the same."""
    return stored.size > 0 and bool((stored == stored.ravel()[0]).all())


def is_root_of_length(stored: Array) -> bool:
    """Whether all entries are one number that scores are scaled by: a power of a whole number, the length of a head."""
    value = abs(float(as_floats(stored).ravel()[0])) if has_one_value(stored) else 0.0
    if not 0 < value < np.inf or value == 1.0:
        return False
    powers = np.array([value**root for root in ROOTS])
    whole = np.round(powers)
    is_near = np.abs(powers - whole) <= spacing(stored) * np.maximum(whole, 1)
    return bool((is_near & (whole > 1) & (whole <= LONGEST_HEAD)).any())


def is_additive_mask(stored: Array) -> bool:
    """Whether all entries are 0 or so low that nothing is left of a score, and some are."""
    values = as_floats(stored)
    return bool((values <= NEGLIGIBLE).any() and ((values == 0) | (values <= NEGLIGIBLE)).all())


def takes_out(stored: Array) -> bool:
    """Whether all entries are 0 or so low that nothing which was learned reaches there, and some are."""
    values = as_floats(stored)
    return bool((values <= UNLEARNED).any() and ((values == 0) | (values <= UNLEARNED)).all())


def is_factor_mask(stored: Array) -> bool:
    """Whether some entries are 0 and all others 1."""
    return stored.size > 1 and set(np.unique(as_floats(stored)).tolist()) == {0.0, 1.0}


def is_falling(stored: Array) -> bool:
    """Whether the values are powers of one number, as the slopes of ALiBi are (arXiv:2108.12409), whose heads beyond a
    power of two have a second such row; two values are if they are whole powers of two."""
    values = np.abs(as_floats(stored)).ravel()
    if values.size < 2 or not (np.isfinite(values).all() and (values > 0).all()):
        return False
    powers = np.log2(values)
    if values.size == 2:
        return bool(powers[0] != powers[1] and (powers == np.round(powers)).all())
    steps = np.diff(powers)
    is_other = np.abs(steps - np.median(steps)) > spacing(stored) * np.abs(powers).max()
    return bool(np.median(steps) != 0 and np.count_nonzero(is_other) <= (values.size > FEWEST_STEPS))


def are_frequencies(stored: Array) -> bool:
    """Whether the values are what positions are multiplied by to be angles (arXiv:1706.03762, arXiv:2104.09864): powers
    of one number, or numbers that fall from 1, or many that fall; each may stand there twice. Learned ones are none."""
    once, half = stored.ravel(), stored.size // 2
    for first, second in ((once[:half], once[half:]), (once[::2], once[1::2])):
        if half and np.array_equal(first, second):
            once = first
    values = as_floats(once)
    if once.size < 2 or is_falling(once):
        return once.size > 0
    falls = bool(np.isfinite(values).all() and values.min() > 0 and (np.diff(values) <= 0).all())
    return falls and not has_one_value(once) and (values[0] == 1.0 or values.size >= FEWEST_FALLING)


def is_grid(stored: Array) -> bool:
    """Whether the values are places on a grid: evenly spaced, or whole and half numbers."""
    if not FEWEST_STEPS <= stored.size <= MOST_ENTRIES:
        return False
    values = np.unique(as_floats(stored))
    if len(values) < FEWEST_STEPS or not np.isfinite(values).all():
        return False
    steps = np.diff(values)
    is_even = np.abs(steps - steps[0]).max() <= spacing(stored) * np.abs(values).max()
    return bool(is_even or (2 * values == np.round(2 * values)).all())


def is_rotation(stored: Array) -> bool:
    """Whether the two halves of the last axis are cosines and sines of the same angles."""
    half = stored.shape[-1] // 2
    return stored.shape[-1] % 2 == 0 and are_rotation(stored[..., :half], stored[..., half:])


def are_rotation(one: Array, other: Array) -> bool:
    """Whether two tables are cosines and sines of the same angles, or both a number times that."""
    if one.size < FEWEST_STEPS or has_one_value(one) or has_one_value(other):
        return False
    squares = as_floats(one) ** 2 + as_floats(other) ** 2
    return bool(squares.flat[0] > 0 and np.allclose(squares, squares.flat[0], rtol=spacing(one), atol=0))
