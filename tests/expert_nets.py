"""Networks with stacks: stored tensors that hold a matrix for each expert or for each head."""

from collections.abc import Callable, Mapping

import numpy as np
from builders import Net

from mal_graph.graph import LayerGraph

FEATURES, STEPS, CLASSES = 5, 4, 3


def experts(form: str = "matmul", seed: int = 0, number: int = 3, hidden: int = 7, width: int = 6) -> LayerGraph:
    """A mixture of experts that are all computed.

    `form`: "matmul" and "einsum" with biases; "unsqueezed" biases of two axes; "repeated" inputs, one for each expert;
    "gated", with two products of one stack; "deep", with a layer in between; "turned", with matrices stored (out, in).
    """
    net = Net(seed)
    x = net.linear(net.input("x", ("N", STEPS, FEATURES)), FEATURES, width, "matmul")
    shares = net.op("Softmax", net.op("MatMul", x, net.weight(width, number)), axis=-1)
    made = MIXTURES[form](net, x, number, hidden, width)  # (N, experts, steps, width)
    shares = net.op("Unsqueeze", net.op("Transpose", shares, perm=[0, 2, 1]), net.constant([3]))
    mixed = net.op("ReduceSum", net.op("Mul", made, shares), net.constant([1]), keepdims=0)
    return net.graph(net.linear(net.op("Add", x, mixed), width, CLASSES, "matmul"))


def by_matmul(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    x = net.op("MatMul", net.op("Unsqueeze", x, net.constant([1])), net.weight(number, width, hidden, name="up"))
    x = net.op("Relu", net.op("Add", x, net.weight(number, 1, hidden, name="up bias")))
    x = net.op("MatMul", x, net.weight(number, hidden, width, name="down"))
    return net.op("Add", x, net.weight(number, 1, width, name="down bias"))


def by_einsum(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    x = net.op("Einsum", x, net.weight(number, width, hidden, name="up"), equation="ntw,ewh->neth")
    x = net.op("Relu", net.op("Add", x, net.weight(number, 1, hidden, name="up bias")))
    x = net.op("Einsum", x, net.weight(number, hidden, width, name="down"), equation="neth,ehw->netw")
    return net.op("Add", x, net.weight(number, 1, width, name="down bias"))


def unsqueezed(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    bias = net.op("Unsqueeze", net.weight(number, hidden, name="up bias"), net.constant([1]))
    x = net.op("MatMul", net.op("Unsqueeze", x, net.constant([1])), net.weight(number, width, hidden, name="up"))
    return net.op("MatMul", net.op("Relu", net.op("Add", x, bias)), net.weight(number, hidden, width, name="down"))


def repeated(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    x = net.op("Expand", net.op("Unsqueeze", x, net.constant([1])), net.constant([1, number, 1, 1]))
    x = net.op("Relu", net.op("MatMul", x, net.weight(number, width, hidden, name="up")))
    return net.op("MatMul", x, net.weight(number, hidden, width, name="down"))


def gated(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    x = net.op("MatMul", net.op("Unsqueeze", x, net.constant([1])), net.weight(number, width, 2 * hidden, name="up"))
    gate, value = net.op("Split", x, outputs=2, axis=-1, num_outputs=2)
    x = net.op("Mul", net.op("Sigmoid", gate), value)
    return net.op("MatMul", x, net.weight(number, hidden, width, name="down"))


def deep(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    x = net.op("MatMul", net.op("Unsqueeze", x, net.constant([1])), net.weight(number, width, hidden, name="up"))
    x = net.op("MatMul", net.op("Relu", x), net.weight(number, hidden, hidden + 1, name="middle"))
    return net.op("MatMul", net.op("Relu", x), net.weight(number, hidden + 1, width, name="down"))


def turned(net: Net, x: str, number: int, hidden: int, width: int) -> str:
    up = net.op("Transpose", net.weight(number, hidden, width, name="up"), perm=[0, 2, 1])
    x = net.op("Relu", net.op("MatMul", net.op("Unsqueeze", x, net.constant([1])), up))
    return net.op("MatMul", x, net.op("Transpose", net.weight(number, width, hidden, name="down"), perm=[0, 2, 1]))


MIXTURES: Mapping[str, Callable[[Net, str, int, int, int], str]] = {
    "matmul": by_matmul,
    "einsum": by_einsum,
    "unsqueezed": unsqueezed,
    "repeated": repeated,
    "gated": gated,
    "deep": deep,
    "turned": turned,
}


def heads(seed: int = 0, number: int = 3, size: int = 4, width: int = 6) -> LayerGraph:
    """Attention with kernels (width, heads, size) and (heads, size, width), and biases (heads, size), as Keras stores
    them."""
    net = Net(seed)
    x = net.linear(net.input("x", ("N", STEPS, FEATURES)), FEATURES, width, "matmul")

    def projected(name: str) -> str:
        made = net.op("Einsum", x, net.weight(width, number, size, name=name), equation="abc,cde->abde")
        return net.op("Add", made, net.weight(number, size, name=f"{name} bias"))

    scores = net.op("Einsum", projected("key"), projected("query"), equation="aecd,abcd->acbe")
    read = net.op("Einsum", net.op("Softmax", scores, axis=-1), projected("value"), equation="acbe,aecd->abcd")
    out = net.op("Einsum", read, net.weight(number, size, width, name="out"), equation="abcd,cde->abe")
    return net.graph(net.linear(net.op("Add", x, net.op("Add", out, net.weight(width))), width, CLASSES, "matmul"))


def by_place(seed: int = 0, width: int = 6) -> LayerGraph:
    """A layer with a matrix of its own for each step."""
    net = Net(seed)
    x = net.linear(net.input("x", ("N", STEPS, FEATURES)), FEATURES, width, "matmul")
    x = net.op("Relu", net.op("Einsum", x, net.weight(STEPS, width, 7, name="places"), equation="ntw,twh->nth"))
    return net.graph(net.linear(x, 7, CLASSES, "matmul"))


NETS = {
    **{f"experts, {form}": lambda seed=0, form=form: experts(form, seed) for form in MIXTURES},
    "heads": heads,
    "by place": by_place,
}


def reordered(values: Mapping[str, np.ndarray], seed: int, form: str) -> dict[str, np.ndarray]:
    """The stored tensors of a mixture with its experts, and the hidden units of each, in another order; by hand."""
    rng, new = np.random.default_rng(seed), dict(values)
    router = next(name for name, one in values.items() if one.ndim == 2 and one.shape[1] == len(values["up"]))
    order = rng.permutation(len(values["up"]))
    new[router] = values[router][:, order]
    inner = {"turned": 1}.get(form, 2)
    for name in ("up", "up bias", "middle", "down", "down bias"):
        if name in new:
            new[name] = values[name][order]
    for expert in range(len(order)):
        units = rng.permutation(new["down"].shape[{"turned": 2}.get(form, 1)])
        columns = np.concatenate([units, units + len(units)]) if form == "gated" else units
        if form == "deep":
            units = columns = rng.permutation(new["up"].shape[2])
            new["middle"][expert] = new["middle"][expert].take(units, axis=0)
        new["up"][expert] = new["up"][expert].take(columns, axis=inner - 1)
        if "up bias" in new:
            new["up bias"][expert] = new["up bias"][expert].take(columns, axis=-1)
        if form != "deep":
            new["down"][expert] = new["down"][expert].take(units, axis={"turned": 1}.get(form, 0))
    return new


def cross_attention(seed: int = 0, width: int = 6, other: int = 6, sizes: tuple[int, ...] = (6, 12)) -> LayerGraph:
    """Attention of one stream to another, with a packed projection that a Split cuts."""
    net = Net(seed)
    x = net.linear(net.input("x", ("N", STEPS, FEATURES)), FEATURES, width, "matmul")
    y = net.op("Relu", net.linear(net.input("y", ("N", STEPS, FEATURES)), FEATURES, other, "matmul"))
    parts = net.op("Split", net.weight(sum(sizes), width, name="packed"), net.constant(list(sizes)), outputs=2, axis=0)
    queries, both = (net.op("Transpose", part, perm=[1, 0]) for part in parts)
    keys, values = net.op("Split", net.op("MatMul", y, both), outputs=2, axis=-1, num_outputs=2)
    scores = net.op("MatMul", net.op("MatMul", x, queries), net.op("Transpose", keys, perm=[0, 2, 1]))
    read = net.op("MatMul", net.op("Softmax", scores, axis=-1), values)
    x = net.op("Add", x, net.linear(read, sizes[1] // 2, width, "matmul"))
    return net.graph(net.linear(x, width, CLASSES, "matmul"))
