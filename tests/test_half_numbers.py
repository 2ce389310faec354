"""Numbers of two bytes are converted to the bits that numpy's own conversion gives, however many at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph import half_numbers
from mal_graph.half_numbers import FEW, FLOAT16, FLOAT32, as_float32, as_type

ALL = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = ALL[np.isfinite(ALL)]


def is_same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("values", [ALL, FINITE, FINITE[::3], FINITE[: FEW // 2], FINITE.reshape(2, -1).T, ALL[:0]])
def test_every_number_of_two_bytes_is_itself_in_four(values):
    assert is_same(as_float32(values), values.astype(np.float32))
    assert is_same(as_type(as_float32(FINITE), FLOAT16), FINITE)


def test_what_lies_between_two_numbers_goes_to_the_nearer_one_and_from_the_middle_to_the_even_one():
    grid = np.sort(FINITE.astype(np.float32))
    middles = ((grid[1:].astype(np.float64) + grid[:-1]) / 2).astype(np.float32)
    for values in (middles, *(np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf))):
        assert is_same(as_type(values, FLOAT16), values.astype(np.float16))


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.inf, -np.inf, np.nan, 65519.0, -65520.0, 1e-45]))
@settings(max_examples=3)
@np.errstate(all="ignore")
def test_any_bits_of_any_exponent_are_rounded_as_numpy_rounds_them(seed, odd):
    bits = np.random.default_rng(seed).integers(0, 2**32, FEW, np.uint32)
    for exponent in range(256):
        values = ((bits & np.uint32(0x807FFFFF)) | np.uint32(exponent << 23)).view(np.float32)
        assert is_same(as_type(values, FLOAT16), values.astype(np.float16))
        values[seed % FEW] = odd
        assert is_same(as_type(values, FLOAT16), values.astype(np.float16))


def test_other_types_and_what_is_right_already_are_left_to_numpy():
    numbers = np.linspace(-1, 1, 2 * FEW)
    for dtype in (np.float32, np.float64):
        values = numbers.astype(dtype)
        assert as_type(values, values.dtype) is values
        assert is_same(as_type(values, FLOAT32), values.astype(np.float32))
        assert is_same(as_float32(values), values.astype(np.float32))
    assert is_same(as_type(numbers, FLOAT16), numbers.astype(np.float16))


def test_a_processor_that_takes_small_numbers_for_zero_is_not_relied_on(monkeypatch):
    monkeypatch.setattr(half_numbers, "SMALLEST", np.float32(0))  # as it reads it then
    monkeypatch.setattr(half_numbers, "LIFT", np.float32(0))
    assert is_same(as_float32(FINITE), FINITE.astype(np.float32))
