"""Speed is measured where that is asked for, in turns, and beside what is counted."""

import numpy as np
import pytest
from builders import Net, mlp, save

import mal_graph
from mal_graph import registry
from mal_graph.cli.app import main
from mal_graph.network import count_multiplications, probe
from mal_graph.workflows import timing
from mal_graph.workflows.timing import Timed, median_times, size_of

PAIR = mlp((8, 24, 5)), mlp((8, 20, 5), seed=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A few runs are enough to be found positive."""
    monkeypatch.setattr(timing, "MOST", 12)


class Counting:
    """A runner that notes what it is asked to time, and in which order models are run."""

    def __init__(self):
        self.real = registry.runner()
        self.threads = []
        self.order = []

    def open(self, graph, *, threads=None, **options):
        session = self.real.open(graph, threads=threads, **options)
        if threads is not None:
            self.threads.append(threads)
            place = len(self.threads)
            run = session.run
            session.run = lambda *given, **named: self.order.append(place) or run(*given, **named)
        return session


@pytest.mark.parametrize("method", ["auto", "mal", "average", "union"])
def test_the_models_stand_beside_each_other_whatever_the_way(method):
    result = mal_graph.assemble(*PAIR, method=method, measure_speed=True)
    speeds = result.speeds
    assert [one.name for one in speeds.models] == ["base", "donor", "ensemble of outputs", "result"]
    assert all(one.ms > 0 and one.ms_all > 0 and one.bytes > 0 for one in speeds.models)
    base, donor, ensemble, own = (one.multiplications for one in speeds.models)
    assert ensemble == base + donor
    inputs = {"x": np.zeros(speeds.inputs["x"], np.float32)}
    assert own == count_multiplications(result.graph, probe(result.graph, inputs=inputs).shapes)
    assert "1 thread" in result.summary()


@pytest.mark.parametrize("budget", [1.0, "full"])
def test_the_size_is_that_of_the_file_that_is_written(budget, tmp_path):
    result = mal_graph.assemble(*PAIR, method="union", budget=budget, measure_speed=True)
    mal_graph.save(result.graph, tmp_path / "u.onnx")  # without the notes on how it was made, which no donor has
    assert result.speeds.models[-1].bytes == (tmp_path / "u.onnx").stat().st_size
    if budget == "full":
        assert result.speeds.models[-2].bytes == result.speeds.models[-1].bytes


def test_a_thinned_model_has_no_donor_and_no_ensemble():
    result = mal_graph.compress(PAIR[0], budget=0.5, measure_speed=True)
    base, own = result.speeds.models
    assert (base.name, own.name) == ("base", "result")
    assert own.multiplications == result.cost < base.multiplications
    assert result.to_dict()["speeds"]["models"][1]["multiplications"] == result.cost


@pytest.mark.parametrize("options", [{}, {"method": "mal"}, {"method": "union"}])
def test_nothing_is_timed_where_nobody_asks(options):
    runner = Counting()
    result = mal_graph.assemble(*PAIR, runner=runner, **options)
    assert (runner.threads, result.speeds, result.to_dict()["speeds"]) == ([], None, None)
    assert "speed" not in result.summary()


def test_one_thread_and_all_are_measured(monkeypatch):
    monkeypatch.setattr(timing, "usable_cores", lambda: 3)
    runner = Counting()
    result = mal_graph.assemble(*PAIR, method="union", measure_speed=True, runner=runner)
    assert runner.threads == [1] * 4 + [3] * 4
    assert result.speeds.threads == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_has_as_many_threads_as_are_asked_for(threads):
    session = registry.runner().open(PAIR[0], threads=threads)
    assert session._session.get_session_options().intra_op_num_threads == threads


def test_models_are_run_in_turns():
    runner = Counting()
    inputs = {"x": np.zeros((2, 8), np.float32)}
    times = median_times([Timed(name, graph, inputs) for name, graph in zip("ab", PAIR, strict=True)], 1, print, runner)
    rounds = runner.order[2 * timing.WARM_UPS :]
    assert len(rounds) == 2 * times.runs
    assert all(sorted(rounds[at : at + 2]) == [1, 2] for at in range(0, len(rounds), 2))


def test_the_donor_is_fed_under_its_own_names():
    def named(seed, name):
        net = Net(seed)
        return net.graph(net.linear(net.op("Relu", net.linear(net.input(name, ("N", 8)), 8, 12)), 12, 5))

    result = mal_graph.assemble(named(0, "x"), named(1, "y"), method="union", measure_speed=True)
    assert len(result.speeds.models) == 4


def test_models_that_cannot_stand_side_by_side_are_timed_without_the_ensemble():
    result = mal_graph.assemble(mlp((8, 24, 5)), mlp((8, 24, 4), seed=1), measure_speed=True)
    assert [one.name for one in result.speeds.models] == ["base", "donor", "result"]
    assert "cannot be averaged" in result.speeds.left_out
    assert "the ensemble is not timed: " in result.summary()


def test_a_data_file_counts(monkeypatch):
    monkeypatch.setattr("mal_graph_adapters.onnx_format.file.EXTERNAL_DATA_FROM", 1000)
    assert size_of(mlp((8, 4000, 5))) > 4 * (8 * 4000 + 4000 + 4000 * 5 + 5)


def test_the_command_line_shows_it_where_it_is_asked_for(tmp_path, capsys):
    save(PAIR[0], tmp_path / "a.onnx")
    words = ["compress", str(tmp_path / "a.onnx"), "--budget", "0.5", "-q", "--force", "-o", str(tmp_path / "c.onnx")]
    assert main([*words, "--measure-speed"]) == 0
    out = capsys.readouterr().out
    assert "speed: the median of" in out
    mal_graph.save(mal_graph.load(tmp_path / "c.onnx"), tmp_path / "bare.onnx")  # without the notes on how it was made
    assert f" {(tmp_path / 'bare.onnx').stat().st_size:,} " in out
    assert main(words) == 0
    assert "speed" not in capsys.readouterr().out
