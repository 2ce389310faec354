"""What a job will hold is told before anything is computed, from the sizes of weights alone."""

from dataclasses import replace

import pytest
from builders import mlp
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph import memory_budget
from mal_graph.config import MergeConfig
from mal_graph.errors import MemoryLimitError
from mal_graph.workflows.job_memory import job_bytes, job_needs, refuse_short_memory

METHODS = st.sampled_from(["mal", "average", "union", "auto", "karcher", "c2m3"])


def unread(factor):
    """A model whose layers are so many times as wide as a small one's, of which no value can be read."""

    def read():
        pytest.fail("a weight was read")

    graph = mal_graph.load(mlp((8, 16, 16, 5)))
    weights = [
        replace(weight, shape=tuple(factor * length for length in weight.shape), read=read)
        for weight in graph.weights.values()
    ]
    return graph.with_weights(weights)


@settings(max_examples=8, deadline=None)
@given(METHODS, st.integers(1, 400), st.integers(1, 400))
def test_a_job_of_larger_models_holds_more_and_nothing_is_read_to_say_so(method, factor, more):
    config = MergeConfig(method=method)
    small, large = unread(factor), unread(factor + more)
    assert 0 < job_bytes([small, small], config) < job_bytes([large, large], config)
    assert job_bytes([small, small], config) <= job_bytes([small, small, small], config)
    assert job_bytes([small, small], config) <= job_bytes([small, large], config)


@settings(max_examples=8, deadline=None)
@given(METHODS, st.integers(100, 400))
def test_a_job_begins_with_the_least_that_it_says_and_not_with_less(method, factor):
    graphs = [unread(factor), unread(factor)]
    most = max(need.least_bytes for need in job_needs(graphs, MergeConfig(method=method)))
    refuse_short_memory(graphs, MergeConfig(method=method, max_memory=max(most, memory_budget.LEAST_MEMORY)))
    if most > memory_budget.LEAST_MEMORY:
        with pytest.raises(MemoryLimitError, match=r"would take about .* and may take .*: give more with `max_memory`"):
            refuse_short_memory(graphs, MergeConfig(method=method, max_memory=most - 1))
