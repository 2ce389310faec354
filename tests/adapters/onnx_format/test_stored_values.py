"""A box of a tensor in a file is what the array has there, whichever way the file is read."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph.boxes import contiguous_boxes, take_box
from mal_graph.errors import FileError
from mal_graph_adapters.onnx_format import stored_values
from mal_graph_adapters.onnx_format.stored_values import TensorValues

OFFSET = 12  # where a tensor begins in its file
SHAPES = st.lists(st.integers(1, 7), max_size=4).map(tuple)


def stored(folder, values):
    """An array as a tensor in a file, with other bytes before and behind it."""
    (folder / "w.data").write_bytes(b"\xff" * OFFSET + values.tobytes() + b"\xff" * OFFSET)
    shape, dtype = ir.Shape(values.shape), ir.DataType.from_numpy(values.dtype)
    return ir.ExternalTensor("w.data", OFFSET, values.nbytes, dtype, shape=shape, name="w", base_dir=folder)


def stretches(length):
    """Some positions of an axis in order, or any in any order, -1 for none."""
    ends = st.tuples(st.integers(0, length), st.integers(0, length)).map(sorted)
    return ends.map(lambda two: slice(*two)) | st.lists(st.integers(-1, length - 1), max_size=9).map(np.array).map(
        lambda places: places.astype(np.int64)
    )


@settings(max_examples=300)
@given(st.data(), SHAPES, st.sampled_from([1, 2**12]), st.sampled_from([0, 2**16]), st.integers(1, 100))
def test_a_box_is_what_the_array_has_there(tmp_path_factory, data, shape, short, long, looked_through):
    values = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    box = tuple(data.draw(stretches(length)) for length in shape)
    with pytest.MonkeyPatch.context() as patch:
        for name, held in (("SHORT", short), ("LONG", long), ("LOOKED_THROUGH", looked_through)):
            patch.setattr(stored_values, name, held)
        read_box = TensorValues("w", stored(tmp_path_factory.getbasetemp(), values)).open()
        assert read_box.handle is not None
        assert np.array_equal(read_box(box), take_box(values, box))
        pieces = [read_box(each).ravel() for each in contiguous_boxes(shape, looked_through)]
        assert np.array_equal(np.concatenate(pieces), values.ravel())


def test_a_file_that_is_cut_off_between_a_look_and_a_call_is_named(tmp_path, monkeypatch):
    values = np.ones((4, 2048), np.float32)
    read_box = TensorValues("w", stored(tmp_path, values)).open()
    look, looks = stored_values.refuse_short_file, []

    def late(tensor, end):
        looks.append(end)
        if len(looks) > 1:
            look(tensor, end)

    monkeypatch.setattr(stored_values, "refuse_short_file", late)
    with (tmp_path / "w.data").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(FileError, match=r"cannot read weight 'w': .*w.data was cut off at 100 bytes, and it ends at"):
        read_box((slice(0, 2), slice(0, 2048)))
