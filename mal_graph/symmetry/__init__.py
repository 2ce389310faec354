"""Which axes of a network may be permuted or resized, verified by running it."""

from mal_graph.operators import GroupState
from mal_graph.symmetry.grouping import axis_groups, find_traces
from mal_graph.symmetry.groups import AxisGroup, AxisGroups, Member, Role, Side, Traces, all_positions
from mal_graph.symmetry.moves import moves_of_each, permute_in_place, permute_weights
from mal_graph.symmetry.networks import Network, build_network
from mal_graph.symmetry.position_names import Names, PositionNames, name_positions
from mal_graph.symmetry.resize_checks import ResizeCheck, check_resizes, compensation_of
from mal_graph.symmetry.resizing import (
    Factors,
    Resizing,
    find_coupled,
    plan_resizing,
    resize_graph,
    resize_groups,
    resize_traces,
    spread,
)
from mal_graph.symmetry.segments import SEGMENT_BYTES, Operators, Segment, carried_on, cut
from mal_graph.symmetry.shared_verdicts import verdicts_from
from mal_graph.symmetry.thresholds import ACCEPT, SAME_FUNCTION
from mal_graph.symmetry.ties import Tie, find_ties
from mal_graph.symmetry.trial import Trial, deviation, judge_by_halves, open_trial
from mal_graph.symmetry.twins import may_be_one
from mal_graph.symmetry.verification import verify

__all__ = [
    "ACCEPT",
    "all_positions",
    "axis_groups",
    "AxisGroup",
    "AxisGroups",
    "build_network",
    "carried_on",
    "check_resizes",
    "compensation_of",
    "cut",
    "deviation",
    "Factors",
    "find_coupled",
    "find_ties",
    "find_traces",
    "GroupState",
    "judge_by_halves",
    "may_be_one",
    "Member",
    "moves_of_each",
    "name_positions",
    "Names",
    "Network",
    "open_trial",
    "Operators",
    "permute_in_place",
    "permute_weights",
    "plan_resizing",
    "PositionNames",
    "resize_graph",
    "resize_groups",
    "resize_traces",
    "ResizeCheck",
    "Resizing",
    "Role",
    "SAME_FUNCTION",
    "Segment",
    "SEGMENT_BYTES",
    "Side",
    "spread",
    "Tie",
    "Traces",
    "Trial",
    "verdicts_from",
    "verify",
]
