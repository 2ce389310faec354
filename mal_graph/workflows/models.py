"""Models as they are given - paths, protobuf documents, torch modules, layer graphs - as layer graphs, and back."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mal_graph import registry
from mal_graph.config import CheckOptions
from mal_graph.errors import DataError, FileError, UsageError
from mal_graph.evaluation import LABELS, as_arrays, prepare_data
from mal_graph.graph import Array, LayerGraph
from mal_graph.network import probe
from mal_graph.option import Data, Options
from mal_graph.shards import written_before

SAMPLES = 2  # of the data that a module is traced on

Arrays = Mapping[str, Array]
Progress = Callable[[str, int, int], None]  # (what is done, how much of it, of how much)
C = TypeVar("C", bound=Options)
Model = Any  # a path, an onnx.ModelProto, a LayerGraph, or a torch module


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


def load(model: Model) -> LayerGraph:
    """The layer graph of a model: the path of an ONNX file, or an `onnx.ModelProto`.

    Weights stay in the file until they are read.

    Raises:
        FileError: the file is missing, broken or unsafe.
        UnsupportedModel: it is sound, but holds what cannot be merged.
    """
    return registry.as_graph(model)


def trace(module: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> LayerGraph:
    """The layer graph of a torch module, as it computes in evaluation mode.

    Args:
        module: a `torch.nn.Module`, a `torch.fx.GraphModule` or a `torch.export.ExportedProgram`; it is not changed,
            and its weights are shared, not copied.
        example_inputs: a tensor, a tuple of arguments, or a dictionary of them by name; none for an ExportedProgram.
        dynamic_shapes: as for `torch.export.export`; by default the first axis of every input is dynamic where the
            module allows it.

    Raises:
        UnsupportedModel: it cannot be traced, or holds what has no counterpart here.
        DataError: it does not run on the example inputs.
        UsageError: torch is not installed.
    """
    return registry.tracer().trace(module, example_inputs, dynamic_shapes)


def to_module(graph: LayerGraph) -> Any:
    """A runnable `torch.fx.GraphModule` with the weights of a traced graph; it can be trained on. Of a union of traced
    graphs, a module that averages what these give.

    Where the graph has other widths or other numbers than were traced, the module's code gets them.

    Raises:
        UnsupportedModel: the graph was not traced from a module.
        ShapeError: the code cannot follow the graph.
    """
    return registry.tracer().to_module(graph)


def state_dict(graph: LayerGraph) -> dict[str, Any]:
    """The weights of a traced graph, for `load_state_dict` of the class that was traced.

    Raises:
        UnsupportedModel: the graph was not traced from a module, or has other shapes than it.
    """
    return registry.tracer().state_dict(graph)


def save(graph: LayerGraph, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a graph, completely or not at all: as an ONNX file, or the weights of a traced module where the path ends
    in .safetensors. `Assembly.save` runs every check before that.

    Raises:
        FileError: the file exists and `overwrite` is false, or it cannot be written.
        ShapeError, UnsupportedModel: the module's class cannot take the weights.
    """
    target = free_path(path, overwrite)
    registry.writer_for(str(target)).save(graph, target, overwrite=overwrite)


def free_path(path: str | PathLike[str], overwrite: bool) -> Path:
    """A path that may be written. Raises FileError."""
    target = Path(path)
    there = [] if overwrite else written_before(target)
    if there:
        what = "it" if there[0] == target else f"{there[0].name} beside it"
        raise FileError(f"cannot write {target}: {what} exists; give another path, or overwrite=True")
    return target


def arrays_of(data: Data | list[Data] | tuple[Data, ...] | None) -> Arrays | None:
    """Arrays by name, read where a path is given; those of several models with the number of theirs in front: `1:x`.
    Raises DataError or FileError."""
    if isinstance(data, list | tuple):
        return {f"{number}:{name}": array for number, own in enumerate(data) for name, array in as_arrays(own).items()}
    return None if data is None else as_arrays(data)


def arrays_by_model(arrays: Arrays) -> list[Arrays]:
    """The arrays of each of several models, the base first, from all of them (see `arrays_of`). Raises DataError."""
    by_number: dict[int, dict[str, Array]] = {}
    for numbered, array in arrays.items():
        number, _, name = numbered.partition(":")
        if not number.isdecimal():
            raise DataError(f"the array {numbered!r} has no number of a model in front: call it 1:{numbered}, or so")
        by_number.setdefault(int(number), {})[name] = array
    return [by_number[number] for number in sorted(by_number)]


def prepare(graph: LayerGraph, data: Arrays, config: CheckOptions) -> tuple[Arrays, tuple[str, ...]]:
    """Data made ready for a model, with notes on what was not taken literally (`prepare_data`). Raises DataError."""
    ready = prepare_data(graph, data, output_kind=config.output_kind)
    return ready.arrays, ready.notes


def prepared(graph: LayerGraph, data: Arrays | None, config: CheckOptions) -> tuple[Arrays | None, tuple[str, ...]]:
    """The same where there may be none. Raises DataError."""
    return (None, ()) if data is None else prepare(graph, data, config)


def with_arrays(config: C) -> C:
    """The options with the arrays of every .npz path among them. Raises DataError or FileError."""
    named = {name: getattr(config, name) for name in type(config).data_options() if hasattr(config, name)}
    return config.replaced(**{name: arrays_of(value) for name, value in named.items()})


def open_models(
    models: Sequence[Model],
    config: CheckOptions,
    data: Arrays | None = None,
    *,
    names: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[LayerGraph]:
    """The layer graphs of models, in their order; a file that is named twice is loaded once.

    Args:
        models: paths, documents, layer graphs or torch modules.
        config: `inputs` and `input_shapes` say what a module is traced on, `seed` how shapes are filled.
        data: arrays whose first samples serve where neither is given; else what the first other model takes.
        names: what to call the modules, by place; "" keeps the name of the class.
        progress: called with what is done, how much of it, of how much.

    Raises:
        UsageError: there is nothing to trace a module on.
        MalGraphError: whatever loading and tracing raise.
    """
    loaded: dict[Any, LayerGraph] = {}
    for model in models:
        if not is_module(model):
            loaded.setdefault(key_of(model), load(model))
    example: Arrays | None = None
    graphs = []
    for place, model in enumerate(models):
        (progress or silent)("loading", place, len(models))
        if not is_module(model):
            graphs.append(loaded[key_of(model)])
            continue
        name = names[place] if names else type(model).__name__
        if example is None:
            example = example_inputs(name, config, data, next(iter(loaded.values()), None))
        graphs.append(traced(model, example, names[place] if names else ""))
    (progress or silent)("loading", len(models), len(models))
    return graphs


def is_module(model: Model) -> bool:
    """Whether a model is neither a layer graph nor anything that an adapter loads, so that it has to be traced."""
    if isinstance(model, LayerGraph) or any(adapter.claims(model) for adapter in registry.adapters()):
        return False
    if callable(getattr(model, "forward", None)):
        return True
    raise registry.unknown_model(model)


def key_of(model: Model) -> Any:
    return fspath(model) if isinstance(model, str | PathLike) else id(model)


def example_inputs(name: str, config: CheckOptions, data: Arrays | None, other: LayerGraph | None) -> Arrays:
    """Arrays to trace a module on, from the first source that has any. Raises UsageError."""
    if config.inputs:
        arrays: Arrays = config.inputs
        return arrays
    if config.input_shapes:
        rng = np.random.default_rng(config.seed)
        return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in config.input_shapes.items()}
    if data:
        samples = {key: array[:SAMPLES] if array.ndim else array for key, array in data.items() if key != LABELS}
        floats = {key: array.astype(np.float32) for key, array in samples.items() if array.dtype == np.float64}
        return {**samples, **floats}
    if other is not None:
        return probe(other, seed=config.seed).inputs
    raise UsageError(
        f"cannot trace {name} without inputs: give their shapes with `input_shapes` (NAME:1,3,64,64), or arrays "
        "with `inputs`"
    )


def traced(module: Any, example: Arrays, name: str = "") -> LayerGraph:
    """A module traced on arrays: by name where its forward has arguments of these names, else in their order."""
    known = signature(module.forward).parameters
    graph = trace(module, dict(example) if set(example) <= set(known) else tuple(example.values()))
    return graph.named(name) if name else graph


LayerGraph.draw = staticmethod(lambda graph: registry.reporter().svg(graph))
