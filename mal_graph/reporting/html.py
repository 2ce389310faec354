"""A report as one HTML file, or as a piece of HTML for notebooks: every text of a model is text and nothing else."""

import re
from collections.abc import Iterator
from html import escape
from math import isfinite

from rich.table import Table

from mal_graph.ladder import LadderEntry, draw_ladder, page_text, plain_page, printable, svg_text
from mal_graph.reporting.pieces import Bullets, Charts, Folded, Headline, Page, Piece, Section, Sheet
from mal_graph.reporting.tables import RESULT

LONGEST_WORD = 40  # a longer one is broken
STRONGEST = 45  # percent of a colour, so that the text on it stays legible
OPTION = re.compile(r"`(\w+)`")
FRAGMENT_STYLE = (
    ".mg-report{max-width:820px}.mg-report svg{max-width:100%;height:auto}"
    ".mg-report .bar{display:inline-block;height:9px;width:calc(var(--share)*110px);background:#5b8fd0}"
    ".mg-report .result td{font-weight:600}.mg-report td.number,.mg-report th.number{text-align:right}"
    ".mg-report .verdict{border-left:4px solid #8b949e;padding:4px 12px;margin:8px 0}"
    ".mg-report .verdict.better{border-color:#2f7d4f}.mg-report .verdict.worse{border-color:#b45309}"
)


def html_page(page: Page) -> str:
    """A report as a file of its own, with the first picture of the layers live."""
    before = [headline_html(page.headline), *map(section_html, page.before)]
    after = [*map(section_html, page.after)]
    if not page.ladders:
        return plain_page(page.title, page.about, [*before, *after])
    first, *others = page.ladders
    if others:
        after.insert(0, f"<h2>Other donors</h2>{''.join(map(still_html, others))}")
    head = "<h2>Layer by layer</h2>"
    return page_text(first, before=[*before, head], after=after, title=page.title, about=page.about)


def html_fragment(page: Page) -> str:
    """What comes first in a report, without any script, for a notebook."""
    pieces = [headline_html(page.headline), *map(section_html, page.before)]
    pieces += (svg_text(draw_ladder(ladder)) for ladder in page.ladders)
    return f'<div class="mg-report"><style>{FRAGMENT_STYLE}</style>{"".join(pieces)}</div>'


def still_html(ladder: LadderEntry) -> str:
    """A picture of layers as it stands, which scrolls where the window is narrow."""
    picture = draw_ladder(ladder)
    return scrolling(svg_text(picture), picture.title)


def scrolling(inside: str, label: str) -> str:
    """What may be wider than the window; it takes the focus, so that keys can scroll it."""
    return f'<div class="scroll" role="group" aria-label="{escape(printable(label))}" tabindex="0">{inside}</div>'


def headline_html(headline: Headline) -> str:
    kind = {True: " worse", False: " better", None: ""}[headline.is_worse]
    advice = f"<p>Try: {text_html(headline.advice)}</p>" if headline.advice else ""
    return f'<div class="verdict{kind}"><p>{text_html(headline.text)}</p>{advice}</div>'


def section_html(section: Section) -> str:
    return f"<h2>{text_html(section.title)}</h2>{''.join(map(piece_html, section.pieces))}"


def piece_html(piece: Piece) -> str:
    match piece:
        case str():
            return f"<p>{text_html(piece)}</p>"
        case Table():
            return table_html(Sheet(piece))
        case Sheet():
            return table_html(piece)
        case Bullets():
            return f"<ul>{''.join(f'<li>{text_html(line)}</li>' for line in piece.lines)}</ul>"
        case Charts():
            return f'<div class="charts">{"".join(map(svg_text, piece.pictures))}</div>'
        case Folded():
            inside = "".join(map(piece_html, piece.pieces))
            return f"<details><summary>{text_html(piece.title)}</summary>{inside}</details>"


def text_html(text: str) -> str:
    """A text of one line; what is an option in it looks like one."""
    return OPTION.sub(r"<code>\1</code>", escape(printable(text.replace("\n", " "))))


def cell_text(text: str) -> str:
    return text_html(text) if text else ""


def table_html(sheet: Sheet) -> str:
    """A table that scrolls by itself where the window is narrow."""
    columns = sheet.table.columns
    kinds = [' class="number"' if column.justify == "right" else "" for column in columns]
    heads = (
        f'<th scope="col"{kind}{" colspan=2" if index in sheet.bars else ""}>{text_html(str(column.header))}</th>'
        if column.header
        else "<td></td>"
        for index, (column, kind) in enumerate(zip(columns, kinds, strict=True))
    )
    lines = zip(*(column.cells for column in columns), strict=True)
    body = "".join(
        f"<tr{' class=result' if row.style == RESULT else ''}>"
        f"{''.join(cells_html(sheet, number, list(map(str, cells)), kinds))}</tr>"
        for number, (row, cells) in enumerate(zip(sheet.table.rows, lines, strict=True))
    )
    table = f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table>"
    return scrolling(table, f"table by {columns[0].header}")


def cells_html(sheet: Sheet, row: int, cells: list[str], kinds: list[str]) -> Iterator[str]:
    """The cells of one row, with bars behind figures."""
    for column, (cell, kind) in enumerate(zip(cells, kinds, strict=True)):
        tint = tint_html(sheet.tints[row][column - 1]) if sheet.tints and column else ""
        is_long = max(map(len, cell.split()), default=0) > LONGEST_WORD
        yield f"<td{' class=long' if is_long else kind}{tint}>{cell_text(cell)}</td>"
        if column in sheet.bars:
            yield f'<td><span class="bar" style="--share:{sheet.bars[column][row]:.3f}"></span></td>'


def tint_html(share: float) -> str:
    """The colour of a cell: one for what grows, one for what falls."""
    if not isfinite(share) or not share:
        return ""
    colour, strength = ("incompatible" if share > 0 else "compatible"), max(1, round(abs(share) * STRONGEST))
    return f' style="background:color-mix(in srgb,var(--{colour}) {strength}%,transparent)"'
