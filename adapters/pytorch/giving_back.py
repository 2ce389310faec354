"""Merged weights back in the module that was traced: in its state, in its parts, and in its code."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from mal_graph.errors import ShapeError, UnsupportedModel
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import as_stored

from .graph_difference import difference
from .rewrite_code import cannot_give_back, put_widths
from .tracing import Arguments, Traced, evaluating, lower_module, quiet


def merged_module(graph: LayerGraph) -> fx.GraphModule:
    """A copy of what was traced, with the graph's weights. Raises UnsupportedModel or ShapeError."""
    graph, source = as_stored(graph), source_of(graph)
    module = copy.deepcopy(source.module)
    rewritten = needs_rewriting(graph, source)
    new = {**changed_state(graph, source), **(changed_in_code(graph, source) if rewritten else {})}
    for key, values in new.items():
        put_tensor(module, key, values)
    for name, (consumer, slot) in graph.inserted.items():
        if not read_before(source, consumer, slot):
            put_bias(module, graph, name, consumer)
    if rewritten:
        rewrite(module, graph, source)
    return module


def merged_state(graph: LayerGraph) -> dict[str, Tensor]:
    """The state of the module that was traced, with the graph's weights. Raises UnsupportedModel or ShapeError."""
    graph, source = as_stored(graph), source_of(graph)
    new = changed_state(graph, source)
    for key, values in new.items():
        if values.shape != tuple(source.state[key].shape):
            raise ShapeError(
                f"{key} has shape {list(values.shape)} now, {list(source.state[key].shape)} in the class: "
                "take the result of to_module"
            )
    check_constants(graph, source)
    for setting in changed_settings(graph, source):
        raise ShapeError(
            f"the merge changed the {setting}, which {graph.name} has in its code: take the result of to_module, or "
            "save it as an ONNX file"
        )
    if graph.inserted:
        raise ShapeError(
            f"{graph.name} was given {', '.join(sorted(graph.inserted))}, for which its class has no parameter: "
            "take the result of to_module, or merge a donor without biases there"
        )
    return {key: as_tensor(new[key], tensor) if key in new else tensor.detach() for key, tensor in source.state.items()}


def source_of(graph: LayerGraph) -> Traced:
    if not isinstance(graph.source, Traced):
        raise UnsupportedModel(f"{graph.name} was not traced from a torch module: save it as an ONNX file instead")
    return graph.source


def changed_state(graph: LayerGraph, source: Traced) -> dict[str, Array]:
    """New values by name in the module's state."""
    new: dict[str, Array] = {}
    for name in sorted(graph.edited & (source.packed.keys() | source.keys.keys())):
        values = graph.weights[name].read()
        if name in source.packed:
            new.update(zip(source.packed[name].parts, source.packed[name].unpack(values), strict=True))
        else:
            new.update(dict.fromkeys(source.keys[name], values))
    return new


def changed_constants(graph: LayerGraph, source: Traced) -> list[str]:
    """Tensors with a change that is in no tensor of the module's state."""
    edited = graph.edited - graph.inserted.keys() - source.packed.keys() - source.keys.keys()
    old, new = source.graph.weights, graph.weights
    return [
        name for name in sorted(edited) if name not in old or not np.array_equal(new[name].read(), old[name].read())
    ]


def check_constants(graph: LayerGraph, source: Traced) -> None:
    """Raise UnsupportedModel for a change that is in no tensor of the module's state."""
    for name in changed_constants(graph, source):
        raise UnsupportedModel(
            f"the merge changed {name!r}, a constant in the code of {graph.name}, which its state does not hold: take "
            "the result of to_module, save it as an ONNX file, or leave its layer out of `layers`"
        )


def put_tensor(module: fx.GraphModule, key: str, values: Array) -> None:
    """Give a module a tensor, where it has one of that name."""
    path, _, name = key.rpartition(".")
    try:
        tensor = getattr(module.get_submodule(path), name)
    except AttributeError:
        return
    if isinstance(tensor, Tensor):
        tensor.data = as_tensor(values, tensor)


def as_tensor(values: Array, like: Tensor) -> Tensor:
    """Values as a tensor of the type and on the device of another."""
    given = torch.from_numpy(np.array(values, np.float32 if values.dtype.kind == "V" else values.dtype))
    return given.to(device=like.device, dtype=like.dtype)


def put_bias(module: fx.GraphModule, graph: LayerGraph, name: str, consumer: str) -> None:
    """Give a submodule the bias it lacked. Raises ShapeError where there is no submodule that takes one."""
    node = graph.nodes[graph.producer[consumer]]
    path = node.name.rpartition("/")[0]
    try:
        part = module.get_submodule(path)
    except AttributeError:
        part = module
    weight = getattr(part, "weight", None)
    if getattr(part, "bias", name) is not None or not isinstance(weight, Tensor):
        raise ShapeError(
            f"{graph.name} was given the bias {name!r}, for which {path or 'its code'} has no parameter: save the "
            "result as an ONNX file"
        )
    part.bias = nn.Parameter(as_tensor(graph.weights[name].read(), weight), requires_grad=weight.requires_grad)


def needs_rewriting(graph: LayerGraph, source: Traced) -> bool:
    """Whether a graph differs in more than the values in the module's state: the code must follow."""
    traced = source.graph.weights
    wider = (name for name in graph.edited & traced.keys() if graph.weights[name].shape != traced[name].shape)
    return any(wider) or bool(changed_constants(graph, source) or changed_settings(graph, source))


def changed_settings(graph: LayerGraph, source: Traced) -> list[str]:
    """What operators hold of their own that is another number than in what was traced: by node and attribute."""
    old: dict[str, Mapping[str, Any]] = {node.name: node.attributes for node in source.graph.nodes}
    return [
        f"{key} of {node.name}"
        for node in graph.nodes
        for key, value in node.attributes.items()
        if node.name in old and not is_alike(old[node.name].get(key), value)
    ]


def is_alike(held: object, value: object) -> bool:
    """Whether an attribute holds the same."""
    return held is value or bool(np.array_equal(np.asarray(held), np.asarray(value)))


def read_before(source: Traced, consumer: str, slot: int) -> str:
    """What an operator read at a slot when it was traced, "" if nothing."""
    inputs = source.graph.nodes[source.graph.producer[consumer]].inputs
    return inputs[slot] if slot < len(inputs) else ""


def changed_in_code(graph: LayerGraph, source: Traced) -> dict[str, Array]:
    """New values of constants, by the names under which the module may keep them."""
    new = {name: graph.weights[name] for name in changed_constants(graph, source)}
    for name, (consumer, slot) in graph.inserted.items():
        if read_before(source, consumer, slot):
            new[read_before(source, consumer, slot)] = graph.weights[name]
    return {name: weight.read() for name, weight in new.items()}


def rewrite(module: fx.GraphModule, graph: LayerGraph, source: Traced) -> None:
    """Make the code of a module follow a graph, and trace it again: it must give that graph. Raises ShapeError."""
    if source.program.example_inputs is None:
        raise cannot_give_back(graph, "its program has no example inputs to trace it again with")
    arguments = pytree.tree_map_only(Tensor, torch.clone, source.program.example_inputs)
    with evaluating(module, warned=False), torch.no_grad(), quiet():
        put_widths(module, graph, source.origins, named_inputs(module, arguments))
        try:
            again = lower_module(module, arguments, dynamic_axes(module, source.program)).graph
        except UnsupportedModel as error:
            raise cannot_give_back(graph, f"with new numbers in its code it cannot be traced: {error}") from error
    why = difference(graph, again)
    if why:
        raise cannot_give_back(graph, f"with new numbers in its code, {why}")


def named_inputs(module: fx.GraphModule, arguments: Arguments) -> dict[str, Any]:
    """What a module is given, by the name of its input."""
    names = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
    bound = inspect.signature(module.forward).bind(*arguments[0], **arguments[1])
    bound.apply_defaults()
    if all(name in bound.arguments for name in names):
        return {name: bound.arguments[name] for name in names}
    return dict(zip(names, pytree.tree_leaves(arguments), strict=True))


def dynamic_axes(module: nn.Module, program: ExportedProgram) -> dict[str, Any]:
    """The dynamic axes that the inputs of a program have, by the argument's name."""
    inputs = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT}
    made = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    axes = [
        {axis: Dim.AUTO for axis, size in enumerate(x.shape) if not isinstance(size, int)}
        if isinstance(x, Tensor)
        else None
        for x in made
    ]
    _, spec = pytree.tree_flatten(program.example_inputs)
    args, kwargs = pytree.tree_unflatten([each or None for each in axes], spec)
    return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
