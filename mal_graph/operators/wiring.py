"""The wiring of a network: which atoms must move together, collected while the network is run on labels.

Atoms that must move together are *tied*. A second relation orders what a reshape splits. Where channels become (groups,
channels of a group) and an operator acts on one of the two axes alone, that axis gets atoms of its own, and each
channel *belongs* to the one it lies on: whatever moves the channels must then move whole blocks to whole blocks. The
channels of a block stay free to move within it, unless they belong to a unit of the other axis too.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from mal_graph.operators.axis_labels import Atoms, AxisLabel, Label, on_axis, spans
from mal_graph.operators.marks import GroupState, Pin, SizeConstant, Statistic
from mal_graph.operators.reshaping import (
    Run,
    find_runs,
    is_row,
    is_told_apart,
    lay_parts,
    moved_axes,
    repeats_across,
    reshape_part,
)

PLACES = Pin(GroupState.PINNED, "places within a unit")
LARGEST_PRODUCT = 1 << 21  # atoms that two hidden axes may make together


class Pinned(NamedTuple):
    """Atoms that may not be permuted, and why."""

    atoms: Atoms
    pin: Pin


class Belonging(NamedTuple):
    """Atoms, for each the atom of the block it belongs to, and the place of that atom: a block that lies in several
    places holds other atoms in each."""

    atoms: Atoms
    blocks: Atoms
    places: Atoms


class Chosen(NamedTuple):
    """Units of the block that is chosen among several, each sample its own.

    Attributes:
        units: atoms that stand for the units of whichever block is chosen.
        each: the atoms of the units of every block, shape (blocks, units).
        by: the tensor that says which block.
    """

    units: Atoms
    each: Atoms
    by: str


class TakenOver(NamedTuple):
    """Atoms over which a statistic is taken, for each of the `blocks` by itself."""

    atoms: Atoms
    blocks: Atoms
    statistic: Statistic


class Wiring:
    """Collects atoms, ties, blocks and pins while a network is run on labels."""

    def __init__(self) -> None:
        self.count = 0
        self.ties: list[tuple[Atoms, Atoms]] = []
        self.pins: list[Pinned] = []
        self.blocks: list[Belonging] = []
        self.copies: set[int] = set()  # which of `blocks` hold copies, and what these are copies of
        self.made: dict[tuple[bytes, tuple[int, ...], tuple[int, ...]], Atoms] = {}  # blocks of a part, by axes
        self.statistics: list[TakenOver] = []
        self.sized_by: list[
            tuple[SizeConstant, Atoms]
        ] = []  # what holds a size, and the atoms on the axes of that size
        # by tensor that is reshaped its label with atoms for what it holds several times
        self.spread: dict[str, Label] = {}
        self.tiled: dict[str, dict[int, int]] = {}  # by tensor how often an axis holds the same, end to end
        self.places: dict[str, Atoms] = {}  # by integer tensor the axis that its values are places on
        self.chosen: list[Chosen] = []
        self.alone = False  # whether a unit was taken alone: its axis has one place, and a label names none
        self.readings: list[Atoms] = []  # atoms that one operator reads together, each as often as it is read

    def fresh(self, size: int) -> Atoms:
        """New atoms."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def fresh_label(self, shape: tuple[int, ...]) -> Label:
        """New atoms on every axis longer than 1: the label of a weight."""
        parts = [on_axis(self.fresh(size), axis, len(shape)) for axis, size in enumerate(shape) if size > 1]
        return Label(shape, tuple(parts))

    def pin(self, atoms: Atoms, pin: Pin) -> None:
        """Pin atoms: they may not be permuted."""
        self.pins.append(Pinned(atoms.ravel(), pin))

    def pin_label(self, label: Label, pin: Pin) -> None:
        """Pin every atom of a label."""
        for part in label.parts:
            self.pin(part, pin)
        for element in label.elements or ():
            self.pin_label(element, pin)

    def mark_statistic(self, label: Label, axes: Iterable[int], statistic: Statistic) -> None:
        """Note that an operator takes a statistic over these axes, so that one more live unit would change it."""
        reduced = set(axes)
        for part in label.parts:
            if reduced & set(spans(part)):
                kept = tuple(axis for axis in spans(part) if axis not in reduced)
                blocks = self.block_atoms(part, kept) if kept else part[:0]
                self.statistics.append(TakenOver(np.unique(part), np.unique(blocks), statistic))
                self.read(part)

    def mark_size(self, label: Label, constant: SizeConstant) -> None:
        """Note that a constant or an attribute holds a size of this label, and must follow when an axis is resized."""
        self.sized_by += [(constant, np.unique(part)) for part in label.parts]

    def read(self, axis_label: AxisLabel) -> None:
        """Note that an operator reads all units of this axis alike: those it reads more or less often are others."""
        if isinstance(axis_label, np.ndarray):
            self.readings.append(axis_label.ravel())

    def contract(self, a: AxisLabel, b: AxisLabel) -> None:
        """Tie two axes that are multiplied and summed over."""
        self.read(self.tie(a, b))

    def tie(self, a: AxisLabel, b: AxisLabel) -> AxisLabel:
        """Make two axes move together; the result labels both."""
        if a is None or b is None:
            return b if a is None else a
        if isinstance(a, Pin):
            if isinstance(b, np.ndarray):
                self.pin(b, a)
            return a
        if isinstance(b, Pin):
            self.pin(a, b)
            return b
        self.ties.append((a.ravel(), b.ravel()))
        return a

    def belong(self, atoms: Atoms, blocks: Atoms, places: Atoms | None = None) -> None:
        """Make whatever moves `atoms` move whole `blocks`; arrays that broadcast to one shape.

        Args:
            places: numbers for the places of the blocks, one for each index of `blocks` if left out.
        """
        places = np.arange(blocks.size).reshape(blocks.shape) if places is None else places
        inner, outer, place = np.broadcast_arrays(atoms, blocks, places)
        self.blocks.append(Belonging(inner.ravel(), outer.ravel(), place.ravel()))

    def copy_of(self, originals: Atoms, shape: tuple[int, ...], places: Atoms | None = None) -> Atoms:
        """New atoms of a shape for copies, each of which belongs to what it is a copy of (see `belong`)."""
        own = self.fresh(int(np.prod(shape))).reshape(shape)
        self.copies.add(len(self.blocks))
        self.belong(own, originals, places)
        return own

    def used_blocks(self) -> list[Belonging]:
        """What belongs to what, without the copies that no operator does anything with."""
        used = np.zeros(self.count, bool)
        for atoms in (
            *(side for tie in self.ties for side in tie),
            *(pinned.atoms for pinned in self.pins),
            *(side for taken in self.statistics for side in taken[:2]),
            *self.readings,
        ):
            used[atoms] = True
        kept = []
        for number, belonging in reversed(list(enumerate(self.blocks))):  # what is done with copies comes behind them
            if number in self.copies:
                rows = used[belonging.atoms]
                belonging = Belonging(*(column[rows] for column in belonging))
            used[belonging.atoms] = used[belonging.blocks] = True
            kept.append(belonging)
        return kept[::-1]

    def block_atoms(self, part: Atoms, axes: tuple[int, ...]) -> Atoms:
        """Atoms for some of the axes that a part varies along, each a block of the part's atoms."""
        if axes == spans(part):
            return part
        key = (part.tobytes(), part.shape, axes)
        if key not in self.made:
            shape = [size if axis in axes else 1 for axis, size in enumerate(part.shape)]
            self.made[key] = self.fresh(int(np.prod(shape))).reshape(shape)
            self.belong(part, self.made[key])
        return self.made[key]

    def axis_label(self, label: Label, axis: int) -> AxisLabel:
        """The label of one axis alone; blocks where the axis is a factor of a product."""
        if axis in label.pins:
            return label.pins[axis]
        part = label.part_on(axis)
        return None if part is None else self.block_atoms(part, (axis,)).ravel()

    def without(self, label: Label, *axes: int) -> Label:
        """The label with some axes cut to length 1: summed over, looked up in, or to be replaced."""
        parts = []
        for part in label.parts:
            kept = tuple(axis for axis in spans(part) if axis not in axes)
            if kept:
                parts.append(self.block_atoms(part, kept))
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(label.shape))
        return Label(shape, tuple(parts), {axis: pin for axis, pin in label.pins.items() if axis not in axes})

    def sum_away(self, label: Label, *axes: int) -> Label:
        """The label after a sum over some axes, which stay with length 1."""
        for part in label.parts:
            if set(axes) & set(spans(part)):
                self.read(part)
        return self.without(label, *axes)

    def with_axis_label(self, label: Label, axis: int, axis_label: AxisLabel, size: int) -> Label:
        """The label with another label on one axis."""
        rest = self.without(label, axis)
        shape = (*label.shape[:axis], size, *label.shape[axis + 1 :])
        one = self.label_of(shape, [axis_label if a == axis else None for a in range(len(shape))])
        return Label(shape, (*rest.parts, *one.parts), {**rest.pins, **one.pins})

    def axis_labels(self, label: Label) -> list[AxisLabel]:
        """The labels of all axes."""
        return [self.axis_label(label, axis) for axis in range(len(label.shape))]

    def combine(self, labels: Iterable[Label], shape: tuple[int, ...]) -> Label:
        """The label of an elementwise operator's output of `shape`: broadcast, then tie equal axes."""
        kept: dict[tuple[int, ...], Atoms] = {}
        pins: dict[int, Pin] = {}
        for label in labels:
            shift = len(shape) - len(label.shape)
            for axis, pin in label.pins.items():
                pins.setdefault(axis + shift, pin)
            for part in label.parts:
                self.keep(kept, part.reshape((1,) * shift + part.shape))
        while (clash := overlapping(kept)) is not None:
            self.untangle(kept, *clash)
        for axes, part in list(kept.items()):
            for axis in [axis for axis in axes if axis in pins]:
                self.pin(self.block_atoms(part, (axis,)), pins[axis])
                if len(axes) == 1:
                    kept.pop(axes)
                else:  # what stays put on one axis may still move along the others
                    pins.pop(axis)
        return Label(shape, tuple(kept.values()), {a: f for a, f in pins.items() if shape[a] > 1})

    def keep(self, kept: dict[tuple[int, ...], Atoms], part: Atoms) -> None:
        """Add a part to those of one label: parts along the same axes are tied."""
        axes = spans(part)
        if axes in kept:
            self.tie(kept[axes], part)
        else:
            kept[axes] = part

    def untangle(self, kept: dict[tuple[int, ...], Atoms], few: tuple[int, ...], many: tuple[int, ...]) -> None:
        """Make of two parts that overlap some that do not: the finer belongs to the coarser, or both to their product;
        one falls into axes where that would be too large."""
        part = kept.pop(few)
        if set(few) <= set(many):
            self.belong(kept[many], part)
        elif np.prod(np.broadcast_shapes(part.shape, kept[many].shape)) <= LARGEST_PRODUCT:
            self.keep(kept, self.product_of([part, kept.pop(many)]))
        else:
            for axis in few:
                self.keep(kept, self.block_atoms(part, (axis,)))

    def label_of(self, shape: tuple[int, ...], axis_labels: Sequence[AxisLabel]) -> Label:
        """A label from those of its axes; the caller has checked axes of size 1."""
        parts = [
            on_axis(axis_label, axis, len(shape))
            for axis, axis_label in enumerate(axis_labels)
            if isinstance(axis_label, np.ndarray) and shape[axis] > 1
        ]
        pins = {axis: p for axis, p in enumerate(axis_labels) if isinstance(p, Pin) and shape[axis] > 1}
        return Label(shape, tuple(parts), pins)

    def concat(self, axis_labels: Sequence[AxisLabel], sizes: Sequence[int]) -> AxisLabel:
        """The label of axes laid end to end."""
        pins = [axis_label for axis_label in axis_labels if isinstance(axis_label, Pin)]
        if len(pins) == len(axis_labels):
            return pins[0]
        return np.concatenate(
            [self.atoms(axis_label, size) for axis_label, size in zip(axis_labels, sizes, strict=True)]
        )

    def atoms(self, axis_label: AxisLabel, size: int) -> Atoms:
        """The atoms of an axis: new ones where it has none, pinned where the axis is."""
        if isinstance(axis_label, np.ndarray):
            return axis_label
        atoms = self.fresh(size)
        if isinstance(axis_label, Pin):
            self.pin(atoms, axis_label)
        return atoms

    def take(self, label: Label, axis: int, indices: Atoms, by: str) -> Label:
        """The label after selecting `indices` along one axis (slice, split, gather with constant indices)."""
        shape = (*label.shape[:axis], len(indices), *label.shape[axis + 1 :])
        parts = []
        for part in label.parts:
            if part.shape[axis] == 1:
                parts.append(part)
                continue
            taken = self.copied(self.tell_apart(part, axis), axis, indices)
            if taken.size > 1:  # an axis of length 1 drops out of a product
                parts.append(taken)
            elif taken.size:  # a unit that is used alone cannot trade places with its neighbours
                self.alone = True
                self.pin(taken, Pin(GroupState.FROZEN, f"{by} uses a single unit of the axis"))
        return Label(shape, tuple(parts), {a: f for a, f in label.pins.items() if shape[a] > 1})

    def repeat(self, label: Label, axis: int, times: int) -> Label:
        """The label of copies end to end along one axis."""
        indices = np.tile(np.arange(label.shape[axis]), times)
        shape = (*label.shape[:axis], len(indices), *label.shape[axis + 1 :])
        parts = [part if part.shape[axis] == 1 else self.copied(part, axis, indices) for part in label.parts]
        return Label(shape, tuple(parts), label.pins)

    def copied(self, part: Atoms, axis: int, indices: Atoms) -> Atoms:
        """The part at some indices of one axis. Each copy of what is taken several times gets an atom of its own, which
        belongs to the atom that it is a copy of: copies may trade places among themselves."""
        taken: Atoms = np.take(part, indices, axis=axis)
        again = np.flatnonzero(np.bincount(indices, minlength=part.shape[axis])[indices] > 1)
        if not len(again) or taken.size > LARGEST_PRODUCT:
            return taken
        places = np.arange(part.size).reshape(part.shape)
        originals = np.take(taken, again, axis=axis)
        places = np.take(places, indices[again], axis=axis)
        taken[on_line(again, axis)] = self.copy_of(originals, originals.shape, places)
        return taken

    def tell_apart(self, part: Atoms, axis: int | None = None) -> Atoms:
        """The part, with an atom of its own for every index of those that lie at several: what lies there may differ.
        It belongs to the atom that it stands for, and to its place among those of that atom.

        Args:
            axis: the one along which indices count, all of them if left out.
        """
        along = np.arange(part.size) if axis is None else np.broadcast_to(rising(part, axis), part.shape).ravel()
        both, which = np.unique(np.stack([part.ravel(), along]), axis=1, return_inverse=True)
        atoms = both[0]  # one for each index at which it lies, in order of these
        place = np.arange(len(atoms)) - np.searchsorted(atoms, atoms)
        if not place.any():
            return part
        places, own = self.fresh(int(place.max()) + 1), self.fresh(len(atoms))
        self.pin(places, PLACES)
        self.belong(own, atoms)
        self.belong(own, places[place])
        return own[which].reshape(part.shape)

    def transpose(self, label: Label, order: Sequence[int]) -> Label:
        """The label with its axes in another order."""
        return Label(
            tuple(label.shape[axis] for axis in order),
            tuple(part.transpose(order) for part in label.parts),
            {new: label.pins[old] for new, old in enumerate(order) if old in label.pins},
        )

    def reshape(self, label: Label, shape: tuple[int, ...], by: str, name: str = "") -> Label:
        """The label after a reshape of a tensor of that name: every run of axes that keeps its product is reshaped by
        itself."""
        if 0 in shape:
            self.pin_label(label, Pin(GroupState.FROZEN, f"{by} has an empty axis"))
            return Label(shape)
        axes = moved_axes(label.shape, shape)
        if axes is not None and all(is_row(part) or is_told_apart(part) for part in label.parts):
            return lay_parts(label, shape, axes)
        runs = find_runs(label.shape, shape)
        label = self.with_places(label, runs, shape)
        label = self.multiply_out(label, [old for old, _ in runs], by)
        label = self.with_copies(label, [old for old, _ in runs], name)
        parts, pins = self.reshape_parts(label, shape, runs, by)
        varying = {axis for part in parts for axis in spans(part)}
        for old, new in runs:
            pin = next((label.pins[axis] for axis in old if axis in label.pins), None)
            if pin is not None:
                times = self.tiled.get(name, {}).get(old[0], 1) if len(old) == 1 else 1
                ordered = [axis for axis in behind_copies(new, shape, times) if shape[axis] > 1]
                pins.update({axis: pin for axis in ordered if axis not in varying})
        return Label(shape, tuple(parts), pins)

    def reshape_parts(
        self, label: Label, shape: tuple[int, ...], runs: Sequence[Run], by: str
    ) -> tuple[list[Atoms], dict[int, Pin]]:
        """The parts of a label under a reshape, and pins where places within a unit get an axis of their own."""
        pins: dict[int, Pin] = {}
        parts: list[Atoms] = []
        for part in label.parts:
            moved, ordered = reshape_part(part, label.shape, shape, runs)
            if repeats_across(moved):
                moved, ordered = reshape_part(self.tell_apart(part), label.shape, shape, runs)
            pins.update(dict.fromkeys(ordered, PLACES))
            if spans(moved):
                parts.append(moved)
            else:  # one unit, repeated: nothing would name it any more
                self.pin(moved, Pin(GroupState.FROZEN, f"{by} repeats a single unit"))
        return parts, pins

    def with_places(self, label: Label, runs: Sequence[Run], shape: Sequence[int]) -> Label:
        """The label with atoms on the pinned axes that a run of axes mixes with others so that the indices of one atom
        lie across the new axes: which place on the pinned ones each is for differs from atom to atom; or with an axis
        along which all is the same, whose copies may trade places."""
        parts, pins = list(label.parts), dict(label.pins)
        for old, new in runs:
            mixed = [part for part in label.parts if set(spans(part)) & set(old)] if len(new) > 1 else []
            is_across = any(repeats_across(reshape_part(part, label.shape, shape, runs)[0]) for part in mixed)
            if not (is_across or set(old) & set(self.bare_axes(label))):
                continue
            for axis in pins.keys() & set(old):
                atoms = self.fresh(label.shape[axis])
                self.pin(atoms, pins.pop(axis))
                parts.append(on_axis(atoms, axis, len(label.shape)))
        return Label(label.shape, tuple(parts), pins)

    def multiply_out(self, label: Label, runs: Sequence[list[int]], by: str) -> Label:
        """The label with one part for all those that one run of axes mixes: an atom for every combination, which
        belongs to each of its factors."""
        parts, pins = list(label.parts), dict(label.pins)
        for run in runs:
            mixed = [part for part in parts if set(spans(part)) & set(run)]
            if len(mixed) < 2:
                continue
            parts = [part for part in parts if not set(spans(part)) & set(run)]
            shape = np.broadcast_shapes(*(part.shape for part in mixed))
            if np.prod(shape) > LARGEST_PRODUCT:
                pin = Pin(GroupState.FROZEN, f"{by} mixes two hidden axes")
                pins.update({axis: pin for part in mixed for axis in spans(part)})
                for part in mixed:
                    self.pin(part, pin)
                continue
            parts.append(self.product_of(mixed))
        return Label(label.shape, tuple(parts), pins)

    def bare_axes(self, label: Label) -> list[int]:
        """The axes longer than 1 along which a label holds the same at every index."""
        long = [axis for axis, size in enumerate(label.shape) if size > 1 and axis not in label.pins]
        return [axis for axis in long if label.part_on(axis) is None]

    def with_copies(self, label: Label, runs: Sequence[list[int]], name: str) -> Label:
        """The label with atoms for what holds the same at every index of an axis that a run mixes with others: an atom
        for every copy, which belongs to the one that it is a copy of."""
        parts = list(label.parts)
        bare = self.bare_axes(label)
        for run in runs:
            repeated = [axis for axis in run if axis in bare]
            for number, part in enumerate(parts):
                shape = tuple(label.shape[axis] if axis in repeated else size for axis, size in enumerate(part.shape))
                if repeated and set(spans(part)) & set(run) and np.prod(shape) <= LARGEST_PRODUCT:
                    parts[number] = self.copy_of(part, shape)
        spread = Label(label.shape, tuple(parts), label.pins)
        if name and any(new is not old for new, old in zip(parts, label.parts, strict=True)):
            self.spread[name] = spread
        return spread

    def product_of(self, parts: Sequence[Atoms]) -> Atoms:
        """An atom for every combination of some parts, which belongs to each of its factors."""
        shape = np.broadcast_shapes(*(part.shape for part in parts))
        joined = self.fresh(int(np.prod(shape))).reshape(shape)
        for part in parts:
            self.belong(joined, part)
        return joined


def behind_copies(axes: Sequence[int], shape: Sequence[int], times: int) -> Sequence[int]:
    """The axes without the first ones, along which what lies end to end so often holds the same."""
    for number, axis in enumerate(axes):
        if times % shape[axis]:
            return axes[number:]
        times //= shape[axis]
    return ()


def rising(part: Atoms, axis: int) -> Atoms:
    """The indices along one axis of a part, in its rank."""
    return on_axis(np.arange(part.shape[axis]), axis, part.ndim)


def on_line(indices: Atoms, axis: int) -> tuple[slice | Atoms, ...]:
    """What numpy indexes by, to name indices of one axis."""
    return (*[slice(None)] * axis, indices)


def overlapping(kept: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Two sets of axes that have some in common, the smaller first; None if there are none."""
    pairs = [(a, b) for a, b in combinations(kept, 2) if set(a) & set(b)]
    return None if not pairs else (min(pairs[0], key=len), max(reversed(pairs[0]), key=len))
