"""A zoo of torch modules: a traced base and traced donors decide, stop, go on and come back as files do."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mal_graph
from mal_graph import registry
from mal_graph.cli import app
from mal_graph.errors import FileError, ShapeError
from mal_graph.evaluation.holdout import halve
from mal_graph.network import SampleAxes
from mal_graph.workflows import write_result

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.torch

SOURCE = """
import torch
from torch import nn

def plain(units):
    return nn.Sequential(nn.Linear(5, units), nn.ReLU(), nn.Linear(units, 8), nn.ReLU(), nn.Linear(8, 3))

def normed(units):
    return nn.Sequential(
        nn.Conv2d(1, units, 3, bias=False), nn.BatchNorm2d(units), nn.ReLU(), nn.Flatten(), nn.Linear(9 * units, 3)
    )

def made(kind, units=7, seed=0, noise=0.0):
    torch.manual_seed(7)
    module = kind(units).eval()
    for value in module.parameters():
        if value.ndim > 1:
            nn.init.kaiming_normal_(value)
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value += noise * max(float(value.std()), 0.1) * torch.randn_like(value)
    return module

def base(kind=plain):
    return made(kind, seed=100, noise=0.6)

def normed_base():
    return base(normed)

def donors(kind=plain):
    return [made(kind, seed=200, noise=0.1), made(kind, 11, seed=201), made(kind, seed=202, noise=0.1)]

def other():
    return made(plain, seed=101, noise=0.6)

def bare():
    module = base()
    module[0].bias = None
    return module

def no_module():
    return 3
"""
SHAPES = {"plain": (5,), "normed": (1, 5, 5)}


@pytest.fixture
def their(tmp_path, monkeypatch):
    """A package with factories, as a user has them; it is imported anew in every test."""
    (tmp_path / "their.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their", raising=False)
    yield __import__("their")
    sys.modules.pop("their", None)


def samples(kind="plain", count=120, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *SHAPES[kind])).astype(np.float32)


def data_of(their, kind="plain"):
    """Inputs, and the classes that the module gives them of which base and donors are noisy copies."""
    x = samples(kind)
    with torch.no_grad():
        return {"x": x, "labels": their.made(getattr(their, kind))(torch.from_numpy(x)).argmax(1).numpy()}


def traced(module, name="", kind="plain"):
    graph = mal_graph.trace(module, torch.from_numpy(samples(kind, 2)))
    return graph.named(name) if name else graph


def family(their, kind="plain"):
    """Base and donors, traced anew."""
    made = getattr(their, kind)
    return traced(their.base(made), "base", kind), [
        traced(donor, f"donor {i}", kind) for i, donor in enumerate(their.donors(made))
    ]


def said(graph, x):
    return registry.runner().open(graph).run({graph.inputs[0].name: x})[graph.outputs[0].name]


# --- in Python ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"calibrate": {"x": samples(seed=5)}, "match_by": "both"}, {"width": "grow"}],
    ids=["merged", "repaired", "grown"],
)
def test_modules_and_their_files_are_searched_alike(their, tmp_path, options):
    base, donors = family(their)
    data, options = data_of(their), {"controls": 1, **options}
    found = mal_graph.zoo(base, donors, data, **options)
    assert "accepted" in [outcome.verdict for outcome in found.outcomes]
    for graph in (base, *donors):
        mal_graph.save(graph, tmp_path / f"{graph.name}.onnx")
    files = [mal_graph.load(tmp_path / f"{graph.name}.onnx").named(graph.name) for graph in (base, *donors)]
    other = mal_graph.zoo(files[0], files[1:], data, **options)
    assert [(one.donor, one.verdict) for one in other.outcomes] == [(one.donor, one.verdict) for one in found.outcomes]
    x = samples(seed=3)
    np.testing.assert_allclose(said(other.assembly.graph, x), said(found.assembly.graph, x), rtol=1e-4, atol=1e-5)
    mixed = mal_graph.zoo(base, [files[1], donors[1], files[3]], data, **options)
    assert [one.verdict for one in mixed.outcomes] == [one.verdict for one in found.outcomes]


@pytest.mark.parametrize(("kind", "is_repaired"), [("plain", False), ("normed", False), ("normed", True)])
def test_the_result_goes_back_into_the_class_it_came_from(their, kind, is_repaired):
    base, donors = family(their, kind)
    calibrate = {"x": samples(kind, seed=5)} if is_repaired else None
    found = mal_graph.zoo(base, donors, data_of(their, kind), eps=1.0, calibrate=calibrate, controls=0)
    assert found.assembly.merged
    module = their.base(getattr(their, kind))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(mal_graph.state_dict(found.assembly.graph))
    assert not all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    x = samples(kind, seed=3)
    for one in (module.eval(), mal_graph.to_module(found.assembly.graph)):
        with torch.no_grad():
            np.testing.assert_allclose(one(torch.from_numpy(x)), said(found.assembly.graph, x), rtol=1e-4, atol=1e-5)


class Stop(Exception):
    pass


def stop_at(count):
    def report(what, done, total):
        if (what, done) == ("donors", count):
            raise Stop

    return report


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("is_repaired", [False, True])
def test_a_search_of_modules_that_are_traced_anew_goes_on_to_the_same_bytes(their, tmp_path, kind, is_repaired):
    options = {"controls": 1, "calibrate": {"x": samples(kind, seed=5)} if is_repaired else None}
    data = data_of(their, kind)
    whole = mal_graph.zoo(*family(their, kind), data, **options)
    state = tmp_path / "state.json"
    with pytest.raises(Stop):
        mal_graph.zoo(*family(their, kind), data, checkpoint=state, progress=stop_at(2), **options)
    assert len(json.loads(state.read_text())["outcomes"]) == 2
    again = mal_graph.zoo(*family(their, kind), data, checkpoint=state, **options)
    assert again.outcomes == whole.outcomes
    for found, name in ((whole, "whole"), (again, "again")):
        for kind_of_file in ("onnx", "safetensors"):
            assert write_result(found.assembly, tmp_path / f"{name}.{kind_of_file}").passed
    for kind_of_file in ("onnx", "safetensors"):
        written = [(tmp_path / f"{name}.{kind_of_file}").read_bytes() for name in ("whole", "again")]
        assert written[0] == written[1]


def test_a_donor_that_was_not_traced_is_traced_on_the_data(their):
    base, donors = family(their)
    found = mal_graph.zoo(base, [their.base(), 3, donors[0]], data_of(their), controls=0)
    assert (found.outcomes[0].donor, found.outcomes[0].reason) == ("Sequential", "the same model as the base")
    assert (found.outcomes[1].donor, found.outcomes[1].verdict) == ("int", "skipped")
    assert found.outcomes[1].reason.endswith("or a torch module (mal_graph.trace)")
    assert found.outcomes[2].verdict == "accepted"


def test_a_module_with_other_weights_does_not_go_on(their, tmp_path):
    base, donors = family(their)
    given = {"checkpoint": tmp_path / "s.json", "controls": 0}
    mal_graph.zoo(base, donors[:1], data_of(their), **given)
    with pytest.raises(FileError, match="its base is not the one given"):
        mal_graph.zoo(traced(their.other(), "base"), donors[:1], data_of(their), **given)


def test_a_result_with_biases_that_the_class_lacks_is_no_state_of_it(their):
    base, donors = traced(their.bare(), "bare"), family(their)[1]
    found = mal_graph.zoo(base, donors, data_of(their), eps=1.0)
    assert found.assembly.graph.inserted
    with pytest.raises(ShapeError, match="for which its class has no parameter"):
        mal_graph.state_dict(found.assembly.graph)
    x = samples(seed=3)
    with torch.no_grad():
        values = mal_graph.to_module(found.assembly.graph)(torch.from_numpy(x))
    np.testing.assert_allclose(values, said(found.assembly.graph, x), rtol=1e-4, atol=1e-5)


# --- on the command line -----------------------------------------------------------------------------------------


@pytest.fixture
def run(capfd):
    def call(*words):
        code = app.main([*words])
        found = capfd.readouterr()
        return code, found.out, found.err

    return call


@pytest.fixture
def folder(their, tmp_path):
    """Beside the factories a folder of donors, data and calibration inputs."""
    (tmp_path / "zoo").mkdir()
    for i, donor in enumerate(their.donors()):
        mal_graph.save(traced(donor), tmp_path / "zoo" / f"d{i}.onnx")
    np.savez(tmp_path / "data.npz", **data_of(their))
    np.savez(tmp_path / "some.npz", x=samples(seed=5))
    return tmp_path


ZOO = ("zoo", "their:base", "zoo", "--data", "data.npz")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--calibrate", "some.npz", "--match-by", "both")])
@pytest.mark.parametrize("target", ["out.onnx", "out.safetensors"])
def test_the_base_of_a_zoo_may_be_a_factory(run, folder, target, more):
    code, out, err = run(*ZOO, "-o", target, *more, "--report", "report.json")
    assert (code, err) == (0, "")
    assert f"wrote {target}" in out
    written = json.loads(Path("report.json").read_text())
    assert (written["base"], written["checkpoint"]) == ("their:base", f"{target}.zoo.json")
    assert "their:base" not in written["sha256"]
    model = (target,) if target.endswith("onnx") else ("their:base", "--weights", target)
    np.savez("held.npz", **halve(dict(np.load("data.npz")), 0, SampleAxes({}))[1])  # as the seed 0 halves it
    _, scores, _ = run("evaluate", *model, "--data", "held.npz", "--format", "json")
    (merged,) = (one["loss"] for one in written["scores"] if one["arm"] == "merged")
    assert json.loads(scores)["scores"][0]["loss"] == pytest.approx(merged, rel=1e-5)


@pytest.mark.slow
def test_a_zoo_of_a_factory_that_is_interrupted_goes_on(run, folder, monkeypatch):
    assert run(*ZOO, "-o", "whole.safetensors")[0] == 0
    module = sys.modules["mal_graph.workflows.zoo_search"]
    real = module.merge_step

    def interrupted(base, donor, *rest):
        if donor.name == "d2.onnx":
            raise KeyboardInterrupt
        return real(base, donor, *rest)

    monkeypatch.setattr(module, "merge_step", interrupted)
    assert run(*ZOO, "-o", "out.safetensors")[0] == app.INTERRUPTED
    monkeypatch.setattr(module, "merge_step", real)
    monkeypatch.delitem(sys.modules, "their")  # as in a new process
    assert run(*ZOO, "-o", "out.safetensors")[0] == 0
    names = [("whole.safetensors", "out.safetensors"), ("whole.safetensors.zoo.json", "out.safetensors.zoo.json")]
    for whole, again in names:
        assert Path(whole).read_bytes() == Path(again).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zoo", "their:nothing", "zoo", "--data", "data.npz"), "cannot build their:nothing: their has no 'nothing'"),
        (("zoo", "their:no_module", "zoo", "--data", "data.npz"), "it gave a int; it must give a torch.nn.Module"),
        (("zoo", "their:base", "zoo"), "cannot trace their:base without inputs: give their shapes with --input-shape"),
        ((*ZOO, "--weights", "none.safetensors"), "cannot read the weights in none.safetensors"),
        (("zoo", "zoo/d0.onnx", "zoo", "--data", "data.npz", "-o", "m.safetensors"), "was not traced from a torch"),
    ],
)
def test_bad_input_is_one_sentence(run, folder, words, message):
    code, _, err = run(*words)
    assert code == 2
    assert (err.startswith("error: "), err.count("\n")) == (True, 1)
    assert message in err
    assert not list(folder.glob("*.safetensors"))
