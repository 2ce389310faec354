"""A search from files to a model: its laws, and what it refuses."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from mal_graph.searching import search, search_job

FAST = {"verify": False, "compare": False, "trials": 12}


def bytes_of(result, folder):
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    result.assembly.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(small_zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=folder, **FAST)
    return result, bytes_of(result, folder), folder


def test_the_result_is_what_assemble_makes_and_better_than_the_base(undisturbed):
    result, _, _ = undisturbed
    assert result.assembly.check(search_job.AS_SEARCHED).passed
    assert result.winner is not None
    assert result.reported.loss < result.base["report"].loss
    assert len(result.trials) == FAST["trials"]


def test_parts_of_the_data_share_no_sample(small_zoo, undisturbed):
    result, _, folder = undisturbed
    parts = [np.load(path)["x"] for path in (folder / "data").iterdir()]
    together = np.concatenate(parts)
    whole = np.load(small_zoo.data)["x"]
    assert sorted(map(len, parts)) == sorted(result.samples[0].values())
    assert np.array_equal(np.sort(together, axis=0), np.sort(whole, axis=0))


def test_two_workers_give_the_same_model_to_the_byte(small_zoo, undisturbed, tmp_path):
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, workers=2, **FAST)
    assert result.trials == undisturbed[0].trials
    assert bytes_of(result, tmp_path) == undisturbed[1]


KILLED = """
import os, signal, sys
from mal_graph.searching import search, record

count, add = [0], record.Record.add

def add_and_die(self, trial):
    add(self, trial)
    count[0] += 1
    if count[0] == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

record.Record.add = add_and_die
search(*sys.argv[1:4], study=sys.argv[4], verify=False, compare=False, trials=12)
"""


def test_a_search_that_was_killed_goes_on_to_the_same_model(small_zoo, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")  # which are aligned in the same way
    words = [small_zoo.base, small_zoo.donors, small_zoo.data, tmp_path, 5]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with (tmp_path / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 4, "torn')  # a line that was being written
    scored = []
    found = search_job.Team.found

    def counted(self, candidates, part):
        scored.extend(candidates if part == "search" else ())
        return found(self, candidates, part)

    monkeypatch.setattr(search_job.Team, "found", counted)
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, resume=True, **FAST)
    assert result.trials == undisturbed[0].trials
    assert bytes_of(result, tmp_path) == undisturbed[1]
    assert len(scored) == 1 + FAST["trials"] - 5  # the base, and what had not been recorded


def test_what_is_aligned_is_never_aligned_again(small_zoo, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    monkeypatch.setattr("mal_graph.searching.aligned_donors.aligned", lambda *rest: pytest.fail("aligned again"))
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=tmp_path, **{**FAST, "trials": 1})
    assert not result.refused
