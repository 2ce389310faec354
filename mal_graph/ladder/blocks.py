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

from mal_graph.ladder.entries import LadderEntry, ModelEntry, Role
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
    """One of several that repeat, which a place lies in: `family` tells these from others; `name` is what they have in
    common, and `own` what this one is called, both "" where no names of modules are known."""

    family: str
    number: str
    name: str = ""
    own: str = ""


def find_folds(ladder: LadderEntry, rows: Sequence[Row], collapse: Collapse | None) -> list[Fold]:
    """What can be folded, from top to bottom; of a small picture nothing unless it is asked for."""
    if collapse is Collapse.NONE or (collapse is None and len(rows) <= FEWEST_ROWS):
        return []
    name, fewest = (module_blocks, 1) if collapse is Collapse.MODULES else (repeated_blocks, 2)
    models = [model for _, model in ladder.sides()]
    blocks = [
        name(model, [place for row in rows if (place := row[side]) is not None]) for side, model in enumerate(models)
    ]
    labels = spread_labels(rows, [{place: block.family for place, block in own.items()} for own in blocks])
    folds = []
    for start, stop in runs(labels):
        inside = [
            [place for row in rows[start:stop] if (place := row[side]) is not None] for side in range(len(models))
        ]
        families = [main_family(places, own) for places, own in zip(inside, blocks, strict=True)]
        if stop - start > 1 and max(map(len, families)) >= fewest:
            own = [fold_title(*side) for side in zip(models, inside, families, blocks, strict=True)]
            folds.append(Fold(start, stop, (own[0], own[1] if len(own) > 1 else "")))
    return folds


def main_family(places: Sequence[int], blocks: Mapping[int, Block]) -> dict[str, list[int]]:
    """Of the family that most of these places lie in, the blocks that are there, and the places in each."""
    families = Counter(blocks[place].family for place in places if place in blocks)
    main = families.most_common(1)[0][0] if families else None
    found: dict[str, list[int]] = {}
    for place in places:
        if place in blocks and blocks[place].family == main:
            found.setdefault(blocks[place].number, []).append(place)
    return found


def fold_title(
    model: ModelEntry, places: Sequence[int], family: Mapping[str, Sequence[int]], blocks: Mapping[int, Block]
) -> str:
    """What one side of a fold is called: a family's name with how many of its blocks are there and what most of these
    hold, and how many layers lie beside them; "" where nothing is there."""
    if not family:
        return count_kinds(model, places) if places else ""
    kinds = [count_kinds(model, own) for own in family.values()]
    first = blocks[next(iter(family.values()))[0]]
    name, title = first.own, kinds[0]
    if len(family) > 1:  # the first block of a stage often has a layer more
        name, title = first.name, f"{len(family)} x {mode(reversed(kinds))}"
    within = {place for own in family.values() for place in own}
    others = [place for place in places if place not in within and model.places[place].role is Role.LAYER]
    beside = f" + {count_kinds(model, others)}" if others else ""
    return f"{name}: {title}{beside}" if name else f"{title}{beside}"


def spread_labels(rows: Sequence[Row], blocks: Sequence[Mapping[int, str]]) -> list[str | None]:
    """The family of every row: that of its base's place. A row of the donor alone lies in the base's around it, or
    where its own lies above or below it, or else in that."""
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


def carried(labels: Sequence[str | None], rows: Sequence[Row], order: Iterable[int]) -> dict[int, str | None]:
    """For every row, in this order, the label of the last one before it that has a place of the base."""
    last: str | None = None
    found = {}
    for index in order:
        found[index] = last
        if rows[index].base is not None:
            last = labels[index]
    return found


def runs(labels: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Where equal labels stand side by side."""
    start = 0
    for index in range(1, len(labels) + 1):
        if index == len(labels) or labels[index] != labels[start]:
            if labels[start] is not None:
                yield start, index
            start = index


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
        index: Block(name, name, own=name) for name, places in inside.items() if len(places) > 1 for index in places
    }


def repeated_blocks(model: ModelEntry, order: Sequence[int]) -> dict[int, Block]:
    """The family of blocks that each place belongs to; those in none are left out."""
    return named_blocks(model, order) or repeated_runs(model, order)


def named_blocks(model: ModelEntry, order: Sequence[int]) -> dict[int, Block]:
    """Blocks that are numbered modules beside each other, the innermost of several layers each."""
    families: dict[tuple[str, ...], dict[str, list[int]]] = {}
    chains: dict[int, list[Block]] = {}  # the blocks around each place, innermost first
    for index in order:
        path = model.places[index].path
        for depth in range(len(path), 0, -1):
            numbered = NUMBERED.fullmatch(path[depth - 1])
            if numbered:
                family = (*path[: depth - 1], numbered[1])
                families.setdefault(family, {}).setdefault(numbered[2], []).append(index)
                block = Block("/".join(family), numbered[2], dotted(family), dotted(path[:depth]))
                chains.setdefault(index, []).append(block)
    good = {"/".join(family) for family, children in families.items() if is_family(model, children)}
    found = {index: next((block for block in chain if block.family in good), None) for index, chain in chains.items()}
    return {index: block for index, block in found.items() if block is not None}


def dotted(path: Sequence[str]) -> str:
    return ".".join(filter(None, path))


def is_family(model: ModelEntry, children: dict[str, list[int]]) -> bool:
    """Whether numbered modules are blocks that repeat: several, of several layers each."""
    layers = [sum(model.places[index].role is Role.LAYER for index in places) for places in children.values()]
    return len(layers) > 1 and min(layers) > 1


def count_kinds(model: ModelEntry, places: Sequence[int]) -> str:
    """How many layers of each kind there are, as "3 conv, 1 linear"."""
    kinds = Counter(model.places[index].kind for index in places if model.places[index].role is Role.LAYER)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or counted(len(places), "join")


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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
        end = start + period * times
        found |= {order[at]: Block(f"run at {start}", str((at - start) // period)) for at in range(start, end)}
        start = end
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
