"""Which channels of published networks the group finder understands, judged by an oracle of its own.

    python tools/make_suite_models.py suite_models
    python tools/study_groups.py --models suite_models --light --corpus -o tools/results/study_groups.md

For every model: its axis groups, what the verification says of them, and whether the groups it calls verified are
right. The oracle shares nothing with the verification: other random weights, drawn and scaled here; float64 throughout,
under onnx.reference with its slow operators rewritten; other permutations. All verified groups are permuted at once,
and if the outputs move by more than 1e-7 of their size the culprits are found by halving. Its own power is shown
by leaving out one weight of a few groups: that must move the outputs.

Each model runs in a process of its own. Results are kept as JSON lines beside the models and used again while neither
the model nor the code of the groups has changed (`--stale`: whatever the code). Exit code 1 if a group is wrong.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.special import erf as special_erf

import mal_graph
from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.graph import Array, LayerGraph, Node
from mal_graph.operators import GroupState
from mal_graph.protocols import Runner, Session
from mal_graph.reporting.group_coverage import coverage
from mal_graph.symmetry import ACCEPT, AxisGroup, AxisGroups, ResizeCheck, check_resizes

TOLERANCE = 1e-7  # what float64 may leave of a right group
POWER = 1e-5  # what a group with a member left out must show
CONTROLS = 6  # groups on which that is tried
COVERED = 0.9
RUNS_TOGETHER = 3  # times log2 of the groups: what a verification may take beside its controls
LISTED = 12  # models named for one kind of finding
HOLDS = "free"  # units may be added and taken away
PADDING_SECONDS = 100.0
SEED = 20_231
ROOT = Path(__file__).parents[1]
LIGHT = "backend/test/data/light"
T = TypeVar("T")


@dataclass
class Row:
    """What one model gave."""

    model: str
    suite: str = "models"
    nodes: int = 0
    groups: int = 0
    states: dict[str, int] = field(default_factory=dict)
    coverage: float = 0.0
    reasons: dict[str, float] = field(default_factory=dict)  # shares of the parameters
    seconds_groups: float = 0.0
    seconds_verification: float = 0.0
    seconds_oracle: float = 0.0
    runs: int = 0  # of the model in the verification
    runs_together: int = 0  # those that permute more than one group
    wrong: list[str] = field(default_factory=list)
    deviation: float | None = None  # of all verified groups at once
    power: float | None = None  # the least that a member left out moved
    weakest: str = ""  # which that was
    controls: int = 0
    oracle: str = ""  # why it could not judge
    error: str = ""
    resized: dict[str, int] = field(default_factory=dict)  # verified groups by what added and removed units do
    seconds_padding: float = 0.0
    saved: str = ""
    key: str = ""
    code: str = ""

    def verdict(self) -> str:
        if self.error:
            return self.error[:200]
        if self.wrong:
            return f"**{len(self.wrong)} wrong**"
        if self.oracle:
            return self.oracle[:200]
        return "right" if self.states.get(GroupState.VERIFIED) else "nothing verified"


# --- float64 evaluation -----------------------------------------------------------------------------------------


def conv(node: Node, x: Array, w: Array, b: Array | None = None) -> Array | None:
    rank, group, patches = x.ndim - 2, node.attribute("group", 1), windows(node, x, w.shape[2:], 0.0)
    if patches is None:
        return None
    out = patches.shape[2 : x.ndim]
    taps = patches.reshape(len(x), group, x.shape[1] // group, *patches.shape[2:])
    taps = np.moveaxis(taps, range(3, 3 + rank), range(-rank, 0))
    y = w.reshape(group, len(w) // group, -1) @ taps.reshape(len(x), group, -1, int(np.prod(out)))
    return biased(y.reshape(len(x), len(w), *out), b)


def conv_transpose(node: Node, x: Array, w: Array, b: Array | None = None) -> Array | None:
    if node.attribute("auto_pad", "NOTSET") != "NOTSET" or node.attribute("output_shape"):
        return None
    rank, group = x.ndim - 2, node.attribute("group", 1)
    strides, dilations, pads = spatial(node, rank)
    more = node.attribute("output_padding") or [0] * rank
    ins, kernel, units = x.shape[2:], w.shape[2:], w.shape[1] * group
    sources = x.reshape(len(x), group, x.shape[1] // group, -1)
    parts = np.swapaxes(w.reshape(group, x.shape[1] // group, -1), 1, 2) @ sources
    parts = parts.reshape(len(x), units, *kernel, *ins)
    sides = zip(ins, strides, kernel, dilations, more, strict=True)
    y = np.zeros((len(x), units, *[(n - 1) * s + (k - 1) * d + 1 + m for n, s, k, d, m in sides]))
    for tap in np.ndindex(*kernel):
        sides = zip(tap, dilations, ins, strides, strict=True)
        at = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in sides]
        y[(slice(None), slice(None), *at)] += parts[(slice(None), slice(None), *tap)]
    kept = [slice(pads[i], y.shape[2 + i] - pads[rank + i]) for i in range(rank)]
    return biased(y[(..., *kept)], b)


def biased(y: Array, b: Array | None) -> Array:
    return y if b is None else y + b.reshape(-1, *[1] * (y.ndim - 2))


def max_pool(node: Node, x: Array) -> Array | None:
    patches = windows(node, x, node.attribute("kernel_shape"), -np.inf)
    if patches is None or node.attribute("storage_order") or len([name for name in node.outputs if name]) > 1:
        return None
    return patches.max(tuple(range(x.ndim, patches.ndim)))


def average_pool(node: Node, x: Array) -> Array | None:
    rank, kernel = x.ndim - 2, node.attribute("kernel_shape")
    patches, counted = windows(node, x, kernel, 0.0), np.ones((1, 1, *x.shape[2:]))
    if patches is None:
        return None
    if node.attribute("count_include_pad") and node.attribute("auto_pad", "NOTSET") == "NOTSET":
        pads = spatial(node, rank)[2]
        around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        counts = windows(node, np.pad(counted, around, constant_values=1.0), kernel, 0.0, padded=True)
    else:
        counts = windows(node, counted, kernel, 0.0)
    over = tuple(range(x.ndim, patches.ndim))
    return patches.sum(over) / counts.sum(over)


def resize(
    node: Node, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array | None:
    mode, place = node.attribute("mode", "nearest"), node.attribute("coordinate_transformation_mode", "half_pixel")
    special = [node.attribute(name) for name in ("antialias", "exclude_outside", "axes")]
    special.append(node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch")
    by_scale, by_size = (part is not None and len(part) == x.ndim for part in (scales, sizes))
    known = mode in ("nearest", "linear") and place in PLACES and (by_scale or by_size)
    if any(special) or not known:
        return None
    for axis, old in enumerate(x.shape):
        new = int(sizes[axis]) if by_size else int(np.floor(old * float(scales[axis])))
        at = positions_between(np.arange(new), old, new, new / old if by_size else float(scales[axis]), place)
        if mode == "nearest":
            x = x.take(rounded(at, node.attribute("nearest_mode", "round_prefer_floor"), old), axis)
        elif new != old:
            low = np.clip(np.floor(at).astype(int), 0, old - 1)
            share = (np.clip(at, 0, old - 1) - low).reshape(-1, *[1] * (x.ndim - 1 - axis))
            x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, old - 1), axis) * share
    return x


def erf(node: Node, x: Array) -> Array:
    return special_erf(x)


def softmax_of_rows(node: Node, x: Array) -> Array:
    """Softmax as it was before opset 13: over all axes from one on together, which onnx.reference has forgotten."""
    rows = x.reshape(int(np.prod(x.shape[: node.attribute("axis", 1) % (x.ndim + 1)])), -1)
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).reshape(x.shape)


# What onnx.reference runs in Python loops, for whole arrays; None where the operator's options are not known here.
FAST: Mapping[str, Callable[..., Array | None]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "Resize": resize,
    "Erf": erf,
}
PLACES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


def spatial(node: Node, rank: int) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads of a node."""
    ones = [1] * rank
    pads = node.attribute("pads") or [0] * 2 * rank
    return list(node.attribute("strides") or ones), list(node.attribute("dilations") or ones), list(pads)


def windows(node: Node, x: Array, kernel: Sequence[int], fill: float, padded: bool = False) -> Array | None:
    """Every patch a kernel sees, shape (n, channels, *places, *kernel), as a view.

    Args:
        x: shape (n, channels, *sides); `padded` if the node's pads are in it already.
        fill: what stands beyond the edges.
    """
    rank, auto = len(kernel), node.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        return None
    strides, dilations, pads = spatial(node, rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    around = []
    for i, side in enumerate(x.shape[2:]):
        if auto != "NOTSET":
            need = max(0, (-(-side // strides[i]) - 1) * strides[i] + reach[i] - side)
            pads[i] = need // 2 if auto == "SAME_UPPER" else -(-need // 2)
            pads[rank + i] = need - pads[i]
        before, behind = (0, 0) if padded else (pads[i], pads[rank + i])
        if node.attribute("ceil_mode"):
            room = side + before + behind - reach[i]
            places = -(-room // strides[i]) + 1
            # A window must start inside the image or the pad before it.
            start = side - pads[rank + i] if padded else side + before
            places -= (places - 1) * strides[i] >= start
            behind += max(0, (places - 1) * strides[i] - room)
        around.append((before, behind))
    x = np.pad(x, [(0, 0), (0, 0), *around], constant_values=fill)
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, tuple(range(2, x.ndim)))
    places = tuple(slice(None, None, stride) for stride in strides)
    return seen[(slice(None), slice(None), *places, *[slice(None, None, dilation) for dilation in dilations])]


def positions_between(new_at: Array, old: int, new: int, scale: float, place: str) -> Array:
    """Where in the old axis each place of the new one lies."""
    if place == "asymmetric":
        return new_at / scale
    if place == "align_corners":
        return new_at * ((old - 1) / (new - 1) if new > 1 else 0.0)
    if place == "pytorch_half_pixel" and new == 1:
        return np.zeros(1)
    return (new_at + 0.5) / scale - 0.5


def rounded(at: Array, mode: str, old: int) -> Array:
    near = {
        "round_prefer_floor": lambda: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda: np.floor(at + 0.5),
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
    }[mode]()
    return np.clip(near.astype(int), 0, old - 1)


class Exact:
    """A graph under onnx.reference in float64, node by node; its float weights are given to every run."""

    def __init__(self, graph: LayerGraph) -> None:
        from onnx import TensorProto
        from onnx.helper import make_attribute
        from onnx.reference import ReferenceEvaluator

        from mal_graph_adapters.onnx_format.onnxruntime_runner import model_proto

        self.graph = graph
        self.nodes = {node.outputs: node for node in graph.nodes}
        self.weights = [name for name, weight in graph.weights.items() if weight.is_float and not weight.scope]
        model = model_proto(graph, None, self.weights)
        for node in model.graph.node:
            if node.op_type == "GroupNormalization" and graph.opsets.get("", 1) >= 21:
                node.attribute.append(make_attribute("stash_type", TensorProto.DOUBLE))  # what it computes in
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i in (1, 10, 16):
                    attribute.i = TensorProto.DOUBLE
        self.evaluator = ReferenceEvaluator(model)
        self.fast = {**FAST, "Softmax": softmax_of_rows} if graph.opsets.get("", 13) < 13 else FAST

    def steps(
        self, inputs: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> Iterator[tuple[Node, dict[str, Array]]]:
        """After each node that stands in no body this and every tensor so far, which the caller may change."""
        results: dict[str, Any] = {"": None, **self.evaluator.rt_inits_, **inputs, **weights}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            for node in self.evaluator.rt_nodes_:
                shown = self.nodes[tuple(node.output)]
                read = [results[name] for name in node.input]
                fast = self.fast.get(shown.op)
                found = None if fast is None else fast(shown, *read)
                how = {"context": results, "bindings": None} if node.need_context() else {}
                outputs = node.run(*read, **how) if found is None else [found]
                results.update(zip(node.output, outputs, strict=False))
                yield shown, results

    def run(self, inputs: Mapping[str, Array], weights: Mapping[str, Array]) -> list[Array]:
        """The model's outputs."""
        results: Mapping[str, Array] = {**inputs, **weights}
        for _, so_far in self.steps(inputs, weights):
            results = so_far
        return [np.asarray(results[value.name], dtype=np.float64) for value in self.graph.outputs]


# --- the oracle -------------------------------------------------------------------------------------------------

PASSES_ON = ("Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Cast")
CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization")


@dataclass(frozen=True)
class Verdict:
    """What the oracle found of some groups: which are wrong, and what its controls showed."""

    wrong: tuple[str, ...]
    deviation: float
    power: float | None
    weakest: str
    controls: int


def judge(graph: LayerGraph, groups: AxisGroups, chosen: Sequence[AxisGroup], seed: int = SEED) -> Verdict:
    """Permute the chosen groups at once on random weights in float64, and find those that move the outputs."""
    rng = np.random.default_rng(seed)
    exact = Exact(graph)
    inputs = {
        name: rng.standard_normal(array.shape) if array.dtype.kind == "f" else array
        for name, array in groups.probed.inputs.items()
    }
    weights = drawn_weights(graph, groups, rng)
    scale_layers(exact, inputs, weights)
    before = exact.run(inputs, weights)
    if not all(np.isfinite(y).all() for y in before):
        raise ArithmeticError("the outputs are not finite on random weights")
    if not any(y.size and np.ptp(y) for y in before):
        raise ArithmeticError("the outputs are constant on random weights")

    def moved(some: Iterable[tuple[AxisGroup, Array]], without: int | None = None) -> float:
        changed = permuted_weights(weights, some, without)
        return largest_move(exact.run(inputs, {**weights, **changed}), before)

    moves = [(group, drawn_order(group.units, rng)) for group in chosen]
    deviation = moved(moves)
    wrong = culprits(moves, moved) if deviation > TOLERANCE else []
    if deviation > TOLERANCE and not wrong:
        wrong = ["all groups at once, none alone"]
    shown = []
    for place in sorted(rng.choice(len(moves), min(CONTROLS, len(moves)), replace=False)):
        group, order = moves[place]
        heavy = [i for i, member in enumerate(group.members) if len(graph.weights[member.tensor].shape) > 1]
        left_out = int(rng.choice(heavy or range(len(group.members))))
        change = moved([(group, order)], left_out)
        shown.append((change, f"{group.name} without {group.members[left_out].tensor}[{group.members[left_out].axis}]"))
    power, weakest = min(shown, default=(None, ""))
    return Verdict(tuple(wrong), deviation, power, weakest, len(shown))


def culprits(moves: Sequence[tuple[AxisGroup, Array]], moved: Callable[..., float]) -> list[str]:
    """The groups that move the outputs, by halving; one that the outputs do not feel in company is taken as right."""
    if moved(moves) <= TOLERANCE:
        return []
    if len(moves) == 1:
        return [moves[0][0].name]
    half = len(moves) // 2
    return culprits(moves[:half], moved) + culprits(moves[half:], moved)


def permuted_weights(
    weights: Mapping[str, Array], moves: Iterable[tuple[AxisGroup, Array]], without: int | None = None
) -> dict[str, Array]:
    """The tensors that change when unit `order[u]` takes the place of unit u, one group after another.

    Args:
        without: the member, by its place in its group, that stays as it is.
    """
    changed: dict[str, Array] = {}
    for group, order in moves:
        for place, member in enumerate(group.members):
            if place == without:
                continue
            values = changed.get(member.tensor, weights[member.tensor])
            index = np.arange(values.shape[member.axis])
            index[member.positions] = member.positions[order]
            changed[member.tensor] = np.take(values, index, member.axis)
    return changed


def drawn_order(units: int, rng: np.random.Generator) -> Array:
    """A random order that is not the identity."""
    order = rng.permutation(units)
    return order if (order != np.arange(units)).any() else np.roll(order, 1)


def largest_move(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference, relative to the largest value of the same output."""
    moves = [
        np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(b), initial=0), 1e-30) for a, b in pairs(found, expected)
    ]
    return float(max((move if np.isfinite(move) else np.inf for move in moves), default=0.0))


def pairs(found: Sequence[Array], expected: Sequence[Array]) -> Iterable[tuple[Array, Array]]:
    return zip(found, expected, strict=True)


def drawn_weights(graph: LayerGraph, groups: AxisGroups, rng: np.random.Generator) -> dict[str, Array]:
    """Random float64 values for every weight; constants that no group knows and no layer multiplies keep theirs."""
    uses: dict[str, list[tuple[str, int]]] = {}
    for node in graph.nodes:
        for slot, name in enumerate(node.inputs):
            if node.op not in PASSES_ON:
                uses.setdefault(stored_under(graph, name), []).append((node.op, slot))
    known = {member.tensor for group in groups.groups for member in group.members}
    values = {}
    for name, weight in graph.weights.items():
        if not weight.is_float or weight.scope:
            continue
        ops = dict(reversed(uses.get(name, ())))
        heavy = any(op in (*CONTRACTIONS, "BatchNormalization") for op in ops)
        if weight.size > 1 and (name in known or heavy):
            values[name] = drawn_values(weight.shape, ops, rng)
        else:
            values[name] = weight.read().astype(np.float64)
    return values


def drawn_values(shape: tuple[int, ...], uses: Mapping[str, int], rng: np.random.Generator) -> Array:
    """Values for a weight by the operators that read it, each with the slot."""
    slot = uses.get("BatchNormalization")
    if slot in (1, 4):
        return rng.uniform(*((0.6, 1.4) if slot == 1 else (0.5, 1.5)), shape)
    if any(uses.get(norm) == 1 for norm in NORMS) or "Mul" in uses:
        return rng.uniform(0.6, 1.4, shape)
    if "Div" in uses or "PRelu" in uses:
        return rng.uniform(0.2, 0.9, shape)
    if len(shape) == 1 or any(uses.get(op) == 2 for op in ("Conv", "ConvTranspose", "Gemm")) or slot:
        return 0.3 * rng.standard_normal(shape)
    if "Add" in uses or "Gather" in uses:
        return rng.standard_normal(shape)
    fan_in = int(np.prod(shape[1:])) if "Conv" in uses or len(shape) > 2 else shape[0]
    return np.sqrt(2 / fan_in) * rng.standard_normal(shape)


def scale_layers(exact: Exact, inputs: Mapping[str, Array], weights: dict[str, Array]) -> None:
    """Divide the weights and bias of every layer so that its output has unit size, from the first to the last."""
    graph, done = exact.graph, set()
    for node, results in exact.steps(inputs, weights):
        if node.op not in CONTRACTIONS:
            continue
        own = [name for name in (stored_under(graph, name) for name in node.inputs) if name in weights]
        own = own[:1] if node.op == "MatMul" else own
        size = np.sqrt(np.mean(np.square(results[node.outputs[0]])))
        if not own or done.intersection(own) or not np.isfinite(size) or size == 0:
            continue
        weights.update({name: weights[name] / size for name in own})
        results[node.outputs[0]] = results[node.outputs[0]] / size
        done.update(own)


def stored_under(graph: LayerGraph, name: str) -> str:
    """The tensor that a chain of transposes and reshapes starts from."""
    while name in graph.producer and graph.nodes[graph.producer[name]].op in PASSES_ON:
        name = graph.nodes[graph.producer[name]].inputs[0]
    return name


# --- one model --------------------------------------------------------------------------------------------------


def studied(path: Path, suite: str) -> Row:
    """Everything the table says of one file."""
    row = Row(path.name.removesuffix(".onnx"), suite)
    try:
        start = time.perf_counter()
        graph = mal_graph.load(path)
        row.nodes = len(graph.nodes)
        if suite == "corpus":
            row.saved = saved_unchanged(graph, path)
        groups = mal_graph.axis_groups(graph)
        row.seconds_groups = time.perf_counter() - start
        row.groups = len(groups.groups)
        start, counting = time.perf_counter(), Counting(registry.runner(), groups)
        groups = mal_graph.verify(graph, groups, counting)
        row.seconds_verification = time.perf_counter() - start
        row.runs, row.runs_together = counting.runs, counting.together
    except MalGraphError as error:
        row.error = f"refused: {type(error).__name__}: {first_line(error)}"
        return row
    except Exception as error:
        row.error = f"crash: {type(error).__name__}: {first_line(error)}"
        return row
    row.states = dict(Counter(group.state for group in groups.groups))
    row.coverage = coverage(graph, groups).share
    row.reasons = shares_by_reason(graph, groups)
    verified = [group for group in groups.groups if group.state is GroupState.VERIFIED]
    start = time.perf_counter()
    if verified:
        try:
            verdict = judge(graph, groups, verified)
            row.wrong, row.deviation, row.power = list(verdict.wrong), verdict.deviation, verdict.power
            row.weakest, row.controls = verdict.weakest, verdict.controls
        except Exception as error:  # the evaluator raises whatever its kernels raise
            row.oracle = f"oracle: {type(error).__name__}: {first_line(error)}"
    row.seconds_oracle = time.perf_counter() - start
    if suite != "corpus":
        start = time.perf_counter()
        found = check_resizes(graph, groups, timeout=PADDING_SECONDS)
        row.resized = dict(Counter(kind_of(padding) for padding in found.values()))
        row.seconds_padding = time.perf_counter() - start
    return row


@dataclass
class Counting:
    """A runner that counts the runs of a verification, and how many of them permute more than one group."""

    runner: Runner
    groups: AxisGroups
    runs: int = 0
    together: int = 0

    def open(self, graph: LayerGraph, **options: Any) -> Session:
        return CountingSession(self.runner.open(graph, **options), self)

    @cached_property
    def groups_of(self) -> Mapping[str, set[int]]:
        """By tensor the groups that it is a member of."""
        found: dict[str, set[int]] = {}
        for (tensor, _), here in self.groups.on_axis.items():
            found.setdefault(tensor, set()).update(index for index, _ in here)
        return found


class CountingSession:
    """One session of a counting runner; its first run is what the others are compared with."""

    def __init__(self, session: Session, counting: Counting) -> None:
        self.session, self.counting, self.types = session, counting, session.types
        self.first: Mapping[str, Array] | None = None

    @property
    def took(self) -> float:
        """Seconds of the last run."""
        return self.session.took

    def run(self, inputs: Mapping[str, Array], weights: Mapping[str, Array] | None = None, **options: Any) -> Any:
        weights = weights or {}
        self.first = weights if self.first is None else self.first
        changed = [name for name, values in weights.items() if values is not self.first.get(name)]
        shared = [self.counting.groups_of.get(name, set()) for name in changed]
        self.counting.runs += 1
        self.counting.together += bool(changed) and not set.intersection(*shared)
        return self.session.run(inputs, weights, **options)


def kind_of(padding: ResizeCheck) -> str:
    """What was found of a group when units were added to it and taken away."""
    if padding.holds:
        return HOLDS
    if padding.compensation:
        return short_reason(f"needs a compensation: {padding.compensation}")
    if padding.reason:
        return short_reason(padding.reason)
    claims = {"read": padding.not_read, "not silent": padding.silent, "missed when taken away": padding.sliced}
    return ", ".join(claim for claim, moved in claims.items() if moved is not None and moved > ACCEPT)


def shares_by_reason(graph: LayerGraph, groups: AxisGroups) -> dict[str, float]:
    """The share of the parameters with an axis that is frozen, unverified or rigid, by reason, the largest first."""
    total = sum(graph.weights[name].size for name in {parameter.tensor for parameter in groups.parameters})
    free: dict[str, dict[str, dict[int, float]]] = {}
    for group in groups.groups:
        if group.state not in (GroupState.FROZEN, GroupState.UNVERIFIED, GroupState.RIGID):
            continue
        reason = short_reason(group.reason)
        for member in group.members:
            on_axis = free.setdefault(reason, {}).setdefault(member.tensor, {})
            share = member.positions.size / graph.weights[member.tensor].shape[member.axis]
            on_axis[member.axis] = on_axis.get(member.axis, 0.0) + share
    shares = {
        reason: sum(
            graph.weights[name].size * (1 - float(np.prod([1 - min(1.0, share) for share in axes.values()])))
            for name, axes in tensors.items()
        )
        / max(1, total)
        for reason, tensors in free.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def short_reason(reason: str) -> str:
    """A reason without names and measured figures, so that equal ones count together."""
    reason = re.sub(r"\b\d+(\.\d+)?e[+-]?\d+\b", "..", re.sub(r"'[^']*'|\"[^\"]*\"", "..", reason))
    reason = re.sub(r"\b\S*[/:]\S+", "..", reason)
    return reason[:90].replace("|", "/").strip()


def saved_unchanged(graph: LayerGraph, path: Path) -> str:
    """Whether a copy written without an edit holds the same nodes, tensors and signature."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.onnx"
        mal_graph.save(graph, copy)
        found, expected = onnx.load(copy), onnx.load(path)
    return "same" if contents(found) == contents(expected) else "differs"


def contents(model: Any) -> list[bytes]:
    """What a model computes, as bytes: nodes, stored values, inputs and outputs."""
    from onnx import numpy_helper

    graph = model.graph
    for node in graph.node:
        while node.output and not node.output[-1]:
            del node.output[-1]
    stored = [f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode() for tensor in graph.initializer]
    stored += [numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer]
    kept = [
        (part.name, [part.op_type, part.domain, *part.input, *part.output, len(part.attribute)]) for part in graph.node
    ]
    return [repr(kept).encode(), *stored, *[value.name.encode() for value in (*graph.input, *graph.output)]]


def first_line(error: BaseException) -> str:
    return (str(error).strip() or "-").splitlines()[0][:400].replace("|", "/")


# --- many models ------------------------------------------------------------------------------------------------


def studied_apart(path: Path, suite: str, timeout: float) -> Row:
    """`studied` in a process of its own, ended after `timeout` seconds."""
    name = path.name.removesuffix(".onnx")
    command = [sys.executable, __file__, "--one", str(path), "--suite", suite]
    single = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=single, check=False)
    except subprocess.TimeoutExpired:
        return Row(name, suite, error=f"timed out after {timeout:.0f} s")
    try:
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip() or "-").splitlines()[-1][:160]
        return Row(name, suite, error=f"crash: exit code {done.returncode}: {last}")


def studied_all(paths: Sequence[Path], suite: str, cache: Path, timeout: float, stale: bool) -> list[Row]:
    """A row for every file, from the cache where it has one; the smallest files are run first."""
    known, code, rows = read_cache(cache), code_digest(), []
    for place, path in enumerate(sorted(paths, key=lambda path: path.stat().st_size)):
        key = f"{suite}/{path.name}/{path.stat().st_size}"
        row = known.get(key)
        if row is None or not (stale or row.code == code):
            row = studied_apart(path, suite, timeout)
            row.key, row.code = key, code
            with cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        rows.append(row)
        print(f"{place + 1}/{len(paths)} {line_of(row)}", flush=True)
    return sorted(rows, key=lambda row: row.model)


def read_cache(cache: Path) -> dict[str, Row]:
    """Rows by key, the latest of each."""
    return {row.key: row for row in read_lines(cache, Row)}


def read_lines(cache: Path | None, kind: Callable[..., T]) -> list[T]:
    """What a file of JSON lines holds; lines that are cut off, or of an earlier form, are left out."""
    found = []
    lines = cache.read_text(encoding="utf-8").splitlines() if cache is not None and cache.exists() else []
    for line in lines:
        try:
            found.append(kind(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def code_digest(tool: str = __file__) -> str:
    """What the rows depend on: the package's sources, this file, and the tool that makes them."""
    own = {Path(__file__).resolve(), Path(tool).resolve()}
    sources = sorted([*Path(mal_graph.__file__).parent.rglob("*.py"), *(ROOT / "adapters").rglob("*.py"), *own])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def corpus(folder: Path) -> list[Path]:
    """The test models of the onnx wheel: its files, and those it generates for every operator, written to `folder`."""
    import onnx
    from onnx.backend.test.case.node import collect_testcases

    np.seterr(all="ignore")  # some of its cases are made of infinities
    warnings.simplefilter("ignore", RuntimeWarning)
    found = sorted((Path(onnx.__file__).parent / "backend/test/data").rglob("*.onnx"))
    paths = []
    for path in found:
        copy = folder / f"{path.parent.parent.name}.{path.parent.name}.{path.stem}.onnx"
        if path.parent.name != "light":
            copy.symlink_to(path)
            paths.append(copy)
    for case in collect_testcases():
        path = folder / f"generated.{case.name}.onnx"
        onnx.save(case.model, path)
        paths.append(path)
    return paths


def studied_corpus(timeout: float, limit: int | None) -> list[Row]:
    """A row for every model of the corpus. One process takes as many as it survives."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = corpus(folder)[:limit]
        while len(rows) < len(paths):
            rest = paths[len(rows) :]
            (folder / "rest.json").write_text(json.dumps([str(path) for path in rest]), encoding="utf-8")
            command = [sys.executable, __file__, "--many", str(folder / "rest.json")]
            with (folder / "out.jsonl").open("w", encoding="utf-8") as out:
                worker = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
                cause = ended(worker, folder / "out.jsonl", timeout)
            lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
            rows += [Row(**json.loads(line)) for line in lines if line.startswith("{")]
            if cause and len(rows) < len(paths):
                rows.append(Row(paths[len(rows)].name.removesuffix(".onnx"), "corpus", error=cause))
            print(f"corpus: {len(rows)}/{len(paths)}{f', {rows[-1].model}: {cause}' if cause else ''}", flush=True)
    return rows


def ended(worker: "subprocess.Popen[bytes]", out: Path, timeout: float) -> str:
    """Wait for a worker to end, or to write nothing for `timeout` seconds; why it did not finish, "" if it did."""
    size, since = -1, time.monotonic()
    while worker.poll() is None:
        time.sleep(0.2)
        if out.stat().st_size != size:
            size, since = out.stat().st_size, time.monotonic()
        elif time.monotonic() - since > timeout:
            worker.kill()
            worker.wait()
            return f"timed out after {timeout:.0f} s"
    return "" if worker.returncode == 0 else f"crash: exit code {worker.returncode}"


# --- the table --------------------------------------------------------------------------------------------------


def line_of(row: Row) -> str:
    return (
        f"{row.model}: {row.groups} groups, {row.states.get(GroupState.VERIFIED, 0)} verified, "
        f"coverage {row.coverage:.3f}, {row.verdict()}, "
        f"{row.seconds_groups:.1f} + {row.seconds_verification:.1f} + {row.seconds_oracle:.1f} s"
    )


def table(rows: Sequence[Row]) -> str:
    """One line per model, as Markdown."""
    head = (
        "| model | nodes | groups | verified | unverified | coverage "
        "| frozen, unverified or rigid, share | groups, s | verification, s | runs | together | free | padding, s "
        "| oracle | moved by all groups "
        "| moved by a member left out |"
    )
    lines = [head, "|---" * 16 + "|"]
    for row in rows:
        reasons = "; ".join(
            f"{reason} {share:.2f}" for reason, share in list(row.reasons.items())[:3] if share >= 0.005
        )
        lines.append(
            f"| {row.model} | {row.nodes} | {row.groups} "
            f"| {row.states.get(GroupState.VERIFIED, 0)} | {row.states.get(GroupState.UNVERIFIED, 0)} "
            f"| {row.coverage:.3f} "
            f"| {reasons} | {row.seconds_groups:.1f} "
            f"| {row.seconds_verification:.1f} | {row.runs} | {row.runs_together} | {row.resized.get(HOLDS, 0)} "
            f"| {row.seconds_padding:.1f} | {row.verdict()} "
            f"| {figure(row.deviation)} | {figure(row.power)} |"
        )
    return "\n".join(lines)


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def totals(rows: Sequence[Row]) -> str:
    """The sums that a reader looks for first."""
    judged = [row for row in rows if row.deviation is not None]
    right = sum(row.states.get(GroupState.VERIFIED, 0) - len(row.wrong) for row in judged)
    weak = [row for row in judged if row.power is not None and row.power < POWER]
    seconds = sum(row.seconds_groups + row.seconds_verification + row.seconds_oracle for row in rows)
    lines = [
        f"* models: {len(rows)}; {len(judged)} judged by the oracle, {sum(bool(row.error) for row in rows)} failed, "
        f"{sum(bool(row.oracle) for row in rows)} that the oracle could not run, {seconds:.0f} s in all",
        f"* groups verified: {sum(row.states.get(GroupState.VERIFIED, 0) for row in rows)}; right: {right}; "
        f"**wrong: {sum(len(row.wrong) for row in rows)}**",
        f"* coverage >= {COVERED}: {sum(row.coverage >= COVERED for row in rows)} models",
        f"* controls: {sum(row.controls for row in judged)}; models in which one moved the outputs by less than "
        f"{POWER:g}: {len(weak)}",
    ]
    lines += [f"  * {row.model}: {row.weakest} ({figure(row.power)})" for row in weak]
    low = ", ".join(f"{row.model} {row.coverage:.3f}" for row in rows if row.coverage < COVERED)
    dear = [row for row in rows if row.runs_together > RUNS_TOGETHER * max(1.0, np.log2(max(1, verified_of(row))))]
    lines += [
        f"* runs of a verification that permute several groups, more than {RUNS_TOGETHER} times log2 of the verified "
        f"groups: {len(dear)} models",
        *[f"  * {row.model}: {row.runs_together} runs, {verified_of(row)} groups verified" for row in dear],
        f"* coverage below {COVERED}: {low or 'none'}",
    ]
    lines += [f"* wrong in {row.model}: {', '.join(row.wrong)}" for row in rows if row.wrong]
    return "\n".join([*lines, *resized_totals(rows)])


def verified_of(row: Row) -> int:
    return row.states.get(GroupState.VERIFIED, 0)


def resized_totals(rows: Sequence[Row]) -> Iterator[str]:
    """What units added to verified groups and taken away do: how often, and in which models, what is not free first."""
    kinds = sum((Counter(row.resized) for row in rows), Counter())
    yield f"* verified groups with units added and taken away: {kinds.total()}, of which {kinds.pop(HOLDS, 0)} {HOLDS}"
    for kind, count in kinds.most_common():
        where = [f"{row.model} {row.resized[kind]}" for row in rows if kind in row.resized]
        more = f" and {len(where) - LISTED} more models" if len(where) > LISTED else ""
        yield f"  * {count} {kind}: {', '.join(where[:LISTED])}{more}"


def corpus_table(rows: Sequence[Row]) -> str:
    """The corpus by outcome."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.error:
            counts[outcome(row)] += 1
            continue
        kinds = [
            state
            for state in (
                GroupState.VERIFIED,
                GroupState.UNVERIFIED,
                GroupState.FROZEN,
                GroupState.RIGID,
                GroupState.PINNED,
            )
            if row.states.get(state)
        ]
        counts[f"groups {', '.join(kinds)}" if kinds else "no groups"] += 1
    saved = Counter(row.saved or "not reached" for row in rows)
    states = sum((Counter(row.states) for row in rows), Counter())
    seconds = sum(row.seconds_groups + row.seconds_verification + row.seconds_oracle for row in rows)
    wrong = [f"{row.model}: {name}" for row in rows for name in row.wrong]
    lines = ["| outcome | models |", "|---|---|"]
    lines += [f"| {text} | {count} |" for text, count in counts.most_common()]
    lines += ["", f"* models: {len(rows)}, {seconds:.0f} s in all"]
    lines += [f"* written back: {', '.join(f'{count} {what}' for what, count in saved.most_common())}"]
    lines += [f"* groups: {', '.join(f'{count} {state}' for state, count in states.most_common())}"]
    lines += [f"* verified and wrong: {len(wrong)}", *[f"  * {name}" for name in wrong]]
    unread = [row for row in rows if row.oracle]
    lines += [f"* verified, but the oracle could not judge: {len(unread)} models"]
    lines += [f"  * {row.model}: {row.oracle}" for row in unread[:20]]
    lines += [f"* {row.model}: {row.error}" for row in rows if row.error.startswith(("crash", "timed"))]
    lines += [f"* written back with a difference: {row.model}" for row in rows if row.saved == "differs"]
    return "\n".join(lines)


def outcome(row: Row) -> str:
    """A failure without the names and figures of one model, so that equal ones count together."""
    text = row.error.replace(f"{row.model}.onnx", "..").replace(row.model, "..")
    text = re.sub(r"\S*/\S*|[\"'][^\"']*[\"']", "..", text)
    text = re.sub(r"(running|implementation for|kernel for|initialization|\(\w*Error\)).*", r"\1 ..", text)
    text = re.sub(r"error: \S+ is not|error: ai\.onnx\S+", "error: ..", re.sub(r"node \.\. \(\w+\)", "node ..", text))
    return re.sub(r"-?\d+", "..", text)[:110].strip()


def document(suites: Mapping[str, Sequence[Row]], command: str, not_built: Mapping[str, str]) -> str:
    """The whole study."""
    names = ("mal-graph", "onnx", "onnx-ir", "onnxruntime", "numpy", "scipy", "torch", "timm")
    versions = ", ".join(f"{name} {found}" for name in names if (found := installed(name)))
    codes = {row.code for rows in suites.values() for row in rows if row.code}
    mixed = f" The rows were made by {len(codes)} versions of the code." if len(codes) > 1 else ""
    parts = [
        "# Axis groups of published architectures, and whether they are right",
        f"{date.today()}, Python {platform.python_version()}, {versions}. Made by `{command}`, with models from "
        "`tools/make_suite_models.py` or `tools/make_kind_models.py`. Random weights, one CPU thread for the oracle. "
        "The oracle permutes all verified "
        f"groups at once in float64 (right: the outputs move by at most {TOLERANCE:g} of their size), and on up to "
        f"{CONTROLS} groups leaves one weight out, which must show (the least of them is given).{mixed}",
    ]
    for suite, rows in suites.items():
        parts += [f"## {suite}"]
        parts += [corpus_table(rows)] if suite == "corpus" else [totals(rows), table(rows)]
    if not_built:
        parts += ["## Not built", "\n".join(f"* {name}: {cause}" for name, cause in not_built.items())]
    everything = [row for suite, rows in suites.items() if suite != "corpus" for row in rows]
    if len(suites) > 1 and everything:
        parts += ["## Everything but the corpus", totals(everything)]
    return "\n\n".join(parts) + "\n"


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models", type=Path, nargs="+", default=[], help="folders of ONNX files, e.g. of make_suite_models.py"
    )
    parser.add_argument("--light", action="store_true", help="the nine published models in the onnx wheel")
    parser.add_argument("--corpus", action="store_true", help="the test models of the onnx wheel")
    parser.add_argument("-o", "--output", type=Path, help="write the tables here too")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one model")
    parser.add_argument("--only", default="", help="only models with this in their name")
    parser.add_argument("--limit", type=int, help="only so many models of the corpus")
    parser.add_argument("--stale", action="store_true", help="use kept results although the code has changed")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--many", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--suite", default="models", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(studied(options.one, options.suite))))
        return 0
    if options.many:
        for path in json.loads(options.many.read_text(encoding="utf-8")):
            print(json.dumps(asdict(studied(Path(path), "corpus"))), flush=True)
        return 0

    suites: dict[str, list[Row]] = {}
    cache = next(iter(options.models), Path(tempfile.gettempdir())) / "study_groups.jsonl"
    how = (cache, options.timeout, options.stale)
    for folder in options.models:
        paths = [path for path in sorted(folder.glob("*.onnx")) if options.only in path.name]
        suites[folder.name] = studied_all(paths, folder.name, *how)
    if options.light:
        import onnx

        paths = sorted((Path(onnx.__file__).parent / LIGHT).glob("*.onnx"))
        suites["light"] = studied_all([path for path in paths if options.only in path.name], "light", *how)
    if options.corpus:
        suites["corpus"] = studied_corpus(min(60.0, options.timeout), options.limit)
    listed = [folder / "not_built.json" for folder in options.models]
    not_built = {k: v for path in listed if path.exists() for k, v in json.loads(path.read_text("utf-8")).items()}
    text = document(suites, " ".join(["python", "tools/study_groups.py", *sys.argv[1:]]), not_built)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
    return 1 if any(row.wrong for rows in suites.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
