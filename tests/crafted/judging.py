"""One command on one crafted file, in a process of its own, and what must not happen."""

import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from builders import mlp, save

from crafted.kind import Kind
from mal_graph.cli import app

SECONDS, MEMORY = 10.0, 512 * 2**20  # what a command may take on a file of a stranger, beyond what it is itself
INPUTS, VICTIM = ("base.onnx", "data.npz"), "victim"  # files in the folder, and one beside it that nobody may touch
PWNED, MARKUP = "pwned", "<script>alert(1)</script>"  # what payloads write, and what pages would run
PATIENCE = 12  # times as long it may take of the clock until it is ended: a busy machine tells nothing
CONTROL = re.compile(r"[^\n\x20-\x7e\xa0-\u200d\u2010-\u2029\u2030-\ufdff]")


@dataclass(frozen=True)
class Ran:
    """What became of a command: its exit code (less than 0: the signal), what it said, seconds of processors, its own
    and of what it ended, and bytes of memory."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int


def prepared(folder: Path) -> None:
    """A sound base and labelled data."""
    save(mlp((8, 16, 12, 5), seed=0), folder / "base.onnx")
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 5, 40)
    np.savez(folder / "data.npz", x=images, labels=labels)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    stats = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {str(path.relative_to(folder)): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def run_apart(words: tuple[str, ...], folder: Path, scratch: Path) -> Ran:
    """Run a command in a copy of this process that is ended when it takes too long."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(3 * SECONDS), int(3 * SECONDS) + 1))
            os.chdir(folder)
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            code = app.main(list(words))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > PATIENCE * SECONDS:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    out, err = ((scratch / name).read_text(errors="surrogateescape") for name in ("out", "err"))
    seconds = usage.ru_utime + usage.ru_stime
    return Ran(os.waitstatus_to_exitcode(status), out, err, seconds, 1024 * usage.ru_maxrss)


def own_memory() -> int:
    """What this process takes, which its copies begin with."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def faults_of(kind: Kind, ran: Ran, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """What a command must not do on any file."""
    faults = []
    if ran.code not in (app.GOOD, app.GATE_FAILED, app.BAD_INPUT):
        faults.append(f"ended with {signal.Signals(-ran.code).name if ran.code < 0 else ran.code}")
    if "Traceback" in ran.err or app.BUG in ran.err:
        faults.append("failed in a way that it should not")
    if CONTROL.search(ran.out + ran.err):
        faults.append(f"said {CONTROL.search(ran.out + ran.err)[0]!r}")
    if ran.code == app.BAD_INPUT and not re.fullmatch(r"((warning|note): [^\n]*\n)*error: [^\n]+\n", ran.err):
        faults.append("did not say one sentence")
    if ran.code == app.BAD_INPUT and before != after:
        faults.append("changed files")
    if not re.search(kind.says, ran.out + ran.err):
        faults.append(f"did not say {kind.says!r}")
    return faults


def harm_done(scratch: Path, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """What a file of a stranger had a command do."""
    faults = [f"changed the input {name}" for name in INPUTS if before.get(name) != after.get(name)]
    beside = sorted(path.name for path in scratch.iterdir())
    if beside != ["err", "here", "out", VICTIM] or (scratch / VICTIM).read_text() != VICTIM:
        faults.append("wrote outside of its folder")
    if PWNED in after:
        faults.append("ran what a file holds")
    pages = (path for path in (scratch / "here").rglob("*") if path.suffix in (".html", ".svg", ".md"))
    if any(path.is_file() and MARKUP in path.read_text(encoding="utf-8", errors="replace") for path in pages):
        faults.append("wrote a page that obeys a file")
    return faults


def tried(kind: Kind) -> tuple[Ran, list[str]]:
    """A kind made and met, and what was wrong."""
    scratch = Path(tempfile.mkdtemp(prefix="crafted"))
    folder = scratch / "here"
    folder.mkdir()
    try:
        prepared(folder)
        kind.build(folder)
        (scratch / VICTIM).write_text(VICTIM)
        before = contents(folder)
        ran = run_apart(kind.words, folder, scratch)
        after = contents(folder)
        return ran, [*faults_of(kind, ran, before, after), *harm_done(scratch, before, after)]
    finally:
        shutil.rmtree(scratch)
