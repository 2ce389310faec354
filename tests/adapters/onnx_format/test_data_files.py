"""Weights in several data files, and writes that go on where they were stopped: the same bytes either way."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from builders import mlp, save
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.atomic_write import CHECKPOINT, DRAFT, write_text
from mal_graph.errors import FileError, UsageError
from mal_graph.seals import PROVENANCE
from mal_graph.shards import shards_of
from mal_graph_adapters.onnx_format import checkpoint, data_files, writing
from mal_graph_adapters.onnx_format.file import OnnxAdapter

ADAPTER = OnnxAdapter()
SHARD = 2000  # bytes: two files for the six tensors of the model


@pytest.fixture(autouse=True)
def _all_in_data_files(monkeypatch):
    monkeypatch.setattr(data_files, "EXTERNAL_TENSOR_FROM", 0)


def sealed(told="{}"):
    """A model that says how it was made."""
    graph = mal_graph.load(mlp((8, 16, 16, 5)))
    return replace(graph, metadata={**graph.metadata, PROVENANCE: told})


def write(path, graph=None, resume=True, shard_size=SHARD):
    ADAPTER.save(graph or sealed(), path, shard_size=shard_size, resume=resume)


def contents(folder, but=""):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != but}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_files, "EXTERNAL_TENSOR_FROM", 0)
        write(folder / "m.onnx")
    return contents(folder)


@given(st.lists(st.integers(1, 50), max_size=12), st.none() | st.integers(50, 120))
def test_files_hold_all_tensors_in_order_and_as_few_as_fit(sizes, most):
    shards = [sizes[held] for held in shards_of(sizes, most)]
    assert [size for shard in shards for size in shard] == sizes
    assert len(shards) == 1 or all(shards)
    assert most is None or all(sum(shard) <= most for shard in shards)
    assert all(most and sum(shard) + after[0] > most for shard, after in pairwise(shards))


def test_a_model_in_several_files_is_what_onnx_reads_and_what_was_sealed(tmp_path, undisturbed):
    write(tmp_path / "m.onnx")
    assert contents(tmp_path) == undisturbed
    data = [content for name, content in undisturbed.items() if name != "m.onnx"]
    assert len(data) == 2
    assert max(map(len, data)) <= SHARD
    read = onnx.load(tmp_path / "m.onnx")
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in read.graph.initializer}
    assert all(np.array_equal(values[name], weight.read()) for name, weight in sealed().weights.items())
    assert ADAPTER.read_seal(tmp_path / "m.onnx").changed == ()
    write(tmp_path / "m.onnx", shard_size=None)  # which takes what was there away
    assert len(contents(tmp_path)) == 1


def stopped_after(tensors, folder, graph=None):
    """A write that the user stops after some tensors; the draft that stays."""
    note, noted = checkpoint.Checkpoint.note_tensor, []

    def stopping(self, number, tensor):
        if len(noted) == tensors:
            raise KeyboardInterrupt
        noted.append(tensor)
        note(self, number, tensor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "note_tensor", stopping)
        with pytest.raises(KeyboardInterrupt):
            write(folder / "m.onnx", graph)
    (draft,) = folder.glob(f"{DRAFT}*")
    assert contents(folder) == {}
    return draft


def computed_by(write):
    """How many tensors are computed meanwhile."""
    pieces_of, seen = writing.pieces_of, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "pieces_of", lambda tensor: seen.append(tensor) or pieces_of(tensor))
        write()
    return len(seen)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.data())
def test_a_resumed_write_gives_the_bytes_of_an_undisturbed_one_whatever_its_draft_holds(
    tmp_path_factory, undisturbed, tensors, data
):
    """Tensors are taken where their bytes are there, and computed where anything was changed meanwhile."""
    folder = tmp_path_factory.mktemp("resumed")
    draft = stopped_after(tensors, folder)
    damaged = data.draw(st.sampled_from([None, *sorted(path.name for path in draft.iterdir())]))
    if damaged is not None:
        content = bytearray((draft / damaged).read_bytes())
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        if data.draw(st.booleans()):
            content[place:] = b""
        elif content:
            content[place] ^= data.draw(st.integers(1, 255))
        (draft / damaged).write_bytes(content)
    computed = computed_by(lambda: write(folder / "m.onnx"))
    assert contents(folder) == undisturbed
    assert computed >= 6 - tensors if damaged else computed == 6 - tensors
    assert not list(folder.glob(f"{DRAFT}*"))


def test_what_was_written_of_another_model_or_into_other_files_is_not_taken(tmp_path, undisturbed):
    for graph, size in ((sealed('{"seed":1}'), SHARD), (sealed(), SHARD + 1)):
        stopped_after(4, tmp_path, graph)
        assert computed_by(lambda size=size: write(tmp_path / "m.onnx", shard_size=size)) == 6
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_draft_waits_for_its_own_file_and_goes_where_that_is_written_anew(tmp_path):
    draft = stopped_after(3, tmp_path)
    write_text(tmp_path / "report.json", "{}", overwrite=True)
    assert (draft / f"m.onnx{CHECKPOINT}").is_file()
    assert computed_by(lambda: write(tmp_path / "m.onnx", resume=False)) == 6
    assert not draft.exists()


def test_a_disk_that_fills_leaves_what_is_written_to_a_write_that_resumes(tmp_path, monkeypatch, undisturbed):
    def full(handle, content, offset):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_at", full)
        with pytest.raises(FileError, match="No space left on device; free space and run again with `resume`"):
            write(tmp_path / "m.onnx")
        with pytest.raises(FileError, match="No space left on device; free space or choose another folder"):
            write(tmp_path / "n.onnx", resume=False)
    assert len(list(tmp_path.iterdir())) == 1
    write(tmp_path / "m.onnx")
    assert contents(tmp_path) == undisturbed


def test_a_checkpoint_names_no_file_of_another_folder(tmp_path):
    """What looks like a name in it is a digest, or nothing."""
    draft = stopped_after(4, tmp_path)
    (tmp_path / "m.onnx.x.data").write_bytes(b"mine")
    with (draft / f"m.onnx{CHECKPOINT}").open("a") as file:
        file.write(json.dumps([1, "../../m.onnx.x"]) + "\n[[[[\n" + json.dumps([0, -1, "x", None]) + "\n")
    write(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.x.data").read_bytes() == b"mine"


def test_a_weight_that_no_file_may_hold_is_named_before_any_work(tmp_path):
    paths = [str(save(mlp((8, 16, 16, 5), seed), tmp_path / f"{seed}.onnx")) for seed in (0, 1)]
    says = r"^`shard_size` is 1,000 bytes, and weight '.*' of .*0\.onnx alone takes 1,024: give at least as many$"
    with pytest.raises(UsageError, match=says):
        mal_graph.assemble(*paths, shard_size=1000, progress=lambda *_: pytest.fail("it began"))
    result = mal_graph.assemble(*paths, lam=0.3, shard_size="1024")
    result.save(tmp_path / "out.onnx")
    sizes = [path.stat().st_size for path in tmp_path.glob("out.onnx.*")]
    assert len(sizes) > 1
    assert max(sizes) <= 1024
    with pytest.raises(UsageError, match=r"`shard_size` 'much' is no size: write a number of bytes"):
        mal_graph.assemble(*paths, shard_size="much")
