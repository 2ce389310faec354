"""A network holds what is known of one graph, each thing computed once."""

import pytest
from builders import cnn, mlp

from mal_graph.errors import DataError
from mal_graph.network import find_layers
from mal_graph.symmetry import GroupState, Network, axis_groups, build_network, find_coupled, find_traces


def test_a_network_is_found_and_verified_in_one_call():
    network = build_network(mlp())
    assert {group.state for group in network.groups.groups if group.units in (16, 12)} == {GroupState.VERIFIED}
    assert network.layers == find_layers(network.graph)
    assert network.parameters is network.groups.parameters
    assert network.probe.inputs.keys() == {value.name for value in network.graph.inputs}


def test_groups_may_be_taken_on_trust():
    groups = build_network(mlp(), verified=False).groups.groups
    assert GroupState.CANDIDATE in {group.state for group in groups}
    assert GroupState.VERIFIED not in {group.state for group in groups}


@pytest.mark.parametrize("name", ["layers", "traces", "coupled"])
def test_what_a_network_knows_is_computed_once(name):
    graph = cnn()
    network = Network(graph, axis_groups(graph))
    assert getattr(network, name) is getattr(network, name)


def test_a_network_tells_which_groups_are_resized_together():
    graph = cnn((4, 6), concat=True)
    network = Network(graph, axis_groups(graph))
    assert network.coupled == find_coupled(network.groups, find_traces(graph, network.groups))


def test_other_weights_leave_the_groups_as_they_are():
    network = build_network(mlp(seed=0), verified=False)
    other = network.with_graph(mlp(seed=1))
    assert other.groups is network.groups
    assert other.graph is not network.graph


def test_inputs_of_no_name_of_the_model_are_refused():
    with pytest.raises(DataError, match="no input 'z'"):
        build_network(mlp(), input_shapes={"z": (3, 8)})
