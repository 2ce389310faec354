"""What onnx itself makes of a file: its checker, its converter between opsets, and its reference evaluator.

Checker and converter are C++ that reads what a stranger wrote, and the evaluator makes whatever a model says: where
limits are in force all three work in the process that runs models (see `child`), which loads this when it is first
needed.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.checker
import onnx.version_converter
from onnx.reference import ReferenceEvaluator

from mal_graph.errors import RunError

from .sessions import first_line

if TYPE_CHECKING:
    from mal_graph.graph import Array


def check(path: Path) -> None:
    """Have the checker look at a file; operators of other domains are not its business. Raises RunError."""
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise RunError(str(error).strip().splitlines()[0]) from None


def convert(name: str, content: bytes, version: int) -> bytes:
    """A serialized model in another version of the standard operators. Raises RunError."""
    try:
        return onnx.version_converter.convert_version(onnx.ModelProto.FromString(content), version).SerializeToString()
    except Exception as error:  # the converter raises what its C++ part does
        raise RunError(" ".join(str(error).split())[:200]) from None


class Evaluator:
    """One model under the reference evaluator; it takes what an `OrtSession` takes, and has one thread.

    Raises:
        RunError: the evaluator refuses it.
    """

    def __init__(
        self,
        name: str,
        model: str | bytes,
        optimize: bool = False,
        threads: int | None = None,
        written: Collection[str] = (),
    ) -> None:
        self.name, self.took = name, 0.0
        proto = onnx.ModelProto.FromString(Path(model).read_bytes() if isinstance(model, str) else model)
        self.types: Mapping[str, str] = {out.name: "float64" for out in proto.graph.output}
        self.inputs = {value.name for value in proto.graph.input}
        try:
            self._evaluator = ReferenceEvaluator(proto)
        except Exception as error:  # the evaluator raises whatever its kernels raise
            raise RunError(f"onnx.reference refuses {name}: {first_line(error)}") from None

    def run(
        self,
        inputs: "Mapping[str, Array]",
        weights: "Mapping[str, Array] | None" = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> "dict[str, Array]":
        if deadline is not None and monotonic() >= deadline:  # a run that began cannot be stopped
            raise RunError(f"{self.name} was not through when its time was up")
        names = list(self.types) if read is None else list(read)
        began = perf_counter()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore", RuntimeWarning)  # its BatchNormalization takes means of nothing
                values = self._evaluator.run(names, {**inputs, **(weights or {})})
        except Exception as error:
            raise RunError(f"onnx.reference cannot run {self.name}: {first_line(error)}") from None
        self.took = perf_counter() - began
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
