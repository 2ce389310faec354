"""Two models drawn side by side: which layer corresponds to which, as SVG, PNG or one HTML file."""

from mal_graph.ladder.blocks import Collapse
from mal_graph.ladder.building import ladder_of, ladder_of_comparison, model_entry
from mal_graph.ladder.drawing import Layout, Line, draw_ladder, facts_of, lay_out_ladder, name_of
from mal_graph.ladder.entries import LadderEntry, ModelEntry, PlaceEntry, Role, RungEntry, UnitsEntry
from mal_graph.ladder.focus import take_around
from mal_graph.ladder.page import page_text, plain_page
from mal_graph.ladder.raster import load_figure, png_bytes
from mal_graph.ladder.shapes import Dot, Outline, Picture, Shape, Style, Text, line, printable
from mal_graph.ladder.svg import svg_text

__all__ = [
    "Collapse",
    "Dot",
    "draw_ladder",
    "facts_of",
    "ladder_of",
    "ladder_of_comparison",
    "LadderEntry",
    "lay_out_ladder",
    "Layout",
    "Line",
    "line",
    "load_figure",
    "model_entry",
    "ModelEntry",
    "name_of",
    "Outline",
    "page_text",
    "Picture",
    "PlaceEntry",
    "plain_page",
    "png_bytes",
    "printable",
    "Role",
    "RungEntry",
    "Shape",
    "Style",
    "svg_text",
    "take_around",
    "Text",
    "UnitsEntry",
]
