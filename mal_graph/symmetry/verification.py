"""Verification by running: a group counts only if permuting its units changes nothing but their order.

Most groups are verified near by: every operator on the way of their units is seen to give what it should (see `near`).
The others are judged at the outputs of the model, which must stay what they are. That trial is run on a *calibrated*
copy: random weights, every weighted contraction scaled to unit output, BatchNorm statistics set from what arrives.
Without that, untrained statistics and saturated or vanishing signals hide wrong groups. All groups are permuted at once
and failures bisected: once by a cycle through all units, once by an exchange of two neighbours in that cycle, which
together generate every permutation (a cycle alone may commute with a flip or a shuffle that was overlooked). Groups of
few units often happen to move alike, which would hide that one of them may only move with another: so of any two, each
is exchanged once while the other stays. Then, group by group, one member of every role is left out, and the outputs
must react - a test that cannot fail verifies nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import or_
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.errors import LimitError, RunError
from mal_graph.graph import LayerGraph
from mal_graph.memory_budget import memory_budget
from mal_graph.network import data_dependent, graph_in_float32
from mal_graph.operators import GroupState, Row
from mal_graph.protocols import Runner
from mal_graph.symmetry.branches import open_with_branches
from mal_graph.symmetry.controls import Controls, control_members, reacting_members, redraw, silent_side
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Family, Member, family
from mal_graph.symmetry.moves import Moves, apart, draw_moves, permute_weights
from mal_graph.symmetry.near import Near, verify_near
from mal_graph.symmetry.segments import SEGMENT_BYTES, cut
from mal_graph.symmetry.thresholds import ABOVE_NOISE, ACCEPT, ACCEPT_FLOAT64, REJECT, SHOWN
from mal_graph.symmetry.trial import MEAN_TAKEN_OFF, Trial, judge_by_halves, open_trial

WEIGHT_COPIES = 4  # drawn, calibrated, permuted, and the runtime's own
CENTRED = (MEAN_TAKEN_OFF, 0.05, 0.4)  # a group without a verdict is tried on copies that keep more or less of a mean

Progress = Callable[[int, int], None]


def verify(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    full: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    table: Mapping[str, Row] | None = None,
    timeout: float | None = None,
    max_memory: int | None = None,
) -> AxisGroups:
    """Verify the candidate groups by running the model with their units permuted.

    Args:
        graph, groups: a network and its axis groups.
        full: leave out every member in turn, not one of each role.
        progress: called with (groups done, groups in all).
        timeout: seconds it may take; groups without a verdict by then stay unverified.
        max_memory: bytes it may take, by an estimate; a model that needs more stays unverified. The budget that is
            in force if left out.

    Returns:
        the groups; each candidate is now verified, unverified (no verdict, with the reason) or frozen (rejected).
    """
    waiting = groups.usable()
    if not waiting:
        return groups
    graph = graph_in_float32(graph)
    short = explain_short_memory(graph, groups, max_memory, largest_segment(graph, groups))
    if short:
        return groups.with_states(dict.fromkeys(waiting, (GroupState.UNVERIFIED, short)))
    deadline = None if timeout is None else monotonic() + timeout
    near = Near()
    with suppress(RunError):  # what does not run in parts may run as a whole
        near = verify_near(graph, groups, runner, full=full, seed=seed, table=table, deadline=deadline)
    done, told = len(near.verified), progress or ignore
    for count in range(done):
        told(count + 1, len(waiting))
    groups = replace(groups, groups=tuple(near.verified.get(i, group) for i, group in enumerate(groups.groups)))
    left = [i for i in waiting if i not in near.verified]
    short = explain_short_memory(graph, groups, max_memory, stored_elements(graph, groups)) if left else ""
    if short:
        groups = groups.with_states(dict.fromkeys(left, (GroupState.UNVERIFIED, short)))
    else:
        more = partial(tell_more, told, done)
        groups = verify_at_outputs(graph, groups, left, runner, full, seed, more, table, deadline)
    return reject_faults(groups, near)


def ignore(done: int, total: int) -> None:
    """Tell nobody."""


def tell_more(progress: Progress, before: int, done: int, total: int) -> None:
    """Tell how many are done, some of them before."""
    progress(before + done, before + total)


def reject_faults(groups: AxisGroups, near: Near) -> AxisGroups:
    """The groups without those that could not be seen at the outputs, but are clearly wrong near by."""
    states = {}
    for i, fault in near.faults.items():
        if groups.groups[i].state is GroupState.UNVERIFIED and REJECT <= fault.deviation < np.inf:
            moved = f"permuting it moves {fault.tensor!r} by {fault.deviation:.1e} of its size"
            states[i] = (GroupState.FROZEN, f"rejected by the verification: {moved}")
    return groups.with_states(states)


def verify_at_outputs(
    graph: LayerGraph,
    groups: AxisGroups,
    waiting: Sequence[int],
    runner: Runner | None,
    full: bool,
    seed: int,
    progress: Progress | None,
    table: Mapping[str, Row] | None,
    deadline: float | None,
) -> AxisGroups:
    """Some candidate groups judged by what permuting them does to the outputs; the others stay as they are."""
    verdicts: dict[int, AxisGroup] = {}
    try:
        for attempt, centred in enumerate(CENTRED):
            if not waiting:
                break
            trial = open_trial(
                graph, groups, runner, seed=seed + attempt, centred=centred, table=table, deadline=deadline
            )
            moves = draw_moves(groups, waiting, seed + attempt)
            for i, verdict in judge_groups(trial, groups, moves, waiting, full, progress):
                verdicts[i] = verdict
            if attempt == len(CENTRED) - 1:
                verdicts.update(judge_exactly(groups, trial, moves, {i: verdicts[i] for i in waiting}))
            waiting = [i for i in waiting if verdicts[i].state is GroupState.UNVERIFIED]
    except RunError as error:  # what was judged before stands
        late = dict.fromkeys((i for i in waiting if i not in verdicts), (GroupState.UNVERIFIED, str(error)))
        groups = groups.with_states(late)
    return replace(groups, groups=tuple(verdicts.get(i, group) for i, group in enumerate(groups.groups)))


def stored_elements(graph: LayerGraph, groups: AxisGroups) -> int:
    """How many numbers the parameters hold."""
    return sum(graph.weights[name].size for name in {p.tensor for p in groups.parameters})


def largest_segment(graph: LayerGraph, groups: AxisGroups) -> int:
    """The most numbers that the weights of one segment hold."""
    live = data_dependent(graph)
    sizes = []
    for segment in cut(graph, live, groups.probed.shapes, SEGMENT_BYTES):
        names = {name for index in segment.nodes for name in graph.nodes[index].reads if name in graph.weights}
        sizes.append(sum(graph.weights[name].size for name in names))
    return max(sizes, default=0)


def explain_short_memory(graph: LayerGraph, groups: AxisGroups, limit: int | None, held: int) -> str:
    """Why a verification that holds so many numbers of weights would take too much memory: "" if it does not."""
    limit = memory_budget() if limit is None else limit
    weights = WEIGHT_COPIES * held
    tensors = live_elements(graph, groups.probed.shapes)
    needed = 4 * (weights + tensors)
    if limit is None or needed <= limit:
        return ""
    return (
        f"the verification would take about {needed / 2**30:.2g} GiB ({4 * weights / 2**30:.2g} for weights, "
        f"{4 * tensors / 2**30:.2g} for activations) and may take {limit / 2**30:.2g}: "
        "give smaller probe inputs, or more memory"
    )


def live_elements(graph: LayerGraph, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The most elements of activations that are needed at the same time while a model runs."""
    last = {name: max(index for index, _ in readers) for name, readers in graph.consumers.items()}
    last.update(dict.fromkeys(graph.output_names, len(graph.nodes)))
    ending: dict[int, int] = {}
    live = most = 0
    for index, node in enumerate(graph.nodes):
        for name in node.outputs:
            size = int(np.prod(shapes.get(name, ()), dtype=np.int64))
            live += size
            ending[last.get(name, index)] = ending.get(last.get(name, index), 0) + size
        most = max(most, live)
        live -= ending.get(index, 0)
    return most


def judge_groups(
    trial: Trial,
    groups: AxisGroups,
    moves: tuple[Moves, Moves],
    indices: Sequence[int],
    full: bool,
    progress: Progress | None,
) -> Iterator[tuple[int, AxisGroup]]:
    """Verdicts on groups from one trial, by index."""
    deviations = measure_groups(trial, groups, moves, indices)
    known: dict[Family, Controls] = {}  # of the first of each family of nested groups
    for done, i in enumerate(indices):
        group, kind = groups.groups[i], family(groups.groups[i])
        controls = known[kind] if kind in known else run_controls(trial, group, moves[0][i], full)
        if kind is not None:
            known[kind] = controls
        yield i, judge_group(trial, group, moves[0][i], deviations[i], controls)
        if progress:
            progress(done + 1, len(indices))


def judge_exactly(
    groups: AxisGroups,
    trial: Trial,
    moves: tuple[Moves, Moves],
    judged: Mapping[int, AxisGroup],
) -> dict[int, AxisGroup]:
    """Verdicts on the groups that moved the outputs by neither rounding nor a clear fault, in float64."""
    doubtful = [
        i for i, group in judged.items() if group.state is GroupState.UNVERIFIED and (group.deviation or 0.0) > ACCEPT
    ]
    verdicts = {}
    for i, exact in deviations_in_float64(groups, trial, moves, doubtful).items():
        if exact <= ACCEPT_FLOAT64:  # what moved was rounding
            group, order = groups.groups[i], moves[0][i]
            verdicts[i] = judge_group(trial, group, order, ACCEPT, run_controls(trial, group, order, False))
        else:
            reason = (
                f"rejected by the verification in float64: permuting it moves the outputs by {exact:.1e} of their size"
            )
            verdicts[i] = replace(judged[i], state=GroupState.FROZEN, reason=reason)
    return verdicts


def measure_groups(
    trial: Trial, groups: AxisGroups, moves: Sequence[Moves], indices: Sequence[int], accept: float = ACCEPT
) -> dict[int, float]:
    """The largest deviation of each group: in a cycle, in an exchange, and in exchanges of it without each other."""
    *_, exchanges = moves
    runs = [*((orders, indices) for orders in moves), *((exchanges, some) for some in apart(indices))]
    deviations = dict.fromkeys(indices, 0.0)
    for orders, some in runs:
        for i, moved in bisect_groups(trial, groups, orders, some, accept).items():
            deviations[i] = max(deviations[i], moved)
    return deviations


def bisect_groups(
    trial: Trial, groups: AxisGroups, orders: Moves, indices: Sequence[int], accept: float = ACCEPT
) -> dict[int, float]:
    """The deviation of each group: that of the largest set permuted at once that passes, or its own."""

    def judge(some: Sequence[int]) -> dict[int, float] | None:
        moved = trial.deviation(permute_weights(trial.weights, [(groups.groups[i], orders[i]) for i in some]))
        return dict.fromkeys(some, moved) if moved <= accept or len(some) == 1 else None

    return judge_by_halves(indices, judge, or_)


def run_controls(trial: Trial, group: AxisGroup, order: NDArray[np.int64], full: bool) -> Controls:
    """How much the outputs move if a group is permuted with one member left out, for one member of every role, or up to
    three where the first does not show: it may be one that no output depends on.

    Of a group with a single member (an axis that is only averaged over, say) its entries are changed instead.
    """
    if len(group.members) == 1:
        (member,) = group.members
        return [(member, trial.deviation({member.tensor: redraw(trial.weights[member.tensor], member)}))]
    controls = []
    moved = permute_weights(trial.weights, [(group, order)])
    for alike in control_members(group, full):
        tried: list[tuple[Member, float]] = []
        while len(tried) < len(alike) and not reacting_members(tried, 0.0):
            member = alike[len(tried)]
            beside = tuple(m for m in group.members if m.tensor == member.tensor and m is not member)
            left_out = {
                member.tensor: trial.weights[member.tensor],
                **permute_weights(trial.weights, [(replace(group, members=beside), order)]),
            }
            tried.append((member, trial.deviation({**moved, **left_out})))
        controls.append(tried[-1])
    return controls


def judge_group(
    trial: Trial, group: AxisGroup, order: NDArray[np.int64], deviation: float, controls: Controls
) -> AxisGroup:
    """The verdict on one group from its deviation and the controls that leave one member out."""
    if silent_side(controls, deviation):  # the joint run adds up the rounding of all groups: measure this one alone
        moved = permute_weights(trial.weights, [(group, order)])
        deviation = min(deviation, trial.deviation(moved)) if deviation <= ACCEPT else deviation
    reacting = reacting_members(controls, deviation)
    median = float(np.median([change for _, change in controls])) if controls else 0.0
    group = replace(
        group,
        deviation=deviation,
        control=median,
        inert=tuple(f"{m.tensor}[{m.axis}]" for m, _ in controls if m not in reacting),
    )
    if deviation <= ACCEPT:
        silent = silent_side(controls, deviation)
        if not silent:
            return replace(group, state=GroupState.VERIFIED)
        return replace(group, state=GroupState.UNVERIFIED, reason=f"leaving out {silent} does not change the outputs")
    # An output that is zero until rounding moves it tells nothing: its deviation is infinite, and so is the noise.
    if deviation >= max(REJECT, SHOWN * median) and deviation > ABOVE_NOISE * trial.noise:
        reason = f"rejected by the verification: permuting it moves the outputs by {deviation:.1e} of their size"
        return replace(group, state=GroupState.FROZEN, reason=reason)
    return replace(
        group, state=GroupState.UNVERIFIED, reason=f"the outputs move by {deviation:.1e}, between rounding and a fault"
    )


def deviations_in_float64(
    groups: AxisGroups, trial: Trial, moves: Sequence[Moves], doubtful: Sequence[int]
) -> dict[int, float]:
    """The deviations of doubtful groups under the reference evaluator, in float64; none where it cannot run them, or
    not within limits that onnxruntime keeps."""
    if not doubtful:
        return {}
    try:
        runner = registry.runner("reference")
        session = open_with_branches(trial.graph, runner, trial.taken, list(trial.outputs), list(trial.weights))
        outputs = session.run(trial.inputs, trial.weights, deadline=trial.deadline)
        exact_trial = replace(trial, session=session, outputs=outputs)
        return measure_groups(exact_trial, groups, moves, doubtful, ACCEPT_FLOAT64)
    except (LimitError, RunError):
        return {}
