"""The verification: what it accepts, what it must reject, and what it leaves open."""

from dataclasses import replace
from importlib import import_module
from itertools import permutations

import numpy as np
import pytest
from builders import Counting, Net, cnn, mlp, vit
from onnx import helper

from mal_graph import registry
from mal_graph.errors import RunError
from mal_graph.network import find_parameters
from mal_graph.operators import ROWS, GroupState, Row, elementwise, layout
from mal_graph.symmetry import axis_groups, permute_in_place, permute_weights, verify
from mal_graph.symmetry.moves import derangement, exchange
from mal_graph.symmetry.near import Near
from mal_graph.symmetry.random_copy import draw_weights
from mal_graph.symmetry.trial import watched

verification = import_module("mal_graph.symmetry.verification")  # the package gives the function under this name


def filled(dtype):
    """Units to which a tensor of one number is added, made to their size in their type."""
    net = Net(0, dtype=dtype)
    x = net.linear(net.input(), 8, 6)
    number = helper.make_tensor("", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [1], [0.5])
    ones = net.op("ConstantOfShape", net.op("Shape", x), value=number)
    return net.graph(net.linear(net.op("Relu", net.op("Add", x, ones)), 6, 3))


@pytest.fixture
def net():
    return Net(0)


@pytest.fixture
def at_outputs(monkeypatch):
    """Nothing is verified near by: all groups are judged at the outputs of the model."""
    monkeypatch.setattr(verification, "verify_near", lambda *given, **options: Near())


def verdicts(graph, table=None, **options):
    """The candidates after their verification."""
    groups = axis_groups(graph, table=table)
    judged = verify(graph, groups, table=table, **options)
    return [judged.groups[i] for i in groups.usable()]


def without(groups, index, member):
    """The groups with one member of one group forgotten."""
    group = groups.groups[index]
    forgetful = replace(group, members=tuple(m for m in group.members if m is not member))
    return replace(groups, groups=tuple(forgetful if i == index else g for i, g in enumerate(groups.groups)))


def flatten_net():
    return cnn((4,), blocks=0, head="flatten", size=4)


def concat_net():
    return cnn((4,), blocks=0, concat=True, size=4)


def depthwise_net():
    return cnn((4,), blocks=1, depthwise=True, residual=False, size=4)


NETWORKS = {
    "gemm": mlp,
    "matmul": lambda: mlp(style="matmul"),
    "transposed": lambda: mlp(style="transposed"),
    "residual": cnn,
    "flatten": flatten_net,
    "concat": concat_net,
    "depthwise": depthwise_net,
    "without norm": lambda: cnn(bn=False, concat=True, head="flatten"),
    "half precision": lambda: mlp(dtype="float16"),
    "half precision convolutions": lambda: cnn(dtype="float16"),
    "half precision from a number": lambda: filled("float16"),
    "double precision": lambda: mlp(dtype="float64"),
}


# --- right groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("full", [False, True])
def test_right_groups_are_verified(build, full):
    found = verdicts(build(), full=full)
    assert found
    for group in found:
        assert (group.state, group.reason, group.inert) == (GroupState.VERIFIED, "", ())
        assert group.deviation <= 1e-5 < 1e-3 <= group.control


def test_what_treats_all_units_alike_does_so_in_the_random_copy_too(net):
    """A grid of places, stored once for every unit: no unit has places of its own."""
    x = net.op("Unsqueeze", net.linear(net.input("x", ("N", 5)), 5, 6), net.constant([2]))
    grid = np.tile(np.linspace(-1, 1, 7, dtype=np.float32), (6, 1))
    near = net.op("Exp", net.op("Neg", net.op("Abs", net.op("Sub", x, net.constant(grid, "grid")))))
    graph = net.graph(net.linear(net.op("Flatten", near), 42, 3))
    assert all(group.state is GroupState.VERIFIED for group in verdicts(graph))


@pytest.mark.parametrize("seed", range(5))
def test_the_verdict_does_not_depend_on_the_seed(seed):
    assert {group.state for group in verdicts(cnn(concat=True), seed=seed)} == {GroupState.VERIFIED}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_right_groups_are_verified_at_the_outputs_too(build, at_outputs):
    for group in verdicts(build()):
        assert (group.state, group.reason, group.inert) == (GroupState.VERIFIED, "", ())
        assert group.deviation <= 1e-5 < 1e-3 <= group.control


@pytest.mark.parametrize("value", [0.0, 1.0, -1e6])
def test_the_values_of_the_weights_do_not_matter(value):
    """A network of constants is as verifiable as a trained one: the trial draws its own weights."""
    graph = cnn()
    same = {name: np.full(w.shape, value, w.dtype) for name, w in graph.weights.items() if w.is_float}
    assert {group.state for group in verdicts(graph.with_weights(same))} == {GroupState.VERIFIED}


@pytest.mark.parametrize("op", ["Softmax", "Sigmoid", "LogSoftmax"])
def test_a_saturating_end_is_read_before_it_saturates(net, op):
    x = net.linear(net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 6)), 6, 3)
    graph = net.graph(net.op("Identity", net.op(op, x)))
    assert watched(graph) == [x]
    assert {group.state for group in verdicts(graph)} == {GroupState.VERIFIED}


def test_what_enters_an_operator_without_a_rule_is_watched_too():
    """A threshold in a branch hides almost every wrong group; what it is applied to hides none."""
    net = Net(0)
    x = net.linear(net.input("x", ("N", 5)), 5, 8)
    score = net.op("Sigmoid", net.linear(net.op("Relu", x), 8, 1))
    graph = net.graph(net.op("Round", score))
    table = {op: row for op, row in ROWS.items() if op != "Round"}
    (out,) = graph.output_names
    assert watched(graph, table) == [out, graph.nodes[graph.producer[score]].inputs[0]]


def test_a_verification_changes_nothing_but_verdicts():
    graph = cnn()
    before = axis_groups(graph)
    after = verify(graph, before)
    assert [(g.name, g.units, g.members) for g in after.groups] == [(g.name, g.units, g.members) for g in before.groups]
    assert all(g.state == h.state for g, h in zip(after.groups, before.groups, strict=True) if not h.is_usable)


def test_progress_counts_every_candidate():
    told = []
    graph = mlp((3, 4, 5, 6))
    verify(graph, axis_groups(graph), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


# --- wrong groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [flatten_net, concat_net, depthwise_net], ids=["flatten", "concat", "depthwise"])
def test_a_group_that_lacks_any_one_member_is_rejected(build):
    graph = build()
    groups = axis_groups(graph)
    for index in groups.usable():
        for member in groups.groups[index].members:
            judged = verify(graph, without(groups, index, member))
            assert judged.groups[index].state is GroupState.FROZEN, member
            assert "rejected by the verification: permuting it moves the outputs by" in judged.groups[index].reason


def test_one_wrong_group_does_not_harm_the_others():
    graph = cnn((4, 6), blocks=2)
    groups = axis_groups(graph)
    wrong = groups.usable()[2]
    judged = verify(graph, without(groups, wrong, groups.groups[wrong].members[1]))
    assert [judged.groups[i].state for i in groups.usable() if i != wrong] == [GroupState.VERIFIED] * (
        len(groups.usable()) - 1
    )
    assert judged.groups[wrong].state is GroupState.FROZEN


@pytest.mark.parametrize("role", ["mean", "variance", "scale", "shift"])
def test_a_deep_stack_does_not_hide_a_forgotten_norm_parameter(role):
    """Eight convolutions with BatchNorm, each in turn without one of its vectors."""
    net = Net(0)
    x, width = net.input("x", ("N", 3, 8, 8)), 3
    for _ in range(8):
        x, width = net.op("Relu", net.norm(net.conv(x, width, 6, bias=False), 6)), 6
    graph = net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 5))
    groups = axis_groups(graph)
    assert len(groups.usable()) == 8
    for index in groups.usable():
        member = next(m for m in groups.groups[index].members if m.role.slot == role)
        assert verify(graph, without(groups, index, member)).groups[index].state is GroupState.FROZEN


def wrong_flatten(call):
    """Flatten as if channels came last."""
    label = call.label(0)
    return [call.wiring.reshape(call.wiring.transpose(label, (0, 2, 3, 1)), call.outputs[0], call.name)]


def wrong_concat(call):
    """Concat as if the parts came in the opposite order."""
    return layout.concat(replace(call, inputs=list(call.inputs)[::-1]))


def wrong_slice(call):
    """Slice as if it always took the first entries in order."""
    return [call.wiring.take(call.label(0), 1, np.arange(call.outputs[0][1]), call.name)]


def sliced(net, start, end, step, units=4):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, units))
    y = net.op("Slice", x, *[net.constant([v]) for v in (start, end, 1, step)])
    return net.graph(net.op("MatMul", net.op("Tanh", net.op("Add", x, y)), net.weight(units, 2)))


def cumulated(net):
    x = net.op("CumSum", net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4)), net.constant(1))
    return net.graph(net.op("MatMul", net.op("Tanh", x), net.weight(4, 2)))


WRONG = {
    "CumSum": (cumulated, elementwise.unary),
    "Flatten": (lambda net: flatten_net(), wrong_flatten),
    "Concat": (lambda net: cnn((4,), blocks=0, concat=True, head="flatten"), wrong_concat),
    "Slice": (lambda net: sliced(net, -1, -(2**62), -1), wrong_slice),
    "LayerNormalization": (
        lambda net: net.graph(
            net.op(
                "MatMul",
                net.op(
                    "LayerNormalization",
                    net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4)),
                    net.weight(4, scale=1.0),
                ),
                net.weight(4, 2),
            )
        ),
        elementwise.unary,  # as if its scale did not move
    ),
}


@pytest.mark.parametrize("op", WRONG)
@pytest.mark.parametrize("seed", range(3))
def test_a_group_found_by_a_wrong_operator_row_is_rejected(op, seed):
    build, rule = WRONG[op]
    graph = build(Net(seed))
    wrong = {**ROWS, op: replace(ROWS.get(op, Row(rule)), rule=rule)}
    assert {group.state for group in verdicts(graph)} <= {GroupState.VERIFIED}
    assert GroupState.FROZEN in {group.state for group in verdicts(graph, wrong, seed=seed)}


def test_no_seed_accepts_a_flip_read_as_the_identity():
    wrong = {**ROWS, "Slice": replace(ROWS["Slice"], rule=wrong_slice)}
    graph = sliced(Net(0), -1, -(2**62), -1)
    assert {verdicts(graph, wrong, seed=seed)[0].state for seed in range(20)} == {GroupState.FROZEN}


def test_a_cycle_alone_would_accept_it(monkeypatch):
    """Why the verification also exchanges two units: one 4-cycle in three commutes with the flip of four."""
    monkeypatch.setattr("mal_graph.symmetry.moves.exchange", lambda cycle: np.arange(len(cycle)))
    wrong = {**ROWS, "Slice": replace(ROWS["Slice"], rule=wrong_slice)}
    graph = sliced(Net(0), -1, -(2**62), -1)
    assert GroupState.VERIFIED in {verdicts(graph, wrong, seed=seed)[0].state for seed in range(20)}


@pytest.mark.parametrize("units", [2, 3, 4, 5])
def test_a_cycle_and_an_exchange_generate_every_permutation(units):
    cycle = np.random.default_rng(units).permutation(units)
    steps = derangement(cycle), exchange(cycle)
    assert (steps[0] != np.arange(units)).all()
    found = waiting = {tuple(range(units))}
    while waiting:
        waiting = {tuple(np.array(order)[step].tolist()) for order in waiting for step in steps} - found
        found = found | waiting
    assert found == set(permutations(range(units)))


# --- no verdict -------------------------------------------------------------------------------------------------


def test_a_bias_that_a_norm_removes_is_listed_as_inert_where_outputs_are_read(net, at_outputs):
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 4)
    x = net.op("InstanceNormalization", x, net.weight(4, scale=1.0), net.weight(4))
    (group,) = verdicts(net.graph(net.conv(net.op("Relu", x), 4, 2)))
    assert (group.state, group.inert) == (GroupState.VERIFIED, ("w1[0]",))


def test_a_key_bias_that_a_softmax_removes_is_listed_as_inert_where_outputs_are_read(net, at_outputs):
    x = net.input("x", ("N", 5, 3))
    query, key, value = (
        net.op("MatMul", x, net.weight(3, units, name=name)) for name, units in zip("qkv", (4, 4, 6), strict=True)
    )
    query = net.op("Add", query, net.weight(4, name="query bias"))
    key = net.op("Add", key, net.weight(4, name="key bias"))
    scores = net.op("Softmax", net.op("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1])), axis=-1)
    graph = net.graph(net.op("MatMul", net.op("MatMul", scores, value), net.weight(6, 2)))
    inner = next(group for group in verdicts(graph, full=True) if group.units == 4)
    assert (inner.state, inner.inert) == (GroupState.VERIFIED, ("key bias[0]",))


def zero(net):
    """A zero that nobody learned: a gain that is stored as zero may become another number."""
    return net.op("Cast", net.constant(0), to=1)


def test_dead_outputs_verify_nothing(net):
    x = net.linear(net.op("Relu", net.linear(net.input("x", ("N", 3)), 3, 4)), 4, 2)
    (group,) = verdicts(net.graph(net.op("Mul", x, zero(net))))
    assert (group.state, group.reason) == (GroupState.UNVERIFIED, "the model's outputs are all zero on the probe")


def test_outputs_that_are_not_finite_verify_nothing(net):
    x = net.linear(net.op("Relu", net.linear(net.input("x", ("N", 3)), 3, 4)), 4, 2)
    (group,) = verdicts(net.graph(net.op("Div", x, zero(net))))
    assert (group.state, group.reason) == (GroupState.UNVERIFIED, "the model's outputs are not finite on the probe")


def branches(net):
    """A branch of four units that is multiplied by zero behind what reads them, beside one of five."""
    x = net.input("x", ("N", 3))
    dead = net.op("Mul", net.linear(net.op("Relu", net.linear(x, 3, 4)), 4, 2), zero(net))
    live = net.linear(net.op("Relu", net.linear(x, 3, 5)), 5, 2)
    return net.graph(net.op("Add", live, dead))


def test_a_branch_without_effect_is_verified_where_its_units_are_read(net):
    assert [group.state for group in verdicts(branches(net))] == [GroupState.VERIFIED] * 2


def test_a_branch_without_effect_is_unverified_where_outputs_are_read(net, at_outputs):
    found = {group.units: group for group in verdicts(branches(net))}
    assert found[5].state is GroupState.VERIFIED
    assert (found[4].state, found[4].reason) == (
        GroupState.UNVERIFIED,
        "leaving out any producer does not change the outputs",
    )


def test_units_that_are_multiplied_by_zero_before_anything_reads_them_are_unverified(net):
    x = net.op("Relu", net.linear(net.input("x", ("N", 3)), 3, 4))
    dead = net.linear(net.op("Mul", x, zero(net)), 4, 2)
    (group,) = verdicts(net.graph(net.op("Add", dead, net.linear("x", 3, 2))))
    assert (group.state, group.reason) == (
        GroupState.UNVERIFIED,
        "leaving out any producer does not change the outputs",
    )


def test_a_gain_that_is_zero_is_drawn_as_another_number(net):
    x = net.op("Relu", net.linear(net.input("x", ("N", 3)), 3, 4))
    held = net.linear(net.op("Mul", x, net.constant(np.float32(0))), 4, 2)
    (group,) = verdicts(net.graph(net.op("Add", held, net.linear("x", 3, 2))))
    assert group.state is GroupState.VERIFIED


class Refusing:
    """A runner that opens nothing."""

    def open(self, graph, **options):
        raise RunError(f"the runtime refuses {graph.name}")


def test_a_runtime_that_refuses_the_model_leaves_every_group_unverified():
    graph = mlp()
    judged = verify(graph, axis_groups(graph), Refusing())
    assert {(judged.groups[i].state, judged.groups[i].reason) for i in axis_groups(graph).usable()} == {
        (GroupState.UNVERIFIED, f"the runtime refuses {graph.name}")
    }


def test_a_model_without_candidates_needs_no_run():
    graph = mlp((3, 2))
    groups = axis_groups(graph)
    assert verify(graph, groups, Refusing()) is groups


def test_a_doubtful_deviation_is_settled_in_float64(monkeypatch, at_outputs):
    """With a bound below float32 rounding, right groups are doubtful - and float64 verifies them."""
    graph = cnn((4,), blocks=1, size=4)
    monkeypatch.setattr(verification, "ACCEPT", 1e-12)
    for group in verdicts(graph):
        assert group.state is GroupState.VERIFIED
        assert group.deviation <= 1e-9


def test_a_wrong_group_that_looks_doubtful_is_rejected_in_float64(monkeypatch):
    monkeypatch.setattr(verification, "REJECT", 1e9)
    graph = concat_net()
    groups = axis_groups(graph)
    index = groups.usable()[0]
    judged = verify(graph, without(groups, index, groups.groups[index].members[0]))
    assert judged.groups[index].state is GroupState.FROZEN
    assert "in float64" in judged.groups[index].reason


# --- what it costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_verification_runs_the_model_at_most_ten_times_per_group(build):
    graph = build()
    groups = axis_groups(graph)
    runner = Counting()
    verify(graph, groups, runner)
    assert runner.runs <= 10 * len(groups.usable()) + 2  # calibration and reference


def test_a_full_verification_leaves_out_every_member(at_outputs):
    graph = cnn((4,), blocks=3)
    groups = axis_groups(graph)
    brief, full = Counting(), Counting()
    verify(graph, groups, brief)
    verify(graph, groups, full, full=True)
    apart = 2 * (len(groups.usable()) - 1).bit_length()
    assert full.runs == sum(len(groups.groups[i].members) for i in groups.usable()) + 4 + apart
    assert brief.runs < full.runs


def test_permuting_twice_by_an_order_and_its_inverse_restores_every_bit():
    graph = cnn(concat=True, head="flatten")
    groups = axis_groups(graph)
    before = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    rng = np.random.default_rng(0)
    orders = [(groups.groups[i], rng.permutation(groups.groups[i].units)) for i in groups.usable()]
    there = {**before, **permute_weights(before, orders)}
    back = permute_weights(there, [(group, np.argsort(order)) for group, order in orders])
    assert back
    assert all(values.tobytes() == before[name].tobytes() for name, values in back.items())


# --- nested groups ----------------------------------------------------------------------------------------------


def grouped_net():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, 12))
    x = net.op("Relu", net.norm(net.conv(x, 12, 18, group=3), 18))
    return net.graph(net.conv(x, 18, 5))


def test_groups_inside_the_units_of_another_are_verified_with_one_set_of_controls():
    runs = []
    graph = grouped_net()
    groups = axis_groups(graph)
    judged = verify(graph, groups, CountingRunner(runs))
    found = [judged.groups[i] for i in groups.usable()]
    assert [(group.state, group.units) for group in found] == [(GroupState.VERIFIED, n) for n in (3, 4, 6, 6, 6)]
    nested = [group for group in found if group.inside]
    assert {group.control for group in nested} == {nested[0].control}
    roles = {id(group): len({m.role for m in group.members}) for group in (*found[:2], nested[0])}
    assert len(runs) <= 4 + 6 + sum(roles.values()), "the outputs, the calibration, the joint runs, and one per role"


@pytest.mark.parametrize("role", ["Conv.weight out", "Conv.weight in", "BatchNormalization.scale unit"])
def test_a_nested_group_that_lacks_a_member_is_not_verified(role):
    graph = grouped_net()
    groups = axis_groups(graph)
    index = next(i for i in groups.usable() if groups.groups[i].inside)
    member = next(m for m in groups.groups[index].members if str(m.role) == role)
    assert verify(graph, without(groups, index, member)).groups[index].state is GroupState.FROZEN


class CountingRunner:
    """Notes every run of the sessions it opens."""

    def __init__(self, runs):
        self.runs = runs

    def open(self, *args, **options):
        session = registry.runner().open(*args, **options)
        runs, run = self.runs, session.run

        def counted(*args, **options):
            runs.append(1)
            return run(*args, **options)

        session.run = counted
        return session


# --- bounds -----------------------------------------------------------------------------------------------------


def test_a_verification_that_takes_too_long_leaves_its_groups_unverified():
    for group in verdicts(mlp(), timeout=0.0):
        assert (group.state, group.reason) == (
            GroupState.UNVERIFIED,
            "mlp 8-16-12-10.onnx was not through when its time was up",
        )


def test_drawing_the_weights_of_a_large_model_ends_when_its_time_is_up():
    graph = mlp()
    with pytest.raises(RunError, match="its time was up"):
        draw_weights(find_parameters(graph), graph, 0, deadline=0.0)


def test_what_was_judged_in_time_stands(monkeypatch, at_outputs):
    """Time is up when the second group is about to be judged."""
    calls = []

    def controlled(*args):
        calls.append(1)
        if len(calls) == 2:
            raise RunError("its time was up")
        return original(*args)

    original = verification.run_controls
    monkeypatch.setattr(verification, "run_controls", controlled)
    assert [group.state for group in verdicts(mlp())] == [GroupState.VERIFIED, GroupState.UNVERIFIED]


def test_a_verification_that_needs_too_much_memory_is_not_begun():
    for group in verdicts(mlp(), max_memory=1000):
        assert group.state is GroupState.UNVERIFIED
        assert "the verification would take about" in group.reason


def test_the_memory_a_verification_needs_counts_what_is_alive_at_the_same_time():
    """A chain holds two tensors at a time, a fan-out all its branches until they are joined."""
    net = Net(0)
    x = net.input("x", (1, 10))
    for _ in range(5):
        x = net.op("Relu", x)
    chain = net.graph(x)
    net = Net(0)
    x = net.op("Relu", net.input("x", (1, 10)))
    fan = net.graph(net.op("Sum", *[net.op("Tanh", x) for _ in range(5)]))
    assert verification.live_elements(chain, axis_groups(chain).probed.shapes) == 20
    assert verification.live_elements(fan, axis_groups(fan).probed.shapes) == 60


# --- noise ------------------------------------------------------------------------------------------------------


def deep_net(depth, weights_computed=False):
    """Convolutions with BatchNorm and ReLU one behind the other, which double a rounding error every few layers."""
    net = Net(0)
    x = net.conv(net.input("x", (2, 3, 8, 8)), 3, 8)
    for _ in range(depth):
        if weights_computed:
            w = net.weight(8, 8, 3, 3)
            x = net.op("Conv", x, net.op("Mul", w, w), net.weight(8), pads=[1] * 4)
        else:
            x = net.norm(net.conv(x, 8, 8, bias=False), 8)
        x = net.op("Relu", x)
    return net.graph(net.conv(x, 8, 4))


def test_rounding_grows_little_on_its_way_through_a_deep_calibrated_copy():
    graph = deep_net(60)
    trial = verification.open_trial(graph, axis_groups(graph))
    assert trial.noise <= verification.ACCEPT
    assert {group.state for group in verdicts(graph)} == {GroupState.VERIFIED}


def test_a_contraction_with_a_computed_weight_is_followed_by_a_factor_that_keeps_its_size():
    """Sixty positive weights in a row would overflow."""
    graph = deep_net(60, weights_computed=True)
    assert {group.state for group in verdicts(graph)} == {GroupState.VERIFIED}


def test_a_group_is_rejected_only_if_it_moves_the_outputs_far_more_than_rounding(monkeypatch, at_outputs):
    monkeypatch.setattr(verification.Trial, "noise", 0.1)
    groups = axis_groups(mlp())
    group = groups.groups[groups.usable()[0]]
    judged = verify(mlp(), without(groups, groups.usable()[0], group.members[0]))
    assert judged.groups[groups.usable()[0]].state is GroupState.FROZEN, "the judge in float64 has no noise"
    monkeypatch.setattr(verification, "deviations_in_float64", lambda *args: {})
    judged = verify(mlp(), without(groups, groups.usable()[0], group.members[0]))
    assert judged.groups[groups.usable()[0]].state is GroupState.UNVERIFIED


def test_an_axis_that_is_only_averaged_over_is_verified_by_changing_its_entries():
    net = Net(0)
    table = net.op("ReduceMean", net.weight(7, 4, scale=1.0), net.constant([0]), keepdims=0)
    graph = net.graph(net.linear(net.op("Mul", net.linear(net.input("x", ("N", 3)), 3, 4), table), 4, 2))
    assert {(group.units, group.state) for group in verdicts(graph)} == {
        (7, GroupState.VERIFIED),
        (4, GroupState.VERIFIED),
    }


@pytest.mark.parametrize("op", ["Pow", "Log", "Sqrt", "Reciprocal"])
def test_what_an_operator_takes_no_number_below_zero_of_is_drawn_above_it(net, op):
    rates = net.constant(np.array([0.31, 0.55, 0.72, 1.21], np.float32))
    made = net.op(op, rates, net.constant(np.float32(1.5))) if op == "Pow" else net.op(op, rates)
    hidden = net.op("Mul", net.op("Tanh", net.linear(net.input(), 8, 4)), made)
    (group,) = verdicts(net.graph(net.linear(hidden, 4, 3)))
    assert group.state is GroupState.VERIFIED
    assert rates in {member.tensor for member in group.members}


@pytest.mark.parametrize("graph", [cnn(concat=True, head="flatten"), vit(0)], ids=["cnn", "vit"])
def test_permuting_one_tensor_after_the_other_gives_the_same(graph):
    groups = axis_groups(graph)
    weights = {name: weight.read() for name, weight in graph.weights.items() if weight.is_float}
    rng = np.random.default_rng(0)
    orders = [(groups.groups[i], rng.permutation(groups.groups[i].units)) for i in groups.usable()]
    expected = {**weights, **permute_weights(weights, orders)}
    permute_in_place(weights, orders)
    assert weights.keys() == expected.keys()
    assert all(values.tobytes() == expected[name].tobytes() for name, values in weights.items())
