"""Outputs as rows of classes, and back."""

import numpy as np

from mal_graph.boxes import Array


def rows_of_classes(values: Array) -> Array:
    """An output as rows of classes: these lie along its last axis, of maps with four axes or more along the second."""
    if values.ndim == 1:
        return values[:, None]
    moved = np.moveaxis(values, 1, -1) if values.ndim > 3 else values
    return np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])


def as_output(rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows of classes in the form of the output that they are of (see `rows_of_classes`)."""
    if len(shape) <= 3:
        return rows.reshape(shape)
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
