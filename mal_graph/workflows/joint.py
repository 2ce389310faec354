"""Several models that are to be one network: what is left of them at a budget, and how far that is from the ensemble.

A budget may be met in two forms: all models thinned, or the base whole beside thinned donors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil

import numpy as np

from mal_graph.brief import Brief
from mal_graph.compression import (
    Averaged,
    Candidate,
    Classes,
    Head,
    Headed,
    Outputs,
    allocate,
    find_averaged,
    find_head,
    refit_heads,
    unite,
)
from mal_graph.config import MergeConfig
from mal_graph.errors import DataError, MatchError, RunError, UsageError
from mal_graph.evaluation import OutputKind, Prediction, Scores, predict, read_labels, score
from mal_graph.graph import Array, LayerGraph, Value
from mal_graph.merging import run_outputs
from mal_graph.network import find_sample_axes
from mal_graph.protocols import Runner
from mal_graph.symmetry import SAME_FUNCTION
from mal_graph.workflows.guarding import Guard, distance, shares_of_classes, values_of
from mal_graph.workflows.models import Progress
from mal_graph.workflows.sides import Samples, Side, open_sides
from mal_graph.workflows.steps import Known

Counts = Mapping[int, int]  # units kept by number of their set
Shape = tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Thinned(Brief):
    """The models at one budget: how many units each keeps, what is left of each, and the network they make."""

    counts: tuple[Counts, ...]
    parts: tuple[LayerGraph, ...]
    graph: LayerGraph


@dataclass(frozen=True, repr=False)
class Joint(Brief):
    """Models that are to be one network.

    Attributes:
        sides: the models, the base first.
        samples: what they are fitted and judged on.
        runner: runs them.
        joins_classes: whether classes that the base lacks are added, else refused.
        kinds: what outputs of the base hold, where the user says so.
    """

    sides: tuple[Side, ...]
    samples: Samples
    runner: Runner
    joins_classes: bool = False
    kinds: Mapping[str, OutputKind] = field(default_factory=dict)

    @property
    def shares(self) -> list[float]:
        """How much each model counts in the mean."""
        return [1 / len(self.sides)] * len(self.sides)

    @property
    def whole(self) -> int:
        """The multiplications of all models whole."""
        return sum(side.whole for side in self.sides)

    @cached_property
    def outputs(self) -> Outputs:
        """What is averaged. Raises MatchError."""
        members = [side.member for side in self.sides]
        return find_averaged(members, joins_classes=self.joins_classes, kinds=self.kinds)

    @cached_property
    def ensemble(self) -> LayerGraph:
        """All models whole, as one network."""
        return self.joined([side.graph for side in self.sides])

    def arm(self, number: int) -> str:
        """What a donor is called in a table."""
        return "donor" if len(self.sides) == 2 else f"donor {number}"

    def joined(self, parts: Sequence[LayerGraph]) -> LayerGraph:
        """What is left of the models, as one network; of a single one, itself."""
        return parts[0] if len(parts) == 1 else replace(self.united(parts), outputs=self.declared)

    def united(self, parts: Sequence[LayerGraph]) -> LayerGraph:
        """The same for several, with outputs whose shapes are open where there are more classes."""
        members = [replace(side.member, graph=part) for side, part in zip(self.sides, parts, strict=True)]
        return unite(members, self.outputs, self.shares).named(self.sides[0].graph.name)

    @cached_property
    def declared(self) -> tuple[Value, ...]:
        """The outputs, as long as they are with all classes. Raises MatchError where these have no place in one."""
        base = self.sides[0]
        before = base.network.probe.shapes
        outputs = tuple(with_rank(value, before.get(value.name)) for value in base.graph.outputs)
        if not self.outputs.are_wider:
            return outputs
        whole = self.united([side.graph for side in self.sides])
        try:
            given = run_outputs(whole, base.network.probe.inputs, self.runner)
        except RunError as error:
            raise MatchError(
                f"what {base.graph.name} makes of its scores cannot be made of more classes: {error}"
            ) from None
        scores = {before[one.tensors[0]]: one.classes for one in self.outputs.averaged if one.classes is not None}
        return tuple(
            wider_value(value, before[value.name], given[value.name].shape, scores) if value.name in given else value
            for value in outputs
        )

    def candidates(self, *, keeps_base: bool = False) -> list[Candidate]:
        """The models as a budget sees them; the base loses nothing where it is kept."""
        return [
            replace(side.candidate(share), is_whole=keeps_base and number == 0)
            for number, (side, share) in enumerate(zip(self.sides, self.shares, strict=True))
        ]

    def at(self, budget: float, *, keeps_base: bool = False) -> Thinned:
        """The models at a budget, in multiples of the base's multiplications.

        Raises:
            UsageError: what cannot be taken away costs more.
        """
        candidates = self.candidates(keeps_base=keeps_base)
        whole = candidates[0].cost.total(candidates[0].all_units)
        least = sum(one.cost.total(one.fewest_units) for one in candidates)
        if budget * whole < least:
            kept = (
                "the whole base and what cannot be taken away cost" if keeps_base else "what cannot be taken away costs"
            )
            raise UsageError(
                f"`budget` is {budget:g}, but {kept} {ceil(1000 * least / whole) / 1000:g} times the "
                f"multiplications of {self.sides[0].graph.name}: give at least that"
            )
        counts = allocate(candidates, budget * whole)
        parts = [side.thinned(kept) for side, kept in zip(self.sides, counts, strict=True)]
        if counts != [candidate.all_units for candidate in candidates]:
            parts = self.with_heads(parts)
        return Thinned(tuple(counts), tuple(parts), self.joined(parts))

    def with_heads(self, parts: list[LayerGraph]) -> list[LayerGraph]:
        """What is left of the models with their last layers fitted together, where the samples are real ones and every
        output is a sum of what layers give that allow it."""
        if not self.samples.are_real:
            return parts
        for one in self.outputs.averaged:
            heads = [
                find_head(part, tensor, side.member.shapes)
                for part, tensor, side in zip(parts, one.tensors, self.sides, strict=True)
            ]
            counts = [] if one.classes is None else one.classes.counts()
            outputs = [0 if head is None else head.weight.shape[0] for head in heads]
            is_linear = one.classes is None or one.classes.is_linear
            if all(heads) and not any(one.finishing) and is_linear and counts in ([], outputs):
                for together in self.heads_together(one):
                    parts = self.with_refitted(parts, heads, one.tensors, together)
        return parts

    def heads_together(self, one: Averaged) -> list[dict[int, Sequence[int] | None]]:
        """Entries of the mean that are made by the same models: for each of these, where it has them."""
        if one.classes is None:
            return [dict.fromkeys(range(len(self.sides)), None)]
        places, known = np.array(one.classes.places), one.classes.are_known
        return [
            {
                int(member): places[member, (pattern == known.T).all(axis=1)].tolist()
                for member in np.flatnonzero(pattern)
            }
            for pattern in np.unique(known, axis=1).T
        ]

    def with_refitted(
        self,
        parts: Sequence[LayerGraph],
        heads: Sequence[Head | None],
        tensors: Sequence[str],
        together: Mapping[int, Sequence[int] | None],
    ) -> list[LayerGraph]:
        """What is left of the models with the entries of their last layers fitted that some make together."""
        total = sum(self.shares[number] for number in together)
        members = [
            Headed(
                self.sides[number].graph,
                parts[number],
                head,
                tensors[number],
                self.sides[number].paired.for_donor(self.samples.fitting),
                self.shares[number] / total,
                rows,
            )
            for number, rows in together.items()
            if (head := heads[number]) is not None
        ]
        fitted = dict(zip(together, refit_heads(members, self.runner), strict=True))
        return [fitted.get(number, part) for number, part in enumerate(parts)]

    def refitted_base(self) -> LayerGraph | None:
        """The base alone with its last layer fitted to the ensemble: the control of every union. None where it has no
        layer that allows it, or there is one model."""
        side, averaged = self.sides[0], self.outputs.averaged
        head = find_head(side.graph, averaged[0].tensors[0], side.member.shapes)
        if head is None or len(averaged) > 1 or len(self.sides) == 1:
            return None
        rows = range(head.weight.shape[0])  # the base's classes are the first of the ensemble's
        control = Headed(self.ensemble, side.graph, head, averaged[0].tensors[0], self.samples.fitting, 1.0, rows)
        return refit_heads([control], self.runner)[0]

    def guard(self, graph: LayerGraph) -> Guard:
        """Whether a network does what the models do together."""
        return Guard(self.error(graph), self.samples.told, self.samples.are_fresh_real)

    def error(self, graph: LayerGraph) -> float:
        """How far a network with the base's classes, or with all, is from the ensemble, as `far_off`."""
        values = [values_of(graph, self.names, inputs, self.runner) for inputs in self.samples.fresh]
        return self.far_off([self.in_all_classes(own) for own in values])

    def error_alone(self, number: int) -> float:
        """How far one of the models, whole, is from the ensemble, as `far_off`."""
        return self.far_off([self.in_all_classes(self.alone(number, inputs), number) for inputs in self.samples.fresh])

    def alone(self, number: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What is averaged, by the base's names, as one of the models gives it: the mean of that model alone."""
        side, values = self.sides[number], dict[str, Array]()
        member, fed = replace(side.member, graph=replace(side.graph, outputs=())), side.paired.for_donor(inputs)
        for one in self.outputs.averaged:
            own = one.of_member(number)
            graph = unite([member], Outputs((own,), frozenset()), [1.0])
            values[one.tensors[0]] = values_of(graph, own.tensors, fed, self.runner)[own.tensors[0]]
        return values

    def far_off(self, values: Sequence[Mapping[str, Array]]) -> float:
        """How far what is averaged is from the ensemble's, for each kind of fresh samples, as a share of how far the
        base's is, which counts as no less than rounding; the worst kind counts."""
        errors = []
        for own, (before, target) in zip(values, self.ends, strict=True):
            for view in (dict, self.in_shares):
                far, near = distance(view(own), view(target)), distance(view(before), view(target))
                errors.append(far if len(self.sides) == 1 else far / max(near, SAME_FUNCTION))
        return float(np.max(errors))

    @property
    def names(self) -> list[str]:
        """What is averaged, by the base's names."""
        return [one.tensors[0] for one in self.outputs.averaged]

    @cached_property
    def ends(self) -> list[tuple[dict[str, Array], dict[str, Array]]]:
        """For each kind of fresh samples what the base gives, and what the ensemble does."""
        graphs = self.sides[0].graph, self.ensemble
        kinds = self.samples.fresh
        base, whole = ([values_of(graph, self.names, inputs, self.runner) for inputs in kinds] for graph in graphs)
        return list(zip(map(self.in_all_classes, base), whole, strict=True))

    def in_all_classes(self, values: dict[str, Array], member: int = 0) -> dict[str, Array]:
        """Outputs with the classes that a member lacks, where they have none of them (see `Classes.widened`)."""
        return {
            one.tensors[0]: values[one.tensors[0]]
            if one.classes is None
            else one.classes.widened(values[one.tensors[0]], member, are_logits=one.kind == "logits")
            for one in self.outputs.averaged
        }

    def in_shares(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs with logits of samples x classes as shares of the classes."""
        logits = {one.tensors[0] for one in self.outputs.averaged if one.kind == "logits"}
        return {
            name: shares_of_classes(each) if name in logits and each.ndim == 2 else each
            for name, each in values.items()
        }

    def scored(self, graph: LayerGraph, data: Mapping[str, Array], config: MergeConfig, arm: str) -> Scores:
        """How well a network with the base's classes, or with all, does. Raises DataError where no output fits."""
        return score(self.of_all_classes(self.predicted(graph, data, config)), read_labels(data), arm)

    def predicted(self, graph: LayerGraph, data: Mapping[str, Array], config: MergeConfig) -> Prediction:
        """What a network with the base's outputs says of its classes; of the output that fits the labels in the result,
        if none is named.

        Raises:
            DataError: no output fits the labels.
        """
        output = self.scored_output(data, config)
        return predict(graph, data, score_output=output, output_kind=config.output_kind, runner=self.runner)

    def predicted_by_donor(
        self, number: int, data: Mapping[str, Array], config: MergeConfig, output: str
    ) -> Prediction | None:
        """What a donor whole says of its classes in what corresponds to an output of the base, else in what fits the
        labels; None where nothing does."""
        side, kind = self.sides[number], config.output_kind
        theirs, inputs = side.paired.outputs.get(output), side.paired.for_donor(data)
        try:
            return predict(side.graph, inputs, score_output=theirs, output_kind=kind, runner=self.runner)
        except DataError:
            return None

    def of_all_classes(self, prediction: Prediction, member: int = 0, *, is_sure: bool = False) -> Prediction:
        """What a member, or something with its classes, says of all classes (see `Classes.spread_out`)."""
        count = prediction.values.shape[1]
        kinds = [] if prediction.output_kind == "values" else self.outputs.classes
        classes = next((one for one in kinds if one.counts()[member] == count), None)
        if classes is None:
            return prediction
        return replace(prediction, values=classes.spread_out(prediction.values, member, is_sure=is_sure))

    def scored_output(self, data: Mapping[str, Array], config: MergeConfig) -> str | None:
        """The output that is scored: the one that has a place for the largest label in the result."""
        labels = read_labels(data)
        if config.score_output or not self.outputs.are_wider or labels.dtype.kind not in "biu":
            return config.score_output
        largest = int(labels.reshape(len(labels), -1).max(axis=1).argmax())
        one = find_sample_axes(self.sides[0].graph).taken(data, slice(largest, largest + 1))
        return predict(self.ensemble, one, output_kind=config.output_kind, runner=self.runner).output

    def part_error(self, number: int, part: LayerGraph) -> float:
        """How far what is left of a model is from the model."""
        side, names = self.sides[number], [one.tensors[number] for one in self.outputs.averaged]
        fed = [side.paired.for_donor(inputs) for inputs in self.samples.fresh]
        values = [[values_of(graph, names, inputs, self.runner) for graph in (part, side.graph)] for inputs in fed]
        return max(distance(now, before) for now, before in values)


def open_joint(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    runner: Runner,
    progress: Progress,
    known: Known | None = None,
) -> Joint:
    """Models that are to be one network, the base first; `known` are groups that were verified before.

    Raises:
        MatchError, DataError, UnsupportedModel: as `open_sides`.
    """
    sides, samples = open_sides(graphs, config, runner, progress, known)
    if not sides[0].whole:
        raise MatchError(
            f"{graphs[0].name} multiplies nothing with its weights, so that there is no cost to keep to: merge it by "
            "`method` mal, or leave it out"
        )
    names = [config.score_output] if config.score_output else [value.name for value in graphs[0].outputs]
    kinds = dict.fromkeys(names, config.output_kind) if config.output_kind else {}
    return Joint(tuple(sides), samples, runner, config.labels == "union", kinds)


def with_rank(value: Value, shape: Shape | None) -> Value:
    """An output that declares how many axes it has: a file has to."""
    return value if value.shape is not None or shape is None else replace(value, shape=(None,) * len(shape))


def wider_value(value: Value, before: Shape, after: Shape, scores: Mapping[Shape, Classes]) -> Value:
    """An output with more classes: its declared lengths are those that it has by now.

    Args:
        before, after: its shape with the base's classes, and with all.
        scores: the classes of scores by the shape that these had.

    Raises:
        MatchError: something else of its shape changed, or scores have the base's classes only.
    """
    lengths = {(one.counts()[0], len(one.names)) for one in scores.values()}
    changed = [pair for pair in zip(before[1:], after[1:], strict=False) if pair[0] != pair[1]]
    is_left_out = before in scores and scores[before].is_wider and not changed
    has_other_axes = len(before) != len(after) or before[:1] != after[:1] or not set(changed) <= lengths
    if has_other_axes or len(changed) > 1 or is_left_out:
        raise MatchError(
            f"output {value.name!r} cannot be computed of more classes: its shape would be {list(after)}, not "
            f"{list(before)}; export the model with the scores as the only output"
        )
    if value.shape is None:  # it holds no tensor
        return value
    sizes = zip(value.shape, before, after, strict=True)
    return replace(value, shape=tuple(now if dim == was and now != was else dim for dim, was, now in sizes))
