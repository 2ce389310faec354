"""Segments: a network run a few operators at a time, so that the weights of few are in memory at once."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, Value
from mal_graph.protocols import Runner

SEGMENT_BYTES = 1 << 26  # of weights and activations; an operator that needs more is a segment of its own


@dataclass(frozen=True)
class Segment:
    """Some operators of a network.

    Attributes:
        own: the indices of those that deal with data: each is in one segment.
        nodes: the indices of all, with those that compute what the first need of stored tensors and of sizes.
        kept: the tensors made before or here that later segments read.
        leaving: those of them that are made here, with the outputs of the network.
    """

    own: tuple[int, ...]
    nodes: tuple[int, ...]
    kept: frozenset[str]
    leaving: frozenset[str]


def cut(graph: LayerGraph, live: AbstractSet[str], shapes: Mapping[str, tuple[int, ...]], limit: int) -> list[Segment]:
    """A network in segments that need about `limit` bytes of weights and activations.

    `live`: the tensors that are handed on; others are computed again wherever they are needed.
    """
    parts = list(cut_nodes(graph, live, shapes, limit))
    wholes = [with_support(graph, live, part) for part in parts]
    segments: list[Segment] = []
    later: set[str] = set()  # what the segments behind read
    for own, nodes in zip(reversed(parts), reversed(wholes), strict=True):
        made = {name for index in own for name in graph.nodes[index].outputs if name}
        kept = frozenset(later - made)
        segments.append(Segment(own, nodes, kept, frozenset(made & (later | graph.output_names))))
        later = (later - made) | {name for index in nodes for name in graph.nodes[index].reads}
    return segments[::-1]


def cut_nodes(
    graph: LayerGraph, live: AbstractSet[str], shapes: Mapping[str, tuple[int, ...]], limit: int
) -> Iterator[tuple[int, ...]]:
    """The operators that give live tensors, cut where a segment would need more bytes."""
    own: list[int] = []
    seen: set[str] = set()
    held = 0
    for index, node in enumerate(graph.nodes):
        if live.isdisjoint(node.outputs):
            continue
        names = {*stored_tensors(graph, live, node), *node.outputs}
        more = bytes_of(shapes, names - seen)
        if own and held + more > limit:
            yield tuple(own)
            own, seen, held, more = [], set(), 0, bytes_of(shapes, names)
        own.append(index)
        seen |= names
        held += more
    if own:
        yield tuple(own)


def bytes_of(shapes: Mapping[str, tuple[int, ...]], names: Iterable[str]) -> int:
    """How many bytes some tensors take."""
    return sum(4 * math.prod(shapes.get(name, ())) for name in names)


def stored_tensors(graph: LayerGraph, live: AbstractSet[str], node: Node) -> set[str]:
    """The stored tensors that an operator reads, some of them through operators that data do not reach."""
    nodes = [node, *(graph.nodes[index] for index in support_of(graph, live, [node]))]
    return {name for one in nodes for name in one.reads if name in graph.weights}


def support_of(graph: LayerGraph, live: AbstractSet[str], nodes: Iterable[Node]) -> set[int]:
    """The operators that compute what some operators read and no data reach."""
    support: set[int] = set()
    waiting = list(nodes)
    while waiting:
        for name in waiting.pop().reads:
            index = graph.producer.get(name)
            if index is not None and name not in live and index not in support:
                support.add(index)
                waiting.append(graph.nodes[index])
    return support


def with_support(graph: LayerGraph, live: AbstractSet[str], own: Sequence[int]) -> tuple[int, ...]:
    """Operators with those that compute what they read and no data reach, in order."""
    support = support_of(graph, live, (graph.nodes[index] for index in own))
    return tuple(sorted({*own, *support}))


class Operators:
    """Some operators of a graph, ready to run on tensors like those of an example."""

    def __init__(
        self,
        graph: LayerGraph,
        nodes: Sequence[Node],
        runner: Runner,
        given: Mapping[str, Array],
        fed: Collection[str],
        read: Iterable[str],
        deadline: float | None,
    ) -> None:
        self.deadline = deadline
        made = {name for node in nodes for name in node.outputs}
        used = {name for node in nodes for name in node.reads} - made
        self.entering = sorted(used & given.keys())
        self.fed = sorted(used & set(fed))
        inputs = [Value(name, given[name].dtype.name, given[name].shape) for name in self.entering]
        stored = {name: graph.weights[name] for name in used if name in graph.weights}
        part = replace(graph, nodes=tuple(nodes), inputs=tuple(inputs), outputs=(), weights=stored)
        wanted = [name for name in read if name in made]
        self.session = runner.open(part, read=wanted, variable=self.fed, deadline=deadline)
        self.read = [name for name in wanted if self.session.types.get(name)]

    def run(self, given: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors that can be read. Raises RunError."""
        entering = {name: given[name] for name in self.entering}
        return self.session.run(
            entering, {name: weights[name] for name in self.fed}, read=self.read, deadline=self.deadline
        )


def carried_on(segment: Segment, given: Mapping[str, Array], made: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors that operators behind a segment read. Raises RunError where one is no plain tensor."""
    for name in sorted(segment.leaving):
        if name not in made:
            raise RunError(f"{name!r} cannot be handed on")
    kept = {name: values for name, values in given.items() if name in segment.kept}
    return {**kept, **{name: made[name] for name in segment.leaving}}
