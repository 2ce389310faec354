"""What units do that are added or taken away: the statements that resizing a group rests on.

Two things make an added unit harmless. It is *not read*: whatever its producers make of it, nothing reaches the outputs
while its consumers' new weights are zero. Or it is *silent*: while its producers' new weights are zero (variances one),
it does not matter what its consumers would make of it. Both are tested as they stand, on the calibrated copy widened by
a few units, beside the control that units which are neither do show. The same copy without some units must give what
the whole one gives when nothing reads them. A statistic over the units (a norm, mean, softmax) breaks these; the
operator table says which compensation is exact, if any.

One widened network serves many groups: while nothing reads the added units of the others, those of each in turn are
live, and then silent. What fails is halved, down to groups that are tested by themselves.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import add, or_
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.errors import RunError, ShapeError
from mal_graph.graph import Array, LayerGraph
from mal_graph.operators import ROWS, Compensation, GroupState, Layout
from mal_graph.protocols import Runner
from mal_graph.symmetry.branches import open_with_branches
from mal_graph.symmetry.grouping import find_traces
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Member, Traces
from mal_graph.symmetry.resizing import Resizing, find_coupled, plan_resizing, resize_graph, spread
from mal_graph.symmetry.thresholds import ACCEPT, NOISE, REACTS, REJECT
from mal_graph.symmetry.trial import Trial, judge_by_halves, open_trial

ADDED = 3  # units: a number that divides few widths


@dataclass(frozen=True)
class ResizeCheck:
    """What may be said of units that are added to a group or taken from it.

    Attributes:
        not_read: how far the outputs move when units are added whose consumers are zero.
        silent: how far they move when units are added whose producers are zero.
        sliced: how far they move when units are taken away that are not read.
        compensation: what makes more units exact where an operator takes a statistic over them; "" where none does.
        reason: why nothing was measured, "" if it was.
    """

    not_read: float | None = None
    silent: float | None = None
    sliced: float | None = None
    compensation: str = ""
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether units may be added and taken away without a compensation."""
        moves = (self.not_read, self.silent, self.sliced)
        return all(moved is not None and moved <= ACCEPT for moved in moves)

    @property
    def statement(self) -> str:
        """The check in words."""
        measured = (("not read", self.not_read), ("silent", self.silent), ("sliced", self.sliced))
        claims = [
            f"{claim}{'' if moved <= ACCEPT else f': no ({moved:.0e})'}"
            for claim, moved in measured
            if moved is not None
        ]
        return "; ".join(text for text in (self.reason, *claims, self.compensation) if text)


LATE = ResizeCheck(reason="not tested: its time was up")
MUTE = ResizeCheck(reason="not tested: its weights do not tell what produces its units and what consumes them")


def check_resizes(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    seed: int = 0,
    timeout: float | None = None,
) -> Mapping[str, ResizeCheck]:
    """What may be said of units added to or taken from each verified group, by its name.

    Groups that can only be resized together have one check in common.

    `timeout`: seconds it may take; what is not checked by then says so.
    """
    verified = [group for group in groups.groups if group.state is GroupState.VERIFIED]
    if not verified:
        return {}
    deadline = None if timeout is None else monotonic() + timeout
    try:
        trial = open_trial(graph, groups, runner, seed=seed, deadline=deadline)
    except RunError as error:
        return {group.name: ResizeCheck(reason=f"not tested: {error}") for group in verified}
    traces = find_traces(graph, groups)
    sets = find_coupled(groups, traces)
    widener = Widener(graph, groups, traces, sets, trial, runner or registry.runner())
    alike = [Alike(tuple(group for group in verified if group.name in names)) for names in sets]
    checks: dict[str, ResizeCheck] = {}
    for batch in batches(alike):
        for one, check in check_sets(widener, batch, np.random.default_rng(seed)):
            checks.update(dict.fromkeys((group.name for group in one.groups), check))
    return {group.name: checks[group.name] for group in verified}


@dataclass(frozen=True)
class Alike:
    """Groups that can only be resized together."""

    groups: tuple[AxisGroup, ...]

    @property
    def is_counted(self) -> bool:
        """Whether a statistic is taken over their units."""
        return any(group.statistic for group in self.groups)

    @property
    def is_inside(self) -> bool:
        """Whether they lie inside units, which would be widened at the same time."""
        return any(group.inside for group in self.groups)

    @property
    def names(self) -> list[str]:
        """The names of the groups."""
        return [group.name for group in self.groups]

    @property
    def compensation_text(self) -> str:
        """What the table says of a statistic over the units."""
        return compensation(self.groups[0])

    @property
    def units(self) -> int:
        """How many units each has."""
        return self.groups[0].units

    @cached_property
    def members(self) -> list[Member]:
        """The members of all groups."""
        return [member for group in self.groups for member in group.members]

    @property
    def consumers(self) -> list[Member]:
        """The members that consume the units."""
        return [member for member in self.members if member.consumes]

    @property
    def producers(self) -> list[Member]:
        """All other members: those that produce the units, and what is applied to each of them."""
        return [member for member in self.members if not member.consumes]

    @property
    def tells_sides(self) -> bool:
        """Whether its weights tell what produces its units and what consumes them."""
        return bool(self.consumers) and any(member.produces for member in self.members)


def batches(alike: Sequence[Alike]) -> Iterator[list[Alike]]:
    """Sets of groups that are checked together. A statistic over units that nothing reads moves the outputs: groups
    under one fail in any company, and are checked alone."""
    alike = [one for one in alike if one.groups]
    yield [one for one in alike if not (one.is_counted or one.is_inside)]
    yield [one for one in alike if one.is_inside and not one.is_counted]
    yield from ([one] for one in alike if one.is_counted)


Checked = tuple[Alike, ResizeCheck]


@dataclass(frozen=True)
class Widener:
    """A trial whose groups can be resized: what the checks of all groups of one graph have in common."""

    graph: LayerGraph
    groups: AxisGroups
    traces: Traces
    sets: Sequence[set[str]]
    trial: Trial
    runner: Runner

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return self.trial.deadline is not None and monotonic() >= self.trial.deadline

    @cached_property
    def absent_values(self) -> Mapping[str, float]:
        """The value of a unit that is not there, by tensor."""
        return {parameter.tensor: parameter.absent_value for parameter in self.groups.parameters}

    def at_size(self, units: Mapping[str, Sequence[int]]) -> tuple[Resizing, Trial]:
        """The trial with other units in some groups, without its outputs. Raises ShapeError or RunError."""
        change = plan_resizing(self.graph, self.groups, self.traces, units, self.sets)
        graph = resize_graph(self.trial.graph, change, {})
        read, variable = list(self.trial.outputs), list(self.trial.weights)
        session = open_with_branches(graph, self.runner, self.trial.taken, read, variable, self.trial.deadline)
        return change, replace(self.trial, graph=graph, session=session)


def compensation(group: AxisGroup) -> str:
    """What the table says of the operator that takes a statistic over the units."""
    if group.statistic is None:
        return ""
    exact = compensation_of(group)
    return f"{group.statistic}: {exact.text if exact else 'keep the width, no compensation is exact'}"


def compensation_of(group: AxisGroup) -> Compensation | None:
    """What makes more units exact under the statistic that is taken over them; None where nothing does."""
    row = None if group.statistic is None else ROWS.get(group.statistic.op)
    return row.compensation if row is not None else None


class Widened:
    """The trial with a few more units in some sets of groups.

    Attributes:
        whole: its weights. New units are others again, at another size: they show where anything reads them.
        unread: those of their consumers, with zeros for the added units.
    """

    def __init__(self, widener: Widener, alike: Sequence[Alike]) -> None:
        self.widener, self.alike = widener, alike
        units = {name: range(one.units + ADDED) for one in alike for name in one.names}
        self.change, self.trial = widener.at_size(units)
        self.on: dict[str, list[tuple[int, Member]]] = {}  # by tensor the number of the set and the member
        for number, one in enumerate(alike):
            for member in one.members:
                self.on.setdefault(member.tensor, []).append((number, member))
        self.whole = {name: self.enlarged(name) for name in self.trial.weights}
        self.unread = {name: self.filled(name, (), ()) for name in self.on}

    def enlarged(self, tensor: str) -> Array:
        """The weights of one tensor, with those of added units like the ones of other units, only larger."""
        values = self.trial.weights[tensor]
        if tensor not in self.change.layouts:
            return values
        members = [member for _, member in self.on.get(tensor, ())]
        axes = [resembling(layout, axis, members) for axis, layout in enumerate(self.change.layouts[tensor])]
        sizes = [np.where(axis.added > 0, 1 + 0.3 * axis.added, 1.0) for axis in axes]
        return np.asarray(spread(values, axes, None) * reduce(np.multiply, np.ix_(*sizes)), np.float32)

    def filled(self, tensor: str, live: Collection[int], silent: Collection[int]) -> Array:
        """A tensor with nothing for added units: in the consumers of those that are not read, and, in the producers of
        those that are silent, the value of absent ones."""
        values = self.whole[tensor]
        for number, member in self.on[tensor]:
            added = added_of(self.change.layouts[tensor][member.axis], member)
            if number in silent and not member.consumes:
                values = filled(values, member.axis, added, self.widener.absent_values.get(tensor, 0.0))
            elif number not in live and number not in silent and member.consumes:
                values = filled(values, member.axis, added, 0.0)
        return values

    def moved(self, live: Collection[int], silent: Collection[int]) -> float:
        """How far the outputs move with the added units of some sets live, of some silent, of the others not read."""
        touched = {member.tensor for number in (*live, *silent) for member in self.alike[number].members}
        other = {name: self.filled(name, live, silent) for name in touched}
        return self.trial.deviation({**self.whole, **self.unread, **other})


def check_sets(widener: Widener, alike: Sequence[Alike], rng: np.random.Generator) -> list[Checked]:
    """What may be said of sets of groups: all are tested together, then by halves where together they do not hold."""
    mute = [(one, MUTE) for one in alike if not one.tells_sides]
    telling = [one for one in alike if one.tells_sides]
    return [*mute, *judge_by_halves(telling, partial(check_together, widener, rng), add)] if telling else mute


def check_together(widener: Widener, rng: np.random.Generator, alike: Sequence[Alike]) -> list[Checked] | None:
    """What may be said of sets of groups that hold together, or of a single set; None if several do not hold."""
    if widener.is_late:
        return [(one, LATE) for one in alike]
    try:
        widened = Widened(widener, alike)
        not_read, gone = widened.moved([], []), sliced(widener, alike, rng)
    except (ShapeError, RunError) as error:
        if len(alike) > 1:
            return None
        what = f"at another width {error}" if isinstance(error, RunError) else str(error)
        kept = ResizeCheck(compensation=alike[0].compensation_text, reason=f"keeps its width: {what}")
        return [(alike[0], LATE if widener.is_late else kept)]
    if len(alike) > 1 and max(not_read, gone) > ACCEPT:
        return None
    try:
        return list(check_each(widened, not_read, gone))
    except RunError:
        return [(one, LATE) for one in alike]


def check_each(widened: Widened, not_read: float, gone: float) -> Iterator[Checked]:
    """What may be said of each set of groups, where all hold when nothing reads their added units. Raises RunError."""

    def judge(some: Sequence[int]) -> dict[int, float] | None:
        moved = widened.moved([], some)
        return dict.fromkeys(some, moved) if moved <= ACCEPT or len(some) == 1 else None

    silent = judge_by_halves(range(len(widened.alike)), judge, or_)
    live = [widened.moved([number], []) for number in range(len(widened.alike))]
    for number, one in enumerate(widened.alike):
        if live[number] < min(REJECT, REACTS * max(not_read, silent[number], gone, NOISE)):
            reason = f"not tested: live units would not show either ({live[number]:.0e})"
            yield one, ResizeCheck(compensation=one.compensation_text, reason=reason)
        else:
            yield one, ResizeCheck(not_read, silent[number], gone, one.compensation_text)


def added_of(layout: Layout, member: Member) -> NDArray[np.bool_]:
    """The indices of the units added behind a member's."""
    added: NDArray[np.bool_] = (layout.added > 0) & np.isin(layout.old, member.positions[-1])
    return added


def resembling(layout: Layout, axis: int, members: Sequence[Member]) -> Layout:
    """An axis whose added units are like the ones before the last, one each: the last may be dead."""
    old = layout.old.copy()
    for member in members:
        if member.axis == axis:
            last, order = np.sort(member.positions[-1].ravel()), np.argsort(member.positions[-1].ravel())
            for number in range(1, ADDED + 1):
                other = member.positions[(-1 - number) % len(member.positions)].ravel()
                new = (layout.added == number) & np.isin(layout.old, last)
                old[new] = other[order[np.searchsorted(last, layout.old[new])]]
    return replace(layout, old=old)


def sliced(widener: Widener, alike: Sequence[Alike], rng: np.random.Generator) -> float:
    """How far the outputs move when a quarter of the units is taken away, from where nothing reads them."""
    units: dict[str, Sequence[int]] = {}
    zeroed: dict[str, Array] = {}
    for one in alike:
        gone = rng.permutation(one.units)[: max(1, one.units // 4)]
        units.update(dict.fromkeys(one.names, sorted(set(range(one.units)) - set(gone.tolist()))))
        for member in one.consumers:
            values = zeroed.get(member.tensor, widener.trial.weights[member.tensor])
            zeroed[member.tensor] = filled(values, member.axis, member.positions[gone].ravel(), 0.0)
    expected = widener.trial.at(zeroed)
    if not expected.is_finite:
        return np.inf
    change, trial = widener.at_size(units)
    left = {name: spread(expected.weights[name], axes, None) for name, axes in change.layouts.items()}
    return replace(trial, outputs=expected.outputs).deviation({**expected.weights, **left})


def filled(values: Array, axis: int, indices: NDArray[np.int64] | NDArray[np.bool_], value: float) -> Array:
    """A copy with one value at some indices of an axis."""
    values = np.moveaxis(values.copy(), axis, 0)
    values[indices] = value
    return np.moveaxis(values, 0, axis)
