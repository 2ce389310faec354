"""Merges random networks with permuted and rewritten copies of themselves: the base must come back at every lambda.

    python tools/study_equivalence.py --cases 20000 -o tools/results/study_equivalence.json
    python tools/study_equivalence.py --cases 500 --rewrite concat_order      # of one kind
    python tools/study_equivalence.py --models suite_models -o tools/results/study_equivalence_models.json
    python tools/study_equivalence.py --case 4711 --save FOLDER               # one case, with its two files

A case is drawn by its seed: a family of networks, a rewrite, for half of the cases up to three others beside it
(`--alone`: never), nearly always permuted units. `--family`, `--rewrite` and `--alone` leave the rest to the seed, so a
case is drawn again only with the same of these. The table of rewrites and what a merge may keep for each stands in
tests/equivalent_nets/rewrites.py.

Of the lambdas 0.3, 0.5 and 1, each case is assembled, checked and saved at one; at the others the same plan is
merged, and where that is not the base, the case is assembled there too.

With `--models` the cases are the ONNX files of a folder (tools/make_suite_models.py makes one), each beside a copy with
the units of its verified groups permuted and its document written otherwise. Anything may be kept there; the rows say
how much was merged. The smallest files come first, every row is written when it is there, and what OUTPUT holds is not
done again: a run that was stopped goes on.

Verdicts: right; kept too much (the base came back, but more was kept than the table allows); refused (though it should
have been merged); wrong (another function, and nothing was said); breaks (an unexpected exception). The column "alone"
counts the cases in which nothing but permuted units stands beside the rewrite. Exit code 1 unless all are right.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from equivalent_nets import (
    BREAKS,
    FAMILIES,
    LAMBDAS,
    REWRITES,
    RIGHT,
    VERDICTS,
    GeneratorError,
    Outcome,
    Pair,
    draw_pair,
    judge_pair,
    pair_of_model,
)

from mal_graph.errors import MalGraphError

NOT_DRAWN = "not drawn"  # a fault of the generator
ALL = (*VERDICTS, NOT_DRAWN)
CHUNK = 8
SHOWN = 8  # what is kept of long lists
Row = dict[str, Any]


def studied(seed: int, family: str = "", rewrite: str = "", alone: bool = False) -> Row:
    """One case, drawn and judged."""
    try:
        pair = draw_pair(seed, family, rewrite, combined=False if alone else None)
    except Exception as error:  # one in a long run is a row of it
        return undrawn(seed, family, rewrite, NOT_DRAWN, error)
    return row_of(pair, judge_pair(pair))


def studied_model(path: Path, seed: int) -> Row:
    """One file beside its permuted copy."""
    try:
        pair, inputs = pair_of_model(path, seed)
    except (GeneratorError, MalGraphError) as error:
        return undrawn(seed, path.stem, "", NOT_DRAWN, error)
    except Exception as error:
        return undrawn(seed, path.stem, "", BREAKS, error)
    return row_of(pair, judge_pair(pair, inputs=inputs))


def undrawn(seed: int, family: str, rewrite: str, verdict: str, error: Exception) -> Row:
    """A case that has no pair."""
    made = {"seed": seed, "family": family, "rewrite": rewrite, "rewrites": {}, "alone": False, "verdict": verdict}
    return {
        **made,
        "deviation": {},
        "merged": 0.0,
        "kept": [],
        "reasons": [],
        "message": f"{type(error).__name__}: {error}",
    }


def row_of(pair: Pair, outcome: Outcome) -> Row:
    """What is kept of one case."""
    return {
        "seed": pair.seed,
        "family": pair.family,
        "rewrite": pair.rewrite,
        "rewrites": dict(pair.rewrites),
        "alone": pair.is_single,
        "verdict": outcome.verdict,
        "deviation": {f"{lam:g}": float(f"{gap:.2e}") for lam, gap in outcome.deviation.items()},
        "merged": round(outcome.merged, 4),
        "kept": list(outcome.kept[:SHOWN]),
        "reasons": list(outcome.reasons[:SHOWN]),
        "message": outcome.message,
    }


def studied_all(
    one: Callable[[Any], Row], cases: Sequence[Any], processes: int, *, chunk: int = CHUNK
) -> Iterator[Row]:
    """Every case, in their order."""
    begun = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        for done, row in enumerate(pool.map(one, cases, chunksize=chunk), 1):
            if done % (25 * chunk) == 0 or done == len(cases):
                print(f"{done} of {len(cases)} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            yield row


def studied_models(folder: Path, seed: int, processes: int, output: Path | None, how: Mapping[str, Any]) -> list[Row]:
    """Every file of a folder, the smallest first; rows are written as they come."""
    before = json.loads(output.read_text(encoding="utf-8")) if output is not None and output.exists() else {}
    rows: list[Row] = [row for row in before.get("models", ()) if row["seed"] == seed]
    begun = time.monotonic() - before.get("seconds", 0)
    known = {row["family"] for row in rows}
    paths = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_size)
    missing = [path for path in paths if path.stem not in known]
    for row in studied_all(partial(studied_model, seed=seed), missing, processes, chunk=1):
        rows.append(row)
        print(model_line(row), flush=True)
        if output is not None:
            files = {"files": len(paths), "models": rows}
            write_document({**document(rows, seed, how, time.monotonic() - begun), **files}, output)
    return rows


def write_document(made: Mapping[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    written = output.with_suffix(".part")
    written.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    written.replace(output)


def counted(rows: Iterable[Row], key: str) -> dict[str, dict[str, int]]:
    """How often each verdict was given, by the value of a key."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row[key], Counter())[row["verdict"]] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def table(title: str, order: Iterable[str], all_cases: Mapping[str, Mapping], alone: Mapping[str, Mapping]) -> str:
    """Counts of verdicts as Markdown, the cases of a rewrite alone beside all of them."""
    lines = [f"| {title} | cases | {' | '.join(ALL)} | alone, right |", f"|---|{'---|' * (len(ALL) + 2)}"]
    for name in order:
        if name in all_cases:
            found, single = all_cases[name], alone.get(name, {})
            counts = " | ".join(str(found.get(verdict, 0) or "") for verdict in ALL)
            share = f"{single.get(RIGHT, 0)} of {sum(single.values())}"
            lines.append(f"| {name} | {sum(found.values())} | {counts} | {share} |")
    return "\n".join(lines)


def document(rows: Sequence[Row], first: int, how: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """All counts, and every case that is not right with what draws it again."""
    alone = [row for row in rows if row.get("alone")]
    packages = ("mal-graph", "numpy", "onnx", "onnxruntime", "scipy")
    return {
        "cases": len(rows),
        "seeds": [first, first + len(rows)],
        "drawn": dict(how),
        "lambdas": list(LAMBDAS),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "seconds": round(seconds),
        "verdicts": dict(Counter(row["verdict"] for row in rows)),
        "rewrites": counted(rows, "rewrite"),
        "rewrites_alone": counted(alone, "rewrite"),
        "families": counted(rows, "family"),
        "families_alone": counted(alone, "family"),
        "failures": [row for row in rows if row["verdict"] != RIGHT],
    }


def text(made: Mapping[str, Any]) -> str:
    """The tables, and for every rewrite that fails the smallest seeds."""
    parts = [
        table("rewrite", REWRITES, made["rewrites"], made["rewrites_alone"]),
        table("family", FAMILIES, made["families"], made["families_alone"]),
        f"verdicts: {made['verdicts']}, {made['cases']} cases in {made['seconds']} s",
    ]
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(made["failures"], key=lambda row: (not row.get("alone"), row["seed"])):
        first.setdefault((row["rewrite"], row["verdict"]), row)
    for (rewrite, verdict), row in sorted(first.items()):
        beside = "" if row.get("alone") else f", with {', '.join(sorted(set(row.get('rewrites', {})) - {rewrite}))}"
        why = row["message"] or next(iter(row["reasons"]), "") or f"deviates by {row['deviation']}"
        parts.append(f"* {rewrite}, {verdict}: seed {row['seed']} ({row['family']}{beside}): {why[:200]}")
    return "\n\n".join(parts[:3]) + "\n\n" + "\n".join(parts[3:])


def model_line(row: Row) -> str:
    """One file in one line."""
    if row["verdict"] == NOT_DRAWN or row["message"]:
        return f"{row['family']}: {row['verdict']}: {row['message'][:200]}"
    return f"{row['family']}: {row['verdict']}, {row['merged']:.0%} merged, deviates by {row['deviation']}"


def shown(seed: int, how: Mapping[str, Any], folder: Path | None) -> int:
    """One case in detail, its models saved where a folder is given."""
    import onnx

    pair = draw_pair(seed, how["family"], how["rewrite"], combined=False if how["alone"] else None)
    print(f"seed {seed}: {pair.family}, drawn for {pair.rewrite}; base and donor are {pair.apart:.1e} apart")
    for name, side in pair.rewrites.items():
        print(f"  {name} ({side}): {REWRITES[name].what}")
    for name, model in (("base", pair.base), ("donor", pair.donor)):
        print(f"\n{name}: {' '.join(node.op_type for node in model.graph.node)}")
        print("  " + ", ".join(f"{tensor.name} {list(tensor.dims)}" for tensor in model.graph.initializer))
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            onnx.save(model, folder / f"{name}.onnx")
    outcome = judge_pair(pair, assembled=LAMBDAS)
    print(f"\n{outcome.verdict}: {outcome.message or outcome.deviation}; {outcome.merged:.0%} merged")
    print(f"kept: {', '.join(outcome.kept) or 'nothing'}; allowed: {', '.join(pair.may_keep) or 'nothing'}")
    print("\n".join(f"  {reason}" for reason in outcome.reasons))
    return int(not outcome.is_right)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--family", default="", choices=["", *FAMILIES])
    parser.add_argument("--rewrite", default="", choices=["", *REWRITES])
    parser.add_argument("--alone", action="store_true", help="nothing but permuted units beside a rewrite")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="ONNX files instead of drawn networks")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, help="a JSON file")
    parser.add_argument("--case", type=int, metavar="SEED", help="show one case in detail")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="where its base.onnx and donor.onnx go")
    options = parser.parse_args()
    how = {"family": options.family, "rewrite": options.rewrite, "alone": options.alone}
    if options.case is not None:
        return shown(options.case, how, options.save)
    begun = time.monotonic()
    seeds = range(options.seed, options.seed + options.cases)
    if options.models:
        rows = studied_models(options.models, options.seed, options.processes, options.output, how)
        return int(any(row["verdict"] != RIGHT for row in rows))
    rows = list(studied_all(partial(studied, **how), seeds, options.processes))
    made = document(rows, options.seed, how, time.monotonic() - begun)
    print(text(made))
    if options.output:
        write_document(made, options.output)
    return int(bool(made["failures"]))


if __name__ == "__main__":
    sys.exit(main())
