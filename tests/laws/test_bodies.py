"""Laws of bodies: weights in an If, a Loop, a Scan or a SequenceMap, and such as these read from outside, merge as any
others.

Donors are permuted by hand in the tensors of the file, by code that knows nothing of axis rules.
"""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from body_nets import (
    ATTENDING_BACK,
    BRANCHES,
    CLASSES,
    FLATTENING,
    FOR_LONG,
    GOING_THROUGH,
    KINDS,
    LISTENING,
    LOOPING,
    MAPPING,
    NESTING,
    SCANNING,
    SWAPPING,
    Kind,
    X,
    model,
    stored,
    swapping,
)
from builders import load

import mal_graph
from mal_graph.errors import UsageError
from mal_graph.operators import ROWS, GroupState, pinned_label
from mal_graph.operators.call import STEPS
from mal_graph.operators.lists import list_of_any
from mal_graph.symmetry import axis_groups, verify
from mal_graph.symmetry.trial import open_trial
from mal_graph_adapters.onnx_format.onnxruntime_runner import OrtRunner

SMALL = 1e-4
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def outputs_of(proto, inputs):
    return ort.InferenceSession(proto.SerializeToString()).run(None, inputs)[0]


def written(graph, tmp_path):
    path = tmp_path / "merged.onnx"
    mal_graph.save(graph, path, overwrite=True)
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(path)


def apart(one, other):
    return float(np.abs(one - other).max() / np.abs(other).max())


def assert_nothing_is_kept(result):
    step = result.merged[0]
    assert not step.plan.skipped
    assert not step.plan.dropped
    assert not step.promises.kept
    assert not any(check.failed for check in result.checks)
    assert next(check.passed for check in result.checks if check.name == "accounts")


@pytest.mark.sampled(3)
@by_kind
@pytest.mark.parametrize("lam", [0.3, 0.5])
def test_a_permuted_copy_gives_back_the_base(kind: Kind, lam, tmp_path):
    weights = kind.drawn(0)
    base, donor = kind.make(weights), kind.make(kind.permuted(weights, 1))
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert apart(outputs_of(donor, inputs), outputs_of(base, inputs)) < 1e-5
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=lam, method="mal")
    assert_nothing_is_kept(result)
    merged = written(result.graph, tmp_path)
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert apart(outputs_of(merged, inputs), outputs_of(base, inputs)) < SMALL


@pytest.mark.sampled(3)
@by_kind
def test_the_whole_way_gives_the_donor(kind: Kind, tmp_path):
    base, donor = kind.make(kind.drawn(0)), kind.make(kind.drawn(1))
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=1.0, method="mal")
    assert_nothing_is_kept(result)
    merged = written(result.graph, tmp_path)
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert apart(outputs_of(merged, inputs), outputs_of(donor, inputs)) < SMALL


UNREACHED = "branch then_branch of If 'r' was not run by the probe"


def test_what_a_branch_touches_that_no_run_reached_is_kept_with_that_reason(tmp_path):
    weights = FLATTENING.drawn(0)
    base, donor = FLATTENING.make(weights), FLATTENING.make(FLATTENING.permuted(weights, 1))
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=0.5, method="mal")
    step = result.merged[0]
    kept = {*step.plan.skipped, *step.plan.dropped, *step.promises.kept}
    assert kept >= {"g", "r/then_branch/a", "r/then_branch/out", "r/else_branch/out", "q"}
    assert all(UNREACHED in reason for reason in step.plan.skipped.values())
    groups = verified(load(base))
    held = [group for group in groups if any("then_branch" in member.tensor for member in group.members)]
    assert {group.state for group in held} == {GroupState.UNVERIFIED}
    assert {group.reason for group in held} == {UNREACHED}
    merged = written(result.graph, tmp_path)
    for steps in (4, 5):
        inputs = {"x": FLATTENING.arrays(1)["x"][:, :steps]}
        assert apart(outputs_of(merged, inputs), outputs_of(base, inputs)) < SMALL


def verified(graph, table=None):
    groups = axis_groups(graph, table=table)
    return verify(graph, groups, table=table).groups


def places(group):
    return frozenset((member.tensor, member.axis) for member in group.members)


def of_the_first_branch(call):
    width = len(call.outputs)
    return [call.label(1 + place) for place in range(width)]


def as_it_came_out(call):
    return [
        label if shape == label.shape else pinned_label(shape, STEPS)
        for label, shape in zip(call.inputs[1:], call.outputs, strict=False)
    ]


def without_a_start(call):
    return [call.wiring.fresh_label(shape) for shape in call.outputs]


def only_the_latest(call):
    return [list_of_any(call.wiring.fresh_label(call.label(1).shape))]


WRONG = {
    "an If that forgets a branch": (BRANCHES, "If", of_the_first_branch),
    "a state that comes out as another": (LOOPING, "Loop", as_it_came_out),
    "a state that starts as another": (LOOPING, "mal_graph.LoopRun", without_a_start),
    "a scan that starts from another state": (SCANNING, "mal_graph.ScanRun", without_a_start),
    "an element of a list as another": (GOING_THROUGH, "SequenceAt", without_a_start),
    "a list that a loop forgets": (ATTENDING_BACK, "SequenceInsert", only_the_latest),
    "a map that takes other elements": (MAPPING, "mal_graph.MapRun", without_a_start),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_not_verified(name):
    kind, op, rule = WRONG[name]
    graph = load(kind.make(kind.drawn(0)))
    right = {places(group) for group in verified(graph) if group.state is GroupState.VERIFIED}
    found = verified(graph, {**ROWS, op: replace(ROWS[op], rule=rule)})
    assert {places(group) for group in found if group.state is GroupState.VERIFIED} < right
    assert any(group.reason.startswith("rejected by the verification") for group in found)


def test_a_loop_of_many_runs_is_judged_on_a_copy_that_forgets_rounding():
    """What the first run is given are zeros: weights made larger until they show there would make the rest chaos."""
    graph = load(FOR_LONG.make(FOR_LONG.drawn(0)))
    groups = axis_groups(graph)
    assert all(open_trial(graph, groups, seed=seed).noise < 1e-5 for seed in range(6))  # float32, over 96 runs


@pytest.mark.parametrize("lam", [0.3, 0.5])
def test_a_branch_for_each_sample_rate(lam, tmp_path):
    weights = LISTENING.drawn(0)
    base, donor = LISTENING.make(weights), LISTENING.make(LISTENING.permuted(weights, 1))
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=lam, method="mal")
    assert_nothing_is_kept(result)
    merged = written(result.graph, tmp_path)
    rng = np.random.default_rng(2)
    state = {name: rng.normal(size=(1, 3, 7)).astype(np.float32) for name in "hc"}
    for rate in (16000, 8000):
        inputs = {**LISTENING.arrays(1), "sr": np.array(rate), **state}
        assert apart(outputs_of(merged, inputs), outputs_of(base, inputs)) < SMALL


def test_branches_the_other_way_round_are_kept(tmp_path):
    """A run takes one of two branches: what the other one does shows on inputs that take it."""
    weights = SWAPPING.drawn(0)
    base, donor = SWAPPING.make(weights), swapping(weights, swapped=True)
    result = mal_graph.assemble(load(base, "base"), load(donor, "donor"), lam=0.5, method="mal")
    assert result.merged[0].promises.kept
    merged = written(result.graph, tmp_path)
    for sign in (1, -1):
        inputs = SWAPPING.arrays(sign)
        assert apart(outputs_of(merged, inputs), outputs_of(base, inputs)) < SMALL


def samples(kind, count=40):
    rng = np.random.default_rng(6)
    return {name: rng.normal(size=(count, *shape[1:])).astype(np.float32) for name, shape in kind.inputs.items()}


@pytest.mark.parametrize("match_by", ["weights", "activations"])
@pytest.mark.parametrize("kind", [NESTING, LOOPING], ids=lambda kind: kind.name)
def test_what_bodies_make_is_not_repaired(kind: Kind, match_by):
    base, donor = (load(kind.make(kind.drawn(seed)), str(seed)) for seed in (0, 1))
    result = mal_graph.assemble(base, donor, lam=0.5, method="mal", calibrate=samples(kind), match_by=match_by)
    assert_nothing_is_kept(result)
    left = result.merged[0].repair.left
    inside = {
        pair.base.name for pair in result.merged[0].plan.match.pairs if "/" in pair.base.name and pair.base.weight
    }
    assert {name for name, reason in left.items() if "it stands in a body" in reason} == inside


def test_units_that_a_body_reads_stay_in_a_union():
    base = load(BRANCHES.make(BRANCHES.drawn(0)), "base")
    weights = {"a": np.ones((6, 9), np.float32) * 0.1, "b": np.ones((9, CLASSES), np.float32)}
    donor = load(
        model(["a1 = MatMul(x, a)", "a2 = Relu(a1)", "y = MatMul(a2, b)"], stored(weights, "a", "b"), X), "donor"
    )
    whole = mal_graph.assemble(base, donor, method="union", budget="full").graph
    for sign in (1, -1):
        inputs = BRANCHES.arrays(sign)
        both = [OrtRunner().open(graph).run(inputs)["y"] for graph in (base, donor)]
        assert apart(OrtRunner().open(whole).run(inputs)["y"], np.mean(both, axis=0)) < SMALL
    with pytest.raises(UsageError, match="what cannot be taken away"):
        mal_graph.assemble(base, donor, method="union")
