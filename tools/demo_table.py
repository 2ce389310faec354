"""What becomes of the pairs of `examples/01_first_merge`: the table that the README begins with.

    python tools/demo_table.py -o tools/results/demo_table.md

Every pair is merged as `make demo` does it, with 200 unlabelled images; half of the 500 labelled images decide which
way is taken, and the table gives accuracy on the other half. Beside the result stand its controls: the base, the base
with its last layer refitted to the ensemble on the same images, the plain average and the aligned merge of the paper at
lambda 0.3, repaired on the same images, and the ensemble.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import mal_graph
from mal_graph.evaluation import Scores, as_arrays, split_holdout
from mal_graph.workflows.verdict import REFITTED

EXAMPLE = Path(__file__).parents[1] / "examples" / "01_first_merge"
PAIRS = {
    "tuned": "fine-tuned from one",
    "twin": "MLP 64-64, twice",
    "mlp": "MLP 64-48 <- 96-64-32",
    "cnn": "residual CNN 16-32 <- 24-40",
}
COLUMNS = ("base", "donor", "result", "base, refitted", "plain average", "mal at 0.3", "ensemble")


def row_of(name: str) -> tuple[str, float, dict[str, float]]:
    """The way that was taken, its cost, and the accuracies of the result and of its controls."""
    base, donor = (mal_graph.load(EXAMPLE / f"{name}_{half}.onnx") for half in "ab")
    data, calibrate = as_arrays(EXAMPLE / "data.npz"), as_arrays(EXAMPLE / "calib.npz")
    chosen = mal_graph.assemble(base, donor, data=data, calibrate=calibrate)
    reported = split_holdout(base, data).reporting
    blended = by_arm(mal_graph.assemble(base, donor, method="mal", data=reported, calibrate=calibrate).scores)
    union = by_arm(
        mal_graph.assemble(base, donor, method="union", budget="full", data=reported, calibrate=calibrate).scores
    )
    result = by_arm(chosen.scores)
    choice = chosen.choice
    assert choice is not None  # the method was left open
    cost = next((one.cost for one in chosen.pareto if one.is_result), 1.0)
    accuracies = {
        "base": result["base"],
        "donor": result["donor"],
        "result": result["merged"],
        "base, refitted": union[REFITTED],
        "plain average": blended["plain average"],
        "mal at 0.3": blended["merged"],
        "ensemble": result["ensemble"],
    }
    return choice.taken, cost, accuracies


def by_arm(scores: tuple[Scores, ...]) -> Mapping[str, float]:
    """Accuracies by the name of the row."""
    return {score.arm: score.metric for score in scores}


def table() -> Iterator[str]:
    """The table as Markdown."""
    yield f"| base <- donor | way taken | multiplications | {' | '.join(COLUMNS)} |"
    yield f"|---|---|---|{'---|' * len(COLUMNS)}"
    for name, told in PAIRS.items():
        taken, cost, accuracies = row_of(name)
        figures = [f"{accuracies[column]:.3f}" for column in COLUMNS]
        figures[COLUMNS.index("result")] = f"**{accuracies['result']:.3f}**"
        way = taken.split(" at ")[0]
        yield f"| {told} | {way} | {cost:.2f}x | {' | '.join(figures)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    text = "\n".join(table())
    print(text)
    if options.output is not None:
        options.output.write_text(
            f"# The pairs of the demo\n\nMade by `python tools/demo_table.py`.\n\n{text}\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
