"""Stored tensors and declared values: sizes that nobody holds, types that nobody computes with, files that are not."""

import numpy as np
import onnx
from builders import Net
from onnx import TensorProto, helper, numpy_helper

from crafted.kind import MODEL, begun, model, raw, written


def declared(shape, kind=TensorProto.FLOAT):
    """A model whose input is declared so."""
    proto = raw(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT))
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", kind, shape))
    return proto


@model("error: ")
def input_of_2_to_40_numbers():
    return declared([1 << 20, 1 << 20])


@model("error: ")
def input_of_2_to_80_numbers():
    return declared([1 << 40, 1 << 40])


@model("")
def input_of_rank_64():
    return declared([1] * 64)


@model("")
def input_of_rank_100():
    return declared([1] * 100)


@model("")
def input_of_rank_100_without_sizes():
    return declared([f"d{i}" for i in range(100)])


@model("")
def input_of_no_numbers():
    return declared([0, 8])


@model("", "inspect", MODEL, "--no-verify")
def units_of_none_laid_end_to_end():
    net = Net()
    x = net.input("x", ("N", 8))
    empty = [net.op("MatMul", x, net.constant(np.zeros((8, 0), np.float32))) for _ in range(2)]
    return net.proto(net.op("Concat", *empty, axis=1))


@model("")
def input_of_negative_size():
    return declared([-3, 8])


@model("")
def input_of_texts():
    return declared(["N", 8], TensorProto.STRING)


@model("")
def input_of_complex_numbers():
    return declared(["N", 8], TensorProto.COMPLEX64)


@model("")
def input_of_four_bits():
    return declared(["N", 8], TensorProto.INT4)


@model("")
def input_of_eight_bit_floats():
    return declared(["N", 8], TensorProto.FLOAT8E4M3FN)


@model("")
def input_of_an_unknown_type():
    proto = declared(["N", 8])
    proto.graph.input[0].type.tensor_type.elem_type = 99
    return proto


@model("")
def input_without_a_type():
    proto = declared(["N", 8])
    proto.graph.input[0].ClearField("type")
    return proto


@model("")
def input_without_a_name():
    proto = declared(["N", 8])
    proto.graph.input[0].name = ""
    return proto


@model("")
def input_that_is_a_sequence():
    proto = declared(["N", 8])
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 8])
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    return proto


@model("")
def input_that_is_optional():
    proto = declared(["N", 8])
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 8])
    proto.graph.input[0].type.CopyFrom(helper.make_optional_type_proto(kind))
    return proto


@model("")
def output_of_rank_100():
    proto = declared(["N", 8])
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1] * 100))
    return proto


@model("")
def texts_that_are_stored():
    net, x = begun()
    text = net.constant(np.array(["a", "b"], object))
    return net.proto(x, net.op("StringConcat", text, text))


@model("")
def texts_in_a_constant():
    value = helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"\xff\xfe\x1b[31m"])
    nodes = [helper.make_node("Constant", [], ["t"], value=value), helper.make_node("Relu", ["x"], ["y"])]
    proto = raw(*nodes, helper.make_node("Identity", ["t"], ["z"]))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.STRING, None))
    return proto


@model("")
def texts_in_an_attribute():
    nodes = [helper.make_node("Constant", [], ["t"], value_strings=["a", "b"]), helper.make_node("Relu", ["x"], ["y"])]
    return raw(*nodes, helper.make_node("Identity", ["t"], ["z"]))


@model("")
def text_of_one_attribute():
    nodes = [helper.make_node("Constant", [], ["t"], value_string="a"), helper.make_node("Relu", ["x"], ["y"])]
    return raw(*nodes)


@model("")
def a_constant_without_a_value():
    return raw(helper.make_node("Constant", [], ["t"]), helper.make_node("Add", ["x", "t"], ["y"]))


@model("")
def a_sparse_constant():
    dense = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    index = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(dense, index, [1 << 40])
    nodes = [helper.make_node("Constant", [], ["t"], sparse_value=sparse), helper.make_node("Add", ["x", "t"], ["y"])]
    return raw(*nodes)


def weighted(values, kind=None):
    """A model with this weight, which is cast where it is no float."""
    net = Net()
    x = net.input("x", ("N", 8))
    w = net.constant(values)
    return net.proto(net.op("MatMul", x, net.op("Cast", w, to=TensorProto.FLOAT) if kind else w))


@model("")
def weights_that_are_no_numbers():
    return weighted(np.full((8, 4), np.nan, np.float32))


@model("")
def weights_without_end():
    return weighted(np.full((8, 4), np.inf, np.float32))


@model("")
def weights_near_the_end():
    return weighted(np.full((8, 4), 3e38, np.float32))


@model("")
def weights_near_zero():
    return weighted(np.full((8, 4), 1e-45, np.float32))


@model("")
def weights_in_double():
    return weighted(np.full((8, 4), 1e300), True)


@model("")
def no_weights():
    return weighted(np.zeros((8, 0), np.float32))


def tensor(kind, dims, **content):
    """A stored tensor as it is given."""
    return TensorProto(name="w", data_type=kind, dims=dims, **content)


@model("error: ")
def more_numbers_than_there_are():
    return raw(helper.make_node("MatMul", ["x", "w"], ["y"]), stored={"w": tensor(1, [1 << 40, 1 << 40])})


@model("")
def no_numbers_of_a_huge_shape():
    return raw(helper.make_node("MatMul", ["x", "w"], ["y"]), stored={"w": tensor(1, [0, 1 << 62], raw_data=b"")})


@model("nothing can be said of its axes")
def complex_weights():
    return raw(
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Identity", ["w"], ["z"]),
        stored={"w": tensor(TensorProto.COMPLEX64, [1], raw_data=b"\0" * 8)},
    )


def outside(dims, location="m.data", **entries):
    """A model whose weight lies in a file of its own."""
    proto = raw(helper.make_node("MatMul", ["x", "w"], ["y"]), stored={"w": tensor(1, dims)})
    held = proto.graph.initializer[0]
    held.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        held.external_data.add(key=key, value=str(value))
    return proto


def saved(folder, proto, size, name="m.data"):
    """A model beside a file of so many zeros, which takes no place."""
    (folder / MODEL).write_bytes(proto.SerializeToString())
    with (folder / name).open("wb") as file:
        file.truncate(size)


@written("error: ")
def sparse_file_of_3_gib(folder):
    saved(folder, outside([8, 3 << 25]), 3 << 30)


@written("error: ")
def sparse_file_of_50_gib(folder):
    saved(folder, outside([8, 50 << 25]), 50 << 30)


@written("error: ")
def data_cut_short(folder):
    saved(folder, outside([8, 4]), 100)


@written("error: ")
def data_at_a_far_offset(folder):
    saved(folder, outside([8, 4], offset=1 << 62), 4096)


@written("error: ")
def data_that_is_a_pipe(folder):
    import os

    (folder / MODEL).write_bytes(outside([8, 4]).SerializeToString())
    os.mkfifo(folder / "m.data")


@written("")
def data_that_is_the_model(folder):
    (folder / MODEL).write_bytes(outside([8, 1], location=MODEL).SerializeToString())


@written("error: ")
def data_of_a_link(folder):
    (folder / MODEL).write_bytes(outside([8, 4]).SerializeToString())
    (folder / "m.data").symlink_to("/dev/zero")


@written("error: ")
def data_of_another_folder(folder):
    (folder / MODEL).write_bytes(outside([8, 4], location="../../../../etc/passwd").SerializeToString())


@written("error: ")
def data_of_an_absolute_path(folder):
    (folder / MODEL).write_bytes(outside([8, 4], location="/dev/zero").SerializeToString())


@written("error: ")
def a_model_that_is_a_pipe(folder):
    import os

    os.mkfifo(folder / MODEL)


@written("error: ")
def a_model_that_has_no_end(folder):
    (folder / MODEL).symlink_to("/dev/zero")


@written("error: ")
def a_model_of_50_gib(folder):
    with (folder / MODEL).open("wb") as file:
        file.truncate(50 << 30)


@written("error: ")
def a_model_of_zeros(folder):
    (folder / MODEL).write_bytes(bytes(1 << 20))


@written("error: ")
def a_model_that_is_empty(folder):
    (folder / MODEL).write_bytes(b"")


@written("error: ")
def a_model_cut_short(folder):
    content = onnx.load(folder / "base.onnx").SerializeToString()
    (folder / MODEL).write_bytes(content[: len(content) // 2])


@written("error: ")
def a_message_in_a_message(folder):
    content = b""
    for _ in range(3000):
        head = b"\x3a" if not content else b"\x0a"
        size, length = len(content), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        content = head + length + bytes([size]) + content
    (folder / MODEL).write_bytes(content)


@written("error: ", "inspect", "missing.onnx")
def a_model_that_is_not_there(folder):
    pass


@model("")
def a_tensor_of_rank_65():
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    del values.dims[:]
    values.dims.extend([1] * 65)
    return raw(helper.make_node("Add", ["x", "w"], ["y"]), stored={"w": values})
