"""Hostile and broken files are refused in one sentence that names the file; sound ones load."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mal_graph.errors import FileError, MalGraphError, UnsupportedModel
from mal_graph.graph import LayerGraph
from mal_graph_adapters.onnx_format import guard
from mal_graph_adapters.onnx_format.file import OnnxAdapter

FLOAT = TensorProto.FLOAT


def tensor(name: str, shape: tuple[int, ...]) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def value(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def graph_of(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [value("x", "batch", 4)], [value("y", None, None)], list(initializers))


def model_of(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = (), opset: int = 20) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph_of(*nodes, initializers=initializers), opset_imports=imports, ir_version=10)


def linear() -> onnx.ModelProto:
    return model_of(helper.make_node("MatMul", ["x", "w"], ["y"], name="mm"), initializers=(tensor("w", (4, 3)),))


def stored_outside(proto: TensorProto, **entries: str) -> TensorProto:
    proto.ClearField("raw_data")
    proto.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        proto.external_data.add(key=key, value=text)
    return proto


def constant(name: str, held: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=held)


def branch(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", [], [value("out", None, None)], list(initializers))


def with_branch(body: onnx.GraphProto) -> onnx.ModelProto:
    condition = constant("c", numpy_helper.from_array(np.array(True), "c"))
    return model_of(condition, helper.make_node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=body))


def with_function(*body: onnx.NodeProto) -> onnx.ModelProto:
    model = model_of(helper.make_node("Twice", ["x"], ["y"], domain="my"))
    model.functions.append(helper.make_function("my", "Twice", ["a"], ["b"], list(body), [helper.make_opsetid("", 20)]))
    return model


def refusal(path: Path, content: bytes | onnx.ModelProto, kind: type[MalGraphError] = FileError) -> str:
    """The message the loader refuses `content` with, checked to be one line that names the file."""
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(MalGraphError) as caught:
        OnnxAdapter().load(path)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "; " in message, "the message says what to do"
    return message


def loaded(path: Path, model: onnx.ModelProto) -> LayerGraph:
    path.write_bytes(model.SerializeToString())
    return OnnxAdapter().load(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


# Files that are no model.


def test_a_missing_file_a_folder_and_a_forbidden_name_are_named(tmp_path: Path) -> None:
    for given, found in [("gone.onnx", "no such file"), (".", "a folder"), ("a\0b", "null"), ("n" * 300, "too long")]:
        with pytest.raises(FileError, match=f"cannot load .*{found}"):
            OnnxAdapter().load(tmp_path / given)


def test_an_empty_file_is_refused(path: Path) -> None:
    assert "the file is empty; export or download the model again" in refusal(path, b"")


def test_a_file_over_two_gibibytes_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(FileError, match="2147483648 bytes and protobuf ends at 2 GiB; keep weights as external data"):
        OnnxAdapter().load(path)


@pytest.mark.parametrize("content", [b"hello, world", b"\x00" * 64, b"\xff" * 64, bytes(range(256)), b"{'a': 1}"])
def test_garbage_is_refused(path: Path, content: bytes) -> None:
    assert "no graph, so it is no ONNX model or was cut short" in refusal(path, content)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"\n <!DOCTYPE html><html>404</html>", "HTML or XML page, perhaps a failed download; download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"PK\x03\x04....archive/data.pkl", "PyTorch checkpoint; export the model to ONNX"),
        (b"\x89HDF\r\n", "Keras model; convert"),
    ],
)
def test_a_file_of_another_format_is_recognised(path: Path, content: bytes, advice: str) -> None:
    assert advice in refusal(path, content)


def test_every_truncation_is_refused(path: Path) -> None:
    model = linear()
    del model.opset_import[1:]
    content = model.SerializeToString()
    for length in range(1, len(content)):
        refusal(path, content[:length])


def test_deep_nesting_is_refused(path: Path) -> None:
    model = with_branch(branch())
    body = model.graph.node[1].attribute[0].g
    for _ in range(60):
        attribute = body.node.add(op_type="If", input=["c"], output=["out"]).attribute.add()
        attribute.name, attribute.type, body = "then_branch", onnx.AttributeProto.GRAPH, attribute.g
    assert "no graph" in refusal(path, model)


def test_a_model_without_graph_or_operators_is_refused(path: Path) -> None:
    assert "no graph" in refusal(path, helper.make_model(onnx.GraphProto()).SerializeToString()[:3])
    assert "its graph holds no operator" in refusal(path, model_of())


def test_an_unreadable_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "Permission denied; check its permissions" in refusal(path, linear())


def test_flipped_bytes_never_raise_anything_else(path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = [linear(), with_branch(branch(helper.make_node("Identity", ["x"], ["out"]))), fill_of([2, 3])]
    for model in sources:
        content = np.frombuffer(model.SerializeToString(), np.uint8)
        for _ in range(300):
            mutated = content.copy()
            mutated[rng.integers(0, len(content), 2)] = rng.integers(0, 256, 2)
            path.write_bytes(mutated.tobytes())
            with contextlib.suppress(MalGraphError):
                graph = OnnxAdapter().load(path)
                for weight in graph.weights.values():
                    weight.read()
                OnnxAdapter().save(graph, path)


# Versions.


def test_a_newer_opset_is_unsupported_and_both_numbers_are_named(path: Path) -> None:
    model = model_of(helper.make_node("Relu", ["x"], ["y"]), opset=27)
    message = refusal(path, model, UnsupportedModel)
    assert "opset 27 and onnxruntime runs up to 26; export with opset 26 or lower" in message


def test_a_newer_ir_version_is_unsupported(path: Path) -> None:
    model = linear()
    model.ir_version = 14
    assert "IR version 14 and onnxruntime loads up to 13" in refusal(path, model, UnsupportedModel)


# External data.


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", "C:secret", "", "a\0"],
)
@pytest.mark.parametrize("holder", ["initializer", "attribute", "subgraph", "function"])
def test_external_data_outside_the_folder_is_refused(path: Path, location: str, holder: str) -> None:
    (path.parent.parent / "secret.bin").write_bytes(b"s" * 48)
    held = stored_outside(tensor("w", (4, 3)), location=location)
    model = {
        "initializer": lambda: model_of(helper.make_node("MatMul", ["x", "w"], ["y"]), initializers=(held,)),
        "attribute": lambda: model_of(constant("w", held), helper.make_node("MatMul", ["x", "w"], ["y"])),
        "subgraph": lambda: with_branch(branch(helper.make_node("MatMul", ["x", "w"], ["out"]), initializers=(held,))),
        "function": lambda: with_function(constant("w", held), helper.make_node("MatMul", ["a", "w"], ["b"])),
    }[holder]()
    message = refusal(path, model)
    assert "which is not a path inside the model's folder" in message
    assert "'w'" in message


def external(path: Path, **entries: str) -> onnx.ModelProto:
    held = stored_outside(tensor("w", (4, 3)), **entries)
    return model_of(helper.make_node("MatMul", ["x", "w"], ["y"]), initializers=(held,))


def test_sound_external_data_loads_and_stays_unread(path: Path) -> None:
    data = path.with_name("w.bin")
    data.write_bytes(b"...." + np.arange(12, dtype=np.float32).tobytes())
    graph = loaded(path, external(path, location="w.bin", offset="4", length="48"))
    data.write_bytes(b"...." + np.arange(100, 112, dtype=np.float32).tobytes())
    assert graph.weights["w"].read()[0, 0] == 100, "read when asked for, not when loaded"


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({"offset": "-4"}, "external offset '-4', which is no count of bytes"),
        ({"offset": "4e0"}, "external offset '4e0'"),
        ({"offset": "9" * 30}, "no count of bytes"),
        ({"offset": "9" * 19}, "which has 48 bytes"),
        ({"offset": "4"}, "ends at byte 52 of 'w.bin', which has 48 bytes"),
        ({"length": "40"}, r"has 40 bytes of external data where shape [4, 3] asks for 48"),
        ({"length": "0x30"}, "external length '0x30'"),
        ({"basepath": "/"}, "unknown key 'basepath'"),
    ],
)
def test_external_data_that_does_not_fit_is_refused(path: Path, entries: dict[str, str], found: str) -> None:
    path.with_name("w.bin").write_bytes(b"\0" * 48)
    assert found in refusal(path, external(path, location="w.bin", **entries))


def test_a_key_given_twice_is_refused(path: Path) -> None:
    path.with_name("w.bin").write_bytes(b"\0" * 48)
    model = external(path, location="w.bin")
    model.graph.initializer[0].external_data.add(key="location", value="v.bin")
    assert "describes its external data twice" in refusal(path, model)


def test_a_missing_data_file_is_named_with_its_folder(path: Path) -> None:
    assert f"in 'w.bin', which is missing in {path.parent}" in refusal(path, external(path, location="w.bin"))


def test_links_to_other_files_are_refused(path: Path) -> None:
    secret = path.parent.parent / f"{path.parent.name}-secret.bin"
    secret.write_bytes(b"s" * 48)
    path.with_name("soft.bin").symlink_to(secret)
    assert "a symbolic link and not the file itself" in refusal(path, external(path, location="soft.bin"))
    os.link(secret, path.with_name("hard.bin"))
    assert "a hard link to a file of another name" in refusal(path, external(path, location="hard.bin"))
    folder = path.parent.parent / f"{path.parent.name}-folder"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"s" * 48)
    path.with_name("sub").symlink_to(folder, target_is_directory=True)
    assert "not a path inside the model's folder" in refusal(path, external(path, location="sub/w.bin"))
    path.with_name("real").mkdir()
    assert "which is not a file" in refusal(path, external(path, location="real"))


def test_data_given_inside_and_outside_is_refused(path: Path) -> None:
    path.with_name("w.bin").write_bytes(b"\0" * 48)
    model = external(path, location="w.bin")
    model.graph.initializer[0].float_data.append(1)
    assert "strings and tensors with values of their own cannot" in refusal(path, model)


# Embedded tensors.


def broken_tensor(change: Callable[[TensorProto], object]) -> onnx.ModelProto:
    model = linear()
    change(model.graph.initializer[0])
    return model


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t.dims.append(2), "'w' holds 48 bytes where shape [4, 3, 2] asks for 96"),
        (lambda t: t.dims.append(-1), "negative dimension -1"),
        (lambda t: t.dims.extend([2**40, 2**40]), "holds 48 bytes where"),
        (lambda t: t.dims.extend([1] * 70), "72 dimensions and numpy ends at 64"),
        (lambda t: t.float_data.append(1), "holds its values twice, as raw_data and float_data"),
        (lambda t: t.ClearField("raw_data"), "holds 0 values where shape [4, 3] asks for 12"),
        (lambda t: setattr(t, "data_type", 99), "unknown element type 99"),
        (lambda t: setattr(t, "data_type", 0), "unknown element type 0"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "holds 48 bytes"),
        (lambda t: setattr(t.segment, "begin", 1), "split into segments"),
        (lambda t: (t.ClearField("raw_data"), t.int32_data.append(1)), "holds int32_data where its element type asks"),
    ],
)
def test_a_broken_tensor_is_refused(path: Path, change: Callable[[TensorProto], object], found: str) -> None:
    assert found in refusal(path, broken_tensor(change))


def fill_of(shape: list[int]) -> onnx.ModelProto:
    fill = helper.make_node("ConstantOfShape", ["s"], ["w"], name="fill")
    stored = numpy_helper.from_array(np.array(shape, np.int64), "s")
    return model_of(fill, helper.make_node("MatMul", ["x", "w"], ["y"]), initializers=(stored,))


def test_a_fill_is_bounded(path: Path) -> None:
    assert loaded(path, fill_of([4, 2**28])).weights["w"].shape == (4, 2**28)
    assert "'fill' (ConstantOfShape) makes a tensor of 1.64e+04 MiB or more" in refusal(path, fill_of([4, 2**32]))
    assert "negative shape [4, -1]" in refusal(path, fill_of([4, -1]))


# Names and links.


def test_a_name_made_twice_is_refused(path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    assert "'y' is made twice as value of the graph" in refusal(path, model_of(relu, relu))
    twin = tensor("w", (4, 3))
    matmul = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert "'w' is made twice as initializer" in refusal(path, model_of(matmul, initializers=(twin, twin)))
    over = helper.make_node("Relu", ["x"], ["w"])
    assert "'w' is made twice as value" in refusal(path, model_of(over, matmul, initializers=(twin,)))
    same = [helper.make_node("Relu", ["a"], ["b"])] * 2
    assert "'b' is made twice as value of function 'Twice'" in refusal(path, with_function(*same))


def test_an_initializer_without_a_name_is_refused(path: Path) -> None:
    model = linear()
    model.graph.initializer.append(tensor("", (1,)))
    assert "the graph has an initializer without a name" in refusal(path, model)


def test_a_tensor_that_nothing_makes_is_refused(path: Path) -> None:
    lost = helper.make_node("Add", ["x", "ghost"], ["y"], name="sum")
    assert "node 'sum' (Add) reads 'ghost', which nothing makes" in refusal(path, model_of(lost))
    inner = branch(helper.make_node("Add", ["x", "ghost"], ["out"]))
    assert "reads 'ghost'" in refusal(path, with_branch(inner))
    assert "nothing makes the output 'y'" in refusal(path, model_of(helper.make_node("Relu", ["x"], ["z"])))


def test_a_cycle_is_refused_wherever_it_is(path: Path) -> None:
    a, b = helper.make_node("Add", ["x", "v"], ["u"], name="a"), helper.make_node("Relu", ["u"], ["v"], name="b")
    end = helper.make_node("Relu", ["v"], ["y"])
    assert "a cycle through node 'b' (Relu)" in refusal(path, model_of(a, b, end))
    inner = helper.make_node("Relu", ["v"], ["out"])
    assert "a cycle through node" in refusal(path, with_branch(branch(a, b, inner)))
    inside = helper.make_node("Relu", ["b"], ["b2"]), helper.make_node("Relu", ["b2"], ["b"])
    assert "a cycle through node" in refusal(path, with_function(*inside))


def test_an_unsorted_graph_loads_in_order(path: Path) -> None:
    model = model_of(helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Exp", ["x"], ["h"]))
    assert [node.op for node in loaded(path, model).nodes] == ["Exp", "Relu"]


def test_a_name_that_is_not_text_is_refused(path: Path) -> None:
    content = linear().SerializeToString().replace(b"mm", b"\xff\xfe")
    assert r"the name or note b'\xff\xfe', which is not UTF-8" in refusal(path, content)


def test_a_text_of_an_attribute_that_is_not_text_is_refused(path: Path) -> None:
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="l", hidden_size=2, direction="bidirectional")
    texts = helper.make_node("Constant", [], ["y"], name="t", value_strings=["sound", "bidirectional"])
    for node, name in ((lstm, "direction"), (texts, "value_strings")):
        content = model_of(node).SerializeToString().replace(b"bidirectional", b"bidirection\xff\xfe")
        assert f"has the attribute {name!r} with a text that is not UTF-8" in refusal(path, content)


# Operators.


def test_an_operator_against_the_standard_is_refused(path: Path) -> None:
    for node, rule in [
        (helper.make_node("Relu", ["x", "x"], ["y"]), "input size 2 not in range"),
        (helper.make_node("Concat", ["x"], ["y"]), "Required attribute 'axis' is missing"),
        (helper.make_node("Relux", ["x"], ["y"], name="r"), "breaks the standard (No Op registered for Relux"),
    ]:
        assert rule in refusal(path, model_of(node))
        inner = onnx.NodeProto.FromString(node.SerializeToString())
        inner.output[0] = "out"
        assert rule in refusal(path, with_branch(branch(inner)))


def test_an_attribute_without_type_or_function_is_refused(path: Path) -> None:
    node = helper.make_node("Strange", ["x"], ["y"], domain="my", name="n")
    node.attribute.add(name="k")
    assert "'n' (Strange) has the attribute 'k' without a type" in refusal(path, model_of(node))
    node.attribute[0].type, node.attribute[0].ref_attr_name = onnx.AttributeProto.TENSOR, "k"
    assert "takes 'k' from a function that it is not in" in refusal(path, model_of(node))


def test_control_characters_in_names_do_not_reach_the_terminal(path: Path) -> None:
    message = refusal(path, model_of(helper.make_node("Re\n\x1b[31mlu", ["x"], ["y"])))
    assert "(Re??[31mlu)" in message


def test_operators_of_other_domains_load(path: Path) -> None:
    for domain in ("my", "never.declared"):
        graph = loaded(path, model_of(helper.make_node("Strange", ["x"], ["y"], domain=domain, knob=3)))
        assert graph.nodes[0].op == f"{domain}.Strange"


def test_sparse_tensors_are_unsupported(path: Path) -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [1], [1.0]), helper.make_tensor("i", TensorProto.INT64, [1], [2]), [4]
    )
    model = linear()
    model.graph.sparse_initializer.append(sparse)
    assert "stores 'w' as a sparse tensor; store the values densely" in refusal(path, model, UnsupportedModel)
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse, name="k")
    assert "'k' (Constant) holds a sparse tensor" in refusal(path, model_of(node), UnsupportedModel)
    inner = helper.make_node("Constant", [], ["out"], sparse_value=sparse)
    assert "holds a sparse tensor" in refusal(path, with_branch(branch(inner)), UnsupportedModel)


def test_maps_are_unsupported_but_as_outputs(path: Path) -> None:
    model = linear()
    model.graph.input.add(name="words").type.map_type.key_type = TensorProto.STRING
    assert "'words' of the graph is a map and not a tensor; export with" in refusal(path, model, UnsupportedModel)


def with_functions(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """A model that calls the first of some functions; each passes its input through those it calls."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]
    functions = []
    for name, called in calls.items():
        names = ["x", *(f"v{i}" for i in range(len(called)))]
        nodes = [helper.make_node(op, [names[i]], [names[i + 1]], domain="my") for i, op in enumerate(called)]
        nodes.append(helper.make_node("Relu", [names[-1]], ["y"]))
        functions.append(helper.make_function("my", name, ["x"], ["y"], nodes, opsets))
    model = model_of(helper.make_node(next(iter(calls)), ["x"], ["y"], domain="my"))
    model.functions.extend(functions)
    return model


def test_functions_that_call_themselves_are_broken(path: Path) -> None:
    assert "its function 'my.F' calls itself; export it with" in refusal(path, with_functions({"F": ["F"]}))
    circle = refusal(path, with_functions({"F": ["G"], "G": ["H"], "H": ["F"]}))
    assert re.search(r"its function 'my.\w' calls itself through 'my.\w'; export it with functions that end", circle)


def test_a_function_may_be_called_by_several(path: Path) -> None:
    path.write_bytes(with_functions({"F": ["G", "H"], "G": ["H"], "H": []}).SerializeToString())
    assert len(OnnxAdapter().load(path).nodes) == 4


def test_functions_that_double_all_the_way_are_broken(path: Path) -> None:
    """Forty functions, each of which calls the next one twice, are a million millions of operators."""
    calls = {f"F{i}": [f"F{i + 1}"] * 2 for i in range(40)}
    assert "its functions unfold to 4398046511101 operators" in refusal(path, with_functions({**calls, "F40": []}))


def test_functions_that_are_called_too_often_are_broken(path: Path) -> None:
    """Each call gets names of its own, for which all of the earlier ones are tried."""
    model = with_functions({"F": ["G"] * 7000, "G": []})
    assert "its functions unfold to 14001 operators and tensors of the name ''; export it without" in refusal(
        path, model
    )
    path.write_bytes(with_functions({"F": ["G"] * 300, "G": []}).SerializeToString())
    assert len(OnnxAdapter().load(path).nodes) == 301


def test_training_graphs_are_unsupported(path: Path) -> None:
    model = linear()
    model.training_info.add()
    assert "training graphs beside the model; export it for inference" in refusal(path, model, UnsupportedModel)


@pytest.mark.parametrize(
    ("op", "domain"),
    [
        ("MatMulNBits", "com.microsoft"),
        ("MatMulIntegerToFloat", "com.microsoft"),
        ("DynamicQuantizeLSTM", "com.microsoft"),
        ("DynamicQuantizeMatMul", "com.microsoft"),
        ("QLinearAdd", "com.microsoft"),
        ("QAttention", "com.microsoft"),
        ("QGemm", "com.microsoft"),
        ("QMoE", "com.microsoft"),
        ("DynamicQuantizeLinear", ""),
    ],
)
def test_integer_arithmetic_is_unsupported_wherever_it_is(path: Path, op: str, domain: str) -> None:
    def node(source: str, target: str) -> onnx.NodeProto:
        outputs = [target, "s", "z"] if op == "DynamicQuantizeLinear" else [target]
        return helper.make_node(op, [source], outputs, domain=domain)

    for model in (model_of(node("x", "y")), with_branch(branch(node("x", "out"))), with_function(node("a", "b"))):
        message = refusal(path, model, UnsupportedModel)
        assert f"({op}) computes with quantised integers; merge the float models, then quantise" in message


def test_quantised_storage_with_float_arithmetic_loads(path: Path) -> None:
    stored = numpy_helper.from_array(np.ones((4, 3), np.int8), "q")
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    nodes = helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])
    assert loaded(path, model_of(*nodes, initializers=(stored, scale))).weights["q"].dtype == np.int8


def test_the_pattern_spares_float_operators() -> None:
    spared = ("QuantizeLinear", "DequantizeLinear", "QuickGelu", "MatMul", "FusedMatMul", "GroupQueryAttention", "Mul")
    assert not any(guard.INTEGER_ARITHMETIC.fullmatch(op) for op in spared)
