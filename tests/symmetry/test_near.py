"""The verification near by: every operator on the way of the units, however deep the network is."""

from dataclasses import replace

import numpy as np
import pytest
from attention_nets import Kind, attention_net
from builders import Counting, Net, cnn, load, mlp, vit
from nested_nets import attention, grouped, twice

from mal_graph.network import data_dependent
from mal_graph.operators import ROWS, GroupState, Label, layout
from mal_graph.symmetry import axis_groups, find_traces, verify
from mal_graph.symmetry.near import verify_near
from mal_graph.symmetry.random_copy import GaugedGraph
from mal_graph.symmetry.random_weights import RandomWeights
from mal_graph.symmetry.shadows import find_readers
from mal_graph.symmetry.tensor_orders import deviation_between, find_turns, moved_units, rearranged

NETWORKS = {
    "gemm": mlp,
    "residual": cnn,
    "concat": lambda: cnn((4,), blocks=0, concat=True, head="flatten", size=4),
    "depthwise": lambda: cnn((4,), blocks=1, depthwise=True, residual=False, size=4),
    "half precision": lambda: cnn(dtype="float16"),
    "transformer": vit,
    "heads": attention,
    "groups": grouped,
    "nested twice": twice,
}


def without(groups, index, member):
    """The groups with one member of one group forgotten."""
    group = groups.groups[index]
    forgetful = replace(group, members=tuple(m for m in group.members if m is not member))
    return replace(groups, groups=tuple(forgetful if i == index else g for i, g in enumerate(groups.groups)))


def states(graph, **options):
    """The states of what were candidates."""
    groups = axis_groups(graph, table=options.get("table"))
    judged = verify(graph, groups, **options)
    return [judged.groups[i].state for i in groups.usable()]


# --- what passes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_right_groups_pass(build):
    graph = build()
    groups = axis_groups(graph)
    near = verify_near(graph, groups)
    assert sorted(near.verified) == groups.usable()
    assert not near.faults
    assert all(group.deviation <= 1e-5 < 1e-2 <= group.control for group in near.verified.values())


@pytest.mark.parametrize("kind", [Kind(), Kind(heads=6, shared=3, mask="stored"), Kind(turned=4, rotary="inside")])
@pytest.mark.parametrize("form", ["whole", "written out", "in groups"])
def test_right_groups_of_attention_pass(kind, form):
    graph = load(attention_net(kind, form))
    groups = axis_groups(graph)
    assert sorted(verify_near(graph, groups).verified) == groups.usable()


@pytest.mark.parametrize("name", ["concat", "depthwise", "groups"])
def test_a_group_that_lacks_any_one_member_does_not_pass(name):
    lacks_no_member_unnoticed(NETWORKS[name]())


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "half precision", "transformer", "heads", "nested twice"])
def test_a_group_that_lacks_any_one_member_does_not_pass_in_larger_ones(name):
    lacks_no_member_unnoticed(NETWORKS[name]())


def lacks_no_member_unnoticed(graph):
    """Forget each member of each group in turn."""
    groups = axis_groups(graph)
    for index in groups.usable():
        for member in groups.groups[index].members:
            near = verify_near(graph, without(groups, index, member))
            assert index not in near.verified, (groups.groups[index], member)
            assert {index} <= near.faults.keys() <= set(groups.usable()) - near.verified.keys()


@pytest.mark.parametrize("seed", range(5))
def test_the_verdict_does_not_depend_on_the_seed(seed):
    graph = vit()
    groups = axis_groups(graph)
    assert sorted(verify_near(graph, groups, seed=seed).verified) == groups.usable()


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_network_that_is_cut_to_single_operators_passes_too(build, monkeypatch):
    graph = build()
    groups = axis_groups(graph)
    whole = verify_near(graph, groups)
    monkeypatch.setattr("mal_graph.symmetry.walks.SEGMENT_BYTES", 0)
    parts = verify_near(graph, groups)
    assert parts.verified.keys() == whole.verified.keys()
    for index, group in parts.verified.items():
        assert group.control == pytest.approx(whole.verified[index].control, rel=0.2)


# --- depth ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_group_of_a_deep_network_is_left_unverified():
    """Attention in the last of many blocks hardly moves the outputs."""
    assert set(states(vit(blocks=24, width=16))) == {GroupState.VERIFIED}


@pytest.mark.parametrize("build", [lambda n: vit(blocks=n, width=16), lambda n: cnn(blocks=n), lambda n: mlp([9] * n)])
def test_the_number_of_runs_does_not_grow_with_the_depth(build):
    runs = []
    for depth in (4, 16):
        graph, runner = build(depth), Counting()
        verify(graph, axis_groups(graph), runner)
        runs.append(runner.runs)
    assert runs[0] == runs[1]


def reversed_blocks(depth, units=6):
    """Residual blocks, in each of which units are added to themselves in reverse order: none of its inner units can
    trade places. Each moves the outputs less than the one before."""
    net = Net(0)
    x = net.linear(net.input("x", ("N", 7)), 7, 8)
    for _ in range(depth):
        y = net.linear(net.op("LayerNormalization", x, net.weight(8, scale=1.0), net.weight(8)), 8, units)
        back = net.op("Slice", y, *[net.constant([value]) for value in (-1, -(2**62), 1, -1)])
        y = net.linear(net.op("Tanh", net.op("Add", y, back)), units, 8)
        x = net.op("Add", x, net.op("Mul", y, net.constant(np.float32(1e-4))))
    return net.graph(net.linear(x, 8, 3))


def wrong_slice(call):
    """Slice as if it always took the first entries in order."""
    return [call.wiring.take(call.label(0), 1, np.arange(call.outputs[0][1]), call.name)]


def test_a_wrong_row_is_rejected_in_a_deep_network_too():
    """However little the blocks move the outputs."""
    graph, depth = reversed_blocks(6), 6
    table = {**ROWS, "Slice": replace(ROWS["Slice"], rule=wrong_slice)}
    groups = axis_groups(graph, table=table)
    judged = [group for i, group in enumerate(verify(graph, groups, table=table).groups) if i in groups.usable()]
    inner = [group for group in judged if group.units == 6]
    assert [group.state for group in inner] == [GroupState.FROZEN] * depth
    assert [group.state for group in judged if group.units == 8] == [GroupState.VERIFIED]
    assert all("rejected by the verification" in group.reason for group in inner)


@pytest.mark.slow
def test_a_forgotten_weight_deep_inside_is_rejected():
    graph = vit(blocks=12)
    groups = axis_groups(graph)
    index = groups.usable()[-1]
    for member in groups.groups[index].members:
        judged = verify(graph, without(groups, index, member))
        assert judged.groups[index].state is GroupState.FROZEN, member


# --- what must be seen ------------------------------------------------------------------------------------------


def shuffled_by_table(order):
    """Units that are read in the order of a stored table and added to themselves."""
    net = Net(0)
    x = net.linear(net.input("x", ("N", 5)), 5, 8)
    again = net.op("Gather", x, net.constant(np.array(order), "order"), axis=1)
    both = net.op("Concat", net.op("Relu", x), net.op("Tanh", again), axis=1)
    return net.graph(net.linear(both, 16, 4))


def test_two_exchanged_entries_of_a_stored_table_are_noticed():
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    graph = shuffled_by_table(order)
    groups = axis_groups(graph)
    assert sorted(verify_near(graph, groups).verified) == groups.usable()
    order[2], order[5] = order[5], order[2]
    other = graph.with_weights({"order": np.array(order)})
    assert not verify_near(other, groups).verified
    assert {verify(other, groups).groups[i].state for i in groups.usable()} == {GroupState.FROZEN}


def multiplied(units):
    """Two layers whose units are multiplied one by one."""
    net = Net(0)
    x = net.input("x", ("N", 5))
    product = net.op("Mul", net.linear(x, 5, units), net.op("Tanh", net.linear(x, 5, units)))
    return net.graph(net.linear(product, units, 3))


def untied(call):
    """Mul as if its second operand were a number."""
    return [call.label(0)]


@pytest.mark.parametrize("units", [2, 3, 5, 16])
def test_groups_that_only_move_together_do_not_pass_alone(units):
    """Two units always trade places alike."""
    table = {**ROWS, "Mul": replace(ROWS["Mul"], rule=untied)}
    graph = multiplied(units)
    groups = axis_groups(graph, table=table)
    assert [groups.groups[i].units for i in groups.usable()] == [units, units]
    assert not verify_near(graph, groups, table=table).verified


def test_without_exchanges_apart_two_groups_of_two_units_would_pass(monkeypatch):
    """Why groups of few units are moved without each other too."""
    monkeypatch.setattr("mal_graph.symmetry.walks.apart", lambda kinds: iter(()))
    table = {**ROWS, "Mul": replace(ROWS["Mul"], rule=untied)}
    graph = multiplied(2)
    assert verify_near(graph, axis_groups(graph, table=table), table=table).verified


def test_what_looks_the_same_in_any_order_tells_nothing():
    """Units that are multiplied by zero and flipped as the table does not tell, beside the same units as they are."""
    net = Net(0)
    x = net.linear(net.input("x", ("N", 5)), 5, 6)
    back = net.op(
        "Slice",
        net.op("Mul", x, net.constant(np.float32(0))),
        *[net.constant([value]) for value in (-1, -(2**62), 1, -1)],
    )
    graph = net.graph(net.linear(net.op("Add", x, back), 6, 3))
    table = {**ROWS, "Slice": replace(ROWS["Slice"], rule=wrong_slice)}
    near = verify_near(graph, axis_groups(graph, table=table), table=table)
    assert (near.verified, near.faults) == ({}, {})


def test_a_member_that_does_not_show_where_it_is_read_verifies_nothing():
    """The only layer that consumes the units multiplies them by zero."""
    net = Net(0)
    x = net.input("x", ("N", 3))
    units = net.op("Tanh", net.linear(x, 3, 4))
    dead = net.op("Gemm", units, net.weight(4, 2), net.weight(2), alpha=0.0)
    graph = net.graph(net.op("Add", dead, net.linear(x, 3, 2)))
    near = verify_near(graph, axis_groups(graph))
    assert (near.verified, near.faults) == ({}, {})


def test_a_deviation_does_not_count_what_stands_for_infinity():
    scores = np.array([[1.0, -np.inf], [-3e38, 2.0]], np.float32)
    assert deviation_between(scores, scores) == 0.0
    assert deviation_between(np.float32(1.5) * scores[:1], scores[:1]) == 0.5
    assert deviation_between(scores[::-1], scores) == np.inf
    assert deviation_between(np.zeros((2, 2), np.float32), scores) == np.inf


# --- orders, weights, readers -----------------------------------------------------------------------------------


def test_tensors_are_rearranged_as_their_units_move():
    """A tensor of shape (2, 6): units 0, 1, 2 lie on its second axis, two indices each."""
    label, unit = Label((2, 6), (np.array([[0, 1, 2, 3, 4, 5]]),)), np.array([0, 0, 1, 1, 2, 2])
    turns = find_turns(label, unit, np.array([2, 0, 1]))
    values = np.arange(12).reshape(2, 6)
    assert rearranged(values, turns).tolist() == [[4, 5, 0, 1, 2, 3], [10, 11, 6, 7, 8, 9]]
    assert find_turns(label, unit, np.arange(3)) == []


def test_a_tensor_without_all_units_has_no_order_that_a_label_tells():
    label = Label((2,), (np.array([0, 1]),))
    assert find_turns(label, np.array([0, 1, 2]), np.array([1, 2, 0])) is None


def test_labels_tell_the_order_of_every_tensor_of_a_transformer():
    graph = vit()
    groups = axis_groups(graph)
    traces = find_traces(graph, groups)
    moves = {i: np.roll(np.arange(groups.groups[i].units), 1) for i in groups.usable()}
    moved = moved_units(groups, traces, moves)
    names = [name for node in graph.nodes for name in node.outputs]
    assert all(find_turns(traces.labels[name], traces.unit, moved) is not None for name in names)


def test_weights_are_the_same_whenever_they_are_drawn():
    graph = cnn()
    weights = RandomWeights(graph, {}, 0)
    assert weights.names == {name for name, weight in graph.weights.items() if weight.is_float and weight.size > 1}
    first, second = weights.values(weights.names), weights.values(weights.names)
    assert all(np.array_equal(values, second[name]) for name, values in first.items())
    assert len({values.tobytes() for values in first.values()}) == len(first)


def test_calibrated_weights_are_the_same_when_they_are_drawn_again():
    graph = cnn()
    gauged = GaugedGraph(graph, axis_groups(graph), 0.2)
    weights = RandomWeights(graph, {}, 0)
    part = replace(gauged.part(), statistics=())
    measured = {scaling.root: np.full(1, 2.0, np.float32) for scaling in part.scalings}
    calibrated = weights.calibrate(weights.values(weights.names), part, measured)
    again = weights.values(weights.names)
    assert all(np.array_equal(values, again[name]) for name, values in calibrated.items())


def test_a_stored_tensor_is_read_where_data_meet_it():
    net = Net(0)
    w = net.weight(4, 5)
    y = net.op("MatMul", net.input("x", ("N", 5)), net.op("Transpose", w, perm=[1, 0]))
    graph = net.graph(net.op("MatMul", y, net.op("Tanh", net.weight(4, 3))))
    assert [graph.nodes[i].outputs[0] for i in find_readers(graph, data_dependent(graph), w)] == [y]


def test_a_concat_in_the_wrong_order_is_found_where_it_is():
    def backwards(call):
        return layout.concat(replace(call, inputs=list(call.inputs)[::-1]))

    table = {**ROWS, "Concat": replace(ROWS["Concat"], rule=backwards)}
    graph = cnn((4,), blocks=0, concat=True, head="flatten")
    groups = axis_groups(graph, table=table)
    near = verify_near(graph, groups, table=table)
    (made,) = (node.outputs[0] for node in graph.nodes if node.op == "Concat")
    assert near.faults
    assert {fault.tensor for fault in near.faults.values()} == {made}
