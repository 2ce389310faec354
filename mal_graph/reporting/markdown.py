"""A report as Markdown, with tables as GitHub writes them; of pictures it has the tables that hold the same figures."""

import re
from collections.abc import Iterator, Sequence

from rich.table import Table

from mal_graph.ladder import LadderEntry, Role, printable
from mal_graph.reporting.evidence import file_name
from mal_graph.reporting.pieces import Bullets, Charts, Folded, Page, Piece, Section, Sheet
from mal_graph.reporting.tables import RESULT, new_table

BAR = 12  # signs of a full bar
SPECIAL = re.compile(r"[\\`*\[\]<|#~&$]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is none


def markdown_page(page: Page) -> str:
    """A report, verdict first."""
    verdict = f"**{text_md(page.headline.text)}**"
    advice = [f"Try: {text_md(page.headline.advice)}"] if page.headline.advice else []
    blocks = [f"# {text_md(page.title)}", text_md(page.about), verdict, *advice]
    for section in page.before:
        blocks += section_md(section)
    for ladder in page.ladders:
        blocks += section_md(Section(f"Layer by layer: {names_of(ladder)}", (ladder_table(ladder),)))
    for section in page.after:
        blocks += section_md(section)
    return "\n\n".join(blocks) + "\n"


def names_of(ladder: LadderEntry) -> str:
    return " and ".join(file_name(model.name) for _, model in ladder.sides())


def ladder_table(ladder: LadderEntry) -> Table:
    """One row for every layer of the base, and for every layer of the donor without a partner."""
    table = new_table("base layer", "donor layer", "score", "relation", "note")
    rungs = {rung.base: rung for rung in ladder.rungs}
    donors = ladder.donor.places if ladder.donor else []
    for index, place in enumerate(ladder.base.places):
        rung = rungs.get(index)
        if rung is not None:
            table.add_row(place.name, donors[rung.donor].name, f"{rung.score:.2f}", rung.relation, place.note)
        elif place.role is Role.LAYER:
            table.add_row(place.name, "-", "-", "-", place.note)
    paired = {rung.donor for rung in ladder.rungs}
    for index, place in enumerate(donors):
        if place.role is Role.LAYER and index not in paired:
            table.add_row("-", place.name, "-", "-", place.note)
    return table


def section_md(section: Section) -> Iterator[str]:
    yield f"## {text_md(section.title)}"
    for piece in section.pieces:
        yield from piece_md(piece)


def piece_md(piece: Piece) -> Iterator[str]:
    match piece:
        case str():
            yield text_md(piece)
        case Table():
            yield table_md(Sheet(piece))
        case Sheet():
            yield table_md(piece)
        case Bullets():
            yield "\n".join(f"- {text_md(line)}" for line in piece.lines)
        case Charts():
            return
        case Folded():
            yield f"### {text_md(piece.title)}"
            for part in piece.pieces:
                yield from piece_md(part)


def text_md(text: str) -> str:
    """A text of one line in which nothing is a sign of Markdown or HTML."""
    return SPECIAL.sub(r"\\\g<0>", printable(text.replace("\n", " "))) if text else ""


def table_md(sheet: Sheet) -> str:
    """A table; the row of the result is bold, bars are made of signs."""
    columns = [[text_md(str(cell)) for cell in (column.header, *column.cells)] for column in sheet.table.columns]
    sides = ["---:" if column.justify == "right" else "---" for column in sheet.table.columns]
    for number, row in enumerate(sheet.table.rows, 1):
        if row.style == RESULT:
            for cells in columns:
                cells[number] = f"**{cells[number]}**" if cells[number] else ""
    for index in sorted(sheet.bars, reverse=True):
        columns.insert(index + 1, ["", *("█" * round(BAR * share) for share in sheet.bars[index])])
        sides.insert(index + 1, "---")
    head, *body = zip(*columns, strict=True)
    return "\n".join(map(row_md, [head, sides, *body]))


def row_md(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
