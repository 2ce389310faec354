"""Finds adapters and runners through entry points, so that `import mal_graph` loads no framework.

What other packages offer is code that somebody installed, and is run as such. Where it cannot be loaded, raises, gives
what it may not, or takes a name that another has, the error says whose it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from mal_graph.errors import FileError, MalGraphError, UsageError
from mal_graph.shards import INDEX, STATE

if TYPE_CHECKING:  # the protocols speak of arrays, and numpy takes its time
    from importlib.metadata import EntryPoint

    from mal_graph.graph import LayerGraph
    from mal_graph.limits import Limits
    from mal_graph.protocols import Adapter, Gradients, Reporter, Runner, Tracer


T = TypeVar("T")

Model = Any  # a LayerGraph, or what an adapter loads: a path, a document

OWN = ("mal_graph", "mal_graph_adapters")  # packages whose errors are ours


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
    """The entry points of the group `mal_graph.<group>`, by name. Raises UsageError where two have one name."""
    from importlib.metadata import entry_points  # it reads mail, and takes as long as all else of this package

    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=f"mal_graph.{group}")):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise UsageError(
                f"two of {group.replace('_', ' ')} are called {point.name!r}, {other.value} and {point.value}: remove "
                "the package of one"
            )
    return list(points.values())


@contextmanager
def blamed(what: str, module: str) -> Iterator[None]:
    """What is raised by a module of another package is told as its error. Raises UsageError.

    Args:
        what: what of it works here.
        module: where it is defined.
    """
    try:
        yield
    except (MalGraphError, MemoryError):
        raise
    except Exception as error:
        if module.split(".")[0] in OWN:
            raise
        raise UsageError(
            f"{what} failed in {module} ({type(error).__name__}: {error}): tell who wrote it, or remove its package"
        ) from error


def loaded(kind: str, point: "EntryPoint") -> Any:
    """What an entry point names. Raises UsageError where it cannot be loaded."""
    try:
        return point.load()
    except Exception as error:  # whatever the module of a package raises when it is imported
        raise UsageError(
            f"the {kind} {point.name!r} cannot be loaded from {point.value}: {error or type(error).__name__}; "
            "reinstall the package of it, or remove it"
        ) from error


def decorated(kind: str, points: "Mapping[str, EntryPoint]", name: str, wanted: type[T], decorator: str) -> T:
    """What a decorator of this package made of a function, by its registered name. Raises UsageError if there is none,
    or what is registered is none."""
    if name not in points:
        raise UsageError(f"no {kind} is called {name!r}: choose one of {', '.join(points)}")
    made = loaded(kind, points[name])
    if not isinstance(made, wanted) or getattr(made, "name", None) != name:
        raise UsageError(f"{points[name].value} is no {kind} called {name!r}: register what @{decorator} makes")
    return made


def made_by(kind: str, point: "EntryPoint", methods: tuple[str, ...]) -> Any:
    """What the class makes that an entry point names. Raises UsageError where it lacks one of these methods."""
    made_of = loaded(kind, point)
    with blamed(f"the {kind} {point.name!r}", point.module):
        made = made_of()
    if missing := [name for name in methods if not callable(getattr(made, name, None))]:
        raise UsageError(
            f"{point.value} is no {kind}: it has no method {', '.join(missing)}; register a class of the protocol "
            f"mal_graph.protocols.{kind.capitalize()}"
        )
    return made


@cache
def adapters() -> "tuple[Adapter, ...]":
    return tuple(made_by("adapter", point, ("claims", "load", "save")) for point in registered("adapters"))


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
    made: Runner = make_registered("runner", name, "open")
    return made


@lru_cache(maxsize=1)
def limited_runner(limits: "Limits") -> "Runner":
    """The last one is kept: its process serves all models."""
    return registered_runner("onnxruntime").within(limits)


@cache
def reporter(name: str = "default") -> "Reporter":
    """The reporter registered under `name`. Raises UsageError if there is none."""
    made: Reporter = make_registered("reporter", name, "summary", "to_dict", "report")
    return made


def make_registered(kind: str, name: str, *methods: str) -> Any:
    """What an entry point of the group `mal_graph.<kind>s` makes. Raises UsageError if none has this name, or what it
    makes lacks one of these methods."""
    offered = {point.name: point for point in registered(f"{kind}s")}
    if name not in offered:
        raise UsageError(f"no {kind} is called {name!r}: found {sorted(offered)}; reinstall mal-graph")
    return made_by(kind, offered[name], methods)


@cache
def merge_methods() -> "dict[str, EntryPoint]":
    """The merge methods that are registered, by name; none of them is loaded."""
    return {point.name: point for point in registered("merge_methods")}


@cache
def unmatched_rules() -> "dict[str, EntryPoint]":
    """The rules for units without a partner that are registered, by name; none of them is loaded."""
    return {point.name: point for point in registered("unmatched_rules")}


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


def gradients_of(graph: "LayerGraph", output: str, names: "Sequence[str]") -> "Gradients | None":
    """How an output of a graph moves with some of its weights; None where it was not traced from a module."""
    is_loaded = tracer.cache_info().currsize  # what was never loaded has traced nothing
    return tracer().gradients(graph, output, names) if is_loaded else None


def is_state(path: str) -> bool:
    """Whether a file holds the weights of a module, and no model."""
    return path.endswith((STATE, INDEX))


def writer_for(path: str) -> "Adapter | Tracer":
    """What writes a file of this name: the framework's own weights where it ends in .safetensors, else a model."""
    return tracer() if is_state(path) else adapter_for(path)


def adapter_for(model: object) -> "Adapter":
    """The adapter that loads `model`. Raises FileError if none does."""
    for adapter in adapters():
        with blamed("an adapter", type(adapter).__module__):
            if adapter.claims(model):
                return adapter
    raise unknown_model(model)


def as_graph(model: Any) -> "LayerGraph":
    """A model as a layer graph: itself, or what an adapter loads. Raises FileError or UnsupportedModel."""
    from mal_graph.graph import LayerGraph

    if isinstance(model, LayerGraph):
        return model
    adapter = adapter_for(model)
    with blamed("an adapter", type(adapter).__module__):
        graph = adapter.load(model)
        if not isinstance(graph, LayerGraph):
            raise TypeError(f"`load` gave a {type(graph).__name__}, not a LayerGraph")
    return graph


def unknown_model(model: object) -> FileError:
    return FileError(
        f"cannot load a {type(model).__name__}: no adapter takes it; give the path of an ONNX file, an "
        "onnx.ModelProto, or a torch module (mal_graph.trace)"
    )
