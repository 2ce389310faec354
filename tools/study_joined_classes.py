"""What the guard's limits are worth where classes are joined (`--labels union`): they were measured without that.

    python tools/study_joined_classes.py --seeds 60 -o tools/results/study_joined_classes.json

For each seed a perceptron learns the digits 0 to 5 of scikit-learn's images, and another one of other widths the digits
4 to 9. Either is the base once. Their union at each budget is judged by the guard on three kinds of inputs - 200
unlabelled images of all digits, those of them that show a digit which the base knows, and noise - and scored on 500
other images of all digits. A base is right at most where it knows the digit, so that a union is soon above it: the
tables say too how far the unions are below the ensemble, and below their base on the digits that this knows. The tables
are written beside the figures, as Markdown. Needs scikit-learn; takes a few minutes.
"""

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import mal_graph
from mal_graph.evaluation import predict

DIGITS = {"0-5": range(6), "4-9": range(4, 10)}
WIDTHS, DEPTHS = (24, 32, 48, 64, 96), (1, 2)
BUDGETS = (1.0, 1.25, 1.5)
INPUTS = ALL, OWN, NOISE = "images of all digits", "images of the base's digits", "noise"
TEST, UNLABELLED, EPOCHS = 500, 200, 60
ERRORS = (0.05, 0.1, 0.25, 0.5, np.inf)  # the ends of the rows of a table

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Run:
    """One union.

    Attributes:
        seed, base: of the pair; the digits of the base.
        inputs, budget: what it was made and judged on, and at which cost.
        error, accepted: what the guard says of it.
        accuracy: of union, base and ensemble on all digits.
        own: the same on the digits that the base knows.
        below: by how many standard errors of the difference the union is below base and ensemble on all digits, and
            below the base on the base's digits.
    """

    seed: int
    base: str
    inputs: str
    budget: float
    error: float
    accepted: bool
    accuracy: Mapping[str, float]
    own: Mapping[str, float]
    below: Mapping[str, float]


# --- the runs -----------------------------------------------------------------------------------------------------


def runs_of(seed: int, epochs: int = EPOCHS, budgets: Sequence[float] = BUDGETS) -> Iterator[Run]:
    """The unions of one pair."""
    from sklearn.datasets import load_digits  # the tables need none of it

    pixels, digits = load_digits(return_X_y=True)
    images, rng = (pixels / 16).astype(np.float32), np.random.default_rng(seed)
    test, unlabelled, train = np.split(rng.permutation(len(digits)), [TEST, TEST + UNLABELLED])
    models = {}
    for number, (name, known) in enumerate(DIGITS.items()):
        widths = tuple(int(width) for width in rng.choice(WIDTHS, rng.choice(DEPTHS)))
        own = train[np.isin(digits[train], known)]
        models[name] = trained(images[own], digits[own], known, widths, 2 * seed + number, epochs).named(name)
    for name, known in DIGITS.items():
        base, donor = models[name], next(model for other, model in models.items() if other != name)
        fed = {ALL: unlabelled, OWN: unlabelled[np.isin(digits[unlabelled], known)], NOISE: None}
        for inputs, chosen in fed.items():
            calibrate = None if chosen is None else {"image": images[chosen]}
            unite = {"method": "union", "labels": "union", "calibrate": calibrate, "seed": seed}
            whole = mal_graph.assemble(base, donor, budget="full", **unite)
            for budget in budgets:
                union = mal_graph.assemble(base, donor, budget=budget, **unite)
                (classes,) = union.classes.values()
                names = np.array(classes.names, int)
                said = {"union": names, "base": np.array(list(known)), "ensemble": names}
                graphs = {"union": union.graph, "base": base, "ensemble": whole.graph}
                right = {arm: is_right(graphs[arm], images[test], digits[test], said[arm]) for arm in said}
                shown = np.isin(digits[test], known)
                yield scored(seed, name, inputs, budget, union.guard, right, shown)


def trained(images: Array, digits: Array, known: Sequence[int], widths: Sequence[int], seed: int, epochs: int) -> Any:
    """A perceptron that knows some digits, and notes which."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that so many epochs are few
        found = MLPClassifier(tuple(widths), max_iter=epochs, random_state=seed).fit(images, digits)
    nodes, stored, x = [], [], "image"
    for layer, pair in enumerate(zip(found.coefs_, found.intercepts_, strict=True)):
        names = f"weight{layer}", f"bias{layer}"
        stored += [
            numpy_helper.from_array(each.astype(np.float32), name) for each, name in zip(pair, names, strict=True)
        ]
        nodes.append(helper.make_node("Gemm", [x, *names], [f"sum{layer}"]))
        x = f"sum{layer}"
        if layer < len(widths):
            nodes.append(helper.make_node("Relu", [x], [f"hidden{layer}"]))
            x = f"hidden{layer}"
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", length])
        for name, length in (("image", images.shape[1]), (x, len(known)))
    ]
    graph = helper.make_graph(nodes, "digits", declared[:1], declared[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, {"names": str({place: str(digit) for place, digit in enumerate(known)})})
    return mal_graph.load(model)


def is_right(graph: Any, images: Array, digits: Array, names: Array) -> Array:
    """Which images a model tells the digit of, by the digits that its scores are of."""
    said = predict(graph, {"image": images, "labels": np.zeros(len(images), int)}).values
    return np.asarray(names[said.argmax(axis=1)] == digits)


def scored(
    seed: int, base: str, inputs: str, budget: float, guard: Any, right: Mapping[str, Array], shown: Array
) -> Run:
    """One union beside its base and the ensemble; `shown` are the images of a digit that the base knows."""
    below = {arm: standard_errors(right[arm], right["union"]) for arm in ("base", "ensemble")}
    below["base, own digits"] = standard_errors(right["base"][shown], right["union"][shown])
    accuracy = {arm: float(each.mean()) for arm, each in right.items()}
    own = {arm: float(each[shown].mean()) for arm, each in right.items()}
    return Run(seed, base, inputs, budget, guard.error, guard.accepts, accuracy, own, below)


def standard_errors(one: Array, other: Array) -> float:
    """By how many standard errors of the difference one is right more often than another, on the same images."""
    gaps = one.astype(float) - other
    spread = gaps.std() / np.sqrt(len(gaps))
    return float(gaps.mean() / spread) if spread else 0.0


# --- the tables ---------------------------------------------------------------------------------------------------


def rows(groups: Mapping[str, Sequence[Run]]) -> str:
    """One line for each group of unions, as Markdown."""
    head = [
        "",
        "unions",
        "guard: median",
        "accepted",
        "accuracy of base",
        "union",
        "ensemble",
        "accepted below the base",
        "below the ensemble",
        "by at most",
        "on the base's digits: base",
        "union",
        "ensemble",
        "accepted below the base there",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, runs in groups.items():
        accepted = [run for run in runs if run.accepted]
        cells = [name, f"{len(runs)}", f"{np.median([run.error for run in runs]):.3f}", f"{len(accepted)}"]
        cells += [mean(run.accuracy[arm] for run in runs) for arm in ("base", "union", "ensemble")]
        cells += [count(accepted, "base"), count(accepted, "ensemble")]
        gaps = [run.accuracy["ensemble"] - run.accuracy["union"] for run in accepted]
        cells.append(f"{max(gaps):.3f}" if gaps else "-")
        cells += [mean(run.own[arm] for run in runs) for arm in ("base", "union", "ensemble")]
        cells.append(count(accepted, "base, own digits"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mean(values: Iterator[float]) -> str:
    return f"{np.mean(list(values)):.3f}"


def count(runs: Sequence[Run], arm: str) -> str:
    """How many unions are below an arm by more than a standard error."""
    return f"{sum(run.below[arm] > 1 for run in runs)} of {len(runs)}"


def grouped(runs: Sequence[Run], name_of: Callable[[Run], str]) -> dict[str, list[Run]]:
    """Runs by what they are called, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(name_of(run), []).append(run)
    return groups


def interval(run: Run) -> str:
    """Between which ends the error lies."""
    end = next(place for place, end in enumerate(ERRORS) if run.error <= end)
    start = f"{ERRORS[end - 1]:g}" if end else "0"
    return f"{run.inputs}, {start} to {ERRORS[end]:g}" if np.isfinite(ERRORS[end]) else f"{run.inputs}, over {start}"


def tables(runs: Sequence[Run]) -> str:
    """All tables, as Markdown."""
    runs = sorted(runs, key=lambda run: (INPUTS.index(run.inputs), run.budget, run.base))
    by_budget = grouped(runs, lambda run: f"{run.inputs}, {run.budget:g}x")
    by_error = grouped(sorted(runs, key=lambda run: (INPUTS.index(run.inputs), run.error)), interval)
    by_base = grouped(runs, lambda run: f"{run.inputs}, base knows {run.base}")
    return (
        f"By inputs and budget:\n\n{rows(by_budget)}\n\nBy the guard's error:\n\n{rows(by_error)}\n\n"
        f"By the base:\n\n{rows(by_base)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=60, help="how many pairs")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the figures, .json; the tables go beside them"
    )
    options = parser.parse_args()
    runs: list[Run] = []
    for seed in range(options.seeds):
        runs += runs_of(seed)
        print(f"seed {seed}: done", file=sys.stderr)
    versions = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "onnxruntime", "numpy", "scikit-learn"))
    text = (
        f"# The guard where classes are joined\n\n{options.seeds} pairs of perceptrons, each the base once, "
        f"{date.today()}, Python {platform.python_version()}, {versions}. Made by `python "
        f"tools/study_joined_classes.py --seeds {options.seeds} -o FILE`. One knows the digits 0 to 5, the other one 4 "
        f"to 9; {TEST} test images of all digits. *Below* is by more than a standard error of the difference; unions "
        f"of one pair are not independent.\n\n{tables(runs)}"
    )
    lines = ",\n".join(json.dumps(asdict(run), sort_keys=True) for run in runs)
    options.output.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
