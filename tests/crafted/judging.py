"""One command on one crafted file, and what must not happen."""

import csv
import io
import re
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from builders import mlp, save

from crafted.kind import Kind
from crafted.running import Ran, run_apart
from mal_graph.cli import app
from mal_graph.plain_text import FORMULA, is_number

# Bytes that a command may take on a file of a stranger, beyond what it is itself: what models may, and the stacks of
# threads, for which their bound leaves room.
MEMORY = 512 * 2**20 + 64 * 2**20
INPUTS, VICTIM = ("base.onnx", "data.npz"), "victim"  # files in the folder, and one beside it that nobody may touch
PWNED, MARKUP = "pwned", "<script>alert(1)</script>"  # what payloads write, and what pages would run
OBEYED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
TEXTS = (".html", ".svg", ".md", ".csv")  # what people open
CONTROL = re.compile(r"[^\n\x20-\x7e\xa0-\u200d\u2010-\u2029\u2030-\ufdff]")


def prepared(folder: Path) -> None:
    """A sound base and labelled data."""
    for name, content in sound().items():
        (folder / name).write_bytes(content)


@cache
def sound() -> dict[str, bytes]:
    """What the sound files hold, by name."""
    with tempfile.TemporaryDirectory() as folder:
        base, data = (Path(folder) / name for name in INPUTS)
        save(mlp((8, 16, 12, 5), seed=0), base)
        rng = np.random.default_rng(0)
        images, labels = rng.normal(size=(100, 8)).astype(np.float32), rng.integers(0, 5, 100)
        np.savez(data, x=images, labels=labels)
        return {path.name: path.read_bytes() for path in (base, data)}


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    stats = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {str(path.relative_to(folder)): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


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
    if ran.left:
        faults.append(f"left {ran.left} processes")
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
    written = (path for path in (scratch / "here").rglob("*") if path.suffix in TEXTS and path.is_file())
    for path in written:
        if fault := fault_of_text(path.suffix, path.read_text(encoding="utf-8", errors="replace")):
            faults.append(f"wrote {fault}")
    return faults


def fault_of_text(suffix: str, text: str) -> str:
    """What is wrong with what was written for people; "" where nothing is."""
    if MARKUP in text and suffix != ".csv":
        return "a page that obeys a file"
    if control := OBEYED.search(text):
        return f"{control[0]!r} to a {suffix} file"
    cells = (cell for row in csv.reader(io.StringIO(text)) for cell in row) if suffix == ".csv" else ()
    if any(cell.startswith(FORMULA) and not is_number(cell) for cell in cells):
        return "a table that computes what a file says"
    return ""


def tried(kind: Kind, is_fresh: bool = False) -> tuple[Ran, list[str]]:
    """A kind made and met, and what was wrong; models are run as `run_apart` says."""
    scratch = Path(tempfile.mkdtemp(prefix="crafted"))
    folder = scratch / "here"
    folder.mkdir()
    try:
        prepared(folder)
        kind.build(folder)
        (scratch / VICTIM).write_text(VICTIM)
        before = contents(folder)
        ran = run_apart(kind.words, folder, scratch, is_fresh)
        after = contents(folder)
        return ran, [*faults_of(kind, ran, before, after), *harm_done(scratch, before, after)]
    finally:
        shutil.rmtree(scratch)
