"""Runs layer graphs in float64 under `onnx.reference`: slow and exact, the judge of doubtful verifications."""

import warnings
from collections.abc import Mapping, Sequence
from time import monotonic

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.helper import make_attribute
from onnx.reference import ReferenceEvaluator

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph

from .onnxruntime_runner import model_proto
from .sessions import first_line

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

    def __init__(self, graph: LayerGraph, read: Sequence[str] | None, variable: Sequence[str]) -> None:
        weights = [name for name, weight in graph.weights.items() if weight.is_float and not weight.scope]
        model = model_proto(graph, read, sorted({*variable, *weights}))
        for node in model.graph.node:
            make_double(node, graph.opsets.get("", 1))
        self._weights = {name: graph.weights[name].read().astype(np.float64) for name in weights}
        self.name = graph.name
        self.types: Mapping[str, str] = {out.name: "float64" for out in model.graph.output}
        try:
            self._evaluator = ReferenceEvaluator(model)
        except Exception as error:  # the evaluator raises whatever its kernels raise
            raise RunError(f"onnx.reference refuses {graph.name}: {first_line(error)}") from None

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        if deadline is not None and monotonic() >= deadline:  # a run that began cannot be stopped
            raise RunError(f"{self.name} was not through when its time was up")
        fed = {**inputs, **self._weights, **(weights or {})}
        fed = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in fed.items()}
        names = list(self.types) if read is None else list(read)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore", RuntimeWarning)  # its BatchNormalization takes means of nothing
                values = self._evaluator.run(names, fed)
        except Exception as error:
            raise RunError(f"onnx.reference cannot run {self.name}: {first_line(error)}") from None
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


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
        return ReferenceSession(graph, read, variable)
