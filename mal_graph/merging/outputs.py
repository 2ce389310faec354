"""What graphs compute, and how far the outputs of one are from those of another.

A graph of many weights is run a part at a time, whose weights are read, used and let go of: a merge of large models is
computed where it is read, and would be in memory as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Protocol

from mal_graph.graph import Array, LayerGraph
from mal_graph.network import data_dependent, fed_weights, find_applied
from mal_graph.protocols import Runner, Session
from mal_graph.symmetry import SEGMENT_BYTES, Operators, Segment, carried_on, cut, deviation

LARGE = 1 << 30  # bytes of weights from which a graph is run a part at a time


class Running(Protocol):
    """A graph ready to run."""

    @property
    def graph(self) -> LayerGraph: ...

    def outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. Raises RunError."""
        ...


@dataclass(frozen=True)
class Runnable:
    """A graph in a session, with its weights, which are read once.

    Attributes:
        fed: the weights that every run is given.
    """

    graph: LayerGraph
    session: Session
    fed: Mapping[str, Array]

    def outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. Raises RunError."""
        return self.session.run(inputs, self.fed)


@dataclass(frozen=True)
class Parts:
    """A graph that is run a part at a time.

    Attributes:
        fed: the weights that runs are given.
        segments: its parts in order.
    """

    graph: LayerGraph
    runner: Runner
    fed: Sequence[str]
    segments: Sequence[Segment]

    def outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name. Raises RunError."""
        given, made = dict(inputs), dict[str, Array]()
        for segment in self.segments:
            nodes = [self.graph.nodes[index] for index in segment.nodes]
            part = Operators(self.graph, nodes, self.runner, given, self.fed, sorted(segment.leaving), None)
            left = part.run(given, {name: self.graph.weights[name].read() for name in part.fed})
            given = carried_on(segment, given, left)
            made.update({name: left[name] for name in self.graph.output_names & left.keys()})
        return {value.name: made[value.name] for value in self.graph.outputs}


def in_parts(graph: LayerGraph, runner: Runner) -> Parts | None:
    """A large graph as one that is run a part at a time; None for one that is small, or cannot be: whose operators run
    others, or an output of which no operator makes."""
    if sum(weight.nbytes for weight in graph.weights.values()) < LARGE:
        return None
    live = data_dependent(graph) | graph.output_names
    if graph.inner or not graph.output_names <= graph.producer.keys():
        return None
    fed = [name for name in dict.fromkeys(p.tensor for p in find_applied(graph)) if graph.weights[name].size > 1]
    shapes = {name: weight.shape for name, weight in graph.weights.items()}
    return Parts(graph, runner, fed, cut(graph, live, shapes, SEGMENT_BYTES))


class Sessions:
    """Opens graphs; those that differ in nothing but the weights that are fed share a session, as a merge and its base
    do: to open one takes several times as long as a run of a small model."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.opened: list[Runnable] = []  # with no weights: these are held while they are used

    def open(self, graph: LayerGraph) -> Running:
        """A graph ready to run. Raises RunError."""
        if (parts := in_parts(graph, self.runner)) is not None:
            return parts
        fed = fed_weights(graph)
        for known in self.opened:
            if are_run_alike(graph, known.graph, fed):
                return Runnable(graph, known.session, fed)
        session = self.runner.open(graph, variable=list(fed))
        self.opened.append(Runnable(graph, session, {}))
        return Runnable(graph, session, fed)


def are_run_alike(a: LayerGraph, b: LayerGraph, fed: Mapping[str, Array]) -> bool:
    """Whether two graphs are one model but for the values that are fed: the very nodes, and the very other weights."""
    if (a.inputs, a.outputs, a.weights) != (b.inputs, b.outputs, b.weights) or len(a.nodes) != len(b.nodes):
        return False
    are_fixed_alike = all(weight is b.weights[name] for name, weight in a.weights.items() if name not in fed)
    return are_fixed_alike and all(map(is_, a.nodes, b.nodes))


def run_outputs(graph: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
    """The outputs of a graph by name. Raises RunError."""
    return Sessions(runner).open(graph).outputs(inputs)


def compare_outputs(a: LayerGraph, b: LayerGraph, inputs: Mapping[str, Array], runner: Runner) -> float:
    """How far the outputs of `a` are from those of `b`, relative to the largest of each. Raises RunError."""
    sessions = Sessions(runner)
    return deviation(sessions.open(a).outputs(inputs), sessions.open(b).outputs(inputs))
