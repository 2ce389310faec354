"""A model built from a layer graph alone holds what the graph holds."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from builders import Net, cnn, inputs_of, light, mlp, run, stored

import mal_graph
from mal_graph_adapters.onnx_format import file


def without_source(graph):
    """The graph as another framework's adapter would make it."""
    return replace(graph, source=None)


def labelled():
    """An integer input, an output that is a weight's neighbour, a named and an unnamed dynamic axis."""
    net = Net(0, opset=18)
    ids = net.input("ids", ("N", 4), dtype="int64")
    x = net.op("Gather", net.weight(7, 5), ids)
    a, b = net.op("Split", x, net.constant([2, 3]), outputs=2, axis=-1)
    return net.graph(net.op("ReduceSum", a, net.constant([-1]), keepdims=0), b)


@pytest.mark.parametrize(
    "build", [mlp, cnn, lambda: cnn(concat=True, head="flatten"), labelled, lambda: light("squeezenet")]
)
def test_a_graph_without_a_file_is_saved_whole(build, tmp_path):
    graph = build()
    mal_graph.save(without_source(graph), tmp_path / "built.onnx")
    again = mal_graph.load(tmp_path / "built.onnx")
    onnx.checker.check_model(tmp_path / "built.onnx", full_check=True)
    assert (again.inputs, again.outputs, again.opsets) == (graph.inputs, graph.outputs, graph.opsets)
    assert [(n.name, n.op, n.inputs, n.outputs) for n in again.nodes] == [
        (n.name, n.op, n.inputs, n.outputs) for n in graph.nodes
    ]
    for name, values in stored(again).items():
        assert np.array_equal(values, graph.weights[name].read())
    inputs = inputs_of(graph)
    for found, expected in zip(run(again, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime"), strict=True):
        assert np.array_equal(found, expected)


def test_edited_weights_are_those_that_are_saved(tmp_path):
    graph = without_source(mlp())
    mal_graph.save(graph.with_weights({"w0": np.zeros((16, 8), np.float32)}), tmp_path / "built.onnx")
    assert not mal_graph.load(tmp_path / "built.onnx").weights["w0"].read().any()


def test_large_weights_lie_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "EXTERNAL_DATA_FROM", 100)
    graph = mlp(widths=(8, 16, 12, 10))
    mal_graph.save(without_source(graph), tmp_path / "built.onnx")
    assert len(list(tmp_path.glob("built.onnx.*.data"))) == 1
    again = mal_graph.load(tmp_path / "built.onnx")
    assert np.array_equal(again.weights["w0"].read(), graph.weights["w0"].read())
