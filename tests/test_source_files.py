"""A file that is read is the file whose digest is told, or it is refused."""

import hashlib
import os

import pytest

from mal_graph.errors import FileError
from mal_graph.source_files import all_opened, opened


@pytest.fixture
def path(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    return tmp_path / "w.bin"


def replaced(path):
    path.with_name("new").write_bytes(b"WEIGHTS")
    os.replace(path.with_name("new"), path)


def cut_off(path):
    with path.open("r+b") as file:
        file.truncate(3)


def written_to(path):
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(1, 1))


def test_the_digest_is_of_the_content(path):
    assert opened(path).sha256() == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("change", [replaced, cut_off, written_to])
def test_a_file_that_is_another_one_now_is_refused(path, change, is_known):
    file = opened(path)
    if is_known:
        file.sha256()
    change(path)
    told = r"w\.bin is not what it was when the run began: it was replaced or written to; run again and leave it alone"
    with pytest.raises(FileError, match=told):
        file.sha256()
    with pytest.raises(FileError, match=told):
        file.refuse_changed()


def test_a_file_that_is_gone_is_refused(path):
    file = opened(path)
    path.unlink()
    with pytest.raises(FileError, match="No such file or directory"):
        file.sha256()


def test_a_file_that_is_renamed_with_its_content_is_the_same(path):
    file = opened(path)
    path.rename(path.with_name("other"))
    path.with_name("other").rename(path)
    assert file.sha256() == hashlib.sha256(b"weights").hexdigest()


def test_what_is_no_regular_file_is_left_to_those_who_read_it(path):
    os.mkfifo(path.with_name("pipe"))
    given = [str(path), str(path.with_name("pipe")), str(path.parent), str(path.with_name("gone")), "\0", "pkg:factory"]
    assert list(all_opened(given)) == [str(path)]
