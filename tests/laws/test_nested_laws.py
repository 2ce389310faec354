"""Laws of units inside units and across each other: copies with all of them in another order give back the base."""

import numpy as np
import pytest
from builders import deviation, inputs_of, network, reseeded, run
from hypothesis import given, settings
from hypothesis import strategies as st
from nested_nets import NETS, attention, grouped, permuted

import mal_graph
from mal_graph.matching import assign_units, correspond, match_layers
from mal_graph.matching.nested_orders import Nests

SEEDS = st.integers(0, 10_000)


def far(graph, other):
    inputs = inputs_of(other)
    return deviation(run(graph, inputs), run(other, inputs))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", list(NETS))
@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, lam=st.sampled_from([0.3, 0.5, 1.0]))
def test_a_copy_in_another_order_gives_back_the_base_and_keeps_nothing(name, seed, lam):
    base = NETS[name](seed=seed % 7)
    donor = permuted(base, seed)
    assert far(donor, base) <= 1e-6
    result = mal_graph.assemble(base, donor, lam=lam)
    step = result.merged[0]
    assert far(result.graph, base) <= 1e-5
    assert not step.plan.skipped
    assert not step.plan.dropped
    assert not step.promises.kept
    assert all(check.passed is not False for check in result.checks)


@pytest.mark.parametrize("name", ["heads", "heads with RMSNorms", "grouped", "blocks of blocks"])
def test_planted_orders_are_found_in_noisy_copies(name):
    base = NETS[name]()
    exact, noisy = (permuted(base, 3, noise) for noise in (0.0, 0.1))
    found, expected = (correspond(network(base), network(d), match_layers(base, d)) for d in (noisy, exact))
    for mine, planted in zip(assign_units(found).orders, assign_units(expected).orders, strict=True):
        assert np.array_equal(mine, planted)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", list(NETS))
def test_lambda_one_is_the_donor_for_networks_of_their_own(name):
    base = NETS[name]()
    donor = reseeded(base, 5)
    result = mal_graph.assemble(base, donor, lam=1.0)
    assert not result.merged[0].plan.skipped
    assert far(result.graph, donor) <= 1e-5
    assert all(check.passed is not False for check in result.checks)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("build", [attention, lambda **sizes: grouped(sizes["heads"] * sizes["size"], sizes["heads"])])
@pytest.mark.parametrize("sizes", [(3, 4), (4, 3), (2, 6), (5, 2)])
def test_other_numbers_of_blocks_and_sizes_inside_meet_in_what_they_have_in_common(build, sizes):
    """A donor with other blocks of other sizes: what has a partner is merged, and the checks hold at any lambda."""
    base = build(heads=3, size=4, seed=0)
    donor = build(heads=sizes[0], size=sizes[1], seed=1)
    for lam in (0.0, 0.5):
        result = mal_graph.assemble(base, donor, lam=lam)
        assert all(check.passed is not False for check in result.checks)
        if not lam:
            assert far(result.graph, base) <= 1e-6


def test_an_order_inside_that_is_wrong_is_seen_by_the_checks(monkeypatch):
    base = attention()
    donor = permuted(base, 1)
    inside = Nests.inside

    def turned(self, pairs, outer, tables):
        orders = inside(self, pairs, outer, tables)
        return {pair: np.roll(order.reshape(len(outer), -1), 1, axis=1).ravel() for pair, order in orders.items()}

    monkeypatch.setattr(Nests, "inside", turned)
    step = mal_graph.assemble(base, donor, lam=0.5).merged[0]
    assert step.promises.kept or step.plan.skipped
