"""Runs layer graphs in onnxruntime, with any tensor as an output and any weight as an input.

The model is built from the view's nodes, not from the source file, so that a graph with inserted probe nodes, or one
traced from another framework, runs as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from time import monotonic
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, Value, Weight
from mal_graph.protocols import Session

from .bodies import node_protos
from .build import IR_VERSION
from .document import OnnxDocument
from .sessions import open_session
from .stepping import SteppedSession

TYPE_NAMES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int64": "int64",
    "int32": "int32",
    "int16": "int16",
    "int8": "int8",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "object",
}


class OrtSession:
    """One onnxruntime session."""

    def __init__(self, model: onnx.ModelProto, name: str, optimize: bool, threads: int | None = None) -> None:
        self.name = name
        try:
            self._session = open_session(model.SerializeToString(), optimize, threads)
        except Exception as error:  # onnxruntime raises bare Exceptions of a dozen kinds
            raise RunError(f"onnxruntime refuses {name}: {first_line(error)}") from None
        self.types: Mapping[str, str] = {
            out.name: TYPE_NAMES.get(out.type.removeprefix("tensor(").removesuffix(")"), "")
            for out in self._session.get_outputs()
        }
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._written = written(model)

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        feeds = {name: array for name, array in {**inputs, **(weights or {})}.items() if name in self._inputs}
        feeds.update({name: feeds[name].copy() for name in self._written & feeds.keys()})
        names = list(self.types) if read is None else list(read)
        options = ort.RunOptions()
        try:
            with stopped_at(deadline, options):
                values = self._session.run(names, feeds, options)
        except Exception as error:
            if options.terminate:
                raise RunError(f"{self.name} was not through when its time was up") from None
            raise RunError(f"onnxruntime cannot run {self.name}: {first_line(error)}") from None
        return {name: as_array(value) for name, value in zip(names, values, strict=True)}


@contextmanager
def stopped_at(deadline: float | None, options: ort.RunOptions) -> Iterator[None]:
    """A run with these options ends when `time.monotonic()` reaches the deadline."""
    if deadline is None:
        yield
        return
    watch = Timer(max(deadline - monotonic(), 0.0), setattr, (options, "terminate", True))
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def written(model: onnx.ModelProto) -> set[str]:
    """Names of what a run writes into, with all that these are made from: a BatchNormalization in training writes its
    running statistics into the arrays it is fed."""
    names: set[str] = set()
    for node in reversed(model.graph.node):
        if any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute):
            names.update(node.input[3:])
        if not names.isdisjoint(node.output):
            names.update(node.input)
    return names


def as_array(value: object) -> Array:
    """What the runtime gave: an array, or a sequence kept whole in an array of one object."""
    if isinstance(value, np.ndarray):
        return value
    kept = np.empty((), object)
    kept[()] = value
    return kept


class OrtRunner:
    """Opens onnxruntime sessions on layer graphs."""

    def open(
        self,
        graph: LayerGraph,
        *,
        read: Sequence[str] | None = None,
        variable: Sequence[str] = (),
        optimize: bool = False,
        deadline: float | None = None,
        threads: int | None = None,
    ) -> OrtSession | SteppedSession:
        if not graph.inner.isdisjoint(read or ()):

            def open_graph(part: LayerGraph, names: Sequence[str]) -> Session:
                return self.open(part, read=names, variable=variable, deadline=deadline)

            return SteppedSession(graph, list(read or ()), open_graph)
        began = monotonic()
        model = model_proto(graph, read, variable)
        now = monotonic()
        if deadline is not None and now + opening_time(model, now - began) >= deadline:
            raise RunError(f"{graph.name} was not opened when its time was up")
        return OrtSession(model, graph.name, optimize, threads)


def opening_time(model: onnx.ModelProto, building: float) -> float:
    """About how many seconds onnxruntime will take to open a model that took `building` seconds to build: it cannot be
    stopped, and what is stored costs it the square of its number (measured on chains of up to 50,000 operators)."""
    nodes, stored = max(1, len(model.graph.node)), len(model.graph.initializer)
    return building * (4 + stored**2 / (2500 * nodes))


def model_proto(graph: LayerGraph, read: Sequence[str] | None, variable: Sequence[str]) -> onnx.ModelProto:
    """The view as a model of its own; weights in `variable` become inputs."""
    outputs = list(dict.fromkeys([value.name for value in graph.outputs] if read is None else read))
    used = {name for node in graph.nodes for name in (*node.inputs, *node.captures)} | set(outputs)
    stored = [weight for name, weight in graph.weights.items() if name in used and not weight.scope]
    fed = set(variable)
    declared = [fed_proto(weight) for weight in stored if weight.name in fed]
    main = onnx.helper.make_graph(
        node_protos(graph, node_proto),
        "view",
        [*(input_proto(graph, value) for value in graph.inputs), *declared],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        [tensor_proto(weight) for weight in stored if weight.name not in fed],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    return onnx.helper.make_model(main, opset_imports=opsets, functions=functions_of(graph), ir_version=IR_VERSION)


def fed_proto(weight: Weight) -> onnx.ValueInfoProto:
    """The declaration of a weight that every run is given."""
    return onnx.helper.make_tensor_value_info(weight.name, element_type(weight.dtype.name), weight.shape)


def tensor_proto(weight: Weight) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(weight.read(), order="C"), weight.name)


def functions_of(graph: LayerGraph) -> list[onnx.FunctionProto]:
    """The functions of the source that the view calls."""
    if not isinstance(graph.source, OnnxDocument):
        return []
    return [ir.to_proto(function) for function in graph.source.lowered.functions.values()]


def node_proto(node: Node, index: int) -> onnx.NodeProto:
    domain, _, op = node.op.rpartition(".")
    proto = onnx.helper.make_node(op, list(node.inputs), list(node.outputs), name=f"{index}", domain=domain)
    for key, value in node.attributes.items():
        value = to_attribute(value)
        if isinstance(value, list) and not value:
            continue  # an empty list has no type; the operator's default is the same
        proto.attribute.append(onnx.helper.make_attribute(key, value))
    return proto


def to_attribute(value: Any) -> Any:
    """An attribute of a view's node in the form `onnx.helper.make_attribute` takes."""
    if isinstance(value, int | float | str | bytes):  # most are: asking for a protocol first costs far more
        return value
    if isinstance(value, ir.Graph | ir.TensorProtocol):
        return ir.to_proto(value)
    if isinstance(value, ir.TypeAndShape):
        return ir.to_proto(ir.AttrTypeProto("type", value)).tp
    if isinstance(value, list | tuple):
        return [to_attribute(item) for item in value]
    return value


def element_type(dtype: str) -> int:
    if not dtype:
        return onnx.TensorProto.FLOAT
    if dtype == "object":
        return onnx.TensorProto.STRING
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def input_proto(graph: LayerGraph, value: Value) -> onnx.ValueInfoProto:
    """An input's declaration, its axes dynamic: a probe may run at another size than the declared one."""
    if not value.dtype and isinstance(graph.source, OnnxDocument):  # a sequence or an optional: as declared
        declared = next(known for known in graph.source.model.graph.inputs if known.name == value.name)
        return ir.to_proto(declared)
    shape = value.shape
    if shape is not None and len(shape) > 1:
        shape = (None,) * len(shape)  # a vector keeps its length: it may be a shape that others depend on
    return onnx.helper.make_tensor_value_info(value.name, element_type(value.dtype), shape)


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
