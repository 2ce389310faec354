"""The bodies that operators run, among the other operators of a graph (see `operators.control_flow`)."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mal_graph.errors import RunError
from mal_graph.graph import LayerGraph, Node, bodies_of, once_per_graph, weight_of
from mal_graph.operators import carried_into, control_of, outputs_of_run, row_of

TRUTHS = "taken/then", "taken/else"  # weights that say which branch of an If is taken
Choices = Mapping[str, int]  # which branch is taken, by the first output of an If


@dataclass(frozen=True)
class Body:
    """A body and the operators in it, in order.

    Attributes:
        key: the attribute of the operator that holds it in a file.
        begin: the node that gives a run its inputs; None where a run has none.
        outputs: what it gives to the operator that runs it, conditions first.
    """

    name: str
    key: str
    begin: Node | None
    items: "tuple[Node | Run, ...]"
    outputs: tuple[str, ...]

    @property
    def nodes(self) -> Iterator[Node]:
        """All of its operators, in order, but the one that begins it."""
        yield from nodes_of(self.items)

    @property
    def made(self) -> frozenset[str]:
        """What its own operators make."""
        ends = (item if isinstance(item, Node) else item.end for item in self.items)
        return frozenset(name for end in ends for name in end.outputs)


@dataclass(frozen=True)
class Run:
    """An operator with the bodies that it runs; `inputs` is what it is given in a file."""

    end: Node
    bodies: tuple[Body, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        begin = self.bodies[0].begin
        return self.end.inputs[: control_of(self.end).steering] if begin is None else begin.inputs[: len(begin.outputs)]


def nested(nodes: Sequence[Node]) -> "list[Node | Run]":
    """The operators outside of all bodies, in order, those that run bodies with them."""
    inside: dict[str, list[Node | Run]] = {"": []}
    for node, body in zip(nodes, bodies_of(nodes), strict=True):
        item: Node | Run = node
        if node.runs:
            item = Run(node, tuple(body_of(node, place, inside.pop(name, [])) for place, name in enumerate(node.runs)))
        inside.setdefault(body, []).append(item)
    return inside[""]


def body_of(end: Node, place: int, items: "list[Node | Run]") -> Body:
    """One body of the operator that ends it."""
    control, begin = control_of(end), None
    if control.begin:
        begin = next((item for item in items if isinstance(item, Node) and item.op == control.begin), None)
        if begin is None:
            raise RunError(f"a part of {end.title} cannot be run alone")
    own = tuple(item for item in items if item is not begin)
    return Body(end.runs[place], control.keys[place], begin, own, outputs_of_run(end, place))


def nodes_of(items: "Sequence[Node | Run]") -> Iterator[Node]:
    """All operators of a list, those of bodies before the one that runs them."""
    for item in items:
        if isinstance(item, Node):
            yield item
            continue
        for body in item.bodies:
            yield from () if body.begin is None else (body.begin,)
            yield from body.nodes
        yield item.end


class Placed(NamedTuple):
    """A body and the operator that runs it."""

    end: Node
    body: Body

    def __str__(self) -> str:
        if control_of(self.end).begin:
            return f"the body of {self.end.title}"
        return f"branch {self.body.key} of {self.end.title}"


def find_bodies(graph: LayerGraph) -> dict[str, Placed]:
    """All bodies by name, outer ones first."""
    waiting = deque(item for item in nested(graph.nodes) if isinstance(item, Run))
    bodies: dict[str, Placed] = {}
    while waiting:
        run = waiting.popleft()
        for body in run.bodies:
            bodies[body.name] = Placed(run.end, body)
            waiting += (item for item in body.items if isinstance(item, Run))
    return bodies


@once_per_graph
def find_carried(graph: LayerGraph) -> frozenset[str]:
    """The tensors in bodies that depend on what a run gives to the next one."""
    carried = {name for node in graph.nodes if node.runs for name in carried_into(node)}
    for node in graph.nodes if carried else ():
        if node.body and not carried.isdisjoint(node.reads):
            carried.update(filter(None, node.outputs))
    return frozenset(carried)


def with_branches(graph: LayerGraph, choices: Choices) -> LayerGraph:
    """The graph with the branches of some Ifs taken in any case."""
    nodes = list(graph.nodes)
    for name, place in choices.items():
        index = graph.producer[name]
        nodes[index] = nodes[index].with_input(0, TRUTHS[place])
    truths = {name: weight_of(name, np.array(place == 0)) for place, name in enumerate(TRUTHS)}
    return replace(graph, nodes=tuple(nodes), weights={**graph.weights, **truths}) if choices else graph


def choices_of(bodies: Mapping[str, Placed], name: str) -> dict[str, int]:
    """The branches to be taken so that a body is run, those around it included."""
    choices: dict[str, int] = {}
    while name in bodies:
        end = bodies[name].end
        if not control_of(end).begin:
            choices[next(filter(None, end.outputs))] = end.runs.index(name)
        name = end.body
    return choices


def passing_bodies(graph: LayerGraph) -> frozenset[str]:
    """The branches of Ifs all of whose branches give the same tensor, with axes of length one put in or taken out: they
    are right for whatever arrives, in any order of units, whether a run takes them or not."""
    passed: dict[str, list[tuple[str, ...] | None]] = {}
    named: dict[str, tuple[str, ...]] = {}
    for end, body in find_bodies(graph).values():
        passed.setdefault(end.name, []).append(passed_by(body, graph))
        named[end.name] = end.runs
    return frozenset(
        name for end, sources in passed.items() if len({*sources}) == 1 and None not in sources for name in named[end]
    )


def passed_by(body: Body, graph: LayerGraph) -> tuple[str, ...] | None:
    """The tensors from outside that a body gives, with other axes of length one at most; None where it gives anything
    else."""
    known, sources = {*graph.weights}, dict[str, str]()
    for item in body.items:
        row = None if isinstance(item, Run) else row_of(item)
        if row is None or isinstance(item, Run):
            return None
        if row.reads_shape_only or all(name in known for name in item.inputs if name):
            known.update(item.outputs)
        elif row.moves and (row.keeps_axes or row.puts_ones):
            sources[item.outputs[0]] = sources.get(item.inputs[0], item.inputs[0])
        else:
            return None
    given = tuple(sources.get(name, name) for name in body.outputs)
    return given if body.begin is None and known.isdisjoint(given) else None
