"""Whether a network does what several do together, judged on inputs that nothing was fitted on.

How near a result is to the ensemble says nothing by itself: the base is near it, too. And each part may be near what it
was while the parts together are far from the ensemble. So the error of the result against the ensemble is given as a
share of the base's own: of the outputs, and of the shares of the classes where they are logits, whichever is larger.
Logits alone are judged too kindly where one model gives larger ones than the other, shares alone where few samples are
near a border between classes.

The limits are those below which, in `tools/study_pays.py`, no result was worse than its base by more than a standard
error (on given inputs), or hardly one (on noise), where the ensemble is better than the base at all. Nor was any where
classes are joined (`tools/study_joined_classes.py`); but on the classes that the base knows it was better than nearly
all of them, as it was than the ensemble, and no nearness to that says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.evaluation import Stream, find_batches
from mal_graph.graph import Array, LayerGraph
from mal_graph.protocols import Runner

TINY = 1e-30
LIMIT, LIMIT_ON_NOISE = 0.25, 0.2  # of the base's own distance to the ensemble


@dataclass(frozen=True)
class Guard:
    """What was found.

    Attributes:
        error: how far the outputs are from the ensemble's, as a share of how far the base's are; of one model alone, as
            a share of how much its outputs vary. The worst kind of input counts.
        inputs: what was run.
        is_real: whether it was given.
    """

    error: float
    inputs: str
    is_real: bool

    @property
    def limit(self) -> float:
        """Up to where the error is accepted."""
        return LIMIT if self.is_real else LIMIT_ON_NOISE

    @property
    def accepts(self) -> bool:
        """Whether the result is near enough; never where something is not finite."""
        return self.error <= self.limit


@dataclass(frozen=True)
class Choice:
    """Which way was taken, and why.

    Attributes:
        taken: the name of the way.
        why: one sentence.
        is_good: whether the result is near enough to the ensemble; else the base is expected to be better.
    """

    taken: str
    why: str
    is_good: bool


def values_of(
    graph: LayerGraph, tensors: Sequence[str], inputs: Mapping[str, Array], runner: Runner
) -> dict[str, Array]:
    """Some tensors of a network for all samples, these along the first axis. Raises DataError or RunError."""
    stream = Stream(graph, inputs, runner, tensors)
    batches = find_batches([(stream, tensors)])
    parts = [stream.read(batch, tensors) for batch in batches]
    values = {}
    for name in tensors:
        axis = axis_of_samples(parts[0][name], batches[0].stop - batches[0].start)
        values[name] = np.concatenate([np.moveaxis(np.atleast_1d(part[name]), axis, 0) for part in parts])
    return {name: array.astype(np.float64) for name, array in values.items()}


def axis_of_samples(values: Array, count: int) -> int:
    """The first axis that is as long as there are samples: a state of a recurrent layer has layers in front of it."""
    return next((axis for axis, length in enumerate(values.shape) if length == count), 0)


def distance(values: Mapping[str, Array], others: Mapping[str, Array]) -> float:
    """The root mean square by which tensors differ, each relative to how much it varies in the others."""
    gaps = [mean_square(values[name] - other) / spread_of(other) for name, other in others.items()]
    return float(np.sqrt(np.mean(gaps)))


def mean_square(values: Array) -> float:
    return float(np.mean(values**2))


def spread_of(values: Array) -> float:
    """How much a tensor varies from sample to sample, as a mean square."""
    return max(mean_square(values - values.mean(axis=0, keepdims=True)), TINY)


def shares_of_classes(values: Array) -> Array:
    """What logits say of each class, shape (samples, classes); a single one is taken against 0."""
    if values.shape[1] == 1:
        values = np.concatenate([np.zeros_like(values), values], axis=1)
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
