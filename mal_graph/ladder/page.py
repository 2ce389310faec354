"""One HTML file that shows the ladder, with nothing to load: drawn by Python, made live by a small script.

Without JavaScript the drawing stands as it is. The page's policy lets nothing be fetched and no script run but its own,
told by its hash; every name is text.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from mal_graph.ladder.blocks import Collapse
from mal_graph.ladder.drawing import (
    BAR_AT,
    BOTTOM,
    FOLD_HEIGHT,
    GUTTER,
    HEIGHTS,
    LONGEST_NAME,
    NARROW,
    RELATIONS,
    TOP,
    WIDEST_BOW,
    describe,
    draw_layout,
    lay_out_ladder,
)
from mal_graph.ladder.entries import LadderEntry
from mal_graph.ladder.shapes import PALETTE, printable
from mal_graph.ladder.svg import css_text, svg_text

LEGEND = (
    ("equal", "equal widths"),
    ("compatible", "one fits into the other"),
    ("incompatible", "wider on one side, narrower on the other"),
)


def page_text(
    ladder: LadderEntry,
    collapse: Collapse | None = None,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    title: str = "",
    about: str = "",
) -> str:
    """The page; `before` and `after` are pieces of HTML around the ladder, `title` and `about` are texts to begin with
    instead of the names of the models and their numbers of layers."""
    layout = lay_out_ladder(ladder, collapse)
    picture = draw_layout(layout)
    data: dict[str, Any] = {
        "ladder": ladder.model_dump(mode="json", exclude_defaults=True),
        "rows": layout.rows,
        "folds": [(fold.start, fold.stop, *fold.titles) for fold in layout.folds],
        "sizes": {
            **{str(role): height for role, height in HEIGHTS.items()},
            "fold": FOLD_HEIGHT,
            "top": TOP,
            "bottom": BOTTOM,
            "left": picture.left,
            "width": picture.width,
            "gutter": GUTTER,
            "bar": BAR_AT,
            "widest": WIDEST_BOW,
            "name": LONGEST_NAME,
            "narrow": NARROW,
        },
        "styles": RELATIONS,
    }
    script = resource("page.js")
    two = "" if ladder.donor is None else " two"
    parts = [
        *head_parts(title or picture.title, about or describe(ladder), script),
        *(f'<div class="report">{piece}</div>' for piece in before),
        f'{tools(has_donor=ladder.donor is not None)}<div class="split"><div class="picture{two}">',
        svg_text(picture, is_page=True),
        '</div><aside id="panel" aria-label="what is picked" tabindex="0">',
        '<button id="unpin" type="button" hidden>Close</button>',
        '<div id="detail"><p class="quiet">Pick a row to see what is known of it.</p></div></aside></div>',
        *(f'<div class="report">{piece}</div>' for piece in after),
        f'</main><script type="application/json" id="data">{json_text(data)}</script>',
        f"<script>{script}</script></body></html>",
    ]
    return "\n".join(parts)


def plain_page(title: str, about: str, pieces: Sequence[str]) -> str:
    """A page like that of a ladder, of pieces of HTML alone."""
    body = (f'<div class="report">{piece}</div>' for piece in pieces)
    return "\n".join([*head_parts(title, about, ""), *body, "</main></body></html>"])


def head_parts(title: str, about: str, script: str) -> Iterator[str]:
    """How every page begins, up to its main part; `script` is the one that may run."""
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy(script)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    title, about = escape(printable(title)), escape(printable(about))
    yield f"<title>{title}</title>"
    yield f"<style>{css_text()}{themes()}{resource('page.css')}</style></head>"
    yield f'<body class="mg"><header><h1>{title}</h1><p class="quiet">{about}</p></header><main>'


def tools(*, has_donor: bool) -> str:
    """What only the script can do, hidden until it runs, and what the colours mean."""
    choices = [("all", "all rows"), ("alone", "without a partner"), ("low", "score below .6"), ("kept", "with a note")]
    options = "".join(f'<option value="{value}">{text}</option>' for value, text in choices)
    items = [f'<li><i style="background:var(--{name})"></i>{text}</li>' for name, text in LEGEND]
    items.append('<li><i style="border:1px dashed var(--quiet)"></i>without a partner</li>')
    shapes = "<li>longer bar: more units (log); pointed end: linear; dented end: other than a convolution</li>"
    legend = f'<ul class="legend">{"".join(items) if has_donor else ""}{shapes}</ul>'
    return (
        '<div class="tools" role="toolbar" aria-label="view"><label>Find <input id="search" type="search"></label>'
        f'<label>Show <select id="filter">{options}</select></label>'
        '<button id="unfold" type="button">Open or close all</button>'
        '<button id="theme" type="button">Light or dark</button>'
        f'<span id="status" role="status" class="quiet"></span></div>{legend}'
    )


def themes() -> str:
    """The colours that a reader chose instead of those of the system."""
    sides = {"light": 0, "dark": 1}
    return "".join(
        f"html[data-theme={name}] .mg{{{''.join(f'--{key}:{both[i]};' for key, both in PALETTE.items())}}}"
        for name, i in sides.items()
    )


def policy(script: str) -> str:
    """Nothing may be loaded, and no script run but this one."""
    told = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"style-src 'unsafe-inline'; script-src 'sha256-{told}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def json_text(data: Any) -> str:
    """JSON that stands in a script element: no text in it can end that."""
    keys: dict[tuple[str, ...], int] = {}
    both = [packed(data, keys), list(keys)]
    text = json.dumps(both, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(data: Any, keys: dict[tuple[str, ...], int]) -> Any:
    """The same data, with texts that can be shown, and smaller: a record is a list of which keys it has, as an index,
    and its values; a list begins with -1."""
    if isinstance(data, dict):
        return [keys.setdefault(tuple(data), len(keys)), *(packed(value, keys) for value in data.values())]
    if isinstance(data, list | tuple):
        return [-1, *(packed(value, keys) for value in data)]
    return printable(data) if isinstance(data, str) and data else data


def resource(name: str) -> str:
    return files("mal_graph.ladder").joinpath(name).read_text(encoding="utf-8")
