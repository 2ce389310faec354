"""Models in bfloat16, which onnxruntime cannot run on a CPU, are run in float32 and merged in their own type."""

import numpy as np
import onnx
import pytest
from builders import Net, deviation, permuted_copy, run
from ml_dtypes import bfloat16

import mal_graph
from mal_graph.errors import RunError
from mal_graph.network import types_of
from mal_graph.symmetry import axis_groups, verify
from mal_graph_adapters.onnx_format.file import OnnxAdapter, has_bfloat16
from mal_graph_adapters.onnx_format.sessions import OrtSession


def normalised(seed, dtype):
    net = Net(seed, dtype=dtype)
    x = net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 12, "gemm_nt"))
    x = net.op("LayerNormalization", x, *(net.weight(12, scale=0.4) for _ in range(2)))
    x = net.op("Relu", net.linear(x, 12, 10, "matmul"))
    return net.graph(net.linear(x, 10, 5, "matmul"))


def inputs(dtype):
    return {"x": np.random.default_rng(2).normal(size=(7, 8)).astype(dtype)}


def test_the_runtime_itself_refuses_them(tmp_path):
    path = tmp_path / "model.onnx"
    mal_graph.save(normalised(0, bfloat16), path)
    assert has_bfloat16(path)
    with pytest.raises(RunError, match="Could not find an implementation"):
        OrtSession(str(path), str(path))


def test_they_are_run_as_what_they_are_in_float32():
    graph = normalised(0, bfloat16)
    expected = run(graph, inputs(np.float32), "reference")
    assert deviation(run(graph, inputs(bfloat16), "onnxruntime"), expected) < 0.02  # of the inputs' rounding


def test_their_groups_are_verified():
    graphs = [normalised(0, dtype) for dtype in (bfloat16, np.float32)]
    told = [
        [(group.name, group.units, group.state) for group in verify(graph, axis_groups(graph)).groups]
        for graph in graphs
    ]
    assert told[0] == told[1]
    assert sum(state == "verified" for _, _, state in told[0]) == 2


def test_a_permuted_copy_gives_back_the_base_in_its_own_type(tmp_path):
    base = normalised(0, bfloat16)
    donor, _ = permuted_copy(base, axis_groups(base), seed=1)
    result = mal_graph.assemble(base, donor, method="mal", lam=0.5)
    assert not [check for check in result.checks if check.failed]
    assert types_of(result.graph) == types_of(base)
    merged = {name: weight.read() for name, weight in result.graph.weights.items()}
    assert all(np.array_equal(merged[name], weight.read()) for name, weight in base.weights.items())
    result.save(tmp_path / "merged.onnx")
    assert {tensor.data_type for tensor in onnx.load(tmp_path / "merged.onnx").graph.initializer} == {
        onnx.TensorProto.BFLOAT16
    }


def test_a_file_is_checked_in_float32(tmp_path):
    path = tmp_path / "model.onnx"
    graph = normalised(0, bfloat16)
    mal_graph.save(graph, path)
    assert [check.passed for check in OnnxAdapter().check(path)] == [True, None]
    broken = onnx.load(path)
    broken.graph.node[0].op_type = "Unheard"
    onnx.save(broken, path)
    assert [check.passed for check in OnnxAdapter().check(path)] == [False, False]
