"""Laws of networks that lose heads, experts' units, blocks of channels or units of a state, and what lies in these."""

import attention_nets
import expert_nets
import nested_nets
import numpy as np
import pytest
import recurrent_nets
from builders import load
from planted_copies import check_cost, compressible, kept_of, with_copies_of_units

from mal_graph import registry
from mal_graph.compression import Compressible, thin
from mal_graph.symmetry import build_network, deviation

EXTRA = 2

Attention, Recurrent = attention_nets.Kind, recurrent_nets.Kind
KINDS = {
    "heads": nested_nets.attention,
    "one operator": lambda: attending(Attention(heads=4, shared=4)),
    "one operator, written out": lambda: attending(Attention(heads=4, shared=4), "written out"),
    "one operator with biases": lambda: attending(Attention("MultiHeadAttention", bias=True)),
    "a matrix for each head": expert_nets.heads,
    "shared keys": lambda: attending(Attention(heads=6)),
    "shared keys, repeated": lambda: attending(Attention(heads=6), "written out"),
    "shared keys, in groups": lambda: attending(Attention(heads=6), "in groups"),
    "blocks of channels": nested_nets.grouped,
    "experts": expert_nets.experts,
    "experts by einsum": lambda: expert_nets.experts("einsum"),
    "lstm": lambda: recurrent(Recurrent()),
    "lstm with peepholes": lambda: recurrent(Recurrent(peepholes=True, start="stored")),
    "gru, two layers both ways": lambda: recurrent(Recurrent("GRU", 2, (6, 5))),
    "rnn, last step": lambda: recurrent(Recurrent("RNN", reads="last")),
}


def attending(kind, form="whole"):
    return load(attention_nets.attention_net(kind, form))


def recurrent(kind):
    return load(recurrent_nets.recurrent_net(kind))


def given(graph, network):
    """What a graph gives on the inputs that a network was probed on."""
    return registry.runner().open(graph).run(network.probe.inputs)


def each_set(name):
    """The kinds that it is about, with the number of each of their sets that can lose units."""
    network = build_network(KINDS[name]())
    return network, Compressible(network, {}, registry.runner()).sets


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", KINDS)
def test_planted_copies_go_first_and_leave_the_function(name):
    network, sets = each_set(name)
    assert sets
    for one in sets:
        model = compressible(with_copies_of_units(network, (one,), EXTRA, seed=1))
        wide = next(each for each in model.sets if each.name == one.name)
        thinned = thin(model, kept_of(model, {wide.number: one.units}))
        assert deviation(given(thinned, network), given(network.graph, network)) < 1e-4, one.name


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_the_cost_is_what_is_counted_on_the_result_and_within_the_budget(name, share):
    check_cost(compressible(KINDS[name]()), share)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", KINDS)
def test_permuted_units_change_nothing(name):
    model = compressible(KINDS[name]())
    other = nested_nets.permuted(model.network.graph, seed=1)
    twin = Compressible(build_network(other), model.inputs, registry.runner())
    assert deviation(given(other, model.network), given(model.network.graph, model.network)) < 1e-4
    counts = {one.number: (one.units + 1) // 2 for one in model.sets}
    one, another = (thin(each, kept_of(each, counts)) for each in (model, twin))
    assert deviation(given(another, model.network), given(one, model.network)) < 1e-3
    assert deviation(given(one, model.network), given(model.network.graph, model.network)) > 1e-3


def test_blocks_of_a_matrix_go_whole_beside_units_of_all_others():
    """What is left of the units is fitted to the blocks that are left: here to all that counts, so nothing is lost."""
    graph = nested_nets.block_diagonal()
    values = {name: graph.weights[name].read().copy() for name in ("w0", "w1", "w7")}
    for name in ("w0", "w1"):
        values[name].reshape(3, 4, -1)[:, 2] = 0.0
    values["w7"].reshape(-1, 3, 5)[:, 1] = 0.0
    model = compressible(graph.with_weights(values))
    blocks, units = (next(one.number for one in model.sets if one.units == size) for size in (3, 4))
    whole = model.network.graph
    thinned = thin(model, {blocks: np.array([[0], [2]]), units: np.array([[0], [1], [3]])})
    assert deviation(given(thinned, model.network), given(whole, model.network)) < 1e-4
