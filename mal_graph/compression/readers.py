"""Where the units of a network are read: the contractions that take them in, and what they lie on there."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np
from numpy.typing import NDArray

from mal_graph.brief import Brief
from mal_graph.compression.unit_sets import Holders, Ints, Units, UnitSet, held_by
from mal_graph.evaluation import data_slot, reads_state
from mal_graph.graph import Array, Node
from mal_graph.network import Parameter, multiplications_of
from mal_graph.operators import spans, summed_axis
from mal_graph.symmetry import Network

FLAT = 1e-14  # of the largest variance: what is below this is rounding


@dataclass(frozen=True, repr=False)
class Reader(Brief):
    """One contraction that sums over units with a stored weight, and the activations that it sums.

    What it tells apart are cells: what lies in the same units of all sets. A unit of a head is one cell, though it is
    taken away with the head or with its like in all heads. A cell that is read at several positions, such as a
    flattened channel, has one coefficient for all of them. A grouped convolution is a reader for each of its blocks.

    Attributes:
        parameter: the weight where it is applied.
        axis: the axis of the stored tensor that is summed over.
        place: the tensor that is read, and the axes of it that hold the cells.
        held: for each cell the units that it lies in, with the number of the group in the set; none where it stays.
        stored: their indices on the axis of the weight, shape (cells, positions).
        read: their indices on these axes, counted through, of the same shape.
        outputs: the indices of what it gives, on that axis of the weight.
        is_state: whether it reads them as a state which is carried from step to step; they are then what the operator
            gave a step before.
    """

    parameter: Parameter
    axis: int
    place: tuple[str, tuple[int, ...]]
    held: tuple[Units, ...]
    stored: Ints
    read: Ints
    outputs: Ints
    is_state: bool = False

    def rows(self, values: Array) -> Array:
        """What the cells hold in a batch of the tensor, shape (cells, samples)."""
        axes = self.place[1]
        moved = np.moveaxis(values, axes, range(len(axes)))
        return moved[np.unravel_index(self.read, moved.shape[: len(axes)])].reshape(len(self.read), -1)

    def own(self, stored: Array) -> Array:
        """What it multiplies each cell by, shape (cells, positions, the other axes of the weight)."""
        moved = np.moveaxis(stored, self.axis, 0)[self.stored].astype(np.float64)
        return moved.take(self.outputs, self.out_axis)

    def coefficients(self, stored: Array, covariance: Array) -> Array:
        """What the cells are multiplied by, shape (cells, targets).

        Every output is brought to unit variance, so that neither its scale nor that of the units counts.

        Args:
            stored: the weight.
            covariance: of the cells, shape (cells, cells).
        """
        rows = np.moveaxis(self.own(stored), self.out_axis, 1)  # (cells, outputs, positions, the other axes)
        return at_unit_variance(rows.reshape(*rows.shape[:2], -1), covariance).reshape(len(rows), -1)

    @property
    def out_axis(self) -> int:
        """The axis of what the contraction produces, of coefficients of shape (cells, positions, the other axes)."""
        out = self.parameter.axes[0]
        assert out is not None
        return 2 + out - (out > self.axis)

    def units_of(self, one: UnitSet) -> Ints:
        """For each cell the unit of a set that it lies in, counted through its groups; -1 where it lies in none."""
        own = [
            next((group * one.units + unit for number, unit, group in held if number == one.number), -1)
            for held in self.held
        ]
        return np.array(own, np.int64)

    def kept(self, kept: Mapping[int, Collection[int]]) -> NDArray[np.bool_]:
        """Which cells stay, where all groups of some sets keep some of their units."""
        stays = [all(number not in kept or unit in kept[number] for number, unit, _ in held) for held in self.held]
        return np.array(stays, bool)


def at_unit_variance(coefficients: Array, covariance: Array) -> Array:
    """Coefficients of shape (cells, outputs, taps) with every output at unit variance; one that never varies says
    nothing."""
    by_output = np.moveaxis(coefficients, 1, 0)  # (outputs, cells, taps)
    energy = np.array([np.sum(one * (covariance @ one)) for one in by_output])
    is_live = energy > FLAT * energy.max(initial=0)
    scale = np.where(is_live, 1 / np.sqrt(np.where(is_live, energy, 1)), 0.0)
    return coefficients * scale[:, None]


def find_readers(network: Network, sets: Sequence[UnitSet]) -> tuple[Reader, ...]:
    """Every reader of units that can go, in topological order.

    Where one contraction reads cells at different numbers of positions, it counts as several readers.

    Args:
        sets: all sets of the network; those with a reason stay.
    """
    holders = Holders(network, sets)
    going = {one.number for one in sets if not one.reason}
    return tuple(
        Reader(parameter, axis, one.place, held, one.stored[cells], one.read[cells], one.outputs, one.is_state)
        for parameter in network.parameters
        if parameter.is_weight and None not in parameter.axes[:2] and (axis := parameter.axes[1]) is not None
        for one in sums_of(network, parameter, holders) or ()
        for held, cells in cells_of(one.held, going)
    )


@dataclass(frozen=True, repr=False)
class Sum(Brief):
    """What some outputs of a contraction sum over; the attributes are those of `Reader`, by position.

    Attributes:
        held: the units that hold each position, with the number of the group.
    """

    place: tuple[str, tuple[int, ...]]
    held: Sequence[Units]
    stored: Ints
    read: Ints
    outputs: Ints
    is_state: bool = False


def sums_of(network: Network, parameter: Parameter, holders: Holders) -> list[Sum] | None:
    """The sums that a contraction takes with a weight, each of what is read together; None where they are not told.

    A grouped convolution takes one for each block of channels. Where several matrices lie in one stored tensor, what is
    read has an axis for them: it is summed over too, or there is a sum for each.
    """
    node, (out, axis) = network.graph.nodes[parameter.node], parameter.axes[:2]
    place = place_read(node, parameter, network.probe.shapes)
    if place is None or axis is None or out is None:
        return None
    shape, label = network.graph.weights[parameter.tensor].shape, network.traces.labels[place[0]]
    length, read = shape[axis], label.shape[place[1]]
    outputs = np.arange(shape[out])
    if read % length == 0:
        held = holders.on_axis(label, place[1], by_group=True)
        own, whole = (place[0], (place[1],)), np.arange(length)
        is_state = reads_state(node, parameter)
        return [
            Sum(own, [held[index] for index in block], whole, block, part, is_state)
            for block, part in zip(
                np.arange(read).reshape(-1, length), np.array_split(outputs, read // length), strict=True
            )
        ]
    part, stored = label.part_on(place[1]), network.traces.labels[parameter.tensor].part_on(axis)
    if part is None or stored is None or part.size != length:
        return None
    unit = network.traces.unit
    order, places = np.argsort(unit[part].ravel()), np.argsort(unit[stored].ravel())
    if not np.array_equal(unit[part].ravel()[order], unit[stored].ravel()[places]):
        return None
    axes = spans(part)
    held = held_by(holders.owner[unit[part].reshape(-1, 1)])
    stands = np.empty(length, np.int64)
    stands[order] = places  # by position in what is read that in the weight
    are_apart = products_of(network, parameter.node) < length
    along = [axis for axis in axes if axis != place[1]]
    blocks = np.moveaxis(np.arange(length).reshape([part.shape[axis] for axis in axes]), axes.index(place[1]), -1)
    runs = blocks.reshape(-1, read) if are_apart and along else [np.arange(length)]
    return [Sum((place[0], axes), [held[index] for index in run], stands[run], run, outputs) for run in runs]


def products_of(network: Network, node: int) -> int:
    """How many products each output of a contraction is the sum of."""
    shapes = network.probe.shapes
    given = next(name for name in network.graph.nodes[node].outputs if name)
    return multiplications_of(network.graph, shapes).get(node, 0) // max(1, prod(shapes[given]))


def cells_of(lying: Sequence[Units], going: set[int]) -> Iterator[tuple[tuple[Units, ...], Ints]]:
    """The cells of a sum with equally many positions each: the units that can go of each, and the positions.

    Args:
        lying: by position the units that hold it, with the number of the group.
    """
    found: dict[object, list[int]] = {}
    for index, units in enumerate(lying):
        found.setdefault(units or index, []).append(index)
    for _, alike in groupby(sorted(found.values(), key=len), key=len):
        cells = list(alike)
        held = tuple(frozenset(unit for unit in lying[cell[0]] if unit[0] in going) for cell in cells)
        if any(held):
            yield held, np.array(cells, np.int64)


def place_read(node: Node, parameter: Parameter, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, int] | None:
    """The tensor that a contraction sums over with a weight, and the axis; None where no tensor shows it, or no run
    of the probe reached it.

    Of a state that is carried from step to step this is what the operator gave, at all steps or at the last.
    """
    if not reads_state(node, parameter):
        slot = data_slot(parameter)
        name = node.inputs[slot]
        return (name, summed_axis(node, slot, len(shapes[name]))) if name in shapes else None
    given = next((name for name in node.outputs[:2] if name), "")
    return (given, len(shapes[given]) - 1) if given in shapes else None
