"""Who does the work, and what becomes of tasks whose worker is lost."""

import os
import signal
from concurrent.futures import BrokenExecutor, Executor, Future
from threading import Lock, Timer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_graph.errors import LimitError, UsageError
from mal_graph.searching import execution
from mal_graph.searching.execution import LOST, Engine, Workers, engine_of
from mal_graph.searching.tasks import Failure


class Fragile(Executor):
    """Breaks as a pool of processes does: with all that is under way, and for good. What it does takes a moment."""

    def __init__(self, killers):
        self.killers, self.is_broken = killers, False
        self.under_way, self.lock = [], Lock()

    def submit(self, fn, /, *args, **kwargs):
        if self.is_broken:
            raise BrokenExecutor
        future = Future()
        self.under_way.append(future)
        if args[0] not in self.killers:
            Timer(0.005, self.end, (future, fn, args)).start()
            return future
        with self.lock:
            self.is_broken = True
            for one in self.under_way:
                if not one.done():
                    one.set_exception(BrokenExecutor())
        return future

    def end(self, future, fn, args):
        with self.lock:
            if not future.done():
                future.set_result(fn(*args))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.sets(st.integers(0, 9)))
def test_a_task_that_ends_its_worker_costs_no_other_task_its_result(tasks, killers):
    workers = Workers(Engine(lambda: Fragile(killers), (BrokenExecutor,), "a fragile one"))
    found = dict(workers.results(lambda task: -task, tasks))
    assert found == {place: Failure(LOST) if task in killers else -task for place, task in enumerate(tasks)}


def double(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


@pytest.mark.slow
def test_a_killed_process_is_replaced():
    workers = Workers(engine_of(2, None))
    try:
        assert dict(workers.results(double, [1, -1, 2])) == {0: 2, 1: Failure(LOST), 2: 4}
    finally:
        workers.close()


def test_what_a_task_raises_is_raised():
    def refuse(task):
        raise UsageError("this worker is another version")

    with pytest.raises(UsageError, match="another version"):
        list(Workers(engine_of(1, None)).results(refuse, [1]))


def test_workers_of_two_kinds_are_refused():
    with pytest.raises(UsageError, match="`workers` is 2, and the workers of `scheduler` do the work"):
        engine_of(2, "tcp://localhost:1")


class Deaf(Executor):
    """Takes tasks and never does those of odd numbers, as a scheduler that went away while it was given them."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if args[0] % 2 == 0:
            Timer(0.05, lambda: future.set_result(fn(*args))).start()
        return future


def test_tasks_that_nobody_is_left_to_do_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(execution, "ANSWER", 0.01)  # seconds
    workers = Workers(Engine(Deaf, (BrokenExecutor,), "the workers of one", is_there=lambda: False))
    with pytest.raises(LimitError, match=r"the workers of one do no more work .they do not answer.: what was found is"):
        list(workers.results(abs, [1]))


def test_tasks_that_take_longer_than_an_answer_are_waited_for(monkeypatch):
    monkeypatch.setattr(execution, "ANSWER", 0.01)  # seconds
    asked = []
    workers = Workers(Engine(Deaf, (BrokenExecutor,), "slow ones", is_there=lambda: asked.append(1) or True))
    assert dict(workers.results(abs, [2, 4])) == {0: 2, 1: 4}
    assert asked


@pytest.mark.parametrize("is_there", [True, False])
def test_an_error_of_those_who_are_gone_is_not_that_of_a_task(is_there):
    """Dask sets errors of its own on tasks of a scheduler that goes away."""
    workers = Workers(Engine(execution.SerialExecutor, (), "the workers of one", is_there=lambda: is_there))
    says = "not a number" if is_there else r"the workers of one do no more work .not a number.: what was found is kept"
    for tasks in (lambda: dict(workers.results(refuse, [1])), lambda: workers.alone(refuse, 1)):
        with pytest.raises(ValueError if is_there else LimitError, match=says):
            tasks()


def refuse(_):
    raise ValueError("not a number")
