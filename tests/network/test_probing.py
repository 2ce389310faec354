"""One run: shapes, small integers, and inputs drawn so that the model runs."""

from time import monotonic

import numpy as np
import pytest
from builders import Net, cnn, mlp
from crafted.growing import branches

from mal_graph import registry
from mal_graph.errors import DataError, MemoryLimitError, RunError
from mal_graph.limits import LEAST_MEMORY, Limits, limited
from mal_graph.network import probe
from mal_graph_adapters.onnx_format import onnxruntime_runner
from mal_graph_adapters.onnx_format.onnxruntime_runner import OrtRunner


@pytest.fixture
def net():
    return Net(0)


def test_a_probe_knows_the_shape_of_every_tensor():
    graph = cnn()
    found = probe(graph)
    assert {name for node in graph.nodes for name in node.outputs} <= found.shapes.keys()
    assert found.shapes[graph.outputs[0].name] == (3, 5)


def test_a_probe_is_repeatable_and_follows_its_seed():
    graph = mlp()
    assert np.array_equal(probe(graph, seed=1).inputs["x"], probe(graph, seed=1).inputs["x"])
    assert not np.array_equal(probe(graph, seed=1).inputs["x"], probe(graph, seed=2).inputs["x"])


def test_no_more_sessions_are_opened_for_many_branches_than_for_a_few(monkeypatch):
    opened, open_one = [], onnxruntime_runner.OrtSession
    monkeypatch.setattr(onnxruntime_runner, "OrtSession", lambda *given: opened.append(1) or open_one(*given))
    counts = []
    for number in (3, 30):
        opened.clear()
        probe(registry.as_graph(branches(number)))
        counts.append(len(opened))
    assert counts[0] == counts[1] > 1


def test_dynamic_axes_are_tried_until_the_model_runs(net):
    """The reshape runs only where the free axis is a multiple of 11."""
    x = net.input("x", ("N", "T"))
    graph = net.graph(net.op("Reshape", x, net.constant([-1, 3, 11])))
    assert probe(graph).shapes["x"] == (3, 11)


def test_a_large_image_is_probed_small_where_the_model_allows(net):
    graph = net.graph(net.op("GlobalAveragePool", net.conv(net.input("x", (1, 3, 224, 224)), 3, 2)))
    assert probe(graph).shapes["x"] == (1, 3, 64, 64)


def test_a_large_image_keeps_its_size_where_a_layer_needs_it(net):
    x = net.op("Flatten", net.op("MaxPool", net.input("x", (1, 1, 100, 100)), kernel_shape=[10, 10], strides=[10, 10]))
    graph = net.graph(net.linear(x, 100, 2))
    assert probe(graph).shapes["x"] == (1, 1, 100, 100)


@pytest.mark.parametrize(("copies", "batch"), [(1, 3), (8, 1)])
def test_what_takes_too_much_memory_is_probed_on_fewer_samples(net, copies, batch):
    x = net.input("x", ("N", 2**20))
    graph = net.graph(net.op("Concat", *[x] * copies, axis=1))
    with limited(Limits(max_memory=LEAST_MEMORY)):
        assert probe(graph, registry.runner()).inputs["x"].shape[0] == batch


def test_what_takes_too_much_memory_on_one_sample_is_refused(net):
    graph = net.graph(net.op("Concat", *[net.input("x", ("N", 2**20))] * 40, axis=1))
    with limited(Limits(max_memory=LEAST_MEMORY)), pytest.raises(MemoryLimitError, match="it may take 64 MiB"):
        probe(graph, registry.runner())


def test_shapes_and_arrays_can_be_given():
    graph = cnn()
    assert probe(graph, input_shapes={"x": (1, 3, 8, 8)}).shapes["x"] == (1, 3, 8, 8)
    given = np.ones((2, 3, 8, 8))
    assert np.array_equal(probe(graph, inputs={"x": given}).inputs["x"], given.astype(np.float32))


def test_integer_inputs_stay_inside_the_table_they_index(net):
    tokens = net.op("Reshape", net.input("tokens", ("N", 6), "int64"), net.constant([-1, 6]))
    graph = net.graph(net.op("Gather", net.weight(1000, 4), tokens))
    drawn = probe(graph).inputs["tokens"]
    assert 10 < drawn.max() < 1000


def test_integers_computed_from_shapes_are_known(net):
    x = net.input("x", ("N", 4, 6))
    size = net.op("Gather", net.op("Shape", x), net.constant([1]))
    found = probe(net.graph(net.op("Reshape", x, net.op("Concat", net.constant([-1]), size, axis=0))))
    assert found.values[size].tolist() == [4]


def test_integers_computed_from_data_are_not_constants(net):
    x = net.input("x", ("N", 4))
    index = net.op("ArgMax", x, axis=1, keepdims=0)
    found = probe(net.graph(net.op("Gather", net.weight(4, 3), index)))
    assert index not in found.values
    assert index in found.shapes


def test_an_unknown_input_is_named_with_the_known_ones():
    with pytest.raises(DataError, match=r"has no input 'y': its inputs are 'x'"):
        probe(mlp(), inputs={"y": np.zeros((1, 8))})


def test_an_array_of_another_rank_is_refused_with_both_shapes():
    with pytest.raises(DataError, match=r"input 'x' .* has shape \(8,\), the input \('N', 8\): give an array"):
        probe(mlp(), inputs={"x": np.zeros(8)})


def test_a_shape_of_another_rank_is_refused():
    with pytest.raises(DataError, match=r"gives x 1 axes, .* has 2"):
        probe(mlp(), input_shapes={"x": (8,)})


def test_a_model_that_runs_at_no_shape_says_what_to_do(net):
    x = net.input("x", ("N", "T"))
    graph = net.graph(net.op("Reshape", x, net.constant([-1, 1009])))
    with pytest.raises(RunError, match=r"onnxruntime cannot run net.onnx.*`input_shapes`, or arrays with `inputs`"):
        probe(graph)


def test_a_probe_whose_time_is_up_tries_no_other_shapes():
    runs = []

    class Late:
        types = {"y": "float32"}  # noqa: RUF012  # a stand-in that nobody changes

        def run(self, inputs, weights=None, read=None, deadline=None):
            runs.append(inputs)
            raise RunError("was not through when its time was up")

    class Runner:
        def open(self, graph, **options):
            return Late()

    with pytest.raises(RunError, match="time was up"):
        probe(mlp(), Runner(), timeout=0.0)
    assert len(runs) == 1


def chain(length):
    """Linear layers of four units, one behind the other."""
    net = Net(0)
    x = net.input("x", ("N", 4))
    for _ in range(length):
        x = net.linear(x, 4, 4)
    return net.graph(x)


def test_a_session_that_cannot_be_opened_in_time_is_not_opened(monkeypatch):
    monkeypatch.setattr(onnxruntime_runner, "OrtSession", None)  # would fail if it were called
    with pytest.raises(RunError, match="was not opened when its time was up"):
        OrtRunner().open(chain(3), deadline=monotonic())


def test_a_probe_feeds_every_weight_for_stored_ones_cost_a_session_their_square():
    graph, asked = chain(5), []

    class Runner(OrtRunner):
        def open(self, graph, **options):
            asked.append(set(options["variable"]))
            return super().open(graph, **options)

    assert len(probe(graph, Runner()).shapes) > 10
    assert asked == [set(graph.weights)]


def test_a_run_in_training_leaves_the_arrays_it_is_fed():
    net = Net(0, opset=17)
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 5)
    stored = [net.weight(5, scale=1.0), net.weight(5), net.weight(5), net.constant(np.ones(5, np.float32))]
    graph = net.graph(net.op("BatchNormalization", x, *stored, outputs=3, training_mode=1)[0])
    fed = {name: weight.read().copy() for name, weight in graph.weights.items()}
    before = {name: values.copy() for name, values in fed.items()}
    OrtRunner().open(graph, variable=list(fed)).run({"x": np.ones((2, 3, 4, 4), np.float32)}, fed)
    assert all(np.array_equal(fed[name], before[name]) for name in fed)
