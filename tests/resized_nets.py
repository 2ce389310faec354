"""Networks that hold widths in every way the table knows: shapes, splits, slices, gathers, groups."""

from builders import Net, cnn, mlp


def channel_shuffle(dynamic=False):
    """Grouped convolutions with a channel shuffle in between; its targets are constants or put together from sizes."""
    net = Net(0)
    x = net.input("x", ("N", 3, 4, 4))
    y = net.op("Relu", net.conv(x, 3, 6))

    def target(*sizes):
        if not dynamic:
            return net.constant([0, *sizes])
        batch = net.op("Gather", net.op("Shape", x), net.constant([0]))
        return net.op("Concat", batch, *[net.constant([size]) for size in sizes], axis=0)

    y = net.op("Reshape", net.op("Relu", net.conv(y, 6, 6, group=2)), target(2, 3, 4, 4))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), target(6, 4, 4))
    y = net.op("Relu", net.conv(y, 6, 6, group=6))
    return net.graph(net.conv(y, 6, 2, 1))


def split(sizes, opset=20):
    """One half of the channels gates the other."""
    net = Net(0, opset=opset)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    given = [net.constant([4, 4])] if sizes == "input" else []
    held = {"split": [4, 4]} if sizes == "attribute" else {"num_outputs": 2} if opset >= 18 and not given else {}
    a, b = net.op("Split", x, *given, outputs=2, axis=1, **held)
    return net.graph(net.linear(net.op("Add", net.op("Tanh", a), b), 4, 3))


def lopsided():
    """The second half of a split is used with other channels, so that the halves become unequal."""
    net = Net(0)
    x = net.input("x", ("N", 5))
    a, b = net.op("Split", net.op("Relu", net.linear(x, 5, 8)), outputs=2, axis=1, num_outputs=2)
    return net.graph(net.linear(a, 4, 3), net.linear(net.op("Tanh", b), 4, 3))


def sequence():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    parts = net.op("SplitToSequence", x, net.constant(4), axis=1)
    a, b = (net.op("SequenceAt", parts, net.constant(place)) for place in (0, 1))
    return net.graph(net.linear(a, 4, 3), net.linear(b, 4, 3))


def sliced(opset=20):
    net = Net(0, opset=opset)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 8))
    if opset < 10:
        parts = [net.op("Slice", x, starts=[a], ends=[b], axes=[1]) for a, b in ((0, 3), (3, 8))]
    else:
        bounds = [[net.constant([n]) for n in pair] for pair in ((0, 3), (3, 99))]
        parts = [net.op("Slice", x, *pair, net.constant([1])) for pair in bounds]
    return net.graph(net.linear(parts[0], 3, 2), net.linear(parts[1], 5, 2))


def gathered():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 6))
    return net.graph(net.linear(net.op("Gather", x, net.constant([5, 1, 3, -2, 0, 2]), axis=1), 6, 2))


def first_place():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 4, 5)), 5, 6, "matmul"))
    return net.graph(net.linear(net.op("Gather", x, net.constant(0), axis=1), 6, 2))


def pixel_shuffle():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 12))
    return net.graph(net.conv(net.op("DepthToSpace", x, blocksize=2, mode="CRD"), 3, 2))


def group_norm():
    net = Net(0, opset=21)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 8)
    x = net.op("GroupNormalization", x, net.weight(8, scale=1.0), net.weight(8), num_groups=4)
    return net.graph(net.conv(net.op("Relu", x), 8, 2))


def grouped_upsampler():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    x = net.op("ConvTranspose", x, net.weight(6, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 2], group=3)
    x = net.op("Resize", net.op("Relu", x), "", "", net.constant([3, 6, 4, 4]))
    return net.graph(net.conv(x, 6, 2))


def expanded():
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, 6))
    x = net.op("Expand", net.op("Unsqueeze", x, net.constant([1])), net.constant([3, 4, 6]))
    return net.graph(net.linear(net.op("ReduceMean", x, net.constant([1]), keepdims=0), 6, 2))


NETS = {
    "gemm": mlp,
    "matmul": lambda: mlp(style="matmul"),
    "transposed": lambda: mlp(style="transposed"),
    "concat": lambda: cnn(concat=True, head="flatten"),
    "shuffle": channel_shuffle,
    "shuffle, sizes from the input": lambda: channel_shuffle(dynamic=True),
    "split, sizes given": lambda: split("input"),
    "split, sizes in an attribute": lambda: split("attribute", opset=11),
    "split, old without sizes": lambda: split("", opset=13),
    "split": lambda: split(""),
    "split, unequal": lopsided,
    "sequence": sequence,
    "slice": sliced,
    "slice, bounds in attributes": lambda: sliced(opset=9),
    "gather": gathered,
    "one place": first_place,
    "pixel shuffle": pixel_shuffle,
    "group norm": group_norm,
    "transposed convolution, resize": grouped_upsampler,
    "expand": expanded,
}
