"""Trials: a model run again with some weights changed, and how far its outputs move.

Every step that asks whether a change keeps a network's function asks it here: with the same measure (`deviation`), and,
where many changes are tried at once, by halving what fails (`judge_by_halves`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from mal_graph import registry
from mal_graph.boxes import MOST, contiguous_boxes
from mal_graph.brief import Brief
from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, is_mergeable
from mal_graph.network import Choices, graph_in_float32
from mal_graph.operators import Row, row_of
from mal_graph.protocols import Runner, Session
from mal_graph.symmetry.branches import open_with_branches
from mal_graph.symmetry.groups import AxisGroups
from mal_graph.symmetry.random_copy import calibrate
from mal_graph.symmetry.thresholds import NUDGE

MEAN_TAKEN_OFF = 0.2  # of each channel's mean, by how much a calibrated copy is centred where nothing else is asked for

Weights = Mapping[str, Array]
Item = TypeVar("Item")
Verdict = TypeVar("Verdict")


def deviation(outputs: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """How far outputs are from what is expected: max |y' - y| / max |y|, the largest over the expected outputs.

    Infinite where an output has another shape, is not finite where the expected one is, is not zero where the expected
    one is zero throughout, or, of integers and other types without arithmetic, differs at all.
    """
    return max((deviation_of(outputs[name], y) for name, y in expected.items()), default=0.0)


def deviation_of(output: Array, expected: Array) -> float:
    """The deviation of one output."""
    if output.shape != expected.shape:
        return np.inf
    if not is_mergeable(expected.dtype):
        return 0.0 if np.array_equal(output, expected) else np.inf
    scale, moved = largest(output, expected)
    if np.isfinite(moved) and scale:
        return moved / scale
    return 0.0 if np.array_equal(output, expected, equal_nan=True) else np.inf


@np.errstate(invalid="ignore", over="ignore")
def largest(output: Array, expected: Array) -> tuple[float, float]:
    """max |y| and max |y' - y| in float64, not finite where any number is not; box by box, as whole tensors in float64
    take several times as long."""
    scale = moved = 0.0
    for box in contiguous_boxes(expected.shape, MOST):
        y = expected[box].astype(np.float64)
        apart = np.subtract(output[box], y)
        scale = max(scale, float(y.max()), -float(y.min()))
        furthest = max(float(apart.max()), -float(apart.min()))
        moved = furthest if furthest > moved or not np.isfinite(furthest) else moved
        if not np.isfinite(moved):
            break
    return scale, moved


def judge_by_halves(
    items: Sequence[Item],
    judge: Callable[[Sequence[Item]], Verdict | None],
    join: Callable[[Verdict, Verdict], Verdict],
) -> Verdict:
    """The verdict on all items at once; where there is none, those on the two halves, joined.

    `judge` gives None where it has no verdict on several items together; it must have one on a single item.
    """
    verdict = judge(items)
    if verdict is not None:
        return verdict
    half = len(items) // 2
    return join(judge_by_halves(items[:half], judge, join), judge_by_halves(items[half:], judge, join))


@dataclass(frozen=True, repr=False)
class Trial(Brief):
    """A calibrated copy of a model, ready to run with changed weights.

    Attributes:
        weights: the values of every weight that is fed to the session.
        outputs: what it gives with them.
        deadline: the time, as `monotonic` tells it, after which it runs no more.
        taken: the branches that are taken in further runs, whose outputs count as well.
    """

    graph: LayerGraph
    session: Session
    inputs: Mapping[str, Array]
    weights: Weights
    outputs: Mapping[str, Array]
    deadline: float | None = None
    taken: tuple[Choices, ...] = ()

    def run(self, weights: Weights) -> dict[str, Array]:
        """The outputs with other weights. Raises RunError."""
        return self.session.run(self.inputs, weights, read=list(self.outputs), deadline=self.deadline)

    def deviation(self, changed: Weights) -> float:
        """How far the outputs move with some weights changed."""
        return deviation(self.run({**self.weights, **changed}), self.outputs)

    def at(self, changed: Weights) -> "Trial":
        """The same trial from other weights on."""
        weights = {**self.weights, **changed}
        return replace(self, weights=weights, outputs=self.run(weights))

    @cached_property
    def noise(self) -> float:
        """How far the outputs move when every weight is changed by as much as rounding does."""
        rng = np.random.default_rng(0)
        nudged = {
            name: np.asarray(values * (1 + NUDGE * rng.standard_normal(values.shape)), values.dtype)
            for name, values in self.weights.items()
            if is_mergeable(values.dtype)
        }
        return self.deviation(nudged)

    @property
    def is_finite(self) -> bool:
        """Whether all outputs are finite; texts are."""
        return all(y.dtype.kind == "O" or bool(np.isfinite(y).all()) for y in self.outputs.values())

    @property
    def flaw(self) -> str:
        """Why nothing can be learnt from it: "" if something can."""
        if not self.is_finite:
            return "the model's outputs are not finite on the probe"
        if not any(np.any(y) for y in self.outputs.values()):
            return "the model's outputs are all zero on the probe"
        return ""


def open_trial(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    seed: int = 0,
    centred: float = MEAN_TAKEN_OFF,
    table: Mapping[str, Row] | None = None,
    deadline: float | None = None,
) -> Trial:
    """A session on the calibrated copy of a model.

    Args:
        centred: the share of each channel's mean that the copy takes off (see `calibrate`).

    Raises:
        RunError: the runtime refuses it, it is not ready by the `deadline`, or nothing can be learnt from its outputs.
    """
    runner = runner or registry.runner()
    graph = graph_in_float32(graph)
    inputs = {value.name: groups.probed.inputs[value.name].astype(value.dtype or "float32") for value in graph.inputs}
    graph, weights = calibrate(graph, groups, runner, inputs, seed, centred, deadline)
    taken = groups.probed.taken
    read = [name for name in watched(graph, table) if name not in groups.probed.lists]
    session = open_with_branches(graph, runner, taken, read, list(weights), deadline)
    readable = [name for name, dtype in session.types.items() if dtype]
    outputs = session.run(inputs, weights, read=readable, deadline=deadline)
    trial = Trial(graph, session, inputs, weights, outputs, deadline, taken)
    if trial.flaw:
        raise RunError(trial.flaw)
    return trial


def watched(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> list[str]:
    """The tensors a trial reads: each output, and what enters an operator without a rule, which must stay as well. Of
    what is saturated, that which enters the operator that saturates it."""
    unknown = [node for node in graph.nodes if row_of(node, table) is None]
    entering = [name for node in unknown for name in (*node.inputs, *node.captures) if name in graph.producer]
    fixed = [*(value.name for value in graph.outputs), *entering]
    return list(dict.fromkeys(before_squash(graph, name, table) for name in fixed))


def before_squash(graph: LayerGraph, name: str, table: Mapping[str, Row] | None) -> str:
    """The tensor that enters the operators which saturate `name`, through those that only move values; `name` itself
    where none does."""
    behind = name
    while behind in graph.producer:
        node = graph.nodes[graph.producer[behind]]
        row = row_of(node, table)
        if row is not None and row.squashes:
            return before_squash(graph, node.inputs[0], table)
        if row is None or not row.moves:
            return name
        behind = node.inputs[0]
    return name
