"""What units do on unlabelled inputs: means, deviations and correlations, summed up as the samples stream by.

Of a batch the tensors asked for are read, reduced to one row a unit, and let go: no map is kept. Batches are small
enough for that, and the same for every model that is read beside another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mal_graph.errors import DataError
from mal_graph.evaluation.data import LABELS, MAX_BATCH, fixed_batches, match_inputs, split_samples
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import fed_weights, find_sample_axes
from mal_graph.protocols import Runner

LEAST = 16  # samples: the mean of fewer is off by more than a quarter of the deviation
MAX_READ = 1 << 23  # entries that are read at once
FLAT = 1e-5  # of a unit's size: a deviation below this is rounding


@dataclass(frozen=True)
class Place:
    """Where units appear: a tensor, and the axis of it that holds them, which may count from the end."""

    tensor: str
    axis: int

    def rows(self, values: Array) -> Array:
        """One row for each unit, shape (units, samples and positions)."""
        return np.moveaxis(values, self.axis, 0).astype(np.float64, "C").reshape(values.shape[self.axis], -1)


@dataclass
class Moments:
    """Mean and variance of units; batches are added as by Chan, Golub and LeVeque 1983.

    Attributes:
        count: numbers seen of each unit.
        mean: shape (units,).
        squares: the summed squares of what is left when the mean is taken off, shape (units,).
    """

    count: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(()))
    squares: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, rows: Array) -> None:
        mean = rows.mean(axis=1)
        own, total = rows.shape[1], self.count + rows.shape[1]
        gap = mean - self.mean
        left = rows - mean[:, None]
        self.squares = self.squares + np.einsum("ij,ij->i", left, left) + gap**2 * self.count * own / total
        self.mean = self.mean + gap * own / total
        self.count = total

    @property
    def variance(self) -> Array:
        return self.squares / self.count

    @property
    def sd(self) -> Array:
        """Standard deviations; 0 where they are nothing but rounding."""
        sd = np.sqrt(self.variance)
        flat: Array = np.where(sd > FLAT * np.abs(self.mean), sd, 0.0)
        return flat


@dataclass
class Comoments:
    """Means and variances of the units of two models, and the products of each with each, in the same way."""

    a: Moments = field(default_factory=Moments)
    b: Moments = field(default_factory=Moments)
    products: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, a: Array, b: Array) -> None:
        means = a.mean(axis=1), b.mean(axis=1)
        gaps = np.outer(means[0] - self.a.mean, means[1] - self.b.mean)
        own, total = a.shape[1], self.a.count + a.shape[1]
        left = (a - means[0][:, None]) @ (b - means[1][:, None]).T
        self.products = self.products + left + gaps * self.a.count * own / total
        self.a.add(a)
        self.b.add(b)

    @property
    def correlation(self) -> Array:
        """Between -1 and 1, shape (units, other units); 0 for units that do not vary."""
        size = np.outer(self.a.sd, self.b.sd) * self.a.count
        correlation: Array = np.where(size > 0, self.products / np.where(size > 0, size, 1), 0.0)
        return correlation


class Stream:
    """Calibration inputs on their way through one model.

    Args:
        graph: the model.
        arrays: its inputs, as `calibration_inputs` accepts them.
        read: the tensors that can be read.
        variable: weights that are given to every run.
    """

    def __init__(
        self,
        graph: LayerGraph,
        arrays: Mapping[str, Array],
        runner: Runner,
        read: Sequence[str],
        variable: Sequence[str] = (),
    ) -> None:
        self.graph, self.axes = graph, find_sample_axes(graph)
        self.inputs = calibration_inputs(graph, arrays)
        self.fed = {**fed_weights(graph), **{name: graph.weights[name].read() for name in variable}}
        self.session = runner.open(graph, read=list(dict.fromkeys(read)), variable=list(self.fed))

    @property
    def samples(self) -> int:
        """How many samples are run: whole batches, where their size is fixed."""
        return whole_batches(self.graph, self.inputs)

    def read(
        self, batch: slice | Array, tensors: Sequence[str], weights: Mapping[str, Array] | None = None
    ) -> Mapping[str, Array]:
        """Tensors of one batch, a stretch of samples or their numbers, with other values in some variable weights."""
        inputs = self.axes.taken(self.inputs, batch)
        return self.session.run(inputs, {**self.fed, **(weights or {})}, read=list(tensors))


def measure(
    stream: Stream, places: Sequence[Place], weights: Mapping[str, Array] | None = None
) -> dict[Place, Moments]:
    """Mean and deviation of every unit at some places, in one pass."""
    measured = {place: Moments() for place in places}
    for values in stream_together([(stream, [place.tensor for place in places])], weights):
        for place, moments in measured.items():
            moments.add(place.rows(values[0][place.tensor]))
    return measured


def stream_together(
    sides: Sequence[tuple[Stream, Sequence[str]]], weights: Mapping[str, Array] | None = None
) -> Iterator[list[Mapping[str, Array]]]:
    """The tensors asked for of every model, batch by batch."""
    for batch in find_batches(sides):
        yield [stream.read(batch, tensors, weights) for stream, tensors in sides]


def find_batches(sides: Sequence[tuple[Stream, Sequence[str]]]) -> list[slice]:
    """Samples to run together. Where a model fixes its batch, samples beyond the last whole batch are left out."""

    def entries() -> int:
        return sum(array.size for one in sides for array in one[0].read(slice(0, 1), one[1]).values())

    return batches_of([stream.graph for stream, _ in sides], min(stream.samples for stream, _ in sides), entries)


def whole_batches(graph: LayerGraph, inputs: Mapping[str, Array]) -> int:
    """How many samples a model can run: whole batches, where it fixes their size."""
    samples = find_sample_axes(graph).count(inputs)
    return samples - samples % max([1, *fixed_batches(graph)])


def batches_of(graphs: Sequence[LayerGraph], samples: int, entries: Callable[[], int]) -> list[slice]:
    """Samples that several models run together; `entries` says how many one of them takes.

    Raises:
        DataError: the models fix batches of different sizes.
    """
    fixed = {size for graph in graphs for size in fixed_batches(graph)}
    if len(fixed) > 1:
        sizes = " and ".join(map(str, sorted(fixed)))
        raise DataError(
            f"the models run batches of {sizes} samples, so they cannot run on the same ones: export them with one "
            "size, or a dynamic batch axis"
        )
    if fixed:
        return split_samples(samples, fixed.pop())
    return split_samples(samples, max(1, min(MAX_BATCH, MAX_READ // max(1, entries()))))


def calibration_inputs(graph: LayerGraph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays for the inputs of a model, `labels` left aside.

    Raises:
        DataError: they do not fit the model, hold NaN or infinity, or too few samples to measure anything on.
    """
    inputs = match_inputs(graph, {name: array for name, array in arrays.items() if name != LABELS})
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            sample = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(
                f"the calibration array for input {name!r} holds NaN or infinity in sample {sample}: leave it out"
            )
    samples = find_sample_axes(graph).count(inputs)
    least = max([LEAST, *fixed_batches(graph)])
    if samples < least:
        whole = f", one batch of {graph.name}" if least > LEAST else ""
        raise DataError(f"there are {samples} calibration samples: give at least {least}{whole}")
    return inputs
