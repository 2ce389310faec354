"""Laws of orders hold by orders: no number of a copy is put in its place behind them, which would hide a wrong one."""

import pytest

from mal_graph.workflows import steps


@pytest.fixture(autouse=True)
def by_orders_alone(monkeypatch):
    monkeypatch.setattr(steps, "is_copy_out_of_place", lambda *_: False)
