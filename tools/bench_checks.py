"""What the checks of a merge cost: CPU seconds of `assemble` with and without them, side by side in one run.

    OMP_NUM_THREADS=1 python tools/bench_checks.py [--model resnet50] [--rounds 3] [-o FILE.md]

The pair are two copies of a published architecture with weights drawn at random, from the models that come with onnx:
strangers, the dearest case for what asks whether two models have anything to align.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from builders import light

import mal_graph


def seconds(base: object, donor: object, **options: bool) -> float:
    """CPU seconds of one merge."""
    start = time.process_time()
    mal_graph.assemble(base, donor, **options, method="mal")
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", metavar="FILE.md", help="write the table here too")
    given = parser.parse_args()
    base, donor = light(given.model, 1), light(given.model, 2)
    pairs = [(seconds(base, donor), seconds(base, donor, compare=False)) for _ in range(given.rounds)]
    threads = os.environ.get("OMP_NUM_THREADS", "one for each core")
    lines = [
        f"Two {given.model} of random weights, threads: {threads}. CPU seconds of `assemble`, round by round.",
        "",
        "| round | with the checks | without | ratio |",
        "|---|---|---|---|",
        *(row(str(number), *pair) for number, pair in enumerate(pairs, 1)),
        row("median", *(statistics.median(column) for column in zip(*pairs, strict=True))),
    ]
    print("\n".join(lines))
    if given.output:
        Path(given.output).write_text("# What the checks of a merge cost\n\n" + "\n".join(lines) + "\n")


def row(name: str, with_checks: float, without: float) -> str:
    """One line of the table."""
    return f"| {name} | {with_checks:.2f} | {without:.2f} | {with_checks / without:.3f} |"


if __name__ == "__main__":
    main()
