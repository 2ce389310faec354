"""What a search proposes and what becomes of it: plain values, which travel to workers and into files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite

from mal_graph.parameter_settings import Setting

WEIGHT = "weight"  # the parameter of a merge method that says how much a model counts


@dataclass(frozen=True)
class Candidate:
    """A merge of some donors into the base, and by how many samples it is scored.

    Attributes:
        donors: which, by name, in order.
        weights: for each how much it counts, from the first layer to the last with straight lines between, where the
            base counts 1 (or is the ancestor, of methods that need one).
        samples: how many of each set of data it is scored by, the first ones; 0 for all.
    """

    donors: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    samples: int = 0

    @classmethod
    def of(cls, weights: Mapping[str, Sequence[float]]) -> "Candidate":
        """From the weights of donors, of which those that do not count are left out."""
        counting = {donor: tuple(map(float, row)) for donor, row in weights.items() if any(row)}
        return cls(tuple(counting), tuple(counting.values()))

    @property
    def by_donor(self) -> dict[str, tuple[float, ...]]:
        """The weights of each donor."""
        return dict(zip(self.donors, self.weights, strict=True))

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The weights as parameters of a merge method, where the donors are merged in this order."""
        return tuple(
            Setting(WEIGHT, row if len(row) > 1 else row[0], number) for number, row in enumerate(self.weights, 1)
        )

    @property
    def key(self) -> str:
        """A digest of it."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


@dataclass(frozen=True)
class Figure:
    """How a candidate does on one set of data.

    Attributes:
        loss, metric: over the samples; the loss may be nan.
        each: the loss of every sample, where that was asked for.
        samples: how many these are, the first ones; 0 for all.
    """

    loss: float
    metric: float
    each: tuple[float, ...] = ()
    samples: int = 0


@dataclass(frozen=True)
class Trial:
    """A candidate with what was found of it.

    Attributes:
        candidate: what was merged.
        figures: how it does on each set of data; () where it could not be scored.
        failure: why it could not be.
    """

    candidate: Candidate
    figures: tuple[Figure, ...] = ()
    failure: str = ""

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss on each set of data, without end where it is no number."""
        return tuple(one.loss if isfinite(one.loss) else inf for one in self.figures)

    @property
    def loss(self) -> float:
        """The mean loss over the sets of data: what searches lower."""
        return sum(self.losses) / len(self.losses) if self.figures else inf

    @property
    def is_whole(self) -> bool:
        """Whether it was scored, and by all samples."""
        return bool(self.figures) and not any(one.samples for one in self.figures)

    def passes(self, base: "Trial", eps: float) -> bool:
        """Whether its metric is nowhere more than eps below the base's, by all samples."""
        if not self.is_whole:
            return False
        pairs = zip(self.figures, base.figures, strict=True)
        return self.loss < inf and all(own.metric >= other.metric - eps for own, other in pairs)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """The places of points that no other beats: none is as low in all objectives and lower in one. Of equal points the
    first one stands for all."""
    unique = {tuple(point): place for place, point in reversed(list(enumerate(points)))}
    kept = [point for point in unique if not any(beats(other, point) for other in unique)]
    return sorted(unique[point] for point in kept if all(map(isfinite, point)))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a point is as low as another in all objectives, and lower in one."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
