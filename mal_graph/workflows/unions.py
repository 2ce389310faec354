"""Networks thinned to a budget of multiplications: one alone, or several as one whose outputs are averaged.

No unit is averaged with one of another model: each model keeps the units that say most, these take over what they can
from those that go, and what decides the outputs is averaged in the end. The target is the ensemble.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from mal_graph.compression import Classes
from mal_graph.config import MergeConfig
from mal_graph.evaluation import Scores, ensemble, read_labels, score
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Signatures
from mal_graph.merging import run_outputs
from mal_graph.protocols import Check, Runner
from mal_graph.workflows.guarding import Choice, Guard
from mal_graph.workflows.joint import Joint, Thinned
from mal_graph.workflows.sides import FEW, Samples, Side
from mal_graph.workflows.verdict import OUTPUTS, REFITTED, Verdict, judge_union
from mal_graph.workflows.writing import Written


@dataclass(frozen=True)
class KeptUnits:
    """Units that can only go together: how many stay of how many, and why all do, where all have to."""

    name: str
    units: int
    kept: int
    reason: str = ""


@dataclass(frozen=True)
class Branch:
    """One model of a result.

    Attributes:
        name: of the model.
        share: of its outputs in the mean.
        sets: how many units it keeps.
        before, cost: its multiplications as it was, and as it is.
        error: how far its outputs are from what they were, as a share of how much they vary.
    """

    name: str
    share: float
    sets: tuple[KeptUnits, ...]
    before: int
    cost: int
    error: float


@dataclass(frozen=True, repr=False, kw_only=True)
class Union(Written):
    """The result of `unite` and `compress`.

    Attributes:
        donors: the other models; none for `compress`.
        signatures: which of the inputs and outputs of each is which of the base's.
        branches: what became of each model, the base first.
        cost: multiplications of the result, for one run of the probe's inputs.
        guard: whether the result does what it should.
        classes: what the outputs score, where all models name it, by the base's name of the averaged tensor.
        config: every option.
        scores: the result and its baselines, where data was given.
        notes: what was not taken literally.
    """

    donors: tuple[LayerGraph, ...]
    signatures: tuple[Signatures, ...]
    branches: tuple[Branch, ...]
    cost: int
    guard: Guard
    classes: Mapping[str, Classes]
    config: MergeConfig
    scores: tuple[Scores, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """How the result stands to the base and the ensemble."""
        return judge_union(self.scores, self.guard, is_alone=not self.donors)

    @property
    def nothing_to_align(self) -> tuple[str, ...]:
        """Nothing is aligned."""
        return ()

    @property
    def base_cost(self) -> int:
        """The multiplications of the base."""
        return self.branches[0].before

    @property
    def full_cost(self) -> int:
        """The multiplications of all models together."""
        return sum(branch.before for branch in self.branches)


def union_of(
    joint: Joint,
    made: Thinned,
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Mapping[str, Array] | None = None,
    data_notes: Sequence[str] = (),
    choice: Choice | None = None,
) -> Union:
    """The models at a budget as a result: checked, judged, and scored where there are data.

    Args:
        data: made ready for the ensemble.
        data_notes: what of the data was not taken literally.

    Raises:
        DataError: no output fits the labels.
    """
    first = joint.sides[0]
    branches = tuple(branch_of(joint, number, made) for number in range(len(joint.sides)))
    cost = first.multiplications(made.graph)
    budget = inf if config.method == "auto" else config.budget  # several budgets were tried then
    return Union(
        graph=made.graph,
        base=graphs[0],
        donors=tuple(graphs[1:]),
        signatures=tuple(side.paired for side in joint.sides[1:]),
        branches=branches,
        cost=cost,
        guard=joint.guard(made.graph),
        classes={one.tensors[0]: one.classes for one in joint.outputs.averaged if one.classes is not None},
        checks=(finite_check(made.graph, first, joint.runner), budget_check(cost, branches[0].before, budget)),
        choice=choice,
        config=config,
        scores=() if data is None else scored(joint, made.graph, config, data),
        notes=(
            *data_notes,
            *notes_on_budget(joint, config),
            *notes_on_samples(joint.samples),
            *notes_on_classes(joint, data),
        ),
    )


def notes_on_budget(joint: Joint, config: MergeConfig) -> Iterator[str]:
    """That a budget is more than there is to spend it on."""
    most = joint.whole / joint.sides[0].whole
    if most < config.budget < inf and config.is_changed("budget"):
        yield f"`budget` is {config.budget:g}, and all units together take {most:.2f}: nothing has to be taken away"


def notes_on_samples(samples: Samples) -> Iterator[str]:
    """That there are few inputs to fit on."""
    if samples.are_few:
        count = samples.count
        yield f"{count} calibration inputs are few to fit on: {FEW} or more, beside those held out, are better"


def notes_on_classes(joint: Joint, data: Mapping[str, Array] | None) -> Iterator[str]:
    """How models that do not know all classes are compared with what does."""
    for classes in joint.outputs.classes:
        if min(classes.counts()) < len(classes.names):
            yield (
                "labels are places in the list of all classes; a model alone gives a class that it does not know its "
                "mean score, wherever it is compared or scored"
            )
    if data is None and joint.outputs.are_wider:
        yield (
            "the guard compares the scores of all classes: on inputs of the classes that a model knows it alone may be "
            "better than the result, which only labels tell"
        )


def branch_of(joint: Joint, number: int, made: Thinned) -> Branch:
    """What became of one model."""
    side, part = joint.sides[number], made.parts[number]
    kept = made.counts[number]
    sets = tuple(
        KeptUnits(one.name, one.units, kept.get(one.number, one.units), one.reason) for one in side.model.all_sets
    )
    costs = side.multiplications(side.graph), side.multiplications(part)
    return Branch(side.graph.name, joint.shares[number], sets, *costs, joint.part_error(number, part))


def finite_check(graph: LayerGraph, base: Side, runner: Runner) -> Check:
    """Whether every output is finite on the probe's inputs."""
    arrays = run_outputs(graph, base.network.probe.inputs, runner)
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    return Check("finite", not bad, f"output {bad[0]!r} is not finite on the probe inputs" if bad else "")


def budget_check(cost: int, base: int, budget: float) -> Check:
    """Whether the multiplications counted on the result are within the budget."""
    return Check("budget", budget == inf or cost <= budget * base, f"{cost:,} multiplications, {cost / base:.3f} times")


def scored(joint: Joint, result: LayerGraph, config: MergeConfig, data: Mapping[str, Array]) -> tuple[Scores, ...]:
    """The result beside the base, the donors, and the ensembles of outputs and of probabilities."""
    labels = read_labels(data)
    base = joint.predicted(joint.sides[0].graph, data, config)
    scores, members = [score(joint.of_all_classes(base), labels, "base")], [joint.of_all_classes(base, is_sure=True)]
    for number in range(1, len(joint.sides)):
        theirs = joint.predicted_by_donor(number, data, config, base.output)
        if theirs is not None:
            members.append(joint.of_all_classes(theirs, number, is_sure=True))
            scores.append(score(joint.of_all_classes(theirs, number), labels, joint.arm(number)))
    scores.append(joint.scored(result, data, config, "merged"))
    control = joint.refitted_base()
    if control is not None:
        scores.append(joint.scored(control, data, config, REFITTED))
    if len(members) > 1:
        scores.append(joint.scored(joint.ensemble, data, config, OUTPUTS))
        scores.append(score(ensemble(members), labels, "ensemble"))
    return tuple(scores)
