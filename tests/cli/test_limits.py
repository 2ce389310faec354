"""Models that crash, hang or take too much are refused in one sentence by every command, and a search goes on."""

import json

import pytest
from builders import save
from crafted.arithmetic import division_of_the_least_number
from crafted.sizes import computed_square, loop_of_computed_trips

from mal_graph.cli import app


@pytest.fixture
def folder(folder):
    save(division_of_the_least_number(), folder / "crash.onnx")
    save(loop_of_computed_trips(), folder / "hang.onnx")
    save(computed_square(), folder / "fill.onnx")
    return folder


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("hang", ("--timeout", "0.3"), "hang.onnx was not through after 0.3 seconds.*: give more with --timeout"),
        ("fill", (), r"cannot run fill.onnx: .* \(it may take 512 MiB: give more with --max-memory\)"),
        ("fill", ("--max-memory", "100MiB"), r"it may take 100 MiB: give more with --max-memory"),
    ],
)
def test_what_takes_too_much_is_refused(refused, name, words, reason):
    refused("inspect", f"{name}.onnx", *words, match=reason)


@pytest.mark.parametrize("verb", ["assemble", "evaluate", "sweep"])
def test_what_ends_its_process_is_refused(refused, verb):
    words = {
        "assemble": ("base.onnx", "crash.onnx", "-o", "out.onnx"),
        "evaluate": ("crash.onnx", "--data", "data.npz"),
        "sweep": ("base.onnx", "crash.onnx", "--data", "data.npz"),
    }[verb]
    refused(verb, *words, match=r"crash.onnx ended the process that ran it \(SIGFPE\): leave it out")


def test_a_zoo_goes_on_with_the_next_donor_and_remembers(run, folder):
    zoo = folder / "zoo"
    zoo.mkdir()
    for name in ("crash", "fill", "other"):
        (folder / f"{name}.onnx").rename(zoo / f"{name}.onnx")
    ran = run("zoo", "base.onnx", "zoo", "--data", "data.npz", "-o", "out.onnx", "--format", "json")
    assert ran.code in (app.GOOD, app.GATE_FAILED), ran.err
    reasons = {one["donor"]: (one["verdict"], one["reason"]) for one in json.loads(ran.out)["donors"]}
    assert "ended the process that ran it (SIGFPE)" in reasons["crash.onnx"][1]
    assert "it may take 512 MiB" in reasons["fill.onnx"][1]
    assert reasons["other.onnx"][0] in ("accepted", "refused")
    assert "SIGFPE" in (folder / "out.onnx.zoo.json").read_text()


@pytest.mark.parametrize("words", [("--timeout", "0"), ("--timeout", "nan"), ("--timeout", "soon")])
def test_a_time_that_is_none_is_refused(refused, words):
    refused("inspect", "base.onnx", *words, match="--timeout is .*: give a time of more than 0 seconds")


def test_files_that_are_trusted_run_in_this_process(run, folder, monkeypatch):
    monkeypatch.setattr("mal_graph_adapters.onnx_format.child.Process", None)
    assert run("inspect", "base.onnx", "--in-process").code == app.GOOD
