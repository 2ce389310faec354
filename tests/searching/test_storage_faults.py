"""What a search loses where its storage fails in the middle: nothing that was written, and the same model comes out."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from mal_graph.errors import FileError
from mal_graph.searching import search, search_job

FAST = {"verify": False, "compare": False, "trials": 12}
WRITTEN = 5  # trials, when the storage fails


@pytest.fixture(scope="module")
def undisturbed(small_zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = search(small_zoo.base, small_zoo.donors, small_zoo.data, study=folder, **FAST)
    return result, saved(result, folder), folder


def saved(result, folder):
    result.assembly.save(folder / "out.onnx")
    return (folder / "out.onnx").read_bytes()


# No file may grow beyond the journal and half of a trial: the system refuses the rest, as where a disk is full.
FULL = f"""
import resource, signal, sys
from pathlib import Path
from mal_graph.errors import FileError
from mal_graph.searching import record, search

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
count, add, journal = [0], record.Record.add, Path(sys.argv[4], "study.journal")

def add_and_fill(self, trial):
    before = journal.stat().st_size
    add(self, trial)
    count[0] += 1
    if count[0] == {WRITTEN}:
        after = journal.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (after + (after - before) // 2,) * 2)

record.Record.add = add_and_fill
try:
    search(*sys.argv[1:4], study=sys.argv[4], verify=False, compare=False, trials=12)
except FileError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_is_full_loses_nothing_that_was_written(small_zoo, undisturbed, tmp_path):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    words = [small_zoo.base, small_zoo.donors, small_zoo.data, tmp_path]
    full = subprocess.run([sys.executable, "-c", FULL, *map(str, words)], capture_output=True, text=True)
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert line.startswith("cannot use ")
    assert "File too large; leave `storage` out" in line
    assert not (tmp_path / "study.journal").read_bytes().endswith(b"\n"), "the trial after that is torn"
    result = search(*words[:3], study=tmp_path, resume=True, **FAST)
    assert result.trials == undisturbed[0].trials
    assert saved(result, tmp_path) == undisturbed[1]


def test_a_database_that_is_locked_loses_nothing_that_was_written(small_zoo, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[2] / "donors", tmp_path / "donors")
    given, path = (small_zoo.base, small_zoo.donors, small_zoo.data), tmp_path / "studies.db"
    study = {"study": tmp_path, "storage": f"sqlite:///{path}?timeout=0.2", **FAST}
    add, count = search_job.Record.add, [0]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        def add_and_lock(self, trial):
            add(self, trial)
            count[0] += 1
            if count[0] == WRITTEN:
                other.execute("BEGIN EXCLUSIVE")

        monkeypatch.setattr(search_job.Record, "add", add_and_lock)
        with pytest.raises(FileError, match=r"cannot use sqlite.* as the storage of a study: .*database is locked"):
            search(*given, **study)
        other.execute("COMMIT")
    result = search(*given, resume=True, **study)
    assert count[0] == FAST["trials"], "each trial is written once"
    assert result.trials == undisturbed[0].trials
    assert saved(result, tmp_path) == undisturbed[1]


@pytest.mark.parametrize("content", ["notes without an end of line", "{}\n"])
def test_a_file_that_is_no_journal_stays_as_it_was(small_zoo, tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(
        FileError, match=r"cannot use .*notes\.txt as the storage of a study: it is a file of another k"
    ):
        search(small_zoo.base, small_zoo.donors, small_zoo.data, storage=str(path), **FAST)
    assert path.read_text() == content
