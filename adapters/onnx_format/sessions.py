"""onnxruntime sessions that keep quiet: no warnings on stderr, and nothing is reported to the runtime's vendor."""

import os
from collections.abc import Iterable

import onnxruntime as ort

FATAL = 4  # the only messages of onnxruntime that are shown: all others come back as exceptions

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
