"""Tensors stored once because their values are equal: each reader has its own in the view, if it must in the file."""

import numpy as np
import onnx
import pytest
from builders import Net, deviation, inputs_of, load, run
from onnx import numpy_helper

import mal_graph
from mal_graph.symmetry import axis_groups

WIDTHS = (5, 6, 6, 3)


def layers(bias, seed=0, **stored):
    """Three layers, the first two with the bias called `bias`, or with those in `stored`."""
    net = Net(seed)
    x = net.input("x", ("N", WIDTHS[0]))
    for i, units in enumerate(WIDTHS[1:]):
        b = net.constant(np.full(units, 0.0, np.float32), "last") if i == 2 else bias(net, i)
        x = net.op("Gemm", x, net.weight(units, WIDTHS[i], name=f"w{i}"), b, transB=1)
        x = net.op("Relu", x) if i < 2 else x
    for name, values in stored.items():
        net.constant(values, name)
    return net.proto(x)


def shared(values=0.0):
    held = np.broadcast_to(np.asarray(values, np.float32), 6)
    return lambda net, i: "b" if "b" in net.weights else net.constant(held.copy(), "b")


def apart(net, i):
    return net.weight(6, name=f"b{i}", scale=1.0)


def names_of(graph):
    return sorted(name for name in graph.weights if name.startswith("b"))


def test_equal_values_do_not_tie_layers():
    graph = load(layers(shared()))
    assert names_of(graph) == ["b", "b (2)"]
    assert dict(graph.copies) == {"b (2)": "b"}
    assert [group.units for group in axis_groups(graph).groups if group.is_usable] == [6, 6]


def test_values_that_differ_tie_layers():
    graph = load(layers(shared(np.arange(6))))
    assert names_of(graph) == ["b"]
    assert len([group for group in axis_groups(graph).groups if group.is_usable]) == 1


def test_the_first_entries_alone_do_not_tell():
    net = Net(0)
    almost = np.zeros(40, np.float32)
    almost[-1] = 1
    x = net.op("Add", net.input("x", ("N", 40)), net.constant(almost, "b"))
    assert names_of(load(net.proto(net.op("Mul", x, "b")))) == ["b"]


def merged(base, donor, lam, folder):
    """The merged file."""
    mal_graph.assemble(base, donor, lam=lam).save(folder / "merged.onnx")
    return onnx.load(folder / "merged.onnx")


def initializers(proto):
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def assert_same(found, expected):
    inputs = inputs_of(load(expected))
    assert deviation(run(load(found), inputs), run(load(expected), inputs)) < 1e-5


def test_a_merge_stores_equal_values_once_as_before(tmp_path):
    stored = initializers(merged(layers(shared(0.5)), layers(shared(0.25), 1), 0.5, tmp_path))
    assert stored.keys() == {"b", "w0", "w1", "w2", "last"}
    assert (stored["b"] == 0.375).all()


def test_a_merge_stores_what_differs_after_it_apart(tmp_path):
    base, donor = layers(shared()), layers(apart, 1)
    proto = merged(base, donor, 1.0, tmp_path)
    assert initializers(proto).keys() == {"b", "b (2)", "w0", "w1", "w2", "last"}
    assert_same(proto, donor)


def test_what_is_stored_once_counts_once():
    accounts = mal_graph.assemble(layers(shared()), layers(apart, 1), lam=0.5).accounts
    assert accounts.adds_up
    assert accounts.total == 6 * 5 + 6 * 6 + 3 * 6 + 6 + 3


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_what_is_shared_on_both_sides_loses_nothing(lam, tmp_path):
    models = layers(shared()), layers(shared(), 1)
    assert_same(merged(*models, lam, tmp_path), models[int(lam)])
