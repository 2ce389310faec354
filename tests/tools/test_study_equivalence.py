"""The figures of the equivalence study, on made-up cases and on a few real ones."""

import json
import sys

from scripts import TOOLS

EXAMPLES = TOOLS.parent / "examples" / "01_first_merge"
HOW = {"family": "", "rewrite": "", "alone": False}


def row(seed, verdict, *, alone=True, rewrite="opset", message=""):
    made = {"seed": seed, "family": "mlp", "rewrite": rewrite, "rewrites": {rewrite: "donor", "names_changed": "base"}}
    return {**made, "alone": alone, "verdict": verdict, "deviation": {"0.5": 0.2}, "reasons": [], "message": message}


def test_every_failure_is_kept_with_what_draws_it_again(study):
    rows = [row(5, "right"), row(6, "wrong"), row(7, "breaks", message="ValueError: oh")]
    made = study.document(rows, 5, HOW, 1.0)
    assert (made["cases"], made["seeds"], made["drawn"]) == (3, [5, 8], HOW)
    assert [failure["seed"] for failure in made["failures"]] == [6, 7]
    assert made["rewrites"] == {"opset": {"right": 1, "wrong": 1, "breaks": 1}}


def test_the_table_tells_cases_alone_from_all(study):
    made = study.document([row(5, "right"), row(6, "wrong", alone=False), row(7, "wrong")], 5, HOW, 1.0)
    line = next(line for line in study.text(made).splitlines() if line.startswith("| opset |"))
    assert line == "| opset | 3 | 1 |  |  | 2 |  |  | 1 of 2 |"


def test_a_failure_is_named_by_a_case_in_which_the_rewrite_stands_alone(study):
    made = study.document([row(5, "wrong", alone=False), row(9, "wrong")], 5, HOW, 1.0)
    assert "* opset, wrong: seed 9 (mlp): deviates by {'0.5': 0.2}" in study.text(made)
    made = study.document([row(5, "wrong", alone=False)], 5, HOW, 1.0)
    assert "seed 5 (mlp, with names_changed)" in study.text(made)


def test_a_short_run_writes_what_it_found(study, tmp_path, monkeypatch, capsys):
    path = tmp_path / "found.json"
    arguments = ["--cases", "2", "--rewrite", "units_permuted", "--family", "mlp", "--alone", "-o", str(path)]
    monkeypatch.setattr(sys, "argv", ["study_equivalence.py", *arguments])
    assert study.main() == 0
    made = json.loads(path.read_text(encoding="utf-8"))
    assert (made["verdicts"], made["failures"]) == ({"right": 2}, [])
    assert "2 of 2 in" in capsys.readouterr().err


def test_given_files_are_studied_beside_their_copies(study, tmp_path, monkeypatch, capsys):
    (tmp_path / "mlp_a.onnx").write_bytes((EXAMPLES / "mlp_a.onnx").read_bytes())
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    monkeypatch.setattr(sys, "argv", ["study_equivalence.py", "--models", str(tmp_path)])
    assert study.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("broken: not drawn: ")
    assert lines[1].startswith("mlp_a: right, 100% merged")


def test_one_case_is_shown_and_saved(study, tmp_path, monkeypatch, capsys):
    arguments = ["--case", "3", "--rewrite", "units_permuted", "--family", "mlp", "--alone", "--save", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["study_equivalence.py", *arguments])
    assert study.main() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"base.onnx", "donor.onnx"}
    assert "right: {0.3:" in capsys.readouterr().out
