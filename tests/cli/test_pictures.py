"""Pictures on the command line: `match -o`, `diagram`, and what they refuse."""

import re
import webbrowser
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from builders import Net, cnn, save
from ladder.ladders import data_of

from mal_graph.cli.pictures import COLLAPSES
from mal_graph.ladder import Collapse, LadderEntry


def shown(path):
    """The data of a page."""
    return LadderEntry.model_validate(data_of(Path(path).read_text(encoding="utf-8"))["ladder"])


def test_a_match_is_drawn_in_the_form_that_the_name_ends_in(run, folder):
    pytest.importorskip("matplotlib")
    for kind, start in (("html", b"<!DOCTYPE html>"), ("svg", b"<svg"), ("png", b"\x89PNG")):
        ran = run("match", "base.onnx", "donor.onnx", "-o", f"pairs.{kind}")
        assert (ran.code, ran.err) == (0, f"wrote pairs.{kind}\n")
        assert "3 pairs" in ran.out
        assert Path(f"pairs.{kind}").read_bytes().startswith(start)
    texts = {element.text for element in ET.fromstring(Path("pairs.svg").read_text()).iter() if element.text}
    assert {"Gemm_0", "Gemm_2", "Gemm_4"} <= texts


def test_a_picture_knows_the_groups_and_with_align_the_units(run, folder):
    run("match", "base.onnx", "donor.onnx", "-o", "plain.html")
    plain = shown("plain.html")
    assert {group.state for group in plain.base.groups} == {"unverified", "pinned"}
    assert all(rung.units is None for rung in plain.rungs)
    run("match", "base.onnx", "donor.onnx", "--align", "-o", "aligned.html")
    aligned = shown("aligned.html")
    assert {group.state for group in aligned.base.groups} == {"verified", "pinned"}
    assert all(rung.units.heat is not None for rung in aligned.rungs)
    assert [rung.units.assigned for rung in aligned.rungs] == [12, 12, 5]


def test_json_beside_a_picture_goes_to_stdout(run, folder):
    ran = run("match", "base.onnx", "donor.onnx", "-o", "pairs.html", "--format", "json")
    assert len(ran.json["pairs"]) == len(shown("pairs.html").rungs) == 3


def test_model_explorer_is_a_format(run, folder):
    told = run("match", "base.onnx", "donor.onnx", "--format", "model-explorer").json
    assert [entry["leftNodeIds"][0] for entry in told["mappingEntries"]] == ["Gemm_0", "Gemm_2", "Gemm_4"]


def test_a_diagram_of_one_model_shows_its_groups(run, folder):
    ran = run("diagram", "base.onnx")
    assert (ran.code, ran.err) == (0, "wrote base.html\n")
    assert "Gemm_0" in ran.out
    page = shown("base.html")
    assert page.donor is None
    assert {group.state for group in page.base.groups} == {"verified", "pinned"}


def test_what_is_around_a_layer_is_drawn_alone(run, folder):
    run("match", "base.onnx", "donor.onnx", "-o", "near.html", "--focus", "Gemm_0", "--radius", "0")
    assert [place.name for place in shown("near.html").base.places] == ["Gemm_0"]


def test_repeated_blocks_are_folded_as_asked(run, folder):
    save(cnn((4, 4), blocks=3, seed=0), folder / "deep.onnx")
    pages = {}
    for collapse in ("none", "blocks", "modules"):
        run("diagram", "deep.onnx", "-o", f"{collapse}.html", "--collapse", collapse)
        pages[collapse] = Path(f"{collapse}.html").read_text().count('class="fold"')
    assert pages["none"] == 0
    assert pages["blocks"] > 0


def test_a_picture_is_opened_in_a_browser(run, folder, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert run("match", "base.onnx", "donor.onnx", "-o", "pairs.svg", "--open").code == 0
    assert opened == [(folder / "pairs.svg").as_uri()]
    ran = run("match", "base.onnx", "donor.onnx", "--open")
    assert ran.code == 0
    assert opened[1].endswith("picture.html")


def test_without_a_browser_the_file_is_named(run, folder, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    ran = run("diagram", "base.onnx", "-o", "base.svg", "--open")
    assert ran.code == 0
    assert "no browser could be started; open base.svg in one" in ran.err


def test_a_model_that_does_not_run_is_drawn_all_the_same(run, folder):
    net = Net(0)
    x = net.linear(net.input("x", ("N", 4)), 4, 6, "gemm")
    save(net.graph(net.op("Unheard", x, domain="of")), folder / "odd.onnx")
    for words in (("diagram", "odd.onnx"), ("match", "odd.onnx", "base.onnx", "-o", "odd.svg")):
        ran = run(*words)
        assert ran.code == 0
        assert re.match(r"warning: (odd.onnx: )?nothing can be said of its axes: onnxruntime refuses odd.onnx", ran.err)
    assert len(shown("odd.html").base.places) > 2


def test_the_ways_to_fold_are_those_of_the_ladder():
    assert list(Collapse) == list(COLLAPSES)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("match", "base.onnx", "donor.onnx", "-o", "a.html", "--focus", "Gem_0"), "did you mean 'Gemm_0'"),
        (("match", "base.onnx", "donor.onnx", "--focus", "Gemm_0"), "--focus is of a picture: name one with -o"),
        (("match", "base.onnx", "donor.onnx", "--align"), "--align is of a picture"),
        (("match", "base.onnx", "donor.onnx", "-o", "a.html", "--collapse", "all"), "choose one of none, blocks, mod"),
        (("match", "base.onnx", "donor.onnx", "-o", "a.html", "--explain", "Gemm_0"), "give it alone"),
        (("match", "base.onnx", "donor.onnx", "-o", "a.json", "--open"), "cannot open a.json as a picture"),
        (("match", "base.onnx", "donor.onnx", "-o", "a.pdf"), r"cannot tell what to write to a\.pdf"),
        (("match", "base.onnx", "donor.onnx", "-o", "pairs"), "or --format tell"),
        (("match", "base.onnx", "donor.onnx", "-o", "missing/a.html"), "there is no folder missing"),
        (("match", "base.onnx", "donor.onnx", "-o", "base.onnx"), "it is one of the inputs"),
        (("match", "base.onnx", "donor.onnx", "-o", "data.npz"), "it exists; use --force"),
        (("diagram", "base.onnx", "-o", "a.pdf"), r"its name must end in \.html, \.svg or \.png"),
        (("diagram", "base.onnx", "--focus", "nothing"), "no layer is called 'nothing'"),
        (("diagram", "missing.onnx"), "no such file"),
    ],
)
def test_bad_input_is_one_sentence(refused, words, match):
    refused(*words, match=match)


def test_a_png_without_its_extra_is_refused_before_any_work(refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    refused(
        "match", "base.onnx", "donor.onnx", "-o", "a.png", match=r"pip install 'mal-graph\[plot\]', or name an \.svg"
    )
