"""Graphs that differ in nothing but fed weights share a session, and compute what each computes by itself."""

from dataclasses import replace

import numpy as np
from builders import mlp

from mal_graph import registry
from mal_graph.graph import Node, weight_of
from mal_graph.merging import Sessions, run_outputs
from mal_graph.network import probe


class Counting:
    """A runner that counts what it opens."""

    def __init__(self):
        self.runner = registry.runner()
        self.opened = 0

    def open(self, *arguments, **options):
        self.opened += 1
        return self.runner.open(*arguments, **options)


def scaled(graph, names, factor):
    """The graph with some weights multiplied."""
    return graph.with_weights({name: graph.weights[name].read() * np.float32(factor) for name in names})


def outputs_of(graphs):
    """What each graph computes by shared sessions and by itself, and how many sessions were shared."""
    runner, inputs = Counting(), probe(graphs[0]).inputs
    sessions = Sessions(runner)
    shared = [sessions.open(graph).outputs(inputs) for graph in graphs]
    alone = [run_outputs(graph, inputs, registry.runner()) for graph in graphs]
    for one, other in zip(shared, alone, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in other)
    return runner.opened, shared


def test_graphs_of_other_weights_share_a_session():
    graph = mlp()
    opened, outputs = outputs_of([graph, scaled(graph, graph.weights, 2), graph])
    assert opened == 1
    assert not np.array_equal(*(next(iter(made.values())) for made in outputs[:2]))


def test_a_number_that_is_stored_and_not_fed_has_a_session_of_its_own():
    graph = mlp()
    node = Node("scaled", "Mul", (graph.nodes[-1].outputs[0], "factor"), ("scaled",))
    graph = graph.with_nodes_behind(len(graph.nodes) - 1, [node], [weight_of("factor", np.float32(2))])
    graph = replace(graph, outputs=(replace(graph.outputs[0], name="scaled"),))
    assert outputs_of([graph, scaled(graph, ["factor"], 3)])[0] == 2


def test_other_operators_have_a_session_of_their_own():
    graph = mlp()
    node = next(node for node in graph.nodes if node.op == "Relu")
    place = graph.nodes.index(node)
    assert outputs_of([graph, graph.with_node(place, replace(node, op="Tanh"))])[0] == 2
