"""Bias slots: given where a merge needs one, nowhere else, without a change of the function."""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, mlp, run, save

import mal_graph
from mal_graph.matching import match_layers
from mal_graph.merging import with_bias_slots
from mal_graph.network import find_layers


def bare(seed=0, dtype="float32"):
    """Two Gemms without a bias."""
    net = Net(seed, dtype=dtype)
    x = net.op("Relu", net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), transB=1))
    return net.graph(net.op("Gemm", x, net.weight(5, 8), transB=1))


def convolution(seed, bias, norm, kind="Conv"):
    net = Net(seed)
    shape = (4, 3, 3, 3) if kind == "Conv" else (3, 4, 3, 3)
    weights = [net.weight(*shape), *([net.weight(4)] if bias else [])]
    x = net.op(kind, net.input("x", ("N", 3, 6, 6)), *weights)
    x = net.norm(x, 4) if norm else x
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x)))
    return net.graph(net.linear(x, 4, 3))


def with_slots(base, donor, **options):
    return with_bias_slots(base, donor, match_layers(base, donor), **options)


def test_a_new_bias_is_zero_and_keeps_the_function():
    base = bare()
    graph, match = with_slots(base, mlp((6, 8, 5), 1))
    assert [(graph.weights[name].shape, graph.weights[name].read().any()) for name in graph.inserted] == [
        ((8,), False),
        ((5,), False),
    ]
    inputs = inputs_of(base)
    assert deviation(run(graph, inputs), run(base, inputs)) == 0
    assert [[p.role for p in layer.parameters] for layer in match.base] == [["weight", "bias"]] * 2


def test_the_base_itself_is_not_changed():
    base = bare()
    with_slots(base, mlp((6, 8, 5), 1))
    assert set(base.weights) == {"w0", "w1"}
    assert not base.inserted


def test_a_new_bias_has_the_type_of_its_weight():
    graph, _ = with_slots(bare(dtype="float16"), mlp((6, 8, 5), 1))
    assert {graph.weights[name].dtype.name for name in graph.inserted} == {"float16"}


def test_a_new_bias_has_the_type_in_which_its_weight_is_read():
    """Half precision on disk, cast where it is used."""
    net = Net(0)
    x = net.input("x", ("N", 6))
    for outs, ins in ((8, 6), (5, 8)):
        half = net.constant(net.rng.standard_normal((outs, ins)).astype(np.float16))
        x = net.op("Gemm", x, net.op("Cast", half, to=1), transB=1)
    base = net.graph(x)
    graph, _ = with_slots(base, mlp((6, 8, 5), 1))
    assert {graph.weights[name].dtype.name for name in graph.inserted} == {"float32"}
    inputs = inputs_of(base)
    assert deviation(run(graph, inputs), run(base, inputs)) == 0


def test_nothing_is_inserted_where_the_donor_has_no_bias():
    graph, _ = with_slots(bare(0), bare(1))
    assert not graph.inserted


def test_only_selected_layers_get_a_slot():
    graph, _ = with_slots(bare(), mlp((6, 8, 5), 1), selected=["Gemm_2"])
    assert [name for name, _ in graph.inserted.values()] == [graph.nodes[-1].outputs[0]]


def test_a_name_that_is_taken_is_not_used():
    base = bare()
    net_output = base.nodes[0].outputs[0]
    clash = Net(0)
    x = clash.op("Gemm", clash.input("x", ("N", 6)), clash.weight(8, 6), transB=1)
    taken = clash.constant(np.ones(8, np.float32), f"{net_output}.bias")
    x = clash.op("Relu", clash.op("Mul", x, taken))
    graph, _ = with_slots(clash.graph(clash.op("Gemm", x, clash.weight(5, 8), transB=1)), mlp((6, 8, 5), 1))
    assert f"{net_output}.bias_" in graph.inserted
    assert (graph.weights[taken].read() == 1).all()


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize(
    ("base", "donor", "slots"),
    [
        ((False, False), (True, False), 1),
        ((False, False), (False, True), 1),  # the donor's BatchNorm shifts
        ((False, True), (True, False), 0),  # the base's BatchNorm has a shift
        ((False, True), (True, True), 1),  # each shift stays with its own, the bias needs a place
        ((False, True), (False, True), 0),
        ((True, False), (True, True), 0),
        ((False, False), (False, False), 0),
    ],
)
def test_a_slot_is_given_where_the_base_has_no_tensor_for_a_shift(kind, base, donor, slots):
    graph, _ = with_slots(convolution(0, *base, kind), convolution(1, *donor, kind))
    assert len(graph.inserted) == slots


def test_an_operator_without_a_bias_input_gets_none():
    net = Net(0)
    x = net.op("Relu", net.op("MatMul", net.input("x", ("N", 6)), net.weight(6, 8)))
    graph, _ = with_slots(net.graph(net.op("MatMul", x, net.weight(8, 5))), mlp((6, 8, 5), 1))
    assert not graph.inserted


def test_reading_the_layers_again_forgets_slots_the_graph_does_not_have():
    """A match made with slots, applied to the graph without: they are inserted once more."""
    base, donor = bare(), mlp((6, 8, 5), 1)
    graph, match = with_slots(base, donor)
    again, _ = with_bias_slots(base, donor, match)
    assert set(again.inserted) == set(graph.inserted)
    twice, _ = with_bias_slots(graph, donor, match)
    assert twice.nodes == graph.nodes


def test_a_merged_file_holds_the_new_bias(tmp_path):
    base, donor = bare(), mlp((6, 8, 5), 1)
    result = mal_graph.assemble(base, donor, lam=0.5, verify=False)
    again = mal_graph.load(save(result.graph, tmp_path / "merged.onnx"))
    assert [[p.role for p in layer.parameters] for layer in find_layers(again)] == [["weight", "bias"]] * 2
    assert all(again.weights[name].read().any() for name in result.graph.inserted)
