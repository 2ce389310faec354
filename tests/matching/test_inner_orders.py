"""Units that are interchangeable but not assigned: merged in stored order where no other fits better, else kept."""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, network, reseeded, run, shuffle, stored

import mal_graph
from mal_graph.matching import assign_at_random, assign_in_order
from mal_graph.matching.moving_groups import moving_groups
from mal_graph.symmetry import permute_weights

KEPT = "interchangeable but not assigned"


def grouped_net(seed=0):
    """Three blocks of four channels between two plain layers: the blocks are assigned, the channels in them are not."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 5, 5)), 3, 12))
    x = net.op("Relu", net.op("Conv", x, net.weight(12, 4, 3, 3), net.weight(12), group=3, pads=[1] * 4))
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", net.conv(x, 12, 6))), 6, 4))


def copy_of(graph, *, inner, noise=0.0, seed=1):
    """A copy with its blocks shuffled, some of the groups inside them too, and noise on every weight."""
    rng, groups = np.random.default_rng(seed), network(graph).groups
    moving = moving_groups(groups)
    lying_inside = [g for g in groups.usable() if g not in moving and groups.groups[g].units > 1]
    assert lying_inside
    chosen = [*sorted(moving), *lying_inside[:inner]]
    moved = permute_weights(stored(graph), [(groups.groups[g], shuffle(groups.groups[g].units, rng)) for g in chosen])
    noisy = {name: value + noise * value.std() * rng.standard_normal(value.shape) for name, value in moved.items()}
    return graph.with_weights({name: value.astype(np.float32) for name, value in noisy.items()})


def kept_for_inner_order(result):
    return [why for why in result.merged[0].plan.skipped.values() if KEPT in why]


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_where_the_stored_order_fits_best_everything_is_merged(noise):
    base = grouped_net()
    donor = copy_of(base, inner=0, noise=noise)
    result = mal_graph.assemble(base, donor, lam=1.0)
    assert not result.merged[0].plan.skipped
    inputs = inputs_of(base)
    assert deviation(run(result.graph, inputs), run(donor, inputs)) < 1e-5


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("inner", [1, 9])
def test_where_units_inside_blocks_stand_otherwise_their_layers_keep_the_base(inner, noise):
    base = grouped_net()
    donor = copy_of(base, inner=inner, noise=noise)
    result = mal_graph.assemble(base, donor, lam=0.5)
    assert kept_for_inner_order(result)
    if not noise:
        inputs = inputs_of(base)
        assert deviation(run(result.graph, inputs), run(base, inputs)) < 1e-4
        assert not result.merged[0].promises.kept  # not left to the comparison of the outputs


def test_a_network_of_its_own_is_merged_where_the_user_vouches_for_the_order():
    base = grouped_net()
    donor = reseeded(base, 5)
    assert kept_for_inner_order(mal_graph.assemble(base, donor, lam=0.5))
    assert not mal_graph.assemble(base, donor, lam=0.5, assume_ordered=True).merged[0].plan.skipped


def test_controls_are_made_of_what_the_merge_is_made_of():
    """Orders that nobody assigned are not judged: the controls merge the very layers of the merge."""
    base = grouped_net()
    step = mal_graph.assemble(base, copy_of(base, inner=0, noise=0.3), lam=0.5).merged[0]
    correspondence = step.plan.alignment.correspondence
    for control in (assign_at_random(correspondence, 0), assign_in_order(correspondence)):
        assert control.correspondence is correspondence
