"""What a convolution reads at each of its places: the patches under its window."""

from collections.abc import Sequence

import numpy as np

from mal_graph.graph import Array, Node
from mal_graph.operators import Misfit, Span, groups_of, row_of, spans_of

MOST_TAPS = 1536  # units x taps that are fitted together: their moments take the square of that


def window_of(node: Node, stored: Sequence[int | None], shape: Sequence[int]) -> list[Span] | None:
    """The window of a convolution whose coefficients can be fitted tap by tap; None where it has a single one.

    Args:
        stored: the stored axes of its weight, in canonical order.
        shape: of the weight, as it is stored.
    """
    row, taps = row_of(node), tuple(shape[2:])
    if row is None or not row.has_window or not row.is_linear or groups_of(node) > 1:
        return None
    if max(taps, default=1) == 1 or list(stored) != list(range(len(shape))) or row.weight_axes(1, node, 2) != (0, 1):
        return None
    try:
        return spans_of(node, taps)
    except Misfit:
        return None


def find_patches(values: Array, window: Sequence[Span]) -> Array:
    """The patches of a batch, shape (units x taps, samples x places), from maps of shape (samples, units, places...).

    The taps lie as in the weight, the places as in the convolution's output.
    """
    pads = [(0, 0), (0, 0), *((span.before, span.after) for span in window)]
    padded = np.pad(values, pads)
    axes = tuple(range(2, padded.ndim))
    reach = [(span.dilation or 1) * (span.taps - 1) + 1 for span in window]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axes)
    places = [slice(None, None, span.stride) for span in window]
    taps = [slice(None, None, span.dilation or 1) for span in window]
    seen = seen[(slice(None), slice(None), *places, *taps)]  # (samples, units, places..., taps...)
    rank = len(window)
    order = [1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank)]
    moved = seen.transpose(order)
    rows = values.shape[1] * int(np.prod([span.taps for span in window]))
    return moved.reshape(rows, -1)
