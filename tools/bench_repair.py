"""What repair takes beside running the model: `python tools/bench_repair.py -o FILE.md`.

Chains of convolutions of random weights, 3 x 3 taps, 16 x 16 pixels, merged at .5 in the order they are stored in and
repaired on 128 samples. A forward is a run of the base alone on the same samples, in batches of 32. Repair measures
base and donor once, and the merge layer after layer: three forwards are the least, and what means and deviations take
comes on top, which counts where layers are narrow. CPU seconds of this process with one thread, medians of runs one
after the other; the ratio is that of the two in each run.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is imported
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
from bench_align import chain, drawn, found_between

from mal_graph import registry
from mal_graph.evaluation import Stream
from mal_graph.evaluation.data import split_samples
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import assign_in_order
from mal_graph.merging import LayerLambdas, Plan, merge, plan_merge, repair
from mal_graph.symmetry import axis_groups

PIXELS, SAMPLES, BATCH = 16, 128, 32
NETWORKS = ((32, 10), (32, 20), (32, 40), (32, 80), (128, 10), (128, 20), (128, 40))  # channels, layers


def network(channels: int, depth: int) -> LayerGraph:
    layers = [("Conv", (out, into, 3, 3)) for into, out in pairwise([3, *[channels] * depth])]
    return chain("cnn", ("N", 3, PIXELS, PIXELS), [*layers, ("Gemm", (10, channels))])


def forward(graph: LayerGraph, arrays: dict[str, Array]) -> float:
    """Seconds of a run over all samples that reads the output alone, once the session is open."""
    output = graph.outputs[0].name
    stream = Stream(graph, arrays, registry.runner(), [output])
    start = process_time()
    for batch in split_samples(SAMPLES, BATCH):
        stream.read(batch, [output])
    return process_time() - start


def repairing(plan: Plan, merged: LayerGraph, arrays: dict[str, Array]) -> float:
    start = process_time()
    repair(merged, plan, arrays, registry.runner())
    return process_time() - start


def measured(channels: int, depth: int, repeats: int) -> str:
    base, donor = (drawn(network(channels, depth), seed) for seed in (0, 1))
    plan = plan_merge(assign_in_order(found_between(base, axis_groups(base), donor)), LayerLambdas.of(0.5))
    merged = merge(plan)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((SAMPLES, 3, PIXELS, PIXELS)).astype(np.float32)}
    pairs = [(forward(base, arrays), repairing(plan, merged, arrays)) for _ in range(repeats)]
    once, repaired = (median(times) for times in zip(*pairs, strict=True))
    ratio = median(b / a for a, b in pairs)
    return f"| {channels} | {depth} | {once:.2f} | {repaired:.2f} | {ratio:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table here too")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    head = ["| channels | layers | a forward (CPU s) | repair (CPU s) | ratio |", "|---|---|---|---|---|"]
    lines = head + [measured(*network, options.repeats) for network in NETWORKS]
    print("\n".join(lines))
    if options.output:
        text = (__doc__ or "").split("\n\n", 1)[1]
        Path(options.output).write_text(f"# What repair takes\n\n{text}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
