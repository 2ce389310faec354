"""Cost against score: what is on the front, and that the figures are those of data that decided nothing."""

import json

import numpy as np
import pytest
from builders import mlp, save
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.cli.app import main
from mal_graph.evaluation import Scores, split_holdout
from mal_graph.reporting import draw_pareto
from mal_graph.workflows.pareto import ParetoEntry, pareto_table


def scores(loss, metric):
    return Scores("", loss, metric, "accuracy", "cross-entropy", 100, "y", "logits")


FEW = st.sampled_from([0.5, 1.0, 1.5, 2.0])
LOSSES = st.sampled_from([0.1, 0.2, float("nan")])
ERRORS = st.sampled_from([0.0, 0.3, 1.0, float("nan")])
SCORED = st.builds(ParetoEntry, st.just("a"), FEW, ERRORS, st.builds(scores, LOSSES, FEW))
UNSCORED = st.builds(ParetoEntry, st.just("a"), FEW, ERRORS)


def rank(entry):
    """How good an entry is, by the figures that count; nan comes last."""
    if entry.score is None:
        return (-np.inf if np.isnan(entry.error) else -entry.error,)
    figures = entry.score
    return (-np.inf, 0.0) if np.isnan(figures.loss) else (figures.metric, -figures.loss)


@given(st.lists(SCORED, min_size=1, max_size=8) | st.lists(UNSCORED, min_size=1, max_size=8))
def test_on_the_front_is_what_nothing_else_is_cheaper_and_better_than(entries):
    table = pareto_table(entries, entries[0])
    assert [one.cost for one in table] == sorted(one.cost for one in table)
    for one in table:
        beaten = [
            other
            for other in table
            if other.cost <= one.cost
            and rank(other) >= rank(one)
            and (other.cost < one.cost or rank(other) > rank(one))
        ]
        assert one.is_on_front == (not beaten)


@given(st.lists(SCORED, min_size=1, max_size=8))
def test_along_the_front_what_costs_more_is_better(entries):
    front = [one for one in pareto_table(entries, entries[0]) if one.is_on_front]
    assert front
    distinct = sorted({(one.cost, rank(one)) for one in front})
    assert [good for _, good in distinct] == sorted({good for _, good in distinct})


def labelled(graphs, samples=200):
    """Inputs with the classes that models give them together."""
    x = np.random.default_rng(0).standard_normal((samples, 8)).astype(np.float32)
    runs = [mal_graph.evaluation.predict(graph, {"x": x, "labels": np.zeros(samples, int)}).values for graph in graphs]
    return {"x": x, "labels": sum(runs).argmax(1)}


@pytest.fixture(scope="module")
def pair():
    return mlp((8, 24, 5)), mlp((8, 20, 5), seed=1)


@pytest.fixture(scope="module")
def data(pair):
    return labelled(pair)


def figures(score):
    return score.loss, score.metric, score.samples


@pytest.fixture(scope="module")
def chosen(pair, data):
    return mal_graph.assemble(*pair, data=data)


@pytest.fixture(scope="module")
def united(pair, data):
    return mal_graph.assemble(*pair, data=data, method="union", budget=1.4)


def by_name(result):
    return {one.name: one for one in result.pareto}


def test_the_figures_are_those_of_the_part_that_is_reported(pair, data, chosen):
    held = split_holdout(pair[0], data)
    own = next(one for one in chosen.pareto if one.is_result)
    graphs = {"base": pair[0], "donor": pair[1], own.name: chosen.graph}
    for name, graph in graphs.items():
        entry = by_name(chosen)[name]
        reported, decided = (mal_graph.evaluate(graph, part) for part in (held.reporting, held.deciding))
        assert figures(entry.score) == pytest.approx(figures(reported), rel=1e-5)
        assert figures(entry.deciding) == pytest.approx(figures(decided), rel=1e-5)


def test_where_nothing_is_chosen_all_data_are_reported(pair, data, united):
    own = next(one for one in united.pareto if one.is_result)
    for name, graph in {"base": pair[0], "donor": pair[1], own.name: united.graph}.items():
        entry = by_name(united)[name]
        assert figures(entry.score) == pytest.approx(figures(mal_graph.evaluate(graph, data)), rel=1e-5)
        assert entry.deciding is None


@pytest.mark.parametrize("result", ["chosen", "united"])
def test_the_table_says_what_the_scores_say(result, request):
    result = request.getfixturevalue(result)
    own = next(one for one in result.pareto if one.is_result)
    arms = {score.arm: score for score in result.scores}
    assert figures(own.score) == figures(arms["merged"])
    for name in ("base", "donor"):
        assert figures(by_name(result)[name].score) == pytest.approx(figures(arms[name]), rel=1e-5)


def test_a_union_stands_beside_other_budgets_and_a_merge_of_weights(united):
    names = list(by_name(united))
    assert {"base", "donor", "ensemble of outputs", "base, last layer refitted", "mal at lambda 0.1"} <= set(names)
    assert len(names) == len(set(names))
    for budget in (1.0, 1.25, 1.4, 1.5):
        below = [one.cost for one in united.pareto if one.name.startswith("union at") and one.cost <= budget]
        assert max(below) > budget - 0.1
    assert any(name.startswith("union with the base whole") for name in names)
    assert sum(one.is_result for one in united.pareto) == 1


def test_a_thinned_model_stands_beside_smaller_and_larger_ones(pair, data):
    result = mal_graph.compress(pair[0], budget=0.6, data=data)
    costs = [one.cost for one in result.pareto]
    assert result.pareto[-1].name == "base"
    assert len(costs) == 5
    assert costs == sorted(costs)
    assert all(one.name.startswith("thinned at") for one in result.pareto[:-1])


def test_without_data_the_distance_to_the_ensemble_takes_the_place_of_the_score(pair):
    result = mal_graph.assemble(*pair)
    assert all(one.score is None and one.deciding is None for one in result.pareto)
    entries = by_name(result)
    assert (entries["base"].error, entries["ensemble of outputs"].error) == (1.0, 0.0)
    assert entries["ensemble of outputs"].is_on_front
    assert "cost in multiplications against how far the outputs are off:" in result.summary()
    given_budget = mal_graph.assemble(*pair, method="union", budget=1.4)
    assert len(given_budget.pareto) == 5  # nothing but the two forms is made where nothing can be scored
    assert len(mal_graph.assemble(*pair, method="union", budget=1.4, keep="none").pareto) == 4
    assert len(mal_graph.assemble(*pair, method="union", budget="full").pareto) == 4


def test_a_merge_that_nothing_is_better_than_is_in_the_table(pair):
    result = mal_graph.assemble(*pair, budget=0.3)
    (own,) = (one for one in result.pareto if one.is_result)
    assert own.name == "mal at lambda 0.3"
    assert result.choice.taken == "mal"


def test_a_merge_of_weights_alone_compares_nothing(pair):
    assert mal_graph.assemble(*pair, method="mal").pareto == ()


def test_several_donors_have_a_line_each(pair):
    result = mal_graph.assemble(pair[0], [pair[1], mlp((8, 16, 5), seed=2)], method="union", budget=1.2)
    assert {"donor 1", "donor 2"} <= by_name(result).keys()


def test_the_report_says_on_what_the_table_is_made(chosen, united):
    assert "cost in multiplications and score on 100 samples that decided nothing:" in chosen.summary()
    assert "cost in multiplications and score on 200 samples:" in united.summary()
    assert sum(line.endswith("*") for line in chosen.summary().splitlines()) == sum(
        one.is_on_front for one in chosen.pareto
    )
    assert chosen.summary().count("(the result)") == 1


def test_json_has_every_line_with_its_figures(chosen):
    document = chosen.to_dict()
    assert json.dumps(document)
    assert "tried" not in document["choice"]
    assert [one["name"] for one in document["pareto"]] == [one.name for one in chosen.pareto]
    keys = {"name", "cost", "error", "score", "deciding", "is_result", "is_on_front"}
    assert all(one.keys() == keys for one in document["pareto"])
    assert document["pareto"][0]["score"]["samples"] == 100


# --- the plot -----------------------------------------------------------------------------------------------------


@pytest.fixture
def words(pair, data, tmp_path):
    """The words of an `assemble` of the pair, written to `tmp_path`."""
    for name, graph in zip("ab", pair, strict=True):
        save(graph, tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "data.npz", **data)
    places = [str(tmp_path / name) for name in ("a.onnx", "b.onnx", "out.onnx", "data.npz")]
    return ["assemble", *places[:2], "-o", places[2], "--data", places[3], "-q"]


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_plot_is_written_in_the_form_that_its_name_ends_in(words, tmp_path, kind, start):
    assert main([*words, "--plot", str(tmp_path / f"plot.{kind}")]) == 0
    assert (tmp_path / f"plot.{kind}").read_bytes().startswith(start)
    assert (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--plot", "plot.pdf"], "cannot write a plot to plot.pdf: its name must end in .svg or .png"),
        (["--plot", "plot"], "cannot write a plot to plot: its name must end in .svg or .png"),
        (["--plot", "p.svg", "--report", "p.svg"], "cannot write the model, the report and the plot to one file"),
        (["--plot", "p.svg", "--method", "mal"], "--plot draws what --method auto or union compares: leave it out"),
        (["--plot", "p.svg", "--method", "union", "--fold", "0.5"], "--plot draws what --method auto or union"),
    ],
)
def test_a_plot_that_makes_no_sense_is_refused(words, tmp_path, monkeypatch, capsys, more, told):
    monkeypatch.chdir(tmp_path)
    assert main([*words, *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out.onnx").exists()


def test_a_thinned_model_is_drawn_too(pair, tmp_path):
    save(pair[0], tmp_path / "a.onnx")
    words = ["compress", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "c.onnx"), "--budget", "0.5", "-q"]
    assert main([*words, "--plot", str(tmp_path / "p.svg")]) == 0
    assert (tmp_path / "p.svg").read_bytes().startswith(b"<?xml")


def test_the_same_table_gives_the_same_image(chosen):
    assert draw_pareto(chosen.pareto, "svg") == draw_pareto(chosen.pareto, "svg")


def test_where_nothing_can_be_compared_no_plot_is_written_and_that_is_said(tmp_path, capsys):
    for name, classes in (("a", 5), ("b", 4)):
        save(mlp((8, 24, classes)), tmp_path / f"{name}.onnx")
    words = ["assemble", *(str(tmp_path / name) for name in ("a.onnx", "b.onnx")), "-o", str(tmp_path / "out.onnx")]
    assert main([*words, "--plot", str(tmp_path / "p.svg")]) == 0
    assert "p.svg is not written: nothing could be compared" in capsys.readouterr().err
    assert not (tmp_path / "p.svg").exists()


# --- other data ---------------------------------------------------------------------------------------------------


def test_too_few_samples_decide_nothing_and_are_all_reported(pair):
    result = mal_graph.assemble(*pair, data=labelled(pair, 30))
    assert {one.score.samples for one in result.pareto} == {30}
    assert all(one.deciding is None for one in result.pareto)
    assert "score on 30 samples:" in result.summary()


def test_values_are_compared_by_r2(pair):
    x = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    target = mal_graph.evaluation.predict(pair[0], {"x": x, "labels": np.zeros((100, 5), np.float32)}).values
    result = mal_graph.compress(pair[0], budget=0.5, data={"x": x, "labels": target})
    assert by_name(result)["base"].score.metric == pytest.approx(1.0)
    assert by_name(result)["base"].is_on_front
    assert "R2" in result.summary()
