"""Finds adapters and runners through entry points, so that `import mal_graph` loads no framework."""

from contextlib import suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from mal_graph.errors import FileError, UsageError

if TYPE_CHECKING:  # the protocols speak of arrays, and numpy takes its time
    from importlib.metadata import EntryPoint

    from mal_graph.graph import LayerGraph
    from mal_graph.limits import Limits
    from mal_graph.protocols import Adapter, Reporter, Runner, Tracer


Model = Any  # a LayerGraph, or what an adapter loads: a path, a document


def versions() -> dict[str, str]:
    """The versions of what results are made with, by name: this package, Python, and what is installed of the rest."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version
    from platform import python_version

    from mal_graph.version import version

    found = {"mal-graph": version(), "python": python_version()}
    for name in ("numpy", "scipy", "onnx", "onnxruntime", "torch"):
        with suppress(PackageNotFoundError):
            found[name] = installed_version(name)
    return found


def registered(group: str) -> "list[EntryPoint]":
    """The entry points of the group `mal_graph.<group>`, by name."""
    from importlib.metadata import entry_points  # it reads mail, and takes as long as all else of this package

    return sorted(entry_points(group=f"mal_graph.{group}"))


@cache
def adapters() -> "tuple[Adapter, ...]":
    return tuple(point.load()() for point in registered("adapters"))


def runner(name: str = "") -> "Runner":
    """The runner registered under `name`; without a name, one that runs models as the limits in force ask for. Raises
    UsageError if there is none."""
    from mal_graph.limits import limits_in_force

    limits = limits_in_force()
    if name or limits.in_process:
        return registered_runner(name or "onnxruntime")
    return limited_runner(limits)


@cache
def registered_runner(name: str) -> "Runner":
    made: Runner = make_registered("runner", name)
    return made


@lru_cache(maxsize=1)
def limited_runner(limits: "Limits") -> "Runner":
    """The last one is kept: its process serves all models."""
    return registered_runner("onnxruntime").within(limits)


@cache
def reporter(name: str = "default") -> "Reporter":
    """The reporter registered under `name`. Raises UsageError if there is none."""
    made: Reporter = make_registered("reporter", name)
    return made


def make_registered(kind: str, name: str) -> Any:
    """What an entry point of the group `mal_graph.<kind>s` makes. Raises UsageError if none has this name."""
    offered = {point.name: point for point in registered(f"{kind}s")}
    if name not in offered:
        raise UsageError(f"no {kind} is called {name!r}: found {sorted(offered)}; reinstall mal-graph")
    return offered[name].load()()


@cache
def merge_methods() -> "dict[str, EntryPoint]":
    """The merge methods that are registered, by name; none of them is loaded."""
    return {point.name: point for point in registered("merge_methods")}


@cache
def searches() -> "dict[str, EntryPoint]":
    """The searches that are registered, by name; none of them is loaded."""
    return {point.name: point for point in registered("searches")}


@cache
def tracer() -> "Tracer":
    """What traces modules. Raises UsageError where its framework is not installed."""
    for point in registered("tracers"):
        try:
            made: Tracer = point.load()()
        except ModuleNotFoundError as error:
            raise UsageError(
                f"tracing a module needs {error.name}, which is not installed: pip install 'mal-graph[{point.name}]'"
            ) from None
        return made
    raise UsageError("no tracer of modules is registered: reinstall mal-graph")


def is_state(path: str) -> bool:
    """Whether a file holds the weights of a module, and no model."""
    return path.endswith(".safetensors")


def writer_for(path: str) -> "Adapter | Tracer":
    """What writes a file of this name: the framework's own weights where it ends in .safetensors, else a model."""
    return tracer() if is_state(path) else adapter_for(path)


def adapter_for(model: object) -> "Adapter":
    """The adapter that loads `model`. Raises FileError if none does."""
    for adapter in adapters():
        if adapter.claims(model):
            return adapter
    raise unknown_model(model)


def as_graph(model: Any) -> "LayerGraph":
    """A model as a layer graph: itself, or what an adapter loads. Raises FileError or UnsupportedModel."""
    from mal_graph.graph import LayerGraph

    return model if isinstance(model, LayerGraph) else adapter_for(model).load(model)


def unknown_model(model: object) -> FileError:
    return FileError(
        f"cannot load a {type(model).__name__}: no adapter takes it; give the path of an ONNX file, an "
        "onnx.ModelProto, or a torch module (mal_graph.trace)"
    )
