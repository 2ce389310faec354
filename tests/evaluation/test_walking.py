"""A walk in stages reads what a run of the whole model does, and runs no operator twice while memory lasts."""

from collections import Counter

import numpy as np
import pytest
from builders import Net, cnn, mlp

from mal_graph import registry
from mal_graph.evaluation import Stream, Walk, find_batches, find_walk_batches, walk_together, walking
from mal_graph.network import probe

SAMPLES = 70


def with_shapes(seed=0):
    """A network that computes a shape of its inputs, whose batch is open, and reads it late."""
    net = Net(seed)
    x = net.input("x", ("N", 8))
    shape = net.op("Shape", x)
    y = net.op("Relu", net.linear(x, 8, 12))
    y = net.op("Relu", net.linear(y, 12, 8))
    return net.graph(net.linear(net.op("Reshape", net.op("Add", y, x), shape), 8, 3))


def fixed(seed=0):
    net = Net(seed)
    y = net.op("Relu", net.linear(net.input("x", (4, 8)), 8, 12))
    return net.graph(net.linear(y, 12, 3))


GRAPHS = {"mlp": mlp, "residual cnn": cnn, "a shape": with_shapes, "a fixed batch": fixed}


class Counting:
    """A runner that counts which operators are run on the first batch."""

    def __init__(self):
        self.runner, self.opened = registry.runner(), Counter()

    def open(self, graph, **options):
        self.opened.update(node.outputs[0] for node in graph.nodes)
        return self.runner.open(graph, **options)


def inputs_of(graph):
    like = probe(graph).inputs
    rng = np.random.default_rng(3)
    return {name: rng.standard_normal((SAMPLES, *array.shape[1:])).astype(array.dtype) for name, array in like.items()}


def stages_of(graph):
    """Every tensor of a float operator, two in a stage."""
    names = [node.outputs[0] for node in graph.nodes if node.op != "Shape"]
    return [names[place : place + 2] for place in range(0, len(names), 2)]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("most", [walking.MAX_KEPT, 0], ids=["kept", "not kept"])
def test_every_stage_reads_what_the_whole_model_gives(name, most, monkeypatch):
    monkeypatch.setattr(walking, "MAX_KEPT", most)
    graph = GRAPHS[name]()
    inputs, stages = inputs_of(graph), stages_of(graph)
    runner = Counting()
    walk = Walk(graph, inputs, runner, stages)
    batches = find_walk_batches([walk])
    assert batches[-1].stop == (SAMPLES - SAMPLES % 4 if name == "a fixed batch" else SAMPLES)
    runner.opened.clear()
    tensors = [name for stage in stages for name in stage]
    stream = Stream(graph, inputs, registry.runner(), tensors)
    for stage in stages:
        for batch, (values,) in zip(batches, walk_together([walk], batches, [{}]), strict=True):
            whole = stream.read(batch, stage)
            assert list(values) == stage
            for tensor in stage:
                np.testing.assert_array_equal(values[tensor], whole[tensor])
    if most:
        assert set(runner.opened.values()) == {1}
    elif len(stages) > 2:
        assert max(runner.opened.values()) > 1


def test_weights_that_are_set_between_stages_count_from_then_on():
    graph = mlp((8, 12, 6, 4))
    inputs, (first, last) = inputs_of(graph), (graph.nodes[1].outputs[0], graph.nodes[-1].outputs[0])
    changed = {"w2": np.zeros_like(graph.weights["w2"].read())}
    walk = Walk(graph, inputs, registry.runner(), [[first], [last]], ["w2"])
    batches = find_walk_batches([walk])
    before = [values[first] for values in walk.next_stage(batches, {})]
    after = [values[last] for values in walk.next_stage(batches, changed)]
    other = graph.with_weights(changed)
    stream = Stream(other, inputs, registry.runner(), [first, last])
    for batch, early, late in zip(find_batches([(stream, [first, last])]), before, after, strict=True):
        whole = stream.read(batch, [first, last])
        np.testing.assert_array_equal(early, whole[first])
        np.testing.assert_array_equal(late, whole[last])
