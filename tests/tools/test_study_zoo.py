"""The study's law and figures, on made-up runs; one short real run where torch is installed."""

import pytest


def made(study, seed, decided, reported):
    """A run with a base of loss 0.5 and accuracy 0.8, and these figures of the zoo."""
    figures = dict.fromkeys(study.ARMS, (0.5, 0.8))
    return study.Run(seed, 2, 1, 1, 0, {"base": (0.5, 0.8), "zoo": decided}, {**figures, "zoo": reported})


@pytest.mark.parametrize(("decided", "seeds"), [((0.4, 0.8), []), ((0.4, 0.79), [3]), ((0.6, 0.9), [3])])
def test_a_result_below_the_base_where_it_was_decided_breaks_the_law(study, decided, seeds):
    assert study.broken([made(study, 3, decided, (0.9, 0.1))]) == seeds


def test_the_table_says_how_often_and_by_how_much_an_arm_is_below_the_base(study):
    runs = [made(study, 0, (0.4, 0.8), (0.4, 0.9)), made(study, 1, (0.4, 0.8), (0.6, 0.75))]
    row = next(line for line in study.summary(runs).splitlines() if line.startswith("| zoo |"))
    assert row == "| zoo | 0.500 | 0.500 | 0.825 | 0.825 | 1 of 2 | 0.100 | 1 of 2 | 0.050 |"


@pytest.mark.slow
@pytest.mark.torch
def test_a_short_run_keeps_the_law(study, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(study, "DONORS", 1)
    monkeypatch.setattr(study, "STRANGERS", 1)
    monkeypatch.setattr(study, "DEPTHS", (1,))
    found = study.run(0, tmp_path, epochs=2)
    assert set(found.reported) == set(study.ARMS)
    assert study.broken([found]) == []
