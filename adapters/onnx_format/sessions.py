"""onnxruntime sessions that keep quiet: no warnings on stderr, and nothing is reported to the runtime's vendor.

This is all that the process needs which runs models for another one: nothing here loads onnx.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from mal_graph.errors import RunError

if TYPE_CHECKING:  # it loads networkx, which takes as long as the rest
    from mal_graph.graph import Array

FATAL = 4  # the only messages of onnxruntime that are shown: all others come back as exceptions
CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
TYPE_NAMES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int64": "int64",
    "int32": "int32",
    "int16": "int16",
    "int8": "int8",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "object",
}

ort.set_default_logger_severity(FATAL)
if hasattr(ort, "disable_telemetry_events"):
    ort.disable_telemetry_events()


class LinearSession(ort.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types, so this base is Any
    """A session that looks for its inputs among the names of what it is fed in a set: onnxruntime looks through a list
    for each, which for 70,000 weights takes ten times as long as the run."""

    def _validate_input(self, feed_input_names: Iterable[str]) -> None:
        super()._validate_input(set(feed_input_names))


def open_session(model: str | bytes, optimize: bool = True, threads: int | None = None) -> LinearSession:
    """A session on the CPU, with the same result every time, and as many threads as `OMP_NUM_THREADS` says, which sleep
    while they wait: those that watch for work instead double the CPU time of a run.

    Args:
        model: the path of a file, or a serialized model.
        optimize: whether onnxruntime may rewrite the graph.
        threads: how many there are. A session with a number of its own is to be timed: its threads watch for work as in
            any program, but for the length of a run only, so that they do not take the time of the next session.

    Raises: whatever onnxruntime raises, bare Exceptions of a dozen kinds.
    """
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads_wanted() if threads is None else threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads is None else "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False  # an arena doubles itself to hold one more tensor, and keeps it
    return LinearSession(model, options, ["CPUExecutionProvider"])


def threads_wanted() -> int:
    """What `OMP_NUM_THREADS` says, which onnxruntime does not ask; 0, one for each core, where it says nothing. Where
    many processes run at once, making threads for every session takes longer than running a small model."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


@dataclass(frozen=True)
class BuiltModel:
    """A model ready to be opened.

    Attributes:
        name: how messages call it.
        content: its serialized form.
        written: names of what a run writes into.
        fed: bytes of the weights that every run is given.
    """

    name: str
    content: bytes
    written: frozenset[str]
    fed: int


class OrtSession:
    """One onnxruntime session.

    Args:
        name: how messages call the model.
        model: its serialized form, or the path of a file.
        written: names of what a run writes into.

    Raises:
        RunError: the runtime refuses it.
    """

    def __init__(
        self,
        name: str,
        model: str | bytes,
        optimize: bool = True,
        threads: int | None = None,
        written: Collection[str] = (),
    ) -> None:
        self.name = name
        try:
            self._session = open_session(model, optimize, threads)
        except Exception as error:  # onnxruntime raises bare Exceptions of a dozen kinds
            raise RunError(f"onnxruntime refuses {name}: {first_line(error)}") from None
        self.types: Mapping[str, str] = {
            out.name: TYPE_NAMES.get(out.type.removeprefix("tensor(").removesuffix(")"), "")
            for out in self._session.get_outputs()
        }
        self.inputs = {value.name for value in self._session.get_inputs()}
        self._written = set(written)
        self.took = 0.0

    def run(
        self,
        inputs: Mapping[str, "Array"],
        weights: Mapping[str, "Array"] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, "Array"]:
        feeds = {name: array for name, array in {**inputs, **(weights or {})}.items() if name in self.inputs}
        feeds.update({name: feeds[name].copy() for name in self._written & feeds.keys()})
        names = list(self.types) if read is None else list(read)
        options, began = ort.RunOptions(), perf_counter()
        try:
            with stopped_at(deadline, options):
                values = self._session.run(names, feeds, options)
        except Exception as error:
            if options.terminate:
                raise RunError(f"{self.name} was not through when its time was up") from None
            raise RunError(f"onnxruntime cannot run {self.name}: {first_line(error)}") from None
        self.took = perf_counter() - began
        return {name: as_array(value) for name, value in zip(names, values, strict=True)}


@contextmanager
def stopped_at(deadline: float | None, options: ort.RunOptions) -> Iterator[None]:
    """A run with these options ends when `time.monotonic()` reaches the deadline."""
    if deadline is None:
        yield
        return
    watch = Timer(max(deadline - monotonic(), 0.0), setattr, (options, "terminate", True))
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def as_array(value: object) -> "Array":
    """What the runtime gave: an array, or a sequence kept whole in an array of one object."""
    if isinstance(value, np.ndarray):
        return value
    kept = np.empty((), object)
    kept[()] = value
    return kept


def first_line(error: Exception) -> str:
    """What an error says, without the codes that onnxruntime puts in front."""
    text = CODES.sub("", str(error).strip())
    return text.splitlines()[0][:300] if text else type(error).__name__
