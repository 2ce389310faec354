"""What units do that are added or taken away: the statements that resizing a group rests on.

Two things make an added unit harmless. It is *not read*: whatever its producers make of it, nothing reaches the outputs
while its consumers' new weights are zero. Or it is *silent*: while its producers' new weights are zero (variances one),
it does not matter what its consumers would make of it. Both are tested as they stand, on the calibrated copy widened by
a few units, beside the control that units which are neither do show. The same copy without some units must give what
the whole one gives when nothing reads them. A statistic over the units (a norm, mean, softmax) breaks these; the
operator table says which compensation is exact, if any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mal_graph import registry
from mal_graph.errors import RunError, ShapeError
from mal_graph.graph import Array, LayerGraph
from mal_graph.groups import PROVEN, AxisGroup, AxisGroups, Member, Traces, traces
from mal_graph.interfaces import Runner
from mal_graph.ops import ROWS
from mal_graph.prove import ACCEPT, REJECT, Trial, open_trial, relative
from mal_graph.resize import Resizing, coupled, resized, resizing, spread
from mal_graph.widths import Layout

ADDED = 3  # units: a number that divides few widths


@dataclass(frozen=True)
class Padding:
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
        measured = (("not read", self.not_read), ("silent", self.silent), ("sliced", self.sliced))
        found = [
            f"{claim}{'' if moved <= ACCEPT else f': no ({moved:.0e})'}"
            for claim, moved in measured
            if moved is not None
        ]
        return "; ".join(text for text in (self.reason, *found, self.compensation) if text)


LATE = Padding(reason="not tested: its time was up")


def paddings(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    seed: int = 0,
    timeout: float | None = None,
) -> Mapping[str, Padding]:
    """Statements by name of the proven group; groups that can only be resized together have one in common.

    `timeout`: seconds it may take; what is not tested by then says so.
    """
    proven = [group for group in groups.groups if group.state == PROVEN]
    if not proven:
        return {}
    deadline = None if timeout is None else monotonic() + timeout
    try:
        trial = open_trial(graph, groups, runner, seed=seed, deadline=deadline)
    except RunError as error:
        return {group.name: Padding(reason=f"not tested: {error}") for group in proven}
    bench = Bench(graph, groups, traces(graph, groups), trial, runner or registry.runner())
    found: dict[str, Padding] = {}
    for names in coupled(groups, bench.found):
        alike = [group for group in proven if group.name in names]
        if alike:
            padding = tested(bench, alike, np.random.default_rng(seed))
            found.update(dict.fromkeys((group.name for group in alike), padding))
    return {group.name: found[group.name] for group in proven}


@dataclass(frozen=True)
class Bench:
    """What the tests of all groups of one graph have in common."""

    graph: LayerGraph
    groups: AxisGroups
    found: Traces
    trial: Trial
    runner: Runner

    @property
    def is_late(self) -> bool:
        return self.trial.deadline is not None and monotonic() >= self.trial.deadline

    def resized(self, alike: Sequence[AxisGroup], units: Sequence[int]) -> tuple[Resizing, Trial]:
        """The trial with other units in some groups, without its outputs. Raises ShapeError or RunError."""
        change = resizing(self.graph, self.groups, self.found, {group.name: units for group in alike})
        graph = resized(self.trial.graph, change, {})
        session = self.runner.open(graph, read=list(self.trial.outputs), variable=list(self.trial.weights))
        return change, replace(self.trial, graph=graph, session=session)


def tested(bench: Bench, alike: Sequence[AxisGroup], rng: np.random.Generator) -> Padding:
    """The statements on groups that can only be resized together."""
    members = [member for group in alike for member in group.members]
    consumers = [member for member in members if member.role.endswith(" in")]
    producers = [member for member in members if not member.role.endswith(" in")]
    if not consumers or not any(member.role.endswith(" out") for member in producers):
        return Padding(reason="not tested: its weights do not tell who makes its units and who reads them")
    said = compensation(alike[0])
    if bench.is_late:
        return LATE
    try:
        live, not_read, silent = widened(bench, alike, consumers, producers)
        if live < REJECT:
            return Padding(compensation=said, reason=f"not tested: live units would not show either ({live:.0e})")
        return Padding(not_read, silent, sliced(bench, alike, consumers, rng), said)
    except (ShapeError, RunError) as error:
        return LATE if bench.is_late else Padding(compensation=said, reason=f"keeps its width: {error}")


def compensation(group: AxisGroup) -> str:
    """What the table says of the operator that takes a statistic over the units."""
    if not group.statistic:
        return ""
    row = ROWS.get(group.statistic.split(" ")[0])
    exact = row.compensation if row is not None else ""
    return f"{group.statistic}: {exact or 'keep the width, no compensation is exact'}"


def widened(
    bench: Bench, alike: Sequence[AxisGroup], consumers: Sequence[Member], producers: Sequence[Member]
) -> tuple[float, float, float]:
    """How far the outputs move with more units that are live, with more that are not read, and that are silent."""
    change, trial = bench.resized(alike, range(alike[0].units + ADDED))
    pads = {parameter.tensor: parameter.pad for parameter in bench.groups.parameters}
    whole = dict(trial.weights)
    for name, layouts in change.layouts.items():
        if name in whole:
            # New units are others again, at another size: they show where anything reads them.
            axes = [resembling(layout, name, axis, [*consumers, *producers]) for axis, layout in enumerate(layouts)]
            sizes = [np.where(axis.added > 0, 1 + 0.3 * axis.added, 1.0) for axis in axes]
            factors = reduce(np.multiply, np.ix_(*sizes))
            whole[name] = np.asarray(spread(whole[name], axes, None) * factors, np.float32)
    return (
        moved(trial, whole),
        moved(trial, {**whole, **blank(whole, consumers, change, {})}),
        moved(trial, {**whole, **blank(whole, producers, change, pads)}),
    )


def resembling(layout: Layout, tensor: str, axis: int, members: Sequence[Member]) -> Layout:
    """An axis whose added units are like the ones before the last, one each: the last may be dead."""
    old = layout.old.copy()
    for member in members:
        if (member.tensor, member.axis) == (tensor, axis):
            last, order = np.sort(member.positions[-1].ravel()), np.argsort(member.positions[-1].ravel())
            for number in range(1, ADDED + 1):
                other = member.positions[(-1 - number) % len(member.positions)].ravel()
                new = (layout.added == number) & np.isin(layout.old, last)
                old[new] = other[order[np.searchsorted(last, layout.old[new])]]
    return replace(layout, old=old)


def blank(
    weights: Mapping[str, Array], members: Sequence[Member], change: Resizing, pads: Mapping[str, float]
) -> dict[str, Array]:
    """The tensors of members without anything for the added units: the pad value, 0 where `pads` names none."""
    found: dict[str, Array] = {}
    for member in members:
        added = change.layouts[member.tensor][member.axis].added > 0
        found[member.tensor] = filled(
            found.get(member.tensor, weights[member.tensor]), member.axis, added, pads.get(member.tensor, 0.0)
        )
    return found


def sliced(bench: Bench, alike: Sequence[AxisGroup], consumers: Sequence[Member], rng: np.random.Generator) -> float:
    """How far the outputs move when a quarter of the units is taken away, from where nothing reads them."""
    units = alike[0].units
    gone = rng.permutation(units)[: max(1, units // 4)]
    zeroed: dict[str, Array] = {}
    for member in consumers:
        values = zeroed.get(member.tensor, bench.trial.weights[member.tensor])
        zeroed[member.tensor] = filled(values, member.axis, member.positions[gone].ravel(), 0.0)
    expected = bench.trial.at(zeroed)
    change, trial = bench.resized(alike, sorted(set(range(units)) - set(gone.tolist())))
    left = {name: spread(expected.weights[name], axes, None) for name, axes in change.layouts.items()}
    return moved(replace(trial, outputs=expected.outputs), {**expected.weights, **left})


def filled(values: Array, axis: int, indices: NDArray[np.int64] | NDArray[np.bool_], value: float) -> Array:
    """A copy with one value at some indices of an axis."""
    values = np.moveaxis(values.copy(), axis, 0)
    values[indices] = value
    return np.moveaxis(values, 0, axis)


def moved(trial: Trial, weights: Mapping[str, Array]) -> float:
    """How far the outputs are from the trial's with these weights."""
    found = trial.session.run(trial.inputs, weights, read=list(trial.outputs), deadline=trial.deadline)
    return max((relative(found[name], y) for name, y in trial.outputs.items()), default=0.0)
