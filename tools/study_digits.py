"""How well merged digits models do on held-out images, beside every control, over several seeds.

    python tools/study_digits.py --seeds 5 --markdown tools/results/study_digits.md

For each seed and kind of pair two models are trained on differently skewed halves of scikit-learn's digits, merged at
lambda 0.3 and 0.5, and scored on 500 test images that neither was trained on. Exit code 1 if the law fails: for MLPs of
equal width the aligned merge must have a lower median loss than plain average and random permutation. For the other
pairs that is a goal. Needs torch and scikit-learn; trained models are kept in --cache.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mal_graph

LAMBDAS = (0.3, 0.5)
BELOW = ("plain average", "random permutation")  # what the aligned merge is held against
NAMES = {"merged": "aligned"}


class Pair(NamedTuple):
    """A kind of base and donor: what each is, and whether the claim about it is a law."""

    kind: str
    base: tuple[Sequence[int], ...]
    donor: tuple[Sequence[int], ...]
    is_law: bool


PAIRS = {
    "MLP 64-64 <- 64-64": Pair("mlp", ((64, 64),), ((64, 64),), True),
    "MLP 64-48 <- 96-64": Pair("mlp", ((64, 48),), ((96, 64),), False),
    "MLP 96-64 <- 64-48": Pair("mlp", ((96, 64),), ((64, 48),), False),
    "MLP 64-48 <- 96-64-32": Pair("mlp", ((64, 48),), ((96, 64, 32),), False),
    "CNN 16-32 <- 16-32, BatchNorm": Pair("cnn", ((16, 32), (1, 1)), ((16, 32), (1, 1)), False),
    "CNN 16-32 <- 24-40, BatchNorm": Pair("cnn", ((16, 32), (1, 1)), ((24, 40), (1, 2)), False),
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
    found = []
    for seed in seeds:
        for name, pair in pairs.items():
            base, donor, data = trained(pair, seed, cache, epochs)
            for lam in LAMBDAS:
                result = mal_graph.assemble(base, donor, lam=lam, seed=seed, data=data)
                found += [
                    Score(name, lam, seed, NAMES.get(score.arm, score.arm), score.loss, score.metric)
                    for score in result.scores
                ]
            print(f"seed {seed}, {name}: done", file=sys.stderr)
    return found


def trained(pair: Pair, seed: int, cache: Path, epochs: int | None) -> tuple[object, object, Mapping[str, object]]:
    """The two models of a pair, trained now or read from the cache, and the test images."""
    sys.path.insert(0, str(Path(__file__).parent))
    import make_digits_models as digits  # needs torch, which the tables do not

    parts = digits.split(seed)
    makers: Mapping[str, Callable[..., object]] = {"mlp": digits.train_mlp, "cnn": digits.train_cnn}
    limit = {} if epochs is None else {"epochs": epochs}
    models = []
    for side, shape, half in (("a", pair.base, parts.train_a), ("b", pair.donor, parts.train_b)):
        widths = "_".join("-".join(map(str, widths)) for widths in shape)
        path = cache / f"{pair.kind}_{widths}_{side}_{seed}_{epochs or 'full'}.onnx"
        if not path.exists():
            digits.export(makers[pair.kind](*shape, seed=2 * seed + (side == "b"), data=half, **limit), path)
        models.append(mal_graph.load(path))
    return models[0], models[1], {"image": parts.test.image, "labels": parts.test.labels}


def holds(scores: Sequence[Score], pair: str, lam: float) -> bool:
    """Whether the aligned merge has the lowest median loss of those it is held against."""
    losses = {
        arm: [s.loss for s in scores if (s.pair, s.lam, s.arm) == (pair, lam, arm)] for arm in ("aligned", *BELOW)
    }
    medians = {arm: statistics.median(values) for arm, values in losses.items()}
    return all(medians["aligned"] < medians[arm] for arm in BELOW)


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
    lines = [f"| pair | lambda | aligned below {' and '.join(BELOW)}, in the median loss | |", "|---|---|---|---|"]
    for pair, lam in dict.fromkeys((s.pair, s.lam) for s in scores):
        verdict = "yes" if holds(scores, pair, lam) else "no"
        lines.append(f"| {pair} | {lam:g} | {verdict} | {'law' if pairs[pair].is_law else 'goal'} |")
    return "\n".join(lines)


def broken_laws(scores: Sequence[Score], pairs: Mapping[str, Pair] = PAIRS) -> list[str]:
    tried = dict.fromkeys((s.pair, s.lam) for s in scores)
    return [f"{pair} at {lam:g}" for pair, lam in tried if pairs[pair].is_law and not holds(scores, pair, lam)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds")
    parser.add_argument("--cache", type=Path, help="folder of trained models, kept; a temporary one by default")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        scores = runs(range(options.seeds), cache)
    versions = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "onnxruntime", "numpy", "torch"))
    text = (
        f"# Merged digits models beside their controls\n\n{options.seeds} seeds, {date.today()}, Python "
        f"{platform.python_version()}, {versions}. Made by `python tools/study_digits.py --seeds {options.seeds}`; "
        "500 held-out images a seed. BatchNorm statistics are merged like weights, not measured again.\n\n"
        f"{claims(scores)}\n\n{table(scores)}\n"
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    broken = broken_laws(scores)
    if broken:
        print(f"the law fails for {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
