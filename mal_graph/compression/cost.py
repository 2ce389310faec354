"""What a network costs with fewer units in some of its sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from mal_graph.compression.readers import UnitSet
from mal_graph.graph import Node
from mal_graph.network import multiplications_of
from mal_graph.operators import Label, summed_axis
from mal_graph.symmetry import Network


@dataclass(frozen=True)
class Axis:
    """The length of a stored axis: what no set holds, and for each set the positions of one of its units."""

    fixed: int
    positions: Mapping[int, int]

    def length(self, kept: Mapping[int, int]) -> int:
        """With so many units kept in some sets, by number."""
        return self.fixed + sum(each * kept[number] for number, each in self.positions.items())


@dataclass(frozen=True)
class Contraction:
    """One contraction with a stored weight, each entry of which is applied so many times; `is_over_maps` where the
    weight has a window."""

    times: float
    axes: tuple[Axis, ...]
    is_over_maps: bool = False

    def multiplications(self, kept: Mapping[int, int]) -> float:
        return self.times * prod(axis.length(kept) for axis in self.axes)

    @property
    def sets(self) -> set[int]:
        """Those that change what it takes."""
        return {number for axis in self.axes for number in axis.positions}


class Cost:
    """The multiplications of a network, by how many units it keeps.

    Attributes:
        fixed: what no set changes.
        contractions: all others.
    """

    def __init__(self, network: Network, sets: Sequence[UnitSet]) -> None:
        counts = multiplications_of(network.graph, network.probe.shapes)
        weights = {parameter.node: parameter.tensor for parameter in network.parameters if parameter.is_weight}
        stored, owners = positions_on_axes(sets), Owners(network, sets)
        self.fixed = 0.0
        self.contractions: list[Contraction] = []
        for node, count in counts.items():
            if node in weights:
                shape = list(network.graph.weights[weights[node]].shape)
                lying = [stored.get((weights[node], axis), {}) for axis in range(len(shape))]
            else:
                shape, lying = owners.of_product(network.graph.nodes[node])
            axes = tuple(axis_of(size, here, sets) for size, here in zip(shape, lying, strict=True))
            if any(axis.positions for axis in axes):
                self.contractions.append(Contraction(count / prod(shape), axes, node in weights and len(shape) > 2))
            else:
                self.fixed += count

    def total(self, kept: Mapping[int, int]) -> float:
        """The multiplications with so many units kept, by number of the set."""
        return self.fixed + sum(one.multiplications(kept) for one in self.contractions)

    @cached_property
    def on_maps(self) -> frozenset[int]:
        """The sets whose units are maps, by number."""
        return frozenset(number for one in self.contractions if one.is_over_maps for number in one.sets)

    def saved(self, kept: Mapping[int, int], number: int, fewer: int) -> float:
        """What is saved where one set keeps fewer units than that."""
        less = {**kept, number: kept[number] - fewer}
        touched = [one for one in self.contractions if number in one.sets]
        return sum(one.multiplications(kept) - one.multiplications(less) for one in touched)


def positions_on_axes(sets: Sequence[UnitSet]) -> dict[tuple[str, int], dict[int, int]]:
    """For each stored axis how many positions one unit of each set has on it."""
    lying: dict[tuple[str, int], dict[int, int]] = {}
    for one in sets:
        for group in one.groups:
            for member in group.members:
                here = lying.setdefault((member.tensor, member.axis), {})
                here[one.number] = here.get(one.number, 0) + member.positions.shape[1]
    return lying


def axis_of(size: int, positions: Mapping[int, int], sets: Sequence[UnitSet]) -> Axis:
    units = {one.number: one.units for one in sets}
    return Axis(size - sum(each * units[number] for number, each in positions.items()), positions)


class Owners:
    """Which set holds what on the axes of activations."""

    def __init__(self, network: Network, sets: Sequence[UnitSet]) -> None:
        self.traces = network.traces
        self.units = {one.number: one.units for one in sets}
        self.owner = np.full((int(self.traces.unit.max(initial=0)) + 1, 2), -1)  # numbers of the set and of the unit
        for one in sets:
            for group in one.groups:
                for unit, parts in enumerate(self.traces.parts[group.name]):
                    self.owner[parts] = one.number, unit

    def of_product(self, node: Node) -> tuple[list[int], list[dict[int, int]]]:
        """The axes of what a product of two activations gives, then the one that it sums over: their lengths, and by
        number of the set how many positions each of its units has."""
        output, first = self.traces.labels[node.outputs[0]], self.traces.labels[node.inputs[0]]
        summed = summed_axis(node, 0, len(first.shape))
        axes = [*((output, axis) for axis in range(len(output.shape))), (first, summed)]
        return [label.shape[axis] for label, axis in axes], [self.on_axis(label, axis) for label, axis in axes]

    def on_axis(self, label: Label, axis: int) -> dict[int, int]:
        """By number of the set how many positions each of its units has on an axis that holds it whole."""
        part = label.part_on(axis)
        if part is None:
            return {}
        rows = np.moveaxis(self.owner[self.traces.unit[part]], axis, 0).reshape(label.shape[axis], -1, 2)
        owned = rows[:, 0, 0][(rows == rows[:, :1]).all(axis=(1, 2))]
        counts = {int(number): int((owned == number).sum()) for number in np.unique(owned) if number >= 0}
        return {number: count // self.units[number] for number, count in counts.items()}
