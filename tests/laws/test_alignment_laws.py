"""Laws of the alignment: planted orders are found, and no single update gains."""

import itertools

import numpy as np
import pytest
from builders import cnn, correspondence_of, light, mlp, narrower, permuted_copy, wider
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mal_graph.matching import assign_at_random, assign_units
from mal_graph.matching.objective import Objective
from mal_graph.matching.orders import (
    as_permutation,
    cropped_identity,
    match_units,
    random_order,
    score_at_random,
    score_order,
)
from mal_graph.symmetry import axis_groups

DRAWS = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "positive": lambda rng, shape: rng.random(shape),
    "heavy-tailed": lambda rng, shape: rng.standard_t(1.5, shape),
    "three values": lambda rng, shape: rng.integers(-1, 2, shape),
    "dead rows": lambda rng, shape: (
        rng.standard_normal(shape) * (rng.random((shape[0], *[1] * (len(shape) - 1))) < 0.6)
    ),
    "equal rows": lambda rng, shape: np.repeat(rng.standard_normal(shape)[:1], shape[0], axis=0),
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.3),
}
NETS = {
    "mlp": lambda seed: mlp((9, 16, 12, 10), seed),
    "deep mlp": lambda seed: mlp((9, 12, 12, 12, 12, 5), seed),
    "matmul mlp": lambda seed: mlp((9, 14, 10, 4), seed, "matmul"),
    "residual cnn": lambda seed: cnn((8, 12), 1, seed),
    "flat cnn with concat": lambda seed: cnn((6, 8), 1, seed, bn=False, head="flatten", concat=True),
    "depthwise cnn": lambda seed: cnn((6, 8), 1, seed, depthwise=True, inner=10),
}
PLANTS = {"shuffled": permuted_copy, "narrower": narrower, "wider": wider}


def redrawn(graph, draw, seed):
    rng = np.random.default_rng(seed)
    floats = [w for w in graph.weights.values() if w.is_float and w.size > 1]
    return graph.with_weights({w.name: draw(rng, w.shape).astype(np.float32) for w in floats})


def planted_orders(found, orders):
    return tuple(np.asarray(orders[pair.base]) for pair in found.pairs)


@pytest.mark.slow
@given(
    st.sampled_from(sorted(NETS)),
    st.sampled_from(sorted(PLANTS)),
    st.sampled_from(sorted(DRAWS)),
    st.integers(0, 10**6),
)
def test_the_objective_is_at_least_the_planted_one(net, plant, draw, seed):
    base = redrawn(NETS[net](seed), DRAWS[draw], seed)
    donor, orders = PLANTS[plant](base, axis_groups(base), seed)
    found = correspondence_of(base, donor)
    assert not found.refused
    planted = Objective(found).value(planted_orders(found, orders))
    assert assign_units(found).objective >= planted - 1e-6 * abs(planted)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", range(4))
def test_planted_units_are_recovered_on_gaussian_weights_of_one_scale(net, plant, seed):
    base = redrawn(NETS[net](seed), DRAWS["gaussian"], seed)
    donor, orders = PLANTS[plant](base, axis_groups(base), seed)
    found = correspondence_of(base, donor)
    assert all(map(np.array_equal, assign_units(found).orders, planted_orders(found, orders)))


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "resnet50", "inception_v2", "densenet121"])
def test_a_planted_permutation_of_every_group_of_a_real_architecture_is_recovered(name):
    base = light(name, seed=1)
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    found = correspondence_of(base, donor)
    assert len(found.pairs) == len(orders)
    assert all(map(np.array_equal, assign_units(found).orders, planted_orders(found, orders)))


@pytest.mark.slow
@given(st.sampled_from(sorted(NETS)), st.integers(0, 10**6))
def test_no_update_of_one_pair_gains(net, seed):
    base, donor = NETS[net](seed), NETS[net](seed + 1)
    found = correspondence_of(base, donor)
    done, problem = assign_units(found), Objective(found)
    for pair, order in enumerate(done.orders):
        table = problem.scores(pair, done.orders)
        best = score_order(table, match_units(table))
        assert best <= score_order(table, order) + 1e-6 * max(1.0, abs(done.objective))


@pytest.mark.slow
@given(st.sampled_from(sorted(NETS)), st.integers(0, 10**6))
def test_the_objective_is_never_below_the_identitys_and_never_falls(net, seed):
    base, donor = NETS[net](seed), NETS[net](seed + 1)
    found = correspondence_of(base, donor)
    done = assign_units(found)
    identity = Objective(found).value([cropped_identity(a, b) for a, b in found.units])
    assert done.objective >= identity - 1e-6 * abs(identity)
    assert all(b >= a - 1e-6 * abs(a) for a, b in itertools.pairwise(done.history))
    for _, history in done.starts:
        assert all(b >= a - 1e-6 * abs(a) for a, b in itertools.pairwise(history))
        assert history[-1] <= done.objective + 1e-6 * abs(done.objective)


def test_aligning_twice_gives_the_same_orders():
    found = correspondence_of(cnn((8, 12), 1, 0), cnn((6, 16), 1, 1))
    assert all(map(np.array_equal, assign_units(found).orders, assign_units(found).orders))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_the_rectangular_optimum_is_that_of_the_padded_square(units, others, seed):
    score = np.random.default_rng(seed).standard_normal((units, others))
    square = np.zeros((max(units, others),) * 2)
    square[:units, :others] = score
    padded = square[linear_sum_assignment(square, maximize=True)].sum()
    # Padding lets a unit take a zero instead of a partner only if all of the shorter side are taken: equal optimum.
    assert score_order(score, match_units(score)) == pytest.approx(padded)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_both_solvers_find_the_same_value(units, others, seed):
    score = np.random.default_rng(seed).integers(-4, 5, (units, others)).astype(float)
    rows, columns = linear_sum_assignment(score, maximize=True)
    assert score_order(score, match_units(score)) == pytest.approx(score[rows, columns].sum())


def test_the_random_value_is_the_mean_over_random_assignments():
    rng = np.random.default_rng(0)
    score = rng.standard_normal((5, 8))
    drawn = [score_order(score, random_order(5, 8, rng)) for _ in range(20_000)]
    assert np.mean(drawn) == pytest.approx(score_at_random(score), abs=0.05)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6))
def test_an_order_without_its_gaps_is_a_permutation_of_the_donors_units(units, others, seed):
    order = random_order(units, others, np.random.default_rng(seed))
    assert sorted(as_permutation(order, others)) == list(range(others))
    assert (order >= 0).sum() == min(units, others)


def test_a_random_alignment_is_worth_less_than_the_best():
    found = correspondence_of(mlp((9, 16, 12, 10), 0), mlp((9, 16, 12, 10), 1))
    assert assign_at_random(found, 0).objective < assign_units(found).objective
