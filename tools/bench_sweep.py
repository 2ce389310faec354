"""A sweep of 11 points in one session beside a session per point: `python tools/bench_sweep.py -o FILE.md`.

A plain convolutional network of 25 million random weights, 32 x 32 pixels, batch 1. Both ways score the same merge at
the same lambdas: "a session per point" computes the merged model and opens it anew at every lambda, "one session" is
what `mal-graph sweep` does in each of its arms. The alignment, found once, is in neither. CPU seconds of this process
with one thread, medians of runs one after the other.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is imported
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import sys
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
from bench_align import chain, drawn, found_between

from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.evaluation.scores import Predictor, evaluate
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching.assignment import assign_in_order
from mal_graph.merging.blending import merge
from mal_graph.merging.lambdas import LayerLambdas
from mal_graph.merging.planning import Plan, plan_merge
from mal_graph.protocols import Runner
from mal_graph.symmetry import axis_groups
from mal_graph.workflows.lambda_lines import Line, scored_along

STAGES = (64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 7)
LAMBDAS = tuple(i / 10 for i in range(11))


def network() -> LayerGraph:
    layers: list[tuple[str, tuple[int, ...]]] = []
    width = 3
    for units in STAGES:
        layers.append(("Conv", (units, width, 3, 3)) if isinstance(units, int) else ("MaxPool", ()))
        width = units if isinstance(units, int) else width
    return chain("cnn", ("N", 3, 32, 32), [*layers, ("Gemm", (10, width))])


def session_per_point(planned: Plan, data: dict[str, Array], runner: Runner) -> list[float]:
    return [evaluate(merge(planned.at(lam)), data, runner=runner).loss for lam in LAMBDAS]


def one_session(planned: Plan, data: dict[str, Array], runner: Runner) -> list[float]:
    return [score.loss for score in scored_along(Line(planned), LAMBDAS, "", data, MergeConfig(), runner)]


def inference(planned: Plan, data: dict[str, Array], runner: Runner) -> list[float]:
    asked = Predictor(planned.base, data, runner=runner)
    start = process_time()
    for _ in LAMBDAS:
        asked.predict()
    return [process_time() - start]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table here too")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    base, runner = drawn(network(), 0), registry.runner()
    donor = drawn(base, 1)
    planned = plan_merge(assign_in_order(found_between(base, axis_groups(base), donor)), LayerLambdas())
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((1, 3, 32, 32)).astype(np.float32), "labels": np.array([3])}
    floor = median(inference(planned, data, runner)[0] for _ in range(options.repeats))
    times: dict[str, list[float]] = {"a session per point": [], "one session": []}
    losses = {}
    for _ in range(options.repeats):
        for name, way in zip(times, (session_per_point, one_session), strict=True):
            start = process_time()
            losses[name] = way(planned, data, runner)
            times[name].append(process_time() - start)
    slow, fast = times.values()
    apart = np.max(np.abs(np.subtract(*losses.values())) / np.abs(losses["one session"]))
    size = sum(weight.size for weight in base.weights.values())
    lines = [
        f"{size:,} weights, {len(LAMBDAS)} points, batch 1; losses differ by {apart:.1e} at most, relatively.",
        "",
        "| way | CPU s | ratio |",
        "|---|---|---|",
        f"| a session per point | {median(slow):.2f} | 1 |",
        f"| one session | {median(fast):.2f} | {median(a / b for a, b in zip(slow, fast, strict=True)):.1f} |",
        f"| running the model alone | {floor:.2f} | |",
    ]
    print("\n".join(lines))
    if options.output:
        text = (__doc__ or "").split("\n\n", 1)[1]
        Path(options.output).write_text(f"# A sweep in one session\n\n{text}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
