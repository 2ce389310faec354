"""Tensors stored once because their values are equal: each reader has its own in the view, if it must in the file."""

import numpy as np
import onnx
import pytest
from builders import Net, deviation, inputs_of, load, permuted_copy, run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import mal_graph
from mal_graph.operators import GroupState
from mal_graph.symmetry import axis_groups, verify
from mal_graph.symmetry.ties import find_ties

WIDTHS = (5, 6, 6, 3)


def layers(bias, seed=0, **stored):
    """Three layers, the first two with the bias called `bias`, or with those in `stored`."""
    net = Net(seed)
    x = net.input("x", ("N", WIDTHS[0]))
    for i, units in enumerate(WIDTHS[1:]):
        b = net.constant(np.full(units, 0.0, np.float32), "last") if i == 2 else bias(net, i)
        x = net.op("Gemm", x, net.weight(units, WIDTHS[i], name=f"w{i}"), b, transB=1)
        x = net.op("Relu", x) if i < 2 else x
    for name, values in stored.items():
        net.constant(values, name)
    return net.proto(x)


def shared(values=0.0):
    held = np.broadcast_to(np.asarray(values, np.float32), 6)
    return lambda net, i: "b" if "b" in net.weights else net.constant(held.copy(), "b")


def apart(net, i):
    return net.weight(6, name=f"b{i}", scale=1.0)


def names_of(graph):
    return sorted(name for name in graph.weights if name.startswith("b"))


def test_equal_values_do_not_tie_layers():
    graph = load(layers(shared()))
    assert names_of(graph) == ["b", "b (2)"]
    assert dict(graph.copies) == {"b (2)": "b"}
    assert [group.units for group in axis_groups(graph).groups if group.is_usable] == [6, 6]


def test_values_that_differ_tie_layers():
    graph = load(layers(shared(np.arange(6))))
    assert names_of(graph) == ["b"]
    assert len([group for group in axis_groups(graph).groups if group.is_usable]) == 1


def test_the_first_entries_alone_do_not_tell():
    net = Net(0)
    almost = np.zeros(40, np.float32)
    almost[-1] = 1
    x = net.op("Add", net.input("x", ("N", 40)), net.constant(almost, "b"))
    assert names_of(load(net.proto(net.op("Mul", x, "b")))) == ["b"]


def merged(base, donor, lam, folder):
    """The merged file."""
    mal_graph.assemble(base, donor, lam=lam).save(folder / "merged.onnx")
    return onnx.load(folder / "merged.onnx")


def initializers(proto):
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def assert_same(found, expected):
    inputs = inputs_of(load(expected))
    assert deviation(run(load(found), inputs), run(load(expected), inputs)) < 1e-5


def test_a_merge_stores_equal_values_once_as_before(tmp_path):
    stored = initializers(merged(layers(shared(0.5)), layers(shared(0.25), 1), 0.5, tmp_path))
    assert stored.keys() == {"b", "w0", "w1", "w2", "last"}
    assert (stored["b"] == 0.375).all()


def test_a_merge_stores_what_differs_after_it_apart(tmp_path):
    base, donor = layers(shared()), layers(apart, 1)
    proto = merged(base, donor, 1.0, tmp_path)
    assert initializers(proto).keys() == {"b", "b (2)", "w0", "w1", "w2", "last"}
    assert_same(proto, donor)


def test_what_is_stored_once_counts_once():
    accounts = mal_graph.assemble(layers(shared()), layers(apart, 1), lam=0.5).accounts
    assert accounts.adds_up
    assert accounts.total == 6 * 5 + 6 * 6 + 3 * 6 + 6 + 3


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_what_is_shared_on_both_sides_loses_nothing(lam, tmp_path):
    models = layers(shared()), layers(shared(), 1)
    assert_same(merged(*models, lam, tmp_path), models[int(lam)])


# --- what is arranged on its way to its readers -----------------------------------------------------------------

ROW = [1, 6]
ARRANGING = {
    "identity": lambda net, b: net.op("Identity", b),
    "cast": lambda net, b: net.op("Cast", b, to=onnx.TensorProto.FLOAT),
    "double and back": lambda net, b: net.op("Cast", net.op("Cast", b, to=onnx.TensorProto.DOUBLE), to=1),
    "row": lambda net, b: net.op("Reshape", b, net.constant(ROW)),
    "vector": lambda net, b: net.op("Reshape", b, net.constant(ROW[1:])),
}
WAYS = st.lists(st.sampled_from(sorted(ARRANGING)), min_size=1, max_size=3)


def arranged(way, values, readers=(1, 1)):
    """One layer after another, each adding the same tensor, arranged on its way, as often as `readers` says."""
    net = Net(0)
    x, b = net.input("x", ("N", WIDTHS[0])), net.constant(np.asarray(values, np.float32), "b")
    for step in way:
        b = ARRANGING[step](net, b)
    for i, times in enumerate(readers):
        x = net.op("MatMul", x, net.weight(WIDTHS[min(i, 1)], 6, name=f"w{i}"))
        for _ in range(times):
            x = net.op("Relu", net.op("Add", x, b))
    return net.proto(net.op("MatMul", x, net.weight(6, 3, name="last")))


def hidden_units(proto):
    return [group.units for group in axis_groups(load(proto)).groups if group.is_usable]


DIFFERENT = [0.3, -1, 2, 0.7, 0.1, -0.4]


@given(WAYS, st.lists(st.integers(1, 2), min_size=2, max_size=3), st.booleans())
def test_equal_values_tie_no_layers_however_they_are_arranged(way, readers, is_equal):
    proto = arranged(way, np.full(6, 0.5) if is_equal else DIFFERENT, readers)
    assert hidden_units(proto) == [6] * (len(readers) if is_equal else 1)


@given(WAYS)
def test_what_was_arranged_once_is_arranged_once_in_the_file(tmp_path_factory, way):
    proto = arranged(way, np.full(6, 0.5))
    path = tmp_path_factory.mktemp("way") / "saved.onnx"
    mal_graph.save(load(proto), path)
    saved = onnx.load(path)
    assert [node.output for node in saved.graph.node] == [node.output for node in proto.graph.node]
    assert initializers(saved).keys() == initializers(proto).keys()


@settings(max_examples=10)  # there are few kinds of tables
@given(WAYS)
def test_what_differs_after_a_merge_is_arranged_apart(tmp_path_factory, way):
    base, donor = arranged(way, np.full(6, 0.5)), arranged([], np.zeros(6))
    rng = np.random.default_rng(1)
    for i, node in enumerate(node for node in donor.graph.node if node.op_type == "Add"):
        node.input[1] = f"b{i}"
        donor.graph.initializer.append(numpy_helper.from_array(rng.normal(size=6).astype("f"), f"b{i}"))
    proto = merged(base, donor, 1.0, tmp_path_factory.mktemp("way"))
    assert_same(proto, donor)
    assert {"b", "b (2)"} <= initializers(proto).keys()


def test_what_is_stored_in_parts_is_stored_whole_for_a_reader_that_needs_other_values(tmp_path):
    """What the file stores in parts is one tensor for two layers, and the donor has two."""
    parted = layers(
        lambda net, i: net.op("Concat", "b1", "b2", axis=0) if i == 0 else "concat0", b1=[0] * 2, b2=[0] * 4
    )
    for tensor in (tensor for tensor in parted.graph.initializer if tensor.name in ("b1", "b2")):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("f"), tensor.name))
    donor = layers(apart, 1)
    assert_same(merged(parted, donor, 1.0, tmp_path), donor)


# --- what is the same along one axis alone -----------------------------------------------------------------------


def tables(*stored, seed=0):
    """Two blocks, each of a layer along either of two axes, and a table of (4, 6) added behind both; the first table
    stands for those that are not given."""
    net = Net(seed)
    x, sizes = net.input("x", ("N", 5, 3)), (5, 3)
    for i, table in enumerate(stored):
        x = net.op("MatMul", x, net.weight(sizes[1], 4, name=f"c{i}"))
        x = net.op("Transpose", x, perm=[0, 2, 1])
        x = net.op("MatMul", x, net.weight(sizes[0], 6, name=f"k{i}"))
        name = "t0" if table is None else net.constant(np.asarray(table, np.float32), f"t{i}")
        x, sizes = net.op("Relu", net.op("Add", x, name)), (6, 4)
        x = net.op("Transpose", x, perm=[0, 2, 1])
    x = net.op("Transpose", net.op("MatMul", x, net.weight(4, 2, name="cl")), perm=[0, 2, 1])
    return net.proto(net.op("MatMul", x, net.weight(6, 2, name="kl")))


def drawn_table(differing, rng):
    """A table of (4, 6) that is the same along the axes that are not `differing`."""
    return np.broadcast_to(rng.normal(size=[n if axis in differing else 1 for axis, n in enumerate((4, 6))]), (4, 6))


TABLES = st.sets(st.integers(0, 1)), st.integers(0, 99).map(np.random.default_rng)


@given(*TABLES)
def test_a_table_ties_its_readers_along_the_axes_where_its_values_differ(differing, rng):
    graph = load(tables(drawn_table(differing, rng), None))
    groups = verify(graph, axis_groups(graph))
    for axis, names in enumerate("ck"):
        lie = [{m.tensor for m in group.members if m.axis == 1} & {f"{names}0", f"{names}1"} for group in groups.groups]
        assert ({f"{names}0", f"{names}1"} in lie) == (axis in differing)
    states = [group.state for group in groups.groups if not group.name.endswith("]") and group.units in (4, 6)]
    assert states == [GroupState.VERIFIED] * (4 - len(differing))


@given(*TABLES)
def test_what_is_tied_along_an_axis_is_tied_on_purpose(differing, rng):
    graph = load(tables(drawn_table(differing, rng), None))
    assert len(find_ties(graph, axis_groups(graph))) == len(differing)


@settings(max_examples=10)  # there are few kinds of tables
@given(*TABLES)
def test_a_merge_stores_a_table_twice_where_its_readers_need_it(tmp_path_factory, differing, rng):
    base, donor = tables(drawn_table(differing, rng), None), tables(*rng.normal(size=(2, 4, 6)), seed=1)
    ends = [merged(base, donor, lam, tmp_path_factory.mktemp("tables")) for lam in (0.0, 1.0)]
    assert initializers(ends[0]).keys() == initializers(base).keys()
    if len(differing) < 2:
        assert_same(ends[1], donor)


@settings(max_examples=10)  # there are few kinds of tables
@given(*TABLES, st.sampled_from([0.3, 0.5, 1.0]))
def test_a_table_that_two_layers_share_in_both_models_stays_one(tmp_path_factory, differing, rng, lam):
    """The donor is the base, its units in another order."""
    base = tables(drawn_table(differing, rng), None)
    donor, _ = permuted_copy(load(base), axis_groups(load(base)))
    proto = merged(base, donor, lam, tmp_path_factory.mktemp("tables"))
    assert_same(proto, base)
    assert initializers(proto).keys() == initializers(base).keys()
