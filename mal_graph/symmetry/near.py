"""Verification near by: every operator is seen to give its tensors in the order that is told of them.

If everything that deals with the units of a group is as told, from the stored tensors to what no longer has these
units, the group is right, whatever comes behind. So what a member does is seen where it is read, in its full size,
however deep the network is: all groups are permuted at once, and members of all are left out at once (see `walks`,
`shadows`).

The groups are permuted by a cycle through all units and by an exchange of two, which together generate every
permutation. Groups of few units often happen to move alike, which would hide that one of them may only move with
another: so of any two that meet in an operator each is exchanged once while the other stays. Two groups of more units
that must move together would have to draw the same of at least 11! cycles. The number of runs does not grow with the
depth.

Only what passes is judged here. What does not is left to the verification at the outputs: groups that do not pass, that
show nothing when a member is left out, or that meet an operator where no fault would show, as no label tells the order
of what it gives, or it gives the same in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from mal_graph import registry
from mal_graph.graph import LayerGraph
from mal_graph.network import graph_in_float32
from mal_graph.operators import GroupState, Row
from mal_graph.protocols import Runner
from mal_graph.symmetry.controls import Controls, reacting_members, silent_side
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, family
from mal_graph.symmetry.shadows import key_of
from mal_graph.symmetry.trial import judge_by_halves
from mal_graph.symmetry.walks import Course, Fault, Walk

FAST = 2  # walks that find the first fault each; the next one goes slowly, and finds all


@dataclass(frozen=True)
class Near:
    """What was found near by.

    Attributes:
        verified: the groups that pass, by index.
        faults: where something went wrong when a group was permuted alone, by its index.
    """

    verified: Mapping[int, AxisGroup] = field(default_factory=dict)
    faults: Mapping[int, Fault] = field(default_factory=dict)

    def joined(self, other: "Near") -> "Near":
        """What both found."""
        return Near({**self.verified, **other.verified}, {**self.faults, **other.faults})


def verify_near(
    graph: LayerGraph,
    groups: AxisGroups,
    runner: Runner | None = None,
    *,
    full: bool = False,
    seed: int = 0,
    table: Mapping[str, Row] | None = None,
    deadline: float | None = None,
) -> Near:
    """The candidate groups that pass where their units are dealt with. Raises RunError."""
    course = Course(graph_in_float32(graph), groups, runner or registry.runner(), table, full, seed, deadline)
    if not course.is_traced or graph.inner:  # a body runs as a whole, as often as what stands around it says
        return Near()
    passed, suspects = pass_together(course, groups.usable())
    if not suspects:
        return passed

    def judge(some: Sequence[int]) -> Near | None:
        walk = Walk(course, some)
        if walk.faults:
            return Near(faults={some[0]: walk.faults[0]}) if len(some) == 1 else None
        return judge_walk(course, walk, some)

    return passed.joined(judge_by_halves(suspects, judge, Near.joined))


def pass_together(course: Course, indices: Sequence[int]) -> tuple[Near, list[int]]:
    """What is found of groups that are permuted at once, and those that something wrong may be the fault of."""
    suspects: set[int] = set()
    waiting = list(indices)
    for attempt in count():
        if not waiting:
            break
        walk = Walk(course, waiting, is_slow=attempt >= FAST)
        if not walk.faults:
            return judge_walk(course, walk, waiting), sorted(suspects)
        blamed = frozenset[int]().union(*(fault.groups for fault in walk.faults))
        if not blamed:  # something moves by itself
            return Near(), []
        suspects |= blamed
        waiting = [index for index in waiting if index not in blamed]
    return Near(), sorted(suspects)


def judge_walk(course: Course, walk: Walk, indices: Sequence[int]) -> Near:
    """The groups that pass in a walk without a fault."""
    if not walk.is_finite or not walk.has_output:
        return Near()
    groups = course.groups.groups
    unseen = unseen_groups(course, walk)
    deviations = dict.fromkeys(indices, 0.0)
    for node, moved in walk.deviations.items():
        for index in course.touched[node] & deviations.keys():
            deviations[index] = max(deviations[index], moved)
    first = {family(groups[index]): index for index in reversed(indices) if index in walk.chosen}
    verified = {}
    for index in indices:
        shown_by = index if index in walk.chosen else first[family(groups[index])]
        controls = [(m, walk.shown.get(key_of(shown_by, m), 0.0)) for m in walk.chosen[shown_by]]
        if index not in unseen and not silent_side(controls, deviations[index]):
            verified[index] = judged(groups[index], deviations[index], controls)
    return Near(verified)


def unseen_groups(course: Course, walk: Walk) -> frozenset[int]:
    """The groups whose units an operator deals with where no fault would show."""
    return frozenset[int]().union(*(course.touched[node] for node in walk.blind))


def judged(group: AxisGroup, deviation: float, controls: Controls) -> AxisGroup:
    """A group that passed."""
    reacting = reacting_members(controls, deviation)
    return replace(
        group,
        state=GroupState.VERIFIED,
        deviation=deviation,
        control=float(np.median([moved for _, moved in controls])),
        inert=tuple(f"{m.tensor}[{m.axis}]" for m, _ in controls if m not in reacting),
    )
