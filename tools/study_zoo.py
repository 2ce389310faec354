"""What the gate of `mal-graph zoo` is worth on images that it did not see, over random zoos of small digits models.

    python tools/study_zoo.py --zoos 20 --markdown tools/results/study_zoo.md

Every zoo is a base and four donors of random widths and depths, trained on skewed halves of scikit-learn's digits, and
two copies of donors with shuffled weights, which have nothing to give. 200 images decide, 500 others are reported;
neither was trained on. Exit code 1 if the law fails: on the images that decided no result may be below its base.

Beside the result stand the base, the best merge of a single donor at any lambda (chosen on the images that decided, at
all layers, without a gate), the zoo without its controls, the zoo of the shuffled copies alone, and the ensemble of the
base and all donors. Needs torch and scikit-learn; trained models are kept in --cache.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import mal_graph
from mal_graph.evaluation.data import read_labels
from mal_graph.evaluation.scores import ensemble, predict, score
from mal_graph.workflows.steps import shuffled

WIDTHS = (32, 48, 64, 96)
DEPTHS = (1, 2, 3)
DONORS, STRANGERS = 4, 2
LAMBDAS = (0.05, 0.1, 0.2, 0.3, 0.5)
BASE, ZOO, FREE, SINGLE = "base", "zoo", "zoo without controls", "best single donor"
RANDOM, ENSEMBLE = "zoo of random donors", "ensemble"
ARMS = (BASE, ZOO, FREE, SINGLE, RANDOM, ENSEMBLE)


@dataclass(frozen=True)
class Run:
    """One zoo.

    Attributes:
        seed: of everything that is drawn.
        accepted, strangers: how many donors were accepted, and how many of them had shuffled weights.
        free: how many of the latter were accepted without controls.
        alone: how many shuffled donors were accepted in a zoo of their own.
        decided: loss and accuracy of base and result on the images that decided.
        reported: loss and accuracy of every arm on the others.
    """

    seed: int
    accepted: int
    strangers: int
    free: int
    alone: int
    decided: Mapping[str, tuple[float, float]]
    reported: Mapping[str, tuple[float, float]]


def run(seed: int, cache: Path, epochs: int | None = None) -> Run:
    """One random zoo, with its controls."""
    base, donors, decide, report = trained(seed, cache, epochs)
    strangers = [shuffled(donor, seed).named(f"random {i}") for i, donor in enumerate(donors[:STRANGERS])]
    members = [*donors, *strangers]
    order = np.random.default_rng(seed).permutation(len(members))
    mixed = [members[i] for i in order]
    gated = mal_graph.zoo(base, mixed, decide, report_data=report, seed=seed)
    free = mal_graph.zoo(base, mixed, decide, report_data=report, seed=seed, controls=0)
    alone = mal_graph.zoo(base, strangers, decide, report_data=report, seed=seed)
    names = accepted(gated)
    models = {BASE: base, ZOO: gated.assembly.graph, FREE: free.assembly.graph, RANDOM: alone.assembly.graph}
    models[SINGLE] = best_single(base, donors, decide, seed)
    reported = {arm: figures(model, report) for arm, model in models.items()}
    together = score(ensemble([predict(model, report) for model in (base, *donors)]), read_labels(report), ENSEMBLE)
    reported[ENSEMBLE] = (together.loss, together.metric)
    return Run(
        seed,
        len(names),
        *(sum(name.startswith("random") for name in accepted(one)) for one in (gated, free)),
        len(alone.assembly.merged),
        {arm: figures(models[arm], decide) for arm in (BASE, ZOO)},
        reported,
    )


def accepted(search: Any) -> list[str]:
    return [outcome.donor for outcome in search.outcomes if outcome.kept]


def figures(model: Any, data: Mapping[str, Any]) -> tuple[float, float]:
    scores = mal_graph.evaluate(model, data)
    return scores.loss, scores.metric


def best_single(base: Any, donors: Sequence[Any], decide: Mapping[str, Any], seed: int) -> Any:
    """The merge of one whole donor with the lowest loss on the images that decide, whether it is below the base's."""
    merged = [
        mal_graph.assemble(base, donor, lam=lam, seed=seed, verify=False).graph for donor in donors for lam in LAMBDAS
    ]
    return min(merged, key=lambda model: figures(model, decide)[0])


def trained(seed: int, cache: Path, epochs: int | None) -> tuple[Any, list[Any], dict[str, Any], dict[str, Any]]:
    """A base, donors, and the images that decide and those that are reported; models are read from the cache."""
    sys.path.insert(0, str(Path(__file__).parent))
    import make_digits_models as digits  # needs torch, which the tables do not

    rng = np.random.default_rng(seed)
    parts = digits.split(seed)
    limit = {} if epochs is None else {"epochs": epochs}
    models = []
    for number in range(DONORS + 1):
        widths = tuple(int(width) for width in rng.choice(WIDTHS, rng.choice(DEPTHS)))
        half = parts.train_a if number == 0 or rng.random() < 0.3 else parts.train_b
        path = cache / f"zoo_{seed}_{number}_{epochs or 'full'}.onnx"
        if not path.exists():
            digits.export(digits.train_mlp(widths, seed=100 * seed + number, data=half, **limit), path)
        models.append(mal_graph.load(path).named(f"donor {number}" if number else "base"))
    decide, report = ({"image": part.image, "labels": part.labels} for part in (parts.validation, parts.test))
    return models[0], models[1:], decide, report


# --- tables -----------------------------------------------------------------------------------------------------


def broken(runs: Sequence[Run]) -> list[int]:
    """Seeds of the zoos whose result is below its base on the images that decided."""
    return [
        one.seed
        for one in runs
        if one.decided[ZOO][1] < one.decided[BASE][1] or one.decided[ZOO][0] > one.decided[BASE][0]
    ]


def summary(runs: Sequence[Run]) -> str:
    """Every arm over all zoos, with how often and by how much it is worse than the base, as Markdown."""
    lines = [
        "| arm | loss: mean | median | accuracy: mean | median | loss above the base's | by at most | "
        "accuracy below the base's | by at most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        losses, metrics = zip(*(one.reported[arm] for one in runs), strict=True)
        rises = [one.reported[arm][0] - one.reported[BASE][0] for one in runs]
        falls = [one.reported[BASE][1] - one.reported[arm][1] for one in runs]
        cells = [f"{statistics.mean(losses):.3f}", f"{statistics.median(losses):.3f}"]
        cells += [f"{statistics.mean(metrics):.3f}", f"{statistics.median(metrics):.3f}"]
        for worse in (rises, falls):
            cells += [f"{sum(x > 1e-9 for x in worse)} of {len(runs)}", f"{max(0.0, *worse):.3f}"]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def single_rows(runs: Sequence[Run]) -> str:
    """One line a zoo."""
    lines = [
        "| seed | accepted | of them random | random alone | decided: base | zoo | reported: base | zoo | ensemble |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in runs:
        cells = [one.decided[BASE], one.decided[ZOO], *(one.reported[arm] for arm in (BASE, ZOO, ENSEMBLE))]
        text = " | ".join(f"{loss:.3f}, {metric:.3f}" for loss, metric in cells)
        lines.append(f"| {one.seed} | {one.accepted} | {one.strangers} | {one.alone} | {text} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--zoos", type=int, default=20, help="how many zoos")
    parser.add_argument("--jobs", type=int, default=2, help="how many zoos at a time")
    parser.add_argument("--cache", type=Path, help="folder of trained models, kept; a temporary one by default")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        runs = []
        with ProcessPoolExecutor(options.jobs) as pool:
            for one in pool.map(partial(run, cache=cache), range(options.zoos)):
                runs.append(one)
                print(f"zoo {one.seed}: {one.accepted} accepted", file=sys.stderr)
    below = broken(runs)
    versions = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "onnxruntime", "numpy", "torch"))
    chances = STRANGERS * len(runs)
    text = (
        f"# Results of a gated zoo on images that it did not see\n\n{len(runs)} zoos, {date.today()}, Python "
        f"{platform.python_version()}, {versions}. Made by `python tools/study_zoo.py --zoos {len(runs)}`. Each zoo: a "
        f"base, {DONORS} donors of random widths and depths, {STRANGERS} donors with shuffled weights; 200 images "
        "decide, 500 are reported; eps 0.\n\n"
        f"Law: on the images that decided no result is below its base: "
        f"{'holds' if not below else f'fails for seeds {below}'}.\n\n"
        f"On the images that decided nothing (loss is cross-entropy):\n\n{summary(runs)}\n\n"
        f"Donors with shuffled weights that were accepted: {sum(one.strangers for one in runs)} of {chances} among "
        f"real donors ({sum(one.free for one in runs)} without controls), {sum(one.alone for one in runs)} of "
        f"{chances} in zoos of their own.\n\n"
        f"Every zoo (loss, accuracy):\n\n{single_rows(runs)}\n"
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
