"""Names for positions: which indices of which model inputs and outputs stand at each position of a weight's axes.

Two networks can take the same inputs and read them in another order: columns concatenated the other way round, images
flattened channels last, features picked by stored indices, token ids looked up in a table. The order in which an axis
is stored then says nothing. So a network is run on labels once more, with an atom for every index of its inputs and
outputs; along windows (convolution, pooling, resizing) an index is that of the axis that it slides over, at the length
that the axis has there. The name of a position is the set of indices that reach it: those tied to it, else those of the
blocks it belongs to, else those of what belongs to it. A table that is looked up by an input has the input's values for
names. Positions of two networks correspond to each other where their names are equal.

Labels lose an index that is cut out by itself, and the order of an axis that windows slide over. So what only arranges
the entries of the inputs, and what only arranges entries for the outputs, is run on numbers (see `arrangements`), and
the taps of a window are named by the axis that it slides over: a map that was turned before a convolution has others.

Chosen: a second run on labels. Refused: atoms on the inputs in the run that finds the groups - every product of a
hidden axis with one of theirs would be a block to search through, for axes that never move.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import LayerGraph, Node, Value
from mal_graph.network import Parameter, Probe, find_masks
from mal_graph.operators import BATCH, ROWS, GroupState, Label, Pin, Row, Wiring, row_of
from mal_graph.symmetry.arrangements import (
    Arrangement,
    Reach,
    arrange,
    composed,
    live_inputs,
    reaching,
    traced_back,
    unmoved,
)
from mal_graph.symmetry.groups import AxisGroups
from mal_graph.symmetry.interchangeable import united
from mal_graph.symmetry.links import Hashes, Ints, distinct, joined, mixed
from mal_graph.symmetry.lookups import looked_up_values
from mal_graph.symmetry.tracing import Axis, Tracing, label_weights, new_tracing, trace_node

OF_THE_MODEL = Pin(GroupState.PINNED, "an index of the model's own inputs or outputs")
Names = NDArray[np.uint64]
AxisLabel = Ints | Pin | None


@dataclass(frozen=True)
class PositionNames:
    """Names for the positions on stored axes, comparable between networks.

    Attributes:
        by_axis: by (tensor, axis) a number for each position; 0 where it has no name.
    """

    by_axis: Mapping[Axis, Names] = field(default_factory=dict)

    def on(self, tensor: str, axis: int | None, size: int) -> Names:
        """The names along an axis of a length."""
        names = None if axis is None else self.by_axis.get((tensor, axis))
        return np.zeros(size, np.uint64) if names is None else names


def name_positions(
    graph: LayerGraph,
    groups: AxisGroups,
    called: Mapping[str, str] | None = None,
    batched: Collection[str] | None = None,
    table: Mapping[str, Row] | None = None,
    *,
    is_fine: bool = False,
) -> PositionNames:
    """Name the positions of every axis of the weights of a network.

    Args:
        groups: its axis groups, with the probe run that they were found by.
        called: other names for its inputs and outputs: those of the network it is compared with.
        batched: the inputs whose first axis holds samples; those where it is dynamic if None.
        is_fine: tell apart what is made of one index by different operators, such as its sine and its cosine.
    """
    applied = (*groups.parameters, *find_masks(graph))
    axes = {(p.tensor, axis): None for p in applied for axis in p.axes if axis is not None}
    if batched is None:
        batched = [value.name for value in graph.inputs if not is_fixed_batch(value)]
    learned = {parameter.tensor for parameter in applied if np.prod(parameter.shape) > 1}
    namer = Namer(called or {}, batched, is_fine, learned)
    tracing = new_tracing(graph, namer.wiring)
    for value in graph.inputs:
        shape = groups.probed.shapes.get(value.name, ())
        tracing.labels[value.name] = namer.label_input(value.name, shape)
    label_weights(tracing, graph, groups.probed, axes)
    table = ROWS if table is None else table
    parameters: dict[int, list[Parameter]] = {}
    for parameter in groups.parameters:
        parameters.setdefault(parameter.node, []).append(parameter)
    for index, node in enumerate(graph.nodes):
        row, own = row_of(node, table), parameters.get(index, [])
        is_weighted = any(parameter.is_weight for parameter in own)
        trace_node(tracing, graph, groups.probed, index, row, is_weighted=is_weighted)
        namer.name_arranged(tracing, graph, groups.probed, node, row, has_parameters=bool(own))
        namer.name_outputs(tracing, node)
        namer.name_made(tracing, graph, groups.probed, node, row)
        namer.name_looked_up(tracing, graph, groups, node, row)
        namer.name_taps(tracing, graph, groups.probed, node, row, own)
    for value in graph.outputs:
        namer.name_result(value.name, tracing.labels.get(value.name))
        arranged = traced_back(graph, groups.probed, value.name, table, parameters.keys())
        if arranged is not None and value.name not in arranged.sources:
            namer.name_before(tracing, value.name, arranged)
    component, links = united(namer.wiring, tracing.owners)
    names = names_of_units(component, distinct(links.unit, links.block), *namer.tokens)
    owned = {(tensor, axis): slice(start, start + size) for tensor, axis, start, size in tracing.owners}
    return PositionNames({axis: told_apart(names[component[atoms]]) for axis, atoms in owned.items()})


class Namer:
    """Collects which atoms are which indices of a model's inputs and outputs.

    Args:
        learned: the stored tensors of several numbers whose values tell nothing: they differ between networks, if only
            by the order of units.
    """

    def __init__(
        self, called: Mapping[str, str], batched: Collection[str], is_fine: bool, learned: Collection[str]
    ) -> None:
        self.called = called
        self.batched = batched
        self.is_fine = is_fine
        self.learned = learned
        self.arranged: dict[str, Arrangement] = {}  # what holds nothing but entries of inputs
        self.wiring = Wiring()
        self.runs: list[tuple[int, int, int]] = []  # first atom, how many, and a hash of the axis they are indices of
        self.named: list[tuple[Ints, Hashes]] = []

    @property
    def tokens(self) -> tuple[Ints, Hashes]:
        """Atoms, and for each a number for an index that it is."""
        atoms = [np.zeros(0, np.int64), *(atoms for atoms, _ in self.named)]
        return np.concatenate(atoms), np.concatenate([np.zeros(0, np.uint64), *(number for _, number in self.named)])

    def label_input(self, name: str, shape: tuple[int, ...]) -> Label:
        """The label of a model input: an atom for every index of every axis but that of the samples."""
        self.arranged[name] = unmoved(name, shape)
        axis_labels = [
            BATCH if self.is_samples(name, axis, shape) else self.indices(size, self.input_root(name, axis))
            for axis, size in enumerate(shape)
        ]
        return self.wiring.label_of(shape, axis_labels)

    def is_samples(self, name: str, axis: int, shape: Sequence[int]) -> bool:
        """Whether an axis of an input holds samples."""
        return axis == 0 and name in self.batched and len(shape) > 1

    def input_root(self, name: str, axis: int) -> int:
        return root_of("input", self.called.get(name, name), axis)

    def indices(self, size: int, root: int) -> Ints:
        """New atoms that are the indices of an axis, as long as it is here."""
        atoms = self.wiring.fresh(size)
        if root:
            self.runs.append((int(atoms[0]), size, root))
            self.named.append((atoms, mixed(root, size, np.arange(size))))
            self.wiring.pin(atoms, OF_THE_MODEL)
        return atoms

    def name_arranged(
        self,
        tracing: Tracing,
        graph: LayerGraph,
        probed: Probe,
        node: Node,
        row: Row | None,
        *,
        has_parameters: bool,
    ) -> None:
        """Label what a node arranges of the inputs' entries by the indices that these have."""
        if not self.arranged.keys() >= set(live_inputs(graph, probed, node)):
            return
        for name, last in (arrange(graph, probed, node, row, has_parameters=has_parameters) or {}).items():
            arranged = composed(self.arranged, last)
            self.arranged[name] = arranged
            if arranged.is_moved:
                shape = arranged.entries.shape
                axis_labels = [self.arranged_axis(arranged, axis) for axis in range(len(shape))]
                tracing.labels[name] = self.wiring.label_of(shape, axis_labels)

    def arranged_axis(self, arranged: Arrangement, along: int) -> AxisLabel:
        """The label of an axis of what is arranged: new atoms that are the indices that reach each place."""
        size = arranged.entries.shape[along]
        if size < 2:
            return None
        holds_samples, telling = False, []
        for name, shape in arranged.sources.items():
            for axis in range(len(shape)):
                reached = reaching(arranged, name, axis, along)
                if reached.is_alike:
                    continue
                if self.is_samples(name, axis, shape):
                    holds_samples = True
                else:
                    telling.append((self.input_root(name, axis), reached))
        if holds_samples and not telling:
            return BATCH
        atoms = self.indices(size, 0)
        for root, reached in telling:
            self.named.append((atoms[reached.places], mixed(root, reached.sizes[1], reached.indices)))
        if len(telling) == 1 and telling[0][1].has_so_many(1):
            self.runs.append((int(atoms[0]), size, root_in_order(*telling[0])))
        return atoms

    def name_taps(
        self, tracing: Tracing, graph: LayerGraph, probed: Probe, node: Node, row: Row | None, own: Sequence[Parameter]
    ) -> None:
        """Name the taps of a window by the axes that it slides over."""
        weight = next((parameter for parameter in own if parameter.is_weight), None)
        if row is None or not row.has_window or weight is None or not (live := live_inputs(graph, probed, node)):
            return
        data, label = tracing.labels[live[0]], tracing.labels[weight.tensor]
        for place, axis in enumerate(weight.axes[2:], 2):
            root = self.root_on(data, place) if place < len(data.shape) else 0
            taps = self.wiring.axis_label(label, axis) if axis is not None and root else None
            if isinstance(taps, np.ndarray):
                self.named.append((taps, mixed(root_of("taps", "", 0), root, len(taps), np.arange(len(taps)))))

    def name_before(self, tracing: Tracing, output: str, arranged: Arrangement) -> None:
        """Name the indices of the tensors whose entries an output arranges by the places that they take in it."""
        called = self.called.get(output, output)
        is_batch = {axis for axis, pin in tracing.labels[output].pins.items() if pin is BATCH}
        for name, shape in arranged.sources.items():
            label = tracing.labels.get(name)
            for axis in range(len(shape)):
                atoms = self.wiring.axis_label(label, axis) if label is not None else None
                if not isinstance(atoms, np.ndarray):
                    continue
                for along in set(range(arranged.entries.ndim)) - is_batch:
                    reached = reaching(arranged, name, axis, along).turned()
                    if not reached.is_alike:
                        root = root_of("output", called, along)
                        self.named.append((atoms[reached.places], mixed(root, reached.sizes[1], reached.indices)))

    def name_outputs(self, tracing: Tracing, node: Node) -> None:
        """Give the axes along which a node slides a window atoms of their own: indices of the same axis."""
        first = next((name for name in node.inputs if name in tracing.labels), None)
        for name in node.outputs:
            label = tracing.labels.get(name)
            if name in self.arranged or label is None or all(pin is BATCH for pin in label.pins.values()):
                continue
            source = tracing.labels.get(first) if first is not None else None
            for axis, pin in label.pins.items():
                if pin is not BATCH:
                    label = self.wiring.with_axis_label(label, axis, self.slid(label, axis, source), label.shape[axis])
            tracing.labels[name] = label

    def name_made(self, tracing: Tracing, graph: LayerGraph, probed: Probe, node: Node, row: Row | None) -> None:
        """Give what a node makes of each index by itself atoms of their own, where they are to be told apart."""
        live = live_inputs(graph, probed, node)
        if not self.is_fine or row is None or row.moves or len(live) != 1:
            return
        if not (row.keeps_axes or row.by_element):
            return
        made = made_by(graph, node, self.learned)
        for name in node.outputs:
            if (label := tracing.labels.get(name)) is None:
                continue
            self.arranged.pop(name, None)
            for axis, size in enumerate(label.shape):
                if root := self.root_on(label, axis):
                    atoms = self.indices(size, int(mixed(root, made)[0]) | 1)
                    label = self.wiring.with_axis_label(label, axis, atoms, size)
            tracing.labels[name] = label

    def slid(self, label: Label, axis: int, source: Label | None) -> Ints:
        """Atoms for an axis along which a window slid over that of `source`."""
        is_known = source is not None and len(source.shape) == len(label.shape)
        return self.indices(label.shape[axis], self.root_on(source, axis) if source is not None and is_known else 0)

    def root_on(self, label: Label, axis: int) -> int:
        """The axis of a model input that the atoms along an axis are indices of; 0 if there is none, or several."""
        part = label.part_on(axis)
        if part is None or part.size != part.shape[axis] or not self.runs:
            return 0
        firsts = np.array([first for first, _, _ in self.runs])
        run = np.maximum(np.searchsorted(firsts, part.ravel(), side="right") - 1, 0)
        inside = part.ravel() < np.array([first + size for first, size, _ in self.runs])[run]
        roots = {self.runs[number][2] for number in np.unique(run[inside]).tolist()}
        return roots.pop() if len(roots) == 1 else 0

    def name_result(self, name: str, label: Label | None) -> None:
        """Name the indices of a model output."""
        for axis in range(len(label.shape) if label is not None else 0):
            atoms = self.wiring.axis_label(label, axis) if label is not None else None
            if isinstance(atoms, np.ndarray):
                root = root_of("output", self.called.get(name, name), axis)
                self.named.append((atoms, mixed(root, len(atoms), np.arange(len(atoms)))))

    def name_looked_up(
        self, tracing: Tracing, graph: LayerGraph, groups: AxisGroups, node: Node, row: Row | None
    ) -> None:
        """Name the entries of a table by the values of the input that looks them up."""
        if row is None or row.table_axis is None or groups.probed.values.get(node.inputs[1]) is not None:
            return
        label = tracing.labels[node.inputs[0]]
        axis = row.table_axis(node) % max(1, len(label.shape))
        atoms = self.wiring.axis_label(label, axis) if label.shape else None
        if not isinstance(atoms, np.ndarray):
            return
        found = looked_up_values(graph, node.inputs[1], len(atoms))
        if found is not None:
            name, values, entries = found
            root = root_of("value", self.called.get(name, name), 0)
            self.named.append((atoms[entries], mixed(root, values)))


def is_fixed_batch(value: Value) -> bool:
    """Whether an input's first axis has a length of its own, so that it need not hold samples."""
    return value.shape is not None and len(value.shape) > 0 and isinstance(value.shape[0], int)


def made_by(graph: LayerGraph, node: Node, learned: Collection[str]) -> int:
    """A number for what an operator makes of one live input, with its settings and the stored operands that nobody
    learned."""
    settings = [graph.weights.get(name) if name not in learned else None for name in node.inputs]
    stored = [b"" if weight is None else weight.read().tobytes() for weight in settings]
    plain = sorted((key, held) for key, held in node.attributes.items() if isinstance(held, int | float | str | tuple))
    return int.from_bytes(hashlib.blake2b(repr((node.op, plain, stored)).encode(), digest_size=8).digest(), "big")


def root_in_order(root: int, reached: Reach) -> int:
    """A number for an axis of which one index of a source reaches each: `root` itself where all are in their places."""
    order = reached.indices
    if np.array_equal(order, np.arange(reached.sizes[1])):
        return root
    return int(mixed(root, np.add.reduce(mixed(np.arange(len(order)), order)))[0]) | 1


def root_of(kind: str, name: str, axis: int) -> int:
    """A number for an axis of an input or output, never 0."""
    return int.from_bytes(hashlib.blake2b(repr((kind, name, axis)).encode(), digest_size=8).digest(), "big") | 1


def names_of_units(component: Ints, links: Sequence[Ints], atoms: Ints, numbers: Hashes) -> Hashes:
    """The name of each unit: a hash of the indices that it is, of those that belong to it, of those of the blocks it
    belongs to, or of what belongs to it at all; 0 where none of these is known."""
    unit, block = links
    count = int(component.max(initial=-1)) + 1
    known = distinct_pairs(component[atoms], numbers)
    known = spread(known, block, unit, count)
    known = spread(known, unit, block, count)
    known = spread(known, block, unit, count)
    names = np.zeros(count, np.uint64)
    np.add.at(names, known[0], mixed(known[1]))
    return names


def spread(known: tuple[Ints, Hashes], targets: Ints, sources: Ints, count: int) -> tuple[Ints, Hashes]:
    """What is known of units, and what the units without anything known have from their sources, and these from
    theirs."""
    is_known = np.zeros(count, bool)
    is_known[known[0]] = True
    rows = ~is_known[targets]
    order = np.argsort(sources[rows], kind="stable")
    targets, sources = targets[rows][order], sources[rows][order]
    while True:
        row, link = joined(known[0], sources)
        more = distinct_pairs(np.concatenate([known[0], targets[link]]), np.concatenate([known[1], known[1][row]]))
        if len(more[0]) == len(known[0]):
            return known
        known = more


def distinct_pairs(units: Ints, numbers: Hashes) -> tuple[Ints, Hashes]:
    """Each pair once, ordered by unit."""
    order = np.lexsort((numbers, units))
    units, numbers = units[order], numbers[order]
    new = np.ones(len(units), bool)
    new[1:] = (units[1:] != units[:-1]) | (numbers[1:] != numbers[:-1])
    return units[new], numbers[new]


def told_apart(names: Hashes) -> Names:
    """The names along an axis; none where they tell nothing apart: one zero that takes no more room."""
    return names if len(np.unique(names)) > 1 else np.broadcast_to(names.dtype.type(0), names.shape)
