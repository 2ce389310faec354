"""Draws the picture of a merge: docs/pages/merge.svg.

    python tools/draw_merge.py

A base with three hidden units and a donor with four; each base unit has the donor's unit of its colour as its partner,
wherever that stands, and the fourth has none.
"""

from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).parents[1] / "docs" / "pages" / "merge.svg"
COLOURS = {"a": "#3f6fb5", "b": "#c2703d", "c": "#4f9a5f", "": "#a8a8a8"}
BASE, DONOR = "abc", ["c", "", "a", "b"]
TOP, GAP, RADIUS = 58, 40, 11


def unit(x: int, place: int, key: str, is_blend: bool = False) -> Iterator[str]:
    y = TOP + GAP * place
    for end in (x - 46, x + 46):
        yield f'<line x1="{x}" y1="{y}" x2="{end}" y2="{TOP + GAP}" stroke="{COLOURS[key]}" stroke-opacity="0.45"/>'
    yield f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{COLOURS[key]}"/>'
    if is_blend:
        half = f"M {x} {y - RADIUS} a {RADIUS} {RADIUS} 0 0 1 0 {2 * RADIUS} z"
        yield f'<path d="{half}" fill="#fff" fill-opacity="0.45"/>'


def network(x: int, title: str, keys: list[str], is_blend: bool = False) -> Iterator[str]:
    yield f'<text x="{x}" y="22" text-anchor="middle">{title}</text>'
    for place, key in enumerate(keys):
        yield from unit(x, place, key, is_blend)
    for end in (x - 46, x + 46):
        yield f'<circle cx="{end}" cy="{TOP + GAP}" r="5" fill="#555"/>'


def picture() -> str:
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 210" font-family="sans-serif" font-size="13" '
        'fill="#333">',
        '<rect width="620" height="210" fill="#fff"/>',
        *network(80, "base", list(BASE)),
        *network(250, "donor", DONOR),
        *network(430, "merged", list(BASE), is_blend=True),
        '<text x="165" y="102" text-anchor="middle" font-size="18">+</text>',
        '<text x="340" y="102" text-anchor="middle" font-size="18">→</text>',
        '<text x="500" y="90" font-size="12">one runnable file:</text>',
        '<text x="500" y="108" font-size="12">70 % base,</text>',
        '<text x="500" y="126" font-size="12">30 % donor</text>',
        '<text x="310" y="202" text-anchor="middle" font-size="12">'
        "units are paired by what they do, wherever they stand; the grey one has no partner</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(picture(), encoding="utf-8")
