"""What a network decided is computed of the mean; where that cannot be, the output is refused, not averaged."""

import numpy as np
import onnx_ir as ir
import pytest
from builders import Net, deviation, inputs_of, load, run
from onnx import TensorProto, helper, numpy_helper

import mal_graph
from mal_graph.errors import MatchError
from mal_graph_adapters.onnx_format.build import built_model


def first_of(net, x, count):
    """So many columns."""
    return net.op("Slice", x, *(net.constant([number]) for number in (0, count, 1)))


def boxes(net, x):
    """The boxes of each of ten places that are kept."""
    found = net.op("Reshape", net.linear(x, 8, 40), net.constant([-1, 10, 4]))
    scores = net.op("Reshape", net.linear(x, 8, 10), net.constant([-1, 1, 10]))
    limits = net.constant([3]), *(net.constant(np.float32(number)) for number in (0.9, -10))
    kept = net.op("NonMaxSuppression", found, scores, *limits)
    return net.op("GatherND", found, net.op("Gather", kept, net.constant([0, 2]), axis=1))


KINDS = {"go": (TensorProto.BOOL, ()), "run": (TensorProto.INT64, ()), "told": (TensorProto.BOOL, None)}
FLOATS = TensorProto.FLOAT, None


def body(inputs, steps, outputs, **stored):
    """A graph that an operator runs, of steps written "output output = Operator(input, input)", and with attributes."""
    nodes = []
    for step, attributes in steps.items():
        made, call = step.split(" = ")
        op, read = call.removesuffix(")").split("(")
        nodes.append(helper.make_node(op, read.split(", ") if read else [], made.split(), **attributes))
    values = [
        [helper.make_tensor_value_info(name, *KINDS.get(name.rstrip("0123456789"), FLOATS)) for name in names.split()]
        for names in (inputs, outputs)
    ]
    return helper.make_graph(
        nodes, "body", *values, [numpy_helper.from_array(np.asarray(each), name) for name, each in stored.items()]
    )


def loop(net, carried, steps, returned, own="v0", outputs=1, goes="Identity(go)", **stored):
    """What three runs give, or fewer; `own` are the names that a run has for what it is given."""
    steps = {**steps, f"go1 = {goes}": {}}
    runs = net.constant(3), net.constant(np.array(True))
    inner = body(f"run go {own}", steps, f"go1 {returned}", **stored)
    return net.op("Loop", *runs, *carried, outputs=outputs, body=inner)


def branch(net, condition, then, other):
    """What one of two steps gives."""
    bodies = {
        f"{name}_branch": body("", {f"{name}_out = {step}": attributes}, f"{name}_out")
        for name, (step, attributes) in (("then", then), ("else", other))
    }
    return net.op("If", condition, **bodies)


def over(net, values, limit=0.0):
    """Whether the mean of values is over a limit."""
    return net.op("Greater", net.op("ReduceMean", values, keepdims=0), net.constant(np.float32(limit), "mean limit"))


def true(net):
    return net.constant(np.array(True))


def telling(name):
    """The branch of a body that tells which of its values are over a limit."""
    return body("", {f"t{name} = Greater(v0, limit)": {}, f"f{name} = Cast(t{name})": {"to": 1}}, f"f{name}")


NESTED = {"u = If(go)": {"then_branch": telling("then"), "else_branch": telling("else")}}
INSIDE = {
    "a class in a branch": lambda net, y: [
        branch(net, true(net), (f"Hardmax({y})", {"axis": 1}), (f"Identity({y})", {}))
    ],
    "truths in a branch in a loop": lambda net, y: [loop(net, [y], NESTED, "u", limit=np.float32(0.1))],
    "a class that the next run gives": lambda net, y: loop(
        net, [y, y], {"u0 = Hardmax(v0)": {"axis": 1}, "u1 = Identity(v0)": {}}, "u0 u1", "v0 v1", 2
    )[1:],
    "a truth that the next run makes a float": lambda net, y: [
        loop(
            net,
            [y, net.op("Greater", y, net.constant(np.float32(9), "nine"))],
            {"u0 = Cast(told0)": {"to": 1}, "told1 = Greater(v0, limit)": {}},
            "u0 told1",
            "v0 told0",
            2,
            limit=np.float32(0.1),
        )[0]
    ],
    "scores that a loop counts in whole numbers": lambda net, y: [
        loop(net, [y], {"k = Cast(v0)": {"to": 7}, "u = Cast(k)": {"to": 1}}, "u")
    ],
    "places of a pool in a loop": lambda net, y: [
        loop(
            net,
            [net.op("Unsqueeze", y, net.constant([0]))],
            {"p q = MaxPool(v0)": {"kernel_shape": [1]}, "u0 = Cast(q)": {"to": 1}},
            "u0",
        )
    ],
    "classes row by row": lambda net, y: [
        net.op(
            "Scan",
            y,
            num_scan_inputs=1,
            body=body("row", {"k = ArgMax(row)": {"axis": 0}, "f = Cast(k)": {"to": 1}}, "f"),
        )
    ],
    "a way that scores choose": lambda net, y: [branch(net, over(net, y), (f"Add({y}, {y})", {}), (f"Neg({y})", {}))],
    "how often scores are halved": lambda net, y: [
        loop(
            net,
            [y],
            {"u = Mul(v0, half)": {}, "m = ReduceMax(u)": {"keepdims": 0}},
            "u",
            goes="Greater(m, half)",
            half=np.float32(0.5),
        )
    ],
}
DECISIONS = {
    "highest scores": lambda net, y: net.op("TopK", y, net.constant([3]), outputs=2),
    "highest scores alone": lambda net, y: net.op("TopK", y, net.constant([3]), outputs=2)[:1],
    "one-hot class": lambda net, y: [net.op("Hardmax", y, axis=1)],
    "class as a float": lambda net, y: [net.op("Cast", net.op("ArgMax", y, axis=1, keepdims=0), to=1)],
    "scaled class": lambda net, y: [
        net.op("Mul", net.op("Cast", net.op("ArgMax", y, axis=1), to=1), net.constant(np.float32(2), "two"))
    ],
    "one of two by a threshold": lambda net, y: [
        net.op("Where", net.op("Greater", y, net.constant(np.float32(0.1), "limit")), y, net.op("Neg", y))
    ],
    "over a threshold": lambda net, y: [
        net.op("Cast", net.op("Greater", y, net.constant(np.float32(0.1), "limit")), to=1)
    ],
}
AVERAGED = {
    "a ReLU of truths": lambda net, y: net.linear(
        net.op("Mul", y, net.op("Cast", net.op("Greater", y, net.constant(np.float32(0), "zero")), to=1)), 5, 4
    ),
    "a choice by the inputs": lambda net, y: net.op(
        "GatherElements", y, net.op("ArgMax", first_of(net, net.inputs[0].name, 5), axis=1), axis=1
    ),
    "integers for floats": lambda net, y: net.op(
        "DequantizeLinear",
        net.op(
            "QuantizeLinear", y, scale := net.constant(np.float32(0.01), "scale"), z := net.constant(np.int8(0), "z")
        ),
        scale,
        z,
    ),
}
AVERAGED_INSIDE = {
    "a loop of arithmetic": lambda net, y: loop(
        net, [y], {"u = Mul(v0, half)": {}, "p = Add(u, half)": {}}, "p", half=np.float32(0.5)
    ),
    "all that a loop went through": lambda net, y: net.op(
        "ReduceMean",
        loop(net, [y], {"u = Mul(v0, half)": {}, "p = Identity(u)": {}}, "u p", outputs=2, half=np.float32(0.5))[1],
        net.constant([0]),
        keepdims=0,
    ),
    "a branch by the shape": lambda net, y: branch(
        net,
        net.op("Equal", net.op("Size", y), net.constant(np.array(0))),
        (f"Neg({y})", {}),
        (f"Identity({y})", {}),
    ),
    "a branch by the inputs": lambda net, y: branch(
        net, over(net, net.inputs[0].name), (f"Neg({y})", {}), (f"Identity({y})", {})
    ),
    "as many as there are": lambda net, y: net.op("Div", y, net.op("Cast", net.op("Size", y), to=1)),
    "a layer of truths in a loop": lambda net, y: loop(
        net,
        [y],
        {"told = Greater(v0, zero)": {}, "f = Cast(told)": {"to": 1}, "g = Mul(f, v0)": {}, "u = MatMul(g, w)": {}},
        "u",
        zero=np.float32(0),
        w=np.random.default_rng(5).standard_normal((5, 5)).astype(np.float32),
    ),
    "a layer of truths in a branch": lambda net, y: net.linear(
        branch(net, over(net, y), (f"Neg({y})", {}), (f"Identity({y})", {})), 5, 5
    ),
}
REFUSED = {
    "rows that a loop collects until scores are small": lambda net, y, x: net.linear(
        loop(
            net,
            [y],
            {"u = Mul(v0, half)": {}, "m = ReduceMax(u)": {"keepdims": 0}, "p = Identity(u)": {}},
            "u p",
            outputs=2,
            goes="Greater(m, half)",
            half=np.float32(0.5),
        )[1],
        5,
        4,
        "matmul",
    ),
    "a way that another layer's scores choose": lambda net, y, x: branch(
        net, over(net, net.linear(x, 8, 5)), (f"Neg({y})", {}), (f"Identity({y})", {})
    ),
    "scores of what a body learned": lambda net, y, x: branch(
        net,
        true(net),
        (f"Hardmax({net.linear(x, 8, 5)})", {"axis": 1}),
        (f"Hardmax({y})", {"axis": 1}),
    ),
    "a layer in a loop that reads a choice": lambda net, y, x: loop(
        net,
        [y],
        {"k = Hardmax(v0)": {"axis": 1}, "u = MatMul(k, w)": {}},
        "u",
        w=np.eye(5, dtype=np.float32),
    ),
    "what is chosen by another output": lambda net, y, x: net.op(
        "GatherElements", net.linear(x, 8, 5), net.op("ArgMax", y, axis=1), axis=1
    ),
    "a layer behind the highest scores": lambda net, y, x: net.linear(
        net.op("TopK", y, net.constant([3]), outputs=2)[0], 3, 4
    ),
    "boxes that do not overlap": lambda net, y, x: boxes(net, x),
}


def scored(seed):
    """A classifier of 5 classes, and what is made of its scores."""
    net = Net(seed)
    x = net.input("x", ("N", 8))
    y = net.linear(net.op("Relu", net.linear(x, 8, 12)), 12, 5)
    return net, x, y


def classifier(seed):
    net, _, y = scored(seed)
    return net.graph(y)


@pytest.mark.parametrize(
    ("make", "runner"),
    [
        *(pytest.param(make, "reference", id=name) for name, make in DECISIONS.items()),
        *(pytest.param(make, "onnxruntime", id=name) for name, make in INSIDE.items()),  # bodies state their types
    ],
)
def test_what_is_decided_is_decided_of_the_mean(make, runner):
    def decided(seed):
        net, _, y = scored(seed)
        return net.graph(*make(net, y))

    inputs = inputs_of(classifier(0), seed=5)
    united = mal_graph.assemble(decided(0), decided(1), method="union", budget="full")
    mean = np.mean([run(classifier(seed), inputs)[0] for seed in (0, 1)], axis=0)
    net = Net()
    alone = net.graph(*make(net, net.input("x", ("N", 5))))
    expected = run(alone, {"x": mean.astype(np.float32)}, runner)
    assert deviation(run(united.graph, inputs, runner), expected) < 1e-5
    again = load(ir.to_proto(built_model(united.graph)))
    assert deviation(run(again, inputs, runner), expected) < 1e-5


@pytest.mark.parametrize("name", AVERAGED)
def test_outputs_whose_places_mean_the_same_are_averaged(name):
    def made(seed):
        net, _, y = scored(seed)
        return net.graph(AVERAGED[name](net, y))

    graphs = made(0), made(1)
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    mean = np.mean([run(graph, inputs)[0] for graph in graphs], axis=0)
    assert deviation(run(united.graph, inputs), [mean]) < 1e-5


@pytest.mark.parametrize("name", AVERAGED_INSIDE)
def test_what_no_body_decides_is_averaged(name):
    net, _, y = scored(0)
    base, donor = net.graph(AVERAGED_INSIDE[name](net, y)), classifier(1)
    inputs = inputs_of(donor, seed=5)
    united = mal_graph.assemble(base, donor, method="union", budget="full")
    mean = np.mean([run(graph, inputs, "onnxruntime")[0] for graph in (base, donor)], axis=0)
    assert deviation(run(united.graph, inputs, "onnxruntime"), [mean]) < 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_single_tensor_decides_is_refused(name):
    def made(seed):
        net, x, y = scored(seed)
        return net.graph(REFUSED[name](net, y, x))

    with pytest.raises(MatchError, match=r"cannot be averaged: it holds what was decided, and no tensor of floats"):
        mal_graph.assemble(made(0), made(1), method="union", budget="full")


def negated(seed, *, inside):
    """A network with a layer behind its scores, turned round in a branch or not."""
    net, _, y = scored(seed)
    z = branch(net, true(net), (f"Neg({y})", {}), (f"Identity({y})", {})) if inside else net.op("Neg", y)
    return net.graph(y, net.linear(z, 5, 4))


@pytest.mark.parametrize("inside", [(True, False), (True, True), (False, True)])
def test_a_body_reads_what_its_own_model_makes(inside):
    graphs = [negated(seed, inside=has_body) for seed, has_body in enumerate(inside)]
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    means = [
        np.mean(pair, axis=0) for pair in zip(*(run(graph, inputs, "onnxruntime") for graph in graphs), strict=True)
    ]
    assert deviation(run(united.graph, inputs, "onnxruntime"), means) < 1e-5


def pooled(seed, made):
    """A network whose convolution is pooled; `made` says what it gives of maps, largest values and places."""
    net = Net(seed)
    y = net.conv(net.input("x", ("N", 3, 8, 8)), 3, 4)
    return net.graph(*made(net, y, *net.op("MaxPool", y, outputs=2, kernel_shape=[2, 2], strides=[2, 2])))


def gated(seed, made):
    """A network that tells which hidden units are positive, and goes on with these."""
    net = Net(seed)
    y = net.linear(net.input("x", ("N", 8)), 8, 12)
    told = net.op("Greater", y, net.constant(np.float32(0), "zero"))
    return net.graph(*made(net, y, net.op("Mul", y, net.op("Cast", told, to=1)), told))


def calling(seed, *, inside):
    """A network that gives the class of its highest score by a function, called in the branches of a condition too."""
    net, _, y = scored(seed)
    given = branch(net, true(net), (f"tell({y})", {}), (f"tell({y})", {})) if inside else net.op("tell", y)
    calls = [net.nodes[-1]]
    if inside:
        calls = [attribute.g.node[0] for attribute in net.nodes[-1].attribute]
    for call in calls:
        call.domain = "own"
    net.domains.add("own")
    proto = net.proto(given)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info(given, TensorProto.FLOAT, ("N", 5)))
    steps = [helper.make_node("Hardmax", ["v"], ["r"], axis=1)]
    proto.functions.append(helper.make_function("own", "tell", ["v"], ["r"], steps, [helper.make_opsetid("", 20)]))
    return load(proto)


@pytest.mark.parametrize("inside", [False, True])
def test_a_function_is_looked_into(inside):
    graphs = [calling(seed, inside=inside) for seed in (0, 1)]
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    mean = np.mean([run(classifier(seed), inputs)[0] for seed in (0, 1)], axis=0)
    assert np.array_equal(run(united.graph, inputs)[0], mean == mean.max(axis=1, keepdims=True))


def test_an_operator_whose_outputs_are_decided_in_part_computes_them_all_of_the_mean():
    graphs = [pooled(seed, lambda net, y, largest, places: (largest, places)) for seed in (0, 1)]
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    maps = [run(pooled(seed, lambda net, y, largest, places: (y,)), inputs)[0] for seed in (0, 1)]
    net = Net()
    y = net.input("x", ("N", *maps[0].shape[1:]))
    alone = net.graph(*net.op("MaxPool", y, outputs=2, kernel_shape=[2, 2], strides=[2, 2]))
    expected = run(alone, {"x": np.mean(maps, axis=0, dtype=np.float32)})
    assert deviation(run(united.graph, inputs), expected) < 1e-5
    assert [name for node in united.graph.nodes for name in node.outputs].count(graphs[0].outputs[0].name) == 1


@pytest.mark.parametrize(
    ("made", "last"),
    [(pooled, lambda net, values: net.conv(values, 4, 6)), (gated, lambda net, values: net.linear(values, 12, 5))],
)
def test_what_is_decided_inside_a_network_is_decided_there_and_of_the_mean(made, last):
    """It is an output, and a layer that is averaged goes on with it."""
    graphs, apart = (
        [made(seed, given) for seed in (0, 1)]
        for given in (
            lambda net, y, values, told: (last(net, values), told),
            lambda net, y, values, told: (last(net, values), y),
        )
    )
    inputs = inputs_of(graphs[0], seed=5)
    united = mal_graph.assemble(*graphs, method="union", budget="full")
    outputs, hidden = (np.mean([run(graph, inputs)[place] for graph in apart], axis=0) for place in (0, 1))
    net = Net()
    y = net.input("x", ("N", *hidden.shape[1:]))
    if made is gated:
        told = net.op("Greater", y, net.constant(np.float32(0), "zero"))
    else:
        _, told = net.op("MaxPool", y, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    expected = run(net.graph(told), {"x": hidden.astype(np.float32)})
    given = run(united.graph, inputs)
    assert deviation(given[:1], [outputs]) < 1e-5
    assert np.mean(given[1] == expected[0]) > 0.999
