"""Rules for units without a partner: found by name, those of other packages too."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest
from builders import mlp, narrower
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph import registry
from mal_graph.errors import UsageError
from mal_graph.merging import all_rules, unmatched_rule
from mal_graph.merging.unmatched import find_rule
from mal_graph.symmetry import axis_groups

masks = st.lists(st.booleans(), min_size=1, max_size=8).map(np.array)


@unmatched_rule("rows", source="published nowhere")
def rows(row, column):
    """Rows without a partner fade, and columns stay."""
    return row


@pytest.fixture
def others(monkeypatch):
    """A package that offers a rule, and one under a wrong name."""
    module = ModuleType("others")
    module.rows = rows
    monkeypatch.setitem(sys.modules, "others", module)
    points = {name: EntryPoint(name, "others:rows", "mal_graph.unmatched_rules") for name in ("rows", "columns")}
    known = {**registry.unmatched_rules(), **points}
    monkeypatch.setattr(registry, "unmatched_rules", lambda: known)
    find_rule.cache_clear()
    yield
    find_rule.cache_clear()


def test_a_rule_of_another_package_is_one_like_the_others(others):
    base = mlp((4, 6, 3), 0)
    donor, _ = narrower(mlp((4, 6, 3), 1), axis_groups(base), 2)
    options = {"method": "mal", "verify": False, "compare": False, "repair": False, "lam": 0.5}
    graphs = {
        rule: mal_graph.assemble(base, donor, unmatched=rule, **options).graph for rule in ("rows", "keep", "zero")
    }
    faded = {rule: np.abs(graph.weights["w0"].read()).sum() for rule, graph in graphs.items()}
    read = {rule: np.abs(graph.weights["w2"].read()).sum() for rule, graph in graphs.items()}
    assert faded["rows"] == faded["zero"] < faded["keep"]
    assert read["rows"] == read["keep"] > read["zero"]


def test_what_is_no_rule_of_that_name_is_refused(others):
    with pytest.raises(
        UsageError, match=r"others:rows is no rule called 'columns': register what @unmatched_rule makes"
    ):
        find_rule("columns")
    with pytest.raises(UsageError, match=r"`unmatched` is 'row': did you mean rows"):
        mal_graph.MergeConfig(unmatched="row")


@given(st.data())
def test_every_rule_leaves_what_is_matched_and_fades_no_more_than_zero_does(data):
    row = data.draw(masks)
    column = np.array(data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row))))
    for rule in all_rules():
        fading = rule.fades(row, column)
        assert not (fading & ~row & ~column).any()
        assert not (fading & ~find_rule("zero").fades(row, column)).any()
        assert rule.summary
