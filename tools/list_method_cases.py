"""Which merge methods are for which graphs: every method on every case of tests/method_cases.py, run.

    python tools/list_method_cases.py > tools/results/list_method_cases.md

A perceptron, a convolutional net with BatchNorms and a small transformer, as ONNX models and traced from torch, with
donors as wide as the base, wider, and narrower. A cell says that the method made a model, or why it refused the case.
Needs torch; about twenty minutes on one core.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from method_cases import CASES, merged

from mal_graph import registry
from mal_graph.errors import MalGraphError
from mal_graph.merging import run_outputs
from mal_graph.methods import MergeMethod, all_methods


def told(method: MergeMethod, case: tuple[str, str, str], reasons: dict[str, int]) -> str:
    """What became of a case; why it was refused by the number of the reason."""
    try:
        result, inputs = merged(method, *case)
    except MalGraphError as error:
        why = str(error).replace(method.name, "METHOD")
        return f"refused [{reasons.setdefault(why, len(reasons) + 1)}]"
    outputs = run_outputs(result.graph, inputs, registry.runner()).values()
    is_sound = result.passed and all(np.isfinite(values).all() for values in outputs)
    return "runs" if is_sound else "FAILS"


def main() -> None:
    reasons: dict[str, int] = {}
    print("# Merge methods, graphs and widths\n")
    print("`python tools/list_method_cases.py`; what was done stands in its docstring.\n")
    print(f"| method | {' | '.join(map(' '.join, CASES))} |")
    print(f"|{'---|' * (1 + len(CASES))}")
    for method in all_methods():
        cells = [told(method, case, reasons) for case in CASES]
        print(f"| {method.name} | {' | '.join(cells)} |", flush=True)
    print("\nWhy cases are refused:\n")
    for why, number in reasons.items():
        print(f"{number}. {why}")


if __name__ == "__main__":
    main()
