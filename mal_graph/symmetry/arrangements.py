"""Which entry of which tensor stands where, behind operators that only arrange entries.

Slices, concatenations, gathers by stored indices, transposed flattenings: an operator is run by itself, twice, on
numbers that stand for the entries of its inputs. It arranges them if both results hold them in the same places.

Chosen: to run the operator, so that every one that arranges is known, whatever it is called and however its indices are
given, single entries and reversed axes included. Refused: a second rule for each operator beside the one for its axes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mal_graph import registry
from mal_graph.errors import RunError
from mal_graph.graph import Array, LayerGraph, Node, Value, weight_of
from mal_graph.network import Probe
from mal_graph.operators import Row, row_of
from mal_graph.symmetry.links import Ints

NOWHERE = -1  # of an entry that is zero, and no entry of an input
MOST_ENTRIES = 1 << 22  # whole numbers that float32 still tells apart, with room


@dataclass(frozen=True)
class Arrangement:
    """Entries of some tensors in other places.

    Attributes:
        sources: the tensors whose entries these are, with their shapes.
        entries: for each place the number of the entry, counted through the sources one after the other.
    """

    sources: Mapping[str, tuple[int, ...]]
    entries: Ints

    @property
    def is_moved(self) -> bool:
        """Whether anything is in another place than in a single source."""
        shapes = list(self.sources.values())
        return shapes != [self.entries.shape] or not np.array_equal(self.entries.ravel(), np.arange(self.entries.size))

    def starts(self) -> dict[str, int]:
        """The number of each source's first entry."""
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self.sources.values()]
        return dict(zip(self.sources, np.cumsum([0, *sizes]).tolist(), strict=False))


def unmoved(name: str, shape: tuple[int, ...]) -> Arrangement:
    """A tensor as it is."""
    return Arrangement({name: shape}, np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape))


def live_inputs(graph: LayerGraph, probed: Probe, node: Node) -> list[str]:
    """The inputs of a node that are neither stored nor small integers which the probe run showed."""
    return list(dict.fromkeys(n for n in node.inputs if n and n not in graph.weights and probed.values.get(n) is None))


def arrange(
    graph: LayerGraph, probed: Probe, node: Node, row: Row | None, *, has_parameters: bool
) -> dict[str, Arrangement] | None:
    """What a node arranges of its live inputs, by output; None where it does anything else.

    An operator that acts on each entry by itself, or along an axis without moving it, leaves all in place.
    """
    live = live_inputs(graph, probed, node)
    shapes = {name: probed.shapes.get(name) for name in (*live, *node.outputs) if name}
    if row is None or not live or node.captures or None in shapes.values():
        return None
    known = {name: shape for name, shape in shapes.items() if shape is not None}
    sources = {name: known[name] for name in live}
    if (row.keeps_axes or row.by_element) and len(live) == 1 and known[node.outputs[0]] == sources[live[0]]:
        return {node.outputs[0]: unmoved(live[0], sources[live[0]])}
    sizes = sum(int(np.prod(shape, dtype=np.int64)) for shape in sources.values())
    if has_parameters or row.is_contraction or not 0 < sizes <= MOST_ENTRIES:
        return None
    return run_on_numbers(graph, probed, node, sources, sizes)


def run_on_numbers(
    graph: LayerGraph, probed: Probe, node: Node, sources: Mapping[str, tuple[int, ...]], sizes: int
) -> dict[str, Arrangement] | None:
    """What a node arranges, found by running it on two sets of numbers."""
    outputs = [name for name in node.outputs if name]
    constants = {
        name: graph.weights[name] if name in graph.weights else weight_of(name, probed.values[name])
        for name in node.inputs
        if name and name not in sources
    }
    alone = LayerGraph(
        graph.name,
        (node,),
        tuple(Value(name, "float32", shape) for name, shape in sources.items()),
        tuple(Value(name, "float32", probed.shapes[name]) for name in outputs),
        constants,
        graph.opsets,
    )
    numbers = np.arange(1, sizes + 1).astype(np.float32)
    rng = np.random.default_rng(0)
    others = rng.permutation(numbers) * rng.choice(np.array([-1, 1], np.float32), sizes)
    try:
        session = registry.runner().open(alone, read=outputs)
        first, second = (session.run(laid_out(values, sources), read=outputs) for values in (numbers, others))
    except RunError:
        return None
    if any(first[name].dtype.kind not in "fiub" for name in outputs):
        return None  # texts
    arranged = {}
    for name in outputs:
        places = first[name]
        entries = np.where(np.isfinite(places), places, -1).astype(np.int64) - 1
        if entries.size and (entries.min() < NOWHERE or entries.max() >= sizes):
            return None
        expected = np.where(entries >= 0, others[np.maximum(entries, 0)], 0)
        if not np.array_equal(places, entries + 1) or not np.array_equal(second[name], expected):
            return None
        arranged[name] = Arrangement(sources, entries)
    return arranged


def laid_out(numbers: Array, sources: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Numbers for the entries of every source."""
    starts = np.cumsum([0, *(int(np.prod(shape, dtype=np.int64)) for shape in sources.values())])
    return {
        name: numbers[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)
        for (name, shape), start in zip(sources.items(), starts, strict=False)
    }


def composed(before: Mapping[str, Arrangement], then: Arrangement) -> Arrangement:
    """An arrangement of what is arranged of other tensors already."""
    sources = {name: shape for source in then.sources for name, shape in before[source].sources.items()}
    starts = Arrangement(sources, np.zeros(0, np.int64)).starts()
    flat = []
    for source in then.sources:
        one = before[source]
        own, entries = one.starts(), one.entries.ravel()
        moved = np.full(entries.size, NOWHERE)
        for name, shape in one.sources.items():
            inside = (entries >= own[name]) & (entries < own[name] + int(np.prod(shape, dtype=np.int64)))
            moved[inside] = entries[inside] - own[name] + starts[name]
        flat.append(moved)
    table = np.concatenate(flat)
    return Arrangement(sources, np.where(then.entries >= 0, table[np.maximum(then.entries, 0)], NOWHERE))


def traced_back(
    graph: LayerGraph,
    probed: Probe,
    name: str,
    table: Mapping[str, Row],
    with_parameters: Collection[int],
) -> Arrangement | None:
    """The tensors that a tensor holds the entries of, as far back as they are only arranged; None if its shape is
    unknown.

    Args:
        with_parameters: the indices of the nodes that apply weights.
    """
    index, shape = graph.producer.get(name), probed.shapes.get(name)
    if index is None or shape is None:
        return None if shape is None else unmoved(name, shape)
    node = graph.nodes[index]
    arranged = arrange(graph, probed, node, row_of(node, table), has_parameters=index in with_parameters)
    if arranged is None or name not in arranged:
        return unmoved(name, shape)
    before = {source: traced_back(graph, probed, source, table, with_parameters) for source in arranged[name].sources}
    known = {source: one for source, one in before.items() if one is not None}
    return composed(known, arranged[name]) if len(known) == len(before) else unmoved(name, shape)


@dataclass(frozen=True)
class Reach:
    """Which indices of an axis of a source reach which indices of an axis of an arrangement. There may be too many of
    both for a table.

    Attributes:
        sizes: how many indices the arrangement's axis has, and the source's.
        places, indices: the pairs, each once, by place and then by index.
    """

    sizes: tuple[int, int]
    places: Ints
    indices: Ints

    @property
    def is_alike(self) -> bool:
        """Whether the same indices reach every place."""
        count, left = divmod(len(self.places), self.sizes[0])
        if left or not count:
            return not left
        rows = self.indices.reshape(-1, count)
        return bool((rows == rows[0]).all()) and self.has_so_many(count)

    def has_so_many(self, count: int) -> bool:
        """Whether so many indices reach every place."""
        return bool((np.bincount(self.places, minlength=self.sizes[0]) == count).all())

    def turned(self) -> "Reach":
        """The same, seen from the source."""
        order = np.lexsort((self.places, self.indices))
        return Reach(self.sizes[::-1], self.indices[order], self.places[order])


def reaching(arrangement: Arrangement, source: str, axis: int, along: int) -> Reach:
    """Which indices of a source's axis reach each index along an axis."""
    shape, start = arrangement.sources[source], arrangement.starts()[source]
    entries = np.moveaxis(arrangement.entries, along, 0).reshape(arrangement.entries.shape[along], -1)
    row, column = np.nonzero((entries >= start) & (entries < start + int(np.prod(shape, dtype=np.int64))))
    index = np.unravel_index(entries[row, column] - start, shape)[axis]
    pairs = np.unique(row * shape[axis] + index)
    return Reach((len(entries), shape[axis]), *np.divmod(pairs, shape[axis]))
