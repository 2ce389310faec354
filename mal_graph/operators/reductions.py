"""Reductions: statistics over whole axes."""

from collections.abc import Mapping

from mal_graph.operators.axis_labels import Label
from mal_graph.operators.call import Call, drop_axes, mark_statistic
from mal_graph.operators.row import ADDS_NOTHING, NEVER_CHOSEN, AtZero, Compensation, Homogeneity, Row, X, setting

AXES_AS_INPUT = {"Unsqueeze": 13, "Squeeze": 13, "ReduceSum": 13}  # the opset from which on they are no attribute
OTHERS_FROM = 18  # of the other reductions
AVERAGED = Compensation("times M/C", {"output": 1.0})


def reads_axes(op: str, opset: int) -> bool:
    """Whether an operator along axes is told these by an input in a version of the standard operators, not by an
    attribute."""
    return opset >= AXES_AS_INPUT.get(op, OTHERS_FROM)


def reduce(call: Call) -> list[Label]:
    """Symmetric in the reduced axes, which vanish or stay with length 1."""
    label = call.label(0)
    axes = call.ints(1, "axes")
    if call.given(1) and axes is None:
        return call.freeze(f"{call.name} has axes that are computed at run time")
    if not axes:
        axes = () if call.node.attribute("noop_with_empty_axes", 0) else tuple(range(len(label.shape)))
    reduced = {axis % len(label.shape) for axis in axes}
    mark_statistic(call, label, sorted(reduced))
    return [drop_axes(call, reduced)]


def reduction_row(
    compensation: Compensation | None, homogeneity: Homogeneity = Homogeneity.NONE, *, stays_between: bool = False
) -> Row:
    """The row of an operator that takes a statistic over whole axes."""
    return Row(
        reduce,
        slots=(X, setting("axes")),
        at_zero=AtZero.UNSAFE,
        compensation=compensation,
        homogeneity=homogeneity,
        stays_between=stays_between,
    )


ROWS: Mapping[str, Row] = {
    **dict.fromkeys(["ReduceSum", "ReduceL1", "ReduceL2"], reduction_row(ADDS_NOTHING, homogeneity=Homogeneity.ONE)),
    **dict.fromkeys(["ReduceSumSquare", "ReduceLogSum"], reduction_row(ADDS_NOTHING)),
    "ReduceMean": reduction_row(AVERAGED, homogeneity=Homogeneity.ONE, stays_between=True),
    "ReduceProd": reduction_row(Compensation("1 instead of 0 in the new units")),
    "ReduceLogSumExp": reduction_row(NEVER_CHOSEN),
    **dict.fromkeys(["ReduceMax", "ReduceMin"], reduction_row(None, homogeneity=Homogeneity.ONE, stays_between=True)),
}
