"""A match in the forms of other tools: well formed, whatever the layers are called."""

import json
import re
from dataclasses import replace

import pytest
from builders import cnn, mlp
from hypothesis import given
from hypothesis import strategies as st
from ladder.ladders import HOSTILE, random_ladder
from ladder.test_blocks import stages

from mal_graph.ladder import LadderEntry, ladder_of
from mal_graph.ladder.rows import find_rows
from mal_graph.matching import match_layers
from mal_graph.plain_text import one_line
from mal_graph.reporting.diagrams import FOLDED, dot, mermaid, model_explorer

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
SEEDS = st.integers(0, 2**31)


def named(graph, names):
    """The graph with the first nodes called by these names."""
    nodes = [replace(node, name=name) for node, name in zip(graph.nodes, names, strict=False)]
    return replace(graph, nodes=(*nodes, *graph.nodes[len(nodes) :]), name='odd "file".onnx')


@pytest.fixture(params=["plain", "odd names", "branches"])
def models(request):
    if request.param == "branches":
        return cnn((4, 6), seed=0), cnn((4, 4), 2, seed=1)
    base, donor = mlp((8, 7, 6, 5, 4, 3), seed=0), mlp((8, 5, 4, 3, 2), seed=1)
    if request.param == "odd names":
        return named(base, ODD), named(donor, ODD[::-1])
    return base, donor


def drawn(base, donor):
    return ladder_of(base, donor, match_layers(base, donor))


# What the two parsers take between quotes; everything else on a line is fixed.
MERMAID_TEXT = r'"(?:[^"<>&`%#]|#(?:quot|lt|gt|amp|35|37|96);)*"'
DOT_TEXT = r'"(?:[^"\\]|\\["\\])*"'
RUNG = r'"[01]\.\d\d [a-z-]+"'
MERMAID_LINES = (
    rf"  r\d+\[{MERMAID_TEXT}\]",
    r"  r\d+ -\.?-?> r\d+",
    rf"  r\d+ -\. {RUNG} \.- r\d+",
    rf"  %% {FOLDED}",
)
DOT_LINES = (
    r'  node \[shape=box, fontname="sans-serif"\];',
    r"  edge \[arrowsize=0.6\];",
    rf"  // {FOLDED}",
    rf"  ([bd])\d+ \[label={DOT_TEXT}(, style=invis)?, group=\1\];",
    rf"  {{ rank=same; b(\d+) -> d\1 \[(style=invis|dir=none, style=dashed, label={RUNG})\]; }}",
    r"  ([bd])\d+ -> \1\d+( \[style=invis, weight=9\])?;",
    rf"  b\d+ -> d\d+ \[dir=none, style=dashed, constraint=false, label={RUNG}\];",
)


def check_mermaid(text):
    first, *lines = text.splitlines()
    assert first == "flowchart TB"
    assert [line for line in lines if not any(re.fullmatch(form, line) for form in MERMAID_LINES)] == []


def check_dot(text):
    first, *lines, last = text.splitlines()
    assert (first, last) == ("digraph match {", "}")
    assert [line for line in lines if not any(re.fullmatch(form, line) for form in DOT_LINES)] == []


def test_diagrams_of_models_are_well_formed(models):
    ladder = drawn(*models)
    check_mermaid(mermaid(ladder))
    check_dot(dot(ladder))


@given(SEEDS)
def test_diagrams_are_well_formed_whatever_the_names(seed):
    ladder = random_ladder(seed, names=HOSTILE)
    check_mermaid(mermaid(ladder))
    check_dot(dot(ladder))


@given(SEEDS)
def test_every_row_is_one_node_and_every_edge_joins_nodes_that_exist(seed):
    ladder = random_ladder(seed, most=8)
    rows = find_rows(ladder)
    for text, node, columns in ((mermaid(ladder), r"^  (r\d+)\[", 1), (dot(ladder), r"^  ([bd]\d+) \[", 2)):
        nodes = re.findall(node, text, re.M)
        assert len(set(nodes)) == len(nodes) == columns * len(rows)
        ends = re.findall(r"^ +(?:{ rank=same; )?([rbd]\d+) -.*?[-> ]([rbd]\d+)", text, re.M)
        assert {end for edge in ends for end in edge} <= set(nodes)


@given(SEEDS)
def test_every_pair_is_shown_once(seed):
    ladder = random_ladder(seed, most=8)
    for text in (mermaid(ladder), dot(ladder)):
        shown = [f"{float(score):.2f}" for score in re.findall(r"(\d\.\d\d) (?:equal|size-)", text)]
        assert sorted(shown) == sorted(f"{rung.score:.2f}" for rung in ladder.rungs)


def test_a_deep_model_is_folded_with_a_word_about_it():
    deep = LadderEntry(base=stages([6, 7]), donor=stages([6, 8]))
    for draw in (mermaid, dot):
        text = draw(deep)
        assert FOLDED in text
        assert len(text.splitlines()) < 60
        assert "layer1: 6 x 3 conv" in text


def test_names_are_read_back_as_they_were():
    base, donor = named(mlp((8, 7, 6, 5, 4, 3)), ODD), mlp((8, 6, 3), seed=1)
    ladder = drawn(base, donor)
    layers = {one_line(layer.name) for layer in match_layers(base, donor).base}
    entities = {"#quot;": '"', "#lt;": "<", "#gt;": ">", "#amp;": "&", "#96;": "`", "#37;": "%", "#35;": "#"}
    shown = re.findall(r'^  r\d+\["(.*): linear', mermaid(ladder), re.M)
    assert layers <= {re.sub(r"#\w+;", lambda found: entities[found[0]], text.split(": linear")[0]) for text in shown}
    shown = re.findall(r'^  b\d+ \[label="(.*): linear', dot(ladder), re.M)
    assert {re.sub(r"\\(.)", r"\1", text).replace("&amp;", "&") for text in shown} == layers


def test_model_explorer_is_told_which_nodes_belong_together(models):
    base, donor = models
    match = match_layers(base, donor)
    told = json.loads(model_explorer(base, donor, match))
    assert told["type"] == "sync_navigation"
    assert len(told["mappingEntries"]) == len(match.pairs)
    names = [{node.name for node in graph.nodes} for graph in (base, donor)]
    for entry, pair in zip(told["mappingEntries"], match.pairs, strict=True):
        assert set(entry["leftNodeIds"]) <= names[0]
        assert set(entry["rightNodeIds"]) <= names[1]
        assert base.nodes[pair.base.start].name in entry["leftNodeIds"]
        assert donor.nodes[pair.donor.start].name in entry["rightNodeIds"]


def test_a_long_name_is_cut_and_a_missing_one_told():
    ladder = random_ladder(2, names=("x" * 500, ""))
    for text in (mermaid(ladder), dot(ladder)):
        assert "x" * 100 not in text
        assert "x…x" in text
        assert "(no name): " in text
