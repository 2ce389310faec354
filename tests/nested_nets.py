"""Networks with units inside units and across each other, and copies with all of them in another order."""

import numpy as np
from builders import Net, network

from mal_graph.graph import LayerGraph
from mal_graph.symmetry import permute_weights


def attention(heads=3, size=4, seed=0, normed="", width=8) -> LayerGraph:
    """One attention on a residual stream, written out. With a norm of head size the units of queries and keys lie
    across the heads, else inside them; those of the values always lie inside."""
    net, inner = Net(seed, opset=23), heads * size
    x = net.linear(net.input("x", ("N", 3, 5)), 5, width, "matmul")

    def projected(perm, norm=""):
        part = net.op("Reshape", net.linear(x, width, inner, "matmul"), net.constant([0, 3, heads, size]))
        part = net.op(norm, part, net.weight(size), axis=-1) if norm else part
        return net.op("Transpose", part, perm=perm)

    queries, keys = projected([0, 2, 1, 3], normed), projected([0, 2, 1, 3], normed)
    scores = net.op("MatMul", queries, net.op("Transpose", keys, perm=[0, 1, 3, 2]))
    read = net.op("MatMul", net.op("Softmax", scores, axis=-1), projected([0, 2, 1, 3]))
    joined = net.op("Reshape", net.op("Transpose", read, perm=[0, 2, 1, 3]), net.constant([0, 3, inner]))
    x = net.op("Add", x, net.linear(joined, inner, width, "matmul"))
    return net.graph(net.linear(x, width, 3, "matmul"))


def grouped(channels=12, groups=3, seed=0, depth=1) -> LayerGraph:
    """Grouped convolutions between plain ones: what a group gives lies inside it, what it takes across all groups."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 5, 5)), 3, channels))
    for _ in range(depth):
        weight = net.weight(channels, channels // groups, 3, 3)
        x = net.op("Relu", net.op("Conv", x, weight, net.weight(channels), group=groups, pads=[1] * 4))
        x = net.op("Relu", net.conv(x, channels, channels))
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), channels, 4))


def block_diagonal(blocks=3, read=4, made=5, seed=0) -> LayerGraph:
    """A matrix for each block of units, between plain layers; that units are cut in blocks is computed, so that those
    read have one order in all blocks."""
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 6)), 6, blocks * read))
    samples = net.op("Gather", net.op("Shape", x), net.constant([0]))
    x = net.op("Reshape", x, net.op("Concat", samples, net.constant([blocks, read]), axis=0))
    x = net.op("Einsum", x, net.weight(blocks, read, made), equation="ngi,gij->ngj")
    x = net.op("Tanh", net.op("Add", x, net.weight(blocks, made)))
    return net.graph(net.linear(net.op("Reshape", x, net.constant([-1, blocks * made])), blocks * made, 4))


def twice(sizes=(2, 3, 4), seed=0, width=5) -> LayerGraph:
    """Blocks of blocks: in each outer one, units across the inner ones."""
    net, (outer, inner, units) = Net(seed), sizes
    size = outer * inner * units
    x = net.op("Relu", net.linear(net.input("x", ("N", width)), width, size))
    x = net.op("Softmax", net.op("Reshape", x, net.constant([0, *sizes])), axis=-1)
    x = net.op("Mul", x, net.op("ReduceMax", x, net.constant([2, 3]), keepdims=1))
    return net.graph(net.linear(net.op("Reshape", x, net.constant([0, size])), size, 4))


NETS = {
    "heads": attention,
    "heads with RMSNorms": lambda seed=0: attention(normed="RMSNormalization", seed=seed),
    "heads with LayerNorms": lambda seed=0: attention(normed="LayerNormalization", seed=seed),
    "grouped": grouped,
    "grouped, deep": lambda seed=0: grouped(16, 4, depth=2, seed=seed),
    "blocks of blocks": twice,
    "blocks of blocks, uneven": lambda seed=0: twice((3, 4, 5), seed=seed),
}


def permuted(graph: LayerGraph, seed: int, noise: float = 0.0) -> LayerGraph:
    """A copy in which all units that may be permuted stand in another order, inside others and across them too."""
    rng, groups = np.random.default_rng(seed), network(graph).groups
    free = [group for group in groups.groups if group.is_usable and group.units > 1]
    values = {name: weight.read() for name, weight in graph.weights.items()}
    moves = [(group, rng.permutation(group.units)) for group in free]
    moved = {**values, **permute_weights(values, moves)}
    floats = {name: value for name, value in moved.items() if graph.weights[name].is_float}
    noisy = {name: value + noise * value.std() * rng.standard_normal(value.shape) for name, value in floats.items()}
    return graph.with_weights({name: value.astype(np.float32) for name, value in noisy.items()})
