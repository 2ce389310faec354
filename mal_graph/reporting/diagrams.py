"""A match as a diagram: both models side by side, matched layers joined."""

from collections.abc import Mapping, Sequence

from mal_graph.graph import LayerGraph
from mal_graph.matching import Match, find_layer_edges
from mal_graph.network import Layer


def mermaid(base: LayerGraph, donor: LayerGraph, match: Match) -> str:
    """The match as a Mermaid flowchart.

    It has one direction for both models: Mermaid ignores that of a subgraph whose nodes are linked to the outside.
    """
    lines = ["flowchart TB"]
    for side, graph, layers in (("b", base, match.base), ("d", donor, match.donor)):
        title = "base" if side == "b" else "donor"
        keys = keys_of(side, layers)
        lines.append(f'  subgraph {side}["{title}: {mermaid_text(graph.name)}"]')
        lines += [f'    {keys[layer.name]}["{mermaid_text(caption(layer))}"]' for layer in layers]
        lines += [f"    {keys[a]} --> {keys[b]}" for a, b in find_layer_edges(graph, layers)]
        lines.append("  end")
    mine, theirs = keys_of("b", match.base), keys_of("d", match.donor)
    lines += [f'  {mine[p.base.name]} -. "{p.score:.2f} {p.relation}" .- {theirs[p.donor.name]}' for p in match.pairs]
    return "\n".join(lines)


def dot(base: LayerGraph, donor: LayerGraph, match: Match) -> str:
    """The match as a Graphviz graph."""
    lines = ["digraph match {", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif"];']
    for side, graph, layers in (("b", base, match.base), ("d", donor, match.donor)):
        title = "base" if side == "b" else "donor"
        lines += [f"  subgraph cluster_{side} {{", f'    label="{title}: {dot_text(graph.name)}";']
        keys = keys_of(side, layers)
        lines += [f'    {keys[layer.name]} [label="{dot_text(caption(layer))}"];' for layer in layers]
        lines += [f"    {keys[a]} -> {keys[b]};" for a, b in find_layer_edges(graph, layers)]
        lines.append("  }")
    mine, theirs = keys_of("b", match.base), keys_of("d", match.donor)
    lines += [
        f"  {mine[p.base.name]} -> {theirs[p.donor.name]} "
        f'[dir=none, style=dashed, constraint=false, label="{p.score:.2f}"];'
        for p in match.pairs
    ]
    return "\n".join([*lines, "}"])


def keys_of(side: str, layers: Sequence[Layer]) -> dict[str, str]:
    """What the diagram calls each layer, by its name."""
    return {layer.name: f"{side}{i}" for i, layer in enumerate(layers)}


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
