"""Who does the work: any `concurrent.futures.Executor`, and what becomes of tasks whose worker is lost.

Chosen: a worker that crashes, is killed or ends itself takes with it the tasks that were under way, whichever of them
was to blame; each is done once more, alone, and only what is lost again is given up. Refused: to count failures of each
task as they come - one bad task would use up the chances of all its neighbours.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

from mal_graph.errors import LimitError, UsageError
from mal_graph.searching.tasks import Failure

T = TypeVar("T")
R = TypeVar("R")

PRELOADED = "mal_graph.searching.warm"  # by the process that all workers are forked from
ANSWER = 10.0  # seconds that a scheduler has to answer, and after which it is asked whether it is still there
LOST = "its worker ended, twice: it crashed, was killed, or took longer than `task_timeout` allows"


class SerialExecutor(Executor):
    """Does every task at once, in this process."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Engine:
    """A kind of executor.

    Attributes:
        make: a new executor of this kind.
        lost: what a task raises whose worker was lost.
        name: what messages call it.
        close: lets go of what executors are made of.
        is_there: whether those who do the work still answer; asked where no task has ended for a while.
    """

    make: Callable[[], Executor]
    lost: tuple[type[BaseException], ...]
    name: str
    close: Callable[[], object] = lambda: None
    is_there: Callable[[], bool] = lambda: True


def engine_of(workers: int, scheduler: str | None, task_timeout: float | None = None) -> Engine:
    """What the options ask for: a process of its own even for one worker that may have to be ended. Raises
    UsageError."""
    if scheduler is not None:
        if workers > 1:
            raise UsageError(f"`workers` is {workers}, and the workers of `scheduler` do the work: give one of them")
        return dask_engine(scheduler)
    if workers == 1 and task_timeout is None:
        return Engine(SerialExecutor, (), "this process")
    name = f"{workers} processes" if workers > 1 else "the one process"
    return Engine(lambda: process_pool(workers), (BrokenExecutor,), name)


def engine_of_executor(make: Callable[[], Executor]) -> Engine:
    """What a user gives."""
    return Engine(make, (BrokenExecutor,), "the given executor")


# --- processes ----------------------------------------------------------------------------------------------------


def process_pool(workers: int) -> Executor:
    """Processes of this machine, each with the package loaded already where the system can fork them so."""
    is_forking = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if is_forking else "spawn")
    if is_forking:
        context.set_forkserver_preload([PRELOADED])
    return ProcessPoolExecutor(workers, context, initializer=begin_worker)


def begin_worker() -> None:
    """Leave interrupts to the process that searches, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: Any) -> None:
    """End this process when another one has ended: nobody waits for what it does."""
    parent.join()
    os._exit(1)


# --- a cluster ----------------------------------------------------------------------------------------------------


def dask_engine(scheduler: str) -> Engine:
    """The workers of a Dask scheduler. Raises UsageError where there is none, or Dask is not installed."""
    try:
        import distributed.scheduler
    except ImportError:
        raise UsageError(
            "`scheduler` needs Dask distributed, which is not installed: pip install 'mal-graph[cluster]', or leave "
            "it out"
        ) from None
    cluster: Any = distributed  # it has no types
    try:
        client = cluster.Client(scheduler, timeout=ANSWER)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"the scheduler {scheduler} does not answer ({type(error).__name__}): start it, or leave `scheduler` out "
            "and give `workers`"
        ) from None
    try:
        client.wait_for_workers(1, timeout=ANSWER)
    except TimeoutError:
        client.close()
        raise UsageError(
            f"the scheduler {scheduler} has no workers: start some, or leave `scheduler` out and give `workers`"
        ) from None
    lost = (cluster.scheduler.KilledWorker,)  # Dask has tried it on several workers by then
    name = identity_of(client)
    return Engine(
        lambda: client.get_executor(pure=False),
        lost,
        f"the workers of {scheduler}",
        client.close,
        lambda: name is not None and identity_of(client) == name,
    )


def identity_of(client: Any) -> str | None:
    """What a scheduler calls itself, another name each time it is started; None where it does not answer.

    Why it is asked: tasks given to a scheduler while it goes away can stay pending for ever, without an error.
    """
    try:
        return str(client.sync(client.scheduler.identity, callback_timeout=ANSWER)["id"])
    except (OSError, RuntimeError, AttributeError):  # the last two where the client has let go of its scheduler
        return None


# --- tasks --------------------------------------------------------------------------------------------------------


class Workers:
    """An engine at work; one that breaks is made anew. To be closed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.executor = engine.make()

    def close(self) -> None:
        """Let go of all that is not done yet."""
        self.executor.shutdown(wait=False)
        self.engine.close()

    def results(self, function: Callable[[T], R | Failure], tasks: Sequence[T]) -> Iterator[tuple[int, R | Failure]]:
        """What becomes of tasks, each with its place, as they are done; a `Failure` for what loses its worker twice.

        Raises LimitError where nobody is left to do them, and whatever the function raises.
        """
        places = {self.submit(function, task): place for place, task in enumerate(tasks)}
        lost = []
        try:
            for future in self.arriving(places):
                try:
                    yield places[future], self.outcome(future)
                except self.engine.lost:
                    lost.append(places[future])
        finally:
            for future in places:  # where the search is interrupted
                future.cancel()
        for place in sorted(lost):
            yield place, self.alone(function, tasks[place])

    def alone(self, function: Callable[[T], R | Failure], task: T) -> R | Failure:
        """What becomes of a task beside which nothing else is done."""
        (future,) = self.arriving([self.submit(function, task)])
        try:
            return self.outcome(future)
        except self.engine.lost:
            return Failure(LOST)

    def outcome(self, future: "Future[R]") -> R:
        """What a task gave. Raises what it raised, or LimitError where those who did it are not there any more: then
        engines set errors of their own on what they had to do."""
        try:
            return future.result()
        except self.engine.lost:
            raise
        except CancelledError:
            raise self.gone("they were cancelled") from None
        except Exception as error:
            if self.engine.is_there():
                raise
            raise self.gone(str(error)) from None

    def arriving(self, futures: Iterable["Future[R]"]) -> Iterator["Future[R]"]:
        """Futures as they are done. Raises LimitError where those who do the work are not there any more."""
        pending = set(futures)
        while pending:
            try:
                for future in as_completed(pending, timeout=ANSWER):
                    pending.discard(future)
                    yield future
            except TimeoutError:
                if not self.engine.is_there():
                    raise self.gone("they do not answer") from None

    def submit(self, function: Callable[[T], R], task: T) -> "Future[R]":
        """A task on its way; to a new executor where the old one is broken."""
        try:
            return self.executor.submit(function, task)
        except BrokenExecutor:
            self.executor.shutdown(wait=False)
            self.executor = self.engine.make()
            return self.executor.submit(function, task)
        except (RuntimeError, OSError) as error:
            raise self.gone(str(error)) from None

    def gone(self, why: str) -> LimitError:
        """That nobody is left to do the work: no task is to blame."""
        return LimitError(
            f"{self.engine.name} do no more work ({why}): what was found is kept; start them again, and go on with "
            "`resume`"
        )
