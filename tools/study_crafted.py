"""Every kind of crafted file, and seeded mutations of small ones, each met by a command in a process of its own.

    python tools/study_crafted.py --mutations 0 -o tools/results/study_crafted.json
    python tools/study_crafted.py --only nothing --mutations 2000 -o tools/results/study_crafted_mutations.json
    python tools/study_crafted.py --only loop sparse --mutations 0
    python tools/study_crafted.py --verbs match compress -o tools/results/study_crafted_verbs.json

A command must end with a sentence and exit code 0, 1 or 2, say nothing that a terminal obeys, change no file that it
refuses, touch nothing outside of its folder, run nothing that a file holds, say what the kind asks for, and stay within
10 seconds of processors and 512 MB beyond what it is itself. Exit code 1 unless all do.
"""

# ruff: noqa: E402 - the tests' folder must be known before what stands in it is imported
import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

LOADED = ("onnx_format.child", "onnx_format.file", "pytorch.modules")
LOADED = (*(f"mal_graph_adapters.{name}" for name in LOADED), "mal_graph.reporting", "mal_graph.searching", "optuna")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from crafted import KINDS, Kind
from crafted.judging import MEMORY, SECONDS, own_memory, tried
from crafted.kind import MODEL
from crafted.mutations import SEED, mutations

for name in LOADED:  # once, for all copies of this process
    import_module(name)


VERBS = {  # what else meets a model
    "match": ("match", "base.onnx", MODEL, "-o", "out.html"),
    "diagram": ("diagram", MODEL, "-o", "out.svg"),
    "donor": ("assemble", "base.onnx", MODEL, "-o", "out.onnx", "--lambda", "0.3"),
    "base": ("assemble", MODEL, "base.onnx", "-o", "out.onnx", "--report", "out.html"),
    "method": ("assemble", "base.onnx", MODEL, "-o", "out.onnx", "--method", "linear"),
    "twice": ("assemble", MODEL, MODEL, "-o", "out.onnx", "--method", "union"),
    "compress": ("compress", MODEL, "-o", "out.onnx", "--budget", "0.5"),
    "evaluate": ("evaluate", "base.onnx", MODEL, "--data", "data.npz"),
    "sweep": ("sweep", "base.onnx", MODEL, "--data", "data.npz", "--lambdas", "0,0.5,1", "-o", "out.csv"),
    "zoo": ("zoo", "base.onnx", ".", "--data", "data.npz", "-o", "out/out.onnx"),
    "audit": ("audit", MODEL),
}


def through(verbs: Sequence[str]) -> list[Kind]:
    """Every model that `inspect` meets, met by other commands."""
    models = [kind for kind in KINDS.values() if kind.words == ("inspect", MODEL) and not kind.is_slow]
    return [replace(kind, name=f"{verb} {kind.name}", words=VERBS[verb], says="") for verb in verbs for kind in models]


def judged(kinds: Sequence[Kind]) -> list[dict[str, Any]]:
    """What became of each kind."""
    own, rows = own_memory(), []
    for kind in kinds:
        ran, faults = tried(kind)
        memory = ran.memory - own
        if ran.seconds > SECONDS:
            faults.append("took too long")
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
        print(f"{kind.name}: {', '.join(faults) or 'good'}", flush=True)
    return rows


def without_folders(text: str) -> str:
    """A message without the folder that the file lay in."""
    return " ".join(Path(word).name if word.startswith("/tmp/crafted") else word for word in text.split(" "))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    parser.add_argument("--only", nargs="*", default=[], help="kinds whose names hold one of these")
    parser.add_argument("--mutations", type=int, default=200)
    parser.add_argument(
        "--verbs", nargs="*", choices=VERBS, help="have these meet all models, instead of what is noted"
    )
    given = parser.parse_args()
    every = KINDS.values() if given.verbs is None else through(given.verbs)
    kinds = [kind for kind in every if not given.only or any(word in kind.name for word in given.only)]
    rows = judged([*kinds, *mutations(given.mutations)])
    failed = [row for row in rows if row["faults"]]
    whole = {
        "seed": SEED,
        "kinds": len(kinds),
        "mutations": given.mutations,
        "failed": [row["kind"] for row in failed],
        "late_only": [row["kind"] for row in failed if row["faults"] == ["took too long"]],
        "rows": [row for row in rows if row["faults"] or not row["kind"].startswith("mutation")],
    }
    print(f"{len(rows)} files, {len(failed)} with faults")
    if given.output:
        given.output.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
