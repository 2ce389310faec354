"""The protocols an outside author implements: `Adapter` (load, save), `Tracer` (trace, give back), `Runner` (run)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mal_graph.graph import Array, LayerGraph
from mal_graph.limits import Limits
from mal_graph.seals import Sealed


@dataclass(frozen=True)
class Check:
    """One thing that was checked of a result.

    Attributes:
        name: what was checked.
        passed: None where it could not be checked.
        detail: what was found, or why it was not checked.
    """

    name: str
    passed: bool | None
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.passed is False

    def __str__(self) -> str:
        if self.passed:
            return "passed"
        return f"{'not run' if self.passed is None else 'failed'}: {self.detail}"


class Adapter(Protocol):
    """Turns a model of one framework into a `LayerGraph` and back."""

    def claims(self, model: object) -> bool:
        """Whether this adapter is the one to load `model` (a path, or a framework's own object)."""
        ...

    def load(self, model: object) -> LayerGraph:
        """The model as a layer graph. Raises FileError or UnsupportedModel."""
        ...

    def local_copy(self, address: str) -> Path:
        """The path of a model that lies at an address, once it is on this machine with all its data. Raises
        FileError."""
        ...

    def save(
        self,
        graph: LayerGraph,
        path: Path,
        accept: Callable[[Path], None] | None = None,
        *,
        overwrite: bool = True,
        shard_size: int | None = None,
        resume: bool = False,
    ) -> None:
        """Write the graph's source with its edited weights to `path`, completely or not at all.

        `accept` is called with the written file before it is put in place; what it raises leaves everything as it was.
        Without `overwrite` a file that is there by then is left alone, and FileError raised. With `shard_size` the
        weights are put into files of at most so many bytes beside it; UsageError where one alone has more. With
        `resume` what a killed run wrote of the same model is not computed again.
        """
        ...

    def at_opset(self, graph: LayerGraph, version: int) -> LayerGraph:
        """The same network in another version of the standard operators. Raises UnsupportedModel."""
        ...

    def check(self, path: Path) -> tuple[Check, ...]:
        """What is checked of a saved file."""
        ...

    def read_seal(self, path: Path) -> Sealed:
        """What a saved file says of itself, and whether it is as it was written. Raises FileError."""
        ...


class Gradients(Protocol):
    """One output of a graph as a function of its weights."""

    def __call__(
        self, inputs: Mapping[str, Array], weights: Mapping[str, Array], slope_by: Callable[[Array], Array]
    ) -> dict[str, Array]:
        """How a number rises with each of some weights, by name, in float64.

        Args:
            inputs: by the graph's names.
            weights: other values of some of these weights.
            slope_by: how the number rises with the output, of the output's values and of their shape.
        """
        ...


class Tracer(Protocol):
    """Turns a framework's modules in memory into layer graphs, and layer graphs back into modules."""

    def trace(self, module: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> LayerGraph:
        """The module as a layer graph that shares its weights. Raises UnsupportedModel or DataError."""
        ...

    def to_module(self, graph: LayerGraph) -> Any:
        """A runnable module with the weights of a traced graph."""
        ...

    def gradients(self, graph: LayerGraph, output: str, names: Sequence[str]) -> Gradients | None:
        """How an output moves with some weights of a graph that was traced; None where it was not."""
        ...

    def state_dict(self, graph: LayerGraph) -> dict[str, Any]:
        """The weights of a traced graph under the names of the module's own state."""
        ...

    def save(
        self,
        graph: LayerGraph,
        path: Path,
        accept: Callable[[Path], None] | None = None,
        *,
        overwrite: bool = True,
        shard_size: int | None = None,
        resume: bool = False,
    ) -> None:
        """Write the weights of a traced graph as a file of the framework's own, as an `Adapter` does."""
        ...

    def check(self, path: Path) -> tuple[Check, ...]:
        """What is checked of a saved file, as of an `Adapter`."""
        ...

    def read_seal(self, path: Path) -> Sealed:
        """What a saved file says of itself, as an `Adapter` reads it."""
        ...

    def build(self, target: str, weights: Path | None = None) -> Any:
        """The module that `package.module:factory` makes, with the weights of a file. Raises UsageError, FileError or
        ShapeError."""
        ...


class Session(Protocol):
    """One graph made ready to run."""

    types: Mapping[str, str]  # numpy type name of each tensor that can be read, "" where it is not a plain tensor
    took: float  # seconds of the last run, without what it takes to hand over arrays

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        """Values of the tensors named in `read` (default: all the session was opened for).

        Raises RunError, also where the run is not over when `time.monotonic()` reaches `deadline`, and LimitError where
        limits are in force and it crashes or takes more than it may.
        """
        ...


class Runner(Protocol):
    """Runs layer graphs, with any tensor as an output and any weight as an input."""

    def open(
        self,
        graph: LayerGraph,
        *,
        read: Sequence[str] | None = None,
        variable: Sequence[str] = (),
        optimize: bool = False,
        deadline: float | None = None,
        threads: int | None = None,
    ) -> Session:
        """A session that can read the tensors in `read` (default: the outputs).

        Weights named in `variable` must be given to every run. Input shapes may differ from the declared ones.
        A session of so many `threads` is to be timed; without a number the runner sees to it.
        Raises RunError where the runtime refuses the graph, or will not be ready when `time.monotonic()` reaches
        `deadline`; LimitError as a run does.
        """
        ...

    def try_file(self, path: Path) -> None:
        """Load a file as any program would that uses the runtime. Raises RunError or LimitError."""
        ...

    def within(self, limits: Limits) -> "Runner":
        """A runner of the same kind that runs models in a process of their own, within limits."""
        ...


class Reporter(Protocol):
    """Says what a result of a workflow holds."""

    def summary(self, result: Any, *, verbose: bool = False) -> str:
        """For people: lines of text."""
        ...

    def to_dict(self, result: Any) -> dict[str, Any]:
        """For programs: plain data, as in the JSON report."""
        ...

    def html(self, result: Any) -> str:
        """For notebooks: a piece of HTML without scripts."""
        ...

    def svg(self, shown: Any) -> str:
        """For notebooks: a picture of a `LayerGraph`, a `Match` or a `Curve`."""
        ...

    def report(self, result: Any, kind: str) -> str:
        """What a file of the report holds: "json", "html" or "md". Raises UsageError for another kind."""
        ...
