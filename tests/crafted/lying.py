"""Models that say of themselves what is not so, and data named where nobody looks: in attributes, bodies, functions."""

import gzip
import os
import socket

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from crafted.kind import MODEL, model, raw, written
from crafted.names import ESCAPE
from crafted.wire import INNER, RELU, SOUND, body, branched, function, functions

LAYER = helper.make_node("MatMul", ["x", "w"], ["y"])
WEIGHT = {"w": np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)}
FLOAT = TensorProto.FLOAT


def declared(name: str, kind: int, shape: object) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


# --- what is declared and is not so -------------------------------------------------------------------------------

for what, value in {
    "an_input_of_other_features": ("input", declared("x", FLOAT, ["N", 9])),
    "an_input_of_other_axes": ("input", declared("x", FLOAT, ["N", 2, 2, 2, 8])),
    "an_input_of_other_numbers": ("input", declared("x", TensorProto.INT64, ["N", 8])),
    "an_input_of_one_name_for_all_sizes": ("input", declared("x", FLOAT, ["N", "N"])),
    "an_input_named_by_escapes": ("input", declared(ESCAPE, FLOAT, ["N", 8])),
    "an_input_of_truths": ("input", declared("x", TensorProto.BOOL, ["N", 8])),
    "an_output_of_other_units": ("output", declared("y", FLOAT, ["N", 400])),
    "an_output_of_other_axes": ("output", declared("y", FLOAT, [1, 2, 3, 4, 5])),
    "an_output_of_texts": ("output", declared("y", TensorProto.STRING, ["N", 4])),
    "an_output_of_an_unknown_type": ("output", declared("y", 77, ["N", 4])),
    "an_output_of_negative_sizes": ("output", declared("y", FLOAT, [-7, -9])),
    "an_output_of_huge_sizes": ("output", declared("y", FLOAT, [1 << 62, 1 << 62])),
    "a_value_of_other_sizes": ("value_info", declared("w", FLOAT, [3, 3, 3])),
    "a_value_of_other_numbers": ("value_info", declared("w", TensorProto.INT64, [8, 4])),
    "a_value_that_is_nowhere": ("value_info", declared(ESCAPE, FLOAT, ["\u202e", 1])),
}.items():

    def make(value=value):
        proto = raw(LAYER, stored=WEIGHT)
        held = getattr(proto.graph, value[0])
        del held[:]
        held.append(value[1])
        return proto

    make.__name__ = f"declared_{what}"
    model("")(make)


for version in (0, 2, 3, 99, 10**9, -(1 << 63)):

    def make(version=version):
        proto = raw(LAYER, stored=WEIGHT)
        proto.ir_version = version
        return proto

    make.__name__ = f"a_file_of_version_{version}".replace("-", "minus_")
    model("")(make)

for domain, version in (
    ("", 10**9),
    ("", 1),
    ("ai.onnx.ml", 10**9),
    ("com.microsoft", -1),
    ("my", 1 << 62),
    ("a" * 5000, 1),
):

    def make(domain=domain, version=version):
        proto = raw(LAYER, stored=WEIGHT)
        del proto.opset_import[:]
        proto.opset_import.extend([helper.make_opsetid("", 17), helper.make_opsetid(domain, version)])
        return proto

    make.__name__ = f"operators_of_{domain[:9].replace('.', '_') or 'the_standard'}_in_version_{version % (1 << 40)}"
    model("")(make)


@model("", "assemble", MODEL, "base.onnx", "-o", "out.onnx", "--method", "union")
def a_union_without_a_version():
    proto = raw(RELU)
    del proto.opset_import[:]
    return proto


@model("")
def a_graph_without_operators():
    proto = raw()
    proto.graph.output[0].name = "x"
    return proto


@model("error: ")
def a_file_without_a_graph():
    proto = raw(RELU)
    proto.ClearField("graph")
    return proto


@model("")
def a_license_that_is_a_page():
    proto = raw(LAYER, stored=WEIGHT)
    for key in ("license", "\x1b[31m", "", "names"):
        proto.metadata_props.add(
            key=key, value="{0: '<script>alert(1)</script>', 1: __import__('os').system('touch pwned')}"
        )
    return proto


@model("")
def names_of_classes_that_are_code():
    proto = raw(LAYER, stored=WEIGHT)
    proto.metadata_props.add(key="names", value="{0: open('pwned', 'w'), 1: 'b', 2: 'c', 3: 'd'}")
    return proto


@model("")
def names_of_classes_without_end():
    proto = raw(LAYER, stored=WEIGHT)
    proto.metadata_props.add(key="names", value="[" * 100_000)
    return proto


@model("error: ")
def an_attribute_that_refers_to_nothing():
    """Outside of a function there is nothing to refer to."""
    node = helper.make_node("Softmax", ["x"], ["y"])
    node.attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="k")
    return raw(node)


@model("")
def a_function_whose_attribute_is_itself():
    node = helper.make_node("Softmax", ["a"], ["b"])
    node.attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="axis")
    made = function("f", node)
    made.attribute_proto.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="axis")
    return functions(made)


@model("")
def a_function_of_two_overloads():
    first, second = function("f", INNER), function("f", helper.make_node("Tanh", ["a"], ["b"]))
    first.overload, second.overload = "one", "two"
    proto = functions(first, second)
    proto.graph.node[0].overload = "three"
    return proto


@model("error: ")
def a_function_that_calls_itself():
    return functions(function("f", helper.make_node("f", ["a"], ["b"], domain="my")))


@model("error: ")
def functions_that_call_each_other():
    first = function("f", helper.make_node("g", ["a"], ["b"], domain="my"))
    return functions(first, function("g", helper.make_node("f", ["a"], ["b"], domain="my")))


@model("error: ")
def a_function_that_calls_itself_in_a_branch():
    call = body(helper.make_node("f", ["a"], ["b"], domain="my"))
    branch = helper.make_node("If", ["c"], ["b"], then_branch=call, else_branch=call)
    return functions(function("f", helper.make_node("Cast", ["a"], ["c"], to=TensorProto.BOOL), branch))


@model("error: ")
def a_function_that_reads_what_stands_around_it():
    return functions(function("f", helper.make_node("MatMul", ["a", "w"], ["b"])))


@model("error: ")
def a_branch_that_reads_what_is_made_later():
    inner = body(helper.make_node("Relu", ["later"], ["b"]))
    proto = branched(SOUND, inner)
    proto.graph.node.append(helper.make_node("Relu", ["y"], ["later"]))
    return proto


@model("")
def a_loop_that_never_ends():
    inner = body(
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Relu", ["s"], ["b"]),
        gives=("d", "b"),
        takes=("i", "c", "s"),
    )
    for held, kind in ((inner.input[0], TensorProto.INT64), (inner.input[1], TensorProto.BOOL), (inner.output[0], 9)):
        held.type.tensor_type.elem_type = kind
    return raw(helper.make_node("Loop", ["", "go", "x"], ["y"], body=inner), stored={"go": np.array(True)})


# --- stored values that are not what they say ---------------------------------------------------------------------


def sparse(values: onnx.TensorProto, indices: onnx.TensorProto, dims: list[int]) -> onnx.ModelProto:
    proto = raw(LAYER)
    held = proto.graph.sparse_initializer.add(dims=dims)
    held.values.CopyFrom(values)
    held.indices.CopyFrom(indices)
    return proto


def numbers(*values: float, name: str = "w") -> onnx.TensorProto:
    return helper.make_tensor(name, FLOAT, [len(values)], values)


def places(*values: int, shape: tuple[int, ...] | None = None) -> onnx.TensorProto:
    return helper.make_tensor("i", TensorProto.INT64, shape or (len(values),), values)


for name, made in {
    "that_is_sound": lambda: sparse(numbers(1, 2), places(3, 9), [8, 4]),
    "of_places_without_order": lambda: sparse(numbers(1, 2), places(9, 3), [8, 4]),
    "of_one_place_twice": lambda: sparse(numbers(1, 2), places(3, 3), [8, 4]),
    "of_negative_places": lambda: sparse(numbers(1, 2), places(-1, 3), [8, 4]),
    "of_fewer_places": lambda: sparse(numbers(1, 2), places(3), [8, 4]),
    "of_places_in_rows": lambda: sparse(numbers(1, 2), places(0, 1, 7, 3, shape=(2, 2)), [8, 4]),
    "of_places_in_far_rows": lambda: sparse(numbers(1, 2), places(0, 1, 1 << 40, 3, shape=(2, 2)), [8, 4]),
    "of_no_sizes": lambda: sparse(numbers(1, 2), places(0, 1), []),
    "of_negative_sizes": lambda: sparse(numbers(1, 2), places(0, 1), [-8, -4]),
    "of_texts": lambda: sparse(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"]), places(0), [8, 4]),
    "without_a_name": lambda: sparse(numbers(1, 2, name=""), places(0, 1), [8, 4]),
    "of_fractions_as_places": lambda: sparse(numbers(1, 2), numbers(0, 1), [8, 4]),
}.items():
    made.__name__ = f"a_sparse_weight_{name}"
    model("")(made)

for name, tensor in {
    "of_no_type": TensorProto(name="w", dims=[8, 4], data_type=0, raw_data=bytes(128)),
    "of_an_unknown_type": TensorProto(name="w", dims=[8, 4], data_type=1 << 30, raw_data=bytes(128)),
    "of_a_negative_type": TensorProto(name="w", dims=[8, 4], data_type=-1, raw_data=bytes(128)),
    "in_segments": TensorProto(
        name="w", dims=[8, 4], data_type=1, raw_data=bytes(128), segment={"begin": 5, "end": 1 << 40}
    ),
    "of_texts_in_bytes": TensorProto(name="w", dims=[8, 4], data_type=8, raw_data=bytes(128)),
    "in_an_unknown_place": TensorProto(name="w", dims=[8, 4], data_type=1, data_location=1),
    "of_four_bits_of_odd_length": TensorProto(name="w", dims=[3], data_type=22, raw_data=bytes(1)),
    "of_half_precision_beyond_its_bits": TensorProto(name="w", dims=[8, 4], data_type=10, int32_data=[1 << 30] * 32),
    "of_complex_halves": TensorProto(name="w", dims=[8, 2], data_type=14, float_data=[1.0] * 31),
    "of_many_empty_axes": TensorProto(name="w", dims=[0] * 60, data_type=1),
    "of_one_axis_of_many": TensorProto(name="w", dims=[1] * 60 + [1 << 62], data_type=1),
}.items():

    def make(tensor=tensor):
        return raw(LAYER, stored={"w": tensor})

    make.__name__ = f"a_weight_{name}"
    model("")(make)


# --- data in other files, named where nobody looks ----------------------------------------------------------------


def elsewhere(location: str = "../../../../../../etc/passwd", name: str = "w", dims: tuple[int, ...] = (8, 4)):
    tensor = TensorProto(name=name, data_type=FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


@model("error: ")
def data_elsewhere_of_a_constant():
    return raw(helper.make_node("Constant", [], ["w"], value=elsewhere()), LAYER)


@model("error: ")
def data_elsewhere_of_a_constant_in_a_branch():
    inner = body(
        helper.make_node("Constant", [], ["v"], value=elsewhere()), helper.make_node("MatMul", ["x", "v"], ["b"])
    )
    return branched(SOUND, inner)


@model("error: ")
def data_elsewhere_of_a_branch():
    return branched(SOUND, body(helper.make_node("MatMul", ["x", "v"], ["b"]), stored=[elsewhere(name="v")]))


@model("error: ")
def data_elsewhere_of_a_function():
    held = helper.make_node("Constant", [], ["v"], value=elsewhere())
    return functions(function("f", held, helper.make_node("MatMul", ["a", "v"], ["b"])))


@model("error: ")
def data_elsewhere_of_a_function_that_nothing_calls():
    held = helper.make_node("Constant", [], ["b"], value=elsewhere())
    return raw(RELU, functions=[function("f", held)])


@model("error: ")
def data_elsewhere_of_a_default_of_a_function():
    made = function("f", INNER)
    made.attribute_proto.add(name="k", type=onnx.AttributeProto.TENSOR).t.CopyFrom(elsewhere())
    return functions(made)


@model("error: ")
def data_elsewhere_of_a_fill():
    shape = helper.make_node("Shape", ["x"], ["s"])
    return raw(shape, helper.make_node("ConstantOfShape", ["s"], ["y"], value=elsewhere(dims=(1,))))


@model("error: ")
def data_elsewhere_of_a_list_of_tensors():
    node = helper.make_node("f", ["x"], ["y"], domain="my")
    node.attribute.add(name="held", type=onnx.AttributeProto.TENSORS).tensors.append(elsewhere())
    return raw(node)


@model("error: ")
def data_elsewhere_of_a_sparse_weight():
    return sparse(elsewhere(dims=(2,)), places(0, 1), [8, 4])


@model("error: ")
def data_elsewhere_of_the_places_of_a_sparse_weight():
    places_there = elsewhere(name="i", dims=(2,))
    places_there.data_type = TensorProto.INT64
    return sparse(numbers(1, 2), places_there, [8, 4])


@model("error: ")
def data_elsewhere_of_a_sparse_constant():
    held = helper.make_sparse_tensor(numbers(1, 2), places(0, 1), [8, 4])
    held.values.CopyFrom(elsewhere(dims=(2,)))
    return raw(helper.make_node("Constant", [], ["w"], sparse_value=held), LAYER)


for name, location in {
    "without_a_name": "",
    "that_is_the_folder": "./",
    "of_an_address": "https://127.0.0.1:1/w.data",
    "of_a_local_address": "file:///etc/passwd",
    "in_percents": "%2e%2e/victim",
    "of_backslashes": "..\\victim",
    "with_blanks_before": " ../victim",
    "of_the_other_side": "../victim",
    "up_to_the_folder_itself": "../here/base.onnx",
    "of_many_dots": "/".join([".."] * 2000),
    "of_a_stream": "m.data:stream",
    "of_escapes": f"{ESCAPE}.data",
    "that_is_the_base": "base.onnx",
}.items():

    def make(location=location):
        return raw(LAYER, stored={"w": elsewhere(location)})

    make.__name__ = f"data_at_a_place_{name}"
    model("" if name == "that_is_the_base" else "error: ")(make)


@written("error: ")
def data_that_are_a_hard_link(folder):
    (folder / MODEL).write_bytes(raw(LAYER, stored={"w": elsewhere("m.data")}).SerializeToString())
    (folder / "m.data").write_bytes(bytes(128))
    (folder / "sub").mkdir()
    os.link(folder / "m.data", folder / "sub/again")


@written("error: ")
def data_that_are_a_socket(folder):
    (folder / MODEL).write_bytes(raw(LAYER, stored={"w": elsewhere("m.data")}).SerializeToString())
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(folder / "m.data"))


@written("error: ")
def a_model_that_is_a_socket(folder):
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(folder / MODEL))


CONTENTS = {
    "a_pointer_to_a_file": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "a_page": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "packed": gzip.compress(raw(RELU).SerializeToString()),
    "an_archive": b"PK\x03\x04" + bytes(200),
    "text_of_a_model": b'ir_version: 8 graph { node { op_type: "Relu" input: "x" output: "y" } }',
    "json_of_a_model": b'{"irVersion": "8", "graph": {"node": []}}',
    "a_flat_buffer": b"\x1c\x00\x00\x00ORTM" + bytes(200),
    "a_program": b"\x7fELF" + bytes(200),
    "a_pickle": b"\x80\x04\x95" + bytes(50),
    "a_marked_text": b"\xef\xbb\xbf" + raw(RELU).SerializeToString(),
}
for name, content in CONTENTS.items():

    def build(folder, content=content):
        (folder / MODEL).write_bytes(content)

    build.__name__ = f"a_model_that_is_{name}"
    written("error: ")(build)


@model("")
def a_weight_named_like_a_file():
    return raw(
        helper.make_node("MatMul", ["x", "../victim"], ["y"]),
        stored={"../victim": numpy_helper.from_array(WEIGHT["w"], "../victim")},
    )


for address in (
    "file:///dev/zero", "local:///dev/zero", "memory://m.onnx", "zip://m.onnx::/dev/zero", "http://127.0.0.1:1/m.onnx",
    "simplecache::file:///dev/zero", "reference://m.onnx", "nosuch://m.onnx", "https://[/m.onnx", "data:,x://",
    "http://user:secret@127.0.0.1:1/\x1b[31m.onnx", "file:///proc/self/mem", "dir::file:///",
):  # fmt: skip
    name = "".join(letter if letter.isalnum() else "_" for letter in address)

    def build(folder):
        pass

    build.__name__ = f"a_model_at_{name}"
    written("error: ", "inspect", address)(build)
