"""Weights that are stored in parts are one tensor in the view, and parts again in the file."""

import numpy as np
import onnx
import pytest
from builders import Net, deviation, inputs_of, load, mlp, run, save
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import mal_graph

WIDTHS = (5, 6, 3)


def layers(seed=0, *, axis=0, told=(), again=False):
    """Two layers, the first with a weight in three parts; `told` are further outputs, `again` reads a part twice."""
    net = Net(seed)
    x = net.input("x", ("N", WIDTHS[0]))
    sizes = (1, 3, 2) if axis == 0 else (2, 1, 2)
    shapes = [(size, WIDTHS[0]) if axis == 0 else (WIDTHS[1], size) for size in sizes]
    parts = [net.weight(*shape, name=f"part{i}", scale=0.5) for i, shape in enumerate(shapes)]
    whole = net.op("Concat", *parts, axis=axis - 2)
    x = net.op("Relu", net.op("Gemm", x, whole, net.weight(WIDTHS[1], name="b0", scale=1.0), transB=1))
    y = net.op("Gemm", x, net.weight(WIDTHS[2], WIDTHS[1], name="w1"), net.weight(WIDTHS[2], name="b1"), transB=1)
    further = [net.op("Neg", "part0")] if again else []
    return net.proto(y, *further, *(whole if name == "whole" else name for name in told))


def stored(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def assert_same(graph, proto):
    """The view computes what the file does."""
    inputs = inputs_of(graph)
    assert deviation(run(graph, inputs), ReferenceEvaluator(proto).run(None, dict(inputs))) < 1e-5


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_are_one_tensor_in_the_view(axis):
    proto = layers(axis=axis)
    graph = load(proto)
    (name,) = graph.joined
    parts = [stored(proto)[f"part{i}"] for i in range(3)]
    assert np.array_equal(graph.weights[name].read(), np.concatenate(parts, axis))
    assert graph.weights[name].shape == WIDTHS[1::-1]
    assert "Concat" not in [node.op for node in graph.nodes]
    assert not any(name.startswith("part") for name in graph.weights)
    assert_same(graph, proto)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_merge_is_written_into_the_parts(axis, tmp_path):
    base, donor = layers(0, axis=axis), layers(1, axis=axis)
    merged = mal_graph.assemble(base, donor, lam=0.5).save(tmp_path / "merged.onnx")
    written = onnx.load(tmp_path / "merged.onnx")
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in base.graph.node]
    assert {name: array.shape for name, array in stored(written).items()} == {
        name: array.shape for name, array in stored(base).items()
    }
    whole = merged.graph.weights[next(iter(merged.graph.joined))].read()
    assert np.array_equal(np.concatenate([stored(written)[f"part{i}"] for i in range(3)], axis), whole)
    assert merged.accounts.adds_up
    assert merged.accounts.total == sum(array.size for array in stored(base).values())


def test_a_file_without_changes_is_written_as_it_was(tmp_path):
    proto = layers()
    written = onnx.load(save(load(proto), tmp_path / "same.onnx"))
    wiring = [[(node.op_type, node.input, node.output) for node in side.graph.node] for side in (written, proto)]
    assert wiring[0] == wiring[1]
    assert stored(written).keys() == stored(proto).keys()
    assert all(np.array_equal(array, stored(proto)[name]) for name, array in stored(written).items())


@pytest.mark.parametrize("axis", [0, 1])
def test_what_grew_is_in_the_last_part(axis, tmp_path):
    merged = mal_graph.assemble(layers(axis=axis), mlp((5, 9, 3), seed=1), lam=0.5, width="grow")
    merged.save(tmp_path / "wider.onnx")
    written = onnx.load(tmp_path / "wider.onnx")
    shapes = [stored(written)[f"part{i}"].shape for i in range(3)]
    assert shapes == ([(1, 5), (3, 5), (5, 5)] if axis == 0 else [(9, 2), (9, 1), (9, 2)])
    assert_same(merged.graph, written)


@pytest.mark.parametrize("options", [{"told": ["whole"]}, {"told": ["part1"]}, {"again": True}])
def test_parts_that_something_else_reads_stay_apart(options):
    assert not load(layers(**options)).joined
