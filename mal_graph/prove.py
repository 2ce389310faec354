"""Proof by running: a group counts only if permuting its units keeps the model's outputs.

The trial is run on a *calibrated* copy: random weights, every weighted contraction scaled to unit output, BatchNorm
statistics set from what arrives. Without that, untrained statistics and saturated or vanishing signals hide wrong
groups. All groups are permuted at once and failures bisected: once by a cycle through all units, once by an exchange of
two neighbours in that cycle, which together generate every permutation (a cycle alone may commute with a flip or a
shuffle that was overlooked). Then, group by group, one member of every role is left out, and the outputs must react -
a test that cannot fail proves nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mal_graph import ops, registry
from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, weight_of
from mal_graph.groups import FROZEN, PROVEN, UNPROVEN, AxisGroup, AxisGroups, Member
from mal_graph.interfaces import Runner, Session
from mal_graph.layers import Parameter
from mal_graph.ops import row_of

# Measured on eight models: true groups stay below 8e-6, one missing member shows from 9e-4 on.
ACCEPT = 3e-5
REJECT = 3e-4
REACTS = 100.0  # a control reacts if it moves the outputs this many times as much as the whole group does
NOISE = 1e-7  # float32 rounding, the least deviation a control is compared with
MAX_CONTROLS = 8  # per group; with the two joint runs at most 10 runs a group
SHARE = "gauge/share"  # times its power is added to a channel's variance: one that hardly varies would amplify noise
FLOOR = "gauge/floor"  # keeps a gauge from dividing by zero
EXACT = 1e-9  # what counts as equal in float64

Progress = Callable[[int, int], None]
Weights = Mapping[str, Array]
Moves = Mapping[int, NDArray[np.int64]]  # an order by index of the group


@dataclass(frozen=True)
class Trial:
    """A calibrated copy of a model, ready to run with changed weights.

    Attributes:
        weights: the values of every weight that is fed to the session.
        outputs: what it gives with them.
    """

    session: Session
    inputs: Mapping[str, Array]
    weights: Weights
    outputs: Mapping[str, Array]

    def deviation(self, changed: Weights) -> float:
        """max |y' - y| / max |y| over the outputs, with some weights changed."""
        found = self.session.run(self.inputs, {**self.weights, **changed})
        return max((relative(found[name], y) for name, y in self.outputs.items()), default=0.0)

    @property
    def flaw(self) -> str:
        """Why nothing can be learnt from it: "" if something can."""
        if not all(np.isfinite(y).all() for y in self.outputs.values()):
            return "the model's outputs are not finite on the probe"
        if not any(np.any(y) for y in self.outputs.values()):
            return "the model's outputs are all zero on the probe"
        return ""


def relative(found: Array, expected: Array) -> float:
    scale = float(np.max(np.abs(expected), initial=0.0))
    if scale == 0.0:
        return 0.0
    moved = float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))
    return moved / scale if np.isfinite(moved) else np.inf


def prove(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    table: Mapping[str, ops.Row] | None = None,
) -> AxisGroups:
    """Prove the candidate groups by running the model with their units permuted.

    Args:
        graph, groups: a network and its axis groups.
        full: leave out every member in turn, not one of each role.
        progress: called with (groups done, groups in all).

    Returns:
        the groups; each candidate is now "proven", "unproven" (no verdict, with the reason) or "frozen" (rejected).
    """
    candidates = groups.usable()
    if not candidates:
        return groups
    try:
        trial = open_trial(graph, groups, runner, seed=seed, table=table)
    except RunError as error:
        return groups.with_states(dict.fromkeys(candidates, (UNPROVEN, str(error))))
    if trial.flaw:
        return groups.with_states(dict.fromkeys(candidates, (UNPROVEN, trial.flaw)))
    rng = np.random.default_rng(seed)
    cycles = {i: rng.permutation(groups.groups[i].units) for i in candidates}
    orders = {i: derangement(cycle) for i, cycle in cycles.items()}
    exchanges = {i: exchange(cycle) for i, cycle in cycles.items()}
    deviations = bisected(trial, groups, orders, candidates)
    for i, moved in bisected(trial, groups, exchanges, candidates).items():
        deviations[i] = max(deviations[i], moved)
    verdicts = {}
    for done, i in enumerate(candidates):
        verdicts[i] = judge(trial, groups.groups[i], orders[i], deviations[i], full)
        if progress:
            progress(done + 1, len(candidates))
    doubtful = [i for i, group in verdicts.items() if group.state == UNPROVEN and deviations[i] > ACCEPT]
    for i, exact in in_float64(graph, groups, trial, (orders, exchanges), doubtful).items():
        if exact <= EXACT:  # what moved was rounding
            verdicts[i] = judge(trial, groups.groups[i], orders[i], ACCEPT, full)
        else:
            reason = f"rejected by the proof in float64: permuting it moves the outputs by {exact:.1e} of their size"
            verdicts[i] = replace(verdicts[i], state=FROZEN, reason=reason)
    return replace(groups, groups=tuple(verdicts.get(i, group) for i, group in enumerate(groups.groups)))


def bisected(
    trial: Trial, groups: AxisGroups, orders: Moves, indices: Sequence[int], accept: float = ACCEPT
) -> dict[int, float]:
    """The deviation of each group: that of the largest set permuted at once that passes, or its own."""
    changed = permuted(trial.weights, [(groups.groups[i], orders[i]) for i in indices])
    deviation = trial.deviation(changed)
    if deviation <= accept or len(indices) == 1:
        return dict.fromkeys(indices, deviation)
    half = len(indices) // 2
    return {
        **bisected(trial, groups, orders, indices[:half], accept),
        **bisected(trial, groups, orders, indices[half:], accept),
    }


def judge(trial: Trial, group: AxisGroup, order: NDArray[np.int64], deviation: float, full: bool) -> AxisGroup:
    """The verdict on one group from its deviation and the controls that leave one member out."""
    controls = []
    moved = permuted(trial.weights, [(group, order)])
    for member in control_members(group, full):
        beside = tuple(m for m in group.members if m.tensor == member.tensor and m is not member)
        left_out = {
            member.tensor: trial.weights[member.tensor],
            **permuted(trial.weights, [(replace(group, members=beside), order)]),
        }
        controls.append((member, trial.deviation({**moved, **left_out})))
    reacting = [member for member, change in controls if change > REACTS * max(deviation, NOISE)]
    median = float(np.median([change for _, change in controls])) if controls else 0.0
    group = replace(
        group,
        deviation=deviation,
        control=median,
        inert=tuple(f"{m.tensor}[{m.axis}]" for m, _ in controls if m not in reacting),
    )
    if deviation <= ACCEPT:
        silent = silent_side(group, controls, reacting)
        if not silent:
            return replace(group, state=PROVEN)
        return replace(group, state=UNPROVEN, reason=f"leaving out {silent} does not change the outputs")
    if deviation >= REJECT and deviation >= 1e-3 * median:
        reason = f"rejected by the proof: permuting it moves the outputs by {deviation:.1e} of their size"
        return replace(group, state=FROZEN, reason=reason)
    return replace(group, state=UNPROVEN, reason=f"the outputs move by {deviation:.1e}, between rounding and a fault")


def control_members(group: AxisGroup, full: bool) -> list[Member]:
    """One member of every role, producers and consumers first; every member if `full`."""
    if full:
        return list(group.members)
    first: dict[str, Member] = {}
    for member in group.members:
        first.setdefault(member.role, member)
    ordered = sorted(first.values(), key=lambda member: member.role.endswith("unit"))
    return ordered[:MAX_CONTROLS]


def silent_side(group: AxisGroup, controls: Sequence[tuple[Member, float]], reacting: Sequence[Member]) -> str:
    """Which side of a group shows no reaction: "" if producers and consumers both do."""
    for side, called in (("out", "any producer"), ("in", "any consumer")):
        asked = [member for member, _ in controls if member.role.endswith(side)]
        asked = asked or [member for member, _ in controls]
        if not any(member in reacting for member in asked):
            return called
    return ""


def permuted(weights: Weights, moves: Sequence[tuple[AxisGroup, NDArray[np.int64]]]) -> dict[str, Array]:
    """The tensors that change when unit `order[u]` of each group takes the place of unit u."""
    changed: dict[str, Array] = {}
    for group, order in moves:
        for member in group.members:
            values = changed.get(member.tensor, weights[member.tensor])
            index = np.arange(values.shape[member.axis])
            index[member.positions] = member.positions[order]
            changed[member.tensor] = values.take(index, axis=member.axis)
    return changed


def derangement(cycle: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that moves every unit to the next place of a cycle through all of them."""
    order = np.empty_like(cycle)
    order[cycle] = np.roll(cycle, 1)
    return order


def exchange(cycle: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that exchanges the first two units of a cycle and leaves the others."""
    order = np.arange(len(cycle))
    order[cycle[:2]] = cycle[1::-1]
    return order


def in_float64(
    graph: LayerGraph, groups: AxisGroups, trial: Trial, moves: Sequence[Moves], doubtful: Sequence[int]
) -> dict[int, float]:
    """The deviations of doubtful groups under the reference evaluator, in float64; none where it cannot run them."""
    if not doubtful:
        return {}
    try:
        exact = graph_in_float32(graph)
        session = registry.runner("reference").open(exact, read=watched(exact), variable=list(trial.weights))
        judge_trial = Trial(session, trial.inputs, trial.weights, session.run(trial.inputs, trial.weights))
        found = [bisected(judge_trial, groups, orders, doubtful, EXACT) for orders in moves]
    except RunError:
        return {}
    return {i: max(deviations[i] for deviations in found) for i in doubtful}


# --- the calibrated copy ----------------------------------------------------------------------------------------


def open_trial(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    seed: int = 0,
    table: Mapping[str, ops.Row] | None = None,
) -> Trial:
    """A session on the calibrated copy of a model. Raises RunError where the runtime refuses it."""
    runner = runner or registry.runner()
    graph = graph_in_float32(graph)
    weights = calibrated(graph, groups, runner, random_weights(groups.parameters, graph, seed))
    inputs = {value.name: groups.probed.inputs[value.name].astype(value.dtype or "float32") for value in graph.inputs}
    session = runner.open(graph, read=watched(graph, table), variable=list(weights))
    return Trial(session, inputs, weights, session.run(inputs, weights))


def graph_in_float32(graph: LayerGraph) -> LayerGraph:
    """The graph with half-precision and double weights, inputs and casts in float32."""
    half = {"float16", "bfloat16", "float64"}
    if not any(weight.dtype.name in half for weight in graph.weights.values()):
        return graph
    weights = {
        name: replace(weight, dtype=np.dtype(np.float32), read=partial(read_float32, weight.read))
        if weight.dtype.name in half
        else weight
        for name, weight in graph.weights.items()
    }
    inputs = tuple(replace(v, dtype="float32") if v.dtype in half else v for v in graph.inputs)
    nodes = tuple(ops.cast_to_float32(node) for node in graph.nodes)
    return replace(graph, weights=weights, inputs=inputs, nodes=nodes)


def read_float32(read: Callable[[], Array]) -> Array:
    return read().astype(np.float32)


def random_weights(parameters: Sequence[Parameter], graph: LayerGraph, seed: int) -> dict[str, Array]:
    """Random values for every parameter with an axis; single numbers (an epsilon, a root) keep theirs."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    for parameter in parameters:
        weight = graph.weights[parameter.tensor]
        if weight.size > 1 and parameter.tensor not in drawn:
            drawn[parameter.tensor] = drawn_values(parameter, weight.shape, rng)
    return drawn


def drawn_values(parameter: Parameter, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if parameter.draw == "scale":
        return rng.uniform(0.6, 1.4, shape).astype(np.float32)
    if parameter.draw == "variance":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if parameter.draw == "weight":
        fan_in = max(1, int(np.prod(parameter.shape[1:])))
        return (rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(fan_in))).astype(np.float32)
    return (0.3 * rng.standard_normal(shape, np.float32)).astype(np.float32)


def calibrated(graph: LayerGraph, groups: AxisGroups, runner: Runner, weights: dict[str, Array]) -> dict[str, Array]:
    """Weights scaled by one run of a copy in which every contraction's output is divided by its root mean square and
    every BatchNorm takes its statistics from its input, with the random draws as jitter."""
    probe_graph, scales, statistics = with_gauges(graph, groups)
    if not scales and not statistics:
        return weights
    read = [*scales, *statistics]
    session = runner.open(probe_graph, read=read, variable=list(weights))
    found = session.run(
        {v.name: groups.probed.inputs[v.name].astype(v.dtype or "float32") for v in graph.inputs}, weights
    )
    new = dict(weights)
    for name, tensors in scales.items():
        scale = float(found[name].ravel()[0])
        for tensor in tensors:
            if np.isfinite(scale) and scale > 0 and tensor in new and new[tensor] is weights[tensor]:
                new[tensor] = new[tensor] / np.float32(scale)
    for name, parameter in statistics.items():
        if np.isfinite(found[name]).all():
            new[parameter.tensor] = parameter.stored(found[name], weights[parameter.tensor].shape)
    return new


def with_gauges(graph: LayerGraph, groups: AxisGroups) -> tuple[LayerGraph, dict[str, list[str]], dict[str, Parameter]]:
    """The graph with gauge nodes inserted.

    Returns:
        the graph; the tensors each scale divides, by the scale's tensor name; the parameter that each measured
        statistic replaces, by the statistic's tensor name.
    """
    by_node: dict[int, list[Parameter]] = {}
    for parameter in groups.parameters:
        by_node.setdefault(parameter.node, []).append(parameter)
    nodes: list[Node] = []
    constants: dict[str, Array] = {FLOOR: np.array(1e-3, np.float32), SHARE: np.array(2.0, np.float32)}
    scales: dict[str, list[str]] = {}
    statistics: dict[str, Parameter] = {}
    for index, node in enumerate(graph.nodes):
        own = {parameter.role: parameter for parameter in by_node.get(index, [])}
        out = node.outputs[0]
        if "weight" in own:
            scales[f"{out}/root"] = [p.tensor for p in own.values()]
            nodes.append(replace(node, outputs=(f"{out}/raw", *node.outputs[1:])))
            nodes += scaled_to_unit(f"{out}/raw", out)
        elif "mean" in own and "variance" in own:
            slots = own["mean"].slot, own["variance"].slot
            axes = [axis for axis in range(len(groups.probed.shapes[node.inputs[0]])) if axis != 1]
            constants[f"{out}/axes"] = np.array(axes, np.int64)
            nodes += measured_statistics(node, slots, axes, graph.opsets.get("", 1))
            names = (f"{out}/mean", f"{out}/variance")
            statistics.update(zip(names, (own["mean"], own["variance"]), strict=True))
            inputs = list(node.inputs)
            inputs[slots[0]], inputs[slots[1]] = names
            nodes.append(replace(node, inputs=tuple(inputs)))
        else:
            nodes.append(node)
    weights = {**graph.weights, **{name: weight_of(name, values) for name, values in constants.items()}}
    return replace(graph, nodes=tuple(nodes), weights=weights), scales, statistics


def scaled_to_unit(raw: str, out: str) -> list[Node]:
    """out = raw / root, where root = sqrt(mean(raw^2) + floor^2)."""
    return [
        Node(f"{out}/square", "Mul", (raw, raw), (f"{out}/square",)),
        Node(f"{out}/power", "ReduceMean", (f"{out}/square",), (f"{out}/power",)),
        Node(f"{out}/root", "Sqrt", (f"{out}/power",), (f"{out}/unfloored",)),
        Node(f"{out}/floored", "Add", (f"{out}/unfloored", FLOOR), (f"{out}/root",)),
        Node(f"{out}/unit", "Div", (raw, f"{out}/root"), (out,)),
    ]


def measured_statistics(node: Node, slots: tuple[int, int], axes: Sequence[int], opset: int) -> Iterator[Node]:
    """Per-channel statistics of what enters a BatchNormalization, jittered by the draws that stand in its slots:
    mean + sd * draw and variance * draw."""
    x, out = node.inputs[0], node.outputs[0]

    def step(op: str, inputs: Sequence[str], name: str) -> Node:
        return Node(f"{out}/{name}", op, tuple(inputs), (f"{out}/{name}",))

    def average(of: str, name: str) -> Node:
        if opset < 18:  # later the axes became an input
            return replace(step("ReduceMean", [of], name), attributes={"axes": list(axes), "keepdims": 0})
        return replace(step("ReduceMean", [of, f"{out}/axes"], name), attributes={"keepdims": 0})

    yield average(x, "average")
    yield step("Mul", [x, x], "squared")
    yield average(f"{out}/squared", "power")
    yield step("Mul", [f"{out}/average"] * 2, "average squared")
    yield step("Sub", [f"{out}/power", f"{out}/average squared"], "spread")
    yield step("Relu", [f"{out}/spread"], "positive")
    yield step("Mul", [f"{out}/power", SHARE], "share")
    yield step("Add", [f"{out}/positive", f"{out}/share"], "raised")
    yield step("Add", [f"{out}/raised", FLOOR], "floored")
    yield step("Mul", [f"{out}/floored", node.inputs[slots[1]]], "variance")
    yield step("Sqrt", [f"{out}/floored"], "deviation")
    yield step("Mul", [f"{out}/deviation", node.inputs[slots[0]]], "offset")
    yield step("Add", [f"{out}/average", f"{out}/offset"], "mean")


def watched(graph: LayerGraph, table: Mapping[str, ops.Row] | None = None) -> list[str]:
    """The tensors a trial reads: each output, or what enters the operator that saturates it."""
    return list(dict.fromkeys(before_squash(graph, value.name, table) for value in graph.outputs))


def before_squash(graph: LayerGraph, name: str, table: Mapping[str, ops.Row] | None) -> str:
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
