"""One command in a process of its own: a copy of this one, which has loaded all that commands load."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from itertools import pairwise
from pathlib import Path

from mal_graph import registry
from mal_graph.cli import app
from mal_graph_adapters.onnx_format import child, worker

SECONDS = 10.0  # of processors that a command may take on a file of a stranger
PATIENCE = 12  # times as long it may take of the clock until it is ended: a busy machine tells nothing
PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)


@dataclass(frozen=True)
class Ran:
    """What became of a command.

    Attributes:
        code: its exit code; less than 0: the signal.
        seconds: of processors, its own and of all that it started.
        memory: bytes that the largest of them took.
        left: how many processes outlived it that had to be ended.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int
    left: int


class Copy:
    """A copy of a command that runs models for it, in place of an interpreter that first loads what this one has: as
    much of `subprocess.Popen` as is asked of it."""

    def __init__(self, handles: Sequence[int]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.setsid()
                quiet = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(quiet, stream)
                close_all_but(handles)
                worker.main(*handles)
            except SystemExit:
                code = 0
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        began = time.monotonic()
        while self.poll() is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired([], timeout)
            time.sleep(0.002)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def close_all_but(handles: Sequence[int]) -> None:
    """Close what is open, but the streams and these."""
    kept = [2, *sorted(handles), os.sysconf("SC_OPEN_MAX")]
    for before, after in pairwise(kept):
        os.closerange(before + 1, after)


def run_apart(words: tuple[str, ...], folder: Path, scratch: Path, is_fresh: bool = False) -> Ran:
    """Run a command in a copy of this process that is ended when it takes too long.

    Args:
        is_fresh: models run in a fresh interpreter, as a command runs them, and not in a copy of the command.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what outlives the command becomes a child of this process
    others, began = children(), time.monotonic()
    command = os.fork()
    if not command:
        do(words, folder, scratch, is_fresh)
    while True:
        done, status, usage = os.wait4(command, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > PATIENCE * SECONDS:
            os.killpg(command, signal.SIGKILL)
        time.sleep(0.005)
    left = [outlived(process) for process in children() - others]
    used = [usage, *(usage for usage, _ in left)]
    out, err = ((scratch / name).read_text(errors="surrogateescape") for name in ("out", "err"))
    seconds, memory = sum(one.ru_utime + one.ru_stime for one in used), max(one.ru_maxrss for one in used)
    ended_late = sum(is_late for _, is_late in left)
    return Ran(os.waitstatus_to_exitcode(status), out, err, seconds, 1024 * memory, ended_late)


def do(words: tuple[str, ...], folder: Path, scratch: Path, is_fresh: bool) -> None:
    """Become the command, and end with it."""
    code = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(3 * SECONDS), int(3 * SECONDS) + 1))
        os.chdir(folder)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if not is_fresh:
            child.started = Copy
        code = app.main(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def load_what_is_used(commands: Iterable[tuple[str, ...]], folder: Path) -> None:
    """Load what commands load when they are first used, told by copies of this process that ran them."""
    registry.adapters()
    registry.registered_runner("onnxruntime")
    for words in commands:
        note = folder / "loaded"
        command = os.fork()
        if not command:
            try:
                os.chdir(folder)
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    app.main(list(words))
                note.write_text(" ".join(name for name in sys.modules if name[0] != "_"))
            finally:
                os._exit(0)
        os.waitpid(command, 0)
        for name in note.read_text().split():
            with suppress(ImportError):  # of modules that others make
                import_module(name)


def children() -> set[int]:
    """The processes that this one has to wait for."""
    return {int(word) for path in Path("/proc/self/task").glob("*/children") for word in path.read_text().split()}


def outlived(process: int) -> tuple[resource.struct_rusage, bool]:
    """What a process took whose parent has ended, and whether it had to be ended: what runs models ends by itself."""
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        done, _, usage = os.wait4(process, os.WNOHANG)
        if done:
            return usage, False
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return os.wait4(process, 0)[2], True


def own_memory() -> int:
    """What a copy of this process takes that does nothing."""
    copy = os.fork()
    if not copy:
        os._exit(0)
    return 1024 * os.wait4(copy, 0)[2].ru_maxrss
