"""Bytes that a parser may take for a model: fields of another type, of an unknown number, twice, or without an end."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from crafted.kind import MODEL, model, raw, written

RELU = helper.make_node("Relu", ["x"], ["y"])
GRAPH, NODE, INITIALIZER = 7, 1, 5  # numbers of fields in onnx.proto
VARINT, BYTES = 0, 2  # types on the wire
SIZES = {1: 8, 5: 4}  # bytes of the other types
Field = tuple[int, int, int | bytes]  # its number, its type on the wire, and its value


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])


def field(number: int, content: bytes, kind: int = BYTES) -> bytes:
    """A field of a message: of bytes, which have their length before them, or of another wire type as it is given."""
    return varint(number << 3 | kind) + (varint(len(content)) if kind == BYTES else b"") + content


def fields(content: bytes) -> list[Field]:
    """The fields of a message; none where the bytes are no message."""
    held, at = [], 0
    while at < len(content):
        key, at = number_at(content, at)
        kind = key & 7
        if kind == VARINT:
            value, at = number_at(content, at)
        elif kind in SIZES:
            value, at = content[at : at + SIZES[kind]], at + SIZES[kind]
        elif kind == BYTES:
            length, at = number_at(content, at)
            value, at = content[at : at + length], at + length
        else:
            return []
        if not key >> 3 or at > len(content):
            return []
        held.append((key >> 3, kind, value))
    return held


def number_at(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends: beyond the content where that ends first."""
    number = shift = 0
    while at < len(content):
        number |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 128:
            return number, at
    return number, at + 1


def joined(held: list[Field]) -> bytes:
    """The message of such fields."""
    return b"".join(
        field(number, varint(value) if isinstance(value, int) else value, kind) for number, kind, value in held
    )


def bytes_of(*nodes: onnx.NodeProto) -> bytes:
    return raw(*(nodes or (RELU,))).SerializeToString()


def put_many(folder, count: int) -> None:
    """A model of so many empty operators, which take two bytes each."""
    put(folder, bytes_of() + field(GRAPH, field(NODE, b"") * count))


def put(folder, content: bytes) -> None:
    (folder / MODEL).write_bytes(content)


@written("")
def a_field_of_an_unknown_number(folder):
    put(folder, bytes_of() + field(12345, b"\x1b[31m" * 100))


@written("", is_slow=True)
def many_fields_of_an_unknown_number(folder):
    put(folder, bytes_of() + field(777, b"") * 300_000)


@written("", is_slow=True)
def many_empty_graphs(folder):
    """A message that stands there many times is one, merged."""
    put(folder, bytes_of() + field(GRAPH, b"") * 300_000)


@written("", is_slow=True)
def a_graph_in_many_pieces(folder):
    put(folder, bytes_of() + b"".join(field(GRAPH, field(2, b"n" * 100)) for _ in range(20_000)))


@written("error: ")
def a_length_beyond_the_end(folder):
    put(folder, bytes_of() + varint(GRAPH << 3 | 2) + varint(1 << 62))


@written("error: ")
def a_length_that_is_negative(folder):
    put(folder, bytes_of() + varint(GRAPH << 3 | 2) + varint(-5))


@written("")
def a_group_that_nothing_ends(folder):
    put(folder, bytes_of() + varint(99 << 3 | 3))


@written("error: ", is_slow=True)
def groups_in_groups(folder):
    put(folder, bytes_of() + varint(99 << 3 | 3) * 100_000 + varint(99 << 3 | 4) * 100_000)


@written("error: ")
def a_graph_that_is_a_number(folder):
    put(folder, field(GRAPH, varint(5), 0))


@written("error: ")
def a_number_of_eleven_bytes(folder):
    put(folder, bytes_of() + varint(1 << 3) + b"\xff" * 10 + b"\x01")


@written("error: ", is_slow=True)
def many_empty_operators(folder):
    put(folder, bytes_of() + field(GRAPH, field(NODE, b"") * 200_000))


@written("unfolds to more than 512 MiB", is_slow=True)
def twenty_million_empty_operators(folder):
    put_many(folder, 20_000_000)


@written("unfolds to more than 512 MiB", is_slow=True)
def twenty_million_empty_notes(folder):
    put(folder, bytes_of() + field(14, b"") * 20_000_000)


@written("unfolds to more than 512 MiB", is_slow=True)
def empty_attributes_of_an_operator(folder):
    put(folder, bytes_of() + field(GRAPH, field(NODE, field(5, b"") * 20_000_000)))


@written("error: ", is_slow=True)
def empty_texts_of_an_attribute(folder):
    held = field(1, b"s") + varint(20 << 3) + varint(8) + field(9, b"") * 20_000_000
    put(
        folder,
        bytes_of() + field(GRAPH, field(NODE, field(1, b"x") + field(2, b"y") + field(4, b"Relu") + field(5, held))),
    )


@written("error: ", is_slow=True)
def many_empty_tensors(folder):
    put(folder, bytes_of() + field(GRAPH, field(INITIALIZER, b"") * 200_000))


@written("", is_slow=True)
def many_declared_axes(folder):
    axes = field(1, b"") * 500_000
    kind = field(1, varint(1 << 3) + varint(1) + field(2, axes))
    put(folder, bytes_of() + field(GRAPH, field(13, field(1, b"m") + field(2, kind))))


@written("", is_slow=True)
def a_value_of_many_types(folder):
    """A sequence of sequences of ... of a tensor."""
    kind = field(1, varint(1 << 3) + varint(1))
    for _ in range(80):
        kind = field(4, field(1, kind))
    put(folder, bytes_of() + field(GRAPH, field(13, field(1, b"m") + field(2, kind))))


@written("")
def tensors_of_a_negative_version(folder):
    put(folder, bytes_of() + varint(1 << 3) + varint(-1))


@model("")
def a_version_of_nothing():
    proto = raw(RELU)
    proto.opset_import[0].version = 0
    return proto


@model("")
def a_version_of_the_least_number():
    proto = raw(RELU)
    proto.opset_import[0].version = -(1 << 63)
    return proto


@model("error: ")
def a_version_without_end():
    proto = raw(RELU)
    proto.opset_import[0].version = (1 << 63) - 1
    return proto


@model("")
def two_versions_of_one_domain():
    proto = raw(RELU)
    proto.opset_import.append(helper.make_opsetid("", 1))
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 26))
    return proto


@model("")
def a_domain_that_a_terminal_would_obey():
    proto = raw(helper.make_node("Relu", ["x"], ["y"], domain="\x1b[31m\u202e\n"))
    proto.opset_import.append(helper.make_opsetid("\x1b[31m\u202e\n", 1))
    return proto


@model("")
def a_model_of_the_first_version():
    proto = raw(RELU)
    proto.ir_version = 1
    del proto.opset_import[:]
    return proto


@model("error: ")
def a_model_for_training():
    proto = raw(RELU)
    proto.training_info.add().algorithm.CopyFrom(proto.graph)
    return proto


@model("")
def notes_of_quantised_tensors():
    proto = raw(RELU)
    for name in ("x", "nothing", "\x1b[31m"):
        note = proto.graph.quantization_annotation.add(tensor_name=name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="missing\n")
    return proto


@model("error: ")
def a_sparse_tensor_of_huge_indices():
    proto = raw(RELU)
    sparse = proto.graph.sparse_initializer.add(dims=[1 << 40])
    sparse.values.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [(1 << 62)]))
    return proto


@model("")
def an_output_that_is_an_input():
    proto = raw(RELU)
    proto.graph.output.append(proto.graph.input[0])
    return proto


@model("")
def an_output_that_is_stored():
    return with_output("w")


def with_output(name: str) -> onnx.ModelProto:
    proto = raw(RELU, stored={"w": np.ones((3, 3), np.float32)})
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return proto


@model("error: ")
def an_output_of_nothing():
    return with_output("missing")


@model("")
def an_output_without_a_name():
    return with_output("")


@model("")
def an_output_twice():
    return with_output("y")


@model("")
def no_outputs():
    proto = raw(RELU)
    del proto.graph.output[:]
    return proto


@model("")
def no_inputs():
    proto = raw(helper.make_node("Relu", ["w"], ["y"]), stored={"w": np.ones((3, 3), np.float32)})
    del proto.graph.input[:]
    return proto


@model("")
def an_input_that_is_stored_too():
    proto = raw(helper.make_node("MatMul", ["x", "w"], ["y"]), stored={"w": np.ones((8, 3), np.float32)})
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.INT64, [-5, 1 << 62]))
    return proto


@model("error: ")
def a_cycle_of_two():
    return raw(helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), RELU)


@model("error: ")
def an_operator_that_reads_itself():
    return raw(helper.make_node("Add", ["x", "y"], ["y"]))


@model("error: ")
def an_operator_that_makes_an_input():
    return raw(helper.make_node("Relu", ["x"], ["x"]), RELU)


@model("error: ")
def an_operator_that_makes_one_name_twice():
    return raw(helper.make_node("Split", ["x"], ["y", "y"], num_outputs=2, axis=1))


@model("")
def an_operator_without_a_type():
    return raw(helper.make_node("", ["x"], ["y"]))


def branched(then: onnx.GraphProto, other: onnx.GraphProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    return raw(*nodes, stored={"w": np.ones((8, 8), np.float32)})


def body(*nodes: onnx.NodeProto, gives=("b",), takes=(), stored=()) -> onnx.GraphProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in gives]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in takes]
    return helper.make_graph(list(nodes), "b", inputs, values, list(stored))


SOUND = body(helper.make_node("MatMul", ["x", "w"], ["b"]))


@model("")
def branches_of_other_counts():
    return branched(SOUND, body(helper.make_node("Relu", ["x"], ["b"]), gives=("b", "b")))


@model("")
def a_branch_that_gives_nothing():
    return branched(SOUND, body(helper.make_node("Relu", ["x"], ["b"]), gives=()))


@model("")
def a_branch_that_reads():
    return branched(SOUND, body(helper.make_node("Relu", ["i"], ["b"]), takes=("i",)))


@model("")
def a_branch_that_is_one_graph_twice():
    return branched(SOUND, SOUND)


@model("")
def a_branch_that_gives_what_stands_around_it():
    return branched(SOUND, body(helper.make_node("Relu", ["x"], ["b"]), gives=("x",)))


@model("")
def a_branch_that_hides_names():
    inner = helper.make_node("MatMul", ["x", "w"], ["b"])
    hidden = numpy_helper.from_array(np.zeros((8, 8), np.float32), "w")
    return branched(body(inner, stored=[hidden]), SOUND)


@model("error: ")
def a_branch_that_reads_its_own_result():
    return branched(SOUND, body(helper.make_node("Relu", ["y"], ["b"])))


@model("error: ")
def a_branch_that_reads_another_branch():
    first = body(helper.make_node("MatMul", ["x", "w"], ["secret"]), gives=("secret",))
    return branched(first, body(helper.make_node("Relu", ["secret"], ["b"])))


@model("")
def a_scan_of_nothing():
    inner = body(helper.make_node("Relu", ["x"], ["b"]))
    return raw(helper.make_node("Scan", ["x"], ["y"], body=inner, num_scan_inputs=0))


@model("")
def a_scan_of_many():
    inner = body(helper.make_node("Relu", ["i"], ["b"]), takes=("i",))
    return raw(helper.make_node("Scan", ["x"], ["y"], body=inner, num_scan_inputs=1 << 40, scan_input_axes=[1 << 40]))


@model("")
def a_loop_without_a_body():
    return raw(helper.make_node("Loop", ["", "", "x"], ["y"]))


@model("")
def a_loop_of_negative_trips():
    inner = body(helper.make_node("Relu", ["s"], ["b"]), gives=("c", "b"), takes=("i", "c", "s"))
    return raw(helper.make_node("Loop", ["n", "", "x"], ["y"], body=inner), stored={"n": np.array(-(1 << 63))})


@model("")
def a_loop_that_carries_nothing():
    inner = body(helper.make_node("Relu", ["x"], ["b"]), gives=("c",), takes=("i", "c"))
    return raw(helper.make_node("Loop", ["n", ""], ["y"], body=inner), stored={"n": np.array(3)})


@model("")
def a_map_over_a_sequence_of_none():
    inner = body(helper.make_node("Relu", ["i"], ["b"]), takes=("i",))
    nodes = [helper.make_node("SequenceEmpty", [], ["s"]), helper.make_node("SequenceMap", ["s"], ["t"], body=inner)]
    return raw(*nodes, helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0))


@model("")
def sequences_in_sequences():
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("SequenceInsert", ["s", "s"], ["t"]),
        helper.make_node("SequenceAt", ["t", "n"], ["y"]),
    ]
    return raw(*nodes, stored={"n": np.array(1 << 40)})


@model("")
def an_optional_of_nothing():
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Optional", [], ["o"], type=kind),
        helper.make_node("OptionalGetElement", ["o"], ["y"]),
    ]
    return raw(*nodes)


def functions(*made: onnx.FunctionProto) -> onnx.ModelProto:
    return raw(helper.make_node(made[0].name, ["x"], ["y"], domain="my"), functions=list(made))


def function(name: str, *nodes: onnx.NodeProto, takes=("a",), gives=("b",), imports=20) -> onnx.FunctionProto:
    return helper.make_function(
        "my",
        name,
        list(takes),
        list(gives),
        list(nodes),
        [helper.make_opsetid("", imports), helper.make_opsetid("my", 1)],
    )


INNER = helper.make_node("Relu", ["a"], ["b"])


@model("error: ")
def a_function_of_one_name_twice():
    return functions(function("f", INNER), function("f", helper.make_node("Tanh", ["a"], ["b"])))


@model("error: ")
def a_function_of_the_standard():
    made = function("Relu", helper.make_node("Tanh", ["a"], ["b"]))
    made.domain = ""
    return raw(RELU, functions=[made])


@model("")
def a_function_that_makes_nothing():
    return functions(function("f", gives=("b",)))


@model("")
def a_function_that_gives_what_it_takes():
    return functions(function("f", gives=("a",)))


@model("")
def a_function_of_another_version():
    return functions(function("f", INNER, imports=1))


@model("")
def a_function_called_with_more():
    return raw(helper.make_node("f", ["x"] * 50, ["y"], domain="my"), functions=[function("f", INNER)])


@model("")
def a_function_called_with_less():
    return raw(helper.make_node("f", [], ["y"], domain="my"), functions=[function("f", INNER)])


@model("")
def a_function_with_an_attribute_that_is_missing():
    node = helper.make_node("Softmax", ["a"], ["b"])
    given = node.attribute.add(name="axis", type=onnx.AttributeProto.INT)
    given.ref_attr_name = "k"
    made = function("f", node)
    made.attribute.append("k")
    return functions(made)


@model("error: ")
def a_function_that_takes_one_name_twice():
    return functions(function("f", helper.make_node("Add", ["a", "a"], ["b"]), takes=("a", "a")))


@model("")
def a_function_without_a_name():
    made = function("", INNER)
    return raw(RELU, functions=[made])


def odd(kind: int, dims, **content) -> onnx.ModelProto:
    """A model that stores a tensor which nothing reads."""
    return raw(RELU, stored={"w": TensorProto(name="w", data_type=kind, dims=dims, **content)})


@model("error: ")
def numbers_that_are_cut_short():
    return odd(TensorProto.FLOAT, [4], raw_data=b"\0" * 15)


@model("error: ")
def numbers_that_are_more():
    return odd(TensorProto.FLOAT, [4], raw_data=b"\0" * 17)


@model("error: ")
def numbers_that_are_stored_twice():
    return odd(TensorProto.FLOAT, [1], raw_data=b"\0" * 4, float_data=[1.0])


@model("error: ")
def numbers_in_the_field_of_another_type():
    return odd(TensorProto.FLOAT, [1], int64_data=[1])


@model("error: ")
def a_negative_dimension():
    return odd(TensorProto.FLOAT, [-1, -1], raw_data=b"\0" * 4)


@model("error: ")
def dimensions_that_overflow_to_one():
    return odd(TensorProto.FLOAT, [1 << 32, 1 << 32, 1 << 32, 1 << 32], raw_data=b"")


@model("")
def numbers_beyond_their_type():
    return odd(TensorProto.INT8, [2], int32_data=[1 << 30, -(1 << 31)])


@model("")
def truths_beyond_one():
    return odd(TensorProto.BOOL, [2], raw_data=b"\x05\xff")


for kind in ("INT4", "UINT4", "FLOAT4E2M1", "FLOAT8E5M2", "FLOAT8E8M0", "BFLOAT16", "COMPLEX128", "STRING"):

    def make(kind=kind):
        number = getattr(TensorProto, kind)
        if kind == "STRING":
            return odd(number, [3], string_data=[b"\xff", b"\x1b[31m", b"a" * 9])
        width = {"COMPLEX128": 16, "BFLOAT16": 2}.get(kind, 1)
        return odd(number, [width if width == 1 else 1] if kind[-1] != "4" else [3],
                   raw_data=b"\xff" * (2 if "4" in kind[:6] and kind != "FLOAT8E5M2" else width))  # fmt: skip

    make.__name__ = f"stored_numbers_of_type_{kind.lower()}"
    model("")(make)


def outside(**entries: object) -> onnx.ModelProto:
    proto = raw(
        helper.make_node("MatMul", ["x", "w"], ["y"]), stored={"w": TensorProto(name="w", data_type=1, dims=[8, 4])}
    )
    held = proto.graph.initializer[0]
    held.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        held.external_data.add(key=key, value=str(value))
    return proto


def beside(folder, content: bytes = bytes(4096), name: str = "m.data", **entries: object) -> None:
    (folder / MODEL).write_bytes(outside(**{"location": name, **entries}).SerializeToString())
    if content:
        (folder / name).write_bytes(content)


for name, entries in {
    "an_offset_that_is_negative": {"offset": -8},
    "an_offset_that_is_no_number": {"offset": "0x10"},
    "an_offset_of_many_digits": {"offset": "9" * 5000},
    "an_offset_in_other_digits": {"offset": "\u0661\u0662"},
    "an_offset_that_is_odd": {"offset": 3},
    "a_length_that_is_short": {"length": 4},
    "a_length_of_nothing": {"length": 0},
    "a_checksum_that_is_wrong": {"checksum": "0" * 40},
    "a_location_of_dots": {"location": "."},
    "a_location_up_and_down": {"location": "sub/../../here/m.data"},
    "a_location_with_a_drive": {"location": "C:\\m.data"},
    "a_location_with_a_nul": {"location": "m.data\0.txt"},
    "a_location_of_300_letters": {"location": "m" * 300},
    "a_location_of_the_home": {"location": "~/m.data"},
    "a_location_with_escapes": {"location": "\x1b[31m\u202e.data"},
    "a_location_in_proc": {"location": "/proc/self/mem"},
    "a_location_that_is_data_npz": {"location": "data.npz"},
}.items():

    def build(folder, entries=entries):
        beside(folder, **entries)

    build.__name__ = f"data_at_{name}"
    written("")(build)


@written("")
def data_that_may_not_be_read(folder):
    beside(folder)
    (folder / "m.data").chmod(0)


@written("error: ")
def data_below_a_linked_folder(folder):
    (folder / "sub").symlink_to("/")
    (folder / MODEL).write_bytes(outside(location="sub/etc/passwd").SerializeToString())


@written("error: ")
def data_that_are_a_device(folder):
    (folder / MODEL).write_bytes(outside(location="m.data").SerializeToString())
    (folder / "m.data").symlink_to("/dev/urandom")


@written("")
def data_of_two_tensors_that_overlap(folder):
    proto = outside(location="m.data", offset=0)
    again = proto.graph.initializer.add()
    again.CopyFrom(proto.graph.initializer[0])
    again.name = "w2"
    again.external_data[1].value = "4"
    (folder / MODEL).write_bytes(proto.SerializeToString())
    (folder / "m.data").write_bytes(np.linspace(-1, 1, 64, dtype=np.float32).tobytes())


@written("error: ")
def data_described_twice(folder):
    proto = outside(location="m.data")
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    (folder / MODEL).write_bytes(proto.SerializeToString())
    (folder / "m.data").write_bytes(bytes(4096))
