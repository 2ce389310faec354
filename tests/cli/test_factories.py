"""Models on the command line: files and modules stand in for each other everywhere."""

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import mal_graph
from mal_graph import registry
from mal_graph.cli import app
from mal_graph.cli.factories import built_models, is_factory
from mal_graph.config import MergeConfig
from mal_graph.errors import UsageError
from mal_graph.workflows.models import open_models

pytestmark = pytest.mark.torch

SOURCE = """
import torch
from torch import nn

def made(units, seed, normed=False):
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(units) if normed else nn.Identity()
    return nn.Sequential(nn.Linear(5, units), norm, nn.ReLU(), nn.Linear(units, 3)).eval()

def base():
    return made(6, 0)

def donor():
    return made(8, 1)

def training():
    return made(6, 2, normed=True).train()

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 3)
    def forward(self, left, right):
        return self.inner(left) - right

def named():
    return Named()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    (tmp_path / "their.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "their", raising=False)
    their = __import__("their")
    for name in ("base", "donor"):
        mal_graph.save(mal_graph.trace(getattr(their, name)(), torch.zeros(2, 5)), tmp_path / f"{name}.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((12, 5)), labels=rng.integers(0, 3, 12))
    return tmp_path


@pytest.fixture
def run(capfd):
    def call(*words):
        code = app.main([*words])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("package.module:factory", True),
        ("m:f", True),
        ("models/m.onnx", False),
        ("m.onnx", False),
        ("m:1", False),
        (":f", False),
        ("m:f:g", False),
    ],
)
def test_a_factory_is_told_from_a_path(text, is_one):
    assert is_factory(text) == is_one


def test_a_file_of_that_name_is_a_file(folder):
    (folder / "their:base").write_bytes((folder / "base.onnx").read_bytes())
    assert not is_factory("their:base")


@pytest.mark.parametrize("base", ["base.onnx", "their:base"])
@pytest.mark.parametrize("donor", ["donor.onnx", "their:donor"])
def test_files_and_modules_merge_alike(run, folder, base, donor):
    code, out, err = run(
        "assemble", base, donor, "-o", "m.onnx", "--data", "data.npz", "--report", "r.json", "--method", "mal"
    )
    assert (code, err) == (0, "")
    assert "wrote m.onnx" in out
    report = json.loads((folder / "r.json").read_text())
    read = {name for name in (base, donor, "data.npz") if ".onnx" in name or ".npz" in name}
    assert (report["base"], set(report["sha256"])) == (base, read)
    x = np.ones((4, 5), np.float32)
    plain = mal_graph.assemble(
        *(mal_graph.load(folder / f"{name}.onnx") for name in ("base", "donor")), method="mal"
    ).graph
    found = [
        next(iter(registry.runner().open(g).run({g.inputs[0].name: x}).values()))
        for g in (plain, mal_graph.load(folder / "m.onnx"))
    ]
    np.testing.assert_array_equal(*found)


def test_the_result_may_be_the_weights_of_the_module(run, folder):
    code, out, _ = run("assemble", "their:base", "donor.onnx", "-o", "m.safetensors", "--lambda", "0.5")
    assert (code, "check safetensors: passed" in out) == (0, True)
    code, out, _ = run("evaluate", "their:base", "--weights", "m.safetensors", "--data", "data.npz", "--format", "json")
    assert code == 0
    assert run("assemble", "their:base", "donor.onnx", "-o", "m.onnx", "--lambda", "0.5")[0] == 0
    _, merged, _ = run("evaluate", "m.onnx", "--data", "data.npz", "--format", "json")
    losses = [json.loads(text)["scores"][0]["loss"] for text in (out, merged)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_weights_of_a_module_are_audited_alone_and_with_the_models(run, folder):
    assert run("assemble", "their:base", "donor.onnx", "-o", "m.safetensors", "--lambda", "0.5", "--no-verify")[0] == 0
    code, out, err = run("audit", "m.safetensors")
    assert (code, err) == (0, "")
    assert "check written: passed" in out
    code, out, err = run("audit", "m.safetensors", "--from", "their:base", "donor.onnx", "--format", "json")
    assert (code, err) == (0, "")
    assert [check["passed"] for check in json.loads(out)["checks"]] == [True, True, True]
    code, out, _ = run("audit", "m.safetensors", "--from", "their:donor", "donor.onnx", "--format", "json")
    assert [check["passed"] for check in json.loads(out)["checks"]] == [True, False]


SHARDED = ("assemble", "their:base", "donor.onnx", "-o", "m.safetensors", "--lambda", "0.5", "--shard-size")


def test_weights_in_several_files_are_written_audited_and_read_as_base_and_as_donor(run, folder):
    code, out, err = run(*SHARDED, "130", "--report", "r.json")
    assert (code, err) == (0, "")
    names = {f"m-{number:05}-of-00002.safetensors" for number in (1, 2)} | {"m.safetensors.index.json"}
    assert {path.name for path in folder.glob("m[-.]*")} == names
    assert set(json.loads((folder / "r.json").read_text())["written"]) == names
    for path in ("m.safetensors", "m.safetensors.index.json"):
        code, out, err = run("audit", path, "--from", "their:base", "donor.onnx", "--format", "json")
        assert (code, err) == (0, "")
        assert [check["passed"] for check in json.loads(out)["checks"]] == [True, True, True]
        code, out, _ = run("evaluate", "their:base", "--weights", path, "--data", "data.npz", "--format", "json")
        assert code == 0
    again = (
        "assemble",
        "their:base",
        "their:base",
        "--weights",
        "m.safetensors.index.json",
        "--weights",
        "m.safetensors",
    )
    code, out, err = run(
        *again, "--lambda", "0.5", "-o", "n.safetensors", "--input-shape", "x:2,5", "--shard-size", "1GB"
    )
    assert (code, err) == (0, "")
    words = (
        *again,
        "--lambda",
        "0.5",
        "-o",
        "n.safetensors",
        "--input-shape",
        "x:2,5",
        "--force",
        "--report",
        "s.json",
    )
    assert run(*words)[0] == 0
    assert set(json.loads((folder / "s.json").read_text())["sha256"]) == names
    before, after = (registry.tracer().build("their:base", Path(name)) for name in ("m.safetensors", "n.safetensors"))
    assert all((old == new).all() for old, new in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*SHARDED, "100"), r"--shard-size is 100 bytes, and weight '0.weight' of .* alone takes 120: give at least"),
        (
            (*SHARDED, "130"),
            r"cannot write m.safetensors: m.safetensors.index.json exists, which goes with it; use --fo",
        ),
        (
            (*SHARDED[:-1],),
            r"cannot write m.safetensors: m.safetensors.index.json exists, which goes with it; use --fo",
        ),
        (
            (*SHARDED, "130", "--force", "--weights", "m.safetensors.index.json"),
            r"cannot write m.safetensors: m.safetensors.index.json, which goes with it, is one of the inputs; name",
        ),
    ],
)
def test_files_that_cannot_be_written_are_told_in_one_sentence(run, folder, words, told):
    if "100" not in words:
        (folder / "m.safetensors.index.json").write_text("{}")
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: {told}[^\n]*\n", err), err
    assert not list(folder.glob("m-*"))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_in_one_sentence(run, folder, number):
    state = registry.tracer().build("their:base").state_dict()
    state["0.weight"][:1] = number
    import_module("safetensors.torch").save_file(state, folder / "w.safetensors")
    words = ("assemble", "their:base", "donor.onnx", "--weights", "w.safetensors", "--lambda", "0.3", "-o", "m.onnx")
    code, _, err = run(*words, "--no-verify")
    assert code == 2
    assert re.search(r"^error: [^\n]*not finite[^\n]*\n$", err, re.MULTILINE), err
    assert not (folder / "m.onnx").exists()


def test_a_module_is_inspected_and_matched(run, folder):
    code, out, _ = run("inspect", "their:base", "--input-shape", "input:2,5")
    assert (code, "verified" in out) == (0, True)
    code, out, _ = run("match", "their:base", "donor.onnx")
    assert (code, "2 pairs" in out) == (0, True)


def test_training_mode_is_said_on_one_line(run, folder):
    code, _, err = run("match", "their:training", "their:base", "--input-shape", "x:2,5")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("warning: Sequential is in training mode")


def test_inputs_go_to_arguments_of_their_name(folder):
    arrays = {"right": np.zeros((2, 3), np.float32), "left": np.zeros((2, 5), np.float32)}
    (graph,) = open_models(built_models(["their:named"], []), MergeConfig(inputs=arrays))
    assert [value.shape for value in graph.inputs] == [("batch", 5), ("batch", 3)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "their:base"], "cannot trace their:base without inputs: give their shapes with --input-shape"),
        (["inspect", "their:none", "--input-shape", "x:2,5"], "cannot build their:none: their has no 'none'"),
        (["inspect", "nothing:base", "--input-shape", "x:2,5"], "importing nothing failed"),
        (["inspect", "their:base", "--input-shape", "x:2,7"], "does not run on the example inputs ((2, 7))"),
        (["inspect", "base.onnx", "--weights", "w.pt"], "--weights is given 1 times for 0 modules"),
        (["inspect", "their:base", "--weights", "w.pt", "--input-shape", "x:2,5"], "cannot read the weights in w.pt"),
        (
            ["assemble", "base.onnx", "their:donor", "-o", "m.safetensors", "--method", "mal"],
            "base.onnx was not traced from a torch",
        ),
        (["match", "their:base", "none.onnx"], "none.onnx"),
    ],
)
def test_bad_input_is_one_sentence(run, folder, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (folder / "m.safetensors").exists()


def test_more_weights_than_modules_are_refused(folder):
    with pytest.raises(UsageError, match="given 1 times for 0 modules"):
        built_models(["base.onnx"], ["w.safetensors"])
