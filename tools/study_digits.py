"""How well merged digits models do on held-out images, beside every control, over several seeds.

    python tools/study_digits.py --seeds 5 --markdown tools/results/study_digits.md

For each seed and kind of pair two models are trained on differently skewed halves of scikit-learn's digits, merged at
lambda 0.3 and 0.5, and scored on 500 test images that neither was trained on: aligned by weights (as stored, and with
scales removed), by activations and by both, as merged and repaired, on 200 unlabelled images that no model has seen.
Exit code 1 if the law fails: for MLPs of equal width the merge aligned by weights must have a lower median loss than
plain average and random permutation. For the other pairs, and where everything is repaired, that is a goal. Needs torch
and scikit-learn; trained models are kept in --cache.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mal_graph
from mal_graph.evaluation.scores import Scores

Arrays = Mapping[str, object]

LAMBDAS = (0.3, 0.5)
BELOW = ("plain average", "random permutation")  # what the aligned merge is held against
NAMES = {"merged": "aligned"}
REPAIRED = ", repaired"
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "aligned by activations": {"match_by": "activations"},
    "aligned by both": {"match_by": "both"},
    "aligned, scale free": {"rescale_invariant": True},
    "aligned, unmatched keep": {"unmatched": "keep"},
}
UNTOUCHED = ("base", "donor", "ensemble")  # arms that repair does nothing to


class Pair(NamedTuple):
    """A kind of base and donor: what each is, and whether the claim about it is a law."""

    kind: str
    base: tuple[Sequence[int] | int, ...]
    donor: tuple[Sequence[int] | int, ...]
    is_law: bool


PAIRS = {
    "MLP 64-64 <- 64-64": Pair("mlp", ((64, 64),), ((64, 64),), True),
    "MLP 64-48 <- 96-64": Pair("mlp", ((64, 48),), ((96, 64),), False),
    "MLP 96-64 <- 64-48": Pair("mlp", ((96, 64),), ((64, 48),), False),
    "MLP 64-48 <- 96-64-32": Pair("mlp", ((64, 48),), ((96, 64, 32),), False),
    "CNN 16-32 <- 16-32, BatchNorm": Pair("cnn", ((16, 32), (1, 1)), ((16, 32), (1, 1)), False),
    "CNN 16-32 <- 24-40, BatchNorm": Pair("cnn", ((16, 32), (1, 1)), ((24, 40), (1, 2)), False),
}
TRANSFORMERS = {
    "ViT 32 x 2 <- 32 x 2, 4 heads": Pair("vit", (32, 4, 2), (32, 4, 2), False),
    "ViT 32 x 2, 4 heads <- 48 x 3, 6 heads": Pair("vit", (32, 4, 2), (48, 6, 3), False),
    "ViT 48 x 3, 6 heads <- 32 x 2, 4 heads": Pair("vit", (48, 6, 3), (32, 4, 2), False),
}


class Score(NamedTuple):
    """One arm of one run."""

    pair: str
    lam: float
    seed: int
    arm: str
    loss: float
    accuracy: float


def runs(
    seeds: Iterable[int], cache: Path, pairs: Mapping[str, Pair] = PAIRS, epochs: int | None = None
) -> list[Score]:
    """Every arm of every pair, lambda and seed."""
    rows = []
    for seed in seeds:
        for name, pair in pairs.items():
            base, donor, data, unlabelled = trained(pair, seed, cache, epochs)
            for lam in LAMBDAS:
                rows += [
                    Score(name, lam, seed, arm, score.loss, score.metric)
                    for arm, score in arms(base, donor, lam, seed, data, unlabelled).items()
                ]
            print(f"seed {seed}, {name}: done", file=sys.stderr)
    return rows


def arms(base: object, donor: object, lam: float, seed: int, data: Arrays, unlabelled: Arrays) -> dict[str, Scores]:
    """The scores of every arm of one merge."""
    plain = mal_graph.assemble(base, donor, lam=lam, seed=seed, repair=False, data=data)
    scores = {NAMES.get(score.arm, score.arm): score for score in plain.scores}
    again = partial(mal_graph.assemble, base, donor, lam=lam, seed=seed, calibrate=unlabelled, verify=False)
    repaired = {NAMES.get(score.arm, score.arm): score for score in again(data=data).scores}
    scores |= {f"{arm.removesuffix(REPAIRED)}{REPAIRED}": s for arm, s in repaired.items() if arm not in UNTOUCHED}
    for arm, options in VARIANTS.items():
        for suffix in ("", REPAIRED):
            result = again(**options, repair=bool(suffix))
            scores[f"{arm}{suffix}"] = mal_graph.evaluate(result.graph, data)
    return scores


def trained(pair: Pair, seed: int, cache: Path, epochs: int | None) -> tuple[object, object, Arrays, Arrays]:
    """The two models of a pair, trained now or read from the cache, the test images, and unlabelled ones."""
    sys.path.insert(0, str(Path(__file__).parent))
    import make_digits_models as digits  # needs torch, which the tables do not

    parts = digits.split(seed)
    makers: Mapping[str, Callable[..., object]] = {
        "mlp": digits.train_mlp,
        "cnn": digits.train_cnn,
        "vit": digits.train_vit,
    }
    limit = {} if epochs is None else {"epochs": epochs}
    models = []
    for side, shape, half in (("a", pair.base, parts.train_a), ("b", pair.donor, parts.train_b)):
        widths = "_".join("-".join(map(str, np.ravel(sizes))) for sizes in shape)
        path = cache / f"{pair.kind}_{widths}_{side}_{seed}_{epochs or 'full'}.onnx"
        if not path.exists():
            digits.export(makers[pair.kind](*shape, seed=2 * seed + (side == "b"), data=half, **limit), path)
        models.append(mal_graph.load(path))
    data = {"image": parts.test.image, "labels": parts.test.labels}
    return models[0], models[1], data, {"image": parts.validation.image}


def median(scores: Sequence[Score], pair: str, lam: float, arm: str) -> float:
    """The median loss of an arm; infinite where it was not run."""
    losses = [s.loss for s in scores if (s.pair, s.lam, s.arm) == (pair, lam, arm)]
    return statistics.median(losses) if losses else float("inf")


def holds(scores: Sequence[Score], pair: str, lam: float, suffix: str = "", below: Sequence[str] = BELOW) -> bool:
    """Whether the aligned merge has the lowest median loss of those it is held against."""
    aligned = median(scores, pair, lam, f"aligned{suffix}")
    return all(aligned < median(scores, pair, lam, f"{arm}{suffix}") for arm in below)


def table(scores: Sequence[Score]) -> str:
    """Mean, spread and median of every arm, as Markdown."""
    lines = [
        "| pair | lambda | arm | loss: mean +- sd | median | accuracy: mean +- sd | median |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair, lam, arm in dict.fromkeys((s.pair, s.lam, s.arm) for s in scores):
        rows = [s for s in scores if (s.pair, s.lam, s.arm) == (pair, lam, arm)]
        figures = [summary([s.loss for s in rows]), summary([s.accuracy for s in rows])]
        lines.append(f"| {pair} | {lam:g} | {arm} | {' | '.join(figures)} |")
    return "\n".join(lines)


def summary(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} +- {spread:.3f} | {statistics.median(values):.3f}"


def claims(scores: Sequence[Score], pairs: Mapping[str, Pair] = PAIRS) -> str:
    """What is claimed of each pair, and whether it holds."""
    lines = [
        f"| pair | lambda | aligned below {' and '.join(BELOW)}, in the median loss | | all repaired | and below the "
        "base, repaired |",
        "|---|---|---|---|---|---|",
    ]
    for pair, lam in dict.fromkeys((s.pair, s.lam) for s in scores):
        verdicts = [
            "yes" if holds(scores, pair, lam, suffix, below) else "no"
            for suffix, below in (("", BELOW), (REPAIRED, BELOW), (REPAIRED, (*BELOW, "base")))
        ]
        kind = "law" if pairs[pair].is_law else "goal"
        lines.append(f"| {pair} | {lam:g} | {verdicts[0]} | {kind} | {verdicts[1]} | {verdicts[2]} |")
    return "\n".join(lines)


def broken_laws(scores: Sequence[Score], pairs: Mapping[str, Pair] = PAIRS) -> list[str]:
    tried = dict.fromkeys((s.pair, s.lam) for s in scores)
    return [f"{pair} at {lam:g}" for pair, lam in tried if pairs[pair].is_law and not holds(scores, pair, lam)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--transformers", action="store_true", help="pairs of transformers in place of the others")
    parser.add_argument("--cache", type=Path, help="folder of trained models, kept; a temporary one by default")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args()
    pairs = TRANSFORMERS if options.transformers else PAIRS
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        scores = runs(range(options.seeds), cache, pairs)
    versions = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "onnxruntime", "numpy", "torch"))
    command = f"python tools/study_digits.py --seeds {options.seeds}{' --transformers' * options.transformers}"
    text = (
        f"# Merged digits models beside their controls\n\n{options.seeds} seeds, {date.today()}, Python "
        f"{platform.python_version()}, {versions}. Made by `{command}`; "
        "500 held-out images a seed. Repaired, and aligned by activations, on 200 unlabelled images that are in no "
        "training set and are not scored on; the base, repaired, is brought to the goals of the merge with its own "
        "weights. As merged, BatchNorm statistics are merged like weights.\n\n"
        f"{claims(scores, pairs)}\n\n{table(scores)}\n"
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    broken = broken_laws(scores, pairs)
    if broken:
        print(f"the law fails for {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
