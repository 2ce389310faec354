"""What the view writes out - functions, weights in attributes, dictionaries of scores - is given back on saving."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from builders import deviation
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import mal_graph
from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.symmetry import axis_groups
from mal_graph_adapters.onnx_format import lowering
from mal_graph_adapters.onnx_format.edit import edited_model
from mal_graph_adapters.onnx_format.sessions import open_session

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
ML = "ai.onnx.ml"
ROUNDING = 1e-6  # of the largest value: the view and the file's operator sum in float32, in other orders
node = helper.make_node


def model(nodes, stored, outputs, functions=(), features=4, opset=17, input_type=FLOAT):
    """A model of one input x (N, features)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", input_type, ["N", features])],
        [
            helper.make_tensor_value_info(name, kind, [None] * (2 if kind == FLOAT else 1))
            for name, kind in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", opset), (ML, 3), ("my", 1))]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


def outputs_of(proto, inputs):
    """What onnxruntime makes of a file."""
    return open_session(proto.SerializeToString()).run(None, inputs)


def apart(found, expected):
    """The largest difference between outputs; infinite where texts, whole numbers or shapes differ."""
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        x, y = (np.asarray([list(row.values()) for row in z]) if isinstance(z, list) else z for z in (x, y))
        if x.shape != y.shape or (y.dtype.kind != "f" and not np.array_equal(x, y)):
            return np.inf
        worst = max(worst, float(np.abs(x - y).max(initial=0))) if y.dtype.kind == "f" else worst
    return worst


def merged(base, donor, lam, path):
    """The file of a merge, with the result."""
    result = mal_graph.assemble(base, donor, lam=lam)
    result.save(path, overwrite=True)
    onnx.checker.check_model(str(path))
    return onnx.load(path), result


def attribute(proto, name):
    (found,) = [a for n in proto.graph.node for a in n.attribute if a.name == name]
    return np.array(helper.get_attribute_value(found), np.float32)


def rows(seed, features=4):
    return np.random.default_rng(seed).normal(size=(16, features)).astype(np.float32)


# --- weights in attributes --------------------------------------------------------------------------------------


def classifier(seed=0, units=3, features=4, labels=(4, 5, 9), transform="NONE", input_type=FLOAT, scale=1.0):
    rng = np.random.default_rng(seed)
    key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
    w, b = scale * rng.normal(size=units * features), scale * rng.normal(size=units)
    made = node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        "clf",
        domain=ML,
        coefficients=w.tolist(),
        intercepts=b.tolist(),
        post_transform=transform,
        **{key: list(labels)},
    )
    outputs = {"label": STRING if key.endswith("strings") else INT64, "scores": FLOAT}
    return model([made], {}, outputs, features=features, input_type=input_type)


def regressor(seed=0, units=2, features=4, transform="NONE", bias=True):
    rng = np.random.default_rng(seed)
    held = {"coefficients": rng.normal(size=units * features).tolist(), "targets": units, "post_transform": transform}
    if bias:
        held["intercepts"] = rng.normal(size=units).tolist()
    return model([node("LinearRegressor", ["x"], ["y"], "reg", domain=ML, **held)], {}, {"y": FLOAT}, features=features)


TRANSFORMS = st.sampled_from(["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])


@given(st.integers(1, 4), st.integers(1, 5), TRANSFORMS, st.booleans(), st.integers(0, 99))
def test_the_view_of_a_classifier_computes_what_the_file_does(units, features, transform, is_text, seed):
    labels = [7, 3, 5, 11][: max(2, units)]
    labels = [f"class {label}" for label in labels] if is_text else labels
    kind = [FLOAT, TensorProto.DOUBLE, INT64][seed % 3]
    proto = classifier(seed, units, features, labels, transform, kind)
    inputs = {"x": (3 * rows(seed, features)).astype(helper.tensor_dtype_to_np_dtype(kind))}
    graph = registry.as_graph(proto)
    assert {weight.shape for weight in graph.weights.values()} == {(units, features), (units,)}
    found = registry.runner().open(graph).run(inputs)
    expected = dict(zip(["label", "scores"], outputs_of(proto, inputs), strict=True))
    assert np.array_equal(found["label"], expected["label"])
    assert deviation([found["scores"]], [expected["scores"]]) <= ROUNDING


@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from(["NONE", "LOGISTIC"]), st.booleans(), st.integers(0, 99))
def test_the_view_of_a_regressor_computes_what_the_file_does(units, features, transform, bias, seed):
    proto = regressor(seed, units, features, transform, bias)
    found = registry.runner().open(registry.as_graph(proto)).run({"x": rows(seed, features)})
    (expected,) = outputs_of(proto, {"x": rows(seed, features)})
    assert deviation([found["y"]], [expected]) <= ROUNDING


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
def test_attributes_are_averaged_like_stored_weights_and_nothing_else_changes(make, lam, tmp_path):
    base, donor = make(0), make(1)
    proto, result = merged(base, donor, lam, tmp_path / "m.onnx")
    assert result.check("lambda_0") is None or result.passed
    for name in ("coefficients", "intercepts"):
        a, b = attribute(base, name), attribute(donor, name)
        expected = {0.0: a, 1.0: b}.get(lam, np.float32(1 - lam) * a + np.float32(lam) * b)
        np.testing.assert_allclose(attribute(proto, name), expected, rtol=0 if lam in (0.0, 1.0) else 1e-6)
    for one in (proto, base):
        for name in ("coefficients", "intercepts"):
            (held,) = [a for n in one.graph.node for a in n.attribute if a.name == name]
            held.ClearField("floats")
    assert [n.SerializeToString(deterministic=True) for n in proto.graph.node] == [
        n.SerializeToString(deterministic=True) for n in base.graph.node
    ]
    assert not proto.graph.initializer


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("labels", [(4, 5, 9), ("ape", "bee", "cat")])
def test_at_lambda_1_a_classifier_gives_the_donors_labels_and_scores(transform, labels, tmp_path):
    base, donor = (classifier(seed, labels=labels, transform=transform) for seed in (0, 1))
    proto, _ = merged(base, donor, 1.0, tmp_path / "m.onnx")
    assert apart(outputs_of(proto, {"x": rows(5)}), outputs_of(donor, {"x": rows(5)})) == 0
    assert apart(outputs_of(proto, {"x": rows(5)}), outputs_of(base, {"x": rows(5)})) > 0.1


def test_a_regressor_merges_as_the_gemm_it_is(tmp_path):
    def as_gemm(proto):
        stored = {"w": attribute(proto, "coefficients").reshape(2, 4), "b": attribute(proto, "intercepts")}
        return model([node("Gemm", ["x", "w", "b"], ["y"], transB=1)], stored, {"y": FLOAT})

    base, donor = regressor(0), regressor(1)
    one, _ = merged(base, donor, 0.3, tmp_path / "m.onnx")
    other, _ = merged(as_gemm(base), as_gemm(donor), 0.3, tmp_path / "n.onnx")
    assert np.array_equal(attribute(one, "coefficients"), numpy_helper.to_array(other.graph.initializer[0]).ravel())
    mixed, _ = merged(base, as_gemm(donor), 1.0, tmp_path / "m.onnx")
    assert apart(outputs_of(mixed, {"x": rows(5)}), outputs_of(donor, {"x": rows(5)})) < 1e-6


def test_hidden_units_in_front_of_a_classifier_are_aligned(tmp_path):
    def net(order):
        rng = np.random.default_rng(0)
        w, b, v = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 8), (8,), (3, 8)))
        held = {
            "coefficients": v[:, order].ravel().tolist(),
            "intercepts": [0.1, 0.2, 0.3],
            "classlabels_ints": [0, 1, 2],
        }
        nodes = [
            node("Gemm", ["x", "w", "b"], ["a"]),
            node("Relu", ["a"], ["h"]),
            node("LinearClassifier", ["h"], ["label", "scores"], domain=ML, **held),
        ]
        return model(nodes, {"w": w[:, order], "b": b[order]}, {"label": INT64, "scores": FLOAT})

    base, donor = net(np.arange(8)), net(np.random.default_rng(1).permutation(8))
    proto, result = merged(base, donor, 0.3, tmp_path / "m.onnx")
    assert "verified" in {group.state for group in result.merged[0].groups.groups}
    assert apart(outputs_of(proto, {"x": rows(5)}), outputs_of(base, {"x": rows(5)})) < 1e-6


@pytest.mark.parametrize(
    ("change", "why"),
    [({"intercepts": []}, "no bias"), ({"coefficients": [1.0, 2.0]}, "no whole rows"), ({"coefficients": []}, "none")],
)
def test_weights_that_do_not_fit_together_are_left_in_their_attributes(change, why):
    proto = classifier()
    for key, values in change.items():
        (held,) = [a for a in proto.graph.node[0].attribute if a.name == key]
        del held.floats[:]
        held.floats.extend(values)
    assert not registry.as_graph(proto).weights, why


def test_a_file_of_the_domain_alone_gets_the_operators_of_the_view():
    proto = classifier()
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid(ML, 1))
    graph = registry.as_graph(proto)
    assert graph.opsets == {ML: 1, "": lowering.LATEST_GEMM}
    assert [(item.domain, item.version) for item in onnx_of(graph).opset_import] == [(ML, 1)]


def onnx_of(graph):
    """The document that is written for a graph."""
    import onnx_ir as ir

    return ir.to_proto(edited_model(graph))


def test_what_is_written_out_already_is_not_again():
    base = classifier(features=3)
    for held in base.graph.node[0].attribute:
        if held.name in ("coefficients", "intercepts"):
            held.floats[:] = np.eye(3).ravel() if held.name == "coefficients" else np.zeros(3)
    graph = registry.as_graph(base)
    assert (len(graph.nodes), len(graph.weights)) == (1, 0)


def test_a_regressor_of_more_targets_is_written_out(tmp_path):
    """Its attributes say how many there are, and what is behind it reads them all."""
    graph = registry.as_graph(regressor(units=2))
    w, b = (weight.read() for weight in graph.weights.values())
    names = list(graph.weights)
    wider = graph.with_weights({names[0]: np.concatenate([w, w]), names[1]: np.concatenate([b, b])})
    mal_graph.save(wider, tmp_path / "m.onnx")
    saved = onnx.load(tmp_path / "m.onnx")
    saved.graph.output[0].type.tensor_type.ClearField("shape")
    (found,) = outputs_of(saved, {"x": rows(3)})
    (narrow,) = outputs_of(regressor(units=2), {"x": rows(3)})
    np.testing.assert_allclose(found, np.concatenate([narrow, narrow], axis=1), rtol=1e-5, atol=1e-6)


# --- functions --------------------------------------------------------------------------------------------------


def function(name, inputs, outputs, nodes, attributes=()):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_function("my", name, inputs, outputs, nodes, opsets, list(attributes))


def factor(values, name="k"):
    return node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(values, np.float32), name))


def call(name, inputs, outputs, **attributes):
    return node(name, inputs, outputs, domain="my", **attributes)


LEARNED = (1.25, 2.0, 0.75, 4.5, 3.125, 6.0)  # nothing like a grid, which would be no parameter


def net_of_functions(seed=0, order=None, scale=1.0):
    """Two layers by one function, which calls another and scales by a vector that it stores."""
    rng = np.random.default_rng(seed)
    order = np.arange(6) if order is None else order
    w0, b0, w1, b1, w2 = (rng.normal(size=s).astype(np.float32) for s in ((4, 6), (6,), (6, 6), (6,), (6, 3)))
    dense = [
        node("MatMul", ["x", "w"], ["t"]),
        node("Add", ["t", "b"], ["u"]),
        factor(scale * np.array(LEARNED)),
        node("Mul", ["u", "k"], ["v"]),
        call("Act", ["v"], ["y"]),
    ]
    functions = [
        function("Act", ["x"], ["y"], [node("LeakyRelu", ["x"], ["y"], alpha=0.2)]),
        function("Dense", ["x", "w", "b"], ["y"], dense),
    ]
    nodes = [call("Dense", ["x", "w0", "b0"], ["h"]), call("Dense", ["h", "w1", "b1"], ["g"])]
    nodes.append(node("MatMul", ["g", "w2"], ["y"]))
    stored = {"w0": w0, "b0": b0, "w1": w1, "b1": b1, "w2": w2}
    return model(nodes, stored, {"y": FLOAT}, functions)


def test_functions_are_written_out_in_the_view_and_share_what_they_store():
    graph = registry.as_graph(net_of_functions())
    assert [n.op for n in graph.nodes] == [*["MatMul", "Add", "Mul", "LeakyRelu"] * 2, "MatMul"]
    assert sorted(graph.weights) == ["b0", "b1", "k", "w0", "w1", "w2"]


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_functions_stay_in_the_file_with_new_values_in_their_constants(lam, tmp_path):
    base, donor = net_of_functions(0), net_of_functions(1, scale=2.0)
    proto, result = merged(base, donor, lam, tmp_path / "m.onnx")
    assert [f.name for f in proto.functions] == ["Act", "Dense"]
    assert [n.op_type for n in proto.graph.node] == ["Dense", "Dense", "MatMul"]
    (held,) = [n for f in proto.functions for n in f.node if n.op_type == "Constant"]
    stored = numpy_helper.to_array(held.attribute[0].t)
    expected = (1 + lam) * np.array(LEARNED)
    np.testing.assert_allclose(stored, result.graph.weights["k"].read())
    if lam == 1.0:
        assert sorted(stored.tolist()) == sorted(expected.tolist())
        assert apart(outputs_of(proto, {"x": rows(3)}), outputs_of(donor, {"x": rows(3)})) < 1e-4
    view = registry.runner().open(result.graph).run({"x": rows(3)})
    np.testing.assert_allclose(outputs_of(proto, {"x": rows(3)})[0], view["y"], rtol=1e-4, atol=1e-4)


def test_what_was_not_touched_is_saved_as_it_was():
    proto = net_of_functions()
    saved = onnx_of(registry.as_graph(proto))
    assert [n.SerializeToString() for n in saved.graph.node] == [n.SerializeToString() for n in proto.graph.node]
    assert [n.SerializeToString() for f in saved.functions for n in f.node] == [
        n.SerializeToString() for f in proto.functions for n in f.node
    ]


def test_a_change_inside_of_a_function_writes_the_file_out(tmp_path):
    graph = registry.as_graph(net_of_functions())
    (place, inner), *_ = [(i, n) for i, n in enumerate(graph.nodes) if n.op == "LeakyRelu"]
    changed = graph.with_node(place, replace(inner, attributes={**inner.attributes, "alpha": 0.9}))
    changed = changed.with_weights({"w2": 2 * graph.weights["w2"].read()})
    mal_graph.save(changed, tmp_path / "m.onnx")
    found = outputs_of(onnx.load(tmp_path / "m.onnx"), {"x": rows(3)})[0]
    np.testing.assert_allclose(found, registry.runner().open(changed).run({"x": rows(3)})["y"], rtol=1e-5)
    assert not np.allclose(found, 2 * outputs_of(net_of_functions(), {"x": rows(3)})[0])
    assert [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node].count("LeakyRelu") == 2


def test_nodes_behind_a_call_leave_it_in_the_file(tmp_path):
    """As deepening inserts them: what read the call's output reads theirs."""
    graph = registry.as_graph(net_of_functions())
    last = next(i for i, n in enumerate(graph.nodes) if "h" in n.outputs)
    extra = mal_graph.graph.Node("new", "Tanh", ("h",), ("h2",))
    changed = graph.with_nodes_behind(last, [extra], [])
    mal_graph.save(changed, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    assert [n.op_type for n in proto.graph.node] == ["Dense", "Tanh", "Dense", "MatMul"]
    found = outputs_of(proto, {"x": rows(3)})[0]
    np.testing.assert_allclose(found, registry.runner().open(changed).run({"x": rows(3)})["y"], rtol=1e-4, atol=1e-5)


def branching(seed=0):
    """A function that a body calls, and that takes a number from the attribute of its call or from its own default."""
    w = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    leaky = node("LeakyRelu", ["x"], ["y"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    act = function("Act", ["x"], ["y"], [leaky])
    act.attribute_proto.append(helper.make_attribute("slope", 0.5))
    bodies = {
        key: helper.make_graph([call("Act", ["h"], ["z"], **more)], key, [], [helper.make_empty_tensor_value_info("z")])
        for key, more in (("then_branch", {"slope": 0.1}), ("else_branch", {}))
    }
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("ReduceMax", ["h"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["c"]),
        node("If", ["c"], ["y"], **bodies),
    ]
    return model(nodes, {"w": w, "zero": np.float32(0)}, {"y": FLOAT}, [act])


def test_calls_in_bodies_and_attributes_of_calls(tmp_path):
    proto = branching()
    graph = registry.as_graph(proto)
    changed = graph.with_weights({"w": -graph.weights["w"].read()})
    for one in (graph, changed):
        mal_graph.save(one, tmp_path / "m.onnx", overwrite=True)
        saved = onnx.load(tmp_path / "m.onnx")
        for x in (rows(3), -np.abs(rows(3)[:1])):
            found = outputs_of(saved, {"x": x})[0]
            np.testing.assert_allclose(found, registry.runner().open(one).run({"x": x})["y"], rtol=1e-5)
        assert saved.functions[0].name == "Act"
        assert saved.graph.node[-1] == proto.graph.node[-1]


def test_a_call_may_make_an_output_of_the_model(tmp_path):
    same = function("Same", ["x"], ["z"], [node("Relu", ["x"], ["z"])])
    w = np.ones((4, 3), np.float32)
    nodes = [call("Same", ["x"], ["a"]), node("MatMul", ["a", "w"], ["b"]), call("Same", ["b"], ["y"])]
    proto = model(nodes, {"w": w}, {"y": FLOAT}, [same])
    graph = registry.as_graph(proto)
    assert [value.name for value in graph.outputs] == ["y"]
    mal_graph.save(graph.with_weights({"w": 2 * w}), tmp_path / "m.onnx")
    saved = onnx.load(tmp_path / "m.onnx")
    assert list(saved.graph.node) == list(proto.graph.node)
    expected = outputs_of(proto, {"x": rows(3)})
    assert apart([y / 2 for y in outputs_of(saved, {"x": rows(3)})], expected) < 1e-6


def test_a_function_of_another_opset_stays_a_call():
    proto = net_of_functions()
    for each in proto.functions:
        each.opset_import[0].version = 13
    graph = registry.as_graph(proto)
    assert [n.op for n in graph.nodes] == ["my.Dense", "my.Dense", "MatMul"]
    assert np.array_equal(registry.runner().open(graph).run({"x": rows(3)})["y"], outputs_of(proto, {"x": rows(3)})[0])


def test_a_function_of_another_opset_does_not_keep_the_others_from_being_written_out():
    proto = net_of_functions()
    next(each for each in proto.functions if each.name == "Act").opset_import[0].version = 13
    assert {n.op for n in registry.as_graph(proto).nodes} == {"MatMul", "Add", "Mul", "my.Act"}


def test_wiring_that_changes_inside_of_a_call_writes_the_file_out(tmp_path):
    graph = registry.as_graph(net_of_functions())
    place = next(i for i, n in enumerate(graph.nodes) if n.op == "Mul")
    extra = mal_graph.graph.Node("new", "Tanh", (graph.nodes[place].outputs[0],), ("inner",))
    changed = graph.with_nodes_behind(place, [extra], [])
    mal_graph.save(changed, tmp_path / "m.onnx")
    found = outputs_of(onnx.load(tmp_path / "m.onnx"), {"x": rows(3)})[0]
    np.testing.assert_allclose(found, registry.runner().open(changed).run({"x": rows(3)})["y"], rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, outputs_of(net_of_functions(), {"x": rows(3)})[0])


def test_another_weight_inside_of_a_call_writes_the_file_out(tmp_path):
    graph = registry.as_graph(net_of_functions())
    place, inner = next((i, n) for i, n in enumerate(graph.nodes) if n.op == "Mul")
    changed = graph.with_node(place, replace(inner, inputs=(inner.inputs[0], "b1")))
    mal_graph.save(changed, tmp_path / "m.onnx")
    found = outputs_of(onnx.load(tmp_path / "m.onnx"), {"x": rows(3)})[0]
    np.testing.assert_allclose(found, registry.runner().open(changed).run({"x": rows(3)})["y"], rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, outputs_of(net_of_functions(), {"x": rows(3)})[0])


def test_a_constant_that_a_call_gives_is_a_weight_of_its_own(tmp_path):
    """Values that come from the attribute of a call cannot be put into the function, which others call."""
    given = node("Constant", [], ["k"])
    given.attribute.add(name="value_floats", ref_attr_name="by", type=onnx.AttributeProto.FLOATS)
    scale = function("Scale", ["x"], ["y"], [given, node("Mul", ["x", "k"], ["y"])], ["by"])
    nodes = [call("Scale", ["x"], ["a"], by=[1.0, 2.0, 3.0, 4.0]), call("Scale", ["a"], ["y"], by=[1.0, 1.0, 5.0, 1.0])]
    graph = registry.as_graph(model(nodes, {}, {"y": FLOAT}, [scale]))
    assert sorted(weight.read().tolist() for weight in graph.weights.values()) == [[1, 1, 5, 1], [1, 2, 3, 4]]
    first = next(name for name, weight in graph.weights.items() if weight.read()[1] == 2)
    mal_graph.save(graph.with_weights({first: np.full(4, 7, np.float32)}), tmp_path / "m.onnx")
    found = outputs_of(onnx.load(tmp_path / "m.onnx"), {"x": rows(3)})[0]
    np.testing.assert_allclose(found, rows(3) * np.float32([7, 7, 35, 7]), rtol=1e-6)


# --- dictionaries of scores -------------------------------------------------------------------------------------


def with_zipmap(seed=0, labels=("ape", "bee", "cat")):
    proto = classifier(seed, labels=labels, transform="SOFTMAX")
    key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    proto.graph.node.append(node("ZipMap", ["scores"], ["table"], domain=ML, **{key: list(labels)}))
    kind = helper.make_map_type_proto(
        STRING if isinstance(labels[0], str) else INT64, helper.make_tensor_type_proto(FLOAT, [])
    )
    del proto.graph.output[1]
    proto.graph.output.append(helper.make_value_info("table", helper.make_sequence_type_proto(kind)))
    return proto


@pytest.mark.parametrize("labels", [("ape", "bee", "cat"), (3, 1, 2)])
def test_dictionaries_are_scores_in_the_view_and_dictionaries_in_the_file(labels, tmp_path):
    base, donor = with_zipmap(0, labels), with_zipmap(1, labels)
    before = base.SerializeToString(deterministic=True)
    graph = registry.as_graph(base)
    assert [(value.name, value.dtype) for value in graph.outputs][1:] == [("scores", "float32")]
    proto, _ = merged(base, donor, 1.0, tmp_path / "m.onnx")
    found, expected = outputs_of(proto, {"x": rows(3)}), outputs_of(donor, {"x": rows(3)})
    assert found[1] == expected[1]
    assert np.array_equal(found[0], expected[0])
    assert proto.graph.output[1] == base.graph.output[1]
    assert base.SerializeToString(deterministic=True) == before


# --- texts ------------------------------------------------------------------------------------------------------

TEXTS = [b"ape", "m\u00fcsli".encode(), b"", b"cat"]


def with_texts(seed=0):
    """Texts in an initializer, in a constant's tensor and in attributes, all read by the outputs."""
    w = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
    stored = helper.make_tensor("names", STRING, [4], TEXTS)
    nodes = [
        node("MatMul", ["x", "w"], ["y"]),
        node("ArgMax", ["y"], ["k"], axis=1, keepdims=0),
        node("Gather", ["names", "k"], ["label"]),
        node("Constant", [], ["more"], value=helper.make_tensor("t", STRING, [2, 2], TEXTS)),
        node("Constant", [], ["listed"], value_strings=[b"a", b"bc"]),
        node("Reshape", ["more", "flat"], ["all"]),
        node("Concat", ["all", "listed"], ["texts"], axis=0),
    ]
    proto = model(nodes, {"w": w, "flat": np.array([4])}, {"y": FLOAT, "label": STRING, "texts": STRING})
    proto.graph.initializer.append(stored)
    return proto


def test_texts_load_run_merge_and_are_saved_unchanged(tmp_path):
    base, donor = with_texts(0), with_texts(1)
    graph = registry.as_graph(base)
    assert graph.weights["names"].read().tolist() == TEXTS
    mal_graph.save(graph, tmp_path / "same.onnx")
    same = onnx.load(tmp_path / "same.onnx").graph
    assert list(same.node) == list(base.graph.node)
    assert list(same.initializer) == list(base.graph.initializer)
    found = registry.runner().open(graph).run({"x": rows(3)})
    for name, expected in zip(["y", "label", "texts"], outputs_of(base, {"x": rows(3)}), strict=True):
        assert np.array_equal(found[name], expected)
    assert axis_groups(graph).groups
    mal_graph.save(graph.with_weights({"w": donor_weight(donor)}), tmp_path / "m.onnx")
    assert apart(outputs_of(onnx.load(tmp_path / "m.onnx"), {"x": rows(3)}), outputs_of(donor, {"x": rows(3)})) == 0


def donor_weight(proto):
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "w"))


# --- names of classes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [classifier, with_zipmap])
def test_classes_in_another_order_are_not_averaged(make):
    with pytest.raises(
        MalGraphError, match="its classes are ape, bee, cat, the donor's bee, ape, cat: in another order"
    ):
        mal_graph.assemble(make(0, labels=("ape", "bee", "cat")), make(1, labels=("bee", "ape", "cat")), method="mal")


def test_other_classes_are_not_averaged():
    with pytest.raises(MalGraphError, match="its classes are 4, 5, 9, the donor's 4, 5, 8: other ones"):
        mal_graph.assemble(classifier(0), classifier(1, labels=(4, 5, 8)), method="mal")


def test_a_layer_of_other_classes_is_kept_and_the_rest_merged():
    def net(seed, names):
        rng = np.random.default_rng(seed)
        stored = {"w": rng.normal(size=(4, 8)), "v": rng.normal(size=(8, 3))}
        nodes = [
            node("MatMul", ["x", "w"], ["a"]),
            node("Relu", ["a"], ["h"]),
            node("MatMul", ["h", "v"], ["s"], "head"),
            node("ArgMax", ["s"], ["k"], axis=1, keepdims=0),
            node("ArrayFeatureExtractor", ["names", "k"], ["label"], domain=ML),
        ]
        stored = {**{key: values.astype(np.float32) for key, values in stored.items()}, "names": np.array(names)}
        return model(nodes, stored, {"label": INT64, "s": FLOAT})

    result = mal_graph.assemble(net(0, [1, 2, 3]), net(1, [1, 2, 4]), assume_ordered=True)
    kept = result.merged[0].plan.alignment.correspondence.refused
    assert kept == {"head": "its classes are 1, 2, 3, the donor's 1, 2, 4: other ones"}
    assert (
        mal_graph.assemble(net(0, [1, 2, 3]), net(1, [1, 2, 3]), assume_ordered=True)
        .merged[0]
        .plan.alignment.correspondence.refused
        == {}
    )
