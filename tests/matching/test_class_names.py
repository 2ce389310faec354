"""Layers score the same classes only if these have the same names in the same order."""

import numpy as np
import pytest
from builders import Net
from onnx import TensorProto, helper

import mal_graph


def by_table(labels, seed=0):
    """Two layers with their scores, and the class that is looked up in a stored list."""
    net = Net(seed)
    x = net.op("Relu", net.op("Gemm", net.input("x", ("N", 5)), net.weight(7, 5), net.weight(7), transB=1))
    scores = net.op("Gemm", x, net.weight(3, 7), net.weight(3), transB=1)
    label = net.op("Gather", net.constant(labels), net.op("ArgMax", scores, axis=1, keepdims=0), axis=0)
    return net.graph(scores, label)


def by_classifier(labels, seed=0):
    """A layer with a linear classifier of scikit-learn's kind behind it."""
    rng = np.random.default_rng(seed)
    key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
    kind = TensorProto.STRING if key.endswith("strings") else TensorProto.INT64
    held = {"coefficients": rng.standard_normal(21).tolist(), "intercepts": rng.standard_normal(3).tolist()}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["h"], "relu"),
        helper.make_node(
            "LinearClassifier", ["h"], ["label", "scores"], "head", domain="ai.onnx.ml", **held, **{key: labels}
        ),
    ]
    stored = {"w": rng.standard_normal((5, 7)), "b": rng.standard_normal(7)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])],
        [
            helper.make_tensor_value_info("label", kind, ["N"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3]),
        ],
        [helper.make_tensor(n, TensorProto.FLOAT, v.shape, v.ravel()) for n, v in stored.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def kept_of(base, donor):
    return mal_graph.assemble(base, donor, lam=0.5, verify=False).merged[0].plan.skipped


CASES = [
    (by_table, [10, 20, 30], [20, 10, 30], "in another order"),
    (by_table, [10, 20, 30], [10, 20, 40], "other ones"),
    (by_classifier, ["cat", "dog", "eel"], ["dog", "cat", "eel"], "in another order"),
    (by_classifier, ["cat", "dog", "eel"], ["cat", "dog", "fox"], "other ones"),
    (by_classifier, [1, 2, 3], [3, 2, 1], "in another order"),
]


@pytest.mark.parametrize(("build", "own", "others", "how"), CASES)
def test_the_head_is_kept_where_its_classes_are_others(build, own, others, how):
    (reason,) = kept_of(build(own), build(others, seed=1)).values()
    assert reason.endswith(how)
    assert ", ".join(map(str, own)) in reason
    assert ", ".join(map(str, others)) in reason


@pytest.mark.parametrize(("build", "labels"), [(by_table, [10, 20, 30]), (by_classifier, ["cat", "dog", "eel"])])
def test_the_head_is_merged_where_its_classes_are_the_same(build, labels):
    assert not kept_of(build(labels), build(labels, seed=1))
