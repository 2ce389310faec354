"""Laws of files at addresses: what is read there is what lies there, whatever broke off, and nothing else."""

import io
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import onnx
import pytest
from builders import message, mlp
from fsspec.implementations.memory import MemoryFileSystem

import mal_graph
from mal_graph import remote_files
from mal_graph.errors import FileError, UsageError
from mal_graph.evaluation import as_arrays
from mal_graph.remote_files import fingerprint, is_remote, listed, local_copy


class BrokenFile(io.BytesIO):
    """A connection that breaks at the third piece, as often as it is told to; without ranges one cannot go on there."""

    def read(self, size=-1):
        Broken.asked.append(self.tell())
        if self.tell() == 2 * remote_files.PIECE and Broken.left:
            Broken.left -= 1
            raise ConnectionError("the connection was reset")
        return super().read(size)

    def seek(self, place, whence=0):
        if place and not Broken.has_ranges:
            raise ValueError("cannot seek in a stream")
        return super().seek(place, whence)


class Broken(MemoryFileSystem):
    """Files that come over such connections."""

    protocol = "broken"
    left = 0
    has_ranges = True
    asked: ClassVar[list[int]] = []

    def _open(self, path, mode="rb", **others):
        opened = super()._open(path, mode, **others)
        return BrokenFile(opened.getvalue()) if mode == "rb" else opened


fsspec.register_implementation("broken", Broken, clobber=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(remote_files.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(remote_files, "PIECE", 100)
    Broken.asked.clear()
    Broken.has_ranges = True
    MemoryFileSystem.store.clear()
    return tmp_path / "cache"


def with_data(folder):
    """A model whose weights lie in a file beside it."""
    path = folder / "own.onnx"
    proto = message(mlp((3, 5, 2)))
    onnx.save(proto, path, save_as_external_data=True, location="own.onnx.data", size_threshold=0)
    return path


def put(address, content):
    with fsspec.open(address, "wb") as file:
        file.write(content)


@pytest.mark.parametrize("cause", [None, KeyError("file.bin")])
def test_what_is_not_there_is_told_so(monkeypatch, cause):
    def missing(self, path, **others):
        raise FileNotFoundError(path) from cause

    monkeypatch.setattr(MemoryFileSystem, "info", missing)
    with pytest.raises(FileError, match=r"memory://there/file\.bin: there is no such file"):
        local_copy("memory://there/file.bin")


def test_a_server_that_cannot_be_reached_is_no_missing_file(monkeypatch):
    """Though some file systems tell it as one."""

    def unreached(self, path, **others):
        try:
            raise FileNotFoundError(path) from ConnectionError("its certificate is not trusted")
        except FileNotFoundError as error:
            raise FileNotFoundError(path) from error

    monkeypatch.setattr(MemoryFileSystem, "info", unreached)
    with pytest.raises(FileError, match=r"memory://there/file\.bin: its certificate is not trusted"):
        local_copy("memory://there/file.bin")


@pytest.mark.parametrize("size", [1, 99, 100, 101, 250])
def test_a_copy_holds_what_lies_there(size):
    content = np.random.default_rng(size).bytes(size)
    put("memory://there/file.bin", content)
    assert local_copy("memory://there/file.bin").read_bytes() == content
    assert local_copy("memory://there/file.bin").name == "file.bin"


def test_other_content_at_an_address_is_another_copy():
    put("memory://there/file.bin", b"one")
    first = local_copy("memory://there/file.bin")
    put("memory://there/file.bin", b"two")
    second = local_copy("memory://there/file.bin")
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")


def test_a_copy_that_broke_off_goes_on_where_it_did(cache):
    content = np.random.default_rng(0).bytes(250)
    put("broken://there/file.bin", content)
    Broken.left = remote_files.TRIES
    with pytest.raises(FileError, match=r"broken://there/file\.bin: the connection was reset"):
        local_copy("broken://there/file.bin")
    assert not list(cache.rglob("file.bin")), "what broke off is no file"
    Broken.asked.clear()
    assert local_copy("broken://there/file.bin").read_bytes() == content
    assert Broken.asked == [200, 250], "what came before it broke off was asked for again"


def test_what_comes_in_one_go_begins_anew():
    content = np.random.default_rng(0).bytes(250)
    put("broken://there/file.bin", content)
    Broken.left, Broken.has_ranges = 1, False
    assert local_copy("broken://there/file.bin").read_bytes() == content
    assert Broken.asked == [0, 100, 200, 0, 100, 200, 250]


def test_a_file_that_ends_early_is_refused(monkeypatch, cache):
    put("memory://there/file.bin", b"content")
    info = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **others: {**info(self, path), "size": 9})
    with pytest.raises(FileError, match="7 bytes of 9 came"):
        local_copy("memory://there/file.bin")
    assert not list(cache.rglob("file.bin"))


def test_a_connection_may_break_and_come_back():
    content = np.random.default_rng(0).bytes(250)
    put("broken://there/file.bin", content)
    Broken.left = remote_files.TRIES - 1
    assert local_copy("broken://there/file.bin").read_bytes() == content


def test_what_tells_nothing_of_its_content_is_read_anew(monkeypatch):
    monkeypatch.setattr(remote_files, "fingerprint", lambda info: None)
    put("memory://there/file.bin", b"one")
    local_copy("memory://there/file.bin")
    put("memory://there/file.bin", b"two")
    assert local_copy("memory://there/file.bin").read_bytes() == b"two"


def test_a_model_that_tells_nothing_of_its_content_is_read_anew_beside_its_data(monkeypatch):
    monkeypatch.setattr(remote_files, "fingerprint", lambda info: None)
    put("memory://there/m.data", b"data")
    for content in (b"one", b"two"):
        put("memory://there/m.onnx", content)
        assert local_copy("memory://there/m.onnx", lambda path: ["m.data"]).read_bytes() == content


def test_a_size_alone_does_not_tell_contents_apart():
    assert fingerprint({"name": "file", "size": 3, "type": "file"}) is None
    assert fingerprint({"size": 3, "ETag": "a"}) != fingerprint({"size": 3, "ETag": "b"})
    assert fingerprint({"size": 3, "ETag": "a"}) != fingerprint({"size": 4, "ETag": "a"})


def test_a_model_with_data_beside_it_is_the_model_of_the_disk(tmp_path):
    own = with_data(tmp_path)
    for file in sorted(tmp_path.glob("own.onnx*")):
        put(f"memory://zoo/{file.name}", file.read_bytes())
    here, there = mal_graph.load(own), mal_graph.load("memory://zoo/own.onnx")
    assert here.weights.keys() == there.weights.keys()
    for name, weight in here.weights.items():
        assert np.array_equal(weight.read(), there.weights[name].read())


def test_data_that_changed_beside_the_same_model_are_read(tmp_path):
    own = with_data(tmp_path)
    data = next(path for path in tmp_path.glob("own.onnx*") if path != own)
    put("memory://zoo/own.onnx", own.read_bytes())
    put(f"memory://zoo/{data.name}", data.read_bytes())
    before = mal_graph.load("memory://zoo/own.onnx")
    put(f"memory://zoo/{data.name}", bytes(len(data.read_bytes())))
    after = mal_graph.load("memory://zoo/own.onnx")
    assert all(np.any(weight.read()) for weight in before.weights.values())
    assert not any(np.any(weight.read()) for weight in after.weights.values())


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "memory://other/file", ""])
def test_data_outside_the_folder_are_not_asked_for(name, monkeypatch):
    put("memory://there/m.onnx", b"model")
    asked = []
    monkeypatch.setattr(
        remote_files, "remote_at", lambda address, real=remote_files.remote_at: asked.append(address) or real(address)
    )
    with pytest.raises(FileError, match="no path inside its folder"):
        local_copy("memory://there/m.onnx", lambda path: [name])
    assert asked == ["memory://there/m.onnx"]


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("memory://there/none.onnx", "there is no such file"),
        ("nothing://there/m.onnx", "nothing"),
        ("memory://there", "it is a folder"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(address, what):
    put("memory://there/m.onnx", b"model")
    with pytest.raises((FileError, UsageError), match=what):
        mal_graph.load(address)


def test_a_folder_at_an_address_is_a_zoo():
    for name in ("b.onnx", "a.ONNX", "c.txt"):
        put(f"memory://zoo/{name}", b"model")
    assert listed("memory://zoo/", ".onnx") == ["memory:///zoo/a.ONNX", "memory:///zoo/b.onnx"]


def test_arrays_at_an_address_are_those_of_the_disk(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.arange(6.0))
    put("memory://there/data.npz", (tmp_path / "data.npz").read_bytes())
    assert np.array_equal(as_arrays("memory://there/data.npz")["x"], np.arange(6.0))


@pytest.mark.parametrize(
    ("path", "is_address"),
    [
        ("https://a/b", True),
        ("s3://a", True),
        ("zip::https://a", True),
        ("a/b", False),
        ("C:\\a", False),
        ("m:f", False),
    ],
)
def test_an_address_is_told_from_a_path(path, is_address):
    assert is_remote(path) is is_address
    assert not is_remote(Path(path))


@pytest.mark.parametrize("address", ["file:///dev/zero", "zip://m.onnx::/dev/zero", "zip://m.onnx::file:///dev/zero"])
def test_what_has_no_end_is_not_read(address):
    with pytest.raises(
        FileError, match=r"^cannot read .*: (it is a device, a pipe or the like, not a|/dev/zero is no) f"
    ):
        local_copy(address)


def test_what_is_longer_than_it_was_said_to_be_is_not_read_to_its_end(monkeypatch, cache):
    put("memory://there/file.bin", bytes(100))
    monkeypatch.setattr(remote_files, "PIECE", 8)
    info = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **more: {**info(self, path), "size": 10})
    with pytest.raises(FileError, match=r"(16|24|32) bytes of 10 came"):  # two pieces, and one more for each new try
        local_copy("memory://there/file.bin")
