"""All benchmarks as one suite: each is run, its tables are kept beside those of earlier runs, and growth is fitted.

    python -m tools.bench [--list] [NAME ...]

Every benchmark is a script of its own (`bench_*.py`), which measures things side by side in one run and writes a table
to `results`. The suite runs those that are named, or all, one after the other, and adds what their tables say to
`results/bench.json` with the commit and the machine, and writes the newest of each to `results/bench.md`. Where a table
tells a size and what it takes, an exponent is fitted: the slope of the logarithm of the one over that of the other.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tools" / "results"
HISTORY, PAGE = RESULTS / "bench.json", RESULTS / "bench.md"
NUMBER = re.compile(r"-?[\d,]*\.?\d+(e-?\d+)?")


@dataclass(frozen=True)
class Bench:
    """One script of the suite.

    Attributes:
        name: of the script, behind `bench_`.
        words: what it is called with.
        goals: what is aimed at, in words.
        grows: (column that says what is measured, "" for one thing alone; column of sizes; columns of what they take).
    """

    name: str
    words: tuple[str, ...] = ()
    goals: str = ""
    grows: tuple[str, str, tuple[str, ...]] | None = None


SUITE = (
    Bench("start", goals="`--help` at most .3 s over the interpreter"),
    Bench(
        "stream",
        goals="at most 2 times `cp` on one core, 1.3 on two; at most 96 MiB, whatever the size",
        grows=("job", "GiB", ("processor seconds", "MiB over the imports")),
    ),
    Bench(
        "align",
        goals="at most 1.6 times the floor on copies, 2.5 on strangers; weight matching's objective reached or passed",
    ),
    Bench("assign", goals="never slower than scipy"),
    Bench(
        "groups",
        goals="5,000 and 50,000 nodes in .3 and 3 s, exponent at most 1.15",
        grows=("", "nodes", ("axis groups",)),
    ),
    Bench("match", goals="20,000 nodes in 60 s", grows=("networks", "nodes", ("CPU s", "MiB"))),
    Bench("verification", ("bert", "gpt2"), goals="20 s each, 1.2 times the model's size and 500 MB"),
    Bench("repair", goals="at most 4 forwards, at any depth", grows=("channels", "layers", ("repair (CPU s)",))),
    Bench("sweep", goals="at most 2.5 times running the model alone"),
    Bench("child", goals="at most .5 s on the demo, 10 % on sweep and verification"),
    Bench("assemble", goals="at least 4 times less than on commit 31b12e3; merges of the demo 1 s beyond imports"),
    Bench("checks"),
    Bench("methods", goals="at most 4 times the largest tensor"),
    Bench("union"),
    Bench("trace"),
    Bench("rounding"),
    Bench("ladder"),
)

Table = list[dict[str, str]]  # rows: what stands in each column, by its head


def tables_in(text: str) -> list[Table]:
    """The tables of a page of Markdown."""
    tables: list[Table] = []
    head: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
            tables.append([])
        elif not all(re.fullmatch(":?-+:?", cell) for cell in cells):
            tables[-1].append(dict(zip(head, cells, strict=False)))
    return tables


def number_in(cell: str) -> float | None:
    """The first number of a cell."""
    found = NUMBER.search(cell)
    return float(found.group().replace(",", "")) if found else None


def exponents_of(bench: Bench, tables: Sequence[Table]) -> dict[str, float]:
    """How what a table says grows with the size: the exponent, by what is measured."""
    if bench.grows is None:
        return {}
    kind, size, measures = bench.grows
    points: dict[str, list[tuple[float, float]]] = {}
    for row in (row for table in tables for row in table if size in row):
        for measure in measures:
            pair = number_in(row[size]), number_in(row.get(measure, ""))
            if pair[0] and pair[1]:
                points.setdefault(f"{row.get(kind, '')} {measure}".strip(), []).append((pair[0], pair[1]))
    return {name: round(slope(held), 2) for name, held in points.items() if len({x for x, _ in held}) > 1}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through the logarithms, by least squares."""
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def run(bench: Bench) -> dict[str, Any]:
    """What a script says, with where it was run. Raises SystemExit where it fails."""
    page = RESULTS / f"bench_{bench.name}.md"
    script = f"tools/bench_{bench.name}.py"
    takes_file = '"-o"' in (ROOT / script).read_text(encoding="utf-8")
    words = [sys.executable, script, *bench.words, *(["-o", str(page.relative_to(ROOT))] if takes_file else [])]
    start, used, load = time.perf_counter(), children(), os.getloadavg()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    tables = tables_in(page.read_text(encoding="utf-8") if takes_file else done.stdout)
    return {
        "bench": asdict(bench),
        "commit": commit(),
        "when": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load": [round(number, 1) for number in (load[0], os.getloadavg()[0])],
        "seconds": round(time.perf_counter() - start, 1),
        "processor seconds": round(children() - used, 1),
        "tables": tables,
        "exponents": exponents_of(bench, tables),
    }


def children() -> float:
    """Seconds of processors that ended processes of this one took."""
    times = os.times()
    return times.children_user + times.children_system


def commit() -> str:
    """The commit that is checked out, with a mark where files differ from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip()


def read_history() -> list[dict[str, Any]]:
    """Every run so far, the oldest first."""
    held: list[dict[str, Any]] = json.loads(HISTORY.read_text(encoding="utf-8")) if HISTORY.exists() else []
    return held


def page_of(history: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The newest run of each benchmark in Markdown."""
    yield "# Performance"
    yield "\nMade by `python -m tools.bench`: the newest run of each benchmark, ratios measured side by side in it.\n"
    newest = {run["bench"]["name"]: run for run in history}
    for bench in (bench for bench in SUITE if bench.name in newest):
        yield from lines_of(bench, newest[bench.name])


def lines_of(bench: Bench, made: dict[str, Any]) -> Iterator[str]:
    """One benchmark's part of the page."""
    load = made["load"]
    yield f"## {bench.name.capitalize()}\n"
    yield (
        f"`python -m tools.bench {bench.name}`, {made['when']}, commit {made['commit']}, {made['machine']}; "
        f"{made['processor seconds']} processor seconds, load before and after {load[0]} and {load[1]}."
    )
    if bench.goals:
        yield f"Goal: {bench.goals}."
    if made["exponents"]:
        grown = ", ".join(f"{name} {power}" for name, power in made["exponents"].items())
        yield f"Grows with the power: {grown}."
    for table in made["tables"]:
        head = list(table[0]) if table else []
        yield ""
        yield from (
            f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *(row.values() for row in table))
        )
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run, all if left out")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and end")
    given = parser.parse_args()
    known = [bench.name for bench in SUITE]
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]}: name some of {', '.join(known)}")
    if given.list:
        print("\n".join(f"{bench.name}: {bench.goals or 'no goal'}" for bench in SUITE))
        return
    for bench in (bench for bench in SUITE if not given.names or bench.name in given.names):
        made = run(bench)
        history = [*read_history(), made]
        HISTORY.write_text(json.dumps(history, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text("\n".join(page_of(history)), encoding="utf-8")
        print("\n".join(lines_of(bench, made)), flush=True)


if __name__ == "__main__":
    main()
