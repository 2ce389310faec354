"""Label arrays: which indices of which tensor axes carry the same wire.

Every hidden wire of a network gets an integer, an *atom*. The label of a tensor says which atom each index of each axis
belongs to, as a few integer arrays that broadcast to the tensor's shape; the shape operators of a network then act
on labels through the numpy function of the same name. Weights start with fresh atoms on every axis, operators *tie*
the atoms that must move together, and the connected components of the ties are the units (see `units`).

A second relation orders what a reshape splits. Where channels become (groups, channels of a group) and an operator
acts on one of the two axes alone, that axis gets atoms of its own, and each channel *belongs* to the one it lies on:
whatever moves the channels must then move whole blocks to whole blocks. The channels of a block stay free to move
within it, unless they belong to a unit of the other axis too.

Chosen: arrays of atoms, because concat offsets, flattened C*H*W, channel shuffle, strided slices, grouped convolution
and attention heads all come out of one mechanism. Refused: axis expressions (sums of products), which fail on strides
that do not nest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]


class GroupState(StrEnum):
    """What is known of the units of an axis, and so of a group of axes."""

    CANDIDATE = "candidate"  # found, not yet verified
    VERIFIED = "verified"
    UNVERIFIED = "unverified"  # no verdict
    PINNED = "pinned"  # their order is part of the contract
    FROZEN = "frozen"  # nothing can be said
    RIGID = "rigid"  # no two of them are interchangeable


class Pin(NamedTuple):
    """Why an axis cannot be permuted.

    Attributes:
        state: PINNED or FROZEN.
        unknown_op: the operator without a row that freezes it, if one does.
    """

    state: GroupState
    reason: str
    unknown_op: str = ""


@dataclass(frozen=True)
class Statistic:
    """A node that takes a sum, norm, mean or maximum over units, by its operator and name."""

    op: str
    node: str

    def __str__(self) -> str:
        return f"{self.op} {self.node!r}"


@dataclass(frozen=True)
class SizeConstant:
    """An input or attribute of a node that holds the size of an axis.

    Attributes:
        name: what the operator calls it.
        op, node: the operator, and the name of its node.
        is_block_count: it is the number of blocks that the axis is cut into.
    """

    name: str
    op: str
    node: str
    is_block_count: bool = False

    def __str__(self) -> str:
        return f"{self.name} of {self.op} {self.node!r}"


AxisLabel = Atoms | Pin | None  # one axis: its atoms, why it is fixed, or None where all its indices hold the same

PLACES = Pin(GroupState.PINNED, "places within a unit")
LARGEST_PRODUCT = 1 << 21  # atoms that a reshape of two hidden axes into one may make


@dataclass(frozen=True)
class Label:
    """The label of one tensor.

    Attributes:
        shape: the tensor's shape.
        parts: arrays of atoms, each with the tensor's rank and size 1 or full along every axis; no two vary along
            the same axis. An array that varies along two axes labels the product of both.
        fixed: axes that may not be permuted. An axis in neither holds the same content at every index.
    """

    shape: tuple[int, ...]
    parts: tuple[Atoms, ...] = ()
    fixed: dict[int, Pin] = field(default_factory=dict)

    def part_on(self, axis: int) -> Atoms | None:
        return next((part for part in self.parts if part.shape[axis] > 1), None)


def fixed_label(shape: Sequence[int], fix: Pin) -> Label:
    """A label with every axis longer than 1 fixed."""
    return Label(tuple(shape), (), {axis: fix for axis, size in enumerate(shape) if size > 1})


def spans(part: Atoms) -> tuple[int, ...]:
    """The axes along which a part varies."""
    return tuple(axis for axis, size in enumerate(part.shape) if size > 1)


class Fixed(NamedTuple):
    """Atoms that may not be permuted, and why."""

    atoms: Atoms
    fix: Pin


class Belonging(NamedTuple):
    """Atoms, for each the atom of the block it belongs to, and the place of that atom: a block that lies in several
    places holds other atoms in each."""

    atoms: Atoms
    blocks: Atoms
    places: Atoms


class TakenOver(NamedTuple):
    """Atoms over which a statistic is taken, for each of the `blocks` by itself."""

    atoms: Atoms
    blocks: Atoms
    statistic: Statistic


class Wiring:
    """Collects atoms, ties, blocks and fixes while a network is run on labels."""

    def __init__(self) -> None:
        self.count = 0
        self.ties: list[tuple[Atoms, Atoms]] = []
        self.fixes: list[Fixed] = []
        self.blocks: list[Belonging] = []
        self.made: dict[tuple[bytes, tuple[int, ...], tuple[int, ...]], Atoms] = {}  # blocks of a part, by axes
        self.statistics: list[TakenOver] = []
        self.sized_by: list[
            tuple[SizeConstant, Atoms]
        ] = []  # what holds a size, and the atoms on the axes of that size
        self.sequences: dict[str, list[Label]] = {}  # what a sequence of tensors holds, by its name
        self.readings: list[Atoms] = []  # atoms that one operator reads together, each as often as it is read

    def fresh(self, size: int) -> Atoms:
        self.count += size
        return np.arange(self.count - size, self.count)

    def fresh_label(self, shape: tuple[int, ...]) -> Label:
        """New atoms on every axis longer than 1: the label of a weight."""
        parts = [on_axis(self.fresh(size), axis, len(shape)) for axis, size in enumerate(shape) if size > 1]
        return Label(shape, tuple(parts))

    def fix(self, atoms: Atoms, fix: Pin) -> None:
        self.fixes.append(Fixed(atoms.ravel(), fix))

    def fix_all(self, label: Label, fix: Pin) -> None:
        for part in label.parts:
            self.fix(part, fix)

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

    def read(self, piece: AxisLabel) -> None:
        """Note that an operator reads all units of this axis alike: those it reads more or less often are others."""
        if isinstance(piece, np.ndarray):
            self.readings.append(piece.ravel())

    def contract(self, a: AxisLabel, b: AxisLabel) -> None:
        """Tie two axes that are multiplied and summed over."""
        self.read(self.tie(a, b))

    def tie(self, a: AxisLabel, b: AxisLabel) -> AxisLabel:
        """Make two pieces move together; the result labels both."""
        if a is None or b is None:
            return b if a is None else a
        if isinstance(a, Pin):
            if isinstance(b, np.ndarray):
                self.fix(b, a)
            return a
        if isinstance(b, Pin):
            self.fix(a, b)
            return b
        self.ties.append((a.ravel(), b.ravel()))
        return a

    def belong(self, atoms: Atoms, blocks: Atoms) -> None:
        """Make whatever moves `atoms` move whole `blocks`; arrays that broadcast to one shape."""
        places = np.arange(blocks.size).reshape(blocks.shape)
        inner, outer, place = np.broadcast_arrays(atoms, blocks, places)
        self.blocks.append(Belonging(inner.ravel(), outer.ravel(), place.ravel()))

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

    def piece(self, label: Label, axis: int) -> AxisLabel:
        """The label of one axis alone; blocks where the axis is a factor of a product."""
        if axis in label.fixed:
            return label.fixed[axis]
        part = label.part_on(axis)
        return None if part is None else self.block_atoms(part, (axis,)).ravel()

    def without(self, label: Label, axis: int) -> Label:
        """The label with one axis cut to length 1: summed over, looked up in, or to be replaced."""
        parts = []
        for part in label.parts:
            kept = tuple(a for a in spans(part) if a != axis)
            if kept:
                parts.append(self.block_atoms(part, kept))
        shape = (*label.shape[:axis], 1, *label.shape[axis + 1 :])
        return Label(shape, tuple(parts), {a: fix for a, fix in label.fixed.items() if a != axis})

    def sum_away(self, label: Label, axis: int) -> Label:
        """The label after a sum over one axis, which stays with length 1."""
        part = label.part_on(axis)
        if part is not None:
            self.read(part)
        return self.without(label, axis)

    def with_piece(self, label: Label, axis: int, piece: AxisLabel, size: int) -> Label:
        """The label with another piece on one axis."""
        rest = self.without(label, axis)
        shape = (*label.shape[:axis], size, *label.shape[axis + 1 :])
        one = self.label_of(shape, [piece if a == axis else None for a in range(len(shape))])
        return Label(shape, (*rest.parts, *one.parts), {**rest.fixed, **one.fixed})

    def pieces(self, label: Label) -> list[AxisLabel]:
        return [self.piece(label, axis) for axis in range(len(label.shape))]

    def combine(self, labels: Iterable[Label], shape: tuple[int, ...]) -> Label:
        """The label of an elementwise operator's output of `shape`: broadcast, then tie equal axes."""
        kept: dict[tuple[int, ...], Atoms] = {}
        fixed: dict[int, Pin] = {}
        for label in labels:
            shift = len(shape) - len(label.shape)
            for axis, fix in label.fixed.items():
                fixed.setdefault(axis + shift, fix)
            for part in label.parts:
                self.keep(kept, part.reshape((1,) * shift + part.shape))
        while (clash := overlapping(kept)) is not None:
            self.untangle(kept, *clash)
        for axes, part in list(kept.items()):
            for axis in [axis for axis in axes if axis in fixed]:
                self.fix(self.block_atoms(part, (axis,)), fixed[axis])
                if len(axes) == 1:
                    kept.pop(axes)
                else:  # what stays put on one axis may still move along the others
                    fixed.pop(axis)
        return Label(shape, tuple(kept.values()), {a: f for a, f in fixed.items() if shape[a] > 1})

    def keep(self, kept: dict[tuple[int, ...], Atoms], part: Atoms) -> None:
        """Add a part to those of one label: parts along the same axes are tied."""
        axes = spans(part)
        if axes in kept:
            self.tie(kept[axes], part)
        else:
            kept[axes] = part

    def untangle(self, kept: dict[tuple[int, ...], Atoms], few: tuple[int, ...], many: tuple[int, ...]) -> None:
        """Make of two parts that overlap some that do not: the finer belongs to the coarser, or one falls into axes."""
        part = kept.pop(few)
        if set(few) <= set(many):
            self.belong(kept[many], part)
            return
        for axis in few:
            self.keep(kept, self.block_atoms(part, (axis,)))

    def label_of(self, shape: tuple[int, ...], pieces: Sequence[AxisLabel]) -> Label:
        """A label from one piece per axis; a piece of size 1 was checked by the caller."""
        parts = [
            on_axis(piece, axis, len(shape))
            for axis, piece in enumerate(pieces)
            if isinstance(piece, np.ndarray) and shape[axis] > 1
        ]
        fixed = {axis: p for axis, p in enumerate(pieces) if isinstance(p, Pin) and shape[axis] > 1}
        return Label(shape, tuple(parts), fixed)

    def concat(self, pieces: Sequence[AxisLabel], sizes: Sequence[int]) -> AxisLabel:
        """Pieces laid end to end along one axis."""
        fixes = [piece for piece in pieces if isinstance(piece, Pin)]
        if len(fixes) == len(pieces):
            return fixes[0]
        return np.concatenate([self.atoms(piece, size) for piece, size in zip(pieces, sizes, strict=True)])

    def atoms(self, piece: AxisLabel, size: int) -> Atoms:
        """A piece as atoms: new ones for what has none, fixed where the piece is."""
        if isinstance(piece, np.ndarray):
            return piece
        atoms = self.fresh(size)
        if isinstance(piece, Pin):
            self.fix(atoms, piece)
        return atoms

    def take(self, label: Label, axis: int, indices: Atoms, by: str) -> Label:
        """The label after selecting `indices` along one axis (slice, split, gather with constant indices)."""
        shape = (*label.shape[:axis], len(indices), *label.shape[axis + 1 :])
        parts = []
        for part in label.parts:
            if part.shape[axis] == 1:
                parts.append(part)
                continue
            taken = np.take(self.told_apart(part), indices, axis=axis)
            if taken.size > 1:  # an axis of length 1 drops out of a product
                parts.append(taken)
            elif taken.size:  # a unit that is used alone cannot trade places with its neighbours
                self.fix(taken, Pin(GroupState.FROZEN, f"{by} uses a single unit of the axis"))
        return Label(shape, tuple(parts), {a: f for a, f in label.fixed.items() if shape[a] > 1})

    def told_apart(self, part: Atoms) -> Atoms:
        """The part, with an atom of its own for every index of those that lie at several: what lies there may differ.
        It belongs to the atom that it stands for, and to its place among those of that atom."""
        atoms = part.ravel()
        order = np.argsort(atoms, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order)) - np.searchsorted(atoms[order], atoms[order])
        if not place.any():
            return part
        places, own = self.fresh(int(place.max()) + 1), self.fresh(part.size).reshape(part.shape)
        self.fix(places, PLACES)
        self.belong(own, part)
        self.belong(own, places[place].reshape(part.shape))
        return own

    def transpose(self, label: Label, order: Sequence[int]) -> Label:
        return Label(
            tuple(label.shape[axis] for axis in order),
            tuple(part.transpose(order) for part in label.parts),
            {new: label.fixed[old] for new, old in enumerate(order) if old in label.fixed},
        )

    def reshape(self, label: Label, shape: tuple[int, ...], by: str) -> Label:
        """The label after a reshape: every run of axes that keeps its product is reshaped by itself."""
        if 0 in shape:
            self.fix_all(label, Pin(GroupState.FROZEN, f"{by} has an empty axis"))
            return Label(shape)
        if all(is_row(part) for part in label.parts) and (axes := moved_axes(label.shape, shape)) is not None:
            return relaid(label, shape, axes)
        found = runs(label.shape, shape)
        label = self.with_places(label, found, shape)
        label = self.multiplied_out(label, [old for old, _ in found], by)
        fixed: dict[int, Pin] = {}
        parts: list[Atoms] = []
        for part in label.parts:
            moved, ordered = reshaped_part(part, label.shape, shape, found)
            if repeats_across(moved):
                moved, ordered = reshaped_part(self.told_apart(part), label.shape, shape, found)
            fixed.update(dict.fromkeys(ordered, PLACES))
            if spans(moved):
                parts.append(moved)
            else:  # one unit, repeated: nothing would name it any more
                self.fix(moved, Pin(GroupState.FROZEN, f"{by} repeats a single unit"))
        varying = {axis for part in parts for axis in spans(part)}
        for old, new in found:
            fix = next((label.fixed[axis] for axis in old if axis in label.fixed), None)
            if fix is not None:
                fixed.update({axis: fix for axis in new if shape[axis] > 1 and axis not in varying})
        return Label(shape, tuple(parts), fixed)

    def with_places(self, label: Label, found: Sequence[tuple[list[int], list[int]]], shape: Sequence[int]) -> Label:
        """The label with atoms on the fixed axes that a run of axes mixes with others so that the indices of one atom
        lie across the new axes: which place on the fixed ones each is for differs from atom to atom."""
        parts, fixed = list(label.parts), dict(label.fixed)
        for old, new in found:
            mixed = [part for part in label.parts if set(spans(part)) & set(old)] if len(new) > 1 else []
            if not any(repeats_across(reshaped_part(part, label.shape, shape, found)[0]) for part in mixed):
                continue
            for axis in fixed.keys() & set(old):
                atoms = self.fresh(label.shape[axis])
                self.fix(atoms, fixed.pop(axis))
                parts.append(on_axis(atoms, axis, len(label.shape)))
        return Label(label.shape, tuple(parts), fixed)

    def multiplied_out(self, label: Label, found: Sequence[list[int]], by: str) -> Label:
        """The label with one part for all those that one run of axes mixes: an atom for every combination, which
        belongs to each of its factors."""
        parts, fixed = list(label.parts), dict(label.fixed)
        for run in found:
            mixed = [part for part in parts if set(spans(part)) & set(run)]
            if len(mixed) < 2:
                continue
            parts = [part for part in parts if not set(spans(part)) & set(run)]
            shape = np.broadcast_shapes(*(part.shape for part in mixed))
            if np.prod(shape) > LARGEST_PRODUCT:
                fix = Pin(GroupState.FROZEN, f"{by} mixes two hidden axes")
                fixed.update({axis: fix for part in mixed for axis in spans(part)})
                for part in mixed:
                    self.fix(part, fix)
                continue
            joined = self.fresh(int(np.prod(shape))).reshape(shape)
            for part in mixed:
                self.belong(joined, part)
            parts.append(joined)
        return Label(label.shape, tuple(parts), fixed)


def is_row(part: Atoms) -> bool:
    """Whether a part varies along one axis only, from the first atom on."""
    atoms = part.ravel()
    return max(part.shape) == part.size and bool(atoms[0] != atoms[1])


def moved_axes(old: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """The axes longer than 1 of a new shape, if they are those of the old one; else None."""
    long = [axis for axis, size in enumerate(new) if size > 1]
    return long if [size for size in old if size > 1] == [new[axis] for axis in long] else None


def relaid(label: Label, shape: tuple[int, ...], moved: Sequence[int]) -> Label:
    """A label of rows whose axes longer than 1 come to the places `moved`."""
    place = dict(zip([axis for axis, size in enumerate(label.shape) if size > 1], moved, strict=True))
    parts = []
    for part in label.parts:
        (axis,) = spans(part)
        parts.append(on_axis(part.ravel(), place[axis], len(shape)))
    return Label(shape, tuple(parts), {place[axis]: fix for axis, fix in label.fixed.items() if axis in place})


def overlapping(kept: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Two sets of axes that have some in common, the smaller first; None if there are none."""
    found = [(a, b) for a, b in combinations(kept, 2) if set(a) & set(b)]
    return None if not found else (min(found[0], key=len), max(reversed(found[0]), key=len))


def on_axis(atoms: Atoms, axis: int, rank: int) -> Atoms:
    return atoms.reshape([len(atoms) if i == axis else 1 for i in range(rank)])


def runs(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of two shapes with equal products."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while True:
            if a <= b and i < len(old) and (a < b or not left):
                a *= old[i]
                left.append(i)
                i += 1
            elif j < len(new) and (b < a or not right):
                b *= new[j]
                right.append(j)
                j += 1
            elif i < len(old) and a < b:
                a *= old[i]
                left.append(i)
                i += 1
            else:
                break
        found.append((left, right))
    return found


def repeats_across(part: Atoms) -> bool:
    """Whether an atom lies at several indices of a part that do not differ on one axis alone."""
    axes = spans(part)
    if len(axes) < 2 or len(np.unique(part)) == part.size:
        return False
    lines = [np.moveaxis(part, axis, -1).reshape(-1, part.shape[axis]) for axis in axes]
    return all(sum(len(np.unique(line)) for line in along) > len(np.unique(part)) for along in lines)


def reshaped_part(
    part: Atoms, shape: Sequence[int], target: Sequence[int], found: Sequence[tuple[list[int], list[int]]]
) -> tuple[Atoms, list[int]]:
    """One part under a reshape.

    Returns:
        the part, collapsed along every axis on which the atom stays the same; and those of these axes on which the
        place in the part changes: what one unit holds there (the filters of a depthwise channel, say) differs.
    """
    inside = set(spans(part))
    touched = [(old, new) for old, new in found if inside & set(old)]
    whole = [size if any(axis in old for old, _ in touched) else 1 for axis, size in enumerate(shape)]
    final = [size if any(axis in new for _, new in touched) else 1 for axis, size in enumerate(target)]
    moved = np.broadcast_to(np.arange(part.size).reshape(part.shape), whole).reshape(final)
    atoms: Atoms = part.ravel()
    ordered = []
    for axis in range(len(target)):
        first = moved.take([0], axis=axis)
        if (atoms[moved] == atoms[first]).all():
            if (moved != first).any():
                ordered.append(axis)
            moved = first
    return atoms[moved], ordered
