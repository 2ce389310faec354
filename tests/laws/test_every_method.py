"""Every merge method is for every graph: a perceptron, a net with BatchNorms and a transformer, exported and traced,
and donors of other widths."""

from pathlib import Path

import numpy as np
import pytest
from method_cases import CASES, merged, refusal

from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.merging import run_outputs
from mal_graph.methods import Measured, all_methods

METHODS = {method.name: method for method in all_methods()}
TABLE = Path(__file__).parents[2] / "tools/results/list_method_cases.md"


def run(graph, inputs):
    (values,) = run_outputs(graph, inputs, registry.runner()).values()
    return values


@pytest.mark.torch
@pytest.mark.sampled(160)
@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_model_of_every_kind(name, case):
    method, why = METHODS[name], refusal(METHODS[name], *case)
    if why:
        with pytest.raises(MalGraphError, match=why):
            merged(method, *case)
        return
    result, inputs = merged(method, *case)
    assert result.passed
    values, before = (run(graph, inputs) for graph in (result.graph, result.base))
    assert np.isfinite(values).all()
    assert not np.array_equal(values, before)
    if method.measured in (Measured.OWN, Measured.TOGETHER, Measured.MERGED):
        assert result.stacked.measured


def test_the_table_of_cases_has_every_method_and_every_case():
    """`tools/list_method_cases.py` makes it."""
    rows = [line.split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [cell.strip("| ") for cell in rows[0][1:]] == [" ".join(case) for case in CASES]
    assert [row[0].strip("| ") for row in rows[1:]] == list(METHODS)
    assert all(cell.strip("| ") for row in rows for cell in row)
