"""Tables as text: as wide as their cells, or folded to a terminal's width."""

import io
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from mal_graph.plain_text import one_line

Lines = Iterator[str | Table]
NUMBERS = {"lambda", "units", "score", "loss", "accuracy", "R2", "depth", "matched", "assigned", "value", "random"}
NUMBERS |= {"cross-entropy", "mean squared error", "mean entropy", "agreement", "metric", "shuffled", "#"}
NUMBERS |= {
    "lambda*",
    "largest rise",
    "barrier",
    "cosine",
    "norm ratio",
    "groups",
    "deviation",
    "control",
    "parameters",
}
RESULT = "bold"  # the style of the row of what was made, beside what it is compared with


def new_table(*columns: str) -> Table:
    """An empty table; columns of numbers are aligned to the right."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left", overflow="fold")
    return table


def numbers_table(first: str, columns: Sequence[str]) -> Table:
    """An empty table of numbers, named by their first column."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, justify="right" if first in NUMBERS else "left", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def numbered(table: Table) -> Table:
    """A table with the number of each row before it."""
    result = numbers_table("#", ())
    for column in table.columns:
        result.add_column(column.header, justify=column.justify)
    lines = zip(*(column.cells for column in table.columns), strict=True)
    for number, (row, cells) in enumerate(zip(table.rows, lines, strict=True), 1):
        result.add_row(str(number), *cells, style=row.style)
    return result


def table_text(table: Table, width: int | None = None) -> str:
    """A table on lines of at most `width` cells, else as wide as it is.

    Without a width it is laid out here: rich lays out some thousand rows a second.
    """
    columns = [[one_line(str(cell)) for cell in (column.header, *column.cells)] for column in table.columns]
    if width is not None:
        lines = folded_lines(table, columns, width)
    else:
        padded = [justified(cells, column.justify) for cells, column in zip(columns, table.columns, strict=True)]
        lines = ["  ".join(cells) for cells in zip(*padded, strict=True)]
    return "\n".join(line.rstrip() for line in lines)


def folded_lines(table: Table, columns: Sequence[Sequence[str]], width: int) -> list[str]:
    """The cells of a table on lines of at most `width` cells."""
    shown = Table(box=None, pad_edge=False)
    for column, (header, *_) in zip(table.columns, columns, strict=True):
        shown.add_column(header, justify=column.justify, overflow=column.overflow)
    for cells in zip(*(cells for _, *cells in columns), strict=True):
        shown.add_row(*cells)
    buffer = io.StringIO()
    Console(file=buffer, width=width, highlight=False, markup=False, emoji=False, color_system=None).print(shown)
    return buffer.getvalue().splitlines()


def justified(cells: Sequence[str], side: str) -> list[str]:
    """Cells of one column, as wide as the widest, in places of a terminal."""
    width = max(map(cell_len, cells))
    blanks = [" " * (width - cell_len(cell)) for cell in cells]
    return [blank + cell if side == "right" else cell + blank for cell, blank in zip(cells, blanks, strict=True)]
