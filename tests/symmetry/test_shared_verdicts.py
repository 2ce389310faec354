"""Verdicts that hold for two networks: they are what each would have been given, and shared nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Counting, Net, cnn, mlp, noisy, reseeded, vit
from hypothesis import given, settings
from hypothesis import strategies as st
from setting_nets import convolved, with_grid

from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.network import probe
from mal_graph.operators import GroupState
from mal_graph.symmetry import Network, axis_groups, verdicts_from, verify
from mal_graph.workflows import silent
from mal_graph.workflows.steps import verified_groups


def filled(number=0.5):
    """A network with a number among its operators."""
    net = Net(0)
    x = net.op("Mul", net.linear(net.input(), 8, 6), net.constant(np.float32(number)))
    return net.graph(net.linear(net.op("Relu", x), 6, 3))


NETWORKS = {
    "mlp": mlp,
    "convolutions": lambda: cnn(concat=True),
    "depthwise": lambda: cnn((4,), blocks=1, depthwise=True, residual=False, size=4),
    "half precision": lambda: mlp(dtype="float16"),
    "attention": vit,
    "inputs prepared": convolved,
    "with a grid": with_grid,
    "with a number": filled,
}


def verified(graph, **options):
    """A network, verified by itself."""
    return Network(graph, verify(graph, axis_groups(graph), **options))


def shared(known, other):
    """What one network's verdicts say of another."""
    return verdicts_from(known, other, axis_groups(other))


def told(groups):
    """All that is known of groups."""
    places = [[member.positions.tolist() for member in group.members] for group in groups.groups]
    return groups.groups, places, groups.parameters, groups.layers


@settings(max_examples=8)
@given(st.sampled_from(list(NETWORKS)), st.integers(1, 99))
def test_shared_verdicts_are_what_a_verification_of_its_own_gives(kind, seed):
    """Number by number: how far each group moved, and what was left out."""
    base = NETWORKS[kind]()
    other = reseeded(base, seed)
    own = verify(other, axis_groups(other))
    found = shared(verified(base), other)
    assert found is not None
    assert told(found) == told(own)


def test_two_networks_of_one_kind_are_verified_once():
    runner, known = Counting(), []
    first = verified_groups(cnn(), MergeConfig(), runner, silent, known)
    before, runner.runs = runner.runs, 0
    second = verified_groups(noisy(cnn(), 0.5, 1), MergeConfig(), runner, silent, known)
    assert second.groups == first.groups
    assert len(known) == 2
    assert runner.runs < before / 4  # the probe alone


CHANGED = {
    "a number": (filled, lambda: filled(0.6)),
    "how inputs are prepared": (convolved, lambda: convolved(mean=(0.5, 0.5, 0.5))),
    "a grid": (with_grid, lambda: with_grid(step=2.0)),
    "an operator": (lambda: vit(activation="Gelu"), lambda: vit(activation="Relu")),
    "a width": (mlp, lambda: mlp((8, 5, 7, 3))),
    "an opset": (mlp, lambda: replace(mlp(), opsets={"": 17})),
    "an attribute": (cnn, lambda: with_attribute(cnn(), "BatchNormalization", "epsilon", 1e-3)),
}


def with_attribute(graph, op, name, value):
    """The graph with another attribute in its last operator of a kind."""
    index = max(i for i, node in enumerate(graph.nodes) if node.op == op)
    node = graph.nodes[index]
    return graph.with_node(index, replace(node, attributes={**node.attributes, name: value}))


@pytest.mark.parametrize(("build", "other"), CHANGED.values(), ids=CHANGED)
def test_networks_that_differ_in_more_than_what_is_drawn_share_nothing(build, other):
    assert shared(verified(build()), build()) is not None
    assert shared(verified(build()), other()) is None


def test_what_did_not_pass_is_tried_on_each_network(monkeypatch):
    base = cnn()
    known = verified(base)
    index = known.groups.usable()[0]
    left = known.groups.with_states({index: (GroupState.UNVERIFIED, "no verdict")})
    assert shared(Network(base, left), base) is None
    assert shared(Network(base, axis_groups(base)), base) is None  # nobody verified it


def test_other_members_share_nothing():
    base = cnn()
    known, groups = verified(base), axis_groups(base)
    group = groups.groups[groups.usable()[0]]
    place = groups.groups.index(group)
    fewer = replace(group, members=group.members[:-1])
    turned = replace(group.members[0], positions=group.members[0].positions[::-1])
    moved = replace(group, members=(turned, *group.members[1:]))
    for other in (fewer, moved):
        changed = replace(groups, groups=(*groups.groups[:place], other, *groups.groups[place + 1 :]))
        assert verdicts_from(known, base, changed) is None


def test_other_inputs_of_the_probe_share_nothing():
    base = mlp()
    probed = probe(base, registry.runner(), seed=1)
    assert verdicts_from(verified(base), base, axis_groups(base, probed)) is None
