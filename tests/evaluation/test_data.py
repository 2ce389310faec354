"""Data made ready for a model: what is taken as it is meant is noted, what cannot be meant is refused."""

import numpy as np
import pytest
from builders import Net, cnn, mlp

from mal_graph.errors import DataError
from mal_graph.evaluation import as_arrays, evaluate, prepare_data

NET = mlp((6, 8, 5), 0)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 6)).astype(np.float32)
LABELS = RNG.integers(0, 5, 30)


def test_a_path_and_a_dictionary_are_the_same_arrays(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, labels=LABELS)
    for data in (tmp_path / "d.npz", str(tmp_path / "d.npz"), {"x": X, "labels": LABELS}):
        arrays = as_arrays(data)
        assert list(arrays) == ["x", "labels"]
        np.testing.assert_array_equal(arrays["x"], X)
        assert evaluate(NET, data) == evaluate(NET, {"x": X, "labels": LABELS})


def test_nothing_is_noted_of_data_that_say_what_they_are():
    prepared = prepare_data(NET, {"x": X, "labels": LABELS})
    assert prepared.notes == ()
    np.testing.assert_array_equal(prepared.arrays["labels"], LABELS)


@pytest.mark.parametrize("place", [(0, 0), (3, 2)])
def test_nan_is_refused_with_the_sample(place):
    x = X.copy()
    x[place] = np.nan
    message = rf"the array for input 'x' holds NaN in sample {place[0]}: leave it out"
    with pytest.raises(DataError, match=message):
        evaluate(NET, {"x": x, "labels": LABELS})


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_one_hot_labels_are_taken_as_classes(dtype):
    data = {"x": X, "labels": np.eye(5, dtype=dtype)[LABELS]}
    prepared = prepare_data(NET, data)
    assert prepared.notes == ("the labels are one-hot and are taken as class numbers",)
    np.testing.assert_array_equal(prepared.arrays["labels"], LABELS)
    assert evaluate(NET, data) == evaluate(NET, {"x": X, "labels": LABELS})


def test_one_hot_values_stay_values_where_the_output_holds_values():
    data = {"x": X, "labels": np.eye(5, dtype=np.float32)[LABELS]}
    assert prepare_data(NET, data, output_kind="values").notes == ()
    assert evaluate(NET, data, output_kind="values").metric_name == "R2"


def test_other_tables_of_numbers_stay_values():
    target = RNG.standard_normal((30, 5)).astype(np.float32)
    assert evaluate(NET, {"x": X, "labels": target}).metric_name == "R2"
    assert prepare_data(NET, {"x": X, "labels": np.ones((30, 5), np.float32)}).notes == ()


def test_a_lone_array_of_integers_is_taken_as_the_labels():
    prepared = prepare_data(NET, {"image": X, "y": LABELS})
    assert prepared.notes == ("the array 'y' is taken as the labels",)
    np.testing.assert_array_equal(prepared.arrays["labels"], LABELS)
    assert list(prepared.arrays) == ["x", "labels"]


@pytest.mark.parametrize("more", [{"y": LABELS, "z": LABELS}, {"y": LABELS.astype(np.float32)}, {"y": LABELS[:, None]}])
def test_what_may_be_something_else_is_not_taken_as_the_labels(more):
    with pytest.raises(DataError, match=r"the data hold no labels"):
        evaluate(NET, {"x": X, **more})


def test_bytes_for_an_input_of_floats_are_noted():
    net = cnn((4,), 1, 0)
    images = RNG.integers(0, 256, (20, 3, 8, 8)).astype(np.uint8)
    prepared = prepare_data(net, {"x": images, "labels": LABELS[:20]})
    assert prepared.arrays["x"].dtype == np.float32
    (note,) = prepared.notes
    assert note.startswith("the array for input 'x' is uint8 and taken as float32 from 0 to 255: scale it")


def test_a_class_for_each_place_is_no_one_hot_row():
    """Two places, two classes: a table of zeros and ones, and a map for each sample."""
    net = Net(0)
    maps = net.graph(net.conv(net.input("x", ("N", 3, 2, 1)), 3, 2, 1))
    data = {
        "x": RNG.standard_normal((20, 3, 2, 1)).astype(np.float32),
        "labels": np.eye(2, dtype=np.int64)[LABELS[:20] % 2],
    }
    assert prepare_data(maps, data).notes == ()
    assert evaluate(maps, data).metric_name == "accuracy"
