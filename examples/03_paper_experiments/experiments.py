"""The experiments that a reader of Model Assembly Learning (arXiv:2503.21657) tries first, and the next ones.

    python experiments.py EXPERIMENT --data DATA --models MODELS [--out FOLDER]
    python experiments.py all --data DATA --models MODELS --out FOLDER

EXPERIMENT is one of: barrier, narrow_donor, layers, ratios, alternation, convolutions, gap. Networks that MODELS lacks
are trained first (`tools/train_paper_models.py` says what DATA holds; the word `digits` does for a first look). Every
figure stands beside its controls. FOLDER gets a report in Markdown, and plots where matplotlib is installed.

What the paper's own widths, seeds and figures are is not known to us: these are experiments of its kinds.
"""

import argparse
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import permutations, product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import mal_graph
from mal_graph.errors import MalGraphError
from mal_graph.graph import LayerGraph
from mal_graph.merging import all_rules
from mal_graph.reporting.plots import draw_curves, draw_heat_map
from mal_graph.workflows.curves import Curve
from mal_graph.workflows.sweeping import Sweep

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from train_paper_models import DIGITS, Spec, read, trained

LAMBDAS = tuple(round(0.05 * i, 2) for i in range(21))
COARSE = tuple(round(0.1 * i, 1) for i in range(11))
LAM = 0.3  # where one lambda must do
JUDGED = 3000  # validation images that choose a lambda
CALIBRATION = 5000  # unlabelled training images that activations are measured on
EPS = 0.05  # how much more loss than the base's counts as good still, in nats
ALIGNED = "aligned"


@dataclass(frozen=True)
class Bench:
    """What an experiment is run on."""

    data: str
    models: Path
    out: Path | None

    @property
    def is_small(self) -> bool:
        return self.data == DIGITS

    def model(self, spec: Spec) -> LayerGraph:
        return trained(spec, self.data, self.models)

    def samples(self, name: str, part: str) -> dict[str, Any]:
        images, labels = getattr(read(self.data, name), part)
        return {"image": images, "labels": labels}

    def plotted(self, name: str, draw: Callable[[str], bytes]) -> Iterator[str]:
        """A plot beside the report, and the line that shows it; nothing where no report is written."""
        if self.out is not None:
            (self.out / f"{name}.svg").write_bytes(draw("svg"))
            yield f"![{name}]({name}.svg)"
            yield ""


class Experiment(NamedTuple):
    """What networks an experiment needs (smaller ones for the digits), and the lines of its report."""

    title: str
    specs: Callable[[bool], list[Spec]]
    run: Callable[[Bench], Iterator[str]]


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def header(*cells: str) -> Iterator[str]:
    yield row(*cells)
    yield "|" + "---|" * len(cells)


# --- two networks of one architecture ---------------------------------------------------------------------------


def barrier_pairs(is_small: bool) -> list[tuple[Spec, Spec]]:
    """Base and donor: of equal width, wider, and a narrower donor."""
    shapes = [((48, 48), (48, 48)), ((192, 192), (192, 192)), ((64, 64), (40, 40))]
    if not is_small:
        shapes = [((512,) * 3, (512,) * 3), ((1024,) * 3, (1024,) * 3), ((512,) * 3, (384,) * 3)]
    data, epochs = ("cifar10", 15 if is_small else 5)
    return [(Spec(data, a, 0, epochs=epochs), Spec(data, b, 1, epochs=epochs)) for a, b in shapes]


def barrier(bench: Bench) -> Iterator[str]:
    """How much the loss rises between two networks: most above the straight line between the ends."""
    yield from header("base <- donor", "arm", "barrier", "of plain", "accuracy at 0.5", "accuracy at 0 and 1")
    plots: list[str] = [""]
    for a, b in barrier_pairs(bench.is_small):
        pair, samples = (bench.model(a), bench.model(b)), bench.samples(a.data, "test")
        sweep = mal_graph.sweep(*pair, samples, lambdas=LAMBDAS, unmatched="fade")
        inputs = {"image": bench.samples(a.data, "train")["image"][:CALIBRATION]}
        signal = {"calibrate": inputs, "match_by": "activations", "repair": False}
        by_activations = mal_graph.sweep(*pair, samples, lambdas=LAMBDAS, unmatched="fade", **signal).curves[0]
        curves = {curve.arm: curve for curve in sweep.curves if curve.arm != "random donor"}
        curves["aligned by activations"] = by_activations
        plain = rise(curves["plain average"], sweep.lambdas)
        for arm, curve in curves.items():
            half = curve.points[sweep.lambdas.index(0.5)].metric
            ends = f"{curve.points[0].metric:.3f}, {curve.points[-1].metric:.3f}"
            height = rise(curve, sweep.lambdas)
            share = f"{height / plain:.1%}" if plain > 0 else "-"
            yield row(f"{widths(a)} <- {widths(b)}", arm, f"{height:.3f}", share, f"{half:.3f}", ends)
        plots += bench.plotted(f"barrier_{widths(a)}_{widths(b)}", lambda kind, sweep=sweep: draw_curves(sweep, kind))
    yield from plots


def rise(curve: Curve, lambdas: Sequence[float]) -> float:
    """The most that the loss lies above the straight line between its ends."""
    losses = np.array([point.loss for point in curve.points])
    line = np.interp(lambdas, (lambdas[0], lambdas[-1]), (losses[0], losses[-1]))
    return float((losses - line).max())


def widths(spec: Spec) -> str:
    return "-".join(map(str, spec.widths))


# --- a narrow donor in a wide base ------------------------------------------------------------------------------


def narrow_pair(is_small: bool) -> list[Spec]:
    epochs = 15 if is_small else 5
    return [Spec("mnist", (64, 64), 0, epochs=epochs), Spec("mnist", (32, 32), 1, epochs=epochs)]


def narrow_donor(bench: Bench) -> Iterator[str]:
    base, donor = narrow_pair(bench.is_small)
    for unmatched in (rule.name for rule in all_rules()):
        sweep = swept(bench, base, donor, LAMBDAS, unmatched=unmatched)
        yield f"`--unmatched {unmatched}`, lambda* at {EPS:g} more loss than the base:"
        yield ""
        yield from curves_table(sweep)
        yield ""
        yield from bench.plotted(f"narrow_donor_{unmatched}", lambda kind, sweep=sweep: draw_curves(sweep, kind))


def swept(bench: Bench, base: Spec, donor: Spec, lambdas: Sequence[float], **options: Any) -> Sweep:
    samples = bench.samples(base.data, "test")
    return mal_graph.sweep(bench.model(base), bench.model(donor), samples, lambdas=lambdas, eps=EPS, **options)


def curves_table(sweep: Sweep) -> Iterator[str]:
    yield from header("arm", "lambda*", f"loss at {LAM}", f"accuracy at {LAM}", "most loss")
    at = sweep.lambdas.index(LAM)
    for curve in sweep.curves:
        point, most = curve.points[at], max(p.loss for p in curve.points)
        yield row(curve.arm, f"{curve.lam_star:.2f}", f"{point.loss:.3f}", f"{point.metric:.3f}", f"{most:.3f}")
    yield row("base", "", f"{sweep.curves[0].points[0].loss:.3f}", f"{sweep.curves[0].points[0].metric:.3f}", "")
    if sweep.donor_scores is not None:
        yield row("donor", "", f"{sweep.donor_scores.loss:.3f}", f"{sweep.donor_scores.metric:.3f}", "")
    for line in sweep.findings:
        yield f"\n{line}"


# --- shallow against deep layers --------------------------------------------------------------------------------


def layer_pair(is_small: bool) -> list[Spec]:
    shape, epochs = ((32,) * 4, 30) if is_small else ((128,) * 5, 5)
    return [Spec("mnist", shape, 0, epochs=epochs), Spec("fashion-mnist", shape, 1, epochs=epochs)]


def layers(bench: Bench) -> Iterator[str]:
    """Each layer of a donor from other data alone in each layer of the base."""
    base, donor = layer_pair(bench.is_small)
    grid = mal_graph.grid(bench.model(base), bench.model(donor), bench.samples(base.data, "test"), lam=LAM)
    yield f"Change of the base's loss ({grid.base_loss:.3f}) at lambda {LAM}; its layers in rows, shallow first:"
    yield ""
    yield from header("base \\ donor", *grid.donor_layers)
    for name, changes in zip(grid.base_layers, grid.change, strict=True):
        yield row(name, *("-" if np.isnan(change) else f"{change:+.3f}" for change in changes))
    yield ""
    yield from bench.plotted("layers", lambda kind: draw_heat_map(grid, kind))


# --- the next checks --------------------------------------------------------------------------------------------


def ratio_specs(is_small: bool) -> list[Spec]:
    top, epochs = (64, 30) if is_small else (256, 5)
    base = Spec("mnist", (top, top), 0, epochs=epochs)
    return [base, *(Spec("mnist", (top // ratio,) * 2, 1, epochs=epochs) for ratio in (1, 2, 4, 8))]


def ratios(bench: Bench) -> Iterator[str]:
    base, *donors = ratio_specs(bench.is_small)
    yield from header("base <- donor", "unmatched", "lambda*, aligned", "plain", "random permutation", *losses_at())
    pairs = [(base, donor) for donor in donors] + [(donor, base) for donor in donors[1:]]
    for (a, b), unmatched in product(pairs, ("keep", "fade")):
        curves = {curve.arm: curve for curve in swept(bench, a, b, COARSE, verify=False, unmatched=unmatched).curves}
        three = [curves[arm] for arm in (ALIGNED, "plain average", "random permutation")]
        at = [f"{curve.points[COARSE.index(LAM)].loss:.3f}" for curve in three]
        stars = [f"{curve.lam_star:.1f}" for curve in three]
        yield row(f"{widths(a)} <- {widths(b)}", unmatched, *stars, f"{three[0].points[0].loss:.3f}", *at)


def losses_at() -> tuple[str, ...]:
    return ("loss of the base", *(f"{arm}, {LAM}" for arm in ("aligned", "plain", "random permutation")))


def alternation_pairs(is_small: bool) -> list[tuple[Spec, Spec]]:
    """One axis narrower and the other wider: the size-incompatible case."""
    epochs = 15 if is_small else 5
    shapes = [((64, 32), (32, 64))] if is_small else [((256, 128), (128, 256)), ((256, 64), (64, 256))]
    return [(Spec("mnist", a, 0, epochs=epochs), Spec("mnist", b, 1, epochs=epochs)) for a, b in shapes]


def alternation(bench: Bench) -> Iterator[str]:
    yield from header(
        "base <- donor", "start", "passes", "objective, relative to the best, before the first and after each"
    )
    for a, b in alternation_pairs(bench.is_small):
        result = mal_graph.assemble(bench.model(a), bench.model(b), lam=LAM, verify=False)
        alignment = result.merged[0].plan.alignment
        for start, history in alignment.starts:
            steps = ", ".join(f"{value / alignment.objective:.4f}" for value in history)
            yield row(f"{widths(a)} <- {widths(b)}", start, len(history) - 1, steps)


def convolution_pair(is_small: bool) -> list[Spec]:
    epochs = 15 if is_small else 3
    return [Spec("mnist", (64, 64), 0, epochs=epochs), Spec("mnist", (16, 32), 1, epochs=epochs, kind="cnn")]


def convolutions(bench: Bench) -> Iterator[str]:
    """A donor with convolutions in a perceptron."""
    base, donor = convolution_pair(bench.is_small)
    try:
        sweep = swept(bench, base, donor, COARSE)
    except MalGraphError as error:
        yield f"Refused: {error}."
        return
    yield from curves_table(sweep)


# --- what merging is worth --------------------------------------------------------------------------------------

GAP_SHAPES = ((512, 512), (256, 256), (384, 192), (512, 256))
SMALL_GAP_SHAPES = ((64, 64), (96, 48))


def gap_pairs(is_small: bool, seed: int) -> list[tuple[Spec, Spec]]:
    """Networks of different widths, trained on differently skewed halves."""
    shapes, epochs = (SMALL_GAP_SHAPES, 15) if is_small else (GAP_SHAPES, 8)
    return [
        (Spec("fashion-mnist", a, 2 * seed, "a", epochs), Spec("fashion-mnist", b, 2 * seed + 1, "b", epochs))
        for a, b in permutations(shapes, 2)
    ]


def gap_seeds(is_small: bool) -> range:
    return range(1 if is_small else 3)


def gap(bench: Bench) -> Iterator[str]:
    """Net gap closure: what the aligned merge wins of the ensemble's accuracy, less the best control's."""
    yield from header("base <- donor", "seed", "unmatched", "base", "ensemble", *ARMS, "net gap closure")
    nets: dict[str, list[float]] = {"keep": [], "fade": []}
    left_out = 0
    for seed in gap_seeds(bench.is_small):
        for a, b in gap_pairs(bench.is_small, seed):
            gained = None
            for unmatched, nets_of in nets.items():
                base, ensemble, chosen = closures(bench, a, b, unmatched)
                gained = ensemble - base
                net = net_closure(base, ensemble, chosen) if gained >= LEAST_GAIN else None
                nets_of += [] if net is None else [net]
                cells = [f"{metric:.3f}" for metric in (base, ensemble, *chosen.values())]
                yield row(f"{widths(a)} <- {widths(b)}", seed, unmatched, *cells, "-" if net is None else f"{net:+.2f}")
            left_out += gained is not None and gained < LEAST_GAIN
    yield ""
    yield from header("unmatched", "pairs", "median net gap closure", "least", "most")
    for unmatched, nets_of in nets.items():
        figures = [f"{of(nets_of):+.2f}" for of in (median, min, max)] if nets_of else ["-"] * 3
        yield row(unmatched, len(nets_of), *figures)
    yield ""
    yield (
        f"{left_out} pairs whose ensemble gains less than one point are listed and not averaged. Each arm has its "
        "lambda from the validation split; accuracies are of the test split."
    )


def net_closure(base: float, ensemble: float, chosen: Mapping[str, float]) -> float:
    """The share of the ensemble's gain that the aligned merge has, less that of the best control."""
    closed = {arm: (metric - base) / (ensemble - base) for arm, metric in chosen.items()}
    return closed[ALIGNED] - max(0.0, *(value for arm, value in closed.items() if arm != ALIGNED))


ARMS = (ALIGNED, "plain average", "random permutation", "random donor")
LEAST_GAIN = 0.01  # what the ensemble must gain in accuracy for its pair to count


def closures(bench: Bench, a: Spec, b: Spec, unmatched: str) -> tuple[float, float, dict[str, float]]:
    """Test accuracy of the base, of the ensemble, and of every arm at its own lambda."""
    base, donor = bench.model(a), bench.model(b)
    validation = {name: values[:JUDGED] for name, values in bench.samples(a.data, "validation").items()}
    test = bench.samples(a.data, "test")
    judged = mal_graph.sweep(base, donor, validation, lambdas=COARSE, verify=False, unmatched=unmatched)
    best = {
        curve.arm: max(zip(curve.points, COARSE, strict=True), key=lambda at: (at[0].metric, -at[1]))[1]
        for curve in judged.curves
    }
    told = mal_graph.sweep(base, donor, test, lambdas={LAM, *best.values()}, verify=False, unmatched=unmatched)
    chosen = {curve.arm: curve.points[told.lambdas.index(best[curve.arm])].metric for curve in told.curves}
    scores = mal_graph.assemble(base, donor, lam=LAM, verify=False, data=test).scores
    ensemble = next(score.metric for score in scores if score.arm == "ensemble")
    return told.curves[0].points[0].metric, ensemble, chosen


# --- running ----------------------------------------------------------------------------------------------------


def flat(pairs: Sequence[tuple[Spec, Spec]]) -> list[Spec]:
    return list(dict.fromkeys(spec for pair in pairs for spec in pair))


def gap_specs(is_small: bool) -> list[Spec]:
    return flat([pair for seed in gap_seeds(is_small) for pair in gap_pairs(is_small, seed)])


EXPERIMENTS: Mapping[str, Experiment] = {
    "barrier": Experiment(
        "Two networks of one architecture, and of different width", lambda small: flat(barrier_pairs(small)), barrier
    ),
    "narrow_donor": Experiment("A narrow donor in a wide base", narrow_pair, narrow_donor),
    "layers": Experiment("Shallow and deep layers of a donor from other data", layer_pair, layers),
    "ratios": Experiment("Ratios of width", ratio_specs, ratios),
    "alternation": Experiment("Alternation", lambda small: flat(alternation_pairs(small)), alternation),
    "convolutions": Experiment("A donor with convolutions in a perceptron", convolution_pair, convolutions),
    "gap": Experiment("Net gap closure on skewed halves", gap_specs, gap),
}


def report(chosen: Mapping[str, Experiment], bench: Bench) -> Iterator[str]:
    yield "# Experiments of the kinds of Model Assembly Learning"
    yield ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("mal-graph", "torch", "onnxruntime", "numpy"))
    told = "scikit-learn's digits in place of every data set" if bench.is_small else "data as the README describes them"
    yield f"{date.today()}, Python {platform.python_version()}, {packages}; {told}. Made by `python experiments.py`."
    for name, experiment in chosen.items():
        print(name, file=sys.stderr, flush=True)
        yield f"\n## {experiment.title}\n"
        yield from experiment.run(bench)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--data", required=True, help="folder of the data sets, or `digits`")
    parser.add_argument("--models", type=Path, required=True, help="where the trained networks are kept")
    parser.add_argument("--out", type=Path, help="folder for the report and the plots")
    options = parser.parse_args(words)
    chosen = EXPERIMENTS if options.experiment == "all" else {options.experiment: EXPERIMENTS[options.experiment]}
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    lines = list(report(chosen, Bench(options.data, options.models, options.out)))
    print("\n".join(lines))
    if options.out is not None:
        (options.out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
