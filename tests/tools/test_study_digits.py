"""The study's tables and its law, on made-up scores; one short real run where torch is installed."""

import pytest


def scores(study, pair, losses):
    """One score per arm and seed; the accuracy is of no matter."""
    return [
        study.Score(pair, 0.3, seed, arm, loss, 0.5)
        for arm, values in losses.items()
        for seed, loss in enumerate(values)
    ]


def test_the_table_gives_mean_spread_and_median_of_every_arm(study):
    made = scores(study, "MLP 64-64 <- 64-64", {"aligned": (0.1, 0.2, 0.6)})
    assert "| MLP 64-64 <- 64-64 | 0.3 | aligned | 0.300 +- 0.265 | 0.200 | 0.500 +- 0.000 | 0.500 |" in study.table(
        made
    )


@pytest.mark.parametrize(("permutation", "verdict"), [((0.9, 0.3, 0.9), "yes"), ((0.1, 0.1, 0.9), "no")])
def test_a_claim_is_judged_by_the_median_loss(study, permutation, verdict):
    made = scores(
        study,
        "MLP 64-64 <- 64-64",
        {"aligned": (0.2, 0.2, 0.8), "plain average": (0.5, 0.5, 0.5), "random permutation": permutation},
    )
    assert f"| MLP 64-64 <- 64-64 | 0.3 | {verdict} | law | no | no |" in study.claims(made)
    assert study.broken_laws(made) == ([] if verdict == "yes" else ["MLP 64-64 <- 64-64 at 0.3"])


@pytest.mark.parametrize(("base", "verdicts"), [(0.5, "yes | yes"), (0.1, "yes | no")])
def test_with_repair_the_base_repaired_counts_too(study, base, verdicts):
    losses = {"aligned": 0.2, "plain average": 0.3, "random permutation": 0.3, "base": base}
    pair = "MLP 64-48 <- 96-64"
    made = scores(study, pair, {f"{arm}, repaired": (loss,) for arm, loss in losses.items()})
    assert f"| {pair} | 0.3 | no | goal | {verdicts} |" in study.claims(made)


def test_a_goal_that_is_missed_breaks_no_law(study):
    losses = {"aligned": (0.9,), "plain average": (0.5,), "random permutation": (0.5,)}
    assert study.broken_laws(scores(study, "MLP 64-48 <- 96-64", losses)) == []


@pytest.mark.slow
@pytest.mark.torch
def test_a_short_run_scores_every_arm(study, tmp_path):
    pytest.importorskip("torch")
    pairs = {"MLP 64-64 <- 64-64": study.Pair("mlp", ((12, 8),), ((8, 12),), True)}
    found = study.runs([0], tmp_path, pairs, epochs=2)
    merges = ["aligned", "plain average", "random permutation", "random donor"]
    arms = ["base", "donor", *merges, "ensemble", *(f"{arm}, repaired" for arm in (*merges, "base"))]
    arms += [f"{arm}{suffix}" for arm in study.VARIANTS for suffix in ("", ", repaired")]
    assert [score.arm for score in found] == arms * 2
    assert all(0 <= score.accuracy <= 1 and score.loss > 0 for score in found)
