"""Groups that a shared tensor alone holds together are listed, and no others."""

import pytest
from builders import Net, mlp

from mal_graph.network import with_copies
from mal_graph.reporting import inspect_document, text_of
from mal_graph.symmetry import axis_groups
from mal_graph.symmetry.ties import find_ties


def towers(*, is_shared, seed=0):
    """Two inputs through a hidden layer each, of the same weights or of their own; both are multiplied at the end."""
    net = Net(seed)
    first = net.weight(7, 5), net.weight(7), net.weight(3, 7)
    second = first if is_shared else (net.weight(7, 5), net.weight(7), net.weight(3, 7))
    ends = []
    for name, (weight, bias, last) in (("a", first), ("b", second)):
        x = net.op("Relu", net.op("Gemm", net.input(name, ("N", 5)), weight, bias, transB=1))
        ends.append(net.op("Gemm", x, last, transB=1))
    return net.graph(net.op("Mul", *ends))


def test_units_of_shared_towers_are_tied_on_purpose():
    graph = towers(is_shared=True)
    groups = axis_groups(graph)
    (tie,) = find_ties(graph, groups)
    (group,) = [group for group in groups.groups if group.is_usable and group.units == 7]
    assert tie.group == group.name
    assert tie.parts == 2
    assert set(tie.tensors) == {member.tensor for member in group.members}
    document = inspect_document(graph, groups)
    assert [entry.group for entry in document.ties] == [group.name]
    assert f"{group.name} is tied on purpose: 2 groups share" in text_of(document, width=500)


@pytest.mark.parametrize("graph", [towers(is_shared=False), mlp((6, 9, 8, 4))])
def test_where_nothing_is_shared_nothing_is_tied(graph):
    assert find_ties(graph, axis_groups(graph)) == ()


def test_a_tensor_that_is_shared_by_layers_of_one_residual_stream_ties_nothing():
    """The units of the stream are the same whatever is stored once."""
    net = Net(0)
    x, weight = net.linear(net.input("x", ("N", 4)), 4, 6), net.weight(6, 6)
    for _ in range(2):
        x = net.op("Add", x, net.op("Relu", net.op("Gemm", x, weight, transB=1)))
    graph = net.graph(net.linear(x, 6, 3))
    assert any(group.is_usable for group in axis_groups(graph).groups)
    assert find_ties(graph, axis_groups(graph)) == ()


def test_every_reader_but_the_first_gets_a_copy_of_its_own():
    graph = towers(is_shared=True)
    apart, stored = with_copies(graph, graph.weights)
    assert len(stored) == 3
    assert all(len(readers) == 1 for name, readers in apart.consumers.items() if name in apart.weights)
