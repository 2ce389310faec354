"""Laws of scales: which units may have any size, and that it does not count then."""

import numpy as np
import pytest
from builders import Net, cnn, correspondence_of, deviation, inputs_of, mlp, network, permuted_copy, run

import mal_graph
from mal_graph.matching import assign_units, rescale
from mal_graph.matching.rescaling import find_open_groups
from mal_graph.symmetry import axis_groups


def with_activation(op, **attributes):
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 8, 8)), 3, 6)
    x = net.op(op, x, *[net.constant(np.float32(v)) for v in ((0, 6) if op == "Clip" else ())], **attributes)
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))


def between(add):
    """Convolution, `add(net, x)`, convolution."""
    net = Net(0)
    x = add(net, net.op("Relu", net.conv(net.input("x", ("N", 3, 8, 8)), 3, 6)))
    return net.graph(net.conv(x, 6, 4))


NETS = {
    "mlp": lambda: mlp((8, 14, 12, 5), 0),
    "matmul": lambda: mlp((8, 14, 12, 5), 0, "matmul"),
    "leaky": lambda: mlp((8, 14, 12, 5), 0, activation="LeakyRelu"),
    "residual": lambda: cnn((6, 8), 1, 0),
    "no batchnorm": lambda: cnn((6, 8), 1, 0, bn=False),
    "concat": lambda: cnn((6, 8), 1, 0, concat=True, head="flatten"),
}


def rescaled(graph, seed):
    """The same function: every unit of an open group a random factor larger, what reads it as much smaller."""
    rng, groups = np.random.default_rng(seed), axis_groups(graph)
    values = {name: w.read() for name, w in graph.weights.items() if w.is_float}
    has_norm = any(node.op == "BatchNormalization" for node in graph.nodes)
    for i in find_open_groups(network(graph)):
        factor = np.exp(rng.normal(0, 1.5, groups.groups[i].units))
        for member in groups.groups[i].members:
            operator, slot, side = member.role.op, member.role.slot, member.role.side
            made = (operator == "BatchNormalization") if has_norm and operator != "Gemm" else side != "in"
            if side == "in" or (made and slot in ("weight", "bias", "shift", "scale")):
                size = np.ones(values[member.tensor].shape[member.axis], np.float32)
                size[member.positions] = (1 / factor if side == "in" else factor)[:, None]
                values[member.tensor] = np.moveaxis(
                    np.moveaxis(values[member.tensor], member.axis, -1) * size, -1, member.axis
                )
    return graph.with_weights(values)


def compared(base, donor, *, free):
    correspondence = correspondence_of(base, donor)
    return rescale(correspondence) if free else correspondence


@pytest.mark.parametrize("net", NETS)
def test_units_of_an_open_group_may_have_any_size(net):
    graph = NETS[net]()
    groups = axis_groups(graph)
    assert find_open_groups(network(graph)) == set(groups.usable())
    other = rescaled(graph, 0)
    assert not np.allclose(other.weights["w0"].read(), graph.weights["w0"].read()) or net in ("residual", "concat")
    assert deviation(run(other, inputs_of(graph)), run(graph, inputs_of(graph))) < 1e-5


@pytest.mark.parametrize(
    "graph",
    [
        *[with_activation(op) for op in ("Tanh", "Sigmoid", "Gelu", "HardSwish", "Elu", "Clip", "ThresholdedRelu")],
        between(lambda net, x: net.op("Add", x, net.constant(np.float32(1)))),  # a bias that is no unit's own
        between(lambda net, x: net.op("Mul", x, x)),
        between(lambda net, x: net.op("Mul", x, net.op("Sigmoid", x))),
        between(lambda net, x: net.op("Div", net.constant(np.float32(1)), x)),
        between(lambda net, x: net.conv(x, 6, 6, group=6)),  # what goes in may have another size than what comes out
        between(lambda net, x: net.op("Softmax", x, axis=1)),
    ],
)
def test_a_group_is_closed_where_a_factor_changes_something_else(graph):
    groups = axis_groups(graph)
    assert groups.usable()
    assert find_open_groups(network(graph)) == frozenset()


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Neg", "Abs", "Identity"])
def test_a_group_is_open_behind_an_activation_that_lets_factors_through(op):
    graph = with_activation(op)
    assert len(find_open_groups(network(graph))) == 1


@pytest.mark.parametrize("net", NETS)
def test_a_rescaled_and_shuffled_copy_is_aligned_exactly(net):
    base = NETS[net]()
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    found = compared(base, rescaled(donor, 1), free=True)
    assert all(np.array_equal(o, orders[p.base]) for o, p in zip(assign_units(found).orders, found.pairs, strict=True))


def test_the_objective_of_such_a_copy_is_that_of_the_base_with_itself():
    base = NETS["mlp"]()
    objectives = [assign_units(compared(base, other, free=True)).objective for other in (base, rescaled(base, 1))]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-5)


def test_as_stored_the_largest_units_draw_the_others():
    """What the option is for: without it such a copy is not recovered."""
    base = mlp((4, 24, 24, 3), 0)
    donor, orders = permuted_copy(base, axis_groups(base), 3)
    donor = rescaled(donor, 1)
    found = compared(base, donor, free=True)
    assert all(np.array_equal(o, orders[p.base]) for o, p in zip(assign_units(found).orders, found.pairs, strict=True))
    found = compared(base, donor, free=False)
    assert not all(
        np.array_equal(o, orders[p.base]) for o, p in zip(assign_units(found).orders, found.pairs, strict=True)
    )


def test_what_is_merged_keeps_its_size():
    base, donor = mlp((8, 14, 5), 0), mlp((8, 14, 5), 1)
    result = mal_graph.assemble(base, donor, lam=1.0, rescale_invariant=True, verify=False)
    assert deviation(run(result.graph, inputs_of(base)), run(donor, inputs_of(base))) < 1e-5


def test_a_bias_behind_a_batchnorm_is_compared_as_it_leaves_it():
    """The scale before a BatchNorm means nothing, of the bias neither."""

    def net(seed):
        made = Net(seed)
        x = made.op("Relu", made.norm(made.conv(made.input("x", ("N", 3, 8, 8)), 3, 6), 6))
        return made.graph(made.conv(x, 6, 4))

    base, donor = net(0), net(1)
    norm = next(node for node in donor.nodes if node.op == "BatchNormalization")
    mean, variance = (donor.weights[norm.inputs[slot]].read() for slot in (3, 4))
    factor = np.exp(np.random.default_rng(0).normal(0, 2, 6)).astype(np.float32)
    other = donor.with_weights(
        {
            "w0": donor.weights["w0"].read() * factor[:, None, None, None],
            "w1": donor.weights["w1"].read() * factor,
            norm.inputs[3]: mean * factor,
            norm.inputs[4]: (variance + 1e-5) * factor**2 - 1e-5,
        }
    )
    objectives = [assign_units(compared(base, graph, free=False)).objective for graph in (donor, other)]
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-5)
