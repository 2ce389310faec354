"""Weights of models that are learned by what the result gives on unlabelled inputs of each, in all layers or in each.

Chosen: the slope along a direction is the difference between two runs of the result, whose weights are fed; directions
are at right angles and drawn anew in each step, so that with no more weights than directions the slope is the whole
one. It needs no gradients of a network, which an exported graph has not, and it is the same for every graph that runs.
Refused: one random direction a step, as in simultaneous perturbation - its noise costs more steps than it saves runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import entr, log_softmax

from mal_graph.boxes import Array
from mal_graph.brief import Brief
from mal_graph.errors import DataError, UsageError
from mal_graph.evaluation import OutputKind, Stream, fixed_batches, log_probabilities
from mal_graph.graph import MERGEABLE_TYPES, LayerGraph
from mal_graph.merging.class_rows import rows_of_classes
from mal_graph.merging.input_moments import Inputs
from mal_graph.merging.stacking import LearnedWeights, Stacking, first_layer
from mal_graph.methods import Aim, Lesson, MergeMethod, Vector, resolve
from mal_graph.protocols import Runner
from mal_graph.registry import gradients_of

DIRECTIONS = 8  # along which a slope is told in one step
REACH = 0.01  # how far a weight is moved for that: outputs in float32 tell it to about four digits
JUDGED = 256  # inputs of each model on which it is told what was reached
TEMPERATURE = 3.0  # by which logits are divided before they are compared, as Expert Merging does
DRAWS, WAYS, JUDGING = range(3)  # what random numbers are for

Maker = Callable[[Mapping[str, Any]], Array]
Chosen = Mapping[int, Array]  # samples of the inputs of each model, by its number


@dataclass(frozen=True, repr=False)
class Learning(Brief):
    """A stacking whose weights are to be learned.

    Attributes:
        stacking: what becomes of the tensors.
        inputs: of each model that is merged, by its number, arrays by the base's names.
        runner: runs the models.
        output: the base's output that is looked at.
        kind: what that holds.
    """

    stacking: Stacking
    inputs: Mapping[int, Inputs]
    runner: Runner
    output: str
    kind: OutputKind

    @property
    def lesson(self) -> Lesson:
        """What is lowered, and how."""
        lesson = self.stacking.method.lesson
        assert lesson is not None
        return lesson

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The parameters of the method that are for all tensors."""
        own = [setting for setting in self.stacking.settings if not setting.where]
        return resolve(self.stacking.method, own, self.stacking.numbers, (), 0.0)

    @np.errstate(all="ignore")  # what overflows is found, and said
    def learned(self) -> LearnedWeights:
        """The weights of each model in each layer.

        Raises:
            DataError, RunError: a model does not run on its inputs, or gives numbers without end.
        """
        start = self.start()
        end = self.lesson.walk(start, self.slope_at, self.values)
        judged = self.drawn(JUDGED, (JUDGING, 0))
        before, after = self.loss(start, judged), self.loss(end, judged)
        name, count = self.stacking.method.name, len(self.results)
        told = f"{name} learned its weights: {self.lesson.aim} went from {before:.4g} to {after:.4g}"
        return LearnedWeights(self.by_layer(end), f"{told}, on inputs of {count} models")

    # --- the weights --------------------------------------------------------------------------------------------------

    @cached_property
    def layers(self) -> Mapping[str, int]:
        """By name of a layer the column of its weights."""
        names = dict.fromkeys(first_layer(steps).name for steps in self.stacking.tensors.values())
        return {name: place if self.values["by_layer"] else 0 for place, name in enumerate(names)}

    def start(self) -> Array:
        """The weights that are given, shape (models, columns)."""
        numbers = self.stacking.numbers
        point = np.zeros((len(numbers), 1 + max(self.layers.values())))
        for tensor, steps in self.stacking.tensors.items():
            own = self.stacking.values_of(tensor)
            rows = [numbers.index(number) for number in own.numbers]
            point[rows, self.layers[first_layer(steps).name]] = own.values["weight"]
        return point

    def by_layer(self, point: Array) -> dict[str, Vector]:
        """By name of each layer the weights for each number of a model; 0 for what is not merged."""
        each = {name: np.zeros(1 + len(self.stacking.plans)) for name in self.layers}
        for name, column in self.layers.items():
            each[name][list(self.stacking.numbers)] = point[:, column]
        return each

    @cached_property
    def makers(self) -> Mapping[str, tuple[Maker, list[int], int]]:
        """By tensor what makes it of weights, and where these stand: the rows of its models, and a column."""
        numbers, makers = self.stacking.numbers, {}
        for tensor, steps in self.stacking.tensors.items():
            own = self.stacking.values_of(tensor)
            rows = [numbers.index(number) for number in own.numbers]
            makers[tensor] = own.at_hand(), rows, self.layers[first_layer(steps).name]
        return makers

    # --- what is lowered ----------------------------------------------------------------------------------------------

    def slope_at(self, point: Array, step: int) -> Array:
        """How what is lowered rises with each weight, of the shape of these, on some inputs of each model."""
        chosen = self.drawn(int(self.values["batch"]), (DRAWS, step))
        random = np.random.default_rng((self.stacking.seed, WAYS, step))
        ways = np.linalg.qr(random.standard_normal((point.size, min(point.size, DIRECTIONS))))[0].T
        slope = np.zeros(point.shape)
        for way in ways.reshape(-1, *point.shape):
            rise = self.loss(point + REACH * way, chosen) - self.loss(point - REACH * way, chosen)
            slope += way * rise / (2 * REACH)
        return slope * point.size / len(ways)

    def loss(self, point: Array, chosen: Chosen) -> float:
        """What is lowered with these weights of models, as the mean over some inputs of each."""
        weights = {}
        for tensor, (make, rows, column) in self.makers.items():
            weights[tensor] = make({"weight": point[rows, column]})
        return self.loss_with(weights, chosen)

    def loss_with(self, weights: Mapping[str, Array], chosen: Chosen) -> float:
        """The same with these tensors. Raises DataError where that is not finite."""
        loss = float(np.mean([self.loss_of(number, which, weights) for number, which in chosen.items()]))
        if not np.isfinite(loss):
            raise DataError(
                f"{self.stacking.method.name} gives a model whose outputs are infinite or none (NaN) on the inputs "
                "that it learns on: give a smaller `weight` or `rate`, or other inputs"
            )
        return loss

    def loss_of(self, number: int, which: Array, weights: Mapping[str, Array]) -> float:
        """The same of one model."""
        mine = self.results[number].read(which, [self.output], weights)[self.output]
        if self.lesson.aim is Aim.ENTROPY:
            return entropy(self.scores(mine))
        stream, output = self.models[number]
        theirs = stream.read(which, [output])[output]
        if self.kind == "values":
            return float(np.mean((mine.astype(np.float64) - theirs) ** 2))
        return distance(self.scores(mine), self.scores(theirs))

    def scores(self, values: Array) -> Array:
        """Log-probabilities, shape (rows, classes)."""
        return log_probabilities(rows_of_classes(values), self.kind, self.output)

    # --- what is run --------------------------------------------------------------------------------------------------

    def drawn(self, count: int, key: tuple[int, int]) -> Chosen:
        """As many samples of each model at most, or one batch of the length that the graph fixes."""
        fixed, chosen = max(fixed_batches(self.stacking.base), default=count), dict[int, Array]()
        for number, stream in self.results.items():
            random = np.random.default_rng((self.stacking.seed, *key, number))
            chosen[number] = np.sort(random.permutation(stream.samples)[:fixed])
        return chosen

    @cached_property
    def results(self) -> Mapping[int, Stream]:
        """By number of each model its inputs on their way through the result; one where they are the same for all."""
        base, tensors, streams = self.stacking.base, list(self.stacking.tensors), dict[int, Stream]()
        for number in self.stacking.numbers:
            arrays = self.inputs[number]
            if id(arrays) not in streams:
                streams[id(arrays)] = Stream(base, arrays, self.runner, [self.output], tensors)
        return {number: streams[id(self.inputs[number])] for number in self.stacking.numbers}

    @cached_property
    def models(self) -> Mapping[int, tuple[Stream, str]]:
        """By number of each model its inputs on their way through it, and what its output is called."""
        streams = {}
        for number in self.stacking.numbers:
            graph, arrays, output = self.stacking.base, self.inputs[number], self.output
            if number:
                correspondence = self.stacking.plans[number - 1].alignment.correspondence
                graph, signatures = correspondence.donor.graph, correspondence.signatures
                arrays, output = signatures.for_donor(arrays), signatures.outputs.get(output, output)
            streams[number] = Stream(graph, arrays, self.runner, [output]), output
        return streams


def entropy(scores: Array) -> float:
    """The mean entropy of rows of log-probabilities, in nats."""
    return float(entr(np.exp(scores)).sum(axis=1).mean())


def distance(scores: Array, aims: Array) -> float:
    """The mean cross-entropy of rows with those that are aimed at, both softened, less the least that it can be."""
    mine, theirs = (log_softmax(one / TEMPERATURE, axis=1) for one in (scores, aims))
    return TEMPERATURE**2 * float((np.exp(theirs) * (theirs - mine)).sum(axis=1).mean())


def output_learned_on(graph: LayerGraph, score_output: str | None) -> str:
    """The output of a model that is looked at: the one that is named, or the only one of floats. Raises UsageError."""
    names = [value.name for value in graph.outputs if value.dtype in MERGEABLE_TYPES]
    if score_output is not None and score_output in names:
        return score_output
    if score_output is None and len(names) == 1:
        return names[0]
    given = f"`score_output` is {score_output!r}" if score_output is not None else "weights are learned on one output"
    raise UsageError(
        f"{given}, and {graph.name} has {', '.join(names) or 'none of floats'}: name one with `score_output`"
    )


def check_learning(method: MergeMethod, base: LayerGraph, score_output: str | None, kind: OutputKind | None) -> None:
    """Raise UsageError where it is open which output of the base a method learns on, that has no classes, or there are
    no gradients of it for a method that takes these."""
    if method.lesson is None:
        return
    output = output_learned_on(base, score_output)
    if method.takes_gradients and gradients_of(base, output, ()) is None:
        raise UsageError(
            f"{method.name} learns by gradients of the base, and {base.name} was not traced from a torch module: give "
            "modules, or another `method`, such as adamerging, which runs the result alone"
        )
    if kind == "values" and method.lesson.aim is Aim.ENTROPY:
        raise UsageError(
            f"{method.name} makes a model sure of its classes, and `output_kind` is values: give another `method`, "
            "such as expert_merging"
        )
