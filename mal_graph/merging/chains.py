"""Chains of equal blocks: the part of a network that repeats, cut into its repetitions.

A network is cut where all that is read further on is one tensor, the stream, beside what all blocks share: masks,
tables, positions. Between two cuts lies a segment; segments are equal that consist of equal operators with weights of
equal shapes, wired alike. The chain is the longest run of segments that repeats, of one segment each or of several.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from mal_graph.brief import Brief
from mal_graph.errors import MatchError
from mal_graph.graph import LayerGraph, Node, needed_nodes
from mal_graph.network import data_dependent

LONGEST = 64  # segments of a block
MOST_OPEN, MOST_SHARED = 32, 64  # tensors beside a cut, and sets of such that are tried
NOTHING_REPEATS = "no part of it repeats: there are no equal blocks to cut out"


@dataclass(frozen=True, repr=False)
class Chain(Brief):
    """The equal blocks of a network, one behind the other.

    Attributes:
        graph: the network.
        streams: what is read by the first block, by the second..., and what the last one gives.
        shared: what blocks read beside the stream, in the order in which it is computed.
    """

    graph: LayerGraph
    streams: tuple[str, ...]
    shared: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.streams) - 1

    @cached_property
    def front(self) -> list[Node]:
        """The operators before the first block, and those of what all blocks share."""
        return needed_nodes(self.graph, [self.streams[0], *self.shared])

    @cached_property
    def back(self) -> list[Node]:
        """The operators behind the last block."""
        outputs = [value.name for value in self.graph.outputs]
        return needed_nodes(self.graph, outputs, {self.streams[-1], *self.shared})

    def block(self, number: int) -> list[Node]:
        """The operators of one block."""
        known = {self.streams[number], *self.shared}
        return needed_nodes(self.graph, [self.streams[number + 1]], known)

    def form(self) -> Hashable:
        """What all of its blocks are: two chains of one form can be mixed."""
        return form_of(self.graph, self.block(0), self.streams[0], self.shared)


def find_chain(graph: LayerGraph) -> Chain:
    """The chain of equal blocks that makes up most of a network. Raises MatchError where nothing repeats."""
    found: list[tuple[int, int, Chain]] = []
    for shared, streams in cuts(graph).items():
        forms = [
            form_of(graph, needed_nodes(graph, [after], {before, *shared}), before, shared)
            for before, after in pairwise(streams)
        ]
        for start, period, count in repeats(forms):
            chain = Chain(graph, tuple(streams[start : start + period * count + 1 : period]), shared)
            size = sum(len(chain.block(number)) for number in range(len(chain)))
            found.append((size, -period, chain))
    if not found:
        raise MatchError(f"{graph.name} cannot be cut into slices: {NOTHING_REPEATS}")
    return max(found, key=lambda one: one[:2])[2]


def cuts(graph: LayerGraph) -> dict[tuple[str, ...], list[str]]:
    """The tensors at which a network can be cut, in order, by what all of them may have beside them further on."""
    opened = list(open_tensors(graph))
    beside = Counter(tuple(name for name in held if name != one) for held in opened for one in held)
    found: dict[tuple[str, ...], list[str]] = {}
    for shared, count in beside.most_common(MOST_SHARED):
        own = set(shared)
        first = next(place for place, held in enumerate(opened) if own <= held.keys()) if count > 1 else len(opened)
        alone = [held.keys() - own for held in opened[first:]]
        streams = list(dict.fromkeys(next(iter(left)) for left in alone if len(left) == 1))
        if len(streams) > 2:
            found[shared] = streams
    return found


def open_tensors(graph: LayerGraph) -> Iterator[dict[str, None]]:
    """Behind each operator what is made by then and read further on, in the order in which it is made; nothing is told
    of bodies, and where it is much."""
    live = data_dependent(graph) - graph.inner
    last = {name: len(graph.nodes) for name in graph.output_names}
    for index, node in reversed(list(enumerate(graph.nodes))):
        for name in node.reads:
            last.setdefault(name, index)
    held = dict.fromkeys(value.name for value in graph.inputs if value.name in live and value.name in last)
    for index, node in enumerate(graph.nodes):
        held = {name: None for name in (*held, *node.outputs) if name in live and last.get(name, -1) > index}
        if len(held) <= MOST_OPEN and not node.body:
            yield held


def repeats(forms: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """The longest runs of repetitions of each period: where one starts, its period and how often it is repeated."""
    found = []
    for period in range(1, min(LONGEST, len(forms) // 2) + 1):
        run, best = 0, (0, 0)
        for place in range(period, len(forms) + 1):
            if place < len(forms) and forms[place] == forms[place - period]:
                run += 1
                continue
            best = max(best, (run, -(place - run - period)))
            run = 0
        if best[0] >= period:
            found.append((-best[1], period, best[0] // period + 1))
    return found


def form_of(graph: LayerGraph, nodes: Sequence[Node], stream: str, shared: Collection[str]) -> Hashable:
    """Operators, weights' shapes and wiring of a part of a network, without any names."""
    known: dict[str, Hashable] = {stream: "stream", **{name: ("shared", i) for i, name in enumerate(shared)}}
    listed: list[Hashable] = []
    for place, node in enumerate(nodes):
        inputs = tuple(known.get(name) or stored_form(graph, name) for name in node.reads)
        attributes = tuple(sorted((key, repr(value)) for key, value in node.attributes.items()))
        listed.append((node.op, attributes, inputs, len(node.outputs)))
        known |= {name: (place, slot) for slot, name in enumerate(node.outputs) if name}
    return tuple(listed)


def stored_form(graph: LayerGraph, name: str) -> Hashable:
    """The shape and type of a weight, and what a tensor holds that is none: a length, an axis."""
    weight = graph.weights.get(name)
    if weight is None:
        return name  # an input of the network
    is_number = not weight.is_float and weight.size <= LONGEST
    return (weight.shape, weight.dtype.name, repr(weight.read().tolist()) if is_number else "")
