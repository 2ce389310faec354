"""Boxes of tensors: laid end to end they are the tensor, whatever its shape."""

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mal_graph.boxes import Boxed, BoxesOf, contiguous_boxes, read_whole, take_box, within

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def numbers(shape):
    return np.arange(1, 1 + prod(shape), dtype=np.float32).reshape(shape)


@given(shapes, st.integers(1, 40))
def test_boxes_lie_end_to_end_in_the_order_of_the_file(shape, most):
    values = numbers(shape)
    boxes = list(contiguous_boxes(shape, most))
    parts = [values[(*box, ...)] for box in boxes]
    assert np.array_equal(np.concatenate([part.ravel() for part in parts] or [values.ravel()]), values.ravel())
    assert all(0 < part.size <= most for part in parts)


@given(shapes, st.integers(1, 40))
def test_boxes_are_no_more_than_the_shape_asks_for(shape, most):
    """Each but the last one along an axis is as long as it may be: no tensor is cut into single numbers."""
    inner = 1
    for length in reversed(shape):
        if inner * length > most:
            break
        inner *= length
    assert len(list(contiguous_boxes(shape, most))) <= -(-prod(shape) // inner) if inner else True


@given(shapes.filter(lambda shape: 0 not in shape), st.data())
def test_a_box_of_any_positions_holds_what_stands_there_and_zero_at_none(shape, data):
    values = numbers(shape)
    box = []
    for length in shape:
        first = data.draw(st.integers(0, length - 1))
        listed = st.lists(st.integers(-1, length - 1), min_size=1, max_size=7).map(np.array)
        box.append(data.draw(st.one_of(st.just(slice(first, data.draw(st.integers(first + 1, length)))), listed)))
    positions = [np.arange(s.start, s.stop) if isinstance(s, slice) else s for s in box]
    expected = np.zeros([len(p) for p in positions], np.float32)
    for place in np.ndindex(expected.shape):
        index = [int(p[i]) for p, i in zip(positions, place, strict=True)]
        expected[place] = values[tuple(index)] if min(index, default=0) >= 0 else 0
    for stored in (values, values.copy(order="F")):  # and where the rows do not lie together
        assert np.array_equal(take_box(stored, tuple(box)), expected)
    assert np.array_equal(values, numbers(shape))


class Held(Boxed):
    """Values in memory."""

    def __init__(self, values):
        self.values = values

    def __call__(self):
        return self.values

    def open(self):
        return BoxesOf(self.values)


@given(shapes)
def test_what_is_read_box_by_box_is_the_whole(shape):
    values = numbers(shape)
    assert np.array_equal(read_whole(Held(values), shape, values.dtype), values)
    assert not read_whole(Held(values), shape, values.dtype).flags.writeable


def test_positions_inside_positions_stay_absent():
    outer = np.array([3, -1, 0])
    assert within(outer, slice(1, 3)).tolist() == [-1, 0]
    assert within(outer, np.array([2, -1, 1])).tolist() == [0, -1, -1]
    assert within(slice(0, 3), slice(1, 2)) == slice(1, 2)
