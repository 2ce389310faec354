"""mal_graph as a Python user sees it: what is public, what it takes, what it shows, what it refuses."""

import importlib
import inspect
import pkgutil
import typing

import numpy as np
import onnx
import pytest
from builders import Net, mlp, save

import mal_graph
from mal_graph.errors import DataError, FileError, GateFailed, UsageError

NOUNS = [
    "AxisGroup",
    "AxisGroups",
    "Alignment",
    "Assembly",
    "LayerGraph",
    "Layer",
    "Match",
    "LayerPair",
    "Plan",
    "Check",
]
NOUNS += [
    "Network",
    "Correspondence",
    "LayerLambdas",
    "Grid",
    "MergeConfig",
    "Scores",
    "Sweep",
    "SweepConfig",
    "Verdict",
    "Zoo",
    "ZooConfig",
    "MalGraphError",
]
STEPS = ["load", "trace", "axis_groups", "verify", "match_layers", "align", "assemble", "sweep", "grid", "zoo"]
STEPS += ["build_network", "correspond", "assign_units", "plan_merge", "merge"]
STEPS += ["evaluate", "save", "to_module", "state_dict"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(mlp((8, 16, 5), seed=0), tmp_path / "base.onnx")
    save(mlp((8, 12, 5), seed=1), tmp_path / "donor.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(40, 8)).astype(np.float32), labels=rng.integers(0, 5, 40))
    return tmp_path


@pytest.mark.parametrize("name", [*NOUNS, *STEPS])
def test_every_noun_and_step_is_public_and_says_what_it_is(name):
    assert name in mal_graph.__all__
    assert inspect.getdoc(getattr(mal_graph, name))


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_typed(name):
    function = inspect.unwrap(getattr(mal_graph, name))
    hints = typing.get_type_hints(function)
    assert "return" in hints
    assert {p for p in inspect.signature(function, follow_wrapped=True).parameters} - hints.keys() <= {
        *mal_graph.MergeConfig.model_fields,
        *mal_graph.SweepConfig.model_fields,
        *mal_graph.ZooConfig.model_fields,
    }


def test_no_function_hides_a_module():
    """`import a.b` binds the module b, and not a function of that name that `a` offers."""
    for package in (mal_graph, *packages()):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            assert inspect.ismodule(getattr(package, found.name)), f"{package.__name__}.{found.name}"
            assert getattr(package, found.name) is module


def packages():
    for found in pkgutil.iter_modules(mal_graph.__path__):
        if found.ispkg:
            yield importlib.import_module(f"mal_graph.{found.name}")


@pytest.fixture(scope="module")
def nouns():
    base, donor = mlp((8, 16, 12, 5), seed=0), mlp((8, 12, 14, 5), seed=1)
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    data = {"x": x, "labels": np.arange(60) % 5}
    result = mal_graph.assemble(base, donor, data=data, method="mal")
    (step,) = result.merged
    return [
        base,
        result,
        step,
        step.plan,
        step.plan.alignment,
        step.match,
        step.match.pairs[0],
        step.match.pairs[0].base,
        step.groups,
        step.groups.groups[0],
        result.checks[0],
        result.scores[0],
        result.verdict,
        mal_graph.sweep(base, donor, data, lambdas=[0.5], verify=False),
        mal_graph.grid(base, donor, data, verify=False),
        mal_graph.zoo(base, [donor], data, eps=1.0, controls=0, verify=False),
        mal_graph.MergeConfig(calibrate=data),
    ]


def test_every_noun_shows_itself_on_one_line(nouns):
    for noun in nouns:
        shown = repr(noun)
        assert "\n" not in shown
        assert len(shown) <= 300, shown
        assert shown.startswith(type(noun).__name__)


def test_a_result_is_a_summary_a_dictionary_and_a_file(folder):
    result = mal_graph.assemble("base.onnx", "donor.onnx", data="data.npz", width="grow")
    lines = result.summary().splitlines()
    assert lines[-1].startswith("verdict: ")
    assert result.to_dict()["schema"] == "mal-graph/assemble/5"
    written = result.save("merged.onnx")
    assert [check.name for check in written.checks][-2:] == ["onnx_checker", "onnxruntime"]
    assert written.passed
    onnx.checker.check_model("merged.onnx")


def test_nothing_is_overwritten_unless_it_is_asked_for(folder):
    result = mal_graph.assemble("base.onnx", "donor.onnx", verify=False, method="mal")
    (folder / "mine.onnx").write_text("mine")
    for writes in (result.save, lambda path, **more: mal_graph.save(result.graph, path, **more)):
        with pytest.raises(
            FileError, match=r"cannot write mine\.onnx: it exists; give another path, or overwrite=True"
        ):
            writes("mine.onnx")
        assert (folder / "mine.onnx").read_text() == "mine"
    result.save("mine.onnx", overwrite=True)
    assert mal_graph.load("mine.onnx").nodes


def test_a_result_that_fails_a_check_is_not_saved(folder, monkeypatch):
    monkeypatch.setattr("mal_graph.workflows.steps.self_check", lambda *rest: 0.5)
    result = mal_graph.assemble("base.onnx", "donor.onnx", method="mal")
    assert not result.passed
    with pytest.raises(
        GateFailed, match=r"merged\.onnx is not written: self_check failed: the donor's outputs move by"
    ):
        result.save("merged.onnx")
    assert not (folder / "merged.onnx").exists()


def test_documents_graphs_and_paths_give_the_same(folder):
    proto, path = onnx.load("base.onnx"), folder / "donor.onnx"
    mixed = mal_graph.assemble(proto, path, verify=False, method="mal")
    plain = mal_graph.assemble(mal_graph.load("base.onnx"), "donor.onnx", verify=False, method="mal")
    for name, weight in plain.graph.weights.items():
        assert np.array_equal(mixed.graph.weights[name].read(), weight.read())
    mixed.save("mixed.onnx")
    assert mal_graph.load(proto).name == proto.graph.name


def test_arrays_may_be_given_as_a_path_everywhere(folder):
    arrays = dict(np.load("data.npz"))
    by_path = mal_graph.sweep("base.onnx", "donor.onnx", "data.npz", lambdas=[0.5], calibrate="data.npz", verify=False)
    by_name = mal_graph.sweep("base.onnx", "donor.onnx", arrays, lambdas=[0.5], calibrate=arrays, verify=False)
    assert by_path.curves[0].points == by_name.curves[0].points


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: mal_graph.assemble("base.onnx", 3, method="mal"),
            FileError,
            "cannot load a int: no adapter takes it; give the path",
        ),
        (lambda: mal_graph.assemble("base.onnx", [], method="mal"), UsageError, "no donor given"),
        (lambda: mal_graph.assemble("base.onnx", "none.onnx", method="mal"), FileError, "none.onnx"),
        (
            lambda: mal_graph.assemble("base.onnx", "donor.onnx", data="none.npz", method="mal"),
            (FileError, DataError),
            "none.npz",
        ),
        (
            lambda: mal_graph.assemble("base.onnx", "donor.onnx", config=3, method="mal"),
            UsageError,
            "is a int: give a MergeConfig",
        ),
        (lambda: mal_graph.assemble("base.onnx", "donor.onnx", lam="x"), UsageError, "`lam` 'x' is no merging factor"),
        (
            lambda: mal_graph.assemble("base.onnx", ["donor.onnx"] * 2, matches=[("a", "b")]),
            UsageError,
            "a pair list belongs to one donor",
        ),
    ],
)
def test_bad_input_is_one_sentence(folder, call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_parsed_document_that_is_unsound_is_refused():
    proto = Net().proto("nothing")
    with pytest.raises(FileError):
        mal_graph.load(proto)


@pytest.mark.torch
def test_torch_modules_are_traced_where_models_are_given(folder):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    modules = [
        torch.nn.Sequential(torch.nn.Linear(8, n), torch.nn.ReLU(), torch.nn.Linear(n, 5)).eval() for n in (16, 12)
    ]
    result = mal_graph.assemble(*modules, data="data.npz", verify=False, method="mal")
    assert mal_graph.to_module(result.graph)(torch.zeros(2, 8)).shape == (2, 5)
    mixed = mal_graph.assemble("base.onnx", modules[1], verify=False, method="mal")  # traced on what the base takes
    assert mixed.merged[0].plan.steps
    with pytest.raises(
        UsageError, match="cannot trace Sequential without inputs: give their shapes with `input_shapes`"
    ):
        mal_graph.assemble(*modules, method="mal")


def test_the_steps_take_paths_and_documents_too(folder):
    graph = mal_graph.load("base.onnx")
    assert mal_graph.evaluate("base.onnx", "data.npz") == mal_graph.evaluate(graph, "data.npz")
    by_path = mal_graph.match_layers("base.onnx", onnx.load("donor.onnx"))
    assert [pair.score for pair in by_path.pairs] == [
        pair.score for pair in mal_graph.match_layers(graph, "donor.onnx").pairs
    ]
    names = [group.name for group in mal_graph.axis_groups("base.onnx").groups]
    assert names == [group.name for group in mal_graph.build_network(graph, verified=False).groups.groups]
