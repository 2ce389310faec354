"""Positions have the same name where the same index of an input or output stands, however it came there."""

from collections.abc import Callable

import numpy as np
import pytest
from builders import Net, deviation, inputs_of, mlp, network, run
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import MatchError
from mal_graph.matching.named_positions import pair_by_names
from mal_graph.operators import row_of
from mal_graph.symmetry.arrangements import Arrangement, arrange, composed, reaching, unmoved
from mal_graph.symmetry.lookups import looked_up_values

IMAGE = (3, 4, 4)


def names_of(graph, axis=1, **options):
    """The names along an axis of the first weight."""
    net = network(graph)
    first = next(parameter for parameter in net.parameters if parameter.is_weight)
    return net.position_names(**options).on(first.tensor, first.axes[axis], first.shape[axis])


def headed(net, x, features, units=5):
    """What ends every network here."""
    return net.graph(net.linear(net.op("Relu", net.linear(x, features, 6)), 6, units))


def flattened(move: Callable[[Net, str], str] = lambda net, x: x, shape=IMAGE, batch="N"):
    net = Net(0)
    x = move(net, net.input("x", (batch, *shape)))
    return headed(net, net.op("Flatten", x, axis=1), int(np.prod(shape)))


# --- arrangements of the inputs ------------------------------------------------------------------------------------


def swapped(net, x):
    parts = net.op("Split", x, net.constant([1, 1, 1]), outputs=3, axis=1)
    return net.op("Concat", parts[2], parts[0], parts[1], axis=1)


def picked(net, x):
    return net.op("Gather", x, net.constant([2, 0, 1]), axis=1)


def flipped(net, x):
    return net.op("Slice", x, *map(net.constant, ([-1], [-100], [2], [-1])))


def turned(net, x):
    return net.op("Transpose", x, perm=[0, 1, 3, 2])


def normalised_and_swapped(net, x):
    return swapped(net, net.op("Sub", x, net.constant(np.float32(0.5))))


MOVES = {
    swapped: lambda a: a[[2, 0, 1]],
    picked: lambda a: a[[2, 0, 1]],
    flipped: lambda a: a[:, ::-1],
    turned: lambda a: a.transpose(0, 2, 1),
    normalised_and_swapped: lambda a: a[[2, 0, 1]],
}


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_a_feature_has_the_name_of_the_pixel_that_it_is(move):
    where = MOVES[move](np.arange(48).reshape(IMAGE)).ravel()
    plain = names_of(flattened())
    assert len(set(plain.tolist())) == 48
    assert np.array_equal(names_of(flattened(move)), plain[where])


@given(st.lists(st.sampled_from(list(MOVES)), max_size=4))
@settings(max_examples=15)
def test_moves_one_after_the_other_add_up(moves):
    def all_moves(net, x):
        for move in moves:
            x = move(net, x)
        return x

    where = np.arange(48).reshape(IMAGE)
    for move in moves:
        where = MOVES[move](where)
    assert np.array_equal(names_of(flattened(all_moves)), names_of(flattened())[where.ravel()])


def test_channels_last_flattening_is_another_order_of_the_same_names():
    last = names_of(flattened(lambda net, x: net.op("Transpose", x, perm=[0, 2, 3, 1])))
    assert np.array_equal(last, names_of(flattened())[np.arange(48).reshape(IMAGE).transpose(1, 2, 0).ravel()])


def concatenated(order, widths=(3, 4)):
    net = Net(0)
    parts = [net.input(name, ("N", width)) for name, width in zip("uv", widths, strict=True)]
    return headed(net, net.op("Concat", *[parts[i] for i in order], axis=1), sum(widths))


def test_inputs_joined_in_another_order_keep_their_names():
    mine, theirs = names_of(concatenated((0, 1))), names_of(concatenated((1, 0)))
    assert np.array_equal(mine[[3, 4, 5, 6, 0, 1, 2]], theirs)
    assert np.array_equal(pair_by_names(mine, theirs)[1], [4, 5, 6, 0, 1, 2, 3])


def test_inputs_of_equal_length_are_told_apart():
    mine, theirs = names_of(concatenated((0, 1), (4, 4))), names_of(concatenated((1, 0), (4, 4)))
    assert not set(mine[:4].tolist()) & set(mine[4:].tolist())
    assert np.array_equal(np.roll(mine, 4), theirs)


def test_a_selection_names_what_it_selects():
    def selected(indices):
        net = Net(0)
        x = net.op("Gather", net.input("x", ("N", 6)), net.constant(indices), axis=1)
        return names_of(headed(net, x, len(indices)))

    one, other = selected([0, 2, 4]), selected([4, 1, 0])
    assert (one[0], one[2]) == (other[2], other[0])
    assert one[1] not in other


def patches(turn):
    net = Net(0)
    cut = net.op("Reshape", net.input("x", ("N", *IMAGE)), net.constant([0, 3, 2, 2, 2, 2]))
    cut = net.op("Transpose", cut, perm=[0, 2, 4, *turn])
    x = net.op("Reshape", cut, net.constant([0, 4, 12]))
    x = net.op("ReduceMean", net.op("Relu", net.linear(x, 12, 6, "matmul")), net.constant([1]), keepdims=0)
    return net.graph(net.linear(x, 6, 4))


def test_the_pixels_of_a_patch_keep_their_names_in_another_order():
    mine, theirs = names_of(patches((1, 3, 5))), names_of(patches((5, 3, 1)))
    where = np.arange(12).reshape(3, 2, 2).transpose(2, 1, 0).ravel()
    assert len(set(mine.tolist())) == 12
    assert np.array_equal(theirs, mine[where])


def behind_convolution(perm):
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    x = net.op("Transpose", x, perm=[0, *perm]) if perm else x
    return net.graph(net.linear(net.op("Flatten", x, axis=1), 96, 4))


def test_places_of_a_map_that_is_flattened_keep_their_names():
    nets = [network(behind_convolution(perm)) for perm in ((), (2, 3, 1))]
    plain, last = (
        net.position_names().on(head.tensor, head.axes[1], head.shape[1])
        for net in nets
        for head in [p for p in net.parameters if p.is_weight][-1:]
    )
    where = np.arange(96).reshape(6, 4, 4).transpose(1, 2, 0).ravel()
    assert np.array_equal(last, plain[where])
    assert len(set(plain.tolist())) == 16  # units are free: nothing names them


# --- tables, outputs, taps, samples --------------------------------------------------------------------------------


def looked_up(change=lambda net, ids: ids, rows=6):
    net = Net(0)
    ids = change(net, net.input("ids", ("N", 3), dtype="int64"))
    x = net.op("ReduceMean", net.op("Gather", net.weight(rows, 5, name="table"), ids), net.constant([1]), keepdims=0)
    graph = net.graph(net.linear(x, 5, 4))
    return network(graph).position_names().on("table", 0, rows)


def test_the_rows_of_a_table_are_named_by_the_ids_that_reach_them():
    plain = looked_up()
    order = np.array([3, 1, 4, 0, 5, 2])
    remapped = looked_up(lambda net, ids: net.op("Gather", net.constant(order), ids))
    assert np.array_equal(remapped[order], plain)
    shifted = looked_up(lambda net, ids: net.op("Add", ids, net.constant([1])), rows=7)
    assert np.array_equal(shifted[1:], plain)


def test_columns_of_an_output_keep_their_names():
    def reordered(order):
        net = Net(0)
        x = net.linear(net.input("x", ("N", 4)), 4, 5)
        return net.graph(net.op("Gather", x, net.constant(order), axis=1) if order else x)

    base, donor = reordered(None), reordered([3, 0, 4, 1, 2])
    called = {donor.outputs[0].name: base.outputs[0].name}
    assert np.array_equal(names_of(donor, 0, called=called)[[3, 0, 4, 1, 2]], names_of(base, 0))


def convolved(move=lambda net, x: x):
    net = Net(0)
    x = net.conv(move(net, net.input("x", ("N", *IMAGE))), 3, 6)
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))


@pytest.mark.parametrize(("move", "axes"), [(flipped, [2]), (turned, [2, 3])])
def test_taps_are_named_by_the_axis_that_they_slide_over(move, axes):
    for axis in (2, 3):
        mine, theirs = names_of(convolved(), axis), names_of(convolved(move), axis)
        assert np.array_equal(mine, theirs) == (axis not in axes)


def test_a_channel_swap_leaves_taps_as_they_are():
    assert np.array_equal(names_of(convolved(), 2), names_of(convolved(swapped), 2))


def test_samples_have_no_names_whether_their_number_is_fixed_or_not():
    free, fixed = names_of(flattened()), names_of(flattened(batch=3), batched=["x"])
    assert np.array_equal(free, fixed)


def test_hidden_units_have_no_names():
    assert not names_of(flattened(), axis=0).any()


def test_what_is_made_of_one_index_is_told_apart_where_asked_for():
    def waves(*ops):
        net = Net(0)
        x = net.input("x", ("N", 3))
        return headed(net, net.op("Concat", *[net.op(op, x) for op in ops], axis=1), 6)

    plain, fine = (names_of(waves("Sin", "Cos"), called={}) for _ in range(2))
    assert np.array_equal(plain[:3], fine[3:])
    fine = [names_of(waves(*ops), is_fine=True) for ops in (("Sin", "Cos"), ("Cos", "Sin"))]
    assert np.array_equal(np.roll(fine[0], 3), fine[1])


def steps_made_of_twice(learned, frequency):
    """Fine names of what reads four steps, each scaled by what is learned for its units, and its waves."""
    net = Net(0)
    x = net.op("MatMul", net.input("x", ("N", 4, 3)), net.weight(3, 5, scale=1.0))
    scaled = net.op("LayerNormalization", x, net.weight(5, name="learned"), axis=-1)
    net.weights["learned"] = np.array(learned, np.float32)
    waves = net.op("Sin", net.op("Mul", x, net.constant(np.float32(frequency))))
    steps = net.op("Transpose", net.op("Concat", scaled, waves, axis=1), perm=[0, 2, 1])
    graph = net.graph(net.op("MatMul", steps, net.weight(8, 2, name="reader")))
    return network(graph).position_names(is_fine=True).on("reader", 0, 8)


@given(st.permutations([0.5, 1.0, 1.5, 2.0, 2.5]))
def test_what_is_learned_tells_no_fine_name(learned):
    """It differs between networks, if only by the order of the units that it lies along."""
    names = steps_made_of_twice(learned, 2.0)
    assert len(np.unique(names)) == 8
    assert np.array_equal(names, steps_made_of_twice([0.5, 1.0, 1.5, 2.0, 2.5], 2.0))


def test_a_stored_setting_tells_a_fine_name():
    one, other = (steps_made_of_twice([1, 2, 3, 4, 5], frequency) for frequency in (2.0, 3.0))
    assert np.array_equal(one[:4], other[:4])
    assert not set(one[4:]) & set(other[4:])


# --- arrangements by themselves ------------------------------------------------------------------------------------


def arranged(kind, *constants, shape=(2, 3), **attributes):
    net = Net(0)
    x = net.input("x", shape)
    graph = net.graph(net.op(kind, x, *map(net.constant, constants), **attributes))
    node, probed = graph.nodes[0], network(graph).probe
    return arrange(graph, probed, node, row_of(node), has_parameters=False)


def test_an_operator_that_takes_values_together_arranges_nothing():
    assert arranged("ReduceMax", [1], keepdims=1) is None
    assert arranged("MaxPool", shape=(1, 2, 4, 4), kernel_shape=[2, 2]) is None


def test_padding_is_nowhere():
    (one,) = arranged("Pad", [0, 1, 0, 0]).values()
    assert one.entries.tolist() == [[-1, 0, 1, 2], [-1, 3, 4, 5]]


def test_arrangements_are_composed():
    (turn,) = arranged("Transpose", perm=[1, 0]).values()
    again = composed({"x": turn}, unmoved("x", (3, 2)))
    assert np.array_equal(again.entries, turn.entries)
    assert turn.is_moved
    assert not unmoved("x", (3, 2)).is_moved


@given(st.data())
def test_what_reaches_a_place_is_what_a_table_of_truths_says(data):
    """Entries of two tensors, some several times and some nowhere, in any places."""
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    sources = {"x": (2, 3), "y": (rows, 2)}
    few = data.draw(st.integers(-1, 5 + 2 * rows))  # all alike, or a row over and over
    number = st.integers(-1, 5 + 2 * rows) if data.draw(st.booleans()) else st.just(few)
    line = st.lists(number, min_size=columns, max_size=columns)
    lines = data.draw(st.lists(line, min_size=rows, max_size=rows)) if data.draw(st.booleans()) else None
    entries = np.array(lines or [data.draw(line)] * rows)
    found = reaching(Arrangement(sources, entries), "y", 0, 0)
    table = np.zeros((rows, rows), bool)
    for place, index in np.ndindex(entries.shape):
        if entries[place, index] >= 6:
            table[place, (entries[place, index] - 6) // 2] = True
    for reach, truths in ((found, table), (found.turned(), table.T)):
        assert reach.sizes == truths.shape
        assert [reach.places.tolist(), reach.indices.tolist()] == [one.tolist() for one in np.nonzero(truths)]
        assert reach.is_alike == (truths == truths[0]).all()
        assert all(reach.has_so_many(count) == (truths.sum(axis=1) == count).all() for count in range(3))


def test_a_long_axis_needs_no_table_of_all_pairs():
    """It would take 40 GB."""
    places = 200_000
    reach = reaching(Arrangement({"x": (places,)}, np.arange(places)[::-1]), "x", 0, 0)
    assert reach.has_so_many(1)
    assert not reach.is_alike


# --- never silently wrong ------------------------------------------------------------------------------------------
# Each pair of networks is one function, written in two ways. A merge gives it back, whatever it had to keep.


def with_first(graph, move):
    """The graph with its first weight moved as it asks for."""
    name = next(node.inputs[1] for node in graph.nodes if node.op in ("Conv", "Gemm"))
    return graph.with_weights({name: move(graph.weights[name].read())})


def donor_of(build, move):
    return build(False), with_first(build(True), move)


def with_convolution(move):
    def build(is_donor):
        net = Net(0)
        x = net.input("x", ("N", *IMAGE))
        x = net.conv(move(net, x) if is_donor else x, 3, 6)
        return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x))), 6, 4))

    return build


def with_maps(is_donor):
    net = Net(0)
    u, v = (net.input(name, ("N", 1, 4, 4)) for name in "uv")
    maps = [net.op("Flatten", net.op("MaxPool", one, kernel_shape=[2, 2], strides=[1, 1])) for one in (u, v)]
    return net.graph(net.linear(net.op("Concat", *(maps[::-1] if is_donor else maps), axis=1), 18, 4))


def with_waves(is_donor):
    net = Net(0)
    x = net.input("x", ("N", 3))
    made = [net.op("Sin", x), net.op("Cos", x)]
    return headed(net, net.op("Concat", *(made[::-1] if is_donor else made), axis=1), 6)


def with_multiples(is_donor):
    net = Net(0)
    x = net.input("x", ("N", 3))
    made = [x, net.op("Mul", x, net.constant(np.float32(2), "two"))]
    return headed(net, net.op("Concat", *(made[::-1] if is_donor else made), axis=1), 6)


def columns(order):
    return lambda weight: weight[:, order]


SAME_FUNCTION = {
    "flipped before a convolution": donor_of(with_convolution(flipped), lambda w: w[:, :, ::-1]),
    "turned before a convolution": donor_of(with_convolution(turned), lambda w: w.transpose(0, 1, 3, 2)),
    "channels swapped before a convolution": donor_of(with_convolution(swapped), lambda w: w[:, [2, 0, 1]]),
    "two maps of equal size in another order": donor_of(with_maps, columns(np.roll(np.arange(18), 9))),
    "sine and cosine in another order": donor_of(with_waves, columns(np.roll(np.arange(6), 3))),
    "multiples in another order": donor_of(with_multiples, columns(np.roll(np.arange(6), 3))),
    "another number of samples": (
        flattened(),
        with_first(flattened(turned, batch=3), columns(np.arange(48).reshape(IMAGE).transpose(0, 2, 1).ravel())),
    ),
}


@pytest.mark.parametrize("kind", SAME_FUNCTION)
@pytest.mark.parametrize("lam", [0.5, 1.0])
def test_one_function_written_in_two_ways_comes_back(kind, lam):
    base, donor = SAME_FUNCTION[kind]
    inputs = dict(inputs_of(base))
    assert deviation(run(donor, inputs), run(base, inputs)) <= 1e-5, "the test's own pair"
    try:
        merged = mal_graph.assemble(base, donor, lam=lam, verify=False).graph
    except MatchError:
        return  # refused, with the reason
    assert deviation(run(merged, inputs), run(base, inputs)) <= 1e-4


def test_a_dynamic_size_filled_otherwise_is_no_other_channel():
    def net_of(shape):
        net = Net(0)
        x = net.op("Relu", net.conv(net.input("x", shape), 3, 6))
        return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))

    result = mal_graph.assemble(net_of(("N", 3, 8, 8)), net_of(("N", 3, "H", "W")), verify=False, method="mal")
    assert result.merged[0].plan.skipped == {}


def test_names_that_tell_nothing_apart_are_none():
    net = Net(0)
    x = net.input("x", ("N", 1))
    assert not names_of(headed(net, net.op("Concat", x, x, x, axis=1), 3)).any()


def test_the_usual_pair_has_equal_names():
    assert np.array_equal(names_of(mlp(seed=0)), names_of(mlp(seed=1)))


# --- axes by the tensor they are on -------------------------------------------------------------------------------


def names_on(graph, tensor, axis, called=None):
    found = network(graph).position_names(called)
    return found.on(tensor, axis, graph.weights[tensor].shape[axis])


def first_weight(graph):
    return next(name for name, weight in graph.weights.items() if weight.is_float and len(weight.shape) == 2)


def selecting(indices, width=4):
    net = Net(0)
    picked = net.op("Gather", net.input("x", ("N", 8)), net.constant(np.array(indices)), axis=1)
    return net.graph(net.op("Gemm", picked, net.weight(5, width), transB=1))


def flat(perm):
    net = Net(0)
    x = net.op("Transpose", net.input("x", ("N", 2, 3, 4)), perm=perm)
    return net.graph(net.op("Gemm", net.op("Flatten", x), net.weight(5, 24), transB=1))


def test_features_that_are_selected_carry_their_number():
    one, other = selecting([0, 2, 4, 6]), selecting([4, 0, 6, 1])
    mine, theirs = (names_on(graph, first_weight(graph), 1) for graph in (one, other))
    assert mine.all()
    assert theirs.tolist() == [mine[2], mine[0], mine[3], theirs[3]]
    assert theirs[3] not in mine


def test_a_flattened_image_carries_channel_row_and_column():
    mine = names_on(flat([0, 1, 2, 3]), first_weight(flat([0, 1, 2, 3])), 1).reshape(2, 3, 4)
    theirs = names_on(flat([0, 2, 3, 1]), first_weight(flat([0, 2, 3, 1])), 1).reshape(3, 4, 2)
    assert len(np.unique(mine)) == 24
    assert (theirs == mine.transpose(1, 2, 0)).all()


def test_another_input_has_other_names_unless_it_is_called_the_same():
    graph = selecting([0, 1, 2, 3])
    plain, called = (names_on(graph, first_weight(graph), 1, names) for names in (None, {"x": "image"}))
    assert not set(plain.tolist()) & set(called.tolist())


def test_units_between_two_layers_have_no_names():
    net = Net(1)
    hidden = net.op("Relu", net.op("Gemm", net.input("x", ("N", 6)), net.weight(9, 6), transB=1))
    graph = net.graph(net.op("Gemm", hidden, net.weight(3, 9), transB=1))
    first, second = [name for name, weight in graph.weights.items() if weight.shape in ((9, 6), (3, 9))]
    assert not names_on(graph, first, 0).any()
    assert not names_on(graph, second, 1).any()
    assert names_on(graph, second, 0).all()


@pytest.mark.parametrize("offset", [0, 2])
def test_a_table_carries_the_values_that_look_it_up(offset):
    def looking_up(table):
        net = Net(0)
        ids = net.input("ids", ("N", 3), "int64")
        new = net.op("Gather", net.constant(np.array(table)), ids, axis=0)
        rows = net.op("Gather", net.weight(7, 5), new, axis=0)
        return net.graph(rows)

    mine = looking_up(range(7))
    moved = [(value + offset) % 7 for value in range(7)]
    theirs = looking_up(moved)
    tensor = next(name for name, weight in mine.weights.items() if weight.shape == (7, 5))
    a, b = names_on(mine, tensor, 0), names_on(theirs, tensor, 0)
    assert a.all()
    assert (b[moved] == a).all()


def test_a_live_shape_is_no_value_that_is_looked_up():
    net = Net(0)
    shape = net.input("shape", (2,), "int64")
    ids = net.op("Reshape", net.constant(np.array([3, 1, 2, 0])), shape)
    graph = net.graph(net.op("Gather", net.weight(7, 5), ids, axis=0))
    assert looked_up_values(graph, ids, 7) is None


def pieced(order, pieces):
    """A head whose columns are cut into pieces of some lengths, and laid in an order: by column, its place in the
    output."""
    net = Net(0)
    y = net.linear(net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 6)), 6, sum(pieces))
    parts = net.op("Split", y, net.constant(np.array(pieces)), outputs=len(pieces), axis=1)
    ends = np.cumsum([0, *pieces])
    columns = np.concatenate([np.arange(ends[piece], ends[piece + 1]) for piece in order])
    return net.graph(net.op("Concat", *[parts[piece] for piece in order], axis=1)), np.argsort(columns)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("pieces", [(1, 2, 1), (1, 1, 1), (2, 1, 3)])
def test_a_unit_that_an_output_takes_alone_is_known_by_its_place_there(order, pieces):
    graph, places = pieced(order, pieces)
    found, plain = network(graph), network(mlp((8, 6, sum(pieces))))
    head, other = found.layers[-1].weight, plain.layers[-1].weight
    names = found.position_names({graph.outputs[0].name: "y"}).on(head.tensor, head.axes[0], head.shape[0])
    expected = plain.position_names({plain.graph.outputs[0].name: "y"}).on(other.tensor, other.axes[0], other.shape[0])
    assert np.array_equal(names, expected[places])
    assert {found.groups.groups[g].state for g, _ in found.groups.on_axis[head.tensor, head.axes[0]]} == {"pinned"}


def test_a_unit_that_is_taken_alone_and_goes_into_a_layer_stays_frozen():
    net = Net(0)
    hidden = net.op("Relu", net.linear(net.input("x", ("N", 8)), 8, 6))
    one = net.op("Gather", hidden, net.constant([2]), axis=1)
    graph = net.graph(net.linear(hidden, 6, 4), net.linear(one, 1, 4))
    found = network(graph)
    tensor = found.layers[0].weight.tensor
    assert {found.groups.groups[g].state for g, _ in found.groups.on_axis[tensor, 0]} == {"frozen", "candidate"}
