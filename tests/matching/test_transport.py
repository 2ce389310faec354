"""Units that are shared out: plans are the best ones, and doubled units are those of the network that they double."""

import numpy as np
import pytest
from builders import cnn, correspondence_of, deviation, inputs_of, mlp, noisy, permuted_copy, run
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mal_graph.errors import UsageError
from mal_graph.matching import assign_units, shares_of
from mal_graph.matching.transport import exact_plan, transport
from mal_graph.merging import LayerLambdas, Stacking, plan_merge, shares_of_plans, stack_merge
from mal_graph.methods import find_method
from mal_graph.parameter_settings import settings_of
from mal_graph.symmetry import axis_groups

few = settings(max_examples=4, deadline=None, phases=[Phase.reuse, Phase.generate])
sizes = st.integers(1, 7)


def fused(base, donor, softness=0.0, weight=None):
    plans = (plan_merge(assign_units(correspondence_of(base, donor)), LayerLambdas.of(0.5)),)
    given = settings_of({} if weight is None else {"0:weight": 1 - weight, "1:weight": weight})
    shares = shares_of_plans(plans, softness)
    return stack_merge(Stacking(base, find_method("ot_fusion"), given, plans, shares_of_units=shares))


def doubled(graph, seed):
    """The perceptron with every hidden unit twice, in another order, and half as much read of each."""
    rng, weights = np.random.default_rng(seed), {name: weight.read() for name, weight in graph.weights.items()}
    order = np.repeat(np.arange(len(weights["w0"])), 2)[rng.permutation(2 * len(weights["w0"]))]
    moved = {"w0": weights["w0"][order], "w1": weights["w1"][order], "w2": weights["w2"][:, order] / 2}
    return mlp((4, len(order), 3), 0).with_weights({**weights, **moved})


@given(rows=sizes, columns=sizes, seed=st.integers(0, 99))
@few
def test_an_exact_plan_holds_alike_and_is_the_assignment_of_units_cut_into_alike_parts(rows, columns, seed):
    scores = np.random.default_rng(seed).standard_normal((rows, columns))
    plan = exact_plan(scores)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / rows, atol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / columns, atol=1e-9)
    parts = np.repeat(np.repeat(scores, columns, axis=0), rows, axis=1)
    best = parts[linear_sum_assignment(parts, maximize=True)].mean()
    assert (plan * scores).sum() == pytest.approx(best, abs=1e-9)


@given(rows=sizes, columns=sizes, seed=st.integers(0, 99), softness=st.floats(0.05, 3))
@few
def test_a_softened_plan_holds_alike_too_and_mixes_the_more_the_softer_it_is(rows, columns, seed, softness):
    scores = np.random.default_rng(seed).standard_normal((rows, columns))
    soft, softer = transport(scores, softness), transport(scores, 3 * softness)
    for plan in (soft, softer):
        np.testing.assert_allclose(plan.sum(axis=1), 1 / rows, atol=1e-6)
        np.testing.assert_allclose(plan.sum(axis=0), 1 / columns, atol=1e-6)
    reached = [(plan * scores).sum() for plan in (exact_plan(scores), soft, softer)]
    assert reached[0] >= reached[1] - 1e-6
    assert reached[1] >= reached[2] - 1e-6


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_network_fused_with_itself_doubled_is_itself(weight):
    base = mlp((4, 6, 3), 0)
    x = inputs_of(base)
    assert deviation(run(fused(base, doubled(base, 1), weight=weight), x), run(base, x)) < 1e-6
    wide = doubled(base, 2)
    assert deviation(run(fused(wide, base, weight=weight), x), run(base, x)) < 1e-6


@pytest.mark.parametrize("net", [lambda: mlp((4, 6, 3), 0), lambda: cnn((4, 6), blocks=1, size=4)])
def test_where_widths_are_equal_units_stand_one_on_one(net):
    base = net()
    donor, x = permuted_copy(noisy(base, 0.1, 1), axis_groups(base), 1)[0], inputs_of(base)
    assert deviation(run(fused(base, donor, weight=1.0), x), run(donor, x)) < 1e-5
    mean = noisy(base, 0.1, 1)
    both = {name: (weight.read() + mean.weights[name].read()) / 2 for name, weight in base.weights.items()}
    halfway = base.with_weights({name: both[name] for name in base.weights if base.weights[name].is_float})
    assert deviation(run(fused(base, donor), x), run(halfway, x)) < 1e-5


def test_softened_units_are_mixed():
    base = mlp((4, 6, 3), 0)
    alignment = assign_units(correspondence_of(base, noisy(base, 0.1, 1)))
    counts = []
    for softness in (0.0, 0.5, 5.0):
        (shares,) = shares_of(alignment, softness).values()
        np.testing.assert_allclose(shares.mean.sum(axis=1), 1)
        np.testing.assert_allclose(shares.spread.sum(axis=0), 1)
        counts.append((shares.mean > 0.01).sum())
    assert 6 == counts[0] < counts[1] < counts[2]


def test_a_plan_that_would_take_too_long_is_refused_with_what_to_do():
    with pytest.raises(UsageError, match=r"layers of 1025 and 1024 units .* give a `softness` above 0"):
        exact_plan(np.ones((1025, 1024)))
