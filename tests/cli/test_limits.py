"""Models that crash, hang or take too much are refused in one sentence by every command, and a search goes on."""

import json

import pytest
from builders import mlp, save
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


def test_a_job_that_does_not_fit_ends_with_the_numbers_before_anything_is_run(refused, folder, monkeypatch):
    """32 bytes for every two units: 1,600 units on 1,600 do not fit into 64 MiB."""
    monkeypatch.setattr("mal_graph.workflows.steps.probe", lambda *_, **__: pytest.fail("a model was run"))
    for seed, name in enumerate(("base.onnx", "donor.onnx")):
        save(mlp((8, 1600, 5), seed), folder / name)
    says = r"or at least 79 MiB \(79 MiB for tables of scores.*may take 64 MiB: give more with --max-memory"
    words = ("assemble", "base.onnx", "donor.onnx", "--method", "mal", "-o", "out.onnx")
    refused(*words, "--max-memory", "64MiB", match=says)


def test_data_files_smaller_than_a_weight_are_refused_before_anything_is_run(refused, folder):
    words = ("assemble", "base.onnx", "donor.onnx", "-o", "out.onnx", "--shard-size")
    refused(
        *words, "700", match=r"--shard-size is 700 bytes, and weight '.*' of base.onnx alone takes 768: give at least"
    )
    refused(*words, "0", match=r"--shard-size is 0: give a size of 1 byte or more")
    refused(*words, "much", match=r"--shard-size 'much' is no size: write a number of bytes, or 500MB, or 8GiB")
