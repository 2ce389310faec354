"""Models of a few bytes that end, hang or fill the process which runs them."""

import numpy as np
from builders import Net
from onnx import ModelProto, TensorProto, helper

LEAST = np.iinfo(np.int64).min


def with_stored_division() -> ModelProto:
    """The least integer by -1, which is no integer: the processor traps when the stored numbers are divided."""
    net = Net()
    x = net.linear(net.input("x", ("N", 8)), 8, 4)
    quotient = net.op("Div", net.constant(np.array([LEAST])), net.constant(np.array([-1])))
    return net.proto(net.op("Add", x, net.op("Cast", quotient, to=TensorProto.FLOAT)))


def with_divided_sizes() -> ModelProto:
    """The same of a number that shows when it runs."""
    net = Net()
    x = net.linear(net.input("x", ("N", 8)), 8, 4)
    rank = net.op("Shape", net.op("Shape", x))  # 2
    least = net.op("Sub", net.constant(np.array([LEAST + 2])), rank)
    quotient = net.op("Div", least, net.op("Sub", net.constant(np.array([1])), rank))
    return net.proto(net.op("Add", x, net.op("Cast", quotient, to=TensorProto.FLOAT)))


def with_expansion(size: int = 1 << 17) -> ModelProto:
    """A square of so many numbers a side, made of what is computed, of which one is read."""
    net = Net()
    x = net.linear(net.input("x", ("N", 8)), 8, 4)
    one = net.op("ReduceSum", x, keepdims=0)
    doubled = net.op("Add", net.constant(np.array([size // 2])), net.op("Cast", net.op("Abs", one), to=7))
    side = net.op("Clip", net.op("Mul", doubled, net.constant(np.array([2]))), net.constant(size), net.constant(size))
    square = net.op("Expand", one, net.op("Concat", side, side, axis=0))
    return net.proto(net.op("Add", x, net.op("ReduceMax", square, keepdims=0)))


def with_long_loop(trips: int = 1 << 40) -> ModelProto:
    """A loop that does not end in a lifetime."""
    net = Net()
    x = net.linear(net.input("x", ("N", 8)), 8, 4)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Tanh", ["held"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    rank = net.op("Size", net.op("Shape", x))  # 2, as shows when it runs
    count = net.op("Mul", rank, net.constant(np.array(trips // 2)))
    return net.proto(net.op("Loop", count, "", x, body=body))
