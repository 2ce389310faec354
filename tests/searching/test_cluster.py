"""A search on a Dask cluster, of which a worker is killed in the middle."""

import os
import signal

import pytest
from distributed import Client, LocalCluster

from mal_graph.errors import LimitError, UsageError
from mal_graph.searching import execution, search, search_job

FAST = {"verify": False, "compare": False, "trials": 20}


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_changes_nothing(small_zoo, cluster, tmp_path, monkeypatch):
    given = (small_zoo.base, small_zoo.donors, small_zoo.data)
    alone = search(*given, **FAST)
    add, count = search_job.Record.add, [0]

    def add_and_kill(self, trial):
        add(self, trial)
        count[0] += 1
        if count[0] == 7:
            with Client(cluster.scheduler_address) as client:
                victim = next(iter(client.run(os.getpid).values()))
            os.kill(victim, signal.SIGKILL)

    monkeypatch.setattr(search_job.Record, "add", add_and_kill)
    result = search(*given, scheduler=cluster.scheduler_address, study=tmp_path, **FAST)
    assert result.trials == alone.trials
    for name, one in (("alone", alone), ("cluster", result)):
        one.assembly.save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "alone.onnx").read_bytes() == (tmp_path / "cluster.onnx").read_bytes()


@pytest.mark.slow
def test_a_worker_with_other_versions_is_refused(small_zoo, cluster, monkeypatch):
    monkeypatch.setattr(search_job, "versions_used", lambda: {"mal-graph": "0.0.1"})
    with pytest.raises(
        UsageError, match=r"a worker has mal-graph .* and the search 0\.0\.1: install the same versions"
    ):
        search(small_zoo.base, small_zoo.donors, small_zoo.data, scheduler=cluster.scheduler_address, **FAST)


def test_a_scheduler_that_does_not_answer_is_named(small_zoo, monkeypatch):
    monkeypatch.setattr(execution, "ANSWER", 0.5)  # seconds
    with pytest.raises(UsageError, match=r"the scheduler tcp://127\.0\.0\.1:1 does not answer .*: start it, or leave"):
        search(small_zoo.base, small_zoo.donors, small_zoo.data, scheduler="tcp://127.0.0.1:1", **FAST)


@pytest.mark.slow
def test_a_scheduler_without_workers_is_not_waited_for(small_zoo, monkeypatch):
    monkeypatch.setattr(execution, "ANSWER", 2.0)  # seconds
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as empty,
        pytest.raises(UsageError, match="has no workers: start some, or leave `scheduler` out"),
    ):
        search(small_zoo.base, small_zoo.donors, small_zoo.data, scheduler=empty.scheduler_address, **FAST)


@pytest.mark.slow
def test_a_scheduler_that_is_started_again_goes_on_to_the_same_model(small_zoo, tmp_path, monkeypatch):
    few = {**FAST, "trials": 8}
    given, study = (small_zoo.base, small_zoo.donors, small_zoo.data), {"study": tmp_path / "study", **few}
    alone = search(*given, **few)
    add, count = search_job.Record.add, [0]
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as first:

        def add_and_stop(self, trial):
            add(self, trial)
            count[0] += 1
            if count[0] == 4:
                first.close()

        monkeypatch.setattr(search_job.Record, "add", add_and_stop)
        with pytest.raises(LimitError, match=r"do no more work .*: what was found is kept; start them again"):
            search(*given, scheduler=first.scheduler_address, **study)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as second:
        result = search(*given, scheduler=second.scheduler_address, resume=True, **study)
    assert count[0] == few["trials"], "each trial is recorded once"
    assert result.trials == alone.trials
    for name, one in (("alone", alone), ("again", result)):
        one.assembly.save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "alone.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
