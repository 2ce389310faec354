"""What graphs compute, and how far the outputs of one are from those of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import is_

from mal_graph.graph import Array, LayerGraph
from mal_graph.network import fed_weights
from mal_graph.protocols import Runner, Session
from mal_graph.symmetry import deviation


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


class Sessions:
    """Opens graphs; those that differ in nothing but the weights that are fed share a session, as a merge and its base
    do: to open one takes several times as long as a run of a small model."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.opened: list[Runnable] = []  # with no weights: these are held while they are used

    def open(self, graph: LayerGraph) -> Runnable:
        """A graph ready to run. Raises RunError."""
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
