"""ONNX files as layer graphs, and back.

The source document is the onnx-ir model as loaded and is never changed: weights are read from it by mapping, and saving
writes a clone with the edited tensors replaced. Chosen: onnx-ir, which maps external data and keeps what it does not
know; refused: `onnx.load`, which reads all the weights, and graphsurgeon, which loses metadata.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import onnx_ir as ir

from mal_graph.errors import FileError
from mal_graph.graph import Array, LayerGraph, Node, Value, Weight
from mal_graph_adapters import onnx_guard

EXTERNAL_DATA_FROM = 1_500_000_000  # bytes of weights; protobuf ends at 2 GiB
CONSTANT_FORMS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


@dataclass(frozen=True)
class OnnxDocument:
    """What a layer graph of this adapter keeps as its source."""

    path: Path
    model: ir.Model
    constants: Mapping[str, ir.Node] = field(default_factory=dict)  # nodes of the main graph that are weights in the view

    @property
    def uses_external_data(self) -> bool:
        tensors = (value.const_value for value in self.model.graph.initializers.values())
        return any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)


class OnnxAdapter:
    """Loads and saves `.onnx` files."""

    def claims(self, model: object) -> bool:
        return isinstance(model, str | os.PathLike)

    def load(self, model: object) -> LayerGraph:
        """The layer graph of an ONNX file. Raises FileError for a broken or unsafe file, UnsupportedModel for one
        that cannot be merged."""
        path = onnx_guard.checked_path(Path(str(model)))
        onnx_guard.check_file(path)
        # Always an absolute path: with a bare file name onnx-ir 1.1 skips its checks of external data.
        document = ir.load(path)
        onnx_guard.check_model(document, path)
        return layer_graph(document, path)

    def save(self, graph: LayerGraph, path: Path) -> None:
        """Write `graph` to `path`, completely or not at all; big weights go to `<path>.data`. Raises FileError."""
        document: OnnxDocument = graph.source
        model = edited_model(graph)
        total = sum(weight.nbytes for weight in graph.weights.values())
        external = f"{path.name}.data" if total > EXTERNAL_DATA_FROM or document.uses_external_data else None
        write_whole(model, path, external)


def layer_graph(model: ir.Model, path: Path) -> LayerGraph:
    """The view of an onnx-ir model: nodes in topological order, constants as weights."""
    graph = model.graph
    weights = {name: weight for name, weight in initializers(graph, "")}
    constants: dict[str, ir.Node] = {}
    nodes: list[Node] = []
    taken: set[str] = set()
    for source in sorted_nodes(graph, path):
        for scope, body in subgraphs(source):
            weights.update(subgraph_weights(body, scope))
        constant = constant_weight(source, weights)
        if constant is not None:
            weights[constant.name] = constant
            constants[constant.name] = source
            continue
        nodes.append(view_of(source, taken))
    return LayerGraph(
        name=path.name,
        nodes=tuple(nodes),
        inputs=tuple(value_of(value) for value in graph.inputs if value.name not in graph.initializers),
        outputs=tuple(value_of(value) for value in graph.outputs),
        weights=weights,
        opsets=dict(model.opset_imports),
        source=OnnxDocument(path, model, constants),
    )


def sorted_nodes(graph: ir.Graph, path: Path) -> list[ir.Node]:
    """The nodes in topological order, the file's own order where that is one already. Raises FileError on a cycle."""
    nodes = list(graph)
    place = {node: i for i, node in enumerate(nodes)}
    order: nx.DiGraph[int] = nx.DiGraph()
    order.add_nodes_from(range(len(nodes)))
    for i, node in enumerate(nodes):
        read = [value for value in node.inputs if value is not None] + list(captured(node))
        order.add_edges_from((place[value.producer()], i) for value in read if value.producer() in place)
    if all(a < b for a, b in order.edges):
        return nodes
    try:
        return [nodes[i] for i in nx.lexicographical_topological_sort(order)]
    except nx.NetworkXUnfeasible:
        cycle = nodes[nx.find_cycle(order)[0][0]]
        raise FileError(
            f"cannot load {path}: its graph has a cycle through node {cycle.name or cycle.outputs[0].name!r}; "
            "export the model again"
        ) from None


def view_of(node: ir.Node, taken: set[str]) -> Node:
    outputs = tuple(value.name or "" for value in node.outputs)
    name = node.name or next((out for out in outputs if out), node.op_type)
    while name in taken:
        name += "'"
    taken.add(name)
    return Node(
        name=name,
        op=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}",
        inputs=tuple("" if value is None else value.name or "" for value in node.inputs),
        outputs=outputs,
        attributes={key: attribute.value for key, attribute in node.attributes.items()},
        captures=tuple(dict.fromkeys(value.name or "" for value in captured(node))),
    )


def value_of(value: ir.Value) -> Value:
    dtype = value.dtype.numpy().name if value.dtype is not None and value.dtype != ir.DataType.UNDEFINED else ""
    if value.shape is None:
        return Value(value.name or "", dtype, None)
    shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return Value(value.name or "", dtype, shape)


def subgraphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The bodies of a control-flow node, each with the scope its weights are listed under."""
    for key, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            yield f"{node.name or node.outputs[0].name}/{key}/", attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for i, body in enumerate(attribute.as_graphs()):
                yield f"{node.name or node.outputs[0].name}/{key}.{i}/", body


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Values of outer graphs that the bodies of `node` read."""
    for _, body in subgraphs(node):
        own = set(body.inputs) | set(body.initializers.values())
        for inner in body:
            own.update(inner.outputs)
        read = [value for inner in body for value in inner.inputs if value is not None]
        read += [value for inner in body for value in captured(inner)]
        yield from (value for value in [*read, *body.outputs] if value not in own)


def initializers(graph: ir.Graph, scope: str) -> Iterator[tuple[str, Weight]]:
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield scope + name, handle(scope + name, value.const_value, scope)


def subgraph_weights(graph: ir.Graph, scope: str) -> Iterator[tuple[str, Weight]]:
    """Initializers and constants inside a subgraph: counted and listed, never merged."""
    yield from initializers(graph, scope)
    for node in graph:
        for inner, body in subgraphs(node):
            yield from subgraph_weights(body, scope + inner)
        if node.op_type == "Constant" and "value" in node.attributes:
            name = f"{scope}{node.outputs[0].name}"
            yield name, handle(name, node.attributes["value"].as_tensor(), scope)


def handle(name: str, tensor: ir.TensorProtocol, scope: str = "") -> Weight:
    """A lazy handle: the values stay where they are until read."""

    def read() -> Array:
        values = np.asarray(tensor.numpy()).view()
        values.flags.writeable = False
        return values

    return Weight(name, tuple(int(dim) for dim in tensor.shape), np.dtype(tensor.dtype.numpy()), read, scope)


def constant_weight(node: ir.Node, weights: Mapping[str, Weight]) -> Weight | None:
    """The weight that a Constant, or a ConstantOfShape with a stored shape, stands for."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Constant", "ConstantOfShape"):
        return None
    name = node.outputs[0].name or ""
    if node.op_type == "ConstantOfShape":
        return filled_weight(node, name, weights)
    if "value" in node.attributes:
        return handle(name, node.attributes["value"].as_tensor())
    for form, dtype in CONSTANT_FORMS.items():
        if form in node.attributes:
            return handle(name, ir.tensor(np.asarray(node.attributes[form].value, dtype)))
    return None


def filled_weight(node: ir.Node, name: str, weights: Mapping[str, Weight]) -> Weight | None:
    shape_name = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
    if shape_name not in weights:
        return None
    shape = tuple(int(dim) for dim in weights[shape_name].read())
    value = node.attributes["value"].as_tensor().numpy().reshape(()) if "value" in node.attributes else np.float32(0)
    filled = np.broadcast_to(value, shape)  # no memory: one value seen through zero strides
    return Weight(name, shape, filled.dtype, lambda: filled)


def edited_model(graph: LayerGraph) -> ir.Model:
    """A clone of the source with the graph's edited and inserted weights in place."""
    document: OnnxDocument = graph.source
    model = document.model.clone()
    main = model.graph
    for value in main.initializers.values():
        # onnx-ir 1.1 writes a tensor's metadata twice: once as the tensor's, once as the value's.
        if value.const_value is not None and value.const_value.metadata_props:
            value.metadata_props.clear()
    made_by = {out.name: node for node in main for out in node.outputs}
    for name in sorted(graph.edited):
        tensor = lazy_tensor(graph.weights[name])
        if name in main.initializers:
            main.initializers[name].const_value = tensor
        else:
            replace_constant(made_by[name], tensor)
    for name, (reader, slot) in graph.inserted.items():
        value = ir.Value(name=name, const_value=lazy_tensor(graph.weights[name]))
        value.shape = ir.Shape(graph.weights[name].shape)
        value.dtype = value.const_value.dtype if value.const_value else None
        main.register_initializer(value)
        node = made_by[reader]
        node.resize_inputs(max(slot + 1, len(node.inputs)))
        node.replace_input_with(slot, value)
    return model


def lazy_tensor(weight: Weight) -> ir.LazyTensor:
    """The weight as a tensor that is computed when written, and not kept."""
    dtype = ir.DataType.from_numpy(weight.dtype)

    def read() -> ir.Tensor:
        return ir.Tensor(np.ascontiguousarray(weight.read()), dtype=dtype, shape=ir.Shape(weight.shape))

    return ir.LazyTensor(read, dtype=dtype, shape=ir.Shape(weight.shape), name=weight.name)


def replace_constant(node: ir.Node, tensor: ir.TensorProtocol) -> None:
    """Make a Constant or ConstantOfShape node yield `tensor`. A constant, not an initializer: before IR version 4
    an initializer would have to be a model input too."""
    output = node.outputs[0]
    new = ir.node("Constant", [], {"value": ir.Tensor(tensor.numpy(), name=tensor.name)}, name=node.name)
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [new], [output], [new.outputs[0]])


def write_whole(model: ir.Model, path: Path, external: str | None) -> None:
    """Write into a fresh folder beside the target, then rename: a reader never sees half a file."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".mal-graph-", dir=path.parent))
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror} in folder {path.parent}; choose another folder") from None
    try:
        ir.save(model, folder / path.name, external_data=external)
        for written in sorted(folder.iterdir(), key=lambda file: file.name == path.name):  # the data first
            os.replace(written, path.parent / written.name)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def to_attribute(value: Any) -> Any:
    """An attribute of a view's node in the form `onnx.helper.make_attribute` takes."""
    if isinstance(value, ir.Graph | ir.TensorProtocol):
        return ir.to_proto(value)
    if isinstance(value, list | tuple):
        return [to_attribute(item) for item in value]
    return value
