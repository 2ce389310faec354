"""`mal-graph report`, and reports written by the other verbs."""

import json
import re

import numpy as np
import pytest
from builders import mlp, save

from mal_graph.cli import app


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two models, data and a report."""
    monkeypatch.chdir(tmp_path)
    save(mlp((8, 16, 12, 5), seed=0), tmp_path / "base.onnx")
    save(mlp((8, 12, 14, 5), seed=1), tmp_path / "donor.onnx")
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.normal(size=(40, 8)).astype(np.float32), labels=rng.integers(0, 5, 40))
    return tmp_path


@pytest.fixture
def run(capfd, folder):
    def go(*words):
        code = app.main(list(words))
        return code, *capfd.readouterr()

    return go


COMMANDS = {
    "assemble": ["assemble", "base.onnx", "donor.onnx", "--data", "data.npz", "--method", "mal", "--force", "--report"],
    "compress": ["compress", "base.onnx", "--budget", "0.6", "--force", "--report"],
    "sweep": ["sweep", "base.onnx", "donor.onnx", "--data", "data.npz", "--lambdas", "0.5", "--force", "--report"],
    "grid": ["sweep", "--grid", "base.onnx", "donor.onnx", "--data", "data.npz", "--force", "-o"],
}


def without_names(page):
    """A page without the name of its own file, which the command holds."""
    return page.replace("r.html", "r.json").replace("r.md", "r.json")


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("kind", ["html", "md"])
def test_a_report_rendered_again_is_what_the_verb_wrote(run, folder, verb, kind):
    assert run(*COMMANDS[verb], "r.json")[0] == 0
    assert run(*COMMANDS[verb], f"r.{kind}")[0] == 0
    code, out, err = run("report", "r.json", "-o", f"again.{kind}")
    assert (code, out, err) == (0, "", f"wrote again.{kind}\n")
    written = (folder / f"r.{kind}").read_text("utf-8")
    assert without_names(written) == without_names((folder / f"again.{kind}").read_text("utf-8"))


def test_a_report_holds_the_command_that_made_it(run, folder):
    run(*COMMANDS["assemble"], "r.json")
    written = json.loads((folder / "r.json").read_text("utf-8"))
    assert written["command"] == ["mal-graph", *COMMANDS["assemble"], "r.json"]
    assert set(written["sha256"]) == {"base.onnx", "donor.onnx", "data.npz"}
    assert list(written)[-1] == "ladders"


def test_without_a_target_a_report_is_shown_as_the_verb_showed_it(run):
    _, shown, _ = run(*COMMANDS["assemble"], "r.json")
    assert run("report", "r.json") == (0, shown, "")
    code, out, _ = run("report", "r.json", "--format", "json")
    assert (code, json.loads(out)["schema"]) == (0, "mal-graph/assemble/5")


def test_the_form_of_a_document_is_printed(run):
    code, out, _ = run("report", "--schema", "zoo")
    assert (code, json.loads(out)["title"]) == (0, "ZooDocument")


def test_a_report_that_was_changed_by_hand_is_shown_or_refused_in_a_sentence(run, folder):
    run(*COMMANDS["assemble"], "r.json")
    whole = json.loads((folder / "r.json").read_text("utf-8"))
    rng = np.random.default_rng(0)
    places = [place for place in places_in(whole) if place]
    codes = set()
    for place in (places[index] for index in rng.integers(len(places), size=60)):
        changed = json.loads(json.dumps(whole))
        held = changed
        for key in place[:-1]:
            held = held[key]
        held[place[-1]] = [None, 10**6, "x", [], {}, 1e308][rng.integers(6)]
        (folder / "r.json").write_text(json.dumps(changed))
        code, _, err = run("report", "r.json", "-o", "r.html", "--force")
        codes.add(code)
        assert code == 0 or re.match("error: r.json is (a damaged|damaged|no report)", err), (place, err)
    assert codes == {0, 2}


def places_in(held, place=()):
    """Every place of a JSON document, as the keys that lead to it."""
    yield place
    for key, inner in held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ():
        yield from places_in(inner, (*place, key))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report"], "no report given: name a JSON file"),
        (["report", "none.json"], "cannot read none.json: No such file"),
        (["report", "base.onnx"], "cannot read base.onnx: 'utf-8' codec|is no report"),
        (["report", "list.json"], "list.json is no report of mal-graph"),
        (["report", "old.json"], "list.json|a 'mal-graph/assemble/4', and pages are made of"),
        (["report", "old.json", "-o", "a.html"], "a 'mal-graph/assemble/4', and pages are made of"),
        (["report", "old.json", "-o", "a.json"], r"its name must end in \.html or \.md"),
        (["report", "old.json", "-o", "old.json"], "it is one of the inputs"),
        (["report", "--schema", "nothing"], "there is no document 'nothing': choose one of assemble, "),
        (["report", "old.json", "--schema", "zoo"], "give it alone"),
        (["assemble", "base.onnx", "donor.onnx", "--report", "r.pdf"], r"must end in \.json, \.html or \.md"),
        (["compress", "base.onnx", "--report", "r"], r"must end in \.json, \.html or \.md"),
        (["zoo", "base.onnx", ".", "--report", "r.txt"], r"must end in \.json, \.html or \.md"),
        ([*COMMANDS["sweep"], "r.csv"], r"must end in \.json, \.html or \.md"),
        ([*COMMANDS["sweep"], "r.md", "-o", "r.md"], "cannot write the sweep and the report to one file"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(run, folder, words, told):
    (folder / "list.json").write_text("[]")
    (folder / "old.json").write_text('{"schema": "mal-graph/assemble/4"}')
    before = sorted(folder.iterdir())
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert re.search(told, err)
    assert sorted(folder.iterdir()) == before
