"""Verification by running: a group counts only if permuting its units keeps the model's outputs.

The trial is run on a *calibrated* copy: random weights, every weighted contraction scaled to unit output, BatchNorm
statistics set from what arrives. Without that, untrained statistics and saturated or vanishing signals hide wrong
groups. All groups are permuted at once and failures bisected: once by a cycle through all units, once by an exchange of
two neighbours in that cycle, which together generate every permutation (a cycle alone may commute with a flip or a
shuffle that was overlooked). Groups of few units often happen to move alike, which would hide that one of them may
only move with another: so of any two, each is exchanged once while the other stays. Then, group by group, one member of
every role is left out, and the outputs must react - a test that cannot fail verifies nothing.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import or_
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.operators import GroupState, Row
from mal_graph.protocols import Runner
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Family, Member, Role, Side, family
from mal_graph.symmetry.moves import Moves, apart, draw_moves, permute_weights
from mal_graph.symmetry.thresholds import ABOVE_NOISE, ACCEPT, ACCEPT_FLOAT64, NOISE, REACTS, REJECT, SHOWN
from mal_graph.symmetry.trial import MEAN_TAKEN_OFF, Trial, judge_by_halves, open_trial

MAX_CONTROLS = 8  # per group; the joint runs are fewer
TRIES = 3  # members of a role that are left out until one shows
WEIGHT_COPIES = 4  # drawn, calibrated, permuted, and the runtime's own
CENTRED = (MEAN_TAKEN_OFF, 0.05, 0.4)  # a group without a verdict is tried on copies that keep more or less of a mean

Progress = Callable[[int, int], None]
Controls = Sequence[tuple[Member, float]]  # a member and how much the outputs move if it alone is left out


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
        max_memory: bytes it may take, by an estimate; a model that needs more stays unverified. What the machine has
            free if left out.

    Returns:
        the groups; each candidate is now verified, unverified (no verdict, with the reason) or frozen (rejected).
    """
    waiting = groups.usable()
    if not waiting:
        return groups
    short = explain_short_memory(graph, groups, max_memory)
    if short:
        return groups.with_states(dict.fromkeys(waiting, (GroupState.UNVERIFIED, short)))
    deadline = None if timeout is None else monotonic() + timeout
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


def explain_short_memory(graph: LayerGraph, groups: AxisGroups, limit: int | None) -> str:
    """Why a verification would take too much memory: "" if it does not."""
    limit = free_memory() if limit is None else limit
    weights = WEIGHT_COPIES * sum(graph.weights[name].size for name in {p.tensor for p in groups.parameters})
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


def free_memory() -> int | None:
    """Bytes of memory that are free; None where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


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


def redraw(values: Array, member: Member) -> Array:
    """A tensor with other values at the positions of one member."""
    changed = np.moveaxis(values.copy(), member.axis, 0)
    entries = changed[member.positions.ravel()]
    factors = np.random.default_rng(0).uniform(1.2, 1.8, entries.shape)
    changed[member.positions.ravel()] = (entries * factors).astype(values.dtype)
    return np.moveaxis(changed, 0, member.axis)


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


def control_members(group: AxisGroup, full: bool) -> list[list[Member]]:
    """Members to leave out, of each list the first that shows: one list per role, producers and consumers first; one
    per member if `full`."""
    if full:
        return [[member] for member in group.members]
    by_role: dict[Role, list[Member]] = {}
    for member in group.members:
        by_role.setdefault(member.role, []).append(member)
    ordered = sorted(by_role.values(), key=lambda members: members[0].role.side is Side.UNIT)
    return [members[:TRIES] for members in ordered[:MAX_CONTROLS]]


def reacting_members(controls: Controls, deviation: float) -> list[Member]:
    """The members whose absence showed."""
    return [member for member, change in controls if change > REACTS * max(deviation, NOISE)]


def silent_side(controls: Controls, deviation: float) -> str:
    """Which side of a group shows no reaction: "" if producers and consumers both do."""
    reacting = reacting_members(controls, deviation)
    for side, called in ((Side.OUT, "any producer"), (Side.IN, "any consumer")):
        asked = [member for member, _ in controls if member.role.side is side]
        asked = asked or [member for member, _ in controls]
        if not any(member in reacting for member in asked):
            return called
    return ""


def deviations_in_float64(
    groups: AxisGroups, trial: Trial, moves: Sequence[Moves], doubtful: Sequence[int]
) -> dict[int, float]:
    """The deviations of doubtful groups under the reference evaluator, in float64; none where it cannot run them."""
    if not doubtful:
        return {}
    try:
        runner = registry.runner("reference")
        session = runner.open(trial.graph, read=list(trial.outputs), variable=list(trial.weights))
        outputs = session.run(trial.inputs, trial.weights, deadline=trial.deadline)
        exact_trial = replace(trial, session=session, outputs=outputs)
        return measure_groups(exact_trial, groups, moves, doubtful, ACCEPT_FLOAT64)
    except RunError:
        return {}
