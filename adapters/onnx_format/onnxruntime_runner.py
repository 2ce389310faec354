"""Runs layer graphs in onnxruntime, with any tensor as an output and any weight as an input.

The model is built from the view's nodes, not from the source file, so that a graph with inserted probe nodes, or one
traced from another framework, runs as it is.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, Value, Weight
from mal_graph.limits import Limits
from mal_graph.network import graph_in_float32, types_of
from mal_graph.protocols import Session

from .apart import child_within
from .bodies import node_protos
from .build import IR_VERSION, held
from .document import OnnxDocument
from .sessions import BuiltModel, OrtSession
from .stepping import SteppedSession

if TYPE_CHECKING:
    from .child import Child


BFLOAT16 = "bfloat16"


def written(model: onnx.ModelProto) -> set[str]:
    """Names of what a run writes into, with all that these are made from: a BatchNormalization in training writes its
    running statistics into the arrays it is fed."""
    names: set[str] = set()
    nodes = list(model.graph.node)
    if not any(map(is_training, nodes)):
        return names
    for node in reversed(nodes):
        if is_training(node):
            names.update(node.input[3:])
        if not names.isdisjoint(node.output):
            names.update(node.input)
    return names


def is_training(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)


class WidenedSession:
    """A session on a graph in float32 that takes what is stored and fed in bfloat16, for which onnxruntime has next to
    no operators on a CPU."""

    def __init__(self, session: Session) -> None:
        self.session, self.types, self.took = session, session.types, 0.0

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        values = self.session.run(widened(inputs), widened(weights or {}), read, deadline)
        self.took = self.session.took
        return values


def widened(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays with bfloat16 in float32."""
    return {name: array.astype(np.float32) if array.dtype.name == BFLOAT16 else array for name, array in arrays.items()}


class OrtRunner:
    """Opens onnxruntime sessions on layer graphs: in this process, or in that of a child. Models in bfloat16 are run in
    float32."""

    def __init__(self, child: "Child | None" = None) -> None:
        self.child = child

    def within(self, limits: Limits) -> "OrtRunner":
        """A runner that runs models in a process of their own, within limits. Raises UsageError where there is none."""
        return OrtRunner(child_within(limits))

    def open(
        self,
        graph: LayerGraph,
        *,
        read: Sequence[str] | None = None,
        variable: Sequence[str] = (),
        optimize: bool = False,
        deadline: float | None = None,
        threads: int | None = None,
    ) -> Session:
        if BFLOAT16 in types_of(graph):
            plain = graph_in_float32(graph)
            session = self.open(
                plain, read=read, variable=variable, optimize=optimize, deadline=deadline, threads=threads
            )
            return WidenedSession(session)
        if not graph.inner.isdisjoint(read or ()):

            def open_graph(part: LayerGraph, names: Sequence[str]) -> Session:
                return self.open(part, read=names, variable=variable, deadline=deadline)

            return SteppedSession(graph, list(read or ()), open_graph)
        build = partial(built_model, graph, read, variable, deadline)
        if self.child is not None:
            return self.child.open(build, optimize=optimize, threads=threads, deadline=deadline)
        model = build()
        return OrtSession(model.name, model.content, optimize, threads, model.written)

    def try_file(self, path: Path) -> None:
        if self.child is not None:
            self.child.load(path)
        else:
            OrtSession(str(path), str(path))


def built_model(
    graph: LayerGraph, read: Sequence[str] | None, variable: Sequence[str], deadline: float | None
) -> BuiltModel:
    """The view as a model of its own. Raises RunError where it will not be open by the deadline."""
    began = monotonic()
    model = model_proto(graph, read, variable)
    now = monotonic()
    if deadline is not None and now + opening_time(model, now - began) >= deadline:
        raise RunError(f"{graph.name} was not opened when its time was up")
    fed = sum(graph.weights[name].nbytes for name in variable if name in graph.weights)
    return BuiltModel(graph.name, model.SerializeToString(), frozenset(written(model)), fed)


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
    proto = onnx.NodeProto(op_type=op, input=node.inputs, output=node.outputs, name=f"{index}", domain=domain)
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
    value = held(value)
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
