"""Positions of two networks are paired by their names, or said to have no partner."""

import numpy as np
import pytest
from builders import Net, deviation, permuted_copy, run
from hypothesis import given
from hypothesis import strategies as st

import mal_graph
from mal_graph.matching.named_positions import Misnamed, in_order_of_names, pair_by_names
from mal_graph.symmetry import axis_groups


def named(*numbers):
    return np.array(numbers, np.uint64)


@given(
    st.lists(st.integers(1, 99), min_size=1, unique=True).flatmap(lambda n: st.tuples(st.just(n), st.permutations(n)))
)
def test_positions_of_one_name_are_paired(names):
    mine, theirs = (named(*side) for side in names)
    paired = pair_by_names(mine, theirs)
    if paired is None:
        assert np.array_equal(mine, theirs)
        return
    own, others = paired
    assert np.array_equal(own, np.arange(len(mine)))
    assert np.array_equal(mine[own], theirs[others])


def test_what_one_of_two_has_alone_is_left():
    own, others = pair_by_names(named(5, 6, 7), named(8, 7, 5))
    assert (own.tolist(), others.tolist()) == ([0, 2], [2, 1])


@pytest.mark.parametrize(("mine", "theirs"), [((0, 0), (0, 0)), ((1, 2), (1, 2)), ((1, 0), (1, 0)), ((1, 1), (1, 1))])
def test_equal_names_leave_the_order_as_it_is_stored(mine, theirs):
    assert pair_by_names(named(*mine), named(*theirs)) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        ((1, 2), (0, 0), "in one model alone"),
        ((0, 0), (1, 2), "in one model alone"),
        ((1, 2), (2, 0), "in one model alone"),
        ((1, 1, 2), (2, 1, 1), "nothing tells apart"),
        ((1, 2), (3, 4), "other indices of the inputs and outputs"),
    ],
)
def test_positions_that_cannot_be_paired_are_refused_with_the_reason(mine, theirs, told):
    with pytest.raises(Misnamed, match=told):
        pair_by_names(named(*mine), named(*theirs))


UNITS = np.arange(4).reshape(2, 2)  # two units of two positions each


def test_the_positions_of_units_are_put_in_one_order():
    mine, theirs = in_order_of_names((UNITS, UNITS), (named(1, 2, 1, 2), named(2, 1, 2, 1)))
    assert mine.tolist() == [[0, 1], [2, 3]]
    assert theirs.tolist() == [[1, 0], [3, 2]]


def test_units_without_names_and_those_of_one_position_stay():
    none = named(0, 0, 0, 0)
    assert in_order_of_names((UNITS, UNITS), (none, none)) == (UNITS, UNITS)
    single = UNITS.reshape(4, 1)
    assert in_order_of_names((single, single), (named(1, 2, 3, 4), named(4, 3, 2, 1))) == (single, single)


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        ((1, 2, 1, 2), (1, 3, 1, 3), "other indices"),
        ((1, 2, 1, 2), (0, 0, 0, 0), "other indices"),
        ((1, 2, 1, 3), (1, 2, 1, 3), "other indices"),
    ],
)
def test_units_of_other_names_are_refused(mine, theirs, told):
    with pytest.raises(Misnamed, match=told):
        in_order_of_names((UNITS, UNITS), (named(*mine), named(*theirs)))


def test_units_of_which_positions_share_a_name_are_refused_in_another_order():
    units = np.arange(6).reshape(2, 3)
    with pytest.raises(Misnamed, match="nothing tells apart"):
        in_order_of_names((units, units), (named(1, 1, 2, 1, 1, 2), named(1, 2, 1, 1, 2, 1)))


@given(st.permutations(range(1, 8)), st.permutations(range(1, 8)))
def test_every_name_stands_beside_itself(mine, theirs):
    mine, theirs = named(*mine), named(*theirs)
    found = pair_by_names(mine, theirs)
    if found is None:
        assert (mine == theirs).all()
        return
    own, others = found
    assert (mine[own] == theirs[others]).all()
    assert own.tolist() == list(range(7))


def test_what_only_one_model_reads_has_no_partner():
    own, others = pair_by_names(named(1, 2, 3), named(3, 9, 1))
    assert own.tolist() == [0, 2]
    assert others.tolist() == [2, 0]


def test_without_names_nothing_is_paired():
    assert pair_by_names(named(0, 0), named(0, 0)) is None


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
        pair_by_names(named(*mine), named(*theirs))


def test_the_positions_of_each_unit_come_in_one_order_of_their_names():
    mine, theirs = np.array([[0, 1], [2, 3]]), np.array([[0, 1], [2, 3]])
    own, others = in_order_of_names((mine, theirs), (named(5, 6, 5, 6), named(6, 5, 6, 5)))
    assert own.tolist() == [[0, 1], [2, 3]]
    assert others.tolist() == [[1, 0], [3, 2]]


def test_units_of_other_positions_are_refused():
    positions = np.array([[0, 1], [2, 3]])
    with pytest.raises(Misnamed):
        in_order_of_names((positions, positions), (named(5, 6, 5, 6), named(5, 7, 5, 7)))


@pytest.mark.parametrize("seed", range(6))
def test_entries_of_a_table_that_nothing_reads_say_nothing(seed):
    """Their numbers are those of no unit: an alignment that counted them would put the others out of order."""
    net = Net(seed)
    ids = net.op("Add", net.input("ids", ("N", 4), "int64"), net.constant(np.array([2])))
    table = net.op("Gather", net.weight(7, 6, name="table"), ids)
    graph = net.graph(net.linear(net.op("Relu", net.linear(net.op("Flatten", table), 24, 5)), 5, 3))
    donor, _ = permuted_copy(graph, axis_groups(graph), seed=1)
    rows = np.array(donor.weights["table"].read())
    rows[:2] = 5 * np.random.default_rng(seed).standard_normal((2, 6))
    donor = donor.with_weights({"table": rows})
    result = mal_graph.assemble(graph, donor, lam=0.5)
    inputs = {"ids": np.random.default_rng(seed).integers(0, 5, (9, 4))}
    assert deviation(run(result.graph, inputs), run(graph, inputs)) < 1e-5
    assert {pair.base.name for pair in result.merged[0].plan.merged_pairs} == {
        layer.name for layer in result.merged[0].match.base
    }
