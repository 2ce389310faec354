"""What a picture is drawn with: outlines, dots and texts in groups, in styles with colours by day and by night."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

NO_NAME = "(no name)"
Command = tuple[str, tuple[float, ...]]  # a letter of an SVG path (M, L, C or Z), and its absolute coordinates


class Style(StrEnum):
    """How a shape looks; the name of its CSS class."""

    NAME = "name"
    DETAIL = "detail"
    FACTS = "facts"
    SCORE = "score"
    TITLE = "title"
    EDGE = "edge"
    DOT = "dot"
    JOIN = "join"
    BAND = "band"
    EQUAL = "equal"
    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    ALONE = "alone"
    MARK = "mark"


class Look(NamedTuple):
    """Colours by day and by night, and what else a style says; `fill` and `stroke` name colours of PALETTE."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    size: float = 0.0
    is_dashed: bool = False
    is_bold: bool = False


PALETTE: Mapping[str, tuple[str, str]] = {  # by day, by night; texts have a contrast of 4.5 or more with the paper
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1c2126", "#e8ecf0"),
    "quiet": ("#57606a", "#a3aeb9"),
    "line": ("#8b949e", "#6e7a86"),
    "band": ("#eef1f4", "#222931"),
    "equal": ("#2f7d4f", "#5fc58b"),
    "compatible": ("#2a6cc0", "#76aef0"),
    "incompatible": ("#b45309", "#f0a35a"),
    "alone": ("#ffffff", "#14181d"),
}
LOOKS: Mapping[Style, Look] = {
    Style.NAME: Look("ink", size=11),
    Style.DETAIL: Look("quiet", size=10),
    Style.FACTS: Look("quiet", size=10),
    Style.SCORE: Look("quiet", size=10),
    Style.TITLE: Look("ink", size=12, is_bold=True),
    Style.EDGE: Look("", "line", 1.2),
    Style.DOT: Look("ink", "paper", 1.0),
    Style.JOIN: Look("paper", "line", 1.4),
    Style.BAND: Look("band", "line", 0.8),
    Style.EQUAL: Look("equal", "equal"),
    Style.COMPATIBLE: Look("compatible", "compatible"),
    Style.INCOMPATIBLE: Look("incompatible", "incompatible"),
    Style.ALONE: Look("alone", "quiet", 1.2, is_dashed=True),
    Style.MARK: Look("incompatible", size=10),
}


@dataclass(frozen=True)
class Outline:
    """Lines and curves; filled where the style has a fill, unless it is a line only."""

    commands: tuple[Command, ...]
    style: Style
    width: float | None = None
    is_line: bool = False


@dataclass(frozen=True)
class Dot:
    """A circle."""

    x: float
    y: float
    radius: float
    style: Style


@dataclass(frozen=True)
class Text:
    """A line of text; `anchor` is start, middle or end. `whole` is the text before it was cut."""

    x: float
    y: float
    text: str
    style: Style
    anchor: str = "start"
    whole: str = ""


@dataclass(frozen=True)
class Group:
    """Shapes that move together; `data` tells the script what they stand for."""

    items: tuple["Shape", ...]
    x: float = 0.0
    y: float = 0.0
    classes: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    is_hidden: bool = False


Shape = Outline | Dot | Text | Group


@dataclass(frozen=True)
class Picture:
    """A drawing whose x runs to the right from `left`, and y downwards from 0."""

    left: float
    width: float
    height: float
    title: str
    description: str
    items: tuple[Shape, ...]


def line(x1: float, y1: float, x2: float, y2: float, style: Style, width: float | None = None) -> Outline:
    return Outline((("M", (x1, y1)), ("L", (x2, y2))), style, width, is_line=True)


def curve(points: tuple[float, ...], style: Style, width: float | None = None) -> Outline:
    """A cubic curve from the first of four points to the last."""
    return Outline((("M", points[:2]), ("C", points[2:])), style, width, is_line=True)


def polygon(points: tuple[tuple[float, float], ...], style: Style) -> Outline:
    first, *others = points
    return Outline((("M", first), *(("L", point) for point in others), ("Z", ())), style)


def walk(
    items: tuple[Shape, ...], x: float = 0.0, y: float = 0.0
) -> Iterator[tuple[Outline | Dot | Text, float, float]]:
    """Every visible shape with where its group lies."""
    for item in items:
        if not isinstance(item, Group):
            yield item, x, y
        elif not item.is_hidden:
            yield from walk(item.items, x + item.x, y + item.y)


def cut(text: str, longest: int) -> str:
    """A text that is not longer; names differ at their ends, so that the middle goes."""
    if len(text) <= longest:
        return text
    kept = longest - 1
    return f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"


def cut_end(text: str, longest: int) -> str:
    """A text that is not longer, where what comes first matters most."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def cut_title(title: str, longest: int) -> str:
    """A title that is not longer, as "layer1: 4 x 3 conv": the middle of its name goes, and the end of what is said."""
    name, colon, said = title.rpartition(": ")
    return cut_end(f"{cut(name, max(3 * longest // 5, longest - len(colon + said)))}{colon}{said}", longest)


def printable(text: str) -> str:
    """Without control characters and marks that turn the direction of a text."""
    if text.isprintable():
        return text or NO_NAME
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
