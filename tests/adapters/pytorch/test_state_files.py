"""Weights in several safetensors files: what is read is what was written, whole, and the old model until then."""

import json
import os
import re
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph.errors import FileError, UsageError
from mal_graph.shards import shards_of, written_before

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
from failing_calls import KILLED, contents, fill, kill, stop

state_files = import_module("mal_graph_adapters.pytorch.state_files")
factory = import_module("mal_graph_adapters.pytorch.factory")
pytestmark = pytest.mark.torch

NUMBER = 4  # bytes
SIZES = (3, 5, 2, 4)


def state(seed=0, sizes=SIZES):
    """Tensors of these many numbers."""
    return {f"layer.{place}": torch.full((size,), float(10 * seed + place)) for place, size in enumerate(sizes)}


def is_same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def write(path, seed=0, shard_size=6 * NUMBER, **more):
    state_files.write_state(state(seed), path, shard_size=shard_size, **{"provenance": "{}", **more})


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(9, 30), st.booleans())
def test_files_of_at_most_a_size_hold_what_their_index_says(tmp_path_factory, sizes, most, is_sealed):
    path, held = tmp_path_factory.mktemp("state") / "m.safetensors", state(0, sizes)
    state_files.write_state(held, path, shard_size=most * NUMBER, provenance="{}" if is_sealed else "")
    assert is_same(factory.read_weights(path), held)
    count = len(shards_of([NUMBER * size for size in sizes], most * NUMBER))
    names = [f"m-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    if count == 1:
        assert os.listdir(path.parent) == [path.name]
        return
    index = path.with_name("m.safetensors.index.json")
    assert sorted(os.listdir(path.parent)) == [*names, index.name]
    told = json.loads(index.read_text())
    assert told["metadata"]["total_size"] == NUMBER * sum(sizes)
    for name in names:
        own = safetensors.load_file(path.with_name(name))
        assert set(own) == {key for key, where in told["weight_map"].items() if where == name}
        assert sum(tensor.nbytes for tensor in own.values()) <= most * NUMBER
    assert is_same(factory.read_weights(index), held)


def test_equal_tensors_give_equal_bytes_whatever_was_there_before(tmp_path):
    write(tmp_path / "m.safetensors")
    first = contents(tmp_path)
    for before in (2 * NUMBER * 5, None, 6 * NUMBER):
        write(tmp_path / "m.safetensors", seed=1, shard_size=before)
        write(tmp_path / "m.safetensors")
        assert contents(tmp_path) == first
    write(tmp_path / "m.safetensors", shard_size=None)
    assert list(contents(tmp_path)) == ["m.safetensors"]


def test_files_that_another_index_lists_stay(tmp_path):
    write(tmp_path / "m.safetensors")
    copy = tmp_path / "copy.safetensors.index.json"
    copy.write_bytes((tmp_path / "m.safetensors.index.json").read_bytes())
    write(tmp_path / "m.safetensors", seed=1)
    assert is_same(factory.read_weights(copy), state())
    assert is_same(factory.read_weights(tmp_path / "m.safetensors"), state(1))


def test_files_keep_names_with_a_digest_where_the_system_has_no_links(tmp_path, monkeypatch):
    def refuse(source, _):
        if not str(source).endswith(".index.json"):
            raise PermissionError(1, "Operation not permitted")
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "m.safetensors")
    assert is_same(factory.read_weights(tmp_path / "m.safetensors"), state())
    assert all(re.match(r"m\.(safetensors\.index\.json|[0-9a-f]{16}-0)", name) for name in os.listdir(tmp_path))
    assert mal_graph.registry.tracer().read_seal(tmp_path / "m.safetensors").changed == ()


@pytest.mark.parametrize("before", ["m.safetensors", "m.safetensors.index.json", "m-00002-of-00003.safetensors"])
@pytest.mark.parametrize("shard_size", [None, 6 * NUMBER])
def test_what_is_there_is_refused_before_anything_is_written(tmp_path, before, shard_size):
    (tmp_path / before).write_bytes(b"of somebody else")
    module = torch.nn.Linear(2, 3)
    graph = mal_graph.trace(module, torch.zeros(1, 2))
    with pytest.raises(FileError, match=r"cannot write .*m\.safetensors: .*exists; give another path"):
        mal_graph.save(graph, tmp_path / "m.safetensors")
    assert list(contents(tmp_path)) == [before]


@pytest.mark.parametrize(("other", "shard_size"), [("m.safetensors.index.json", None), ("m.safetensors", 6 * NUMBER)])
def test_what_appears_meanwhile_is_left_alone(tmp_path, other, shard_size):
    def appear(_):
        (tmp_path / other).write_bytes(b"of somebody else")

    appear(None)
    with pytest.raises(FileError, match="was not there when the run began"):
        write(tmp_path / "m.safetensors", shard_size=shard_size, overwrite=False)
    assert contents(tmp_path) == {other: b"of somebody else"}


def test_a_size_that_one_tensor_exceeds_is_refused(tmp_path):
    with pytest.raises(
        UsageError, match=r"`shard_size` is 19 bytes, and weight 'layer.1' of m.safetensors alone takes"
    ):
        write(tmp_path / "m.safetensors", shard_size=5 * NUMBER - 1)
    assert not contents(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that begin as copies")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (6 * NUMBER, 6 * NUMBER),
        (6 * NUMBER, None),
        *(pytest.param(old, 6 * NUMBER, marks=pytest.mark.slow) for old in ("none", 5 * NUMBER, None)),
    ],
)
def test_a_write_that_is_stopped_at_any_call_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch, old, new):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill does not ask for it, and it takes longest
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    write(undisturbed / "m.safetensors", seed=1, shard_size=new)
    at, code = 0, KILLED
    while code != 3:
        at += 1
        folder = tmp_path / f"{at}"
        folder.mkdir()
        path = folder / "m.safetensors"
        if old != "none":
            write(path, shard_size=old)
        code = stopped_write(path, new, at, kill if at % 2 else fill)
        if old == "none" and not (path.exists() or written_index(path)):
            seen = "none"
        else:
            seen = next((s for s in (0, 1) if is_same(factory.read_weights(path), state(s))), "a mixture")
            assert mal_graph.registry.tracer().read_seal(path).changed == ()
        assert seen in ({"none", 1} if old == "none" else {0, 1}), (at, code, seen)
        assert (code != 3) or seen == 1
        write(path, seed=1, shard_size=new)
        left = contents(folder)
        assert {name: left.get(name) for name in contents(undisturbed)} == contents(undisturbed)
    assert at > 5


def written_index(path):
    return any(file.name.endswith(".json") for file in written_before(path))


def stopped_write(path, shard_size, at, act):
    """The code with which a write ends that is stopped at its call number `at`; 3 where it has fewer."""
    child = os.fork()
    if not child:
        stopped, out, code = stop(at, act), os._exit, 0
        try:
            write(path, seed=1, shard_size=shard_size)
        except FileError:
            code = 1
        except BaseException:
            code = 2
        out(code if len(stopped.calls) >= at else 3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def merged(path, **options):
    models = [module(0), module(1)]
    mal_graph.assemble(*models, lam=0.3, input_shapes={"x": (3, 4)}, verify=False, **options).save(path)
    return models


def module(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "m.safetensors"
    return path, merged(path, shard_size=100)


def test_a_true_set_of_files_passes_and_comes_out_the_same_from_its_modules(sealed, tmp_path):
    path, models = sealed
    assert len(contents(path.parent)) > 2
    for named in (path, path.with_name("m.safetensors.index.json")):
        again = mal_graph.audit(named, models, input_shapes={"x": (3, 4)})
        assert [check.passed for check in again.checks] == [True, True, True], again.checks
    merged(tmp_path / "m.safetensors", shard_size=100, resume=True)
    assert contents(tmp_path) == contents(path.parent)


@given(st.data(), st.integers(0, 7))
def test_a_bit_that_is_flipped_in_any_file_is_found(sealed, data, bit):
    path = data.draw(st.sampled_from(sorted(sealed[0].parent.iterdir())))
    before = path.read_bytes()
    content = bytearray(before)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    try:
        assert not is_passed(sealed[0])
    finally:
        path.write_bytes(before)


def test_a_file_that_is_gone_or_of_another_model_is_named(sealed, tmp_path):
    for name, content in contents(sealed[0].parent).items():
        (tmp_path / name).write_bytes(content)
    first, second = sorted(tmp_path.glob("m-*"))[:2]
    first.write_bytes(second.read_bytes())
    (told,) = [check.detail for check in mal_graph.audit(tmp_path / "m.safetensors").checks]
    assert f"the file '{first.name}' is not as it was written" in told
    first.unlink()
    with pytest.raises(FileError, match=r"cannot audit .*: No such file"):
        mal_graph.audit(tmp_path / "m.safetensors")


def is_passed(path):
    try:
        return mal_graph.audit(path).passed
    except FileError:
        return False
