"""A picture as PNG, drawn by matplotlib (the extra `plot`), which is loaded only then."""

import io
import warnings
from typing import TYPE_CHECKING, Any

from mal_graph.errors import UsageError
from mal_graph.ladder.shapes import LOOKS, PALETTE, Dot, Look, Outline, Picture, Text, printable, walk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Curve

SCALE = 2.0  # pixels of the file to one of the drawing
MOST_PIXELS = 30_000  # of an edge
DOTS_PER_INCH = 72.0


def load_figure() -> "type[Figure]":
    """What a picture is drawn on. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "a .png is drawn by matplotlib, which is not installed: pip install 'mal-graph[plot]', or name an .svg or "
            ".html file"
        ) from None
    return Figure


def png_bytes(picture: Picture) -> bytes:
    """The drawing by day; the same picture always gives the same bytes. Raises UsageError without matplotlib."""
    scale = min(SCALE, MOST_PIXELS / max(picture.width, picture.height))
    figure = load_figure()(
        figsize=(picture.width / DOTS_PER_INCH, picture.height / DOTS_PER_INCH), facecolor=colour("paper")
    )
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(picture.left, picture.left + picture.width)
    axes.set_ylim(picture.height, 0)
    for shape, x, y in walk(picture.items):
        draw(axes, shape, x, y)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # it draws a box, which is seen
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH * scale, metadata={"Software": None})
    return buffer.getvalue()


def colour(name: str) -> str:
    return PALETTE[name][0] if name else "none"


def draw(axes: "Axes", shape: Outline | Dot | Text, x: float, y: float) -> None:
    look = LOOKS[shape.style]
    match shape:
        case Text():
            axes.text(
                x + shape.x,
                y + shape.y,
                printable(shape.text),
                fontsize=look.size,
                color=colour(look.fill),
                ha={"start": "left", "middle": "center", "end": "right"}[shape.anchor],
                va="baseline",
                weight="bold" if look.is_bold else "normal",
                parse_math=False,
            )
        case Dot():
            from matplotlib.patches import Circle

            axes.add_patch(Circle((x + shape.x, y + shape.y), shape.radius, **paint(look)))
        case Outline():
            from matplotlib.patches import PathPatch

            width = look.width if shape.width is None else shape.width
            painted = {**paint(look), "linewidth": width, **({"facecolor": "none"} if shape.is_line else {})}
            axes.add_patch(PathPatch(path_of(shape, x, y), **painted))


def paint(look: Look) -> dict[str, Any]:
    return {
        "facecolor": colour(look.fill),
        "edgecolor": colour(look.stroke),
        "linewidth": look.width,
        "linestyle": (0, (3, 2)) if look.is_dashed else "-",
    }


def path_of(shape: Outline, x: float, y: float) -> "Curve":
    from matplotlib.path import Path

    codes = {"M": Path.MOVETO, "L": Path.LINETO, "C": Path.CURVE4}
    points: list[tuple[float, float]] = []
    drawn = []
    for letter, numbers in shape.commands:
        if letter == "Z":
            points.append(points[0])
            drawn.append(Path.CLOSEPOLY)
            continue
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        points += [(x + a, y + b) for a, b in pairs]
        drawn += [codes[letter]] * len(pairs)
    return Path(points, drawn)
