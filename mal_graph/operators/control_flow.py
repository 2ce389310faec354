"""How the operators of control flow run the graphs that they hold, their bodies.

Inputs of a body take those of its operator, place by place. What a body gives beyond its conditions is what the
operator gives, place by place.

Where bodies are shown among the other operators, the node of the operator ends them: it reads what its bodies give, one
after the other; that of a Loop or Scan reads, behind this, what was carried into the run. In front of the body of such
a one, or of a SequenceMap, stands a node which gives the run its inputs (`Control.begin`), and reads what the operator
does. Behind this, it reads whatever else the body takes from outside, so that what is carried depends on all that it is
made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mal_graph.graph import Node

LOOP_RUN, SCAN_RUN, MAP_RUN = "mal_graph.LoopRun", "mal_graph.ScanRun", "mal_graph.MapRun"
GIVEN_TYPES = "given_types"  # of MAP_RUN: what kind of tensors a run gives, in ONNX's numbering


@dataclass(frozen=True)
class Control:
    """How an operator runs its bodies.

    Attributes:
        keys: the attributes that hold them.
        steering: how many of its inputs, the first ones, say which body runs, or how often.
        conditions: how many outputs of a body, the first ones, say whether it runs again.
        begin: the operator that gives a run its inputs; "" where a run has none.
        carries: whether a run is given what the one before gave.
    """

    keys: tuple[str, ...] = ("body",)
    steering: int = 0
    conditions: int = 0
    begin: str = ""
    carries: bool = True


CONTROLS: Mapping[str, Control] = {
    "If": Control(("then_branch", "else_branch"), steering=1),
    "Loop": Control(steering=2, conditions=1, begin=LOOP_RUN),
    "Scan": Control(begin=SCAN_RUN),
    "SequenceMap": Control(begin=MAP_RUN, carries=False),
}
NOT_SHOWN = (
    "com.microsoft.BeamSearch",
    "com.microsoft.GreedySearch",
    "com.microsoft.Sampling",
    "com.microsoft.WhisperBeamSearch",
)


def control_of(node: Node) -> Control:
    """How a node runs its bodies."""
    return CONTROLS[node.op]


def outputs_of_run(end: Node, place: int) -> tuple[str, ...]:
    """What one body gives to the node that ends it, its conditions first."""
    control = control_of(end)
    width = len(end.outputs) + control.conditions
    start = 0 if control.begin else control.steering + place * width
    return end.inputs[start : start + width]


def carried_into(end: Node) -> tuple[str, ...]:
    """What the run that a node ends was given of the run before, in the order in which it gives it to the next."""
    control = control_of(end)
    return end.inputs[len(end.outputs) + control.conditions :] if control.carries and control.begin else ()
