"""What of the promises on written files holds: audits of true files, flipped bits, and saves that are killed.

    python tools/study_trust.py -o tools/results/study_trust.md

The kinds of files are those of `tests/sealed_files.py`, the saves those of `tests/failing_calls.py`: to a file that is
there or not, with and without data beside it. Kills are given by `strace`, where it is installed, at each call of the
system that a save makes and that changes files, and at random times. Afterwards the model that is to be seen must be
the old one, the new one or none, model and data belonging together, and the same save must succeed. Exit code 1 unless
everything holds.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from failing_calls import KILLED, Case
from sealed_files import KINDS, is_caught, regions, written

import mal_graph

TESTS = Path(__file__).resolve().parents[1] / "tests"
CASES = [(has_old, has_data) for has_old in (False, True) for has_data in (False, True)]
CHANGING = "write,pwrite64,fsync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,rmdir,chmod,fchmodat"
LONGEST_SAVE = 0.06  # seconds, about
MARK = "the-save-begins"
ONCE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from failing_calls import Case
case = Case(sys.argv[2] == "True", sys.argv[3] == "True")
Path(sys.argv[4], "{mark}").mkdir()
case.saved(Path(sys.argv[4]))
"""


def audited() -> Iterator[tuple[str, str, str]]:
    """Every kind of file: whether it passes by itself, and with its inputs."""
    for kind in KINDS:
        with TemporaryDirectory() as name:
            path, models, arrays = written(kind, Path(name))
            alone, again = mal_graph.audit(path), mal_graph.audit(path, models, **arrays)
            same = all(check.passed for check in again.checks) and len(again.checks) == 3
            yield kind, "yes" if alone.passed else "NO", "yes" if same else f"NO: {again.checks}"


def flipped(count: int, rng: random.Random) -> Counter[tuple[str, bool]]:
    """How many bits that were flipped are found, and how many are not, by the part of the file."""
    results: Counter[tuple[str, bool]] = Counter()
    with TemporaryDirectory() as inside, TemporaryDirectory() as outside:
        paths = [written("blended", Path(inside))[0], written("blended", Path(outside), has_data=True)[0]]
        parts = [(path, name, *part) for path in paths for name, part in regions(path).items()]
        for number in range(count):
            path, name, file, first, end = parts[number % len(parts)]
            results[name, is_caught(path, file, rng.randrange(first, end), rng.randrange(8))] += 1
    return results


def killed_at_calls() -> Iterator[tuple[str, list[str]]]:
    """What is wrong after a save was killed at each of its calls that change files."""
    for has_old, has_data in CASES:
        case = Case(has_old, has_data)
        for call, number in calls_of(case, has_data):
            folder, before = case.prepared()
            traced(folder, case, has_data, f"inject={call}:signal=SIGKILL:when={number}")
            (folder / MARK).rmdir()
            yield call, case.judged(folder, KILLED, before)


def calls_of(case: Case, has_data: bool) -> list[tuple[str, int]]:
    """The calls of one save that change files, each with the how-manieth of its name it is in the whole program."""
    folder, _ = case.prepared()
    lines = traced(folder, case, has_data, f"trace={CHANGING}")
    shutil.rmtree(folder)
    seen: Counter[str] = Counter()
    calls: list[tuple[str, int]] = []
    has_begun = False
    for line in lines:
        call = line.split("(")[0].split()[-1]
        if not call.replace("64", "").isalpha():
            continue
        seen[call] += 1
        if has_begun:
            calls.append((call, seen[call]))
        has_begun = has_begun or MARK in line
    return calls


def traced(folder: Path, case: Case, has_data: bool, what: str) -> list[str]:
    """Run one save under strace in a process of its own; what strace says."""
    log = folder.with_name(f"{folder.name}.log")
    words = ["strace", "-f", "--seccomp-bpf", "-o", str(log), "-e", what]
    program = [sys.executable, "-c", ONCE.format(mark=MARK), str(TESTS), str(case.has_old), str(has_data), str(folder)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([*words, *program], check=False, env=environment, capture_output=True)
    lines = log.read_text().splitlines()
    log.unlink()
    return lines


def killed_at_random(count: int, rng: random.Random) -> Iterator[list[str]]:
    """What is wrong after saves that were killed at random times."""
    cases = [Case(*options) for options in CASES]
    for number in range(count):
        yield cases[number % len(cases)].run_killed_after(rng.uniform(0, LONGEST_SAVE))


def report(given: argparse.Namespace) -> tuple[list[str], bool]:
    """The tables, and whether everything holds."""
    rng = random.Random(given.seed)
    lines = ["## Audits of true files", "", "| kind | as it was written | the same from its inputs |", "|---|---|---|"]
    audits = list(audited())
    lines += [f"| {' | '.join(row)} |" for row in audits]
    bits = flipped(given.flips, rng)
    lines += ["", f"## {given.flips} flipped bits", "", "| part | found | not found |", "|---|---|---|"]
    lines += [f"| {part} | {bits[part, True]} | {bits[part, False]} |" for part in sorted({part for part, _ in bits})]
    wrong: list[str] = []
    calls: Counter[str] = Counter()
    for call, found in killed_at_calls() if shutil.which("strace") else ():
        calls[call] += 1
        wrong += found
    at_random = 0
    for found in killed_at_random(given.kills, rng):
        at_random += 1
        wrong += found
    lines += ["", "## Kills of a save", "", "| killed at | times |", "|---|---|"]
    lines += [f"| {call} | {count} |" for call, count in sorted(calls.items())]
    lines += [
        f"| a random time | {at_random} |",
        "",
        f"Wrong after these: {len(wrong)}.",
        *(f"* {one}" for one in wrong),
    ]
    is_good = (
        not wrong and all(row[1:] == ("yes", "yes") for row in audits) and not any(bits[p, False] for p, _ in bits)
    )
    return lines, is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200, help="at random times, beside those at calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the tables here too")
    given = parser.parse_args()
    lines, is_good = report(given)
    print("\n".join(lines))
    if given.output:
        head = "# What holds of written files\n\nMade by `python tools/study_trust.py`, which says what is done.\n\n"
        Path(given.output).write_text(head + "\n".join(lines) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
