"""From a program of torch.export to the operators of a layer graph.

Operators that work in place are followed: later readers of what they changed read what they made. Where something else
sees the same memory the program is made functional first, and operators without a lowering are decomposed by torch;
both leave all others as they are.
"""

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from mal_graph.errors import UnsupportedModel
from mal_graph.graph import Declared, LayerGraph, Node, Value

from .aten import lowering_of
from .lowering import OPSET, Lowered, Packed, Site, Wire, numpy_type, shared_weight, sizes_of

Env = dict[fx.Node, Any]
MadeOf = Mapping[str, fx.Node]
INLINED = {"wrap_with_set_grad_enabled": 1}  # they run a graph of their own, given after so many settings


def lower_program(program: ExportedProgram) -> tuple[LayerGraph, Mapping[str, Packed], MadeOf]:
    """A program as a layer graph without name and source, the weights in it that the module keeps in parts, and the
    nodes of the program that its operators and constants were made of.

    Raises:
        UnsupportedModel: an operator has no counterpart.
    """
    program = prepare(program)
    into = Lowered()
    env: Env = {}
    inputs = list(user_inputs(program, into, env))
    outputs = walk_graph(program.graph_module, into, env)
    mutations = len(outputs) - program.call_spec.out_spec.num_leaves  # what a functional program gives first
    return finish_graph(program, into, inputs, outputs[mutations:]), into.packed, into.made_of


# --- the program ------------------------------------------------------------------------------------------------


def prepare(program: ExportedProgram) -> ExportedProgram:
    """The program with operators that can all be lowered. Raises UnsupportedModel."""
    unknown = unlowered(program)
    if unknown or any(is_seen_elsewhere(graph) for graph in graphs(program)):
        table = torch.export.default_decompositions()
        program = program.run_decompositions({op: table[op] for op in unknown if op in table})
        unknown = unlowered(program)
    if unknown:
        target, node = next(iter(unknown.items()))
        raise UnsupportedModel(
            f"cannot trace {target}{place_of(node)}: it has no counterpart here; write that part with other operators"
        )
    return program


def graphs(program: ExportedProgram) -> Iterator[fx.Graph]:
    """The program's graph, and those that operators of it run."""
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            yield part.graph


def unlowered(program: ExportedProgram) -> dict[Any, fx.Node]:
    """Operators that have no lowering, each with the first node of it."""
    first_nodes: dict[Any, fx.Node] = {}
    for graph in graphs(program):
        for node in graph.nodes:
            if node.op == "call_function" and computes_tensors(node) and lowering_of(node.target) is None:
                first_nodes.setdefault(node.target, node)
    return first_nodes


def computes_tensors(node: fx.Node) -> bool:
    """Whether a call must be lowered: it gives tensors, and is no mere access or graph of its own."""
    name = getattr(node.target, "__name__", str(node.target))
    if node.target is operator.getitem or name in INLINED:
        return False
    return any(isinstance(made, Tensor) for made in pytree.tree_leaves(node.meta.get("val")))


def is_seen_elsewhere(graph: fx.Graph) -> bool:
    """Whether an operator changes a tensor in place that something later reads through another view of its memory."""
    memory: dict[fx.Node, fx.Node] = {}
    order = {node: place for place, node in enumerate(graph.nodes)}
    sharing: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        source = viewed(node)
        memory[node] = node if source is None else memory[source]
        sharing.setdefault(memory[node], []).append(node)
    for node in graph.nodes:
        if not is_in_place(node):
            continue
        views = [other for other in sharing[memory[node]] if order[other] < order[node] and other is not node.args[0]]
        if any(order[user] > order[node] for view in views for user in view.users):
            return True
    return False


def viewed(node: fx.Node) -> fx.Node | None:
    """The node whose memory a node's result lies in, None if it has memory of its own."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.target is operator.getitem:
        return node.args[0]
    schema = getattr(node.target, "_schema", None)
    is_view = schema is not None and any(made.alias_info is not None for made in schema.returns)
    return node.args[0] if is_view else None


def is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def place_of(node: fx.Node) -> str:
    """Where in the user's code a node comes from, and in which submodule."""
    path = module_path(node)
    frames = re.findall(r'File "([^"<]+)", line (\d+)', node.meta.get("stack_trace") or "")
    line = f" at {frames[-1][0]}:{frames[-1][1]}" if frames else ""
    return f"{f' in {path}' if path else ''}{line}"


def module_path(node: fx.Node) -> str:
    """The submodule that a node belongs to, "" for the module itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return "" if path.startswith("_") else path


# --- the walk ---------------------------------------------------------------------------------------------------


def user_inputs(program: ExportedProgram, into: Lowered, env: Env) -> Iterator[Value]:
    """The inputs of the signature; parameters, buffers and constants become weights, tied ones a single weight."""
    tied: dict[tuple[Any, ...], str] = {}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind is not InputKind.USER_INPUT:
            name = spec.target or node.name
            tensor = program.state_dict[name] if name in program.state_dict else program.constants[name]
            declared = Declared.LEARNED if spec.kind is InputKind.PARAMETER else Declared.NOTHING
            env[node] = stored_wire(name, tensor, into, tied, declared)
        elif isinstance(spec.arg, ConstantArgument) or not isinstance(node.meta["val"], Tensor):
            env[node] = node.meta.get("val")
        else:
            env[node] = wire = input_wire(node, into)
            yield value_of(wire, into)


def stored_wire(name: str, tensor: Tensor, into: Lowered, tied: dict[tuple[Any, ...], str], declared: Declared) -> Wire:
    """A tensor of the module as a weight; `tied` has the names of those that were stored already, by their memory."""
    memory = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
    if memory not in tied:
        tied[memory] = into.unused(name)
        into.weights[tied[memory]] = replace(shared_weight(tied[memory], tensor), declared=declared)
    return Wire(tied[memory], tensor.dtype, tuple(tensor.shape))


def input_wire(node: fx.Node, into: Lowered) -> Wire:
    """An input, whose axes of unknown length give the symbols of the program their meaning."""
    wire = wire_of(into.unused(node.name), node.meta["val"])
    for axis, size in enumerate(wire.shape):
        if not isinstance(size, int) and size.node.expr.is_Symbol:
            into.symbols.setdefault(size.node.expr, (wire.name, axis))
    return wire


def wire_of(name: str, made: Tensor) -> Wire:
    return Wire(name, made.dtype, sizes_of(made))


def value_of(wire: Wire, into: Lowered) -> Value:
    """A model input or output: an axis of unknown length has the symbol's name, the first one of an input "batch"."""

    def shown(size: Any) -> int | str:
        if isinstance(size, int):
            return size
        where = into.symbols.get(size.node.expr)
        return "batch" if where is not None and where[1] == 0 else str(size.node.expr)

    return Value(wire.name, numpy_type(wire.dtype).name, tuple(shown(size) for size in wire.shape))


def values_of(arguments: Any, env: Env) -> Any:
    """Arguments with what was made in place of the nodes."""
    return fx.node.map_arg(arguments, env.__getitem__)


def walk_graph(module: fx.GraphModule, into: Lowered, env: Env) -> tuple[Any, ...]:
    """Lower a graph whose placeholders are in `env`; gives what it gives."""
    for node in module.graph.nodes:
        if node.op == "get_attr":
            env[node] = operator.attrgetter(str(node.target))(module)
        elif node.op == "call_function" and (node.users or is_in_place(node)):
            env[node] = lower_call(node, into, env)
            if is_in_place(node):
                env[node.args[0]] = env[node]
        elif node.op == "output":
            return tuple(values_of(node.args[0], env))
    raise AssertionError("a graph ends with its output")


def lower_call(node: fx.Node, into: Lowered, env: Env) -> Any:
    """What one call gives: a wire, several, or a number."""
    args, kwargs = values_of((node.args, node.kwargs), env)
    name = getattr(node.target, "__name__", str(node.target))
    if node.target is operator.getitem:
        if isinstance(args[0], tuple) and args[1] >= len(args[0]):
            raise UnsupportedModel(
                f"cannot trace result {args[1]} of {node.args[0]}{place_of(node)}: use the first only"
            )
        return args[0][args[1]]
    if name in INLINED:
        return inline_body(args[INLINED[name]], args[INLINED[name] + 1 :], into)
    if not computes_tensors(node):
        return node.meta.get("val")
    lowering = lowering_of(node.target)
    assert lowering is not None  # the program was prepared
    positional, named = order_by_schema(node.target, args, kwargs)
    try:
        made = lowering(Site(into, node, module_path(node)), *positional, **named)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"cannot trace {node.target}{place_of(node)}: {error}") from None
    if isinstance(made, str):
        return wire_of(made, node.meta["val"])
    return tuple(wire_of(part, like) for part, like in zip(made, node.meta["val"], strict=False))


def order_by_schema(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call in the order of its schema, with its defaults; those by keyword only as given."""
    positional = []
    for place, argument in enumerate(a for a in target._schema.arguments if not a.kwarg_only):
        given = kwargs.get(argument.name, argument.default_value)
        positional.append(args[place] if place < len(args) else given)
    by_keyword = {a.name for a in target._schema.arguments if a.kwarg_only}
    return positional, {key: value for key, value in kwargs.items() if key in by_keyword}


def inline_body(body: fx.GraphModule, args: Sequence[Any], into: Lowered) -> tuple[Any, ...]:
    """A graph that an operator runs, in its place."""
    placeholders = [node for node in body.graph.nodes if node.op == "placeholder"]
    return tuple(walk_graph(body, into, dict(zip(placeholders, args, strict=True))))


# --- the graph --------------------------------------------------------------------------------------------------


def finish_graph(
    program: ExportedProgram, into: Lowered, inputs: Sequence[Value], outputs: Sequence[Any]
) -> LayerGraph:
    """The layer graph: outputs under their own names, nothing in it that no output needs."""
    named = [(wire, name) for wire, name in zip(outputs, output_names(program), strict=True) if isinstance(wire, Wire)]
    nodes, declared = declare_outputs(named, into)
    needed = {value.name for value in declared}
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed |= set(node.inputs)
    weights = {key: weight for key, weight in into.weights.items() if key in needed}
    return LayerGraph("", tuple(reversed(kept)), tuple(inputs), tuple(declared), weights, {"": OPSET})


def declare_outputs(outputs: Sequence[tuple[Wire, str]], into: Lowered) -> tuple[list[Node], list[Value]]:
    """The operators with the outputs under their own names, and what is declared of these."""
    nodes = list(into.nodes)
    declared: list[Value] = []
    renamed: dict[str, str] = {}
    made = {out for node in nodes for out in node.outputs}
    for wire, wanted in outputs:
        name = into.unused(wanted)
        if wire.name in made and wire.name not in renamed:
            renamed[wire.name] = name
        else:  # an input, a weight, or given twice
            nodes.append(Node(into.unused("/Identity"), "Identity", (wire.name,), (name,)))
        declared.append(value_of(replace(wire, name=name), into))
    return [with_names(node, renamed) for node in nodes], declared


def with_names(node: Node, names: Mapping[str, str]) -> Node:
    inputs, outputs = (tuple(names.get(name, name) for name in part) for part in (node.inputs, node.outputs))
    return replace(node, inputs=inputs, outputs=outputs)


def output_names(program: ExportedProgram) -> list[str]:
    """What the outputs are called: by key or field, else by number."""
    spec = program.call_spec.out_spec
    count = spec.num_leaves
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(count)), spec))
    names = []
    for path, _ in paths:
        parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
        text = "_".join(part for part in parts if part)
        names.append("output" if not text else f"output_{text}" if text[0].isdigit() else text)
    return names
