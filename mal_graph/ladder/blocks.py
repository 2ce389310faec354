"""What of a picture can be folded into one row: blocks that repeat, or whole modules.

Blocks are found by the names of modules, `layer2.0`, `layer2.1` and so on, the innermost that hold several layers
each; in a model without such names, by runs of the same kinds of layers and joins.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from statistics import mode
from typing import NamedTuple

from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role
from mal_graph.ladder.rows import Row

LONGEST_PERIOD = 40  # places of a block without a name
FEWEST_ROWS = 40  # with fewer, nothing is folded unless it is asked for
NUMBERED = re.compile(r"(.*?)[._]?(\d+)")


class Collapse(StrEnum):
    """What is folded at first."""

    NONE = "none"
    BLOCKS = "blocks"
    MODULES = "modules"


class Fold(NamedTuple):
    """Rows that can be folded into one, with what each side is called there; "" for a side that has none."""

    start: int
    stop: int
    titles: tuple[str, str]


class Block(NamedTuple):
    """A run of places that repeats; `name` is that of the module, "" where none is known."""

    name: str
    title: str


def find_folds(ladder: LadderEntry, rows: Sequence[Row], collapse: Collapse | None) -> list[Fold]:
    """What can be folded, from top to bottom; of a small picture nothing unless it is asked for."""
    if collapse is Collapse.NONE or (collapse is None and len(rows) <= FEWEST_ROWS):
        return []
    name = module_blocks if collapse is Collapse.MODULES else repeated_blocks
    blocks = [
        name(model, [place for row in rows if (place := row[side]) is not None])
        for side, (_, model) in enumerate(ladder.sides())
    ]
    labels = spread_labels(rows, blocks)
    folds = []
    for start, stop in runs(labels):
        own = [counted(rows[start:stop], side, blocks[side]) for side in range(len(blocks))]
        if labels[start] is not None and stop - start > 1:
            folds.append(Fold(start, stop, (own[0], own[1] if len(own) > 1 else "")))
    return folds


def spread_labels(rows: Sequence[Row], blocks: Sequence[Mapping[int, Block]]) -> list[Block | None]:
    """The block of every row: that of its base's place. A row of the donor alone lies in the base's block around it, or
    where its own block lies above or below it, or else in that."""
    labels = [blocks[0].get(place) for place in column(rows, 0)]
    theirs = [blocks[1].get(place) for place in column(rows, 1)] if len(blocks) > 1 else []
    below = carried(labels, rows, reversed(range(len(rows))))
    above = carried(labels, rows, range(len(rows)))
    alone = [index for index, row in enumerate(rows) if row.base is None]
    for index in alone:
        labels[index] = above[index] if above[index] == below[index] else None
    for order, step in ((alone, -1), (alone[::-1], 1)):
        for index in order:
            beside = index + step
            is_inside = 0 <= beside < len(rows) and theirs[index] is not None and theirs[beside] == theirs[index]
            if labels[index] is None and is_inside:
                labels[index] = labels[beside]
    return [labels[index] or (theirs[index] if row.base is None else None) for index, row in enumerate(rows)]


def column(rows: Sequence[Row], side: int) -> list[int]:
    """The places of one side, row by row; -1 where there is none."""
    return [-1 if (place := row[side]) is None else place for row in rows]


def carried(labels: Sequence[Block | None], rows: Sequence[Row], order: Iterable[int]) -> dict[int, Block | None]:
    """For every row, in this order, the label of the last one before it that has a place of the base."""
    last: Block | None = None
    found = {}
    for index in order:
        found[index] = last
        if rows[index].base is not None:
            last = labels[index]
    return found


def runs(labels: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Where equal labels stand side by side."""
    start = 0
    for index in range(1, len(labels) + 1):
        if index == len(labels) or labels[index] != labels[start]:
            yield start, index
            start = index


def counted(rows: Sequence[Row], side: int, blocks: dict[int, Block]) -> str:
    """What one side of a fold is called: the block that most of its places belong to."""
    places = [place for row in rows if (place := row[side]) is not None]
    titles = Counter(blocks[place].title for place in places if place in blocks)
    if titles:
        return titles.most_common(1)[0][0]
    return f"{len(places)} places" if places else ""


def module_blocks(model: ModelEntry, order: Sequence[int]) -> dict[int, Block]:
    """The outermost module that tells places apart, of every place that has one."""
    paths = [model.places[index].path for index in order if model.places[index].path]
    depth = 0
    while paths and len({tuple(path[: depth + 1]) for path in paths}) == 1 and all(len(p) > depth + 1 for p in paths):
        depth += 1
    inside: dict[str, list[int]] = {}
    for index in order:
        path = model.places[index].path
        if len(path) > depth:
            inside.setdefault(".".join(path[: depth + 1]), []).append(index)
    return {
        index: Block(name, f"{name}: {count_kinds([model.places[i] for i in places])}")
        for name, places in inside.items()
        if len(places) > 1
        for index in places
    }


def repeated_blocks(model: ModelEntry, order: Sequence[int]) -> dict[int, Block]:
    """The family of blocks that each place belongs to; those in none are left out."""
    return named_blocks(model, order) or repeated_runs(model, order)


def named_blocks(model: ModelEntry, order: Sequence[int]) -> dict[int, Block]:
    """Blocks that are numbered modules beside each other, the innermost of several layers each."""
    families: dict[tuple[str, ...], dict[str, list[int]]] = {}
    chains: dict[int, list[tuple[str, ...]]] = {}  # the families around each place, innermost first
    for index in order:
        path = model.places[index].path
        for depth in range(len(path), 0, -1):
            numbered = NUMBERED.fullmatch(path[depth - 1])
            if numbered:
                family = (*path[: depth - 1], numbered[1])
                families.setdefault(family, {}).setdefault(numbered[2], []).append(index)
                chains.setdefault(index, []).append(family)
    good = {family for family, children in families.items() if is_family(model, children)}
    titles = {family: family_title(model, family, families[family]) for family in good}
    found = {}
    for index, chain in chains.items():
        own = next((family for family in chain if family in good), None)
        if own is not None:
            found[index] = Block("/".join(own), titles[own])
    return found


def is_family(model: ModelEntry, children: dict[str, list[int]]) -> bool:
    """Whether numbered modules are blocks that repeat: several, of several layers each."""
    layers = [sum(model.places[index].role is Role.LAYER for index in places) for places in children.values()]
    return len(layers) > 1 and min(layers) > 1


def family_title(model: ModelEntry, family: Sequence[str], children: dict[str, list[int]]) -> str:
    name = ".".join(part for part in family if part)
    kinds = [count_kinds([model.places[index] for index in places]) for places in children.values()]
    inside = mode(reversed(kinds))  # the first block of a stage often has a layer more
    return f"{name}: {len(children)} x {inside}" if name else f"{len(children)} x {inside}"


def count_kinds(places: Sequence[PlaceEntry]) -> str:
    """How many layers of each kind there are, as "3 conv, 1 linear"."""
    kinds = Counter(place.kind for place in places if place.role is Role.LAYER)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or f"{len(places)} joins"


def repeated_runs(model: ModelEntry, order: Sequence[int]) -> dict[int, Block]:
    """Blocks without names: the same kinds of places, in the same order, at least twice with several layers each."""
    words = [(place.role, place.kind, place.window) for place in (model.places[index] for index in order)]
    found: dict[int, Block] = {}
    start = 0
    while start < len(order):
        period, times = best_repeat(words, start, is_layer=lambda at: words[at][0] is Role.LAYER)
        if times < 2:
            start += 1
            continue
        inside = count_kinds([model.places[index] for index in order[start : start + period]])
        block = Block(f"run at {start}", f"{times} x {inside}")
        found |= dict.fromkeys(order[start : start + period * times], block)
        start += period * times
    return found


def best_repeat(words: Sequence[object], start: int, is_layer: Callable[[int], bool]) -> tuple[int, int]:
    """The period, and how often it is repeated from `start` on, that covers most; the shortest of several."""
    best = (0, 0)
    for period in range(2, min(LONGEST_PERIOD, (len(words) - start) // 2) + 1):
        if sum(map(is_layer, range(start, start + period))) < 2:
            continue
        length = period
        while start + length < len(words) and words[start + length] == words[start + length - period]:
            length += 1
        times = length // period
        if times > 1 and times * period > best[0] * best[1]:
            best = (period, times)
    return best
