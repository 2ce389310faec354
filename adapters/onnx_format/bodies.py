"""Bodies of If, Loop, Scan and SequenceMap among the other operators, and back in the attributes that hold them.

In the view the operators of a body stand in the graph itself, under names that begin with the body's, before the
operator that runs it (see `mal_graph.network.bodies`). Whatever is run or written has them in their bodies.

Chosen: one graph for all, so that whatever follows, draws, verifies, aligns, merges or repairs weights needs to know
nothing of bodies. Refused: views within views - each of those steps would have to walk them, with the captures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, zip_longest

import onnx
import onnx_ir as ir

from mal_graph.graph import LayerGraph, Node
from mal_graph.network import Body, Run, nested
from mal_graph.operators import CONTROLS, GIVEN_TYPES, control_of

from .document import BODY, REGION, RUNS, captured

COUNTS = (ir.DataType.INT64, ir.DataType.BOOL)  # the number of a run of a loop, and whether there is one
FIRST_SCAN = 9  # the opset from which on a Scan goes through tensors without an axis of samples


def is_shown(node: ir.Node, model: ir.Model) -> bool:
    """Whether the view shows the bodies of a node among the other operators."""
    control = CONTROLS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if control is None or any(key not in node.attributes or node.attributes[key].is_ref() for key in control.keys):
        return False
    if node.op_type == "Scan" and model.opset_imports.get("", 1) < FIRST_SCAN:
        return False
    bodies = [node.attributes[key].as_graph() for key in control.keys]
    given = max(len(node.inputs), control.steering) if control.begin else 0
    if not all(len(body.inputs) == given for body in bodies) or not 0 <= scanned(node) <= len(node.inputs):
        return False
    counts = bodies[0].inputs[: control.steering]  # runtimes give them the shapes that are declared
    are_numbers = all(value.shape is None or not len(value.shape) for value in counts)
    return are_numbers and all(len(body.outputs) == len(node.outputs) + control.conditions for body in bodies)


def scope_of_body(node: ir.Node, key: str) -> str:
    """How the view calls a body, and what the names in it begin with."""
    name = next((value.name for value in node.outputs if value.name), node.name)  # unique, as node names need not be
    return f"{name}/{key}/"


# --- showing ----------------------------------------------------------------------------------------------------------


def show(model: ir.Model) -> None:
    """Put the operators of all bodies among those of the main graph."""
    taken = {value.name for node in model.graph for value in node.outputs if value.name}
    taken |= {value.name for value in (*model.graph.inputs, *model.graph.initializers.values()) if value.name}
    waiting = [node for node in model.graph if is_shown(node, model)]
    while waiting:
        node = waiting.pop()
        waiting += [inner for inner in show_node(model, node, taken) if is_shown(inner, model)]


def show_node(model: ir.Model, node: ir.Node, taken: set[str]) -> list[ir.Node]:
    """Put the operators of one node's bodies before it; gives these."""
    control, moved = CONTROLS[node.op_type], list[ir.Node]()
    inputs: list[ir.Value | None] = [] if control.begin else list(node.inputs)
    states: list[ir.Value] = []
    for key in control.keys:
        body, scope = node.attributes[key].as_graph(), scope_of_body(node, key)
        rename(body, scope, taken)
        if control.begin:
            begin = begin_of(node, body, scope)
            model.graph.insert_before(node, begin)
            carried = slice(control.steering, len(begin.outputs) - scanned(node)) if control.carries else slice(0)
            states = list(begin.outputs)[carried]
        inputs += list(body.outputs)
        body.outputs.clear()
        moved += move_out(model, node, body, scope)
    for key in control.keys:
        del node.attributes[key]
    inputs += states
    node.resize_inputs(len(inputs))
    for slot, value in enumerate(inputs):
        node.replace_input_with(slot, value)
    node.meta[RUNS] = tuple(scope_of_body(node, key) for key in control.keys)
    return moved


def move_out(model: ir.Model, node: ir.Node, body: ir.Graph, scope: str) -> list[ir.Node]:
    """Put what a body holds into the main graph, before the node that runs it; gives its operators."""
    for value in list(body.initializers.values()):
        del body.initializers[value.name or ""]
        model.graph.register_initializer(value)
    moved = list(body)
    for inner in moved:
        body.remove(inner)
        inner.meta[BODY], inner.meta[REGION] = scope, node.meta[REGION]
        model.graph.insert_before(node, inner)
    return moved


def scanned(node: ir.Node) -> int:
    """How many tensors a node goes through slice by slice."""
    told = node.attributes.get("num_scan_inputs")
    return told.as_int() if told is not None else 0


def rename(body: ir.Graph, scope: str, taken: set[str]) -> None:
    """Give what is in a body names of the main graph."""
    for inner in body:
        name = inner.name or next((out.name for out in inner.outputs if out.name), None) or ""
        inner.name = scope + name.removeprefix("/")
    made = [value for inner in body for value in inner.outputs if value.name]
    for value in dict.fromkeys([*body.inputs, *body.initializers.values(), *made]):
        name = f"{scope}{value.name}"
        while name in taken:
            name += "_"
        taken.add(name)
        tensor, value.const_value = value.const_value, None
        value.name = name
        value.const_value = None if tensor is None else called(tensor, name)


def called(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """A tensor under another name: the file's own keeps its name."""
    if isinstance(tensor, ir.StringTensor):
        return ir.StringTensor(tensor.string_data(), shape=ir.Shape(tensor.shape.numpy()), name=name)
    return ir.LazyTensor(lambda: tensor, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=name)


def begin_of(node: ir.Node, body: ir.Graph, scope: str) -> ir.Node:
    """The node that gives a run its inputs; behind what the operator reads, it reads what the body takes from
    outside."""
    control = CONTROLS[node.op_type]
    given = [*node.inputs, *[None] * (len(body.inputs) - len(node.inputs))]
    attributes = {name: each.value for name, each in node.attributes.items() if name not in control.keys}
    if not control.carries:
        attributes[GIVEN_TYPES] = [int(value.dtype or 0) for value in body.outputs]
    domain, _, op = control.begin.rpartition(".")
    begin = ir.node(
        op,
        [*given, *filter(is_computed, dict.fromkeys(captured(node)))],
        attributes,
        domain=domain,
        num_outputs=len(body.inputs),
        name=f"{scope}{op}",
    )
    for new, old in zip(begin.outputs, body.inputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    begin.meta[BODY], begin.meta[REGION] = scope, node.meta[REGION]
    begin.metadata_props.update(node.metadata_props)
    return begin


def is_computed(value: ir.Value) -> bool:
    """Whether a tensor is computed, or an input of the model."""
    producer = value.producer()
    return value.const_value is None if producer is None else producer.op_type != "Constant"


def stored_inside(model: ir.Model) -> dict[str, ir.Value | ir.Node]:
    """What the bodies of a file store, by the names that the view has for it: initializers, and nodes of constants."""
    stored: dict[str, ir.Value | ir.Node] = {}
    waiting: list[tuple[str, ir.Node]] = [("", node) for node in model.graph if is_shown(node, model)]
    while waiting:
        prefix, node = waiting.pop()
        for key in CONTROLS[node.op_type].keys:
            body, scope = node.attributes[key].as_graph(), prefix + scope_of_body(node, key)
            stored.update({f"{scope}{name}": value for name, value in body.initializers.items()})
            for inner in body:
                if inner.op_type in ("Constant", "ConstantOfShape"):
                    stored[f"{scope}{inner.outputs[0].name}"] = inner
                elif is_shown(inner, model):
                    waiting.append((scope, inner))
    return stored


# --- running ----------------------------------------------------------------------------------------------------------


def node_protos(graph: LayerGraph, to_proto: Callable[[Node, int], onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The operators of a view as nodes of a file, bodies in those that run them."""
    return item_protos(nested(graph.nodes), to_proto, count())


def item_protos(
    items: Sequence[Node | Run], to_proto: Callable[[Node, int], onnx.NodeProto], numbers: Iterator[int]
) -> list[onnx.NodeProto]:
    """Nodes with the bodies that they run."""
    protos = []
    for item in items:
        if isinstance(item, Node):
            protos.append(to_proto(item, next(numbers)))
            continue
        proto = to_proto(item.end, next(numbers))
        proto.input[:] = item.inputs
        for body in item.bodies:
            nodes = item_protos(body.items, to_proto, numbers)
            outputs = [declared(name, kind) for (name, _), kind in zip_longest(given_apart(body), types_told(body))]
            copies = [onnx.helper.make_node("Identity", [old], [new]) for new, old in given_apart(body) if new != old]
            made = onnx.helper.make_graph([*nodes, *copies], body.name, begun(item, body), outputs)
            proto.attribute.append(onnx.helper.make_attribute(body.key, made))
        protos.append(proto)
    return protos


def begun(run: Run, body: Body) -> list[onnx.ValueInfoProto]:
    """The inputs of a body; onnxruntime finds the types of what is carried by itself."""
    names = () if body.begin is None else body.begin.outputs
    kinds = COUNTS[: control_of(run.end).steering]
    steering = [onnx.helper.make_tensor_value_info(name, kind, ()) for name, kind in zip(names, kinds, strict=False)]
    return [*steering, *map(onnx.helper.make_empty_tensor_value_info, names[len(steering) :])]


def declared(name: str, kind: int | None) -> onnx.ValueInfoProto:
    """What a body gives, of a type that runtimes find by themselves if None."""
    known = onnx.helper.make_tensor_value_info(name, kind or 0, None)
    return onnx.helper.make_empty_tensor_value_info(name) if kind is None else known


def types_told(body: Body) -> Sequence[int]:
    """The types of what each run for an element of a list gives: they are those of the lists, which may be empty."""
    told: Sequence[int] = () if body.begin is None else body.begin.attribute(GIVEN_TYPES, ())
    return told


def given_apart(body: Body) -> list[tuple[str, str]]:
    """The outputs of a body, each with what it is a copy of: runtimes ask for tensors that its own operators make, each
    once."""
    made, seen = body.made, set[str]()
    pairs = []
    for place, name in enumerate(body.outputs):
        pairs.append((name if name in made and name not in seen else f"{body.name}output {place}", name))
        seen.add(name)
    return pairs


# --- writing ----------------------------------------------------------------------------------------------------------


def put_into_bodies(graph: LayerGraph, main: ir.Graph) -> None:
    """Put the operators of a main graph that the view shows as those of bodies into these."""
    own = {out.name: node for node in main for out in node.outputs if out.name}
    for item in nested(graph.nodes):
        if isinstance(item, Run):
            put_run(item, main, own)


def put_run(run: Run, main: ir.Graph, own: Mapping[str, ir.Node]) -> ir.Node:
    """Put the bodies that an operator runs into its attributes."""
    end = node_of(run.end, own)
    values, inputs = list(end.inputs), inputs_of(run, own)
    end.resize_inputs(len(inputs))
    for slot, value in enumerate(inputs):
        end.replace_input_with(slot, value)
    known = {value.name: value for value in values if value is not None}
    for body in run.bodies:
        nodes = [put_run(item, main, own) if isinstance(item, Run) else node_of(item, own) for item in body.items]
        begun = [] if body.begin is None else [ir.Value(name=name) for name in body.begin.outputs]
        if body.begin is not None:
            begin = node_of(body.begin, own)
            steering = COUNTS[: control_of(run.end).steering]
            for old, new, kind in zip_longest(begin.outputs, begun, steering):
                new.type, new.shape = (old.type, old.shape) if kind is None else (ir.TensorType(kind), ir.Shape(()))
                known[new.name] = new
                old.replace_all_uses_with(new)
            main.remove(begin)
        outputs = []
        for name, copied in given_apart(body):
            if name != copied:
                nodes.append(ir.node("Identity", [known[copied]], name=name))
                nodes[-1].outputs[0].name = name
            outputs.append(nodes[-1].outputs[0] if name != copied else known[name])
        for value, kind in zip(outputs, types_told(body), strict=False):
            value.type = ir.TensorType(ir.DataType(kind))
        for node in nodes:
            if node.graph is main:
                main.remove(node)
        held = ir.Graph(begun, outputs, nodes=nodes, name=body.name)
        end.attributes[body.key] = ir.AttrGraph(body.key, held)
    return end


def inputs_of(run: Run, own: Mapping[str, ir.Node]) -> list[ir.Value | None]:
    """What the operator reads in a file."""
    begin = run.bodies[0].begin
    return list(node_of(run.end if begin is None else begin, own).inputs)[: len(run.inputs)]


def node_of(node: Node, own: Mapping[str, ir.Node]) -> ir.Node:
    """The node of the file that makes what an operator makes."""
    return own[next(filter(None, node.outputs))]
