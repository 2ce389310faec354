"""Steps are refused before they start where they would take more memory than there is, by estimates that hold."""

import gc
import tracemalloc

import numpy as np
import pytest
from builders import correspondence_of, mlp, save
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mal_graph import memory_budget
from mal_graph.errors import MemoryLimitError
from mal_graph.limits import Limits, limited
from mal_graph.matching import assign_units
from mal_graph.matching.alignment_memory import alignment_need
from mal_graph.matching.objective import MOST_HELD, Objective

STYLES = st.sampled_from(["gemm", "gemm_nt", "matmul"])
TYPES = st.sampled_from(["float32", "float16"])
SMALL = 2**17  # bytes of what does not grow with the models: lists, names, what was not imported before


@pytest.fixture
def _no_floor(monkeypatch):
    """Small models need less than a process is given in any case."""
    monkeypatch.setattr(memory_budget, "LEAST_MEMORY", 0)


def pair_of(widths, donor_widths=None, styles=("gemm", "gemm"), dtype="float32"):
    sides = [(widths, 0, styles[0]), (donor_widths or widths, 1, styles[1])]
    return correspondence_of(*(mlp(*side, dtype=dtype) for side in sides))


@settings(max_examples=4, deadline=None)
@example([300] * 4, ("gemm", "gemm"), "float32", False)  # large enough for the start that holds most, soft orders
@given(st.lists(st.integers(80, 160), min_size=1, max_size=3), st.tuples(STYLES, STYLES), TYPES, st.booleans())
def test_an_alignment_holds_no_more_than_was_said_before(widths, styles, dtype, is_narrower):
    """Its tables and the values it reads; what is said is not many times more either, or much would be refused."""
    donor = [width // 2 if is_narrower else width for width in widths]
    pair = pair_of((20, *widths, 5), (20, *donor, 5), styles, dtype)
    need = alignment_need(pair, False, MOST_HELD)
    gc.collect()
    tracemalloc.start()
    assign_units(pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= need.least_bytes + need.kept + SMALL
    assert need.least_bytes + need.kept <= 3 * peak


@pytest.mark.usefixtures("_no_floor")
def test_with_the_least_memory_units_are_assigned_as_with_all():
    """Fewer tables are kept; they are made anew with the same numbers but for rounding."""
    pair = pair_of((12, 40, 40, 40, 5))
    whole, need = assign_units(pair), alignment_need(pair, False, MOST_HELD)
    with limited(Limits(max_memory=need.least_bytes)):
        assert Objective(pair).most_held == 0
        least = assign_units(pair)
    assert all(map(np.array_equal, least.orders, whole.orders))
    says = r"^aligning .* with .* would take about 1 MiB, or at least 1 MiB \(.* for tables of scores, .*give more with"
    with limited(Limits(max_memory=need.least_bytes - 1)), pytest.raises(MemoryLimitError, match=says):
        assign_units(pair)


@pytest.mark.usefixtures("_no_floor")
def test_a_file_that_would_take_too_much_to_write_is_not_begun(tmp_path):
    """The file that is there stays as it was; a model with data beside it takes what a few boxes take."""
    model, path = mlp((8, 300, 300, 5)), tmp_path / "m.onnx"
    before = save(mlp(), path).read_bytes()
    with limited(Limits(max_memory=300 * 300 * 4)):
        with pytest.raises(MemoryLimitError, match=r"^writing .*m\.onnx would take about at least .* the model file"):
            save(model, path)
        assert path.read_bytes() == before
    save(model, path)
    assert path.read_bytes() != before


def test_what_is_available_is_told_by_the_system():
    assert memory_budget.memory_budget() > 2**20
    with limited(Limits(max_memory=2**30)):
        assert memory_budget.memory_budget() == 2**30
