"""A merge is compared with what it promises, before it is repaired.

Two things are promised, and told apart by running the models on the probe inputs of both:

* Equal functions stay equal. Where base and donor compute the same on the probe, so must their merge, at the lambdas
  of the run and at 0.5, whatever is kept: mistakes that cancel at lambda 1 show here. So must the merge of any layers
  alone: those that move the outputs are found by halving, and keep the base's weights. Rescaled, split or rotated
  units end here: they are no permutation.
* Lambda 1 is the donor, where every layer has a partner at the same place and everything is merged; where some layers
  are kept, so is each of the others, with the donor's values behind those. That is only said where one of the others at
  least would give something else if it were not merged. Layers that are not the donor's, though they read the same,
  keep the base's weights. Where that does not help, this is no merge of the two: where both graphs are written alike,
  operator for operator, there is no excuse and it is refused; where one is written in another form it is said.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

from mal_graph.brief import Brief
from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph
from mal_graph.matching import SAME_PLACE
from mal_graph.merging import Plan, Sessions
from mal_graph.protocols import Check
from mal_graph.symmetry import Network, deviation, judge_by_halves
from mal_graph.workflows.both_models import KEEPS, TOLD_APART, Models, Run, for_other_branches, more_samples
from mal_graph.workflows.culprits import Search, find_culprits
from mal_graph.workflows.skeletons import are_written_alike

HALFWAY = 0.5
SAME = "base and donor compute the same, but merging"
EQUAL_FUNCTIONS, LAMBDA_1 = "equal_functions", "lambda_1"
READS_THE_SAME = "at lambda 1 this layer reads what the donor's does, but gives what is"
NOT_COMPARED = "it was asked not to be compared"

Replan = Callable[[Mapping[str, str]], Plan]


@dataclass(frozen=True, repr=False)
class Promises(Brief):
    """What a merge promised, and whether it was kept.

    Attributes:
        kept: why a layer keeps the base's weights so that a promise is kept, by name of the base's layer.
        checks: what was compared.
        missed: how the merge at lambda 1 misses the donor though nothing is known that it should; "" where it does not.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    missed: str = ""

    @property
    def of_equal_functions(self) -> bool | None:
        """Whether base and donor compute the same and their merge does; None where they do not, or nobody asked."""
        return next((check.passed for check in self.checks if check.name == EQUAL_FUNCTIONS), None)

    def behind(self, check: Check) -> "Promises":
        """The same, and one more thing that was compared before."""
        return replace(self, checks=(check, *self.checks))

    def with_check(self, check: Check) -> "Promises":
        """The same, and one more thing that was compared."""
        return replace(self, checks=(*self.checks, check))


def not_compared() -> Promises:
    """Nothing was compared, as the options say."""
    return Promises(checks=tuple(Check(name, None, NOT_COMPARED) for name in (EQUAL_FUNCTIONS, LAMBDA_1)))


def hold_to_promises(base: LayerGraph, first: Network, plan: Plan, replan: Replan, sessions: Sessions) -> Promises:
    """Compare a merge with what it promises.

    Args:
        base: the model as it was before this merge.
        first: the network that is merged into, which may have been given a place for what the donor has.
        plan: what will be done.
        replan: the plan again, with some layers kept, by name and with the reason.
        sessions: what runs the models.

    Returns:
        what has to be kept, and what was compared.
    """
    signatures = plan.alignment.correspondence.signatures
    models = Models(base, plan.donor.graph, signatures, sessions)
    probed = first.probe.inputs, models.as_base_inputs(plan.donor.probe.inputs)
    others = for_other_branches(base, first.probe.inputs)
    sets = list(models.runs((*probed, *more_samples(base, first.probe.inputs), *others)))
    if not sets:
        why = f"the donor cannot be run on the inputs of {base.name}, nor the base on the donor's"
        return Promises(checks=tuple(Check(name, None, why) for name in (EQUAL_FUNCTIONS, LAMBDA_1)))
    apart = max(deviation(run.donor, run.base) for run in sets)
    if apart <= KEEPS:
        kept, check = keep_equal_functions(plan, replan, sets, models)
        return Promises(kept, (check, Check(LAMBDA_1, None, "inconclusive: base and donor compute the same")))
    far = f"their outputs are {apart:.1g} apart" if isfinite(apart) else "their classes or shapes differ"
    equal = Check(EQUAL_FUNCTIONS, None, f"base and donor are different functions: {far}")
    return compare_with_donor(plan, apart, sets, models).behind(equal)


def keep_equal_functions(
    plan: Plan, replan: Replan, runs: Sequence[Run], models: Models
) -> tuple[dict[str, str], Check]:
    """Keep the layers that keep the merge of two equal functions from being that function."""

    def moves(kept: Mapping[str, str]) -> float:
        planned = replan(kept)
        return max(models.distance(one, runs) for one in (planned, planned.at(HALFWAY))) if planned.steps else 0.0

    moved, layers = moves({}), list(dict.fromkeys(step.pair.layer for step in plan.steps))
    kept: dict[str, str] = {}
    if moved > KEEPS:
        kept = layers_that_move(layers, moves)
        if (moved := moves(kept)) > KEEPS:  # they do so together alone
            kept, moved = dict.fromkeys(layers, f"{SAME} some layers together moves the outputs by {moved:.1g}"), 0.0
    found = f"the merge is {moved:.1e} from the base, which computes what the donor does"
    return kept, Check(EQUAL_FUNCTIONS, moved <= KEEPS, found)


def layers_that_move(layers: Sequence[str], moves: Callable[[Mapping[str, str]], float]) -> dict[str, str]:
    """The layers that move the outputs where they are merged without the others, with the reason to keep them."""

    def judge(some: Sequence[str]) -> dict[str, str] | None:
        moved = moves({name: "not tried yet" for name in layers if name not in some})
        if moved <= KEEPS:
            return {}
        return {some[0]: f"{SAME} this layer moves the outputs by {moved:.1g}"} if len(some) == 1 else None

    return judge_by_halves(layers, judge, lambda one, other: {**one, **other})


def compare_with_donor(plan: Plan, apart: float, runs: Sequence[Run], models: Models) -> Promises:
    """Whether the merge at lambda 1 is the donor, where that is promised; what is kept and said where it is not."""
    if excuse := what_differs(plan):
        return told(None, f"not promised: {excuse}")
    if apart < TOLD_APART:
        return told(None, f"inconclusive: base and donor are only {apart:.1g} apart")
    kept = what_is_kept(plan)
    distance = float("inf") if kept else models.distance(plan.at(1.0), runs, to_donor=True)
    if distance <= KEEPS:
        return told(True, f"at lambda 1 the merge is {distance:.1e} from the donor")
    if models.draws_at_random(runs[0]):
        return told(None, "a model gives other outputs each time it is run")
    search = searched(plan, runs, models)
    if search.is_through and 0 < len(search.culprits) < search.compared:
        reasons = {layer: f"{READS_THE_SAME} {far:.1g} from the donor's" for layer, far in search.culprits.items()}
        return replace(told(None, f"not promised: {len(reasons)} layers that miss it are kept"), kept=reasons)
    return judge_others(kept, search) if kept else judge_whole(plan, distance, search)


def searched(plan: Plan, runs: Sequence[Run], models: Models) -> Search:
    """The culprits on the inputs that tell base and donor apart best."""
    try:
        return find_culprits(plan, max(runs, key=lambda run: deviation(run.donor, run.base)), models)
    except RunError:
        return Search()  # what one of the two models holds inside does not fit into the other


def judge_others(kept: str, search: Search) -> Promises:
    """The verdict on a merge that keeps some layers."""
    if search.is_through and not search.culprits:
        others = f"with the donor's values behind them the other {search.compared} give"
        if not search.told:
            return told(None, f"inconclusive: {kept}; {others} what the donor's do with the base's weights too")
        known = "" if search.told == search.compared else f", {search.told} of them not with the base's weights"
        return told(True, f"{kept}; {others} at lambda 1 what the donor's do{known}")
    return replace(told(None, f"not promised: {kept}"), missed=beside(search))


def judge_whole(plan: Plan, distance: float, search: Search) -> Promises:
    """The verdict on a merge that keeps nothing and misses the donor at lambda 1."""
    missed = f"at lambda 1 the merge is {distance:.1e} from the donor, though every layer is merged"
    if are_written_alike(plan):
        return told(False, missed)
    return replace(told(None, f"{missed}: the two are not written alike"), missed=beside(search) or missed)


def beside(search: Search) -> str:
    """What is known of a place beside the layers where two models differ; "" if nothing is."""
    if not search.beside:
        return ""
    return f"layer {search.beside} reads what the donor's does not, though at lambda 1 the layers before it agree"


def told(passed: bool | None, detail: str) -> Promises:
    """What was found of lambda 1."""
    return Promises(checks=(Check(LAMBDA_1, passed, detail),))


def what_is_kept(plan: Plan) -> str:
    """How much of a plan keeps the base's weights, "" if nothing does."""
    kept = {*plan.skipped, *plan.dropped}
    return f"{len(kept)} layers are kept, in whole or in part" if kept else ""


def what_differs(plan: Plan) -> str:
    """What of two models stands against lambda 1 being the donor wherever it is merged, "" if nothing does."""
    correspondence = plan.alignment.correspondence
    differences = [difference for pair in plan.merged_pairs for difference in pair.differences]
    if plan.match.unmatched_donor or correspondence.unpaired:
        return "the donor has parameters or settings without a place in the base"
    if differences:
        return f"the layers differ in their settings ({differences[0].what})"
    if any(a != b for a, b in correspondence.units) or not plan.growth.is_none:
        return "the widths differ"
    if any(pair.score < SAME_PLACE for pair in plan.match.pairs):
        return "the layers are wired otherwise"
    if any(step.matched < 1 for step in plan.steps):
        return "entries have no counterpart"
    return ""


def is_whole(plan: Plan) -> bool:
    """Whether lambda 1 is the donor: two models of the same shape, everything merged."""
    return not what_is_kept(plan) and not what_differs(plan)
