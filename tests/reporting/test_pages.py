"""Reports: JSON is the truth, and pages say what it says, whatever models and layers are called."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest
from report_results import HOSTILE, MAKERS, result

from mal_graph.errors import FileError, UsageError
from mal_graph.ladder import Role
from mal_graph.reporting import KINDS, read_report, rendered, report_text, result_document, schema_of, text_of
from mal_graph.reporting.reading import FORMS, SCHEMAS
from mal_graph.version import version

VOID = {"meta", "link", "br", "img", "input", "rect", "path", "circle"}
LAYERED = ("merged", "grown", "hostile", "zoo", "search")


@pytest.fixture(params=MAKERS)
def document(request):
    return result_document(result(request.param), command=["mal-graph", "x y"], hashes={"a.onnx": "0" * 64})


class Reader(HTMLParser):
    """What a browser would make of a page: elements, attributes, and the texts outside scripts and styles."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts, self.rows = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if not {"script", "style"} & set(self.open):
            self.texts.append(text)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += text


# --- laws ---------------------------------------------------------------------------------------------------------


def test_a_report_read_from_its_json_is_the_same(document):
    again = read_report(document.json_text(), "a")
    assert again.json_text() == document.json_text()
    assert type(again) is type(document)


@pytest.mark.parametrize("kind", ["html", "md"])
def test_a_page_is_made_from_the_json_alone(document, kind):
    page = report_text(document, kind)
    assert rendered(report_text(document, "json"), kind) == page
    assert rendered(read_report(document.json_text(), "a").json_text(), kind) == page


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "broken"])  # JSON has no infinity
def test_the_text_of_a_report_that_was_read_is_that_of_the_result(name):
    document = result_document(result(name))
    assert text_of(read_report(document.json_text(), "a"), verbose=True) == text_of(document, verbose=True)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("verbose", [False, True])
def test_a_text_is_the_same_without_what_pictures_need(name, verbose):
    with_pictures, without = (result_document(result(name), has_pictures=wanted) for wanted in (True, False))
    assert not without.ladders
    assert text_of(without, verbose=verbose) == text_of(with_pictures, verbose=verbose)


def test_every_element_of_a_page_is_closed_and_only_the_script_of_the_page_runs(document):
    reader = Reader(report_text(document, "html"))
    assert reader.open == []
    assert reader.tags.count("script") == (2 if document.ladders else 0)  # its data and its own
    assert not {"img", "iframe", "object", "link", "a", "form"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not [value for name, value in reader.attributes if name in ("src", "href")]


@pytest.mark.parametrize("name", MAKERS)
def test_a_piece_for_notebooks_has_no_script_and_the_layers(name):
    reader = Reader(result(name)._repr_html_())
    assert reader.open == []
    assert "script" not in reader.tags
    assert reader.tags.count("svg") >= len(result_document(result(name)).ladders)


@pytest.mark.parametrize("name", LAYERED)
def test_every_layer_of_the_base_is_merged_kept_or_a_setting_and_a_page_says_so(name):
    document = result_document(result(name))
    said = {entry.base for entry in document.merged}
    said |= {left.layer for left in getattr(document, "skipped", ())}
    said |= {layer for left in (*document.accounts.kept_why, *document.accounts.settings_why) for layer in left.layers}
    listed = {cell for row in Reader(report_text(document, "html")).rows for part in row for cell in part.split(", ")}
    assert document.ladders
    for ladder in document.ladders:
        layers = [place.name for place in ladder.base.places if place.role is Role.LAYER]
        assert set(layers) <= said
        assert {shown(layer) for layer in layers} <= listed


def shown(name):
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def test_the_figures_of_a_page_are_those_of_the_json():
    document = result_document(result("merged"))
    written = json.loads(document.json_text())
    rows = {row[0]: row for row in reversed(Reader(report_text(document, "html")).rows)}
    assert {score["arm"] for score in written["scores"]} >= {"base", "merged", "ensemble"}
    for score in written["scores"]:
        row = rows[score["arm"]]
        assert (row[1], row[3]) == (f"{score['loss']:.4f}", f"{score['metric']:.4f}")
    md = report_text(document, "md")
    for score in written["scores"]:
        assert f"{score['loss']:.4f}" in md
    assert unescape(written["verdict"]["text"]) in " ".join(Reader(report_text(document, "html")).texts)


def test_the_row_of_the_result_stands_out():
    page, md = (report_text(result_document(result("merged")), kind) for kind in ("html", "md"))
    assert "<tr class=result><td>merged</td>" in page
    assert re.search(r"^\| \*\*merged\*\* \| \*\*\d", md, re.M)


# --- hostile names ------------------------------------------------------------------------------------------------


def test_hostile_names_are_text_in_a_page():
    page = report_text(result_document(result("hostile")), "html")
    assert HOSTILE[:20] not in page
    assert "<img" not in page
    assert "alert(1)" in "".join(Reader(page).texts)
    assert "\u202e" not in page
    assert "\x07" not in page


def test_hostile_names_are_text_in_markdown():
    page = report_text(result_document(result("hostile")), "md")
    assert not re.search(r"(?<!\\)<", page)
    assert not re.search(r"(?<!\\)`", page)
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


# --- what is in it ------------------------------------------------------------------------------------------------


def test_a_picture_says_what_was_merged_and_why_layers_were_kept():
    one, two = result_document(result("merged")).ladders
    assert [rung.units.lam for rung in one.rungs if rung.units] == [0.3] * 3
    assert all(0 < rung.units.matched <= 1 for rung in one.rungs if rung.units)
    assert all(rung.units.heat.size <= 64 for rung in one.rungs if rung.units)
    alone = [place for place in two.base.places if place.role is Role.LAYER and place.note]
    assert len(alone) == 1
    assert all(group.deviation is not None for group in one.base.groups if group.state == "verified")


def test_a_union_shows_how_its_models_correspond_though_nothing_was_aligned():
    (ladder,) = result_document(result("union")).ladders
    assert [rung.units for rung in ladder.rungs] == [None, None]


def test_a_sweep_marks_lambda_star_and_the_barrier():
    page = report_text(result_document(result("sweep")), "html")
    assert "λ* " in page
    assert re.search(r">barrier \d\.\d{4}<", page)


def test_a_report_says_with_what_it_was_made(document):
    assert document.versions["mal-graph"] == version()
    assert {"python", "numpy", "onnxruntime"} <= set(document.versions)
    page = " ".join(Reader(report_text(document, "html")).texts)
    assert "mal-graph 'x y'" in page
    assert "0" * 64 in page


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_document_has_a_published_form(name):
    schema = schema_of(name)
    assert schema["properties"]["schema"]["default"].startswith(f"mal-graph/{name}/")


def test_a_result_writes_its_report(tmp_path):
    for kind in KINDS:
        result("merged").save_report(tmp_path / f"a.{kind}")
    assert rendered((tmp_path / "a.json").read_text("utf-8"), "html") == (tmp_path / "a.html").read_text("utf-8")
    with pytest.raises(FileError, match="it exists"):
        result("merged").save_report(tmp_path / "a.md")
    with pytest.raises(UsageError, match="not written as 'pdf': choose one of json, html, md"):
        result("merged").save_report(tmp_path / "a.pdf")


# --- what is no report --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a.json is no report: it is not JSON"),
        ("[" * 100_000, "a.json is no report: it is not JSON"),
        ("[1]", "its `schema` does not say so"),
        ('{"schema": 3}', "its `schema` does not say so"),
        ('{"schema": "other/1"}', "its `schema` does not say so"),
        (
            '{"schema": "mal-graph/assemble/4"}',
            r"a 'mal-graph/assemble/4', and pages are made of mal-graph/assemble/\d",
        ),
        ('{"schema": "mal-graph/match/1"}', "a 'mal-graph/match/1', and pages are made of"),
    ],
)
def test_what_is_no_report_is_refused_in_a_sentence(text, told):
    with pytest.raises(FileError, match=told):
        read_report(text, "a.json")


@pytest.mark.parametrize("form", FORMS)
def test_a_report_without_what_it_should_hold_is_refused_with_the_place(form):
    with pytest.raises(FileError, match=rf"a.json is a damaged {form}: \w+: Field required"):
        read_report(json.dumps({"schema": form}), "a.json")
