"""Whether a network does what several do together, judged on inputs that nothing was fitted on.

How near a result is to the ensemble says nothing by itself: the base is near it, too. And each part may be near what it
was while the parts together are far from the ensemble. So the error of the result against the ensemble is given as a
share of the base's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mal_graph.evaluation import Scores, Stream, find_batches
from mal_graph.graph import Array, LayerGraph
from mal_graph.protocols import Runner

TINY = 1e-30
LIMIT = 0.5  # of the base's own distance to the ensemble


@dataclass(frozen=True)
class Guard:
    """What was found.

    Attributes:
        error: how far the outputs are from the ensemble's, as a share of how far the base's are; of one model alone, as
            a share of how much its outputs vary. The worst kind of input counts.
        inputs: what was run.
        is_real: whether it was given.
        limit: up to where the error is accepted.
    """

    error: float
    inputs: str
    is_real: bool
    limit: float = LIMIT

    @property
    def accepts(self) -> bool:
        """Whether the result is near enough; never where something is not finite."""
        return self.error <= self.limit


@dataclass(frozen=True)
class Tried:
    """One way that was tried.

    Attributes:
        name: of the way.
        error: how far its outputs are from the ensemble's, as in `Guard`.
        cost: its multiplications, as a multiple of the base's.
        score: on the labelled data that decide, where there are any.
    """

    name: str
    error: float
    cost: float
    score: Scores | None = None


@dataclass(frozen=True)
class Choice:
    """Which way was taken, and why.

    Attributes:
        taken: the name of the way.
        why: one sentence.
        tried: what was judged, in order.
        is_good: whether the result is near enough to the ensemble; else the base is expected to be better.
    """

    taken: str
    why: str
    tried: tuple[Tried, ...]
    is_good: bool


def values_of(
    graph: LayerGraph, tensors: Sequence[str], inputs: Mapping[str, Array], runner: Runner
) -> dict[str, Array]:
    """Some tensors of a network for all samples. Raises DataError or RunError."""
    stream = Stream(graph, inputs, runner, tensors)
    parts = [stream.read(batch, tensors) for batch in find_batches([(stream, tensors)])]
    return {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in tensors}


def distance(values: Mapping[str, Array], others: Mapping[str, Array]) -> float:
    """The root mean square by which tensors differ, each relative to how much it varies in the others."""
    gaps = [mean_square(values[name] - other) / spread_of(other) for name, other in others.items()]
    return float(np.sqrt(np.mean(gaps)))


def mean_square(values: Array) -> float:
    return float(np.mean(values**2))


def spread_of(values: Array) -> float:
    """How much a tensor varies from sample to sample, as a mean square."""
    return max(mean_square(values - values.mean(axis=0, keepdims=True)), TINY)
