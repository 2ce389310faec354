"""What a network decided is computed of the mean; where that cannot be, the output is refused, not averaged."""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, run

import mal_graph
from mal_graph.errors import MatchError


def first_of(net, x, count):
    """So many columns."""
    return net.op("Slice", x, *(net.constant([number]) for number in (0, count, 1)))


def boxes(net, x):
    """The boxes of each of ten places that are kept."""
    found = net.op("Reshape", net.linear(x, 8, 40), net.constant([-1, 10, 4]))
    scores = net.op("Reshape", net.linear(x, 8, 10), net.constant([-1, 1, 10]))
    limits = net.constant([3]), *(net.constant(np.float32(number)) for number in (0.9, -10))
    kept = net.op("NonMaxSuppression", found, scores, *limits)
    return net.op("GatherND", found, net.op("Gather", kept, net.constant([0, 2]), axis=1))


DECISIONS = {
    "highest scores": lambda net, y: net.op("TopK", y, net.constant([3]), outputs=2),
    "highest scores alone": lambda net, y: net.op("TopK", y, net.constant([3]), outputs=2)[:1],
    "one-hot class": lambda net, y: [net.op("Hardmax", y, axis=1)],
    "class as a float": lambda net, y: [net.op("Cast", net.op("ArgMax", y, axis=1, keepdims=0), to=1)],
    "scaled class": lambda net, y: [
        net.op("Mul", net.op("Cast", net.op("ArgMax", y, axis=1), to=1), net.constant(np.float32(2), "two"))
    ],
    "over a threshold": lambda net, y: [
        net.op("Cast", net.op("Greater", y, net.constant(np.float32(0.1), "limit")), to=1)
    ],
}
AVERAGED = {
    "a ReLU of truths": lambda net, y: net.linear(
        net.op("Mul", y, net.op("Cast", net.op("Greater", y, net.constant(np.float32(0), "zero")), to=1)), 5, 4
    ),
    "a choice by the inputs": lambda net, y: net.op(
        "GatherElements", y, net.op("ArgMax", first_of(net, net.inputs[0].name, 5), axis=1), axis=1
    ),
    "integers for floats": lambda net, y: net.op(
        "DequantizeLinear",
        net.op(
            "QuantizeLinear", y, scale := net.constant(np.float32(0.01), "scale"), z := net.constant(np.int8(0), "z")
        ),
        scale,
        z,
    ),
}
REFUSED = {
    "what is chosen by another output": lambda net, y, x: net.op(
        "GatherElements", net.linear(x, 8, 5), net.op("ArgMax", y, axis=1), axis=1
    ),
    "a layer behind the highest scores": lambda net, y, x: net.linear(
        net.op("TopK", y, net.constant([3]), outputs=2)[0], 3, 4
    ),
    "boxes that do not overlap": lambda net, y, x: boxes(net, x),
}


def scored(seed):
    """A classifier of 5 classes, and what is made of its scores."""
    net = Net(seed)
    x = net.input("x", ("N", 8))
    y = net.linear(net.op("Relu", net.linear(x, 8, 12)), 12, 5)
    return net, x, y


def classifier(seed):
    net, _, y = scored(seed)
    return net.graph(y)


@pytest.mark.parametrize("name", DECISIONS)
def test_what_is_decided_is_decided_of_the_mean(name):
    def decided(seed):
        net, _, y = scored(seed)
        return net.graph(*DECISIONS[name](net, y))

    inputs = inputs_of(classifier(0), seed=5)
    united = mal_graph.assemble(decided(0), decided(1), method="union", budget="full")
    mean = np.mean([run(classifier(seed), inputs)[0] for seed in (0, 1)], axis=0)
    net = Net()
    expected = run(net.graph(*DECISIONS[name](net, net.input("x", ("N", 5)))), {"x": mean.astype(np.float32)})
    assert deviation(run(united.graph, inputs), expected) < 1e-5


@pytest.mark.parametrize("name", AVERAGED)
def test_outputs_whose_places_mean_the_same_are_averaged(name):
    def made(seed):
        net, _, y = scored(seed)
        return net.graph(AVERAGED[name](net, y))

    graphs = made(0), made(1)
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    mean = np.mean([run(graph, inputs)[0] for graph in graphs], axis=0)
    assert deviation(run(united.graph, inputs), [mean]) < 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_single_tensor_decides_is_refused(name):
    def made(seed):
        net, x, y = scored(seed)
        return net.graph(REFUSED[name](net, y, x))

    with pytest.raises(MatchError, match=r"cannot be averaged: it holds what was decided, and no tensor of floats"):
        mal_graph.assemble(made(0), made(1), method="union", budget="full")


def pooled(seed, made):
    """A network whose convolution is pooled; `made` says what it gives of maps, largest values and places."""
    net = Net(seed)
    y = net.conv(net.input("x", ("N", 3, 8, 8)), 3, 4)
    return net.graph(*made(net, y, *net.op("MaxPool", y, outputs=2, kernel_shape=[2, 2], strides=[2, 2])))


def gated(seed, made):
    """A network that tells which hidden units are positive, and goes on with these."""
    net = Net(seed)
    y = net.linear(net.input("x", ("N", 8)), 8, 12)
    told = net.op("Greater", y, net.constant(np.float32(0), "zero"))
    return net.graph(*made(net, y, net.op("Mul", y, net.op("Cast", told, to=1)), told))


def test_an_operator_whose_outputs_are_decided_in_part_computes_them_all_of_the_mean():
    graphs = [pooled(seed, lambda net, y, largest, places: (largest, places)) for seed in (0, 1)]
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    maps = [run(pooled(seed, lambda net, y, largest, places: (y,)), inputs)[0] for seed in (0, 1)]
    net = Net()
    y = net.input("x", ("N", *maps[0].shape[1:]))
    alone = net.graph(*net.op("MaxPool", y, outputs=2, kernel_shape=[2, 2], strides=[2, 2]))
    expected = run(alone, {"x": np.mean(maps, axis=0, dtype=np.float32)})
    assert deviation(run(united.graph, inputs), expected) < 1e-5
    assert [name for node in united.graph.nodes for name in node.outputs].count(graphs[0].outputs[0].name) == 1


@pytest.mark.parametrize(
    ("made", "last"),
    [(pooled, lambda net, values: net.conv(values, 4, 6)), (gated, lambda net, values: net.linear(values, 12, 5))],
)
def test_what_is_decided_inside_a_network_is_decided_there_and_of_the_mean(made, last):
    """It is an output, and a layer that is averaged goes on with it."""
    graphs, apart = (
        [made(seed, given) for seed in (0, 1)]
        for given in (
            lambda net, y, values, told: (last(net, values), told),
            lambda net, y, values, told: (last(net, values), y),
        )
    )
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    outputs, hidden = (np.mean([run(graph, inputs)[place] for graph in apart], axis=0) for place in (0, 1))
    net = Net()
    y = net.input("x", ("N", *hidden.shape[1:]))
    if made is gated:
        told = net.op("Greater", y, net.constant(np.float32(0), "zero"))
    else:
        _, told = net.op("MaxPool", y, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    expected = run(net.graph(told), {"x": hidden.astype(np.float32)})
    given = run(united.graph, inputs)
    assert deviation(given[:1], [outputs]) < 1e-5
    assert np.mean(given[1] == expected[0]) > 0.999
