"""From a layer graph back to its document: a clone of it with all that differs."""

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from mal_graph.graph import LayerGraph, Node, Weight
from mal_graph.network import as_stored

from .bodies import put_into_bodies, stored_inside
from .build import built_node, held, lazy_tensor, stored_value
from .constants import with_constants_shared
from .document import OnnxDocument, stored_values, tensor_attributes
from .joined import with_parts
from .lowering import first_output, given_back
from .view import handle


def edited_model(graph: LayerGraph) -> ir.Model:
    """A clone of the source with all that differs in the graph: weights, attributes, inputs and nodes."""
    document: OnnxDocument = graph.source
    graph, source = with_parts(with_constants_shared(as_stored(graph))), document.model
    if document.lowered is not source:
        raised = given_back(graph)
        graph, source = (graph, document.lowered) if raised is None else (raised, source)
    model = source.clone()
    detach(model)
    if source is document.model:
        put_shared(graph, model)
    main = model.graph
    producers = {out.name: node for node in main for out in node.outputs if out.name}
    values = {out.name: out for node in main for out in node.outputs if out.name}
    values.update({value.name: value for value in (*main.inputs, *main.initializers.values()) if value.name})
    is_resized = any(
        [
            *(put_weight(main, producers, graph.weights[name]) for name in sorted(graph.edited & values.keys())),
            *put_inside(graph, model),
        ]
    )
    for name in dict.fromkeys(name for node in graph.nodes for name in node.inputs):
        if name in graph.weights and name not in values:
            values[name] = inserted_value(main, graph.weights[name], model.ir_version)
    put_nodes(graph, main, producers, values)
    set_attributes(graph, source, producers)
    drop_splits(graph, main, producers)
    put_into_bodies(graph, main)
    if is_resized:
        forget_shapes(model)
    model.metadata_props.clear()
    model.metadata_props.update(graph.metadata)
    return model


def put_shared(graph: LayerGraph, model: ir.Model) -> None:
    """Give the constants inside functions new values."""
    document: OnnxDocument = graph.source
    for name in sorted(graph.edited & document.shared.keys()):
        function, place = document.shared[name]
        make_constant(model.functions[function][place], graph.weights[name])


def drop_splits(graph: LayerGraph, main: ir.Graph, producers: Mapping[str, ir.Node]) -> None:
    """Take out what cuts stored tensors whose parts are tensors of their own now."""
    for name, split in graph.splits.items():
        main.remove(producers[split.node.outputs[0]], safe=True)
        if name in main.initializers:
            del main.initializers[name]


def put_inside(graph: LayerGraph, model: ir.Model) -> Iterator[bool]:
    """Give what bodies store new values; for each whether an initializer has another shape now."""
    for name, stored in stored_inside(model).items() if graph.edited else ():
        if name in graph.edited:
            yield put_stored(stored, graph.weights[name])


def put_weight(main: ir.Graph, producers: Mapping[str, ir.Node], weight: Weight) -> bool:
    """Give a stored tensor of the main graph new values; whether an initializer has another shape now."""
    return put_stored(main.initializers.get(weight.name) or producers[weight.name], weight)


def put_stored(value: ir.Value | ir.Node, weight: Weight) -> bool:
    """Give what stores a tensor new values; whether an initializer has another shape now."""
    if isinstance(value, ir.Node):
        make_constant(value, weight)
        return False
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
                producers[name].attributes[key] = ir.convenience.convert_attribute(key, held(value))


def forget_shapes(model: ir.Model) -> None:
    """Take off the declared shapes of what lies between the inputs and the outputs: some do not hold any more."""
    for graph in model.graphs():
        for value in (out for node in graph for out in node.outputs):
            if graph is not model.graph or not value.is_graph_output():
                value.shape = None
        for value in graph.inputs if graph is not model.graph else ():
            if value.shape is not None and len(value.shape):  # a single number stays one
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
