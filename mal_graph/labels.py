"""Label arrays: which indices of which tensor axes carry the same wire.

Every hidden wire of a network gets an integer, an *atom*. The label of a tensor says which atom each index of each axis
belongs to, as a few integer arrays that broadcast to the tensor's shape; the shape operators of a network then act
on labels through the numpy function of the same name. Weights start with fresh atoms on every axis, operators *tie*
the atoms that must move together, and the connected components of the ties are the units (see `groups`).

Chosen: arrays of atoms, because concat offsets, flattened C*H*W, channel shuffle and strided slices all come out of
one mechanism. Refused: axis expressions (sums of products), which fail on strides that do not nest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.int64]


class Fix(NamedTuple):
    """Why an axis cannot be permuted: `state` is "pinned" (identity by contract) or "frozen" (nothing can be said)."""

    state: str
    reason: str


Piece = Atoms | Fix | None  # one axis: its atoms, why it is fixed, or None where all its indices hold the same


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
    fixed: dict[int, Fix] = field(default_factory=dict)

    def part_on(self, axis: int) -> Atoms | None:
        return next((part for part in self.parts if part.shape[axis] > 1), None)


def fixed_label(shape: Sequence[int], fix: Fix) -> Label:
    """A label with every axis longer than 1 fixed."""
    return Label(tuple(shape), (), {axis: fix for axis, size in enumerate(shape) if size > 1})


def spans(part: Atoms) -> tuple[int, ...]:
    """The axes along which a part varies."""
    return tuple(axis for axis, size in enumerate(part.shape) if size > 1)


class Wiring:
    """Collects atoms, ties and fixes while a network is run on labels."""

    def __init__(self) -> None:
        self.count = 0
        self.ties: list[tuple[Atoms, Atoms]] = []
        self.fixes: list[tuple[Atoms, Fix]] = []
        self.statistics: list[tuple[Atoms, str]] = []  # atoms over which a sum, norm, max or mean is taken
        self.readings: list[Atoms] = []  # atoms that one operator reads together, each as often as it is read

    def fresh(self, size: int) -> Atoms:
        self.count += size
        return np.arange(self.count - size, self.count)

    def fresh_label(self, shape: tuple[int, ...]) -> Label:
        """New atoms on every axis longer than 1: the label of a weight."""
        parts = [on_axis(self.fresh(size), axis, len(shape)) for axis, size in enumerate(shape) if size > 1]
        return Label(shape, tuple(parts))

    def fix(self, atoms: Atoms, fix: Fix) -> None:
        self.fixes.append((np.unique(atoms), fix))

    def fix_all(self, label: Label, fix: Fix) -> None:
        for part in label.parts:
            self.fix(part, fix)

    def mark_statistic(self, piece: Piece, reason: str) -> None:
        """Note that an operator takes a statistic over this axis, so that one more live unit would change it."""
        if isinstance(piece, np.ndarray):
            self.statistics.append((np.unique(piece), reason))
        self.read(piece)

    def read(self, piece: Piece) -> None:
        """Note that an operator reads all units of this axis alike: those it reads more or less often are others."""
        if isinstance(piece, np.ndarray):
            self.readings.append(piece)

    def contract(self, a: Piece, b: Piece) -> None:
        """Tie two axes that are multiplied and summed over."""
        self.read(self.tie(a, b))

    def tie(self, a: Piece, b: Piece) -> Piece:
        """Make two pieces move together; the result labels both."""
        if a is None or b is None:
            return b if a is None else a
        if isinstance(a, Fix):
            if isinstance(b, np.ndarray):
                self.fix(b, a)
            return a
        if isinstance(b, Fix):
            self.fix(a, b)
            return b
        self.ties.append((a.ravel(), b.ravel()))
        return a

    def piece(self, label: Label, axis: int, by: str) -> Piece:
        """The label of one axis alone. An axis that is half of a product is fixed: `by` cannot act on a factor."""
        if axis in label.fixed:
            return label.fixed[axis]
        part = label.part_on(axis)
        if part is None:
            return None
        if spans(part) == (axis,):
            return part.ravel()
        fix = Fix("frozen", f"{by} acts on one factor of a split axis")
        self.fix(part, fix)
        return fix

    def pieces(self, label: Label, by: str) -> list[Piece]:
        return [self.piece(label, axis, by) for axis in range(len(label.shape))]

    def combine(self, labels: Iterable[Label], shape: tuple[int, ...], by: str) -> Label:
        """The label of an elementwise operator's output of `shape`: broadcast, then tie equal axes."""
        parts: list[Atoms] = []
        fixed: dict[int, Fix] = {}
        for label in labels:
            shift = len(shape) - len(label.shape)
            for axis, fix in label.fixed.items():
                fixed.setdefault(axis + shift, fix)
            parts += [part.reshape((1,) * shift + part.shape) for part in label.parts]
        kept: dict[tuple[int, ...], Atoms] = {}
        for part in parts:
            axes = spans(part)
            blocking = [fixed[axis] for axis in axes if axis in fixed]
            if blocking:
                self.fix(part, blocking[0])
                fixed.update(dict.fromkeys(axes, blocking[0]))
            elif axes in kept:
                self.tie(kept[axes], part)
            else:
                kept[axes] = part
        return self.resolved(kept, fixed, shape, by)

    def resolved(
        self, kept: dict[tuple[int, ...], Atoms], fixed: dict[int, Fix], shape: tuple[int, ...], by: str
    ) -> Label:
        """Fix the parts that overlap another part or a fixed axis, until none does."""
        while True:
            clash = next((axes for axes in kept if any(axis in fixed for axis in axes)), None)
            if clash is not None:
                reason = next(fixed[axis] for axis in clash if axis in fixed)
            else:
                clash = next((a for a in kept for b in kept if a != b and set(a) & set(b)), None)
                reason = Fix("frozen", f"{by} joins a split axis with one of its factors")
            if clash is None:
                return Label(shape, tuple(kept.values()), {a: f for a, f in fixed.items() if shape[a] > 1})
            self.fix(kept.pop(clash), reason)
            fixed.update(dict.fromkeys(clash, reason))

    def label_of(self, shape: tuple[int, ...], pieces: Sequence[Piece]) -> Label:
        """A label from one piece per axis; a piece of size 1 was checked by the caller."""
        parts = [
            on_axis(piece, axis, len(shape))
            for axis, piece in enumerate(pieces)
            if isinstance(piece, np.ndarray) and shape[axis] > 1
        ]
        fixed = {axis: p for axis, p in enumerate(pieces) if isinstance(p, Fix) and shape[axis] > 1}
        return Label(shape, tuple(parts), fixed)

    def concat(self, pieces: Sequence[Piece], sizes: Sequence[int]) -> Piece:
        """Pieces laid end to end along one axis."""
        fixes = [piece for piece in pieces if isinstance(piece, Fix)]
        if len(fixes) == len(pieces):
            return fixes[0]
        return np.concatenate([self.atoms(piece, size) for piece, size in zip(pieces, sizes, strict=True)])

    def atoms(self, piece: Piece, size: int) -> Atoms:
        """A piece as atoms: new ones for what has none, fixed where the piece is."""
        if isinstance(piece, np.ndarray):
            return piece
        atoms = self.fresh(size)
        if isinstance(piece, Fix):
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
            taken = np.take(part, indices, axis=axis)
            if taken.size > 1:  # an axis of length 1 drops out of a product
                parts.append(taken)
            elif taken.size:  # a unit that is used alone cannot trade places with its neighbours
                self.fix(taken, Fix("frozen", f"{by} uses a single unit of the axis"))
        return Label(shape, tuple(parts), {a: f for a, f in label.fixed.items() if shape[a] > 1})

    def transpose(self, label: Label, order: Sequence[int]) -> Label:
        return Label(
            tuple(label.shape[axis] for axis in order),
            tuple(part.transpose(order) for part in label.parts),
            {new: label.fixed[old] for new, old in enumerate(order) if old in label.fixed},
        )

    def reshape(self, label: Label, shape: tuple[int, ...], by: str) -> Label:
        """The label after a reshape: every run of axes that keeps its product is reshaped by itself."""
        if 0 in shape:
            self.fix_all(label, Fix("frozen", f"{by} has an empty axis"))
            return Label(shape)
        parts: list[Atoms] = []
        fixed: dict[int, Fix] = {}
        for old, new in runs(label.shape, shape):
            inside = [part for part in label.parts if set(spans(part)) & set(old)]
            fixes = [label.fixed[axis] for axis in old if axis in label.fixed]
            if len(inside) > 1 or any(not set(spans(part)) <= set(old) for part in inside):
                fixes = [Fix("frozen", f"{by} mixes two hidden axes")]
                for part in inside:
                    self.fix(part, fixes[0])
                inside = []
            varying: tuple[int, ...] = ()
            if inside:
                moved, ordered = reshaped_run(inside[0], label.shape, old, shape, new)
                varying = spans(moved)
                fixed.update(dict.fromkeys(ordered, Fix("pinned", "places within a unit")))
                if varying:
                    parts.append(moved)
                else:  # one unit, repeated: nothing would name it any more
                    self.fix(moved, Fix("frozen", f"{by} repeats a single unit"))
            if fixes:
                fixed.update({axis: fixes[0] for axis in new if shape[axis] > 1 and axis not in varying})
        return Label(shape, tuple(parts), fixed)


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


def reshaped_run(
    part: Atoms, shape: Sequence[int], old: list[int], target: Sequence[int], new: list[int]
) -> tuple[Atoms, list[int]]:
    """One part under the reshape of one run of axes.

    Returns:
        the part, collapsed along every axis on which the atom stays the same; and those of these axes on which the
        place in the part changes: what one unit holds there (the filters of a depthwise channel, say) differs.
    """
    places = np.arange(part.size).reshape([part.shape[a] for a in old])
    moved = np.broadcast_to(places, [shape[a] for a in old]).reshape([target[a] for a in new])
    atoms: Atoms = part.ravel()
    ordered = []
    for axis, number in enumerate(new):
        first = moved.take([0], axis=axis)
        if (atoms[moved] == atoms[first]).all():
            if (moved != first).any():
                ordered.append(number)
            moved = first
    return atoms[moved].reshape([moved.shape[new.index(a)] if a in new else 1 for a in range(len(target))]), ordered
