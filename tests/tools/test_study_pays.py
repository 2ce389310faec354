"""The study's figures and tables, on made-up results; one short real run where torch is installed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def module(monkeypatch):
    """A module of the study by name; its neighbours are found as they are for a script."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


@pytest.fixture
def tables(module):
    return module("pays_tables")


def row(arm, accuracy, *, count=0, budget=0.0, guard=None, cost=1.0, se=0.01):
    own = {"arm": arm, "count": count, "budget": budget, "lambda": 0.0, "accuracy": accuracy, "loss": 1 - accuracy}
    guards = {} if guard is None else dict.fromkeys(("guard", "guard_kl", "guard_shares", "guard_classes"), guard)
    return {**own, "accuracy_se": se, "loss_se": 0.01, "distance": 0.5, "cost": cost, **guards, "seconds": 0.0}


def result(*arms, seed=0, base=0.8, whole=0.9):
    """A pair with a base, an ensemble and these arms."""
    parents = [row("base", base, guard=1.0), row("donor", base), row("ensemble of logits", whole, guard=0.0, cost=2.0)]
    about = {"pair": "a pair", "family": "MLP", "kind": "disjoint", "seed": seed, "tested": 100, "seconds": 1}
    return {**about, "arms": [*parents, row("ensemble", whole), *arms], "missing": []}


def union(accuracy, guard, **more):
    return row("union", accuracy, budget=1.0, guard=guard, **more)


def test_closure_is_the_share_of_the_ensembles_gain(tables):
    one = result(union(0.85, 0.3))
    assert tables.closure(one, one["arms"][-1]) == pytest.approx(0.5)


def test_net_closure_is_above_the_best_control_of_the_same_inputs(tables):
    one = result(row("base, class biases", 0.82), row("base, head refitted", 0.84, count=200), union(0.85, 0.3))
    assert tables.net_closure(one, one["arms"][-1]) == pytest.approx(0.3)


def test_a_control_below_the_base_takes_off_nothing(tables):
    one = result(row("base, class biases", 0.7), union(0.85, 0.3))
    assert tables.net_closure(one, one["arms"][-1]) == pytest.approx(0.5)


def test_a_pair_whose_ensemble_gains_less_than_a_point_is_listed_and_not_counted(tables):
    weak = result(whole=0.805)
    assert tables.counted([weak, result()]) == [result()]
    assert "a pair (seed 0: 0.5)" in tables.report([weak, result()], [("a pair", "MLP", "disjoint")])


def test_the_guard_is_held_against_arms_below_their_base(tables):
    rows = tables.judged([result(union(0.85, 0.3), union(0.7, 0.45), union(0.795, 0.4))], [0])
    assert tables.safe_limit(rows) == 0.45
    assert tables.area(rows) == 1.0
    half = next(line for line in tables.limit_table(rows).splitlines() if line.startswith("| 0.5 "))
    assert half == "| 0.5 | 3 | 3 | 1 | 1 | 1 | 1 | 1 | 0 of 1 | -0.05 | -1.00 |"


def test_seeds_of_a_pair_count_once(tables):
    runs = [result(union(0.9, 0.1), seed=0), result(union(0.9, 0.1), seed=1), {**result(union(0.8, 0.1)), "pair": "b"}]
    row = next(line for line in tables.arm_table(runs, 0, tables.closure).splitlines() if line.startswith("| union"))
    assert row == "| union 1x | 0.50 |"


def test_a_failure_of_the_ensemble_itself_is_not_the_guards(tables):
    rows = tables.judged([result(union(0.7, 0.1), whole=0.75)], [0])
    half = next(line for line in tables.limit_table(rows).splitlines() if line.startswith("| 0.5 "))
    assert half == "| 0.5 | 1 | 1 | 1 | 1 | 0 | 0 | 1 | 0 of 1 | - | - |"


def test_the_guard_of_both_is_the_larger_one(tables):
    assert tables.error({"guard": 0.3, "guard_kl": 0.25}, tables.BOTH) == 0.5
    assert tables.error({"guard": 0.6, "guard_kl": 0.25}, tables.BOTH) == 0.6


def test_the_choice_is_the_smallest_error_within_a_cost(tables):
    one = result(union(0.86, 0.2), row("whole base + pruned donor", 0.89, budget=1.5, guard=0.1, cost=1.5))
    assert tables.choice_cells([one], 0, 1.5)[:3] == ["1", "1", "0.90"]
    assert tables.choice_cells([one], 0, 1.0)[:3] == ["1", "1", "0.60"]
    assert tables.choice_cells([one], 200, 1.5) == []


def test_where_all_are_declined_the_base_is_chosen(tables):
    assert tables.choice_cells([result(union(0.7, 0.21))], 0, 1.0)[:4] == ["1", "1", "0.00", "0.00"]


def with_rivals(**accuracies):
    """A pair with the union and PLeaS at 1.0x, and what else is given."""
    arms = {"union": 0.88, "PLeaS": 0.86, "ZipIt!": 0.84, **accuracies}
    return result(*(row(arm, value, count=200, budget=1.0) for arm, value in arms.items()))


def test_rivals_stand_beside_the_union_of_the_same_pairs(module):
    rivals = module("pays_rival_tables")
    unlike = {**result(row("union", 0.9, count=200, budget=1.0)), "pair": "of two widths"}
    lines = rivals.pooled_rivals([with_rivals(), unlike]).splitlines()
    assert "| MLP | 1 (1) | union | 0.80 | 0.80 | - | - | - | - |" in lines
    assert "| MLP | 1 (1) | PLeaS | 0.60 | 0.60 | - | - | - | - |" in lines


def test_the_published_order_is_counted_run_by_run(module):
    rivals = module("pays_rival_tables")
    runs = [with_rivals(), with_rivals(PLeaS=0.83)]
    assert rivals.rises(runs, rivals.ZIPPED, rivals.FITTED) == "1 of 2 (+0.5)"
    assert rivals.rises(runs, rivals.ZIPPED, rivals.PARTLY_ZIPPED) == "-"


def test_every_method_is_told_of_in_the_report(module):
    rivals = module("pays_rival_tables")
    text = rivals.rivals_text([with_rivals()])
    assert "## Rivals" in text
    assert all(f"* {name}: " in text and rival.told in text for name, rival in rivals.RIVALS.items())


@pytest.mark.torch
def test_class_biases_bring_the_class_shares_to_the_targets(module):
    pytest.importorskip("torch")
    import numpy as np

    arms = module("pays_arms")
    rng = np.random.default_rng(0)
    logits, target = rng.standard_normal((200, 4)), rng.standard_normal((200, 4)) + np.array([0, 1, 0, -1])
    shares = [arms.softmax(each).mean(axis=0) for each in (logits + arms.class_biases(logits, target), target)]
    np.testing.assert_allclose(*shares, atol=1e-4)


@pytest.mark.torch
def test_a_head_that_can_be_fitted_is_fitted(module):
    pytest.importorskip("torch")
    import numpy as np

    arms = module("pays_arms")
    rng = np.random.default_rng(0)
    features, wanted = rng.standard_normal((100, 6)), rng.standard_normal((6, 3))
    weight, bias = arms.refitted(features, features @ wanted + np.array([1, 2, 3]), np.zeros((6, 3)), np.zeros(3))
    np.testing.assert_allclose(weight, wanted, atol=1e-3)
    np.testing.assert_allclose(bias, [1, 2, 3], atol=1e-3)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    "name",
    [
        "fashion14 128-128 relu",
        pytest.param("cifar ResNet 16-32-64", marks=pytest.mark.whole),
        pytest.param("fashion28 ViT 48x3", marks=pytest.mark.whole),
    ],
)
def test_a_tiny_pair_runs_through_and_is_not_run_again(module, tmp_path, monkeypatch, name):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    study = module("study_pays")
    path = tmp_path / "pays.json"
    monkeypatch.setattr(study, "PAIRS", [pair for pair in study.PAIRS if pair.name == name])
    given = ["--data", "digits", "--models", str(tmp_path), "--seeds", "0", "--results", str(path)]
    monkeypatch.setattr(sys, "argv", ["study_pays.py", *given])
    assert study.main() == 0
    (one,) = json.loads(path.read_text(encoding="utf-8"))
    arms = {row["arm"] for row in one["arms"]}
    assert {"base", "donor", "union", "mal", "base, head refitted", "whole base + pruned donor, joint head"} <= arms
    assert {"Git Re-Basin", "PLeaS", "ZipIt!", "partial fusion", "neuron interpolation"} <= arms
    assert all(row["cost"] <= row["budget"] + 1e-6 for row in one["arms"] if row["arm"] == "union")
    assert "## The guard" in path.with_suffix(".md").read_text(encoding="utf-8")
    monkeypatch.setattr(study, "trial", None)
    assert study.main() == 0


@pytest.mark.slow
@pytest.mark.torch
def test_rivals_are_added_to_a_pair_that_is_there(module, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    study = module("study_pays")
    path = tmp_path / "pays.json"
    pair = study.PAIRS[0]
    monkeypatch.setattr(study, "PAIRS", [pair])
    study.write_results(path, [{**with_rivals(), "pair": pair.name, "arms": with_rivals()["arms"][:4]}])
    given = ["--data", "digits", "--models", str(tmp_path), "--seeds", "0", "--results", str(path), "--complete"]
    monkeypatch.setattr(sys, "argv", ["study_pays.py", *given])
    assert study.main() == 0
    (one,) = json.loads(path.read_text(encoding="utf-8"))
    assert [row["arm"] for row in one["arms"][:5]] == [
        "base",
        "donor",
        "ensemble of logits",
        "ensemble",
        "Git Re-Basin",
    ]
    others = [row["budget"] for row in one["arms"] if row["arm"] == study.OTHER]
    assert others == list(study.BUDGETS)
    monkeypatch.setattr(study, "trial", None)
    assert study.main() == 0


@pytest.mark.slow
@pytest.mark.torch
def test_the_guard_is_that_of_the_product(module, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    study = module("study_pays")
    bench = study.trial(study.PAIRS[0], 0, "digits", tmp_path).bench(0)
    graph = bench.at(1.0).graph
    guards = bench.guards(graph)
    assert max(guards["guard"], guards["guard_shares"]) == pytest.approx(bench.joint.error(graph), rel=1e-4)
