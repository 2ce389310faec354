"""Runs every case of the laws of which the ordinary tests run a sample, and records how many cases hold.

    python tools/run_whole_laws.py -o tools/results/whole_laws.json

The ordinary tests run one case in so many (see `sampled` in tests/conftest.py); here all others are run. Cases that
hypothesis draws are the same each time, all others are listed in the tests. Exit code 1 unless every case passes.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5  # pytest's exit code where none was chosen


def run(report: Path, more: list[str]) -> int:
    """Run the cases with pytest, which writes a report. Returns its exit code."""
    command = [sys.executable, "-m", "pytest", "-m", "whole", "-n", "auto", "--dist", "worksteal"]
    return subprocess.run([*command, f"--junitxml={report}", *more], cwd=ROOT).returncode


def counted(report: Path) -> dict[str, dict[str, float]]:
    """How many cases of each law were run, how many failed, and how many seconds they took together."""
    laws: defaultdict[str, dict[str, float]] = defaultdict(lambda: {"cases": 0, "failed": 0, "seconds": 0.0})
    for case in ElementTree.parse(report).iter("testcase"):
        law = laws[f"{case.get('classname')}.{str(case.get('name')).partition('[')[0]}"]
        law["cases"] += 1
        law["failed"] += case.find("failure") is not None or case.find("error") is not None
        law["seconds"] = round(law["seconds"] + float(case.get("time", 0)), 1)
    return dict(sorted(laws.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="where to write what held, as JSON")
    own, more = parser.parse_known_args()
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        code = run(report, more)
        if code not in (0, 1):
            return 1 if code == NO_TESTS else code
        laws = counted(report)
    if own.output:
        own.output.write_text(json.dumps({"laws": laws}, indent=1) + "\n", encoding="utf-8")
    cases, failed = (sum(int(law[key]) for law in laws.values()) for key in ("cases", "failed"))
    print(f"{len(laws)} laws, {cases} cases, {failed} failed")
    return code


if __name__ == "__main__":
    sys.exit(main())
