"""Which way to a result is taken: what comes nearest to the ensemble within the budget, if anything comes near enough.

Models with a common ancestor are averaged: for them the average is the ensemble. Of others no average is near it, and
networks that were thinned and stand side by side may be. Every candidate is judged by its outputs, on inputs that
nothing was fitted on; where labels are given, half of them decide and the other half is reported. Where nothing is near
enough, the plain merge is made, with a verdict that says what to expect.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from mal_graph.brief import Brief
from mal_graph.config import MergeConfig
from mal_graph.errors import MalGraphError, MatchError, RunError, ShapeError, UsageError
from mal_graph.evaluation import MIN_SAMPLES, Scores, read_labels, score, split_holdout
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import RELATED, assign_in_order
from mal_graph.merging import Plan, merge
from mal_graph.protocols import Runner
from mal_graph.workflows.assembly import Assembly, assemble_graphs, with_scores
from mal_graph.workflows.guarding import Choice, Guard
from mal_graph.workflows.joint import Joint, Thinned, open_joint
from mal_graph.workflows.models import Progress, prepared
from mal_graph.workflows.pareto import ParetoEntry, pareto_table
from mal_graph.workflows.steps import Known, with_repair
from mal_graph.workflows.unions import Union, union_of
from mal_graph.workflows.verdict import OUTPUTS, REFITTED, beats
from mal_graph.workflows.writing import Written

BUDGET = 1.5  # of the base's multiplications, where none is given
BUDGETS = (1.0, 1.25, 1.5)
BUDGETS_ALONE = (0.25, 0.5, 0.75)  # of one model that is thinned
SMALL = 0.1  # a lambda at which a merge of strangers loses little
MEAN = 0.5  # at this lambda the average of relatives is their ensemble
EQUAL = 0.02  # errors no further apart are equal: the cheaper candidate is taken
SAME = "all models compute the same, and so does their merge"
GIVEN_UP = 0.1  # of what the best candidate gains over the base: a cheaper one may gain so much less

Data = Mapping[str, Any]
W = TypeVar("W", bound=Written)


@dataclass(frozen=True)
class Candidate:
    """A way that was judged, and what makes its result, scored where there are data.

    Attributes:
        entry: its line in the table of cost and score.
        guard: whether its outputs are near enough to the ensemble's.
    """

    entry: ParetoEntry
    guard: Guard
    made: Callable[[Choice], Written]


@dataclass(frozen=True, repr=False)
class Trial(Brief):
    """Models, and what the ways to a result are judged by.

    Attributes:
        graphs: the models as they were given, the base first.
        joint: the models as one network.
        config: every option.
        deciding, reporting: labelled data that decide, and those that are reported, made ready for the ensemble; None
            without data.
        data_notes: what of the data was not taken literally.
        progress, runner: as for `assemble`.
        known: groups that were verified before.
    """

    graphs: Sequence[LayerGraph]
    joint: Joint
    config: MergeConfig
    deciding: Data | None
    reporting: Data | None
    data_notes: tuple[str, ...]
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
        return Candidate(self.entry(name, graph, cost, guard.error), guard, made)

    def entry(self, name: str, graph: LayerGraph, cost: float, error: float) -> ParetoEntry:
        """The line of one network in the table of cost and score."""
        return ParetoEntry(
            name, cost, error, self.scored(name, graph, self.reporting), self.scored(name, graph, self.deciding)
        )

    def scored(self, name: str, graph: LayerGraph, data: Data | None) -> Scores | None:
        """How well a network does on a part of the data."""
        return None if data is None else self.joint.scored(graph, data, self.config, name)

    def assembly(self, assembly: Assembly, choice: Choice) -> Assembly:
        """A merge of weights as the result."""
        told = replace(assembly, choice=choice)
        if self.reporting is None:
            return told
        scored = with_scores(told, self.reporting, self.progress, self.runner)
        return replace(scored, data_notes=(*self.data_notes, *scored.data_notes))

    def union(self, made: Thinned, choice: Choice | None) -> Union:
        """A union as the result."""
        return union_of(self.joint, made, self.graphs, self.config, self.reporting, self.data_notes, choice)

    def merged(self, config: MergeConfig, **options: Any) -> Assembly:
        """A merge of weights, not scored."""
        return assemble_graphs(self.graphs, config, None, self.progress, self.runner, known=self.known, **options)

    def given(self) -> tuple[ParetoEntry, ...]:
        """The models that were given, each alone and as an ensemble: between these every other result lies. With data
        also the control that has the same inputs."""
        joint, whole = self.joint, [side.whole / self.joint.sides[0].whole for side in self.joint.sides]
        if len(whole) == 1:
            return (self.entry("base", self.graphs[0], 1.0, 0.0),)
        base = self.entry("base", self.graphs[0], 1.0, 1.0)
        entries = [base, *(self.donor(number, whole[number], base) for number in range(1, len(whole)))]
        control = None if self.reporting is None else joint.refitted_base()
        if control is not None:
            entries.append(self.entry(REFITTED, control, 1.0, joint.error(control)))
        return (*entries, self.entry(OUTPUTS, joint.ensemble, sum(whole), 0.0))

    def donor(self, number: int, cost: float, base: ParetoEntry) -> ParetoEntry:
        """The line of a donor alone."""
        reported = self.scored_donor(number, self.reporting, base.score)
        decided = self.scored_donor(number, self.deciding, base.deciding)
        return ParetoEntry(self.joint.arm(number), cost, self.joint.error_alone(number), reported, decided)

    def scored_donor(self, number: int, data: Data | None, base: Scores | None) -> Scores | None:
        """How well a donor alone does on a part of the data, as the base was scored; None where nothing that it gives
        fits the labels."""
        if data is None or base is None:
            return None
        theirs = self.joint.predicted_by_donor(number, data, self.config, base.output)
        if theirs is None:
            return None
        return score(self.joint.of_all_classes(theirs, number), read_labels(data), self.joint.arm(number))

    def average(self) -> Candidate:
        """The average of weights in stored order."""
        average = self.merged(self.config.replaced(lam=MEAN, repair=False), strategy=assign_in_order)
        return self.judged("average", average.graph, 1.0, partial(self.assembly, average))

    def small_merge(self, plain: Assembly) -> Iterator[Candidate]:
        """The merge of aligned weights at a small lambda, where there is one donor."""
        if len(plain.merged) == 1:
            step, config = plain.merged[0], self.config.replaced(lam=SMALL)
            planned = step.plan.at(SMALL)
            graph, _ = with_repair(merge(planned), planned, step.donor, config, self.runner)
            name = f"mal at lambda {SMALL:g}"
            yield self.judged(name, graph, 1.0, lambda choice: self.assembly(self.merged(config), choice))

    def plain(self, plain: Assembly) -> ParetoEntry:
        """The line of the merge that the options ask for."""
        side, graph = self.joint.sides[0], plain.graph
        cost = side.multiplications(graph) / side.whole
        return self.entry(f"mal at lambda {plain.merged[0].plan.mean_lam:g}", graph, cost, self.joint.error(graph))

    def forms_at(self, budget: float) -> tuple[bool, ...]:
        """Whether the base stays whole, for each form that a union may have at a budget: there is one of one model, and
        where all stay whole."""
        joint = self.joint
        return (False,) if len(joint.sides) == 1 or budget * joint.sides[0].whole >= joint.whole else (False, True)

    def form(self, made: Thinned, *, keeps_base: bool) -> Candidate:
        """Thinned models as a candidate."""
        times = self.joint.sides[0].multiplications(made.graph) / self.joint.sides[0].whole
        what = "thinned" if len(self.graphs) == 1 else "union"
        name = f"{what}{' with the base whole' if keeps_base else ''} at {times:.2f}x"
        return self.judged(name, made.graph, times, partial(self.union, made))

    def unions(self, budgets: Collection[float], forms: Sequence[bool] = (False, True)) -> Iterator[Candidate]:
        """Unions with all models thinned and, of several, with the base whole, from the largest budget down; without
        labels only as long as they are as good as the largest is."""
        for keeps_base in forms:
            falling = [one for one in sorted(budgets, reverse=True) if keeps_base in self.forms_at(one)]
            best = np.inf
            for done, budget in enumerate(falling):
                self.progress("trying unions", done, len(falling))
                try:
                    made = self.joint.at(budget, keeps_base=keeps_base)
                except (UsageError, ShapeError, RunError):  # it cannot be that small
                    break
                candidate = self.form(made, keeps_base=keeps_base)
                best = min(best, candidate.guard.error)
                if self.reporting is None and candidate.guard.error > best + EQUAL:
                    break
                yield candidate
            self.progress("trying unions", len(falling), len(falling))

    def beside(self, forms: Sequence[Candidate]) -> list[ParetoEntry]:
        """What a union whose budget was given is compared with, its forms among it: with data also other budgets and a
        merge of weights."""
        found, config = list(forms), self.config
        if self.reporting is not None:
            budgets = BUDGETS if len(self.graphs) > 1 else BUDGETS_ALONE
            found += self.unions(set(budgets) - {config.budget})
            found += [] if config.keep is None else self.unions({config.budget}, [config.keep != "base"])
        if self.reporting is not None and len(self.graphs) > 1 and not self.joint.outputs.are_wider:
            plain = plain_merge(self.graphs, config, self.progress, self.runner, self.known)
            found += self.small_merge(plain) if isinstance(plain, Assembly) else ()
        named = {one.entry.name: one.entry for one in reversed(found)}  # two budgets may come to the same
        return [*self.given(), *reversed(named.values())]


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
        given = trial.given()
    except MalGraphError as error:  # the models cannot stand side by side: the report says why
        if config.labels == "union":  # which nothing else gives
            raise
        merged = merged_or_refused(plain)
        choice = Choice("mal", f"nothing else could be tried: {error}", False)
        told = replace(merged, choice=Choice("mal", SAME, True) if is_base(merged) else choice)
        return told if data is None else with_scores(told, data, progress, runner)
    budgets = {trial.budget, *(one for one in BUDGETS if one < trial.budget)}
    if joint.outputs.are_wider:
        return union_of_classes(trial, given, list(trial.unions(budgets)))
    if isinstance(plain, Assembly) and is_base(plain):
        own = trial.plain(plain)
        return compared(trial.assembly(plain, Choice("mal", SAME, True)), [*given, own], own)
    found = [trial.average()] if isinstance(plain, Assembly) and are_relatives(plain) else []
    if found and found[0].guard.accepts:
        choice = Choice("average", "the models have a common ancestor", True)
        return compared(found[0].made(choice), [*given, found[0].entry], found[0].entry)
    found += trial.unions(budgets)
    found += trial.small_merge(plain) if isinstance(plain, Assembly) else ()
    entries = [*given, *(one.entry for one in found)]
    best = best_of(found, given[0])
    if best is None:
        why = no_good(found, trial.budget)
        merged = merged_or_refused(plain, why)
        own = trial.plain(merged)
        return compared(trial.assembly(merged, Choice("mal", why, False)), [*entries, own], own)
    return compared(best.made(Choice(best.entry.name, reason_for(best.entry), True)), entries, best.entry)


def union_of_classes(trial: Trial, given: Sequence[ParetoEntry], found: Sequence[Candidate]) -> Written:
    """The best of the unions that were found: nothing else has the classes of all models, however near it is. Raises
    MatchError where none could be made."""
    best, why = best_of(found, given[0]), no_good(found, trial.budget)
    if not found:
        raise MatchError(f"the classes of all models cannot be joined: {why}; give a larger `budget`")
    if best is not None:
        choice = Choice(best.entry.name, reason_for(best.entry), True)
    else:
        best = min(found, key=off_by)
        choice = Choice(best.entry.name, f"only a union has the classes of all models; {why}", False)
    return compared(best.made(choice), [*given, *(one.entry for one in found)], best.entry)


def union_at_budget(trial: Trial) -> Union:
    """The union at the budget that the options name, in the form that they name or else in the one that comes nearer to
    the ensemble.

    Raises:
        UsageError: what cannot be taken away costs more than the budget.
        ShapeError, RunError: units cannot be taken away.
    """
    budget, keep = trial.config.budget, trial.config.keep
    wanted = trial.forms_at(budget) if keep is None else (keep == "base",)
    forms: list[tuple[Candidate, Thinned]] = []
    failures: list[MalGraphError] = []
    for done, keeps_base in enumerate(wanted):
        trial.progress("thinning the models", done, len(wanted))
        try:
            made = trial.joint.at(budget, keeps_base=keeps_base)
        except (UsageError, ShapeError, RunError) as error:
            failures.append(error)
            continue
        forms.append((trial.form(made, keeps_base=keeps_base), made))
    trial.progress("thinning the models", len(wanted), len(wanted))
    if not forms:
        raise failures[0]
    best, made = min(forms, key=lambda form: off_by(form[0]))
    why = ""
    if failures:
        why = f"the other form cannot be made: {failures[0]}"
    elif len(forms) > 1:
        why = "it is the form whose outputs are nearer to the ensemble's: "
        why += f"{best.entry.error:.2f} of the base's own distance"
    result = trial.union(made, Choice(best.entry.name, why, best.guard.accepts) if why else None)
    return compared(result, trial.beside([form for form, _ in forms]), best.entry)


def off_by(candidate: Candidate) -> float:
    """How far a candidate is from the ensemble; infinitely where something is not finite."""
    return float(np.nan_to_num(candidate.guard.error, nan=np.inf))


def compared(result: W, entries: Sequence[ParetoEntry], own: ParetoEntry) -> W:
    """A result with the table of what it was chosen from; `own` is its line."""
    return replace(result, pareto=pareto_table(entries, own))


def plain_merge(
    graphs: Sequence[LayerGraph], config: MergeConfig, progress: Progress, runner: Runner, known: Known
) -> Assembly | MatchError:
    """The merge of aligned weights, not scored; or why there is none: architectures that have no layer in common can
    stand side by side all the same."""
    try:
        return assemble_graphs(graphs, config, None, progress, runner, known=known)
    except MatchError as error:
        return error


def is_base(plain: Assembly) -> bool:
    """Whether all models compute the same, and so does their merge: then nothing is nearer to the ensemble, and nothing
    costs less."""
    return bool(plain.merged) and all(step.promises.of_equal_functions for step in plain.merged)


def merged_or_refused(plain: Assembly | MatchError, tried: str = "") -> Assembly:
    """The plain merge, where there is nothing better. Raises MatchError where there is none either."""
    if isinstance(plain, Assembly):
        return plain
    raise MatchError(f"{plain}; {tried}") if tried else plain


def halves_of(
    base: LayerGraph, data: Data | None, config: MergeConfig, runner: Runner
) -> tuple[Data | None, Data | None, tuple[str, ...]]:
    """The data that decide and those that are reported, with notes on what was not taken literally; all are reported,
    and none decides, where they are too few.

    Raises:
        DataError: they do not fit the base.
    """
    arrays, notes = prepared(base, data, config)
    if arrays is None or len(read_labels(arrays)) < 2 * MIN_SAMPLES:
        return None, arrays, notes
    kind, output = config.output_kind, config.score_output
    held = split_holdout(base, arrays, seed=config.seed, score_output=output, output_kind=kind, runner=runner)
    return held.deciding, held.reporting, notes


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


def best_of(found: Sequence[Candidate], base: ParetoEntry) -> Candidate | None:
    """The candidate that is taken; None where none is good enough.

    By labels it is the cheapest of those that are better than the base and gain about as much as the best; else the
    cheapest of those whose outputs are about as near to the ensemble's as the nearest.
    """
    if base.deciding is not None:
        decided = [(one.entry.deciding, one) for one in found]
        scored = [(score.loss, one) for score, one in decided if score is not None and beats(score, base.deciding)]
        least = min((loss for loss, _ in scored), default=0.0)
        most = least + GIVEN_UP * max(0.0, base.deciding.loss - least)
        good = [(one.entry.cost, loss, place) for place, (loss, one) in enumerate(scored) if loss <= most]
        return scored[min(good)[2]][1] if good else None
    near = [one for one in found if one.guard.accepts]
    least = min((one.entry.error for one in near), default=0.0)
    level = [one for one in near if one.entry.error <= least + EQUAL]
    return min(level, key=lambda one: (one.entry.cost, one.entry.error), default=None)


def reason_for(entry: ParetoEntry) -> str:
    """Why a candidate is taken."""
    if entry.deciding is not None:
        return (
            f"on the half of the data that decides no cheaper way gains as much: loss {entry.deciding.loss:.4f}, "
            f"{entry.deciding.metric_name} {entry.deciding.metric:.3f}"
        )
    return f"its outputs are nearest to the ensemble's: {entry.error:.2f} of the base's own distance"


def no_good(found: Sequence[Candidate], budget: float) -> str:
    """That nothing comes near enough to the ensemble, with the best that was tried."""
    within = f"within {budget:g} times the base's multiplications"
    if not found:
        return f"nothing could be tried {within}"
    best = min(found, key=off_by)
    if best.entry.deciding is not None:
        return f"nothing {within} is better than the base on the half of the data that decides"
    return (
        f"nothing {within} comes near to the ensemble: {best.entry.name} is off by {best.guard.error:.2f} of the "
        f"base's own distance, and up to {best.guard.limit:g} is accepted"
    )
