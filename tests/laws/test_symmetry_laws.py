"""Laws of the axis groups, on networks drawn from the operator table and judged in float64.

The judge knows nothing of axis rules: it runs the network before and after.
"""

from dataclasses import replace
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, load, narrower, permuted_copy, renamed_copy, run, stored, wider
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph import registry
from mal_graph.operators import ROWS, GroupState, Row, elementwise, indexing
from mal_graph.symmetry import axis_groups, verify

EXACT = 1e-9


# --- random networks --------------------------------------------------------------------------------------------
# A step takes a network, a tensor (N, C, H, W), C and H = W, and gives the next tensor with its C and H.


def keep(step):
    """A step that leaves all sizes as they are."""
    return lambda net, x, c, s: (step(net, x, c, s), c, s)


def depthwise(times):
    def step(net, x, c, s):
        w = net.weight(c * times, 1, 3, 3)
        return net.op("Conv", x, w, net.weight(c * times, scale=0.3), group=c, pads=[1] * 4), c * times, s

    return step


def conv_transpose(net, x, c, s):
    return net.op("ConvTranspose", x, net.weight(c, 3, 2, 2), net.weight(3, scale=0.3), strides=[2, 2]), 3, 2 * s


def concat_branch(net, x, c, s):
    return net.op("Concat", x, net.conv(x, c, 2), axis=1), c + 2, s


def option_a(net, x, c, s):
    """The shortcut without parameters: zero channels before and behind, added to a convolution."""
    wide = net.op("Pad", x, net.constant([0, 1, 0, 0, 0, 1, 0, 0]))
    return net.op("Add", wide, net.conv(x, c, c + 2)), c + 2, s


def channels_last(net, x, c, s):
    """A weight applied to the last axis between two transposes."""
    y = net.op("Transpose", x, perm=[0, 2, 3, 1])
    y = net.op("Add", net.op("MatMul", y, net.weight(c, c)), net.weight(c))
    return net.op("Transpose", y, perm=[0, 3, 1, 2])


def layer_norm(net, x, c, s):
    y = net.op("Transpose", x, perm=[0, 2, 3, 1])
    y = net.op("LayerNormalization", y, net.weight(c, scale=1.0), net.weight(c))
    return net.op("Transpose", y, perm=[0, 3, 1, 2])


def squeeze_excite(net, x, c, s):
    y = net.op("ReduceMean", x, net.constant([2, 3]), keepdims=1)
    y = net.op("Sigmoid", net.conv(net.op("Relu", net.conv(y, c, 2, 1)), 2, c, 1))
    return net.op("Mul", x, y)


def shuffle(net, x, c, s):
    if c % 2:
        return x
    y = net.op("Reshape", x, net.constant([0, 2, c // 2, s, s]))
    return net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), net.constant([0, c, s, s]))


def flip(net, x, c, s):
    bounds = [net.constant([v]) for v in (-1, -(2**62), 1, -1)]
    return net.op("Slice", x, *bounds)


def gate(net, x, c, s):
    """One half of the channels gates the other, both picked from an axis of two."""
    if c % 2:
        return x, c, s
    y = net.op("Reshape", x, net.constant([0, 2, c // 2, s, s]))
    a, b = (net.op("Gather", y, net.constant(i), axis=1) for i in range(2))
    return net.op("Mul", a, net.op("Sigmoid", b)), c // 2, s


def swap_parts(net, x, c, s):
    if c < 4:
        return x
    a, b = net.op("Split", x, net.constant([c // 2, c - c // 2]), outputs=2, axis=1)
    return net.op("Concat", b, a, axis=1)


def drop_first(net, x, c, s):
    if c < 4:
        return x, c, s
    return net.op("Slice", x, *[net.constant([v]) for v in (1, 2**62, 1)]), c - 1, s


def every_second(net, x, c, s):
    if c < 4:
        return x, c, s
    return net.op("Slice", x, *[net.constant([v]) for v in (0, 2**62, 1, 2)]), (c + 1) // 2, s


def pick(net, x, c, s):
    return net.op("Gather", x, net.constant([0, c - 1, 0]), axis=1), 3, s


def grow_image(net, x, c, s):
    if s < 2:
        return x, c, s
    return net.op("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"), c, s + 2


def enlarge(net, x, c, s):
    return net.op("Resize", x, "", net.constant(np.float32([1, 1, 2, 2])), mode="nearest"), c, 2 * s


def pooled(net, x, c, s):
    if s < 2:
        return x, c, s
    return net.op("MaxPool", x, kernel_shape=[2, 2]), c, s - 1


def mixed_positions(net, x, c, s):
    """A weight on the positions, not on the channels."""
    y = net.op("Reshape", x, net.constant([0, 0, -1]))
    return net.op("Reshape", net.op("MatMul", y, net.weight(s * s, s * s)), net.constant([0, 0, s, s]))


def grouped(groups, times=1):
    """A grouped convolution; where the groups do not divide the channels nothing happens."""

    def step(net, x, c, s):
        return (x, c, s) if c % groups else (net.conv(x, c, c * times, 1, group=groups), c * times, s)

    return step


def groups_of(c):
    """The largest number of groups, smaller than the channels, that divides them."""
    return max(groups for groups in range(1, c) if c % groups == 0) if c > 1 else 1


def group_norm(net, x, c, s):
    """The whole operator: one scale and shift per group in opset 18, one per channel from 21 on."""
    groups = groups_of(c)
    units, precision = (groups, None) if net.opset < 21 else (c, 11)  # 11: statistics in float64
    vectors = net.weight(units, scale=1.0), net.weight(units)
    return net.op("GroupNormalization", x, *vectors, num_groups=groups, stash_type=precision)


def group_norm_in_parts(net, x, c, s):
    """The way exporters write it for older opsets."""
    groups = groups_of(c)
    y = net.op("Reshape", x, net.constant([0, groups, -1]))
    y = net.op("InstanceNormalization", y, net.weight(groups, scale=1.0), net.weight(groups))
    y = net.op("Mul", net.op("Reshape", y, net.op("Shape", x)), net.weight(c, 1, 1, scale=1.0))
    return net.op("Add", y, net.weight(c, 1, 1))


def depth_to_space(mode):
    def step(net, x, c, s):
        if s > 4:
            return x, c, s
        return net.op("DepthToSpace", net.conv(x, c, 8, 1), blocksize=2, mode=mode), 2, 2 * s

    return step


def pixel_shuffle_in_parts(net, x, c, s):
    """As exporters write it: the block between two axes of channels and positions."""
    if s > 4:
        return x, c, s
    y = net.op("Reshape", net.conv(x, c, 8, 1), net.constant([0, 2, 2, 2, s, s]))
    y = net.op("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
    return net.op("Reshape", y, net.constant([0, 2, 2 * s, 2 * s])), 2, 2 * s


def space_to_depth(net, x, c, s):
    if s % 2 or c > 4:
        return x, c, s
    return net.op("SpaceToDepth", x, blocksize=2), 4 * c, s // 2


def channel_attention(net, x, c, s):
    """ECA: a window slides over the channels."""
    y = net.op("Reshape", net.op("GlobalAveragePool", x), net.constant([0, 1, -1]))
    y = net.op("Conv", y, net.weight(1, 1, 3), pads=[1, 1])
    return net.op("Mul", x, net.op("Sigmoid", net.op("Reshape", y, net.constant([0, -1, 1, 1]))))


def spatial_attention(net, x, c, s):
    """CBAM: mean and maximum over the channels make one map for all of them."""
    found = [net.op(op, x, net.constant([1]), keepdims=1) for op in ("ReduceMean", "ReduceMax")]
    return net.op("Mul", x, net.op("Sigmoid", net.conv(net.op("Concat", *found, axis=1), 2, 1)))


def heads(count, shared=1):
    """Self-attention over the positions; `shared` query heads read one head of keys and values."""

    def step(net, x, c, s):
        if c % (count * shared):
            return x, c, s
        each = c // (count * shared)
        flat = net.op("Transpose", net.op("Reshape", x, net.constant([0, 0, -1])), perm=[0, 2, 1])

        def projected(width, shape, perm):
            y = net.op("Add", net.op("MatMul", flat, net.weight(c, width)), net.weight(width))
            return net.op("Transpose", net.op("Reshape", y, net.constant(shape)), perm=perm)

        queries = projected(c, [0, 0, count, shared, each], [0, 2, 3, 1, 4])
        keys = projected(count * each, [0, 0, count, 1, each], [0, 2, 3, 4, 1])
        values = projected(count * each, [0, 0, count, 1, each], [0, 2, 3, 1, 4])
        y = net.op("MatMul", net.op("Softmax", net.op("MatMul", queries, keys), axis=-1), values)
        y = net.op("Reshape", net.op("Transpose", y, perm=[0, 3, 1, 2, 4]), net.constant([0, 0, c]))
        y = net.op("Transpose", net.op("MatMul", y, net.weight(c, c)), perm=[0, 2, 1])
        return net.op("Add", x, net.op("Reshape", y, net.constant([0, c, s, s]))), c, s

    return step


def shuffled(net, x, c, s):
    return net.op("Gather", x, net.constant(net.rng.permutation(c)), axis=1)


def tiled(net, x, c, s):
    return (x, c, s) if c > 4 else (net.op("Tile", x, net.constant([1, 2, 1, 1])), 2 * c, s)


def einsum_groups(net, x, c, s):
    """A linear map per group of channels."""
    if c % 2:
        return x
    y = net.op("Reshape", x, net.constant([0, 2, c // 2, s, s]))
    y = net.op("Einsum", y, net.weight(2, c // 2, c // 2), equation="ngchw,gco->ngohw")
    return net.op("Reshape", y, net.constant([0, c, s, s]))


def quantised(net, x, c, s):
    scale, zero = net.constant(np.linspace(0.02, 0.05, c, dtype=np.float32)), net.constant(np.zeros(c, np.int8))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero, axis=1), scale, zero, axis=1)


def two_groupings(net, x, c, s):
    """A sum of two grouped convolutions that cut the channels differently."""
    x = x if c == 12 else net.conv(x, c, 12, 1)
    return net.op("Add", net.conv(x, 12, 12, 1, group=2), net.conv(x, 12, 12, 1, group=3)), 12, s


def standardised(net, x, c, s):
    """Weight standardisation, as torch exports it: each filter of the stored weight is normalised before use."""
    w = net.op("Reshape", net.weight(c, c, 1, 1), net.constant([1, c, -1]))
    w = net.op("InstanceNormalization", w, net.weight(c, scale=1.0), net.constant(np.zeros(c, np.float32)))
    return net.op("Conv", x, net.op("Reshape", w, net.constant([c, c, 1, 1])), net.weight(c))


def standardised_by_means(net, x, c, s):
    """The same from means; the filters are rescaled by a gain."""
    w = net.weight(c, c, 1, 1)
    w = net.op("Sub", w, net.op("ReduceMean", w, net.constant([1, 2, 3]), keepdims=1))
    square = net.op("ReduceMean", net.op("Mul", w, w), net.constant([1, 2, 3]), keepdims=1)
    w = net.op("Div", w, net.op("Sqrt", net.op("Add", square, net.constant(np.float32(0.1)))))
    return net.op("Conv", x, net.op("Mul", w, net.weight(c, 1, 1, 1, scale=1.0)))


def twice(net, x, c, s):
    """One module used twice."""
    w, b = net.weight(c, c, 1, 1), net.weight(c)
    return net.op("Conv", net.op("Tanh", net.op("Conv", x, w, b)), w, b)


def side_output(net, x, c, s):
    """A second output of the model, which reads the features here."""
    net.sides.append(net.op("GlobalAveragePool", net.conv(net.op("Tanh", x), c, 2, 1)))
    return x


STEPS = {
    "conv": lambda net, x, c, s: (net.conv(x, c, 3), 3, s),
    "wide conv": lambda net, x, c, s: (net.conv(x, c, 4, 1), 4, s),
    "norm": keep(lambda net, x, c, s: net.norm(x, c)),
    "instance norm": keep(
        lambda net, x, c, s: net.op("InstanceNormalization", x, net.weight(c, scale=1.0), net.weight(c))
    ),
    "depthwise": depthwise(1),
    "depthwise x2": depthwise(2),
    "grouped": grouped(2),
    "grouped 3": grouped(3),
    "grouped 4": grouped(4),
    "grouped x2": grouped(2, 2),
    "group norm": keep(group_norm),
    "group norm in parts": keep(group_norm_in_parts),
    "depth to space": depth_to_space("DCR"),
    "pixel shuffle": depth_to_space("CRD"),
    "pixel shuffle in parts": pixel_shuffle_in_parts,
    "space to depth": space_to_depth,
    "channel attention": keep(channel_attention),
    "spatial attention": keep(spatial_attention),
    "one head": heads(1),
    "two heads": heads(2),
    "shared keys": heads(1, 2),
    "shuffled": keep(shuffled),
    "tile": tiled,
    "einsum": keep(lambda net, x, c, s: net.op("Einsum", x, net.weight(c, c), equation="nchw,oc->nohw")),
    "einsum groups": keep(einsum_groups),
    "l2 norm": keep(lambda net, x, c, s: net.op("LpNormalization", x, axis=1, p=2)),
    "quantised": keep(quantised),
    "two groupings": two_groupings,
    "standardised": keep(standardised),
    "standardised by means": keep(standardised_by_means),
    "twice": keep(twice),
    "side output": keep(side_output),
    "conv transpose": conv_transpose,
    "residual": keep(lambda net, x, c, s: net.op("Add", x, net.conv(x, c, c))),
    "concat": concat_branch,
    "concat self": lambda net, x, c, s: (net.op("Concat", x, x, axis=1), 2 * c, s),
    "option a": option_a,
    "channels last": keep(channels_last),
    "layer norm": keep(layer_norm),
    "squeeze excite": keep(squeeze_excite),
    "shuffle": keep(shuffle),
    "gate": gate,
    "flip": keep(flip),
    "swap parts": keep(swap_parts),
    "drop first": drop_first,
    "every second": every_second,
    "pick": pick,
    "pad image": grow_image,
    "enlarge": enlarge,
    "max pool": pooled,
    "average pool": keep(lambda net, x, c, s: net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)),
    "prelu": keep(lambda net, x, c, s: net.op("PRelu", x, net.weight(c, 1, 1))),
    "tanh": keep(lambda net, x, c, s: net.op("Tanh", x)),
    "softmax": keep(lambda net, x, c, s: net.op("Softmax", x, axis=1)),
    "scale map": keep(lambda net, x, c, s: net.op("Mul", x, net.weight(1, c, s, s, scale=1.0))),
    "maximum": keep(lambda net, x, c, s: net.op("Max", x, net.weight(c, 1, 1))),
    "channel mean": keep(lambda net, x, c, s: net.op("Sub", x, net.op("ReduceMean", x, net.constant([1]), keepdims=1))),
    "positions": keep(mixed_positions),
    "cumulative": keep(lambda net, x, c, s: net.op("CumSum", x, net.constant(1))),
}


def flat(net, x, c, s):
    return net.op("Flatten", x), c * s * s


def flat_channels_last(net, x, c, s):
    return net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 3, 1]), net.constant([0, -1])), c * s * s


def mean_head(net, x, c, s):
    return net.op("ReduceMean", x, net.constant([2, 3]), keepdims=0), c


def pool_head(net, x, c, s):
    return net.op("Squeeze", net.op("GlobalMaxPool", x), net.constant([2, 3])), c


HEADS = {"flatten": flat, "flatten NHWC": flat_channels_last, "mean": mean_head, "max": pool_head}


def network(steps, head, style, seed, opset=20):
    """Convolution, the steps, a head and two linear layers; sizes are small enough to coincide often."""
    net = Net(seed, opset=opset)
    net.sides = []
    x, c, s = net.input("x", ("N", 3, 4, 4)), 4, 4
    x = net.conv(x, 3, 4)
    for step in steps:
        x, c, s = STEPS[step](net, x, c, s)
    x, width = HEADS[head](net, x, c, s)
    x = net.op("Relu", net.linear(x, width, 4, style))
    return finished(net, net.linear(x, 4, 3, style), *net.sides)


def finished(net, *outputs):
    """The graph without a check of the file: the checker refuses the older GroupNormalization, which is deprecated."""
    proto = net.proto(*outputs)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return load(proto)


networks = st.builds(
    network,
    st.lists(st.sampled_from(sorted(STEPS)), max_size=5),
    st.sampled_from(sorted(HEADS)),
    st.sampled_from(["gemm", "gemm_nt", "matmul", "transposed"]),
    st.integers(0, 99),
    st.sampled_from([20, 21]),
)


# --- soundness --------------------------------------------------------------------------------------------------


def moved_outputs(graph, groups, seed=0):
    """How far the outputs move when all units of all usable groups are shuffled."""
    inputs = inputs_of(graph)
    shuffled, _ = permuted_copy(graph, groups, seed)
    return deviation(run(shuffled, inputs), run(graph, inputs))


@pytest.mark.slow
@settings(max_examples=150)
@given(networks)
def test_permuting_every_group_keeps_the_outputs(graph):
    groups = axis_groups(graph)
    assert groups.usable()  # the last hidden layer at least
    assert moved_outputs(graph, groups) <= EXACT


@pytest.mark.parametrize(
    "steps",
    [
        ["concat self", "prelu", "depthwise x2"],
        ["space to depth", "depthwise x2"],
        ["pick", "prelu", "positions"],
        ["tile", "prelu", "einsum groups", "positions"],
        ["concat self", "grouped"],
        ["space to depth", "grouped 4"],
        ["einsum groups", "gate"],
        ["pixel shuffle in parts", "softmax"],
        ["pixel shuffle in parts", "l2 norm", "einsum"],
        ["cumulative", "einsum groups", "shuffled", "grouped x2"],
    ],
    ids=", ".join,
)
def test_permuting_keeps_the_outputs_where_it_once_did_not(steps):
    graph = network(steps, "flatten", "gemm", 1)
    assert moved_outputs(graph, axis_groups(graph)) <= EXACT


# Rows of a batch and units in one axis, which is then cut where the length of a row does not divide it.


def rows_of(net, units=12):
    return net.op("MatMul", net.input("x", (3, 5)), net.weight(5, units))


def read(net, x, width):
    return net.op("Tanh", net.op("MatMul", x, net.weight(width, 4)))


def means_of_uneven_rows(net):
    """Some units enter a mean twice that others enter once."""
    x = net.op("Reshape", net.op("Pad", rows_of(net), net.constant([1, 0, 1, 0])), net.constant([3, 20]))
    return read(net, net.op("ReduceMean", x, net.constant([1]), keepdims=1), 1)


def picked_from_a_flat_batch(net):
    """Every unit is picked as often as any other, from different rows."""
    x = net.op("Gather", net.op("Reshape", rows_of(net, 4), net.constant([12])), net.constant([0, 5, 10, 3]), axis=0)
    return read(net, net.op("ReduceMean", x, net.constant([0]), keepdims=1), 1)


def sliced_from_uneven_rows(net):
    x = net.op("Reshape", rows_of(net), net.constant([2, 18]))
    bounds = [net.constant([value]) for value in (16, -(2**60), 1, -2)]
    return read(net, net.op("Reshape", net.op("Slice", x, *bounds), net.constant([3, 6])), 6)


def turned_uneven_rows(net):
    x = net.op("Conv", net.input("x", (3, 2, 4, 4)), net.weight(8, 2, 1, 1))
    x = net.op("Reshape", x, net.constant([1, 2, 8, 4, 6]))
    x = net.op("Reshape", net.op("Transpose", x, perm=[3, 2, 0, 1, 4]), net.constant([3, -1]))
    return read(net, net.op("ReduceMean", x, net.constant([1]), keepdims=1), 1)


UNEVEN = [means_of_uneven_rows, picked_from_a_flat_batch, sliced_from_uneven_rows, turned_uneven_rows]


@pytest.mark.parametrize("build", UNEVEN)
def test_permuting_keeps_the_outputs_where_rows_are_cut_unevenly(build):
    net = Net(1)
    graph = finished(net, build(net))
    assert moved_outputs(graph, axis_groups(graph)) <= EXACT


def test_the_exact_judge_computes_a_group_norm_in_float64():
    net = Net(0, opset=21)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6)
    x = net.op("GroupNormalization", x, net.weight(6, scale=1.0), net.weight(6), num_groups=2)
    graph = net.graph(net.conv(x, 6, 2))
    assert moved_outputs(graph, axis_groups(graph)) <= EXACT


@pytest.mark.parametrize("step", sorted(STEPS))
@pytest.mark.parametrize("head", sorted(HEADS))
def test_permuting_keeps_the_outputs_around_each_operator(step, head):
    graph = network([step, "conv", step], head, "gemm", 1)
    assert moved_outputs(graph, axis_groups(graph)) <= EXACT


@pytest.mark.parametrize("times", [1, 2])
def test_permuting_keeps_the_outputs_around_a_depthwise_transposed_convolution(times):
    """Judged in float32: onnx.reference cannot run it."""
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 4)
    x = net.op("ConvTranspose", x, net.weight(4, times, 2, 2), net.weight(4 * times), group=4, strides=[2, 2])
    graph = net.graph(net.op("GlobalAveragePool", net.op("Tanh", net.conv(net.op("Relu", x), 4 * times, 3))))
    groups = axis_groups(graph)
    shuffled, _ = permuted_copy(graph, groups)
    inputs = inputs_of(graph)
    found, expected = run(shuffled, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")
    assert [groups.groups[i].units for i in groups.usable()] == [4, 2][:times]
    assert deviation(found, expected) <= 1e-6


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["norm", "shuffle", "depthwise", "grouped", "residual", "twice"]), max_size=2),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["shuffle", "grouped", "conv", "group norm in parts", "one head", "depthwise"]),
    st.integers(0, 99),
)
def test_permuting_keeps_the_outputs_around_a_grouped_transposed_convolution(before, groups, times, after, seed):
    """Judged in float32: onnx.reference cannot run it."""
    net = Net(seed)
    net.sides = []
    x, c, s = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 4), 4, 4
    for step in before:
        x, c, s = STEPS[step](net, x, c, s)
    wide, scale = 4 * times, net.weight(4 * times)
    x = net.op("ConvTranspose", x, net.weight(4, wide // groups, 2, 2), scale, group=groups, strides=[2, 2])
    x, c, _ = STEPS[after](net, net.op("Tanh", x), wide, 8)
    graph = net.graph(net.op("GlobalAveragePool", net.conv(x, c, 3)))
    groups_found = axis_groups(graph)
    assert groups_found.usable()
    copy, _ = permuted_copy(graph, groups_found)
    inputs = inputs_of(graph)
    assert deviation(run(copy, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")) <= 1e-5


@pytest.mark.parametrize(("op", "attributes"), [("CumSum", {}), ("LRN", {"size": 3, "alpha": 1.0})])
def test_the_law_fails_for_a_wrong_operator_row(op, attributes):
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6)
    x = net.op(op, x, *([net.constant(1)] if op == "CumSum" else []), **attributes)
    graph = net.graph(net.conv(x, 6, 2))
    wrong = {**ROWS, op: Row(elementwise.unary)}
    assert not axis_groups(graph).usable()
    shuffled, _ = permuted_copy(graph, axis_groups(graph, table=wrong))
    inputs = inputs_of(graph)
    assert deviation(run(shuffled, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")) > 1e-2


@settings(max_examples=25)
@given(networks)
def test_a_verification_accepts_no_group_that_moves_the_outputs(graph):
    """With CumSum and Slice misread, whatever the verification lets through still keeps the function."""
    first = Row(lambda call: [call.wiring.take(call.label(0), 1, np.arange(call.outputs[0][1]), call.name)])
    wrong = {**ROWS, "CumSum": Row(elementwise.unary), "Slice": first}
    verified = verify(graph, axis_groups(graph, table=wrong), table=wrong)
    usable = [replace(g, state=GroupState.PINNED) if g.state is not GroupState.VERIFIED else g for g in verified.groups]
    assert moved_outputs(graph, replace(verified, groups=tuple(usable))) <= EXACT


# --- donors with known orders -----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(["conv", "norm", "depthwise", "residual", "concat", "prelu"]), max_size=4),
    st.sampled_from(["flatten", "flatten NHWC", "mean"]),
    st.sampled_from(["permuted", "narrower", "wider"]),
    st.integers(0, 9),
)
def test_the_planted_orders_of_a_donor_lead_back_to_the_base(steps, head, kind, seed):
    base = network(steps, head, "gemm", seed)
    groups = axis_groups(base)
    donor, orders = {"permuted": permuted_copy, "narrower": narrower, "wider": wider}[kind](base, groups, seed)
    found = axis_groups(donor)
    before, after = stored(base), stored(donor)
    for tensor, values in before.items():
        mine, theirs = values, after[tensor]
        for axis in range(values.ndim):
            rows, columns = [np.arange(values.shape[axis])], [np.arange(theirs.shape[axis])]
            pairs = [(i, member) for i, member in groups.on_axis.get((tensor, axis), ()) if i in orders]
            if pairs:
                partners = dict(found.on_axis[tensor, axis])
                rows = [m.positions[orders[i] >= 0].ravel() for i, m in pairs]
                columns = [partners[i].positions[orders[i][orders[i] >= 0]].ravel() for i, _ in pairs]
            mine = mine.take(np.concatenate(rows), axis)
            theirs = theirs.take(np.concatenate(columns), axis)
        assert np.array_equal(mine, theirs), tensor


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["conv", "norm", "depthwise", "residual", "concat"]), max_size=4), st.integers(0, 9))
def test_silent_units_of_a_wider_donor_change_nothing(steps, seed):
    base = network(steps, "flatten", "gemm", seed)
    inputs = inputs_of(base)
    donor, _ = wider(base, axis_groups(base), seed, silent=True)
    assert deviation(run(donor, inputs), run(base, inputs)) <= EXACT


# --- names and file order ---------------------------------------------------------------------------------------


def units(groups, names=None):
    """The groups without names or order: state and the places that each unit holds."""
    names = names or {}
    return {
        (
            group.state,
            frozenset(
                frozenset(
                    (names.get(member.tensor, member.tensor), member.axis, int(position))
                    for member in group.members
                    for position in member.positions[unit]
                )
                for unit in range(group.units)
            ),
        )
        for group in groups.groups
    }


@pytest.mark.slow
@settings(max_examples=60)
@given(networks, st.integers(0, 9))
def test_names_and_file_order_do_not_change_the_groups(graph, seed):
    copy, names = renamed_copy(graph, seed)
    assert units(axis_groups(copy)) == units(axis_groups(graph), names)


@settings(max_examples=25)
@given(networks)
def test_groups_are_found_again_after_permuting(graph):
    groups = axis_groups(graph)
    shuffled, _ = permuted_copy(graph, groups)
    assert units(axis_groups(shuffled)) == units(groups)


# --- completeness: brute force ----------------------------------------------------------------------------------


def tiny_mlp(net):
    x = net.op("Tanh", net.linear(net.input("x", ("N", 2)), 2, 3))
    return net.linear(x, 3, 2)


def tiny_residual(net):
    x = net.linear(net.input("x", ("N", 2)), 2, 3, "matmul")
    x = net.op("Add", x, net.op("Tanh", net.op("MatMul", x, net.weight(3, 3))))
    return net.op("MatMul", x, net.weight(3, 2))


def tiny_depthwise(net):
    x = net.conv(net.input("x", ("N", 1, 3, 3)), 1, 3, 1, bias=False)
    x = net.op("Conv", net.op("Tanh", x), net.weight(3, 1, 1, 1), net.weight(3), group=3)
    return net.op("Conv", net.op("Tanh", x), net.weight(1, 3, 1, 1))


def tiny_norm(net):
    x = net.op("Conv", net.input("x", ("N", 1, 3, 3)), net.weight(2, 1, 1, 1))
    return net.op("Conv", net.op("Tanh", net.norm(x, 2)), net.weight(2, 2, 1, 1))


def tiny_concat(net):
    x = net.input("x", ("N", 1))
    a, b = net.op("MatMul", x, net.weight(1, 2)), net.op("MatMul", x, net.weight(1, 2))
    y = net.op("Concat", net.op("Tanh", a), net.op("Sin", b), axis=1)
    return net.op("MatMul", y, net.weight(4, 2))


def tiny_flatten(net):
    x = net.op("Conv", net.input("x", ("N", 1, 1, 2)), net.weight(2, 1, 1, 1), net.weight(2))
    return net.op("MatMul", net.op("Flatten", net.op("Tanh", x)), net.weight(4, 2))


def tiny_flip(net):
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 1)), net.weight(1, 4)))
    y = net.op("Slice", x, *[net.constant([v]) for v in (-1, -(2**62), 1, -1)])
    return net.op("MatMul", net.op("Add", net.op("Mul", x, net.weight(4, scale=1.0)), y), net.weight(4, 1))


def tiny_split(net):
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 1)), net.weight(1, 4)))
    a, b = net.op("Split", x, outputs=2, axis=1, num_outputs=2)
    return net.op("MatMul", net.op("Mul", a, net.op("Cos", b)), net.weight(2, 2))


def tiny_shuffle(net):
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 1)), net.weight(1, 4)))
    y = net.op("Transpose", net.op("Reshape", x, net.constant([0, 2, 2])), perm=[0, 2, 1])
    return net.op("MatMul", net.op("Reshape", y, net.constant([0, 4])), net.weight(4, 1))


def tiny_tied(net):
    w = net.weight(3, 3)
    x = net.op("MatMul", net.input("x", ("N", 1)), net.weight(1, 3))
    return net.op(
        "MatMul", net.op("Tanh", net.op("MatMul", net.op("Tanh", net.op("MatMul", x, w)), w)), net.weight(3, 1)
    )


def tiny_layer_norm(net):
    x = net.op("MatMul", net.input("x", ("N", 2)), net.weight(2, 3))
    return net.op("MatMul", net.op("LayerNormalization", x, net.weight(3, scale=1.0), net.weight(3)), net.weight(3, 1))


def tiny_softmax_gate(net):
    x = net.input("x", ("N", 2))
    y = net.op("Softmax", net.op("MatMul", x, net.weight(2, 3)), axis=-1)
    return net.op("MatMul", net.op("Mul", y, net.op("Tanh", net.op("MatMul", x, net.weight(2, 3)))), net.weight(3, 1))


def channels(net, units=4, size=3):
    """A signal of one channel, spread over some by a convolution."""
    return net.op("Conv", net.input("x", ("N", 1, size, size)), net.weight(units, 1, 1, 1))


def summed(net, x, units=4):
    """All channels of a signal in one, after a function that keeps their number."""
    return net.op("Conv", net.op("Tanh", x), net.weight(1, units, 1, 1))


def tiny_grouped(net):
    return summed(net, net.op("Conv", channels(net), net.weight(4, 2, 1, 1), group=2))


def tiny_grouped_transposed(net):
    return summed(net, net.op("ConvTranspose", channels(net, size=1), net.weight(4, 2, 1, 1), group=2))


def tiny_group_norm(net):
    shift = net.op("Expand", net.constant(np.float32(0.2)), net.constant([4]))
    scale = net.weight(4, scale=1.0)
    return summed(net, net.op("GroupNormalization", channels(net), scale, shift, num_groups=2, stash_type=11))


def tiny_group_norm_in_parts(net):
    x = net.op("Reshape", channels(net), net.constant([0, 2, -1]))
    x = net.op("InstanceNormalization", x, net.weight(2, scale=1.0), net.weight(2))
    return summed(net, net.op("Reshape", x, net.constant([0, 4, 3, 3])))


def tiny_multiplier(net):
    return summed(net, net.op("Conv", channels(net, 2), net.weight(4, 1, 1, 1), group=2))


def tiny_dense_block(net):
    """The first channels are read twice: by the second layer, and beside it."""
    x = channels(net, 2)
    y = net.op("Conv", net.op("Tanh", x), net.weight(2, 2, 1, 1))
    return summed(net, net.op("Concat", x, y, axis=1))


def tiny_flatten_channels_last(net):
    x = net.op("Conv", net.input("x", ("N", 1, 1, 2)), net.weight(2, 1, 1, 1), net.weight(2))
    x = net.op("Flatten", net.op("Transpose", net.op("Tanh", x), perm=[0, 2, 3, 1]))
    return net.op("MatMul", x, net.weight(4, 2))


def tiny_shuffled_groups(net):
    x = net.op("Transpose", net.op("Reshape", channels(net), net.constant([0, 2, 2, 3, 3])), perm=[0, 2, 1, 3, 4])
    x = net.op("Reshape", x, net.constant([0, 4, 3, 3]))
    return summed(net, net.op("Conv", x, net.weight(4, 2, 1, 1), group=2))


def attention(net, queries, shared, wide, deep):
    """Heads over three positions, their queries and keys of `wide` units, their values of `deep`; `shared` query heads
    read one head of keys and values."""
    x, kept = net.input("x", ("N", 3, 1)), queries // shared

    def projected(count, units, perm, expand):
        y = net.op("MatMul", x, net.weight(1, units * count))
        return net.op("Transpose", net.op("Reshape", y, net.constant([0, 0, kept, expand, units])), perm=perm)

    asked = projected(queries, wide, [0, 2, 3, 1, 4], shared)
    scores = net.op("Softmax", net.op("MatMul", asked, projected(kept, wide, [0, 2, 3, 4, 1], 1)), axis=-1)
    y = net.op("MatMul", scores, projected(kept, deep, [0, 2, 3, 1, 4], 1))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 3, 1, 2, 4]), net.constant([0, 0, deep * queries]))
    return net.op("MatMul", y, net.weight(deep * queries, 1))


def tiny_heads_wide(net):
    return attention(net, 2, 1, 2, 1)


def tiny_heads_deep(net):
    return attention(net, 2, 1, 1, 2)


def tiny_shared_keys(net):
    return attention(net, 2, 2, 2, 2)


def tiny_pixel_shuffle(net):
    return summed(net, net.op("DepthToSpace", channels(net, 8, 2), blocksize=2, mode="CRD"), 2)


def tiny_pixel_row(net):
    """A pixel shuffle in parts, along the width alone."""
    x = net.op("Transpose", net.op("Reshape", channels(net), net.constant([0, 2, 2, 3, 3])), perm=[0, 1, 3, 4, 2])
    return summed(net, net.op("Reshape", x, net.constant([0, 2, 3, 6])), 2)


def tiny_two_groupings(net):
    x = channels(net)
    y = net.op("Add", net.op("Conv", x, net.weight(2, 2, 1, 1), group=2), net.op("Conv", x, net.weight(2, 4, 1, 1)))
    return summed(net, y, 2)


def tiny_standardised(net):
    w = net.op("InstanceNormalization", net.weight(1, 3, 2), net.weight(3, scale=1.0), net.weight(3))
    x = net.op("Conv", net.op("Tanh", channels(net, 2)), net.op("Reshape", w, net.constant([3, 2, 1, 1])))
    return summed(net, x, 3)


def tiny_squeeze_excite(net):
    x = channels(net, 3)
    y = net.op("Tanh", net.op("Conv", net.op("GlobalAveragePool", x), net.weight(2, 3, 1, 1)))
    return summed(net, net.op("Mul", x, net.op("Sigmoid", net.op("Conv", y, net.weight(3, 2, 1, 1)))), 3)


def tiny_copies(net):
    """The second layer reads two copies of each channel, which nothing tells apart."""
    return summed(net, net.op("Tile", channels(net, 2), net.constant([1, 2, 1, 1])))


def tiny_roll(net):
    """Each channel meets the one before it, in a ring."""
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 1)), net.weight(1, 4)))
    y = net.op("Gather", x, net.constant([3, 0, 1, 2]), axis=1)
    return net.op("MatMul", net.op("Tanh", net.op("Add", net.op("Mul", x, x), y)), net.weight(4, 1))


def tiny_pooled_pixels(net):
    """A mean over positions hides which channel a pixel came from."""
    return net.op("GlobalAveragePool", net.op("Tanh", net.op("DepthToSpace", channels(net, 4, 2), blocksize=2)))


def tiny_sum(net):
    """One weight axis alone makes the units: there is no member to leave out."""
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 1)), net.weight(1, 3)))
    return net.op("ReduceSum", x, net.constant([1]))


TINY = [tiny_mlp, tiny_residual, tiny_depthwise, tiny_norm, tiny_concat, tiny_flatten, tiny_split]
TINY += [tiny_shuffle, tiny_tied, tiny_layer_norm, tiny_softmax_gate, tiny_grouped, tiny_grouped_transposed]
TINY += [tiny_group_norm, tiny_group_norm_in_parts, tiny_multiplier, tiny_dense_block, tiny_flatten_channels_last]
TINY += [
    tiny_shuffled_groups,
    tiny_heads_wide,
    tiny_heads_deep,
    tiny_shared_keys,
    tiny_pixel_shuffle,
    tiny_pixel_row,
    tiny_two_groupings,
]
TINY += [tiny_standardised, tiny_squeeze_excite]


def places_of(weights):
    """Every weight axis longer than 1, and where its positions start in one list of all positions."""
    axes = [(name, axis) for name, w in weights.items() for axis, size in enumerate(w.shape) if size > 1]
    starts = np.cumsum([0, *(weights[name].shape[axis] for name, axis in axes)])
    return axes, starts


def keeping(graph):
    """Every permutation of all positions that keeps each on its axis and keeps the function.

    All are run in float32, and those that pass a loose bound again in float64.
    """
    inputs, weights = inputs_of(graph), stored(graph)
    axes, starts = places_of(weights)
    session = registry.runner().open(graph, variable=list(weights))
    (expected,) = session.run(inputs, weights).values()
    exact, found = run(graph, inputs) if in_float64(graph) else None, set()
    for orders in product(*(permutations(range(weights[name].shape[axis])) for name, axis in axes)):
        changed = dict(weights)
        for (name, axis), order in zip(axes, orders, strict=True):
            changed[name] = changed[name].take(order, axis)
        (outputs,) = session.run(inputs, changed).values()
        if np.abs(outputs - expected).max() > 1e-4 * np.abs(expected).max():
            continue
        if exact is None or deviation(run(graph.with_weights(changed), inputs), exact) <= EXACT:
            found.add(
                tuple(int(start + place) for start, order in zip(starts[:-1], orders, strict=True) for place in order)
            )
    return found


def in_float64(graph):
    """Whether onnx.reference can run it."""
    return all(node.op != "ConvTranspose" or node.attribute("group", 1) == 1 for node in graph.nodes)


def generated(groups, weights):
    """The same permutations, of the group that the exchanges of neighbouring units generate."""
    axes, starts = places_of(weights)
    start, identity = dict(zip(axes, starts[:-1].tolist(), strict=True)), tuple(range(int(starts[-1])))
    exchanges = []
    for group in (groups.groups[i] for i in groups.usable()):
        for a, b in pairwise(range(group.units)):
            order = np.array(identity)
            for member in group.members:
                here = member.positions + start[member.tensor, member.axis]
                order[here[[a, b]]] = here[[b, a]]
            exchanges.append(order.tolist())
    found, new = {identity}, [identity]
    while new:
        new = list({tuple(before[i] for i in order) for before in new for order in exchanges} - found)
        found.update(new)
    return found


def tiny(build):
    net = Net(3, opset=21)
    return net.graph(build(net))


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("build", [*TINY, tiny_sum, tiny_copies])
def test_the_verified_groups_are_all_the_permutations_that_keep_the_function(build):
    graph = tiny(build)
    found = keeping(graph)
    assert generated(verify(graph, axis_groups(graph)), stored(graph)) == found
    assert len(found) > 1


@pytest.mark.parametrize(
    ("build", "ours", "all_of_them"),
    [(tiny_flip, 2, 8), (tiny_roll, 1, 4), (tiny_pooled_pixels, 1, 24)],
    ids=["sides of a pair", "rotations of a ring", "positions before a mean"],
)
def test_known_limits_are_not_claimed(build, ours, all_of_them):
    """True symmetries for which groups have no form (see `units`)."""
    graph = tiny(build)
    found, claimed = keeping(graph), generated(verify(graph, axis_groups(graph)), stored(graph))
    assert (len(claimed), len(found)) == (ours, all_of_them)
    assert claimed <= found


@pytest.mark.parametrize(("op", "rule"), [("Tanh", indexing.addressed), ("Transpose", elementwise.unary)])
def test_completeness_fails_for_a_wrong_operator_row(op, rule):
    graph = tiny(tiny_shuffle)
    wrong = axis_groups(graph, table={**ROWS, op: Row(rule)})
    assert generated(wrong, stored(graph)) != keeping(graph)
