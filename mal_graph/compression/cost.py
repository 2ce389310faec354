"""What a network costs with fewer units in some of its sets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from mal_graph.compression.unit_sets import Holders, UnitSet
from mal_graph.graph import Node
from mal_graph.network import multiplications_of
from mal_graph.operators import Label, row_of, summed_axis
from mal_graph.symmetry import Network


@dataclass(frozen=True)
class Axis:
    """The length of a stored axis: what no set holds, and by the sets that hold it together how many positions lie in
    one unit of each."""

    fixed: int
    positions: Mapping[frozenset[int], float]

    def length(self, kept: Mapping[int, int]) -> float:
        """With so many units kept in some sets, by number."""
        return self.fixed + sum(
            each * prod(kept[number] for number in numbers) for numbers, each in self.positions.items()
        )

    @property
    def sets(self) -> set[int]:
        """Those that change it."""
        return {number for numbers in self.positions for number in numbers}


@dataclass(frozen=True)
class Contraction:
    """One contraction with a stored weight, each entry of which is applied so many times; `is_over_maps` where the
    weight has a window."""

    times: float
    axes: tuple[Axis, ...]
    is_over_maps: bool = False

    def multiplications(self, kept: Mapping[int, int]) -> float:
        return self.times * prod(axis.length(kept) for axis in self.axes)

    @cached_property
    def sets(self) -> set[int]:
        """Those that change what it takes."""
        return {number for axis in self.axes for number in axis.sets}


class Cost:
    """The multiplications of a network, by how many units it keeps.

    Attributes:
        fixed: what no set changes.
        contractions: all others; an operator with several weights counts as one for each.
    """

    def __init__(self, network: Network, sets: Sequence[UnitSet]) -> None:
        counts = multiplications_of(network.graph, network.probe.shapes)
        self.labels, self.holders = network.traces.labels, Holders(network, sets)
        self.units = {one.number: one.units for one in sets}
        self.fixed = 0.0
        self.contractions: list[Contraction] = []
        weights: dict[int, list[str]] = {}
        for parameter in network.parameters:
            if parameter.is_weight:
                weights.setdefault(parameter.node, []).append(parameter.tensor)
        for index, count in counts.items():
            node, own = network.graph.nodes[index], dict.fromkeys(weights.get(index, ()))
            row, taken = row_of(node), [self.of_weight(name) for name in own] or [self.of_product(node)]
            times = count / sum(prod(size for size, _ in axes) for axes in taken)
            for axes in taken:
                self.add(times, axes, is_over_maps=row is not None and row.has_window)

    def add(self, times: float, axes: Sequence[tuple[int, Axis]], *, is_over_maps: bool) -> None:
        """What takes one multiplication for each entry of some axes, so many times."""
        if any(axis.positions for _, axis in axes):
            self.contractions.append(Contraction(times, tuple(axis for _, axis in axes), is_over_maps))
        else:
            self.fixed += times * prod(size for size, _ in axes)

    def of_weight(self, name: str) -> list[tuple[int, Axis]]:
        """The axes of a stored tensor with their lengths."""
        label = self.labels[name]
        return [(size, self.axis_of(label, axis)) for axis, size in enumerate(label.shape)]

    def of_product(self, node: Node) -> list[tuple[int, Axis]]:
        """The axes of what a product of two activations gives, then the one that it sums over."""
        output, first = self.labels[node.outputs[0]], self.labels[node.inputs[0]]
        summed = summed_axis(node, 0, len(first.shape))
        axes = [*((output, axis) for axis in range(len(output.shape))), (first, summed)]
        return [(label.shape[axis], self.axis_of(label, axis)) for label, axis in axes]

    def axis_of(self, label: Label, axis: int) -> Axis:
        """An axis, by what holds its indices."""
        held = Counter(frozenset(number for number, _ in units) for units in self.holders.on_axis(label, axis))
        fixed = held.pop(frozenset(), 0)
        return Axis(fixed, {sets: count / prod(self.units[one] for one in sets) for sets, count in held.items()})

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
