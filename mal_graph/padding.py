"""What a unit that is not there does: the statements that growing a group rests on, measured on the calibrated copy.

Two things make a padded unit harmless. It is *not read*: nothing that its producers make of it reaches the outputs
while its consumers' weights are zero. Or it is *silent*: while its producers' weights are zero (variances one), what
its consumers would make of it does not matter. Both are tested as they stand, on a quarter of a group's units: one side
is set, the other changed, and the outputs must not move. A statistic over the units (a norm, mean, softmax) breaks the
first; for those the operator table says which compensation is exact, if any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph
from mal_graph.groups import PROVEN, AxisGroup, AxisGroups, Member
from mal_graph.interfaces import Runner
from mal_graph.ops import ROWS
from mal_graph.prove import ACCEPT, Kind, Trial, family, open_trial, redrawn


@dataclass(frozen=True)
class Padding:
    """What may be said of units that are added to a group.

    Attributes:
        not_read: how far the outputs move when the producers of units change whose consumers are zero.
        silent: how far they move when the consumers of units change whose producers are zero.
        compensation: what makes more units exact where an operator takes a statistic over them; "" where none does.
        reason: why nothing was measured, "" if it was.
    """

    not_read: float | None = None
    silent: float | None = None
    compensation: str = ""
    reason: str = ""

    @property
    def statement(self) -> str:
        if self.reason:
            return f"not tested: {self.reason}"
        found = [
            f"{claim}{'' if moved <= ACCEPT else f': no ({moved:.0e})'}"
            for claim, moved in (("not read", self.not_read), ("silent", self.silent))
            if moved is not None
        ]
        return "; ".join([*found, *([self.compensation] if self.compensation else [])])


def paddings(
    graph: LayerGraph, groups: AxisGroups, runner: Runner | None = None, *, seed: int = 0
) -> Mapping[str, Padding]:
    """Statements by name of the proven group; groups that lie alike inside the units of another are tested once."""
    proven = [group for group in groups.groups if group.state == PROVEN]
    if not proven:
        return {}
    try:
        trial = open_trial(graph, groups, runner, seed=seed)
    except RunError as error:
        return {group.name: Padding(reason=str(error)) for group in proven}
    pads = {parameter.tensor: parameter.pad for parameter in groups.parameters}
    known: dict[Kind, Padding] = {}
    found = {}
    for group in proven:
        kind = family(group)
        padding = known[kind] if kind in known else tested(trial, group, pads, np.random.default_rng(seed))
        if kind is not None:
            known[kind] = padding
        found[group.name] = padding
    return found


def tested(trial: Trial, group: AxisGroup, pads: Mapping[str, float], rng: np.random.Generator) -> Padding:
    """The statements on one group."""
    consumers = [member for member in group.members if member.role.endswith(" in")]
    producers = [member for member in group.members if not member.role.endswith(" in")]
    if not consumers or not any(member.role.endswith(" out") for member in producers):
        return Padding(reason="its weights do not tell who makes its units and who reads them")
    units = rng.permutation(group.units)[: max(1, group.units // 4)]
    return Padding(
        not_read=moved(trial, zeroed(trial.weights, consumers, units, {}), producers, units),
        silent=moved(trial, zeroed(trial.weights, producers, units, pads), consumers, units),
        compensation=compensation(group),
    )


def compensation(group: AxisGroup) -> str:
    """What the table says of the operator that takes a statistic over the units."""
    if not group.statistic:
        return ""
    row = ROWS.get(group.statistic.split(" ")[0])
    exact = row.compensation if row is not None else ""
    return f"{group.statistic}: {exact or 'keep the width, no compensation is exact'}"


def zeroed(
    weights: Mapping[str, Array], members: Sequence[Member], units: NDArray[np.int64], pads: Mapping[str, float]
) -> dict[str, Array]:
    """The tensors of members with some units as if they were not there."""
    changed: dict[str, Array] = {}
    for member in members:
        values = np.moveaxis(changed.get(member.tensor, weights[member.tensor]).copy(), member.axis, 0)
        values[member.positions[units].ravel()] = pads.get(member.tensor, 0.0)
        changed[member.tensor] = np.moveaxis(values, 0, member.axis)
    return changed


def moved(trial: Trial, start: Mapping[str, Array], members: Sequence[Member], units: NDArray[np.int64]) -> float:
    """How far the outputs move, from weights with `start` in place, when members change at some units."""
    other = dict(start)
    for member in members:
        values = other.get(member.tensor, trial.weights[member.tensor])
        other[member.tensor] = redrawn(values, replace(member, positions=member.positions[units]))
    return trial.at(start).deviation(other)
