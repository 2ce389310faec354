"""Scales that a network leaves open: a unit may be any positive factor larger, if what reads it is as much smaller.

So the size of a unit says nothing about which other it is like. Where every operator that meets the units of a group
lets positive factors through (ReLU, pooling, BatchNormalization; see `operators.table`) up to the contractions that sum
them away, tensors are compared at those scales at which all of them together are smallest: there every unit is made as
large as it is read, and two networks that differ in scales alone become the same. What is merged stays as it is.

Source: Stock et al. 2019 (arXiv:1902.10416), whose scales are unique for layers one behind the other. Refused: rows of
length 1, for which the columns must be scaled before; in residual networks there is no first one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from mal_graph.graph import Array, Node
from mal_graph.matching.axis_pairs import AxisPair, Block, Index
from mal_graph.matching.correspondence import Correspondence
from mal_graph.matching.tensor_pairs import Read, TensorPair
from mal_graph.network import data_dependent
from mal_graph.operators import Homogeneity, ParameterKind, Row, row_of
from mal_graph.symmetry import Network

ROUNDS = 200  # of all units; far fewer are needed but for very deep networks
SETTLED = 1e-7  # relative change of a scale that is none

Scales = dict[int, Array]  # of the units of one side, by index of the pair of groups
Of = Callable[[Block], Index]  # the positions of one side


def rescale(correspondence: Correspondence) -> Correspondence:
    """Compare at the scales at which all tensors are smallest, where both networks leave these open."""
    base, donor = find_open_groups(correspondence.base), find_open_groups(correspondence.donor)
    crossing = {pair for one in correspondence.pairs if one.grid is not None for pair in one.grid}
    free = [
        i
        for i, (mine, theirs) in enumerate(correspondence.assigned)
        if mine.groups <= base and theirs.groups <= donor and i not in crossing and correspondence.pairs[i].grid is None
    ]
    bearing = {t: tensor for t, (tensor, _) in enumerate(correspondence.tensors) if bears_scale(tensor)}
    sides = (
        (of_base, {t: tensor.base_values for t, tensor in bearing.items()}),
        (of_donor, {t: tensor.donor_values for t, tensor in bearing.items()}),
    )
    scales = [smallest(correspondence, free, of, read) for of, read in sides]
    tensors = list(correspondence.tensors)
    for t, tensor in bearing.items():
        _, axes = tensors[t]
        mine, theirs = (
            partial(scaled, read[t], tensor, axes, scale, of) for (of, read), scale in zip(sides, scales, strict=True)
        )
        incoming = tensor.incoming or tensor.donor_values
        tensors[t] = (replace(tensor, base_values=mine, donor_values=theirs, incoming=incoming), axes)
    return replace(correspondence, tensors=tuple(tensors))


def bears_scale(tensor: TensorPair) -> bool:
    """Whether a tensor that is compared is larger where its units are; what they are multiplied by is not."""
    return tensor.is_compared and tensor.base.kind in (ParameterKind.WEIGHT, ParameterKind.SHIFT)


def of_base(block: Block) -> Index:
    return block.base


def of_donor(block: Block) -> Index:
    return block.donor


def smallest(correspondence: Correspondence, pairs: Sequence[int], of: Of, read: Mapping[int, Read]) -> Scales:
    """The scale of every unit of one side at which the sum of all squares is least; found unit by unit, each then made
    as large as it is read."""
    scales = {pair: np.ones(correspondence.units[pair][of is of_donor]) for pair in pairs}
    squares = {t: squared(values(), correspondence.tensors[t][0]) for t, values in read.items()}
    touching: dict[int, list[tuple[int, int, Block]]] = {pair: [] for pair in pairs}
    for t, table in squares.items():
        for place, axis in enumerate(correspondence.tensors[t][1][: table.ndim]):
            for block in axis.blocks:
                if block.pair in touching:
                    touching[block.pair].append((t, place, block))
    for _ in range(ROUNDS):
        moved = 0.0
        for pair, touches in touching.items():
            made, taken = np.zeros((2, len(scales[pair])))
            for t, place, block in touches:
                tensor, axes = correspondence.tensors[t]
                sums = along(squares[t], place, factors(tensor, axes, scales, of, squares[t].shape))
                (taken if reads(tensor, place) else made)[:] += sums[of(block)].sum(axis=1)
            change = step(made, taken)
            scales[pair] = scales[pair] * change
            moved = max(moved, float(np.abs(change - 1).max(initial=0)))
        if moved < SETTLED:
            break
    return scales


def along(squares: Array, place: int, rows: Sequence[Array]) -> Array:
    """The squares of a tensor whose axes are multiplied by these rows, summed up along all axes but one."""
    weights = [operand for i, row in enumerate(rows) for operand in (row**2, [i])]
    sums: Array = np.einsum(squares, list(range(squares.ndim)), *weights, [place])
    return sums


def step(made: Array, taken: Array) -> Array:
    """The factor that makes both sums equal. A unit that nothing reads gets unit size; one that nothing makes stays."""
    ratio = np.where(taken > 0, made / np.where(taken > 0, taken, 1), made**2)
    factor: Array = np.where(made > 0, ratio, 1) ** 0.25
    return factor


def squared(values: Array, tensor: TensorPair) -> Array:
    """The squares of a tensor, summed over the taps of a weight."""
    squares = values.astype(np.float64) ** 2
    return squares.sum(axis=tuple(range(2, squares.ndim))) if tensor.is_weight else squares


def reads(tensor: TensorPair, place: int) -> bool:
    return tensor.is_weight and place == 1


def factors(tensor: TensorPair, axes: Sequence[AxisPair], scales: Scales, of: Of, shape: Sequence[int]) -> list[Array]:
    """What every index of the axes is multiplied by: what makes a unit is divided by its scale, what reads it takes
    it up."""
    rows = [np.ones(size) for size in shape]
    for place, factor in enumerate(rows):
        for block in axes[place].blocks:
            if block.pair in scales:
                scale = scales[block.pair][:, None]
                factor[of(block)] = scale if reads(tensor, place) else 1 / scale
    return rows


def scaled(read: Read, tensor: TensorPair, axes: Sequence[AxisPair], scales: Scales, of: Of) -> Array:
    """The values of a tensor with its units at their scales."""
    values = read()
    for place, factor in enumerate(factors(tensor, axes, scales, of, values.shape)):
        shape = [-1 if i == place else 1 for i in range(values.ndim)]
        values = values * factor.reshape(shape).astype(values.dtype)
    return values


def find_open_groups(network: Network) -> frozenset[int]:
    """The groups whose units may have any positive scale, by index."""
    groups = network.groups.groups
    live, carried, summed = data_dependent(network.graph), groups_carried(network), groups_summed(network)
    closed = {i for i, group in enumerate(groups) if group.statistic or not group.is_usable}
    closed |= set().union(*(summed[i] for i in summed if has_state(network.graph.nodes[i])))
    for index, node in enumerate(network.graph.nodes):
        row = row_of(node)
        operands = [
            Operand(slot, name in live, carried.get(name, set()))
            for slot, name in enumerate(node.inputs)
            if name and (row is None or not row.slot(slot).setting)
        ]
        met = {group for operand in operands if operand.is_live for group in operand.groups}
        closed |= {group for group in met if not stays_open(group, row, operands, group in summed.get(index, ()))}
    return frozenset(range(len(groups))) - closed


def has_state(node: Node) -> bool:
    """Whether an operator bounds what it gives, and reads that again."""
    row = row_of(node)
    return row is not None and row.has_state


class Operand(NamedTuple):
    """What an operator reads by one slot: whether it depends on the data, and the groups whose units it carries."""

    slot: int
    is_live: bool
    groups: Collection[int]


def stays_open(group: int, row: Row | None, operands: Sequence[Operand], is_summed: bool) -> bool:
    """Whether positive factors on the units of a group pass an operator, or are summed away by its weight."""
    carrying = [operand.slot for operand in operands if group in operand.groups and operand.is_live]
    if is_summed and len(carrying) == 1:
        return True
    return lets_through(row, carrying, all(group in operand.groups for operand in operands))


def groups_summed(network: Network) -> dict[int, set[int]]:
    """The groups on the input axes of each operator's weight, by index of the node."""
    summed: dict[int, set[int]] = {}
    for parameter in network.parameters:
        if parameter.is_weight and (axis := parameter.axes[1]) is not None:
            here = network.groups.on_axis.get((parameter.tensor, axis), ())
            summed.setdefault(parameter.node, set()).update(i for i, _ in here)
    return summed


def groups_carried(network: Network) -> dict[str, set[int]]:
    """The groups whose units lie on each tensor, by index."""
    traces = network.traces
    owner = np.full(int(traces.unit.max(initial=-1)) + 1, -1)
    for i, group in enumerate(network.groups.groups):
        if group.is_usable and group.name in traces.parts:
            owner[traces.parts[group.name]] = i
    return {
        name: {int(i) for part in label.parts for i in np.unique(owner[traces.unit[part]])} - {-1}
        for name, label in traces.labels.items()
    }


def lets_through(row: Row | None, carrying: Sequence[int], every: bool) -> bool:
    """Whether positive factors on the operands in these slots come out as they went in."""
    if row is None:
        return False
    if row.homogeneity is Homogeneity.ALL:
        return every
    is_factor = carrying == [0] or (row.commutes and len(carrying) == 1)
    return (
        row.reads_shape_only or row.homogeneity is Homogeneity.ANY or (row.homogeneity is Homogeneity.ONE and is_factor)
    )
