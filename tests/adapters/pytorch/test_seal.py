"""A sealed file of weights is what its modules give, and no bit of it can be another without being found out."""

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
import mal_graph.registry
from mal_graph.errors import FileError

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
seal = import_module("mal_graph_adapters.pytorch.seal")
pytestmark = pytest.mark.torch


def module(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))


def merged(path):
    models = [module(0), module(1)]
    mal_graph.assemble(*models, lam=0.3, input_shapes={"x": (3, 4)}, verify=False).save(path)
    return models


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "m.safetensors"
    return path, merged(path)


def checks_of(audit):
    return [(check.name, check.passed) for check in audit.checks]


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_a_true_file_passes_and_comes_out_the_same_from_its_modules(tmp_path, form):
    path = tmp_path / f"m.{form}"
    models = merged(path)
    assert checks_of(mal_graph.audit(path)) == [("written", True)]
    again = mal_graph.audit(path, models, input_shapes={"x": (3, 4)})
    assert checks_of(again) == [("written", True), ("inputs", True), ("repeated", True)], again.checks
    others = mal_graph.audit(path, models[::-1], input_shapes={"x": (3, 4)})
    assert checks_of(others) == [("written", True), ("inputs", False)]


def test_equal_modules_give_equal_bytes(sealed, tmp_path):
    merged(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == sealed[0].read_bytes()


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_bit_that_is_flipped_is_found(sealed, place, bit):
    path, before = sealed[0], sealed[0].read_bytes()
    content = bytearray(before)
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        assert not is_passed(path)
    finally:
        path.write_bytes(before)


def is_passed(path):
    try:
        return mal_graph.audit(path).passed
    except FileError:
        return False


def test_weights_that_were_sealed_anew_are_not_what_the_modules_give(sealed, tmp_path):
    """Whoever can write a file can seal it: only the modules tell."""
    path, models = sealed
    provenance = mal_graph.registry.tracer().read_seal(path).provenance
    state = {name: 1.5 * tensor for name, tensor in safetensors.load_file(path).items()}
    (tmp_path / "m.safetensors").write_bytes(b"".join(seal.sealed_pieces(state, provenance)))
    assert mal_graph.audit(tmp_path / "m.safetensors").passed
    again = mal_graph.audit(tmp_path / "m.safetensors", models, input_shapes={"x": (3, 4)})
    assert checks_of(again)[-1] == ("repeated", False)
    assert "tensor '0.bias' comes out with other values" in again.checks[-1].detail


def test_a_file_without_a_seal_says_so(tmp_path):
    safetensors.save_file(module(0).state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(FileError, match=r"m\.safetensors: it has no seal, so `mal-graph` did not write it as it is"):
        mal_graph.audit(tmp_path / "m.safetensors")
