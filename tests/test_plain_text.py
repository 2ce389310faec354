"""Nothing that a name holds is obeyed by a terminal, a table or a spreadsheet, and names that differ look different."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.plain_text import is_number, lines, one_line
from mal_graph.reporting.document import csv_text

ODD = "\x1b\n\r\t\x7f\x9b\u202e\u2066\u200b\u2028\ufeff=+-@\U000e0041"
NAMES = st.text(st.one_of(st.characters(), st.sampled_from(ODD)), max_size=20)


@given(NAMES)
def test_a_name_stands_on_one_line_in_letters_that_are_seen(name):
    assert one_line(name).isprintable()
    assert one_line(name) == name or not name.isprintable()


@given(NAMES)
def test_a_document_of_json_says_the_same_when_it_is_printed(name):
    document = {"name": name}
    for ascii_only in (False, True):
        text = lines(json.dumps(document, indent=1, ensure_ascii=ascii_only))
        assert json.loads(text) == document
        assert text.replace("\n", "").isprintable()


@given(st.lists(NAMES.filter(lambda name: "\\u" not in name), min_size=2, max_size=2, unique=True))
def test_names_that_differ_look_different(names):
    assert len(set(map(one_line, names))) == 2


@given(NAMES, st.floats(allow_nan=False))
def test_no_cell_is_a_formula_and_figures_stay_figures(name, figure):
    text = csv_text([name, "loss"], [[name, figure], [name, f"{figure:.3f}"]])
    read = list(csv.reader(io.StringIO(text)))
    assert len(read) == 3
    for row in read:
        assert row[0].isprintable()
        assert not row[0].startswith(("=", "@"))
        assert row[0][:1] not in ("+", "-") or is_number(row[0])
    assert (float(read[1][1]), read[2][1]) == (figure, f"{figure:.3f}")


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_text_that_a_spreadsheet_would_compute_is_quoted(text):
    assert next(csv.reader(io.StringIO(csv_text([text], [])))) == [f"'{one_line(text)}"]
