"""Sets of layers as the bits of whole numbers: of ten thousand layers a set takes a KiB, and a union no loop."""

import numpy as np
from numpy.typing import NDArray


def as_mask(bits: int, count: int) -> NDArray[np.bool_]:
    """Which of `count` layers are in a set."""
    stored = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.unpackbits(stored, count=count, bitorder="little").view(np.bool_)


def members(bits: int, count: int) -> NDArray[np.intp]:
    """The layers in a set, in order."""
    return as_mask(bits, count).nonzero()[0]


def as_bits(layers: NDArray[np.intp], count: int) -> int:
    """Some of `count` layers as a set."""
    mask = np.zeros(count, np.bool_)
    mask[layers] = True
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")
