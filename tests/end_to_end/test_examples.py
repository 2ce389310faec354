"""What the READMEs and the pages tell a reader to type works as it stands."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from mal_graph.cli import app

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "01_first_merge"
MODULES = ROOT / "examples" / "02_torch_fx"


def blocks(path, language):
    """The fenced blocks of a Markdown file."""
    if not path.exists():
        return []
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(text):
    """The mal-graph commands of a shell block, comments left out."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words and words[0] == "mal-graph"]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]
SHELL = [told for block in blocks(EXAMPLE / "README.md", "sh") if (told := commands(block))]
USE = [
    pytest.param(told, id=f"{page.stem}-{told[-1][1]}")
    for page in PAGES
    for block in blocks(page, "sh")
    if "cd examples/01_first_merge" in block and (told := commands(block))
]
PYTHON = [pytest.param(block, id=page.stem) for page in PAGES for block in blocks(page, "python")]
PLAIN = [block for block in PYTHON if "import torch" not in block.values[0]]
TORCH = [block for block in PYTHON if "import torch" in block.values[0]]


FILES = [
    *(f"{kind}_{half}.onnx" for kind in ("mlp", "twin", "tuned", "cnn") for half in "ab"),
    "tuned_from.onnx",
    "recipe.yaml",
    "data.npz",
    "calib.npz",
]  # what the repository holds, whatever a reader's commands left beside it


@pytest.fixture
def examples(tmp_path):
    """A copy of the folder of the examples, as it is in a fresh checkout."""
    for folder, names in ((EXAMPLE, FILES), (MODULES, ["merge_modules.py"])):
        (tmp_path / folder.name).mkdir()
        for name in names:
            shutil.copy(folder / name, tmp_path / folder.name)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def copied(examples, monkeypatch):
    """A copy of the first example's folder, and the current folder."""
    monkeypatch.chdir(examples / EXAMPLE.name)
    return examples / EXAMPLE.name


def test_the_example_has_commands():
    assert {words[1] for told in SHELL for words in told} == {"inspect", "match", "assemble", "evaluate"}


@pytest.mark.parametrize("told", SHELL, ids=lambda told: told[0][-1])
def test_the_commands_of_the_example_run_and_merge(told, copied, capfd):
    for words in told:
        before = {path: path.read_bytes() for path in copied.iterdir()}
        assert app.main(words[1:]) == 0, words
        out, err = capfd.readouterr()
        assert out
        assert err == ""
        assert all(path.read_bytes() == content for path, content in before.items())
        if words[1] == "assemble":
            base, merged = words[2], words[words.index("-o") + 1]
            assert is_changed(base, merged, np.load("data.npz")["image"])
    assert leaves_no_trace(copied)


def leaves_no_trace(copied):
    """Whether a checkout is as clean as it was: what commands write goes to a folder that git ignores."""
    return {path.name for path in copied.iterdir()} == set(FILES)


def is_changed(base, merged, images):
    """Whether the merged file runs, and answers otherwise than the base."""
    answers = [ort.InferenceSession(path).run(None, {"image": images})[0] for path in (base, merged)]
    assert np.isfinite(answers[1]).all()
    return not np.allclose(*answers, atol=1e-3)  # far above rounding: less counts as the same answer


@pytest.mark.parametrize("told", USE)
def test_the_commands_of_the_pages_run(told, copied, capfd):
    for words in told:
        assert app.main(words[1:]) == 0, words
        assert re.fullmatch(r"(wrote \.\./out/\S+\n)?", capfd.readouterr().err)
    assert leaves_no_trace(copied)


def test_the_output_in_the_readme_is_what_the_command_prints(copied, capfd):
    (command,), (shown,) = USE[0].values[0], blocks(ROOT / "README.md", "text")
    assert app.main(command[1:]) == 0
    printed = capfd.readouterr().out
    for a, b in zip(printed.split(), shown.split(), strict=False):  # the verdict comes after what is shown
        assert a == b or float(a) == pytest.approx(float(b), abs=2e-3)


@pytest.mark.parametrize("block", PLAIN)
def test_the_python_of_the_pages_runs(block, copied, capfd):
    exec(compile(block, "a page", "exec"), {})
    out, err = capfd.readouterr()
    assert out
    assert err == ""
    assert leaves_no_trace(copied)
    for path in (copied.parent / "out").iterdir():
        assert np.isfinite(ort.InferenceSession(path).run(None, {"image": np.load("data.npz")["image"]})[0]).all()


@pytest.mark.torch
@pytest.mark.parametrize("block", TORCH)
def test_the_torch_of_the_pages_runs(block, copied, capfd):
    pytest.importorskip("torch")
    exec(compile(block, "a page", "exec"), {})
    assert "GraphModule" in capfd.readouterr().out
    assert ort.InferenceSession("../out/merged_module.onnx").get_inputs()[0].shape == ["batch", 8]


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 6 * 1024


def test_the_example_is_small():
    assert sum((EXAMPLE / name).stat().st_size for name in FILES) < 2_000_000


@pytest.mark.slow
@pytest.mark.torch
def test_the_example_of_modules_runs(examples, monkeypatch, capfd):
    pytest.importorskip("torch")
    monkeypatch.chdir(examples / MODULES.name)
    for block in blocks(MODULES / "README.md", "sh"):
        for words in (shlex.split(line) for line in block.splitlines()):
            if words[0] == "python":
                done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
                assert re.search(r"^merged, as its class +accuracy 0\.\d+$", done.stdout, re.M)
                assert len(re.findall(r"corresponds to", done.stdout)) == 3
            else:
                assert app.main(words[1:]) == 0, words
                out, err = capfd.readouterr()
                assert out
                assert err == ""
    images = np.load("../out/data.npz")["image"]
    assert ort.InferenceSession("../out/again.onnx").run(None, {"image": images})[0].shape == (500, 10)


PAPER = ROOT / "examples" / "03_paper_experiments"


@pytest.fixture
def experiments(monkeypatch):
    """The experiments, on networks that are hardly trained."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(PAPER))
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    found = import_module("experiments")
    monkeypatch.setattr(found, "LAMBDAS", (0.0, 0.3, 0.5, 1.0))
    monkeypatch.setattr(found, "COARSE", (0.0, 0.3, 1.0))
    monkeypatch.setattr(found, "SMALL_GAP_SHAPES", ((16, 8), (12, 8)))
    monkeypatch.setattr(import_module("train_paper_models"), "MOST_EPOCHS", 2)
    return found


@pytest.mark.slow
@pytest.mark.torch
def test_every_experiment_runs_on_the_digits(experiments, tmp_path, capsys):
    words = ["--data", "digits", "--models", str(tmp_path / "models"), "--out", str(tmp_path / "report")]
    assert experiments.main(["all", *words]) == 0
    told = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", told, re.M) == [found.title for found in experiments.EXPERIMENTS.values()]
    for arm in ("aligned", "plain average", "random permutation", "random donor"):
        assert f"| {arm} |" in told
    trained = sorted((tmp_path / "models").iterdir())
    stamps = [path.stat().st_mtime_ns for path in trained]
    assert experiments.main(["narrow_donor", *words]) == 0
    assert [path.stat().st_mtime_ns for path in trained] == stamps  # what is there is not trained again


@pytest.mark.torch
def test_missing_data_are_named(experiments, tmp_path):
    with pytest.raises(SystemExit, match=r"train-images-idx3-ubyte, packed as \.gz or not"):
        experiments.main(["narrow_donor", "--data", str(tmp_path), "--models", str(tmp_path)])
