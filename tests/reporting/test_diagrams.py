"""Diagrams of a match: well formed, whatever the layers are called."""

import re
from dataclasses import replace

import pytest
from builders import cnn, mlp, places

from mal_graph.matching import match_layers
from mal_graph.reporting.diagrams import dot, mermaid

ODD = [
    'he said "hi"',
    "a[0]/b{c}|d",
    "<b>&amp;</b>",
    "back\\slash\\",
    "`tick`",
    "#35; %% no comment",
    "new\nline",
    "end",
]


def named(graph, names):
    """The graph with the first nodes called by these names."""
    nodes = [replace(node, name=name) for node, name in zip(graph.nodes, names, strict=False)]
    return replace(graph, nodes=(*nodes, *graph.nodes[len(nodes) :]), name='odd "file".onnx')


@pytest.fixture
def drawn():
    def go(draw, base, donor):
        match = match_layers(base, donor)
        return draw(base, donor, match), match

    return go


@pytest.fixture(params=["plain", "odd names", "branches"])
def models(request):
    if request.param == "branches":
        return cnn((4, 6), seed=0), cnn((4, 4), 2, seed=1)
    base, donor = mlp((8, 7, 6, 5, 4, 3), seed=0), mlp((8, 5, 4, 3, 2), seed=1)
    if request.param == "odd names":
        return named(base, ODD), named(donor, ODD[::-1])
    return base, donor


# What the two parsers take between quotes; everything else on a line is fixed.
MERMAID_TEXT = r'"(?:[^"<>&`%#]|#(?:quot|lt|gt|amp|35|37|96);)*"'
DOT_TEXT = r'"(?:[^"\\]|\\["\\])*"'
MERMAID_LINES = (
    rf'  subgraph [bd]\["(base|donor): {MERMAID_TEXT[1:-1]}"\]',
    rf"    ([bd]\d+)\[{MERMAID_TEXT}\]",
    r"    ([bd])(\d+) --> \1(\d+)",
    r"  end",
    r'  b(\d+) -\. "[01]\.\d\d [a-z-]+" \.- d(\d+)',
)
DOT_LINES = (
    r"  rankdir=TB;",
    r'  node \[shape=box, fontname="sans-serif"\];',
    r"  subgraph cluster_[bd] {",
    rf"    label={DOT_TEXT};",
    rf"    ([bd]\d+) \[label={DOT_TEXT}\];",
    r"    ([bd])(\d+) -> \1(\d+);",
    r"  }",
    r'  b(\d+) -> d(\d+) \[dir=none, style=dashed, constraint=false, label="[01]\.\d\d"\];',
)


def test_mermaid_is_well_formed(drawn, models):
    first, *lines = drawn(mermaid, *models)[0].splitlines()
    assert first == "flowchart TB"
    assert [line for line in lines if not any(re.fullmatch(form, line) for form in MERMAID_LINES)] == []
    assert sum(line.startswith("  subgraph") for line in lines) == lines.count("  end") == 2


def test_dot_is_well_formed(drawn, models):
    first, *lines, last = drawn(dot, *models)[0].splitlines()
    assert (first, last) == ("digraph match {", "}")
    assert [line for line in lines if not any(re.fullmatch(form, line) for form in DOT_LINES)] == []
    assert sum(line.endswith("{") for line in lines) == lines.count("  }") == 2


@pytest.mark.parametrize(("draw", "node"), [(mermaid, r"^    ([bd]\d+)\["), (dot, r"^    ([bd]\d+) \[")])
def test_every_layer_is_one_node_and_every_edge_joins_nodes_that_exist(drawn, models, draw, node):
    text, match = drawn(draw, *models)
    nodes = re.findall(node, text, re.M)
    assert len(set(nodes)) == len(nodes) == len(match.base) + len(match.donor)
    ends = re.findall(r"^ +([bd]\d+) -.*[-> ]([bd]\d+)", text, re.M)
    assert ends
    assert {end for edge in ends for end in edge} <= set(nodes)


@pytest.mark.parametrize("draw", [mermaid, dot])
def test_every_pair_is_joined(drawn, models, draw):
    text, match = drawn(draw, *models)
    joined = re.findall(r"^  b(\d+) -.*?d(\d+)(?: \[|$)", text, re.M)
    assert [(int(b), int(d)) for b, d in joined] == places(match)


def test_names_are_read_back_as_they_were(drawn):
    base, donor = named(mlp((8, 7, 6, 5, 4, 3)), ODD), mlp((8, 6, 3), seed=1)
    layers = [layer.name.replace("\n", " ") for layer in drawn(dot, base, donor)[1].base]
    entities = {"#quot;": '"', "#lt;": "<", "#gt;": ">", "#amp;": "&", "#96;": "`", "#37;": "%", "#35;": "#"}
    shown = re.findall(r'^    b\d+\["(.*) \| ', drawn(mermaid, base, donor)[0], re.M)
    assert [re.sub(r"#\w+;", lambda found: entities[found[0]], text) for text in shown] == layers
    shown = re.findall(r'^    b\d+ \[label="(.*) \| ', drawn(dot, base, donor)[0], re.M)
    assert [re.sub(r"\\(.)", r"\1", text).replace("&amp;", "&") for text in shown] == layers
