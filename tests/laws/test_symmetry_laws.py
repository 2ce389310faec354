"""Laws of the axis groups, on networks drawn from the operator table and judged in float64.

The judge knows nothing of axis rules: it runs the network before and after.
"""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, narrower, permuted_copy, renamed_copy, run, stored, wider
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph import registry, rules
from mal_graph.groups import axis_groups
from mal_graph.ops import ROWS, Row
from mal_graph.prove import prove

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


STEPS = {
    "conv": lambda net, x, c, s: (net.conv(x, c, 3), 3, s),
    "wide conv": lambda net, x, c, s: (net.conv(x, c, 4, 1), 4, s),
    "norm": keep(lambda net, x, c, s: net.norm(x, c)),
    "instance norm": keep(
        lambda net, x, c, s: net.op("InstanceNormalization", x, net.weight(c, scale=1.0), net.weight(c))
    ),
    "depthwise": depthwise(1),
    "depthwise x2": depthwise(2),
    "grouped": keep(lambda net, x, c, s: net.conv(x, c, c, group=2) if c % 2 == 0 else x),
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


def network(steps, head, style, seed):
    """Convolution, the steps, a head and two linear layers; sizes are small enough to coincide often."""
    net = Net(seed)
    x, c, s = net.input("x", ("N", 3, 4, 4)), 4, 4
    x = net.conv(x, 3, 4)
    for step in steps:
        x, c, s = STEPS[step](net, x, c, s)
    x, width = HEADS[head](net, x, c, s)
    x = net.op("Relu", net.linear(x, width, 4, style))
    return net.graph(net.linear(x, 4, 3, style))


networks = st.builds(
    network,
    st.lists(st.sampled_from(sorted(STEPS)), max_size=5),
    st.sampled_from(sorted(HEADS)),
    st.sampled_from(["gemm", "gemm_nt", "matmul", "transposed"]),
    st.integers(0, 99),
)


# --- soundness --------------------------------------------------------------------------------------------------


def moved_outputs(graph, groups, seed=0):
    """How far the outputs move when all units of all usable groups are shuffled."""
    inputs = inputs_of(graph)
    shuffled, _ = permuted_copy(graph, groups, seed)
    return deviation(run(shuffled, inputs), run(graph, inputs))


@settings(max_examples=150)
@given(networks)
def test_permuting_every_group_keeps_the_outputs(graph):
    groups = axis_groups(graph)
    assert groups.usable()  # the last hidden layer at least
    assert moved_outputs(graph, groups) <= EXACT


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


@pytest.mark.parametrize(("op", "attributes"), [("CumSum", {}), ("LRN", {"size": 3, "alpha": 1.0})])
def test_the_law_fails_for_a_wrong_operator_row(op, attributes):
    net = Net(0)
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6)
    x = net.op(op, x, *([net.constant(1)] if op == "CumSum" else []), **attributes)
    graph = net.graph(net.conv(x, 6, 2))
    wrong = {**ROWS, op: Row(rules.unary)}
    assert not axis_groups(graph).usable()
    shuffled, _ = permuted_copy(graph, axis_groups(graph, table=wrong))
    inputs = inputs_of(graph)
    assert deviation(run(shuffled, inputs, "onnxruntime"), run(graph, inputs, "onnxruntime")) > 1e-2


@settings(max_examples=25)
@given(networks)
def test_a_proof_accepts_no_group_that_moves_the_outputs(graph):
    """With CumSum and Slice misread, whatever the proof lets through still keeps the function."""
    first = Row(lambda call: [call.wiring.take(call.label(0), 1, np.arange(call.outputs[0][1]), call.name)])
    wrong = {**ROWS, "CumSum": Row(rules.unary), "Slice": first}
    proven = prove(graph, axis_groups(graph, table=wrong), table=wrong)
    usable = [replace(g, state="pinned") if g.state != "proven" else g for g in proven.groups]
    assert moved_outputs(graph, replace(proven, groups=tuple(usable))) <= EXACT


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


TINY = [tiny_mlp, tiny_residual, tiny_depthwise, tiny_norm, tiny_concat, tiny_flatten, tiny_split]
TINY += [tiny_shuffle, tiny_tied, tiny_layer_norm, tiny_softmax_gate]


def keeping(graph):
    """Every tuple of permutations, one per weight axis, that keeps the function - found by running them all."""
    inputs, weights = inputs_of(graph), stored(graph)
    session = registry.runner().open(graph, variable=list(weights))
    (expected,) = session.run(inputs, weights).values()
    places = [(name, axis) for name, w in weights.items() for axis, size in enumerate(w.shape) if size > 1]
    found = set()
    for orders in product(*(permutations(range(weights[name].shape[axis])) for name, axis in places)):
        changed = dict(weights)
        for (name, axis), order in zip(places, orders, strict=True):
            changed[name] = changed[name].take(order, axis)
        (outputs,) = session.run(inputs, changed).values()
        if np.allclose(outputs, expected, rtol=1e-4, atol=1e-5):
            found.add(orders)
    return found, places, weights


@pytest.mark.parametrize("build", TINY, ids=lambda build: build.__name__)
def test_the_groups_are_all_the_permutations_that_keep_the_function(build):
    net = Net(3)
    graph = net.graph(build(net))
    found, places, weights = keeping(graph)
    assert found == generated(axis_groups(graph), places, weights)
    assert len(found) > 1


def test_the_groups_of_a_flip_are_the_exchanges_of_whole_pairs():
    """The two sides of a single pair could trade places too; a group has no form for that, and does not claim it."""
    net = Net(3)
    graph = net.graph(tiny_flip(net))
    found, places, weights = keeping(graph)
    pairs = generated(axis_groups(graph), places, weights)
    assert len(pairs) == 2
    assert pairs < found


def generated(groups, places, weights):
    """All tuples of permutations that the groups allow."""
    usable = [groups.groups[i] for i in groups.usable()]
    found = set()
    for choice in product(*(permutations(range(group.units)) for group in usable)):
        orders = {(name, axis): np.arange(weights[name].shape[axis]) for name, axis in places}
        for group, order in zip(usable, choice, strict=True):
            for member in group.members:
                orders[member.tensor, member.axis][member.positions] = member.positions[list(order)]
        found.add(tuple(tuple(orders[place].tolist()) for place in places))
    return found
