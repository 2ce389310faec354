"""Small networks that hold one kind of setting each, and others that hold what looks like it and was learned."""

from collections.abc import Callable

import numpy as np
from builders import Net

from mal_graph.graph import LayerGraph

TOKENS, HEADS, HEAD, WIDTH = 6, 2, 4, 8
Change = Callable[[Net, str], str]


def attention(
    seed: int = 0,
    *,
    on_queries: Change | None = None,
    on_both: Change | None = None,
    on_scores: Change | None = None,
    on_tokens: Change | None = None,
) -> LayerGraph:
    """One attention written out, with what is done to queries, to queries and keys alike, to scores and to tokens."""
    net = Net(seed)
    x = net.input("x", ("N", TOKENS, WIDTH))
    x = net.linear(x, WIDTH, WIDTH, "matmul")
    x = on_tokens(net, x) if on_tokens else x

    def split(name: str, perm: list[int]) -> str:
        made = net.op("Reshape", net.linear(x, WIDTH, WIDTH, "matmul"), net.constant([0, TOKENS, HEADS, HEAD]))
        return net.op("Transpose", made, perm=perm, name=None)

    q, k, v = split("q", [0, 2, 1, 3]), split("k", [0, 2, 1, 3]), split("v", [0, 2, 1, 3])
    q = on_queries(net, q) if on_queries else q
    q, k = (on_both(net, one) if on_both else one for one in (q, k))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = on_scores(net, scores) if on_scores else scores
    read = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    joined = net.op("Reshape", net.op("Transpose", read, perm=[0, 2, 1, 3]), net.constant([0, TOKENS, WIDTH]))
    out = net.linear(joined, WIDTH, WIDTH, "matmul")
    return net.graph(net.linear(net.op("Relu", net.op("Add", x, out)), WIDTH, 3, "matmul"))


def stored(op: str, values: object, name: str = "setting") -> Change:
    """An operator with a stored second operand."""

    def change(net: Net, x: str) -> str:
        kept = name if name in net.weights else net.constant(np.asarray(values, net.dtype), name)
        return net.op(op, x, kept)

    return change


def causal(low: float = -1e9) -> np.ndarray:
    """An additive mask that hides what comes later."""
    return np.triu(np.full((TOKENS, TOKENS), low), 1)


def angles(base: float = 100.0) -> np.ndarray:
    """Angles of positions, each frequency twice: the halves of a head turn together."""
    turned = np.outer(np.arange(TOKENS), base ** (-np.arange(HEAD // 2) / (HEAD // 2)))
    return np.concatenate([turned, turned], axis=1)


def rotated(base: float = 100.0) -> Change:
    """Queries and keys turned by their positions, with tables of cosines and sines."""

    def change(net: Net, x: str) -> str:
        for name, made in (("cosines", np.cos), ("sines", np.sin)):
            if name not in net.weights:
                net.constant(made(angles(base)).astype(net.dtype), name)
        first, second = net.op("Split", x, outputs=2, axis=-1, num_outputs=2)
        turned = net.op("Concat", net.op("Neg", second), first, axis=-1)
        return net.op("Add", net.op("Mul", x, "cosines"), net.op("Mul", turned, "sines"))

    return change


def turned_by_frequencies(base: float = 100.0) -> Change:
    """The same, with angles computed from frequencies and positions."""

    def change(net: Net, x: str) -> str:
        if "frequencies" not in net.weights:
            values = base ** (-np.arange(HEAD // 2) / (HEAD // 2))
            net.constant(values.astype(net.dtype), "frequencies")
            net.constant(np.arange(TOKENS, dtype=net.dtype).reshape(-1, 1), "positions")
        half = net.op("Mul", "positions", "frequencies")
        whole = net.op("Concat", half, half, axis=-1)
        first, second = net.op("Split", x, outputs=2, axis=-1, num_outputs=2)
        turned = net.op("Concat", net.op("Neg", second), first, axis=-1)
        return net.op("Add", net.op("Mul", x, net.op("Cos", whole)), net.op("Mul", turned, net.op("Sin", whole)))

    return change


def convolved(seed: int = 0, *, mean: object = (0.48, 0.45, 0.4), deviation: object = (0.2, 0.22, 0.25)) -> LayerGraph:
    """A convolution on an image from which a mean is taken and which is divided by a deviation."""
    net = Net(seed)
    x = net.input("x", ("N", 3, 6, 6))
    for op, values, name in (("Sub", mean, "mean"), ("Div", deviation, "deviation")):
        x = net.op(op, x, net.constant(np.reshape(np.float32(values), (1, 3, 1, 1)), name))
    x = net.op("Relu", net.conv(x, 3, 6))
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))


def with_grid(seed: int = 0, *, step: float = 1.0) -> LayerGraph:
    """A detector's end: offsets from places on a grid, times a stride."""
    net = Net(seed)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 6, 6)), 3, 5))
    offsets = net.op("Reshape", net.conv(x, 5, 2, 1), net.constant([0, 2, 36]))
    rows, columns = np.meshgrid(np.arange(6) + 0.5, np.arange(6) + 0.5, indexing="ij")
    anchors = np.stack([columns.ravel(), rows.ravel()]).astype(np.float32) * step
    return net.graph(net.op("Add", offsets, net.constant(anchors, "anchors")))
