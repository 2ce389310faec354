"""Units are ranked alike however what reads them is cut into parts, and each place counts once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag

from mal_graph.compression.selection import Read, rank_units
from mal_graph.errors import DataError


def drawn(rng, units):
    """A part that reads some units, each in one cell."""
    rows = rng.normal(size=(len(units), 3 * len(units)))
    return Read(rows @ rows.T / rows.shape[1], rng.normal(size=(len(units), rng.integers(1, 6))), np.array(units))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), cuts=st.sets(st.integers(1, 8), max_size=6))
def test_parts_of_a_place_are_ranked_as_one_that_reads_them_apart(seed, cuts):
    rng, units = np.random.default_rng(seed), 9
    runs = np.split(rng.permutation(units), sorted(cuts))
    parts = [drawn(rng, run.tolist()) for run in runs]
    whole = Read(
        block_diag(*(part.covariance for part in parts)),
        block_diag(*(part.coefficients for part in parts)),
        np.concatenate(runs),
    )
    other = drawn(rng, list(range(units)))
    apart, joined = (rank_units([place, [other]], 1, units) for place in (parts, [whole]))
    assert np.array_equal(apart.order, joined.order)
    # float64 sums in another order, of shares up to 2: what is left is rounding of some 9 units and 27 samples.
    assert np.allclose(apart.explained, joined.explained, rtol=0, atol=1e-10)
    assert np.isclose(apart.explained[-1], 2)  # all of both places


@settings(max_examples=25)
@given(seed=st.integers(0, 2**16))
def test_the_order_follows_the_units(seed):
    rng, units = np.random.default_rng(seed), 7
    place, moved = drawn(rng, list(range(units))), rng.permutation(units)
    renamed = Read(place.covariance, place.coefficients, moved)
    before, after = (rank_units([[one]], 1, units) for one in (place, renamed))
    assert np.array_equal(moved[before.order], after.order)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    odd=st.sampled_from(
        [(name, value) for name in ("covariance", "coefficients") for value in (np.nan, np.inf)]
        + [("coefficients", 1e200)]  # a large covariance is no fault: units are scaled to one
    ),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what overflows
def test_what_overflows_is_refused_in_one_sentence(seed, odd):
    rng = np.random.default_rng(seed)
    place, (name, value) = drawn(rng, list(range(5))), odd
    values = np.array(getattr(place, name))
    spot = rng.integers(5)
    values[spot, spot if name == "covariance" else rng.integers(values.shape[1])] = value
    with pytest.raises(DataError, match=r"overflows, or is no number"):
        rank_units([[replace(place, **{name: values})]], 1, 5)
