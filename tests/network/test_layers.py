"""Layers by origin, and the canonical form of their parameters."""

from dataclasses import replace

import numpy as np
import pytest
from builders import Net, cnn, load, mlp
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.network import Parameter, find_layers, find_parameters


@pytest.fixture
def net():
    return Net(0)


def listed(graph):
    """(kind, {tensor: role}) of every layer."""
    return [(layer.kind, {p.tensor: p.role for p in layer.parameters}) for layer in find_layers(graph)]


def canonical(graph):
    """Every parameter in canonical form, by layer and role."""
    return [
        {p.role: p.canonical(graph.weights[p.tensor].read()) for p in layer.parameters} for layer in find_layers(graph)
    ]


# --- canonical form ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["gemm_nt", "matmul", "transposed"])
def test_a_linear_layer_has_one_canonical_form_however_it_is_written(style):
    expected, found = canonical(mlp((3, 5, 2), style="gemm")), canonical(mlp((3, 5, 2), style=style))
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys() == {"weight", "bias"}
        assert all(np.array_equal(one[role], other[role]) for role in one)
    assert expected[0]["weight"].shape == (5, 3)


def test_a_weight_on_the_left_of_a_matmul_has_units_first(net):
    x = net.input("x", ("N", 3, 4))
    graph = net.graph(net.op("MatMul", net.weight(5, 3, name="w"), x))
    assert find_layers(graph)[0].weight.shape == (5, 3)


def test_the_canonical_form_of_a_transposed_convolution_has_outputs_first(net):
    x = net.op("ConvTranspose", net.input("x", ("N", 3, 4, 4)), net.weight(3, 5, 2, 2, name="w"))
    (layer,) = find_layers(net.graph(x))
    assert layer.kind == "conv_transpose"
    assert layer.weight.shape == (5, 3, 2, 2)


def test_a_bias_of_shape_1_c_1_1_is_a_vector(net):
    x = net.op("Conv", net.input("x", ("N", 3, 4, 4)), net.weight(5, 3, 1, 1))
    (layer,) = find_layers(net.graph(net.op("Add", x, net.weight(1, 5, 1, 1, name="b"))))
    assert [(p.role, p.shape) for p in layer.parameters] == [("weight", (5, 3, 1, 1)), ("bias", (5,))]


@given(st.permutations(range(3)), st.integers(0, 9))
def test_stored_undoes_canonical(order, seed):
    values = np.random.default_rng(seed).standard_normal((2, 3, 4))
    shape = tuple(values.shape[axis] for axis in order)
    parameter = Parameter("w", 0, 1, "weight", "weight", tuple(order), shape)
    assert np.array_equal(parameter.stored(parameter.canonical(values), values.shape), values)
    assert np.array_equal(parameter.canonical(values), values.transpose(order))


def test_stored_undoes_canonical_for_every_parameter_of_a_network():
    for graph in (mlp(style="transposed"), cnn(depthwise=True, concat=True)):
        for parameter in find_parameters(graph):
            values = graph.weights[parameter.tensor].read()
            assert np.array_equal(parameter.stored(parameter.canonical(values), values.shape), values)


# --- what belongs to a layer ------------------------------------------------------------------------------------


def test_a_batch_norm_and_a_bias_belong_to_the_convolution_before_them(net):
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 5)
    (found,) = listed(net.graph(net.op("Relu", net.norm(x, 5))))
    assert found[0] == "conv"
    assert list(found[1].values()) == ["weight", "bias", "scale", "shift", "mean", "variance"]


def test_an_activation_written_out_stays_inside_its_layer(net):
    """x * clip(x + 3, 0, 6) / 6 leaves the layer's signal and comes back to it."""
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 5, name="w"))
    low, high, three, six = (net.constant(np.float32(v)) for v in (0, 6, 3, 6))
    gate = net.op("Div", net.op("Clip", net.op("Add", x, three), low, high), six)
    graph = net.graph(net.op("Mul", net.op("Mul", x, gate), net.weight(5, name="scale")))
    (layer,) = find_layers(graph)
    assert [p.tensor for p in layer.parameters if graph.weights[p.tensor].size > 1] == ["w", "scale"]
    assert layer.nodes == tuple(range(len(graph.nodes)))


def test_bounds_and_target_shapes_are_no_parameters(net):
    x = net.op("Reshape", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 5), net.constant([0, -1]))
    graph = net.graph(net.op("Clip", x, net.constant(np.float32(-1)), net.constant(np.float32(1))))
    assert [p.role for p in find_parameters(graph)] == ["weight", "bias"]


def test_a_norm_behind_a_concat_is_a_layer_of_its_own(net):
    x = net.input("x", ("N", 3, 4, 4))
    y = net.op("Concat", net.conv(x, 3, 2, bias=False), net.conv(x, 3, 4, bias=False), axis=1)
    found = find_layers(net.graph(net.conv(net.norm(y, 6), 6, 2)))
    assert [layer.kind for layer in found] == ["conv", "conv", "affine", "conv"]
    assert found[2].in_out == (6, 6)


def test_a_scale_behind_a_residual_sum_is_a_layer_of_its_own(net):
    x = net.linear(net.input("x", ("N", 3)), 3, 4)
    x = net.op("Mul", net.op("Add", x, net.linear(x, 4, 4)), net.weight(4, name="scale"))
    assert listed(net.graph(x))[-1] == ("affine", {"scale": "scale"})


def test_a_vector_added_to_a_join_is_a_layer_of_its_own(net):
    join = net.op("Add", net.input("x", ("N", 3)), net.input("y", ("N", 3)))
    x = net.op("Add", join, net.weight(3, name="shift"))
    assert listed(net.graph(net.op("MatMul", x, net.weight(3, 4, name="w")))) == [
        ("affine", {"shift": "shift"}),
        ("linear", {"w": "weight"}),
    ]


def test_an_embedding_is_a_table(net):
    x = net.op("Gather", net.weight(7, 5, name="table"), net.input("tokens", ("N", 4), "int64"))
    assert listed(net.graph(net.op("MatMul", x, net.weight(5, 2, name="w")))) == [
        ("table", {"table": "table"}),
        ("linear", {"w": "weight"}),
    ]


def test_a_table_has_rows_and_a_width(net):
    x = net.op("Gather", net.weight(7, 5, name="table"), net.input("tokens", ("N", 4), "int64"))
    assert [layer.in_out for layer in find_layers(net.graph(net.linear(x, 5, 3)))] == [(7, 5), (5, 3)]


@pytest.mark.parametrize(("op", "role"), [("Add", "bias"), ("Sum", "bias"), ("Max", "shift"), ("Sub", "term")])
def test_only_a_vector_that_is_added_is_a_bias(net, op, role):
    x = net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="w"))
    assert listed(net.graph(net.op(op, x, net.weight(4, name="v"))))[0][1]["v"] == role


def test_a_shared_weight_stands_with_its_first_user_and_is_listed_as_tied(net):
    w = net.weight(3, 3, name="w")
    x = net.op("Tanh", net.op("MatMul", net.input("x", ("N", 3)), w))
    first, second = find_layers(net.graph(net.op("MatMul", x, w)))
    assert [p.tensor for p in first.parameters] == ["w"]
    assert (second.parameters, second.tied) == ((), ("w",))


def test_a_shared_bias_alone_makes_no_layer(net):
    b = net.weight(4, name="b")
    x = net.op("Add", net.op("MatMul", net.input("x", ("N", 3)), net.weight(3, 4, name="w")), b)
    y = net.op("Add", net.op("Mul", x, net.op("Sigmoid", net.input("gate", ("N", 4)))), b)
    assert [layer.kind for layer in find_layers(net.graph(y))] == ["linear"]


def test_a_product_of_two_activations_is_no_layer(net):
    a, b = net.input("a", ("N", 2, 3)), net.input("b", ("N", 3, 2))
    assert find_layers(net.graph(net.op("MatMul", a, b))) == ()


def test_integer_weights_make_no_layer(net):
    proto = net.proto(net.op("Add", net.input("x", ("N", 3), "int64"), net.constant([1, 2, 3])))
    assert find_parameters(load(proto)) == ()


def test_depth_counts_the_layers_before():
    assert [layer.depth for layer in find_layers(mlp((3, 4, 5, 6)))] == [0, 1, 2]


def test_depth_takes_the_longest_path(net):
    x = net.linear(net.input("x", ("N", 3)), 3, 3)
    y = net.op("Add", x, net.linear(net.linear(x, 3, 3), 3, 3))
    assert [layer.depth for layer in find_layers(net.graph(net.linear(y, 3, 2)))] == [0, 1, 2, 3]


def test_widths_are_units_in_and_out():
    assert [layer.in_out for layer in find_layers(mlp((3, 4, 5)))] == [(3, 4), (4, 5)]


def test_a_weight_that_a_reshape_cuts_into_blocks_makes_units(net):
    """Every block of it reads units of its own: they are all of its stored axis."""
    w = net.op("Reshape", net.weight(18, 4, name="w"), net.constant([3, 6, 4]))
    x = net.op("MatMul", net.input("x", (3, 4, 5)), net.weight(5, 6))
    graph = net.graph(net.op("Einsum", x, w, equation="abc,acz->abz"))
    (found,) = [parameter for parameter in find_parameters(graph) if parameter.tensor == "w"]
    assert (found.role, found.axes, found.shape) == ("weight", (1, 0), (4, 18))


def test_a_weight_whose_axes_a_reshape_mixed_makes_no_units(net):
    """Neither stored axis is the one that the operator makes units of."""
    w = net.op("Reshape", net.weight(9, 8, name="w"), net.constant([3, 6, 4]))
    x = net.op("MatMul", net.input("x", (3, 4, 5)), net.weight(5, 6))
    graph = net.graph(net.op("Einsum", x, w, equation="abc,acz->abz"))
    (found,) = [parameter for parameter in find_parameters(graph) if parameter.tensor == "w"]
    assert (found.role, found.axes) == ("vector", (0, 1))


# --- names of modules -------------------------------------------------------------------------------------------


def scoped(*scopes):
    """Two linear layers, from these modules."""
    graph = mlp((3, 4, 5))
    named = iter(scopes)
    nodes = [replace(node, scope=next(named) if node.op == "Gemm" else "") for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("scopes", "names"),
    [
        (("", ""), ["Gemm_0", "Gemm_2"]),
        (("body.0", "head"), ["body.0", "head"]),
        (("", "head"), ["Gemm_0", "head"]),
        (("attention", "attention"), ["attention/Gemm_0", "attention/Gemm_2"]),
        (("Gemm_2", ""), ["Gemm_2/Gemm_0", "Gemm_2"]),
    ],
)
def test_a_layer_is_named_after_its_module_where_no_other_layer_is_of_it(scopes, names):
    assert [layer.name for layer in find_layers(scoped(*scopes))] == names
