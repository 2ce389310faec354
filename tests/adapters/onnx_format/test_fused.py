"""Operators of onnxruntime that hold the weights of several layers are shown as one for each, and given back."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from builders import Net, deviation, inputs_of, load, run

import mal_graph
from mal_graph.operators import GroupState
from mal_graph.symmetry import axis_groups, verify
from mal_graph_adapters.onnx_format.edit import edited_model
from mal_graph_adapters.onnx_format.file import OnnxAdapter
from mal_graph_adapters.onnx_format.sessions import open_session

MICROSOFT = "com.microsoft"
SMALL = 1e-6
MASKS = {
    "keys": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]],
    "pairs": np.stack([np.tri(5)] * 2),
    "lengths": [3, 4],
}


def attention(heads=3, sizes=(12, 12, 12), seed=0, mask="", bias=True, opset=20, told=True, **attributes):
    """A network around an Attention with a packed weight."""
    net = Net(seed, opset=opset)
    x = net.input("x", (2, 5, 8))
    w, b = net.weight(8, sum(sizes), name="w", scale=0.6), net.weight(sum(sizes), name="b", scale=0.5)
    held = net.constant(np.array(MASKS[mask], np.int32), "mask") if mask else ""
    if told:
        attributes["qkv_hidden_sizes"] = sizes
    y = net.op("Attention", x, w, b if bias else "", held, domain=MICROSOFT, num_heads=heads, **attributes)
    return net.proto(net.op("MatMul", y, net.weight(sizes[2], 3, name="o")))


def embedding(seed=0, places=False, segments=True, sums=False, opset=20):
    """Words that are looked up, and two layers behind."""
    net = Net(seed, opset=opset)
    ids = net.input("ids", (2, 5), "int32")
    of = [net.weight(20, 6, name="words"), net.weight(9, 6, name="places")]
    kinds = [net.constant(np.array([[0, 0, 1, 1, 1]] * 2, np.int32), "kinds"), net.weight(2, 6, name="segments")]
    at = net.constant(np.array([[4, 3, 2, 1, 0]], np.int32), "at") if places else ""
    given = [ids, kinds[0] if segments else "", *of, kinds[1] if segments else ""]
    norm = [net.weight(6, name="gamma", scale=1.0), net.weight(6, name="beta", scale=1.0)]
    made = net.op("EmbedLayerNormalization", *given, *norm, "", at, outputs=3, domain=MICROSOFT, epsilon=1e-3)
    y = net.op("Add", made[0], made[2]) if sums else made[0]
    return net.proto(net.op("MatMul", net.op("Relu", net.op("MatMul", y, net.weight(6, 7))), net.weight(7, 3)))


ATTENTIONS = {
    "plain": {},
    "without bias": {"bias": False},
    "thirds": {"told": False},
    "wide values": {"sizes": (12, 12, 15)},
    "causal": {"unidirectional": 1},
    "scaled": {"scale": 0.3, "mask_filter_value": -1e4},
    "mask of keys": {"mask": "keys"},
    "mask of pairs": {"mask": "pairs", "unidirectional": 1},
    "old opset": {"opset": 12},
}
EMBEDDINGS = {
    "plain": {},
    "places": {"places": True},
    "one kind": {"segments": False},
    "with the sum": {"sums": True},
    "old opset": {"opset": 12},
}
FILES = {
    **{f"attention, {name}": attention(**kind) for name, kind in ATTENTIONS.items()},
    **{f"embedding, {name}": embedding(**kind) for name, kind in EMBEDDINGS.items()},
}
by_file = pytest.mark.parametrize("proto", FILES.values(), ids=FILES.keys())


def given_to(graph):
    """Inputs, ids among the words."""
    return {
        name: (np.arange(10).reshape(2, 5) % 20 if x.dtype.kind == "i" else x).astype(x.dtype)
        for name, x in inputs_of(graph, 1).items()
    }


def far(proto, expected):
    """How far a file's output is from that of another."""
    inputs = given_to(load(expected))
    found, wanted = (open_session(one.SerializeToString()).run(None, inputs) for one in (proto, expected))
    return deviation(found, wanted)


def written(graph):
    return ir.to_proto(edited_model(graph))


def ops(proto):
    return [node.op_type for node in proto.graph.node]


@by_file
def test_the_view_computes_what_the_file_does(proto):
    graph = load(proto)
    assert not {"com.microsoft.Attention", "com.microsoft.EmbedLayerNormalization"} & {n.op for n in graph.nodes}
    inputs = given_to(graph)
    assert (
        deviation(run(graph, inputs, "onnxruntime"), open_session(proto.SerializeToString()).run(None, inputs)) < SMALL
    )


@by_file
def test_a_file_is_what_it_was(proto):
    graph = load(proto)
    assert ops(written(graph)) == ops(proto)
    assert far(written(graph), proto) == 0.0
    name = next(name for name in ("w", "words") if name in graph.weights)
    changed = graph.with_weights({name: 2 * graph.weights[name].read()})
    assert ops(written(changed)) == ops(proto)
    inputs = given_to(graph)
    session = open_session(written(changed).SerializeToString())
    assert deviation(session.run(None, inputs), run(changed, inputs, "onnxruntime")) < SMALL
    assert far(written(changed), proto) > 1e-3


@by_file
def test_what_one_operator_held_is_verified(proto):
    graph = load(proto)
    groups = verify(graph, axis_groups(graph)).groups
    assert {group.state for group in groups} <= {GroupState.VERIFIED, GroupState.PINNED}, [g.reason for g in groups]
    assert any(group.state is GroupState.VERIFIED for group in groups)


def test_a_packed_weight_has_heads_and_units_in_them():
    groups = [group for group in axis_groups(load(attention(sizes=(12, 12, 15)))).groups if group.is_usable]
    assert [(g.units, g.inside and g.inside[1]) for g in groups] == [
        (3, None),
        *[(4, 0), (4, 1), (4, 2)],
        *[(5, 0), (5, 1), (5, 2)],
    ]
    assert [m.positions.shape for m in groups[0].members if m.tensor == "w"] == [(3, 13)]


def test_more_heads_are_written_out():
    """The file's own operator says how many units it has: where that changes, what the view shows is written."""
    base, donor = load(attention(), "base"), load(attention(5, (20, 20, 20), seed=1), "donor")
    for lam, goal in ((0.0, base), (1.0, donor)):
        result = mal_graph.assemble(base, donor, lam=lam, width="grow", method="mal", assume_ordered=True)
        proto = written(result.graph)
        assert "MultiHeadAttention" in ops(proto)
        assert far(proto, written(goal)) < 1e-5


def with_past():
    net = Net(0)
    x, past = net.input("x", (2, 5, 8)), net.input("past", (2, 2, 2, 3, 4))
    y, present = net.op(
        "Attention", x, net.weight(8, 24), net.weight(24), "", past, outputs=2, domain=MICROSOFT, num_heads=2
    )
    return net.proto(net.op("MatMul", y, net.weight(8, 3)), present)


@pytest.mark.parametrize("proto", [attention(mask="lengths"), with_past()], ids=["lengths", "past"])
def test_what_is_not_followed_stays_as_it_is_and_says_why(proto):
    graph = load(proto)
    assert [node.op for node in graph.nodes] == ["com.microsoft.Attention", "MatMul"]
    reasons = {group.reason for group in axis_groups(graph).groups if group.state is GroupState.FROZEN}
    assert reasons
    assert all("is not followed yet" in reason for reason in reasons)


def test_a_mask_that_is_cast_is_known_by_what_it_is_made_of():
    net = Net(0)
    x, mask = net.input("x", (2, 5, 8)), net.input("mask", ("N", "S"), "int64")
    held = net.op("Cast", mask, to=onnx.TensorProto.INT32)
    y = net.op("Attention", x, net.weight(8, 12), net.weight(12), held, domain=MICROSOFT, num_heads=2)
    graph = net.graph(net.op("MatMul", y, net.weight(4, 3)))
    assert "com.microsoft.MultiHeadAttention" in {node.op for node in graph.nodes}


# --- norms of onnxruntime in the standard's domain --------------------------------------------------------------------


@pytest.mark.parametrize(("op", "opset"), [("SimplifiedLayerNormalization", 20), ("LayerNormalization", 12)])
def test_a_norm_that_the_optimiser_writes_is_loaded(op, opset, tmp_path):
    net = Net(0, opset=opset)
    x = net.op("MatMul", net.input("x", (2, 5, 8)), net.weight(8, 6))
    proto = net.proto(net.op("MatMul", net.op(op, x, net.weight(6, scale=1.0), axis=-1), net.weight(6, 3)))
    onnx.save(proto, tmp_path / "norm.onnx")
    graph = OnnxAdapter().load(tmp_path / "norm.onnx")
    groups = verify(graph, axis_groups(graph)).groups
    assert [group.units for group in groups if group.state is GroupState.VERIFIED] == [6]
    OnnxAdapter().save(graph, tmp_path / "again.onnx")
    assert far(onnx.load(tmp_path / "again.onnx"), proto) == 0.0
