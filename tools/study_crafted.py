"""Every kind of crafted file, and seeded mutations of small ones, each met by a command in a process of its own.

That process, and the one in which it runs models, are copies of this one, which has loaded all that commands load;
`--both` meets each file with a fresh process for models too, as commands start it, and compares what became of it.

    python tools/study_crafted.py -o tools/results/study_crafted.json
    python tools/study_crafted.py --only --mutations 10000 -o tools/results/study_crafted_mutations.json
    python tools/study_crafted.py --only --mutations 200 --both -o tools/results/study_crafted_both.json
    python tools/study_crafted.py --only --mutations 60 --operators 60 --documents 60 --wordings 60 --seed 20261201 \\
        -o tools/results/study_crafted_drawn.json
    python tools/study_crafted.py --only --again tools/results/study_crafted_mutations.json \\
        -o tools/results/study_crafted_mutations.json
    python tools/study_crafted.py --only loop sparse
    python tools/study_crafted.py --verbs --sample 150 -o tools/results/study_crafted_verbs.json
    python tools/study_crafted.py --verbs match compress

A command must end with a sentence and exit code 0, 1 or 2, say nothing that a terminal obeys, change no file that it
refuses, touch nothing outside of its folder, run nothing that a file holds, say what the kind asks for, and stay within
10 seconds of processors and 512 MB, and 64 for the stacks of threads, beyond what it is itself. Exit code 1 unless all
do.
"""

# ruff: noqa: E402 - the tests' folder must be known before what stands in it is imported
import argparse
import gc
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from crafted import KINDS, Kind
from crafted.documents import documents
from crafted.drawn import operators
from crafted.judging import MEMORY, prepared, tried
from crafted.kind import MODEL
from crafted.mutations import SEED, mutations
from crafted.running import SECONDS, Ran, load_what_is_used, own_memory
from crafted.verbs import INSPECT, VERBS, through
from crafted.words import wordings

DRAWN = {"mutations": mutations, "operators": operators, "documents": documents, "wordings": wordings}
FOLDERS = re.compile(re.escape(tempfile.gettempdir()) + r"/crafted\w+/(here/)?")
NUMBERS_OF_TIME = re.compile(r"\d+(\.\d+)?(?= (s|ms|seconds)\b)")
LATE, OTHERWISE = "took too long", "ended otherwise with a fresh process for models"


def judged(kinds: Iterable[Kind], is_both: bool = False) -> list[dict[str, Any]]:
    """What became of each kind; `is_both`: met in both ways, which is a fault where they end otherwise."""
    own, rows = own_memory(), []
    for kind in kinds:
        ran, faults = tried(kind)
        if is_both and ended(ran, faults) != ended(*tried(kind, is_fresh=True)):
            faults.append(OTHERWISE)
        memory = ran.memory - own
        if ran.seconds > SECONDS:
            faults.append(LATE)
        if memory > MEMORY:
            faults.append("took too much memory")
        said = (ran.err.strip() or ran.out.strip()).splitlines()
        rows.append(
            {
                "kind": kind.name,
                "code": ran.code,
                "seconds": round(ran.seconds, 1),
                "memory_mb": max(0, memory >> 20),
                "faults": faults,
                "said": without_folders(said[-1])[:200] if said else "",
            }
        )
        print(f"{kind.name}: {', '.join(faults) or 'good'}", *([rows[-1]["said"]] if faults else []), flush=True)
    return rows


def ended(ran: Ran, faults: list[str]) -> tuple[object, ...]:
    """How a command ended, whatever the folder and the time."""
    texts = (NUMBERS_OF_TIME.sub("", without_folders(text)) for text in (ran.out, ran.err))
    return (ran.code, *texts, *faults)


def without_folders(text: str) -> str:
    """A text without the folders that the files lay in."""
    return FOLDERS.sub("", text)


def make_ready(is_torch_used: bool) -> None:
    """Load what commands load, and let copies of this process copy as little as there is to copy."""
    if is_torch_used:
        import_module("mal_graph_adapters.pytorch.modules")
    with tempfile.TemporaryDirectory(prefix="crafted") as folder:
        prepared(Path(folder))
        shutil.copy(Path(folder) / "base.onnx", Path(folder) / MODEL)
        load_what_is_used([INSPECT, *VERBS.values()], Path(folder))
    gc.collect()
    gc.freeze()


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How all that was met ended, and what it took."""
    codes = Counter(row["code"] for row in rows)
    return {
        "files": len(rows),
        "codes": {str(code): codes[code] for code in sorted(codes)},
        "most_seconds": max((row["seconds"] for row in rows), default=0.0),
        "most_memory_mb": max((row["memory_mb"] for row in rows), default=0),
        "failed": [row["kind"] for row in rows if row["faults"]],
        "late_only": [row["kind"] for row in rows if row["faults"] == [LATE]],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--only", nargs="*", metavar="WORD", help="kinds whose names hold one of these; none without one"
    )
    for name, make in DRAWN.items():
        text = (make.__doc__ or "").split(".")[0]
        parser.add_argument(f"--{name}", type=int, default=0, metavar="COUNT", help=f"so many more: {text}")
    parser.add_argument(
        "--verbs", nargs="*", choices=VERBS, help="have these, or all, meet models, instead of what is noted"
    )
    parser.add_argument("--sample", type=int, metavar="COUNT", help="so many models for each of --verbs, not all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--again", type=Path, metavar="FILE.json", help="meet what was drawn and failed in a result")
    parser.add_argument("--both", action="store_true", help="compare with a fresh process for models")
    given = parser.parse_args()
    verbs = None if given.verbs is None else given.verbs or list(VERBS)
    every = KINDS.values() if verbs is None else through(verbs, given.sample, given.seed)
    kinds = [kind for kind in every if given.only is None or any(word in kind.name for word in given.only)]
    before = json.loads(given.again.read_text(encoding="utf-8")) if given.again else {}
    drawn = [
        made
        for name, make in DRAWN.items()
        for made in make(before.get(name, getattr(given, name)), before.get("seed", given.seed))
        if not before or made.name in before["failed"]
    ]
    make_ready(is_torch_used=bool(kinds))
    rows = judged([*kinds, *drawn], given.both)
    names = {kind.name for kind in kinds}
    failed = [row for row in rows if row["faults"]]
    whole = {
        "seed": given.seed,
        "kinds": len(kinds),
        **{name: getattr(given, name) for name in DRAWN},
        "both": given.both,
        **summary(rows),
        "rows": [row for row in rows if row["faults"] or (verbs is None and row["kind"] in names)],
    }
    if before:
        whole = {**before, "again": {**summary(rows), "rows": rows}}
    print(f"{len(rows)} files, {len(failed)} with faults")
    if given.output:
        given.output.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
