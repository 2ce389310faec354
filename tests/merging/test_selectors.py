"""Tests of selectors."""

from dataclasses import replace

import pytest
from builders import mlp

from mal_graph.errors import UsageError
from mal_graph.merging import select_layers
from mal_graph.network import find_layers

DEEP = find_layers(mlp((6, 7, 8, 9, 5), 0))  # four layers at depths 0 to 3


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("0:2", [0, 1]),
        ("1:", [1, 2, 3]),
        (":3", [0, 1, 2]),
        (":", [0, 1, 2, 3]),
        ("2:99", [2, 3]),
        ("0%:50%", [0, 1]),
        ("50%:100%", [2, 3]),
        ("50%:", [2, 3]),
        (":25%", [0]),
        ("12.5%:62.5%", [1, 2]),
        ("Gemm_*", [0, 1, 2, 3]),
        ("Gemm_[24]", [1, 2]),
        ("*_6", [3]),
    ],
)
def test_a_selector_is_a_pattern_a_range_or_depths(selector, chosen):
    assert select_layers(DEEP, selector) == [DEEP[i].name for i in chosen]


@pytest.mark.parametrize("selector", ["4:9", "2:1", "gemm_0", "Conv*", "99%:100%", "-1:2", "a:b", ""])
def test_a_selector_of_nothing_is_refused_with_names_and_forms(selector):
    with pytest.raises(UsageError, match=r"selects none of 4 layers \(Gemm_0, .*: give a name pattern, an index range"):
        select_layers(DEEP, selector)


def test_a_name_with_colons_is_a_pattern():
    named = [replace(DEEP[0], name="block:1"), replace(DEEP[1], name="block:2")]
    assert select_layers(named, "block:*") == ["block:1", "block:2"]
    assert select_layers(named, "block:2") == ["block:2"]
