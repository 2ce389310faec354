"""Laws of growth: a base that is widened for a donor computes its own function at lambda 0 and the donor's at 1."""

import dataclasses
import re

import numpy as np
import pytest
from builders import Net, cnn, deviation, inputs_of, mlp, narrower, reseeded, run, save
from hypothesis import given, settings
from hypothesis import strategies as st
from resized_nets import NETS as RESIZED_NETS

import mal_graph
from mal_graph.graph import Declared
from mal_graph.matching.moving_groups import moving_groups
from mal_graph.merging import widening
from mal_graph.merging.unmatched import all_rules
from mal_graph.operators import normalisation
from mal_graph.operators import table as ops
from mal_graph.symmetry import axis_groups, find_coupled, find_traces, plan_resizing, resize_graph

WIDTHS = ("base", "grow")
UNMATCHED = [rule.name for rule in all_rules()]


def grouped():
    net = Net(0)
    x = net.op("Relu", net.conv(net.input("x", ("N", 3, 4, 4)), 3, 6))
    return net.graph(net.conv(net.op("Relu", net.conv(x, 6, 6, group=3)), 6, 2, 1))


NETS = {
    **{name: build for name, build in RESIZED_NETS.items() if name not in ("split, unequal", "sequence", "concat")},
    "residual": lambda: cnn((6,)),
    "grouped": grouped,
}


def wider_donors(graph, seed, extra=2):
    """Donors of the graph's structure with more units, once for every set of groups that grows together; of groups
    that lie inside one another only those that are aligned."""
    groups = axis_groups(graph)
    found = find_traces(graph, groups)
    aligned = {groups.groups[index].name for index in moving_groups(groups)}
    for names in find_coupled(groups, found):
        here = [group for group in groups.groups if group.name in names]
        if any(group.statistic for group in here) or not names & aligned:
            continue
        units = {group.name: range(group.units + extra) for group in here}
        yield units, reseeded(resize_graph(graph, plan_resizing(graph, groups, found, units), {}), seed)


def wider_everywhere(graph, seed):
    """One donor with more units in every group, 1 to 3 in turn."""
    groups = axis_groups(graph)
    found = find_traces(graph, groups)
    units = {}
    for number, names in enumerate(find_coupled(groups, found)):
        units.update({g.name: range(g.units + 1 + number % 3) for g in groups.groups if g.name in names})
    return reseeded(resize_graph(graph, plan_resizing(graph, groups, found, units), {}), seed)


def merged(base, donor, lam, unmatched="keep", **options):
    """With units inside blocks and heads in stored order: they are not assigned."""
    options = {"assume_ordered": True, "verify": False, **options}
    return mal_graph.assemble(base, donor, lam=lam, unmatched=unmatched, width="grow", **options)


def far(a, b):
    inputs = inputs_of(b)
    return deviation(run(a, inputs, "onnxruntime"), run(b, inputs, "onnxruntime"))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_a_base_that_grows_keeps_its_function_at_lambda_0_and_takes_the_donors_at_1(build, tmp_path):
    base = reseeded(build(), 1)
    grew = 0
    for number, (units, donor) in enumerate(wider_donors(build(), 2)):
        unmatched = UNMATCHED[number % 3]
        result = merged(base, donor, 0.0, unmatched)
        grew += 1
        assert sum(result.merged[0].plan.growth.added.values()) > 0, (units, result.merged[0].plan.growth)
        assert result.check("lambda_0").passed
        assert far(result.graph, base) <= 1e-5
        assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5
        again = mal_graph.load(save(result.graph, tmp_path / "grown.onnx"))
        assert far(again, result.graph) == 0.0
    assert grew


@pytest.mark.sampled(12)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize(
    "make",
    [
        mlp,
        lambda: mlp(style="transposed"),
        lambda: cnn((6, 8), concat=True, head="flatten"),
        lambda: cnn((6, 8), depthwise=True),
        lambda: cnn((6, 8), bn=False, inner=4),
        lambda: cnn((6,), head="flatten", dtype="float16"),
    ],
    ids=["mlp", "transposed", "concat, flattened", "depthwise", "without norm", "float16"],
)
def test_all_groups_grow_at_once(make, unmatched):
    base, donor = reseeded(make(), 1), wider_everywhere(make(), 2)
    tolerance = 1e-2 if "float16" in {w.dtype.name for w in base.weights.values()} else 1e-5
    assert far(merged(base, donor, 0.0, unmatched).graph, base) <= tolerance
    result = merged(base, donor, 1.0, unmatched)
    assert far(result.graph, donor) <= tolerance
    assert {w.shape for w in result.graph.weights.values()} == {w.shape for w in donor.weights.values()}


@pytest.mark.parametrize("unmatched", ["fade", "zero"])
def test_a_base_narrower_in_one_group_and_wider_in_another_takes_the_donors_function(unmatched):
    base, donor = mlp((6, 8, 9, 4), 0), mlp((6, 11, 5, 4), 1)
    result = merged(base, donor, 1.0, unmatched)
    assert far(result.graph, donor) <= 1e-5
    assert [w.shape for w in result.graph.weights.values()] == [(11, 6), (11,), (9, 11), (9,), (4, 9), (4,)]
    assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5


widths = st.lists(st.integers(2, 9), min_size=2, max_size=2)


@pytest.mark.slow
@settings(max_examples=15)
@given(widths, widths, st.sampled_from(["fade", "zero"]), st.sampled_from(["gemm", "gemm_nt", "transposed"]))
def test_at_any_widths_the_ends_of_lambda_are_the_base_and_the_donor(mine, theirs, unmatched, style):
    base, donor = mlp((6, *mine, 4), 0, style), mlp((6, *theirs, 4), 1)
    assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5
    result = merged(base, donor, 1.0, unmatched)
    assert far(result.graph, donor) <= 1e-5
    grown_by = [max(0, b - a) for a, b in zip(mine, theirs, strict=True)]
    assert sorted(result.merged[0].plan.growth.added.values()) == sorted(n for n in grown_by if n)


def test_a_narrower_donor_grows_nothing():
    base, wide = cnn((8, 10), 1, 0), cnn((8, 10), 1, 1)
    donor, _ = narrower(wide, axis_groups(wide), 2)
    plain = mal_graph.assemble(base, donor, unmatched="keep", verify=False)
    result = merged(base, donor, 0.3)
    assert result.check("lambda_0") is None
    for name, weight in plain.graph.weights.items():
        assert np.array_equal(result.graph.weights[name].read(), weight.read())


@pytest.mark.parametrize(
    ("unmatched", "row"),
    [("keep", 1.0), ("fade", 1.0), ("zero", 0.25)],
)
def test_added_units_follow_the_table(unmatched, row):
    """2 hidden units meet 3; then 3 meet 2 in the next layer, so that rows and columns of all kinds cross."""
    first = np.array([[9, 1], [1, 9]], np.float32)
    base = mlp((2, 2, 3, 2), 0).with_weights(
        {"w0": first, "w2": np.array([[9, 1], [1, 9], [1, 1]], np.float32), "w4": np.ones((2, 3), np.float32)}
    )
    donor = mlp((2, 3, 2, 2), 0).with_weights(
        {
            "w0": np.array([[45, 5], [5, 45], [5, 5]], np.float32),
            "w2": np.array([[45, 5, 5], [5, 45, 5]], np.float32),
            "w4": np.full((2, 2), 5, np.float32),
        }
    )
    result = merged(base, donor, 0.25, unmatched)
    w0, w1, w2 = (result.graph.weights[name].read() for name in ("w0", "w1", "w2"))
    np.testing.assert_array_equal(w0[:2], [[18, 2], [2, 18]])
    np.testing.assert_array_equal(w0[2], [5 * row] * 2)  # added / matched
    assert w1[2] == np.float32(row) * donor.weights["w1"].read()[2]
    np.testing.assert_array_equal(w2[:2, 2], [1.25, 1.25])  # matched / added: lam B
    assert w2[2, 2] == 0  # a unit without a partner reads no added unit


def test_a_tensor_that_the_donor_lacks_lets_its_further_units_pass():
    """The base's BatchNorm has no partner in a folded donor: it passes what comes in the new channels."""
    base, donor = cnn((6,), 1, 0), cnn((9,), 1, 1, bn=False)
    for unmatched in UNMATCHED:
        assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5
        assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5


def test_a_layer_that_the_donor_lacks_adds_nothing_to_a_stream_that_grows():
    base, donor = cnn((6,), 2, 0), cnn((9,), 1, 1)
    result = merged(base, donor, 1.0, "fade")
    assert result.merged[0].plan.growth.added
    assert far(merged(base, donor, 0.0).graph, base) <= 1e-5


# --- what keeps its width ----------------------------------------------------------------------------------------


def with_statistic(width, seed, op, **attributes):
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, width))
    statistic = net.op(op, x, net.constant(np.array([1], np.int64)), **attributes)
    return net.graph(net.linear(net.op("Mul", x, statistic), width, 3))


def kept(base, donor):
    return list(merged(base, donor, 0.3).merged[0].plan.growth.kept.values())


def test_a_group_under_a_statistic_keeps_its_width_with_the_reason():
    (reason,) = kept(with_statistic(6, 0, "ReduceMax"), with_statistic(9, 1, "ReduceMax"))
    assert reason == "ReduceMax 'ReduceMax_2' is taken over its units, which added zeros would change"


def written_out_norm(width, seed, *, centred, read=True):
    """RMSNorm, or LayerNorm, operator by operator on a residual stream, twice; the head reads the stream as it is, or
    under a third."""
    net = Net(seed)

    def norm(x):
        y = net.op("Sub", x, net.op("ReduceMean", x, net.constant([-1]), keepdims=1)) if centred else x
        square = net.op("ReduceMean", net.op("Mul", y, y), net.constant([-1]), keepdims=1)
        y = net.op("Div", y, net.op("Sqrt", net.op("Add", square, net.constant(np.float32(1e-2)))))
        return net.op("Mul", y, net.weight(width))

    x = net.linear(net.input("x", ("N", 5)), 5, width)
    for _ in range(2):
        x = net.op("Add", x, net.linear(net.op("Relu", net.linear(norm(x), width, 7)), 7, width))
    return net.graph(net.linear(x if read else norm(x), width, 3))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_a_written_out_rms_norm_grows_with_the_average_compensated(unmatched, tmp_path):
    base, donor = written_out_norm(6, 0, centred=False), written_out_norm(9, 1, centred=False)
    result = merged(base, donor, 0.0, unmatched)
    assert list(result.merged[0].plan.growth.added.values()) == [3]
    assert list(result.merged[0].plan.growth.factors.values()) == [(1.5, 1.0), (1.5, 1.0)]
    assert far(result.graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5
    half = merged(base, donor, 0.5, unmatched).graph
    assert far(mal_graph.load(save(half, tmp_path / "grown.onnx")), half) == 0.0
    assert [float(half.weights[n].read()) for n in result.merged[0].plan.growth.factors] == [1.25, 1.25]


@pytest.mark.sampled(3)
@pytest.mark.slow
@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_a_written_out_layer_norm_grows_where_nothing_else_reads_the_stream(unmatched):
    base, donor = written_out_norm(6, 0, centred=True, read=False), written_out_norm(9, 1, centred=True, read=False)
    assert list(merged(base, donor, 0.0, unmatched).merged[0].plan.growth.added.values()) == [3]
    for mine, theirs in ((base, donor), (donor, base)):
        assert far(merged(mine, theirs, 0.0, unmatched).graph, mine) <= 1e-5
        if unmatched != "keep" or mine is base:
            assert far(merged(mine, theirs, 1.0, unmatched).graph, theirs) <= 1e-5


def test_a_written_out_layer_norm_keeps_its_width_where_something_else_reads_the_stream():
    (reason,) = kept(written_out_norm(6, 0, centred=True), written_out_norm(9, 1, centred=True))
    assert re.search(r"Gemm 'Gemm_\d+' reads the units with the mean that ReduceMean 'ReduceMean_1' takes off", reason)


NORMS = ("LayerNormalization", "RMSNormalization")


def normed(width, seed, op, *, epsilon=1e-2, hidden=7, read=False, after=False, tied=False):
    """Symbols and places looked up, two blocks with a norm in front on a residual stream, a last norm.

    `read`: the head reads the stream as it is; `after`: the norms stand behind the sums; `tied`: the table of symbols
    is the head.
    """
    net = Net(seed, opset=23)

    def norm(x):
        shift = [net.weight(width)] if op == "LayerNormalization" else []
        return net.op(op, x, net.weight(width, scale=1.0), *shift, axis=-1, epsilon=epsilon)

    table = net.weight(5, width)
    x = net.op("Gather", table, net.input("ids", ("N", 3), "int64"))
    x = net.op("Add", x, net.weight(3, width))
    for _ in range(2):
        y = x if after else norm(x)
        y = net.op("MatMul", net.op("Relu", net.linear(y, width, hidden, "matmul")), net.weight(hidden, width))
        x = net.op("Add", x, net.op("Add", y, net.weight(width, scale=0.3)))
        x = norm(x) if after else x
    x = x if read else norm(x)
    return net.graph(net.op("MatMul", x, net.op("Transpose", table)) if tied else net.linear(x, width, 4, "matmul"))


@pytest.mark.sampled(6)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize("op", NORMS)
def test_units_under_a_norm_grow_and_the_ends_of_lambda_are_base_and_donor(op, unmatched, tmp_path):
    base, donor = normed(6, 0, op), normed(9, 1, op, epsilon=3e-2)
    result = merged(base, donor, 0.0, unmatched)
    assert list(result.merged[0].plan.growth.added.values()) == [3]
    assert far(result.graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5
    half = merged(base, donor, 0.5, unmatched).graph
    norms = [node for node in half.nodes if node.op == op]
    np.testing.assert_allclose([node.attribute("epsilon") for node in norms], [(1e-2 * 6 / 9 + 3e-2) / 2] * 3)
    scales = [[graph.weights[n.inputs[1]].read() for n in graph.nodes if n.op == op] for graph in (base, donor, half)]
    order = next(order for order in result.merged[0].plan.alignment.orders if len(order) == 9)
    for a, b, merged_scale in zip(*scales, strict=True):
        both = np.concatenate([a * np.sqrt(6 / 9), np.zeros(3)]) + b[order]
        np.testing.assert_allclose(merged_scale, both / 2, rtol=1e-6)  # a few roundings of float32
    assert far(mal_graph.load(save(half, tmp_path / "grown.onnx")), half) == 0.0


@pytest.mark.sampled(6)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
@pytest.mark.parametrize("op", NORMS)
def test_a_donor_narrower_under_a_norm_keeps_its_function_at_lambda_1(op, unmatched, width):
    base, donor = normed(9, 0, op), normed(6, 1, op, epsilon=3e-2)
    result = mal_graph.assemble(base, donor, lam=1.0, unmatched=unmatched, width=width, verify=False)
    growth = result.merged[0].plan.growth
    assert not growth.added
    assert not growth.kept
    assert result.check("lambda_0").passed
    assert far(result.graph, donor) <= 1e-5
    assert mal_graph.assemble(base, donor, lam=0.0, unmatched=unmatched, width=width, verify=False).graph is base


@pytest.mark.sampled(2)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
def test_a_donor_narrower_under_a_written_out_norm_keeps_its_function_at_lambda_1(unmatched, width):
    base, donor = written_out_norm(9, 0, centred=False), written_out_norm(6, 1, centred=False)
    result = mal_graph.assemble(base, donor, lam=1.0, unmatched=unmatched, width=width, verify=False)
    assert list(result.merged[0].plan.growth.factors.values()) == [(1.0, 1.5), (1.0, 1.5)]
    assert far(result.graph, donor) <= 1e-5
    assert mal_graph.assemble(base, donor, lam=0.0, unmatched=unmatched, width=width, verify=False).graph is base


def mixing(width, seed, op, *, bias):
    """Two blocks that mix places, each unit by itself and with the same weights, then units, as in an MLP mixer."""
    net = Net(seed, opset=23)

    def norm(x):
        shift = [net.weight(width)] if op == "LayerNormalization" else []
        return net.op(op, x, net.weight(width, scale=1.0), *shift, axis=-1, epsilon=1e-2)

    x = net.linear(net.input("x", ("N", 4, 5)), 5, width, "matmul")
    for _ in range(2):
        y = net.op("Transpose", norm(x), perm=[0, 2, 1])
        y = net.op("MatMul", net.op("Relu", net.op("MatMul", y, net.weight(4, 6))), net.weight(6, 4))
        y = net.op("Add", y, net.weight(4)) if bias else y
        x = net.op("Add", x, net.op("Transpose", y, perm=[0, 2, 1]))
        x = net.op("Add", x, net.linear(net.op("Relu", net.linear(norm(x), width, 7, "matmul")), 7, width, "matmul"))
    return net.graph(net.linear(norm(x), width, 3, "matmul"))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrower_donor_whose_places_are_mixed_keeps_its_function_where_its_missing_units_stay_zero(width):
    base, donor = mixing(9, 0, "RMSNormalization", bias=False), mixing(6, 1, "RMSNormalization", bias=False)
    result = mal_graph.assemble(base, donor, lam=1.0, width=width, verify=False)
    assert not result.merged[0].plan.growth.kept
    assert far(result.graph, donor) <= 1e-5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrower_donor_that_adds_something_to_all_units_alike_is_listed_and_not_compensated_for(width, monkeypatch):
    base, donor = mixing(9, 0, "RMSNormalization", bias=True), mixing(6, 1, "RMSNormalization", bias=True)

    def made():
        return mal_graph.assemble(base, donor, lam=0.5, width=width, verify=False).merged[0].plan

    (why,) = made().growth.kept.values()
    assert re.fullmatch(r"a narrower donor cannot be compensated: the outputs at lambda 1 would be \de-\d\d .*", why)
    assert not made().growth.settings
    monkeypatch.setattr(widening, "differs_in_widths", lambda plan: False)  # the mutation: no comparison
    assert made().growth.settings
    assert not made().growth.kept


def vision(width, size, seed, heads=4):
    """A vision transformer of one block: patches behind a class token, which is all that the head reads, and places
    added; the number of places is computed."""
    net = Net(seed, opset=23)

    def norm(x):
        return net.op("LayerNormalization", x, net.weight(width, scale=1.0), net.weight(width), axis=-1)

    def linear(x, before, after):
        return net.linear(x, before, after, "matmul")

    image = net.input("x", ("N", 3, 4, 4))
    x = net.op("Conv", image, net.weight(width, 3, 2, 2), net.weight(width), strides=[2, 2])
    x = net.op("Transpose", net.op("Reshape", x, net.constant([0, width, 4])), perm=[0, 2, 1])
    batch = net.op("Slice", net.op("Shape", image), net.constant([0]), net.constant([1]))
    token = net.op("Expand", net.weight(1, 1, width), net.op("Concat", batch, net.constant([1, width]), axis=0))
    x = net.op("Add", net.op("Concat", token, x, axis=1), net.weight(5, width))
    parts = [
        net.op("Transpose", net.op("Reshape", part, net.constant([0, 5, heads, size])), perm=perm)
        for part, perm in (
            (linear(norm(x), width, heads * size), [0, 2, 1, 3]),
            (linear(norm(x), width, heads * size), [0, 2, 3, 1]),
            (linear(norm(x), width, heads * size), [0, 2, 1, 3]),
        )
    ]
    score = net.op("Mul", net.op("MatMul", *parts[:2]), net.constant(np.float32(size**-0.5)))
    y = net.op("Transpose", net.op("MatMul", net.op("Softmax", score, axis=-1), parts[2]), perm=[0, 2, 1, 3])
    x = net.op("Add", x, linear(net.op("Reshape", y, net.constant([0, 5, heads * size])), heads * size, width))
    x = net.op("Add", x, linear(net.op("Relu", linear(norm(x), width, 7)), 7, width))
    return net.graph(linear(net.op("Gather", norm(x), net.constant(0), axis=1), width, 3))


@pytest.mark.sampled(4)
@pytest.mark.slow
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
@pytest.mark.parametrize(
    ("mine", "theirs"), [((8, 2), (8, 2)), ((8, 2), (12, 3)), ((12, 3), (8, 2)), ((8, 3), (12, 2))]
)
def test_a_vision_transformer_takes_the_function_of_one_of_any_size(mine, theirs, unmatched):
    """Streams and heads grow, or are compensated, at once; a single class token has but one order."""
    base, donor = vision(*mine, 0), vision(*theirs, 1)
    result = merged(base, donor, 1.0, unmatched)
    assert not result.merged[0].plan.skipped
    assert not result.merged[0].plan.growth.kept
    assert far(result.graph, donor) <= 1e-5
    assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5


def test_a_class_token_at_another_place_is_not_taken_for_the_same():
    def net_of(seed, *, is_last):
        net = Net(seed)
        x, token = net.linear(net.input("x", (2, 4, 5)), 5, 6, "matmul"), net.weight(2, 1, 6)
        x = net.op("Concat", *((x, token) if is_last else (token, x)), axis=1)
        x = net.op("Add", x, net.weight(5, 6))
        return net.graph(net.linear(net.op("Gather", x, net.constant(4 * is_last), axis=1), 6, 3))

    same = mal_graph.assemble(net_of(0, is_last=True), net_of(1, is_last=True), verify=False, method="mal")
    assert not same.merged[0].plan.dropped
    other = mal_graph.assemble(net_of(0, is_last=True), net_of(1, is_last=False), verify=False, method="mal")
    (((why,),),) = [other.merged[0].plan.dropped.values()]
    assert why == "shift w3: its unit axis is frozen in the base: Gather 'Gather_4' uses a single unit of the axis"


def test_a_norm_of_places_mixed_for_all_units_alike_cannot_be_centred():
    base, donor = mixing(9, 0, "LayerNormalization", bias=False), mixing(6, 1, "LayerNormalization", bias=False)
    for mine, theirs in ((base, donor), (donor, base)):
        (why,) = kept(mine, theirs)
        assert why.endswith("cannot be taken off MatMul 'MatMul_6', which treats all of them alike")


def test_a_norm_of_units_that_are_each_made_of_their_own_cannot_be_centred():
    """A depthwise convolution: the mean over its units is not that over its weights."""

    def convnext(width, seed):
        net = Net(seed, opset=23)
        y = net.conv(net.conv(net.input("x", ("N", 3, 6, 6)), 3, width), width, width, group=width)
        y = net.op("Transpose", y, perm=[0, 2, 3, 1])
        y = net.op("LayerNormalization", y, net.weight(width, scale=1.0), net.weight(width), axis=-1)
        return net.graph(net.linear(y, width, 3, "matmul"))

    for mine, theirs in ((9, 6), (6, 9)):
        (why,) = kept(convnext(mine, 0), convnext(theirs, 1))
        assert why.endswith("cannot be taken off Conv 'Conv_1'")


def test_what_is_added_to_all_units_alike_goes_with_the_mean():
    """A shift of one value for all units: the norm takes it off with the mean, however many units there are."""

    def shifted(width, seed):
        net = Net(seed, opset=23)
        x = net.op("Add", net.linear(net.input("x", ("N", 5)), 5, width), net.weight(1))
        x = net.op("LayerNormalization", x, net.weight(width, scale=1.0), net.weight(width), axis=-1)
        return net.graph(net.linear(x, width, 3))

    for mine, theirs in ((6, 9), (9, 6)):
        base, donor = shifted(mine, 0), shifted(theirs, 1)
        assert not merged(base, donor, 0.3).merged[0].plan.growth.kept
        assert far(merged(base, donor, 0.0, "fade").graph, base) <= 1e-5
        assert far(merged(base, donor, 1.0, "fade").graph, donor) <= 1e-5


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrower_donor_is_not_compensated_for_where_not_all_that_makes_the_units_is_merged(width):
    base, donor = normed(9, 0, "RMSNormalization"), normed(6, 1, "RMSNormalization")
    result = mal_graph.assemble(base, donor, lam=1.0, width=width, layers="MatMul_1*", verify=False)
    growth = result.merged[0].plan.growth
    assert [
        why.endswith("Gather_0 is not merged, and the units that the donor lacks are zeros there")
        for why in growth.kept.values()
    ] == [True]
    assert [node.attribute("epsilon") for node in result.graph.nodes if node.op == "RMSNormalization"] == [
        node.attribute("epsilon") for node in base.nodes if node.op == "RMSNormalization"
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrower_donor_under_a_maximum_is_listed(width):
    base, donor = with_statistic(9, 0, "ReduceMax"), with_statistic(6, 1, "ReduceMax")
    result = mal_graph.assemble(base, donor, lam=0.3, width=width, verify=False)
    (why,) = result.merged[0].plan.growth.kept.values()
    assert why == "ReduceMax 'ReduceMax_2' is taken over its units, and the units that the donor lacks are zeros there"


@pytest.mark.parametrize("op", NORMS)
def test_each_norm_goes_with_the_lambda_of_its_own_layer(op):
    base, donor = normed(9, 0, op), normed(6, 1, op, epsilon=3e-2)
    whole = mal_graph.assemble(base, donor, lam=0.3, lam_for={"*": 1.0}, verify=False)
    assert far(whole.graph, donor) <= 1e-5
    some = mal_graph.assemble(base, donor, lam=0.25, lam_for={f"{op}_9": 0.75}, verify=False)
    mine, theirs = 1e-2, 3e-2 * 6 / 9
    np.testing.assert_allclose(
        [node.attribute("epsilon") for node in some.graph.nodes if node.op == op],
        [(1 - lam) * mine + lam * theirs for lam in (0.25, 0.75, 0.25)],
    )


@pytest.mark.parametrize("factors", [{"lam_for": {"*": 1.0}}, {"lam": (1.0, 1.0)}])
def test_a_base_grows_with_lambdas_of_single_layers_too(factors):
    base, donor = written_out_norm(6, 0, centred=False), written_out_norm(9, 1, centred=False)
    result = mal_graph.assemble(base, donor, width="grow", verify=False, **factors)
    assert list(result.merged[0].plan.growth.added.values()) == [3]
    assert result.check("lambda_0").passed
    assert far(result.graph, donor) <= 1e-5


@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("op", NORMS)
def test_one_donor_after_the_other_grows_what_is_under_a_norm(op):
    base, donors = normed(6, 0, op), [normed(8, 1, op), normed(7, 2, op, hidden=9), normed(11, 3, op)]
    result = mal_graph.assemble(base, donors, lam=0.3, width="grow")
    assert result.passed
    assert [sum(step.plan.growth.added.values()) for step in result.merged] == [2, 4, 3]
    assert far(merged(base, donors, 0.0, "zero").graph, base) <= 1e-5


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(2, 9), st.integers(2, 9), st.sampled_from(NORMS), st.integers(0, 99))
def test_at_any_width_under_a_norm_the_ends_of_lambda_are_the_base_and_the_donor(mine, theirs, op, seed):
    base, donor = normed(mine, seed, op), normed(theirs, seed + 1, op, hidden=5)
    assert far(merged(base, donor, 0.0, "fade").graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0, "fade").graph, donor) <= 1e-5


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"read": True}, r"MatMul 'MatMul_\d+' reads the units with the mean that LayerNormalization '.*' takes off"),
        ({"after": True}, r"cannot be taken off LayerNormalization"),
        ({"tied": True}, r"w0 is read by MatMul 'MatMul_\d+' too"),
    ],
)
def test_a_stream_that_is_not_read_by_layer_norms_alone_keeps_its_width_with_the_reason(form, reason):
    op = "LayerNormalization"
    (why,) = kept(normed(6, 0, op, **form), normed(9, 1, op, **form))
    assert re.search(reason, why)
    (why,) = kept(normed(9, 0, op, **form), normed(6, 1, op, **form))
    assert why.startswith("a narrower donor cannot be compensated")
    assert re.search(reason, why)


def averaged(width, seed):
    """The average of a product of two layers, where no parameter is applied."""
    net = Net(seed)
    x = net.input("x", ("N", 5))
    y = net.op("Mul", net.linear(x, 5, width), net.linear(x, 5, width))
    return net.graph(net.op("Add", net.linear(y, width, 3), net.op("ReduceMean", y, net.constant([1]), keepdims=1)))


def test_an_average_that_no_layer_holds_is_listed_in_both_directions():
    why = "a factor behind an average would make a layer of its own"
    for widths in ((6, 9), (9, 6)):
        result = merged(averaged(widths[0], 0), averaged(widths[1], 1), 0.3)
        assert [reason.endswith(why) for reason in result.merged[0].plan.growth.kept.values()] == [True]
        assert result.passed


def test_what_cannot_be_compensated_does_not_hold_up_what_grows():
    base, donor = normed(9, 0, NORMS[0], after=True), normed(6, 1, NORMS[0], after=True, hidden=10)
    growth = merged(base, donor, 0.3).merged[0].plan.growth
    assert list(growth.added.values()) == [3, 3]
    assert len(growth.kept) == 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("form", [{"read": True}, {"after": True}])
def test_an_rms_norm_needs_no_other_reader_to_agree(form):
    base, donor = normed(6, 0, NORMS[1], **form), normed(9, 1, NORMS[1], **form)
    for unmatched in UNMATCHED:
        assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5
        assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5


def skipping(width, seed):
    """Sum and norm in one operator, the sum given on; without an epsilon of its own."""
    net = Net(seed)
    x = total = net.linear(net.input("x", ("N", 3, 5)), 5, width, "matmul")
    for _ in range(2):
        y = net.linear(net.op("Relu", net.linear(x, width, 7, "matmul")), 7, width, "matmul")
        x, _, _, total = net.op(
            "SkipSimplifiedLayerNormalization",
            *(y, total, net.weight(width, scale=1.0)),
            outputs=4,
            domain="com.microsoft",
        )
    return net.graph(net.linear(x, width, 3, "matmul"))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_a_sum_and_its_rms_norm_in_one_grow_in_both_directions(unmatched):
    base, donor = skipping(6, 0), skipping(9, 1)
    assert list(merged(base, donor, 0.0, unmatched).merged[0].plan.growth.added.values()) == [3]
    for mine, theirs in ((base, donor), (donor, base)):
        assert far(merged(mine, theirs, 0.0, unmatched).graph, mine) <= 1e-5
        if unmatched != "keep" or mine is base:
            assert far(merged(mine, theirs, 1.0, unmatched).graph, theirs) <= 1e-5


def group_normed(groups, seed, form, size=2):
    """A GroupNormalization as one operator (one scale per channel, or, before opset 21, per group), or as exporters
    write it out."""
    net = Net(seed, opset=18 if form == "old" else 21)
    channels = groups * size
    x = net.conv(net.input("x", ("N", 3, 4, 4)), 3, channels)
    if form == "written out":
        y = net.op("Reshape", x, net.constant([0, groups, -1]))
        y = net.op("InstanceNormalization", y, net.weight(groups, scale=1.0), net.weight(groups))
        y = net.op("Reshape", y, net.op("Shape", x))
        x = net.op("Add", net.op("Mul", y, net.weight(channels, 1, 1, scale=1.0)), net.weight(channels, 1, 1))
    elif form == "instance":
        x = net.op("InstanceNormalization", x, net.weight(channels, scale=1.0), net.weight(channels))
    else:
        each = groups if form == "old" else channels
        x = net.op("GroupNormalization", x, net.weight(each, scale=1.0), net.weight(each), num_groups=groups)
    return net.graph(net.conv(net.op("Relu", x), channels, 2))


@pytest.mark.sampled(6)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize("form", ["one operator", "old", "written out", "instance"])
def test_whole_groups_of_a_group_norm_are_added(form, unmatched):
    base, donor = group_normed(4, 0, form), group_normed(6, 1, form)
    result = merged(base, donor, 0.0, unmatched)
    assert list(result.merged[0].plan.growth.added.values()) == [4 if form == "instance" else 2]
    assert far(result.graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5
    if unmatched != "keep":
        assert far(merged(donor, base, 1.0, unmatched).graph, base) <= 1e-5


def test_a_group_norm_of_one_group_keeps_its_width_for_its_mean_is_that_of_the_positions_too():
    (reason,) = kept(group_normed(1, 0, "one operator", 6), group_normed(1, 1, "one operator", 9))
    assert reason.startswith("GroupNormalization 'GroupNormalization_1' is taken over its units")


def test_more_groups_without_the_attribute_are_found_out_by_the_outputs(monkeypatch):
    """The mutation: as many groups as before, of more channels each."""
    monkeypatch.setitem(
        ops.ROWS, "GroupNormalization", dataclasses.replace(ops.ROWS["GroupNormalization"], size_constants={})
    )
    (reason,) = kept(group_normed(4, 0, "one operator"), group_normed(8, 1, "one operator"))
    assert "the outputs at lambda 0 move" in reason


@pytest.mark.parametrize("place", ["scale", "epsilon"])
@pytest.mark.parametrize("op", NORMS)
def test_a_norm_compensated_by_half_is_found_out_by_the_outputs(monkeypatch, op, place):
    """The mutation: a power in the table that is not there."""
    row = ops.ROWS[op]
    powers = {where: power for where, power in row.compensation.powers.items() if where != place}
    wrong = dataclasses.replace(row, compensation=dataclasses.replace(row.compensation, powers=powers))
    monkeypatch.setitem(ops.ROWS, op, wrong)
    (reason,) = kept(normed(6, 0, op), normed(9, 1, op))
    assert "the outputs at lambda 0 move" in reason


def test_a_stream_that_is_not_centred_is_found_out_by_the_outputs(monkeypatch):
    """The mutation: a LayerNorm that is said to take no mean off."""
    row = ops.ROWS["LayerNormalization"]
    wrong = dataclasses.replace(row, compensation=normalisation.RESCALED)
    monkeypatch.setitem(ops.ROWS, "LayerNormalization", wrong)
    (reason,) = kept(normed(6, 0, "LayerNormalization"), normed(9, 1, "LayerNormalization"))
    assert "the outputs at lambda 0 move" in reason


def test_a_scale_that_something_else_reads_keeps_the_width():
    def net_of(width, seed):
        net = Net(seed, opset=23)
        scale = net.weight(width, scale=1.0)
        x = net.op("RMSNormalization", net.linear(net.input("x", ("N", 5)), 5, width), scale)
        return net.graph(net.linear(net.op("Mul", x, scale), width, 3))

    assert kept(net_of(6, 0), net_of(9, 1)) == ["w0 is read by Mul 'Mul_2' too"]


# --- inside units ------------------------------------------------------------------------------------------------


def blocks(count, size, seed):
    """Two residual bottlenecks with a grouped convolution of `count` blocks of `size` channels."""
    net = Net(seed)
    x, inner = net.op("Relu", net.conv(net.input("x", ("N", 3, 5, 5)), 3, 8)), count * size
    for _ in range(2):
        y = net.op("Relu", net.norm(net.conv(x, 8, inner, 1, bias=False), inner))
        y = net.op("Relu", net.norm(net.conv(y, inner, inner, group=count), inner))
        x = net.op("Relu", net.op("Add", x, net.norm(net.conv(y, inner, 8, 1, bias=False), 8)))
    return net.graph(net.linear(net.op("Flatten", net.op("GlobalAveragePool", x)), 8, 5))


def attention(heads, size, seed, scale="constant", normed="", width=8, is_shared=False):
    """Attention on a residual stream. Its scale is one over the root of the size of a head: as a constant, or computed
    from the shape; `normed`: the norm over each head that queries and keys are under; `is_shared`: the size of a head
    is stored once, in a target that is put together at run time."""
    net = Net(seed, opset=23)
    x, inner = net.linear(net.input("x", ("N", 3, 5)), 5, width, "matmul"), heads * size

    batch = net.op("Slice", net.op("Shape", x), net.constant([0]), net.constant([1]))
    sizes = net.op("Concat", batch, net.constant([3, heads]), net.constant([size]), axis=0)

    def by_head(x, normed):
        target = sizes if is_shared else net.constant([0, 3, heads, size])
        x = net.op("Reshape", net.linear(x, width, inner, "matmul"), target)
        x = net.op(normed, x, net.weight(size, scale=1.0), epsilon=1e-2) if normed else x
        return net.op("Transpose", x, perm=[0, 2, 1, 3])

    q, k, v = by_head(x, normed), by_head(x, normed), by_head(x, "")
    score = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    if scale == "constant":
        score = net.op("Mul", score, net.constant(np.float32(size**-0.5)))
    else:
        last = net.op("Gather", net.op("Shape", q), net.constant(3))
        score = net.op("Div", score, net.op("Sqrt", net.op("Cast", last, to=1)))
    y = net.op("Transpose", net.op("MatMul", net.op("Softmax", score, axis=-1), v), perm=[0, 2, 1, 3])
    x = net.op("Add", x, net.linear(net.op("Reshape", y, net.constant([0, 3, inner])), inner, width, "matmul"))
    return net.graph(net.linear(x, width, 3, "matmul"))


INSIDE = {
    "blocks": lambda size, seed: blocks(9, size, seed),
    "heads": lambda size, seed: attention(9, size, seed),
    "heads of one stored size": lambda size, seed: attention(9, size, seed, is_shared=True),
    "heads with RMSNorms": lambda size, seed: attention(9, size, seed, normed="RMSNormalization"),
    "heads with LayerNorms": lambda size, seed: attention(9, size, seed, normed="LayerNormalization"),
}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize("build", INSIDE.values(), ids=INSIDE)
def test_units_inside_blocks_and_heads_grow_in_all_of_them_alike(build, unmatched, tmp_path):
    base, donor = build(4, 0), build(8, 1)
    result = merged(base, donor, 0.0, unmatched)
    assert set(result.merged[0].plan.growth.added.values()) == {4}
    assert not result.merged[0].plan.growth.kept
    assert far(result.graph, base) <= 1e-5
    end = merged(base, donor, 1.0, unmatched)
    assert end.accounts.adds_up
    assert far(end.graph, donor) <= 1e-5
    assert {w.shape for w in end.graph.weights.values()} == {w.shape for w in donor.weights.values()}
    assert far(mal_graph.load(save(end.graph, tmp_path / "grown.onnx")), end.graph) == 0.0


@pytest.mark.sampled(6)
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
@pytest.mark.parametrize("build", INSIDE.values(), ids=INSIDE)
def test_a_donor_with_smaller_blocks_or_heads_keeps_its_function_at_lambda_1(build, unmatched):
    base, donor = build(7, 0), build(4, 1)
    assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5
    assert far(merged(base, donor, 0.0, unmatched).graph, base) == 0.0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_more_blocks_and_more_heads_are_added(unmatched):
    for build in (blocks, attention):
        base, donor = build(5, 4, 0), build(8, 4, 1)
        assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5
        assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
def test_more_but_smaller_blocks_take_the_donors_function(unmatched):
    base, donor = blocks(6, 4, 0), blocks(8, 3, 1)
    assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5


@pytest.mark.sampled(6)
@pytest.mark.parametrize("unmatched", UNMATCHED)
@pytest.mark.parametrize("build", [blocks, attention])
def test_blocks_and_heads_get_company_and_get_larger_at_once(build, unmatched):
    base, donor = build(6, 2, 0), build(8, 3, 1)
    result = merged(base, donor, 0.0, unmatched)
    assert set(result.merged[0].plan.growth.added.values()) == {1, 2}
    assert not result.merged[0].plan.growth.kept
    assert far(result.graph, base) <= 1e-5
    end = merged(base, donor, 1.0, unmatched).graph
    assert far(end, donor) <= 1e-5
    assert {w.shape for w in end.weights.values()} == {w.shape for w in donor.weights.values()}


@pytest.mark.slow
def test_without_growth_blocks_and_heads_of_other_sizes_meet_in_what_they_have_in_common():
    for build in INSIDE.values():
        base, donor = build(4, 0), build(6, 1)
        for mine, theirs in ((base, donor), (donor, base)):
            result = mal_graph.assemble(mine, theirs, lam=0.5, verify=False, assume_ordered=True)
            assert not result.merged[0].plan.skipped
            small = {w.shape for w in result.graph.weights.values()}
            assert small == {w.shape for w in mine.weights.values()}


def rotary(width, size, seed, heads=3, declared=Declared.LEARNED):
    """Attention with queries and keys turned by the place, with `size` / 2 frequencies in every head: learned ones, or
    a setting where nothing says so."""
    net = Net(seed, opset=23)
    x = net.op("RMSNormalization", net.input("x", ("N", 4, width)), net.constant(np.ones(width, np.float32)), axis=-1)
    x = net.linear(x, width, width, "matmul")
    turns = net.weight(1, size // 2, name="turns", scale=1.0)
    if declared is not Declared.LEARNED:
        net.weights[turns] = (10.0 ** -np.arange(size // 2, dtype=np.float32))[None]
    angle = net.op("Mul", turns, net.constant(np.arange(4, dtype=np.float32)[:, None]))
    angle = net.op("Concat", angle, angle, axis=-1)

    def by_head(x, perm):
        x = net.op("Reshape", net.linear(x, width, heads * size, "matmul"), net.constant([0, 4, heads, size]))
        return net.op("Transpose", x, perm=perm)

    def turned(x):
        first, second = (
            net.op("Slice", x, *map(net.constant, ([start], [end], [3])))
            for start, end in ((0, size // 2), (size // 2, size))
        )
        other = net.op("Concat", net.op("Neg", second), first, axis=-1)
        return net.op("Add", net.op("Mul", x, net.op("Cos", angle)), net.op("Mul", other, net.op("Sin", angle)))

    query, key = (turned(by_head(x, [0, 2, 1, 3])) for _ in range(2))
    score = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 1, 3, 2]))
    score = net.op("Mul", score, net.constant(np.float32(size**-0.5)))
    y = net.op("MatMul", net.op("Softmax", score, axis=-1), by_head(x, [0, 2, 1, 3]))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.constant([0, 4, heads * size]))
    graph = net.graph(net.linear(y, heads * size, 3, "matmul"))
    return graph.with_weights([dataclasses.replace(graph.weights["turns"], declared=declared)])


def test_frequencies_that_nobody_learned_keep_the_length_of_heads_with_the_reason():
    base, donor = (rotary(6, size, seed, declared=Declared.NOTHING) for size, seed in ((4, 0), (8, 1)))
    result = merged(base, donor, 1.0, "fade")
    assert np.array_equal(result.graph.weights["turns"].read(), base.weights["turns"].read())
    reasons = result.merged[0].plan.skipped.values()
    assert set(reasons) == {"each unit takes 4 positions of its output axis, in the donor 8"}
    assert result.accounts.adds_up
    assert far(merged(base, donor, 0.0, "fade").graph, base) == 0.0


@pytest.mark.sampled(6)
@pytest.mark.parametrize("unmatched", ["fade", "zero"])
@pytest.mark.parametrize(("mine", "theirs"), [(4, 4), (4, 8), (8, 4)])
def test_frequencies_of_queries_and_keys_that_no_weight_reads_come_and_go_silently(mine, theirs, unmatched):
    base, donor = rotary(6, mine, 0), rotary(6, theirs, 1)
    result = merged(base, donor, 1.0, unmatched)
    assert not result.merged[0].plan.growth.kept
    assert far(result.graph, donor) <= 1e-5
    assert far(merged(base, donor, 0.0, unmatched).graph, base) <= 1e-5


def test_queries_and_keys_that_stay_alive_without_a_partner_break_the_law(monkeypatch):
    """The mutation: units over which computed tensors are multiplied stay as they are where they have no partner."""
    base, donor = rotary(6, 8, 0), rotary(6, 4, 1)
    monkeypatch.setattr("mal_graph.symmetry.tracing.mark_product", lambda *args: None)
    assert far(merged(base, donor, 1.0, "fade").graph, donor) > 1e-3


def test_a_scale_that_follows_the_width_keeps_it_with_the_reason():
    reasons = kept(attention(9, 4, 0, "shape"), attention(9, 6, 1, "shape"))
    assert any(reason.startswith("with more units the outputs at lambda 0 move by") for reason in reasons)


def test_queries_and_keys_that_are_not_silent_are_found_out_by_the_outputs(monkeypatch):
    """The mutation: units over which computed tensors are multiplied are the donor's from the start, as if a weight of
    zeros read them."""
    monkeypatch.setattr("mal_graph.symmetry.tracing.mark_product", lambda *args: None)
    assert any("outputs at lambda 0 move" in why for why in kept(attention(9, 4, 0), attention(9, 6, 1)))


@pytest.mark.slow
def test_places_inside_blocks_that_are_exchanged_are_found_out(monkeypatch):
    """The mutation: units inside the donor's blocks are told in another order on every second axis."""
    from mal_graph.matching import nested_pairs

    real, calls = nested_pairs.rows_inside, []

    def turned(outer, columns):
        calls.append(columns)
        return real(outer, columns[::-1] if len(columns) == 6 and len(calls) % 2 else columns)

    base, donor = blocks(9, 4, 0), blocks(9, 6, 1)
    assert far(merged(base, donor, 1.0, "zero").graph, donor) <= 1e-5
    monkeypatch.setattr(nested_pairs, "rows_inside", turned)
    assert far(merged(base, donor, 1.0, "zero").graph, donor) > 1e-3


@pytest.mark.sampled(3)
@pytest.mark.parametrize("unmatched", UNMATCHED)
def test_a_sum_over_units_allows_more_of_them_if_they_start_silent(unmatched):
    base, donor = with_statistic(6, 0, "ReduceSum"), with_statistic(9, 1, "ReduceSum")
    result = merged(base, donor, 0.0, unmatched)
    assert list(result.merged[0].plan.growth.added.values()) == [3]
    assert far(result.graph, base) <= 1e-5
    assert far(merged(base, donor, 1.0, unmatched).graph, donor) <= 1e-5


def test_a_group_that_two_groups_of_the_donor_answer_to_keeps_its_width():
    assert kept(mlp((6, 8, 4), 0), mlp((6, 12, 10, 4), 1)) == ["2 groups of the donor correspond to it"]


def test_units_that_no_merged_layer_reads_are_not_added():
    assert kept_selected("0:1") == ["no merged layer reads its units"]
    assert kept_selected("1:2") == ["no merged layer makes its units"]


def kept_selected(layers):
    result = merged(mlp((6, 8, 4), 0), mlp((6, 12, 4), 1), 0.3, layers=layers)
    return list(result.merged[0].plan.growth.kept.values())


def reversed_slice(width, seed):
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, width))
    x = net.op("Slice", x, net.constant([-1]), net.constant([-99]), net.constant([1]), net.constant([-1]))
    x = net.op("Relu", net.linear(x, width, width))
    return net.graph(net.linear(x, width, 2))


def test_a_width_that_cannot_be_expressed_is_kept_and_the_others_grow():
    result = merged(reversed_slice(6, 0), reversed_slice(8, 1), 0.3)
    growth = result.merged[0].plan.growth
    assert list(growth.added.values()) == [2]
    assert ["reverse" in why or "no slice" in why for why in growth.kept.values()] == [True]


def test_a_width_that_the_table_forgets_is_found_out_by_the_outputs(monkeypatch):
    """The mutation: without its row the Slice takes other units in the wider graph, and nothing else says so."""
    base, donor = two_halves(6, 0), two_halves(8, 1)
    assert merged(base, donor, 0.3).merged[0].plan.growth.added
    row = dataclasses.replace(ops.ROWS["Slice"], size_constants={})
    monkeypatch.setattr(
        "mal_graph.symmetry.resizing.row_of", lambda node: row if node.op == "Slice" else ops.ROWS.get(node.op)
    )
    (reason, *_) = kept(base, donor)
    assert "the outputs at lambda 0 move" in reason


def two_halves(width, seed):
    """One half of the units is used twice, the whole is used too, all sizes as they come."""
    net = Net(seed)
    x = net.op("Relu", net.linear(net.input("x", ("N", 5)), 5, width))
    half = net.op("Slice", x, net.constant([width // 2]), net.constant([width]), net.constant([1]))
    total = net.op("ReduceSum", half, net.constant([1]), keepdims=1)
    return net.graph(net.op("Add", net.linear(x, width, 3), total))


def test_live_units_that_are_read_show_in_the_check(monkeypatch):
    """The mutation: columns of added units that are the donor's from the start."""
    base, donor = mlp((6, 8, 4), 0), mlp((6, 12, 4), 1)
    monkeypatch.setattr(widening, "merge", lambda plan: merged_at_once(plan))
    assert ["outputs at lambda 0 move" in why for why in kept(base, donor)] == [True]


def merged_at_once(plan):
    from mal_graph.merging.blending import merge

    return merge(plan.at(1.0))


def test_an_unknown_width_is_refused():
    with pytest.raises(mal_graph.MalGraphError, match="`width` is 'wide': choose one of base, grow"):
        mal_graph.assemble(mlp(), mlp(), width="wide")


# --- the whole job -----------------------------------------------------------------------------------------------


def test_several_donors_widen_the_base_one_after_the_other(tmp_path):
    base, donors = mlp((6, 8, 5), 0), [mlp((6, 11, 5), 1), mlp((6, 14, 5), 2)]
    result = mal_graph.assemble(base, donors, lam=0.25, width="grow")
    assert [sum(step.plan.growth.added.values()) for step in result.merged] == [3, 3]
    assert result.passed
    assert result.graph.weights["w0"].shape == (14, 6)
    again = mal_graph.load(save(result.graph, tmp_path / "grown.onnx"))
    assert far(again, result.graph) == 0.0


def test_the_controls_grow_like_the_merge():
    base, donor = mlp((6, 8, 5), 0), mlp((6, 11, 5), 1)
    data = {"x": np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32), "labels": np.arange(20) % 5}
    result = merged(base, donor, 0.3, data=data)
    assert len({score.loss for score in result.scores}) == len(result.scores)
