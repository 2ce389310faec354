"""The same network through several exporters, or traced, gives the same groups: they belong to the network.

Names, operators and the layout of weights differ between the files, so weights are recognised by their values: every
one is drawn at random, and equals one parameter of the torch module up to the order of its axes and axes of length 1.
"""

import io
import warnings
from functools import cache
from itertools import permutations

import numpy as np
import onnx
import pytest
from builders import Net, deviation, inputs_of, load, permuted_copy, run
from onnx import helper, numpy_helper

import mal_graph
from mal_graph.operators import ROWS, Row, elementwise
from mal_graph.symmetry import axis_groups

try:
    import torch
    from torch import nn
except ImportError:
    torch = None


# --- torch networks ---------------------------------------------------------------------------------------------

if torch is not None:

    class Grouped(nn.Module):
        """A grouped convolution and BatchNorm, which exporters fold into the convolution."""

        def __init__(self):
            super().__init__()
            self.up, self.mid, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 5, 1)
            self.norm = nn.BatchNorm2d(12)

        def forward(self, x):
            return self.down(self.norm(self.mid(self.up(x).relu())).relu()).mean((2, 3))

    class GroupNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.norm, self.down = nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.Conv2d(6, 5, 1)

        def forward(self, x):
            return self.down(self.norm(self.up(x)).relu())

    class PixelShuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down, self.shuffle = nn.Conv2d(3, 12, 3), nn.Conv2d(3, 2, 3), nn.PixelShuffle(2)

        def forward(self, x):
            return self.down(self.shuffle(self.up(x)).tanh())

    class ChannelShuffle(nn.Module):
        """A unit of a ShuffleNet: two grouped convolutions with a shuffle between them."""

        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
            self.first, self.second = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1, groups=2)

        def forward(self, x):
            y = self.first(self.up(x).relu()).relu()
            n, c, h, w = y.shape
            y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            return self.down(self.second(y).relu())

    class UNet(nn.Module):
        """Down, up again by a transposed convolution, and a concatenation with what came before."""

        def __init__(self):
            super().__init__()
            self.first, self.low = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
            self.up, self.last = nn.ConvTranspose2d(6, 5, 2, stride=2), nn.Conv2d(9, 2, 3, padding=1)

        def forward(self, x):
            x = self.first(x).relu()
            y = self.low(nn.functional.max_pool2d(x, 2)).relu()
            return self.last(torch.cat([self.up(y).relu(), x], 1))

    class Attention(nn.Module):
        """Two heads of three, written by hand, around a residual stream."""

        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))

        def forward(self, x):
            x = self.embed(x)
            n, t, _ = x.shape
            q, k, v = (f(x).view(n, t, 2, 3).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = torch.softmax(q @ k.transpose(-1, -2) / 3**0.5, -1) @ v
            return self.head(x + self.out(y.transpose(1, 2).reshape(n, t, 6)))

    class Tied(nn.Module):
        """The head is the embedding."""

        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.head = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            x = self.embed(x)
            return self.head(x + self.mix(x.tanh()))

    class Separable(nn.Module):
        """Depthwise separable convolutions, two filters for each channel."""

        def __init__(self):
            super().__init__()
            self.up, self.each, self.point = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 6, 1)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.point(self.each(self.up(x).relu()).relu()).relu().mean((2, 3)))

    class Perceptron(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 5), nn.Linear(5, 3))

        def forward(self, x):
            return self.net(x)

    IMAGE = (2, 3, 8, 8)
    # Network, shape of its input, units of its groups.
    NETWORKS = [
        (GroupNorm, IMAGE, [2, 3, 3]),
        (PixelShuffle, IMAGE, [3]),
        (ChannelShuffle, IMAGE, [2, 2, 2, 2, 4, 4, 4]),
        (UNet, IMAGE, [4, 5, 6]),
        (Attention, (2, 5, 4), [2, 3, 3, 3, 3, 6]),
        (Tied, None, [5]),
        (Separable, IMAGE, [2, 2, 2, 2, 4, 6]),
        (Perceptron, (2, 4), [5, 6]),
    ]
    FOLDED = [(Grouped, IMAGE, [2, 3, 3, 3, 3, 4])]
else:
    NETWORKS, FOLDED = [], []

EXPORTERS = {
    "dynamo": {"dynamo": True, "optimize": True},
    "dynamo, not optimised": {"dynamo": True, "optimize": False},
    "older": {"dynamo": False},
}
TRACED = {
    "traced by torch.fx": lambda module, x: module,
    "traced by torch.export": lambda module, x: torch.export.export(module, (x,), strict=False),
}


@cache
def drawn(network, shape):
    """The module with every parameter and statistic at random, and an input."""
    torch.manual_seed(0)
    module = network().eval()
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if values.is_floating_point():
            values.data.copy_(torch.rand(values.shape) + 0.5 if name.endswith("var") else torch.randn(values.shape))
    return module, torch.tensor([[1, 4, 2], [6, 0, 3]]) if shape is None else torch.randn(shape)


@cache
def exported(network, shape, exporter):
    (module, x), target = drawn(network, shape), io.BytesIO()
    if exporter in TRACED:
        return mal_graph.trace(TRACED[exporter](module, x), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if EXPORTERS[exporter]["dynamo"]:
            return load(torch.onnx.export(module, (x,), verbose=False, **EXPORTERS[exporter]).model_proto)
        torch.onnx.export(module, (x,), target, **EXPORTERS[exporter])
    return load(onnx.load_from_string(target.getvalue()))


def recognised(graph, module):
    """For every stored tensor that equals a parameter: its name in the module, and for each axis that one's axis."""
    found = {}
    for tensor, weight in graph.weights.items():
        values = weight.read()
        for name, parameter in module.named_parameters():
            expected = parameter.detach().numpy()
            if values.size != expected.size or values.size == 1:
                continue
            mine = [axis for axis, size in enumerate(values.shape) if size > 1]
            theirs = [axis for axis, size in enumerate(expected.shape) if size > 1]
            for order in permutations(theirs) if len(mine) == len(theirs) else ():
                turned = expected.squeeze().transpose([theirs.index(axis) for axis in order])
                if turned.shape == values.squeeze().shape and np.array_equal(turned, values.squeeze()):
                    found[tensor] = name, dict(zip(mine, order, strict=True))
    return found


def canonical(graph, module, table=None):
    """The usable groups, each as the places in the module's parameters that its units hold."""
    groups, known = axis_groups(graph, table=table), recognised(graph, module)
    return {
        frozenset(
            frozenset(
                (known[m.tensor][0], known[m.tensor][1][m.axis], int(place))
                for m in group.members
                if m.tensor in known
                for place in m.positions[unit]
            )
            for unit in range(group.units)
        )
        for group in (groups.groups[i] for i in groups.usable())
    }


def sizes(groups):
    return sorted(len(group) for group in groups)


@pytest.fixture(autouse=True)
def needs_torch(request):
    if request.node.get_closest_marker("torch"):
        pytest.importorskip("torch")
        pytest.importorskip("onnxscript")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(("network", "shape", "units"), NETWORKS)
def test_every_exporter_gives_the_same_groups(network, shape, units):
    module, _ = drawn(network, shape)
    ways = [*EXPORTERS, *TRACED]
    found = {way: canonical(exported(network, shape, way), module) for way in ways}
    assert {way: sizes(groups) for way, groups in found.items()} == dict.fromkeys(ways, units)
    for groups in found.values():
        assert groups == found["older"]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(("network", "shape", "units"), FOLDED)
def test_every_exporter_gives_the_same_units_where_it_folds_weights(network, shape, units):
    for way in (*EXPORTERS, *TRACED):
        groups = axis_groups(exported(network, shape, way))
        assert sorted(groups.groups[i].units for i in groups.usable()) == units


@pytest.mark.torch
@pytest.mark.parametrize(("network", "shape", "units"), [*NETWORKS, *FOLDED])
@pytest.mark.parametrize("exporter", [*EXPORTERS, *TRACED])
def test_moving_the_groups_of_an_export_keeps_its_outputs(network, shape, units, exporter):
    graph = exported(network, shape, exporter)
    inputs = inputs_of(graph)
    copy, orders = permuted_copy(graph, axis_groups(graph))
    assert len(orders) == len(units)
    assert deviation(run(copy, inputs), run(graph, inputs)) <= 1e-9


@pytest.mark.torch
def test_a_wrong_operator_row_makes_exports_differ():
    network, shape, _ = NETWORKS[0]
    module, _ = drawn(network, shape)
    wrong = canonical(exported(network, shape, "dynamo"), module, {**ROWS, "Mul": Row(elementwise.unary)})
    assert wrong != canonical(exported(network, shape, "older"), module)


# --- other exporters --------------------------------------------------------------------------------------------
# Written by hand after their habits; the plain form is that of torch.


def plain_cnn():
    """Convolution, convolution, flatten, two linear layers."""
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    x = net.op("MaxPool", net.op("Relu", net.conv(x, 6, 8)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Relu", net.linear(net.op("Flatten", x), 32, 7))
    return net.graph(net.linear(x, 7, 5))


def keras_cnn():
    """Channels last: every convolution between two transposes, biases added, weights of linear layers (in, out)."""
    net = Net(0)

    def layer(x, units_in, units):
        y = net.conv(net.op("Transpose", x, perm=[0, 3, 1, 2]), units_in, units, bias=False)
        return net.op("Relu", net.op("Add", net.op("Transpose", y, perm=[0, 2, 3, 1]), net.weight(units)))

    x = layer(layer(net.input("x", ("N", 4, 4, 3)), 3, 6), 6, 8)
    x = net.op("MaxPool", net.op("Transpose", x, perm=[0, 3, 1, 2]), kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 3, 1]), net.constant([-1, 32]))
    return net.graph(net.linear(net.op("Relu", net.linear(x, 32, 7, "matmul")), 7, 5, "matmul"))


def plain_mlp():
    net = Net(0)
    x = net.op("Tanh", net.linear(net.input("x", ("N", 4)), 4, 6))
    return net.graph(net.linear(net.op("Tanh", net.linear(x, 6, 5)), 5, 3))


def sklearn_mlp():
    """Casts, MatMul and Add; probabilities, and the label looked up among the classes."""
    net = Net(0)
    x = net.op("Cast", net.input("x", ("N", 4)), to=1)
    x = net.op("Tanh", net.linear(x, 4, 6, "matmul"))
    x = net.linear(net.op("Tanh", net.linear(x, 6, 5, "matmul")), 5, 3, "matmul")
    scores = net.op("Softmax", x, axis=1)
    label = net.op("Gather", net.constant([10, 20, 30]), net.op("ArgMax", scores, axis=1, keepdims=0), axis=0)
    return net.graph(net.op("Reshape", net.op("Cast", label, to=1), net.constant([-1])), scores)


def plain_normed():
    net = Net(0)
    x = net.op("Relu", net.norm(net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6, bias=False), 6))
    x = net.op("Relu", net.norm(net.conv(x, 6, 8, bias=False), 8))
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 8, 5))


def paddle_normed():
    """Weights and shapes in Constant nodes with numbers for names, a bias reshaped before it is added."""
    net = Net(0)
    x = net.op("Relu", net.norm(net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6, bias=False), 6))
    x = net.op("Relu", net.norm(net.conv(x, 6, 8, bias=False), 8))
    x = net.op("Reshape", net.op("GlobalAveragePool", x), net.constant([-1, 8]))
    y = net.op("MatMul", x, net.weight(8, 5))
    y = net.op("Add", y, net.op("Reshape", net.weight(5), net.constant([1, 5])))
    stored = dict(net.weights)
    net.weights.clear()
    names = {name: f"Constant_{i}" for i, name in enumerate(stored)}
    for node in net.nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    constants = [
        helper.make_node("Constant", [], [names[name]], value=numpy_helper.from_array(values))
        for name, values in stored.items()
    ]
    net.nodes[:0] = constants
    return net.graph(y)


FORMS = [(plain_cnn, keras_cnn), (plain_mlp, sklearn_mlp), (plain_normed, paddle_normed)]


def per_layer(graph, table=None):
    """The usable groups in the order of the graph: units, places each holds on all its axes, and how many axes."""
    groups = axis_groups(graph, table=table)
    found = [groups.groups[i] for i in groups.usable()]
    return [(group.units, sum(m.positions.shape[1] for m in group.members), len(group.members)) for group in found]


@pytest.mark.parametrize(("plain", "other"), FORMS)
def test_another_exporter_gives_the_units_of_the_plain_form(plain, other):
    assert per_layer(other()) == per_layer(plain())


@pytest.mark.parametrize("build", [build for pair in FORMS for build in pair])
def test_moving_the_groups_of_a_form_keeps_its_outputs(build):
    graph = build()
    inputs = inputs_of(graph)
    copy, orders = permuted_copy(graph, axis_groups(graph))
    assert orders
    assert deviation(run(copy, inputs), run(graph, inputs)) <= 1e-9


@pytest.mark.parametrize(("plain", "other"), FORMS[:2])
def test_a_wrong_operator_row_makes_forms_differ(plain, other):
    assert per_layer(other(), {**ROWS, "Add": Row(elementwise.unary)}) != per_layer(plain())
