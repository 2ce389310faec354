"""Settings and operators that make matched layers other functions are equal, exact by other means, or listed."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, run
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import ShapeError
from mal_graph.graph import Node
from mal_graph.matching import match_layers
from mal_graph.matching.layer_scores import SAME_PLACE
from mal_graph.operators import ROWS, function_of
from mal_graph.operators.functions import is_same
from mal_graph.operators.shaping import SHAPING
from mal_graph.reporting.documents import assemble_document, match_document
from mal_graph.reporting.text import text_of
from mal_graph.workflows import Comparison

SLIGHT = 1e-5


def between(seed, kind, *more, opset=20, shape=None, **attributes):
    """Two layers with an operator between them: dense ones, or convolutions where a shape is given."""
    net = Net(seed, opset=opset)
    if shape is None:
        x = net.op(
            kind, net.linear(net.input(), 8, 6), *[net.constant(np.float32(value)) for value in more], **attributes
        )
        return net.graph(net.linear(x, 6, 4))
    x = net.op(kind, net.conv(net.input("x", shape), shape[1], 6), **attributes)
    return net.graph(net.conv(x, 6, 4))


def listed(base, donor):
    return [difference.what for pair in match_layers(base, donor).pairs for difference in pair.differences]


SQUARE = ("N", 3, 12, 12)
KERNEL = {"kernel_shape": [2, 2]}

OTHERS = {
    "slope": (("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.2}), "LeakyRelu alpha 0.01 against 0.2"),
    "elu": (("Elu", {}), ("Elu", {"alpha": 0.5}), "Elu alpha 1 against 0.5"),
    "gelu": (("Gelu", {}), ("Gelu", {"approximate": "tanh"}), "Gelu approximate none against tanh"),
    "sigmoid": (("HardSigmoid", {}), ("HardSigmoid", {"beta": 0.4}), "HardSigmoid beta 0.5 against 0.4"),
    "axis": (("Softmax", {"axis": 0}), ("Softmax", {"axis": 1}), "Softmax axis 0 against 1"),
    "activation": (("Relu", {}), ("Tanh", {}), "Relu against Tanh"),
}
OTHER_POOLS = {
    "ceil_mode": ({**KERNEL, "strides": [2, 2]}, {**KERNEL, "strides": [2, 2], "ceil_mode": 1}),
    "kernel_shape": (KERNEL, {"kernel_shape": [3, 3]}),
    "strides": (KERNEL, {**KERNEL, "strides": [2, 2]}),
    "padding": (KERNEL, {**KERNEL, "pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_setting_or_activation_is_listed(name):
    one, other, text = OTHERS[name]
    base, donor = (between(seed, kind, **more) for seed, (kind, more) in enumerate((one, other)))
    assert listed(base, donor) == [text]
    assert listed(base, base) == listed(donor, donor) == []


@pytest.mark.parametrize("name", OTHER_POOLS)
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_another_window_of_a_pooling_is_listed(kind, name):
    base, donor = (between(seed, kind, shape=SQUARE, **more) for seed, more in enumerate(OTHER_POOLS[name]))
    (what,) = listed(base, donor)
    assert what.startswith(f"{kind} {name} ")


def test_another_kind_of_pooling_is_listed():
    base, donor = (between(seed, kind, shape=SQUARE, **KERNEL) for seed, kind in enumerate(("MaxPool", "AveragePool")))
    assert listed(base, donor) == ["MaxPool against AveragePool"]


def test_padding_counts_in_an_average_only_where_there_is_some():
    def averaged(seed, **more):
        return between(seed, "AveragePool", shape=SQUARE, **KERNEL, **more)

    padded = {"pads": [1, 1, 1, 1]}
    assert listed(averaged(0), averaged(1, count_include_pad=1)) == []
    assert listed(averaged(0, **padded), averaged(1, **padded, count_include_pad=1)) == [
        "AveragePool count_include_pad 0 against 1"
    ]


def test_the_same_padding_written_in_two_ways_is_no_difference():
    def padded(seed, **more):
        return between(seed, "MaxPool", shape=SQUARE, kernel_shape=[3, 3], **more)

    assert listed(padded(0, pads=[1, 1, 1, 1]), padded(1, auto_pad="SAME_UPPER")) == []
    assert listed(padded(0, pads=[0, 0, 0, 0]), padded(1, auto_pad="VALID")) == []


def test_bounds_are_compared_wherever_they_stand():
    old = between(0, "Clip", opset=10, min=0.0, max=6.0)
    same, other = (between(1, "Clip", 0.0, high) for high in (6.0, 1.0))
    assert listed(old, same) == []
    assert listed(old, other) == listed(same, other) == ["Clip max 6 against 1"]
    assert listed(between(0, "Clip", opset=10), between(1, "Clip")) == []


def test_another_stride_of_a_convolution_is_listed():
    def strided(seed, stride):
        net = Net(seed)
        x = net.op("Relu", net.conv(net.input("x", SQUARE), 3, 6))
        return net.graph(net.conv(x, 6, 4, stride=stride))

    assert listed(strided(0, 1), strided(1, 2)) == ["Conv strides 1x1 against 2x2"]


@pytest.mark.parametrize("op", sorted(SHAPING))
def test_what_is_written_out_equals_what_is_left_out(op):
    """The law of defaults, and that each setting can differ at all."""
    written = {name: value for name, value in SHAPING[op].items() if value is not None and name != "padding"}
    bare, full = (function_of(Node("n", op, ("x",), ("y",), held), lambda name: None) for held in ({}, written))
    assert op in ROWS
    assert all(is_same(bare[name], full[name], name) for name in bare)
    for name, value in written.items():
        other = f"not {value}" if isinstance(value, str) else value + 1 if abs(value) < 1e9 else 1.0
        changed = function_of(Node("n", op, ("x",), ("y",), {**written, name: other}), lambda name: None)
        assert name in ("axis", "count_include_pad") or not is_same(bare[name], changed[name], name)


def test_a_layer_of_equal_settings_is_preferred():
    """Two branches alike but for a slope, in another order in the donor."""

    def branches(seed, slopes):
        net = Net(seed)
        x = net.input()
        ends = [net.linear(net.op("LeakyRelu", net.linear(x, 8, 6), alpha=slope), 6, 4) for slope in slopes]
        return net.graph(net.op("Add", *ends))

    base, donor = branches(0, (0.1, 0.3)), branches(1, (0.3, 0.1))
    match = match_layers(base, donor)
    assert not any(pair.differences for pair in match.pairs)
    assert [pair.donor.name for pair in match.pairs] != [pair.base.name for pair in match.pairs]


def test_a_score_is_lowered_but_layers_at_the_same_place_stay_matched():
    base, same, other = (between(seed, "LeakyRelu", alpha=slope) for seed, slope in ((0, 0.1), (1, 0.1), (1, 0.4)))
    equal, lower = (match_layers(base, donor).pairs for donor in (same, other))
    assert [(p.base.name, p.donor.name) for p in equal] == [(p.base.name, p.donor.name) for p in lower]
    assert SAME_PLACE <= lower[0].score < equal[0].score
    assert lower[1].score == equal[1].score


def test_reports_say_what_differs():
    base, donor = between(0, "LeakyRelu"), between(1, "LeakyRelu", alpha=0.2)
    said = "layer Gemm_0: LeakyRelu alpha 0.01 against 0.2: at lambda 1 this layer is not the donor's"
    matched = match_document(Comparison(base, donor, match_layers(base, donor)))
    merged = assemble_document(mal_graph.assemble(base, donor, verify=False, method="mal"))
    assert said in text_of(matched).splitlines()
    assert said in text_of(merged).splitlines()
    for entry in (matched.pairs[0], merged.merged[0]):
        (difference,) = entry.differences
        assert (difference.setting, difference.base, difference.donor) == ("alpha", "0.01", "0.2")


@pytest.mark.parametrize("pair", [(mlp(seed=0), mlp(seed=1)), (cnn((4, 6), 1, 0), cnn((4, 5), 1, 1))])
def test_models_of_one_kind_differ_in_nothing(pair):
    assert listed(*pair) == []


# --- epsilons: exact by other means ------------------------------------------------------------------------------


def normed(epsilon, seed=0, least=0.002):
    """A convolution with small variances behind it, whose epsilon matters."""
    rng, net = np.random.default_rng(seed), Net(seed)
    x = net.op("Conv", net.input("x", ("N", 3, 6, 6)), net.weight(8, 3, 3, 3, scale=0.05, name="w"))
    vectors = [net.weight(8, name=name, scale=scale) for name, scale in (("g", 1.0), ("b", 1.0), ("m", 0.05))]
    variance = net.constant((least + 0.003 * rng.random(8)).astype(np.float32), "v")
    x = net.op("BatchNormalization", x, *vectors, variance, epsilon=epsilon)
    return net.graph(net.conv(net.op("Relu", x), 8, 4))


def shifted(graph, less):
    """The same function with so much more in the epsilon as is less in the variance."""
    values = graph.weights["v"].read().astype(np.float64) - less
    index = next(i for i, node in enumerate(graph.nodes) if node.op == "BatchNormalization")
    node = graph.nodes[index]
    epsilon = node.attributes["epsilon"] + less
    moved = graph.with_node(index, replace(node, attributes={**node.attributes, "epsilon": epsilon}))
    return moved.with_weights({"v": values.astype(np.float32)})


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-8e-4, 8e-4), st.sampled_from([0.3, 0.5, 1.0]), st.integers(0, 99))
def test_an_epsilon_that_is_only_written_otherwise_gives_back_the_base(less, lam, seed):
    base = normed(1e-3, seed)
    donor = shifted(base, less)
    inputs = inputs_of(base)
    assert deviation(run(donor, inputs), run(base, inputs)) < SLIGHT
    result = mal_graph.assemble(base, donor, lam=lam, verify=False)
    assert deviation(run(result.graph, inputs), run(base, inputs)) < SLIGHT


def test_a_batch_norm_with_another_epsilon_is_the_donor_at_lambda_1():
    base, donor = normed(1e-5, 0), normed(1e-3, 1)
    inputs = inputs_of(base)
    result = mal_graph.assemble(base, donor, lam=1.0)
    assert deviation(run(result.graph, inputs), run(donor, inputs)) < SLIGHT
    assert listed(base, donor) == []
    untouched = donor.with_node(1, replace(donor.nodes[1], attributes={**donor.nodes[1].attributes, "epsilon": 1e-5}))
    assert deviation(run(untouched, inputs), run(donor, inputs)) > 100 * SLIGHT, "the epsilon matters"


def test_a_variance_that_cannot_take_the_epsilon_in_is_merged_as_it_is_and_the_difference_listed():
    base, donor = normed(0.1, 0), normed(1e-3, 1)
    assert listed(base, donor) == ["BatchNormalization epsilon 0.1 against 0.001"]
    result = mal_graph.assemble(base, donor, lam=1.0, verify=False)
    merged, given_ = (np.sort(graph.weights["v"].read()) for graph in (result.graph, donor))
    np.testing.assert_array_equal(merged, given_)


@pytest.mark.parametrize("kind", ["LayerNormalization", "RMSNormalization"])
def test_the_epsilon_of_another_norm_goes_along_with_its_scale(kind):
    def net_of(seed, epsilon):
        net = Net(seed, opset=23)
        x = net.op(kind, net.linear(net.input(), 8, 6), net.weight(6), epsilon=epsilon)
        return net.graph(net.linear(x, 6, 4))

    base, donor = net_of(0, None), net_of(1, 0.5)
    assert listed(base, donor) == []

    def epsilon_of(lam):
        graph = mal_graph.assemble(base, donor, lam=lam, verify=False).graph
        return graph, next(node for node in graph.nodes if node.op == kind).attribute("epsilon")

    assert epsilon_of(0.0) == (base, None)
    assert epsilon_of(0.3)[1] == pytest.approx(0.7 * 1e-5 + 0.3 * 0.5)
    inputs = inputs_of(base)
    assert deviation(run(epsilon_of(1.0)[0], inputs), run(donor, inputs)) < SLIGHT


def test_equal_epsilons_change_no_bit():
    """One written out, one left out."""
    base, donor = normed(1e-5, 0), normed(1e-5, 1)
    bare = donor.with_node(1, replace(donor.nodes[1], attributes={}))
    one, other = (mal_graph.assemble(base, graph, lam=0.3, verify=False).graph for graph in (donor, bare))
    assert all(one.weights[name].read().tobytes() == other.weights[name].read().tobytes() for name in one.weights)
    assert [node.attributes for node in one.nodes] == [node.attributes for node in base.nodes]


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["LayerNorm", "GroupNorm", "InstanceNorm1d"])
def test_an_epsilon_that_a_merge_changed_is_put_into_the_module_and_into_no_state(kind):
    import torch
    from torch import nn

    makers = {
        "LayerNorm": lambda epsilon: nn.LayerNorm(7, eps=epsilon),
        "GroupNorm": lambda epsilon: nn.GroupNorm(2, 6, eps=epsilon),
        "InstanceNorm1d": lambda epsilon: nn.InstanceNorm1d(6, eps=epsilon, affine=True),
    }

    def network_of(seed, epsilon):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv1d(3, 6, 1), makers[kind](epsilon), nn.ReLU(), nn.Conv1d(6, 4, 1)).eval()

    x = torch.randn(5, 3, 7)
    base, donor = network_of(0, 1e-5), network_of(1, 0.5)
    traced = mal_graph.trace(base, (x,)), mal_graph.trace(donor, (x,))
    graph = mal_graph.assemble(*traced, lam=1.0, verify=False, assume_ordered=True).graph
    with torch.no_grad():
        assert torch.allclose(mal_graph.to_module(graph)(x), donor(x), atol=1e-5)
    with pytest.raises(ShapeError, match="the merge changed the epsilon of"):
        mal_graph.state_dict(graph)
