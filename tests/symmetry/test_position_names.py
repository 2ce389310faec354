"""Names of positions: equal where the same indices of inputs and outputs are read or given, and only there."""

import numpy as np
import pytest
from builders import Net, network


def names_of(graph, tensor, axis, called=None):
    found = network(graph).position_names(called)
    return found.on(tensor, axis, graph.weights[tensor].shape[axis])


def first_weight(graph):
    return next(name for name, weight in graph.weights.items() if weight.is_float and len(weight.shape) == 2)


def selecting(indices, width=4):
    net = Net(0)
    picked = net.op("Gather", net.input("x", ("N", 8)), net.constant(np.array(indices)), axis=1)
    return net.graph(net.op("Gemm", picked, net.weight(5, width), transB=1))


def flattened(perm):
    net = Net(0)
    x = net.op("Transpose", net.input("x", ("N", 2, 3, 4)), perm=perm)
    return net.graph(net.op("Gemm", net.op("Flatten", x), net.weight(5, 24), transB=1))


def test_features_that_are_selected_carry_their_number():
    one, other = selecting([0, 2, 4, 6]), selecting([4, 0, 6, 1])
    mine, theirs = (names_of(graph, first_weight(graph), 1) for graph in (one, other))
    assert mine.all()
    assert theirs.tolist() == [mine[2], mine[0], mine[3], theirs[3]]
    assert theirs[3] not in mine


def test_a_flattened_image_carries_channel_row_and_column():
    mine = names_of(flattened([0, 1, 2, 3]), first_weight(flattened([0, 1, 2, 3])), 1).reshape(2, 3, 4)
    theirs = names_of(flattened([0, 2, 3, 1]), first_weight(flattened([0, 2, 3, 1])), 1).reshape(3, 4, 2)
    assert len(np.unique(mine)) == 24
    assert (theirs == mine.transpose(1, 2, 0)).all()


def test_another_input_has_other_names_unless_it_is_called_the_same():
    graph = selecting([0, 1, 2, 3])
    plain, called = (names_of(graph, first_weight(graph), 1, names) for names in (None, {"x": "image"}))
    assert not set(plain.tolist()) & set(called.tolist())


def test_hidden_units_have_no_names():
    net = Net(1)
    hidden = net.op("Relu", net.op("Gemm", net.input("x", ("N", 6)), net.weight(9, 6), transB=1))
    graph = net.graph(net.op("Gemm", hidden, net.weight(3, 9), transB=1))
    first, second = [name for name, weight in graph.weights.items() if weight.shape in ((9, 6), (3, 9))]
    assert not names_of(graph, first, 0).any()
    assert not names_of(graph, second, 1).any()
    assert names_of(graph, second, 0).all()


@pytest.mark.parametrize("offset", [0, 2])
def test_a_table_carries_the_values_that_look_it_up(offset):
    def looking_up(table):
        net = Net(0)
        ids = net.input("ids", ("N", 3), "int64")
        new = net.op("Gather", net.constant(np.array(table)), ids, axis=0)
        rows = net.op("Gather", net.weight(7, 5), new, axis=0)
        return net.graph(rows)

    mine = looking_up(range(7))
    moved = [(value + offset) % 7 for value in range(7)]
    theirs = looking_up(moved)
    tensor = next(name for name, weight in mine.weights.items() if weight.shape == (7, 5))
    a, b = names_of(mine, tensor, 0), names_of(theirs, tensor, 0)
    assert a.all()
    assert (b[moved] == a).all()
