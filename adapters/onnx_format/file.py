"""ONNX files as layer graphs, and back.

The source document is the onnx-ir model as loaded and is never changed: weights are read from it by mapping, and saving
writes a clone with the edited tensors replaced. Chosen: onnx-ir, which maps external data and keeps what it does not
know; refused: `onnx.load`, which reads all the weights, and graphsurgeon, which loses metadata.

External data is written here and not by `ir.save`, which forgets the notes on a tensor, fails on strings and leaves
constants pointing at the file they came from.
"""

import ast
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # protobuf has no types

from mal_graph.atomic_write import write_whole
from mal_graph.errors import FileError
from mal_graph.graph import Array, LayerGraph, Node, Value, Weight
from mal_graph.protocols import Check

from . import guard
from .build import built_model, built_node, lazy_tensor, stored_value
from .sessions import open_session

EXTERNAL_DATA_FROM = 1_500_000_000  # bytes of weights; protobuf ends at 2 GiB
EXTERNAL_TENSOR_FROM = 256  # bytes; smaller tensors stay in the model file even then
NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # what torch's exporter notes on a node
CONSTANT_FORMS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


@dataclass(frozen=True)
class OnnxDocument:
    """What a layer graph of this adapter keeps as its source."""

    path: Path
    model: ir.Model
    constants: Mapping[str, ir.Node] = field(default_factory=dict)  # nodes that are weights in the view

    @property
    def external(self) -> list[ir.ExternalTensor]:
        """The tensors whose values lie in a file of their own."""
        return [tensor for tensor in tensors(self.model) if isinstance(tensor, ir.ExternalTensor)]


class OnnxAdapter:
    """Loads and saves `.onnx` files."""

    def claims(self, model: object) -> bool:
        return isinstance(model, str | os.PathLike | onnx.ModelProto)

    def load(self, model: object) -> LayerGraph:
        """The layer graph of an ONNX file, or of a parsed document, whose external data are looked for in the current
        folder. Raises FileError for a broken or unsafe model, UnsupportedModel for one that cannot be merged."""
        if isinstance(model, onnx.ModelProto):
            given = model.graph.name or "model"
            path, proto = Path.cwd() / given, guard.check_proto(model, Path(given))
        else:
            given = os.fsdecode(model)  # type: ignore[arg-type]  # a path: `claims` lets nothing else through
            path = guard.checked_path(Path(given))
            proto = guard.check_file(path)
        document = linked(proto, path)
        guard.check_model(document, path)
        sort(document, path)
        return replace(layer_graph(document, path), name=given)

    def save(self, graph: LayerGraph, path: Path, accept: Callable[[Path], None] | None = None) -> None:
        """Write `graph` to `path`, completely or not at all; big weights go to `<path>.data`. Raises FileError."""
        external = graph.source.external if isinstance(graph.source, OnnxDocument) else []
        if any(Path(tensor.path).resolve() == path.resolve() for tensor in external):
            raise FileError(f"cannot write {path}: it holds the weights of {graph.name}; name another file")
        for tensor in external:
            handle(tensor.name, tensor).read()  # maps it: the values stay readable if this very file is replaced below
        model = edited_model(graph) if isinstance(graph.source, OnnxDocument) else built_model(graph)
        is_big = sum(tensor.nbytes for tensor in tensors(model)) > EXTERNAL_DATA_FROM
        data_name = f"{path.name}.data" if external or is_big else None
        write_whole(path, lambda draft: write_model(model, draft, data_name), accept)

    def check(self, path: Path) -> tuple[Check, ...]:
        """What the ONNX checker and onnxruntime say of a saved file."""
        return checker_check(path), runtime_check(path)


def linked(proto: onnx.ModelProto, path: Path) -> ir.Model:
    """The parsed file as an onnx-ir model that finds its external data. Raises FileError."""
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir wraps whatever its parser meets
        cause = " ".join(str(root(error)).split())[:200]
        raise guard.broken(path, f"onnx-ir cannot read it ({cause})", "export the model again") from None
    for tensor in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = path.parent  # absolute: with an empty folder onnx-ir 1.1 skips its own checks
        elif isinstance(tensor, ir.serde.TensorProtoTensor):
            # onnx-ir 1.1 has read these already, and would write them once from here and once from its own copy.
            tensor.raw.ClearField("metadata_props")
    return model


def stored_values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value with an initializer, those of bodies included."""
    bodies = (body for function in model.functions.values() for body in function.subgraphs())
    for graph in (*model.graphs(), *bodies):
        yield from (value for value in graph.initializers.values() if value.const_value is not None)


def tensor_attributes(model: ir.Model) -> Iterator[tuple[ir.Node | ir.Function, ir.Attr]]:
    """Every attribute that holds a tensor or tensors, with its node or the function it is a default of."""
    owners: list[ir.Node | ir.Function] = [*guard.all_nodes(model), *model.functions.values()]
    for owner in owners:
        for attribute in owner.attributes.values():
            if not attribute.is_ref() and attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
                yield owner, attribute


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every stored tensor of the model."""
    yield from (value.const_value for value in stored_values(model) if value.const_value is not None)
    for _, attribute in tensor_attributes(model):
        yield from [attribute.as_tensor()] if attribute.type == ir.AttributeType.TENSOR else attribute.as_tensors()


def sort(model: ir.Model, path: Path) -> None:
    """Put the nodes in topological order, as the standard asks; a sorted file keeps its order. Raises FileError."""
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in owners:
        try:
            graph.sort()
        except ValueError:
            place = guard.named(on_cycle(list(graph.all_nodes())))
            raise guard.broken(path, f"its graph has a cycle through {place}", "export the model again") from None


def on_cycle(nodes: list[ir.Node]) -> ir.Node:
    """A node that waits for its own output, if there is one."""
    order: nx.DiGraph[ir.Node] = nx.DiGraph()
    for node in nodes:
        read = [value for value in node.inputs if value is not None] + list(captured(node))
        order.add_edges_from((producer, node) for value in read if (producer := value.producer()) is not None)
    cycle: list[tuple[ir.Node, ir.Node]] = list(nx.find_cycle(order))
    return cycle[0][0]


def checker_check(path: Path) -> Check:
    """What the ONNX checker says of a file; operators of other domains are not its business."""
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return Check("onnx_checker", False, str(error).strip().splitlines()[0])
    return Check("onnx_checker", True)


def runtime_check(path: Path) -> Check:
    """Whether onnxruntime loads a file."""
    try:
        open_session(str(path))
    except Exception as error:  # onnxruntime raises bare Exceptions of a dozen kinds
        return Check("onnxruntime", False, str(error).strip().splitlines()[0])
    return Check("onnxruntime", True)


def layer_graph(model: ir.Model, path: Path) -> LayerGraph:
    """The view of a sorted onnx-ir model, with its constants as weights."""
    graph = model.graph
    weights = {name: weight for name, weight in initializers(graph, "")}
    constants: dict[str, ir.Node] = {}
    nodes: list[Node] = []
    taken: set[str] = set()
    for source in graph:
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
        scope=scope_of(node),
    )


def scope_of(node: ir.Node) -> str:
    """The module that torch's exporter says a node comes from; "" where it does not say, or names the whole model."""
    try:  # a Python list: the modules from the outside in, then the operator
        scopes = ast.literal_eval(node.metadata_props.get(NAME_SCOPES, "[]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    is_told = isinstance(scopes, list) and len(scopes) > 1
    return scopes[-2] if is_told and isinstance(scopes[-2], str) else ""


def value_of(value: ir.Value) -> Value:
    dtype = value.dtype.numpy().name if value.dtype is not None and value.dtype != ir.DataType.UNDEFINED else ""
    if value.shape is None:
        return Value(value.name or "", dtype, None)
    sizes = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    shape = tuple(None if isinstance(dim, int) and dim < 0 else dim for dim in sizes)  # -1: some exporters' "any"
    return Value(value.name or "", dtype, shape)


def subgraphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The bodies of a control-flow node, each with the scope its weights are listed under."""
    name = next((value.name for value in node.outputs if value.name), node.name)  # unique, as node names need not be
    for key, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield f"{name}/{key}/", attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for i, body in enumerate(attribute.as_graphs()):
                yield f"{name}/{key}.{i}/", body


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
        if node.op_type == "Constant" and "value" in node.attributes and not node.attributes["value"].is_ref():
            name = f"{scope}{node.outputs[0].name}"
            yield name, handle(name, node.attributes["value"].as_tensor(), scope)


def handle(name: str, tensor: ir.TensorProtocol, scope: str = "") -> Weight:
    """A lazy handle: the values stay where they are until read."""

    def read() -> Array:
        try:
            values = np.asarray(tensor.numpy()).view()
        except (OSError, ValueError) as error:
            raise FileError(
                f"cannot read weight {name!r}: {error}; restore the file and load the model again"
            ) from None
        values.flags.writeable = False
        return values

    return Weight(name, tuple(tensor.shape.numpy()), np.dtype(tensor.dtype.numpy()), read, scope)


def constant_weight(node: ir.Node, weights: Mapping[str, Weight]) -> Weight | None:
    """The weight that a Constant, or a ConstantOfShape with a stored shape, stands for."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Constant", "ConstantOfShape"):
        return None
    name = node.outputs[0].name
    if not name:
        return None
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
    if shape_name is None or shape_name not in weights:
        return None
    shape = tuple(int(dim) for dim in weights[shape_name].read())
    value = node.attributes["value"].as_tensor().numpy().reshape(()) if "value" in node.attributes else np.float32(0)
    filled = np.broadcast_to(value, shape)  # no memory: one value seen through zero strides
    return Weight(name, shape, filled.dtype, lambda: filled)


def edited_model(graph: LayerGraph) -> ir.Model:
    """A clone of the source with all that differs in the graph: weights, attributes, inputs and nodes."""
    document: OnnxDocument = graph.source
    model = document.model.clone()
    detach(model)
    main = model.graph
    producers = {out.name: node for node in main for out in node.outputs if out.name}
    values = {out.name: out for node in main for out in node.outputs if out.name}
    values.update({value.name: value for value in (*main.inputs, *main.initializers.values()) if value.name})
    is_resized = any(
        [put_weight(main, producers, graph.weights[name]) for name in sorted(graph.edited & values.keys())]
    )
    for name in dict.fromkeys(name for node in graph.nodes for name in node.inputs):
        if name in graph.weights and name not in values:
            values[name] = inserted_value(main, graph.weights[name], model.ir_version)
    put_nodes(graph, main, producers, values)
    set_attributes(graph, document.model, producers)
    if is_resized:
        forget_shapes(main)
    return model


def put_weight(main: ir.Graph, producers: Mapping[str, ir.Node], weight: Weight) -> bool:
    """Give a stored tensor new values; whether an initializer has another shape now."""
    if weight.name not in main.initializers:
        make_constant(producers[weight.name], weight)
        return False
    value = main.initializers[weight.name]
    is_resized = value.const_value is not None and value.const_value.shape != weight.shape
    value.const_value = lazy_tensor(weight, value.const_value)
    value.shape = value.const_value.shape
    return is_resized


def put_nodes(graph: LayerGraph, main: ir.Graph, producers: Mapping[str, ir.Node], values: dict[str, ir.Value]) -> None:
    """Insert the operators that the view has and the document lacks, and let all read what the view's read."""
    last: ir.Node | None = None
    for node in graph.nodes:
        own = producers.get(first_output(node))
        if own is None:
            own = built_node(node, values, {})
            main.insert_after(last, own) if last is not None else main.insert_before(main[0], own)
        set_inputs(own, node, values)
        last = own


def first_output(node: Node) -> str:
    return next(out for out in node.outputs if out)


def set_inputs(own: ir.Node, node: Node, values: Mapping[str, ir.Value]) -> None:
    """Let a node of the document read what the view's node reads."""
    own.resize_inputs(max(len(own.inputs), len(node.inputs)))
    for slot, name in enumerate(node.inputs):
        value = own.inputs[slot]
        if name != ("" if value is None else value.name or ""):
            own.replace_input_with(slot, values[name] if name else None)


def set_attributes(graph: LayerGraph, source: ir.Model, producers: Mapping[str, ir.Node]) -> None:
    """Give the nodes of a clone of `source` the attributes that differ in the graph."""
    old = {out.name: node.attributes for node in source.graph for out in node.outputs if out.name}
    for node in graph.nodes:
        name = first_output(node)
        for key in old[name].keys() - node.attributes.keys() if name in old else ():
            del producers[name].attributes[key]
        for key, value in node.attributes.items() if name in old else ():
            if key not in old[name] or old[name][key].value is not value:
                producers[name].attributes[key] = ir.convenience.convert_attribute(key, value)


def forget_shapes(main: ir.Graph) -> None:
    """Take off the declared shapes of what lies between the inputs and the outputs: some do not hold any more."""
    for node in main:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def detach(model: ir.Model) -> None:
    """Cut a clone loose from the files its tensors lie in, which may move or be replaced."""
    for value in stored_values(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = mapped_tensor(value.const_value)
    for owner, attribute in list(tensor_attributes(model)):
        name, doc_string = attribute.name, attribute.doc_string
        if attribute.type == ir.AttributeType.TENSOR:
            if isinstance(tensor := attribute.as_tensor(), ir.ExternalTensor):
                owner.attributes[name] = ir.AttrTensor(name, mapped_tensor(tensor), doc_string=doc_string)
        else:
            mapped = [mapped_tensor(t) if isinstance(t, ir.ExternalTensor) else t for t in attribute.as_tensors()]
            owner.attributes[name] = ir.AttrTensors(name, mapped, doc_string=doc_string)


def mapped_tensor(tensor: ir.ExternalTensor) -> ir.LazyTensor:
    return lazy_tensor(handle(tensor.name, tensor), tensor)


def make_constant(node: ir.Node, weight: Weight) -> None:
    """Make a Constant or ConstantOfShape node yield `weight`. It stays a node: before IR version 4 an initializer
    would have to be a model input too."""
    old = node.attributes.get("value")
    tensor = lazy_tensor(weight, old.as_tensor() if old is not None and node.op_type == "Constant" else None)
    node.op_type = "Constant"
    node.resize_inputs(0)
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", tensor)


def inserted_value(main: ir.Graph, weight: Weight, ir_version: int) -> ir.Value:
    """A new stored value of the main graph: an initializer, or a Constant where that would have to be an input."""
    if ir_version < 4:
        node = ir.node("Constant", [], {"value": lazy_tensor(weight)})
        node.outputs[0].name = weight.name
        main.insert_before(main[0], node)
        return node.outputs[0]
    value = stored_value(weight)
    main.register_initializer(value)
    return value


def write_model(model: ir.Model, draft: Path, data_name: str | None) -> None:
    """Write a model, and its big weights to a file of that name beside it if there is one. Raises FileError."""
    try:
        if data_name:
            move_out(model, draft.parent, data_name)
        ir.save(model, draft, format="protobuf")
    except EncodeError:
        raise FileError(
            f"cannot write {draft.name}: its constants have more bytes than one protobuf file holds (2 GiB); "
            "export the model with weights as initializers"
        ) from None
    except ir.serde.SerdeError as error:  # what a weight's own computation raised, wrapped on its way
        raise root(error) from None


def move_out(model: ir.Model, folder: Path, name: str) -> None:
    """Write the initializers that are worth it to the data file `name`; strings cannot lie there."""
    values, stored = [], []
    for value in stored_values(model):
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > EXTERNAL_TENSOR_FROM:
            tensor.name = value.name
            values.append(value)
            stored.append(tensor)
    if not stored:
        return
    for value, old, new in zip(
        values, stored, ir.external_data.convert_tensors_to_external(stored, folder, name), strict=True
    ):
        new.doc_string = old.doc_string
        new.metadata_props.update(old.metadata_props)
        value.const_value = new


def root(error: BaseException) -> BaseException:
    """The first cause of an error that was wrapped on its way."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


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
