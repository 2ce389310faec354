"""Where the units of a network are read: the contractions that take them in, and what they lie on there."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, permutations

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.graph import Array, Node
from mal_graph.network import Parameter
from mal_graph.operators import row_of, summed_axis
from mal_graph.symmetry import AxisGroup, Member, Network

Ints = NDArray[np.int64]

FLAT = 1e-14  # of the largest variance: what is below this is rounding
SUMS = "sums over them without a weight that could take over what is lost"


@dataclass(frozen=True, repr=False)
class Reader(Brief):
    """One contraction that sums over units with a stored weight, and the activations that it sums.

    Units that are read at several positions each, such as flattened channels, have one coefficient for all of them. A
    grouped convolution reads every unit once in each of its blocks, and with other weights in each.

    Attributes:
        parameter: the weight where it is applied.
        axis: the axis of the stored tensor that is summed over.
        place: the tensor that is read, and the axis of it that holds the units.
        units: the units that are read here, as (number of the set, number of the unit); -1 for what no set holds.
        stored: their indices on the axis of the weight, shape (units, positions).
        read: their indices on the axis of the tensor, shape (blocks, units, positions).
    """

    parameter: Parameter
    axis: int
    place: tuple[str, int]
    units: Ints
    stored: Ints
    read: Ints

    @property
    def blocks(self) -> int:
        """In how many blocks it reads its units."""
        return len(self.read)

    def rows(self, values: Array) -> list[Array]:
        """What the units hold in a batch of the tensor, one array of shape (units, samples) for each block."""
        moved = np.moveaxis(values, self.place[1], 0)
        moved = moved.reshape(len(moved), -1)
        return [moved[block].reshape(len(block), -1) for block in self.read]

    def coefficients(self, stored: Array, covariances: Sequence[Array]) -> list[Array]:
        """What the units are multiplied by, one array of shape (units, targets) for each block.

        Every output is brought to unit variance, so that neither its scale nor that of the units counts.

        Args:
            stored: the weight.
            covariances: of the units in each block, shape (units, units).
        """
        moved = np.moveaxis(stored, self.axis, 0).astype(np.float64)
        rows = np.moveaxis(moved[self.stored], self.out_axis, 1)  # (units, outputs, positions, the other axes)
        parts = np.array_split(rows.reshape(*rows.shape[:2], -1), self.blocks, 1)
        scaled = [at_unit_variance(part, covariance) for part, covariance in zip(parts, covariances, strict=True)]
        return [part.reshape(len(part), -1) for part in scaled]

    @property
    def out_axis(self) -> int:
        """The axis of what the contraction produces, of coefficients of shape (units, positions, the other axes)."""
        out = self.parameter.axes[0]
        assert out is not None
        return 2 + out - (out > self.axis)


def at_unit_variance(coefficients: Array, covariance: Array) -> Array:
    """Coefficients of shape (units, outputs, taps) with every output at unit variance; one that never varies says
    nothing."""
    by_output = np.moveaxis(coefficients, 1, 0)  # (outputs, units, taps)
    energy = np.array([np.sum(one * (covariance @ one)) for one in by_output])
    is_live = energy > FLAT * energy.max(initial=0)
    scale = np.where(is_live, 1 / np.sqrt(np.where(is_live, energy, 1)), 0.0)
    return coefficients * scale[:, None]


@dataclass(frozen=True, repr=False)
class UnitSet(Brief):
    """Units that can only be taken away together, one of each group at a time.

    Attributes:
        groups: the coupled axis groups; unit u of the set is unit u of each.
        number: its number among the sets of the network.
        reason: why its units have to stay; "" where they can go.
    """

    groups: tuple[AxisGroup, ...]
    number: int
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of its first group."""
        return self.groups[0].name

    @property
    def units(self) -> int:
        """How many units it has."""
        return self.groups[0].units

    @cached_property
    def consumed(self) -> frozenset[tuple[str, int]]:
        """The stored tensors and axes that sum over its units."""
        return frozenset((m.tensor, m.axis) for group in self.groups for m in group.members if m.consumes)


def find_sets(network: Network) -> tuple[UnitSet, ...]:
    """The sets of coupled groups, each with the reason why its units have to stay, if there is one."""
    groups = {group.name: group for group in network.groups.groups}
    enclosing = {group.inside[0] for group in groups.values() if group.inside is not None} | crossing_groups(network)
    sets = []
    for number, names in enumerate(network.coupled):
        own = tuple(groups[name] for name in groups if name in names)
        sets.append(UnitSet(own, number, reason_to_stay(network, own, enclosing)))
    return tuple(sets)


def crossing_groups(network: Network) -> set[str]:
    """The usable groups whose units share positions of an axis with those of a group that has smaller units."""
    names = set()
    for lying in network.groups.on_axis.values():
        usable = [(index, member) for index, member in lying if network.groups.groups[index].is_usable]
        for (index, member), (other, smaller) in permutations(usable, 2):
            is_larger = (member.positions.shape[1], other) > (smaller.positions.shape[1], index)
            if is_larger and np.isin(member.positions, smaller.positions).any():
                names.add(network.groups.groups[index].name)
    return names


def reason_to_stay(network: Network, groups: Sequence[AxisGroup], enclosing: set[str]) -> str:
    """Why no unit of coupled groups can be taken away; "" if some can."""
    members = [member for group in groups for member in group.members]
    counted = next((group.statistic for group in groups if group.statistic is not None), None)
    if counted is not None:
        return f"{counted} depends on how many there are"
    if any(group.name in enclosing for group in groups):
        return "each of its units holds others"
    if not any(member.consumes for member in members):
        return "no contraction reads its units with a stored weight"
    times = Counter(parameter.tensor for parameter in network.parameters)
    shared = next((member.tensor for member in members if member.consumes and times[member.tensor] > 1), "")
    if shared:
        return f"{shared} is read in several places"
    for node in reading_as_state(network, members):
        return f"{node.title} reads them again, step by step"
    for node in reading_in_blocks(network, members):
        return f"{node.title} reads them block by block, with a matrix for each"
    for node in inside_bodies(network, members):
        return f"{node.title} stands in a body, which runs for some inputs only, or several times"
    for node in summing(network, groups):
        return f"{node.title} {SUMS}"
    if groups[0].units < 2:
        return "it has one unit"
    return ""


def reading_as_state(network: Network, members: Sequence[Member]) -> Iterator[Node]:
    """The operators that read some units as a state which they carry from step to step."""
    consumed = {member.tensor for member in members if member.consumes}
    for parameter in network.parameters:
        node = network.graph.nodes[parameter.node]
        row = row_of(node)
        if parameter.tensor in consumed and row is not None and row.slot(parameter.slot).reads_state:
            yield node


def inside_bodies(network: Network, members: Sequence[Member]) -> Iterator[Node]:
    """The operators in bodies that have a weight with some units, which cannot be measured there."""
    tensors = {member.tensor for member in members}
    for parameter in network.parameters:
        node = network.graph.nodes[parameter.node]
        if parameter.tensor in tensors and not network.graph.inner.isdisjoint(node.outputs):
            yield node


def reading_in_blocks(network: Network, members: Sequence[Member]) -> Iterator[Node]:
    """The contractions that sum over some units along several axes, where the stored weight has one."""
    consumed = {(member.tensor, member.axis) for member in members if member.consumes}
    for parameter in network.parameters:
        if parameter.is_weight and (parameter.tensor, parameter.axes[1]) in consumed:
            node = network.graph.nodes[parameter.node]
            shape = network.probe.shapes[node.inputs[data_slot(parameter)]]
            if shape[summed_axis(node, data_slot(parameter), len(shape))] % parameter.shape[1]:
                yield node


def summing(network: Network, groups: Sequence[AxisGroup]) -> Iterator[Node]:
    """The contractions that sum over units of some groups in a way that no coefficients could take over."""
    parts = [network.traces.parts[group.name].ravel() for group in groups]
    units = np.unique(np.concatenate(parts))
    weights = {parameter.node: parameter for parameter in network.parameters if parameter.is_weight}
    for index, node in enumerate(network.graph.nodes):
        row, parameter = row_of(node), weights.get(index)
        if row is None or row.multiplications is None:
            continue
        if parameter is not None and parameter.axes[1] is not None and parameter.blocks == 1:
            continue  # it is a reader
        for slot in (0, 1):
            label = network.traces.labels.get(node.inputs[slot])
            if label is None or not label.shape:
                continue
            part = label.part_on(summed_axis(node, slot, len(label.shape)))
            if part is not None and np.isin(network.traces.unit[part], units).any():
                yield node
                break


def find_readers(network: Network, sets: Sequence[UnitSet]) -> tuple[Reader, ...]:
    """Every reader of the units of some sets, in topological order.

    Where one contraction reads units at different numbers of positions, it counts as several readers.
    """
    concerned = {place for one in sets for place in one.consumed}
    readers: list[Reader] = []
    for parameter in network.parameters:
        axis = parameter.axes[1] if parameter.is_weight else None
        if axis is not None and (parameter.tensor, axis) in concerned:
            readers += readers_of(network, parameter, axis, sets)
    return tuple(readers)


def readers_of(network: Network, parameter: Parameter, axis: int, sets: Sequence[UnitSet]) -> Iterator[Reader]:
    """One contraction as readers of units that lie at equally many positions each."""
    node = network.graph.nodes[parameter.node]
    tensor = node.inputs[data_slot(parameter)]
    length = network.graph.weights[parameter.tensor].shape[axis]
    held = held_units(parameter.tensor, axis, length, sets)
    shape = network.probe.shapes[tensor]
    read_axis = summed_axis(node, data_slot(parameter), len(shape))
    blocks = np.arange(shape[read_axis]).reshape(-1, length)  # a grouped convolution reads so many channels in each
    for _, alike in groupby(sorted(held, key=lambda unit: len(unit[2])), key=lambda unit: len(unit[2])):
        own = list(alike)
        if all(number < 0 for number, _, _ in own):
            continue  # it loses nothing
        units = np.array([[number, unit] for number, unit, _ in own], np.int64)
        stored = np.array([positions for _, _, positions in own], np.int64)
        yield Reader(parameter, axis, (tensor, read_axis), units, stored, blocks[:, stored])


def held_units(tensor: str, axis: int, length: int, sets: Sequence[UnitSet]) -> list[tuple[int, int, tuple[int, ...]]]:
    """What lies on an axis, as (number of the set, number of the unit, positions); -1 for what no set holds."""
    found: dict[tuple[int, int], list[int]] = {}
    for one in sets:
        for group in one.groups:
            for member in group.members:
                if (member.tensor, member.axis) == (tensor, axis):
                    for unit, positions in enumerate(member.positions.tolist()):
                        found.setdefault((one.number, unit), []).extend(positions)
    taken = {position for positions in found.values() for position in positions}
    rest = [(-1, -1, (position,)) for position in range(length) if position not in taken]
    return [*((number, unit, tuple(positions)) for (number, unit), positions in found.items()), *rest]


def data_slot(parameter: Parameter) -> int:
    """The input of a contraction that its weight is multiplied with."""
    return 1 if parameter.slot == 0 else 0


def units_kept(units: Ints, kept: Mapping[int, Sequence[int]]) -> NDArray[np.bool_]:
    """Which units of a reader stay, where some sets keep some of theirs."""
    stays = np.ones(len(units), bool)
    for number, own in kept.items():
        here = units[:, 0] == number
        stays[here] = np.isin(units[here, 1], np.asarray(own, np.int64))
    return stays
