"""The ladder as a table of text: layers in the order of the picture, blocks that repeat in one row."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.table import Table

from mal_graph.ladder import Collapse, LadderEntry, Layout, Role, RungEntry, lay_out_ladder
from mal_graph.reporting.tables import new_table

Cells = tuple[str, ...]


def match_table(ladder: LadderEntry, *, verbose: bool) -> tuple[Table, int]:
    """Layers of both models, and how many rows are folded away; with `verbose` none, and every pair has its reason."""
    layout = lay_out_ladder(ladder, Collapse.NONE if verbose else None)
    table = new_table("base layer", "donor layer", "score", "in", "out", "relation", *(["reason"] if verbose else []))
    hidden = 0
    for line in layout.lines:
        if line.fold is not None:
            table.add_row(*fold_cells(layout, line.fold))
        elif line.y is None:
            hidden += 1
        elif line.row is not None:
            for cells, reason in row_cells(layout, line.row):
                table.add_row(*cells, *([reason] if verbose else []))
    return table, hidden


def fold_cells(layout: Layout, index: int) -> Cells:
    """The row of what is folded: what it is called on both sides, and the pairs inside."""
    fold = layout.folds[index]
    inside = [
        layout.ladder.rungs[layout.rung_at[0][row.base]]
        for row in layout.rows[fold.start : fold.stop]
        if row.base in layout.rung_at[0]
    ]
    score = f"{fmean(rung.score for rung in inside):.2f}" if inside else ""
    titles = (title or "-" for title in fold.titles)
    return (*titles, score, "", "", f"{len(inside)} pairs")


def row_cells(layout: Layout, index: int) -> list[tuple[Cells, str]]:
    """The cells of the layers in one row, with a pair's reason; joins, inputs and outputs have none.

    A pair whose layers stand in different rows is listed in that of the base's.
    """
    found = []
    row = layout.rows[index]
    sides = layout.ladder.sides()
    pair = None if row.base is None else layout.rung_at[0].get(row.base)
    if pair is not None:
        found.append((pair_cells(layout.ladder, layout.ladder.rungs[pair]), layout.ladder.rungs[pair].reason))
    for side, place in enumerate(row):
        if place is None or sides[side][1].places[place].role is not Role.LAYER or place in layout.rung_at[side]:
            continue
        own = sides[side][1].places[place]
        widths = [str(units) for units in own.units or ()]
        shown = [f"{units} :" if side == 0 else f": {units}" for units in widths]
        names = (own.name, "-") if side == 0 else ("-", own.name)
        found.append(((*names, "", *shown, "no partner"), own.note))
    return found


def pair_cells(ladder: LadderEntry, rung: RungEntry) -> Cells:
    assert ladder.donor is not None
    a, b = ladder.base.places[rung.base], ladder.donor.places[rung.donor]
    widths = [f"{x} : {y}" for x, y in zip(a.units or (), b.units or (), strict=True)]
    return (a.name, b.name, f"{rung.score:.2f}", *widths, rung.relation)


def layer_table(
    ladder: LadderEntry, cells: Mapping[str, Sequence[str]], headers: Sequence[str], *, is_open: bool
) -> tuple[Table, int]:
    """Layers of one model with further cells by name, and how many are folded away; none if `is_open`."""
    layout = lay_out_ladder(ladder, Collapse.NONE if is_open else None)
    table = new_table(*headers)
    hidden = 0
    for line in layout.lines:
        if line.fold is not None:
            table.add_row(layout.folds[line.fold].titles[0], *[""] * (len(headers) - 1))
        place = None if line.row is None else layout.rows[line.row].base
        own = None if place is None else ladder.base.places[place]
        if own is not None and own.role is Role.LAYER:
            hidden += line.y is None
            if line.y is not None:
                table.add_row(own.name, *cells[own.name])
    return table, hidden
