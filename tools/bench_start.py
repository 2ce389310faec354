"""What the command line takes before it does anything: `python tools/bench_start.py -o FILE.md`.

CPU seconds of a process, the least of some runs taken in turn, beside those of an interpreter that does nothing.
"""

import argparse
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).parents[1] / "examples/01_first_merge/mlp_a.onnx"
PLAIN = "-c pass"
COMMANDS = {
    PLAIN: ["-c", "pass"],
    "--help": ["-m", "mal_graph", "--help"],
    "match --help": ["-m", "mal_graph", "match", "--help"],
    "inspect mlp_a.onnx": ["-m", "mal_graph", "inspect", str(FILE)],
}


def seconds(words: Sequence[str]) -> float:
    """The processor time of one run of the interpreter, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.repeats):
        for name, words in COMMANDS.items():
            taken[name].append(seconds(words))
    least = {name: min(times) for name, times in taken.items()}
    versions = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "typer", "rich", "pydantic", "numpy"))
    lines = [
        "# The cost of starting\n",
        f"{date.today()}, Python {platform.python_version()}, {versions}. Made by `python tools/bench_start.py`: CPU "
        f"seconds, the least of {options.repeats} runs taken in turn.\n",
        "| words | CPU s | over the bare interpreter |\n|---|---|---|",
        *(f"| `{name}` | {time:.2f} | {time - least[PLAIN]:.2f} |" for name, time in least.items()),
    ]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
