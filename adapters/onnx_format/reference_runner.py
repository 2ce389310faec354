"""Runs layer graphs in float64 under `onnx.reference`: slow and exact, the judge of doubtful verifications."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.helper import make_attribute

from mal_graph.graph import Array, LayerGraph
from mal_graph.protocols import Session

from .apart import child_in_force
from .onnxruntime_runner import model_proto
from .sessions import BuiltModel

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def make_double(node: NodeProto, opset: int) -> None:
    """Have an operator that states a type compute in float64."""
    if node.op_type == "GroupNormalization" and node.domain == "" and opset >= 21:
        node.attribute.append(make_attribute("stash_type", TensorProto.DOUBLE))  # what it computes in
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in FLOATS:
            attribute.i = TensorProto.DOUBLE


class ReferenceSession:
    """One graph under the reference evaluator, every float in float64."""

    def __init__(
        self, graph: LayerGraph, read: Sequence[str] | None, variable: Sequence[str], deadline: float | None
    ) -> None:
        weights = [name for name, weight in graph.weights.items() if weight.is_float and not weight.scope]
        self._weights = {name: graph.weights[name].read().astype(np.float64) for name in weights}
        self._session = evaluator_of(double_model(graph, read, sorted({*variable, *weights})), deadline)
        self.types: Mapping[str, str] = self._session.types
        self.took = 0.0

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        fed = {**inputs, **self._weights, **(weights or {})}
        fed = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in fed.items()}
        made = self._session.run(fed, None, read, deadline)
        self.took = self._session.took
        return made


def double_model(graph: LayerGraph, read: Sequence[str] | None, variable: Sequence[str]) -> BuiltModel:
    """The view as a model that computes in float64."""
    model = model_proto(graph, read, variable)
    for node in model.graph.node:
        make_double(node, graph.opsets.get("", 1))
    fed = sum(2 * graph.weights[name].nbytes for name in variable if name in graph.weights)  # twice as float64
    return BuiltModel(graph.name, model.SerializeToString(), frozenset(), fed)


def evaluator_of(model: BuiltModel, deadline: float | None) -> Session:
    """A session of the reference evaluator, in the process that runs models where there is one. Raises RunError or
    LimitError."""
    child = child_in_force()
    if child is not None:
        return child.open(lambda: model, kind="reference", deadline=deadline)
    from .libraries import Evaluator  # most runs of a command need none

    return Evaluator(model.name, model.content)


class ReferenceRunner:
    """Opens float64 reference sessions on layer graphs."""

    def open(
        self,
        graph: LayerGraph,
        *,
        read: Sequence[str] | None = None,
        variable: Sequence[str] = (),
        optimize: bool = False,
        deadline: float | None = None,
        threads: int | None = None,
    ) -> ReferenceSession:
        return ReferenceSession(graph, read, variable, deadline)
