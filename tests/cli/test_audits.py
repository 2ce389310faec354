"""`mal-graph audit` and `card` as a user meets them, and what a command does about files that change under it."""

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import mlp, save
from cli_runs import contents

from mal_graph import source_files
from mal_graph.cli import app, assembling
from mal_graph.cli.output import LogLines
from mal_graph.workflows import models, writing

MERGE = ("assemble", "base.onnx", "donor.onnx", "--lambda", "0.3", "--no-verify", "--no-compare", "-q")


def noted(path, **notes):
    """A model with notes on itself."""
    proto = onnx.load(path)
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.save(proto, path)


@pytest.fixture
def merged(run, folder):
    noted("base.onnx", license="CC-BY-4.0", author="A. Nobody")
    noted("donor.onnx", licence="MIT\nand [more](http://x)")
    assert run(*MERGE, "-o", "m.onnx", "--data", "data.npz", "--report", "m.json").code == 0
    return folder / "m.onnx"


def test_an_audit_says_what_it_shows_and_what_not(run, merged):
    ran = run("audit", "m.onnx")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^check written: passed: graph, notes and 6 tensors have the digests", ran.out, re.MULTILINE)
    assert "note: this shows that the file is as it was written, not where it came from" in ran.out
    assert "option lam: 0.3" not in ran.out  # it is the default


def test_an_audit_with_the_models_makes_it_again(run, merged):
    ran = run("audit", "m.onnx", "--from", "base.onnx", "donor.onnx", "--data", "data.npz", "--format", "json")
    assert ran.code == 0, ran
    assert [(check["name"], check["passed"]) for check in ran.json["checks"]] == [
        ("written", True),
        ("inputs", True),
        ("repeated", True),
    ]
    digests = [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("base.onnx", "donor.onnx")]
    assert [source["files"] for source in ran.json["made"]["sources"]] == [[digest] for digest in digests]
    ran = run("audit", "m.onnx", "--from", "base.onnx", "donor.onnx")
    assert (ran.code, "check repeated: not run: it was made with --data: give these arrays too" in ran.out) == (0, True)


def test_a_damaged_model_fails_the_audit_and_has_no_card(run, merged):
    content = bytearray(merged.read_bytes())
    content[content.index(onnx.load(merged).graph.initializer[0].raw_data) + 7] ^= 16
    merged.write_bytes(content)
    ran = run("audit", "m.onnx")
    assert ran.code == app.GATE_FAILED
    assert "check written: failed: tensor 'w0' is not as it was written" in ran.out
    assert re.fullmatch(r"error: m\.onnx does not pass: written failed: tensor 'w0' .*\n", ran.err)
    ran = run("card", "m.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(
        r"error: m\.onnx has no card: written failed: .*; take the file that mal-graph wrote\n", ran.err
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["audit", "base.onnx"], "it has no seal, so `mal-graph` did not write it as it is"),
        (["audit", "none.onnx"], "cannot load none.onnx: no such file"),
        (["audit", "base.onnx", "donor.onnx"], "donor.onnx stands behind the model: write --from before"),
        (["audit", "base.onnx", "--from"], "--from is given without models"),
        (["card", "base.onnx"], "it has no seal"),
        (["card", "base.onnx", "-o", "card.txt"], "its name must end in .md"),
        (["card", "base.onnx", "-o", "base.onnx"], "it is one of the inputs"),
        (["card", "base.onnx", "--report", "data.npz"], "cannot read data.npz"),
    ],
)
def test_an_audit_that_makes_no_sense_is_refused(refused, words, told):
    refused(*words, match=re.escape(told))


def test_as_many_models_are_to_be_given_as_it_was_made_of(run, merged):
    ran = run("audit", "m.onnx", "--from", "base.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert "m.onnx was made of 2 models, and 1 are given" in ran.err


def test_a_card_says_sources_licences_method_scores_and_limits(run, merged):
    ran = run("card", "m.onnx", "--report", "m.json", "-o", "card.md")
    assert (ran.code, ran.out, ran.err) == (0, "", "wrote card.md\n")
    card = Path("card.md").read_text()
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == [
        "The file",
        "Sources and licences",
        "Method",
        "Scores",
        "Limits",
    ]
    assert hashlib.sha256(merged.read_bytes()).hexdigest() in card
    assert "| CC-BY-4.0 | author: A. Nobody |" in card
    assert r"MIT and \[more\](http://x)" in card  # a text and no link
    assert "plain average" in card
    report = json.loads(Path("m.json").read_text())
    assert report["written"] == {"m.onnx": hashlib.sha256(merged.read_bytes()).hexdigest()}
    assert report["sha256"]["data.npz"] == hashlib.sha256(Path("data.npz").read_bytes()).hexdigest()
    report["written"]["m.onnx"] = "0" * 64
    Path("other.json").write_text(json.dumps(report))
    told = run("card", "m.onnx", "--report", "other.json").err
    assert "the report is not of m.onnx: it names no file of this digest" in told


@pytest.mark.parametrize("name", ["base.onnx", "donor.onnx", "data.npz", "calib.npz", "w.bin"])
def test_an_input_that_is_replaced_during_the_run_is_told_and_nothing_is_written(run, folder, monkeypatch, name):
    np.savez(folder / "calib.npz", x=np.load("data.npz")["x"])
    model = onnx.load("donor.onnx")
    onnx.save(model, "donor.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    digests, before = assembling.digests_of, contents(folder)

    def replaced_before(*given):
        Path("new").write_bytes(Path(name).read_bytes())
        os.replace("new", name)
        return digests(*given)

    monkeypatch.setattr(assembling, "digests_of", replaced_before)
    ran = run(*MERGE, "--data", "data.npz", "--calibrate", "calib.npz", "-o", "m.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(rf"error: \S*{name} is not what it was when the run began: it was replaced .*\n", ran.err)
    assert contents(folder) == before


def test_an_input_that_is_replaced_while_the_model_is_written_is_told(run, folder, monkeypatch):
    with_origin = writing.with_origin

    def replace(result):
        made = with_origin(result)
        Path("new").write_bytes(Path("base.onnx").read_bytes())
        os.replace("new", "base.onnx")
        return made

    monkeypatch.setattr(writing, "with_origin", replace)
    ran = run(*MERGE, "-o", "m.onnx")
    assert (ran.code, Path("m.onnx").exists()) == (2, False)
    assert "base.onnx is not what it was when the run began" in ran.err


def test_a_file_that_appears_during_the_run_is_not_overwritten(run, folder, monkeypatch):
    sha256 = source_files.SourceFile.sha256

    def appear(file):
        Path("m.onnx").write_text("mine")
        return sha256(file)

    monkeypatch.setattr(source_files.SourceFile, "sha256", appear)
    ran = run(*MERGE, "-o", "m.onnx")
    assert (ran.code, Path("m.onnx").read_text()) == (2, "mine")
    assert "cannot write m.onnx: it was not there when the run began, and is now; use --force" in ran.err


STOPPED = """
import sys, time
from pathlib import Path
from mal_graph.cli import app
from mal_graph.cli.output import LogLines
from mal_graph_adapters.onnx_format import file

def wait(*given):
    Path(given[1]).write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)

file.write_model = wait
sys.exit(app.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_command_that_is_asked_to_end_leaves_no_draft(folder):
    before = contents(folder)
    command = [sys.executable, "-c", STOPPED, *MERGE, "-o", "m.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as writer:
        assert writer.stdout.readline() == "begun\n"
        time.sleep(0.1)
        writer.send_signal(signal.SIGTERM)
        told = writer.stderr.read()
    assert (writer.returncode, told) == (app.INTERRUPTED, "interrupted: no file is left half written\n")
    assert contents(folder) == before


HOSTILE = "a\x1b[31m\ncheck onnxruntime: passed\r\u202e=1"


@pytest.mark.parametrize("words", [("inspect", "-v"), ("match", "-v"), ("assemble", "-v"), ("diagram",)])
def test_no_name_reaches_a_terminal_as_it_is_or_forges_a_line(run, folder, words):
    proto = onnx.load(save(mlp((8, 6, 5)), folder / "odd.onnx"))
    for node in proto.graph.node:
        node.name = f"{HOSTILE}{node.name}"
    names = {tensor.name: f"{HOSTILE}{tensor.name}" for tensor in proto.graph.initializer}
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(proto, "odd.onnx")
    verb, *options = words
    donors = ["odd.onnx"] * (verb in ("match", "assemble"))
    more = ["--lambda", "0.3", "-o", "m.onnx"] if verb == "assemble" else []
    ran = run(verb, "odd.onnx", *donors, *options, *more)
    assert ran.code == 0, ran
    for text in (ran.out, ran.err):
        assert text.replace("\n", "").isprintable()
        assert not any(line.startswith("check onnxruntime: passed\\") for line in text.split("\n"))
        assert text.count("\ncheck onnxruntime: passed") == (verb == "assemble" and text is ran.out)


def test_what_other_packages_log_and_warn_of_is_told_in_one_clean_line(run, folder, monkeypatch):
    load, arrays_of = models.load, models.arrays_of

    def noisy(model):
        logging.getLogger("onnx_ir.somewhere").warning("value %s is odd", HOSTILE)
        logging.getLogger("onnx_ir.somewhere").info("nothing")
        return load(model)

    def noisy_arrays(data):
        warnings.warn(f"so is {HOSTILE}", UserWarning, stacklevel=1)
        return arrays_of(data)

    monkeypatch.setattr(models, "load", noisy)
    monkeypatch.setattr("mal_graph.workflows.arrays_of", noisy_arrays)
    for more, count in ((), 0), (("-v",), 1):
        ran = run("evaluate", "base.onnx", "--data", "data.npz", *more)
        assert ran.code == 0
        assert ran.err.count("warning of onnx_ir.somewhere: value a\\u001b[31m check onnxruntime") == count
        assert ran.err.count("warning of py.warnings: ") == count
        assert ran.err.replace("\n", "").isprintable()
    assert not any(isinstance(handler, LogLines) for handler in logging.getLogger().handlers)
