"""How long a union of two large networks takes to make, and how much memory.

    python tools/bench_union.py [--model resnet50] [--budget 1] [--inputs 64] [-o FILE.md]

The pair are two copies of a published architecture with weights drawn at random, from the models that come with onnx;
the calibration inputs are noise like images. Every part of the job is timed: groups found and verified, units ranked,
what reads them fitted, the result judged, and the file written. Memory is the most that the process ever held.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from builders import light

from mal_graph import registry
from mal_graph.compression import draw_samples
from mal_graph.config import MergeConfig
from mal_graph.network import probe
from mal_graph.workflows import write_result
from mal_graph.workflows.joint import open_joint
from mal_graph.workflows.models import silent
from mal_graph.workflows.unions import union_of

T = TypeVar("T")
PEAK_UNIT = 1e6 if sys.platform == "linux" else 1e9  # of ru_maxrss, for GB


class Clock:
    """The parts of a job, each with its seconds on the wall and of the CPU, and the peak of memory by then."""

    def __init__(self) -> None:
        self.lines = ["| part | seconds | CPU seconds | peak so far, GB |", "|---|---|---|---|"]
        self.begun = time.perf_counter(), time.process_time()

    def timed(self, part: str, job: Callable[[], T]) -> T:
        start = time.perf_counter(), time.process_time()
        result = job()
        self.add(part, start)
        return result

    def add(self, part: str, start: tuple[float, float]) -> None:
        seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAK_UNIT
        self.lines.append(f"| {part} | {seconds:.0f} | {cpu:.0f} | {peak:.2f} |")
        print(self.lines[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("-o", "--output", metavar="FILE.md", type=Path, help="write the table here too")
    options = parser.parse_args()
    clock = Clock()
    graphs = clock.timed("models loaded", lambda: [light(options.model, seed) for seed in (0, 1)])
    inputs = draw_samples(graphs[0], probe(graphs[0]).inputs, options.inputs, 0)
    config = MergeConfig(method="union", budget=options.budget, calibrate=inputs)
    joint = clock.timed("groups found and verified", lambda: open_joint(graphs, config, registry.runner(), silent))
    clock.timed("units ranked", lambda: [side.model.rankings for side in joint.sides])
    made = clock.timed("readers fitted", lambda: joint.at(options.budget))
    result = clock.timed("result judged", lambda: union_of(joint, made, graphs, config, None))
    with tempfile.TemporaryDirectory() as folder:
        clock.timed("file written", lambda: write_result(result, Path(folder, "union.onnx")))
    clock.add("all", clock.begun)
    threads = os.environ.get("OMP_NUM_THREADS", f"{len(os.sched_getaffinity(0))}, one for each core")
    told = (
        f"Two {options.model} of random weights, {options.inputs} inputs, at {result.cost / result.base_cost:.2f} "
        f"times the base's multiplications; threads: {threads}. Made by `python tools/bench_union.py`.\n\n"
    )
    text = f"# What a union of two large networks takes\n\n{told}" + "\n".join(clock.lines) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
