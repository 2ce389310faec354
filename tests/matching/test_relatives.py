"""Models that come from one: units are found in their own places, and strays in theirs."""

import numpy as np
from builders import correspondence_of, inputs_of, mlp, permute_weights, run, stored
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.matching import assign_relatives, relatives
from mal_graph.symmetry import axis_groups

WIDTHS = (6, 24, 20, 16, 3)
ONE_RUN = settings(max_examples=12)  # each takes a tenth of a second


def tuned(graph, rng, size):
    """The graph after a little training, so to say."""
    moved = {name: array * (1 + size * rng.standard_normal(array.shape)) for name, array in stored(graph).items()}
    return graph.with_weights({name: array.astype(np.float32) for name, array in moved.items()})


def some_moved(graph, groups, moved, rng):
    """A copy with some units of each group in each other's places, and the orders that undo it."""
    orders = {}
    for index, count in zip(groups.usable(), moved, strict=True):
        taken = np.arange(groups.groups[index].units)
        chosen = rng.choice(len(taken), size=count, replace=False)
        taken[chosen] = np.roll(chosen, 1)
        orders[index] = taken
    weights = permute_weights(stored(graph), [(groups.groups[index], taken) for index, taken in orders.items()])
    return graph.with_weights(weights), [np.argsort(taken) for taken in orders.values()]


@ONE_RUN
@given(
    seed=st.integers(0, 10**6),
    moved=st.sampled_from([(0, 0, 0), (2, 0, 0), (0, 20, 0), (3, 2, 4), (0, 0, 16)]),
    size=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_what_was_reordered_on_the_way_is_put_back_and_nothing_else(seed, moved, size):
    rng = np.random.default_rng(seed)
    base = mlp(WIDTHS, seed)
    donor, orders = some_moved(tuned(base, rng, size), axis_groups(base), moved, rng)
    found = assign_relatives(correspondence_of(base, donor))
    assert [order.tolist() for order in found.orders] == [order.tolist() for order in orders]


def with_quiet_units(graph, seed):
    """The graph with noise in the place of eight units of its first layer."""
    rng, weights = np.random.default_rng(seed), stored(graph)
    into, out_of = (weights[graph.nodes[place].inputs[1]].copy() for place in (0, 2))
    into[:8] = 1e-3 * rng.standard_normal(into[:8].shape)
    out_of[:, :8] = 1e-3 * rng.standard_normal(out_of[:, :8].shape)
    return graph.with_weights({graph.nodes[0].inputs[1]: into, graph.nodes[2].inputs[1]: out_of})


@ONE_RUN
@given(seed=st.integers(0, 10**6))
def test_units_that_hardly_do_anything_stay_where_they_are(seed):
    """What is left of them is noise, of which any other may look more alike."""
    base = mlp(WIDTHS, seed)
    donor = with_quiet_units(tuned(base, np.random.default_rng(seed), 0.05), 1)
    found = assign_relatives(correspondence_of(with_quiet_units(base, 0), donor))
    assert all(np.array_equal(order, np.arange(len(order))) for order in found.orders)


def test_a_copy_with_few_units_elsewhere_gives_back_the_base_whatever_the_method():
    base, rng = mlp(WIDTHS, 3), np.random.default_rng(3)
    donor, _ = some_moved(base, axis_groups(base), (0, 2, 0), rng)
    result = mal_graph.assemble(base, donor.named("copy"), method="linear", verify=False, compare=False)
    x = inputs_of(base)
    for mine, own in zip(run(result.graph, x), run(base, x), strict=True):
        np.testing.assert_allclose(mine, own, rtol=1e-5, atol=1e-6)  # float32


def test_without_the_search_for_strays_they_stay_where_they_are_stored(monkeypatch):
    monkeypatch.setattr(relatives, "assign_nearest", lambda objective, identity: identity)
    base, rng = mlp(WIDTHS, 3), np.random.default_rng(3)
    donor, orders = some_moved(tuned(base, rng, 0.05), axis_groups(base), (0, 2, 0), rng)
    found = assign_relatives(correspondence_of(base, donor))
    assert [order.tolist() for order in found.orders] != [order.tolist() for order in orders]
