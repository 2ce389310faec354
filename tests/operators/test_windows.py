"""Windows: a convolution in a larger window, with zeros around its taps, is the same convolution."""

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, run
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.graph import Node
from mal_graph.operators import Misfit, is_pointwise, offsets

SIZE = 11


def convolution(taps, seed, *, op="Conv", pads=None, stride=1, dilation=1, units=4, stored="", **attributes):
    """A convolution with `taps` along both axes, by default padded so that the map keeps its size, then a head."""
    reach = dilation * (taps - 1)
    net = Net(seed)
    weight = net.weight(3, units, taps, taps) if op == "ConvTranspose" else net.weight(units, 3, taps, taps)
    if stored:
        net.weights[weight] = np.ascontiguousarray(net.weights[weight].transpose(2, 3, 0, 1))
        weight = net.op("Transpose", weight, perm=[2, 3, 0, 1])
    if pads is None and "auto_pad" not in attributes:
        pads = [reach // 2, reach // 2, reach - reach // 2, reach - reach // 2]
    x = net.op(
        op,
        net.input("x", ("N", 3, SIZE, SIZE)),
        weight,
        net.weight(units),
        pads=pads,
        strides=[stride] * 2,
        dilations=[dilation] * 2,
        **attributes,
    )
    x = net.op("Flatten", net.op("ReduceMax", net.op("Relu", x), net.constant([2]), keepdims=0))
    return net.graph(net.op("ReduceSum", net.op("Mul", x, net.weight(1)), net.constant([1]), keepdims=1))


def merged(base, donor, lam, unmatched="fade", width="grow"):
    return mal_graph.assemble(base, donor, lam=lam, unmatched=unmatched, width=width, verify=False)


def apart(a, b):
    inputs = inputs_of(b)
    return deviation(run(a, inputs, "onnxruntime"), run(b, inputs, "onnxruntime"))


PAIRS = {
    "1 in 3": (dict(taps=3), dict(taps=1)),
    "3 in 5": (dict(taps=5), dict(taps=3)),
    "3 in 5, stride 2": (dict(taps=5, stride=2), dict(taps=3, stride=2)),
    "3 in 5, dilation 2": (dict(taps=5, dilation=2), dict(taps=3, dilation=2)),
    "1 in 3, dilation 2": (dict(taps=3, dilation=2), dict(taps=1)),
    "4 in 5, lopsided": (dict(taps=5), dict(taps=4, pads=[1, 1, 2, 2])),
    "same padding": (dict(taps=5, auto_pad="SAME_UPPER"), dict(taps=3, auto_pad="SAME_LOWER")),
    "same padding, even": (dict(taps=4, auto_pad="SAME_UPPER"), dict(taps=1)),
    "transposed convolution": (dict(taps=5, op="ConvTranspose"), dict(taps=3, op="ConvTranspose")),
}


@pytest.mark.parametrize(("large", "small"), PAIRS.values(), ids=PAIRS)
def test_a_smaller_window_is_centred_in_the_base_s(large, small):
    base, donor = convolution(seed=0, **large), convolution(seed=1, **small)
    result = merged(base, donor, 1.0, width="base")
    assert not result.merged[0].plan.skipped
    assert apart(result.graph, donor) <= 1e-5
    np.testing.assert_array_equal(merged(base, donor, 0.0).graph.weights["w0"].read(), base.weights["w0"].read())


@pytest.mark.parametrize(("large", "small"), PAIRS.values(), ids=PAIRS)
def test_a_base_with_a_smaller_window_grows_to_the_donors(large, small, tmp_path):
    base, donor = convolution(seed=0, **small), convolution(seed=1, units=6, **large)
    result = merged(base, donor, 0.0)
    assert result.check("lambda_0").passed
    assert apart(result.graph, base) <= 1e-5
    assert result.merged[0].windows
    assert apart(merged(base, donor, 1.0).graph, donor) <= 1e-5
    mal_graph.save(result.graph, tmp_path / "grown.onnx")
    assert apart(mal_graph.load(tmp_path / "grown.onnx"), base) <= 1e-5


def test_taps_that_the_donor_lacks_follow_the_table_of_columns():
    base, donor = convolution(3, 0), convolution(1, 1)
    for unmatched, share in (("keep", 1.0), ("fade", 0.75), ("zero", 0.75)):
        found = merged(base, donor, 0.25, unmatched, "base").graph.weights["w0"].read()
        corner = np.float32(share) * base.weights["w0"].read()[:, :, 0, 0]
        np.testing.assert_allclose(found[:, :, 0, 0], corner, rtol=1e-6)


@pytest.mark.parametrize(
    ("mine", "theirs", "why"),
    [
        (dict(taps=5), dict(taps=3, stride=2), "its stride is 1, the donor's 2"),
        (dict(taps=5), dict(taps=3, dilation=2), "its dilation is 1, the donor's 2"),
        (
            dict(taps=5, pads=[0] * 4),
            dict(taps=3, pads=[0] * 4),
            "5 taps padded by 0 and 0 do not lie on the donor's 3",
        ),
        (dict(taps=5, stride=2, auto_pad="SAME_UPPER"), dict(taps=3, stride=2), "depends on the size of the map"),
    ],
)
def test_windows_that_do_not_answer_to_each_other_are_listed(mine, theirs, why):
    base, donor = convolution(seed=0, **mine), convolution(seed=1, **theirs)
    with pytest.raises(mal_graph.MalGraphError, match=f"the windows differ: 5x5 against 3x3, and .*{why}"):
        merged(base, donor, 0.3)


def test_a_larger_window_is_not_cropped_and_says_what_helps():
    with pytest.raises(mal_graph.MalGraphError, match="3x3 against 5x5; `width`=grow makes the base's larger"):
        merged(convolution(3, 0), convolution(5, 1), 0.3, width="base")


def test_a_weight_that_two_convolutions_read_keeps_its_window():
    net = Net(0)
    x, weight = net.input("x", ("N", 3, SIZE, SIZE)), net.weight(3, 3, 3, 3)
    y = net.op("Relu", net.op("Conv", x, weight, pads=[1] * 4))
    base = net.graph(net.op("Conv", y, weight, pads=[1] * 4))
    other = Net(1)
    x = other.input("x", ("N", 3, SIZE, SIZE))
    donor = other.graph(other.conv(other.op("Relu", other.conv(x, 3, 3, 5)), 3, 3, 5))
    with pytest.raises(mal_graph.MalGraphError, match="the windows differ: 3x3 against 5x5"):
        merged(base, donor, 0.3)


@given(st.integers(1, 6), st.integers(1, 6), st.tuples(*[st.integers(0, 4)] * 4), st.integers(1, 2), st.integers(1, 2))
def test_taps_are_placed_where_the_convolutions_read(taps, others, pads, stride, dilation):
    """The oracle: the donor's taps at the offsets found give the donor's map; otherwise no offset does."""
    x = np.random.default_rng(0).standard_normal(17)
    values = np.random.default_rng(1).standard_normal(others)

    def nodes(count, before, after):
        net = Net(0)
        w = net.weight(1, 1, count)
        held = {"pads": [before, after], "strides": [stride], "dilations": [dilation]}
        return net.graph(net.op("Conv", net.input("x", ("N", 1, 17)), w, **held)).nodes[0]

    def mapped(weights, before, after):
        padded = np.pad(x, (before, after))
        reach = dilation * (len(weights) - 1)
        places = range(0, len(padded) - reach, stride)
        return np.array([padded[p : p + reach + 1 : dilation] @ weights for p in places])

    expected = mapped(values, *pads[2:])
    try:
        ((lead, tail),) = offsets(nodes(taps, *pads[:2]), (taps,), nodes(others, *pads[2:]), (others,))
    except Misfit:
        return
    if min(lead, tail) >= 0:
        np.testing.assert_allclose(mapped(np.pad(values, (lead, tail)), *pads[:2]), expected, atol=1e-12)


# --- a linear layer and a convolution of one tap -------------------------------------------------------------------


def two_layers(kind, seed, units=6):
    """Two layers on 5 features in the last place: linear, or convolutions of one tap on a map of one place."""
    net = Net(seed)
    x = net.input("x", ("N", 5))
    if kind == "linear":
        return net.graph(net.linear(net.op("Relu", net.linear(x, 5, units)), units, 4))
    x = net.op("Reshape", x, net.constant([-1, 5, 1, 1]))
    x = net.op("Relu", net.conv(x, 5, units, 1))
    return net.graph(net.op("Flatten", net.conv(x, units, 4, 1)))


@pytest.mark.parametrize(("a", "b"), [("linear", "conv"), ("conv", "linear")])
@pytest.mark.parametrize("units", [6, 9])
def test_a_linear_layer_answers_to_a_convolution_of_one_tap(a, b, units):
    base, donor = two_layers(a, 0), two_layers(b, 1, units)
    result = merged(base, donor, 1.0)
    assert len(result.merged[0].plan.merged_pairs) == 2
    assert apart(result.graph, donor) <= 1e-5
    assert apart(merged(base, donor, 0.0).graph, base) <= 1e-5


def test_a_linear_layer_does_not_answer_to_a_convolution_of_more_taps():
    with pytest.raises(mal_graph.MalGraphError, match="no layer"):
        mal_graph.assemble(two_layers("linear", 0), pooled(3), verify=False, method="mal")


def pooled(taps):
    net = Net(1)
    x = net.op("Reshape", net.input("x", ("N", 5)), net.constant([-1, 5, 1, 1]))
    return net.graph(net.op("Flatten", net.conv(net.op("Relu", net.conv(x, 5, 6, taps)), 6, 4, taps)))


@pytest.mark.parametrize(
    ("taps", "attributes", "expected"),
    [
        ((1, 1), {}, True),
        ((1, 1), {"strides": [1, 1], "pads": [0, 0, 0, 0]}, True),
        ((1, 1), {"strides": [2, 1]}, False),
        ((1, 1), {"pads": [0, 0, 1, 0]}, False),
        ((1, 3), {}, False),
    ],
)
def test_a_window_of_one_tap_that_reads_every_position_once_is_pointwise(taps, attributes, expected):
    assert is_pointwise(Node("n", "Conv", ("x", "w"), ("y",), attributes), taps) is expected
