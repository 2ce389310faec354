"""Several models that are to be one network: what is left of them at a budget, and how far that is from the ensemble.

A budget may be met in two forms: all models thinned, or the base whole beside thinned donors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf

import numpy as np

from mal_graph.brief import Brief
from mal_graph.compression import (
    Candidate,
    Headed,
    Outputs,
    allocate,
    find_averaged,
    find_head,
    refit_heads,
    unite,
)
from mal_graph.config import MergeConfig
from mal_graph.errors import MalGraphError, RunError, ShapeError, UsageError
from mal_graph.graph import Array, LayerGraph
from mal_graph.protocols import Runner
from mal_graph.workflows.guarding import Choice, Guard, Tried, distance, shares_of_classes, values_of
from mal_graph.workflows.models import Progress
from mal_graph.workflows.sides import Samples, Side, open_sides
from mal_graph.workflows.steps import Known

Counts = Mapping[int, int]  # units kept by number of their set


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
    """

    sides: tuple[Side, ...]
    samples: Samples
    runner: Runner

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
        return find_averaged([side.member for side in self.sides])

    @cached_property
    def ensemble(self) -> LayerGraph:
        """All models whole, as one network."""
        return self.joined([side.graph for side in self.sides])

    def joined(self, parts: Sequence[LayerGraph]) -> LayerGraph:
        """What is left of the models, as one network; of a single one, itself."""
        if len(parts) == 1:
            return parts[0]
        members = [replace(side.member, graph=part) for side, part in zip(self.sides, parts, strict=True)]
        return unite(members, self.outputs, self.shares).named(self.sides[0].graph.name)

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
        output is given by a layer that allows it."""
        if not self.samples.are_real:
            return parts
        for one in self.outputs.averaged:
            heads = [
                find_head(part, tensor, side.member.shapes)
                for part, tensor, side in zip(parts, one.tensors, self.sides, strict=True)
            ]
            members = [
                Headed(side.graph, part, head, tensor, side.paired.for_donor(self.samples.fitting), share)
                for side, part, head, tensor, share in zip(
                    self.sides, parts, heads, one.tensors, self.shares, strict=True
                )
                if head is not None
            ]
            if len(members) == len(parts) and one.is_plain:
                parts = refit_heads(members, self.runner)
        return parts

    def refitted_base(self) -> LayerGraph | None:
        """The base alone with its last layer fitted to the ensemble: the control of every union. None where it has no
        layer that allows it, or there is one model."""
        side, averaged = self.sides[0], self.outputs.averaged
        head = find_head(side.graph, averaged[0].tensors[0], side.member.shapes)
        if head is None or len(averaged) > 1 or len(self.sides) == 1:
            return None
        control = Headed(self.ensemble, side.graph, head, averaged[0].tensors[0], self.samples.fitting, 1.0)
        return refit_heads([control], self.runner)[0]

    def guard(self, graph: LayerGraph) -> Guard:
        """Whether a network does what the models do together."""
        return Guard(self.error(graph), self.samples.told, self.samples.are_fresh_real)

    def error(self, graph: LayerGraph) -> float:
        """How far a network is from the ensemble, as a share of how far the base is; the worst kind of input counts."""
        errors = []
        for inputs, (before, target) in zip(self.samples.fresh, self.ends, strict=True):
            own = values_of(graph, self.names, inputs, self.runner)
            for view in (dict, self.in_shares):
                far, near = distance(view(own), view(target)), distance(view(before), view(target))
                errors.append(far if len(self.sides) == 1 else far / max(near, np.finfo(float).tiny))
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
        return list(zip(base, whole, strict=True))

    def in_shares(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs with logits of samples x classes as shares of the classes."""
        logits = {one.tensors[0] for one in self.outputs.averaged if one.kind == "logits"}
        return {
            name: shares_of_classes(each) if name in logits and each.ndim == 2 else each
            for name, each in values.items()
        }

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
    return Joint(tuple(sides), samples, runner)


def in_best_form(joint: Joint, config: MergeConfig) -> tuple[Thinned, Choice | None]:
    """The models at the budget in the form that `keep` names, or else in the one that comes nearer to the ensemble,
    with why where there was a choice.

    Raises:
        UsageError: what cannot be taken away costs more than the budget.
        ShapeError, RunError: units cannot be taken away.
    """
    if config.keep is not None or len(joint.sides) == 1 or config.budget * joint.sides[0].whole >= joint.whole:
        return joint.at(config.budget, keeps_base=config.keep == "base"), None
    forms: list[tuple[Tried, Guard, Thinned]] = []
    failures: list[MalGraphError] = []
    for keeps_base in (False, True):
        try:
            made = joint.at(config.budget, keeps_base=keeps_base)
        except (UsageError, ShapeError, RunError) as error:
            failures.append(error)
            continue
        guard, times = joint.guard(made.graph), joint.sides[0].multiplications(made.graph) / joint.sides[0].whole
        forms.append((Tried(form_name(times, keeps_base=keeps_base), guard.error, times), guard, made))
    if not forms:
        raise failures[0]
    tried, guard, made = min(forms, key=lambda form: np.nan_to_num(form[0].error, nan=inf))
    if failures:
        return made, Choice(tried.name, f"the other form cannot be made: {failures[0]}", (), guard.accepts)
    why = f"it is the form whose outputs are nearer to the ensemble's: {tried.error:.2f} of the base's own distance"
    return made, Choice(tried.name, why, tuple(one for one, _, _ in forms), guard.accepts)


def form_name(times: float, *, keeps_base: bool) -> str:
    """What a union of a form is called that costs so many times what the base does."""
    return f"union{' with the base whole' if keeps_base else ''} at {times:.2f}x"
