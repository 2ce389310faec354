"""Whether the inputs and outputs of a donor mean what the base's do: both are run on the same samples.

Given samples tell classes, channels and numbers that are others than the base's, and what explains them; noise tells no
more than whether the two compute the same, and whether the donor says anything at all. What was found is said with the
figures that it rests on, and never applied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from mal_graph.compression import class_names_of
from mal_graph.config import MergeConfig
from mal_graph.errors import DataError, LimitError, RunError
from mal_graph.evaluation import LABELS, Arrays, Scores, calibration_inputs, predict, read_output_kind, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Signatures, pair_signatures
from mal_graph.meaning import (
    FEWEST,
    Asked,
    Case,
    Explanation,
    InputChange,
    Reading,
    can_be_read,
    changes_of_input,
    column_axis,
    explain,
    is_constant,
    kind_by_values,
)
from mal_graph.merging import Sessions
from mal_graph.network import SampleAxes, find_sample_axes, graph_in_float32, probe
from mal_graph.protocols import Runner
from mal_graph.symmetry import deviation
from mal_graph.workflows.both_models import KEEPS
from mal_graph.workflows.findings import chance as at_chance
from mal_graph.workflows.meaning_texts import Accuracies, Kind, Losses, Meaning, noise_text, said_of, told
from mal_graph.workflows.models import Progress, prepare
from mal_graph.workflows.steps import renamed, shuffled

FITTING, JUDGING = 96, 128  # samples, at most
LEAST, MOST_NUMBERS = 24, 1 << 21  # of larger ones fewer are run, so many numbers at once
COPIES = 8  # of a donor with its weights in random order: what chance gives
MOST_COPIED = 1 << 27  # bytes of all copies; of a larger donor each is drawn again where it is asked again
MOST_OUTPUTS = 4  # of a model that are looked at


@dataclass(frozen=True)
class Given:
    """Samples by the base's names, with labels where there are any; noise where none were given."""

    inputs: Arrays
    labels: Array | None
    are_real: bool
    axes: SampleAxes

    @property
    def count(self) -> int:
        return self.axes.count(self.inputs)

    def halves(self, seed: int) -> tuple[Array, Array]:
        """The numbers of samples that choose, and of others that judge."""
        order = np.random.default_rng(seed).permutation(self.count)
        numbers = sum(array.size for array in self.inputs.values()) // max(1, self.count)
        most = max(LEAST, MOST_NUMBERS // max(1, numbers))
        cut = min(FITTING, self.count // 2, most)
        return np.sort(order[:cut]), np.sort(order[cut : cut + min(JUDGING, most)])


@np.errstate(all="ignore")  # what overflows under a change of its inputs explains nothing
def find_meanings(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Any] | None,
    runner: Runner,
    progress: Progress,
) -> tuple[Meaning, ...]:
    """What is to be said of each donor, the base first among the models.

    Args:
        data: inputs and `labels`; where there are none, the calibration inputs are run, else noise.

    Raises:
        DataError: the data do not fit.
    """
    base, *donors = graphs
    if not donors or not config.compare:
        return ()
    try:
        given = samples_of(base, config, data, runner)
    except RunError:  # a base that cannot be run at all, which is said of it elsewhere
        return ()
    if not given.count:  # inputs that are single numbers
        return ()
    found: list[Meaning] = []
    for done, donor in enumerate(donors):
        progress("comparing what models say", done, len(donors))
        try:
            found += Comparison(base, donor, number=done + 1, given=given, config=config, runner=runner).meanings()
        except (RunError, LimitError, DataError) as error:
            found.append(told(donor.name, Kind.UNKNOWN, str(error)))
    progress("comparing what models say", len(donors), len(donors))
    return tuple(found)


def samples_of(base: LayerGraph, config: MergeConfig, data: Mapping[str, Any] | None, runner: Runner) -> Given:
    """The samples that models are run on. Raises DataError or RunError."""
    axes = find_sample_axes(base)
    if data is not None:
        arrays = dict(prepare(base, data, config)[0])
        labels = arrays.pop(LABELS, None)
        return Given(arrays, labels, True, axes)
    if config.calibrate is not None:
        return Given(calibration_inputs(base, config.calibrate), None, True, axes)
    inputs, shapes = renamed(base, config.inputs), renamed(base, config.input_shapes)
    drawn = probe(base, runner, inputs=inputs, input_shapes=shapes, seed=config.seed).inputs
    return Given(drawn, None, False, axes)


@dataclass(frozen=True)
class Comparison:
    """A base and one donor, by its number among the models, and what both are run on."""

    base: LayerGraph
    donor: LayerGraph
    number: int
    given: Given
    config: MergeConfig
    runner: Runner

    @property
    def paired(self) -> Signatures:
        return pair_signatures(self.base, self.donor, self.config.pair)

    def asked(self, graph: LayerGraph, paired: Signatures, *, remembers: bool = True) -> Asked:
        """A model in a session. Raises RunError."""
        opened = Sessions(self.runner).open(graph_in_float32(graph))
        return Asked(opened, paired, self.given.inputs, self.given.axes, remembers)

    def meanings(self) -> Iterator[Meaning]:
        """What is to be said. Raises RunError or DataError."""
        paired = self.paired
        own = replace(paired, inputs={n: n for n in paired.inputs}, outputs={n: n for n in paired.outputs})
        base, donor = self.asked(self.base, own), self.asked(self.donor, paired)
        every = np.sort(np.concatenate(self.given.halves(self.config.seed)))
        mine, theirs = base.outputs((), every), donor.outputs((), every)
        told_alone = list(self.alone(mine, theirs, len(every)))
        yield from told_alone
        if self.given.are_real and len(every) >= 2 * FEWEST and all(one.kind != Kind.EQUAL for one in told_alone):
            yield from self.explained(base, donor, mine, theirs)

    def alone(self, mine: Mapping[str, Array], theirs: Mapping[str, Array], count: int) -> Iterator[Meaning]:
        """What outputs say without labels and without a search: equal ones, and those that are always the same."""
        what = f"{count} {'samples' if self.given.are_real else 'samples of noise'}"
        if deviation(theirs, mine) <= KEEPS:
            yield told(self.donor.name, Kind.EQUAL, f"computes what the base does, on {what}")
            return
        for name in (name for name in theirs if is_constant(theirs[name]) and not is_constant(mine[name])):
            value = "the same numbers" if theirs[name].any() else "zeros"
            text = f"gives {value} in output {name!r} for all of {what}"
            yield told(self.donor.name, Kind.CONSTANT, text, output=name)

    def explained(
        self, base: Asked, donor: Asked, mine: Mapping[str, Array], theirs: Mapping[str, Array]
    ) -> Iterator[Meaning]:
        """What the search says of each output, and of an input once."""
        varying = [name for name in mine if not is_constant(mine[name]) and not is_constant(theirs[name])]
        readings = [one for name in varying if (one := self.reading(name, mine[name], theirs[name])) is not None]
        said: dict[tuple[Kind, str, tuple[int, ...]], Meaning] = {}
        for reading in readings[:MOST_OUTPUTS]:
            for meaning in self.of_output(self.explanation(reading, base, donor), base, donor):
                said.setdefault((meaning.kind, meaning.input or meaning.output, meaning.order), meaning)
        yield from said.values()

    def of_output(self, found: Explanation, base: Asked, donor: Asked) -> Iterator[Meaning]:
        """What is to be said of one output."""
        yield from said_of(found, self.donor.name, self.accuracies(found, base, donor))
        if found.is_noise:
            labels, own = self.given.labels, self.scored()
            why = at_chance(own, labels) if labels is not None and own is not None else ""
            if why or own is None:
                losses = Losses(found.before, found.after, found.chance)
                text = f"{noise_text(found)}; {why}" if why else noise_text(found)
                yield told(self.donor.name, Kind.NOISE, text, found.reading.output, losses)

    def scored(self) -> Scores | str | None:
        """The donor's own scores where there are labels, or why it has none."""
        if self.given.labels is None:
            return None
        data = self.paired.for_donor({**self.given.inputs, LABELS: self.given.labels})
        try:
            prediction = predict(self.donor, data, output_kind=self.config.output_kind, runner=self.runner)
            return score(prediction, self.given.labels, self.donor.name)
        except DataError as error:
            return str(error)

    def accuracies(self, found: Explanation, base: Asked, donor: Asked) -> Accuracies | None:
        """How often base and donor name the class of the label; None where there are no such labels."""
        labels, reading, judging = self.given.labels, found.reading, self.given.halves(self.config.seed)[1]
        if labels is None or labels.ndim != 1 or reading.columns is not None or not reading.are_scores:
            return None
        own, plain, changed = (
            base.rows(reading, 0, (), judging),
            donor.rows(reading, 1, (), judging),
            found.trial.outputs.of(donor.rows(reading, 1, found.trial.inputs, judging)),
        )
        if own.shape[1] != 1:
            return None
        return Accuracies(
            *(float((rows[:, 0].argmax(axis=1) == labels[judging]).mean()) for rows in (own, plain, changed))
        )

    def reading(self, name: str, mine: Array, theirs: Array) -> Reading | None:
        """How an output is read; None where the two cannot be compared."""
        if not can_be_read(mine, theirs, len(mine)):
            return None
        axis, labels = column_axis(mine.shape), self.given.labels
        columns = self.columns(mine.shape, theirs.shape, axis)
        if columns is None and mine.shape != theirs.shape:
            return None
        other = self.paired.outputs[name]
        kinds = (
            kind_by_values(mine, axis, read_output_kind(self.base, name)),
            kind_by_values(theirs, axis, read_output_kind(self.donor, other)),
        )
        are_values = self.config.output_kind == "values" or (labels is not None and labels.dtype.kind == "f")
        are_classes = mine.shape[axis] > 1 or "probabilities" in kinds or (labels is not None and not are_values)
        plain = Reading(name, axis, columns, kinds, are_scores=not are_values and are_classes, is_told=are_values)
        if plain.are_scores:
            return plain
        spread = plain.rows(mine, 0).std(axis=(0, 1))
        return replace(plain, units=tuple(np.where(spread > 0, spread, 1.0).tolist()))

    def columns(
        self, mine: Sequence[int], theirs: Sequence[int], axis: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Which columns score the classes that both models name; None where they do not name them, or alike."""
        given = self.config.labels_of or (None,) * (self.number + 1)
        lists = [
            class_names_of(graph, names).of_scores(shape)
            for graph, names, shape in (
                (self.base, given[0], mine),
                (self.donor, given[self.number], theirs),
            )
        ]
        if any(len(one) != 1 or len(one[0]) != shape[axis] for one, shape in zip(lists, (mine, theirs), strict=True)):
            return None
        own, others = lists[0][0], lists[1][0]
        shared = [name for name in own if name in others]
        if own == others or len(shared) < 2:
            return None
        return tuple(map(own.index, shared)), tuple(map(others.index, shared))

    def explanation(self, reading: Reading, base: Asked, donor: Asked) -> Explanation:
        """What explains one output."""
        copied = lru_cache(copies_kept(self.donor))(self.copied)  # each is opened once, if it is asked at all
        copies = [partial(ask_copy, copied, number, reading) for number in range(COPIES)]
        own, ask = partial(base.rows, reading, 0, ()), partial(donor.rows, reading, 1)
        case = Case(reading, own, ask, copies, *self.given.halves(self.config.seed), self.changeable)
        return explain(case, self.changes)

    def copied(self, number: int) -> Asked:
        """A copy of the donor with its weights in random order. Raises RunError."""
        return self.asked(shuffled(self.donor, self.config.seed + number), self.paired, remembers=False)

    @property
    def changes(self) -> list[InputChange]:
        return [change for name, array in self.changeable.items() for change in changes_of_input(name, array)]

    @property
    def changeable(self) -> Arrays:
        """The inputs that hold samples along their first axis."""
        return {name: array for name, array in self.given.inputs.items() if self.given.axes.of(name) == 0}


def copies_kept(donor: LayerGraph) -> int:
    """How many copies of a donor are kept open beside the next."""
    size = sum(weight.nbytes for weight in donor.weights.values())
    return COPIES if COPIES * size <= MOST_COPIED else 1


def ask_copy(
    copied: Callable[[int], Asked], number: int, reading: Reading, changes: Sequence[InputChange], samples: Array
) -> Array:
    """The rows of one copy of a donor for some samples."""
    return copied(number).rows(reading, 1, changes, samples)
