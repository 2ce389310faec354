"""Bodies of operators in the view, and back in the file."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from body_nets import (
    BOOL,
    BRANCHES,
    BRANCHING_LOOP,
    CALLING,
    INT,
    KINDS,
    LOOPING,
    SCANNING,
    Kind,
    X,
    body,
    constant,
    model,
    remembering,
    stored,
    value,
)
from builders import load
from onnx import numpy_helper

import mal_graph
from mal_graph.network import find_bodies, probe
from mal_graph_adapters.onnx_format.onnxruntime_runner import OrtRunner

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def saved(graph, tmp_path):
    mal_graph.save(graph, tmp_path / "m.onnx", overwrite=True)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    return onnx.load(tmp_path / "m.onnx")


def outputs_of(proto, inputs):
    return ort.InferenceSession(proto.SerializeToString()).run(None, inputs)[0]


@by_kind
def test_a_view_runs_as_the_file_and_is_written_as_the_file(kind: Kind, tmp_path):
    proto = kind.make(kind.drawn(0))
    graph = load(proto)
    assert not any(weight.scope for weight in graph.weights.values())
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert np.allclose(OrtRunner().open(graph).run(inputs)["y"], outputs_of(proto, inputs), atol=1e-6)
    assert list(saved(graph, tmp_path).graph.node) == list(ir.to_proto(ir.from_proto(proto)).graph.node)


@by_kind
def test_new_values_lie_where_the_old_ones_lay(kind: Kind, tmp_path):
    base, other = kind.drawn(0), kind.drawn(1)
    proto, expected = load(kind.make(base)), kind.make(other)
    values = {name: weight.read() for name, weight in load(expected).weights.items()}
    assert values.keys() == proto.weights.keys()
    changed = saved(proto.with_weights({name: values[name] for name in values}), tmp_path)
    assert {tensor.name for tensor in changed.graph.initializer} == {one.name for one in expected.graph.initializer}
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert np.allclose(outputs_of(changed, inputs), outputs_of(expected, inputs), atol=1e-6)


def as_gemm(kind, made, weight, bias=""):
    """The model with a Gemm for the product with a weight that a body stores, with a bias beside it or without."""
    for attribute in (attribute for node in made.graph.node for attribute in node.attribute):
        for inner in attribute.g.node:
            if inner.input[1:2] == [weight]:
                inner.op_type = "Gemm"
                inner.input.extend([bias] if bias else [])
                array = np.random.default_rng(7).normal(size=kind.shapes[weight][1]).astype(np.float32)
                attribute.g.initializer.extend([numpy_helper.from_array(array, bias)] if bias else [])
    return made


@pytest.mark.parametrize(("kind", "weight"), [(LOOPING, "r"), (BRANCHING_LOOP, "ec"), (CALLING, "ta")])
def test_a_bias_for_a_layer_in_a_body_is_written_there(kind: Kind, weight, tmp_path):
    base = as_gemm(kind, kind.make(kind.drawn(0)), weight)
    donor = as_gemm(kind, kind.make(kind.drawn(1)), weight, "bias")
    merged = saved(mal_graph.assemble(load(base), load(donor), lam=1.0, method="mal").graph, tmp_path)
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert np.allclose(outputs_of(merged, inputs), outputs_of(donor, inputs), atol=1e-5)


@pytest.mark.parametrize(("kind", "layer"), [(BRANCHES, "then"), (LOOPING, "inner"), (SCANNING, "seen")])
def test_wider_layers_in_bodies_are_written_there(kind: Kind, layer, tmp_path):
    shapes = {
        name: tuple(size + 2 * ((name, axis) in kind.units[layer]) for axis, size in enumerate(shape))
        for name, shape in kind.shapes.items()
    }
    wider = Kind(kind.name, kind.make, shapes, kind.units, kind.inputs)
    base, donor = kind.make(kind.drawn(0)), kind.make(wider.drawn(1))
    result = mal_graph.assemble(load(base), load(donor), lam=1.0, method="mal", width="grow")
    merged = saved(result.graph, tmp_path)
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert np.allclose(outputs_of(merged, inputs), outputs_of(donor, inputs), atol=1e-5)


def test_a_bidirectional_lstm_in_a_branch(tmp_path):
    shapes = {"wi": (2, 28, 6), "wr": (2, 28, 7), "wb": (2, 56), "ta": (14, 5), "ea": (6, 9), "ec": (9, 5), "v": (5, 3)}
    kind = Kind("two ways", lambda weights: remembering(weights, "bidirectional"), shapes, {}, {"x": (3, 5, 6)})
    base, donor = (kind.make(kind.drawn(seed)) for seed in (0, 1))
    result = mal_graph.assemble(load(base), load(donor), lam=1.0, method="mal")
    assert not result.merged[0].plan.skipped
    merged = saved(result.graph, tmp_path)
    assert [node.op_type for node in merged.graph.node] == [node.op_type for node in base.graph.node]
    for sign in (1, -1):
        inputs = kind.arrays(sign)
        assert np.allclose(outputs_of(merged, inputs), outputs_of(donor, inputs), atol=1e-5)


def test_tensors_in_bodies_can_be_read():
    weights = LOOPING.drawn(0)
    graph = load(LOOPING.make(weights))
    inputs = LOOPING.arrays(1)
    read = ["last/body/run", "last/body/new", "last/body/seen", "last"]
    values = OrtRunner().open(graph, read=read).run(inputs)
    start = inputs["x"] @ weights["u"]
    first = np.tanh(start @ weights["r"] + inputs["x"] @ weights["c"] + weights["b"])
    assert values["last/body/run"] == 0
    # numpy and onnxruntime sum products of float32 in other orders; tanh keeps the values below 1.
    assert np.allclose(values["last/body/new"], first, atol=1e-5)
    assert values["last"].shape == first.shape
    # What the loop gives is the last run's: a thousand times further from the first than rounding is.
    assert not np.allclose(values["last"], first, atol=1e-2)


def test_a_branch_that_is_not_taken_gives_nothing():
    graph = load(BRANCHES.make(BRANCHES.drawn(0)))
    names = ["r/then_branch/a1", "r/else_branch/a1"]
    session = OrtRunner().open(graph, read=names)
    assert [list(session.run(BRANCHES.arrays(sign))) for sign in (1, -1)] == [[name] for name in names]
    probed = probe(graph)
    assert len(probed.taken) == 1
    assert not probed.not_run
    assert probed.shapes.keys() >= set(names)


def counting(shape, count=3):
    """A loop whose body takes its number with a shape of its own."""
    cell = body(
        ["a = MatMul(state, r)", "new = Tanh(a)", "on = Identity(go)"],
        [value("on", BOOL, []), "new"],
        [value("run", INT, shape), value("go", BOOL, []), value("state")],
        stored({"r": np.eye(6, dtype=np.float32)}, "r"),
    )
    lines = [constant("count", np.int64(count)), ("last = Loop(count, , x)", {"body": cell}), "y = MatMul(last, v)"]
    return model(lines, stored({"v": np.ones((6, 3), np.float32)}, "v"), X)


def test_a_loop_whose_numbers_have_axes_is_not_looked_into():
    graph = load(counting([1]))
    assert not find_bodies(graph)
    assert [weight.scope for weight in graph.weights.values()] == ["", "", "last/body/"]
    assert graph.nodes[0].has_graphs


def test_a_body_that_no_run_enters_says_so():
    probed = probe(load(counting([], count=0)))
    assert probed.not_run == {"last/body/": "the body of Loop 'last' was not run by the probe"}


def test_tensors_of_a_branch_in_a_branch_can_be_read_alone():
    """Nothing but the inputs of the model arrives there."""
    inner = {
        "then_branch": body(["a = MatMul(x, w)", "out = Relu(a)"], ["out"]),
        "else_branch": body(["a = MatMul(x, w)", "out = Tanh(a)"], ["out"]),
    }
    then = body([("out = If(yes)", inner)], ["out"])
    other = body(["out = MatMul(x, w)"], ["out"])
    lines = [constant("yes", np.array(True)), ("y = If(yes)", {"then_branch": then, "else_branch": other})]
    graph = load(model(lines, stored({"w": np.ones((6, 3), np.float32)}, "w"), X))
    name = "y/then_branch/out/then_branch/a"
    x = LOOPING.arrays(1)["x"]
    values = OrtRunner().open(graph, read=[name]).run({"x": x})
    assert np.allclose(values[name], x @ np.ones((6, 3), np.float32), atol=1e-5)
    assert not probe(graph).not_run
