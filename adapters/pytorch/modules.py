"""torch modules as layer graphs, and back.

A module is traced by `torch.fx.symbolic_trace` where that gives a module which computes the same: it keeps submodules
and their names, and can be trained. Where it does not - Python that asks for shapes, keyword arguments - the program of
`torch.export` takes its place. Either way torch.export without any decomposition gives the operators, which are lowered
onto ONNX's (`aten`). The weights stay the module's own. torch says of every operator which call of the traced
module it came from; so numbers that a merge changes are written back into the code (`rewrite_code`).

Chosen: lowering ATen's operators only. Refused: lowering the modules and functions of torch.fx, several hundred names
with signatures of their own for what torch itself reduces to some hundred operators with schemas; and torch's ONNX
exporter, which takes ten times as long and needs onnxscript.
"""

import copy
import inspect
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from mal_graph.errors import DataError, ShapeError, TraceWarning, UnsupportedModel
from mal_graph.graph import Array, LayerGraph
from mal_graph.protocols import Check

from .factory import built, read_weights, told, write_state
from .lowering import Packed
from .rewrite_code import difference, held, put_widths
from .walk import lowered_program

LOG = logging.getLogger(__name__)
SAME = 1e-4  # how far, of the largest, outputs of a traced copy may lie from the module's
TRAINED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # what evaluation changes
QUANTISED = ("torch.ao.nn", "torchao", "bitsandbytes")
HERE = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Traced:
    """What a layer graph of this adapter keeps as its source.

    Attributes:
        module: what computes the same and can be copied, a `torch.fx.GraphModule`.
        state: the module's own tensors, by the names of its state.
        keys: for each weight of the graph the names in the state that it stands for: several where these are tied.
        packed: weights that stand for several tensors of the state.
        graph: the operators and weights as they were traced.
        origins: for each operator and constant the call in the module's code that it was lowered from, "" if unknown.
        program: what was lowered, with the inputs it was traced with.
    """

    module: fx.GraphModule
    state: Mapping[str, Tensor]
    keys: Mapping[str, tuple[str, ...]]
    packed: Mapping[str, Packed]
    graph: LayerGraph
    origins: Mapping[str, str]
    program: ExportedProgram


class TorchAdapter:
    """Traces modules and gives them back."""

    def trace(self, module: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> LayerGraph:
        """The layer graph of a module, a GraphModule or an ExportedProgram. Raises UnsupportedModel or DataError."""
        if isinstance(module, ExportedProgram):
            found = Lowering(module, *lowered_program(module))
            return with_source(found, as_graph_module(module), module.graph, module.state_dict, "ExportedProgram")
        check(module)
        arguments = as_arguments(example_inputs, module)
        with evaluating(module) as modes, torch.no_grad(), quiet():
            expected = outputs_of(module, arguments)
            source = symbolic(module, arguments, expected)
            with known_calls(source):
                found = lowered(module if source is None else source, arguments, dynamic_shapes)
        if source is None:
            source, code = as_graph_module(found.program), found.program.graph
        else:
            code = source.graph
            for name, part in source.named_modules():
                part.training = modes.get(name, part.training)
        return with_source(found, source, code, module.state_dict(keep_vars=True), type(module).__name__)

    def to_module(self, graph: LayerGraph) -> fx.GraphModule:
        """A copy of what was traced, with the graph's weights. Raises UnsupportedModel or ShapeError."""
        source = traced_source(graph)
        made = copy.deepcopy(source.module)
        rewritten = is_rewritten(graph, source)
        for key, values in {**changed(graph, source), **(in_code(graph, source) if rewritten else {})}.items():
            put(made, key, values)
        for name, (reader, slot) in graph.inserted.items():
            if not read_before(source, reader, slot):
                put_bias(made, graph, name, reader)
        if rewritten:
            rewrite(made, graph, source)
        return made

    def state_dict(self, graph: LayerGraph) -> dict[str, Tensor]:
        """The state of the module that was traced, with the graph's weights. Raises UnsupportedModel or ShapeError."""
        source = traced_source(graph)
        new = changed(graph, source)
        for key, values in new.items():
            if values.shape != tuple(source.state[key].shape):
                raise ShapeError(
                    f"{key} has shape {list(values.shape)} now, {list(source.state[key].shape)} in the class: "
                    "take the result of to_module"
                )
        check_constants(graph, source)
        if graph.inserted:
            raise ShapeError(
                f"{graph.name} was given {', '.join(sorted(graph.inserted))}, for which its class has no parameter: "
                "take the result of to_module, or merge a donor without biases there"
            )
        return {
            key: as_tensor(new[key], tensor) if key in new else tensor.detach() for key, tensor in source.state.items()
        }

    def save(self, graph: LayerGraph, path: Path, accept: Callable[[Path], None] | None = None) -> None:
        """Write the state as a `.safetensors` file, completely or not at all. Raises FileError."""
        write_state(self.state_dict(graph), path, accept)

    def check(self, path: Path) -> tuple[Check, ...]:
        """Whether a written file can be read."""
        read_weights(path)
        return (Check("safetensors", True),)

    def build(self, target: str, weights: Path | None = None) -> nn.Module:
        """The module that `package.module:factory` makes (see `factory`)."""
        return built(target, weights)


# --- tracing ----------------------------------------------------------------------------------------------------


def check(module: Any) -> None:
    """Raise UnsupportedModel for what cannot be traced, before anything is tried."""
    if not isinstance(module, nn.Module):
        raise UnsupportedModel(
            f"cannot trace a {type(module).__name__}: give a torch.nn.Module, a GraphModule or an ExportedProgram"
        )
    name = type(module).__name__
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UnsupportedModel(f"cannot trace a {name}, which only wraps a module: trace model.module")
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedModel(
            f"cannot trace {name}, which is compiled to TorchScript: trace the module it was made of"
        )
    for path, part in module.named_modules():
        if type(part).__module__.startswith(QUANTISED):
            raise UnsupportedModel(
                f"cannot trace {name}: {path or 'it'} is quantised ({type(part).__name__}); merge the float module, "
                "then quantise"
            )
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise UnsupportedModel(
                f"cannot trace {name}: {key} is on the meta device and has no values; load the weights first"
            )
        if tensor.is_quantized:
            raise UnsupportedModel(f"cannot trace {name}: {key} is quantised; merge the float module, then quantise")


def as_arguments(example: Any, like: nn.Module) -> Arguments:
    """Positional and keyword arguments: a tensor, a tuple or list of them, or a dictionary by name; arrays become
    tensors beside the module's own."""
    own = next(iter((*like.parameters(), *like.buffers())), torch.empty(0))
    example = pytree.tree_map_only(np.ndarray, lambda array: torch.tensor(array).to(own.device), example)
    if isinstance(example, Mapping):
        return in_order(like, example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    return (() if example is None else (example,)), {}


def in_order(module: nn.Module, example: Mapping[str, Any]) -> Arguments:
    """Arguments given by name, in the order of the module's own where they fit it: torch.export counts them."""
    try:
        bound = inspect.signature(module.forward).bind(**example)
    except TypeError:  # the module itself says what does not fit
        return (), dict(example)
    return bound.args, bound.kwargs


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's log: what fails here is tried another way, or said as an error of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def known_calls(module: fx.GraphModule | None) -> Iterator[None]:
    """With something noted at every call of a module: torch.export says of such calls what became of them."""
    calls = [] if module is None else [node for node in module.graph.nodes if not node.meta]
    for node in calls:
        node.meta["call"] = node.name
    try:
        yield
    finally:
        for node in calls:
            node.meta.pop("call", None)


@contextmanager
def evaluating(module: nn.Module, warned: bool = True) -> Iterator[dict[str, bool]]:
    """The module in evaluation mode, and as it was afterwards; gives the modes of its parts by name."""
    modes = {name: part.training for name, part in module.named_modules()}
    if warned and any(modes[name] and isinstance(part, TRAINED) for name, part in module.named_modules()):
        warnings.warn(
            f"{type(module).__name__} is in training mode: it is traced as it computes after .eval(), and stays in "
            "training mode itself",
            TraceWarning,
            stacklevel=5,  # of whoever called mal_graph.trace
        )
    parts = dict(module.named_modules())
    try:
        module.eval()
        yield modes
    finally:
        for name, part in parts.items():
            part.training = modes[name]


def outputs_of(module: nn.Module, arguments: Arguments) -> list[Any]:
    """What a module gives for the example. Raises DataError."""
    args, kwargs = arguments
    try:
        return pytree.tree_leaves(module(*args, **kwargs))
    except Exception as error:  # a module raises whatever its code raises
        raise DataError(
            f"{type(module).__name__} does not run on the example inputs ({shapes_in(arguments)}): {told(error)}"
            f"{line_of(error)}; give inputs that its forward takes"
        ) from error


def shapes_in(arguments: Arguments) -> str:
    leaves = pytree.tree_leaves(arguments)
    return ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in leaves) or "none"


def symbolic(module: nn.Module, arguments: Arguments, expected: list[Any]) -> fx.GraphModule | None:
    """The module traced symbolically; None if that fails or gives another function."""
    if isinstance(module, fx.GraphModule):
        return module
    try:
        source = fx.symbolic_trace(module)
        found = pytree.tree_leaves(source(*arguments[0], **arguments[1]))
    except Exception:  # tracing runs the module's code on stand-ins, which raises whatever that raises
        return None
    return source if len(found) == len(expected) and all(map(is_same, found, expected)) else None


def is_same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal to rounding."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.dtype.is_floating_point:
        return bool((a == b).all())
    scale = float(b.detach().abs().max()) if b.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=0, atol=SAME * scale, equal_nan=True))


@dataclass(frozen=True)
class Lowering:
    """A program, what it becomes, the weights in that which the module keeps in parts, and the nodes of the program
    that operators and constants were made of."""

    program: ExportedProgram
    graph: LayerGraph
    packed: Mapping[str, Packed]
    made_of: Mapping[str, fx.Node]


def lowered(module: nn.Module, arguments: Arguments, dynamic_shapes: Any) -> Lowering:
    """The program of a module and what it becomes: for any number of samples where it allows that, else for those of
    the example. Raises UnsupportedModel."""
    if dynamic_shapes is None:
        wide = widened(arguments)
        try:
            program = torch.export.export(module, *wide, dynamic_shapes=dynamic_batch(module, wide), strict=False)
            return Lowering(program, *lowered_program(program))
        except Exception as error:  # tracing runs the module's code, which raises whatever it raises
            LOG.debug("%s is traced for the samples of the example: %s", type(module).__name__, told(error))
    try:
        program = torch.export.export(module, *arguments, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise UnsupportedModel(
            f"cannot trace {type(module).__name__}: torch.fx and torch.export both fail, with {told(error)}"
            f"{line_of(error)}; write that part without Python that depends on values"
        ) from error
    return Lowering(program, *lowered_program(program))


def widened(arguments: Arguments) -> Arguments:
    """The example with two samples instead of one: torch takes an axis of length 1 for one that is always so."""
    tensors = [x for x in pytree.tree_leaves(arguments) if isinstance(x, Tensor) and x.ndim]
    if not tensors or any(len(tensor) != 1 for tensor in tensors):
        return arguments
    twice: Arguments = pytree.tree_map(
        lambda x: torch.cat([x, x]) if isinstance(x, Tensor) and x.ndim else x, arguments
    )
    return twice


def dynamic_batch(module: nn.Module, arguments: Arguments) -> dict[str, Any]:
    """A dynamic first axis for every input, by the argument's name."""
    bound = inspect.signature(module.forward).bind(*arguments[0], **arguments[1]).arguments
    return {
        name: pytree.tree_map(lambda x: {0: Dim.AUTO} if isinstance(x, Tensor) and x.ndim else None, value)
        for name, value in bound.items()
    }


def as_graph_module(program: ExportedProgram) -> fx.GraphModule:
    """A program as a module that runs."""
    made: fx.GraphModule = program.module()
    return made


def line_of(error: BaseException) -> str:
    """Where in the user's own code an error was raised: " at FILE:LINE", or nothing."""
    found = ""
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith((*HERE, "<"))]
        if theirs and not found:
            found = f" at {theirs[-1].filename}:{theirs[-1].lineno}"
        cause = cause.__cause__
    return found


def with_source(
    found: Lowering, module: fx.GraphModule, code: fx.Graph, state: Mapping[str, Tensor], name: str
) -> LayerGraph:
    """The graph of a lowering with what it came from; `code` has the calls of the module, under their names."""
    keys = keys_of(found.graph, state)
    call = {name: call_of(node, code) for name, node in found.made_of.items()}
    origins = {name: call.get(name, "") for name in (*(node.name for node in found.graph.nodes), *found.graph.weights)}
    source = Traced(module, state, keys, found.packed, found.graph, origins, found.program)
    return replace(found.graph, name=name, source=source)


def call_of(node: fx.Node, code: fx.Graph) -> str:
    """The name of the call in a graph that a node of a program came from, "" if it came from none."""
    if node.graph is code:
        return node.name
    left = list(node.meta.get("from_node", ()))
    while left:
        source = left.pop(0)
        if getattr(source, "graph_id", None) == id(code):
            return str(source.name)
        left = [*source.from_node, *left]
    return ""


def keys_of(graph: LayerGraph, state: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For each weight of a graph the names in the state that it stands for."""
    twins: dict[tuple[Any, ...], list[str]] = {}
    for key, tensor in state.items():
        twins.setdefault(identity(key, tensor), []).append(key)
    return {name: tuple(twins[identity(name, state[name])]) for name in graph.weights if name in state}


def identity(key: str, tensor: Tensor) -> tuple[Any, ...]:
    """What is equal for names of one stored tensor."""
    if not tensor.numel():
        return (key,)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


# --- and back ---------------------------------------------------------------------------------------------------


def traced_source(graph: LayerGraph) -> Traced:
    if not isinstance(graph.source, Traced):
        raise UnsupportedModel(f"{graph.name} was not traced from a torch module: save it as an ONNX file instead")
    return graph.source


def changed(graph: LayerGraph, source: Traced) -> dict[str, Array]:
    """New values by name in the module's state."""
    found: dict[str, Array] = {}
    for name in sorted(graph.edited & (source.packed.keys() | source.keys.keys())):
        values = graph.weights[name].read()
        if name in source.packed:
            found.update(zip(source.packed[name].parts, source.packed[name].unpack(values), strict=True))
        else:
            found.update(dict.fromkeys(source.keys[name], values))
    return found


def constants(graph: LayerGraph, source: Traced) -> list[str]:
    """Tensors with a change that is in no tensor of the module's state."""
    edited = graph.edited - graph.inserted.keys() - source.packed.keys() - source.keys.keys()
    old, new = source.graph.weights, graph.weights
    return [
        name for name in sorted(edited) if name not in old or not np.array_equal(new[name].read(), old[name].read())
    ]


def check_constants(graph: LayerGraph, source: Traced) -> None:
    """Raise UnsupportedModel for a change that is in no tensor of the module's state."""
    for name in constants(graph, source):
        raise UnsupportedModel(
            f"the merge changed {name!r}, a constant in the code of {graph.name}, which its state does not hold: take "
            "the result of to_module, save it as an ONNX file, or leave its layer out of `layers`"
        )


def put(module: fx.GraphModule, key: str, values: Array) -> None:
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


def put_bias(module: fx.GraphModule, graph: LayerGraph, name: str, reader: str) -> None:
    """Give a submodule the bias it lacked. Raises ShapeError where there is no submodule that takes one."""
    node = graph.nodes[graph.producer[reader]]
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


# --- other code than was traced ---------------------------------------------------------------------------------


def is_rewritten(graph: LayerGraph, source: Traced) -> bool:
    """Whether a graph differs in more than the values in the module's state: the code must follow."""
    traced = source.graph.weights
    wider = (name for name in graph.edited & traced.keys() if graph.weights[name].shape != traced[name].shape)
    return any(wider) or bool(constants(graph, source))


def read_before(source: Traced, reader: str, slot: int) -> str:
    """What an operator read at a slot when it was traced, "" if nothing."""
    inputs = source.graph.nodes[source.graph.producer[reader]].inputs
    return inputs[slot] if slot < len(inputs) else ""


def in_code(graph: LayerGraph, source: Traced) -> dict[str, Array]:
    """New values of constants, by the names under which the module may keep them."""
    found = {name: graph.weights[name] for name in constants(graph, source)}
    for name, (reader, slot) in graph.inserted.items():
        if read_before(source, reader, slot):
            found[read_before(source, reader, slot)] = graph.weights[name]
    return {name: weight.read() for name, weight in found.items()}


def rewrite(module: fx.GraphModule, graph: LayerGraph, source: Traced) -> None:
    """Make the code of a module follow a graph, and trace it again: it must give that graph. Raises ShapeError."""
    if source.program.example_inputs is None:
        raise held(graph, "its program has no example inputs to trace it again with")
    arguments = pytree.tree_map_only(Tensor, torch.clone, source.program.example_inputs)
    with evaluating(module, warned=False), torch.no_grad(), quiet():
        put_widths(module, graph, source.origins, named_inputs(module, arguments))
        try:
            again = lowered(module, arguments, dynamic_axes(module, source.program)).graph
        except UnsupportedModel as error:
            raise held(graph, f"with new numbers in its code it cannot be traced: {error}") from error
    why = difference(graph, again)
    if why:
        raise held(graph, f"with new numbers in its code, {why}")


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
