"""Which input and output of the donor is which of the base's."""

import pytest
from builders import Net

from mal_graph.errors import MatchError, UsageError
from mal_graph.matching import pair_signatures


def two_inputs(first, second, seed=0):
    net = Net(seed)
    x, y = net.input(first, ("N", 3)), net.input(second, ("N", 4))
    both = net.op("Concat", x, y, axis=1)
    return net.graph(net.op("Gemm", both, net.weight(5, 7), transB=1))


def test_equal_names_pair_by_name_in_any_order():
    base = two_inputs("a", "b")
    donor = two_inputs("b", "a")
    found = pair_signatures(base, donor)
    assert found.inputs == {"a": "a", "b": "b"}
    assert found.by[0] == "name"


def test_other_names_pair_by_place():
    found = pair_signatures(two_inputs("a", "b"), two_inputs("u", "v"))
    assert found.inputs == {"a": "u", "b": "v"}
    assert found.by[0] == "place"


def test_names_shared_in_part_are_refused_unless_paired_by_hand():
    base, donor = two_inputs("a", "b"), two_inputs("a", "v")
    with pytest.raises(MatchError, match="have only a in common; pair the others with `pair`"):
        pair_signatures(base, donor)
    found = pair_signatures(base, donor, [("b", "v")])
    assert found.inputs == {"b": "v", "a": "a"}


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([("q", "a")], "'q', which is no input or output of the base"),
        ([("a", "q")], "'q', which is no input or output of the donor"),
        ([("a", "a"), ("a", "b")], "'a' of the base twice"),
    ],
)
def test_what_cannot_be_paired_by_hand(pairs, why):
    with pytest.raises(UsageError, match=why):
        pair_signatures(two_inputs("a", "b"), two_inputs("a", "b"), pairs)
