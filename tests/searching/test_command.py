"""`mal-graph search`: what it writes, and what it refuses before any work."""

import json
import re

import numpy as np
import pytest
from cli_runs import Ran, contents

from mal_graph.cli import app

FAST = ("--no-verify", "--no-compare", "--in-process", "--quiet")


@pytest.fixture
def run(capfd, small_zoo, tmp_path, monkeypatch):
    """Runs `mal-graph search` on the small zoo, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def go(*words, donors=(small_zoo.donors,), data=small_zoo.data):
        given = ["search", small_zoo.base, *donors, "--data", data, *words]
        return Ran(app.main([*map(str, given), *FAST]), *capfd.readouterr())

    return go


def test_a_search_writes_a_model_a_report_a_picture_and_its_study(run, tmp_path):
    files = ("-o", "out.onnx", "--report", "r.json", "--plot", "p.svg")
    ran = run(*files, "--trials", 9, "--format", "json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert (told["schema"], told["output"], told["study"]) == ("mal-graph/search/1", "out.onnx", "out.onnx.search")
    assert len(told["trials"]) == 9
    assert {check["name"] for check in told["checks"]} >= {"as_searched", "onnx_checker", "onnxruntime"}
    assert {path.name for path in tmp_path.iterdir()} == {"out.onnx", "r.json", "p.svg", "out.onnx.search"}
    first = (tmp_path / "out.onnx").read_bytes()
    again = run("-o", "out.onnx", "--trials", 9, "--force", "--resume", "--format", "json")
    assert again.code == 0, again.err
    assert (tmp_path / "out.onnx").read_bytes() == first
    assert again.json["trials"] == told["trials"]


def test_where_nothing_passes_no_model_is_written(run, small_zoo, tmp_path):
    held = dict(np.load(small_zoo.data))
    held["labels"] = np.random.default_rng(0).integers(0, 5, len(held["labels"]))  # there is nothing to gain
    np.savez(tmp_path / "random.npz", **held)
    ran = run("-o", "out.onnx", "--trials", 4, data=tmp_path / "random.npz")
    assert ran.code == 1
    assert "no candidate passed the gate" in ran.err
    assert "nothing that was found is better than the base" in ran.out
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("words", "donors", "match"),
    [
        (["--plot", "p.gif"], None, r"its name must end in \.svg or \.png"),
        (["--report", "r.txt"], None, r"its name must end in \.json, \.html or \.md"),
        (["-o", "x.txt"], None, r"a merged model is an \.onnx file"),
        (["--search", "greedyy"], None, r"--search is 'greedyy': did you mean greedy\?"),
        (["--method", "slerp"], None, "--method is slerp, and a search looks for the weights of models"),
        (["--resume"], None, r"cannot go on with the study in .*\.search: there is no such folder; leave --resume out"),
        ([], ["none"], "there is no file none: name a folder of models, or files"),
        ([], [".", "x.onnx"], r"\. is a folder, and more is named: name one folder, or files"),
        ([], ["."], r"the zoo \. holds no \.onnx file"),
        (["--workers", "0"], None, r"--workers is '0': give 1 or more, up to 10000"),
        (["--confidence", "1"], None, r"--confidence is '1': give a number from 0\.5, less than 1"),
        (["--prune", "0.2"], None, r"--prune is '0\.2': give a number from 0\.5 to 1"),
        (["--storage", "mysql://me:secret@127.0.0.1:1/x"], None, r"cannot use mysql://127\.0\.0\.1:1/x as the storage"),
    ],
)
def test_bad_words_are_one_sentence_and_nothing_is_written(run, small_zoo, tmp_path, words, donors, match):
    before = contents(tmp_path)
    ran = run(*words, donors=donors or [small_zoo.donors])
    assert (ran.code, ran.out) == (app.BAD_INPUT, ""), ran
    assert re.fullmatch(r"error: [^\n]+\n", ran.err), ran.err
    assert re.search(match, ran.err), ran.err
    assert contents(tmp_path) == before


def test_a_search_that_is_refused_by_its_donors_leaves_nothing(run, small_zoo, tmp_path):
    ran = run("-o", "out.onnx", donors=(small_zoo.base,))
    assert ran.code == 2
    assert re.fullmatch("error: none of 1 donors can be merged into .*: it is the same model as the base\n", ran.err)
    assert not list(tmp_path.iterdir())


def test_the_schema_of_the_report_is_published():
    from mal_graph.reporting import schema_of

    assert json.dumps(schema_of("search"))
