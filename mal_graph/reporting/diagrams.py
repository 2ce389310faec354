"""A match as a diagram: both models side by side, matched layers joined."""

from collections.abc import Mapping

from mal_graph.graph import LayerGraph
from mal_graph.matching.layer_matching import Match, layer_edges
from mal_graph.network import Layer


def mermaid(base: LayerGraph, donor: LayerGraph, match: Match) -> str:
    """The match as a Mermaid flowchart.

    It has one direction for both models: Mermaid ignores that of a subgraph whose nodes are linked to the outside.
    """
    lines = ["flowchart TB"]
    for side, graph, layers in (("b", base, match.base), ("d", donor, match.donor)):
        title = "base" if side == "b" else "donor"
        lines.append(f'  subgraph {side}["{title}: {mermaid_text(graph.name)}"]')
        lines += [f'    {side}{i}["{mermaid_text(caption(layer))}"]' for i, layer in enumerate(layers)]
        lines += [f"    {side}{i} --> {side}{j}" for i, j in layer_edges(graph, layers)]
        lines.append("  end")
    lines += [f'  b{p.base} -. "{p.score:.2f} {p.relation}" .- d{p.donor}' for p in match.pairs]
    return "\n".join(lines)


def dot(base: LayerGraph, donor: LayerGraph, match: Match) -> str:
    """The match as a Graphviz graph."""
    lines = ["digraph match {", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif"];']
    for side, graph, layers in (("b", base, match.base), ("d", donor, match.donor)):
        title = "base" if side == "b" else "donor"
        lines += [f"  subgraph cluster_{side} {{", f'    label="{title}: {dot_text(graph.name)}";']
        lines += [f'    {side}{i} [label="{dot_text(caption(layer))}"];' for i, layer in enumerate(layers)]
        lines += [f"    {side}{i} -> {side}{j};" for i, j in layer_edges(graph, layers)]
        lines.append("  }")
    lines += [
        f'  b{p.base} -> d{p.donor} [dir=none, style=dashed, constraint=false, label="{p.score:.2f}"];'
        for p in match.pairs
    ]
    return "\n".join([*lines, "}"])


def caption(layer: Layer) -> str:
    into, out = layer.in_out
    return f"{layer.name} | {layer.kind} {into} to {out}"


def mermaid_text(text: str) -> str:
    """Text between quotes in Mermaid; a backtick would start Markdown there, `%%` a comment."""
    table = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "&": "#amp;", "`": "#96;", "%": "#37;"}
    return escaped(text, table)


def dot_text(text: str) -> str:
    """Text between quotes in DOT, which reads HTML entities there."""
    return escaped(text, {'"': '\\"', "\\": "\\\\", "&": "&amp;"})


def escaped(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(letter, letter if letter.isprintable() else " ") for letter in text)
