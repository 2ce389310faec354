"""What a weight is computed of is compared in the weight's own order of axes, in whatever order it is stored."""

from itertools import pairwise

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, network, permuted_copy, reseeded, run
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.network import find_masks, find_parameters

ORDERS = st.permutations(range(3))
KERNEL = (5, 4, 3)  # units out, units in, taps


def turned(net, name, order):
    """A tensor stored in another order of axes, and put back by a Transpose."""
    net.weights[name] = net.weights[name].transpose(order)
    return net.op("Transpose", name, perm=[int(axis) for axis in np.argsort(order)])


def gated(net, weight, gate):
    """A weight where a stored gate is open: one of floats, or of booleans."""
    if net.weights["gate"].dtype.kind == "f":
        return net.op("Mul", weight, gate)
    return net.op("Where", gate, weight, net.constant(np.float32(0), "none"))


@given(ORDERS, ORDERS, ORDERS, st.booleans(), st.sampled_from([(0, 1, 2), (1, 2), (2,)]))
def test_what_a_weight_is_computed_of_has_its_order_of_axes(outer, order, gate_order, is_boolean, lies_along):
    net = Net(0)
    weight = net.weight(*[KERNEL[axis] for axis in outer], name="w")  # as it stands in front of the last Transpose
    whole = net.weights["w"].transpose(np.argsort(outer))
    shape = [KERNEL[outer[axis]] if axis in lies_along else 1 for axis in range(3)]
    opened = net.rng.random(shape) < 0.5
    net.constant(opened if is_boolean else opened.astype(np.float32), "gate")
    made = gated(net, turned(net, weight, order), turned(net, "gate", gate_order))
    made = net.op("Transpose", made, perm=[int(axis) for axis in np.argsort(outer)])
    graph = net.graph(net.op("Conv", net.input("x", ("N", 4, 8)), made))
    applied = {p.tensor: p for p in (*find_parameters(graph), *find_masks(graph))}
    assert np.array_equal(applied["w"].canonical(graph.weights["w"].read()), whole)
    there = opened.transpose(np.argsort(outer))
    if opened.size > 1:  # a single boolean steers
        assert np.array_equal(applied["gate"].canonical(graph.weights["gate"].read()), there.squeeze())


def test_what_is_added_to_an_activation_keeps_the_order_in_which_it_is_added():
    net = Net(0)
    x = net.op("MatMul", net.input("x", ("N", 6, 5)), net.weight(5, 4, name="w"))
    graph = net.graph(net.op("Add", x, net.op("Transpose", net.weight(4, 6, name="table"), perm=[1, 0])))
    assert {p.tensor: p.axes for p in find_parameters(graph)} == {"w": (1, 0), "table": (1, 0)}


WIDTHS = (5, 7, 6, 3)
FORMS = {  # how a masked weight of (out, in) is stored, and how it gets to its place
    "gemm": lambda net, i: net.op("Mul", f"w{i}", f"m{i}"),
    "one behind a transpose": lambda net, i: net.op("Mul", turned(net, f"w{i}", (1, 0)), f"m{i}"),
    "both behind transposes": lambda net, i: net.op("Mul", turned(net, f"w{i}", (1, 0)), turned(net, f"m{i}", (1, 0))),
    "matmul": None,
    "transposed behind": None,
}


def masked(form, seed=0):
    """Three layers of masked weights, in one of the ways of `FORMS`; the same function for the same seed."""
    net = Net(seed)
    x = net.input("x", ("N", WIDTHS[0]))
    for i, (before, units) in enumerate(pairwise(WIDTHS)):
        weight, bias = net.weight(units, before, name=f"w{i}"), net.weight(units, name=f"b{i}")
        mask = net.constant((net.rng.random((units, before)) < 0.7).astype(np.float32), f"m{i}")
        if FORMS[form] is not None:
            x = net.op("Gemm", x, FORMS[form](net, i), bias, transB=1)
        elif form == "transposed behind":
            x = net.op("Add", net.op("MatMul", x, net.op("Transpose", net.op("Mul", weight, mask), perm=[1, 0])), bias)
        else:
            for name in (weight, mask):
                net.weights[name] = np.ascontiguousarray(net.weights[name].T)
            x = net.op("Add", net.op("MatMul", x, net.op("Mul", weight, mask)), bias)
        x = net.op("Relu", x) if i < 2 else x
    return net.graph(x)


def distance(result, expected):
    inputs = inputs_of(expected, 1)
    return deviation(run(result, inputs), run(expected, inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_masked_weights_in_any_two_forms_are_merged_whole(form, other):
    base, donor = masked(form), masked(other)
    donor, _ = permuted_copy(donor, network(donor).groups)
    result = mal_graph.assemble(base, donor, lam=0.5)
    assert distance(result.graph, base) < 1e-5
    assert {step.tensor for step in result.merged[0].plan.steps} == {f"{kind}{i}" for kind in "wmb" for i in range(3)}


@pytest.mark.parametrize("other", FORMS)
def test_masked_weights_of_another_function_in_another_form_are_the_donors_at_lambda_1(other):
    donor = reseeded(masked(other), 3)
    result = mal_graph.assemble(masked("gemm"), donor, lam=1.0)
    assert distance(result.graph, donor) < 1e-5
    assert not result.merged[0].plan.skipped
