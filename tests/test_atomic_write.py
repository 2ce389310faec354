"""A file is written completely or not at all, whatever happens meanwhile."""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest

from mal_graph.atomic_write import DRAFT, data_name, write_bytes, write_text, write_whole
from mal_graph.errors import FileError, GateFailed

OLD, NEW = b"old", b"new"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(OLD)
    return path


def data_of(content):
    """What the data file with a content is called."""
    return data_name("m.onnx", hashlib.sha256(content).hexdigest())


def write_pair(content):
    """What writes a file that names another one, in which its content lies."""

    def write(draft):
        draft.with_name(data_of(content)).write_bytes(content)
        draft.write_bytes(f"my data are in {data_of(content)}".encode())

    return write


def pair_in(folder):
    """The content of the data that the file names."""
    return (folder / (folder / "m.onnx").read_text().split()[-1]).read_bytes()


def test_a_file_is_written_and_nothing_else_is_left(target):
    write_text(target, "grün", overwrite=True)
    assert target.read_text(encoding="utf-8") == "grün"
    assert list(target.parent.iterdir()) == [target]


def test_data_come_to_stand_beside_a_file_and_go_with_it(target):
    for content in (NEW, NEW * 2):
        write_whole(target, write_pair(content), overwrite=True)
        assert pair_in(target.parent) == content
        assert sorted(path.name for path in target.parent.iterdir()) == ["m.onnx", data_of(content)]


def test_data_that_another_model_names_or_nobody_wrote_for_the_file_stay(target):
    write_whole(target, write_pair(OLD), overwrite=True)
    target.with_name("copy.onnx").write_bytes(target.read_bytes())
    target.with_name("m.onnx.lost.data").write_bytes(b"of a model that was moved away")
    target.with_name("weights.data").write_bytes(b"of somebody else")
    for content in (NEW, NEW * 2):
        write_whole(target, write_pair(content), overwrite=True)
    left = {path.name for path in target.parent.iterdir()}
    assert left == {"m.onnx", "copy.onnx", "m.onnx.lost.data", "weights.data", data_of(OLD), data_of(NEW * 2)}


def test_data_of_other_names_stay_where_the_replaced_file_names_them(target):
    target.write_text("my data are in weights.data and in m.onnx.bin")
    for name in ("weights.data", "m.onnx.bin"):
        target.with_name(name).write_bytes(OLD)
    write_whole(target, write_pair(NEW), overwrite=True)
    assert {"weights.data", "m.onnx.bin"} < {path.name for path in target.parent.iterdir()}


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path, monkeypatch, has_links):
    target = tmp_path / "m.onnx"

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    write_whole(target, write_pair(NEW), lambda _: target.write_bytes(OLD) and None, overwrite=True)
    target.unlink()
    before = sorted(tmp_path.iterdir())
    told = r"cannot write .*m\.onnx: it was not there when the run began, and is now; use `overwrite`, or name another"
    with pytest.raises(FileError, match=told):
        write_whole(target, write_pair(NEW * 2), lambda _: target.write_bytes(OLD) and None, overwrite=False)
    assert (target.read_bytes(), sorted(tmp_path.iterdir())) == (OLD, [target, *before])
    target.unlink()
    write_whole(target, write_pair(NEW * 2), overwrite=False)
    assert pair_in(tmp_path) == NEW * 2


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_leaves_its_permissions(target, mode):
    target.chmod(mode)
    write_whole(target, write_pair(NEW), overwrite=True)
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.parent.iterdir()} == {mode}


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_a_new_file_and_its_data_have_the_permissions_that_the_system_gives(tmp_path):
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "m.onnx", write_pair(NEW), overwrite=False)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (GateFailed("no finite outputs"), GateFailed, "no finite outputs"),
        (OSError(28, "No space left on device"), FileError, "No space left on device; free space or choose another"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("place", ["write", "accept"])
def test_a_failure_leaves_everything_as_it_was(target, error, raised, told, place):
    def fail(draft):
        draft.with_name(data_of(NEW)).write_bytes(NEW)
        raise error

    with pytest.raises(raised, match=told):
        write_whole(target, *((fail,) if place == "write" else (write_pair(NEW), fail)), overwrite=True)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [OLD]


def test_what_is_accepted_is_what_is_written(target):
    seen = []
    write_whole(target, write_pair(NEW), lambda draft: seen.append(pair_in(draft.parent)), overwrite=True)
    assert (seen, pair_in(target.parent)) == ([NEW], NEW)


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # root may write anywhere
    with pytest.raises(
        FileError, match=r"cannot write .*m.onnx: Permission denied in folder .*; choose another folder"
    ):
        write_bytes(tmp_path / "m.onnx", NEW, overwrite=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=r"No such file or directory in folder .*gone; choose another folder"):
        write_bytes(tmp_path / "gone" / "m.onnx", NEW, overwrite=True)


def test_two_writers_at_once_never_mix_their_files_nor_lose_them(target):
    both, contents = Barrier(2, timeout=60), [b"first", b"second"]

    def writer(content):
        for _ in range(50):
            both.wait()
            write_whole(target, write_pair(content), overwrite=True)
            both.wait()
            found.add(pair_in(target.parent))

    found = set()
    threads = [Thread(target=writer, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found <= set(contents)
    assert sorted(path.name for path in target.parent.iterdir()) == ["m.onnx", data_of(pair_in(target.parent))]


def test_of_two_writers_that_may_not_overwrite_one_writes(tmp_path):
    both, told = Barrier(2, timeout=60), []

    def writer(content):
        try:
            write_whole(tmp_path / "m.onnx", write_pair(content), lambda _: both.wait() and None, overwrite=False)
        except FileError as error:
            told.append(str(error))

    threads = [Thread(target=writer, args=[content]) for content in (OLD, NEW)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", data_of(pair_in(tmp_path))]


KILLED = """
import signal, sys, time
from pathlib import Path
from mal_graph.atomic_write import write_whole

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore

def write(draft):
    draft.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)

write_whole(Path(sys.argv[1]), write, overwrite=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system cannot kill without notice")
def test_a_writer_that_is_killed_leaves_the_old_file(target):
    with subprocess.Popen([sys.executable, "-c", KILLED, target], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "begun\n"
        writer.kill()
    assert target.read_bytes() == OLD
    assert len(list(target.parent.glob(f"{DRAFT}*"))) == 1
    with subprocess.Popen([sys.executable, "-c", KILLED, target], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        write_bytes(target, NEW, overwrite=True)  # removes what the killed writer left, and leaves the other its own
        assert (target.read_bytes(), len(list(target.parent.glob(f"{DRAFT}*")))) == (NEW, 1)
        other.kill()
    write_bytes(target, NEW, overwrite=True)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="needs signals")
def test_a_writer_that_is_interrupted_leaves_no_draft(target):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, target], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as writer:
        assert writer.stdout.readline() == "begun\n"
        time.sleep(0.1)
        writer.send_signal(signal.SIGINT)
    assert [path.read_bytes() for path in target.parent.iterdir()] == [OLD]


def test_names_and_contents_are_flushed_before_what_relies_on_them(target, monkeypatch):
    steps, rename, flush, remove = [], os.replace, os.fsync, os.unlink
    write_whole(target, write_pair(OLD), overwrite=True)

    def replace(source, place):
        steps.append(f"rename {Path(place).name}")
        rename(source, place)

    def fsync(handle):
        steps.append("flush a folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "flush a file")
        flush(handle)

    def unlink(path, **options):
        if not options:  # what removes a whole folder has some
            steps.append(f"remove {Path(path).name}")
        remove(path, **options)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "unlink", unlink)
    write_whole(target, write_pair(NEW), overwrite=True)
    assert steps == [
        "flush a file",
        "flush a file",
        f"rename {data_of(NEW)}",
        "flush a folder",
        "rename m.onnx",
        "flush a folder",
        f"remove {data_of(OLD)}",
    ]
