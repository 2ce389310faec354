"""Donors that a real quantiser wrote, and models that meet in part only, in a merge."""

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, load, mlp, permuted_copy, run, save
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import mal_graph
from mal_graph.errors import UnsupportedModel
from mal_graph.symmetry import axis_groups

ROUNDING = 0.03  # what 8 bits cost these models, relative to the largest output


class Samples(CalibrationDataReader):
    """Inputs that a quantiser takes the ranges of activations from."""

    def __init__(self, graph):
        self.waiting = iter([inputs_of(graph, seed) for seed in range(4)])

    def get_next(self):
        return next(self.waiting, None)


@pytest.fixture(params=[mlp, lambda: cnn(bn=False)], ids=["mlp", "cnn"])
def base(request):
    return request.param()


@pytest.fixture
def donor(base, tmp_path):
    return save(permuted_copy(base, axis_groups(base))[0], tmp_path / "float.onnx")


@pytest.mark.parametrize(
    ("kind", "per_channel"), [(QuantType.QUInt8, False), (QuantType.QInt8, True), (QuantType.QUInt16, False)]
)
def test_a_quantised_copy_is_merged_in_full(base, donor, kind, per_channel, tmp_path):
    """Also where its activations are quantised: that has no place in the base, and is said."""
    path = tmp_path / "quantised.onnx"
    activations = QuantType.QInt8 if kind is QuantType.QInt8 else QuantType.QUInt8
    options = {
        "weight_type": kind,
        "activation_type": activations,
        "per_channel": per_channel,
        "quant_format": QuantFormat.QDQ,
    }
    quantize_static(donor, path, Samples(base), **options)
    result = mal_graph.assemble(base, str(path), lam=1.0)
    assert not result.merged[0].plan.skipped
    assert result.merged[0].dequantised == sum(weight.size > 1 for weight in base.weights.values() if weight.is_float)
    inputs = inputs_of(base, 9)
    assert deviation(run(result.graph, inputs), run(base, inputs)) < ROUNDING


@pytest.mark.parametrize("is_static", [True, False])
def test_a_donor_that_computes_with_integers_is_refused(base, donor, is_static, tmp_path):
    path = tmp_path / "quantised.onnx"
    if is_static:
        quantize_static(donor, path, Samples(base), quant_format=QuantFormat.QOperator)
    else:
        quantize_dynamic(donor, path)
    with pytest.raises(UnsupportedModel, match="merge the float models, then quantise"):
        mal_graph.assemble(base, str(path), method="mal")


def looked_up(seed, rows):
    net = Net(seed)
    x = net.op("Gather", net.weight(rows, 8, name="table"), net.input("ids", ("N", 5), "int64"))
    return net.proto(net.linear(net.op("ReduceMean", x, net.constant([1]), keepdims=0), 8, 3))


@pytest.mark.parametrize("rows", [(20, 16), (16, 20)])
def test_tables_of_other_lengths_meet_in_the_ids_that_both_have(rows):
    base, donor = (looked_up(seed, length) for seed, length in enumerate(rows))
    merged = rows_of(mal_graph.assemble(base, donor, lam=1.0).graph)
    both = min(rows)
    assert np.allclose(merged[:both], rows_of(load(donor))[:both], atol=1e-6)
    assert np.allclose(merged[both:], rows_of(load(base))[both:], atol=1e-6)


def rows_of(graph):
    """The rows of the table, their entries in ascending order: the features are put in the base's order."""
    return np.sort(graph.weights["table"].read(), axis=1)


def gated(seed, units):
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, units))
    x = net.op("Where", net.constant(net.rng.random(units) < 0.5, "mask"), x, net.constant(np.float32(0)))
    return net.proto(net.linear(x, units, 3))


def test_a_layer_whose_mask_has_another_size_is_kept_with_the_reason():
    skipped = mal_graph.assemble(gated(0, 8), gated(1, 6), method="mal").merged[0].plan.skipped
    assert list(skipped.values()) == ["its mask mask differs from the donor's in the orders used"]
