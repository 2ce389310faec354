"""Forms: a BatchNorm, a bias or a transposed weight on one side only."""

from itertools import product

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, mlp, narrower, network, run

from mal_graph.matching import assign_units, correspond, count_dead_channels, find_foldable_norm, match_layers
from mal_graph.matching.batchnorm_folding import TINY_SCALE, FoldedWeight, fold_bias
from mal_graph.matching.canonical import SEVERAL
from mal_graph.merging import LayerLambdas, merge, plan_merge, with_bias_slots
from mal_graph.network import find_layers
from mal_graph.symmetry import axis_groups
from mal_graph.workflows import assemble

FORMS = list(product([False, True], [False, True]))  # with a bias, with a BatchNorm


def merged(base, donor, lam, unmatched="keep"):
    """The merge of two models with their groups taken unverified, and what was left without a counterpart."""
    base, match = with_bias_slots(base, donor, match_layers(base, donor))
    correspondence = correspond(network(base), network(donor), match, assume_ordered=True)
    planned = plan_merge(assign_units(correspondence), LayerLambdas.of(lam), unmatched=unmatched)
    return merge(planned), correspondence.unpaired


def same_function(a, b, tolerance=1e-6):
    inputs = inputs_of(a)
    return deviation(run(a, inputs), run(b, inputs)) <= tolerance


def convolved(seed, bias=False, norm=True, units=6, blocks=2, head=None):
    """Convolutions, with or without bias and BatchNorm, and a linear layer."""
    net = Net(seed)
    x, width = net.input("x", ("N", 3, 6, 6)), 3
    for _ in range(blocks):
        x = net.conv(x, width, units, bias=bias)
        x, width = net.op("Relu", net.norm(x, units) if norm else x), units
    x = head(net, x) if head else x
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), units, 4))


def linear_norm(seed, style, bias=True, norm=True):
    """A linear layer, written in one of the ways of `mlp`, and a BatchNorm over its units."""
    net = Net(seed)
    x = net.input("x", ("N", 6))
    if bias:
        x = net.linear(x, 6, 8, style)
    else:
        x = net.op("Gemm", x, net.weight(6, 8)) if style == "gemm_nt" else net.op("MatMul", x, net.weight(6, 8))
    x = net.norm(x, 8) if norm else x
    return net.graph(net.linear(net.op("Relu", x), 8, 4))


def first_norm(graph):
    return find_foldable_norm(graph, find_layers(graph)[0])


def effective(graph):
    """Weight and bias of the first layer as what is behind its BatchNorm sees them."""
    layer, norm = find_layers(graph)[0], first_norm(graph)
    bias = next((p for p in layer.parameters if p.role == "bias"), None)
    if norm is None:
        return tuple(graph.weights[p.tensor].read() for p in (layer.weight, bias))
    return FoldedWeight(graph, layer.weight, norm)(), fold_bias(graph, bias, norm)


# --- lambda 1 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_in_any_two_forms_lambda_1_computes_the_donor(form, other):
    base, donor = convolved(0, *form), convolved(1, *other)
    result, left = merged(base, donor, 1.0)
    assert left == {}
    assert same_function(result, donor)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
def test_in_any_two_forms_lambda_1_computes_a_narrower_donor(form, other, unmatched):
    wide = convolved(1, *other)
    donor, _ = narrower(wide, axis_groups(wide), 0)
    assert same_function(merged(convolved(0, *form), donor, 1.0, unmatched)[0], donor)


@pytest.mark.parametrize("style", ["gemm", "gemm_nt", "matmul", "transposed"])
@pytest.mark.parametrize(("norm", "other"), [(True, False), (False, True), (True, True)])
def test_a_batchnorm_behind_a_linear_layer_folds_like_one_behind_a_convolution(style, norm, other):
    base, donor = linear_norm(0, style, norm=norm), linear_norm(1, "gemm", norm=other)
    assert same_function(merged(base, donor, 1.0)[0], donor)


def test_units_that_feed_a_maximum_fade_with_their_shift_behind_the_bases_batchnorm():
    """A weight of zero is not enough there: shift - s * mean would be left of the unit."""

    def above_the_others(net, x):
        return net.op("Sub", x, net.op("ReduceMax", x, net.constant([1]), keepdims=1))

    base = convolved(0, units=8, blocks=1, head=above_the_others)
    donor = convolved(1, True, False, blocks=1, head=above_the_others)
    for unmatched in ("fade", "zero"):
        result, _ = merged(base, donor, 1.0, unmatched)
        assert same_function(result, donor)
    weight, bias = effective(merged(base, donor, 1.0, "keep")[0])
    lone = np.abs(weight).sum(axis=(1, 2, 3)) == 0
    assert lone.sum() == 2
    np.testing.assert_allclose(bias[lone], 0, atol=1e-6)


# --- between -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "other"), [pair for pair in product(FORMS, FORMS) if pair[0][1] != pair[1][1]])
def test_of_two_forms_the_effective_weights_are_interpolated(form, other):
    base, donor = convolved(0, *form), convolved(1, *other)
    ends, half = [effective(merged(base, donor, lam)[0]) for lam in (0.0, 1.0)], effective(merged(base, donor, 0.5)[0])
    for a, b, between in zip(*ends, half, strict=True):
        np.testing.assert_allclose(between, (a + b) / 2, rtol=1e-4, atol=1e-5)


def test_a_kept_batchnorm_keeps_scale_mean_and_variance():
    base, donor = convolved(0), convolved(1, True, False)
    norm = first_norm(base)
    result, _ = merged(base, donor, 0.5)
    for parameter in (norm.scale, norm.mean, norm.variance):
        assert np.array_equal(result.weights[parameter.tensor].read(), base.weights[parameter.tensor].read())
    assert not np.array_equal(result.weights[norm.shift.tensor].read(), base.weights[norm.shift.tensor].read())


# --- dead channels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unmatched", ["keep", "fade", "zero"])
def test_a_channel_scaled_to_nothing_keeps_the_base_and_is_counted(unmatched):
    base, donor = convolved(0), convolved(1, True, False)
    norm = first_norm(base)
    scale = base.weights[norm.scale.tensor].read().copy()
    scale[[1, 4]] = [0.0, TINY_SCALE / 100]
    base = base.with_weights({norm.scale.tensor: scale})
    result, _ = merged(base, donor, 0.7, unmatched)
    weight = find_layers(base)[0].weight
    for tensor in (weight.tensor, norm.shift.tensor):
        before, after = base.weights[tensor].read(), result.weights[tensor].read()
        assert np.array_equal(after[[1, 4]], before[[1, 4]])
        assert np.isfinite(after).all()
        assert not np.array_equal(after[0], before[0])
    assert count_dead_channels(base, donor, match_layers(base, donor).pairs[0]) == 2
    assert count_dead_channels(base, convolved(1), match_layers(base, convolved(1)).pairs[0]) == 0


def test_a_batchnorm_that_turns_signs_folds_too():
    base, donor = convolved(0), convolved(1, True, False)
    norm = first_norm(base)
    base = base.with_weights({norm.scale.tensor: -base.weights[norm.scale.tensor].read()})
    assert same_function(merged(base, donor, 1.0)[0], donor)


# --- what has no slot --------------------------------------------------------------------------------------------


def bare(seed, op="MatMul"):
    net = Net(seed)
    x = net.op("Relu", net.op(op, net.input("x", ("N", 6)), net.weight(6, 8)))
    return net.graph(net.op(op, x, net.weight(8, 5)))


def test_a_bias_that_a_matmul_cannot_take_is_reported():
    result, left = merged(bare(0), mlp((6, 8, 5), 1), 1.0)
    assert left == {
        layer: [f"bias {bias} of the donor: the base has no slot for it"]
        for layer, bias in (("MatMul_0", "w1"), ("MatMul_2", "w3"))
    }
    assert dict(result.inserted) == {}


def test_a_batchnorm_whose_shift_a_matmul_cannot_take_is_reported():
    base, donor = linear_norm(0, "matmul", bias=False, norm=False), linear_norm(1, "matmul", bias=False)
    _, left = merged(base, donor, 1.0)
    shift = first_norm(donor).shift.tensor
    assert left == {find_layers(base)[0].name: [f"shift {shift} of the donor: the base has no slot for a bias"]}


def test_a_bias_in_the_base_alone_goes_to_zero():
    result, left = merged(mlp((6, 8, 5), 0), bare(1), 1.0)
    assert left == {}
    assert same_function(result, bare(1))


# --- what can be folded ------------------------------------------------------------------------------------------


def with_norm(between, seed=0):
    """A convolution and a BatchNorm with something between them."""
    net = Net(seed)
    x = net.conv(net.input("x", ("N", 3, 6, 6)), 3, 6)
    x = net.op("Flatten", net.op("GlobalAveragePool", between(net, x)))
    return net.graph(net.linear(x, 6, 4))


@pytest.mark.parametrize(
    ("between", "foldable"),
    [
        (lambda net, x: net.norm(x, 6), True),
        (lambda net, x: net.norm(net.op("Relu", x), 6), False),
        (lambda net, x: net.op("Add", net.norm(x, 6), x), False),  # something else reads what is between
        (lambda net, x: net.norm(net.op("MaxPool", x, kernel_shape=[2, 2]), 6), False),
        (lambda net, x: x, False),
    ],
    ids=["directly behind", "behind a Relu", "beside a shortcut", "behind a pool", "none"],
)
def test_only_a_batchnorm_directly_behind_its_contraction_folds(between, foldable):
    assert (first_norm(with_norm(between)) is not None) == foldable


def test_a_convolution_that_is_an_output_does_not_fold():
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 6, 6)), 3, 6)
    assert first_norm(net.graph(net.norm(x, 6), x)) is None


def test_a_bias_added_behind_a_matmul_folds_with_it():
    graph = linear_norm(0, "matmul")
    assert first_norm(graph) is not None
    weight, bias = effective(graph)
    x = inputs_of(graph)["x"]
    hidden = np.maximum(x @ weight.T + bias, 0)
    last = [graph.weights[p.tensor].read() for p in find_layers(graph)[1].parameters]
    assert deviation(run(graph, {"x": x}), [hidden @ last[0].T + last[1]]) <= 1e-5


def test_a_batchnorm_in_another_place_is_listed_and_not_folded():
    """Behind the activation it is another function: the base keeps its own, the donor's has no slot."""
    base, donor = convolved(0, True, False, blocks=1), with_norm(lambda net, x: net.norm(net.op("Relu", x), 6), 1)
    _, left = merged(base, donor, 0.5)
    (lines,) = left.values()
    roles = [line.split()[0] for line in lines]
    assert sorted(roles) == ["mean", "scale", "shift", "variance"]
    assert all(line.endswith("of the donor: the base has no slot for it") for line in lines)


@pytest.mark.parametrize("factor", ["alpha", "beta"])
@pytest.mark.parametrize("side", ["base", "donor"])
def test_what_a_gemm_multiplies_by_counts(factor, side):
    def scaled(seed, value):
        net = Net(seed)
        options = {"transB": 1, factor: value}
        x = net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), net.weight(8), **options)
        return net.graph(net.op("Gemm", net.op("Relu", x), net.weight(4, 8), net.weight(4), transB=1))

    base, donor = scaled(0, 0.25 if side == "base" else 1.0), scaled(1, 0.25 if side == "donor" else 1.0)
    result = assemble(base, donor, lam=1.0, verify=False)
    inputs = inputs_of(donor)
    assert deviation(run(result.graph, inputs), run(donor, inputs)) <= 1e-5


@pytest.mark.parametrize("side", ["base", "donor"])
def test_a_batchnorm_that_shares_a_vector_with_another_is_still_folded(side):
    def normed(seed, bn):
        net = Net(seed)
        x, units_in = net.input("x", ("N", 3, 6, 6)), 3
        scale = net.weight(5)
        for _ in range(2):
            x = net.conv(x, units_in, 5, 3, bias=not bn)
            if bn:
                variance = net.constant(np.linspace(0.5, 1.5, 5, dtype=np.float32))
                x = net.op("BatchNormalization", x, scale, net.weight(5), net.weight(5), variance)
            x, units_in = net.op("Relu", x), 5
        return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 5, 4))

    base, donor = normed(0, side == "base"), normed(1, side == "donor")
    result = assemble(base, donor, lam=1.0, verify=False)
    inputs = inputs_of(donor)
    assert deviation(run(result.graph, inputs), run(donor, inputs)) <= 1e-5


def fused_net(seed, op, bn):
    """A contraction with an activation built in, with a BatchNorm or an Add behind it."""
    net = Net(seed)
    x = net.op(op, net.input("x", ("N", 3, 6, 6)), net.weight(5, 3, 3, 3), domain="com.microsoft", activation="Relu")
    x = net.norm(x, 5) if bn else net.op("Add", x, net.weight(5, 1, 1))
    return net.graph(net.conv(net.op("Relu", x), 5, 4))


@pytest.mark.parametrize("bn", [False, True])
def test_nothing_is_folded_through_an_activation_that_is_built_in(bn):
    fused, donor = fused_net(0, "FusedConv", bn), fused_net(1, "FusedConv", bn)
    first = find_layers(fused)[0]
    assert find_foldable_norm(fused, first) is None
    assert "bias" not in {parameter.role for parameter in first.applied}
    merged_model = assemble(fused, donor, lam=1.0, verify=False).graph
    inputs = inputs_of(donor)
    assert deviation(run(merged_model, inputs, "onnxruntime"), run(donor, inputs, "onnxruntime")) <= 1e-5


def test_a_batchnorm_in_training_is_not_folded():
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 6, 6)), 3, 5)
    draws = [net.weight(5) for _ in range(3)]
    x = net.op("BatchNormalization", x, *draws, net.constant(np.ones(5, np.float32)), outputs=3, training_mode=1)[0]
    graph = net.graph(net.conv(x, 5, 4))
    assert find_foldable_norm(graph, find_layers(graph)[0]) is None


def upsampler(seed, bias, norm):
    """A transposed convolution in three blocks: each row of its weight makes a unit in every block."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ("N", 2, 4, 4)), 2, 6))
    shift = [net.weight(12)] if bias else []
    x = net.op("ConvTranspose", x, net.weight(6, 4, 2, 2), *shift, kernel_shape=[2, 2], strides=[2, 2], group=3)
    return net.graph(net.conv(net.op("Relu", net.norm(x, 12) if norm else x), 12, 2))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("bias", "norm"), FORMS)
@pytest.mark.parametrize(("donor_bias", "donor_norm"), FORMS)
def test_rows_that_make_several_units_meet_in_every_form(bias, norm, donor_bias, donor_norm, calibrated):
    base, donor = upsampler(0, bias, norm), upsampler(1, donor_bias, donor_norm)
    inputs = {"x": np.random.default_rng(0).standard_normal((16, 2, 4, 4)).astype(np.float32)}
    options = {"assume_ordered": True, **({"calibrate": inputs} if calibrated else {})}
    half = assemble(base, donor, lam=0.5, **options)
    assert half.passed
    if calibrated:
        assert half.merged[0].repair.samples == 16
    end = assemble(base, donor, lam=1.0, assume_ordered=True).graph
    skipped = list(half.merged[0].plan.skipped.values())
    assert skipped == ([SEVERAL] if norm != donor_norm else [])
    if not skipped and (donor_bias or not bias):
        assert deviation(*(run(graph, inputs, "onnxruntime") for graph in (end, donor))) <= 1e-5


def scaled_twice(first, second, seed=0):
    """One layer that two stored vectors scale, or one of them twice."""
    net = Net(seed)
    names = {value: net.constant((value + np.sin(np.arange(8)) / 3).astype(np.float32)) for value in (first, second)}
    x = net.op("Gemm", net.input("x", ("N", 6)), net.weight(8, 6), net.weight(8), transB=1)
    x = net.op("Mul", net.op("Relu", net.op("Mul", x, names[first])), names[second])
    return net.graph(net.op("Gemm", x, net.weight(4, 8), transB=1))


@pytest.mark.parametrize(("others", "is_merged"), [((0.9, 0.9), True), ((0.9, 1.7), False)])
def test_a_tensor_that_one_layer_reads_twice_is_merged_once_where_the_donors_are_alike(others, is_merged):
    base, donor = scaled_twice(0.5, 0.5), scaled_twice(*others, seed=1)
    result = assemble(base, donor, lam=1.0, verify=False)
    (shared,) = [name for name, readers in base.consumers.items() if len(readers) == 2]
    assert result.check("accounts").passed
    assert [step.tensor for step in result.merged[0].plan.steps].count(shared) == int(is_merged)
    assert (
        any("has several of its own for it" in line for line in result.merged[0].plan.missing.get("Gemm_0", ()))
        != is_merged
    )
    if is_merged:
        inputs = inputs_of(donor)
        assert deviation(run(result.graph, inputs), run(donor, inputs)) <= 1e-5
