"""What a job will hold is told before anything is computed, from the sizes of weights alone."""

import re
from dataclasses import replace

import numpy as np
import pytest
from builders import mlp, save
from hypothesis import given, settings
from hypothesis import strategies as st

import mal_graph
from mal_graph import memory_budget
from mal_graph.config import MergeConfig, SearchConfig, ZooConfig
from mal_graph.errors import MemoryLimitError
from mal_graph.searching import search_job
from mal_graph.searching.search_memory import search_needs
from mal_graph.workflows import zoo_search
from mal_graph.workflows.job_memory import AROUND, job_bytes, job_needs, refuse_short_memory
from mal_graph.workflows.zoo_memory import zoo_needs

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


def zoo_bytes(base, donor, *, has_data=True, accepted=1):
    needs = zoo_needs(base, donor, ZooConfig(), has_data=has_data, accepted=accepted)
    return max(need.least_bytes for need in needs)


def search_bytes(base, donor, *, workers=1, merged=1, **options):
    needs = search_needs(base, donor, SearchConfig(workers=workers, **options), MergeConfig(method="linear"), merged)
    return max(need.least_bytes for need in needs)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_a_zoo_and_a_search_hold_more_than_a_merge_and_nothing_is_read_to_say_so(factor, more):
    small, large = unread(factor), unread(factor + more)
    for told, method in ((zoo_bytes, "mal"), (search_bytes, "linear")):
        merge = max(need.least_bytes for need in job_needs([small, small], MergeConfig(method=method)))
        assert merge < told(small, small) <= told(small, large) <= told(large, large)
        assert told(small, small) < told(large, large)
    assert zoo_bytes(small, small, has_data=False) <= zoo_bytes(small, small)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 20))
def test_each_accepted_donor_and_each_worker_takes_as_much_more(factor, few, more):
    model = unread(factor)
    kept = [zoo_bytes(model, model, accepted=count) for count in (0, few, few + more)]
    assert (kept[2] - kept[0]) * few == (kept[1] - kept[0]) * (few + more) > 0
    workers = [needs_of_workers(model, count) for count in (1, few, few + more)]
    assert workers == [count * workers[0] for count in (1, few, few + more)]
    assert search_bytes(model, model, merged=few) < search_bytes(model, model, merged=few + more)
    assert search_bytes(model, model, workers=few) <= search_bytes(model, model, workers=few + more)
    # Those of a scheduler work elsewhere.
    assert search_bytes(model, model, scheduler="tcp://here:1") <= search_bytes(model, model)


def needs_of_workers(model, workers):
    """What all workers hold, before the result is made."""
    needs = list(search_needs(model, model, SearchConfig(workers=workers), MergeConfig(method="linear")))
    (scored,) = (place for place, need in enumerate(needs) if need.step.startswith("scoring candidates"))
    return max(need.least_bytes for need in needs[: scored + 1])


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Paths of a base, a donor like it and one that takes more memory, and data."""
    monkeypatch.setattr(memory_budget, "LEAST_MEMORY", 1)
    for place, name in enumerate(("base.onnx", "small.onnx", "large.onnx")):
        save(mlp((8, (16, 16, 2000)[place], 5), place), tmp_path / name)
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((120, 8)).astype(np.float32), "labels": rng.integers(0, 5, 120)}
    return *(str(tmp_path / name) for name in ("base.onnx", "small.onnx", "large.onnx")), data


TOO_LARGE = r"would take about .* MiB.*may take 49 MiB: give more with `max_memory`"


def test_a_zoo_leaves_out_what_does_not_fit_and_says_so_before_it_begins(three, monkeypatch):
    base, small, large, data = three
    begun = []
    decide = zoo_search.decide_on_all
    monkeypatch.setattr(zoo_search, "decide_on_all", lambda *given: begun.extend(given[1]) or decide(*given))
    found = mal_graph.zoo(base, [small, large], data, max_memory=AROUND + 2**18)
    assert [bool(entry.reason) for entry in begun] == [False, True]
    assert re.search(TOO_LARGE, begun[1].reason)
    assert [outcome.verdict == "skipped" for outcome in found.outcomes] == [False, True]


def test_a_search_leaves_out_a_donor_that_does_not_fit(three):
    base, small, large, data = three
    found = mal_graph.search(base, [small, large], data, trials=3, max_memory=AROUND + 2**18)
    assert len(found.donors) == 1
    assert re.search(TOO_LARGE, found.refused["large.onnx"])


def test_a_search_that_does_not_fit_says_so_before_it_begins(three, monkeypatch):
    base, small, _, data = three
    begun = []
    monkeypatch.setattr(search_job, "searched", lambda *given: begun.append(given))
    with pytest.raises(
        MemoryLimitError, match=r"would take about .* MiB.*may take 80 MiB: give more with `max_memory`"
    ):
        mal_graph.search(base, [small], data, workers=2, max_memory=80 << 20)
    assert not begun
