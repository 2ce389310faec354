"""A sealed file is what its inputs give, and no bit of it can be another without being found out."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed_files import KINDS, is_caught, mlps, regions, written

import mal_graph
from mal_graph.workflows.provenance import packed, unpacked

QUICK_METHODS = {"merged by ties", "merged by fisher"}
HEAVY = {"transformer", "convolutional", *(kind for kind in KINDS if kind.startswith("merged"))} - QUICK_METHODS


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - HEAVY))  # `tools/study_trust.py` takes all
def test_a_true_file_passes_and_comes_out_the_same_from_its_inputs(kind, tmp_path):
    path, models, arrays = written(kind, tmp_path)
    alone = mal_graph.audit(path)
    assert (alone.passed, len(alone.checks), len(alone.notes)) == (True, 1, 1)
    found = mal_graph.audit(path, models, **arrays)
    assert [(check.name, check.passed) for check in found.checks] == [
        ("written", True),
        ("inputs", True),
        ("repeated", True),
    ], found.checks


def test_equal_inputs_give_equal_bytes_wherever_they_lie(tmp_path):
    paths = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        paths.append(written("blended", tmp_path / name)[0])
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    folders = {has_data: tmp_path_factory.mktemp("sealed") for has_data in (False, True)}
    paths = {has_data: written("blended", folder, has_data)[0] for has_data, folder in folders.items()}
    return {has_data: (path, regions(path)) for has_data, path in paths.items()}


def test_the_parts_of_the_files_are_all_there(sealed):
    parts = {"all", "configuration", "digests", "digest", "graph"}
    assert sealed[False][1].keys() == parts | {"tensor"}
    assert sealed[True][1].keys() == parts | {"data"}


@given(st.data())
def test_a_bit_that_is_flipped_is_found(sealed, data):
    path, parts = sealed[data.draw(st.booleans())]
    flipped, first, end = parts[data.draw(st.sampled_from(sorted(parts)))]
    assert is_caught(path, flipped, data.draw(st.integers(first, end - 1)), data.draw(st.integers(0, 7)))


def test_the_place_of_what_was_changed_is_told(sealed):
    path, parts = sealed[False]
    before, (_, first, _) = path.read_bytes(), parts["tensor"]
    path.write_bytes(before[:first] + bytes([before[first] ^ 1]) + before[first + 1 :])
    (check,) = mal_graph.audit(path).checks
    path.write_bytes(before)
    assert (check.passed, check.detail) == (False, "tensor 'w0' is not as it was written")


def test_a_file_of_other_models_is_told_from_these(tmp_path):
    path, models, _ = written("blended", tmp_path)
    shutil.copy(models[1], tmp_path / "copy.onnx")
    assert mal_graph.audit(path, [models[0], tmp_path / "copy.onnx"]).passed  # its name does not matter
    found = mal_graph.audit(path, [models[0], models[0]])
    assert [check.passed for check in found.checks] == [True, False]
    assert f"{models[0]} is not the model that was the donor number 1" in found.checks[-1].detail


def test_arrays_that_are_missing_or_others_are_named(tmp_path):
    path, models, arrays = written("repaired", tmp_path)
    found = mal_graph.audit(path, models)
    assert [check.passed for check in found.checks] == [True, True, None]
    assert found.checks[-1].detail == "it was made with `calibrate`: give these arrays too"
    assert "are checked by their own digests alone" in found.notes[0]
    other = {"x": arrays["calibrate"]["x"] + np.float32(1)}
    found = mal_graph.audit(path, models, calibrate=other)
    assert [check.detail for check in found.checks if check.failed] == [
        "`calibrate` holds other arrays than it was made with"
    ]


def test_a_model_that_was_sealed_anew_over_other_weights_is_not_what_its_inputs_give(tmp_path):
    """Whoever can write a file can seal it: only the inputs tell."""
    path, models, _ = written("blended", tmp_path)
    graph = mal_graph.load(path)
    forged = graph.with_weights({"w0": graph.weights["w0"].read() * np.float32(1.5)})
    note = {"mal_graph.provenance": graph.provenance}
    mal_graph.save(replace(forged, metadata=note), tmp_path / "forged.onnx")
    assert mal_graph.audit(tmp_path / "forged.onnx").passed
    found = mal_graph.audit(tmp_path / "forged.onnx", models)
    assert [check.passed for check in found.checks] == [True, True, False]
    assert found.checks[-1].detail == "tensor 'w0' comes out with other values"


def test_a_loaded_model_that_is_written_again_does_not_keep_its_seal(tmp_path):
    path, _, _ = written("blended", tmp_path)
    mal_graph.save(mal_graph.load(path), tmp_path / "again.onnx")
    with pytest.raises(mal_graph.MalGraphError, match=r"again\.onnx: it has no seal, so `mal-graph` did not write it"):
        mal_graph.audit(tmp_path / "again.onnx")


def test_the_sources_of_a_source_are_kept(tmp_path):
    metadata = [{"license": "MIT"}, {"license": "Apache-2.0", "note": "none"}]
    base, donor = mlps(tmp_path, 12, 10, metadata=metadata)
    mal_graph.assemble(base, donor, lam=0.3, verify=False).save(tmp_path / "first.onnx")
    mal_graph.assemble(tmp_path / "first.onnx", base, lam=0.3, verify=False).save(tmp_path / "second.onnx")
    first, again = mal_graph.audit(tmp_path / "second.onnx").provenance.sources
    assert [dict(source.notes) for source in (first, again)] == [{"license": "MIT"}] * 2
    assert [dict(source.notes) for source in first.sources] == [{"license": "MIT"}, {"license": "Apache-2.0"}]


@given(st.lists(st.integers(-1, 70_000), max_size=40), st.booleans())
def test_packed_orders_are_read_back(numbers, is_identity):
    order = np.arange(len(numbers)) if is_identity else np.array(numbers, np.int64)
    assert np.array_equal(unpacked(packed(order)), order)


@pytest.mark.parametrize("text", ["", "x", "<f8:AAAA", "<i2:%%%", "99999999999", "-3"])
def test_what_is_no_order_is_refused(text):
    with pytest.raises(mal_graph.MalGraphError, match="is no order of units"):
        unpacked(text)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"matches": "/etc/hostname"}, "no file is read because another one says so"),
        ({"labels_of": ["/etc/hostname", "-"]}, "no file is read because another one says so"),
        ({"inputs": "x.npz"}, "no file is read because another one says so"),
        ({"nonsense": 1}, "there is no option"),
        ({"verify_timeout": -1}, "give a time of 0 seconds or more"),
    ],
)
def test_options_that_a_file_notes_are_not_trusted(tmp_path, options, told):
    path, models, _ = written("blended", tmp_path)
    graph = mal_graph.load(path)
    note = graph.provenance.replace('"options":{', f'"options":{str(options)[:-1]},'.replace("'", '"'))
    mal_graph.save(replace(graph, metadata={"mal_graph.provenance": note}), tmp_path / "odd.onnx")
    found = mal_graph.audit(tmp_path / "odd.onnx", models)
    assert found.checks[-1].failed
    assert told in found.checks[-1].detail
