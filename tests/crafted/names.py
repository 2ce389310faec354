"""Names and structures: many, long, repeated, deep, or with what a terminal would obey."""

from itertools import pairwise

import numpy as np
from builders import Net
from onnx import TensorProto, helper

from crafted.kind import begun, model, raw

ESCAPE = "\x1b[31mred\x07\ncheck onnxruntime: passed\u202e"
MANY = 20_000


def relus(count, name="{}"):
    """A chain of operators."""
    ends = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    return [helper.make_node("Relu", [ends[i]], [ends[i + 1]], name=name.format(i)) for i in range(count)]


@model("", is_slow=True)
def chain_of_many():
    return raw(*relus(100_000))


@model("")
def nodes_of_one_name():
    return raw(*relus(MANY, "the same"))


@model("")
def nodes_without_names():
    return raw(*relus(MANY, ""))


@model("has a name of")
def one_long_name():
    return raw(*relus(3, "long" * 1_000_000))


@model("has a name of")
def long_outer_name():
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x" if i == 0 else f"b{i - 1}"], [f"b{i}"], name=str(i)) for i in range(MANY)],
        "body",
        [],
        [helper.make_tensor_value_info(f"b{MANY - 1}", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["c"])], "other", [], [helper.make_tensor_value_info("c", 1, None)]
    )
    branch = helper.make_node("If", ["go"], ["y"], name="outer" * 20_000, then_branch=inner, else_branch=other)
    return raw(branch, stored={"go": np.array(True)})


@model("is made twice")
def values_of_one_name():
    return raw(*(helper.make_node("Relu", ["x"], ["y"], name=str(i)) for i in range(MANY)))


@model("is made twice")
def repeated_at_the_end():
    nodes = relus(MANY)
    return raw(*nodes, helper.make_node("Relu", ["x"], ["y"]))


@model("")
def many_tensors():
    nodes = [
        helper.make_node("Add", ["x" if i == 0 else f"t{i - 1}", f"w{i}"], ["y" if i == MANY - 1 else f"t{i}"])
        for i in range(MANY)
    ]
    return raw(*nodes, stored={f"w{i}": np.float32(i) for i in range(MANY)})


@model("is made twice")
def tensors_of_one_name():
    proto = raw(helper.make_node("Add", ["x", "w"], ["y"]), stored={"w": np.float32(1)})
    for _ in range(MANY):
        proto.graph.initializer.append(proto.graph.initializer[0])
    return proto


@model("")
def many_outputs():
    proto = raw(*relus(5000))
    for i in range(4998):
        proto.graph.output.append(helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, None))
    return proto


@model("")
def outputs_of_one_name():
    proto = raw(*relus(3))
    for _ in range(MANY):
        proto.graph.output.append(proto.graph.output[0])
    return proto


@model("error: ")
def inputs_of_one_name():
    proto = raw(*relus(3))
    for _ in range(MANY):
        proto.graph.input.append(proto.graph.input[0])
    return proto


@model("")
def many_inputs():
    proto = raw(helper.make_node("Sum", ["x", *(f"x{i}" for i in range(2000))], ["y"]))
    for i in range(2000):
        proto.graph.input.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["N", 8]))
    return proto


@model("")
def one_operator_of_many_inputs():
    return raw(helper.make_node("Concat", ["x"] * MANY, ["y"], axis=1))


@model("")
def many_notes():
    proto = raw(*relus(3))
    for i in range(MANY):
        proto.metadata_props.add(key=f"key {i}", value="v" * 100)
    return proto


@model("")
def notes_of_one_key():
    proto = raw(*relus(3))
    for _ in range(MANY):
        proto.metadata_props.add(key="names", value="{" * 1000)
    return proto


@model("")
def many_declared_values():
    proto = raw(*relus(3))
    for i in range(MANY):
        proto.graph.value_info.append(helper.make_tensor_value_info(f"v{i}", TensorProto.FLOAT, ["N", 8]))
    return proto


@model("")
def many_versions():
    proto = raw(*relus(3))
    for _ in range(MANY):
        proto.opset_import.append(helper.make_opsetid("", 20))
    return proto


@model("")
def many_functions_that_nothing_calls():
    proto = raw(*relus(3))
    for i in range(5000):
        node = helper.make_node("Relu", ["a"], ["b"])
        proto.functions.append(helper.make_function("my", f"f{i}", ["a"], ["b"], [node], [helper.make_opsetid("", 20)]))
    return proto


def calling(depth, calls):
    """Functions that call the next one so many times, one behind the other."""
    proto = raw(helper.make_node("f0", ["x"], ["y"], domain="my"))
    for i in range(depth):
        names = ["a", *(f"n{k}" for k in range(calls - 1)), "b"]
        op = {"op_type": f"f{i + 1}", "domain": "my"} if i < depth - 1 else {"op_type": "Relu"}
        nodes = [helper.make_node(inputs=[names[k]], outputs=[names[k + 1]], **op) for k in range(calls)]
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]
        proto.functions.append(helper.make_function("my", f"f{i}", ["a"], ["b"], nodes, imports))
    return proto


@model("its functions unfold to")
def functions_that_double():
    return calling(60, 2)


@model("its functions unfold to")
def functions_that_double_to_many():
    return calling(19, 2)


@model("operators and tensors of the name")
def functions_that_are_called_often():
    names = ["x", *(f"v{i}" for i in range(7000)), "y"]
    proto = raw(*(helper.make_node("f", [a], [b], domain="my") for a, b in pairwise(names)))
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]
    proto.functions.append(
        helper.make_function("my", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], imports)
    )
    return proto


@model("", is_slow=True)
def functions_in_functions():
    return calling(500, 1)


def nested(depth):
    """Branches in branches."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["o"])], "g", [], [helper.make_tensor_value_info("o", 1, None)]
    )
    for i in range(depth):
        node = helper.make_node("If", ["go"], [f"o{i}"], name=f"n{i}", then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], f"g{i}", [], [helper.make_tensor_value_info(f"o{i}", 1, None)])
    node = helper.make_node("If", ["go"], ["y"], then_branch=graph, else_branch=graph)
    return raw(node, stored={"go": np.array(True)})


@model("")
def branches_in_branches():
    return nested(7)


def nested_once(depth):
    other = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["p"])], "other", [], [helper.make_tensor_value_info("p", 1, None)]
    )
    graph = other
    for i in range(depth):
        node = helper.make_node("If", ["go"], [f"o{i}"], name=f"n{i}", then_branch=graph, else_branch=other)
        graph = helper.make_graph([node], f"g{i}", [], [helper.make_tensor_value_info(f"o{i}", 1, None)])
    node = helper.make_node("If", ["go"], ["y"], then_branch=graph, else_branch=other)
    return raw(node, stored={"go": np.array(True)})


@model("bodies deep")
def deep_branches():
    return nested_once(30)


@model("")
def names_that_a_terminal_would_obey():
    net = Net()
    x = net.input(ESCAPE, ("N", 8))
    return net.proto(net.op("Relu", net.linear(x, 8, 4)))


@model("")
def operators_that_a_terminal_would_obey():
    return raw(helper.make_node(ESCAPE, ["x"], ["y"], domain=ESCAPE))


@model("")
def axes_that_a_terminal_would_obey():
    net = Net()
    x = net.input("x", (ESCAPE, 8))
    return net.proto(net.op("Relu", net.linear(x, 8, 4)))


@model("")
def text_that_a_terminal_would_obey():
    net, x = begun()
    proto = net.proto(net.op("Relu", x))
    proto.producer_name = proto.doc_string = proto.graph.name = ESCAPE
    proto.metadata_props.add(key="names", value=str({0: ESCAPE, 1: "b", 2: "c", 3: "d"}))
    return proto


@model("nothing can be said of its axes", "inspect", "m.onnx", "--in-process")
def a_pattern_that_a_terminal_would_obey():
    """RE2 logs it as it is, past Python."""
    net, x = begun()
    text = net.op("Cast", x, to=TensorProto.STRING)
    return net.proto(x, net.op("RegexFullMatch", text, pattern=f"(({ESCAPE}"))


@model("error: ")
def data_named_as_a_terminal_would_obey():
    proto = raw(helper.make_node("MatMul", ["x", "w"], ["y"]), stored={"w": np.ones((8, 4), np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=ESCAPE)
    return proto


@model("error: ")
def an_attribute_named_as_a_terminal_would_obey():
    return raw(helper.make_node("Relu", ["x"], ["y"], **{ESCAPE: 3}))


@model("")
def an_attribute_of_many_numbers():
    return raw(helper.make_node("Transpose", ["x"], ["y"], perm=list(range(200_000))))


@model("")
def a_text_of_many_letters():
    proto = raw(*relus(3))
    proto.doc_string = "x" * 30_000_000
    return proto
