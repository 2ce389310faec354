"""What stored integers and booleans are to a network, and that what they are part of is kept."""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, load, permuted_copy, run
from onnx import TensorProto

import mal_graph
from mal_graph.errors import MatchError
from mal_graph.network import IntegerUse, integer_use
from mal_graph.operators import GroupState
from mal_graph.symmetry import axis_groups, verify

NUMBERS, MASK, GATE, STEERS = IntegerUse.NUMBERS, IntegerUse.MASK, IntegerUse.GATE, IntegerUse.STEERS
UNITS = 6


def whole(net, dtype=np.int8, *shape):
    return net.constant(net.rng.integers(1, 9, shape or (UNITS, 8)).astype(dtype), "q")


def booleans(net, *shape):
    return net.constant(net.rng.random(shape or (UNITS, 8)) < 0.5, "q")


def cast(net, x, to=TensorProto.FLOAT):
    return net.op("Cast", x, to=to)


def scaled(net):
    return net.op("Mul", cast(net, whole(net)), net.weight(UNITS, 1, name="scale"))


def scaled_long(net):
    return net.op("Mul", cast(net, whole(net, np.int64)), net.weight(UNITS, 1, name="scale"))


def dequantized(net):
    return net.op("DequantizeLinear", whole(net), net.weight(UNITS, name="scale"), axis=0)


def masked(net):
    return net.op("Where", booleans(net), net.weight(UNITS, 8, name="w"), net.constant(np.float32(0)))


def masked_by_cast(net):
    return net.op("Mul", cast(net, booleans(net)), net.weight(UNITS, 8, name="w"))


def masked_by_comparison(net):
    told = net.op("Greater", whole(net), net.constant(np.int8(4)))
    return net.op("Where", told, net.weight(UNITS, 8, name="w"), net.constant(np.float32(0)))


def palette(net):
    return net.op("Gather", net.weight(5, name="codes"), net.constant(net.rng.integers(0, 5, (UNITS, 8)), "q"))


WEIGHTS = {
    scaled: NUMBERS,
    scaled_long: NUMBERS,
    dequantized: NUMBERS,
    masked: MASK,
    masked_by_cast: MASK,
    masked_by_comparison: MASK,
}


def network(make, seed=0, gate=None):
    net = Net(seed)
    x = net.op("Gemm", net.input("x", ("N", 8)), make(net), net.weight(UNITS, name="b"), transB=1)
    x = gate(net, x) if gate else net.op("Relu", x)
    return net.proto(net.op("Gemm", x, net.weight(3, UNITS, name="down"), net.weight(3, name="c"), transB=1))


def plain(net):
    return net.weight(UNITS, 8, name="w")


@pytest.mark.parametrize("make", WEIGHTS)
def test_integers_that_make_a_weight_are_told_from_others(make):
    graph = load(network(make))
    assert integer_use(graph, graph.weights["q"]) is WEIGHTS[make]


NUMBERED = [make for make, use in WEIGHTS.items() if use is NUMBERS]
MASKED = [make for make, use in WEIGHTS.items() if use is MASK]


def units_of(graph):
    """State and members of the group of hidden units."""
    groups = verify(graph, axis_groups(graph))
    (group,) = {g for key in (("b", 0), ("down", 1)) for g, _ in groups.on_axis[key]}
    return groups.groups[group].state, {(m.tensor, m.axis) for m in groups.groups[group].members}


@pytest.mark.parametrize("make", [*NUMBERED, palette])
def test_what_integers_make_freezes_the_units_beside_them(make):
    groups = axis_groups(load(network(make)))
    states = {groups.groups[g].state for key in (("b", 0), ("down", 1)) for g, _ in groups.on_axis[key]}
    assert states == {GroupState.FROZEN}


@pytest.mark.parametrize("make", [dequantized, palette])
def test_what_integers_make_is_frozen_beside_an_output_too(make):
    net = Net(0)
    graph = net.graph(net.op("Gemm", net.input("x", ("N", 8)), make(net), net.weight(UNITS, name="b"), transB=1))
    groups = axis_groups(graph)
    assert {groups.groups[g].state for g, _ in groups.on_axis["b", 0]} == {GroupState.FROZEN}


@pytest.mark.parametrize("make", MASKED)
def test_a_mask_moves_with_its_units(make):
    assert units_of(load(network(make))) == (GroupState.VERIFIED, {("q", 0), ("w", 0), ("b", 0), ("down", 1)})


def gated(net, x):
    return net.op("Where", booleans(net, UNITS), x, net.constant(np.float32(0)))


def test_a_gate_of_units_moves_with_them():
    graph = load(network(plain, gate=gated))
    assert integer_use(graph, graph.weights["q"]) is GATE
    assert units_of(graph) == (GroupState.VERIFIED, {("q", 0), ("w", 0), ("b", 0), ("down", 1)})


def permuted(proto):
    graph = load(proto)
    return permuted_copy(graph, verify(graph, axis_groups(graph)))[0]


def largest_gap(graph, base):
    return deviation(run(graph, inputs_of(base)), run(base, inputs_of(base)))


@pytest.mark.parametrize("case", [*((make, None) for make in MASKED), (plain, gated)])
@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_a_permuted_copy_with_its_mask_gives_the_base_back(case, lam):
    base = network(case[0], gate=case[1])
    result = mal_graph.assemble(base, permuted(base), lam=lam)
    assert not result.merged[0].plan.skipped
    assert largest_gap(result.graph, load(base)) < 1e-5


@pytest.mark.parametrize("make", [masked, masked_by_cast])
def test_a_layer_with_another_mask_is_kept_with_the_reason(make):
    plan = mal_graph.assemble(network(make), network(make, 1), lam=1.0).merged[0].plan
    assert list(plan.skipped.values()) == ["its mask q differs from the donor's in the orders used"]
    assert {step.tensor for step in plan.steps} == {"b", "down", "c"}


def test_a_layer_with_another_gate_is_kept_with_the_reason():
    models = network(plain, gate=gated), network(plain, 1, gate=gated)
    skipped = mal_graph.assemble(*models, lam=1.0).merged[0].plan.skipped
    assert list(skipped.values()) == ["its mask q differs from the donor's in the orders used"]


def test_a_gate_in_one_model_alone_keeps_the_layer():
    models = network(plain, gate=gated), network(plain, 1)
    assert (
        "it has 1 stored masks, the donor's 0"
        in mal_graph.assemble(*models, method="mal").merged[0].plan.skipped.values()
    )
    assert (
        "it has 0 stored masks, the donor's 1"
        in mal_graph.assemble(*models[::-1], method="mal").merged[0].plan.skipped.values()
    )


def test_masked_units_are_given_no_further_ones():
    wider = Net(1)
    x = wider.op("Gemm", wider.input("x", ("N", 8)), wider.weight(9, 8), wider.weight(9), transB=1)
    x = wider.op("Gemm", wider.op("Relu", x), wider.weight(3, 9), wider.weight(3), transB=1)
    result = mal_graph.assemble(network(plain, gate=gated), wider.graph(x), width="grow", lam=0.5)
    growth = result.merged[0].plan.growth
    assert not growth.added


@pytest.mark.parametrize("make", [dequantized, scaled])
def test_a_layer_of_integers_is_kept_with_the_reason(make):
    with pytest.raises(MatchError, match="'q' beside it is stored as int8"):
        mal_graph.assemble(network(make), network(make, 1), lam=0.5)


def selected(net):
    """Features picked by stored indices, a table looked up, a size and bounds: none is part of a weight."""
    x = net.op("Gather", net.input("x", ("N", 8)), net.constant([3, 1, 5, 0], "q"), axis=1)
    places = net.op("Gather", net.constant(np.arange(9), "ids"), net.constant([2, 4]))
    rows = net.op("ReduceSum", net.op("Gather", net.weight(9, 4, name="table"), places), net.constant([0]), keepdims=0)
    x = net.op("Reshape", net.op("Add", x, rows), net.constant([-1, 4], "shape"))
    return net.graph(net.linear(x, 4, 3))


@pytest.mark.parametrize("name", ["q", "ids", "shape"])
def test_indices_and_sizes_are_no_data(name):
    graph = selected(Net(0))
    assert integer_use(graph, graph.weights[name]) is STEERS


def expanded(net):
    """A target of a shape as TorchScript writes it: ones where it says -1."""
    x = net.op("Unsqueeze", net.linear(net.input("x", ("N", 8)), 8, 4), net.constant([1]))
    target, ones = net.constant([-1, 3, -1], "target"), net.constant([1, 1, 1], "ones")
    is_told = net.op("Equal", target, net.op("Mul", ones, net.constant([-1, -1, -1], "minus")))
    x = net.op("Expand", x, net.op("Where", is_told, ones, target))
    return net.graph(net.linear(net.op("Flatten", x), 12, 3))


@pytest.mark.parametrize("name", ["target", "ones", "minus"])
def test_integers_that_only_make_a_shape_are_no_gates(name):
    graph = expanded(Net(0))
    assert integer_use(graph, graph.weights[name]) is STEERS
    groups = verify(graph, axis_groups(graph))
    assert {group.state for group in groups.groups if group.units == 4} == {GroupState.VERIFIED}


def test_indices_and_sizes_freeze_nothing():
    groups = axis_groups(selected(Net(0)))
    assert GroupState.FROZEN not in {group.state for group in groups.groups}


def test_a_mask_of_places_leaves_the_table_of_places_in_order():
    """As in a decoder: places may only look back, and every place has a row that is added."""
    net = Net(0)
    x = net.op("Add", net.input("x", (1, 4, 6)), net.weight(4, 6, name="places"))
    mask = net.constant(np.tril(np.ones((4, 4), bool)), "q")
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    scores = net.op("Softmax", net.op("Where", mask, scores, net.constant(np.float32(-1e9))))
    graph = net.graph(net.op("MatMul", scores, x))
    groups = axis_groups(graph)
    assert {groups.groups[g].state for g, _ in groups.on_axis["places", 0]} == {GroupState.PINNED}


@pytest.mark.parametrize("swapped", [False, True])
def test_a_norm_that_one_model_alone_has_behind_a_masked_weight_keeps_the_layer_whole(swapped):
    def normed(net, x):
        return net.op("Relu", net.norm(x, UNITS))

    models = network(masked, gate=normed), network(masked)
    plan = mal_graph.assemble(*models[:: -1 if swapped else 1], lam=0.5).merged[0].plan
    why = "a BatchNormalization stands behind it in one model alone, and its weight is computed"
    assert list(plan.skipped.values()) == [why] * 2
    assert {step.tensor for step in plan.steps} == {"down", "c"}
