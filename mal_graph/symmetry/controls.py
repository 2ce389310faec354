"""Controls: members that are left out when a group is permuted must show: a test that cannot fail verifies nothing."""

from collections.abc import Sequence

import numpy as np

from mal_graph.graph import Array
from mal_graph.symmetry.groups import AxisGroup, Member, Role, Side
from mal_graph.symmetry.thresholds import NOISE, REACTS

MAX_CONTROLS = 8  # per group; the joint runs are fewer
TRIES = 3  # members of a role that are left out until one shows

Controls = Sequence[tuple[Member, float]]  # a member and how much what is read moves if it alone is left out


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


def redraw(values: Array, member: Member) -> Array:
    """A tensor with other values at the positions of one member."""
    changed = np.moveaxis(values.copy(), member.axis, 0)
    entries = changed[member.positions.ravel()]
    factors = np.random.default_rng(0).uniform(1.2, 1.8, entries.shape)
    changed[member.positions.ravel()] = (entries * factors).astype(values.dtype)
    return np.moveaxis(changed, 0, member.axis)


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
