"""Laws of kinds of units: what two trainings left alike says which units correspond, and is never averaged."""

import numpy as np
import pytest
from builders import Net, correspondence_of, deviation, inputs_of, mlp, network, permuted_copy, run, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph.graph import LayerGraph, weight_of
from mal_graph.matching import assign_units
from mal_graph.merging import LayerLambdas, merge, plan_merge

RATES = "rates"  # the constant
STEPS, WIDTH, SIZE = 3, 8, 2
FORMS = ("factor", "power", "mask", "added", "units", "places")


def retention(rates: np.ndarray, form: str, seed: int) -> LayerGraph:
    """Heads, or plain units, each with a constant of its own.

    Args:
        form: what the constant does: it multiplies scores; its powers by distance do; a stored table of these does, or
            is added; it multiplies hidden units; a table of places by units is added to hidden units.
    """
    net, units = Net(seed, opset=17), len(rates)
    x = net.linear(net.input("x", ("N", STEPS, 5)), 5, WIDTH, "matmul")
    powers = rates[:, None, None] ** np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS)))
    if form in ("units", "places"):
        values = rates if form == "units" else powers[:, 0].T
        hidden = net.linear(x, WIDTH, units, "matmul")
        hidden = net.op("Mul" if form == "units" else "Add", hidden, net.constant(values.astype("float32"), RATES))
        return net.graph(net.linear(net.op("Relu", hidden), units, 3, "matmul"))

    def projected(perm):
        part = net.op("Reshape", net.linear(x, WIDTH, units * SIZE, "matmul"), net.constant([0, STEPS, units, SIZE]))
        return net.op("Transpose", part, perm=perm)

    scores = net.op("MatMul", projected([0, 2, 1, 3]), projected([0, 2, 3, 1]))
    constant = net.constant((rates[:, None, None] if form in ("factor", "power") else powers).astype("float32"), RATES)
    if form == "power":
        constant = net.op("Pow", constant, net.constant(np.abs(np.arange(STEPS) - 1).astype("float32")))
    scores = net.op("Add" if form == "added" else "Mul", scores, constant)
    read = net.op("MatMul", net.op("Softmax", scores, axis=-1), projected([0, 2, 1, 3]))
    joined = net.op("Reshape", net.op("Transpose", read, perm=[0, 2, 1, 3]), net.constant([0, STEPS, units * SIZE]))
    return net.graph(
        net.linear(net.op("Add", x, net.linear(joined, units * SIZE, WIDTH, "matmul")), WIDTH, 3, "matmul")
    )


def merged(base, donor, *lambdas):
    """The merges at several lambdas, and what was kept."""
    alignment = assign_units(correspondence_of(base, donor))
    plans = [plan_merge(alignment, LayerLambdas.of(lam)) for lam in lambdas]
    kept = {**plans[0].skipped, **plans[0].dropped, **alignment.correspondence.unpaired}
    return [merge(plan) for plan in plans], kept


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs), run(other, inputs))


# No grid, and no powers of one number: those are told from one file alone.
rates_of_units = st.lists(st.sampled_from([0.31, 0.55, 0.72, 0.94, 1.21]), min_size=2, max_size=5).filter(
    lambda rates: len(set(rates)) > 1
)
by_form = pytest.mark.parametrize("form", FORMS)


@by_form
@settings(max_examples=4, deadline=None)
@given(rates=rates_of_units, seed=st.integers(0, 999), data=st.data())
def test_a_constant_is_never_averaged_and_lambda_one_is_the_donor(form, rates, seed, data):
    own = np.array(rates)
    theirs = own[data.draw(st.permutations(range(len(rates))))]
    base, donor = retention(own, form, seed), retention(theirs, form, seed + 1)
    (half, whole), kept = merged(base, donor, 0.5, 1.0)
    assert np.array_equal(stored(half)[RATES], stored(base)[RATES])
    assert far(whole, donor) <= 1e-9
    assert not kept


@by_form
@settings(max_examples=4, deadline=None)
@given(rates=rates_of_units, seed=st.integers(0, 999))
def test_a_copy_is_found_where_its_units_were_moved_to(form, rates, seed):
    base = retention(np.array(rates), form, seed)
    copy, _ = permuted_copy(base, network(base).groups, seed)
    (half,), kept = merged(base, copy, 0.5)
    assert far(half, base) <= 1e-9
    assert not kept


@by_form
def test_more_units_take_those_of_their_kind(form):
    base, donor = retention(np.array([0.9, 0.4]), form, 0), retention(np.array([0.4, 0.7, 0.9]), form, 1)
    (half,), _ = merged(base, donor, 0.5)
    assert np.array_equal(stored(half)[RATES], stored(base)[RATES])


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 999))
def test_frozen_vectors_of_a_fine_tune_cost_nothing(seed):
    """Where all biases stayed what they were the merge is the average of the weights, each with its own."""
    base, rng = mlp((6, 7, 5, 3), seed), np.random.default_rng(seed)
    tuned = {
        name: values + np.float32(0.05) * rng.standard_normal(values.shape, np.float32) if values.ndim > 1 else values
        for name, values in stored(base).items()
    }
    (half,), _ = merged(base, base.with_weights([weight_of(name, values) for name, values in tuned.items()]), 0.5)
    for name, values in stored(half).items():
        np.testing.assert_allclose(values, (stored(base)[name] + tuned[name]) / 2, atol=1e-6)


def test_what_was_learned_tells_no_kinds():
    assert not correspondence_of(mlp(seed=0), mlp(seed=1)).kinds


@pytest.mark.parametrize("op", ["Exp", "Softplus", "Clip"])
def test_a_learned_number_under_a_function_is_merged(op):
    """Such as a temperature: no unit lies along it, and no layer has it for a weight."""

    def scaled(seed):
        net = Net(seed)
        temperature = net.op(op, net.constant(np.float32(0.5 + seed), "temperature"))
        return net.graph(net.op("Mul", net.linear(net.input(), 8, 4), temperature))

    base, donor = scaled(0), scaled(1)
    (half, whole), kept = merged(base, donor, 0.5, 1.0)
    assert stored(half)["temperature"] == 1.0
    assert stored(half)["temperature"].shape == ()
    assert far(whole, donor) <= 1e-9
    assert not kept
