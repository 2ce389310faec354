"""What scores candidates: one session of the base whose learned tensors are given to every run.

A bench is made from a `Setup`, a plain value that travels to workers, and stays in the process that made it. Weights of
a candidate are made of the base's and those of aligned donors by the merge method, as they are in the result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from zlib import crc32

import numpy as np

from mal_graph import registry
from mal_graph.brief import Brief
from mal_graph.config import SearchConfig
from mal_graph.evaluation import Prediction, Predictor, fixed_batches, read_npz, sample_losses, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.limits import Limits
from mal_graph.merging import TensorRule
from mal_graph.methods import MergeMethod, Need, find_method, resolve
from mal_graph.network import Parameter, find_parameters
from mal_graph.searching.aligned_donors import AlignedDonor, AlignedTensor, BiasSlot, with_slots
from mal_graph.searching.candidates import Candidate, Figure
from mal_graph.searching.gate import Vector
from mal_graph.searching.racing import is_surely_worse, looks
from mal_graph.workflows import Known, load

ONE_THREAD = 1  # of a session: workers are many, and figures must not depend on how many cores a machine has
OPENED = 64  # aligned donors whose files are kept open
BEST = 4  # candidates that others are compared with, whose losses are kept

Located = tuple[Candidate, tuple[str, ...]]  # a candidate, and where its aligned donors lie, in their order


@dataclass(frozen=True, repr=False)
class Setup(Brief):
    """What a worker has to know.

    Attributes:
        base: the path of the base.
        config: every option, without the arrays that only the search itself reads.
        limits: within which models are run.
        folder: where aligned donors are kept.
        versions: of what decides about the bytes of a result, by name.
        process: the one that searches.
        data: by the name of a part of the data the path of each set's arrays.
        slots: the biases that the base is given for donors that have them.
    """

    base: str
    config: SearchConfig
    limits: Limits
    folder: str
    versions: Mapping[str, str]
    process: int
    data: Mapping[str, tuple[str, ...]]
    slots: tuple[BiasSlot, ...] = ()


class Bench:
    """The base, opened, and what scores candidates."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.base = load(setup.base)
        self.known: Known = []  # the base's groups, once they are verified
        self.donor = lru_cache(OPENED)(lambda path: AlignedDonor(Path(path)))
        self.losses = lru_cache(BEST)(self.losses_of)

    @cached_property
    def graph(self) -> LayerGraph:
        """The base with a place for what donors have."""
        return with_slots(self.base, self.setup.slots)

    @cached_property
    def stored(self) -> dict[str, Array]:
        """The base's learned tensors by name."""
        names = dict.fromkeys(parameter.tensor for parameter in find_parameters(self.graph))
        return {name: self.graph.weights[name].read() for name in names}

    @cached_property
    def parameters(self) -> dict[tuple[int, int, str], Parameter]:
        """The base's parameters by the places where they are applied."""
        return {(one.node, one.slot, one.tensor): one for one in find_parameters(self.graph)}

    @cached_property
    def method(self) -> MergeMethod:
        return find_method(self.setup.config.method)

    @cached_property
    def predictors(self) -> dict[str, tuple[Predictor, ...]]:
        """A session for each set of data, by the name of its part."""
        return {}

    def predictors_of(self, part: str) -> tuple[Predictor, ...]:
        """The sessions of one part of the data; opened when it is first asked for."""
        if part not in self.predictors:
            config = self.setup.config
            self.predictors[part] = tuple(
                Predictor(
                    self.graph,
                    read_npz(path),
                    score_output=config.score_output,
                    output_kind=config.output_kind,
                    runner=registry.runner(),
                    variable=list(self.stored),
                    threads=ONE_THREAD,
                )
                for path in self.setup.data[part]
            )
        return self.predictors[part]

    @np.errstate(all="ignore")  # a merge that overflows has a loss that says so
    def scored(
        self,
        candidate: Candidate,
        paths: Sequence[str],
        part: str,
        *,
        with_samples: bool = False,
        rival: Located | None = None,
    ) -> tuple[Figure, ...]:
        """How a candidate does on each set of one part of the data.

        Args:
            paths: where its aligned donors lie, in their order.
            with_samples: whether the loss of every sample is wanted.
            rival: a candidate that it must not be surely worse than, to be scored to the end.

        Raises:
            FileError: an aligned donor is not as it was written.
            UsageError: a parameter of the merge method is refused.
            RunError and others: the model cannot be run.
        """
        weights = {**self.stored, **self.weights(candidate, paths)}
        figures = []
        for place, predictor in enumerate(self.predictors_of(part)):
            theirs = None if rival is None else partial(self.losses, rival, part, place)
            prediction, seen = self.predicted(predictor, weights, candidate.samples, theirs)
            labels = predictor.labels[:seen]
            scores = score(prediction, labels, "candidate")
            each = tuple(sample_losses(prediction, labels).tolist()) if with_samples else ()
            figures.append(Figure(scores.loss, scores.metric, each, seen if seen < len(predictor.labels) else 0))
        return tuple(figures)

    def losses_of(self, candidate: Located, part: str, place: int) -> Vector:
        """The loss of every sample of one set of a part of the data."""
        own = self.scored(*candidate, part, with_samples=True)[place]
        return np.array(own.each)

    def predicted(
        self, predictor: Predictor, weights: Mapping[str, Array], samples: int, theirs: Callable[[], Vector] | None
    ) -> tuple[Prediction, int]:
        """What a candidate says of so many samples (0 for all), or of as many as show that it is worse than the one of
        these losses; and how many they are."""
        total, batch = len(predictor.labels), next(iter(fixed_batches(self.graph)), 1)
        ends = [min(samples, total) or total] if theirs is None else looks(total, batch)
        parts, start = [], 0
        for end in ends:
            parts.append(predictor.predict(weights, range(start, end)))
            so_far, start = joined(parts), end
            if theirs is None or end == total:
                break
            losses = sample_losses(so_far, predictor.labels[:end])
            if is_surely_worse(losses - theirs()[: len(losses)], self.setup.config.prune, len(ends) - 1):
                break
        return so_far, start

    def weights(self, candidate: Candidate, paths: Sequence[str]) -> dict[str, Array]:
        """The tensors of a candidate that are not the base's, by name."""
        donors = {number: self.donor(path) for number, path in enumerate(paths, 1)}
        held: dict[str, dict[int, AlignedTensor]] = {}
        for number, donor in donors.items():
            for one in donor.description.tensors:
                held.setdefault(one.tensor, {})[number] = one
        return {tensor: self.merged(candidate, donors, own) for tensor, own in held.items()}

    def merged(
        self, candidate: Candidate, donors: Mapping[int, AlignedDonor], own: Mapping[int, AlignedTensor]
    ) -> Array:
        """One tensor of a candidate, in the base's layout."""
        first, config = next(iter(own.values())), self.setup.config
        is_from_base = self.method.needs is Need.ANCESTOR
        numbers = (*([] if is_from_base else [0]), *own)
        settings = (*config.parameters, *candidate.settings)
        values = resolve(self.method, settings, numbers, (first.tensor, first.layer), first.depth)
        parameter = self.parameters[first.node, first.slot, first.tensor]
        seed = config.seed, crc32(first.tensor.encode())
        rule = TensorRule(self.method, values, numbers, parameter, first.depth, seed, is_from_base)
        stored = self.stored[first.tensor]
        merged = rule(parameter.canonical(stored), lambda number: donors[number].read(own[number]))
        return np.ascontiguousarray(parameter.stored(merged, stored.shape))


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Predictions for several stretches of samples as one."""
    return replace(parts[0], values=np.concatenate([part.values for part in parts]))
