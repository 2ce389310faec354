"""The planted law where whole branches trade places: experts and heads that are modules of their own."""

import numpy as np
import pytest
from builders import deviation, inputs_of, run
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.graph import weight_of
from mal_graph.matching import same_numbers, sums_of
from mal_graph.merging import merge
from mal_graph.workflows import branch_orders

try:
    import exporting
    from branch_kinds import KINDS, HeadsApart, Tasks
    from published_kinds import build, check_by_hand, example, permuted
except ImportError:
    KINDS, HeadsApart, Tasks = (), None, None

COPIES = (np.float32, np.float16)

IN_ONE_FRONT_END = [*exporting.in_one_front_end_each(KINDS)] if KINDS else []


@pytest.fixture(autouse=True)
def by_orders_alone():
    """Here numbers are put in place."""


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs, "onnxruntime"), run(other, inputs, "onnxruntime"))


def kept(step):
    return {**step.plan.skipped, **step.plan.dropped, **step.promises.kept}


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_permutation_by_hand_keeps_the_outputs(kind):
    check_by_hand(kind)


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "front_end"), IN_ONE_FRONT_END)
def test_a_copy_with_its_branches_in_another_order_gives_the_base_back(kind, front_end):
    model = build(kind)
    base, copy = (exporting.exported(one, example(kind), front_end) for one in (model, permuted(model)))
    (step,) = mal_graph.assemble(base, copy, lam=0.3, method="mal").merged
    assert step.branches_in_order
    assert not kept(step)
    assert far(merge(step.plan), base) <= 1e-4
    assert far(merge(step.plan.at(0.5)), base) <= 1e-4


@pytest.mark.torch
def test_branches_that_change_the_donor_are_not_moved(monkeypatch):
    """A control: without the rows of its gates a copy computes something else, and stays as it is."""
    model = build(Tasks)
    base, copy = (exporting.exported(one, example(Tasks), "trace") for one in (model, permuted(model)))
    monkeypatch.setattr(branch_orders, "parts_in_order", lambda *_: None)
    (step,) = mal_graph.assemble(base, copy, lam=0.3, method="mal").merged
    assert not step.branches_in_order
    assert kept(step)


@pytest.mark.torch
def test_another_network_stays_in_its_order():
    base, other = (exporting.exported(build(HeadsApart, seed), example(HeadsApart), "trace") for seed in (0, 1))
    (step,) = mal_graph.assemble(base, other, lam=1.0, method="mal").merged
    assert not step.branches_in_order
    assert far(merge(step.plan), other) <= 1e-4


@given(st.integers(2, 9), st.integers(1, 3000), st.sampled_from(COPIES), st.integers(0, 2**32 - 1))
def test_the_same_numbers_are_found_in_any_order(tensors, size, kind, seed):
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((tensors, size)).astype(np.float32)
    order = rng.permutation(tensors)
    others = rng.permuted(own[order], axis=1).astype(kind)
    mine, theirs = (np.concatenate([sums_of(weight_of("w", values)) for values in stored]) for stored in (own, others))
    found = same_numbers(mine, theirs)
    assert np.array_equal(found, np.argsort(order))


@given(st.integers(100, 5000), st.integers(0, 2**32 - 1))
def test_other_draws_of_one_distribution_are_other_numbers(size, seed):
    own, others = (
        np.concatenate([sums_of(weight_of("w", values)) for values in draws])
        for draws in np.random.default_rng(seed).standard_normal((2, 3, size))
    )
    assert same_numbers(own, others) is None
    assert np.array_equal(same_numbers(own, own), np.arange(3))


def test_sums_at_the_positions_of_an_axis_add_up_to_those_of_the_tensor():
    weight = weight_of("w", np.random.default_rng(0).standard_normal((3, 70, 900)).astype(np.float32))
    for axis in range(3):
        along = sums_of(weight, axis)
        assert along.shape[0] == weight.shape[axis]
        assert np.allclose(along.sum(axis=0), sums_of(weight)[0], rtol=1e-9, atol=0)
