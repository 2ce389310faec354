"""Positions of two networks put beside each other by their names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.matching.named_positions import Misnamed, in_order_of_names, pair_by_names


def names(*numbers):
    return np.array(numbers, np.uint64)


@given(st.permutations(range(1, 8)), st.permutations(range(1, 8)))
def test_every_name_stands_beside_itself(mine, theirs):
    mine, theirs = names(*mine), names(*theirs)
    found = pair_by_names(mine, theirs)
    if found is None:
        assert (mine == theirs).all()
        return
    own, others = found
    assert (mine[own] == theirs[others]).all()
    assert own.tolist() == list(range(7))


def test_what_only_one_model_reads_has_no_partner():
    own, others = pair_by_names(names(1, 2, 3), names(3, 9, 1))
    assert own.tolist() == [0, 2]
    assert others.tolist() == [2, 0]


def test_without_names_nothing_is_paired():
    assert pair_by_names(names(0, 0), names(0, 0)) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "why"),
    [
        ((1, 2), (0, 0), "in one model alone"),
        ((1, 1), (1, 2), "nothing tells apart"),
        ((1, 2), (3, 4), "other indices"),
    ],
)
def test_names_that_pair_nothing_are_refused(mine, theirs, why):
    with pytest.raises(Misnamed, match=why):
        pair_by_names(names(*mine), names(*theirs))


def test_the_positions_of_each_unit_come_in_one_order_of_their_names():
    mine, theirs = np.array([[0, 1], [2, 3]]), np.array([[0, 1], [2, 3]])
    own, others = in_order_of_names((mine, theirs), (names(5, 6, 5, 6), names(6, 5, 6, 5)))
    assert own.tolist() == [[0, 1], [2, 3]]
    assert others.tolist() == [[1, 0], [3, 2]]


def test_units_of_other_positions_are_refused():
    positions = np.array([[0, 1], [2, 3]])
    with pytest.raises(Misnamed):
        in_order_of_names((positions, positions), (names(5, 6, 5, 6), names(5, 7, 5, 7)))
