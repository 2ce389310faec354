"""A merge is compared with what it promises, before it is repaired.

Two things are promised, and told apart by running the models on the probe inputs of both:

* Equal functions stay equal. Where base and donor compute the same on the probe, so must their merge, at the lambdas
  of the run and at 0.5, whatever is kept: mistakes that cancel at lambda 1 show here. So must the merge of any layers
  alone: those that move the outputs are found by halving, and keep the base's weights. Rescaled, split or rotated
  units end here: they are no permutation.
* Lambda 1 is the donor, where every layer has a partner at the same place and everything is merged. What deviates then
  is no merge of the two. Where both graphs are written alike, operator for operator, there is no excuse and the merge
  is refused; where one is written in another form it is said.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

from mal_graph.brief import Brief
from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import SAME_PLACE, Signatures
from mal_graph.merging import Plan, merge, run_outputs
from mal_graph.network import draw_inputs
from mal_graph.protocols import Check, Runner
from mal_graph.symmetry import Network, deviation, graph_in_float32, judge_by_halves
from mal_graph.workflows.skeletons import are_written_alike

KEEPS = 1e-4  # of the largest output: what a merge may be off from what it promises
TOLD_APART = 100 * KEEPS  # how far two models must be apart for a comparison with the donor to say anything
HALFWAY = 0.5
SAMPLES = 64  # of the inputs that are drawn beside those of the probe, as far as they hold no more than ENTRIES numbers
ENTRIES = 1 << 18
SAME = "base and donor compute the same, but merging"
EQUAL_FUNCTIONS, LAMBDA_1 = "equal_functions", "lambda_1"
NOT_COMPARED = "it was asked not to be compared"

Outputs = Mapping[str, Array]
Replan = Callable[[Mapping[str, str]], Plan]


@dataclass(frozen=True, repr=False)
class Promises(Brief):
    """What a merge promised, and whether it was kept.

    Attributes:
        kept: why a layer keeps the base's weights so that a promise is kept, by name of the base's layer.
        checks: what was compared.
        missed: how far the merge at lambda 1 is from the donor, though every layer is merged; None where it is the
            donor, or that is not promised.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    missed: float | None = None

    def with_check(self, check: Check) -> "Promises":
        """The same, and one more thing that was compared."""
        return replace(self, checks=(*self.checks, check))


def not_compared() -> Promises:
    """Nothing was compared, as the options say."""
    return Promises(checks=tuple(Check(name, None, NOT_COMPARED) for name in (EQUAL_FUNCTIONS, LAMBDA_1)))


def hold_to_promises(base: LayerGraph, first: Network, plan: Plan, replan: Replan, runner: Runner) -> Promises:
    """Compare a merge with what it promises.

    Args:
        base: the model as it was before this merge.
        first: the network that is merged into, which may have been given a place for what the donor has.
        plan: what will be done.
        replan: the plan again, with some layers kept, by name and with the reason.

    Returns:
        what has to be kept, and what was compared.
    """
    signatures = plan.alignment.correspondence.signatures
    models = Models(base, plan.donor.graph, signatures, runner)
    probed = first.probe.inputs, models.as_base_inputs(plan.donor.probe.inputs)
    sets = list(models.runs((*probed, *more_samples(base, first.probe.inputs))))
    if not sets:
        why = f"the donor cannot be run on the inputs of {base.name}, nor the base on the donor's"
        return Promises(checks=tuple(Check(name, None, why) for name in (EQUAL_FUNCTIONS, LAMBDA_1)))
    apart = max(deviation(run.donor, run.base) for run in sets)
    if apart <= KEEPS:
        kept, check = keep_equal_functions(plan, replan, sets, models)
        return Promises(kept, (check, Check(LAMBDA_1, None, "inconclusive: base and donor compute the same")))
    far = f"their outputs are {apart:.1g} apart" if isfinite(apart) else "their classes or shapes differ"
    equal = Check(EQUAL_FUNCTIONS, None, f"base and donor are different functions: {far}")
    lambda_1, missed = compare_with_donor(plan, apart, sets, models)
    return Promises(checks=(equal, lambda_1), missed=missed)


def more_samples(graph: LayerGraph, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Inputs like those of a probe, with more samples: a unit that is silent on few of them shows on many. None where
    the number of samples is fixed."""
    lengths = {inputs[v.name].shape[0] for v in graph.inputs if inputs[v.name].ndim}
    is_fixed = any(not v.shape or isinstance(v.shape[0], int) for v in graph.inputs)
    if is_fixed or len(lengths) != 1:
        return []
    largest = max(array[0].size for array in inputs.values())
    samples = max(*lengths, min(SAMPLES, ENTRIES // max(1, largest)))
    shapes = {name: (samples, *array.shape[1:]) for name, array in inputs.items()}
    return [draw_inputs(graph, shapes, seed=1)]


@dataclass(frozen=True)
class Run:
    """What base and donor make of the same inputs; the donor's outputs under the base's names."""

    inputs: Mapping[str, Array]
    base: Outputs
    donor: Outputs


@dataclass(frozen=True)
class Models:
    """The two models of a merge, run on the same inputs, in float32."""

    base: LayerGraph
    donor: LayerGraph
    signatures: Signatures
    runner: Runner

    def as_base_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The donor's inputs under the base's names."""
        return {own: inputs[theirs] for own, theirs in self.signatures.inputs.items() if theirs in inputs}

    def outputs(self, graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of the base, or of what was made of it, that the donor has too. Raises RunError."""
        made = self.run(graph, inputs)
        return {name: made[name] for name in self.signatures.outputs}

    def donor_outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The donor's outputs under the base's names. Raises RunError."""
        fed = {theirs: inputs[own] for own, theirs in self.signatures.inputs.items() if own in inputs}
        made = self.run(self.donor, fed)
        return {own: made[theirs] for own, theirs in self.signatures.outputs.items()}

    def run(self, graph: LayerGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of a graph. Raises RunError."""
        graph = graph_in_float32(graph)
        fed = {value.name: inputs[value.name].astype(value.dtype or "float32") for value in graph.inputs}
        return run_outputs(graph, fed, self.runner)

    def runs(self, sets: Sequence[Mapping[str, Array]]) -> Iterator[Run]:
        """What both models make of each set of inputs that both can be run on."""
        for inputs in sets:
            try:
                yield Run(inputs, self.outputs(self.base, inputs), self.donor_outputs(inputs))
            except RunError:
                continue  # a size that one of the two is not made for

    def draws_at_random(self, run: Run) -> bool:
        """Whether a model gives other outputs when it is run again."""
        again = self.outputs(self.base, run.inputs), self.donor_outputs(run.inputs)
        return max(deviation(again[0], run.base), deviation(again[1], run.donor)) > KEEPS

    def distance(self, plan: Plan, runs: Sequence[Run], *, to_donor: bool = False) -> float:
        """How far a merge is from the base on all inputs, or from the donor."""
        graph = merge(plan)
        return max(deviation(self.outputs(graph, run.inputs), run.donor if to_donor else run.base) for run in runs)


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


def compare_with_donor(plan: Plan, apart: float, runs: Sequence[Run], models: Models) -> tuple[Check, float | None]:
    """Whether the merge at lambda 1 is the donor, where that is promised, and by how much it misses it."""
    excuse = why_lambda_1_is_not_the_donor(plan)
    if excuse:
        return Check(LAMBDA_1, None, f"not promised: {excuse}"), None
    if apart < TOLD_APART:
        return Check(LAMBDA_1, None, f"inconclusive: base and donor are only {apart:.1g} apart"), None
    distance = models.distance(plan.at(1.0), runs, to_donor=True)
    told = f"at lambda 1 the merge is {distance:.1e} from the donor"
    if distance <= KEEPS:
        return Check(LAMBDA_1, True, told), None
    if models.draws_at_random(runs[0]):
        return Check(LAMBDA_1, None, "a model gives other outputs each time it is run"), None
    if are_written_alike(plan):
        return Check(LAMBDA_1, False, f"{told}, though every layer is merged"), distance
    return Check(LAMBDA_1, None, f"{told}: the two are not written alike"), distance


def why_lambda_1_is_not_the_donor(plan: Plan) -> str:
    """What of a plan stands against lambda 1 being the donor, "" if nothing does."""
    correspondence = plan.alignment.correspondence
    differences = [difference for pair in plan.merged_pairs for difference in pair.differences]
    if plan.skipped or plan.dropped:
        return f"{len({*plan.skipped, *plan.dropped})} layers are kept, in whole or in part"
    if plan.match.unmatched_donor or correspondence.unpaired:
        return "the donor has parameters without a place in the base"
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
    return not why_lambda_1_is_not_the_donor(plan)
