"""Values that are computed once, whoever reads them and how often."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from mal_graph import shelves
from mal_graph.boxes import Boxed, take_box
from mal_graph.errors import FileError
from mal_graph.shelves import Once, Shelf


class Counted(Boxed):
    """An array, and how often it was asked for."""

    def __init__(self, array):
        self.array, self.times = array, 0

    def __call__(self):
        return self.open()(tuple(map(slice, self.array.shape)))

    def open(self):
        self.times += 1
        return lambda box: take_box(self.array, box)


def array_of(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def once(values, shelf):
    return Once(values, values.array.shape, values.array.dtype, shelf)


@pytest.mark.parametrize("large", [1, 1 << 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_values_are_computed_once_in_files_and_in_memory(large, dtype, monkeypatch):
    monkeypatch.setattr(shelves, "LARGE", large)
    shelf = Shelf()
    several = [Counted(array_of(shape, dtype, seed)) for seed, shape in enumerate([(70, 3, 2), (5,), (1, 9)])]
    kept = [once(values, shelf) for values in several]
    for _ in range(2):
        for values, one in zip(several, kept, strict=True):
            assert np.array_equal(one(), values.array)
            box = tuple(slice(1, None, None) if length > 1 else slice(0, 1) for length in values.array.shape)
            assert np.array_equal(one.open()(box), values.array[box])
            assert not one().flags.writeable or large > 1
    assert [values.times for values in several] == [1, 1, 1]


def test_threads_that_read_at_once_compute_once(monkeypatch):
    monkeypatch.setattr(shelves, "LARGE", 1)
    values = Counted(array_of((300, 300), np.float32))
    one = once(values, Shelf())
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda _: one().sum(), range(8)))
    assert (values.times, len(set(read))) == (1, 1)


def test_the_file_goes_with_the_last_who_reads_it(monkeypatch, tmp_path):
    monkeypatch.setattr(shelves, "LARGE", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    one = once(Counted(array_of((4, 4), np.float32)), Shelf())
    read = one()
    assert list(Path(tmp_path).iterdir()) == []
    del one
    gc.collect()
    assert read.shape == (4, 4)
    assert read.sum() == array_of((4, 4), np.float32).sum()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # what is mapped stays until it is let go
    del read
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(shelves, "LARGE", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(FileError, match=r"cannot keep merged values in .*gone: No such file .*; make room, or name"):
        once(Counted(array_of((4, 4), np.float32)), Shelf())()
