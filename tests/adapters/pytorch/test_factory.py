"""Modules from the command line: what is named is built, what is unsafe or does not fit is refused in one sentence."""

import json
import pickle
import sys
from importlib import import_module

import pytest

from mal_graph.errors import FileError, MalGraphError, ShapeError, UsageError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
build_module = import_module("mal_graph_adapters.pytorch.factory").build_module
pytestmark = pytest.mark.torch

SOURCE = """
import torch

def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))

def wants(size):
    return small()

def raises():
    raise ValueError("no weights here\\nand more")

def ends_all():
    raise SystemExit(3)

def number():
    return 3

not_callable = "text"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "broken_models.py").write_text("import no_such_package\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def changed():
    """Weights that differ from those the factory gives."""
    return {name: value + 1 for name, value in build_module("their_models:small").state_dict().items()}


def test_a_factory_is_called(folder):
    assert len(build_module("their_models:small")) == 3


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:small", "importing no_such_module failed: ModuleNotFoundError"),
        ("broken_models:small", "No module named 'no_such_package'"),
        ("their_models:large", "has no 'large'"),
        ("their_models:wants", r"it raised TypeError: .*'size'"),
        ("their_models:raises", "it raised ValueError: no weights here;"),
        ("their_models:ends_all", "it raised SystemExit: 3;"),
        ("their_models:number", "it gave a int"),
        ("their_models:not_callable", "it raised TypeError"),
    ],
)
def test_a_factory_that_gives_no_module_is_refused(folder, target, message):
    with pytest.raises(UsageError, match=message):
        build_module(target)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_must_be_numbers(folder, kind):
    weights = {name: value.to(kind) for name, value in changed().items()}
    torch.save(weights, "w.pt")
    assert len(build_module("their_models:small", folder / "w.pt")) == 3
    weights["0.bias"] = torch.full((3,), float("nan")).to(kind)
    torch.save(weights, "w.pt")
    with pytest.raises(FileError, match=r"w\.pt cannot be used: 0\.bias holds numbers that are not finite"):
        build_module("their_models:small", folder / "w.pt")


def write_safetensors(path):
    from safetensors.torch import save_file

    save_file(changed(), path)


def write_shards(path):
    """Each tensor in a file of its own, and the index that tells which."""
    from safetensors.torch import save_file

    shards = {name: f"w-{place}.safetensors" for place, name in enumerate(changed())}
    for name, value in changed().items():
        save_file({name: value}, path.with_name(shards[name]))
    path.write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def write_index(change):
    """The same with something changed in what tells the file of each tensor."""

    def write(path):
        write_shards(path)
        shards = json.loads(path.read_text())["weight_map"]
        change(shards)
        path.write_text(json.dumps({"weight_map": shards}))

    return write


def write_header(path):
    """A list of tensors, all spaces, of one byte more than may be read."""
    longest = 2**24 + 1
    path.write_bytes(longest.to_bytes(8, "little") + b" " * longest + b"0")


INDEX = "w.safetensors.index.json"


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.safetensors", write_safetensors),
        (INDEX, write_shards),
        ("w.pt", lambda path: torch.save(changed(), path)),
        ("w.ckpt", lambda path: torch.save({"state_dict": changed(), "epoch": 3}, path)),
    ],
)
def test_weights_are_put_in(folder, name, write):
    write(folder / name)
    found = build_module("their_models:small", folder / name).state_dict()
    assert all(torch.equal(found[key], value) for key, value in changed().items())


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "w.pt",
            lambda path: torch.save(build_module("their_models:small"), path),
            "could run any code; save model",
        ),
        ("w.pkl", lambda path: path.write_bytes(pickle.dumps({"w": print})), "could run any code; save model"),
        ("w.pt", lambda path: path.write_bytes(b"nothing of the kind"), "save model.state_dict"),
        ("w.pt", lambda path: path.write_bytes(b""), "save model.state_dict"),
        ("w.safetensors", lambda path: path.write_bytes(b"nothing of the kind"), "no safetensors file"),
        ("w.safetensors", write_header, "16,777,217 bytes of it list its tensors, more than any module has"),
        ("w.pt", lambda path: torch.save([1, 2], path), "a list and no state dict"),
        ("w.pt", lambda path: torch.save({"epoch": 3}, path), "a dict and no state dict"),
        ("w.pt", lambda path: None, "No such file"),
        ("w.safetensors", lambda path: None, "No such file"),
        (INDEX, lambda path: None, "No such file"),
        (INDEX, lambda path: path.write_text("[1, 2]"), "no index of safetensors files"),
        (INDEX, lambda path: path.write_text('{"weight_map": {"a": 1}}'), "no index of safetensors files"),
        (INDEX, lambda path: path.write_text('{"weight_map": {}}'), "it lists nothing"),
        (INDEX, lambda path: path.write_text("{" * 100_000), "no index of safetensors files"),
        (
            INDEX,
            write_index(lambda of: of.update({"0.bias": "gone.safetensors"})),
            r"it lists gone\.safetensors, not there",
        ),
        (INDEX, write_index(lambda of: of.update({"0.bias": "../w.safetensors"})), "no .safetensors file beside it"),
        (INDEX, write_index(lambda of: of.update({"0.bias": of["2.bias"]})), "so that it is of another model"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(folder, name, write, message):
    write(folder / name)
    with pytest.raises(FileError, match=message):
        build_module("their_models:small", folder / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("0.bias"), "it lacks 0.bias"),
        (lambda weights: weights.update(more=torch.zeros(1)), "it has more: more"),
        (lambda weights: weights.update({"0.bias": torch.zeros(5)}), r"0.bias has shape \[5\], the module \[3\]"),
        (lambda weights: weights.clear() or weights.update(a=torch.zeros(1)), "and 1 more"),
    ],
)
def test_weights_of_another_class_are_refused(folder, change, message):
    weights = changed()
    change(weights)
    torch.save(weights, folder / "w.pt")
    with pytest.raises(ShapeError, match=message):
        build_module("their_models:small", folder / "w.pt")


def test_an_error_of_this_package_goes_through(folder):
    (folder / "their_models.py").write_text(
        "from mal_graph.errors import FileError\ndef small():\n    raise FileError('theirs')\n", encoding="utf-8"
    )
    sys.modules.pop("their_models", None)
    with pytest.raises(MalGraphError, match="theirs"):
        build_module("their_models:small")
    sys.modules.pop("their_models", None)
