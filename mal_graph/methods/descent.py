"""The one optimiser of methods that take steps: Adam (Kingma and Ba 2015, arXiv:1412.6980) with its usual constants."""

from collections.abc import Callable

import numpy as np

from mal_graph.boxes import Array

KEPT, KEPT_SQUARE, LEAST = 0.9, 0.999, 1e-8  # of the slope, of its square, and what a size is at least


def descend(start: Array, slope_at: Callable[[Array, int], Array], steps: int, rate: float) -> Array:
    """Where some steps of Adam lead.

    Args:
        start: float64 of any shape; left as it is.
        slope_at: the gradient at a point, of its shape, in the step of a number from 0 on.
        rate: how far a number goes in a step at most, about.
    """
    point, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        slope = slope_at(point, step - 1)
        mean, square = KEPT * mean + (1 - KEPT) * slope, KEPT_SQUARE * square + (1 - KEPT_SQUARE) * slope**2
        size = np.sqrt(square / (1 - KEPT_SQUARE**step)) + LEAST
        point -= rate * (mean / (1 - KEPT**step)) / size
    return point
