"""How the operators of control flow run the graphs that they hold.

Inputs of a graph take those of its operator, place by place. What a graph gives beyond its conditions is what the
operator gives, place by place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mal_graph.graph import Node


def none_carried(node: Node, inputs: int) -> range:
    """A graph that runs once."""
    return range(0)


def behind_count_and_condition(node: Node, inputs: int) -> range:
    """All but the number of the run and the condition."""
    return range(2, inputs)


def before_scanned(node: Node, inputs: int) -> range:
    """All but those that take one slice of a tensor after the other."""
    return range(inputs - int(node.attribute("num_scan_inputs", 0)))


@dataclass(frozen=True)
class Control:
    """How an operator runs its graphs.

    Attributes:
        steering: how many of its inputs, the first ones, say which graph runs, or how often.
        conditions: how many outputs of a graph, the first ones, say whether it runs again.
        carried: the inputs of a graph that take what its last run gave behind the conditions, one by one; from the node
            and how many inputs there are. Behind those, the operator gives what all runs gave, one after the other.
        chooses: it goes on with what its graphs score highest, so that values say what stands in its outputs.
    """

    steering: int = 0
    conditions: int = 0
    carried: Callable[[Node, int], range] = none_carried
    chooses: bool = False


CHOOSES = Control(chooses=True)
SEARCHES = ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")
CONTROLS: Mapping[str, Control] = {
    "If": Control(steering=1),
    "Loop": Control(steering=2, conditions=1, carried=behind_count_and_condition),
    "Scan": Control(carried=before_scanned),
    "SequenceMap": Control(),
    **{f"com.microsoft.{op}": CHOOSES for op in SEARCHES},
}


def control_of(node: Node) -> Control:
    """How a node runs its graphs; what nobody knows goes on with what they score highest."""
    return CONTROLS.get(node.op, CHOOSES)
