"""Which way to a result is taken: what comes nearest to the ensemble within the budget, if anything comes near enough.

Models with a common ancestor are averaged: for them the average is the ensemble. Of others no average is near it, and
networks that were thinned and stand side by side may be. Every candidate is judged by its outputs, on inputs that
nothing was fitted on; where labels are given, half of them decide and the other half is reported. Where nothing is near
enough, the plain merge is made, with a verdict that says what to expect.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mal_graph.brief import Brief
from mal_graph.config import MergeConfig
from mal_graph.errors import MalGraphError, MatchError, RunError, ShapeError, UsageError
from mal_graph.evaluation import MIN_SAMPLES, Scores, read_labels, score, split_holdout
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import assign_in_order
from mal_graph.merging import Plan, merge
from mal_graph.protocols import Runner
from mal_graph.workflows.assembly import Assembly, assemble_graphs, with_scores
from mal_graph.workflows.guarding import Choice, Guard, Tried
from mal_graph.workflows.joint import Joint, Thinned, form_name, open_joint
from mal_graph.workflows.models import Progress, prepare
from mal_graph.workflows.relations import RELATED
from mal_graph.workflows.steps import Known
from mal_graph.workflows.unions import union_of
from mal_graph.workflows.verdict import beats
from mal_graph.workflows.writing import Written

BUDGET = 1.5  # of the base's multiplications, where none is given
BUDGETS = (1.0, 1.25, 1.5)
SMALL = 0.1  # a lambda at which a merge of strangers loses little
MEAN = 0.5  # at this lambda the average of relatives is their ensemble
EQUAL = 0.02  # errors no further apart are equal: the cheaper candidate is taken
GIVEN_UP = 0.1  # of what the best candidate gains over the base: a cheaper one may gain so much less

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A way that was judged, and what makes its result, scored where there are data.

    Attributes:
        guard: whether its outputs are near enough to the ensemble's.
    """

    tried: Tried
    guard: Guard
    made: Callable[[Choice], Written]


@dataclass(frozen=True, repr=False)
class Trial(Brief):
    """Models, and what the ways to a result are judged by.

    Attributes:
        graphs: the models as they were given, the base first.
        joint: the models as one network.
        config: every option.
        deciding, reporting: labelled data that decide, and those that are reported; None without data.
        progress, runner: as for `assemble`.
        known: groups that were verified before.
    """

    graphs: Sequence[LayerGraph]
    joint: Joint
    config: MergeConfig
    deciding: Data | None
    reporting: Data | None
    progress: Progress
    runner: Runner
    known: Known

    @property
    def budget(self) -> float:
        """The largest, in multiples of the base's multiplications."""
        return self.config.budget if self.config.is_changed("budget") else BUDGET

    def judged(self, name: str, graph: LayerGraph, cost: float, made: Callable[[Choice], Written]) -> Candidate:
        """One network judged by its outputs, and by labels where there are any."""
        guard = self.joint.guard(graph)
        return Candidate(Tried(name, guard.error, cost, self.scored(name, graph)), guard, made)

    def scored(self, name: str, graph: LayerGraph) -> Scores | None:
        """How well a network does on the data that decide."""
        if self.deciding is None:
            return None
        prediction = self.joint.predicted(graph, self.deciding, self.config)
        return score(self.joint.of_all_classes(prediction), read_labels(self.deciding), name)

    def assembly(self, assembly: Assembly, choice: Choice) -> Assembly:
        """A merge of weights as the result."""
        told = replace(assembly, choice=choice)
        return told if self.reporting is None else with_scores(told, self.reporting, self.progress, self.runner)

    def union(self, made: Thinned, choice: Choice) -> Written:
        """A union as the result."""
        return union_of(self.joint, made, self.graphs, self.config, self.reporting, choice)

    def merged(self, config: MergeConfig, **options: Any) -> Assembly:
        """A merge of weights, not scored."""
        return assemble_graphs(self.graphs, config, None, self.progress, self.runner, known=self.known, **options)

    def ends(self) -> tuple[Tried, ...]:
        """The base and the ensemble, between which every other result lies."""
        base, ensemble = self.graphs[0], self.joint.ensemble
        whole = self.joint.whole / self.joint.sides[0].whole
        return (
            Tried("base", 1.0, 1.0, self.scored("base", base)),
            Tried("ensemble of outputs", 0.0, whole, self.scored("ensemble of outputs", ensemble)),
        )

    def average(self) -> Candidate:
        """The average of weights in stored order."""
        average = self.merged(self.config.replaced(lam=MEAN, repair=False), strategy=assign_in_order)
        return self.judged("average", average.graph, 1.0, partial(self.assembly, average))

    def small_merge(self, plain: Assembly) -> Iterator[Candidate]:
        """The merge of aligned weights at a small lambda, where there is one donor."""
        if len(plain.merged) == 1:
            graph, config = merge(plain.merged[0].plan.at(SMALL)), self.config.replaced(lam=SMALL)
            name = f"mal at lambda {SMALL:g}"
            yield self.judged(name, graph, 1.0, lambda choice: self.assembly(self.merged(config), choice))

    def unions(self) -> Iterator[Candidate]:
        """Unions with all models thinned and with the base whole, from the largest budget down; without labels only as
        long as they are as good as the largest is."""
        budgets = sorted({self.budget, *(one for one in BUDGETS if one < self.budget)}, reverse=True)
        for keeps_base in (False, True):
            best = np.inf
            for done, budget in enumerate(budgets):
                self.progress("trying unions", done + keeps_base * len(budgets), 2 * len(budgets))
                try:
                    made = self.joint.at(budget, keeps_base=keeps_base)
                except (UsageError, ShapeError, RunError):  # it cannot be that small
                    break
                times = self.joint.sides[0].multiplications(made.graph) / self.joint.sides[0].whole
                name = form_name(times, keeps_base=keeps_base)
                candidate = self.judged(name, made.graph, times, partial(self.union, made))
                best = min(best, candidate.guard.error)
                if candidate.tried.score is None and candidate.guard.error > best + EQUAL:
                    break
                yield candidate
        self.progress("trying unions", 2 * len(budgets), 2 * len(budgets))


def choose(
    graphs: Sequence[LayerGraph],
    config: MergeConfig,
    data: Data | None,
    progress: Progress,
    runner: Runner,
) -> Written:
    """One model of several, the base first, by the way that comes nearest to the ensemble. Raises as `assemble`."""
    known: Known = []
    plain = plain_merge(graphs, config, progress, runner, known)
    try:
        joint = open_joint(graphs, config, runner, progress, known)
        trial = Trial(graphs, joint, config, *halves_of(joint.ensemble, data, config, runner), progress, runner, known)
        ends = trial.ends()
    except MalGraphError as error:  # the models cannot stand side by side: the report says why
        if config.labels == "union":  # which nothing else gives
            raise
        told = replace(
            merged_or_refused(plain), choice=Choice("mal", f"nothing else could be tried: {error}", (), False)
        )
        return told if data is None else with_scores(told, data, progress, runner)
    if joint.outputs.are_wider:
        return union_of_classes(trial, ends)
    found = [trial.average()] if isinstance(plain, Assembly) and are_relatives(plain) else []
    if found and found[0].guard.accepts:
        choice = Choice("average", "the models have a common ancestor", (*ends, found[0].tried), True)
        return found[0].made(choice)
    found += trial.unions()
    found += trial.small_merge(plain) if isinstance(plain, Assembly) else ()
    tried = (*ends, *(one.tried for one in found))
    best = best_of(found, tried[0])
    if best is None:
        why = no_good(found, trial.budget)
        return trial.assembly(merged_or_refused(plain, why), Choice("mal", why, tried, False))
    return best.made(Choice(best.tried.name, reason_for(best.tried), tried, True))


def union_of_classes(trial: Trial, ends: Sequence[Tried]) -> Written:
    """The best of what has the classes of all models: a union, however near it is. Raises MatchError where none can be
    made."""
    found = list(trial.unions())
    tried = (*ends, *(one.tried for one in found))
    best = best_of(found, tried[0])
    if best is not None:
        return best.made(Choice(best.tried.name, reason_for(best.tried), tried, True))
    why = no_good(found, trial.budget)
    if not found:
        raise MatchError(f"the classes of all models cannot be joined: {why}; give a larger `budget`")
    best = min(found, key=lambda one: np.nan_to_num(one.guard.error, nan=np.inf))
    return best.made(Choice(best.tried.name, f"only a union has the classes of all models; {why}", tried, False))


def plain_merge(
    graphs: Sequence[LayerGraph], config: MergeConfig, progress: Progress, runner: Runner, known: Known
) -> Assembly | MatchError:
    """The merge of aligned weights, not scored; or why there is none: architectures that have no layer in common can
    stand side by side all the same."""
    try:
        return assemble_graphs(graphs, config, None, progress, runner, known=known)
    except MatchError as error:
        return error


def merged_or_refused(plain: Assembly | MatchError, tried: str = "") -> Assembly:
    """The plain merge, where there is nothing better. Raises MatchError where there is none either."""
    if isinstance(plain, Assembly):
        return plain
    raise MatchError(f"{plain}; {tried}") if tried else plain


def halves_of(
    base: LayerGraph, data: Data | None, config: MergeConfig, runner: Runner
) -> tuple[Data | None, Data | None]:
    """The data that decide and those that are reported; all are reported, and none decides, where they are too few.

    Raises:
        DataError: they do not fit the base.
    """
    if data is None:
        return None, None
    arrays, _ = prepare(base, data, config)
    if len(read_labels(arrays)) < 2 * MIN_SAMPLES:
        return None, data
    kind, output = config.output_kind, config.score_output
    held = split_holdout(base, arrays, seed=config.seed, score_output=output, output_kind=kind, runner=runner)
    return held.deciding, held.reporting


def are_relatives(plain: Assembly) -> bool:
    """Whether every donor looks as if it had an ancestor with the base."""
    return all(row_cosine(step.plan) >= RELATED for step in plain.merged)


def row_cosine(plan: Plan) -> float:
    """The median cosine of what base and donor multiply by for each unit, in stored order or in the order used,
    whichever is higher; 0 where nothing is of one shape."""
    end = merge(plan.at(1.0))
    cosines: tuple[list[Array], list[Array]] = ([], [])
    for step in plan.steps:
        if not step.pair.is_weight or step.pair.base.shape != step.pair.donor.shape:
            continue
        mine, theirs = step.pair.base_values(), step.pair.donor_values()
        used = step.pair.base.canonical(end.weights[step.tensor].read())
        for found, other in zip(cosines, (theirs, used), strict=True):
            a, b = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (mine, other))
            size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            found.append((a * b).sum(axis=1)[size > 0] / size[size > 0])
    return max((float(np.median(np.concatenate(found))) for found in cosines if found), default=0.0)


def best_of(found: Sequence[Candidate], base: Tried) -> Candidate | None:
    """The candidate that is taken; None where none is good enough.

    By labels it is the cheapest of those that are better than the base and gain about as much as the best; else the
    cheapest of those whose outputs are about as near to the ensemble's as the nearest.
    """
    if base.score is not None:
        scored = [
            (one.tried.score.loss, one) for one in found if one.tried.score and beats(one.tried.score, base.score)
        ]
        least = min((loss for loss, _ in scored), default=0.0)
        most = least + GIVEN_UP * max(0.0, base.score.loss - least)
        good = [(one.tried.cost, loss, place) for place, (loss, one) in enumerate(scored) if loss <= most]
        return scored[min(good)[2]][1] if good else None
    near = [one for one in found if one.guard.accepts]
    least = min((one.tried.error for one in near), default=0.0)
    level = [one for one in near if one.tried.error <= least + EQUAL]
    return min(level, key=lambda one: (one.tried.cost, one.tried.error), default=None)


def reason_for(tried: Tried) -> str:
    """Why a candidate is taken."""
    if tried.score is not None:
        return (
            f"on the half of the data that decides no cheaper way gains as much: loss {tried.score.loss:.4f}, "
            f"{tried.score.metric_name} {tried.score.metric:.3f}"
        )
    return f"its outputs are nearest to the ensemble's: {tried.error:.2f} of the base's own distance"


def no_good(found: Sequence[Candidate], budget: float) -> str:
    """That nothing comes near enough to the ensemble, with the best that was tried."""
    within = f"within {budget:g} times the base's multiplications"
    if not found:
        return f"nothing could be tried {within}"
    best = min(found, key=lambda one: one.guard.error)
    if best.tried.score is not None:
        return f"nothing {within} is better than the base on the half of the data that decides"
    return (
        f"nothing {within} comes near to the ensemble: {best.tried.name} is off by {best.guard.error:.2f} of the "
        f"base's own distance, and up to {best.guard.limit:g} is accepted"
    )
