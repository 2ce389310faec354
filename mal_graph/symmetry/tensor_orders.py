"""In which order every tensor of a network holds its entries once units are permuted: what a run is to give, tensor by
tensor, and which operators deal with the units of which groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mal_graph.graph import Array, LayerGraph, is_mergeable
from mal_graph.operators import Label, spans
from mal_graph.symmetry.groups import AxisGroups, Traces
from mal_graph.symmetry.moves import Moves, Order
from mal_graph.symmetry.trial import deviation_of

HUGE = 1e20  # numbers from here on stand for infinity, as in masks

Turn = tuple[tuple[int, ...], Order]  # axes of a tensor, and the old index that stands at each of theirs, flattened


def moved_units(groups: AxisGroups, traces: Traces, moves: Moves) -> NDArray[np.int64]:
    """By unit of the network the one that takes its place when groups are permuted."""
    moved = np.arange(int(traces.unit.max(initial=-1)) + 1)
    for index, order in moves.items():
        parts = traces.parts[groups.groups[index].name]
        moved[parts] = moved[parts[order]]
    return moved


def find_turns(label: Label, unit: NDArray[np.int64], moved: NDArray[np.int64]) -> list[Turn] | None:
    """How a tensor is rearranged when units move; None where its label does not tell.

    Several indices of one unit go to those of the unit whose place it takes in the order in which they lie.
    """
    turns: list[Turn] = []
    for part in label.parts:
        here = unit[part].ravel()
        wanted = moved[here]
        if np.array_equal(here, wanted):
            continue
        having, wanting = np.argsort(here, kind="stable"), np.argsort(wanted, kind="stable")
        if not np.array_equal(here[having], wanted[wanting]):
            return None
        index = np.empty_like(having)
        index[wanting] = having
        turns.append((spans(part), index))
    return turns


def renumbered(
    values: Array, atoms: NDArray[np.int64], unit: NDArray[np.int64], moved: NDArray[np.int64]
) -> Array | None:
    """Places of units once units have moved; None where it is not told where they go.

    Args:
        values: the places before, on the axis that has these atoms.
    """
    turns = find_turns(Label(atoms.shape, (atoms,)), unit, moved)
    if not turns:
        return None if turns is None else values
    ((_, index),) = turns
    return np.asarray(np.argsort(index)[values.astype(np.int64)], values.dtype)


def rearranged(values: Array, turns: Sequence[Turn]) -> Array:
    """A tensor with its entries in another order."""
    for axes, index in turns:
        front = tuple(range(len(axes)))
        moved = np.moveaxis(values, axes, front)
        flat = moved.reshape(-1, *moved.shape[len(axes) :])[index]
        values = np.moveaxis(flat.reshape(moved.shape), front, axes)
    return values


def deviation_between(values: Array, expected: Array) -> float:
    """How far a tensor is from what is expected, relative to its size; numbers that stand for infinity do not count in
    it, but must be where they are expected, with their sign."""
    if expected.shape != values.shape or not is_mergeable(expected.dtype):
        return deviation_of(values, expected)
    if not expected.size or (expected.max() < HUGE and expected.min() > -HUGE):
        return deviation_of(values, expected)
    plain = np.abs(expected) < HUGE
    if not np.array_equal(np.sign(values[~plain]), np.sign(expected[~plain]), equal_nan=True):
        return np.inf
    if (np.abs(values[~plain]) < HUGE).any():
        return np.inf
    return deviation_of(values[plain], expected[plain])


@dataclass(frozen=True)
class Touch:
    """Which groups have units on the tensors of a network.

    Attributes:
        kind: by unit of the network the number of a set of groups.
        sets: the indices of the groups in each, those that move the unit.
    """

    kind: NDArray[np.int64]
    sets: Sequence[frozenset[int]]

    def on(self, label: Label, unit: NDArray[np.int64]) -> frozenset[int]:
        """The groups with units on a tensor."""
        kinds = {kind for part in label.parts for kind in np.unique(self.kind[unit[part]]).tolist()}
        return frozenset().union(*(self.sets[kind] for kind in kinds))


def find_touch(groups: AxisGroups, traces: Traces, indices: Sequence[int]) -> Touch:
    """What moves with each of some groups."""
    kind = np.zeros(int(traces.unit.max(initial=-1)) + 1, np.int64)
    sets: list[frozenset[int]] = [frozenset()]
    for index in indices:
        here = np.unique(traces.parts[groups.groups[index].name])
        before = kind[here]
        for old in np.unique(before).tolist():
            kind[here[before == old]] = len(sets)
            sets.append(sets[old] | {index})
    return Touch(kind, sets)


def find_touched(graph: LayerGraph, groups: AxisGroups, traces: Traces, indices: Sequence[int]) -> list[frozenset[int]]:
    """By node the groups whose units are on anything that it reads or gives."""
    touch = find_touch(groups, traces, indices)
    on: Mapping[str, frozenset[int]] = {name: touch.on(label, traces.unit) for name, label in traces.labels.items()}
    none: frozenset[int] = frozenset()
    return [none.union(*(on.get(name, none) for name in (*node.reads, *node.outputs))) for node in graph.nodes]
