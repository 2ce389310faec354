"""Stored float tensors that operators apply though nobody learned them: settings, which are kept and never averaged.

Few files say what was learned. torch says it of parameters, which are taken at its word, and of numbers in the code;
its buffers may be either, the statistics of a frozen BatchNorm as well as a mask. So each kind of setting has signs
that a learned tensor does not show by chance: where it is applied, and what it holds (`SIGNS`). A single number that no
sign speaks of, stored under a name as a learned one is, counts as learned.

Chosen: kinds that lie along axes which stay - positions, frequencies, channels of an input - or along none. Refused:
all of torch's buffers, for what lies along hidden units belongs to these, and has to move with them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from mal_graph.graph import Array, Declared, LayerGraph, Node, Weight, once_per_graph
from mal_graph.network.roots import data_dependent
from mal_graph.network.telling_values import (
    are_frequencies,
    are_rotation,
    is_additive_mask,
    is_factor_mask,
    is_falling,
    is_grid,
    is_root_of_length,
    is_rotation,
    takes_out,
)
from mal_graph.operators import ParameterKind, Row, arranged_axes, row_of

CAPTURE = -1  # the input slot that a body reads by


class SettingKind(StrEnum):
    """What a setting is, as people are told."""

    SCALE = "attention scale"
    FREQUENCIES = "frequencies of a rotation"
    ROTATION = "table of a rotation"
    MASK = "mask"
    SLOPES = "slopes of distances"
    GRID = "grid of positions"
    PREPARATION = "normalisation of an input"
    NUMBER = "number written into an operator"


class Meeting(NamedTuple):
    """An operator in which what a stored tensor holds meets what depends on the inputs."""

    node: Node
    row: Row | None
    slot: int

    @property
    def out(self) -> str:
        return self.node.outputs[0]

    @property
    def is_by_element(self) -> bool:
        return self.row is not None and self.row.by_element and self.slot != CAPTURE

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies, or divides, element by element."""
        row = self.row
        return row is not None and row.slot(self.slot).kind is ParameterKind.SCALE and (row.commutes or row.divides)

    @property
    def adds(self) -> bool:
        return self.row is not None and self.row.adds and self.is_by_element

    @property
    def rotates(self) -> bool:
        return self.row is not None and self.slot != CAPTURE and self.row.slot(self.slot).rotates

    @property
    def adds_to_scores(self) -> bool:
        return self.row is not None and self.slot != CAPTURE and self.row.slot(self.slot).adds_to_scores


class UnlearnedUse(NamedTuple):
    """An operator that applies a setting to what depends on the inputs.

    Attributes:
        node: the operator.
        divides: whether it divides by the setting.
        effect: the tensor in which the setting shows: what the operator makes, or of scaled scores the shares.
    """

    node: Node
    divides: bool
    effect: str


@dataclass(frozen=True)
class Unlearned:
    """A stored tensor that nobody learned: what it is, and where it is applied."""

    tensor: str
    kind: SettingKind
    uses: tuple[UnlearnedUse, ...]


@once_per_graph
def find_unlearned(graph: LayerGraph, table: Mapping[str, Row] | None = None) -> Mapping[str, Unlearned]:
    """The stored float tensors that operators apply though nobody learned them, by name."""
    uses = Uses(graph, table)
    unlearned: dict[str, Unlearned] = {}
    for name, weight in graph.weights.items():
        if not weight.is_float or weight.scope or weight.declared is Declared.LEARNED:
            continue
        meetings = uses.meetings(name)
        if not meetings or any(meeting.slot == CAPTURE for meeting in meetings):
            continue
        kind = next((kind for kind, shows in SIGNS.items() if shows(uses, weight, meetings)), None)
        if kind is not None:
            unlearned[name] = Unlearned(name, kind, tuple(uses.use_of(meeting, kind) for meeting in meetings))
    return unlearned


@dataclass
class Uses:
    """What the stored tensors of a graph are used for."""

    graph: LayerGraph
    table: Mapping[str, Row] | None
    met: dict[str, tuple[Meeting, ...]] = field(default_factory=dict)

    def row(self, node: Node) -> Row | None:
        return row_of(node, self.table)

    @cached_property
    def live(self) -> frozenset[str]:
        """The tensors that depend on the inputs."""
        return data_dependent(self.graph)

    def meetings(self, name: str) -> tuple[Meeting, ...]:
        """Where a tensor meets what depends on the inputs, behind what computes with constants or only arranges."""
        for tensor in reversed(self.made_of(name)):
            self.met[tensor] = tuple({(one.out, one.slot): one for one in self.find_meetings(tensor)}.values())
        return self.met[name]

    def made_of(self, name: str) -> list[str]:
        """A tensor, and what computing with constants and arranging makes of it, in topological order, as far as it is
        not known yet what that meets."""
        made, waiting = set() if name in self.met else {name}, [name]
        while waiting:
            for index, slot in self.graph.consumers.get(waiting.pop(), ()):
                out = self.handed_on(index, slot) or ()
                new = {tensor for tensor in out if tensor not in made and tensor not in self.met}  # not all that is met
                made |= new
                waiting += new
        return sorted(made, key=lambda tensor: self.graph.producer.get(tensor, -1))

    def handed_on(self, index: int, slot: int) -> tuple[str, ...] | None:
        """What an operator makes of a tensor by computing with constants or arranging it; None where something that
        depends on the inputs is met."""
        node, row = self.graph.nodes[index], self.row(self.graph.nodes[index])
        is_arranged = row is not None and row.arranges and (slot == 0 or row.joins)
        if slot == CAPTURE or not (is_arranged or node.outputs[0] not in self.live):
            return None
        return () if row is not None and row.reads_shape_only else tuple(filter(None, node.outputs))

    def find_meetings(self, name: str) -> Iterator[Meeting]:
        """Where a tensor meets what depends on the inputs, where that is known of all that is made of it."""
        for index, slot in self.graph.consumers.get(name, ()):
            node, row = self.graph.nodes[index], self.row(self.graph.nodes[index])
            if row is not None and row.reads_shape_only:
                continue
            made = self.handed_on(index, slot)
            if made is None:
                yield Meeting(node, row, slot)
            for out in made or ():
                yield from self.met[out]

    def use_of(self, meeting: Meeting, kind: SettingKind) -> UnlearnedUse:
        """A use of a setting of some kind."""
        divides = meeting.row is not None and meeting.row.divides and meeting.slot > 0
        effect = self.shares_of[meeting.out] if kind is SettingKind.SCALE else meeting.out
        return UnlearnedUse(meeting.node, divides, effect)

    # --- towards a softmax

    @cached_property
    def scores(self) -> set[str]:
        """The tensors that become scores, element by element."""
        return {name for scores, _ in self.attended for name in scores}

    @cached_property
    def shares_of(self) -> dict[str, str]:
        """The tensors on the way from queries and keys to shares, each with the shares."""
        shares: dict[str, str] = {}
        for scores, out in self.attended:
            products = [node for name in scores if (node := self.product(name)) is not None]
            operands = {one for node in products for name in node.inputs for one in self.elementwise_before(name)}
            shares.update(dict.fromkeys((scores | operands) if products else (), out))
        return shares

    @cached_property
    def attended(self) -> list[tuple[set[str], str]]:
        """What becomes scores element by element, and the shares that are made of them."""
        rows = [(node, self.row(node)) for node in self.graph.nodes]
        return [
            (self.elementwise_before(node.inputs[0]), node.outputs[0])
            for node, row in rows
            if row is not None and row.shares_out
        ]

    def product(self, name: str) -> Node | None:
        """The operator that makes a tensor as the product of two that depend on the inputs; None if none does."""
        index = self.graph.producer.get(name)
        node = None if index is None else self.graph.nodes[index]
        row = None if node is None else self.row(node)
        is_product = row is not None and row.is_contraction
        return node if node is not None and is_product and self.live.issuperset(node.inputs) else None

    def elementwise_before(self, name: str) -> set[str]:
        """A tensor, and those that it is made of element by element or by arrangement."""
        before, waiting = {name}, [name]
        while waiting:
            index = self.graph.producer.get(waiting.pop())
            row = None if index is None else self.row(self.graph.nodes[index])
            if index is not None and row is not None and (row.by_element or row.arranges):
                new = {one for one in self.graph.nodes[index].inputs if one} - before
                before |= new
                waiting += new
        return before

    # --- towards an angle

    @cached_property
    def counted(self) -> set[str]:
        """The tensors that count something: made of integers that the model is given."""
        counted = {value.name for value in self.graph.inputs if "int" in value.dtype}
        for node in self.graph.nodes:
            live = [name for name in node.inputs if name in self.live]
            stored = [self.graph.weights[name] for name in node.inputs if name in self.graph.weights]
            if live and counted.issuperset(live) and not any(one.is_float and one.size > 1 for one in stored):
                counted.update(node.outputs)
        return counted

    def becomes_angle(self, name: str) -> bool:
        """Whether a tensor becomes an angle by what is computed with constants and counts alone."""
        seen, waiting = {name}, [name]
        while waiting:
            tensor = waiting.pop()
            for index, slot in self.graph.consumers.get(tensor, ()):
                node, row = self.graph.nodes[index], self.row(self.graph.nodes[index])
                if slot == CAPTURE or row is None or row.slot(slot).setting:
                    continue
                if row.reads_angles:
                    return True
                if self.keeps_angle(node, row, tensor) and not seen.issuperset(node.outputs):
                    seen.update(node.outputs)
                    waiting += node.outputs
        return False

    def keeps_angle(self, node: Node, row: Row, tensor: str) -> bool:
        """Whether an operator makes frequencies, or angles, of such: it multiplies by counts, or arranges."""
        if node.outputs[0] not in self.live:
            return True
        others = [name for name in node.inputs if name != tensor]
        counts = [name for name in others if name in self.live]
        if not self.counted.issuperset(counts):
            return False
        return row.by_element or row.arranges or (row.is_contraction and len(counts) == len(others) > 0)

    # --- rotations

    @cached_property
    def factors(self) -> dict[tuple[int, ...], list[Weight]]:
        """The tables that activations are multiplied by, by shape."""
        factors: dict[tuple[int, ...], list[Weight]] = {}
        for name, weight in self.graph.weights.items():
            is_table = weight.is_float and not weight.scope and len([size for size in weight.shape if size > 1]) > 1
            if is_table and (met := self.meetings(name)) and all(one.multiplies for one in met):
                factors.setdefault(weight.shape, []).append(weight)
        return factors

    # --- in front of the first layer

    @cached_property
    def preparing(self) -> set[str]:
        """What an input of the model is shifted and scaled by, all alike or channel by channel."""
        shapes = {value.name: value.shape for value in self.graph.inputs if value.shape is not None}
        preparing: set[str] = set()
        for node in self.graph.nodes:
            row, name = self.row(node), next((name for name in node.inputs if name in shapes), "")
            if row is None or not name:
                continue
            if row.moves:
                shapes.update(moved_shape(node, row, shapes[name]))
                continue
            stored = [one for one in node.inputs if one in self.graph.weights]
            meetings = [Meeting(node, row, slot) for slot, one in enumerate(node.inputs) if one in stored]
            is_affine = bool(meetings) and all(meeting.adds or meeting.multiplies for meeting in meetings)
            if is_affine and all(is_by_channel(self.graph.weights[one].shape, shapes[name]) for one in stored):
                preparing.update(stored)
                shapes[node.outputs[0]] = shapes[name]
        return preparing


Shape = tuple[int | str | None, ...]


def moved_shape(node: Node, row: Row, shape: Shape) -> dict[str, Shape]:
    """The shape of what an operator moves, where it keeps each axis; nothing where it does not."""
    if row.keeps_axes:
        return {node.outputs[0]: shape}
    arranged = arranged_axes(node, [size if isinstance(size, int) else 0 for size in shape], None)
    if arranged is None:
        return {}
    return {node.outputs[0]: tuple(1 if source is None else shape[source] for source in arranged.sources)}


def is_by_channel(stored: tuple[int, ...], shape: Shape) -> bool:
    """Whether a stored tensor has one number, or one for each place on an axis whose length the input declares."""
    long = [(place - len(stored), size) for place, size in enumerate(stored) if size > 1]
    return not long or (len(long) == 1 and -long[0][0] <= len(shape) and shape[long[0][0]] == long[0][1])


# --- the signs --------------------------------------------------------------------------------------------------

Meetings = tuple[Meeting, ...]
Sign = Callable[[Uses, Weight, Meetings], bool]


def is_number(weight: Weight) -> bool:
    return weight.size == 1 and weight.declared is Declared.WRITTEN


def scales_scores(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """It multiplies queries, keys or scores by a number that the length of a head gives, or that code does."""
    is_there = all(meeting.multiplies and meeting.out in uses.shares_of for meeting in meetings)
    return is_there and (is_number(weight) or is_root_of_length(weight.read()))


def turns_with_positions(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """It becomes an angle once positions are multiplied by it, without any activation, and holds frequencies or
    positions: those of a filter that was learned look otherwise."""
    if not uses.becomes_angle(weight.name):
        return False
    values = weight.read()
    return are_frequencies(values) or is_grid(values)


def rotates(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """Activations are multiplied by it, and with a second one like it, or with its own other half, it gives cosines
    and sines; or an operator turns pairs of units by it."""
    if all(meeting.rotates for meeting in meetings):
        return True
    alike = uses.factors.get(weight.shape, ())
    if not any(one.name == weight.name for one in alike):
        return False
    values = weight.read()
    return is_rotation(values) or any(are_rotation(values, other.read()) for other in alike if other is not weight)


def masks_scores(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """It takes scores out in front of a softmax, or what else is added to it, or says as a truth which numbers are
    chosen."""
    if all(meeting.row is not None and meeting.row.selects and meeting.slot == 0 for meeting in meetings):
        return True
    if all(meeting.adds_to_scores for meeting in meetings):
        return is_additive_mask(weight.read())
    if not all(meeting.is_by_element for meeting in meetings):
        return False
    values = weight.read()
    if all(meeting.adds for meeting in meetings) and takes_out(values):
        return True
    if not all(meeting.out in uses.scores for meeting in meetings):
        return False
    if all(meeting.multiplies for meeting in meetings) and is_factor_mask(values):
        return True
    is_shown = all(meeting.adds or (meeting.row is not None and meeting.row.selects) for meeting in meetings)
    return (is_shown or values.size == 1) and is_additive_mask(values)


def falls_with_distance(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """What is made of it is added to scores, and head by head it falls by a factor."""
    is_there = all(meeting.adds and meeting.out in uses.scores for meeting in meetings)
    return is_there and is_falling(weight.read())


def counts_positions(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """It is applied element by element and holds places on a grid."""
    return all(meeting.is_by_element for meeting in meetings) and is_grid(weight.read())


def prepares_input(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """An input of the model is shifted or scaled by it before anything else is done to it."""
    return weight.name in uses.preparing


def is_written(uses: Uses, weight: Weight, meetings: Meetings) -> bool:
    """It is a single number that stands among the operators, where exporters write what code says."""
    return is_number(weight) and all(meeting.is_by_element for meeting in meetings)


SIGNS: Mapping[SettingKind, Sign] = {
    SettingKind.SCALE: scales_scores,
    SettingKind.FREQUENCIES: turns_with_positions,
    SettingKind.ROTATION: rotates,
    SettingKind.MASK: masks_scores,
    SettingKind.SLOPES: falls_with_distance,
    SettingKind.GRID: counts_positions,
    SettingKind.PREPARATION: prepares_input,
    SettingKind.NUMBER: is_written,
}


def axes_that_stay(values: Array) -> list[int]:
    """The axes along which a setting tells the units apart, so that their order is that of the setting."""
    return [axis for axis, size in enumerate(values.shape) if size > 1 and not (values == values.take([0], axis)).all()]
