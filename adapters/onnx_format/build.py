"""An onnx-ir model from a layer graph that did not come from an ONNX file.

The weights stay handles: a tensor is computed when it is written, and not kept.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx_ir as ir

from mal_graph.graph import LayerGraph, Node, Value, Weight
from mal_graph.network import as_stored

from .bodies import put_into_bodies
from .document import WEIGHT

IR_VERSION = 10  # old enough for every onnxruntime in use, new enough for every element type


def built_model(graph: LayerGraph) -> ir.Model:
    """The graph as a model of its own, under the names it has."""
    graph = as_stored(graph)
    inputs = [declared(value) for value in graph.inputs]
    values = named(inputs)
    used = {name for node in graph.nodes for name in node.inputs} | graph.output_names
    stored = [stored_value(weight) for name, weight in graph.weights.items() if name in used]
    values.update(named(stored))
    outputs = named(map(declared, graph.outputs))
    nodes = [built_node(node, values, outputs) for node in graph.nodes]
    main = ir.Graph(
        inputs,
        [values[value.name] for value in graph.outputs],
        nodes=nodes,
        initializers=stored,
        opset_imports=dict(graph.opsets),
        name=graph.name,
    )
    put_into_bodies(graph, main)
    producer = version("mal-graph")
    return ir.Model(
        main,
        ir_version=IR_VERSION,
        producer_name="mal_graph",
        producer_version=producer,
        metadata_props=dict(graph.metadata),
    )


def named(values: Iterable[ir.Value]) -> dict[str, ir.Value]:
    return {value.name: value for value in values if value.name}


def declared(value: Value) -> ir.Value:
    """A model input or output with its type and shape."""
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(value.dtype))) if value.dtype else None
    return ir.Value(name=value.name, type=kind, shape=None if value.shape is None else ir.Shape(value.shape))


def stored_value(weight: Weight) -> ir.Value:
    tensor = texts_tensor(weight) if weight.dtype.kind == "O" else lazy_tensor(weight)
    return ir.Value(name=weight.name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))


def lazy_tensor(weight: Weight, old: ir.TensorProtocol | None = None) -> ir.LazyTensor:
    """The weight as a tensor that is computed when written, and not kept; the notes on `old` stay on it."""
    dtype = old.dtype if old is not None else ir.DataType.from_numpy(weight.dtype)
    shape = ir.Shape(weight.shape)

    def read() -> ir.TensorProtocol:
        return ir.Tensor(np.asarray(weight.read(), order="C"), dtype=dtype, shape=shape)

    lazy = ir.LazyTensor(read, dtype, shape, name=weight.name)
    lazy.meta[WEIGHT] = weight
    if old is not None:
        lazy.name, lazy.doc_string = old.name, old.doc_string
        lazy.metadata_props.update(old.metadata_props)
    return lazy


def texts_tensor(weight: Weight) -> ir.StringTensor:
    """A stored tensor of texts."""
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in weight.read().ravel()]
    return ir.StringTensor(texts, shape=ir.Shape(weight.shape), name=weight.name)


def built_node(node: Node, values: dict[str, ir.Value], outputs: Mapping[str, ir.Value]) -> ir.Node:
    """A node that reads from `values` and adds what it makes to them; a model output is the value declared."""
    domain, _, op = node.op.rpartition(".")
    made = [outputs[name] if name in outputs else ir.Value(name=name) for name in node.outputs]
    values.update(named(made))
    return ir.node(
        op,
        [values[name] if name else None for name in node.inputs],
        {name: held(value) for name, value in node.attributes.items() if not is_empty(value)},
        domain=domain,
        outputs=made,
        name=node.name,
    )


def held(value: Any) -> Any:
    """What an attribute holds, an array as a tensor."""
    return ir.tensor(value) if isinstance(value, np.ndarray) else value


def is_empty(value: Any) -> bool:
    """An empty list has no type; the operator's default is the same."""
    return isinstance(value, list | tuple) and not value
