"""What holds a width: each function on axes that grow and shrink."""

import numpy as np
import pytest

from mal_graph.errors import ShapeError
from mal_graph.graph import Node
from mal_graph.operators import Layout, Resized, kept, part_lengths
from mal_graph.operators.contractions import conv_groups, transposed_conv_groups
from mal_graph.operators.indexing import gathered, slice_bounds
from mal_graph.operators.normalisation import norm_groups
from mal_graph.operators.sizes import output_sizes


def axis(size, gone=(), behind=()):
    """An axis without the indices `gone`, and with one added behind each of those in `behind`."""
    entries = [(old, 0) for old in range(size) if old not in gone] + [(old, 1) for old in behind]
    return Layout(size, *np.array(sorted(entries), np.int64).reshape(-1, 2).T)


def call(op, inputs, outputs, held="", values=(), **attributes):
    names = [f"i{slot}" for slot in range(max(len(inputs), len(values)))]
    node = Node("node", op, tuple(names), tuple(f"o{i}" for i in range(len(outputs))), attributes)
    return Resized(node, inputs, outputs, [*values, *[None] * (len(names) - len(values))], held)


GROWN, SHRUNK = axis(6, behind=[2, 5]), axis(6, gone=[1])


def test_a_layout_knows_where_everything_went():
    assert kept(3).is_kept
    assert not GROWN.is_kept
    assert not SHRUNK.is_kept
    assert len(GROWN) == 8
    assert GROWN.find([(2, 1), (3, 0)]) == [3, 4]
    with pytest.raises(ShapeError, match="still read"):
        SHRUNK.find([(1, 0)])


@pytest.mark.parametrize(
    ("held", "expected"), [([2, 6], [2, 8]), ([0, -1], [0, -1]), ([1, 6], [1, 8]), ([6], [8]), ([2, 1], [2, 1])]
)
def test_a_target_shape_follows_its_output_but_for_entries_with_a_meaning(held, expected):
    assert output_sizes(call("Reshape", [()], [(kept(2), GROWN)]), held) == expected


@pytest.mark.parametrize(
    ("source", "held", "outputs", "expected"),
    [
        (GROWN, [3, 3], (3, 3), [4, 4]),
        (GROWN, [], (3, 3), [4, 4]),
        (GROWN, [5, 1], (5, 1), [6, 2]),
        (SHRUNK, [3, 3], (3, 3), [2, 3]),
        (SHRUNK, [4], (), [3, 2]),  # one number for parts of a sequence, the last of them shorter
        (kept(6), [4], (), [4]),
    ],
)
def test_parts_are_as_long_as_what_is_in_them(source, held, outputs, expected):
    found = call("Split", [(kept(2), source)], [(kept(2), kept(size)) for size in outputs], axis=1)
    assert part_lengths(found, held) == expected


@pytest.mark.parametrize(
    ("source", "out", "starts", "ends", "expected"),
    [
        (GROWN, axis(3, behind=[2]), [0], [3], ([0], [4])),
        (GROWN, axis(3, behind=[2]), [3], [99], ([4], [8])),
        (GROWN, axis(3, behind=[2]), [-3], [6], ([4], [8])),
        (GROWN, kept(2), [3], [5], ([4], [6])),
        (SHRUNK, axis(3, gone=[1]), [0], [3], ([0], [2])),
        (kept(6), kept(2), [-2], [99], ([-2], [99])),
    ],
)
def test_a_slice_takes_the_same_indices_and_those_added_to_them(source, out, starts, ends, expected):
    for held, old, new in (("starts", starts, expected[0]), ("ends", ends, expected[1])):
        values = (None, np.array(starts), np.array(ends), np.array([1]))
        found = call("Slice", [(kept(2), source)], [(kept(2), out)], held, values)
        assert slice_bounds(found, old) == new


def test_a_slice_that_is_none_any_more_is_refused():
    found = call("Slice", [(GROWN,)], [(kept(3),)], "ends", (None, np.array([1]), np.array([4])))
    with pytest.raises(ShapeError, match="no slice any more"):
        slice_bounds(found, [4])


def test_indices_lead_to_the_same_entries():
    assert gathered(call("Gather", [(GROWN,)], [(axis(3, behind=[1]),)]), [0, -1, 3]) == [0, 6, 7, 4]
    assert gathered(call("Gather", [(SHRUNK,)], [(kept(2),)]), [0, 2]) == [0, 1]
    assert gathered(call("Gather", [(kept(6),)], [(kept(2),)]), [0, -1]) == [0, -1]
    assert gathered(call("Gather", [(kept(2), kept(6), GROWN)], [(kept(2), GROWN)], axis=1), [-1]) == [-1]
    assert gathered(call("Gather", [(GROWN, kept(4))], [(kept(4),)]), [3]) == [4]
    with pytest.raises(ShapeError, match="still read"):
        gathered(call("Gather", [(SHRUNK,)], [(kept(2),)]), [0, 1])
    with pytest.raises(ShapeError, match="several axes"):
        gathered(call("Gather", [(GROWN,)], [(kept(2), kept(2))]), [0, 1, 2, 3])


def test_groups_of_convolutions_follow_from_the_channels():
    depthwise = [(kept(2), GROWN), (GROWN, kept(1))]
    assert conv_groups(call("Conv", depthwise, [(kept(2), GROWN)]), [6]) == [8]
    halves = [(kept(2), GROWN), (kept(4), axis(3, behind=[2]))]
    assert conv_groups(call("Conv", halves, [(kept(2), kept(4))]), [2]) == [2]
    transposed = [(kept(2), GROWN), (GROWN, kept(1))]
    assert transposed_conv_groups(call("ConvTranspose", transposed, [(kept(2), GROWN)]), [6]) == [8]


def test_groups_of_a_norm_grow_alike_or_there_are_more_of_them():
    assert norm_groups(call("GroupNormalization", [(kept(2), GROWN)], []), [2]) == [2]
    whole = Layout(6, np.array([0, 1, 2, 3, 4, 5, 4, 5]), np.array([0] * 6 + [1] * 2))
    assert norm_groups(call("GroupNormalization", [(kept(2), whole)], []), [3]) == [4]
