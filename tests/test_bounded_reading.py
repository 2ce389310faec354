"""What strangers write is read in bounds: of memory, of parts, of letters of a number."""

import os
import resource
import signal
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from builders import load, mlp
from crafted import KINDS, recipes, wire
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph import registry, text_files
from mal_graph.errors import DataError, FileError, MalGraphError, MatchError, MemoryLimitError, UsageError
from mal_graph.label_lists import MOST_LETTERS, MOST_PYTHON, Form, read_label_list
from mal_graph.limits import LEAST_MEMORY, TRUSTED, Limits, limited
from mal_graph.memory_bound import BETWEEN_LOOKS, call_bounded, memory_bounded
from mal_graph.network import probe
from mal_graph.parameter_settings import MOST_NUMBERS, MOST_SETTINGS, settings_of
from mal_graph_adapters.onnx_format.view import MOST_SCOPES, NAME_SCOPES

LEAST = Limits(max_memory=LEAST_MEMORY)


@given(st.lists(st.sampled_from(["[]", "{}", "1", '"a"', "[1, 2]"]), min_size=1, max_size=40))
def test_a_text_of_more_values_than_lists_have_is_refused_before_it_is_parsed(tmp_path_factory, values):
    path, text = tmp_path_factory.mktemp("text") / "t.json", f"[{', '.join(values)}]"
    path.write_text(text)
    count = sum(map(text.count, ",[{"))
    for most in (count, count - 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_files, "MOST_PARTS", most)
            if most == count:
                assert text_files.read_text(path) == text
            else:
                with pytest.raises(OSError, match=f"it has {count} lines or values, and lists end at {most}"):
                    text_files.read_text(path)


def test_what_unfolds_to_more_than_it_may_is_refused_and_nothing_is_bounded_afterwards():
    before, threads = resource.getrlimit(resource.RLIMIT_DATA), threading.active_count()
    for limits, held, fits in ((LEAST, 0, False), (Limits(), 0, True), (TRUSTED, 0, True)):
        with limited(limits):
            says = "cannot load it: it unfolds to more than 64 MiB in memory"
            with nullcontext() if fits else pytest.raises(MemoryLimitError, match=says), memory_bounded("it", held):
                taken = bytearray(2 * LEAST_MEMORY)
                until = time.monotonic() + 10
                while not fits and time.monotonic() < until:  # it ends by the error
                    time.sleep(0)
                assert len(taken) == 2 * LEAST_MEMORY
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        assert threading.active_count() == threads


def test_one_native_call_takes_no_more_than_it_may():
    for held, fits in ((0, False), (2 * LEAST_MEMORY, True)):
        with limited(Limits(max_memory=LEAST_MEMORY + held)):
            says = "cannot load it: it unfolds to more than 64 MiB in memory"
            with nullcontext() if fits else pytest.raises(MemoryLimitError, match=says), call_bounded("it", held):
                assert len(bytearray(2 * LEAST_MEMORY)) == 2 * LEAST_MEMORY


def test_a_bound_beyond_what_a_system_can_have_is_none():
    with limited(Limits(max_memory=10**30)), memory_bounded("it", 0), call_bounded("it", 0):
        assert len(bytearray(2 * LEAST_MEMORY)) == 2 * LEAST_MEMORY


@pytest.mark.parametrize("swallow", [False, True])
def test_a_reader_that_wraps_or_swallows_the_error_is_found_out(swallow):
    def read():
        taken, until = bytearray(2 * LEAST_MEMORY), time.monotonic() + 10
        try:
            while time.monotonic() < until:
                time.sleep(0)
        except MemoryError:
            if not swallow:
                raise ValueError(len(taken)) from None

    def read_bounded():
        with memory_bounded("it", 0):
            read()

    with limited(LEAST), pytest.raises(MemoryLimitError, match="unfolds to more than 64 MiB"):
        read_bounded()


def test_an_error_that_comes_as_the_work_ends_is_raised_in_it_or_never(monkeypatch):
    monkeypatch.setattr(Limits, "memory_for", lambda *_: 0)
    raised = 0
    with limited(Limits()):
        for number in range(100):
            try:
                with memory_bounded("it", 0):
                    taken = bytearray(2**24)
                    time.sleep(BETWEEN_LOOKS * (0.5 + 0.015 * number))
            except MemoryLimitError:
                raised += 1
            assert sum(range(1000)) == 499_500, len(taken)
    assert raised > 10


def test_the_interpreter_is_as_it_was_after_an_error_that_came_as_the_work_ended(monkeypatch):
    """What still looks for an error traces the opcodes of a call without end: each in a copy, ended by an alarm."""
    monkeypatch.setattr(Limits, "memory_for", lambda *_: 0)
    for number in range(10):
        copy = os.fork()
        if not copy:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            code = 1
            try:
                with suppress(MemoryLimitError), limited(Limits()), memory_bounded("it", 0):
                    time.sleep(BETWEEN_LOOKS * (0.8 + 0.1 * number))
                for _ in range(1000):  # until the interpreter has made it fast
                    str(Path("a"))
                sys.settrace(trace_opcodes)
                str(Path("a", "b"))
                code = 0
            finally:
                sys.settrace(None)
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0


def trace_opcodes(frame, event, _):
    frame.f_trace_opcodes, frame.f_trace_lines = True, False


ONE_IN_EACH = {
    "operators": lambda proto: proto.graph.node,
    "attributes": lambda proto: proto.graph.node[0].attribute,
    "names": lambda proto: proto.graph.node[0].input,
    "values": lambda proto: proto.graph.value_info,
    "tensors": lambda proto: proto.graph.initializer,
    "notes": lambda proto: proto.metadata_props,
    "versions": lambda proto: proto.opset_import,
    "functions": lambda proto: proto.functions,
}


@pytest.mark.parametrize("many", ONE_IN_EACH)
def test_however_much_a_model_may_take_it_is_read_or_refused(many, tmp_path):
    """The same model within bounds that end its reading anywhere: each in a copy of this process, which must end well.
    Where the system alone held the bound, native code was ended in more than half of the copies."""
    proto = wire.raw(wire.RELU)
    parts = ONE_IN_EACH[many](proto)
    parts.extend([""] * 400_000 if many == "names" else [parts.add()] * 60_000)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    for most in range(2**20, 80 * 2**20, 13 * 2**20):
        assert os.waitstatus_to_exitcode(os.waitpid(reading(tmp_path / "m.onnx", most), 0)[1]) == 0, most


def reading(path, most):
    """A copy of this process that reads a model, as far as it may; its exit code is 1 where that ends otherwise."""
    copy = os.fork()
    if not copy:
        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch, limited(LEAST), suppress(MalGraphError):
                patch.setattr(Limits, "memory_for", lambda *_: most)
                registry.as_graph(str(path))
            code = 0
        finally:
            os._exit(code)
    return copy


def test_a_model_of_empty_operators_is_refused_by_what_it_takes(tmp_path):
    wire.put_many(tmp_path, 700_000)  # of two bytes each, which the parser makes a hundred of
    with limited(LEAST), pytest.raises(MemoryLimitError, match=r"m\.onnx: it unfolds to more than 64 MiB"):
        registry.as_graph(str(tmp_path / "m.onnx"))
    mal_graph.save(mlp(), tmp_path / "sound.onnx")
    with limited(LEAST):
        assert len(registry.as_graph(str(tmp_path / "sound.onnx")).nodes) == len(mlp().nodes)


SOUND = "merge_method: linear\nmodels: [{model: base.onnx}, {model: base.onnx}]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{SOUND}blocks: 0x{'f' * 5000}", "a number has 5,002 letters, and may have 40"),
        (f"{SOUND}parameters: {{weight: {':'.join(['59'] * 200)}.5}}", "a number has 601 letters"),
        (f"{SOUND}parameters: {{weight: {[1] * 1001}}}", "has 1,001 numbers, and may have 1,000"),
        (recipes.models(*["base.onnx"] * 257), "models is .*at most 256 items"),
        (recipes.stacked(*["[0, 1]"] * 257), "slices is .*at most 256 items"),
        (f"{SOUND}? [a, b]\n: 1", "unhashable key"),
    ],
)
def test_a_recipe_that_unfolds_is_refused(text, says, tmp_path):
    mal_graph.save(mlp(), tmp_path / "base.onnx")
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(MalGraphError, match=says) as told:
        mal_graph.read_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(told.value)


def test_a_key_that_stands_twice_is_found_among_many(tmp_path):
    keys = [f"k{number}" for number in range(200)]
    (tmp_path / "r.yaml").write_text("\n".join(f"{key}: 1" for key in [*keys, "k7"]))
    with pytest.raises(FileError, match="the key 'k7' stands twice"):
        mal_graph.read_recipe(tmp_path / "r.yaml")


def test_names_of_classes_end():
    assert read_label_list("a\n" * (MOST_LETTERS // 2)) is not None
    assert read_label_list("a\n" * (MOST_LETTERS // 2) + "b") is None
    assert read_label_list(f"['{'a' * (MOST_PYTHON - 9)}', 'b']") is not None
    assert read_label_list(f"['{'a' * MOST_PYTHON}', 'b']").form is Form.COMMAS  # it is not read as Python
    for numbers in ("[0xffffffffffffffffffff, 1]", "{'" + "9" * 5000 + "': 'a', '0': 'b'}"):
        assert read_label_list(numbers) is None


def test_settings_end():
    numbers = ",".join(["1"] * MOST_NUMBERS)
    assert len(settings_of(f"weight={numbers}")[0].value) == MOST_NUMBERS
    with pytest.raises(UsageError, match="has 1,001 numbers, and may have 1,000"):
        settings_of(f"weight={numbers},1")
    assert len(settings_of([f"weight@{i}=1" for i in range(MOST_SETTINGS)])) == MOST_SETTINGS
    with pytest.raises(UsageError, match="has 1,001 settings, and may have 1,000"):
        settings_of([f"weight@{i}=1" for i in range(MOST_SETTINGS + 1)])


def test_a_note_on_scopes_is_read_as_far_as_such_notes_go():
    for more, scope in ((0, "b"), (MOST_SCOPES, "")):
        proto = wire.raw(wire.RELU)
        proto.graph.node[0].metadata_props.add(key=NAME_SCOPES, value=f"['a', 'b', 'c{' ' * more}']")
        assert [node.scope for node in load(proto).nodes] == [scope]


@pytest.mark.parametrize("name", ["lstm_of_no_units", "gru_of_many_units", "rnn_of_few_weights", "no_weights"])
def test_a_layer_whose_weights_do_not_fit_its_operator_is_compared_with_others(name, tmp_path):
    KINDS[name].build(tmp_path)
    match = mal_graph.match_layers(mlp((8, 16, 12, 5)), str(tmp_path / "m.onnx"))
    assert len(match.pairs) == 1


def test_a_model_that_multiplies_nothing_has_no_budget():
    with pytest.raises(MatchError, match="multiplies nothing with its weights, so that there is no cost to keep to"):
        mal_graph.compress(load(wire.raw(wire.RELU)), budget=0.5)


def test_inputs_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match=r"the array for input 'x' of .* is <U1, the input float32: give numbers"):
        probe(mlp((8, 4)), inputs={"x": np.full((2, 8), "a")})
