"""Labels under a reshape: which runs of axes it mixes, and what becomes of the atoms in them."""

from collections.abc import Sequence

import numpy as np

from mal_graph.operators.axis_labels import Atoms, Label, spans

Run = tuple[list[int], list[int]]  # axes of the old shape and of the new one, with equal products


def is_row(part: Atoms) -> bool:
    """Whether a part varies along one axis only, from the first atom on."""
    atoms = part.ravel()
    return max(part.shape) == part.size and bool(atoms[0] != atoms[1])


def is_told_apart(part: Atoms) -> bool:
    """Whether each index of a part has an atom of its own."""
    return len(np.unique(part)) == part.size


def moved_axes(old: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """The axes longer than 1 of a new shape, if they are those of the old one; else None."""
    long = [axis for axis, size in enumerate(new) if size > 1]
    return long if [size for size in old if size > 1] == [new[axis] for axis in long] else None


def lay_parts(label: Label, shape: tuple[int, ...], moved: Sequence[int]) -> Label:
    """A label of rows, and of parts whose atoms are told apart, with the axes longer than 1 at the places `moved`."""
    place = dict(zip([axis for axis, size in enumerate(label.shape) if size > 1], moved, strict=True))
    parts = []
    for part in label.parts:
        sizes = [1] * len(shape)
        for axis in spans(part):
            sizes[place[axis]] = part.shape[axis]
        parts.append(part.reshape(sizes))
    return Label(shape, tuple(parts), {place[axis]: pin for axis, pin in label.pins.items() if axis in place})


def find_runs(old: Sequence[int], new: Sequence[int]) -> list[Run]:
    """The shortest runs of axes of two shapes with equal products."""
    runs: list[Run] = []
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
        runs.append((left, right))
    return runs


def repeats_across(part: Atoms) -> bool:
    """Whether an atom lies at several indices of a part that do not differ on one axis alone."""
    axes = spans(part)
    if len(axes) < 2 or len(np.unique(part)) == part.size:
        return False
    lines = [np.moveaxis(part, axis, -1).reshape(-1, part.shape[axis]) for axis in axes]
    return all(sum(len(np.unique(line)) for line in along) > len(np.unique(part)) for along in lines)


def reshape_part(
    part: Atoms, shape: Sequence[int], target: Sequence[int], runs: Sequence[Run]
) -> tuple[Atoms, list[int]]:
    """One part under a reshape.

    Returns:
        the part, collapsed along every axis on which the atom stays the same; and those of these axes on which the
        place in the part changes: what one unit holds there (the filters of a depthwise channel, say) differs.
    """
    inside = set(spans(part))
    touched = [(old, new) for old, new in runs if inside & set(old)]
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
