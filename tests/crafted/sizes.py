"""A few bytes that unfold to many: operators that change sizes, by stored numbers and by computed ones."""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from crafted.kind import INT64, MOST, begun, computed, model, read_by_all

TOO_LARGE = "makes a tensor of"
TOO_MUCH = r"it may take 512 MiB: give more with --max-memory"
ANY = rf"{TOO_LARGE}|{TOO_MUCH}|error: "


def one(kind: str, *inputs: object, is_computed: bool = False, fed: bool = True, **attributes: object) -> ModelProto:
    """A model with one operator that reads what is computed, and numbers."""
    net, x = begun()
    names = [
        computed(net, x, *given) if is_computed and isinstance(given, list) else net.constant(given) for given in inputs
    ]
    return read_by_all(net, x, net.op(kind, *([x] if fed else []), *names, **attributes))


@model(TOO_LARGE)
def expand_stored():
    return one("Expand", [100_000, 100_000, 1, 4])


@model(TOO_MUCH)
def expand_computed():
    return one("Expand", [100_000, 100_000, 1, 4], is_computed=True)


@model(TOO_LARGE)
def tile_stored():
    return one("Tile", [1_000_000, 1_000_000])


@model("nothing can be said of its axes")
def tile_computed():
    return one("Tile", [1_000_000, 10_000], is_computed=True)


@model(TOO_LARGE)
def fill_stored():
    return one("ConstantOfShape", [1 << 20, 1 << 10], fed=False)


@model(TOO_MUCH)
def fill_computed():
    return one("ConstantOfShape", [1 << 20, 1 << 12], fed=False, is_computed=True)


@model(TOO_LARGE)
def fill_overflowing():
    return one("ConstantOfShape", [MOST, MOST], fed=False)


@model(TOO_LARGE)
def range_stored():
    return one("Range", np.int64(0), np.int64(1 << 40), np.int64(1), fed=False)


@model(TOO_LARGE)
def range_of_floats():
    return one("Range", np.float32(0), np.float32(1e9), np.float32(1e-9), fed=False)


@model("nothing can be said of its axes")
def range_of_nan():
    return one("Range", np.float32(0), np.float32(np.nan), np.float32(1), fed=False)


@model("nothing can be said of its axes")
def range_without_step():
    return one("Range", np.int64(0), np.int64(5), np.int64(0), fed=False)


@model(TOO_MUCH)
def range_computed():
    net, x = begun()
    end = net.op("Squeeze", computed(net, x, 1 << 34))
    return read_by_all(net, x, net.op("Range", net.constant(np.int64(0)), end, net.constant(np.int64(1))))


@model(TOO_LARGE)
def pad_stored():
    return one("Pad", [0, 0, 1 << 20, 1 << 12])


@model(TOO_MUCH)
def pad_computed():
    return one("Pad", [0, 0, 1 << 20, 1 << 12], is_computed=True)


@model(TOO_LARGE)
def resize_by_scales():
    net, x = begun()
    scales = net.constant(np.array([1e5, 1e4], np.float32))
    return read_by_all(net, x, net.op("Resize", x, "", scales, mode="nearest"))


@model(TOO_LARGE)
def resize_to_sizes():
    net, x = begun()
    sizes = net.constant(np.array([1 << 20, 1 << 14]))
    return read_by_all(net, x, net.op("Resize", x, "", "", sizes, mode="nearest"))


@model(TOO_MUCH)
def resize_computed():
    net, x = begun()
    return read_by_all(net, x, net.op("Resize", x, "", "", computed(net, x, 1 << 20, 1 << 14), mode="nearest"))


@model("nothing can be said of its axes")
def resize_by_nan():
    net, x = begun()
    return read_by_all(net, x, net.op("Resize", x, "", net.constant(np.array([np.nan, 1], np.float32))))


@model(TOO_LARGE)
def one_hot_stored():
    net, x = begun()
    indices = net.op("Cast", x, to=INT64)
    values = net.constant(np.array([0, 1], np.float32))
    return read_by_all(net, x, net.op("OneHot", indices, net.constant(np.array([1 << 34])), values))


@model(TOO_MUCH)
def outer_products():
    net, x = begun()
    column = net.op("Reshape", x, net.constant([-1, 1]))
    for _ in range(6):
        column = net.op("MatMul", column, net.op("Transpose", column))
        column = net.op("Reshape", column, net.constant([-1, 1]))
    return read_by_all(net, x, column)


@model(TOO_MUCH)
def outer_sums():
    net, x = begun()
    flat = net.op("Reshape", x, net.constant([-1]))
    for _ in range(6):
        square = net.op(
            "Add", net.op("Unsqueeze", flat, net.constant([0])), net.op("Unsqueeze", flat, net.constant([1]))
        )
        flat = net.op("Reshape", square, net.constant([-1]))
    return read_by_all(net, x, flat)


@model(TOO_MUCH)
def einsum_of_many():
    net, x = begun()
    flat = net.op("Reshape", x, net.constant([-1]))
    letters = "abcdefghijklmnop"
    big = net.op("Einsum", *[flat] * len(letters), equation=f"{','.join(letters)}->{letters}")
    return read_by_all(net, x, big)


def square(side: int) -> ModelProto:
    """A square of so many numbers a side, made of what is computed, of which one is read."""
    net, x = begun()
    number = net.op("ReduceSum", x, keepdims=0)
    doubled = net.op("Add", net.constant(np.array([side // 2])), net.op("Cast", net.op("Abs", number), to=INT64))
    length = net.op("Clip", net.op("Mul", doubled, net.constant(np.array([2]))), net.constant(side), net.constant(side))
    square = net.op("Expand", number, net.op("Concat", length, length, axis=0))
    return net.proto(net.op("Add", x, net.op("ReduceMax", square, keepdims=0)))


@model(TOO_MUCH)
def computed_square():
    return square(1 << 17)


@model(TOO_LARGE)
def doubling_concat():
    net, x = begun()
    big = x
    for _ in range(40):
        big = net.op("Concat", big, big, axis=0)
    return read_by_all(net, x, big)


@model(TOO_LARGE)
def doubling_stored_concat():
    net, x = begun()
    big = net.constant(np.ones(4, np.float32))
    for _ in range(40):
        big = net.op("Concat", big, big, axis=0)
    return read_by_all(net, x, big)


@model(TOO_LARGE)
def random_stored():
    return one("RandomNormal", fed=False, shape=[1 << 20, 1 << 14])


@model(TOO_LARGE)
def random_uniform_stored():
    return one("RandomUniform", fed=False, shape=[1 << 20, 1 << 14])


@model("error: ")
def multinomial_of_many():
    return one("Multinomial", sample_size=1 << 30)


@model(TOO_LARGE)
def window_stored():
    return one("HannWindow", np.int64(1 << 36), fed=False)


@model(TOO_LARGE)
def mel_stored():
    numbers = (np.int64(1 << 16), np.int64(1 << 20), np.int64(8000), np.float32(0), np.float32(4000))
    return one("MelWeightMatrix", *numbers, fed=False)


@model("error: ")
def transposed_convolution_with_strides():
    net, x = begun()
    image = net.op("Reshape", x, net.constant([-1, 4, 1, 1]))
    big = net.op("ConvTranspose", image, net.weight(4, 4, 3, 3), strides=[1, 1], output_padding=[0, 0], pads=[0] * 4)
    big = net.op("ConvTranspose", big, net.weight(4, 4, 3, 3), strides=[60000, 60000])
    return read_by_all(net, x, big)


@model("")
def pooling_of_huge_windows():
    net, x = begun()
    image = net.op("Reshape", x, net.constant([-1, 4, 1, 1]))
    return read_by_all(net, x, net.op("MaxPool", image, kernel_shape=[1 << 40] * 2, pads=[1 << 39] * 4))


@model("error: ")
def pads_of_a_convolution():
    net, x = begun()
    image = net.op("Reshape", x, net.constant([-1, 4, 1, 1]))
    return read_by_all(net, x, net.op("Conv", image, net.weight(4, 4, 3, 3), pads=[100_000] * 4))


@model("error: ")
def regions_of_many_cells():
    net, x = begun()
    image = net.op("Reshape", x, net.constant([-1, 4, 1, 1]))
    boxes, which = net.constant(np.ones((1, 4), np.float32)), net.constant([0])
    big = net.op("RoiAlign", image, boxes, which, output_height=100_000, output_width=100_000)
    return read_by_all(net, x, big)


@model("")
def gathers_of_gathers():
    net, x = begun()
    flat = net.op("Reshape", x, net.constant([-1]))
    index = net.op("ConstantOfShape", net.op("Shape", net.op("Concat", *[flat] * 64, axis=0)))
    index = net.op("Cast", index, to=INT64)
    big = net.op("Reshape", flat, net.constant([-1, 1]))
    for _ in range(6):
        big = net.op("Gather", big, index, axis=0)
    return read_by_all(net, x, big)


@model("error: ")
def crop_and_pad_to_many():
    return one("CenterCropPad", [1 << 20, 1 << 12])


@model(TOO_LARGE)
def dft_of_many():
    net, x = begun()
    signal = net.op("Unsqueeze", x, net.constant([2]))
    return read_by_all(net, x, net.op("DFT", signal, net.constant(np.int64(1 << 33)), net.constant(np.int64(1))))


@model("error: ")
def grid_of_many():
    net, x = begun()
    theta = net.constant(np.ones((1, 2, 3), np.float32))
    return read_by_all(net, x, net.op("AffineGrid", theta, net.constant([1, 1, 1 << 16, 1 << 16])))


@model("nothing can be said of its axes")
def reshape_to_other_size():
    return one("Reshape", [1 << 40, 1 << 20])


@model("")
def slices_of_extreme_numbers():
    net, x = begun()
    bounds = [net.constant([number]) for number in (-MOST, MOST, 0, -MOST)]
    return net.proto(net.op("Slice", x, *bounds))


@model("error: ")
def texts_that_double():
    net, x = begun()
    text = net.op("Cast", x, to=TensorProto.STRING)
    for _ in range(40):
        text = net.op("StringConcat", text, text)
    return net.proto(x, net.op("Shape", net.op("StringNormalizer", net.op("Reshape", text, net.constant([-1])))))


def body_of(nodes, state, outputs=()):
    """A body of a loop that carries one tensor."""
    values = [
        helper.make_tensor_value_info("i", INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("held", TensorProto.FLOAT, None),
    ]
    made = [helper.make_tensor_value_info("goes", TensorProto.BOOL, [])]
    made += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (state, *outputs)]
    return helper.make_graph([helper.make_node("Identity", ["go"], ["goes"]), *nodes], "body", values, made)


def looped(trips, body, outputs=1):
    """A model with a loop of so many trips, which are stored."""
    net, x = begun()
    count = computed(net, x, trips) if isinstance(trips, int) else net.constant(trips)
    made = net.op("Loop", count, "", x, outputs=outputs, body=body)
    return read_by_all(net, x, made if outputs == 1 else made[-1])


@model("trips", is_slow=True)
def loop_of_stored_trips():
    return looped(np.array(1 << 40), body_of([helper.make_node("Tanh", ["held"], ["next"])], "next"))


@model("--timeout", "inspect", "m.onnx", "--timeout", "2", is_slow=True)
def loop_of_computed_trips():
    return looped(1 << 40, body_of([helper.make_node("Tanh", ["held"], ["next"])], "next"))


@model(TOO_MUCH)
def loop_that_doubles():
    node = helper.make_node("Concat", ["held", "held"], ["next"], axis=0)
    return looped(1 << 10, body_of([node], "next"))


@model(f"{TOO_MUCH}|--timeout", "inspect", "m.onnx", "--timeout", "5", is_slow=True)
def loop_that_scans():
    nodes = [helper.make_node("Identity", ["held"], ["next"]), helper.make_node("Identity", ["held"], ["seen"])]
    return looped(1 << 40, body_of(nodes, "next", ["seen"]), outputs=2)


@model("--timeout|trips", "inspect", "m.onnx", "--timeout", "2", is_slow=True)
def loops_in_loops():
    inner = body_of([helper.make_node("Tanh", ["held"], ["next"])], "next")
    inner = helper.make_graph(
        inner.node,
        "inner",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (("i2", INT64, []), ("go", 9, []), ("held", 1, None))
        ],
        inner.output,
    )
    trips = helper.make_node("Constant", [], ["trips"], value=helper.make_tensor("t", INT64, [], [1_000_000]))
    outer = body_of([trips, helper.make_node("Loop", ["trips", "", "held"], ["after"], body=inner)], "after")
    for value in outer.input:
        value.name = {"held": "carried", "go": "still"}.get(value.name, value.name)
    for node in outer.node:
        for at, name in enumerate(node.input):
            node.input[at] = {"held": "carried", "go": "still"}.get(name, name)
    return looped(1_000_000, outer)
