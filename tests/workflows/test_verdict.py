"""The verdict on a merge: what it says follows from the scores, and nothing else."""

import numpy as np
import pytest
from builders import cnn, mlp

import mal_graph
from mal_graph import registry
from mal_graph.config import MergeConfig
from mal_graph.evaluation.scores import Scores
from mal_graph.workflows.verdict import beats, judge


def scores(*, samples=500, **figures):
    """Scores by name: (accuracy, loss)."""
    names = {"plain": "plain average", "permutation": "random permutation", "repaired": "base, repaired"}
    return [
        Scores(names.get(name, name), loss, metric, "accuracy", "cross-entropy", samples, "y", "logits")
        for name, (metric, loss) in figures.items()
    ]


def told(config=None, steps=(), **figures):
    return judge(scores(**figures), steps, config or MergeConfig())


@pytest.mark.parametrize(
    ("merged", "is_worse", "start"),
    [
        ((0.8, 0.5), True, "worse than the base: accuracy 0.800 against 0.900, loss 0.500 against 0.400"),
        ((0.95, 0.5), False, "better than the base: accuracy 0.950 against 0.900"),
        ((0.9, 0.3), False, "better than the base"),
        ((0.9, 0.5), True, "worse than the base"),
        ((0.9, 0.4), False, "no better than the base"),
        ((0.9, float("nan")), True, "worse than the base"),
    ],
)
def test_the_metric_decides_and_the_loss_where_it_is_equal(merged, is_worse, start):
    verdict = told(base=(0.9, 0.4), merged=merged)
    assert (verdict.is_worse, verdict.text[: len(start)]) == (is_worse, start)


def test_nothing_beats_itself():
    (one,) = scores(base=(0.9, 0.4))
    assert not beats(one, one)


def test_a_difference_that_the_samples_cannot_tell_is_called_so_and_still_counts():
    close = told(base=(0.928, 0.3), merged=(0.916, 0.3))
    assert close.is_worse
    assert "(500 samples cannot tell this from chance)" in close.text
    assert "chance" not in told(base=(0.9, 0.3), merged=(0.5, 0.3)).text


def test_every_baseline_that_wins_is_named_with_its_figure():
    figures = {"base": (0.9, 0.4), "donor": (0.95, 0.3), "merged": (0.5, 1.0), "plain": (0.4, 1.0)}
    text = told(**figures, permutation=(0.6, 1.0), repaired=(0.91, 0.4), ensemble=(0.97, 0.2)).text
    assert "a random permutation is better than the alignment (0.600)" in text
    assert "the base, repaired, is better (0.910)" in text
    assert "donor alone is better (0.950)" in text
    assert "the ensemble reaches 0.970" in text


def test_a_gain_is_measured_by_the_ensembles():
    assert (
        "50% of what the ensemble gains (0.940)" in told(base=(0.9, 0.4), merged=(0.92, 0.4), ensemble=(0.94, 0.2)).text
    )
    assert (
        "the ensemble gains nothing either (0.890)"
        in told(base=(0.9, 0.4), merged=(0.92, 0.4), ensemble=(0.89, 0.5)).text
    )


def data_for(graph, samples=40):
    x = np.random.default_rng(0).standard_normal((samples, *graph.inputs[0].shape[1:])).astype(np.float32)
    out = registry.runner().open(graph).run({graph.inputs[0].name: x})[graph.outputs[0].name]
    return {graph.inputs[0].name: x, "labels": out.argmax(axis=1)}


def test_the_advice_follows_the_evidence():
    base, donor = cnn((6, 8), 1, 0), cnn((9, 12), 1, 1)
    verdict = mal_graph.assemble(base, donor, data=data_for(base), lam=0.5, verify=False).verdict
    assert verdict.is_worse
    assert verdict.advice.startswith("swap base and donor, for the donor is wider, or `width`=grow; `calibrate` with")
    assert "BatchNormalizations keep statistics that nothing measured" in verdict.advice
    base, donor = mlp((6, 9, 5), 0), mlp((6, 9, 5), 1)
    data = data_for(base)
    plain = mal_graph.assemble(base, donor, data=data, lam=0.9, verify=False).verdict
    assert "swap" not in plain.advice
    assert "BatchNormalizations" not in plain.advice
    repaired = mal_graph.assemble(base, donor, data=data, calibrate={"x": data["x"]}, lam=0.9, verify=False).verdict
    assert repaired.advice.startswith("`match_by`=both")


def test_without_data_there_is_no_verdict():
    assert mal_graph.assemble(mlp((6, 9, 5), 0), mlp((6, 9, 5), 1), verify=False, method="mal").verdict is None


def test_the_base_itself_is_no_worse_than_the_base():
    base = mlp((6, 9, 5), 0)
    result = mal_graph.assemble(base, mlp((6, 9, 5), 1), data=data_for(base), lam=0.0, verify=False)
    assert not result.verdict.is_worse
    assert result.verdict.advice == ""


def test_without_labels_it_is_said_that_the_ensemble_was_not_measured():
    base, donor = mlp((6, 24, 5), 0), mlp((6, 24, 5), 1)
    for method in ("auto", "union"):
        made = mal_graph.assemble(base, donor, method=method, budget="full")
        assert not made.verdict.is_worse
        assert "labels alone tell whether the ensemble is better than the base" in made.verdict.text
    alone = mal_graph.compress(base, budget=1.0)
    assert "nothing was scored" in alone.verdict.text
    assert "ensemble" not in alone.verdict.text
