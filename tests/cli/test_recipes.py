"""Recipes and methods on the command line."""

import json

import numpy as np
import pytest
from builders import mlp

import mal_graph
from mal_graph.methods import all_methods


def test_the_recipe_of_a_run_gives_the_same_file_again(run, folder):
    (folder / "sub").mkdir()
    words = ("assemble", "base.onnx", "donor.onnx", "--method", "ties", "--ancestor", "base.onnx", "--no-compare")
    given = ("--set", "density=0.5", "--set", "1:weight=0.25,1", "--seed", 3, "--no-verify", "-q")
    ran = run(*words, *given, "-o", "one.onnx", "--save-recipe", "sub/r.yaml", "--report", "one.json")
    assert (ran.code, ran.err) == (0, "")
    assert "model: ../donor.onnx" in (folder / "sub/r.yaml").read_text()
    ran = run("merge", "sub/r.yaml", "-o", "two.onnx", "-q", "--report", "two.json")
    assert (ran.code, ran.err) == (0, "")
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()
    configs = [json.loads((folder / name).read_text())["config"] for name in ("one.json", "two.json")]
    assert configs[0] == configs[1]
    assert configs[0]["parameters"] == ["density=0.5", "1:weight=0.25,1.0"]
    ran = run("merge", "sub/r.yaml", "-o", "three.onnx", "-q", "--set", "density=1", "--report", "three.json")
    assert json.loads((folder / "three.json").read_text())["config"]["parameters"][-1] == "density=1.0"
    assert run("audit", "two.onnx", "--from", "base.onnx", "donor.onnx").code == 0


def test_an_audit_knows_the_ancestor(run, folder):
    base = mal_graph.load(folder / "base.onnx")
    old = {name: np.float32(0.9) * weight.read() for name, weight in base.weights.items()}
    mal_graph.save(base.with_weights(old), folder / "old.onnx")
    words = (
        "--method",
        "task_arithmetic",
        "--ancestor",
        "old.onnx",
        "--no-verify",
        "--no-compare",
        "-o",
        "m.onnx",
        "-q",
    )
    assert run("assemble", "base.onnx", "donor.onnx", *words).code == 0
    ran = run("audit", "m.onnx", "--from", "base.onnx", "donor.onnx", "old.onnx")
    assert ran.code == 0
    assert "ancestor: " in ran.out
    ran = run("audit", "m.onnx", "--from", "base.onnx", "donor.onnx")
    assert (ran.code, "in order, and the ancestor behind them" in ran.err) == (2, True)
    ran = run("audit", "m.onnx", "--from", "base.onnx", "donor.onnx", "other.onnx")
    assert "other.onnx is not the model that was the ancestor" in ran.err


def test_inputs_of_each_model_go_into_the_recipe_and_the_seal(run, folder, refused):
    base, rng = mal_graph.load(folder / "base.onnx"), np.random.default_rng(0)
    (value,) = base.inputs
    for name in ("one", "two"):
        shape = (20, *(length if isinstance(length, int) else 1 for length in value.shape[1:]))
        np.savez(folder / f"{name}.npz", **{value.name: rng.normal(size=shape).astype(np.float32)})
    each = ("--calibrate-of", "one.npz", "--calibrate-of", "two.npz")
    words = ("assemble", "base.onnx", "donor.onnx", "--method", "regmean", "--no-compare", "--no-verify", "-q")
    assert run(*words, *each, "-o", "one.onnx", "--save-recipe", "r.yaml").code == 0
    assert run("merge", "r.yaml", "-o", "two.onnx", "-q").code == 0
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()
    ran = run("audit", "one.onnx", "--from", "base.onnx", "donor.onnx")
    assert "it was made with `calibrate_of`: give these arrays too" in ran.out.replace(
        "--calibrate-of", "`calibrate_of`"
    )
    assert run("audit", "one.onnx", "--from", "base.onnx", "donor.onnx", *each).code == 0
    ran = run("audit", "one.onnx", "--from", "base.onnx", "donor.onnx", *each[:3], "one.npz")
    assert ran.code == 1
    refused(*words, "--calibrate-of", "one.npz", match="--calibrate-of is given 1 times for 2 models")
    refused(*words, "--calibrate-of", "lost.npz", "--calibrate-of", "one.npz", match="no data file at lost.npz")


RECIPE = "merge_method: linear\nmodels: [{model: base.onnx}, {model: donor.onnx}]\n"


@pytest.mark.parametrize(
    ("text", "words", "match"),
    [
        (RECIPE, ("-o", "r.yaml"), "cannot write r.yaml: it is one of the inputs"),
        (
            f"{RECIPE}dtype: float16",
            (),
            "dtype is 'float16', and base.onnx holds float32, as the result does: leave it",
        ),
        (f"{RECIPE}parameters: {{weight: 0}}", (), "--set the weights sum to zero"),
        (RECIPE, ("--set", "wait=1"), "linear has no parameter 'wait'"),
        (RECIPE, ("--method", "ties"), "ties merges what models have learned since they parted: give --ancestor"),
        (RECIPE.replace("donor", "lost"), (), "r.yaml names a file that is not there: lost.onnx"),
    ],
)
def test_a_recipe_that_cannot_be_done_is_refused(refused, folder, text, words, match):
    (folder / "r.yaml").write_text(text)
    refused("merge", "r.yaml", *words, "--no-verify", "-q", match=match)


def test_what_a_method_needs_is_said_before_anything_is_loaded(refused):
    words = ("assemble", "base.onnx", "donor.onnx", "other.onnx", "--method")
    refused(*words, "slerp", match="slerp merges 2 models")
    refused(*words, "ties", match="give --ancestor, the model that all were tuned from")
    refused(*words, "tise", match=r"--method is 'tise': did you mean ties\?")
    refused(*words, "linear", "--save-recipe", "r.txt", match="its name must end in .yaml")
    refused("assemble", "os:getcwd", "donor.onnx", "--save-recipe", "r.yaml", match="it names files alone")


def test_methods_are_listed_with_all_that_is_said_of_them(run):
    listed = run("methods")
    assert listed.code == 0
    held = run("methods", "--format", "json").json["methods"]
    for method, entry in zip(all_methods(), held, strict=True):
        assert method.name in listed.out
        alone = run("methods", method.name).out
        said = [method.summary, method.source or "published nowhere", *method.deviations, *method.parameters]
        assert all(text in alone for text in said)
        assert [one["name"] for one in entry["parameters"]] == list(method.parameters)
        assert method.source or method.deviations, f"{method.name} says neither where it is published nor what it is"


def test_a_method_that_there_is_not_is_refused(refused):
    refused("methods", "magic", match="no merge method is called 'magic': choose one of adamerging")


def test_a_recipe_of_slices_stacks_blocks(run, refused, folder):
    for seed in range(2):
        mal_graph.save(mlp((4, 6, 6, 6, 3), seed), folder / f"deep{seed}.onnx")
    slices = [{"sources": [{"model": f"deep{seed}.onnx", "layer_range": [seed, 2]}]} for seed in range(2)]
    (folder / "s.yaml").write_text(json.dumps({"merge_method": "passthrough", "slices": slices, "dtype": "float32"}))
    ran = run("merge", "s.yaml", "-o", "stacked.onnx", "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    assert [(one["model"], one["first"], one["stop"], one["of"]) for one in ran.json["slices"]] == [
        ("deep0.onnx", 0, 2, 2),
        ("deep1.onnx", 1, 2, 2),
    ]
    text = run("merge", "s.yaml", "-o", "stacked.onnx", "--force", "--report", "s.json").out
    assert run("report", "s.json", "-o", "s.md").code == 0
    assert run("merge", "s.yaml", "-o", "again.onnx", "--report", "s.html").code == 0
    for name in ("s.md", "s.html"):
        page = (folder / name).read_text()
        assert all(word in page for word in ("3 blocks", "deep0.onnx", "deep1.onnx", "What was stacked", "SHA-256"))
    assert "3 blocks, " in text
    assert "check onnxruntime: passed" in text
    assert run("merge", "s.yaml", "-o", "none.onnx", "--dry-run").code == 0
    assert not (folder / "none.onnx").exists()
    recipe = mal_graph.read_recipe(folder / "s.yaml")
    (folder / "again.yaml").write_text(recipe.text(folder))
    assert mal_graph.read_recipe(folder / "again.yaml") == recipe
    refused("merge", "s.yaml", "-o", "deep0.onnx", "--force", match="cannot write deep0.onnx: it is one of the inputs")
    refused("merge", "s.yaml", "--seed", "3", match="s.yaml stacks slices, which takes none of these flags")
    (folder / "s.yaml").write_text(
        json.dumps({"merge_method": "passthrough", "slices": slices[:1], "dtype": "float16"})
    )
    refused("merge", "s.yaml", match="dtype is 'float16', and deep0.onnx holds float32")


def test_stacked_blocks_go_to_files_of_a_size(run, refused, folder):
    for seed in range(2):
        mal_graph.save(mlp((4, 10, 10, 10, 3), seed), folder / f"deep{seed}.onnx")
    slices = [{"sources": [{"model": f"deep{seed}.onnx", "layer_range": [seed, 2]}]} for seed in range(2)]
    (folder / "s.yaml").write_text(json.dumps({"merge_method": "passthrough", "slices": slices}))
    too_small = r"--shard-size is 399 bytes, and weight '.*' of deep0.onnx alone takes 400: give at least as many"
    refused("merge", "s.yaml", "-o", "out.onnx", "--shard-size", "399", match=too_small)
    assert run("merge", "s.yaml", "-o", "out.onnx", "--shard-size", "500", "--resume").code == 0
    files = list(folder.glob("out.onnx.*.data"))
    assert [file.stat().st_size for file in files] == [400] * 3
    audited = run("audit", "out.onnx", "--from", "deep0.onnx", "deep1.onnx", "--format", "json")
    assert [check["passed"] for check in audited.json["checks"]] == [True] * 3, audited.json["checks"]


def test_a_recipe_of_mergekit_is_read_with_the_files_of_its_models(run, refused, folder):
    (folder / "sub").mkdir()
    models = [{"model": name, "parameters": {"weight": 1, "density": 1}} for name in ("org/one", "org/two")]
    text = {"merge_method": "ties", "base_model": "org/old", "models": models, "parameters": {"int8_mask": False}}
    (folder / "sub/m.yml").write_text(json.dumps(text))
    files = [f"org/{name}={path}.onnx" for name, path in (("one", "other"), ("two", "donor"), ("old", "base"))]
    words = ("merge", "sub/m.yml", "--from-mergekit", *(word for file in files for word in ("--model", file)))
    ran = run(*words, "--no-verify", "--no-compare", "-q", "-o", "m.onnx")
    assert (ran.code, ran.err) == (0, "")
    assert (folder / "m.onnx").exists()
    refused(
        *words[:-2], match="'org/old' is no ONNX file: export that model, and name its file with --model org/old=FILE"
    )
    refused("merge", "sub/m.yml", "--model", files[0], match="--model is for recipes of mergekit: give --from-mergekit")
    refused(*words, "--model", "x", match="--model 'x' names no file: write NAME=FILE")
