"""Operators without a row: each is named, with the reason, and nothing that onnx and onnxruntime know is forgotten."""

from collections import Counter

import onnx
import pytest

from mal_graph.operators import ROWS, attention, classic, explain_missing, recurrent
from mal_graph.operators.unsupported import OTHERS, UNSUPPORTED

GROUPS = (recurrent.WITHOUT_ROW, attention.WITHOUT_ROW, classic.WITHOUT_ROW, OTHERS)
DOMAINS = ("", "ai.onnx.ml")
MICROSOFT = "com.microsoft"


def known_to_onnx():
    """The operators of the standard, those it has given up too."""
    schemas = [schema for schema in onnx.defs.get_all_schemas() if schema.domain in DOMAINS]
    return {f"{schema.domain}.{schema.name}".lstrip(".") for schema in schemas}


def known_to_onnxruntime():
    """The operators of all domains that the installed onnxruntime registers; skipped if it lists none."""
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    if not hasattr(state, "get_all_operator_schema"):
        pytest.skip("this build of onnxruntime does not list its operators")
    schemas = [schema for schema in state.get_all_operator_schema() if schema.domain in (*DOMAINS, MICROSOFT)]
    return {f"{schema.domain}.{schema.name}".lstrip(".") for schema in schemas}


@pytest.mark.parametrize("known", [known_to_onnx, known_to_onnxruntime])
def test_every_operator_has_a_row_or_a_reason(known):
    assert sorted(known() - ROWS.keys() - UNSUPPORTED.keys()) == []


def test_no_operator_has_both():
    assert sorted(ROWS.keys() & UNSUPPORTED.keys()) == []


def test_every_operator_stands_under_one_reason():
    named = Counter(op for reasons in GROUPS for ops in reasons.values() for op in ops)
    assert [op for op, times in named.items() if times > 1] == []


def test_no_reason_names_an_operator_that_does_not_exist():
    assert sorted(UNSUPPORTED.keys() - known_to_onnx() - known_to_onnxruntime()) == []


def test_a_frozen_axis_says_why_its_operator_has_no_rule():
    assert explain_missing("GRUUnit") == "operator GRUUnit has no axis rule: gates share one axis: not followed yet"
    assert explain_missing("local.Half") == "operator local.Half has no axis rule"
