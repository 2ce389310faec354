"""How onnxruntime sessions are opened."""

import pytest

from mal_graph_adapters.onnx_format.sessions import threads_wanted


@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("4,2", 4), (" 3 ", 3), ("", 0), ("many", 0), ("-1", 0)])
def test_sessions_have_the_threads_that_the_environment_says(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_wanted() == threads


def test_sessions_have_one_thread_for_each_core_where_the_environment_says_nothing(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_wanted() == 0
