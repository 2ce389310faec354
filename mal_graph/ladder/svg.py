"""A picture as SVG: a document of its own, or the same drawing for a page that has the styles."""

from collections.abc import Iterator
from html import escape

from mal_graph.ladder.shapes import LOOKS, PALETTE, Dot, Group, Look, Outline, Picture, Shape, Style, Text, printable

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif"


def svg_text(picture: Picture, *, is_page: bool = False) -> str:
    """The drawing; in a page, which has the styles, it is a group that a script may change."""
    width, height = number(picture.width), number(picture.height)
    left = number(picture.left)
    box = f'viewBox="{left} 0 {width} {height}"'
    own = f'width="{width}" height="{height}" class="mg" '
    role = 'id="ladder" role="group" preserveAspectRatio="xMidYMin slice"' if is_page else 'role="img"'
    label = f'aria-label="{safe(picture.title)}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {box} {own}{role} {label}>']
    if not is_page:
        parts.append(f"<title>{safe(picture.title)}</title><desc>{safe(picture.description)}</desc>")
        parts.append(f"<style>{css_text()}</style>")
        parts.append(f'<rect x="{left}" width="{width}" height="{height}" fill="var(--paper)"/>')
    parts += (part for item in picture.items for part in shape_parts(item))
    return "".join([*parts, "</svg>"])


def css_text() -> str:
    """The styles, by day and by night."""
    day, night = ("".join(f"--{name}:{both[i]};" for name, both in PALETTE.items()) for i in (0, 1))
    rules = "".join(f".mg .{style}{{{look_text(style, look)}}}" for style, look in LOOKS.items())
    base = f".mg{{{day}font-family:{FONT}}}@media(prefers-color-scheme:dark){{.mg{{{night}}}}}"
    anchors = "".join(f".mg .{anchor}{{text-anchor:{anchor}}}" for anchor in ("middle", "end"))
    return f"{base}{rules}{anchors}.mg .line{{fill:none}}"


def look_text(style: Style, look: Look) -> str:
    parts = [f"fill:var(--{look.fill})" if look.fill else "fill:none"]
    if look.stroke:
        parts += [f"stroke:var(--{look.stroke})", f"stroke-width:{number(look.width)}"]
    if look.size:
        parts.append(f"font-size:{number(look.size)}px")
    if look.is_dashed:
        parts.append("stroke-dasharray:3 2")
    if look.is_bold:
        parts.append("font-weight:600")
    return ";".join(parts)


def shape_parts(shape: Shape) -> Iterator[str]:
    match shape:
        case Group():
            yield f"<g{group_attributes(shape)}>"
            for item in shape.items:
                yield from shape_parts(item)
            yield "</g>"
        case Outline():
            width = "" if shape.width is None else f' style="stroke-width:{number(shape.width)}"'
            classes = f"{shape.style} line" if shape.is_line else shape.style
            yield f'<path class="{classes}"{width} d="{path_text(shape)}"/>'
        case Dot():
            yield f'<circle class="{shape.style}"{place_text(shape, "c")} r="{number(shape.radius)}"/>'
        case Text():
            classes = shape.style if shape.anchor == "start" else f"{shape.style} {shape.anchor}"
            whole = f"<title>{safe(shape.whole)}</title>" if shape.whole and shape.whole != shape.text else ""
            yield f'<text class="{classes}"{place_text(shape)}>{whole}{safe(shape.text)}</text>'


def safe(text: str) -> str:
    """A text of a model, which is text and nothing else."""
    return escape(printable(text))


def place_text(shape: Dot | Text, prefix: str = "") -> str:
    """Where a shape lies; 0 goes without saying."""
    places = {f"{prefix}x": shape.x, f"{prefix}y": shape.y}
    return "".join(f' {name}="{number(value)}"' for name, value in places.items() if value)


def group_attributes(group: Group) -> str:
    parts = []
    if group.x or group.y:
        parts.append(f'transform="translate({number(group.x)},{number(group.y)})"')
    if group.classes:
        parts.append(f'class="{escape(group.classes)}"')
    if group.is_hidden:
        parts.append('display="none"')
    parts += (f'{name}="{escape(value)}"' for name, value in group.data.items())
    return "".join(f" {part}" for part in parts)


def path_text(path: Outline) -> str:
    return "".join(letter + " ".join(map(number, numbers)) for letter, numbers in path.commands)


def number(value: float) -> str:
    """A number with at most one digit behind the point."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
