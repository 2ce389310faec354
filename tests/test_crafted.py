"""No crafted file crashes a command, fills the memory, or says what a terminal obeys.

`tools/study_crafted.py` meets all kinds, and mutations; a sample is met by commands here, all models by the guard.
"""

import re
import shutil
import sys

import pytest
from crafted import KINDS
from crafted.beside import header, zipped
from crafted.documents import documents
from crafted.drawn import operators
from crafted.growing import GROWING
from crafted.judging import MEMORY, prepared, tried
from crafted.mutations import SEED, mutations
from crafted.running import SECONDS, own_memory
from crafted.words import wordings

from mal_graph import registry
from mal_graph.errors import LimitError, MalGraphError
from mal_graph.evaluation.data import read_npz
from mal_graph.limits import TRUSTED, Limits, limited

SAMPLE = [  # one of each way that a file may harm
    "a_pattern_that_a_terminal_would_obey",
    "a_union_without_a_version",
    "donor_of_huge_numbers",
    "doubling_stored_concat",
    "expand_computed",
    "input_of_2_to_40_numbers",
    "input_of_rank_100",
    "max_memory_of_99999999_400",
    "operators_that_a_terminal_would_obey",
    "pairs_from_a_pipe",
    "remainder_by_zero",
    "sparse_file_of_50_gib",
]
GUARDED = {
    name: kind
    for name, kind in KINDS.items()
    if kind.words == ("inspect", "m.onnx")
    and not kind.is_slow
    and not name.startswith(("chain", "many", "nodes", "a_model", "one_", "func"))
}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_command_ends_with_a_sentence_and_within_its_limits(name):
    ran, faults = tried(KINDS[name])
    assert faults == [], ran
    assert ran.seconds < SECONDS, ran
    assert ran.memory - own_memory() < MEMORY, ran


@pytest.mark.filterwarnings("ignore::mal_graph.errors.DataFileWarning")
@pytest.mark.parametrize("name", GUARDED)
def test_what_is_loaded_is_a_graph_or_refused_in_one_sentence(name, tmp_path):
    """Nothing is run: what stored numbers tell is refused before, and by the guard."""
    kind = GUARDED[name]
    prepared(tmp_path)
    kind.build(tmp_path)
    with limited(Limits()):
        said = refusal(tmp_path / "m.onnx")
    assert "\n" not in said
    assert not said or re.search(kind.says, f"error: {said}".replace("`max_memory`", "--max-memory"))


@pytest.mark.parametrize("name", GROWING)
def test_the_work_of_loading_grows_with_the_parts_of_a_file(name, tmp_path):
    """Steps of our own Python, which do not depend on the machine: as many for 48 parts more as for the 48 before. A
    step for each pair of parts would make them twice as many; a few of them are a tenth more."""
    steps_of_loading(GROWING[name](1), tmp_path)  # what is imported when it is first used
    few, more, most = (steps_of_loading(GROWING[name](count), tmp_path) for count in (16, 64, 112))
    assert most - more < 1.1 * (more - few)


def steps_of_loading(proto, folder):
    """How many steps of the interpreter our own code takes to load a model."""
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    count = 0

    def begin(frame, event, _):
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step if "onnx_format" in frame.f_code.co_filename or "/mal_graph/" in frame.f_code.co_filename else None

    def step(frame, event, _):
        nonlocal count
        count += event == "opcode"
        return step

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        registry.as_graph(str(path))
    finally:
        sys.settrace(before)
    return count


@pytest.mark.filterwarnings("ignore::mal_graph.errors.DataFileWarning")
@pytest.mark.parametrize("draw", [mutations, operators])
@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_drawn_file_is_a_graph_or_refused_in_one_sentence(draw, count, tmp_path):
    """Nothing is run, so that all is done in this process, the checker's look at each operator too: what crashes it
    ends the tests."""
    for kind in draw(count, SEED):
        folder = tmp_path / kind.name
        folder.mkdir()
        prepared(folder)
        kind.build(folder)
        with limited(Limits()):
            assert "\n" not in refusal(folder / "m.onnx"), kind.name
        shutil.rmtree(folder)


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_command_with_odd_words_ends_with_a_sentence(count):
    for kind in wordings(count, SEED):
        ran, faults = tried(kind)
        assert faults == [], (kind.name, ran)


@pytest.mark.slow
def test_a_document_with_one_odd_value_is_read_or_refused_in_one_sentence():
    for kind in documents(60, SEED):
        ran, faults = tried(kind)
        assert faults == [], (kind.name, ran)


def test_a_small_archive_does_not_unfold_to_more_than_it_may(tmp_path):
    zipped(tmp_path, header(f"({2 << 20}, 8)"), 64 << 20)
    with (
        limited(Limits(max_memory=1)),
        pytest.raises(LimitError, match=r"d.npz unfolds to 64 MiB, and may to 64: give"),
    ):
        read_npz(tmp_path / "d.npz")
    for limits in (Limits(max_memory="128MiB"), TRUSTED):
        with limited(limits):
            assert read_npz(tmp_path / "d.npz")["x"].shape == (2 << 20, 8)


def refusal(path):
    """Why a model is not loaded; "" if it is."""
    try:
        registry.as_graph(str(path))
    except MalGraphError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [name for name, kind in GUARDED.items() if kind.says == "makes a tensor of"])
def test_stored_sizes_are_refused_before_anything_runs(name, tmp_path):
    GUARDED[name].build(tmp_path)
    with (
        limited(Limits()),
        pytest.raises(MalGraphError, match=r"makes a tensor of .* MiB or more, and 512 MiB is what"),
    ):
        registry.as_graph(str(tmp_path / "m.onnx"))
