"""BatchNormalizations without inputs to measure them on: the variance of a blended sum, from the weights alone."""

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, narrower, permuted_copy, run
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.merging.planning import matched_mask
from mal_graph.symmetry import axis_groups

LAYER = "w0"  # the weight before the BatchNormalization


def normed(rows, seed=0):
    """A layer of these rows, a BatchNormalization of what it gives on white inputs, and a head."""
    net = Net(seed)
    x = net.input("x", ("N", rows.shape[1]))
    y = net.op("Gemm", x, net.constant(rows, LAYER), transB=1)
    ones, zeros = np.ones(len(rows), np.float32), np.zeros(len(rows), np.float32)
    held = {"scale": ones, "shift": zeros, "mean": zeros, "variance": np.sum(rows**2, axis=1)}
    y = net.op("BatchNormalization", y, *(net.constant(values, name) for name, values in held.items()))
    return net.graph(net.linear(net.op("Relu", y), len(rows), 4))


def rows_of(seed, units=6, features=12):
    return np.random.default_rng(seed).standard_normal((units, features)).astype(np.float32)


def with_cosines(rows, share, seed):
    """Rows that are alike by so much."""
    return (share * rows + (1 - share) * rows_of(seed, *rows.shape)).astype(np.float32)


def held(graph, name):
    return graph.weights[name].read().astype(np.float64)


def test_on_white_inputs_the_variances_are_those_of_the_blended_sums():
    @settings(deadline=None, max_examples=25)
    @given(seed=st.integers(0, 1000), share=st.floats(0.2, 0.5), lam=st.floats(0.05, 0.95))
    def law(seed, share, lam):
        rows = rows_of(seed)
        others = with_cosines(rows, share, seed + 5000)
        merged = mal_graph.assemble(normed(rows), normed(others, 1), lam=lam, method="mal", verify=False)
        (step,) = merged.merged
        order = next(own for own in step.plan.alignment.orders if len(own) == len(rows))
        is_alike = (rows * others[order]).sum(axis=1) > 0  # else the cosine counts as 0
        expected = np.sum(held(merged.graph, LAYER) ** 2, axis=1)
        np.testing.assert_allclose(held(merged.graph, "variance")[is_alike], expected[is_alike], rtol=1e-5)
        assert (held(merged.graph, "variance")[~is_alike] >= expected[~is_alike] * (1 - 1e-5)).all()

    law()


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_both_ends_are_the_models_to_the_bit(lam):
    base, donor = cnn((6, 8), 1, 0), cnn((6, 8), 1, 1)
    repaired, plain = (mal_graph.assemble(base, donor, lam=lam, repair=own, verify=False) for own in (True, False))
    for name, weight in plain.graph.weights.items():
        assert np.array_equal(weight.read(), repaired.graph.weights[name].read()), name


def test_relatives_keep_averages_of_their_variances():
    rows = rows_of(0)
    merged = mal_graph.assemble(normed(rows), normed(with_cosines(rows, 0.9, 1), 1), lam=0.3, verify=False)
    assert merged.merged[0].repair is None


def test_a_shuffled_copy_gives_back_the_base():
    base = cnn((6, 8), 1, 0)
    copy, _ = permuted_copy(base, axis_groups(base))
    merged = mal_graph.assemble(base, copy, lam=0.5, method="mal", verify=False)
    assert merged.merged[0].repair is None
    assert deviation(run(merged.graph, inputs_of(base)), run(base, inputs_of(base))) < 1e-4


def test_units_without_a_partner_keep_what_the_plan_gives_them():
    base = cnn((8, 8), 1, 0)
    donor, _ = narrower(cnn((8, 8), 1, 1), axis_groups(base))
    repaired, plain = (mal_graph.assemble(base, donor, lam=0.4, repair=own, verify=False) for own in (True, False))
    (step,) = repaired.merged
    assert step.repair.reset
    assert not step.repair.is_measured
    for own in step.plan.steps:
        if own.pair.base.role == "variance":
            has_partner = matched_mask(own.axes[0], step.plan.alignment.orders)
            before, after = (held(one.graph, own.tensor) for one in (plain, repaired))
            assert not has_partner.all()
            assert np.array_equal(before[~has_partner], after[~has_partner])
            assert (before[has_partner] > after[has_partner]).all()
