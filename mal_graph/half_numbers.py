"""Numbers of two bytes as float32 and back, by whole-number operations on many at once: numpy converts one at a time.

Chosen: operations of numpy that give the bits of its own conversion, which takes over where a number is infinite, none,
or beyond the type. Refused: torch, whose conversion is ten times as fast again and gives the same bits - importing it
takes longer than a GiB saves -, and its `lerp`, which rounds otherwise.
"""

from typing import Any

import numpy as np

from mal_graph.boxes import Array

FEW = 2**11  # numbers that numpy's conversion has done before these operations have begun
FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
SIGN, EXPONENT = np.uint32(0x8000), np.uint32(0x7F800000)  # of a float16; of a float32
MANTISSA = np.uint32(13)  # bits that a float32 has more
KEPT = np.int32(0x0FFFE000 - 2**31)  # the sign and the 15 bits of a float16, moved to the top
LIFT = np.float32(2.0**112)  # by how much the exponents of the types begin apart
SMALLEST = np.float32(2.0**-149)  # which a processor that is told to flush small numbers takes for zero
LEAST, MOST = np.uint32(113 << 23), np.uint32(142 << 23)  # the exponents of a float16, as a float32 has them
START = np.uint32((113 + 13) << 10)


def as_float32(values: Array) -> Array:
    """What `values.astype(np.float32, copy=False)` gives."""
    if values.dtype != FLOAT16 or values.size < FEW or not SMALLEST * LIFT:
        return values.astype(np.float32, copy=False)
    bits = values.view(np.int16).astype(np.int32)  # the sign goes to the top
    bits <<= MANTISSA
    bits &= KEPT
    numbers: Array = bits.view(np.float32)
    numbers *= LIFT
    is_finite = numbers.max() < 65536 and numbers.min() > -65536
    return numbers if is_finite else values.astype(np.float32)


def as_type(values: Array, dtype: np.dtype[Any]) -> Array:
    """What `values.astype(dtype, copy=False)` gives.

    A number is added to one so large that what is left of it in float32 is what float16 keeps: the sum is rounded to
    nearest, ties to even, as the conversion is.
    """
    if dtype != FLOAT16 or values.dtype != FLOAT32 or values.size < FEW:
        return values.astype(dtype, copy=False)
    bits = values.view(np.uint32)
    large = bits & EXPONENT
    if large.max() > MOST:
        return values.astype(dtype)
    np.maximum(large, LEAST, out=large)
    large += np.uint32(13 << 23)
    total = np.abs(values)
    total += large.view(np.float32)
    rounded = total.view(np.uint32)
    rounded -= large
    large >>= MANTISSA
    large -= START
    rounded += large
    np.right_shift(bits, np.uint32(16), out=large)
    large &= SIGN
    rounded |= large
    return rounded.astype(np.uint16).view(np.float16)
