"""The ladder: one model on the left, the other on the right, each pair of layers on a rung.

Along the outer side of each model runs its graph: a dot for every place, lines between neighbours, arcs for what skips
some. Inside stand names and bars: longer for more units (log), shaped by the kind of layer, coloured by how the widths
of the pair relate. Everything is placed from the middle, so that a narrow window can move the outer parts inwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2
from pathlib import Path
from typing import NamedTuple

from mal_graph.ladder.blocks import Collapse, Fold, counted, find_folds
from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role, RungEntry
from mal_graph.ladder.rows import Row, find_rows
from mal_graph.ladder.shapes import (
    NO_NAME,
    Dot,
    Group,
    Outline,
    Picture,
    Shape,
    Style,
    Text,
    curve,
    cut,
    cut_end,
    cut_title,
    line,
    polygon,
)
from mal_graph.matching import Relation
from mal_graph.operators import GroupState

GUTTER = 44.0  # from the middle to the bars
LANE = 272.0  # from the middle to the dots
HALF = 380.0
BAR = 96.0  # of 4,096 units or more
BAR_AT = 7.0  # below the middle of a row
BAR_HEIGHT = 9.0
WIDEST_BOW = 120.0
HEIGHTS: Mapping[Role, float] = {Role.LAYER: 36.0, Role.JOIN: 20.0, Role.INPUT: 24.0, Role.OUTPUT: 24.0}
FOLD_HEIGHT = 32.0
TOP = 64.0  # above the first row: the names of the models
BOTTOM = 16.0
LONGEST_NAME, LONGEST_TITLE, NARROW = 34, 35, 19  # letters; in a narrow window so many of either
DETAIL_LETTER = 5.4  # how wide one is
RELATIONS: Mapping[str, Style] = {
    Relation.EQUAL: Style.EQUAL,
    Relation.COMPATIBLE: Style.COMPATIBLE,
    Relation.INCOMPATIBLE: Style.INCOMPATIBLE,
}
SIDES = ("base", "donor")
MARKED = (GroupState.PINNED, GroupState.FROZEN)
DENTS: Mapping[str, float] = {"conv": 0.0, "conv_transpose": 0.0, "linear": -1.0}  # of a bar's end, by kind


class Line(NamedTuple):
    """A line of the picture: a row, or the title of a fold; `y` is its middle, None where it is folded away."""

    row: int | None
    fold: int | None
    y: float | None
    height: float


@dataclass(frozen=True)
class Layout:
    """Where everything lies."""

    ladder: LadderEntry
    rows: Sequence[Row]
    folds: Sequence[Fold]
    lines: Sequence[Line]
    height: float

    @cached_property
    def shown(self) -> tuple[dict[int, Line], ...]:
        """For each side the line that shows each place: its own, or that of its fold."""
        shown: tuple[dict[int, Line], ...] = ({}, {})
        title = None
        for one in self.lines:
            title = one if one.row is None else title
            for side, place in enumerate(self.rows[one.row] if one.row is not None else ()):
                if place is not None:
                    shown[side][place] = one if one.y is not None or title is None else title
        return shown

    @cached_property
    def rung_at(self) -> tuple[dict[int, int], ...]:
        """For each side the pair of each place that has one."""
        ends = [(rung.base, rung.donor) for rung in self.ladder.rungs]
        return tuple({both[side]: index for index, both in enumerate(ends)} for side in (0, 1))


def draw_ladder(ladder: LadderEntry, collapse: Collapse | None = None) -> Picture:
    """The picture of one model or of two."""
    return draw_layout(lay_out_ladder(ladder, collapse))


def lay_out_ladder(ladder: LadderEntry, collapse: Collapse | None = None) -> Layout:
    """Where everything lies, with what is folded at first."""
    rows = find_rows(ladder)
    return lay_out(ladder, rows, find_folds(ladder, rows, collapse))


def lay_out(ladder: LadderEntry, rows: Sequence[Row], folds: Sequence[Fold]) -> Layout:
    """Rows from top to bottom, those inside folds hidden behind their titles."""
    starts = {fold.start: index for index, fold in enumerate(folds)}
    inside = {row for fold in folds for row in range(fold.start, fold.stop)}
    lines: list[Line] = []
    y = TOP
    for index, row in enumerate(rows):
        if index in starts:
            lines.append(Line(None, starts[index], y + FOLD_HEIGHT / 2, FOLD_HEIGHT))
            y += FOLD_HEIGHT
        height = max(HEIGHTS[place.role] for place in places_of(ladder, row) if place is not None)
        lines.append(Line(index, None, None if index in inside else y + height / 2, height))
        y += 0 if index in inside else height
    return Layout(ladder, rows, folds, lines, y + BOTTOM)


def places_of(ladder: LadderEntry, row: Row) -> tuple[PlaceEntry | None, ...]:
    """The places of a row, one for each side."""
    models = [model for _, model in ladder.sides()]
    return tuple(None if place is None else model.places[place] for model, place in zip(models, row, strict=False))


def draw_layout(layout: Layout) -> Picture:
    ladder = layout.ladder
    names = [Path(model.name).name for _, model in ladder.sides()]
    items: list[Shape] = list(heads(names))
    for side in range(len(names)):
        items.append(Group(tuple(edges(layout, side)), x=x_of(side, LANE), classes=f"outer edges {SIDES[side]}"))
    items.append(Group(tuple(crossings(layout)), classes="crossings"))
    items += (draw_fold(layout, one) if one.row is None else draw_row(layout, one) for one in layout.lines)
    return Picture(-HALF, HALF * len(names), layout.height, " and ".join(names), describe(ladder), tuple(items))


def describe(ladder: LadderEntry) -> str:
    """What is seen, in a sentence."""
    counts = [sum(place.role is Role.LAYER for place in model.places) for _, model in ladder.sides()]
    if ladder.donor is None:
        return f"{counts[0]} layers"
    return f"{counts[0]} and {counts[1]} layers, of which {len(ladder.rungs)} correspond to each other"


def heads(names: Sequence[str]) -> Iterator[Shape]:
    for side, name in enumerate(names):
        own = "model" if len(names) == 1 else SIDES[side]
        x, anchor = x_of(side, LANE - 12), anchor_of(side)
        texts = (
            Text(0, 20, own, Style.DETAIL, anchor),
            Text(0, 38, cut(name, LONGEST_NAME - 4), Style.TITLE, anchor, name),
        )
        yield Group(texts, x=x, classes=f"outer {SIDES[side]}")


def x_of(side: int, distance: float) -> float:
    """So far from the middle, on one side."""
    return distance if side else -distance


def anchor_of(side: int) -> str:
    return "end" if side else "start"


# --- the graph of a model -----------------------------------------------------------------------------------------


def edges(layout: Layout, side: int) -> Iterator[Shape]:
    """What reads what, along the lane of one model: straight between neighbours, else as an arc."""
    shown = layout.shown[side]
    heights = sorted({one.y for one in shown.values() if one.y is not None})
    above = dict(zip(heights[1:], heights, strict=False))
    drawn = set()
    for index, place in enumerate(layout.ladder.sides()[side][1].places):
        end = shown[index].y
        for start in (shown[source].y for source in place.reads):
            if start is not None and end is not None and start != end and (start, end) not in drawn:
                drawn.add((start, end))
                yield edge(start, end, side, is_next=above.get(end) == start)


def edge(a: float, b: float, side: int, *, is_next: bool) -> Outline:
    """From one height to another; the script draws the same."""
    if is_next:
        return line(0, a, 0, b, Style.EDGE)
    bow = x_of(side, bow_of(b - a))
    return curve((0, a, bow, a, bow, b, 0, b), Style.EDGE)


def bow_of(span: float) -> float:
    """How far an arc reaches out: farther for a longer one, so that they lie in each other."""
    return min(WIDEST_BOW, 14.0 + 13.0 * log2(1.0 + abs(span) / 36.0))


def crossings(layout: Layout) -> Iterator[Shape]:
    """Pairs whose layers stand in different rows, where both are seen."""
    for index, rung in enumerate(layout.ladder.rungs):
        mine, theirs = layout.shown[0][rung.base], layout.shown[1][rung.donor]
        if mine is not theirs and mine.y is not None and theirs.y is not None:
            a, b = mine.y + BAR_AT, theirs.y + BAR_AT
            path = curve((-GUTTER, a, 0, a, 0, b, GUTTER, b), RELATIONS[rung.relation], thickness(rung))
            yield Group((path,), classes="crossing", data={"data-pair": str(index)})


def thickness(rung: RungEntry) -> float:
    """Of the line between two layers: thicker for a higher score."""
    return 0.8 + 2.7 * rung.score


# --- rows ---------------------------------------------------------------------------------------------------------


def draw_fold(layout: Layout, one: Line) -> Group:
    """The title of rows that are folded away."""
    assert one.fold is not None  # a title
    assert one.y is not None  # which is always seen
    fold = layout.folds[one.fold]
    inside = [
        layout.ladder.rungs[layout.rung_at[0][row.base]]
        for row in layout.rows[fold.start : fold.stop]
        if row.base in layout.rung_at[0]
    ]
    right = LANE - 10 if layout.ladder.donor else -10
    corners = ((10 - LANE, -13), (right, -13), (right, 13), (10 - LANE, 13))
    items: list[Shape] = [polygon(corners, Style.BAND)]
    for side, title in enumerate(fold.titles):
        if title:
            name = Text(x_of(side, -14), 4, cut_title(title, LONGEST_TITLE), Style.NAME, anchor_of(side), title)
            items.append(Group((name, box(5, 5, Style.DOT)), x=x_of(side, LANE), classes=f"outer {SIDES[side]}"))
    if inside:
        score = sum(rung.score for rung in inside) / len(inside)
        items.append(Text(0, 4, f"{counted(len(inside), 'pair')}, {score:.2f}", Style.SCORE, "middle"))
    return Group(tuple(items), y=one.y, classes="fold")


def draw_row(layout: Layout, one: Line) -> Group:
    """The places of one row, and the rung between them where they correspond to each other."""
    assert one.row is not None
    row = layout.rows[one.row]
    items: list[Shape] = []
    pair = None
    for side, (_, model) in enumerate(layout.ladder.sides()):
        place = row[side]
        if place is not None:
            own = layout.rung_at[side].get(place)
            pair = own if pair is None else pair
            rung = None if own is None else layout.ladder.rungs[own]
            items += draw_place(model, model.places[place], side, rung, has_donor=layout.ladder.donor is not None)
    if pair is not None and layout.ladder.rungs[pair].ends == row:
        rung = layout.ladder.rungs[pair]
        items.append(line(-GUTTER, BAR_AT, GUTTER, BAR_AT, RELATIONS[rung.relation], thickness(rung)))
        items.append(Text(0, 1, f"{rung.score:.2f}", Style.SCORE, "middle"))
    return Group(tuple(items), y=one.y or 0, classes="row", is_hidden=one.y is None)


def draw_place(
    model: ModelEntry, place: PlaceEntry, side: int, rung: RungEntry | None, *, has_donor: bool
) -> list[Shape]:
    """One place on its side: a dot on the lane with its name, and for a layer the bar of its units."""
    anchor, x = anchor_of(side), x_of(side, -12)
    name, short = place.name or NO_NAME, name_of(place)
    outer = f"outer {SIDES[side]}"
    if place.role is not Role.LAYER:
        text = place.kind if place.role is Role.JOIN else f"{place.role}: {short}"
        dot = Dot(0, 0, 4, Style.JOIN) if place.role is Role.JOIN else box(4, 4, Style.DOT)
        return [Group((dot, Text(x, 4, text, Style.DETAIL, anchor, name)), x=x_of(side, LANE), classes=outer)]
    facts = facts_of(model, place)
    room = int((LANE - 18 - GUTTER - length_of(place)) / DETAIL_LETTER)
    own = (
        Dot(0, 0, 4, Style.DOT),
        Text(x, -4, short, Style.NAME, anchor, name),
        Text(x, 11, cut_end(facts, room), Style.FACTS, anchor, facts),
    )
    style = RELATIONS[rung.relation] if rung else Style.ALONE if has_donor else Style.EQUAL
    units = Group((bar(place, side, style),), classes=f"bar {SIDES[side]}")
    return [Group(own, x=x_of(side, LANE), classes=outer), units]


def name_of(place: PlaceEntry) -> str:
    """A place's name, cut to the room that there is."""
    return cut(place.name, LONGEST_NAME) or NO_NAME


def facts_of(model: ModelEntry, place: PlaceEntry) -> str:
    """A layer's kind, window and units, and in a word what of these may not be permuted."""
    states = [(axis.units, model.groups[index].state) for axis in place.axes if axis.units for index in axis.groups]
    marked = (*MARKED, GroupState.UNVERIFIED) if model.is_verified else MARKED
    marks = dict.fromkeys(f"{way} {state}" for way, state in sorted(states) if state in marked)
    parts = (
        " ".join(filter(None, (place.kind, place.window))),
        "" if place.units is None else f"{place.units[0]} → {place.units[1]}",
        ", ".join(marks),
    )
    return " · ".join(filter(None, parts))


def bar(place: PlaceEntry, side: int, style: Style) -> Outline:
    """The units of a layer: longer for more (log), shaped by its kind."""
    near, far = GUTTER, GUTTER + length_of(place)
    top, bottom, middle = BAR_AT - BAR_HEIGHT / 2, BAR_AT + BAR_HEIGHT / 2, BAR_AT
    dent = BAR_HEIGHT / 2 * DENTS.get(place.kind, 1.0)
    points = ((near, top), (far, top), (far - dent, middle), (far, bottom), (near, bottom))
    if dent < 0:
        points = ((near, top), (far + dent, top), (far, middle), (far + dent, bottom), (near, bottom))
    return polygon(tuple((x_of(side, x), y) for x, y in points), style)


def length_of(place: PlaceEntry) -> float:
    """Of the bar of a layer's units."""
    units = max(1, place.units[1] if place.units else 1)
    return max(BAR_HEIGHT, BAR * min(1.0, log2(units + 1) / 12.0))


def box(x: float, y: float, style: Style) -> Outline:
    """A rectangle around the origin."""
    return polygon(((-x, -y), (x, -y), (x, y), (-x, y)), style)
