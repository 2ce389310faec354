"""Models in a process of their own beside models in this one: `python tools/bench_child.py -o FILE.md`.

Three things are done both ways, in turns, with one thread: the first model of the demo is looked into by the command
line (a process for each, from start to end); a sweep of the network of `bench_sweep` (25 million weights, 11 points, 8
samples); and the verification of its groups. Seconds of processors, of both processes together, medians: what a reader
waits for is less, since the process starts while the models are loaded.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is imported
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_align import drawn, found_between
from bench_sweep import network, one_session

from mal_graph import registry
from mal_graph.limits import TRUSTED, Limits, limited
from mal_graph.matching.assignment import assign_in_order
from mal_graph.merging.lambdas import LayerLambdas
from mal_graph.merging.planning import plan_merge
from mal_graph.network import probe
from mal_graph.symmetry import axis_groups, verify

EXAMPLE = Path(__file__).parents[1] / "examples/01_first_merge"
SAMPLES = 8
RUNS = 5


def seconds(task: Callable[[], object], limits: Limits) -> float:
    """What a task takes of processors: here, in processes that it ends, and in the one that runs models."""
    began = taken(limits)
    task()
    return taken(limits) - began


def taken(limits: Limits) -> float:
    """The seconds of processors so far."""
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    if limits.in_process:
        return own
    with limited(limits):
        runner: Any = registry.runner()
    fields = Path(f"/proc/{runner.child.process.popen.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return own + sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def measured(tasks: Sequence[Callable[[Limits], object]], runs: int) -> list[tuple[float, float]]:
    """The median seconds of each task in this process and in a child, measured in turns."""
    medians = []
    for task in tasks:
        spent: dict[Limits, list[float]] = {TRUSTED: [], Limits(): []}
        for limits in spent:
            task(limits)
        for _ in range(runs):
            for limits, own in spent.items():
                own.append(seconds(partial(task, limits), limits))
        medians.append((median(spent[TRUSTED]), median(spent[Limits()])))
    return medians


def look(limits: Limits) -> None:
    """The command line on the first model of the demo."""
    words = ["inspect", str(EXAMPLE / "mlp_a.onnx"), *(["--in-process"] if limits.in_process else [])]
    subprocess.run([sys.executable, "-m", "mal_graph", *words], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    base = drawn(network(), 0)
    groups = axis_groups(base, probe(base))
    planned = plan_merge(assign_in_order(found_between(base, groups, drawn(base, 1))), LayerLambdas())
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 3, 32, 32)).astype(np.float32)
    data = {"x": x, "labels": rng.integers(0, 10, SAMPLES)}

    def sweep(limits: Limits) -> None:
        with limited(limits):
            one_session(planned, data, registry.runner())

    def check(limits: Limits) -> None:
        with limited(limits):
            verify(base, groups, registry.runner())

    rows = measured([look, sweep, check], given.runs)
    lines = ["| | in this process | in a child | more |", "|---|---|---|---|"]
    for name, (ours, theirs) in zip(("`inspect` of the demo", "sweep", "verification"), rows, strict=True):
        lines.append(f"| {name} | {ours:.2f} s | {theirs:.2f} s | {theirs - ours:+.2f} s, {theirs / ours - 1:+.0%} |")
    text = f"# A process for models\n\n{__doc__.split(chr(10), 1)[1].strip()}\n\n" + "\n".join(lines) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
