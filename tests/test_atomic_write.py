"""A file is written completely or not at all, whatever happens meanwhile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest

from mal_graph.atomic_write import DRAFT, write_bytes, write_text, write_whole
from mal_graph.errors import FileError, GateFailed

OLD, NEW = b"old", b"new"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(OLD)
    return path


def write_pair(content):
    """What writes a file that names another one, with the same content in both."""

    def write(draft):
        draft.with_name("m.onnx.data").write_bytes(content)
        draft.write_bytes(content)

    return write


def test_a_file_is_written_and_nothing_else_is_left(target):
    write_text(target, "grün")
    assert target.read_text(encoding="utf-8") == "grün"
    assert list(target.parent.iterdir()) == [target]


def test_what_is_written_beside_a_file_comes_to_stand_beside_it(target):
    write_whole(target, write_pair(NEW))
    write_whole(target, write_pair(NEW * 2))
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == {
        "m.onnx": NEW * 2,
        "m.onnx.data": NEW * 2,
    }


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (GateFailed("no finite outputs"), GateFailed, "no finite outputs"),
        (OSError(28, "No space left on device"), FileError, "No space left on device; free space or choose another"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
@pytest.mark.parametrize("place", ["write", "accept"])
def test_a_failure_leaves_everything_as_it_was(target, error, raised, told, place):
    def fail(draft):
        draft.with_name("m.onnx.data").write_bytes(NEW)
        raise error

    with pytest.raises(raised, match=told):
        write_whole(target, fail) if place == "write" else write_whole(target, write_pair(NEW), fail)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [OLD]


def test_what_is_accepted_is_what_is_written(target):
    seen = []
    write_whole(target, write_pair(NEW), lambda draft: seen.append((draft.name, draft.read_bytes())))
    assert seen == [("m.onnx", NEW)]


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # root may write anywhere
    with pytest.raises(
        FileError, match=r"cannot write .*m.onnx: Permission denied in folder .*; choose another folder"
    ):
        write_bytes(tmp_path / "m.onnx", NEW)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=r"No such file or directory in folder .*gone; choose another folder"):
        write_bytes(tmp_path / "gone" / "m.onnx", NEW)


def test_two_writers_at_once_never_mix_their_files(target):
    both, contents = Barrier(2, timeout=60), [b"first", b"second"]

    def writer(content):
        for _ in range(50):
            both.wait()
            write_whole(target, write_pair(content))
            both.wait()
            pairs.add((target.read_bytes(), target.with_name("m.onnx.data").read_bytes()))

    pairs = set()
    threads = [Thread(target=writer, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pairs <= {(content, content) for content in contents}
    assert sorted(path.name for path in target.parent.iterdir()) == ["m.onnx", "m.onnx.data"]


KILLED = """
import sys, time
from pathlib import Path
from mal_graph.atomic_write import write_whole

def write(draft):
    draft.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)

write_whole(Path(sys.argv[1]), write)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system cannot kill without notice")
def test_a_writer_that_is_killed_leaves_the_old_file(target):
    with subprocess.Popen([sys.executable, "-c", KILLED, target], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "begun\n"
        writer.kill()
    assert target.read_bytes() == OLD
    left = [path.name for path in target.parent.iterdir() if path != target]
    assert all(name.startswith(DRAFT) for name in left)
    write_bytes(target, NEW)
    assert target.read_bytes() == NEW


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="needs signals")
def test_a_writer_that_is_interrupted_leaves_no_draft(target):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, target], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as writer:
        assert writer.stdout.readline() == "begun\n"
        time.sleep(0.1)
        writer.send_signal(signal.SIGINT)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [OLD]


def test_names_and_contents_are_flushed_before_a_file_counts_as_written(target, monkeypatch):
    steps, rename, flush = [], os.replace, os.fsync

    def replace(source, place):
        steps.append(f"rename {Path(place).name}")
        rename(source, place)

    def fsync(handle):
        steps.append("flush")
        flush(handle)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(target, NEW)
    assert steps == ["flush", "rename m.onnx", "flush"]
