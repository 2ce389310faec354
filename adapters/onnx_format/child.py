"""Runs models in a process of their own, within limits: what crashes, hangs or takes too much ends that process alone.

One process serves all models of a command, one after the other. A session whose process was ended by another model is
opened again in the next one, when it is next used.

Chosen: a fresh interpreter that loads the runtime alone, told by JSON what to do, with models and arrays in memory that
both see. Refused: `multiprocessing` - its spawned children run the user's main module again, and its messages are
pickles; a fork of this process - it would hold all that this one holds, and the runtime's threads do not survive it;
RLIMIT_AS, which counts mapped files.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from mal_graph.errors import LimitError, MemoryLimitError, RunError, TimeLimitError
from mal_graph.graph import Array
from mal_graph.limits import Limits
from mal_graph.memory_bound import data_bytes

from .sessions import BuiltModel, threads_wanted
from .wire import Link, Tray, file_of

START = 60.0  # seconds until a process has loaded the runtime
GRACE = 1.0  # seconds that a run may take to end by itself when its time is up
STACK = 8 * 2**20  # bytes that a thread sets apart, where the system sets no bound
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from mal_graph_adapters.onnx_format.worker import main; main(*map(int, sys.argv[2:]))"
)


Build = Callable[[], BuiltModel]


class Process:
    """One process that runs models, from its start to its end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.link, self.coming, self.going = Link(ours), Tray.made(), Tray.made()
        handles = (theirs.fileno(), self.coming.handle, self.going.handle)
        with theirs:
            self.popen = started(handles)
        self.end = weakref.finalize(self, end_process, self.popen, ours, self.coming, self.going)
        self.held: dict[int, int] = {}  # bytes of the models of each session
        self.closed: list[int] = []
        self.own = 0  # bytes that it takes before there is a model

    def wait_until_ready(self) -> None:
        """Return when the runtime is loaded. Raises TimeoutError, EOFError or OSError."""
        if not self.own:
            self.link.receive(monotonic() + START)
            self.own = data_bytes(self.popen.pid)
            if not self.own:
                raise EOFError("the process has ended")

    def allow(self, memory: int) -> None:
        """Let it take so many bytes more than it took before there was a model; never less than it may now."""
        before, hard = resource.prlimit(self.popen.pid, resource.RLIMIT_DATA)
        threads = threads_wanted() or os.cpu_count() or 1
        wanted = self.own + memory + (len(self.held) + 1) * threads * stack_bytes()
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if before == resource.RLIM_INFINITY or before < wanted:
            resource.prlimit(self.popen.pid, resource.RLIMIT_DATA, (wanted, hard))

    def how_it_ended(self) -> str:
        """The signal or code that it ended with."""
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(GRACE)
        code = self.popen.poll()
        if code is None:
            return "it fell silent"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def started(handles: Sequence[int]) -> "subprocess.Popen[bytes]":
    """A fresh interpreter that runs models.

    Args:
        handles: of its end of the connection, and of where arrays come and go.
    """
    path = json.dumps([entry for entry in sys.path if entry])  # not the current folder, which may be a stranger's
    return subprocess.Popen(
        [sys.executable, "-I", "-c", BOOT, path, *map(str, handles)],
        pass_fds=handles,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what native code prints may hold what the file holds
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt of the terminal is for the command alone
    )


def end_process(popen: "subprocess.Popen[bytes]", connection: socket.socket, *trays: Tray) -> None:
    """End a process, whatever it does, and let go of what it was given."""
    popen.kill()
    popen.wait()
    connection.close()
    for tray in trays:
        tray.close()


def stack_bytes() -> int:
    """What a thread sets apart for its stack."""
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return STACK if soft == resource.RLIM_INFINITY else soft


class Child:
    """The process that runs the models of one command; where one has ended, the next."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.process = Process()
        self.count = 0  # of all sessions
        self.lock = Lock()

    def open(
        self,
        build: Build,
        *,
        kind: str = "runtime",
        optimize: bool = False,
        threads: int | None = None,
        deadline: float | None = None,
    ) -> "ChildSession":
        """A session of one of the worker's `KINDS` on a model. Raises RunError or LimitError."""
        options = {"kind": kind, "optimize": optimize, "threads": threads}
        return ChildSession(self, build, options, deadline)

    def load(self, path: Path) -> None:
        """See that the runtime loads a file. Raises RunError or LimitError."""
        self.look_at("load", path)

    def check(self, path: Path) -> None:
        """Have the checker of onnx look at a file. Raises RunError or LimitError."""
        self.look_at("check", path)

    def look_at(self, call: str, path: Path) -> None:
        """Have a file, and the data beside it, opened. Raises RunError or LimitError."""
        beside = (one for one in path.parent.iterdir() if one.name.startswith(path.name))
        message = {"call": call, "name": str(path), "path": str(path.absolute())}
        self.ask(message, str(path), sum(one.stat().st_size for one in beside))

    def convert(self, name: str, content: bytes, version: int) -> bytes:
        """A serialized model in another version of the standard operators. Raises RunError or LimitError."""
        message = {"call": "convert", "name": name, "version": version}
        with file_of(content) as handle:
            made: Array = self.ask(message, name, len(content), files=[handle])["made"]["model"]
        return made.tobytes()

    def next_key(self) -> int:
        self.count += 1
        return self.count

    def ask(
        self,
        message: dict[str, Any],
        name: str,
        held: int,
        deadline: float | None = None,
        arrays: Mapping[str, Mapping[str, Array]] | None = None,
        files: Sequence[int] = (),
    ) -> dict[str, Any]:
        """What the process says to a message; arrays that it made are taken out.

        Args:
            message, arrays, files: what is sent.
            name, held: the model and its bytes.

        Raises:
            RunError: the runtime refused, or the deadline passed.
            LimitError: the process ended; MemoryLimitError or TimeLimitError where it took, or would have taken, more
                than it may.
        """
        with self.lock:
            process = self.process
            seconds = self.limits.seconds_for(held)
            try:
                process.wait_until_ready()
                process.allow(self.limits.memory_for(held + sum(process.held.values())))
                until = monotonic() + seconds
                until = until if deadline is None else min(until, deadline + GRACE)
                process.coming.clear()
                laid = {part: process.coming.lay(own.items()) for part, own in (arrays or {}).items()}
                closed, process.closed = process.closed, []
                process.link.send({**message, **laid, "closed": closed, "deadline": deadline}, files)
                reply, _ = process.link.receive(until)
                made = {key: process.going.taken(one, is_copy=True) for key, one in reply.pop("made", {}).items()}
            except TimeoutError:
                self.replace(process)
                if deadline is not None and monotonic() >= deadline:
                    raise RunError(f"{name} was not through when its time was up") from None
                raise TimeLimitError(too_long(name, seconds)) from None
            except (EOFError, OSError) as error:
                is_over = isinstance(error, EOFError | ConnectionError | ProcessLookupError)
                how = process.how_it_ended() if is_over else str(error)
                self.replace(process)
                raise ended(name, how, self.limits.memory_for(held)) from None
            except BaseException:  # an interrupt: its answer would be taken for that to the next message
                self.replace(process)
                raise
        if reply.get("is_short"):
            raise short(reply["error"], self.limits.memory_for(held))
        if "error" in reply:
            raise RunError(reply["error"])
        return {**reply, "made": made}

    def replace(self, process: Process) -> None:
        """End a process and start the next one."""
        process.end()
        self.process = Process()


def too_long(name: str, seconds: float) -> str:
    return (
        f"{name} was not through after {seconds:.3g} seconds, which is all that it may take: give more with `timeout`"
    )


def short(reason: str, memory: int) -> MemoryLimitError:
    return MemoryLimitError(f"{reason} (it may take {memory / 2**20:.0f} MiB: give more with `max_memory`)")


def ended(name: str, how: str, memory: int) -> LimitError:
    fault = f"{name} ended the process that ran it ({how})"
    if how in ("SIGABRT", "SIGKILL", "SIGSEGV", "SIGBUS"):  # so do allocations that fail where nobody looks
        return short(fault, memory)
    return LimitError(f"{fault}: leave it out, or export it again")


class ChildSession:
    """One session in another process."""

    def __init__(self, child: Child, build: Build, options: Mapping[str, Any], deadline: float | None) -> None:
        self.child, self.build, self.options = child, build, options
        self.open(deadline)

    def open(self, deadline: float | None) -> None:
        """Make it ready. Raises RunError or LimitError."""
        model, self.key = self.build(), self.child.next_key()
        self.name, self.held, self.process = model.name, len(model.content) + model.fed, self.child.process
        message = {
            "call": "open",
            "key": self.key,
            "name": model.name,
            "written": sorted(model.written),
            **self.options,
        }
        with file_of(model.content) as handle:
            reply = self.child.ask(message, model.name, self.held, deadline, files=[handle])
        self.types: Mapping[str, str] = reply["types"]
        self.inputs = frozenset(reply["inputs"])
        self.process.held[self.key] = self.held
        weakref.finalize(self, forget, self.process, self.key)

    def run(
        self,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        read: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        if self.process is not self.child.process:  # another model has ended it
            self.open(deadline)
        fed = {name: array for name, array in {**inputs, **(weights or {})}.items() if name in self.inputs}
        message = {"call": "run", "key": self.key, "name": self.name, "read": None if read is None else list(read)}
        held = self.held + sum(array.nbytes for array in inputs.values())
        reply = self.child.ask(message, self.name, held, deadline, {"fed": fed})
        self.took: float = reply["took"]
        made: dict[str, Array] = reply["made"]
        return made


def forget(process: Process, key: int) -> None:
    """Have a session closed with the next message."""
    process.held.pop(key, None)
    process.closed.append(key)
