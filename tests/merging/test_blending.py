"""The merge, entry by entry, against an oracle that walks every entry in plain loops; types, plans, twins."""

import ml_dtypes
import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, narrower, run
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph.boxes import BoxesOf
from mal_graph.errors import UsageError
from mal_graph.matching import assign_at_random, assign_units, correspond, match_layers
from mal_graph.merging import LayerLambdas, merge, plan_merge, with_bias_slots
from mal_graph.merging.blending import Blend, interpolate, with_kept_bits
from mal_graph.symmetry import Network, axis_groups

UNMATCHED = ("keep", "fade", "zero")


def planned(base, donor, lam, unmatched="keep", layers=None, *, groups=None, seed=None):
    """The plan of a merge with unverified groups; `seed` draws the orders at random instead of aligning."""
    base, match = with_bias_slots(base, donor, match_layers(base, donor))
    mine, theirs = groups or (axis_groups(base), axis_groups(donor))
    found = correspond(Network(base, mine), Network(donor, theirs), match)
    alignment = assign_units(found) if seed is None else assign_at_random(found, seed)
    return plan_merge(alignment, LayerLambdas.of(lam), unmatched=unmatched, layers=layers)


def values(graph):
    return {name: weight.read() for name, weight in graph.weights.items()}


def bits(array):
    return array.shape, array.dtype, np.ascontiguousarray(array).tobytes()


# --- the table, entry by entry -----------------------------------------------------------------------------------


def entry(a, b, row, column, lam, unmatched):
    """One entry of the table of the design: `row` and `column` say whether the unit has a partner."""
    if row and column:
        return (1 - lam) * a + lam * b
    if unmatched == "zero" or (unmatched == "fade" and row):
        return (1 - lam) * a
    return a


def expected_weight(a, b, rows, columns, lam, unmatched):
    """`rows[i]` is the donor's row on row i of the base, -1 for none; so for columns."""
    out = np.empty(a.shape)
    for i, j in np.ndindex(a.shape):
        u, v = rows[i], columns[j]
        matched = u >= 0 and v >= 0
        out[i, j] = entry(float(a[i, j]), float(b[u, v]) if matched else 0.0, u >= 0, v >= 0, lam, unmatched)
    return out


def expected_bias(a, b, rows, lam, unmatched):
    return np.array(
        [
            entry(float(x), float(b[u]) if u >= 0 else 0.0, u >= 0, True, lam, unmatched)
            for x, u in zip(a, rows, strict=True)
        ]
    )


@given(
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.sampled_from(UNMATCHED),
    st.floats(0.01, 1.0),
    st.integers(0, 10**6),
)
def test_every_entry_of_a_merge_is_what_the_table_says(widths, others, unmatched, lam, seed):
    """Whatever the orders: they are drawn at random."""
    base, donor = mlp((3, *widths, 2), seed), mlp((3, *others, 2), seed + 1)
    made = planned(base, donor, lam, unmatched, seed=seed)
    hidden = made.alignment.orders
    orders = [np.arange(3), *hidden, np.arange(2)]
    a, b, found = values(base), values(donor), values(merge(made))
    for layer in range(3):
        rows, columns = orders[layer + 1], orders[layer]
        w, c = f"w{2 * layer}", f"w{2 * layer + 1}"
        weight = expected_weight(a[w], b[w], rows, columns, lam, unmatched)
        np.testing.assert_allclose(found[w], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[c], expected_bias(a[c], b[c], rows, lam, unmatched), rtol=1e-5, atol=1e-6)


def test_the_oracle_tells_the_three_pads_apart():
    a, b = np.ones((2, 2)), np.full((2, 2), 5.0)
    found = {unmatched: expected_weight(a, b, [0, -1], [-1, 1], 0.25, unmatched).tolist() for unmatched in UNMATCHED}
    assert found == {
        "keep": [[1, 2], [1, 1]],
        "fade": [[0.75, 2], [1, 1]],
        "zero": [[0.75, 2], [0.75, 0.75]],
    }


@pytest.mark.parametrize(("unmatched", "scale", "variance"), [("keep", 1, 1), ("fade", 1, 1), ("zero", 0.75, 0.75)])
def test_the_tensors_of_a_batchnorm_follow_their_rows(unmatched, scale, variance):
    """In `zero` they go to a unit that is not there: variance 1, the rest 0."""
    base, wide = cnn((8,), 1, 0), cnn((8,), 1, 1)
    donor, _ = narrower(wide, axis_groups(wide), 0)
    made = planned(base, donor, 0.25, unmatched)
    a, b, found = values(base), values(donor), values(merge(made))
    norm = next(node for node in base.nodes if node.op == "BatchNormalization")
    theirs = next(node for node in donor.nodes if node.op == "BatchNormalization")
    axes = next(step.axes for step in made.steps if step.tensor == norm.inputs[1])
    order = made.alignment.orders[axes[0].blocks[0].pair]
    lone, met = np.flatnonzero(order < 0), np.flatnonzero(order >= 0)
    assert len(lone) == 2
    for mine, other in zip(norm.inputs[1:], theirs.inputs[1:], strict=True):
        np.testing.assert_allclose(found[mine][met], 0.75 * a[mine][met] + 0.25 * b[other][order[met]], rtol=1e-5)
    for slot in (1, 2, 3):
        np.testing.assert_allclose(found[norm.inputs[slot]][lone], scale * a[norm.inputs[slot]][lone], rtol=1e-6)
    faded = variance * a[norm.inputs[4]][lone] + (1 - variance)
    np.testing.assert_allclose(found[norm.inputs[4]][lone], faded, rtol=1e-6)


# --- the ends of lambda ------------------------------------------------------------------------------------------


def test_at_lambda_0_the_base_itself_comes_back():
    made = planned(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), 0.0)
    assert merge(made) is made.base


def test_at_lambda_1_values_are_copied_and_not_computed():
    """a + 1 * (b - a) is not b where a is infinite, and loses the last bits of a small b beside a large a."""
    a, b = np.float32([np.inf, 1e8, -0.0, 1.0]), np.float32([1.0, 1e-3, 0.0, np.inf])
    assert interpolate(a, b, 1.0) is b
    assert (interpolate(a[1:2], b[1:2], np.nextafter(1.0, 0)) != b[1:2]).all()


@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_signed_zeros_that_both_models_share_stay(unmatched):
    base, donor = mlp((6, 8, 5), 0), mlp((6, 8, 5), 1)
    zeros = np.where(np.arange(40).reshape(5, 8) % 3 == 0, np.float32(-0.0), base.weights["w2"].read())
    shared = {"w2": zeros, "w0": base.weights["w0"].read()}
    found = merge(planned(base.with_weights(shared), donor.with_weights(shared), 0.5, unmatched)).weights["w2"].read()
    assert bits(found) == bits(zeros)


# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("other", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_a_merge_computes_in_float32_or_better_and_stores_the_bases_type(kind, other):
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 8, 7, 5), 1)
    groups = axis_groups(base), axis_groups(donor)
    base, donor = (
        graph.with_weights({name: array.astype(dtype) for name, array in values(graph).items()})
        for graph, dtype in ((base, kind), (donor, other))
    )
    made = planned(base, donor, 0.3, groups=groups)
    orders = [np.arange(6), *made.alignment.orders, np.arange(5)]
    wide = np.float64 if kind == np.float64 else np.float32
    for layer in range(3):
        name = f"w{2 * layer}"
        a = base.weights[name].read().astype(wide)
        b = donor.weights[name].read().astype(wide)[np.ix_(orders[layer + 1], orders[layer])]
        found = merge(made).weights[name].read()
        assert found.dtype == kind
        np.testing.assert_array_equal(found, (a + wide(0.3) * (b - a)).astype(kind))


def test_merged_values_are_read_only_and_the_models_are_not_touched():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 8, 5), 1)
    before = {name: array.copy() for name, array in values(base).items()}
    result = merge(planned(base, donor, 0.5))
    for name, array in values(result).items():
        assert not array.flags.writeable
        assert bits(base.weights[name].read()) == bits(before[name])


def test_a_weight_stored_transposed_is_written_transposed():
    base = mlp((6, 8, 5), 0, "matmul")
    result = merge(planned(base, mlp((6, 9, 5), 1), 0.5))
    assert {name: w.shape for name, w in result.weights.items()} == {name: w.shape for name, w in base.weights.items()}
    assert all(array.flags.c_contiguous for array in values(result).values())


# --- the plan ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [-0.01, 1.01, float("nan")])
def test_a_lambda_outside_its_range_is_refused(lam):
    with pytest.raises(UsageError, match=r"give a merging factor from 0 \(the base\) to 1 \(the donor\)"):
        planned(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), lam)


def test_unknown_pads_are_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="unmatched is 'none': choose one of fade, keep, zero"):
        planned(mlp((6, 8, 5), 0), mlp((6, 8, 5), 1), 0.5, "none")


def test_a_plan_lists_what_it_writes():
    made = planned(mlp((6, 8, 5), 0), mlp((6, 4, 5), 1), 0.5)
    assert {step.tensor: step.matched for step in made.steps} == {"w0": 0.5, "w1": 0.5, "w2": 0.5, "w3": 1.0}
    assert [step.nbytes for step in made.steps] == [192, 32, 160, 20]
    assert made.merged_parameters == 48 + 8 + 40 + 5
    assert made.peak_bytes == 3 * 4 * 48
    assert [pair.base.name for pair in made.merged_pairs] == ["Gemm_0", "Gemm_2"]


def test_layers_that_are_not_selected_keep_every_bit():
    base = mlp((6, 8, 7, 5), 0)
    made = planned(base, mlp((6, 8, 7, 5), 1), 0.5, layers=["Gemm_2"])
    assert dict(made.skipped) == {"Gemm_0": "not selected", "Gemm_4": "not selected"}
    result = merge(made)
    assert result.edited == {"w2", "w3"}
    assert bits(result.weights["w0"].read()) == bits(base.weights["w0"].read())


# --- twins: networks that differ in their weights alone ----------------------------------------------------------
# A step takes a network, a tensor (N, C, 6, 6) and C, and gives the next tensor with its C.


def depthwise(net, x, c):
    return net.op("Conv", x, net.weight(c, 1, 3, 3), net.weight(c), group=c, pads=[1] * 4), c


def transposed(net, x, c):
    return net.op("ConvTranspose", x, net.weight(c, 5, 1, 1), net.weight(5)), 5


def concatenated(net, x, c):
    return net.op("Concat", net.conv(x, c, 3, 1), x, axis=1), c + 3


def excited(net, x, c):
    y = net.conv(net.op("GlobalAveragePool", x), c, 3, 1)
    return net.op("Mul", x, net.op("Sigmoid", net.conv(net.op("Relu", y), 3, c, 1))), c


STEPS = {
    "conv": lambda net, x, c: (net.op("Relu", net.conv(x, c, 6)), 6),
    "conv without bias": lambda net, x, c: (net.conv(x, c, 4, bias=False), 4),
    "norm": lambda net, x, c: (net.norm(x, c), c),
    "residual": lambda net, x, c: (net.op("Add", x, net.op("Relu", net.norm(net.conv(x, c, c), c))), c),
    "depthwise": depthwise,
    "transposed": transposed,
    "concatenated": concatenated,
    "excited": excited,
    "prelu": lambda net, x, c: (net.op("PRelu", x, net.weight(c, 1, 1)), c),
    "scaled": lambda net, x, c: (net.op("Mul", x, net.weight(1, c, 1, 1)), c),
}


def network(steps, head, style, seed):
    net = Net(seed)
    x, c = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, 5)), 5
    for step in steps:
        x, c = STEPS[step](net, x, c)
    x = net.op("Flatten", x if head == "flatten" else net.op("GlobalAveragePool", x))
    x = net.op("Relu", net.linear(x, c * 36 if head == "flatten" else c, 6, style))
    return net.graph(net.linear(x, 6, 3, style))


steps = st.lists(st.sampled_from(sorted(STEPS)), max_size=4)
heads = st.sampled_from(["flatten", "mean"])
styles = st.sampled_from(["gemm", "gemm_nt", "matmul", "transposed"])


@pytest.mark.slow
@settings(max_examples=50)
@given(steps, heads, styles, styles, st.integers(0, 10**6))
def test_lambda_1_computes_the_donor_where_only_weights_differ(chosen, head, style, other, seed):
    base, donor = network(chosen, head, style, seed), network(chosen, head, other, seed + 1)
    made = planned(base, donor, 1.0)
    inputs = inputs_of(base)
    assert not made.skipped
    assert not made.dropped
    assert deviation(run(merge(made), inputs), run(donor, inputs)) <= 1e-5


@pytest.mark.slow
@settings(max_examples=50)
@given(steps, heads, st.sampled_from(["fade", "zero"]), st.integers(0, 10**6))
def test_lambda_1_computes_a_narrower_donor_where_pads_fade(chosen, head, unmatched, seed):
    base, wide = (network(chosen, head, "gemm", s) for s in (seed, seed + 1))
    donor, _ = narrower(wide, axis_groups(wide), seed)
    inputs = inputs_of(base)
    assert deviation(run(merge(planned(base, donor, 1.0, unmatched)), inputs), run(donor, inputs)) <= 1e-5


def test_an_order_that_the_next_layer_does_not_follow_breaks_the_law():
    """The law above can fail: one pair of groups is turned around for its producer alone."""
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 8, 7, 5), 1)
    made = planned(base, donor, 1.0)
    wrong = values(merge(made))["w0"][::-1]
    inputs = inputs_of(base)
    broken = merge(made).with_weights({"w0": np.ascontiguousarray(wrong)})
    assert deviation(run(merge(made), inputs), run(donor, inputs)) <= 1e-5
    assert deviation(run(broken, inputs), run(donor, inputs)) > 0.05


ODD = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 3.0]


@settings(max_examples=200)
@given(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.lists(st.tuples(st.sampled_from(ODD), st.sampled_from(ODD)), min_size=6, max_size=6),
    st.sampled_from([0.0, 0.25, 0.3, 1.0]),
    st.booleans(),
)
@np.errstate(invalid="ignore")
def test_what_is_equal_on_both_sides_keeps_its_bits_and_only_that(dtype, pairs, lam, is_turned):
    a, b = (np.array(side, dtype).reshape((2, 3), order="F" if is_turned else "C") for side in zip(*pairs, strict=True))
    mine, theirs = (side.astype(np.float64 if dtype == np.float64 else np.float32) for side in (a, b))
    merged = interpolate(mine, theirs, lam)
    before = theirs.copy()
    kept = with_kept_bits(merged, a, mine, theirs)
    general = np.where(mine != theirs, merged, mine)
    general = np.where(general == mine, a, general.astype(dtype))
    assert np.ascontiguousarray(kept).tobytes() == np.ascontiguousarray(general).tobytes()
    assert theirs.tobytes() == before.tobytes()


@pytest.mark.parametrize("ends", [(0.0, 0.0), (-0.0, -0.0), (-3.0, 7.0), (2.0, 2.0)])
def test_a_single_number_is_merged_as_others_are(ends):
    """One without an axis, of which nothing is left over to be looked at again."""

    class Pair:
        def stored_form(self, values, box):
            return values

    a, b = (np.array(end, np.float32) for end in ends)
    alone = Blend(Pair(), 0.3, None, BoxesOf(b), (), ())(a, ())
    among = Blend(Pair(), 0.3, None, BoxesOf(b[None]), (slice(0, 1),), ())(a[None], (slice(0, 1),))
    assert alone.tobytes() == among.tobytes()
