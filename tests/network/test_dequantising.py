"""What a donor stores as integers is seen as the float weights that these stand for, in every form quantisers write."""

import ml_dtypes
import numpy as np
import pytest
from builders import Net, deviation, inputs_of, load, run
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import mal_graph
from mal_graph import registry
from mal_graph.network import dequantised

IN, UNITS, OUT = 8, 6, 4
TYPES = {  # the type that stores integers, by (bits, signed)
    (4, True): ml_dtypes.int4,
    (4, False): ml_dtypes.uint4,
    (8, True): np.int8,
    (8, False): np.uint8,
    (16, True): np.int16,
    (16, False): np.uint16,
}
LAYERS = ("gemm", "matmul", "conv")


class Stored:
    """Weights (units out, units in) as integers: whole numbers, and the scale and zero point of each entry."""

    def __init__(self, values, *, bits=8, signed=True, symmetric=True, per="axis", block=4):
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        self.kind, self.per, self.block = np.dtype(TYPES[bits, signed]), per, block
        if per == "block":
            parts = values.reshape(len(values), -1, block)
            least, most = parts.min(-1), parts.max(-1)
        else:
            around = None if per == "tensor" else 1
            least, most = values.min(around), values.max(around)
        least, most = np.minimum(least, 0), np.maximum(most, 0)
        if symmetric and signed:
            self.scale = (np.maximum(-least, most) / high).astype("f4")
            self.zero = np.zeros_like(self.scale)
        else:
            self.scale = ((most - least) / (high - low)).astype("f4")
            self.zero = np.round(low - least / self.scale)
        scale, zero = self.for_each(self.scale), self.for_each(self.zero)
        self.whole = np.clip(np.round(values / scale + zero), low, high)
        self.values = ((self.whole - zero) * scale).astype("f4")

    def for_each(self, given):
        """Numbers of a tensor, of rows or of blocks as they meet the entries."""
        return np.repeat(given, self.block, 1) if self.per == "block" else given[..., None] if given.ndim else given


def dequantize(net, stored, shape):
    """DequantizeLinear of integers in a weight's own shape."""
    given = [net.constant(stored.whole.astype(stored.kind).reshape(shape))]
    scale, zero = stored.scale, stored.zero.astype(stored.kind)
    if stored.per == "block":
        shape = (*scale.shape, *shape[2:])
        scale, zero = scale.reshape(shape), zero.reshape(shape)
        return net.op(
            "DequantizeLinear", *given, net.constant(scale), net.constant(zero), axis=1, block_size=stored.block
        )
    return net.op("DequantizeLinear", *given, net.constant(scale), net.constant(zero), axis=0)


def scale_by_hand(net, stored, shape):
    """(Cast(integers) - zero point) x scale, block by block where there are blocks, then the weight's own shape."""
    size = stored.block if stored.per == "block" else stored.whole.shape[1]
    parts = stored.whole.reshape(-1, size)
    x = net.op("Cast", net.constant(parts.astype(stored.kind)), to=TensorProto.FLOAT)
    x = net.op("Sub", x, net.constant(stored.zero.astype("f4").reshape(-1, 1)))
    x = net.op("Mul", x, net.constant(stored.scale.reshape(-1, 1)))
    return net.op("Reshape", x, net.constant(list(shape)))


def pick(net, stored, shape):
    """A codebook of all values there are, and their indices."""
    codes, places = np.unique(stored.values, return_inverse=True)
    picked = net.op("Gather", net.constant(codes), net.constant(places.reshape(stored.values.shape).astype(np.int32)))
    return net.op("Reshape", picked, net.constant(list(shape)))


def quantize_and_back(net, stored, shape):
    """QuantizeLinear and DequantizeLinear of floats, as training that knows of quantisation leaves them."""
    x = net.constant(stored.values.reshape(shape))
    given = net.constant(stored.scale), net.constant(stored.zero.astype(stored.kind))
    if stored.per == "block":
        return x
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, *given, axis=0), *given, axis=0)


FORMS = (dequantize, scale_by_hand, pick, quantize_and_back)


def network(weights, biases, layer="gemm", write=None):
    """Two layers with the weights (out, in) given, or with what `write` makes of them."""
    net = Net(0, opset=21)

    def weight(values, shape):
        return write(net, values, shape) if write else net.constant(values.reshape(shape))

    x = net.input("x", ("N", IN, 3, 3) if layer == "conv" else ("N", IN))
    for place, (values, bias) in enumerate(zip(weights, biases, strict=True)):
        rows, columns = (values.values if write else values).shape
        if layer == "conv":
            x = net.op("Conv", x, weight(values, (rows, columns, 1, 1)), net.constant(bias))
        elif layer == "gemm":
            x = net.op("Gemm", x, weight(values, (rows, columns)), net.constant(bias), transB=1)
        else:
            turned = net.op("Transpose", weight(values, (rows, columns)), perm=[1, 0])
            x = net.op("Add", net.op("MatMul", x, turned), net.constant(bias))
        x = x if place else net.op("Relu", x)
    return net.proto(x)


def drawn(seed):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape).astype("f4") for shape in ((UNITS, IN), (OUT, UNITS))]
    return weights, [rng.standard_normal(len(w)).astype("f4") for w in weights], rng.permutation(UNITS)


def distance(graph, model):
    """How far a graph is from a model, on the same inputs."""
    inputs = inputs_of(graph)
    return deviation(run(graph, inputs), run(load(model), inputs))


@given(
    seed=st.integers(0, 999),
    form=st.sampled_from(FORMS),
    kind=st.sampled_from(sorted(TYPES)),
    symmetric=st.booleans(),
    per=st.sampled_from(["tensor", "axis", "block"]),
    layer=st.sampled_from(LAYERS),
)
@settings(max_examples=16, phases=[Phase.explicit, Phase.generate])
def test_a_donor_of_integers_is_merged_as_the_floats_they_stand_for(seed, form, kind, symmetric, per, layer):
    """Lambda 1 is the donor, and lambda 0.5 the mean of the base and of the donor's floats in the base's order."""
    (first, second), (b, c), order = drawn(seed)
    per, kind = ("tensor", (4, True)) if form is pick else (per, kind)  # few values
    options = {"bits": kind[0], "signed": kind[1], "symmetric": symmetric, "per": per}
    base = network((first, second), (b, c), layer)
    theirs = [Stored(first[order], **options, block=4), Stored(second[:, order], **options, block=3)]
    donor = network(theirs, (b[order], c), layer, form)
    whole = mal_graph.assemble(base, donor, lam=1.0)
    assert not whole.merged[0].plan.skipped
    assert distance(whole.graph, donor) < 1e-4
    half = mal_graph.assemble(base, donor, lam=0.5).graph
    back = np.argsort(order)
    floats = theirs[0].values[back], theirs[1].values[:, back]
    mean = network([(w + q) / 2 for w, q in zip((first, second), floats, strict=True)], (b, c), layer)
    assert distance(half, mean) < 1e-4


def test_cast_integers_without_a_scale_are_the_floats_that_they_are():
    net = Net(0)
    whole = net.constant(net.rng.integers(-9, 9, (UNITS, IN)).astype(np.int8))
    x = net.op("Gemm", net.input("x", ("N", IN)), net.op("Cast", whole, to=TensorProto.FLOAT), transB=1)
    graph = dequantised(net.graph(x), registry.runner())
    assert [node.op for node in graph.nodes] == ["Gemm"]


def test_places_that_are_scaled_are_no_weight():
    """As of a bias by distance: added to what is computed, and contracted with nothing."""
    net = Net(0)
    places = net.op("Cast", net.constant(np.arange(IN)), to=TensorProto.FLOAT)
    graph = net.graph(net.op("Add", net.input("x", ("N", IN)), net.op("Mul", places, net.weight(IN))))
    assert dequantised(graph, registry.runner()) is graph


def test_a_mask_of_a_dequantised_weight_stays_one():
    net = Net(0)
    whole = net.constant(net.rng.integers(-9, 9, (UNITS, IN)).astype(np.int8))
    w = net.op("DequantizeLinear", whole, net.constant(np.float32(0.1)))
    w = net.op("Where", net.constant(net.rng.random((UNITS, IN)) < 0.5), w, net.constant(np.float32(0)))
    graph = dequantised(net.graph(net.op("Gemm", net.input("x", ("N", IN)), w, transB=1)), registry.runner())
    assert [node.op for node in graph.nodes] == ["Where", "Gemm"]


@pytest.mark.parametrize("write", [None, dequantize])
def test_a_base_of_integers_is_refused_whatever_the_donor_stores(write):
    (first, second), biases, _ = drawn(0)
    stored = [Stored(first), Stored(second)]
    base = network(stored, biases, write=dequantize)
    donor = network(stored if write else (first, second), biases, write=write)
    with pytest.raises(mal_graph.MalGraphError):
        mal_graph.assemble(base, donor, lam=1.0)
