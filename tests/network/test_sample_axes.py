"""Where inputs hold samples, as they are declared; and models whose inputs hold them elsewhere, or not at all."""

import numpy as np
import pytest
from builders import Net, deviation, run
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import DataError
from mal_graph.evaluation import evaluate
from mal_graph.network import SampleAxes, find_sample_axes

DECLARED = {
    "names": ({"x": ("N", 4), "state": (2, "N", 3), "rate": ()}, {"x": 0, "state": 1, "rate": None}),
    "a state in front": ({"state": (2, "N", 3), "x": ("N", 4)}, {"state": 1, "x": 0}),
    "lengths": ({"x": (1, 4), "state": (2, 1, 3)}, {"x": 0, "state": 1}),
    "open lengths": ({"x": (None, None), "state": (2, None, 3)}, {"x": 0, "state": 1}),
    "open lengths that tell nothing": ({"x": (None, 3), "y": (2, None, None)}, {"x": 0, "y": None}),
    "other names": ({"x": ("N", "T"), "mask": (1, "T")}, {"x": 0, "mask": None}),
    "a mask for all samples": ({"x": ("N", 4), "mask": (1, 4)}, {"x": 0, "mask": None}),
    "a state of one sample": ({"x": ("N", 4), "state": (2, 1, 3)}, {"x": 0, "state": None}),
    "names before lengths": ({"x": ("N", 1), "y": (4, 1)}, {"x": 0, "y": None}),
    "fixed lengths": ({"x": (3, 4), "y": (5, 4)}, {"x": 0, "y": 0}),
    "single numbers alone": ({"rate": ()}, {"rate": None}),
}


@pytest.mark.parametrize("name", DECLARED)
def test_the_axes_follow_from_what_is_declared(name):
    shapes, expected = DECLARED[name]
    net = Net()
    graph = net.graph(*[net.op("Identity", net.input(key, shape)) for key, shape in shapes.items()])
    assert dict(find_sample_axes(graph).axes) == expected


@settings(max_examples=25)
@given(data=st.data(), axis=st.integers(0, 2), count=st.integers(2, 6))
def test_samples_that_are_taken_and_joined_are_what_they_were(data, axis, count):
    axes = SampleAxes({"x": axis, "one": None})
    shape = axes.resized("x", (3, 3, 3), count)
    arrays = {"x": np.arange(np.prod(shape)).reshape(shape), "one": np.array(7.0), "labels": np.arange(count)}
    cut = data.draw(st.integers(1, count - 1))
    first, rest = axes.taken(arrays, slice(0, cut)), axes.taken(arrays, np.arange(count) >= cut)
    assert axes.counts(first) == {"x": cut, "labels": cut}
    again = axes.joined(first, rest)
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())


def stepping(seed, *, declared=("N", 4), states=(1, "N", 3)):
    """A recurrent layer that runs one step; its state has layers in front of samples, and a rate is one number."""
    net = Net(seed)
    x, state, rate = net.input("x", declared), net.input("state", states), net.input("rate", ())
    scaled = net.op("Unsqueeze", net.op("Mul", x, rate), net.constant([0]))
    weights = [net.weight(1, 12, 4), net.weight(1, 12, 3), net.weight(1, 24)]
    _, last, _ = net.op("LSTM", scaled, *weights, "", state, outputs=3, hidden_size=3)
    y = net.op("Sigmoid", net.linear(net.op("Squeeze", last, net.constant([0])), 3, 5))
    return net.graph(y, last)


def arrays_for(count, seed=3):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(count, 4)).astype(np.float32),
        "state": rng.normal(size=(1, count, 3)).astype(np.float32),
        "rate": np.float32(0.7),
    }


def test_every_sample_is_scored_with_its_own_state():
    count = 300  # more than one batch
    graph, arrays = stepping(0), arrays_for(300)
    labels = np.random.default_rng(0).integers(0, 5, count)
    given_outputs = run(graph, {**arrays, "rate": np.array(arrays["rate"])}, "onnxruntime")[0]
    scores = evaluate(graph, {**arrays, "labels": labels}, score_output=graph.outputs[0].name)
    assert scores.metric == np.mean(given_outputs.argmax(axis=1) == labels)
    assert scores.samples == count


def test_a_state_that_was_exported_for_one_sample_is_that_of_each():
    graph, arrays = stepping(0, states=(1, 1, 3)), arrays_for(40)
    one = {**arrays, "state": arrays["state"][:, :1]}
    labels = np.random.default_rng(0).integers(0, 5, 40)
    every = {**arrays, "state": np.repeat(one["state"], 40, axis=1)}
    expected = run(stepping(0), {**every, "rate": np.array(arrays["rate"])}, "onnxruntime")[0]
    scores = evaluate(graph, {**one, "labels": labels}, score_output=graph.outputs[0].name)
    assert (scores.metric, scores.samples) == (np.mean(expected.argmax(axis=1) == labels), 40)
    merged = mal_graph.assemble(graph, stepping(1, states=(1, 1, 3)), calibrate=one, method="union", budget="full")
    assert merged.passed


def test_arrays_that_hold_other_numbers_of_samples_are_refused():
    arrays = {**arrays_for(30), "state": arrays_for(29)["state"], "labels": np.zeros(30, np.int64)}
    with pytest.raises(DataError, match=r"differ in their number of samples: 'x' 30, 'state' 29, 'labels' 30"):
        evaluate(stepping(0), arrays)


def test_what_does_not_fit_is_told_with_the_axes():
    arrays = {**arrays_for(30), "rate": np.ones(30, np.float32), "labels": np.zeros(30, np.int64)}
    where = "samples along the first axis, those of 'state' along axis 1, one value as 'rate'"
    with pytest.raises(DataError, match=where):
        evaluate(stepping(0), arrays)


@pytest.mark.parametrize("calibrate", [None, 40], ids=["noise", "given"])
def test_models_with_a_state_and_a_number_become_a_union(calibrate):
    graphs = stepping(0), stepping(1)
    given_inputs = None if calibrate is None else arrays_for(calibrate)
    united = mal_graph.assemble(*graphs, method="union", budget="full", calibrate=given_inputs)
    inputs = arrays_for(6, seed=4)
    means = [np.mean(pair, axis=0) for pair in zip(*(run(graph, inputs) for graph in graphs), strict=True)]
    assert deviation(run(united.graph, inputs), means) < 1e-5
