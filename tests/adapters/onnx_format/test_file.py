"""Loading and saving loses nothing, whatever the model holds, and a failed save changes nothing."""

import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from mal_graph.errors import DataError, FileError, MalGraphError, UnsupportedModel
from mal_graph.graph import LayerGraph, weight_of
from mal_graph_adapters.onnx_format import data_files
from mal_graph_adapters.onnx_format import file as onnx_file
from mal_graph_adapters.onnx_format.file import OnnxAdapter
from mal_graph_adapters.onnx_format.onnxruntime_runner import OrtRunner

FLOAT = TensorProto.FLOAT
CORPUS = Path(onnx.__file__).parent / "backend" / "test" / "data"
FILES = sorted(CORPUS.rglob("*.onnx"))
adapter = OnnxAdapter()


def value(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray[Any, Any]] | None = None,
    outputs: tuple[str, ...] = ("y",),
    ir_version: int = 10,
    opset: int = 20,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(array, name) for name, array in (initializers or {}).items()]
    inputs = [value("x", "batch", 4)]
    if ir_version < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored]
    graph = helper.make_graph(nodes, "g", inputs, [value(name, None, None) for name in outputs], stored)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def mlp(seed: int = 0) -> onnx.ModelProto:
    """x @ w + b with an initializer, a Constant and a ConstantOfShape as weights."""
    rng = np.random.default_rng(seed)
    bias = numpy_helper.from_array(rng.standard_normal(3).astype(np.float32), "b")
    half = numpy_helper.from_array(np.array([0.5], np.float32), "half")
    nodes = [
        helper.make_node("Constant", [], ["b"], name="bias", value=bias),
        helper.make_node("ConstantOfShape", ["s"], ["f"], name="fill", value=half),
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["a"], name="add"),
        helper.make_node("Mul", ["a", "f"], ["y"], name="mul"),
    ]
    stored = {"w": rng.standard_normal((4, 3)).astype(np.float32), "s": np.array([3]), "n": np.array([7, 8])}
    return model_of(nodes, stored)


def write(path: Path, model: onnx.ModelProto, **how: Any) -> Path:
    onnx.save(model, path, **how)
    return path


def saved(graph: LayerGraph, path: Path) -> onnx.ModelProto:
    adapter.save(graph, path)
    return onnx.load(path)


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what carries no meaning: empty texts, the order of unordered fields, how tensors are stored."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for graph in graphs(model.graph):
        made = {out for node in graph.node for out in node.output}
        kept = [info for info in graph.value_info if info.name in made]
        graph.ClearField("value_info")
        graph.value_info.extend(kept)
    normalise(model)
    return model


UNORDERED = ("metadata_props", "opset_import", "value_info", "quantization_annotation", "quant_parameter_tensor_names")


def normalise(message: Any) -> None:
    if isinstance(message, TensorProto) and message.data_type != TensorProto.STRING:
        # As raw bytes: `float_data` and `raw_data` compare equal, and NaNs by their bits.
        raw = numpy_helper.from_array(numpy_helper.to_array(message)).raw_data
        for field in (*message.DESCRIPTOR.fields_by_name,):
            if field.endswith("_data") or field == "data_location":
                message.ClearField(field)
        message.raw_data = raw
    if isinstance(message, onnx.NodeProto):
        while message.output and not message.output[-1]:
            del message.output[-1]
    for field, held in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [held] if hasattr(held, "ListFields") else held:
                normalise(part)
        elif field.name != "dim_value" and not hasattr(held, "append") and not held:
            message.ClearField(field.name)
        if field.name in UNORDERED:
            entries = sorted(held, key=lambda entry: entry.SerializeToString(deterministic=True))
            message.ClearField(field.name)
            getattr(message, field.name).extend(entries)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from graphs(body)


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    left, right = canonical(before), canonical(after)
    if left.SerializeToString(deterministic=True) != right.SerializeToString(deterministic=True):
        assert str(left) == str(right)


def assert_survives(model: onnx.ModelProto, folder: Path) -> None:
    """Two trips through the adapter change nothing."""
    source, first, second = folder / "source.onnx", folder / "first.onnx", folder / "second.onnx"
    write(source, model)
    assert_same(model, saved(adapter.load(source), first))
    assert_same(model, saved(adapter.load(first), second))


@cache
def cases() -> list[Any]:
    return list(collect_testcases())


# Nothing is lost.


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.parent.name}-{file.parent.name}-{file.stem}")
def test_a_round_trip_keeps_every_file_of_the_corpus(file: Path, tmp_path: Path) -> None:
    assert_same(onnx.load(file), saved(adapter.load(file), tmp_path / "model.onnx"))


@pytest.mark.sampled(12)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_a_round_trip_keeps_every_generated_model_or_refuses_it(tmp_path: Path, part: int) -> None:
    source, target, refused = tmp_path / "source.onnx", tmp_path / "target.onnx", 0
    for case in cases()[part::12]:
        source.write_bytes(case.model.SerializeToString())
        try:
            graph = adapter.load(source)
        except UnsupportedModel:
            refused += 1
            continue
        assert_same(case.model, saved(graph, target))
    assert refused < len(cases()) / 48, "only newer opsets and integer arithmetic are refused"


def zoo() -> dict[str, np.ndarray[Any, Any]]:
    """One tensor of every element type, with the values that are easily lost."""
    rng = np.random.default_rng(0)
    bits = {
        name: rng.integers(0, 256, (3, 5, np.dtype(name).itemsize), np.uint8).view(name)[..., 0]
        for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    }
    floats = {
        name: np.array([[-0.0, 0.0, np.inf], [-np.inf, np.nan, 1.5]]).astype(getattr(ml_dtypes, name, name))
        for name in ("float16", "float32", "float64", "complex64", "complex128", "bfloat16", "float8_e5m2")
    }
    small = {
        name: np.arange(7).astype(getattr(ml_dtypes, name))
        for name in ("int4", "uint4", "float4_e2m1fn", "float8_e4m3fn")
    }
    tiny = {name: np.array([0, 1, 1, 0, 1]).astype(getattr(ml_dtypes, name)) for name in ("int2", "uint2")}
    other = {"bool": np.array([True, False]), "scalar": np.float32(-0.0), "empty": np.zeros((0, 3), np.float32)}
    return {**bits, **floats, **small, **tiny, **other}


def zoo_model() -> onnx.ModelProto:
    model = mlp()
    model.ir_version = 13
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in zoo().items())
    model.graph.initializer.append(helper.make_tensor("strings", TensorProto.STRING, [2], [b"\xff raw", b"text" * 99]))
    for data_type in (TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.FLOAT8E4M3FN):
        model.graph.initializer.append(helper.make_tensor(f"typed {data_type}", data_type, [3], [1, 0, 1]))
    return model


def test_every_element_type_survives_bit_for_bit(tmp_path: Path) -> None:
    assert_survives(zoo_model(), tmp_path)


def test_every_element_type_survives_an_edit(tmp_path: Path) -> None:
    graph = adapter.load(write(tmp_path / "zoo.onnx", zoo_model()))
    arrays = {name: np.asarray(array) for name, array in zoo().items()}
    edited = {name: np.roll(array.reshape(-1), 1).reshape(array.shape) for name, array in arrays.items()}
    stored = saved(graph.with_weights(edited), tmp_path / "e.onnx").graph.initializer
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored if tensor.name in edited}
    for name, array in edited.items():
        assert after[name].dtype == array.dtype
        assert after[name].shape == array.shape
        assert after[name].tobytes() == array.tobytes()


def test_notes_everywhere_survive_without_doubling(tmp_path: Path) -> None:
    model = mlp()
    model.producer_name, model.producer_version, model.domain = "maker", "1.2", "org.example"
    model.model_version, model.doc_string = 7, "a model"
    model.graph.doc_string = "a graph"
    holders = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    holders.append(model.graph.node[0].attribute[0].t)
    model.graph.value_info.append(value("m", "batch", 3))
    holders.append(model.graph.value_info[0])
    for i, holder in enumerate(holders):
        holder.doc_string = f"doc {i}"
        holder.metadata_props.add(key="b", value=f"{i}")
        holder.metadata_props.add(key="a", value="")
    annotation = model.graph.quantization_annotation.add(tensor_name="m")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    model.graph.input[0].type.denotation = "TENSOR"
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    assert_survives(model, tmp_path)
    write(tmp_path / "e.onnx", model)
    edited = adapter.load(tmp_path / "e.onnx").with_weights({"w": np.ones((4, 3), np.float32)})
    after = saved(edited, tmp_path / "edited.onnx")
    kept = next(tensor for tensor in after.graph.initializer if tensor.name == "w")
    assert kept.doc_string == next(t for t in model.graph.initializer if t.name == "w").doc_string
    assert {prop.key for prop in kept.metadata_props} == {"a", "b"}
    assert len(kept.metadata_props) == 2


@pytest.mark.parametrize(
    ("note", "scope"),
    [
        ("['', 'body', 'body.0', 'conv2d']", "body.0"),
        ("['', 'linear']", ""),
        ("['linear']", ""),
        ("[]", ""),
        ("['', 3, 'linear']", ""),
        ("('', 'body', 'conv2d')", ""),
        ("__import__('os')", ""),
        ("['', 'body'", ""),
        (None, ""),
    ],
)
def test_the_module_of_a_node_is_read_where_the_exporter_tells_it(tmp_path: Path, note: str | None, scope: str) -> None:
    model = mlp()
    if note is not None:
        model.graph.node[2].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=note)
    write(tmp_path / "model.onnx", model)
    assert adapter.load(tmp_path / "model.onnx").nodes[0].scope == scope


def nested() -> onnx.ModelProto:
    """An If in an If, with captures, initializers and constants inside, and a function that is called twice."""
    rng = np.random.default_rng(1)
    inner = helper.make_graph(
        [helper.make_node("Add", ["m", "v"], ["o"])],
        "inner",
        [],
        [value("o", None, None)],
        [numpy_helper.from_array(rng.standard_normal(4).astype(np.float32), "v")],
        doc_string="deep",
    )
    scale = numpy_helper.from_array(rng.standard_normal(4).astype(np.float32))
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=scale),
            helper.make_node("Mul", ["x", "k"], ["m"]),
            helper.make_node("If", ["c"], ["o2"], then_branch=inner, else_branch=inner),
        ],
        "body",
        [],
        [value("o2", None, None)],
    )
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["low"], keepdims=0),
        helper.make_node("Less", ["low", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["h"], then_branch=body, else_branch=body),
        helper.make_node("Leak", ["h"], ["l"], domain="my", slope=0.25),
        helper.make_node("Leak", ["l"], ["y"], domain="my"),
    ]
    model = model_of(nodes, {"zero": np.float32(0)})
    leak = helper.make_node("LeakyRelu", ["a"], ["b"], doc_string="inside")
    leak.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    function = helper.make_function("my", "Leak", ["a"], ["b"], [leak], [helper.make_opsetid("", 20)])
    function.attribute_proto.append(helper.make_attribute("slope", 0.5))
    function.doc_string = "a function"
    model.functions.append(function)
    return model


def test_functions_and_subgraphs_survive_and_run(tmp_path: Path) -> None:
    assert_survives(nested(), tmp_path)
    graph = adapter.load(tmp_path / "source.onnx")
    branches = "then_branch", "else_branch"
    inner = {f"h/{one}/o2/{other}/v" for one in branches for other in branches}
    assert graph.weights.keys() == {"zero", *(f"h/{one}/k" for one in branches), *inner}
    x = np.random.default_rng(2).standard_normal((2, 4)).astype(np.float32)
    expected = ort.InferenceSession(tmp_path / "source.onnx").run(None, {"x": x})[0]
    assert np.array_equal(OrtRunner().open(graph).run({"x": x})["y"], expected)


def test_an_unsorted_file_is_saved_sorted(tmp_path: Path) -> None:
    model = mlp()
    backwards = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(backwards)
    after = saved(adapter.load(write(tmp_path / "m.onnx", model)), tmp_path / "after.onnx")
    onnx.checker.check_model(after)
    assert sorted(node.name for node in after.graph.node) == sorted(node.name for node in backwards)


# Edits.


def test_editing_some_weights_leaves_the_others(tmp_path: Path) -> None:
    graph = adapter.load(write(tmp_path / "m.onnx", mlp()))
    assert graph.weights["f"].read().tolist() == [0.5, 0.5, 0.5]
    edits = {"w": np.full((4, 3), 2, np.float32), "b": np.arange(3, dtype=np.float32), "f": np.float32([1, 2, 3])}
    edited = graph.with_weights(edits)
    before = np.array(graph.weights["w"].read())
    adapter.save(edited, tmp_path / "edited.onnx")
    again = adapter.load(tmp_path / "edited.onnx")
    for name in graph.weights:
        expected = edits.get(name, graph.weights[name].read())
        assert np.array_equal(again.weights[name].read(), expected), name
    assert [node.name for node in again.nodes] == [node.name for node in graph.nodes]
    assert np.array_equal(graph.weights["w"].read(), before)
    assert_same(onnx.load(tmp_path / "m.onnx"), saved(graph, tmp_path / "unedited.onnx"))
    x = np.ones((1, 4), np.float32)
    session = ort.InferenceSession(tmp_path / "edited.onnx")
    assert np.array_equal(session.run(None, {"x": x})[0], (x @ edits["w"] + edits["b"]) * edits["f"])


def test_a_constant_keeps_its_name_and_notes_when_edited(tmp_path: Path) -> None:
    model = mlp()
    for node in model.graph.node:
        node.doc_string = f"doc {node.name}"
    graph = adapter.load(write(tmp_path / "m.onnx", model))
    edits = {"b": np.ones(3, np.float32), "f": np.ones(3, np.float32)}
    nodes = saved(graph.with_weights(edits), tmp_path / "e.onnx").graph.node
    assert [node.op_type for node in nodes] == ["Constant", "Constant", "MatMul", "Add", "Mul"]
    assert [node.doc_string for node in nodes] == [node.doc_string for node in model.graph.node]


def test_a_constant_that_is_an_output_can_be_edited(tmp_path: Path) -> None:
    model = mlp()
    model.graph.output.extend([value("b", 3), value("w", 4, 3), value("f", 3)])
    graph = adapter.load(write(tmp_path / "m.onnx", model))
    edits = {"b": np.ones(3, np.float32), "w": np.ones((4, 3), np.float32), "f": np.ones(3, np.float32)}
    after = saved(graph.with_weights(edits), tmp_path / "e.onnx")
    assert [out.name for out in after.graph.output] == ["y", "b", "w", "f"]
    outputs = ort.InferenceSession(tmp_path / "e.onnx").run(["b", "w", "f"], {"x": np.ones((1, 4), np.float32)})
    assert all((out == 1).all() for out in outputs)


@pytest.mark.parametrize(
    ("form", "stored", "edited"),
    [
        ("value_float", 1.5, np.float32(2.5)),
        ("value_floats", [1.5, 2.5], np.float32([3, 4])),
        ("value_int", 3, np.int64(4)),
        ("value_ints", [3, 4], np.int64([5, 6])),
    ],
)
def test_every_form_of_a_constant_is_a_weight(tmp_path: Path, form: str, stored: Any, edited: Any) -> None:
    nodes = [helper.make_node("Constant", [], ["k"], **{form: stored}), helper.make_node("Relu", ["x"], ["y"])]
    graph = adapter.load(write(tmp_path / "m.onnx", model_of(nodes)))
    assert graph.weights["k"].read().tolist() == stored
    assert graph.weights["k"].dtype == edited.dtype
    adapter.save(graph.with_weights({"k": edited}), tmp_path / "e.onnx")
    again = adapter.load(tmp_path / "e.onnx").weights["k"]
    assert again.shape == edited.shape
    assert np.array_equal(again.read(), edited)


@pytest.mark.parametrize("ir_version", [3, 10])
def test_an_inserted_weight_is_read_by_its_node(tmp_path: Path, ir_version: int) -> None:
    rng = np.random.default_rng(3)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm")]
    weights = {"w": rng.standard_normal((4, 3)).astype(np.float32)}
    model = model_of(nodes, weights, ir_version=ir_version, opset=11 if ir_version > 3 else 9)
    if ir_version == 3:  # before opset 11 a Gemm without a bias is no Gemm
        model.graph.node[0].input.append("zero")
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "zero"))
        model.graph.input.append(value("zero", 3))
    graph = adapter.load(write(tmp_path / "m.onnx", model))
    bias = np.float32([1, 2, 3])
    inserted = graph.with_inserted(weight_of("bias", bias), "y", 2)
    adapter.save(inserted, tmp_path / "e.onnx")
    onnx.checker.check_model(tmp_path / "e.onnx", full_check=True)
    x = np.ones((1, 4), np.float32)
    expected = x @ weights["w"] + bias
    assert np.allclose(ort.InferenceSession(tmp_path / "e.onnx").run(None, {"x": x})[0], expected, atol=1e-6)
    assert "bias" in adapter.load(tmp_path / "e.onnx").weights


# External data.


def data_of(path: Path) -> list[Path]:
    """The data files that bear the name of a model."""
    return sorted(path.parent.glob(f"{path.name}.*data"))


def external(path: Path, model: onnx.ModelProto, attributes: bool = True) -> Path:
    return write(
        path,
        model,
        save_as_external_data=True,
        location=f"{path.stem}.bin",
        size_threshold=0,
        convert_attribute=attributes,
    )


def test_external_data_stays_external_and_moves_along(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    model = mlp()
    model.graph.initializer.append(numpy_helper.from_array(np.arange(400, dtype=np.float32), "big"))
    model.graph.initializer[-1].doc_string = "big one"
    model.graph.initializer[-1].metadata_props.add(key="k", value="v")
    model.graph.initializer.append(helper.make_tensor("strings", TensorProto.STRING, [2], [b"a" * 300, b"b"]))
    expected = onnx.ModelProto.FromString(model.SerializeToString())
    graph = adapter.load(external(source / "m.onnx", model))
    assert_same(expected, saved(graph, tmp_path / "out.onnx"))
    assert [file.stat().st_size for file in data_of(tmp_path / "out.onnx")] == [1600]
    shutil.rmtree(source)
    assert_same(expected, saved(adapter.load(tmp_path / "out.onnx"), tmp_path / "again.onnx"))


def test_external_data_in_subgraphs_and_functions_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    model = nested()
    held = numpy_helper.from_array(np.float32([0.5]), "slope")
    model.functions[0].node.insert(0, helper.make_node("Constant", [], ["k"], value=held))
    model.functions[0].attribute_proto.append(helper.make_attribute("unused", held))
    expected = onnx.ModelProto.FromString(model.SerializeToString())
    for attribute in (model.functions[0].node[0].attribute[0], model.functions[0].attribute_proto[-1]):
        (source / "f.bin").write_bytes(attribute.t.raw_data)
        attribute.t.ClearField("raw_data")
        attribute.t.data_location = TensorProto.EXTERNAL
        attribute.t.external_data.add(key="location", value="f.bin")
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            (source / f"{tensor.name}.bin").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=f"{tensor.name}.bin")
    (source / "m.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(source)
    graph = adapter.load("m.onnx")
    monkeypatch.chdir(elsewhere)
    assert_same(expected, saved(graph, tmp_path / "out.onnx"))


def test_big_models_get_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((4, 100), np.float32)})
    graph = adapter.load(write(tmp_path / "m.onnx", model))
    adapter.save(graph, tmp_path / "inside.onnx")
    assert not data_of(tmp_path / "inside.onnx")
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_FROM", 1000)
    after = saved(graph.with_weights({"w": np.full((4, 100), 2, np.float32)}), tmp_path / "outside.onnx")
    assert [file.stat().st_size for file in data_of(tmp_path / "outside.onnx")] == [1600]
    assert (numpy_helper.to_array(after.graph.initializer[0]) == 2).all()
    assert ort.InferenceSession(tmp_path / "outside.onnx").run(None, {"x": np.ones((1, 4), np.float32)})[0][0, 0] == 8


def test_weights_over_two_gibibytes_load_unread(tmp_path: Path) -> None:
    held = TensorProto(name="w", data_type=FLOAT, dims=[4, 2**28], data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value="w.bin")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(2**32)  # a sparse file: no bytes on the disk
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])])
    model.graph.initializer.append(held)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    weight = adapter.load(tmp_path / "m.onnx").weights["w"]
    assert weight.nbytes == 2**32
    assert weight.read()[3, -1] == 0


def test_saving_over_the_source_keeps_the_loaded_graph_readable(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])],
        {"b": np.arange(100, dtype=np.float32), "w": np.ones((4, 100), np.float32)},
    )
    write(path, model, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    graph = adapter.load(path)
    adapter.save(graph.with_weights({"w": np.full((4, 100), 5, np.float32)}), path)
    assert (adapter.load(path).weights["w"].read() == 5).all()
    assert (graph.weights["w"].read() == 1).all()
    assert np.array_equal(graph.weights["b"].read(), np.arange(100))
    adapter.save(graph, tmp_path / "old.onnx")
    assert (adapter.load(tmp_path / "old.onnx").weights["w"].read() == 1).all()
    (data,), (old,) = data_of(path), data_of(tmp_path / "old.onnx")
    assert sorted(tmp_path.iterdir()) == sorted([path, data, tmp_path / "old.onnx", old])


def test_data_lost_after_loading_is_reported(tmp_path: Path) -> None:
    graph = adapter.load(external(tmp_path / "m.onnx", mlp()))
    (tmp_path / "m.bin").unlink()
    with pytest.raises(FileError, match=r"cannot read weight 'w': .*m\.bin.*; restore the file"):
        graph.weights["w"].read()
    with pytest.raises(FileError, match="cannot read weight"):
        adapter.save(graph, tmp_path / "out.onnx")


def test_data_that_were_cut_off_after_they_were_mapped_are_reported(tmp_path: Path) -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((4, 5000), np.float32)})
    graph = adapter.load(external(tmp_path / "m.onnx", model))
    assert graph.weights["w"].read().sum() == 20000
    with (tmp_path / "m.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(FileError, match=r"cannot read weight 'w': .*m\.bin was cut off at 100 bytes, and it ends at"):
        graph.weights["w"].read()
    with pytest.raises(FileError, match="cannot read weight 'w'"):
        adapter.save(graph, tmp_path / "out.onnx")


def test_saving_over_the_data_of_a_loaded_model_leaves_its_weights_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "EXTERNAL_TENSOR_FROM", 0)
    first = adapter.load(external(tmp_path / "a.onnx", mlp()))
    write(tmp_path / "b.onnx", mlp(), save_as_external_data=True, location="b.onnx.data", size_threshold=0)
    expected = first.weights["w"].read().copy()
    unread = adapter.load(tmp_path / "b.onnx")
    adapter.save(first.with_weights({"w": np.full_like(expected, 5)}), tmp_path / "b.onnx")
    assert np.array_equal(unread.weights["w"].read(), expected)
    assert (adapter.load(tmp_path / "b.onnx").weights["w"].read() == 5).all()


# Where files are written.


def test_a_bare_file_name_is_read_and_written_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    external(Path("m.onnx"), mlp())
    graph = adapter.load("m.onnx")
    assert graph.source.path == tmp_path / "m.onnx"
    os.chdir(tmp_path / "other")
    adapter.save(graph, Path("n.onnx"))
    assert adapter.load("n.onnx").weights["w"].read().tolist() == graph.weights["w"].read().tolist()


def test_an_unusual_ending_is_still_protobuf(tmp_path: Path) -> None:
    graph = adapter.load(write(tmp_path / "m.onnx", mlp()))
    adapter.save(graph, tmp_path / "m.json")
    assert adapter.load(tmp_path / "m.json").weights.keys() == graph.weights.keys()


def test_a_missing_target_folder_is_reported(tmp_path: Path) -> None:
    graph = adapter.load(write(tmp_path / "m.onnx", mlp()))
    with pytest.raises(FileError, match=r"cannot write .*gone/m\.onnx: No such file or directory in folder .*; choose"):
        adapter.save(graph, tmp_path / "gone" / "m.onnx")


def test_a_read_only_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = adapter.load(write(tmp_path / "m.onnx", mlp()))

    def refuse(**_: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(FileError, match=r"cannot write .*out\.onnx: Read-only file system in folder"):
        adapter.save(graph, tmp_path / "out.onnx")


def failing_graph(path: Path, error: BaseException) -> LayerGraph:
    """A graph whose second weight cannot be computed."""
    graph = adapter.load(path)

    def fail() -> Any:
        raise error

    weight = graph.weights["n"]
    return graph.with_weights([type(weight)(weight.name, weight.shape, weight.dtype, fail)])


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(28, "No space left on device"), FileError, "No space left on device; free space or choose another"),
        (DataError("no such layer; pick one"), DataError, "no such layer"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_failed_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: bool, error: BaseException, kind: Any, text: str
) -> None:
    monkeypatch.setattr(data_files, "EXTERNAL_TENSOR_FROM", 0)
    path = tmp_path / "m.onnx"
    write(path, mlp(), save_as_external_data=outside, location="m.onnx.data", size_threshold=0)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(kind, match=text):
        adapter.save(failing_graph(path, error), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_constants_beyond_protobuf_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = adapter.load(write(tmp_path / "m.onnx", mlp()))

    def refuse(*_: Any, **__: Any) -> None:
        raise onnx_file.EncodeError("Failed to serialize proto")

    monkeypatch.setattr(onnx_file, "with_maps", refuse)
    with pytest.raises(FileError, match="more bytes than one protobuf file holds"):
        adapter.save(graph, tmp_path / "out.onnx")


# The view computes what the file computes.


def data_sets(file: Path) -> Iterator[list[Any]]:
    for folder in sorted(file.parent.glob("test_data_set_*")):
        names = sorted(folder.glob("input_*.pb"), key=lambda name: int(name.stem.split("_")[1]))
        yield [numpy_helper.to_array(TensorProto.FromString(name.read_bytes())) for name in names]


def outputs_of_file(path: Path, values: list[Any]) -> tuple[dict[str, Any], list[Any]] | None:
    """Feeds and outputs of onnxruntime on the file itself, or None where it does not run it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(path, options)
        feeds = dict(zip((put.name for put in session.get_inputs()), values, strict=False))
        return feeds, session.run(None, feeds)
    except Exception:  # onnxruntime raises bare Exceptions of a dozen kinds
        return None


def view_mismatch(path: Path, values: list[Any]) -> str | None:
    """How the view's outputs differ from the file's, "" if they do not, None if the file does not run."""
    expected = outputs_of_file(path, values)
    if expected is None:
        return None
    feeds, outputs = expected
    try:
        got = OrtRunner().open(adapter.load(path)).run(feeds)
    except MalGraphError as error:
        return str(error)
    for out, (name, array) in zip(outputs, got.items(), strict=True):
        if np.asarray(out).dtype != array.dtype or np.shape(out) != array.shape:
            return f"{name}: {np.asarray(out).dtype}{np.shape(out)} became {array.dtype}{array.shape}"
        if not np.array_equal(out, array, equal_nan=np.asarray(out).dtype.kind in "fc"):
            return f"{name}: other values"
    return ""


def has_plain_signature(model: onnx.ModelProto) -> bool:
    """Whether all inputs and outputs are tensors, and none is a Resize's `sizes`, which the runner would free."""
    signature = [*model.graph.input, *model.graph.output]
    resized = {node.input[3] for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 3}
    return all(put.type.HasField("tensor_type") and put.name not in resized for put in signature)


def test_the_view_computes_what_the_files_compute() -> None:
    found = {file: view_mismatch(file, values) for file in FILES for values in data_sets(file)}
    assert not {str(file): mismatch for file, mismatch in found.items() if mismatch}
    assert sum(mismatch == "" for mismatch in found.values()) >= 95


@pytest.mark.slow
def test_the_view_computes_what_the_generated_models_compute(tmp_path: Path) -> None:
    found = {}
    for case in cases()[::15]:
        if case.data_sets and has_plain_signature(case.model):
            path = write(tmp_path / "case.onnx", case.model)
            found[case.name] = view_mismatch(path, list(case.data_sets[0][0]))
    assert not {name: mismatch for name, mismatch in found.items() if mismatch and "cannot merge" not in mismatch}
    assert sum(mismatch == "" for mismatch in found.values()) >= 60


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_the_view_computes_what_a_large_network_computes(name: str) -> None:
    file = next(file for file in FILES if file.stem == name)
    x = np.random.default_rng(4).random(adapter.load(file).inputs[0].shape, np.float32)
    assert view_mismatch(file, [x]) == ""


def test_a_scalar_weight_stays_a_scalar_in_the_runner(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["k"], ["s"]), helper.make_node("Add", ["x", "k"], ["y"])]
    model = model_of(nodes, {"k": np.float32(2)}, outputs=("s", "y"))
    graph = adapter.load(write(tmp_path / "m.onnx", model))
    assert OrtRunner().open(graph).run({"x": np.ones((1, 4), np.float32)})["s"].shape == ()
