"""The picture: everything is there, nothing lies outside, and no name can end a tag."""

import re
import xml.etree.ElementTree as ET

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ladder.ladders import HOSTILE, random_ladder, twice
from ladder.test_blocks import stages

from mal_graph.errors import UsageError
from mal_graph.ladder import (
    Collapse,
    LadderEntry,
    draw_ladder,
    facts_of,
    model_entry,
    png_bytes,
    svg_text,
    take_around,
)
from mal_graph.ladder.drawing import bow_of
from mal_graph.ladder.entries import AxisMark, GroupMark, ModelEntry, PlaceEntry, Role
from mal_graph.ladder.shapes import Dot, Outline, Style, Text, cut, cut_title, printable, walk
from mal_graph.symmetry import axis_groups

SEEDS = st.integers(0, 2**31)
SVG = "{http://www.w3.org/2000/svg}"


@given(SEEDS)
def test_every_layer_is_drawn_with_its_name(seed):
    ladder = random_ladder(seed)
    picture = draw_ladder(ladder, Collapse.NONE)
    drawn = [shape.whole or shape.text for shape, _, _ in walk(picture.items) if isinstance(shape, Text)]
    for _, model in ladder.sides():
        for place in model.places:
            assert place.role is Role.JOIN or any(place.name in text for text in drawn)


@given(SEEDS, st.sampled_from(Collapse), st.booleans())
def test_nothing_lies_outside(seed, collapse, is_alone):
    ladder = random_ladder(seed, most=40)
    picture = draw_ladder(LadderEntry(base=ladder.base) if is_alone else ladder, collapse)
    for shape, x, y in walk(picture.items):
        points = [(shape.x, shape.y)] if not isinstance(shape, Outline) else []
        if isinstance(shape, Outline):
            flat = [number for _, numbers in shape.commands for number in numbers]
            points = list(zip(flat[::2], flat[1::2], strict=True))
        assert isinstance(shape, Dot | Text | Outline)
        assert all(
            -20 <= x + a - picture.left <= picture.width + 20 and 0 <= y + b <= picture.height for a, b in points
        )


@given(SEEDS)
def test_what_is_read_is_drawn_once_for_each_reading(seed):
    ladder = random_ladder(seed)
    tree = ET.fromstring(svg_text(draw_ladder(ladder, Collapse.NONE)))
    groups = [g for g in tree.iter(f"{SVG}g") if "edges" in g.get("class", "").split()]
    for group, (_, model) in zip(groups, ladder.sides(), strict=True):
        assert len(group) == sum(len(place.reads) for place in model.places)


@given(SEEDS, st.sampled_from(Collapse))
def test_hostile_names_stay_text(seed, collapse):
    text = svg_text(draw_ladder(random_ladder(seed, names=HOSTILE), collapse))
    tree = ET.fromstring(text)  # well formed
    assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= {
        *("svg", "title", "desc", "style", "rect", "g", "path", "circle", "text")
    }
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', text))
    assert not re.search("[\x00-\x08\x1b\u202e\u2066]", text)


@pytest.mark.parametrize("collapse", Collapse)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_modules_stay_text(collapse, name):
    model = stages([2, 3], names=f"{name}{{}}".replace("|", ""))
    model.name = name
    for place in model.places:
        place.kind = name if place.role is Role.JOIN else place.kind
    text = svg_text(draw_ladder(twice(model), collapse))
    ET.fromstring(text)
    assert not re.search("[\x00-\x08\x1b\u202e\u2066]", text)


def test_a_letter_that_no_font_has_is_drawn_without_a_word(recwarn):
    pytest.importorskip("matplotlib")
    assert png_bytes(draw_ladder(random_ladder(1, names=("\N{CJK UNIFIED IDEOGRAPH-4E2D}",)))).startswith(b"\x89PNG")
    assert [str(one.message) for one in recwarn] == []


def test_units_stay_where_a_layers_facts_are_cut():
    axes = [AxisMark(tensor="w", axis=i, groups=[i], units=way) for i, way in enumerate(("out", "in"))]
    place = PlaceEntry(name="a", role=Role.LAYER, kind="conv_transpose", window="11x11", units=(1024, 2048), axes=axes)
    groups = [GroupMark(name=f"g{i}", units=8, state="pinned") for i in range(2)]
    picture = draw_ladder(LadderEntry(base=ModelEntry(name="net", places=[place], groups=groups)))
    (facts,) = (shape for shape, _, _ in walk(picture.items) if isinstance(shape, Text) and shape.style is Style.FACTS)
    assert facts.whole == "conv_transpose 11x11 · 1024 → 2048 · in pinned, out pinned"
    assert facts.whole.startswith(facts.text.removesuffix("…"))


def test_groups_are_marked_as_unverified_where_others_are_verified():
    base = builders.cnn(seed=1)
    model = model_entry(base, axis_groups(base))
    marked = [facts_of(model, place) for place in model.places if place.role is Role.LAYER]
    assert any("pinned" in facts for facts in marked)
    assert not any("unverified" in facts for facts in marked)
    groups = [group.model_copy(update={"state": "verified"}) for group in model.groups[:1]]
    some = ModelEntry(name="net", places=model.places, groups=[*groups, *model.groups[1:]])
    assert any("unverified" in facts_of(some, place) for place in some.places)


def test_a_picture_is_the_same_every_time():
    ladder = random_ladder(3)
    assert svg_text(draw_ladder(ladder)) == svg_text(draw_ladder(ladder))
    pytest.importorskip("matplotlib")
    first = png_bytes(draw_ladder(ladder))
    assert first.startswith(b"\x89PNG")
    assert first == png_bytes(draw_ladder(ladder))


def test_a_png_is_drawn_by_matplotlib(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'mal-graph\[plot\]'"):
        png_bytes(draw_ladder(random_ladder(0)))


@given(st.floats(1, 1e5), st.floats(1, 1e5))
def test_a_longer_arc_reaches_farther(a, b):
    assert bow_of(min(a, b)) <= bow_of(max(a, b))


@given(st.text(max_size=60), st.integers(4, 30))
def test_a_name_is_cut_in_the_middle(text, longest):
    short = cut(text, longest)
    assert len(short) <= longest
    assert short == text or ((short[0] == text[0] or longest < 4) and short[-1] == text[-1])


@pytest.mark.parametrize(
    ("title", "longest", "expected"),
    [
        ("layer1: 2 x 3 conv", 19, "layer1: 2 x 3 conv"),
        ("features.denseblock1.denselayer: 6 x 1 affine, 2 conv", 35, "featur…ck1.denselayer: 6 x 1 affin…"),
        ("stages.0.blocks: 3 x 2 affine, 5 conv", 19, "sta….blocks: 3 x 2…"),
        ("2 x 4 linear, 2 affine", 19, "2 x 4 linear, 2 af…"),
    ],
)
def test_a_title_keeps_its_name_and_its_number(title, longest, expected):
    short = cut_title(title, longest)
    assert len(short) <= longest
    assert short == expected


@given(st.text(max_size=30))
def test_what_is_shown_can_be_printed(text):
    assert printable(text)
    assert printable(text).isprintable()


# --- focus ---------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(0, 3))
def test_what_is_around_a_layer_is_within_reach(seed, radius):
    ladder = random_ladder(seed)
    name = next(place.name for place in ladder.base.places if place.role is Role.LAYER)
    near = take_around(ladder, name, radius)
    wider = take_around(ladder, name, radius + 1)
    assert all(0 <= source < len(model.places) for _, model in near.sides() for p in model.places for source in p.reads)
    assert name in [place.name for place in near.base.places]
    assert len(near.base.places) <= len(wider.base.places) <= len(ladder.base.places)
    if radius == 0:  # the layer of this name in either model, and their partners
        assert len(near.base.places) <= 2
    names = [[place.name for place in model.places] for _, model in near.sides()]
    for rung in ladder.rungs:
        ends = ladder.base.places[rung.base].name, ladder.donor.places[rung.donor].name
        assert (ends[0] in names[0]) == (ends[1] in names[1])


def test_an_unknown_layer_is_told_with_the_nearest_names():
    ladder = random_ladder(1)
    with pytest.raises(UsageError, match=r"no layer is called 'laye1': did you mean 'layer1'"):
        take_around(ladder, "laye1", 2)


def test_an_empty_model_has_a_picture():
    empty = random_ladder(1).base.model_copy(update={"places": []})
    assert "<svg" in svg_text(
        draw_ladder(random_ladder(1).model_copy(update={"base": empty, "donor": None, "rungs": []}))
    )
