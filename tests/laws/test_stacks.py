"""Laws of stacks and packed weights: plain in the view, what they were in the file; units of each expert its own."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from builders import Net, deviation, inputs_of, load, run
from expert_nets import MIXTURES, NETS, cross_attention, experts, heads, reordered
from onnx import numpy_helper

import mal_graph
from mal_graph.network import as_stored
from mal_graph.operators import GroupState
from mal_graph.symmetry.networks import build_network
from mal_graph_adapters.onnx_format.build import built_model
from mal_graph_adapters.onnx_format.edit import edited_model

by_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
by_form = pytest.mark.parametrize("form", MIXTURES)


def stored(graph):
    """The tensors of the file that a graph came from, and would be written as."""
    return {name: weight.read() for name, weight in as_stored(graph).weights.items()}


def with_stored(graph, values):
    """The network of a graph with other values in its file."""
    proto = onnx.load_from_string(document(graph))
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name))
    return load(proto)


def document(graph):
    """The file that a graph is written as."""
    return ir.to_proto(edited_model(graph)).SerializeToString()


def far(graph, other):
    inputs = inputs_of(other, 1)
    return deviation(run(graph, inputs), run(other, inputs))


def kept(step):
    return {**step.plan.skipped, **step.plan.dropped, **step.promises.kept}


@by_net
def test_the_view_is_a_matrix_and_the_file_stays_what_it_was(net):
    graph = net()
    assert graph.stacks
    source = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(document(graph)).graph.initializer
    }
    back = as_stored(graph)
    assert not back.stacks
    assert all(np.array_equal(weight.read(), source[name]) for name, weight in back.weights.items())
    assert back.weights.keys() == source.keys()
    assert all(len(graph.weights[name].shape) < len(back.weights[name].shape) for name in graph.stacks)


@by_net
def test_new_values_are_written_where_the_file_has_them(net):
    graph = net()
    changed = graph.with_weights({name: -graph.weights[name].read() for name in graph.stacks})
    again = load(onnx.load_from_string(document(changed)))
    for name in graph.stacks:
        assert np.array_equal(stored(again)[name], -stored(graph)[name])


@by_form
@pytest.mark.parametrize("lam", [0.3, 0.5])
def test_experts_and_their_units_in_another_order_give_the_base_back(form, lam):
    base = experts(form)
    donor = with_stored(base, reordered(stored(base), 3, form))
    assert far(donor, base) <= 1e-5  # by hand, without any rule
    result = mal_graph.assemble(base, donor, lam=lam, method="mal")
    assert far(result.graph, base) <= 1e-5
    assert not kept(result.merged[0])


@by_net
def test_every_group_is_verified(net):
    groups = build_network(net()).groups.groups
    assert all(group.state.value in ("verified", "pinned") for group in groups)


def test_each_expert_has_units_of_its_own():
    groups = build_network(experts("matmul")).groups.groups
    inside = [group for group in groups if group.inside is not None]
    assert [group.units for group in inside] == [7, 7, 7]
    assert {m.tensor for m in inside[0].members} == {"up", "up bias", "down"}


def test_heads_stored_on_an_axis_of_their_own_are_found_with_their_units():
    groups = build_network(heads()).groups.groups
    assert sorted(group.units for group in groups if group.inside is not None) == [4] * 6
    assert any(group.units == 3 and "out" in {m.tensor for m in group.members} for group in groups)


@by_net
def test_at_lambda_one_the_merge_is_the_donor(net):
    base, donor = net(0), net(1)
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal")
    assert not kept(result.merged[0])
    assert far(result.graph, donor) <= 1e-4


@pytest.mark.parametrize("form", ["matmul", "einsum", "gated"])
def test_wider_experts_are_reached_by_growth(form):
    base, donor = experts(form), experts(form, 1, hidden=9)
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal", width="grow")
    assert not kept(result.merged[0])
    assert far(result.graph, donor) <= 1e-4
    assert stored(result.graph)["up"].shape == stored(donor)["up"].shape
    assert far(load(onnx.load_from_string(document(result.graph))), donor) <= 1e-4


def test_more_experts_are_kept_out_where_a_softmax_weighs_them():
    result = mal_graph.assemble(experts("matmul"), experts("matmul", 1, number=4), lam=1.0, method="mal", width="grow")
    assert any("Softmax" in reason for reason in result.merged[0].plan.growth.kept.values())


# --- what a Split cuts ------------------------------------------------------------------------------------------


def test_the_parts_of_a_packed_projection_tie_no_streams():
    graph = cross_attention()
    assert list(graph.splits) == ["packed"]
    groups = [group for group in build_network(graph).groups.groups if group.state.value == "verified"]
    assert sorted(group.units for group in groups) == [6, 6, 6, 6]  # two streams, what meets, what is given


def test_a_packed_projection_is_written_whole():
    graph = cross_attention()
    assert [node.op for node in as_stored(graph).nodes].count("Split") == 2
    assert np.array_equal(stored(graph)["packed"], numpy_of(document(graph), "packed"))
    part = graph.splits["packed"].node.outputs[1]
    changed = graph.with_weights({part: -graph.weights[part].read()})
    again = numpy_of(document(changed), "packed")
    assert np.array_equal(again[:6], stored(graph)["packed"][:6])
    assert np.array_equal(again[6:], -stored(graph)["packed"][6:])
    assert far(load(onnx.load_from_string(document(changed))), changed) <= 1e-6


@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_packed_projections_are_merged_part_by_part(lam):
    base, donor = cross_attention(), cross_attention(1)
    result = mal_graph.assemble(base, donor, lam=lam, method="mal")
    assert not kept(result.merged[0])
    assert lam < 1 or far(result.graph, donor) <= 1e-4
    assert far(load(onnx.load_from_string(document(result.graph))), result.graph) <= 1e-6


def test_a_packed_projection_grows_with_the_lengths_that_it_is_cut_into():
    base, donor = cross_attention(), cross_attention(1, sizes=(8, 16))
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal", width="grow")
    again = load(onnx.load_from_string(document(result.graph)))
    assert far(again, result.graph) <= 1e-6
    assert len(numpy_of(document(result.graph), "packed")) > 18


def numpy_of(document, name):
    """A tensor that a file stores."""
    stored = onnx.load_from_string(document).graph.initializer
    return next(numpy_helper.to_array(tensor) for tensor in stored if tensor.name == name)


def test_parts_that_do_not_fit_together_any_more_are_written_apart():
    """As where one stream is narrower than the other by now."""
    graph = cross_attention()
    queries, both = (graph.weights[part].read() for part in graph.splits["packed"].node.outputs)
    narrow = graph.with_weights({graph.splits["packed"].node.outputs[1]: both[:, :4]})
    proto = onnx.load_from_string(document(narrow))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert "packed" not in tensors
    apart = [values for name, values in tensors.items() if "apart" in name]
    assert [values.shape for values in apart] == [(6, 6), (12, 4)]
    assert np.array_equal(apart[0], queries)
    assert [node.op_type for node in proto.graph.node].count("Split") == 1


def test_both_streams_of_a_packed_projection_grow():
    base, donor = cross_attention(), cross_attention(1, width=9, other=9)
    result = mal_graph.assemble(base, donor, lam=1.0, method="mal", width="grow")
    assert far(result.graph, donor) <= 1e-4
    assert far(load(onnx.load_from_string(document(result.graph))), donor) <= 1e-4


@pytest.mark.parametrize("net", [experts, heads, cross_attention], ids=["experts", "heads", "packed"])
def test_a_union_at_full_budget_is_the_mean(net):
    base, donor = net(), net(seed=1)
    result = mal_graph.assemble(base, donor, method="union", budget=2.0)
    inputs = inputs_of(base, 1)
    mean = [(a + b) / 2 for a, b in zip(run(base, inputs), run(donor, inputs), strict=True)]
    assert deviation(run(result.graph, inputs), mean) <= 1e-5
    for budget in (1.0, 1.5):
        smaller = mal_graph.assemble(base, donor, method="union", budget=budget).graph
        again = load(onnx.load_from_string(ir.to_proto(built_model(smaller)).SerializeToString()))
        assert far(again, smaller) <= 1e-6


@pytest.mark.parametrize("op", ["MatMul", "FusedMatMul"])
def test_queries_that_are_stored_by_head_have_units_of_their_own_in_each(op):
    """As a decoder has them whose first layer reads learned queries alone: they are folded into one tensor."""
    net, heads, size = Net(0), 3, 4

    def by_head(x):
        x = net.op("Reshape", net.linear(x, 6, heads * size, "matmul"), net.constant([0, 5, heads, size]))
        return net.op("Transpose", x, perm=[0, 2, 1, 3])

    x, queries = net.linear(net.input("x", ("N", 5, 6)), 6, 6, "matmul"), net.weight(heads, 2, size, name="queries")
    fused = {"transB": 1, "domain": "com.microsoft"} if op == "FusedMatMul" else {}
    keys = by_head(x)
    scores = net.op(op, queries, keys if fused else net.op("Transpose", keys, perm=[0, 1, 3, 2]), **fused)
    read = net.op("Transpose", net.op("MatMul", net.op("Softmax", scores, axis=-1), by_head(x)), perm=[0, 2, 1, 3])
    graph = net.graph(
        net.linear(net.op("Reshape", read, net.constant([0, 2, heads * size])), heads * size, 3, "matmul")
    )
    groups = build_network(graph).groups.groups
    inside = [group for group in groups if group.state is GroupState.VERIFIED and group.inside is not None]
    assert [group.units for group in inside] == [size] * 2 * heads
