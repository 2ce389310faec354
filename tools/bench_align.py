"""CPU time of the alignment beside weight matching as published: `python tools/bench_align.py -o FILE.md`.

Weight matching is coordinate descent over permutations (Ainsworth et al. 2023, arXiv:2209.04836, section 3.2): groups
in random order, every score computed anew, scipy's assignment, until a sweep brings no progress. `weight_matching`
below is a straight port of it, written from that description. It gets the same tensors, already read and folded, as
arrays in memory; our time starts from the correspondence, so reading, folding and the report's figures are in it.

Donors are copies of the base with the units of every group shuffled, mixed with noise of the same size: donor =
corr * copy + sqrt(1 - corr^2) * noise. All weights are random; nothing here was trained. Times are CPU seconds of this
process with one thread, medians of runs one after the other; the objective is divided by |A| |B|.

The floor is what the products alone take: every weight meets one product of matrices for each of its axes with an
order, here of contiguous rows, in the same run.
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
from operator import truediv
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linear_sum_assignment

import mal_graph
from mal_graph.graph import Array, LayerGraph
from mal_graph.matching import Correspondence, assign_units, correspond, match_layers
from mal_graph.matching.objective import Objective, squared
from mal_graph.network import find_parameters
from mal_graph.operators import ParameterKind
from mal_graph.symmetry import AxisGroups, Network, axis_groups, permute_weights
from mal_graph.symmetry.random_copy import draw_weights
from mal_graph_adapters.onnx_format.view import layer_graph

RESNET50 = Path(os.path.dirname(onnx.__file__)) / "backend/test/data/light/light_resnet50.onnx"
VGG16 = (64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3)
CORRELATIONS = {"exact copy": 1.0, "planted, corr .7": 0.7, "weak, corr .3": 0.3, "independent": 0.0}
MAX_SWEEPS = 100


# --- the published algorithm ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """One tensor of both models, and the permutation on each of its axes, -1 for none."""

    a: Array
    b: Array
    axes: tuple[int, ...]


def tensors_of(correspondence: Correspondence) -> list[Tensor]:
    """What counts in the objective, as weight matching wants it: one permutation an axis, one index a unit."""
    tensors = []
    for term, axes in correspondence.tensors:
        if term.is_compared:
            blocks = [axis.blocks[0] for axis in axes]
            assert all(len(axis.blocks) == 1 and axis.blocks[0].base.shape[1] == 1 for axis in axes)
            tensors.append(Tensor(term.base_values(), term.donor_values(), tuple(block.pair for block in blocks)))
    return tensors


def weight_matching(tensors: Sequence[Tensor], sizes: Sequence[int], seed: int) -> tuple[list[Array], int]:
    """The permutations, and how many sweeps they took."""
    rng = np.random.default_rng(seed)
    perms = [np.arange(size) for size in sizes]
    touching = [
        [(t, axis) for t in tensors for axis, p in enumerate(t.axes) if p == pair] for pair in range(len(sizes))
    ]
    for sweep in range(MAX_SWEEPS):
        progress = False
        for pair in rng.permutation(len(sizes)):
            scores = np.zeros((sizes[pair], sizes[pair]))
            for tensor, axis in touching[pair]:
                b = tensor.b
                for other, p in enumerate(tensor.axes):
                    if other != axis and p >= 0:
                        b = b.take(perms[p], axis=other)
                rows = [np.moveaxis(side, axis, 0).reshape(sizes[pair], -1) for side in (tensor.a, b)]
                scores += rows[0] @ rows[1].T
            _, new = linear_sum_assignment(scores, maximize=True)
            own = np.arange(sizes[pair])
            progress |= bool(scores[own, new].sum() > scores[own, perms[pair]].sum() + 1e-12)
            perms[pair] = new
        if not progress:
            return perms, sweep + 1
    return perms, MAX_SWEEPS


def floor_of(tensors: Sequence[Tensor]) -> float:
    """The seconds of one product for every axis of a tensor that is permuted."""
    total = 0.0
    for tensor in tensors:
        for axis, pair in enumerate(tensor.axes):
            if pair >= 0:
                sides = (np.moveaxis(side, axis, 0) for side in (tensor.a, tensor.b))
                a, b = (np.ascontiguousarray(side).reshape(len(side), -1) for side in sides)
                total += seconds(lambda a=a, b=b: a @ b.T)[0]
    return total


# --- models -----------------------------------------------------------------------------------------------------


def chain(name: str, shape: Sequence[int | str], layers: Sequence[tuple[str, tuple[int, ...]]]) -> LayerGraph:
    """Layers ("Conv" or "Gemm", with the weight's shape) with bias and ReLU, and "MaxPool"s between, as a graph."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    x = "x"
    for i, (op, sizes) in enumerate(layers):
        names = []
        for part, size in (("w", sizes), ("b", sizes[:1])) if sizes else ():
            weights.append(numpy_helper.from_array(np.zeros(size, np.float32), f"{part}{i}"))
            names.append(f"{part}{i}")
        extra: dict[str, object] = {"transB": 1} if op == "Gemm" else {"pads": [1] * 4} if op == "Conv" else {}
        extra = {"kernel_shape": [2, 2], "strides": [2, 2]} if op == "MaxPool" else extra
        nodes.append(helper.make_node(op, [x, *names], [f"y{i}"], name=f"n{i}", **extra))
        x = f"y{i}"
        if sizes and i + 1 < len(layers):
            nodes.append(helper.make_node("Relu", [x], [f"r{i}"], name=f"relu{i}"))
            x = f"r{i}"
        if i + 1 < len(layers) and layers[i + 1][0] == "Gemm" and op != "Gemm":
            nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
            nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
            x = "flat"
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
        weights,
    )
    return loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), name)


def loaded(model: onnx.ModelProto, name: str) -> LayerGraph:
    return layer_graph(onnx_ir.from_proto(model), Path(f"{name}.onnx"))


def mlp() -> LayerGraph:
    widths = (784, 512, 512, 512, 10)
    return chain("mlp", ("N", 784), [("Gemm", (b, a)) for a, b in pairwise(widths)])


def vgg16() -> LayerGraph:
    layers: list[tuple[str, tuple[int, ...]]] = []
    width = 3
    for units in VGG16:
        if isinstance(units, int):
            layers.append(("Conv", (units, width, 3, 3)))
            width = units
        else:
            layers.append(("MaxPool", ()))
    return chain("vgg16", ("N", 3, 32, 32), [*layers, ("Gemm", (10, width))])


def resnet50() -> LayerGraph:
    return mal_graph.load(str(RESNET50))


MODELS: dict[str, Callable[[], LayerGraph]] = {"MLP 3x512": mlp, "VGG16": vgg16, "ResNet50": resnet50}


def drawn(graph: LayerGraph, seed: int) -> LayerGraph:
    return graph.with_weights(draw_weights(find_parameters(graph), graph, seed))


def donor_of(base: LayerGraph, groups: AxisGroups, correlation: float, seed: int) -> LayerGraph:
    """A shuffled copy of the base, mixed with another random model; what is never negative stays so."""
    return donor_with_orders(base, groups, correlation, seed)[0]


def donor_with_orders(
    base: LayerGraph, groups: AxisGroups, correlation: float, seed: int
) -> tuple[LayerGraph, dict[int, Array]]:
    """The same, with the base's unit on every unit of the copy, by group."""
    rng = np.random.default_rng(seed)
    values = {name: weight.read() for name, weight in base.weights.items() if weight.is_float}
    made = {i: rng.permutation(groups.groups[i].units) for i in groups.usable()}
    moved = permute_weights(values, [(groups.groups[i], order) for i, order in made.items()])
    other = draw_weights(find_parameters(base), base, seed)
    positive = {p.tensor for p in find_parameters(base) if p.kind in (ParameterKind.SCALE, ParameterKind.VARIANCE)}
    share, rest = np.float32(correlation), np.float32(np.sqrt(1 - correlation**2))
    rests = {name: 1 - share if name in positive else rest for name in moved}
    return base.with_weights({name: share * moved[name] + rests[name] * other[name] for name in moved}), made


def found_between(base: LayerGraph, groups: AxisGroups, donor: LayerGraph) -> Correspondence:
    names = [layer.name for layer in match_layers(base, base).base]
    match = match_layers(base, donor, [(name, name) for name in names])
    return correspond(Network(base, groups), Network(donor, groups), match)


# --- measuring --------------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object]) -> tuple[float, object]:
    start = process_time()
    result = run()
    return process_time() - start, result


def compared(name: str, base: LayerGraph, groups: AxisGroups, kind: str, repeats: int) -> str:
    """One row of the table."""
    correspondence = found_between(base, groups, donor_of(base, groups, CORRELATIONS[kind], 1))
    tensors, sizes = tensors_of(correspondence), [a for a, _ in correspondence.units]
    problem = Objective(correspondence)
    scale = float(np.sqrt(sum(squared(t.a) for t in tensors) * sum(squared(t.b) for t in tensors)))
    ours, theirs, floors, worst, best, sweeps = [], [], [], np.inf, -np.inf, []
    for seed in range(repeats):
        floors.append(floor_of(tensors))
        took, done = seconds(lambda: assign_units(correspondence))
        ours.append(took)
        worst = min(worst, done.objective / scale)
        took, matched = seconds(lambda seed=seed: weight_matching(tensors, sizes, seed))
        theirs.append(took)
        best = max(best, problem.value(matched[0]) / scale)
        sweeps.append(str(matched[1]))
    return (
        f"| {name} | {kind} | {median(theirs):.2f} | {', '.join(sweeps)} | {median(ours):.2f} | {median(floors):.2f} | "
        f"{median(map(truediv, theirs, ours)):.1f} | {median(map(truediv, ours, floors)):.2f} | "
        f"{best:.4f} | {worst:.4f} |"
    )


def weak_copies(seeds: Sequence[int]) -> Iterator[str]:
    """For every seed a row: what is reached on a weak copy of VGG16, beside what the orders it was made with reach."""
    base = drawn(vgg16(), 0)
    groups = axis_groups(base)
    for seed in seeds:
        donor, made = donor_with_orders(base, groups, CORRELATIONS["weak, corr .3"], seed)
        correspondence = found_between(base, groups, donor)
        compared = [(term.base_values(), term.donor_values()) for term, _ in correspondence.tensors if term.is_compared]
        scale = float(np.sqrt(sum(squared(a) for a, _ in compared) * sum(squared(b) for _, b in compared)))
        planted = [np.argsort(made[pair.donor]) for pair in correspondence.pairs]
        worth = Objective(correspondence).value(planted) / scale
        took, done = seconds(lambda found=correspondence: assign_units(found))
        yield f"| {seed} | {took:.2f} | {done.start} | {worth:.4f} | {done.objective / scale:.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table here too")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--kinds", nargs="*", choices=CORRELATIONS, default=list(CORRELATIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=6, help="of weak copies of VGG16 that are looked for")
    options = parser.parse_args()
    lines = [
        "| models | donor | weight matching (CPU s) | its sweeps | ours (CPU s) | floor (CPU s) | ratio | ours / floor "
        "| its best objective | ours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.models:
        base = drawn(MODELS[name](), 0)
        groups = axis_groups(base)
        for kind in options.kinds:
            lines.append(compared(name, base, groups, kind, options.repeats))
            print(lines[-1], flush=True)
    found = ["| seed | CPU s | start | objective of the copy | ours |", "|---|---|---|---|---|"]
    print("\n".join(found), flush=True)
    for row in weak_copies(range(1, 1 + options.seeds)):
        found.append(row)
        print(row, flush=True)
    lines += ["", "Weak copies of VGG16 (corr .3) by seed, beside what the orders that made them come to:", "", *found]
    if options.output:
        text = (__doc__ or "").split("\n\n", 1)
        Path(options.output).write_text(f"# Alignment beside weight matching\n\n{text[1]}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
