"""From a torch module to a program of torch.export, and from that to a layer graph with its source."""

import inspect
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from mal_graph.errors import DataError, TraceWarning, UnsupportedModel
from mal_graph.graph import LayerGraph
from mal_graph.network import as_viewed

from .factory import one_line
from .lowering import Packed
from .walk import lower_program

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


def trace_module(module: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> LayerGraph:
    """The layer graph of a module, a GraphModule or an ExportedProgram. Raises UnsupportedModel or DataError."""
    if isinstance(module, ExportedProgram):
        program = LoweredModule(module, *lower_program(module))
        return with_source(program, as_graph_module(module), module.graph, module.state_dict, "ExportedProgram")
    check_traceable(module)
    arguments = as_arguments(example_inputs, module)
    with evaluating(module) as modes, torch.no_grad(), quiet():
        expected = outputs_of(module, arguments)
        source = trace_symbolically(module, arguments, expected)
        with known_calls(source):
            program = lower_module(module if source is None else source, arguments, dynamic_shapes)
    if source is None:
        source, code = as_graph_module(program.program), program.program.graph
    else:
        code = source.graph
        for name, part in source.named_modules():
            part.training = modes.get(name, part.training)
    return with_source(program, source, code, module.state_dict(keep_vars=True), type(module).__name__)


def check_traceable(module: Any) -> None:
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
        return order_by_signature(like, example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    return (() if example is None else (example,)), {}


def order_by_signature(module: nn.Module, example: Mapping[str, Any]) -> Arguments:
    """Arguments given by name, in the order of the module's own where they fit it: torch.export counts them."""
    try:
        bound = inspect.signature(module.forward).bind(**example)
    except TypeError:  # the module itself says what does not fit
        return (), dict(example)
    return bound.args, bound.kwargs


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's log: what fails here is tried another way, or raised as an error of ours."""
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
            stacklevel=6,  # of whoever called mal_graph.trace
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
            f"{type(module).__name__} does not run on the example inputs ({shapes_in(arguments)}): {one_line(error)}"
            f"{line_of(error)}; give inputs that its forward takes"
        ) from error


def shapes_in(arguments: Arguments) -> str:
    leaves = pytree.tree_leaves(arguments)
    return ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in leaves) or "none"


def trace_symbolically(module: nn.Module, arguments: Arguments, expected: list[Any]) -> fx.GraphModule | None:
    """The module traced symbolically; None if that fails or gives another function."""
    if isinstance(module, fx.GraphModule):
        return module
    try:
        source = fx.symbolic_trace(module)
        outputs = pytree.tree_leaves(source(*arguments[0], **arguments[1]))
    except Exception:  # tracing runs the module's code on stand-ins, which raises whatever that raises
        return None
    return source if len(outputs) == len(expected) and all(map(is_same, outputs, expected)) else None


def is_same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal to rounding."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.dtype.is_floating_point:
        return bool((a == b).all())
    finite = b.detach()[b.isfinite()]  # weights may be no numbers, which others say
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=0, atol=SAME * scale, equal_nan=True))


@dataclass(frozen=True)
class LoweredModule:
    """A program, what it becomes, the weights in that which the module keeps in parts, and the nodes of the program
    that operators and constants were made of."""

    program: ExportedProgram
    graph: LayerGraph
    packed: Mapping[str, Packed]
    made_of: Mapping[str, fx.Node]


def lower_module(module: nn.Module, arguments: Arguments, dynamic_shapes: Any) -> LoweredModule:
    """The program of a module and what it becomes: for any number of samples where it allows that, else for those of
    the example. Raises UnsupportedModel."""
    if dynamic_shapes is None:
        wide = with_two_samples(arguments)
        try:
            program = torch.export.export(module, *wide, dynamic_shapes=dynamic_batch(module, wide), strict=False)
            return LoweredModule(program, *lower_program(program))
        except Exception as error:  # tracing runs the module's code, which raises whatever it raises
            LOG.debug("%s is traced for the samples of the example: %s", type(module).__name__, one_line(error))
    try:
        program = torch.export.export(module, *arguments, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise UnsupportedModel(
            f"cannot trace {type(module).__name__}: torch.fx and torch.export both fail, with {one_line(error)}"
            f"{line_of(error)}; write that part without Python that depends on values"
        ) from error
    return LoweredModule(program, *lower_program(program))


def with_two_samples(arguments: Arguments) -> Arguments:
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
    place = ""
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        theirs = [f for f in frames if not f.filename.startswith((*HERE, "<"))]
        if theirs and not place:
            place = f" at {theirs[-1].filename}:{theirs[-1].lineno}"
        cause = cause.__cause__
    return place


def with_source(
    lowered: LoweredModule, module: fx.GraphModule, code: fx.Graph, state: Mapping[str, Tensor], name: str
) -> LayerGraph:
    """The graph of a lowering with what it came from; `code` has the calls of the module, under their names."""
    keys = keys_of(lowered.graph, state)
    call = {name: call_of(node, code) for name, node in lowered.made_of.items()}
    origins = {
        name: call.get(name, "") for name in (*(node.name for node in lowered.graph.nodes), *lowered.graph.weights)
    }
    source = Traced(module, state, keys, lowered.packed, lowered.graph, origins, lowered.program)
    return as_viewed(replace(lowered.graph, name=name, source=source))


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
