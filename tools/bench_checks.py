"""What the checks of a merge cost: CPU seconds of `assemble` with and without them, side by side in one run.

    python tools/bench_checks.py [--model resnet50] [--rounds 3]

The pair are two copies of a published architecture with weights drawn at random, from the models that come with onnx.
"""

import argparse
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
    given = parser.parse_args()
    base, donor = light(given.model, 1), light(given.model, 2)
    pairs = [(seconds(base, donor), seconds(base, donor, compare=False)) for _ in range(given.rounds)]
    with_checks, without = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{given.model}, {given.rounds} rounds, median CPU seconds of `assemble`")
    print(f"with the comparison     {with_checks:8.2f}")
    print(f"without                 {without:8.2f}")
    print(f"ratio                   {with_checks / without:8.3f}")


if __name__ == "__main__":
    main()
