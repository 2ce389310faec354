"""A search on a Dask cluster, of which a worker is killed in the middle."""

import os
import signal

import pytest
from distributed import Client, LocalCluster

from mal_graph.errors import UsageError
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


@pytest.mark.slow
def test_a_scheduler_without_workers_is_not_waited_for(small_zoo, monkeypatch):
    monkeypatch.setattr(execution, "ANSWER", 2.0)  # seconds
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as empty,
        pytest.raises(UsageError, match="has no workers: start some, or leave `scheduler` out"),
    ):
        search(small_zoo.base, small_zoo.donors, small_zoo.data, scheduler=empty.scheduler_address, **FAST)
