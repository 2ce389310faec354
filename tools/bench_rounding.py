"""Whether rounded counts of units make a thinned network faster: `python tools/bench_rounding.py -o FILE.md`.

Every network is thinned to the same budgets of multiplications by the package itself, with the counts of units that
stay in multiples of 1, 4, 8 or 16, and as the package rounds them itself. A set too small for two multiples of a number
takes half that number. All variants are run in turns on one thread, with inputs of one sample and of 16; a time is the
tenth percentile of all runs, which other programs on the machine disturb least. The time for a multiplication is that
of the variant divided by its multiplications, given as a multiple of that with counts in multiples of 1: below 1 is
faster at equal cost. Where two variants are one network, the difference of their times is what chance makes. The error
is that of the guard, on noise: how far the outputs are from those of the whole network, as a share of how much they
vary.

All weights are random; nothing here was trained. That decides which units stay, and not how long a run takes.

What was chosen by it: channels of convolutions in multiples of 4, of 8 from 64 channels on and of 16 from 128 on; units
of fully connected layers as before, whose times hardly depend on it. Refused: 16 everywhere, which is faster still,
because small networks then miss a large part of their budget.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is imported
import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from bench_align import chain, drawn

from mal_graph import registry
from mal_graph.compression import allocation
from mal_graph.config import CompressConfig
from mal_graph.graph import LayerGraph
from mal_graph.network import count_multiplications, probe
from mal_graph.workflows.joint import Joint, open_joint
from mal_graph.workflows.models import silent
from mal_graph.workflows.timing import Timed, time_of

MULTIPLES = (1, 4, 8, 16)
BUDGETS = (0.75, 0.5, 0.3)
SAMPLES = (1, 16)
NOW = "as it is"


# --- networks -----------------------------------------------------------------------------------------------------


def mlp(*widths: int) -> LayerGraph:
    layers = [("Gemm", (units, units_in)) for units_in, units in pairwise((*widths, 10))]
    return drawn(chain(f"mlp {widths}", ("N", widths[0]), layers), 0)


def cnn(side: int, *widths: int) -> LayerGraph:
    """Two convolutions of each width, a pooling between the widths."""
    layers: list[tuple[str, tuple[int, ...]]] = []
    before = 3
    for place, units in enumerate(widths):
        layers += [("MaxPool", ())] if place else []
        layers += [("Conv", (units, before, 3, 3)), ("Conv", (units, units, 3, 3))]
        before = units
    return drawn(chain(f"cnn {widths}", ("N", 3, side, side), [*layers, ("Gemm", (10, before))]), 0)


NETWORKS: dict[str, Callable[[], LayerGraph]] = {
    "MLP 196-128-128": lambda: mlp(196, 128, 128),
    "MLP 784-256-256": lambda: mlp(784, 256, 256),
    "MLP 784-1000-1000": lambda: mlp(784, 1000, 1000),
    "CNN 16-32-64, 24x24": lambda: cnn(24, 16, 32, 64),
    "CNN 24-48-96, 32x32": lambda: cnn(32, 24, 48, 96),
    "CNN 64-128-256, 16x16": lambda: cnn(16, 64, 128, 256),
}


# --- thinning -----------------------------------------------------------------------------------------------------


def step_of(multiple: int) -> Callable[..., int]:
    """How many units of a set go at a time, so that multiples of a number stay."""

    def step(units: int, *, on_maps: bool) -> int:
        own = multiple
        while units < 2 * own:
            own //= 2
        return max(own, units // allocation.STEPS // own * own)

    return step


@dataclass(frozen=True)
class Variant:
    """A network at a budget, with the counts in multiples of a number."""

    multiple: int | str
    graph: LayerGraph
    counts: tuple[int, ...]
    error: float


def variants_of(joint: Joint, budget: float) -> Iterator[Variant]:
    """The network at a budget, rounded in every way."""
    now = allocation.step_size
    try:
        for multiple in (*MULTIPLES, NOW):
            allocation.step_size = now if isinstance(multiple, str) else step_of(multiple)
            made = joint.at(budget)
            yield Variant(multiple, made.graph, tuple(made.counts[0].values()), joint.error(made.graph))
    finally:
        allocation.step_size = now


# --- measuring ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One variant, with its cost as a multiple of the whole network's, and its time for each number of samples."""

    network: str
    budget: float
    variant: Variant
    cost: float
    ms: tuple[float, ...]
    ratios: tuple[float, ...]

    def cells(self) -> list[str]:
        kept = "-".join(map(str, self.variant.counts))
        times = [f"{ms:.3f}" for ms in self.ms]
        ratios = [f"{ratio:.2f}" for ratio in self.ratios]
        where = [self.network, f"{self.budget:g}", str(self.variant.multiple), kept, f"{self.cost:.3f}"]
        return [*where, f"{self.variant.error:.2f}", *times, *ratios]


HEADER = ("network", "budget", "multiples of", "units kept", "cost", "error", "ms, 1 sample", "ms, 16")
HEADER = (*HEADER, "per multiplication, 1 sample", "16")


def times_of(graphs: Sequence[LayerGraph], samples: int, seconds: float) -> list[float]:
    """The milliseconds of a run of each, in turns on one thread: the tenth percentile."""
    name, shape = graphs[0].inputs[0].name, graphs[0].inputs[0].shape
    fed = np.random.default_rng(0).standard_normal((samples, *shape[1:])).astype(np.float32)
    timed = [Timed(graph.name, graph, {name: fed}) for graph in graphs]
    sessions = [registry.runner().open(graph, optimize=True, threads=1) for graph in graphs]
    first = [min(time_of(session, own) for _ in range(5)) for session, own in zip(sessions, timed, strict=True)]
    rounds = max(20, round(seconds / sum(first)))
    taken: list[list[float]] = [[] for _ in graphs]
    for number in range(rounds):
        for place in range(len(graphs)):
            turn = (place + number) % len(graphs)
            taken[turn].append(time_of(sessions[turn], timed[turn]))
    return [1000 * float(np.percentile(own, 10)) for own in taken]


def multiplications(graph: LayerGraph) -> int:
    shape = graph.inputs[0].shape
    return count_multiplications(graph, probe(graph, input_shapes={graph.inputs[0].name: (1, *shape[1:])}).shapes)


def rows_of(name: str, seconds: float) -> Iterator[Row]:
    """Every variant of a network; of one budget all are timed together."""
    whole = NETWORKS[name]()
    joint = open_joint([whole], CompressConfig(), registry.runner(), silent)
    for budget in BUDGETS:
        variants = list(variants_of(joint, budget))
        costs = [multiplications(one.graph) for one in variants]
        times = [times_of([one.graph for one in variants], samples, seconds) for samples in SAMPLES]
        per = [[ms / cost for ms, cost in zip(own, costs, strict=True)] for own in times]
        for place, (variant, cost) in enumerate(zip(variants, costs, strict=True)):
            ms = tuple(own[place] for own in times)
            ratios = tuple(own[place] / own[0] for own in per)
            yield Row(name, budget, variant, cost / multiplications(whole), ms, ratios)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """The median over the budgets for each network and number."""
    yield "| network | samples | " + " | ".join([*(f"multiples of {one}" for one in MULTIPLES), NOW]) + " |"
    yield "|---" * (len(MULTIPLES) + 3) + "|"
    for name in dict.fromkeys(row.network for row in rows):
        for place, samples in enumerate(SAMPLES):
            ratios = [
                median(row.ratios[place] for row in rows if (row.network, row.variant.multiple) == (name, multiple))
                for multiple in (*MULTIPLES, NOW)
            ]
            yield f"| {name} | {samples} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the tables here too")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing for one budget and number of samples")
    options = parser.parse_args()
    rows: list[Row] = []
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    print("\n".join(lines), flush=True)
    for name in options.networks:
        for row in rows_of(name, options.seconds):
            rows.append(row)
            lines.append(f"| {' | '.join(row.cells())} |")
            print(lines[-1], flush=True)
    short = list(summary(rows))
    print("\n".join(["", *short]))
    if options.output:
        text = (__doc__ or "").split("\n\n", 1)[1]
        parts = ["# Rounded counts of units", text, "## Time for a multiplication", "\n".join(short), "\n".join(lines)]
        Path(options.output).write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
