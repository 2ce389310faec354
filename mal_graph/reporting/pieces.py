"""What a report consists of, whatever it is written as: sections of sentences, tables and pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.table import Table

from mal_graph.ladder import LadderEntry, Picture

FEW_ROWS = 12  # a longer list is folded
MANY_ROWS = 40  # and of what matters most, a longer one than this


@dataclass(frozen=True)
class Sheet:
    """A table with more to see.

    Attributes:
        bars: shares of a bar's full length beside the figures of a column, by its index.
        tints: how much a cell of the columns behind the first is coloured, from -1 to 1, row by row; nan for no colour.
    """

    table: Table
    bars: Mapping[int, Sequence[float]] = field(default_factory=dict)
    tints: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Bullets:
    """Sentences of a list."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Charts:
    """Pictures side by side; a form that has none leaves them out, for tables hold the same figures."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Folded:
    """Pieces that are seen on demand."""

    title: str
    pieces: tuple["Piece", ...]


Piece: TypeAlias = str | Table | Sheet | Bullets | Charts | Folded


@dataclass(frozen=True)
class Section:
    """Pieces under a title."""

    title: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Headline:
    """What a reader wants to know first; `is_worse` than the base, None where that is not said."""

    text: str
    advice: str = ""
    is_worse: bool | None = None


@dataclass(frozen=True)
class Page:
    """A whole report, most important first; the pictures of the layers stand between `before` and `after`."""

    title: str
    about: str
    headline: Headline
    before: tuple[Section, ...]
    ladders: tuple[LadderEntry, ...]
    after: tuple[Section, ...]


def sections(*given: tuple[str, Iterable[Piece]]) -> tuple[Section, ...]:
    """Titles with their pieces, those that have any."""
    made = (Section(title, tuple(pieces)) for title, pieces in given)
    return tuple(section for section in made if section.pieces)


def bullets(lines: Iterable[str]) -> Iterator[Piece]:
    """A list, where there is anything to say."""
    listed = tuple(lines)
    if listed:
        yield Bullets(listed)


def folded(title: str, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Pieces on demand, where there are any."""
    listed = tuple(pieces)
    if listed:
        yield Folded(title, listed)


def rows(table: Table, title: str = "", most: int = FEW_ROWS) -> Iterator[Piece]:
    """A table, folded under a title with the number of its rows if these are more than `most`; none of no rows."""
    if title and table.row_count > most:
        yield Folded(f"{title} ({table.row_count})", (table,))
    elif table.row_count:
        yield from (title, table) if title else (table,)
