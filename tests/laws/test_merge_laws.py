"""Laws of the merge: what every entry becomes, and which model the ends of lambda compute."""

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, narrower, network, permuted_copy, run, wider
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.matching import assign_units, correspond, match_layers
from mal_graph.merging import LayerLambdas, merge, plan_merge, with_bias_slots
from mal_graph.symmetry import axis_groups
from mal_graph.symmetry.tracing import UNREAD

UNMATCHED = ("keep", "fade", "zero")


def merged(base, donor, lam, unmatched="keep", **options):
    """The merge of two models with their groups taken unverified."""
    base, match = with_bias_slots(base, donor, match_layers(base, donor))
    alignment = assign_units(correspond(network(base), network(donor), match, **options))
    return merge(plan_merge(alignment, LayerLambdas.of(lam), unmatched=unmatched))


def same_function(a, b, tolerance=1e-6):
    inputs = inputs_of(a)
    return deviation(run(a, inputs), run(b, inputs)) <= tolerance


def entries(graph):
    return {name: weight.read() for name, weight in graph.weights.items()}


def bits(array):
    return array.shape, array.dtype, np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_at_lambda_0_every_tensor_is_the_bases_bit_for_bit_and_nothing_is_inserted(unmatched):
    base, donor = cnn((6, 8), 1, 0, bn=False), cnn((8, 6), 1, 1)
    base = base.with_weights(
        {"w0": np.where(np.abs(base.weights["w0"].read()) < 0.05, -0.0, base.weights["w0"].read())}
    )
    result = mal_graph.assemble(base, donor, lam=0.0, unmatched=unmatched, verify=False)
    assert set(result.graph.weights) == set(base.weights)
    assert all(bits(result.graph.weights[name].read()) == bits(w.read()) for name, w in base.weights.items())


@pytest.mark.slow
@given(st.sampled_from(UNMATCHED), st.integers(0, 10**6))
def test_a_small_lambda_moves_matched_entries_by_lambda_times_the_difference(unmatched, seed):
    base = mlp((6, 7, 5, 3), seed)
    other, _ = permuted_copy(mlp((6, 7, 5, 3), seed + 1), axis_groups(base), seed)
    full, small = merged(base, other, 1.0, unmatched), merged(base, other, 2.0**-10, unmatched)
    for name, a in entries(base).items():
        expected = a + np.float32(2.0**-10) * (full.weights[name].read() - a)
        np.testing.assert_allclose(small.weights[name].read(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("unmatched", ["fade", "zero"])
@pytest.mark.parametrize("make", [lambda s: mlp((8, 12, 10, 5), s), lambda s: cnn((8, 10), 1, s)], ids=["mlp", "cnn"])
def test_lambda_1_computes_a_narrower_donors_function(make, unmatched):
    base, wide = make(0), make(1)
    donor, _ = narrower(wide, axis_groups(wide), 2)
    assert same_function(merged(base, donor, 1.0, unmatched), donor)


def test_lambda_1_computes_the_donors_function_under_keep_where_every_unit_has_a_partner():
    base, donor = cnn((8, 10), 1, 0), cnn((8, 10), 1, 1)
    assert same_function(merged(base, donor, 1.0, "keep"), donor)


def test_keep_does_not_compute_a_narrower_donors_function():
    base, wide = mlp((8, 12, 10, 5), 0), mlp((8, 12, 10, 5), 1)
    donor, _ = narrower(wide, axis_groups(wide), 2)
    assert not same_function(merged(base, donor, 1.0, "keep"), donor)


def test_a_shuffled_copy_changes_nothing_at_any_lambda():
    base = cnn((8, 10), 1, 0, concat=True)
    donor, _ = permuted_copy(base, axis_groups(base), 1)
    result = merged(base, donor, 0.4)
    assert all(bits(result.weights[name].read()) == bits(w.read()) for name, w in base.weights.items())


def test_a_wider_copy_gives_back_the_base():
    base = mlp((8, 12, 10, 5), 0)
    donor, _ = wider(base, axis_groups(base), 1)
    assert same_function(merged(base, donor, 1.0), base)


# --- the table of design decisions, entry by entry ---------------------------------------------------------------


def table_case(unmatched, lam=0.25):
    """A base of 3 hidden units and a donor of 2 that correspond to units 0 and 2; every base entry is 1, every donor
    entry 5, but for what makes the units known."""
    first = np.array([[9, 1], [1, 1], [1, 9]], np.float32)
    base = mlp((2, 3, 2), 0).with_weights(
        {"w0": first, "w1": np.ones(3, np.float32), "w2": np.ones((2, 3), np.float32), "w3": np.ones(2, np.float32)}
    )
    donor = mlp((2, 2, 2), 0).with_weights(
        {
            "w0": np.array([[45, 5], [5, 45]], np.float32),
            "w1": np.full(2, 5, np.float32),
            "w2": np.full((2, 2), 5, np.float32),
            "w3": np.full(2, 5, np.float32),
        }
    )
    return {name: merged(base, donor, lam, unmatched).weights[name].read() for name in ("w0", "w1", "w2")}


@pytest.mark.parametrize(
    ("unmatched", "row", "column"),
    [("keep", 1.0, 1.0), ("fade", 1.0, 0.75), ("zero", 0.75, 0.75)],
)
def test_units_without_a_partner_follow_the_table(unmatched, row, column):
    found = table_case(unmatched)
    np.testing.assert_array_equal(found["w0"][1], np.full(2, row))  # the row of unit 1, which has no partner
    assert found["w1"][1] == row  # and its bias
    np.testing.assert_array_equal(found["w2"][:, 1], np.full(2, column))  # what the next layer reads of it
    np.testing.assert_array_equal(found["w2"][:, [0, 2]], np.full((2, 2), 2.0))  # matched: 1 + (5 - 1) / 4
    np.testing.assert_array_equal(found["w0"][[0, 2]], [[18, 2], [2, 18]])


def test_a_literal_unit_without_a_partner_has_variance_1_and_scale_0():
    base, wide = cnn((8,), 1, 0), cnn((8,), 1, 1)
    donor, _ = narrower(wide, axis_groups(wide), 0)
    result = merged(base, donor, 1.0, "zero")
    norm = next(node for node in base.nodes if node.op == "BatchNormalization")
    before, after = ([graph.weights[name].read() for name in norm.inputs[1:]] for graph in (base, result))
    lone = np.flatnonzero(after[0] == 0)
    assert len(lone) == 2
    assert (after[3][lone] == 1).all()
    assert (before[0][lone] != 0).all()


def normed(widths, seed, norm):
    """Linear, a statistic over the units, linear."""
    net = Net(seed)
    x = net.linear(net.input("x", ("N", widths[0])), widths[0], widths[1])
    x = net.op("Relu", x)
    x = net.op("Softmax", x, axis=-1) if norm == "Softmax" else net.op("Mul", x, net.op("ReduceMean", x, keepdims=1))
    return net.graph(net.linear(x, widths[1], widths[2]))


@pytest.mark.parametrize("norm", ["Softmax", "mean"])
@pytest.mark.parametrize("unmatched", ["keep", "fade"])
def test_units_that_feed_a_statistic_fade_out_in_every_mode(norm, unmatched):
    if norm == "mean":
        base, donor = mean_net((5, 6, 4), 0), mean_net((5, 4, 4), 1)
    else:
        base, donor = normed((5, 6, 4), 0, norm), normed((5, 4, 4), 1, norm)
    result = merged(base, donor, 1.0, unmatched)
    assert (np.abs(result.weights["w0"].read()).sum(axis=1) == 0).sum() == 2
    kept = merged(mlp((5, 6, 4), 0), mlp((5, 4, 4), 1), 1.0, unmatched)
    assert (np.abs(kept.weights["w0"].read()).sum(axis=1) == 0).sum() == 0


def mean_net(widths, seed):
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", widths[0])), widths[0], widths[1]))
    mean = net.op("ReduceMax", x, net.constant(np.array([1], np.int64)), keepdims=1)
    return net.graph(net.linear(net.op("Sub", x, mean), widths[1], widths[2]))


# --- forms -------------------------------------------------------------------------------------------------------


def test_a_folded_and_an_unfolded_model_merge_into_each_others_function():
    plain, normal = cnn((8, 10), 1, 0, bn=False), cnn((8, 10), 1, 1)
    assert same_function(merged(plain, normal, 1.0), normal, 1e-5)
    assert same_function(merged(normal, plain, 1.0), plain, 1e-5)


def test_behind_the_bases_batchnorm_the_effective_weight_is_interpolated():
    base, donor = cnn((8,), 1, 0), cnn((8,), 1, 1, bn=False)
    halves = [merged(base, donor, lam).weights["w0"].read() for lam in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(halves[1], (halves[0] + halves[2]) / 2, rtol=1e-5, atol=1e-6)


def test_a_channel_that_the_bases_batchnorm_kills_keeps_the_base():
    base, donor = cnn((8,), 1, 0), cnn((8,), 1, 1, bn=False)
    norm = next(node for node in base.nodes if node.op == "BatchNormalization")
    scale = base.weights[norm.inputs[1]].read().copy()
    scale[3] = 1e-9
    base = base.with_weights({norm.inputs[1]: scale})
    result = merged(base, donor, 1.0)
    np.testing.assert_array_equal(result.weights["w0"].read()[3], base.weights["w0"].read()[3])
    assert np.isfinite(result.weights["w0"].read()).all()


@pytest.mark.parametrize("style", ["gemm", "gemm_nt", "matmul", "transposed"])
@pytest.mark.parametrize("other", ["gemm", "gemm_nt", "matmul", "transposed"])
def test_the_way_a_weight_is_stored_makes_no_difference(style, other):
    base, donor = mlp((6, 8, 5), 0, style), mlp((6, 8, 5), 1, other)
    assert same_function(merged(base, donor, 1.0), donor, 1e-5)


def without_bias(seed):
    net = Net(seed)
    x = net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), transB=1)
    return net.graph(net.op("Gemm", net.op("Relu", x), net.weight(5, 8), transB=1))


def test_a_missing_bias_is_zero_in_the_donor_and_inserted_in_the_base():
    bare, full = without_bias(0), mlp((6, 8, 5), 1)
    assert same_function(merged(full, bare, 1.0), bare, 1e-5)
    result = merged(bare, full, 1.0)
    assert same_function(result, full, 1e-5)
    assert len(result.inserted) == 2


# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_bases_types_are_kept(dtype):
    base, donor = mlp((6, 8, 5), 0, dtype=dtype), mlp((6, 8, 5), 1)
    result = merged(base, donor, 0.5)
    assert {weight.dtype.name for weight in result.weights.values() if weight.is_float} == {dtype}


def test_equal_entries_are_copied_and_not_computed():
    base = mlp((6, 8, 5), 0)
    odd = np.full(8, np.float32(0.1))
    result = merged(base.with_weights({"w1": odd}), base.with_weights({"w1": odd}), 0.3)
    assert bits(result.weights["w1"].read()) == bits(odd)


# --- the whole job -----------------------------------------------------------------------------------------------


def test_several_donors_are_merged_one_after_the_other():
    base, donors = mlp((6, 8, 5), 0), [mlp((6, 8, 5), 1), mlp((6, 9, 5), 2)]
    result = mal_graph.assemble(base, donors, lam=0.25, verify=False)
    first = mal_graph.assemble(base, donors[0], lam=0.25, verify=False).graph
    second = mal_graph.assemble(first, donors[1], lam=0.25, verify=False).graph
    assert result.shares == pytest.approx((0.5625, 0.1875, 0.25))
    for name, values in entries(second).items():
        np.testing.assert_allclose(result.graph.weights[name].read(), values, rtol=1e-6)


def test_the_self_check_fails_when_an_order_is_applied_to_the_wrong_members(monkeypatch):
    base, donor = mlp((6, 8, 7, 5), 0), mlp((6, 8, 7, 5), 1)
    assert mal_graph.assemble(base, donor, method="mal").check("self_check").passed

    def without_one_member(weights, moves):
        from dataclasses import replace

        from mal_graph.symmetry import permute_in_place

        permute_in_place(weights, [(replace(group, members=group.members[1:]), order) for group, order in moves])

    monkeypatch.setattr("mal_graph.workflows.steps.permute_in_place", without_one_member)
    assert mal_graph.assemble(base, donor, method="mal").check("self_check").failed


def test_all_controls_use_the_pairs_and_layers_of_the_merge():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 9, 5), 1)
    data = {"x": np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32), "labels": np.arange(20) % 5}
    result = mal_graph.assemble(base, donor, data=data, layers="0:1")
    arms = [score.arm for score in result.scores]
    assert arms == ["base", "donor", "merged", "plain average", "random permutation", "random donor", "ensemble"]
    assert len({score.loss for score in result.scores}) == len(arms)


# --- tied weights ------------------------------------------------------------------------------------------------


def tied(seed, shared):
    """Two branches with one weight between them, or one each."""
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 6))
    first = net.weight(7, 6, name="first")
    second = first if shared else net.weight(7, 6, name="second")
    left = net.op("Relu", net.op("Gemm", x, first, transB=1))
    right = net.op("Tanh", net.op("Gemm", x, second, transB=1))
    return net.graph(net.linear(net.op("Add", left, right), 7, 4))


def test_a_shared_weight_is_merged_only_with_a_shared_weight():
    base = tied(0, True)
    same = mal_graph.assemble(base, tied(1, True), verify=False, method="mal")
    apart = mal_graph.assemble(base, tied(1, False), verify=False, method="mal")
    assert "first" in same.graph.edited
    assert "first" not in apart.graph.edited
    assert any("it is shared with layer" in line for lines in apart.merged[0].plan.dropped.values() for line in lines)


# --- what cannot be merged ---------------------------------------------------------------------------------------


def windowed(kernel, seed):
    net = Net(seed)
    x = net.conv(net.input("x", ("N", 3, 8, 8)), 3, 6, kernel)
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x)))
    return net.graph(net.linear(x, 6, 4))


def test_a_layer_with_another_window_keeps_the_base_and_is_listed():
    base = windowed(3, 0)
    result = mal_graph.assemble(base, windowed(5, 1), verify=False, method="mal")
    plan_ = result.merged[0].plan
    assert list(plan_.skipped.values()) == ["the windows differ: 3x3 against 5x5; `width`=grow makes the base's larger"]
    assert "w0" not in result.graph.edited


def test_heads_of_different_class_counts_keep_the_base_and_are_listed():
    base = mlp((6, 8, 5), 0)
    result = mal_graph.assemble(base, mlp((6, 8, 4), 1), verify=False, method="mal")
    assert list(result.merged[0].plan.skipped.values()) == [
        "its output axis is fixed (axes of model output 'gemm2') and 5 long, the donor's 4"
    ]


def frozen_net(widths, seed):
    net = Net(seed)
    x = net.linear(net.input("x", ("N", widths[0])), widths[0], widths[1])
    x = net.op("CumSum", x, net.constant(np.array(1, np.int64)))
    return net.graph(net.linear(x, widths[1], widths[2]))


def test_frozen_axes_are_merged_only_for_models_that_the_user_says_are_ordered_alike():
    base, donor = frozen_net((5, 6, 4), 0), frozen_net((5, 6, 4), 1)
    with pytest.raises(mal_graph.MalGraphError, match="runs along the axis in order"):
        mal_graph.assemble(base, donor, method="mal")
    result = mal_graph.assemble(base, donor, assume_ordered=True, lam=1.0)
    assert same_function(result.graph, donor)


def test_flattened_maps_of_different_size_are_refused():
    base = cnn((6,), 0, 0, bn=False, head="flatten")
    net = Net(1)
    x = net.conv(net.input("x", ("N", 3, 8, 8)), 3, 6, 3, stride=2)
    other = net.graph(net.linear(net.op("Flatten", net.op("Relu", x)), 6 * 16, 5))
    skipped = mal_graph.assemble(base, other, verify=False, method="mal").merged[0].plan.skipped
    assert list(skipped.values()) == ["each unit takes 64 positions of its input axis, in the donor 16"]


def placed(seed):
    """Symbols and as many places as there are, out of a table of forty."""
    net = Net(seed)
    ids = net.input("ids", ("N", "T"), "int64")
    length = net.op("Slice", net.op("Shape", ids), net.constant([1]), net.constant([2]))
    places = net.op("Slice", net.weight(40, 6, name="places"), net.constant([0]), length, net.constant([0]))
    x = net.op("Add", net.op("Gather", net.weight(5, 6), ids), places)
    x = net.op("Relu", net.linear(x, 6, 8, "matmul"))
    return net.graph(net.linear(x, 8, 3, "matmul"))


@pytest.mark.parametrize("verification", [True, False])
def test_places_behind_the_last_of_the_probe_run_keep_their_order(verification):
    """No run of the length of the probe tells that they may trade places, and longer ones read them."""
    base, donor = placed(0), placed(1)
    (unread,) = [group for group in axis_groups(base).groups if group.reason == UNREAD.reason]
    assert 1 < unread.units < 40
    result = mal_graph.assemble(base, donor, lam=1.0, verify=verification)
    assert not result.merged[0].plan.skipped
    inputs = {"ids": np.random.default_rng(0).integers(0, 5, (2, 40))}
    assert deviation(run(result.graph, inputs), run(donor, inputs)) <= 1e-6


def test_rows_that_the_probe_does_not_read_would_be_mixed_up_without_their_fix(monkeypatch):
    """The mutation: nothing is said of what no operator reads."""
    monkeypatch.setattr("mal_graph.symmetry.tracing.pin_unread", lambda wiring, computed, owners: None)
    result = mal_graph.assemble(placed(0), placed(1), lam=1.0, verify=False)
    inputs = {"ids": np.random.default_rng(0).integers(0, 5, (2, 40))}
    assert deviation(run(result.graph, inputs), run(placed(1), inputs)) > 1e-3
