"""Laws of depth: layers meet shallow to deep, and a base with identity layers computes what it did."""

import dataclasses
import re

import numpy as np
import onnx
import pytest
from builders import Net, cnn, deviation, inputs_of, load, mlp, places, reseeded, run, save

import mal_graph
from mal_graph.matching import match_layers
from mal_graph.operators import table

DEPTHS = (2, 3, 5, 6)


def deep(layers, seed, width=7, **options):
    return mlp((6, *[width] * (layers - 1), 4), seed, **options)


def merged(base, donor, lam, unmatched="fade", width="grow", **options):
    return mal_graph.assemble(
        base, donor, lam=lam, unmatched=unmatched, width=width, depth="expand", verify=False, **options
    )


def far(a, b):
    inputs = inputs_of(b)
    return deviation(run(a, inputs, "onnxruntime"), run(b, inputs, "onnxruntime"))


@pytest.mark.parametrize("layers", DEPTHS)
@pytest.mark.parametrize("others", DEPTHS)
def test_layers_meet_shallow_to_deep_in_nets_of_any_depth(layers, others):
    match = match_layers(deep(layers, 0), deep(others, 1, width=9))
    assert len(match.pairs) == min(layers, others)
    assert [j for _, j in places(match)] == sorted(j for _, j in places(match))
    assert (places(match)[0], places(match)[-1]) == ((0, 0), (layers - 1, others - 1))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("layers", "others"), [(2, 3), (2, 6), (3, 5), (5, 6), (6, 2)])
@pytest.mark.parametrize("style", ["gemm", "gemm_nt", "matmul"])
def test_an_expanded_base_keeps_its_function_at_lambda_0_and_takes_the_donors_at_1(layers, others, style, tmp_path):
    base, donor = deep(layers, 0, style=style), deep(others, 1, width=9)
    result = merged(base, donor, 0.0)
    assert len(result.merged[0].added) == max(0, others - layers)
    assert far(result.graph, base) <= 1e-5
    if others >= layers and style != "matmul":  # an added MatMul has no bias
        assert result.check("lambda_0").passed
        assert far(merged(base, donor, 1.0).graph, donor) <= 1e-5
    again = mal_graph.load(save(result.graph, tmp_path / "deep.onnx"))
    assert far(again, result.graph) == 0.0


def chain(taps, seed, *, units=6, bn=False, group=1, dilation=1, activation="Relu"):
    """Convolutions one after the other, then a head."""
    net = Net(seed)
    x, width = net.input("x", ("N", 3, 8, 8)), 3
    for number, count in enumerate(taps):
        groups = units if group == "depthwise" and number else 1
        w = net.weight(units, width // groups, count, count)
        reach = dilation * (count - 1)
        pads = [reach // 2] * 2 + [reach - reach // 2] * 2
        x = net.op("Conv", x, w, net.weight(units), pads=pads, dilations=[dilation] * 2, group=groups)
        x, width = net.op(activation, net.norm(x, units) if bn else x), units
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), units, 4))


@pytest.mark.parametrize(
    "form",
    [{}, {"bn": True}, {"dilation": 2}, {"group": "depthwise"}],
    ids=["plain", "norm", "dilated", "depthwise"],
)
def test_identity_convolutions_have_the_donors_windows(form):
    base, donor = chain((3,), 0), chain((3, 5, 3 if form.get("dilation") else 4), 1, units=8, **form)
    if form.get("dilation"):
        base = chain((3,), 0, dilation=2)
    result = merged(base, donor, 0.0)
    assert len(result.merged[0].added) == 2, result.merged[0].match.unmatched_donor
    assert far(result.graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0).graph, donor) <= 1e-5


@pytest.mark.parametrize("activation", ["Relu", "Abs"])
def test_an_activation_that_does_nothing_the_second_time_is_repeated(activation):
    base, donor = deep(2, 0, activation=activation), deep(4, 1, activation=activation)
    assert len(merged(base, donor, 0.0).merged[0].added) == 2
    assert far(merged(base, donor, 0.0).graph, base) <= 1e-6


def clipped(layers, seed):
    net = Net(seed)
    x = net.input("x", ("N", 6))
    low, high = net.constant(np.float32(0)), net.constant(np.float32(0.5))
    for _ in range(layers - 1):
        x = net.op("Clip", net.linear(x, 6, 6), low, high)
    return net.graph(net.linear(x, 6, 4))


def test_a_clip_is_repeated_with_its_bounds():
    base, donor = clipped(2, 0), clipped(3, 1)
    assert len(merged(base, donor, 0.0).merged[0].added) == 1
    assert far(merged(base, donor, 0.0).graph, base) <= 1e-6
    assert far(merged(base, donor, 1.0).graph, donor) <= 1e-5


# --- residual blocks ---------------------------------------------------------------------------------------------


def stacked(blocks, seed, width=6, *, form="", tokens=4):
    """Residual blocks on a stream of tokens, one form of branch in all of them, a norm behind the last one.

    `form`: what a block is made of, one word each: "norm" in front, "attention", "mixing" over the tokens, "scale" of
    the branch by a vector, "gate" of the branch by its own mean, "gelu" behind the sum, "after": the norm behind the
    sum.
    """
    net = Net(seed, opset=23)

    def norm(x):
        return net.op("RMSNormalization", x, net.weight(width, scale=1.0), epsilon=1e-2)

    def branch(x):
        y = norm(x) if "norm" in form else x
        if "attention" in form:
            q, k, v = (net.linear(y, width, 5, "matmul") for _ in range(3))
            score = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
            y = net.op("MatMul", score, v)
        elif "mixing" in form:
            y = net.op("Transpose", y, perm=[0, 2, 1])
            y = net.linear(net.op("Relu", net.linear(y, tokens, 5, "matmul")), 5, tokens, "matmul")
            y = net.op("Transpose", y, perm=[0, 2, 1])
        else:
            y = net.op("Gelu", net.linear(y, width, 5, "matmul"))
        y = y if "mixing" in form else net.linear(y, 5, width, "matmul")
        y = net.op("Mul", y, net.weight(width, scale=1.0)) if "scale" in form else y
        if "gate" in form:
            mean = net.op("ReduceMean", y, net.constant([1]), keepdims=1)
            y = net.op("Mul", y, net.op("Sigmoid", net.linear(mean, width, width, "matmul")))
        return y

    x = net.linear(net.input("x", ("N", tokens, 5)), 5, width, "matmul")
    for _ in range(blocks):
        x = net.op("Add", x, branch(x))
        x = norm(x) if "after" in form else net.op("Gelu", x) if "gelu" in form else x
    return net.graph(net.linear(x if "after" in form else norm(x), width, 3, "matmul"))


def preactivated(blocks, seed, width=6, opset=20):
    """BatchNorm and ReLU in front of the convolutions."""
    net = Net(seed, opset=opset)
    x = net.conv(net.input("x", ("N", 3, 6, 6)), 3, width)
    for _ in range(blocks):
        y = net.conv(net.op("Relu", net.norm(x, width)), width, 5, bias=False)
        x = net.op("Add", x, net.conv(net.op("Relu", net.norm(y, 5)), 5, width, bias=False))
    x = net.op("GlobalAveragePool", net.op("Relu", net.norm(x, width)))
    return net.graph(net.linear(net.op("Flatten", x), width, 4))


RESIDUAL = {
    "basic": lambda blocks, seed, width=6: cnn((width, width + 2), blocks, seed),
    "basic without norm": lambda blocks, seed, width=6: cnn((width, width + 2), blocks, seed, bn=False),
    "bottleneck": lambda blocks, seed, width=6: cnn((width,), blocks, seed, inner=4, depthwise=True),
    "norm behind the activation": preactivated,
    "plain": lambda blocks, seed, width=6: stacked(blocks, seed, width),
    "norm": lambda blocks, seed, width=6: stacked(blocks, seed, width, form="norm"),
    "attention": lambda blocks, seed, width=6: stacked(blocks, seed, width, form="norm attention"),
    "mixing": lambda blocks, seed, width=6: stacked(blocks, seed, width, form="norm mixing"),
    "scale": lambda blocks, seed, width=6: stacked(blocks, seed, width, form="norm scale"),
    "gate": lambda blocks, seed, width=6: stacked(blocks, seed, width, form="norm gate"),
}


@pytest.mark.sampled(6)
@pytest.mark.slow
@pytest.mark.parametrize("unmatched", ["keep", "fade", "zero"])
@pytest.mark.parametrize("build", RESIDUAL.values(), ids=RESIDUAL)
def test_residual_blocks_of_the_donor_come_to_stand_beside_the_stream(build, unmatched, tmp_path):
    base, donor = build(2, 0), build(4, 1)
    result = merged(base, donor, 0.0, unmatched)
    assert result.merged[0].added
    assert not result.merged[0].match.unmatched_donor
    assert result.check("lambda_0").passed
    assert far(result.graph, base) <= 1e-5
    end = merged(base, donor, 1.0, unmatched)
    assert far(end.graph, donor) <= 1e-5
    assert len(end.graph.nodes) == len(donor.nodes)
    again = mal_graph.load(save(end.graph, tmp_path / "deep.onnx"))
    assert far(again, end.graph) == 0.0


@pytest.mark.sampled(6)
@pytest.mark.slow
@pytest.mark.parametrize("widths", [(6, 9), (9, 6)], ids=["a wider donor", "a narrower donor"])
@pytest.mark.parametrize("build", RESIDUAL.values(), ids=RESIDUAL)
def test_residual_blocks_take_the_width_of_the_stream_that_they_stand_beside(build, widths):
    base, donor = build(2, 0, widths[0]), build(3, 1, widths[1])
    assert far(merged(base, donor, 0.0).graph, base) <= 1e-5
    if build is not RESIDUAL["mixing"]:  # what is added to every unit alike keeps none of them silent
        assert far(merged(base, donor, 1.0).graph, donor) <= 1e-5
    result = merged(base, donor, 0.3, width="base")
    shapes = {w.shape for name, w in result.graph.weights.items() if name in base.weights}
    assert shapes == {w.shape for w in base.weights.values()}
    assert result.passed


@pytest.mark.sampled(9)
@pytest.mark.slow
@pytest.mark.parametrize("build", RESIDUAL.values(), ids=RESIDUAL)
def test_what_does_not_end_a_new_branch_is_the_donors_at_any_lambda_but_in_literal(build):
    base, donor = build(2, 0), build(3, 1)
    plan = merged(base, donor, 0.25, "keep", width="base").merged[0].plan
    given = {step.tensor for step in plan.steps if step.is_given}
    assert given
    for unmatched in ("keep", "zero"):
        ends = [merged(base, donor, lam, unmatched, width="base") for lam in (0.25, 1.0)]
        same = [np.array_equal(*(end.graph.weights[name].read() for end in ends)) for name in given]
        assert all(same) if unmatched == "keep" else not any(same)


@pytest.mark.slow
def test_blocks_have_partners_as_wholes_and_no_fewer_layers_have_one():
    for build in RESIDUAL.values():
        base, donor = build(2, 0), build(3, 1)
        first, step = match_layers(base, donor), merged(base, donor, 0.3).merged[0]
        assert len(step.match.pairs) == len(first.pairs) + len(step.added)
        assert {name.endswith(".added") for name in step.added} == {True}


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("build", [RESIDUAL["basic"], RESIDUAL["attention"]])
def test_donors_deepen_a_residual_base_one_after_the_other(build):
    base, donors = build(1, 0), [build(2, 1), build(4, 2, 8)]
    result = mal_graph.assemble(base, donors, lam=0.3, depth="expand", width="grow")
    assert result.passed
    assert all(step.added for step in result.merged)
    written = mal_graph.assemble(base, donors, lam=0.0, depth="expand", width="grow", unmatched="zero")
    assert far(written.graph, base) <= 1e-5


def test_the_controls_get_the_blocks_too():
    base, donor = stacked(1, 0, form="norm"), stacked(2, 1, form="norm")
    labels = np.arange(20 * 4).reshape(20, 4) % 3
    data = {"x": np.random.default_rng(0).standard_normal((20, 4, 5)).astype(np.float32), "labels": labels}
    result = merged(base, donor, 0.3, data=data)
    assert len({score.loss for score in result.scores}) == len(result.scores)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("gelu", r"Gelu 'Gelu_\d+' behind it does something the second time"),
        ("after", r"RMSNormalization '.*' behind it does something the second time"),
    ],
)
def test_what_follows_the_sum_and_does_something_the_second_time_forbids_a_block(form, reason):
    result = merged(stacked(1, 0, form=form), stacked(2, 1, form=form), 0.3)
    assert not result.merged[0].added
    reasons = result.merged[0].match.unmatched_donor.values()
    assert any(re.search(reason, why) for why in reasons)
    assert not any("no layer of kind linear" in why for why in reasons)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("opsets", [(22, 23), (23, 22), (17, 20), (20, 14)])
def test_a_block_of_another_operator_set_is_placed_where_its_operators_mean_the_same(opsets, tmp_path):
    base, donor = (preactivated(count, count, opset=opset) for count, opset in zip((1, 2), opsets, strict=True))
    result = merged(base, donor, 0.0)
    assert len(result.merged[0].added) == 3
    assert far(result.graph, base) <= 1e-5
    mal_graph.save(merged(base, donor, 1.0).graph, tmp_path / "deep.onnx")
    assert far(mal_graph.load(tmp_path / "deep.onnx"), donor) <= 1e-5


def test_a_block_of_operators_that_changed_between_the_operator_sets_is_refused():
    base, donor = preactivated(1, 0, opset=20), preactivated(2, 1, opset=13)  # BatchNormalization is another since 14
    reasons = merged(base, donor, 0.3).merged[0].match.unmatched_donor.values()
    assert any("is of opset 13, the base of 20: it may mean something else there" in why for why in reasons)


def test_a_block_that_changes_the_stream_by_a_layer_is_no_residual_block():
    base, donor = cnn((6,), 1, 0), cnn((6, 8), 1, 1)
    result = merged(base, donor, 0.3)
    assert result.merged[0].match.unmatched_donor
    assert far(merged(base, donor, 0.0).graph, base) <= 1e-5


def test_given_pairs_of_layers_stay_as_they_are():
    base, donor = stacked(1, 0), stacked(2, 1)
    names = [[layer.name for layer in match_layers(graph, graph).base] for graph in (base, donor)]
    pairs = [(names[0][0], names[1][0]), (names[0][1], names[1][1])]  # the first half of the base's block alone
    result = merged(base, donor, 0.3, matches=pairs)
    found = [(p.base.name, p.donor.name) for p in result.merged[0].match.pairs]
    assert found[:2] == pairs


@pytest.mark.sampled(4)
@pytest.mark.parametrize("build", RESIDUAL.values(), ids=RESIDUAL)
def test_a_branch_that_does_not_end_in_zeros_is_found_out(build, monkeypatch):
    """The mutation: the donor's tensors from the start, those at the end of the branch too."""
    monkeypatch.setattr("mal_graph.merging.residual_blocks.ending", lambda *given: set())
    result = merged(build(2, 0, 6), build(3, 1, 6), 0.0, "keep")
    assert result.check("lambda_0").failed


# --- what cannot be exact ----------------------------------------------------------------------------------------


def refused(base, donor):
    result = merged(base, donor, 0.3)
    assert not result.merged[0].added
    return [why.split("stand for it: ")[-1] for why in result.merged[0].match.unmatched_donor.values()]


@pytest.mark.parametrize("activation", ["Tanh", "Gelu", "LeakyRelu", "Sigmoid"])
def test_behind_another_activation_nothing_is_added_and_the_reason_is_listed(activation):
    (why,) = refused(deep(2, 0, activation=activation), deep(3, 1, activation=activation))
    assert why == f"layer Gemm_0 has no activation that does nothing the second time (found {activation})"


def written_out(layers, seed):
    """HardSwish in parts: a Clip that only a part of the signal passes."""
    net = Net(seed)
    x = net.input("x", ("N", 6))
    for _ in range(layers - 1):
        x = net.linear(x, 6, 6)
        gate = net.op("Add", x, net.constant(np.float32(3)))
        gate = net.op("Clip", gate, net.constant(np.float32(0)), net.constant(np.float32(6)))
        x = net.op("Mul", x, net.op("Div", gate, net.constant(np.float32(6))))
    return net.graph(net.linear(x, 6, 4))


def test_a_clip_that_only_gates_the_signal_is_not_repeated():
    (why,) = refused(written_out(2, 0), written_out(3, 1))
    assert "does nothing the second time (found Add, Clip" in why


def test_what_nothing_reads_is_no_reader():
    """An operator between a layer and its activation whose output is left over."""

    def net_of(layers, seed):
        net = Net(seed)
        x = net.input("x", ("N", 6))
        for _ in range(layers):
            x = net.linear(x, 6, 6)
            net.op("Neg", x)
            x = net.op("Relu", x)
        return net.graph(net.linear(x, 6, 3))

    result = merged(net_of(1, 0), net_of(3, 1), 0.0)
    assert len(result.merged[0].added) == 2
    assert far(result.graph, net_of(1, 0)) <= 1e-5


def test_a_window_that_makes_the_map_smaller_is_refused():
    net = Net(1)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 8, 8)), 3, 6))
    x = net.op("Relu", net.conv(x, 6, 6, stride=2))
    x = net.op("Relu", net.conv(x, 6, 6))
    donor = net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, 4))
    reasons = refused_all(chain((3,), 0), donor)
    assert "its window does not give a map of the size that it takes" in reasons


def refused_all(base, donor):
    found = merged(base, donor, 0.3).merged[0].match.unmatched_donor.values()
    return [why.split("stand for it: ")[-1] for why in found]


def test_an_activation_that_is_wrongly_said_to_repeat_is_found_out(monkeypatch):
    """The mutation: the check at lambda 0 fails, and nothing is written."""
    row = dataclasses.replace(table.ROWS["Tanh"], is_idempotent=True)
    monkeypatch.setattr(table, "ROWS", {**table.ROWS, "Tanh": row})
    monkeypatch.setattr("mal_graph.merging.deepening.row_of", lambda node: table.ROWS.get(node.op))
    result = merged(deep(2, 0, activation="Tanh"), deep(3, 1, activation="Tanh"), 0.3)
    assert result.check("lambda_0").failed
    assert not result.passed


# --- the whole job -----------------------------------------------------------------------------------------------


def test_the_file_keeps_what_the_base_says_of_itself(tmp_path):
    net = Net(0)
    x = net.op("Relu", net.linear(net.input("x", ("N", 6)), 6, 7))
    proto = net.proto(net.linear(x, 7, 4))
    proto.graph.doc_string, proto.producer_name = "a base", "exporter"
    onnx.helper.set_model_props(proto, {"labels": "a,b"})
    result = merged(load(proto), deep(3, 1), 0.3)
    written = onnx.load(save(result.graph, tmp_path / "deep.onnx"))
    assert (written.graph.doc_string, written.producer_name) == ("a base", "exporter")
    assert {p.key: p.value for p in written.metadata_props} == {"labels": "a,b"}
    assert [(o.domain, o.version) for o in written.opset_import] == [(o.domain, o.version) for o in proto.opset_import]
    assert [node.op_type for node in written.graph.node] == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    names = [node.name for node in written.graph.node]
    assert len(set(names)) == len(names)
    onnx.checker.check_model(written, full_check=True)


def test_the_same_file_is_written_every_time(tmp_path):
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        save(merged(deep(2, 0), deep(5, 1, width=9), 0.3).graph, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_controls_are_expanded_like_the_merge():
    base, donor = deep(2, 0), deep(4, 1, width=9)
    data = {"x": np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32), "labels": np.arange(20) % 4}
    result = merged(base, donor, 0.3, data=data)
    assert len({score.loss for score in result.scores}) == len(result.scores)


def test_donors_deepen_the_base_one_after_the_other():
    base, donors = deep(2, 0), [deep(3, 1), deep(5, 2)]
    result = mal_graph.assemble(base, donors, lam=0.3, depth="expand")
    assert [len(step.added) for step in result.merged] == [1, 2]
    assert result.passed
    assert far(mal_graph.assemble(base, donors, lam=0.0, depth="expand").graph, base) <= 1e-5


def test_a_selector_sees_the_added_layers():
    base, donor = deep(2, 0), deep(3, 1)
    result = merged(base, donor, 0.3, layers="*identity*")
    assert result.merged[0].match.pairs[1].base.name in result.merged[0].added
    assert len(result.merged[0].plan.merged_pairs) == 1


def test_an_unknown_depth_is_refused():
    with pytest.raises(mal_graph.MalGraphError, match="`depth` is 'deep': choose one of match, expand"):
        mal_graph.assemble(mlp(), mlp(), depth="deep")


def test_random_weights_of_the_expanded_base_do_not_matter_at_lambda_0():
    for seed in range(3):
        base = reseeded(deep(2, 0), seed)
        assert far(merged(base, deep(4, 1), 0.0, unmatched="keep").graph, base) <= 1e-6
