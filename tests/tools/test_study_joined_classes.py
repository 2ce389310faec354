"""The study's figures and tables, on made-up runs; one short real run."""

import numpy as np
import pytest


def made(study, error, below, inputs="noise", budget=1.0):
    accuracy = {"base": 0.5, "union": 0.75, "ensemble": 0.875}
    below = {"base": below, "ensemble": 2.0, "base, own digits": 0.5}
    return study.Run(0, "0-5", inputs, budget, error, error <= 0.2, accuracy, accuracy, below)


def test_only_what_was_accepted_counts_as_below_the_base(study):
    runs = [made(study, 0.1, 1.5), made(study, 0.15, 0.5), made(study, 0.6, 3.0)]
    text = study.tables(runs)
    assert "| noise, 1x | 3 | 0.150 | 2 | 0.500 | 0.750 | 0.875 | 1 of 2 | 2 of 2 | 0.125 |" in text
    assert "| noise, over 0.5 | 1 | 0.600 | 0 | 0.500 | 0.750 | 0.875 | 0 of 0 | 0 of 0 | - |" in text


def test_a_difference_is_told_in_standard_errors_on_the_same_images(study):
    one, other = np.array([True] * 60 + [False] * 40), np.array([True] * 50 + [False] * 50)
    assert study.standard_errors(one, other) == pytest.approx(0.1 / (0.3 / 10))
    assert study.standard_errors(one, one) == 0


@pytest.mark.slow
def test_a_short_run_scores_base_union_and_ensemble_on_all_digits(study):
    runs = list(study.runs_of(0, epochs=3, budgets=[1.0]))
    assert [(run.base, run.inputs) for run in runs] == [(base, one) for base in study.DIGITS for one in study.INPUTS]
    for run in runs:
        assert run.accuracy["base"] < run.own["base"] <= 1
        assert run.accuracy.keys() == run.own.keys() == {"union", "base", "ensemble"}
