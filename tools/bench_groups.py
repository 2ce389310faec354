"""How long finding axis groups takes, against loading the same file: `python tools/bench_groups.py`.

Nets of residual blocks (convolution, BatchNorm, ReLU, concatenation, grouped convolution) of growing length, written to
a file each. All times are processor times of this process, those of loading and of groups taken in turn, the best of
several runs each, so that a busy machine counts for little; what is reported is their ratio and the exponent with which
the time grows. "Axis groups" is everything from the loaded graph and the shapes of its tensors to the groups:
parameters, axis rules, units, members. The run that measures the shapes is listed by itself.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from math import log
from pathlib import Path
from time import process_time

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

import mal_graph
from mal_graph.network import probe
from mal_graph.symmetry import axis_groups

UNITS = 16


def network(nodes: int) -> onnx.ModelProto:
    """About `nodes` operators in a chain of blocks of ten, with random weights."""
    rng = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        values = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) or 1))
        weights.append(numpy_helper.from_array(values, f"w{len(weights)}"))
        return weights[-1].name

    def step(op: str, *inputs: str, **attributes: object) -> str:
        made.append(helper.make_node(op, inputs, [f"t{len(made)}"], name=f"n{len(made)}", **attributes))
        return made[-1].output[0]

    def norm(x: str) -> str:
        scale, shift, mean = (weight(UNITS) for _ in range(3))
        weights.append(numpy_helper.from_array(np.ones(UNITS, np.float32), f"v{len(weights)}"))
        return step("BatchNormalization", x, scale, shift, mean, weights[-1].name)

    x = step("Conv", "x", weight(UNITS, 3, 1, 1))
    while len(made) < nodes - 2:
        y = step("Relu", norm(step("Conv", x, weight(UNITS, UNITS, 1, 1))))
        z = step("Relu", norm(step("Conv", y, weight(UNITS, 4, 3, 3), group=4, pads=[1] * 4)))
        both = step("Concat", y, z, axis=1)
        x = step("Add", x, step("Conv", both, weight(UNITS, 2 * UNITS, 1, 1)))
        x = step("Relu", x)
    step("Conv", x, weight(10, UNITS, 1, 1))
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 4, 4))],
        [helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def best(repeats: int, *runs: Callable[[], object]) -> list[float]:
    """The shortest processor time of each of some runs, taken in turn."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times, strict=True):
            start = process_time()
            run()
            taken.append(process_time() - start)
    return [min(taken) for taken in times]


def measured(sizes: Sequence[int], repeats: int) -> Iterator[str]:
    """The table, line by line."""
    yield "| nodes | groups | onnx_ir.load | probe run | axis groups | groups / load | all / load |"
    yield "|---|---|---|---|---|---|---|"
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / f"{size}.onnx"
            onnx.save(network(size), path)
            graph = mal_graph.load(str(path))
            start = process_time()
            probed = probe(graph)
            probing = process_time() - start
            load, group = partial(onnx_ir.load, path), partial(axis_groups, graph, probed)
            loading, grouping = best(repeats, load, group)
            seconds[size] = grouping
            times = " | ".join(f"{time:.2f} s" for time in (loading, probing, grouping))
            ratios = f"{grouping / loading:.2f} | {(grouping + probing) / loading:.2f}"
            yield f"| {len(graph.nodes):,} | {len(group().usable()):,} | {times} | {ratios} |"
    if len(seconds) > 1:
        (a, first), *_, (b, last) = seconds.items()
        yield f"\naxis groups grow with the {log(last / first) / log(b / a):.2f}th power of the nodes"


def heading(command: str) -> str:
    names = ("mal-graph", "onnx", "onnx-ir", "onnxruntime", "numpy", "scipy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        "# The cost of axis groups, against loading the file\n\n"
        f"{date.today()}, Python {platform.python_version()}, {versions}. Made by `{command}`.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[5_000, 50_000], help="numbers of nodes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    words = ["python", "tools/bench_groups.py", *map(str, options.sizes), "--repeats", str(options.repeats)]
    lines = [heading(" ".join(words))]  # without where it is written: that is a path of this machine
    print(lines[0])
    for line in measured(options.sizes, options.repeats):
        print(line, flush=True)
        lines.append(line)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
