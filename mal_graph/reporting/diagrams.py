"""A match in the forms of other tools: Mermaid, Graphviz, and Model Explorer's mapping of nodes.

The base stands on the left, and every pair has one row. Above 40 rows repeated blocks are folded, which the diagram
says; the picture that `match -o FILE.html` draws opens them.
"""

import json
from collections.abc import Iterator, Mapping

from mal_graph.graph import LayerGraph
from mal_graph.ladder import LadderEntry, Layout, Line, Role, RungEntry, facts_of, lay_out_ladder, name_of
from mal_graph.matching import Match
from mal_graph.network import Layer
from mal_graph.plain_text import one_line

FOLDED = "repeated blocks are folded; an .html picture opens them"


def mermaid(ladder: LadderEntry) -> str:
    """The match as a Mermaid flowchart: one node a row, the base's layer left of the donor's.

    Mermaid cannot put the layers of two chains beside each other, so that a row is one node. What the base reads is a
    line, what the donor reads a dotted one.
    """
    layout = lay_out_ladder(ladder)
    lines = ["flowchart TB"]
    if layout.folds:
        lines.append(f"  %% {FOLDED}")
    keys = {one.y: f"r{index}" for index, one in enumerate(seen(layout))}
    lines += [f'  {keys[one.y]}["{mermaid_text(row_text(layout, one))}"]' for one in seen(layout)]
    for arrow, side in (("-->", 0), ("-.->", 1)):
        lines += [f"  {keys[a]} {arrow} {keys[b]}" for a, b in readings(layout, side)]
    lines += [
        f'  {keys[a]} -. "{rung_text(rung)}" .- {keys[b]}' for rung in ladder.rungs for a, b in crossing(layout, rung)
    ]
    return "\n".join(lines)


def dot(ladder: LadderEntry) -> str:
    """The match as a Graphviz graph: two columns, one rank a row; an empty place is an invisible node."""
    layout = lay_out_ladder(ladder)
    lines = ["digraph match {", '  node [shape=box, fontname="sans-serif"];', "  edge [arrowsize=0.6];"]
    if layout.folds:
        lines.append(f"  // {FOLDED}")
    keys = {one.y: index for index, one in enumerate(seen(layout))}
    for one in seen(layout):
        index = keys[one.y]
        for letter, text in zip("bd", side_texts(layout, one), strict=True):
            look = f'label="{dot_text(text)}"' if text else 'label="", style=invis'
            lines.append(f"  {letter}{index} [{look}, group={letter}];")
        rung = rung_of(layout, one)
        look = "style=invis" if rung is None else f'dir=none, style=dashed, label="{rung_text(rung)}"'
        lines.append(f"  {{ rank=same; b{index} -> d{index} [{look}]; }}")
    for letter in "bd":
        lines += [
            f"  {letter}{index} -> {letter}{index + 1} [style=invis, weight=9];" for index in range(len(keys) - 1)
        ]
    for side, letter in enumerate("bd"):
        lines += [f"  {letter}{keys[a]} -> {letter}{keys[b]};" for a, b in readings(layout, side)]
    lines += [
        f'  b{keys[a]} -> d{keys[b]} [dir=none, style=dashed, constraint=false, label="{rung_text(rung)}"];'
        for rung in ladder.rungs
        for a, b in crossing(layout, rung)
    ]
    return "\n".join([*lines, "}"])


def model_explorer(base: LayerGraph, donor: LayerGraph, match: Match) -> str:
    """The nodes of matched layers, as Model Explorer loads them to move in two panes together: the base in the left
    one. Nodes are called as in the ONNX files."""
    entries = [
        {"leftNodeIds": names_of(base, pair.base), "rightNodeIds": names_of(donor, pair.donor)} for pair in match.pairs
    ]
    kept = [entry for entry in entries if all(entry.values())]
    form = {"type": "sync_navigation", "mappingEntries": kept, "disableMappingFallback": True}
    return json.dumps({**form, "showDiffHighlights": True}, indent=2)


def names_of(graph: LayerGraph, layer: Layer) -> list[str]:
    return [graph.nodes[index].name for index in layer.nodes if graph.nodes[index].name]


# --- what both diagrams show ---------------------------------------------------------------------------------------


def seen(layout: Layout) -> Iterator[Line]:
    """The lines that are not folded away."""
    return (one for one in layout.lines if one.y is not None)


def readings(layout: Layout, side: int) -> Iterator[tuple[float, float]]:
    """What reads what on one side, as heights of lines, each once."""
    shown = layout.shown[side]
    places = layout.ladder.sides()[side][1].places
    found = ((shown[source].y, shown[index].y) for index, place in enumerate(places) for source in place.reads)
    for a, b in dict.fromkeys(found):
        if a is not None and b is not None and a != b:
            yield a, b


def crossing(layout: Layout, rung: RungEntry) -> Iterator[tuple[float, float]]:
    """The lines of a pair that does not share one."""
    a, b = layout.shown[0][rung.base].y, layout.shown[1][rung.donor].y
    if a is not None and b is not None and a != b:
        yield a, b


def rung_of(layout: Layout, one: Line) -> RungEntry | None:
    """The pair that stands in a line."""
    row = None if one.row is None else layout.rows[one.row]
    pair = None if row is None or row.base is None else layout.rung_at[0].get(row.base)
    rung = None if pair is None else layout.ladder.rungs[pair]
    return rung if rung is not None and rung.ends == row else None


def row_text(layout: Layout, one: Line) -> str:
    """A line as one text."""
    left, right = side_texts(layout, one)
    rung = rung_of(layout, one)
    between = "" if rung is None else f"{rung_text(rung)} | "
    return f"{left or '-'} | {between}{right or '-'}"


def side_texts(layout: Layout, one: Line) -> tuple[str, str]:
    """What a line shows of the base and of the donor; "" for nothing."""
    if one.fold is not None:
        return layout.folds[one.fold].titles
    texts = []
    for side in (0, 1):
        place = None if one.row is None else layout.rows[one.row][side]
        model = layout.ladder.sides()[side][1]
        own = None if place is None else model.places[place]
        if own is None:
            texts.append("")
        elif own.role is Role.LAYER:
            texts.append(f"{name_of(own)}: {facts_of(model, own)}")
        else:
            texts.append(own.kind if own.role is Role.JOIN else f"{own.role} {name_of(own)}")
    return texts[0], texts[1]


def rung_text(rung: RungEntry) -> str:
    return f"{rung.score:.2f} {rung.relation}"


def mermaid_text(text: str) -> str:
    """Text between quotes in Mermaid; a backtick would start Markdown there, `%%` a comment."""
    table = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "&": "#amp;", "`": "#96;", "%": "#37;"}
    return escaped(text, table)


def dot_text(text: str) -> str:
    """Text between quotes in DOT, which reads HTML entities there."""
    return escaped(text, {'"': '\\"', "\\": "\\\\", "&": "&amp;"})


def escaped(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in one_line(text))
