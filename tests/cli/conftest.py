"""The command line run in this process, in a folder with a base, two donors and labelled data."""

import re

import numpy as np
import pytest
from builders import mlp, save
from cli_runs import Ran, contents

from mal_graph.cli import app


@pytest.fixture
def run(capfd):
    """Runs the command line in this process; what the runtime itself writes to stderr is seen too."""

    def go(*words):
        code = app.main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return go


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a base, two donors and labelled data."""
    monkeypatch.chdir(tmp_path)
    save(mlp((8, 16, 12, 5), seed=0), tmp_path / "base.onnx")
    save(mlp((8, 12, 14, 5), seed=1), tmp_path / "donor.onnx")
    save(mlp((8, 16, 5), seed=2), tmp_path / "other.onnx")
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 5, 40)
    np.savez(tmp_path / "data.npz", x=images, labels=labels)
    return tmp_path


@pytest.fixture
def refused(run, folder):
    """Runs words that must be refused: exit 2, one sentence that fits the pattern, no file written or changed."""

    def go(*words, match):
        before = contents(folder)
        ran = run(*words)
        assert (ran.code, ran.out) == (app.BAD_INPUT, ""), ran
        assert re.fullmatch(r"error: [^\n]+\n", ran.err), ran.err
        assert app.BUG not in ran.err
        assert re.search(match, ran.err), ran.err
        assert contents(folder) == before
        return ran

    return go
