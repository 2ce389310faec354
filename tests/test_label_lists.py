"""Names of classes are read from what people and exporters write, and written again in the same form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.errors import FileError, UsageError
from mal_graph.label_lists import Form, LabelList, read_label_list
from mal_graph.option_texts import label_lists_of

LETTERS = st.characters(codec="utf-8", exclude_categories=("C", "Z"))
WORDS = st.text(LETTERS, min_size=1, max_size=8).filter(lambda word: word.isalpha())
LISTS = st.lists(WORDS, min_size=2, max_size=6, unique=True).map(tuple)


@given(LISTS, st.sampled_from(Form))
def test_what_is_written_is_read_again(names, form):
    text = LabelList((), form).text(names)
    assert read_label_list(text) == LabelList(names, form)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'person', 1: 'traffic light'}", ("person", "traffic light")),  # ultralytics
        ('{"1": "LABEL_1", "0": "LABEL_0"}', ("LABEL_0", "LABEL_1")),  # id2label
        ('{"b": 1, "a": 0}', ("a", "b")),  # label2id
        ("tench, Tinca tinca\ngoldfish, Carassius auratus\n", ("tench, Tinca tinca", "goldfish, Carassius auratus")),
        ("a,b", ("a", "b")),
        ("[3, 5]", ("3", "5")),
    ],
)
def test_lists_that_exporters_write_are_read(text, names):
    assert read_label_list(text).names == names


@pytest.mark.parametrize(
    "text", ["", "a", "5", "{}", "[]", '{"0": "a", "2": "b"}', '{"a": "b"}', "[[1]]", "{'a', 'b'}"]
)
def test_what_lists_no_names_is_none(text):
    assert read_label_list(text) is None


def test_a_file_may_have_any_of_the_forms(tmp_path):
    for form in Form:
        path = tmp_path / "names.txt"
        path.write_text(LabelList((), form).text(("a", "b")), encoding="utf-8")
        assert label_lists_of([str(path), "-", ["x", "y"], {0: "u", 1: "v"}]) == (
            ("a", "b"),
            None,
            ("x", "y"),
            ("u", "v"),
        )


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        (
            "names.txt",
            UsageError,
            "`labels_of` is 'names.txt': give a list with names, or a file of them, for each model",
        ),
        ([["a", "a"]], UsageError, "`labels_of` names 'a' twice"),
        ([[1.5]], UsageError, r"`labels_of` holds \[1.5\]: give names in the order of the classes"),
        (["nowhere.txt"], FileError, "cannot read the names of classes in nowhere.txt: No such file"),
    ],
)
def test_lists_that_are_none_are_refused(given_, error, message):
    with pytest.raises(error, match=message):
        label_lists_of(given_)


def test_a_file_without_names_is_refused_with_what_to_write(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"a": "b"}), encoding="utf-8")
    with pytest.raises(FileError, match="write one name a line, a list of JSON, or a dictionary from numbers"):
        label_lists_of([str(path)])
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="it is no text"):
        label_lists_of([str(path)])
