"""What two models give for the same samples, as rows of numbers that can be compared.

Scores of classes are read as logits, each row less its mean: a softmax says nothing of what all of them have in common,
and probabilities become comparable with logits. Values are divided by how much the base's vary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from mal_graph.evaluation import PROBABILITY_SLACK, OutputKind, log_probabilities
from mal_graph.graph import MERGEABLE_TYPES, Array

MOST_NUMBERS = 1 << 13  # of each sample: of a map or a sequence so many places are compared as give these
MOST_HELD = 1 << 14  # of each sample: of more, so few places are held
MOST_PLACES, MOST_COLUMNS = 64, 4096
FLAT = 1e-6  # of the largest value: what varies less is the same for all samples


@dataclass(frozen=True)
class Reading:
    """How one output of two models is read.

    Attributes:
        output: the base's name for it.
        axis: of both along which its columns lie.
        columns: of base and donor, those that are compared with each other; all of them where it is None.
        kinds: what the two hold.
        are_scores: whether they score classes, so that the largest decides and the size of all says little.
        is_told: whether they are values because somebody said so.
        units: how much each column of the base's values varies.
    """

    output: str
    axis: int
    columns: tuple[tuple[int, ...], tuple[int, ...]] | None
    kinds: tuple[OutputKind, OutputKind]
    are_scores: bool
    is_told: bool = False
    units: tuple[float, ...] = (1.0,)

    def rows(self, values: Array, side: int) -> Array:
        """An output of the base (side 0) or the donor (1), shape (samples, places, columns), float64."""
        rows = placed(values, self.axis)
        if self.columns is not None:
            rows = rows[:, :, list(self.columns[side])]
        if not self.are_scores:
            return np.asarray(rows.astype(np.float64) / np.array(self.units))
        flat = rows.reshape(-1, rows.shape[2])
        if self.kinds[side] == "probabilities" or rows.shape[2] == 1:  # what is taken off logits is taken off below too
            flat = log_probabilities(flat, self.kinds[side], self.output)
        flat = flat.astype(np.float64)
        return np.asarray((flat - flat.mean(axis=1, keepdims=True)).reshape(*rows.shape[:2], -1))


def placed(values: Array, axis: int) -> Array:
    """An output with its columns last and few of its places, shape (samples, places, columns)."""
    rows = np.moveaxis(values, axis, -1).reshape(len(values), -1, values.shape[axis])
    most = min(MOST_PLACES, max(1, MOST_NUMBERS // rows.shape[2]))
    return rows[:, :: -(-rows.shape[1] // most)]


def few_places(values: Array) -> Array:
    """An output with so few of its places, evenly spread, that many samples of it can be held."""
    axes = [axis for axis in range(1, values.ndim) if axis != column_axis(values.shape)]
    if not axes or not len(values) or values[0].size <= MOST_HELD:
        return values
    step = ceil((values[0].size / MOST_HELD) ** (1 / len(axes)))
    return values[tuple(slice(None, None, step if axis in axes else None) for axis in range(values.ndim))].copy()


def column_axis(shape: Sequence[int]) -> int:
    """The axis of an output that tells its columns apart: channels of a map, else the last."""
    return 1 if len(shape) in (2, 4, 5) else len(shape) - 1


def can_be_read(base: Array, donor: Array, samples: int) -> bool:
    """Whether two outputs hold a row of numbers for each sample, in places of the same number."""
    if any(one.dtype.name not in MERGEABLE_TYPES or one.ndim < 2 or len(one) != samples for one in (base, donor)):
        return False
    if base.ndim != donor.ndim or not base.size or not donor.size:
        return False
    axis = column_axis(base.shape)
    rest = [tuple(np.delete(one.shape, axis)) for one in (base, donor)]
    return rest[0] == rest[1] and max(base.shape[axis], donor.shape[axis]) <= MOST_COLUMNS


def kind_by_values(values: Array, axis: int, kind: OutputKind) -> OutputKind:
    """What an output holds, where its operators do not tell: numbers in [0, 1] that sum to one are probabilities."""
    if kind != "logits" or values.shape[axis] < 2:
        return kind
    is_one = np.abs(values.sum(axis=axis) - 1) <= PROBABILITY_SLACK
    in_range = (values >= -PROBABILITY_SLACK) & (values <= 1 + PROBABILITY_SLACK)
    return "probabilities" if bool(is_one.all() and in_range.all()) else kind


def is_constant(values: Array) -> bool:
    """Whether an output of numbers is the same for all samples."""
    if values.dtype.name not in MERGEABLE_TYPES or not values.ndim or len(values) < 2:
        return False
    numbers = values.astype(np.float64)
    largest = float(np.abs(numbers).max(initial=0))
    return float(np.abs(numbers - numbers[:1]).max(initial=0)) <= FLAT * largest
