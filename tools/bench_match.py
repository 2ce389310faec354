"""What matching the layers of large graphs takes: `python tools/bench_match.py -o FILE.md`.

Pairs of networks of growing size, with few units, so that nothing but the number of layers counts: chains of
convolutions, chains of residual blocks, parallel towers between a stem and a head, and a chain against its own copy.
The donor has a tenth less layers, and another width; donor towers stand in another order, and not all are as long. Each
pair is matched in a process of its own: CPU seconds, and the highest resident set over what the two graphs take.
"""

import argparse
import platform
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from math import log
from multiprocessing import get_context
from pathlib import Path
from time import process_time

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from mal_graph.graph import LayerGraph
from mal_graph.matching import match_layers
from mal_graph_adapters.onnx_format.view import layer_graph

TOWERS = 16


class Net:
    """A network in the making: operators are added one by one."""

    def __init__(self, units: int, seed: int) -> None:
        self.units, self.rng = units, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def step(self, op: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def conv(self, x: str, channels: int | None = None) -> str:
        values = self.rng.standard_normal((self.units, channels or self.units, 1, 1), dtype=np.float32)
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.step("Conv", x, self.weights[-1].name)

    def graph(self, output: str) -> LayerGraph:
        made = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 4, 4))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.weights,
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return layer_graph(onnx_ir.from_proto(model), Path("net.onnx"))


def chain(nodes: int, units: int, seed: int) -> LayerGraph:
    """Convolutions, each with a ReLU."""
    net = Net(units, seed)
    x = net.conv("x", 3)
    while len(net.nodes) < nodes - 1:
        x = net.conv(net.step("Relu", x))
    return net.graph(x)


def blocks(nodes: int, units: int, seed: int) -> LayerGraph:
    """Residual blocks of two convolutions."""
    net = Net(units, seed)
    x = net.conv("x", 3)
    while len(net.nodes) < nodes - 4:
        x = net.step("Relu", net.step("Add", x, net.conv(net.step("Relu", net.conv(x)))))
    return net.graph(net.conv(x))


def towers(nodes: int, units: int, seed: int) -> LayerGraph:
    """Chains between a stem and a head, of two lengths, in an order of the seed's."""
    net = Net(units, seed)
    stem, ends = net.conv("x", 3), []
    for tower in net.rng.permutation(TOWERS):
        x = stem
        for _ in range((nodes // 2 // TOWERS) * (3 if tower % 2 else 4) // 4):
            x = net.conv(net.step("Relu", x))
        ends.append(x)
    return net.graph(net.conv(net.step("Sum", *ends)))


def shorter(make: Callable[[int, int, int], LayerGraph], nodes: int) -> tuple[LayerGraph, LayerGraph]:
    return make(nodes, 4, 0), make(nodes * 9 // 10, 5, 1)


def copied(nodes: int) -> tuple[LayerGraph, LayerGraph]:
    return chain(nodes, 4, 0), chain(nodes, 4, 1)


KINDS: dict[str, Callable[[int], tuple[LayerGraph, LayerGraph]]] = {
    "copy": copied,
    "chain": lambda nodes: shorter(chain, nodes),
    "blocks": lambda nodes: shorter(blocks, nodes),
    "towers": lambda nodes: shorter(towers, nodes),
}


def resident() -> float:
    """The highest resident set of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(kind: str, nodes: int) -> tuple[int, int, float, float]:
    """Layers of the base, pairs, CPU seconds and MiB of one match."""
    base, donor = KINDS[kind](nodes)
    before, start = resident(), process_time()
    match = match_layers(base, donor)
    return len(match.base), len(match.pairs), process_time() - start, resident() - before


def rows(kinds: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """The table, line by line; told as it grows."""
    lines = ["| networks | nodes | layers | pairs | CPU s | MiB | exponent |", "|---|---|---|---|---|---|---|"]
    print("\n".join(lines))
    for kind in kinds:
        taken: dict[int, float] = {}
        for nodes in sizes:
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                layers, pairs, taken[nodes], memory = alone.submit(measured, kind, nodes).result()
            (first, *_, last) = (nodes, nodes) if len(taken) == 1 else list(taken)[-2:]
            power = f"{log(taken[last] / taken[first]) / log(last / first):.2f}" if first != last else ""
            lines.append(
                f"| {kind} | {nodes:,} | {layers:,} | {pairs:,} | {taken[nodes]:.1f} | {memory:,.0f} | {power} |"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=[5_000, 10_000, 20_000], help="numbers of nodes")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("-o", "--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "numpy"))
    head = f"{date.today()}, Python {platform.python_version()}, {versions}. Made by `python tools/bench_match.py`."
    text = ["# What matching layers takes", head, (__doc__ or "").split("\n\n", 1)[1].strip()]
    table = "\n".join(rows(options.kinds, options.sizes))
    if options.output:
        options.output.write_text("\n\n".join([*text, table]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
